//! `netemctl plan`: shows the steps that `apply` would make.
//!
//! The agents compute the steps from the present state of their kernels. Without agents, the plan is for unshaped
//! interfaces.

mod offline;

use std::{collections::BTreeMap, path::PathBuf};

use serde::Serialize;
use tokio_util::sync::CancellationToken;

use self::offline::Offline;
use super::{Context, Exit, Failure, OrFail, inventory_in_use::InventoryInUse, render::count, topology_file};
use crate::{
    fleet::Edit,
    plan::{ClassMinor, IfName, Inventory, Step, tc_commands},
    topology::{NodeName, Problem, Topology},
};

/// Show what apply would change
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Without an inventory and a lab, the plan is for unshaped interfaces with the addresses of lab up.
--offline does the same with the addresses of the inventory, if there is one.")]
pub(super) struct Plan {
    /// Topology file, or - for stdin
    #[arg(value_name = "TOPOLOGY")]
    file: PathBuf,

    /// Print tc commands
    #[arg(long)]
    as_tc: bool,

    /// Show this node only
    #[arg(long, value_name = "NODE")]
    node: Option<NodeName>,

    /// Ask no agent; plan for unshaped interfaces
    #[arg(long)]
    offline: bool,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct FleetPlan<'a> {
    /// True if `apply` would change anything.
    changed: bool,
    /// The assumptions of a plan without agents; absent: the agents computed the plan.
    #[serde(skip_serializing_if = "Option::is_none")]
    offline: Option<Offline>,
    nodes: Vec<Planned<'a>>,
    /// Warnings about the topology file and the inventory.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    warnings: &'a [Problem],
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Planned<'a> {
    node: &'a NodeName,
    interface: &'a IfName,
    steps: &'a [Step],
    /// The kernel memory that the queues of all new or changed leaves take when they are full, in bytes.
    memory_at_stake: u64,
    /// The queues of new or changed leaves.
    queues: Vec<Queue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tc: Option<Vec<String>>,
}

/// A queue, and its use of memory and time when it is full of frames of 1,514 bytes.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Queue {
    class: ClassMinor,
    /// The capacity of the queue, in packets.
    limit: u32,
    /// The kernel memory of the full queue, in bytes.
    memory: u64,
    /// The time that the link takes to send the full queue, in nanoseconds; absent: the link has no rate.
    #[serde(skip_serializing_if = "Option::is_none")]
    time_ns: Option<u64>,
}

/// The steps of a plan, with the interface of each node.
struct Steps {
    changed: bool,
    nodes: BTreeMap<NodeName, (IfName, Vec<Step>)>,
}

impl Plan {
    pub(super) fn run(self, context: &Context) -> Result<Exit, Failure> {
        let topology = topology_file::read(&self.file)?;
        let warnings = topology.warnings();
        context.mention(&warnings);
        let inventory_in_use = context.inventory_if_any(Some(&topology))?;
        let of_inventory =
            inventory_in_use.as_ref().map(|inventory_in_use| inventory_in_use.file.warnings().problems());
        let warnings = [warnings.problems(), of_inventory.unwrap_or_default()].concat();
        let (Steps { changed, nodes }, offline) = match inventory_in_use {
            Some(inventory_in_use) if !self.offline => (self.ask(context, &inventory_in_use, topology)?, None),
            inventory_in_use => {
                let (offline, inventory) = Offline::of(&topology, inventory_in_use.as_ref(), context)?;
                self.check_node(&inventory)?;
                (offline::steps(topology, inventory)?, Some(offline))
            }
        };
        let nodes = nodes.iter().filter(|(node, _)| self.node.as_ref().is_none_or(|only| only == *node));
        let planned: Vec<Planned<'_>> = nodes
            .map(|(node, (interface, steps))| {
                let queues: Vec<Queue> = steps.iter().filter_map(queue).collect();
                Planned {
                    node,
                    interface,
                    steps,
                    memory_at_stake: queues.iter().map(|queue| queue.memory).sum(),
                    queues,
                    tc: self.as_tc.then(|| steps.iter().flat_map(|step| tc_commands(step, interface)).collect()),
                }
            })
            .collect();
        let plan = FleetPlan { changed, offline, nodes: planned, warnings: &warnings };
        if self.as_tc { context.answer_as_is(&plan, || draw(&plan)) } else { context.answer(&plan, || draw(&plan)) }
    }

