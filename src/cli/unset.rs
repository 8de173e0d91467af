//! `netemctl unset`: removes changes that `set` made.

use super::{Context, Exit, Failure, apply, scope::ScopeOptions};
use crate::fleet::Edit;

/// Remove changes made by set
///
/// Without a name, removes all. A name may be shortened to its beginning up to a colon.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  netemctl unset            remove all changes
  netemctl unset Z1:Z3      remove changes with names that begin with Z1:Z3:
  netemctl unset storm")]
pub(super) struct Unset {
    /// Name of the change, as status shows it
    #[arg(value_name = "NAME")]
    names: Vec<String>,

    #[command(flatten, next_help_heading = "Fleet")]
    scope: ScopeOptions,
}

impl Unset {
    pub(super) fn run(self, context: &Context) -> Result<Exit, Failure> {
        apply::change(context, &self.scope, Edit::default(), true, |wanted, inventory| {
            wanted.without_overlays(&self.names, inventory)
        })
    }
}
