//! The command line as its users meet it: the real binary, what it prints, how it ends.
//!
//! These tests run on any Linux host, as root or not, with or without netem: labs are real, and where the kernel lacks
//! netem what is tested is that a change is refused and changes nothing. They need `unshare` and `setpriv`
//! (util-linux), `tc` (iproute2) and `getent` (libc), and user namespaces unless they run as root. Read [`harness`]
//! first; each other module is one subject.

mod change;
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
mod service;
mod ssh;
mod survival;
mod terminal;
mod timeout;
mod usage;
