//! The agent: the privileged daemon on a node, which owns its node's kernel state.
//!
//! [`Node`] is the whole of its behaviour, without any transport: what it refuses ([`guard`]), how it prepares,
//! commits, reads back and undoes ([`enforcer`]), what it begins and ends by itself ([`timeline`]), and what it
//! remembers when it is killed ([`journal`]). [`server`] puts it behind HTTP.

mod clock;
mod config;
mod enforcer;
mod guard;
mod journal;
mod node;
mod server;
mod specimen;
mod status;
#[cfg(test)]
mod tests;
mod timeline;
mod trial;

pub use clock::Now;
pub use config::{Config, ConfigError};
pub use journal::JournalError;
pub use node::Node;
pub use server::{ServeError, serve};
