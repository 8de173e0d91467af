//! `netemctl send-namespace-socket`: makes a network namespace for an agent without `CAP_SYS_ADMIN`.
//!
//! The agent starts this command with a socket as stdin.

use std::io;

use super::{Exit, Failure, OrFail};
use crate::kernel::send_namespace_socket;

/// Make a network namespace and send a netlink socket of it to the agent at stdin
#[derive(Debug, clap::Args)]
pub(super) struct SendNamespaceSocket {}

impl SendNamespaceSocket {
    #[expect(clippy::unused_self, reason = "all verbs have the same signature")]
    pub(super) fn run(&self) -> Result<Exit, Failure> {
        let sent = send_namespace_socket(io::stdin()).map(|()| Exit::Ok);
        sent.or_fail(Exit::Failed, "cannot send the network namespace to stdin")
    }
}
