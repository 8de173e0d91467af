//! The agent: the privileged daemon on a node, which owns the node's kernel state.
//!
//! [`Node`] is the agent without a transport: checks, changes, rollback, repair and the journal. [`Node`] reads no
//! clock: [`time`] reads the clocks and computes when timed changes begin and end. [`dry_run`] tries changes in a
//! scratch network namespace. [`server`] serves a node over HTTP. [`ssh`] runs an agent on hosts without an installed
//! agent.

mod config;
mod dry_run;
mod error;
mod facts;
mod node;
mod server;
mod ssh;
#[cfg(test)]
pub(crate) mod tests;
mod time;
mod via;

pub(crate) use node::journal;

pub use config::{AfterReboot, Config, ConfigError, Exception};
pub use dry_run::{Sandbox, Trial, TrialError};
pub use facts::{FactsError, facts_here, lacks_shaping};
pub use node::{JournalError, Need, Node};
pub use server::{CredentialsError, Limits, ServeError, serve};
pub use ssh::{BridgeError, BridgeOptions, KeeperFolder, bridge, keep};
pub use time::Now;
pub use via::Via;
