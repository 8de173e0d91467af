//! `netemctl clear`: give everything back.

use super::{Context, Exit, Failure, apply};
use crate::plan::Wanted;

/// Clear everything: no topology, no change, no partition, every interface as it was found
#[derive(Debug, clap::Args)]
pub(super) struct Clear {}

impl Clear {
    #[expect(clippy::unused_self, reason = "every verb is run the same way")]
    pub(super) fn run(&self, context: &Context) -> Result<Exit, Failure> {
        apply::change(context, true, Wanted::cleared)
    }
}
