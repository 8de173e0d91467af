//! `netemctl apply`, and the code that all commands share that change nodes.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    time::{Duration, SystemTime},
};

use serde::Serialize;

use super::{
    Context, Exit, Failure,
    inventory_in_use::InventoryOrigin,
    output::talk,
    partitions::{Parted, cut_nothing, parted, sentence},
    render::{by_text, count, line_of_nodes},
    scope::ScopeOptions,
    topology_file,
};
use crate::{
    fleet::{Edit, Fleet, FleetOnset, Outcome, Scope},
    plan::{EditError, Inventory, Moment, Partition, Wanted},
    topology::{NodeName, Problem, hostlist},
    wire::PartitionEnded,
};

/// Put a topology in force on all nodes, or on none
///
/// Reads the result back from every kernel. Partitions and changes by `set` stay in force on the same nodes, unless
/// --fresh is given. Applying the same topology twice writes nothing.
#[derive(Debug, clap::Args)]
pub(super) struct Apply {
    /// Topology file, or - for stdin
    #[arg(value_name = "TOPOLOGY")]
    file: PathBuf,

    /// Also remove all changes and partitions
    #[arg(long)]
    fresh: bool,

    #[command(flatten, next_help_heading = "Fleet")]
    scope: ScopeOptions,
}

impl Apply {
    pub(super) fn run(&self, context: &Context) -> Result<Exit, Failure> {
        let topology = topology_file::read(&self.file)?;
        let warnings = topology.warnings();
        context.mention(&warnings);
        let inventory_in_use = context.inventory_in_use(Some(&topology))?;
        let warnings = [warnings.problems(), inventory_in_use.file.warnings().problems()].concat();
        let fleet = inventory_in_use.fleet_to_change(context, &self.scope, Some(&topology), false)?;
        let edit = |wanted: &Wanted, inventory| {
            let bare = self.fresh.then(|| wanted.bare());
            bare.as_ref().unwrap_or(wanted).with_topology(topology.clone(), inventory)
        };
        let exit = change_on(context, fleet, &self.scope, Edit::replacing(), &warnings, edit)?;
        if let (InventoryOrigin::Topology { file }, false) = (inventory_in_use.from, context.is_json()) {
            talk(&format!(
                "hint: other commands reach these nodes with --inventory {file}, or with NETEMCTL_INVENTORY\n"
            ));
        }
        Ok(exit)
    }
}

/// The document of a command that changes nodes: the state after the change, and the steps of the change.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct Changed<'a> {
    changed: bool,
    generation: u64,
    topology: Option<&'a str>,
    overlays: Vec<&'a str>,
    partitions: Vec<Parted>,
    /// The seed of the random draw, if anything was drawn.
    #[serde(skip_serializing_if = "Option::is_none")]
    seed: Option<u64>,
    nodes: usize,
    /// The nodes of the inventory that are not in the topology in force.
    ///
    /// Their links have no delay.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    outside: Vec<NodeName>,
    /// The nodes that `--only` or `--allow-missing` left out of the change.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    missing: BTreeSet<NodeName>,
    /// The nodes that earlier changes left out, and that this change updated.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    caught_up: &'a BTreeSet<NodeName>,
    /// True if another command has since committed a change on top of this change.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    superseded: bool,
    /// The ended partitions, each with the number of packets that it cut on all nodes.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    ended: &'a [PartitionEnded],
    /// Problems of nodes that the change cannot repair, such as an interface that is down.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    node_warnings: &'a BTreeMap<NodeName, Vec<String>>,
    writes: &'a BTreeMap<NodeName, usize>,
    /// When the change took effect; `None`: nothing was committed.
    onset: Option<ChangeOnset>,
    /// Warnings about the topology file and the inventory.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    warnings: &'a [Problem],
}

/// When a change took effect, relative to the instant on which the nodes agreed.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct ChangeOnset {
    /// The agreed instant, in seconds since 1970.
    agreed: f64,
    /// The time from the first effect on any node to the last effect on any node; `None`: no effect.
    spread_us: Option<f64>,
    nodes: BTreeMap<NodeName, NodeOnset>,
    /// The seconds by which clocks are ahead, for clocks that are certainly not in step with this machine's.
    #[serde(rename = "clocks_ahead_s", skip_serializing_if = "BTreeMap::is_empty")]
    clocks_ahead: BTreeMap<NodeName, f64>,
}

