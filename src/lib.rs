//! netemctl turns a flat LAN into the WAN that a TOML file describes, partitions this WAN on command, and measures it.
//!
//! ```text
//! file ─► Topology ─► Wanted ─► Shaping ─► Change ─► netlink batch ─► read back ─► measured
//! ```
//!
//! - [`topology`] parses topology files, and [`inventory`] parses inventory files.
//! - [`plan`] has the wanted state, and computes the kernel steps of a node. It does no I/O.
//! - [`kernel`] is the only module that uses netlink.
//! - [`agent`] runs on each node, and [`fleet`] runs on the controller.
//! - [`wire`] has the requests and replies between the controller and agents. [`pki`] has their TLS and
//!   certificates.
//! - [`probe`] measures links, and [`report`] writes the results as files. [`doctor`] judges hosts before anything is
//!   applied.
//! - [`lab`] runs nodes in network namespaces of one machine.
//! - [`cli`] has the commands.
//!
//! Dependencies have one direction: `cli → fleet → wire → plan → topology`, `agent → kernel → plan → topology`,
//! `lab → kernel`. New readers start with [`plan::Wanted`].

// Unit tests share modules with the integration tests in `tests/`. These modules use the crate's name in paths.
#[cfg(test)]
extern crate self as netemctl;

pub mod agent;
pub mod cli;
pub mod doctor;
mod files;
pub mod fleet;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod inventory;
pub mod kernel;
pub mod lab;
pub mod pki;
pub mod plan;
pub mod probe;
pub mod report;
pub mod topology;
pub mod wire;

#[cfg(test)]
mod openapi;

#[cfg(test)]
#[path = "../tests/fake_kernel/mod.rs"]
mod fake_kernel;
#[cfg(test)]
#[path = "../tests/strategies/mod.rs"]
mod strategies;