    /// Lets the agents compute the plan.
    fn ask(&self, context: &Context, inventory_in_use: &InventoryInUse, topology: Topology) -> Result<Steps, Failure> {
        let fleet = inventory_in_use.fleet(context).map_err(unreached)?;
        self.check_node(fleet.inventory())?;
        let preview = context.ask("reading the nodes", async |_| {
            // A dry run locks no node, so it needs no cleanup after an interrupt.
            let never = CancellationToken::new();
            let edit = |wanted: &crate::plan::Wanted| wanted.with_topology(topology, fleet.inventory().clone());
            Box::pin(fleet.dry_run(&Edit::replacing(), &never, edit)).await.map_err(Failure::of_dry_run)
        });
        let preview = preview.map_err(unreached)?;
        let changed = !preview.is_empty();
        let steps = preview.nodes.into_iter();
        let nodes = steps.map(|(node, prepared)| (node, (prepared.interface, prepared.change.steps))).collect();
        Ok(Steps { changed, nodes })
    }

    fn check_node(&self, inventory: &Inventory) -> Result<(), Failure> {
        match self.node.as_ref().filter(|node| !inventory.nodes.contains_key(*node)) {
            Some(node) => Err(Failure::no_node(node, inventory.nodes.keys())),
            None => Ok(()),
        }
    }
}

/// The failure, with a hint about `--offline` if agents do not answer.
fn unreached(failure: Failure) -> Failure {
    if failure.exit != Exit::Unreachable {
        return failure;
    }
    failure.hint("plan without agents: netemctl plan --offline TOPOLOGY")
}

/// The queue that a step creates or changes; `None`: the step has no queue.
fn queue(step: &Step) -> Option<Queue> {
    let (class, profile) = match step {
        Step::AddClass { class, profile: Some(profile) } | Step::ChangeLeaf { class, to: profile, .. } => {
            (*class, profile)
        }
        _ => return None,
    };
    let time_ns = profile.full_queue_time().map(|time| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    Some(Queue { class, limit: profile.limit, memory: profile.full_queue_memory(), time_ns })
}

fn draw(plan: &FleetPlan<'_>) -> String {
    if !plan.changed {
        return "nothing to change".to_owned();
    }
    let mut text = plan.offline.as_ref().map_or_else(String::new, |offline| format!("# {}\n", offline.message));
    for Planned { node, interface, steps, memory_at_stake, queues, tc } in &plan.nodes {
        let memory = match memory_at_stake.div_ceil(1_000_000) {
            0 => String::new(),
            megabytes => format!(", full queues take {megabytes} MB of kernel memory"),
        };
        // Without a rate, no packet stays in the queue longer than the link's delay.
        let longest = queues.iter().filter_map(|queue| queue.time_ns).max();
        let time = longest.map_or_else(String::new, |nanos| format!(", {} to drain", time(nanos)));
        text += &format!("# {node} {interface}: {}{memory}{time}\n", count(steps.len(), "step"));
        match tc {
            Some(commands) => text.extend(commands.iter().map(|command| format!("{command}\n"))),
            None => text.extend(steps.iter().map(|step| format!("  {step}\n"))),
        }
    }
    text
}

/// A time in milliseconds, or in seconds from 10 s on.
fn time(nanos: u64) -> String {
    let millis = nanos / 1_000_000;
    if millis < 10_000 { format!("{millis} ms") } else { format!("{} s", millis / 1_000) }
}
