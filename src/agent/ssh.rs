//! Connects ssh sessions to agents, also on hosts without an installed agent.
//!
//! The [`bridge`] connects an ssh session to an agent. The [`keeper`] is a temporary agent, which exits when it is not
//! needed.

mod bridge;
mod keeper;

pub(super) use bridge::host_name;
pub use bridge::{BridgeError, BridgeOptions, bridge};
pub use keeper::{KeeperFolder, keep};
