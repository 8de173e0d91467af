//! `netemctl inventory`: where the nodes are, asked, written down, compared with what there is.

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

/// Say where the nodes are: write an inventory file from what the hosts say, or check one
///
/// Commands take the first of these: the file after --inventory, the one that the environment names, the table
/// `[inventory]` of the topology file that they are about, the lab that is up. docs/inventory.md has the language.
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

/// Which inventory `check` and `show` are about.
#[derive(Debug, clap::Args)]
struct Which {
    /// The inventory file, or a topology with an [inventory] table; else the one that other commands would take
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
