//! The main job on a real kernel: nine namespaces, real agents, real netem, through the command line alone.
//!
//! Run by `scripts/test` inside `scripts/with-netem`. On a kernel without netem every test here fails; none skips. What
//! is measured is asserted in bands that hold on a slow and noisy machine.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on stops where it is")]

mod abilities;
mod addresses;
mod changes;
mod clocks;
mod counters;
mod deaths;
mod docs;
mod drift;
mod encapsulation;
mod firewalls;
mod guard;
mod https;
mod interfaces;
mod inventory;
mod lab;
mod link_local;
mod links;
mod live;
mod orchestrators;
mod partitions;
mod ports;
mod profiles;
mod proxy;
mod recovery;
mod rejects;
mod service;
mod sockets;
mod ssh;
mod sshd;
#[path = "../strategies/mod.rs"]
mod strategies;
mod tcp;
mod timing;
mod wan;
