//! Agents with HTTPS: authentication, rights and limits. Server and clients are real and use the loopback. The kernel
//! is fake.
//!
//! [`site`] starts the agent. Each other module covers one subject.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod compressed;
#[path = "../fake_kernel/mod.rs"]
mod fake_kernel;
mod hostile;
mod kept;
mod rotation;
mod site;
mod trust;
