//! Draws the answer of `netemctl status`: the state in force, a table of the nodes, then the problems of nodes.
//!
//! Nodes with the same figures share a line.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    super::{
        NodeFailure,
        apply::{left_behind, with_scheduled},
        counters,
        inventory_in_use::InventoryOrigin,
        overlays::{draw as draw_overlays, time},
        partitions::{Parted, draw as draw_partitions},
        render::{by_text, count, described, lines_of_nodes, table},
        routed,
    },
    Fleetwide, Node, NodeState,
};
use crate::{
    plan::Inventory,
    topology::{NodeName, hostlist},
    wire::{DRIFTS, Incident, NodeStatus, Recovered},
};

/// The maximum width of a line with profiles, in columns.
///
/// More profiles take another line.
const DELAYS_WIDTH: usize = 26;

/// The maximum width of a line with names of nodes, in columns.
///
/// More names take another line.
const NODES_WIDTH: usize = 24;

/// Draws the answer.
///
/// `differ`: the nodes do not agree on the state in force.
pub(super) fn draw(fleetwide: &Fleetwide, inventory: &Inventory, differ: bool) -> String {
    let Fleetwide { nodes, overlays, partitions, counters, missing, .. } = fleetwide;
    let mut text = format!("{}\n\n{}", in_force(nodes, partitions), nodes_table(nodes));
    if !overlays.is_empty() {
        text += &format!("\n{}", draw_overlays(overlays));
    }
    if !partitions.is_empty() {
        text += &format!("\n{}", draw_partitions(partitions));
    }
    if let Some(counters) = counters {
        text += &format!("\n{}", counters::draw(inventory, counters));
    }
    let notes = notes(fleetwide, differ);
    if !notes.is_empty() {
        text += &format!("\n{notes}");
    }
    let is_lab = matches!(fleetwide.inventory, InventoryOrigin::Lab { .. });
    let details = details(nodes, is_lab);
    if !details.is_empty() {
        text += &format!("\n{details}");
    }
    if !missing.is_empty() {
        text += &format!(
            "\n{}\n",
            left_behind(
                missing,
                nodes.values().filter_map(|node| node.status.as_ref()).any(|status| status.topology.is_some())
            )
        );
    }
    let silent: Vec<_> = nodes.iter().filter(|(_, node)| node.is_silent).map(|(name, _)| name).collect();
    if !silent.is_empty() && is_lab {
        text += &format!("\nhint: restart the agent: netemctl lab restart {}\n", hostlist::fold(silent));
    } else if !silent.is_empty() && silent.len() < nodes.len() {
        text += "\nhint: to change only the nodes that answer, add --allow-missing to apply, set, partition, heal or clear\n";
    }
    text
}

/// A sentence about the state in force on the nodes that have the newest document.
fn in_force(nodes: &BTreeMap<NodeName, Node>, timed: &[Parted]) -> String {
    let statuses = || nodes.values().filter_map(|node| node.status.as_ref());
    let Some(newest) = statuses().max_by_key(|status| status.stamp.generation) else {
        return "no agent answers".to_owned();
    };
    let have_it = statuses().filter(|status| status.stamp.agrees_with(&newest.stamp)).count();
    let on = match count(nodes.len(), "node") {
        all if have_it == nodes.len() => all,
        all => format!("{have_it} of {all}"),
    };
    let topology = newest.topology.as_ref().map(|name| format!("topology {name}"));
    let overlays = newest.overlays.iter().map(|overlay| format!("change {}", overlay.name));
    let is_ahead = |name: &str| timed.iter().any(|partition| partition.begins_later(name));
    let (ahead, begun): (Vec<_>, Vec<_>) =
        newest.partitions.iter().partition(|partition| !partition.is_on && is_ahead(&partition.name));
    let partitions = begun.into_iter().map(|partition| {
        let note = if partition.is_on { "" } else { " (now healed)" };
        format!("partition {}{note}", partition.name)
    });
    let parts: Vec<String> = topology.into_iter().chain(overlays).chain(partitions).collect();
    let ahead: Vec<String> = ahead.into_iter().map(|partition| format!("partition {}", partition.name)).collect();
    with_scheduled(&parts, &on, &ahead)
}

