//! `netemctl inventory`: writes, checks and shows inventories.

mod check;
mod draw;
mod init;
mod show;

use std::path::PathBuf;

#[cfg(test)]
pub(super) use self::{check::Checked as InventoryCheck, init::Initial as InventoryInit, show::Shown as InventoryShow};

use self::draw::draw_nodes;
use super::{
    Context, Exit, Failure, context, failure, output, render, routed,
    whereabouts::{Given, Whence, Whereabouts, nowhere},
};

/// Write, check and show inventories: where the nodes are
///
/// Commands use the first of: the file of --inventory or its environment variable, the table `[inventory]` of their
/// topology file, the lab that is up. docs/inventory.md describes the format.
#[derive(Debug, clap::Args)]
pub(super) struct InventoryArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    Init(init::Init),
    Check(check::Check),
    Show(show::Show),
}

impl InventoryArgs {
    pub(super) fn run(self, context: &Context) -> Result<Exit, Failure> {
        match self.verb {
            Verb::Init(verb) => verb.run(context),
            Verb::Check(verb) => verb.run(context),
            Verb::Show(verb) => verb.run(context),
        }
    }
}

/// The inventory for `check` and `show`.
#[derive(Debug, clap::Args)]
struct Which {
    /// Inventory file, or topology with an [inventory] table [default: the inventory in use]
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
}

impl Which {
    fn whereabouts(self, context: &Context) -> Result<Whereabouts, Failure> {
        let whereabouts = match self.file {
            Some(file) => Whereabouts::of_file(&Given::file(file))?,
            None => context.find_nodes(None)?.ok_or_else(nowhere)?,
        };
        context.warn(whereabouts.file.warnings());
        Ok(whereabouts)
    }
}
