//! Tests of the command line with the real binary: output, exit codes and effects.
//!
//! The tests run on any Linux host, as root or as an ordinary user, with or without netem. Labs are real. If the kernel
//! lacks netem, the tests check that a change is refused and has no effect. They need `unshare` and `setpriv`
//! (util-linux), `tc` (iproute2) and `getent` (libc). Without root they also need user namespaces. [`harness`] has the
//! helpers. Each other module covers one subject.

mod benchmarks;
mod change;
mod doctor;
mod documents;
mod examples;
mod files;
mod hanging;
mod harness;
mod help;
mod host;
mod hostile;
mod install;
mod inventory;
mod lab;
mod live;
mod offline;
mod partition;
mod pki;
mod programs;
mod report;
mod service;
mod ssh;
mod survival;
mod terminal;
mod timeout;
mod usage;
