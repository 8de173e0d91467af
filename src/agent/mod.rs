//! The agent: the privileged daemon on a node, which owns its node's kernel state.
//!
//! [`Node`] is the whole of its behaviour, without any transport: what it refuses ([`guard`]), how it prepares,
//! commits, reads back, keeps and rolls back ([`enforcer`]), what it begins and ends by itself ([`timeline`]), what it does
//! about what others do ([`drift`]), and what it remembers when it is killed ([`journal`]). [`server`] puts it behind HTTP,
//! [`listener`] says where, [`reception`] and [`connections`] see to it that no client holds up another. Where nobody has
//! installed it, [`bridge`] leads to a [`keeper`].

mod alarm;
mod bridge;
mod claim;
mod clock;
mod config;
mod connections;
mod credentials;
mod drift;
mod enforcer;
mod guard;
mod host;
#[cfg(not(any(test, fuzzing)))]
mod journal;
#[cfg(any(test, fuzzing))]
pub(crate) mod journal;
mod keeper;
mod listener;
mod node;
mod reception;
mod server;
mod specimen;
mod status;
mod supervisor;
#[cfg(test)]
pub(crate) mod tests;
mod throttle;
mod timeline;
mod transactions;
mod trial;
mod via;

pub use bridge::{BridgeError, Caller, bridge};
pub use clock::Now;
pub use config::{AfterReboot, Config, ConfigError, Exception};
pub use connections::Limits;
pub use credentials::CredentialsError;
pub use journal::JournalError;
pub use keeper::{KeeperFolder, Need, keep};
pub use node::Node;
pub use server::{ServeError, serve, serve_with};
pub use via::Via;
