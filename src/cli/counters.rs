//! Draws the tables of `status --counters`: the packets that the kernels sent, lost and cut.
//!
//! Nodes with the same figures share a line.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use serde::Serialize;

use super::render::{count, described, table};
use crate::{
    plan::{Cut, Direction, Inventory, Traffic},
    topology::{NodeName, hostlist},
    wire::{Counted, LinkCounted},
};

/// The counters of all nodes, in two tables.
pub(super) fn draw(inventory: &Inventory, nodes: &BTreeMap<NodeName, Counted>) -> String {
    let names = Names::of(inventory);
    let (mut links, mut cuts) = (Lines(BTreeMap::new()), Lines(BTreeMap::new()));
    for (node, Counted { links: of_links, cuts: of_cuts, .. }) in nodes {
        for link in of_links {
            links.add(node, names.of_all(&link.addresses), link_figures(link));
        }
        // The counts of all addresses of a peer are added up.
        let mut dropped: BTreeMap<(String, Direction, Traffic), u64> = BTreeMap::new();
        for counted in of_cuts {
            let Cut { direction, address, traffic, .. } = counted.cut;
            *dropped.entry((names.name(address), direction, traffic)).or_default() += counted.dropped.packets;
        }
        for ((peer, direction, traffic), packets) in dropped {
            let way = if direction == Direction::Egress { "to" } else { "from" };
            cuts.add(node, [peer].into(), [way.to_owned(), packets_of(traffic), packets.to_string()]);
        }
    }
    let header = ["NODE", "TO", "ONE-WAY DELAY", "PACKETS", "BYTES", "LOST", "OVERFLOW"];
    let links = links.rows().map(|(nodes, peers, figures)| [nodes, peers].into_iter().chain(figures).collect());
    let mut text = table(&header, links);
    let cuts = cuts
        .rows()
        .map(|(nodes, peers, [way, traffic, packets])| vec![nodes, format!("{way} {peers}"), traffic, packets]);
    let cuts: Vec<_> = cuts.collect();
    if !cuts.is_empty() {
        text += &format!("\n{}", table(&["NODE", "DIRECTION", "PACKETS", "DROPPED"], cuts));
    }
    text
}

/// Packets that a node dropped because a queue was full.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct Overflow {
    /// The node that sent the packets.
    from: NodeName,
    /// The destinations that share the queue.
    to: BTreeSet<String>,
    /// The least number of packets that a full queue dropped.
    packets: u64,
    /// The capacity of the queue, in packets.
    limit: u32,
}

impl Overflow {
    /// The overflows between two readings of the counters.
    ///
    /// Overflows that are not distinguishable from configured losses are left out.
    pub(super) fn between(
        inventory: &Inventory,
        before: &BTreeMap<NodeName, Counted>,
        after: &BTreeMap<NodeName, Counted>,
    ) -> Vec<Self> {
        let names = Names::of(inventory);
        let overflow = |from: &NodeName, link: &LinkCounted| {
            let LinkCounted { profile, addresses, sent, dropped, .. } = link;
            let is_same = |other: &&LinkCounted| other.profile == *profile && other.addresses == *addresses;
            let earlier = before.get(from)?.links.iter().find(is_same)?;
            let sent = (*sent - earlier.sent).packets;
            let packets = profile.overflowed(sent, dropped.saturating_sub(earlier.dropped))?;
            let to = names.of_all(addresses);
            (packets > 0).then(|| Self { from: from.clone(), to, packets, limit: profile.limit })
        };
        let links = after.iter().flat_map(|(node, counted)| counted.links.iter().map(move |link| (node, link)));
        links.filter_map(|(from, link)| overflow(from, link)).collect()
    }

    /// A warning about the overflow.
    pub(super) fn warning(&self) -> String {
        let Self { from, to, packets, limit } = self;
        let packets = count(usize::try_from(*packets).unwrap_or(usize::MAX), "packet");
        let to = fold(to);
        format!(
            "warning: {from} dropped {packets} to {to} during the measurement: the queue was full (limit {limit} packets)\n"
        )
    }
}

