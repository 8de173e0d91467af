//! `netemctl show`: what a topology says, without touching anything.

use std::{io, path::PathBuf};

use serde::Serialize;

use super::{
    Context, Exit, Failure,
    render::{Axis, count, matrix},
    topology_file,
};
use crate::topology::{Delay, NodeName, Topology, ZoneName, hostlist};

/// Show a topology: its nodes, its zones, the RTT between them
#[derive(Debug, clap::Args)]
pub(super) struct Show {
    /// The topology file, or - for stdin
    #[arg(value_name = "TOPOLOGY")]
    file: PathBuf,
}

#[derive(Serialize)]
struct Shown<'a> {
    topology: &'a str,
    zones: Vec<Zone<'a>>,
    nodes: &'a [NodeName],
    /// Every ordered pair, one way.
    links: Vec<OneWay<'a>>,
}

#[derive(Serialize)]
struct Zone<'a> {
    name: &'a ZoneName,
    nodes: &'a [NodeName],
}

#[derive(Serialize)]
struct OneWay<'a> {
    from: &'a NodeName,
    to: &'a NodeName,
    one_way_delay: Delay,
}

impl Show {
    pub(super) fn run(&self, context: &Context) -> Result<Exit, Failure> {
        let topology = topology_file::read(&self.file)?;
        let zones = || topology.zones().map(|(name, nodes)| Zone { name, nodes });
        let links = topology.nodes().iter().flat_map(|from| {
            let one_way = move |(to, link): (_, crate::topology::Link)| OneWay { from, to, one_way_delay: link.delay };
            topology.links_from(from).map(one_way)
        });
        // The list of pairs is for programs only: of 10,000 nodes it would be 100 million lines.
        let links = if context.is_json() { links.collect() } else { Vec::new() };
        let shown = Shown { topology: topology.name(), zones: zones().collect(), nodes: topology.nodes(), links };
        context.answer(&shown, || draw(&topology))?;
        Ok(Exit::Ok)
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
    text + &matrix(Context::is_styled(&io::stdout()), &Axis::of(nodes, Some(topology)), |pairs| {
        let mut range = None;
        for rtt in pairs.filter_map(|(a, b)| topology.rtt(a, b)) {
            let (least, most) = range.unwrap_or((rtt, rtt));
            range = Some((least.min(rtt), most.max(rtt)));
        }
        match range {
            Some((least, most)) if least == most => least.to_string(),
            Some((least, most)) => format!("{least}–{most}"),
            None => "-".to_owned(),
        }
    })
}
