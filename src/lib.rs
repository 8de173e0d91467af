//! netemctl turns a flat LAN into the WAN that a TOML file describes, cuts it on command, and measures that it is there.
//!
//! ```text
//! file ─► Topology ─► Wanted ─► Shaping ─► Change ─► netlink batch ─► read back ─► measured
//! ```
//!
//! [`topology`] and [`plan`] are pure; [`kernel`] alone speaks netlink; [`agent`] runs on a node, [`fleet`] on the
//! controller, [`wire`] is what they say to each other; [`pki`] makes the certificates that they know
//! each other by; [`probe`] measures; [`lab`] makes nodes out of namespaces;
//! [`cli`] is the command line. Arrows run one way: `cli → fleet → wire → plan → topology`,
//! `agent → kernel → plan → topology`, `lab → kernel`. Nothing below knows what is above. Read [`plan::Wanted`] first.

// For what the unit tests share with those in `tests/`, which know this crate by its name only.
#[cfg(test)]
extern crate self as netemctl;

pub mod agent;
pub mod cli;
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
