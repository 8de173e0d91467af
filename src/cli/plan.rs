//! `netemctl plan`: shows the steps that `apply` would make.
//!
//! The agents compute the steps from the present state of their kernels. Without agents, the plan is for unshaped
//! interfaces.

mod offline;

use std::path::PathBuf;

use serde::Serialize;
use tokio_util::sync::CancellationToken;

use self::offline::Offline;
use super::{Context, Exit, Failure, OrFail, inventory_in_use::InventoryInUse, render::count, topology_file};
use crate::{
    fleet::Edit,
    plan::{ClassMinor, IfName, Inventory, Step, Wanted, tc_commands},
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
    nodes: Vec<Planned>,
    /// Warnings about the topology file and the inventory.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    warnings: &'a [Problem],
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Planned {
    node: NodeName,
    interface: IfName,
    steps: Vec<Step>,
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

/// The steps of a plan.
struct Steps<'a> {
    changed: bool,
    /// The interface and the steps of each node, computed one node after the other: all steps together may not fit into
    /// memory.
    nodes: Box<dyn Iterator<Item = Result<NodeSteps, Failure>> + 'a>,
}

/// A node, its interface and its steps.
type NodeSteps = (NodeName, IfName, Vec<Step>);

impl Plan {
    pub(super) fn run(self, context: &Context) -> Result<Exit, Failure> {
        let topology = topology_file::read(&self.file)?;
        let warnings = topology.warnings();
        context.mention(&warnings);
        let inventory_in_use = context.inventory_if_any(Some(&topology))?;
        let of_inventory =
            inventory_in_use.as_ref().map(|inventory_in_use| inventory_in_use.file.warnings().problems());
        let warnings = [warnings.problems(), of_inventory.unwrap_or_default()].concat();
        let wanted;
        let (Steps { changed, nodes }, offline) = match inventory_in_use {
            Some(inventory_in_use) if !self.offline => (self.ask(context, &inventory_in_use, topology)?, None),
            inventory_in_use => {
                let (offline, inventory) = Offline::of(&topology, inventory_in_use.as_ref(), context)?;
                self.check_node(&inventory)?;
                wanted = Wanted::default().with_topology(topology, inventory)?;
                (offline::steps(&wanted, self.node.as_ref()), Some(offline))
            }
        };
        let mut plan = FleetPlan { changed, offline, nodes: Vec::new(), warnings: &warnings };
        let mut drawn = plan.draw_head(self.as_tc);
        for node in nodes {
            let planned = self.planned(node?);
            if context.is_json() {
                plan.nodes.push(planned);
            } else if changed {
                drawn += &planned.draw();
            }
        }
        let draw = || drawn.clone();
        if self.as_tc { context.answer_as_is(&plan, draw) } else { context.answer(&plan, draw) }
    }

    fn planned(&self, (node, interface, steps): NodeSteps) -> Planned {
        let queues: Vec<Queue> = steps.iter().filter_map(queue).collect();
        Planned {
            memory_at_stake: queues.iter().map(|queue| queue.memory).sum(),
            queues,
            tc: self.as_tc.then(|| steps.iter().flat_map(|step| tc_commands(step, &interface)).collect()),
            node,
            interface,
            steps,
        }
    }

    /// Lets the agents compute the plan.
    fn ask(
        &self,
        context: &Context,
        inventory_in_use: &InventoryInUse,
        topology: Topology,
    ) -> Result<Steps<'_>, Failure> {
        let fleet = inventory_in_use.fleet(context).map_err(unreached)?;
        self.check_node(fleet.inventory())?;
        let preview = context.ask("reading the nodes", async |_| {
            // A dry run locks no node, so it needs no cleanup after an interrupt.
            let never = CancellationToken::new();
            let edit = |wanted: &Wanted| wanted.with_topology(topology, fleet.inventory().clone());
            Box::pin(fleet.dry_run(&Edit::replacing(), &never, edit)).await.map_err(Failure::of_dry_run)
        });
        let preview = preview.map_err(unreached)?;
        let changed = !preview.is_empty();
        let nodes = preview.nodes.into_iter().filter(|(node, _)| self.node.as_ref().is_none_or(|only| only == node));
        let nodes = nodes.map(|(node, prepared)| Ok((node, prepared.interface, prepared.change.steps)));
        Ok(Steps { changed, nodes: Box::new(nodes) })
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

impl FleetPlan<'_> {
    /// The first lines for people.
    fn draw_head(&self, as_tc: bool) -> String {
        if !self.changed {
            return "nothing to change".to_owned();
        }
        let mut text = self.offline.as_ref().map_or_else(String::new, |offline| format!("# {}\n", offline.message));
        if as_tc {
            text += "# if an interface has txqueuelen 0, apply also sets it to 1000\n";
        }
        text
    }
}

impl Planned {
    /// The lines for people.
    fn draw(&self) -> String {
        let Self { node, interface, steps, memory_at_stake, queues, tc } = self;
        let memory = match memory_at_stake.div_ceil(1_000_000) {
            0 => String::new(),
            megabytes => format!(", full queues take {megabytes} MB of kernel memory"),
        };
        // Without a rate, no packet stays in the queue longer than the link's delay.
        let longest = queues.iter().filter_map(|queue| queue.time_ns).max();
        let time = longest.map_or_else(String::new, |nanos| format!(", {} to drain", time(nanos)));
        let mut text = format!("# {node} {interface}: {}{memory}{time}\n", count(steps.len(), "step"));
        match tc {
            Some(commands) => text.extend(commands.iter().map(|command| format!("{command}\n"))),
            None => text.extend(steps.iter().map(|step| format!("  {step}\n"))),
        }
        text
    }
}

/// A time in milliseconds, or in seconds from 10 s on.
fn time(nanos: u64) -> String {
    let millis = nanos / 1_000_000;
    if millis < 10_000 { format!("{millis} ms") } else { format!("{} s", millis / 1_000) }
}
