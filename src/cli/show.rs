//! `netemctl show`: shows the contents of a topology file.
//!
//! No agent is asked.

use std::{
    collections::{BTreeSet, HashMap},
    path::PathBuf,
};

use serde::Serialize;

use super::{
    Context, Exit, Failure,
    render::{Axis, count, grid, table},
    topology_file,
};
use crate::{
    report::range,
    topology::{Delay, Link, NodeGroups, NodeName, RatePer, Reorder, Topology, ZoneName, hostlist},
};

/// The maximum number of rows for one link that many separate pairs of nodes have.
const MAX_ROWS: usize = 12;

/// The maximum number of rows and columns of the matrix of RTTs.
const MAX_AXES: usize = 60;

/// Show the nodes, zones, RTTs and links of a topology
#[derive(Debug, clap::Args)]
pub(super) struct Show {
    /// Topology file, or - for stdin
    #[arg(value_name = "TOPOLOGY")]
    file: PathBuf,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct Shown<'a> {
    topology: &'a str,
    zones: Vec<Zone<'a>>,
    nodes: &'a [NodeName],
    /// The nodes in groups. All nodes of a group have equal links. Each node is in one group.
    groups: Vec<Group<'a>>,
    /// The links between the groups, each one way. Each ordered pair of different nodes is in one entry.
    links: Vec<OneWay>,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Zone<'a> {
    name: &'a ZoneName,
    nodes: &'a [NodeName],
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Group<'a> {
    /// Null: the nodes are in no zone.
    zone: Option<&'a ZoneName>,
    nodes: Vec<&'a NodeName>,
}

/// A link that each node of one group has to each other node of some groups.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct OneWay {
    /// The index in `groups` of the senders.
    from: usize,
    /// The indexes in `groups` of the receivers. Contains `from` if the link is also between the nodes of that group.
    to: Vec<usize>,
    #[serde(rename = "one_way_delay_ms")]
    one_way_delay: Delay,
    /// All parameters of the link, including the delay.
    link: Link,
}

impl Show {
    pub(super) fn run(&self, context: &Context) -> Result<Exit, Failure> {
        let topology = topology_file::read(&self.file)?;
        let groups = topology.groups();
        let zones = topology.zones().map(|(name, nodes)| Zone { name, nodes }).collect();
        let group = |group| Group { zone: groups.zone(group), nodes: groups.nodes(group).collect() };
        let shown = Shown {
            topology: topology.name(),
            zones,
            nodes: topology.nodes(),
            groups: (0..groups.count()).map(group).collect(),
            // People get a shorter list.
            links: if context.is_json() { one_way_links(&groups) } else { Vec::new() },
        };
        context.answer(&shown, || draw(&topology, &groups))
    }
}

/// The links between the groups, ordered by sender and then by receiver.
fn one_way_links(groups: &NodeGroups<'_>) -> Vec<OneWay> {
    let of_sender = |from: usize| {
        let mut links: Vec<OneWay> = Vec::new();
        let mut entries = HashMap::new();
        for (to, link) in groups.links_from(from).into_iter().enumerate() {
            let Some(link) = link else { continue };
            let entry = *entries.entry(link).or_insert_with(|| {
                links.push(OneWay { from, to: Vec::new(), one_way_delay: link.delay, link });
                links.len() - 1
            });
            links[entry].to.push(to);
        }
        links
    };
    (0..groups.count()).flat_map(of_sender).collect()
}

fn draw(topology: &Topology, groups: &NodeGroups<'_>) -> String {
    let nodes = topology.nodes();
    let mut text =
        format!("topology {}: {} ({})\n", topology.name(), count(nodes.len(), "node"), hostlist::fold(nodes));
    for (zone, nodes) in topology.zones() {
        text += &format!("  zone {zone}: {}\n", hostlist::fold(nodes));
    }
    text += "\nwanted RTT\n";
    text += &rtts(topology, groups);
    text += "\nlinks\n";
    text + &links(topology)
}

/// The matrix of RTTs.
fn rtts(topology: &Topology, groups: &NodeGroups<'_>) -> String {
    let axes = Axis::of(topology.nodes(), Some(topology));
    if axes.len() > MAX_AXES {
        return format!("no table: {} zones are too many for a terminal\n", topology.zones().count());
    }
    let group_of: HashMap<&NodeName, usize> =
        (0..groups.count()).flat_map(|group| groups.nodes(group).map(move |node| (node, group))).collect();
    let delay = |link: Option<Link>| link.map(|link| link.delay);
    let delays: Vec<Vec<Option<Delay>>> =
        (0..groups.count()).map(|from| groups.links_from(from).into_iter().map(delay).collect()).collect();
    let groups_of = |axis: &Axis| -> BTreeSet<usize> {
        axis.nodes().iter().filter_map(|node| group_of.get(node)).copied().collect()
    };
    grid(&axes, |one, other| {
        // A node has no link to itself.
        if one.nodes() == other.nodes() && one.nodes().len() == 1 {
            return String::new();
        }
        let others = groups_of(other);
        let rtts = groups_of(one)
            .into_iter()
            .flat_map(|a| others.iter().map(move |&b| (a, b)))
            .filter_map(|(a, b)| Some(delays[a][b]? + delays[b][a]?));
        range(rtts, |rtt| rtt.to_string()).unwrap_or_default()
    })
}

/// A table of the distinct links, with their one-way parameters.
fn links(topology: &Topology) -> String {
    let mut rows = Vec::new();
    for (link, scopes) in topology.distinct_links() {
        let row = |scope| vec![scope, link.delay.to_string(), others(&link)];
        rows.extend(scopes.iter().take(MAX_ROWS).map(|scope| row(scope.to_string())));
        if let Some(more @ 1..) = scopes.len().checked_sub(MAX_ROWS) {
            rows.push(row(format!("and {more} more")));
        }
    }
    table(&["LINKS", "ONE-WAY DELAY", "OTHER PARAMETERS"], rows)
}

/// The parameters of a link except its delay, as in a topology file, with notes about the implicit behaviour.
fn others(link: &Link) -> String {
    let said = Link { delay: Delay::ZERO, ..*link }.notation();
    let order = match (link.jitter, link.reorder) {
        (None, _) | (_, Some(Reorder::Jitter)) => None,
        (Some(_), None) => Some("packets keep their order"),
        (Some(_), Some(Reorder::Undelayed(_))) => Some("packets that are not reordered keep their order"),
    };
    let rate = link.rate.map(|_| match link.rate_per {
        RatePer::Node => "each pair of nodes has its own rate",
        RatePer::Zone => "a node's links to one zone share the rate",
    });
    let loss = link.loss.and_then(|loss| loss.model.shortfall_reason());
    let notes: Vec<_> = [order, rate, loss].into_iter().flatten().collect();
    if said.is_empty() || notes.is_empty() { said } else { format!("{said}  # {}", notes.join("; ")) }
}
