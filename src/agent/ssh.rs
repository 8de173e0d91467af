//! Agents on hosts without an installed agent: a [`bridge`] from the ssh session to an agent, and the [`keeper`], an agent
//! that runs only while it is needed.

mod bridge;
mod keeper;

pub use bridge::{BridgeError, BridgeOptions, bridge};
pub use keeper::{KeeperFolder, keep};