fn link_figures(link: &LinkCounted) -> [String; 5] {
    let LinkCounted { profile, sent, dropped, overflowed, .. } = link;
    let (lost, overflowed) = match overflowed {
        Some(overflowed) => ((dropped - overflowed).to_string(), overflowed.to_string()),
        None => (format!("{dropped}?"), "?".to_owned()),
    };
    [described(profile), sent.packets.to_string(), bytes(sent.bytes), lost, overflowed]
}

fn packets_of(traffic: Traffic) -> String {
    match traffic {
        Traffic::All => "all".to_owned(),
        Traffic::ToPort { port } => format!("to {port}"),
        Traffic::FromPort { port } => format!("from {port}"),
        Traffic::FragmentsOf { protocol } => format!("{protocol} fragments"),
    }
}

/// A number of bytes with its unit: `512 B`, `1.5 kB`, `20.3 GB`.
fn bytes(bytes: u64) -> String {
    let mut value = bytes as f64;
    let mut units = ["B", "kB", "MB", "GB", "TB"].into_iter();
    let mut unit = units.next();
    while value >= 999.95 {
        let Some(next) = units.next() else { break };
        (value, unit) = (value / 1e3, Some(next));
    }
    let digits = usize::from(unit != Some("B"));
    format!("{value:.digits$} {}", unit.unwrap_or_default())
}

/// The node of each address.
struct Names<'a>(BTreeMap<IpAddr, &'a NodeName>);

impl<'a> Names<'a> {
    fn of(inventory: &'a Inventory) -> Self {
        let places = inventory.nodes.iter();
        Self(places.flat_map(|(node, place)| place.addresses.iter().map(move |address| (*address, node))).collect())
    }

    /// The node that has the address, or the address itself if no node has it.
    fn name(&self, address: IpAddr) -> String {
        self.0.get(&address).map_or_else(|| address.to_string(), ToString::to_string)
    }

    fn of_all(&self, addresses: &BTreeSet<IpAddr>) -> BTreeSet<String> {
        addresses.iter().map(|address| self.name(*address)).collect()
    }
}

/// The lines of a table: figures → the nodes that have them → the peers of each node.
struct Lines<const N: usize>(BTreeMap<[String; N], BTreeMap<NodeName, BTreeSet<String>>>);

impl<const N: usize> Lines<N> {
    fn add(&mut self, node: &NodeName, peers: BTreeSet<String>, figures: [String; N]) {
        self.0.entry(figures).or_default().entry(node.clone()).or_default().extend(peers);
    }

    /// The lines, in the order of the nodes.
    ///
    /// Nodes with the same figures and the same peers share a line. Nodes that are peers of each other also share a
    /// line. No node is its own peer.
    fn rows(self) -> impl Iterator<Item = (String, String, [String; N])> {
        let mut rows = Vec::new();
        for (figures, nodes) in self.0 {
            let all: BTreeSet<String> = nodes.values().flatten().cloned().collect();
            let others = |node: &NodeName| all.iter().filter(|peer| *peer != node.as_str()).cloned().collect();
            if nodes.iter().all(|(node, peers)| *peers == others(node)) {
                rows.push((nodes.into_keys().collect::<Vec<_>>(), all, figures));
                continue;
            }
            let mut alike: BTreeMap<BTreeSet<String>, Vec<NodeName>> = BTreeMap::new();
            for (node, peers) in nodes {
                alike.entry(peers).or_default().push(node);
            }
            rows.extend(alike.into_iter().map(|(peers, nodes)| (nodes, peers, figures.clone())));
        }
        rows.sort();
        rows.into_iter().map(|(nodes, peers, figures)| (hostlist::fold(&nodes), fold(&peers), figures))
    }
}

