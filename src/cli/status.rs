//! `netemctl status`: what is in force on each node, and whether its kernel agrees.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
};

use serde::Serialize;

use super::{
    Context, Exit, Failure, counters,
    overlays::{Laid, draw as draw_overlays, laid, time},
    partition,
    partitions::{Parted, draw as draw_partitions, parted},
    render::{count, table},
    routed,
    whereabouts::Whence,
};
use crate::{
    fleet::{CallError, part},
    plan::{Inventory, Profile},
    topology::{NodeName, Parameter, hostlist},
    wire::{Counted, GetCounters, GetStatus, GetWanted, Incident, NodeStatus, Recovered},
};

/// Show what is in force on each node, read from its kernel at this moment
///
/// Ends with exit code 4 if a kernel differs from what is wanted or the nodes do not agree, and 6 if an agent does not
/// answer.
#[derive(Debug, clap::Args)]
pub(super) struct Status {
    /// Show what the kernels have counted: packets sent, lost, cut
    #[arg(long)]
    counters: bool,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct Fleetwide {
    /// Whether every agent answers, all have the same document, and every kernel has what it asks for.
    ok: bool,
    /// Which nodes these are.
    inventory: Whence,
    /// The nodes that the last change left as they were, because it was said so.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    missing: BTreeSet<NodeName>,
    /// What is laid over the links, as one of the nodes has it; later wins.
    overlays: Vec<Laid>,
    /// What is cut, as one of the nodes has it.
    partitions: Vec<Parted>,
    nodes: BTreeMap<NodeName, Node>,
    /// With `--counters`: what the kernels have counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    counters: Option<BTreeMap<NodeName, Counted>>,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Node {
    state: NodeState,
    #[serde(flatten)]
    status: Option<NodeStatus>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
enum NodeState {
    Ok,
    Drifts,
    /// It has an older document, as it was left out of a change.
    Behind,
    Unreachable,
}

impl Node {
    fn up(status: NodeStatus, is_behind: bool) -> Self {
        let state = match (status.drift.is_empty(), is_behind) {
            (false, _) => NodeState::Drifts,
            (true, true) => NodeState::Behind,
            (true, false) => NodeState::Ok,
        };
        Self { state, status: Some(status), error: None }
    }

    fn down(error: &CallError) -> Self {
        Self { state: NodeState::Unreachable, status: None, error: Some(error.to_string()) }
    }
}

impl Status {
    pub(super) fn run(&self, context: &Context) -> Result<Exit, Failure> {
        let whereabouts = context.whereabouts(None)?;
        let fleet = whereabouts.agents(context)?;
        let (up, down, wanted, counters) = context.ask("asking the nodes", async |_| {
            let (up, down) = part(fleet.call(context.patience(), |_| GetStatus {}).await);
            let has_more =
                |status: &NodeStatus| self.counters || !(status.overlays.is_empty() && status.partitions.is_empty());
            let wanted = match up.iter().find(|(_, status)| has_more(status)) {
                // A node that has gone away just now has the document no more; its status has the names.
                Some((node, _)) => fleet.call_one(context.patience(), node, GetWanted {}).await.ok(),
                None => None,
            };
            let wanted = wanted.map(|document| document.lasting()).unwrap_or_default();
            let counters = if self.counters {
                Some(part(fleet.call(context.patience(), |_| GetCounters {}).await).0)
            } else {
                None
            };
            Ok((up, down, wanted, counters))
        })?;
        let overlays = laid(&wanted, &up);
        let partitions = parted(&wanted, partition::now()).into_iter();
        let partitions = partitions.map(|partition| partition.counted(up.values())).collect();
        let newest = up.values().max_by_key(|status| status.stamp.generation);
        let missing = newest.map(|status| status.missing.clone()).unwrap_or_default();
        let newest = newest.map(|status| status.stamp.clone());
        let is_older = |status: &NodeStatus| newest.as_ref().is_some_and(|newest| !status.stamp.agrees_with(newest));
        let behind: BTreeSet<_> = up
            .iter()
            .filter(|(node, status)| Some(&status.stamp) != newest.as_ref() && missing.contains(*node))
            .map(|(node, _)| node.clone())
            .collect();
        let differ = up.iter().any(|(node, status)| is_older(status) && !behind.contains(node));
        let drifts = up.values().any(|status| !status.drift.is_empty());
        let exit = match (down.is_empty(), drifts || differ || !behind.is_empty()) {
            (true, false) => Exit::Ok,
            (true, true) => Exit::Differs,
            (false, _) => Exit::Unreachable,
        };
        let up = up.into_iter().map(|(node, status)| {
            let node_is_behind = behind.contains(&node);
            (node, Node::up(status, node_is_behind))
        });
        let down = down.into_iter().map(|(node, error)| (node, Node::down(&error)));
        let fleetwide = Fleetwide {
            ok: exit == Exit::Ok,
            inventory: whereabouts.from,
            missing,
            overlays,
            partitions,
            nodes: up.chain(down).collect(),
            counters,
        };
        context.answer(&fleetwide, || draw(&fleetwide, &wanted.inventory, differ))?;
        Ok(exit)
    }
}

fn draw(fleetwide: &Fleetwide, inventory: &Inventory, differ: bool) -> String {
    let header = ["NODE", "INTERFACE", "GENERATION", "TOPOLOGY", "PARTITIONS", "ONE-WAY DELAYS", "CUT", "STATE"];
    let mut details = String::new();
    let rows = fleetwide.nodes.iter().map(|(name, node)| {
        let Some(status) = &node.status else {
            details += &format!("{name}: {}\n", node.error.as_deref().unwrap_or_default());
            let blanks = vec![String::new(); header.len() - 2];
            return [vec![name.to_string()], blanks, vec!["unreachable".to_owned()]].concat();
        };
        details.extend(status.drift.iter().map(|step| format!("{name} drifts; to repair: {step}\n")));
        if let Some(left) = status.unconfirmed {
            details += &format!("{name}: a change is under way; unless it is confirmed, it is undone in {left:.0} s\n");
        }
        details.extend(befell(status).iter().map(|what| format!("{name}: {what}\n")));
        row(node.state, status)
    });
    let styled = Context::is_styled(&io::stdout());
    let mut text = table(styled, &header, rows.collect());
    if !fleetwide.overlays.is_empty() {
        text += &format!("\n{}", draw_overlays(styled, &fleetwide.overlays));
    }
    if !fleetwide.partitions.is_empty() {
        text += &format!("\n{}", draw_partitions(styled, &fleetwide.partitions));
    }
    if let Some(counters) = &fleetwide.counters {
        text += &format!("\n{}", counters::draw(styled, inventory, counters));
    }
    let is_forgetful = |node: &Node| node.status.as_ref().is_some_and(|status| status.journal.is_none());
    let forgetful: Vec<_> =
        fleetwide.nodes.iter().filter(|(_, node)| is_forgetful(node)).map(|(name, _)| name.clone()).collect();
    if !forgetful.is_empty() {
        text += &format!(
            "\n{} keep no journal: an agent that ends there forgets what is in force (netemctl agent --help)\n",
            hostlist::fold(&forgetful)
        );
    }
    if !fleetwide.missing.is_empty() {
        let missing = hostlist::fold(&fleetwide.missing.iter().cloned().collect::<Vec<_>>());
        text += &format!(
            "\nleft out of the last change (--only or --allow-missing), and brought in line by the next one that is made on \
             all nodes: {missing}\n"
        );
    }
    let keepers: Vec<_> =
        fleetwide.nodes.iter().filter_map(|(name, node)| Some((name, node.status.as_ref()?.keeper?))).collect();
    if !keepers.is_empty() {
        let each: Vec<_> = keepers.iter().map(|(name, keeper)| format!("{name} (keeper {keeper})")).collect();
        text += &format!("\nby ssh, with no daemon; each keeper ends when it is not needed: {}\n", each.join(", "));
    }
    if !matches!(fleetwide.inventory, Whence::Lab { .. }) {
        text += &format!("\ninventory: {}\n", fleetwide.inventory);
    }
    if differ {
        text += "\nthe nodes do not agree on what is in force; netemctl apply or clear brings them in line\n";
    }
    let routed = fleetwide.nodes.iter().filter_map(|(name, node)| Some((name, node.status.as_ref()?.routed.as_ref()?)));
    text.extend(routed::warning(routed).map(|warning| format!("\n{warning}")));
    if !details.is_empty() {
        text += &format!("\n{details}");
    }
    text
}

/// What has befallen a node apart from changes of ours, in the order in which it did.
fn befell(status: &NodeStatus) -> Vec<String> {
    let NodeStatus { watch, recovered, .. } = status;
    let mut lines: Vec<String> = recovered.iter().filter_map(recovery).collect();
    lines.extend(watch.incidents.iter().map(|Incident { at, what }| format!("{at} {what}")));
    if let Some(why) = &watch.obstacle {
        let next = watch.next_try.map(|left| format!("; tried again in {}", time(left))).unwrap_or_default();
        lines.push(format!("cannot be looked at or repaired at this moment: {why}{next}"));
    }
    if let Some(why) = &watch.journal_behind {
        lines.push(format!("{why}; were its agent started anew now, it would go back to an earlier state"));
    }
    lines
}

/// What an agent made of its journal, unless it only went on as if it had never ended.
fn recovery(recovered: &Recovered) -> Option<String> {
    let Recovered { at, after_reboot, interrupted, cleared, ended, writes } = recovered;
    let came = match (after_reboot, interrupted) {
        (true, _) => "was started after the machine",
        (false, true) => "was started after it had ended in the middle of a change, which was taken back",
        (false, false) if *writes == Some(0) => return None,
        (false, false) => "was started again",
    };
    let found = match (cleared, writes) {
        (true, _) => ", and forgot what was in force, as its config says".to_owned(),
        (false, None) => ", and cannot put in force yet what its journal has".to_owned(),
        (false, Some(0)) => ", and found in force what its journal has".to_owned(),
        (false, Some(writes)) => format!(", and put in force what its journal has, in {}", count(*writes, "step")),
    };
    let ended = if ended.is_empty() { String::new() } else { format!("; over by then: {}", ended.join(", ")) };
    Some(format!("{at} the agent {came}{found}{ended}"))
}

fn row(state: NodeState, status: &NodeStatus) -> Vec<String> {
    let or_dash = |text: String| if text.is_empty() { "-".to_owned() } else { text };
    // Links with a memory have a leaf each, and may be many that are alike.
    let mut alike: Vec<(String, usize)> = Vec::new();
    for leaf in &status.profiles {
        let what = described(&leaf.profile);
        match alike.iter_mut().find(|(other, _)| *other == what) {
            Some((_, addresses)) => *addresses += leaf.addresses,
            None => alike.push((what, leaf.addresses)),
        }
    }
    let delays = alike.into_iter().map(|(what, addresses)| format!("{what} ×{addresses}"));
    let partitions = status.partitions.iter().map(|partition| {
        let note = if partition.is_on { "" } else { " (not now)" };
        format!("{}{note}", partition.name)
    });
    let cut: BTreeSet<_> = status.cuts.iter().map(|cut| cut.address).collect();
    let state = match (state, status.draining) {
        (NodeState::Drifts, _) => "drifts".to_owned(),
        (NodeState::Behind, _) => "behind".to_owned(),
        (_, 0) => "ok".to_owned(),
        (_, draining) => format!("ok, {} draining", count(draining, "class")),
    };
    vec![
        status.node.to_string(),
        status.interface.to_string(),
        status.stamp.generation.to_string(),
        status.topology.clone().unwrap_or_else(|| "-".to_owned()),
        or_dash(partitions.collect::<Vec<_>>().join(", ")),
        or_dash(delays.collect::<Vec<_>>().join(", ")),
        or_dash(if cut.is_empty() { String::new() } else { count(cut.len(), "address") }),
        state,
    ]
}

/// A delay with its jitter, and the names of what else the leaf does: `75ms±5ms loss rate`.
pub(super) fn described(profile: &Profile) -> String {
    let jitter = profile.jitter.map(|jitter| format!("±{}", jitter.amount)).unwrap_or_default();
    let others = [
        (Parameter::Loss, profile.loss.is_some()),
        (Parameter::Corrupt, profile.corrupt.is_some()),
        (Parameter::Duplicate, profile.duplicate.is_some()),
        (Parameter::Reorder, profile.reorder.is_some()),
        (Parameter::Rate, profile.rate.is_some() && !profile.is_ordered_by_rate()),
        (Parameter::Slot, profile.slot.is_some()),
    ];
    let others = others.into_iter().filter(|(_, is_there)| *is_there);
    others.fold(format!("{}{jitter}", profile.delay), |text, (other, _)| format!("{text} {other}"))
}
