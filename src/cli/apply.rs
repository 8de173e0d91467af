//! `netemctl apply`, and what all verbs that change something have in common.

use std::{collections::BTreeMap, path::PathBuf};

use serde::Serialize;

use super::{
    Context, Exit, Failure, partition,
    partitions::{Parted, parted, sentence},
    render::count,
    topology_file,
};
use crate::{
    fleet::Outcome,
    plan::{EditError, Inventory, Wanted},
    topology::NodeName,
};

/// Put a topology in force: on all nodes or on none, read back from every kernel
///
/// Partitions stay in force, and so do changes that `set` has laid over links, between the same nodes as before. Applying what is in force already changes nothing and writes nothing.
#[derive(Debug, clap::Args)]
pub(super) struct Apply {
    /// The topology file, or - for stdin
    #[arg(value_name = "TOPOLOGY")]
    file: PathBuf,
}

impl Apply {
    pub(super) fn run(&self, context: &Context) -> Result<Exit, Failure> {
        let topology = topology_file::read(&self.file)?;
        change(context, true, |wanted, inventory| wanted.with_topology(topology, inventory))
    }
}

/// What is in force after a change, and what it took.
#[derive(Serialize)]
struct Changed<'a> {
    changed: bool,
    generation: u64,
    topology: Option<&'a str>,
    overlays: Vec<&'a str>,
    partitions: Vec<Parted>,
    /// What the dice started from, if anything was drawn.
    #[serde(skip_serializing_if = "Option::is_none")]
    seed: Option<u64>,
    nodes: usize,
    writes: &'a BTreeMap<NodeName, usize>,
}

/// Edits what is in force on all nodes and says what that came to.
pub(super) fn change(
    context: &Context,
    replaces: bool,
    edit: impl FnOnce(&Wanted, Inventory) -> Result<Wanted, EditError>,
) -> Result<Exit, Failure> {
    change_with(context, replaces, None, edit)
}

/// The same, and says what the dice started from.
pub(super) fn change_with(
    context: &Context,
    replaces: bool,
    seed: Option<u64>,
    edit: impl FnOnce(&Wanted, Inventory) -> Result<Wanted, EditError>,
) -> Result<Exit, Failure> {
    let fleet = context.fleet()?;
    let outcome = Context::block_on(async |interrupt| {
        let what = format!("changing {}", count(fleet.inventory().nodes.len(), "node"));
        let edit = |wanted: &Wanted| edit(wanted, fleet.inventory().clone());
        Ok(Context::meanwhile(&what, fleet.edit(replaces, &interrupt, edit)).await?)
    })?;
    let Outcome { wanted, writes } = &outcome;
    let steps: usize = writes.values().sum();
    let changed = Changed {
        changed: steps > 0,
        generation: wanted.generation,
        topology: wanted.topology.as_ref().map(crate::topology::Topology::name),
        overlays: wanted.overlays.iter().map(|overlay| overlay.name.as_str()).collect(),
        partitions: parted(wanted, partition::now()),
        seed,
        nodes: writes.len(),
        writes,
    };
    context.answer(&changed, || {
        let did = match steps {
            0 => "nothing to change".to_owned(),
            _ => format!(
                "changed {}, {}",
                count(writes.values().filter(|steps| **steps > 0).count(), "node"),
                count(steps, "step")
            ),
        };
        let seed = seed.map(|seed| format!("; seed {seed}")).unwrap_or_default();
        format!("{}; {did}{seed}", in_force(wanted))
    })?;
    Ok(Exit::Ok)
}

/// What is in force, in a sentence.
pub(super) fn in_force(wanted: &Wanted) -> String {
    if wanted.is_clear() {
        return "nothing is in force: every interface is as it was found".to_owned();
    }
    let topology = wanted.topology.as_ref().map(|topology| format!("topology {}", topology.name()));
    let partitions = wanted.partitions.iter().map(|partition| sentence(wanted, partition));
    let overlays = wanted.overlays.iter().map(|overlay| {
        let end = if overlay.lasts.is_some() { " (ends by itself)" } else { "" };
        format!("change {}{end}", overlay.name)
    });
    let parts: Vec<String> = topology.into_iter().chain(overlays).chain(partitions).collect();
    format!("in force on {}: {}", count(wanted.inventory.nodes.len(), "node"), parts.join(", "))
}
