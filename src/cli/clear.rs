//! `netemctl clear`: removes everything and restores the interfaces.

use super::{Context, Exit, Failure, apply, scope::ScopeOptions};
use crate::{fleet::Edit, plan::Wanted};

/// Remove topology, changes and partitions
///
/// Restores every interface.
#[derive(Debug, clap::Args)]
pub(super) struct Clear {
    #[command(flatten, next_help_heading = "Fleet")]
    scope: ScopeOptions,
}

impl Clear {
    pub(super) fn run(&self, context: &Context) -> Result<Exit, Failure> {
        apply::change(context, &self.scope, Edit::replacing(), true, Wanted::cleared)
    }
}
