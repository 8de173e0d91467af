//! The plan without agents: the steps for unshaped interfaces, and the assumptions about the interfaces.

use std::{iter, num::NonZero, panic::resume_unwind, thread};

use serde::Serialize;

use super::{Context, Exit, Failure, OrFail, Steps};
use crate::{
    cli::inventory_in_use::{InventoryInUse, InventoryOrigin},
    lab::Layout,
    plan::{Inventory, LineRate, NodeLocation, Tree, Wanted, diff},
    topology::{NodeName, Topology},
};

/// The assumptions of a plan without agents.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct Offline {
    /// The assumptions, as a sentence.
    pub(super) message: String,
    /// The source of the addresses and the interfaces.
    addresses: Addresses,
    /// The assumed speed of every interface.
    ///
    /// Only automatic queue limits depend on this speed.
    assumed_speed_mbit: u64,
}

/// The source of the addresses and the interfaces.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
enum Addresses {
    /// The inventory file, which has no link-local addresses, or the lab that is up.
    Inventory,
    /// The addresses and interfaces that `lab up` would give to the nodes.
    LabUp,
}

impl Offline {
    /// The nodes' addresses and interfaces: from the inventory if it is complete, otherwise as `lab up` gives them.
    pub(super) fn of(
        topology: &Topology,
        inventory_in_use: Option<&InventoryInUse>,
        context: &Context,
    ) -> Result<(Self, Inventory), Failure> {
        let located =
            inventory_in_use.map(|inventory_in_use| inventory_in_use.locations_of(topology)).transpose()?.flatten();
        let (addresses, source, inventory) = match (located, inventory_in_use) {
            (Some(inventory), Some(InventoryInUse { from, .. })) => {
                let without = if matches!(from, InventoryOrigin::Lab { .. }) { "" } else { " (no link-local ones)" };
                (Addresses::Inventory, format!("of {from}{without}"), inventory)
            }
            (_, inventory_in_use) => {
                let why = inventory_in_use
                    .map_or_else(String::new, |inventory_in_use| format!(" ({} is incomplete)", inventory_in_use.from));
                let inventory = Layout::of(topology)?.inventory(context.lab_directory()?.path());
                (Addresses::LabUp, format!("of lab up{why}"), inventory)
            }
        };
        let assumed = LineRate::UNKNOWN.mbit();
        let message =
            format!("plan without agents; assumed: no qdiscs, {} Gbit/s, addresses {source}", assumed / 1_000);
        Ok((Self { message, addresses, assumed_speed_mbit: assumed }, inventory))
    }
}

/// The steps that put a document in force on unshaped nodes: on all nodes, or on one. Each CPU computes one node at a
/// time.
pub(super) fn steps<'a>(wanted: &'a Wanted, only: Option<&'a NodeName>) -> Steps<'a> {
    let steps = move |(node, place): (&'a NodeName, &'a NodeLocation)| {
        let change = diff(wanted.shaping(node, LineRate::UNKNOWN).as_ref(), &Tree::default());
        Ok((node.clone(), place.interface.clone(), change.or_fail(Exit::Refused, node)?.steps))
    };
    let cpus = thread::available_parallelism().map_or(1, NonZero::get);
    let mut nodes = wanted.inventory.nodes.iter().filter(move |(node, _)| only.is_none_or(|only| only == *node));
    let block = move || {
        let block: Vec<_> = nodes.by_ref().take(cpus).collect();
        (!block.is_empty()).then(|| {
            thread::scope(|scope| {
                let running: Vec<_> = block.into_iter().map(|node| scope.spawn(move || steps(node))).collect();
                let join = |running: thread::ScopedJoinHandle<'_, _>| {
                    running.join().unwrap_or_else(|panic| resume_unwind(panic))
                };
                running.into_iter().map(join).collect::<Vec<_>>()
            })
        })
    };
    // No node has a topology yet, so there is always a change.
    Steps { changed: true, nodes: Box::new(iter::from_fn(block).flatten()) }
}
