//! `netemctl unset`: take changes of links off again.

use super::{Context, Exit, Failure, apply, scope::ScopeOptions};
use crate::fleet::Edit;

/// Take changes off that were laid over links: all of them, or those that are named
///
/// What lies below them is in force again. A name may be its beginning up to a colon.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  netemctl unset            all of them
  netemctl unset Z1:Z3      all whose names begin with Z1:Z3:
  netemctl unset storm")]
pub(super) struct Unset {
    /// The change's name, as status shows it
    #[arg(value_name = "NAME")]
    names: Vec<String>,

    #[command(flatten, next_help_heading = "Fleet")]
    scope: ScopeOptions,
}

impl Unset {
    pub(super) fn run(self, context: &Context) -> Result<Exit, Failure> {
        apply::remove(context, &self.scope, Edit::default(), |wanted, inventory| {
            wanted.without_overlays(&self.names, inventory)
        })
    }
}