/// A table of the nodes.
///
/// Nodes with the same figures share a line.
fn nodes_table(nodes: &BTreeMap<NodeName, Node>) -> String {
    let rows = grouped(nodes.iter().map(|(name, node)| (figures(node), name))).into_iter().map(|(figures, nodes)| {
        let names = hostlist::fold(nodes);
        [vec![wrapped(names.split_inclusive(',').map(str::to_owned), "", NODES_WIDTH)], figures].concat()
    });
    table(&["NODE", "INTERFACE", "ONE-WAY DELAYS", "CUT ADDRESSES", "STATE"], rows)
}

/// Groups values by their keys, in the order of the first values.
fn grouped<K: PartialEq, V>(all: impl IntoIterator<Item = (K, V)>) -> Vec<(K, Vec<V>)> {
    let mut groups: Vec<(K, Vec<V>)> = Vec::new();
    for (key, value) in all {
        match groups.iter_mut().find(|(other, _)| *other == key) {
            Some((_, values)) => values.push(value),
            None => groups.push((key, vec![value])),
        }
    }
    groups
}

fn figures(node: &Node) -> Vec<String> {
    let Some(status) = &node.status else {
        let state = if node.is_broken { "broken" } else { "unreachable" };
        return ["", "", "", state].map(str::to_owned).to_vec();
    };
    // A link whose packets affect later packets has its own leaf, so many leaves may have the same parameters.
    let alike = grouped(status.profiles.iter().map(|leaf| (described(&leaf.profile), leaf.nodes)));
    let delays = alike.into_iter().map(|(what, nodes)| format!("{what} ({})", count(nodes.iter().sum(), "node")));
    let delays = wrapped(delays, ", ", DELAYS_WIDTH);
    let cut: BTreeSet<_> = status.cuts.iter().map(|cut| cut.address).collect();
    let state = match (node.state, status.draining) {
        (NodeState::Drifts, _) => "drifts".to_owned(),
        (NodeState::Behind, _) => "behind".to_owned(),
        (_, 0) => "ok".to_owned(),
        (_, draining) => format!("ok, {draining} draining"),
    };
    vec![
        status.interface.to_string(),
        delays,
        if cut.is_empty() { String::new() } else { count(cut.len(), "address") },
        state,
    ]
}

/// The parts with separators, on lines of at most `width` columns.
fn wrapped(parts: impl IntoIterator<Item = String>, separator: &str, width: usize) -> String {
    let mut lines: Vec<String> = Vec::new();
    for part in parts {
        match lines.last_mut() {
            Some(line) if line.chars().count() + separator.len() + part.chars().count() <= width => {
                *line += separator;
                *line += &part;
            }
            Some(line) => {
                *line += separator.trim_end();
                lines.push(part);
            }
            None => lines.push(part),
        }
    }
    lines.join("\n")
}

/// Notes about the fleet: journals, keepers, the inventory, disagreement, and routes.
fn notes(fleetwide: &Fleetwide, differ: bool) -> String {
    let nodes = || fleetwide.nodes.iter().filter_map(|(name, node)| Some((name, node.status.as_ref()?)));
    let mut text = String::new();
    let without_journal = hostlist::fold(nodes().filter(|(_, status)| status.journal.is_none()).map(|(name, _)| name));
    if !without_journal.is_empty() {
        text += &format!(
            "no journal on {without_journal}: the state is lost when the agent ends (see netemctl agent --help)\n"
        );
    }
    let keepers: Vec<_> =
        nodes().filter_map(|(name, status)| Some(format!("{name} (keeper {})", status.keeper?))).collect();
    if !keepers.is_empty() {
        text += &format!("agents started by ssh: {}\n", keepers.join(", "));
    }
    if !matches!(fleetwide.inventory, InventoryOrigin::Lab { .. }) {
        text += &format!("inventory: {}\n", fleetwide.inventory);
    }
    if differ {
        let generations = nodes().map(|(name, status)| (name, status.stamp.to_string()));
        let groups =
            by_text(generations).into_iter().map(|(stamp, nodes)| format!("  {} at {stamp}\n", hostlist::fold(&nodes)));
        text += &format!(
            "the nodes have different states; synchronise them: netemctl apply TOPOLOGY, or netemctl clear\n{}",
            groups.collect::<String>()
        );
    }
    let routed = nodes().filter_map(|(name, status)| Some((name, status.routed.as_ref()?)));
    text.extend(routed::warning(routed));
    text
}

