//! `netemctl new`: prints a topology file as a starting point.

use serde::Serialize;

use super::{Context, Exit, Failure, render::count};
use crate::topology::{MAX_NODES, QuantityError, Rtt};

/// Print a commented topology file
///
/// The nodes are n1, n2, and so on. --zones divides them evenly into Z1, Z2, and so on.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  netemctl new --nodes 5 --rtt 100ms                      all pairs alike
  netemctl new --zones 3 --nodes 9 --rtt 150ms > wan.toml
  netemctl check wan.toml")]
pub(super) struct New {
    /// Number of nodes
    #[arg(long, value_name = "N", default_value_t = 9, value_parser = clap::value_parser!(u32).range(2..=MAX_NODES as i64))]
    nodes: u32,

    /// Number of zones [default: none]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(2..=MAX_NODES as i64))]
    zones: Option<u32>,

    /// RTT between zones
    ///
    /// Without --zones, between all nodes.
    #[arg(long, value_name = "TIME", default_value = "100ms", value_parser = rtt)]
    rtt: Rtt,

    /// RTT between nodes of the same zone [default: 20ms]
    #[arg(long, value_name = "TIME", requires = "zones", value_parser = rtt)]
    rtt_within: Option<Rtt>,
}

/// The document of `new`.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct Template {
    /// The topology file.
    text: String,
}

const RTT_WITHIN: Rtt = Rtt::from_nanos(20_000_000);

impl New {
    pub(super) fn run(&self, context: &Context) -> Result<Exit, Failure> {
        let template = Template { text: self.text()? };
        context.answer_as_is(&template, || template.text.clone())
    }

    fn text(&self) -> Result<String, Failure> {
        let Self { nodes, rtt, .. } = self;
        let Some(zones) = self.zones else {
            let what = format!("{}, {rtt} RTT between all pairs", count(*nodes as usize, "node"));
            let members = format!("nodes = \"{}\"", hostlist(1, *nodes));
            return Ok(file(&what, &members, &format!("default = {{ rtt = \"{rtt}\" }}"), ["n1", "n2"]));
        };
        if zones > *nodes {
            let why = format!("{nodes} nodes are too few for {zones} zones");
            return Err(Failure::new(Exit::Usage, why).hint(format!("give at least --nodes {zones}")));
        }
        let within = self.rtt_within.unwrap_or(RTT_WITHIN);
        let what = format!("{nodes} nodes in {zones} zones, {within} RTT in a zone, {rtt} RTT between zones");
        let members = format!("[zones]{}", zone_lines(*nodes, zones));
        let links = format!("intra-zone = {{ rtt = \"{within}\" }}\ninter-zone = {{ rtt = \"{rtt}\" }}");
        Ok(file(&what, &members, &links, ["Z1", "Z2"]))
    }
}

fn file(what: &str, members: &str, links: &str, [one, other]: [&str; 2]) -> String {
    format!(
        "\
# {what}
# Check this file after a change: netemctl check FILE

name = \"wan\"

# Hostlists: \"n[1-3]\" is n1, n2 and n3; [\"n1\", \"db7\"] lists names.
{members}

# rtt covers both directions; delay covers one. Values need a unit: ms, %, mbit.
# More keys: jitter = \"3ms\", loss = \"0.1%\", rate = \"1gbit\"
[links]
{links}

# An override changes some links. Remove \"# \" from its lines to use it.
# [[links.override]]
# between = [\"{one}\", \"{other}\"]
# rtt = \"300ms\"
# loss = \"1%\"
"
    )
}

/// One line for each zone.
///
/// If the nodes cannot be divided evenly, the first zones have one node more.
fn zone_lines(nodes: u32, zones: u32) -> String {
    let mut first = 1;
    let line = |zone: u32| {
        let last = first + nodes / zones - u32::from(zone > nodes % zones);
        let line = format!("\nZ{zone} = \"{}\"", hostlist(first, last));
        first = last + 1;
        line
    };
    (1..=zones).map(line).collect()
}

fn hostlist(first: u32, last: u32) -> String {
    if first == last { format!("n{first}") } else { format!("n[{first}-{last}]") }
}

fn rtt(text: &str) -> Result<Rtt, String> {
    let rtt: Rtt = text.parse().map_err(|error: QuantityError| error.to_string())?;
    if rtt > Rtt::MAX {
        return Err(format!("the longest RTT is {}", Rtt::MAX));
    }
    if rtt.exact_half().is_none() {
        return Err(format!("half of {rtt} is not a whole nanosecond"));
    }
    Ok(rtt)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::topology::{Delay, NodeName, Source, Topology};

    fn topology(text: String) -> Topology {
        Topology::parse(Source::new("wan.toml", text)).unwrap_or_else(|wrong| panic!("{}", wrong.render(false, 100)))
    }

    fn delay(topology: &Topology, from: u32, to: u32) -> Delay {
        let [from, to] = [from, to].map(|number| format!("n{number}").parse::<NodeName>().unwrap());
        topology.link(&from, &to).unwrap().delay
    }

    fn rtts() -> impl Strategy<Value = Rtt> {
        (0..=Rtt::MAX.as_nanos() / 2).prop_map(|half| Rtt::from_nanos(2 * half))
    }

    proptest! {
        #[test]
        fn the_printed_file_is_the_requested_topology(
            (zones, nodes) in (2_u32..40).prop_flat_map(|zones| (Just(zones), zones..200)),
            rtt in rtts(),
            rtt_within in rtts(),
        ) {
            let zoned = New { nodes, zones: Some(zones), rtt, rtt_within: Some(rtt_within) };
            let zoned = topology(zoned.text().unwrap());
            prop_assert_eq!(zoned.nodes().len(), nodes as usize);
            let sizes: Vec<usize> = zoned.zones().map(|(_, nodes)| nodes.len()).collect();
            prop_assert_eq!(sizes.len(), zones as usize);
            prop_assert!(sizes[0] - sizes[sizes.len() - 1] <= 1, "{:?}", sizes);
            prop_assert_eq!(delay(&zoned, 1, nodes), rtt.one_way());
            if nodes > zones {
                prop_assert_eq!(delay(&zoned, 1, 2), rtt_within.one_way());
            }
            prop_assert_eq!(zoned.warnings().problems().len(), 0);

            let uniform = topology(New { nodes, zones: None, rtt, rtt_within: None }.text().unwrap());
            prop_assert_eq!((uniform.nodes().len(), uniform.zones().count()), (nodes as usize, 0));
            prop_assert_eq!(delay(&uniform, 1, nodes), rtt.one_way());
        }
    }

    #[test]
    fn an_rtt_that_no_topology_accepts_is_refused() {
        assert_eq!(rtt("120s"), Ok(Rtt::MAX));
        assert_eq!(rtt("121s"), Err("the longest RTT is 120s".to_owned()));
        assert_eq!(rtt("3ns"), Err("half of 3ns is not a whole nanosecond".to_owned()));
    }

    #[test]
    fn the_override_takes_effect_without_its_comment_marks() {
        let rtt = Rtt::from_nanos(100_000_000);
        for (zones, last) in [(None, 2), (Some(3), 6)] {
            let text = New { nodes: 9, zones, rtt, rtt_within: None }.text().unwrap();
            let (head, example) = text.split_once("# [[").unwrap();
            let topology = topology(format!("{head}[[{}", example.replace("\n# ", "\n")));
            assert_eq!(delay(&topology, 1, last), Delay::from_nanos(150_000_000));
            assert_eq!(delay(&topology, 1, 9), rtt.one_way());
        }
    }
}
