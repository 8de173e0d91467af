//! `netemctl partition`: cut nodes off from each other.

use super::{Context, Exit, Failure, apply};

/// Cut zones or nodes off: each SIDE reaches itself and nobody else
///
/// Nodes that no side names are together one more side, the rest. What is cut is dropped silently at both ends, packets
/// in flight included. Links keep their delays. Partitions add up; a repeated one changes nothing.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  netemctl partition Z3           Z3 | the rest
  netemctl partition Z1 Z2        Z1 | Z2 | the rest
  netemctl partition Z1,n4        Z1 and n4 together | the rest
  netemctl partition n[1-2] n3    n1 and n2 together | n3 | the rest")]
pub(super) struct Partition {
    /// A zone, a node, a hostlist, or several of them separated by commas
    #[arg(required = true, value_name = "SIDE")]
    sides: Vec<String>,

    /// What to call it when it is healed [default: the sides]
    #[arg(long)]
    name: Option<String>,
}

impl Partition {
    pub(super) fn run(self, context: &Context) -> Result<Exit, Failure> {
        apply::change(context, false, |wanted, inventory| wanted.with_partition(self.name, &self.sides, inventory))
    }
}