/// When the change took effect on one node, in microseconds after the agreed instant.
///
/// The times are by this machine's clock. The node's own clock counts if it may be in step.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct NodeOnset {
    /// The kernel's acknowledgement of the first write that affects packets.
    first_us: f64,
    /// The kernel's acknowledgement of the last write that affects packets.
    last_us: f64,
}

impl ChangeOnset {
    fn of(onset: &FleetOnset) -> Self {
        let microseconds = |time: Duration| time.as_nanos() as f64 / 1e3;
        // The moment may be before the agreed instant if the node's clock was set meanwhile.
        let against = |moment: Moment| {
            let early = || onset.agreed.since(moment).map(|early| -microseconds(early));
            moment.since(onset.agreed).map(microseconds).or_else(early).unwrap_or_default()
        };
        let node = |(node, own): (&NodeName, &crate::wire::Onset)| {
            (node.clone(), NodeOnset { first_us: against(own.first), last_us: against(own.last) })
        };
        Self {
            agreed: onset.agreed.as_nanos() as f64 / 1e9,
            spread_us: onset.spread().map(microseconds),
            nodes: onset.nodes.iter().map(node).collect(),
            clocks_ahead: onset.clocks.iter().map(|(node, ahead)| (node.clone(), *ahead as f64 / 1e9)).collect(),
        }
    }
}

/// Edits the document in force on all nodes of the scope, and prints the outcome.
///
/// Nodes that differ from the inventory do not prevent an edit that only removes.
pub(super) fn change(
    context: &Context,
    scope: &ScopeOptions,
    terms: Edit,
    only_removes: bool,
    edit: impl Fn(&Wanted, Inventory) -> Result<Wanted, EditError>,
) -> Result<Exit, Failure> {
    let inventory_in_use = context.inventory_in_use(None)?;
    let fleet = inventory_in_use.fleet_to_change(context, scope, None, only_removes)?;
    change_on(context, fleet, scope, terms, inventory_in_use.file.warnings().problems(), edit)
}

/// Makes an edit on the nodes of `fleet` and prints the outcome.
///
/// `warnings`: about the topology file and the inventory.
fn change_on(
    context: &Context,
    (fleet, within): (Fleet, Scope),
    scope: &ScopeOptions,
    mut terms: Edit,
    warnings: &[Problem],
    edit: impl Fn(&Wanted, Inventory) -> Result<Wanted, EditError>,
) -> Result<Exit, Failure> {
    terms.scope = within;
    let what = format!("changing {}", count(fleet.inventory().nodes.len(), "node"));
    let outcome = context.act(Some(&what), "rolling back on all nodes", async |interrupt| {
        let edit = |wanted: &Wanted| edit(wanted, fleet.inventory().clone());
        let attempt = async || fleet.edit(&terms, &interrupt, edit).await;
        Ok(Box::pin(scope.until_it_succeeds(&interrupt, attempt)).await?)
    })?;
    let Outcome { wanted, writes, document_changed, onset, caught_up, superseded, ended, warnings: node_warnings } =
        &outcome;
    let steps: usize = writes.values().sum();
    let changed = Changed {
        changed: steps > 0 || *document_changed,
        generation: wanted.generation,
        topology: wanted.topology.as_ref().map(crate::topology::Topology::name),
        overlays: wanted.overlays.iter().map(|overlay| overlay.name.as_str()).collect(),
        partitions: parted(wanted, SystemTime::now().into()),
        seed: terms.seed,
        nodes: writes.len(),
        outside: wanted.outside(),
        missing: wanted.missing.nodes(),
        caught_up,
        superseded: *superseded,
        ended,
        node_warnings,
        writes,
        onset: onset.as_ref().map(ChangeOnset::of),
        warnings,
    };
    context.answer(&changed, || {
        let seed = terms.seed.map(|seed| format!("; seed {seed}")).unwrap_or_default();
        let ended: String = ended.iter().flat_map(|ended| ["\n".to_owned(), what_it_cut(ended)]).collect();
        let (exceptions, outside) = (exceptions(&outcome), outside(wanted));
        let stays = if terms.replaces { still_in_force(wanted) } else { String::new() };
        format!("{}{seed}{stays}{ended}{exceptions}{outside}", summary(&outcome, terms.replaces))
    })
}

