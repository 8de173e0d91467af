//! `netemctl lend-network`: for an agent without `CAP_SYS_ADMIN`, which starts it with a socket as its stdin.

use std::io;

use super::{Exit, Failure};
use crate::kernel::lend;

/// Make a network namespace and hand a socket of it to the agent that is at the other end of stdin
#[derive(Debug, clap::Args)]
pub(super) struct Lend {}

impl Lend {
    #[expect(clippy::unused_self, reason = "every verb is run the same way")]
    pub(super) fn run(&self) -> Result<Exit, Failure> {
        let failed =
            |error| Failure::new(Exit::Failed, format!("cannot hand the network namespace over by stdin: {error}"));
        lend(io::stdin()).map(|()| Exit::Ok).map_err(failed)
    }
}
