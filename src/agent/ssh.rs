//! Agents on hosts where nobody has installed one: a [`bridge`] from the ssh session to an agent, and the [`keeper`], an
//! agent that runs only as long as it is needed.

mod bridge;
mod keeper;

pub use bridge::{BridgeError, BridgeOptions, bridge};
pub use keeper::{KeeperFolder, keep};