/// The least clock error that is reported, in nanoseconds.
const MIN_CLOCK_ERROR: u64 = 10_000_000;

/// A sentence about the state after a change, and about the steps of the change.
fn summary(outcome: &Outcome, replaces: bool) -> String {
    let wanted = &outcome.wanted;
    let steps: usize = outcome.writes.values().sum();
    let nodes = outcome.writes.values().filter(|steps| **steps > 0).count();
    let is_cut = |partition: &Partition| partition.since == wanted.generation && partition.timing.is_none();
    let mut text = match steps {
        0 if !outcome.document_changed => format!("{}; nothing to change", in_force(wanted)),
        0 if wanted.partitions.iter().any(is_cut) => {
            format!("{}; recorded; these nodes were already cut off", in_force(wanted))
        }
        0 => format!("{}; recorded: kernels already match", in_force(wanted)),
        _ if replaces && wanted.is_clear() => format!("cleared; {} restored", count(nodes, "interface")),
        _ => format!("{}; changed {}, {}", in_force(wanted), count(nodes, "node"), count(steps, "step")),
    };
    let Some(onset) = &outcome.onset else { return text };
    if let Some(spread) = onset.spread().filter(|_| onset.nodes.len() > 1) {
        text += &format!("; all switched within {:.1} ms", spread.as_secs_f64() * 1e3);
    }
    if let Some(late) = onset.told_late.values().max() {
        let nodes = hostlist::fold(onset.told_late.keys());
        text += &format!("\n{nodes} received the change up to {:.1} s late", late.as_secs_f64());
    }
    for (node, ahead) in onset.clocks.iter().filter(|(_, ahead)| ahead.unsigned_abs() >= MIN_CLOCK_ERROR) {
        let way = if *ahead < 0 { "behind" } else { "ahead of" };
        let seconds = ahead.unsigned_abs() as f64 / 1e9;
        text += &format!(
            "\nwarning: the clock of {node} is {seconds:.2} s {way} this machine's (compensated); synchronise it by NTP"
        );
    }
    text
}

/// A line about the overlays and partitions that earlier commands left in force; empty if there are none.
fn still_in_force(wanted: &Wanted) -> String {
    let overlays: Vec<&str> = wanted.overlays.iter().map(|overlay| overlay.name.as_str()).collect();
    let partitions: Vec<&str> = wanted.partitions.iter().map(|partition| partition.name.as_str()).collect();
    let line = |noun: &str, names: &[&str], command: &str| match names {
        [] => String::new(),
        names => {
            let list = names.iter().map(|name| format!("{noun} {name}")).collect::<Vec<_>>().join(", ");
            format!("\nstill in force: {list}; remove: netemctl {command} {}", names.join(" "))
        }
    };
    line("change", &overlays, "unset") + &line("partition", &partitions, "heal")
}

/// A sentence with the number of packets that an ended partition cut.
fn what_it_cut(PartitionEnded { name, ports, cut }: &PartitionEnded) -> String {
    let why = match cut {
        0 => format!(": {} (earlier turns of a flap are not counted)", cut_nothing(ports)),
        _ => String::new(),
    };
    format!("partition {name} cut {}{why}", count(usize::try_from(*cut).unwrap_or(usize::MAX), "packet"))
}

/// Lines about nodes that were left out, nodes that were caught up, warnings of nodes, and a later change.
fn exceptions(outcome: &Outcome) -> String {
    let Outcome { wanted, caught_up, superseded, warnings, .. } = outcome;
    let mut text = String::new();
    if !wanted.missing.is_empty() {
        text += &format!("\n{}", left_behind(&wanted.missing.nodes(), wanted.topology.is_some()));
    }
    if !caught_up.is_empty() {
        let have = if caught_up.len() == 1 { "has" } else { "have" };
        text += &format!("\n{} now {have} the current state again", hostlist::fold(caught_up));
    }
    for (warning, nodes) in by_text(warnings.iter().flat_map(|(node, said)| said.iter().map(move |said| (node, said))))
    {
        text += &format!("\nwarning: {}", line_of_nodes(&warning, &nodes));
    }
    if *superseded {
        text += "\nanother command changed the nodes since; see netemctl status";
    }
    text
}

