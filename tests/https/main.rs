//! Agents behind HTTPS, and who may talk to whom: a real server and real clients on the loopback, over a kernel in memory.
//!
//! Read [`site`] first; each other module is one subject.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on stops where it is")]

#[path = "../fake_kernel/mod.rs"]
mod fake_kernel;
mod hostile;
mod kept;
mod rotation;
mod site;
mod trust;
