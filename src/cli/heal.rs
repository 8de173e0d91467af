//! `netemctl heal`: ends partitions.

use super::{Context, Exit, Failure, apply, scope::ScopeOptions};
use crate::fleet::Edit;

/// End partitions
///
/// Without a name, ends all.
#[derive(Debug, clap::Args)]
pub(super) struct Heal {
    /// Name of the partition, as status shows it
    #[arg(value_name = "NAME")]
    names: Vec<String>,

    #[command(flatten, next_help_heading = "Fleet")]
    scope: ScopeOptions,
}

impl Heal {
    pub(super) fn run(self, context: &Context) -> Result<Exit, Failure> {
        apply::change(context, &self.scope, Edit::default(), true, |wanted, inventory| {
            wanted.healed(&self.names, inventory)
        })
    }
}