/// The peers as a hostlist, or separated by commas if addresses are among them.
fn fold(peers: &BTreeSet<String>) -> String {
    let names: Option<Vec<NodeName>> = peers.iter().map(|peer| peer.parse().ok()).collect();
    names.map_or_else(|| peers.iter().cloned().collect::<Vec<_>>().join(","), |names| hostlist::fold(&names))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        plan::{AgentAddress, Answer, NodeLocation, Profile, Tally},
        topology::Link,
        wire::CutCounted,
    };

    fn address(last: u8) -> IpAddr {
        [10, 0, 0, last].into()
    }

    fn inventory() -> Inventory {
        let place = |last: u8| NodeLocation {
            agent: AgentAddress::Unix("/run/a".into()),
            interface: "db0".parse().unwrap(),
            addresses: vec![address(last)],
        };
        let nodes = (1..=9).map(|last| (format!("n{last}").parse().unwrap(), place(last))).collect();
        Inventory { nodes, ..Inventory::default() }
    }

    /// Counters of nine nodes.
    ///
    /// Each node sends to all others, and n[1-6] are cut off from n[7-9].
    fn counted(packets: impl Fn(u8) -> u64) -> BTreeMap<NodeName, Counted> {
        let profile = profile();
        let of = |node: u8| {
            let addresses = (1..=9).filter(|last| *last != node).map(address).collect();
            let sent = Tally { packets: packets(node), bytes: packets(node) * 1_514 };
            let link = LinkCounted { profile, addresses, sent, dropped: 0, overflowed: Some(0) };
            let far = (1..=9).filter(|last| (*last > 6) != (node > 6));
            let cut = |last| CutCounted {
                cut: Cut {
                    direction: Direction::Egress,
                    address: address(last),
                    traffic: Traffic::All,
                    answer: Answer::Silence,
                },
                dropped: Tally { packets: packets(node), bytes: 0 },
            };
            let node = format!("n{node}").parse::<NodeName>().unwrap();
            let interface = "db0".parse().unwrap();
            (node.clone(), Counted { node, interface, links: vec![link], cuts: far.map(cut).collect() })
        };
        (1..=9).map(of).collect()
    }

    fn profile() -> Profile {
        let change = crate::topology::LinkChange::parse(crate::topology::Source::new("test", "delay = '75ms'"), false);
        Profile::of(&change.unwrap().over(Link::default()), crate::plan::LineRate::UNKNOWN).unwrap()
    }

    #[test]
    fn nodes_with_the_same_figures_share_a_line() {
        insta::assert_snapshot!(draw(&inventory(), &counted(|_| 0)), @"
        NODE    TO      ONE-WAY DELAY  PACKETS  BYTES  LOST  OVERFLOW
        n[1-9]  n[1-9]  75ms           0        0 B    0     0

        NODE    DIRECTION  PACKETS  DROPPED
        n[1-6]  to n[7-9]  all      0
        n[7-9]  to n[1-6]  all      0
        ");
        let text = draw(&inventory(), &counted(|node| if node == 5 { 123_456_789 } else { 12 }));
        insta::assert_snapshot!(text, @"
        NODE        TO          ONE-WAY DELAY  PACKETS    BYTES     LOST  OVERFLOW
        n[1-4,6-9]  n[1-9]      75ms           12         18.2 kB   0     0
        n5          n[1-4,6-9]  75ms           123456789  186.9 GB  0     0

        NODE      DIRECTION  PACKETS  DROPPED
        n[1-4,6]  to n[7-9]  all      12
        n5        to n[7-9]  all      123456789
        n[7-9]    to n[1-6]  all      12
        ");
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    }

    #[test]
    fn a_warning_counts_only_overflows_between_the_two_readings() {
        let mut before = counted(|_| 0);
        let n1: NodeName = "n1".parse().unwrap();
        let drop = |counted: &mut BTreeMap<NodeName, Counted>, packets| {
            counted.get_mut(&n1).unwrap().links[0].dropped += packets;
        };
        drop(&mut before, 5);
        let mut after = before.clone();
        assert_eq!(Overflow::between(&inventory(), &before, &after), []);
        drop(&mut after, 3);
        let overflows = Overflow::between(&inventory(), &before, &after);
        let warnings: Vec<_> = overflows.iter().map(Overflow::warning).collect();
        assert_eq!(warnings.len(), 1);
        assert!(warnings[0].starts_with("warning: n1 dropped 3 packets to n[2-9] during "), "{warnings:?}");
    }

    #[test]
    fn bytes_are_shown_with_their_unit() {
        let shown = [0, 999, 1_000, 999_949, 999_950, 1_500_000_000].map(bytes);
        assert_eq!(shown, ["0 B", "999 B", "1.0 kB", "999.9 kB", "1.0 MB", "1.5 GB"]);
    }
}
