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
    Context, Exit, Failure, NodeFailure, OrFail, context, exit_of,
    inventory_in_use::{InventoryArgument, InventoryInUse, InventoryOrigin},
    node_lookup::no_inventory,
    output, render, routed,
};

/// Write, check and show inventories: where the nodes are
///
/// docs/inventory.md describes the format.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Commands use the first of these:
  1. --inventory FILE
  2. NETEMCTL_INVENTORY
  3. the [inventory] table of their topology file
  4. the lab that is up")]
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

/// The argument FILE of `check` and `show`.
#[derive(Debug, clap::Args)]
struct FileArgument {
    /// Inventory file, or topology with an [inventory] table [default: the inventory in use]
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
}

impl FileArgument {
    fn inventory_in_use(self, context: &Context) -> Result<InventoryInUse, Failure> {
        let inventory_in_use = match self.file {
            Some(file) => InventoryInUse::of_file(&InventoryArgument::file(file))?,
            None => context.find_inventory(None)?.ok_or_else(|| no_inventory(context.lab_directory().ok().as_ref()))?,
        };
        context.warn(inventory_in_use.file.warnings());
        Ok(inventory_in_use)
    }
}
