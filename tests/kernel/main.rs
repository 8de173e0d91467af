//! The main job on a real kernel: nine namespaces, real agents, real netem, through the command line alone.
//!
//! Run by `scripts/test` inside `scripts/with-netem`. On a kernel without netem every test here fails; none skips. What
//! is measured is asserted in bands that hold on a slow and noisy machine.

mod changes;
mod guard;
mod lab;
mod partitions;
mod sockets;
mod wan;
