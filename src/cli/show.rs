//! `netemctl show`: shows the contents of a topology file.
//!
//! No agent is asked.

use std::path::PathBuf;

use serde::Serialize;

use super::{
    Context, Exit, Failure,
    render::{Axis, count, matrix, range, table},
    topology_file,
};
use crate::topology::{Delay, Link, NodeName, RatePer, Reorder, Topology, ZoneName, hostlist};

/// The maximum number of rows for one link that many separate pairs of nodes have.
const MAX_ROWS: usize = 12;

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
    /// The links of all ordered pairs of nodes, each one way.
    links: Vec<OneWay<'a>>,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Zone<'a> {
    name: &'a ZoneName,
    nodes: &'a [NodeName],
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct OneWay<'a> {
    from: &'a NodeName,
    to: &'a NodeName,
    #[serde(rename = "one_way_delay_ms")]
    one_way_delay: Delay,
    /// All parameters of the link, including the delay.
    link: Link,
}

impl Show {
    pub(super) fn run(&self, context: &Context) -> Result<Exit, Failure> {
        let topology = topology_file::read(&self.file)?;
        let zones = || topology.zones().map(|(name, nodes)| Zone { name, nodes });
        let links = topology.nodes().iter().flat_map(|from| {
            let one_way = move |(to, link): (_, Link)| OneWay { from, to, one_way_delay: link.delay, link };
            topology.links_from(from).map(one_way)
        });
        // Only programs get the list of pairs: for 10,000 nodes, the list has 100 million pairs.
        let links = if context.is_json() { links.collect() } else { Vec::new() };
        let shown = Shown { topology: topology.name(), zones: zones().collect(), nodes: topology.nodes(), links };
        context.answer(&shown, || draw(&topology))
    }
}

fn draw(topology: &Topology) -> String {
    let nodes = topology.nodes();
    let mut text =
        format!("topology {}: {} ({})\n", topology.name(), count(nodes.len(), "node"), hostlist::fold(nodes));
    for (zone, nodes) in topology.zones() {
        text += &format!("  zone {zone}: {}\n", hostlist::fold(nodes));
    }
    text += "\nwanted RTT\n";
    text += &matrix(&Axis::of(nodes, Some(topology)), |pairs| {
        let rtts: Vec<_> = pairs.filter_map(|(a, b)| topology.rtt(a, b)).collect();
        range(&rtts, |rtt| rtt.to_string()).unwrap_or_default()
    });
    text += "\nlinks\n";
    text + &links(topology)
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
