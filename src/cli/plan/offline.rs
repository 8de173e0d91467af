//! The plan without agents: what each node would get if its interface has nothing, and what is assumed of it.

use std::fmt;

use serde::Serialize;

use super::{Context, Exit, Failure, Steps};
use crate::{
    cli::inventory_in_use::{InventoryInUse, InventoryOrigin},
    lab::Layout,
    plan::{Inventory, LineRate, Tree, Wanted, diff},
    topology::Topology,
};

/// What a plan goes by for which no agent was asked.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct Offline {
    /// The same as a sentence.
    message: String,
    /// Where the addresses and the interfaces come from.
    addresses: Addresses,
    /// The speed that is assumed of every interface. Only the limits that are chosen automatically depend on it.
    assumed_speed_mbit: u64,
}

/// Where the addresses and the interfaces come from.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
enum Addresses {
    /// The inventory, which has no link-local addresses, or the lab that is up.
    Inventory,
    /// What `lab up` would give the nodes.
    LabUp,
}

impl Offline {
    /// Where the nodes are: as the inventory says, else where `lab up` would put them.
    pub(super) fn of(
        topology: &Topology,
        inventory_in_use: Option<&InventoryInUse>,
        context: &Context,
    ) -> Result<(Self, Inventory), Failure> {
        let said = inventory_in_use.map(|inventory_in_use| inventory_in_use.said_of(topology)).transpose()?.flatten();
        let (addresses, source, inventory) = match (said, inventory_in_use) {
            (Some(inventory), Some(InventoryInUse { from, .. })) => {
                let without = if matches!(from, InventoryOrigin::Lab { .. }) { "" } else { " (no link-local ones)" };
                (Addresses::Inventory, format!("of {from}{without}"), inventory)
            }
            (_, inventory_in_use) => {
                let why = inventory_in_use.map_or_else(String::new, |inventory_in_use| {
                    format!(" ({} does not say all)", inventory_in_use.from)
                });
                let inventory = Layout::of(topology)?.inventory(context.lab_directory()?.path());
                (Addresses::LabUp, format!("as lab up gives them{why}"), inventory)
            }
        };
        let assumed = LineRate::UNKNOWN.mbit();
        let message = format!(
            "no agents asked: for untouched interfaces, limits for {} Gbit/s (speed unknown), addresses {source}",
            assumed / 1_000
        );
        Ok((Self { message, addresses, assumed_speed_mbit: assumed }, inventory))
    }
}

impl fmt::Display for Offline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// The steps that put a topology in force on nodes that have nothing.
pub(super) fn steps(topology: Topology, inventory: Inventory) -> Result<Steps, Failure> {
    let wanted = Wanted::default().with_topology(topology, inventory)?;
    let nodes = wanted.inventory.nodes.iter().map(|(node, place)| {
        let change = diff(wanted.shaping(node, LineRate::UNKNOWN).as_ref(), &Tree::default());
        let change = change.map_err(|blocked| Failure::new(Exit::Refused, format!("{node}: {blocked}")))?;
        Ok((node.clone(), (place.interface.clone(), change.steps)))
    });
    let nodes = nodes.collect::<Result<_, Failure>>()?;
    // No node has any topology yet.
    Ok(Steps { changed: true, nodes })
}
