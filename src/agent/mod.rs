//! The agent: the privileged daemon on a node, which owns its node's kernel state.
//!
//! [`Node`] is the whole of its behaviour, without any transport: what it refuses ([`guard`]), how it prepares,
//! commits, reads back and undoes, and what it ends by itself ([`deadlines`]). [`server`] puts it behind HTTP.

mod config;
mod deadlines;
mod guard;
mod node;
mod server;
mod specimen;
#[cfg(test)]
mod tests;
mod trial;

pub use config::{Config, ConfigError};
pub use node::Node;
pub use server::{ServeError, serve};