/// A sentence about the nodes that were left out of changes.
pub(super) fn left_behind(missing: &BTreeSet<NodeName>, has_topology: bool) -> String {
    let keep = if missing.len() == 1 { "keeps its" } else { "keep their" };
    let command = if has_topology { "netemctl apply TOPOLOGY" } else { "netemctl clear" };
    format!("{} {keep} earlier state; update: {command}", hostlist::fold(missing))
}

/// A line about the nodes that are not in the topology; empty if there are none.
pub(super) fn outside(wanted: &Wanted) -> String {
    match &wanted.outside()[..] {
        [] => String::new(),
        nodes => format!("\nno delay, as they are not in the topology: {}", hostlist::fold(nodes)),
    }
}

/// A sentence about the state in force.
fn in_force(wanted: &Wanted) -> String {
    in_force_of(wanted, wanted)
}

/// A sentence about the state in force. `whole`: the same state with the sides of inactive partitions.
pub(super) fn in_force_of(wanted: &Wanted, whole: &Wanted) -> String {
    if wanted.is_clear() && !wanted.missing.is_empty() {
        let has_it = |node: &&NodeName| !wanted.missing.contains(node);
        let on = count(wanted.inventory.nodes.keys().filter(has_it).count(), "node");
        return format!("nothing is in force on {on}");
    }
    if wanted.is_clear() {
        return "nothing is in force".to_owned();
    }
    let topology = wanted.topology.as_ref().map(|topology| format!("topology {}", topology.name()));
    let now = Moment::from(SystemTime::now());
    let is_ahead = |partition: &&Partition| partition.timing.is_some_and(|timing| timing.begins > now);
    let (ahead, begun): (Vec<_>, Vec<_>) = wanted.partitions.iter().partition(is_ahead);
    let described = |partition: &Partition, is_healed: bool| {
        let named = whole.partitions.iter().find(|other| other.name == partition.name);
        sentence(whole, named.unwrap_or(partition), is_healed)
    };
    let ahead: Vec<_> = ahead.into_iter().map(|partition| described(partition, false)).collect();
    let partitions = begun.into_iter().map(|partition| described(partition, partition.is_inactive()));
    let overlays = wanted.overlays.iter().map(|overlay| {
        let end = if overlay.lasts.is_some() { " (ends by itself)" } else { "" };
        format!("change {}{end}", overlay.name)
    });
    let parts: Vec<String> = topology.into_iter().chain(overlays).chain(partitions).collect();
    let nodes = wanted.inventory.nodes.keys().filter(|node| !wanted.missing.contains(node)).count();
    with_scheduled(&parts, &count(nodes, "node"), &ahead)
}

/// A sentence with the parts in force and the parts that have not begun.
pub(super) fn with_scheduled(parts: &[String], nodes: &str, ahead: &[String]) -> String {
    let in_force = match parts {
        [] => format!("nothing is in force on {nodes}"),
        parts => format!("in force on {nodes}: {}", parts.join(", ")),
    };
    if ahead.is_empty() { in_force } else { format!("{in_force}; scheduled: {}", ahead.join(", ")) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::plan::{Flap, Mode, Shape, Timing};

    #[test]
    fn a_partition_that_has_not_begun_is_scheduled_and_one_between_two_turns_is_healed() {
        let sides = vec![BTreeSet::from(["n1".parse().unwrap()])];
        let flap = Flap { down: Duration::from_millis(200), up: Duration::from_millis(200), spread: 0, seed: 0 };
        let partition = |begins: SystemTime, flap| Partition {
            name: "p".to_owned(),
            shape: Shape::Sides { sides: sides.clone() },
            ports: BTreeSet::new(),
            mode: Mode::Drop,
            timing: Some(Timing { begins: begins.into(), lasts: None, flap }),
            since: 0,
        };
        let with = |partition| Wanted { partitions: vec![partition], ..Wanted::default() };
        let later = with(partition(SystemTime::now() + Duration::from_hours(1), None));
        let said = in_force(&later);
        assert!(said.starts_with("nothing is in force on 0 nodes; scheduled: partition p (n1"), "{said}");
        let whole = with(partition(SystemTime::UNIX_EPOCH, Some(flap)));
        let inactive = Shape::Sides { sides: Vec::new() };
        let healed = with(Partition { shape: inactive, ..whole.partitions[0].clone() });
        let said = in_force_of(&healed, &whole);
        assert!(said.starts_with("in force on 0 nodes: partition p (n1") && said.ends_with("; now healed)"), "{said}");
    }
}
