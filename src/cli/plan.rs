//! `netemctl plan`: what `apply` would do, computed by the agents from what their kernels have now.

use std::path::PathBuf;

use serde::Serialize;

use super::{Context, Exit, Failure, render::count, topology_file};
use crate::{
    plan::{IfName, Profile, Step, tc_commands},
    topology::{NodeName, hostlist},
};

/// Show what apply would change on each node, without changing anything
#[derive(Debug, clap::Args)]
pub(super) struct Plan {
    /// The topology file, or - for stdin
    #[arg(value_name = "TOPOLOGY")]
    file: PathBuf,

    /// Show it as the tc commands that would do the same
    #[arg(long)]
    as_tc: bool,

    /// Show only this node
    #[arg(long, value_name = "NODE")]
    node: Option<NodeName>,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct FleetPlan<'a> {
    /// Whether apply would change anything.
    changed: bool,
    nodes: Vec<Planned<'a>>,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Planned<'a> {
    node: &'a NodeName,
    interface: &'a IfName,
    steps: &'a [Step],
    /// The kernel memory that full queues of new or changed leaves hold, in bytes.
    memory_at_stake: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    tc: Option<Vec<String>>,
}

impl Plan {
    pub(super) fn run(self, context: &Context) -> Result<Exit, Failure> {
        let topology = topology_file::read(&self.file)?;
        let fleet = context.fleet_for(&topology)?;
        let nodes = hostlist::fold(&fleet.inventory().nodes.keys().cloned().collect::<Vec<_>>());
        if let Some(node) = self.node.as_ref().filter(|node| !fleet.inventory().nodes.contains_key(*node)) {
            return Err(Failure::new(Exit::Usage, format!("the fleet has no node `{node}`; its nodes are {nodes}")));
        }
        let preview = context.block_on(async |interrupt| {
            let edit = |wanted: &crate::plan::Wanted| wanted.with_topology(topology, fleet.inventory().clone());
            Ok(Context::meanwhile("asking the nodes", Box::pin(fleet.plan(true, &interrupt, edit))).await?)
        })?;
        let nodes = preview.nodes.iter().filter(|(node, _)| self.node.as_ref().is_none_or(|only| only == *node));
        let planned: Vec<Planned<'_>> = nodes
            .map(|(node, prepared)| Planned {
                node,
                interface: &prepared.interface,
                steps: &prepared.change.steps,
                memory_at_stake: prepared
                    .change
                    .steps
                    .iter()
                    .filter_map(new_profile)
                    .map(|p| p.memory_at_stake())
                    .sum(),
                tc: self.as_tc.then(|| {
                    prepared.change.steps.iter().flat_map(|step| tc_commands(step, &prepared.interface)).collect()
                }),
            })
            .collect();
        let plan = FleetPlan { changed: !preview.is_empty(), nodes: planned };
        context.answer(&plan, || draw(&plan))?;
        Ok(Exit::Ok)
    }
}

fn new_profile(step: &Step) -> Option<Profile> {
    match step {
        Step::AddClass { profile, .. } => *profile,
        Step::ChangeLeaf { to, .. } => Some(*to),
        _ => None,
    }
}

fn draw(plan: &FleetPlan<'_>) -> String {
    if !plan.changed {
        return "nothing to change: this is in force".to_owned();
    }
    let mut text = String::new();
    for Planned { node, interface, steps, memory_at_stake, tc } in &plan.nodes {
        let memory = match memory_at_stake.div_ceil(1_000_000) {
            0 => String::new(),
            megabytes => format!(", up to {megabytes} MB of kernel memory in full queues"),
        };
        text += &format!("# {node} {interface}: {}{memory}\n", count(steps.len(), "step"));
        match tc {
            Some(commands) => text.extend(commands.iter().map(|command| format!("{command}\n"))),
            None => text.extend(steps.iter().map(|step| format!("  {step}\n"))),
        }
    }
    text
}