/// The problems of nodes: each problem once, with its nodes.
fn details(nodes: &BTreeMap<NodeName, Node>, is_lab: bool) -> String {
    lines_of_nodes(nodes.iter().flat_map(|(name, node)| {
        let problems = node.status.iter().flat_map(|status| problems(name, status, is_lab)).map(NodeFailure::of);
        node.error.clone().into_iter().chain(problems).map(move |said| (name, said))
    }))
}

fn problems(node: &NodeName, status: &NodeStatus, is_lab: bool) -> Vec<String> {
    let mut lines: Vec<String> = drift(node, status, is_lab).into_iter().collect();
    lines.extend(status.warnings.iter().map(|warning| format!("warning: {warning}")));
    if let Some(left) = status.unconfirmed {
        lines.push(format!("a change is in progress; rolled back in {left:.0} s unless confirmed"));
    }
    lines.extend(events(status));
    lines
}

/// The drift of a node in one line: its beginning, its cause, and the repair; `None`: no drift.
fn drift(node: &NodeName, status: &NodeStatus, is_lab: bool) -> Option<String> {
    let first = status.drift.first()?;
    let since = status.watch.since.as_ref().map(|since| format!(" since {since}")).unwrap_or_default();
    let cause = status.watch.incidents.iter().rev().find(|incident| incident.what != DRIFTS);
    let cause = cause.map(|incident| format!(" ({})", incident.what)).unwrap_or_default();
    let more = match status.drift.len() - 1 {
        0 => String::new(),
        more => format!(" (and {})", count(more, "more step")),
    };
    let repair = if !status.foreign.is_empty() {
        let objects: Vec<&str> = status.foreign.iter().map(|object| object.what.as_str()).collect();
        let commands: BTreeSet<&str> = status.foreign.iter().map(|object| object.remove.as_str()).collect();
        let command = |command| {
            if is_lab { format!("netemctl lab exec {node} -- {command}") } else { format!("on {node}: {command}") }
        };
        let commands: Vec<String> = commands.into_iter().map(command).collect();
        format!(": objects of other programs: {}; remove them: {}", objects.join("; "), commands.join("; "))
    } else if status.by_hand > 0 {
        format!(": {first}{more}")
    } else {
        let steps = count(status.drift.len(), "step");
        let command = match status.topology {
            Some(_) => "netemctl apply TOPOLOGY",
            None => "repeat the last change, or netemctl clear",
        };
        format!("; {steps} to repair, first: {first}; repair: {command}")
    };
    Some(format!("drift{since}{cause}{repair}"))
}

/// Lines about events on a node that were not changes by netemctl: recovery, incidents, and failed repairs.
fn events(status: &NodeStatus) -> Vec<String> {
    let NodeStatus { watch, recovered, .. } = status;
    let next = watch.next_try.map(|left| format!("; next try in {}", time(left))).unwrap_or_default();
    let obstacle = watch.obstacle.as_ref().map(|why| format!("{why}{next}"));
    let mut lines: Vec<String> =
        recovered.iter().filter_map(|recovered| recovery(recovered, obstacle.as_deref())).collect();
    let is_restored = recovered.as_ref().is_none_or(|recovered| recovered.cleared || recovered.writes.is_some());
    // If the node drifts, the line about the drift has the incident.
    if let Some(Incident { at, what }) = watch.incidents.last().filter(|_| status.drift.is_empty()) {
        let before = match watch.incidents.len() - 1 {
            0 => String::new(),
            before => format!("; {}: netemctl status --json", count(before, "earlier event")),
        };
        lines.push(format!("{at} {what}{before}"));
    }
    // The line about an unfinished recovery has the obstacle.
    if let Some(why) = obstacle.filter(|_| is_restored) {
        lines.push(format!("cannot check or repair: {why}"));
    }
    if let Some(why) = &watch.journal_behind {
        lines.push(format!("{why}; an agent restart would restore an older state"));
    }
    lines
}

/// A line about an agent's recovery from its journal; `None`: a restart of the agent that had no effect.
///
/// `obstacle`: the reason why the last attempt failed.
fn recovery(recovered: &Recovered, obstacle: Option<&str>) -> Option<String> {
    let Recovered { at, after_reboot, interrupted, cleared, ended, writes } = recovered;
    let came = match (after_reboot, interrupted) {
        (true, _) => "started after a reboot",
        (false, true) => "restarted during a change and rolled it back",
        (false, false) if *writes == Some(0) => return None,
        (false, false) => "restarted",
    };
    let found = match (cleared, writes) {
        (true, _) => "; cleared, as its config says".to_owned(),
        (false, None) => {
            let why = obstacle.map(|why| format!(": {why}")).unwrap_or_default();
            format!("; it cannot restore the state yet{why}")
        }
        (false, Some(0)) => "; the kernel matches its journal".to_owned(),
        (false, Some(writes)) => format!("; restored its journal in {}", count(*writes, "step")),
    };
    let ended = if ended.is_empty() { String::new() } else { format!("; ended meanwhile: {}", ended.join(", ")) };
    Some(format!("{at} the agent {came}{found}{ended}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cli::status::tests::{fleetwide, node, unreachable},
        plan::ForeignObject,
    };

    #[test]
    fn drift_names_its_steps_or_the_foreign_objects_and_the_command_on_the_node() {
        let name: NodeName = "n2".parse().unwrap();
        let steps = ["add root qdisc", "build chain 10"].map(str::to_owned).to_vec();
        let status = NodeStatus { drift: steps, ..node(&name).status.unwrap() };
        let said = |status: &NodeStatus, is_lab| drift(&name, status, is_lab).unwrap();
        assert_eq!(
            said(&status, true),
            "drift; 2 steps to repair, first: add root qdisc; repair: netemctl apply TOPOLOGY"
        );
        let by_hand = NodeStatus { by_hand: 1, ..status.clone() };
        assert_eq!(said(&by_hand, true), "drift: add root qdisc (and 1 more step)");
        let [what, remove] = ["qdisc pfifo 8001:", "tc qdisc del dev db0 root"].map(str::to_owned);
        let foreign = NodeStatus { foreign: vec![ForeignObject { what, remove, within: None }], ..status };
        let objects = "drift: objects of other programs: qdisc pfifo 8001:; remove them:";
        assert_eq!(said(&foreign, true), format!("{objects} netemctl lab exec n2 -- tc qdisc del dev db0 root"));
        assert_eq!(said(&foreign, false), format!("{objects} on n2: tc qdisc del dev db0 root"));
    }

    #[test]
    fn the_overview_fits_eighty_columns_and_shows_nodes_with_the_same_figures_on_one_line() {
        let name = |number: usize| format!("n{number}").parse::<NodeName>().unwrap();
        let mut nodes: BTreeMap<NodeName, Node> = (1..=20).map(|number| (name(number), node(&name(number)))).collect();
        insta::assert_snapshot!(draw(&fleetwide(nodes.clone()), &Inventory::default(), false), @"
        in force on 20 nodes: topology hierarchical-9, partition Z3

        NODE     INTERFACE  ONE-WAY DELAYS   CUT ADDRESSES  STATE
        n[1-20]  db0        10ms (3 nodes),  -              ok
                            75ms (3 nodes)
        ");
        for number in (2..=20).step_by(2) {
            nodes.insert(name(number), unreachable(&name(number)));
        }
        let text = draw(&fleetwide(nodes), &Inventory::default(), false);
        insta::assert_snapshot!(text, @"
        in force on 10 of 20 nodes: topology hierarchical-9, partition Z3

        NODE                      INTERFACE  ONE-WAY DELAYS   CUT ADDRESSES  STATE
        n[1,3,5,7,9,11,13,15,17,  db0        10ms (3 nodes),  -              ok
        19]                                  75ms (3 nodes)
        n[2,4,6,8,10,12,14,16,    -          -                -              unreachable
        18,20]

        n[2,4,6,8,10,12,14,16,18,20]: no agent: Connection refused (os error 111)

        hint: restart the agent: netemctl lab restart n[2,4,6,8,10,12,14,16,18,20]
        ");
        // Without a lab, the hint names the commands with --allow-missing. If no agent answers, there is no such command.
        let nodes = BTreeMap::from([(name(1), node(&name(1))), (name(2), unreachable(&name(2)))]);
        let elsewhere =
            |nodes| Fleetwide { inventory: InventoryOrigin::File { file: "f".to_owned() }, ..fleetwide(nodes) };
        let drawn = |nodes| draw(&elsewhere(nodes), &Inventory::default(), false);
        let hint =
            "hint: to change only the nodes that answer, add --allow-missing to apply, set, partition, heal or clear\n";
        assert!(drawn(nodes).ends_with(hint));
        assert!(!drawn(BTreeMap::from([(name(2), unreachable(&name(2)))])).contains("hint"));
        let table = text.lines().take_while(|line| !line.contains("no agent"));
        assert!(table.into_iter().all(|line| line.chars().count() <= 80), "{text}");
    }
}
