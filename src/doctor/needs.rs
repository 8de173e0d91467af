//! Computes what a topology needs of its nodes ([`AllNeeds`], [`Needs`]).

use std::{collections::BTreeMap, net::IpAddr};

use ipnetwork::IpNetwork;

use crate::{
    plan::{NodeLocation, Wanted},
    topology::{Link, NodeGroups, NodeName, Topology},
};

/// What a topology needs of one node.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Needs {
    /// The number of addresses of other nodes on the networks of the interface: IPv4 and IPv6.
    pub neighbours: [usize; 2],
    /// The link to this node with a rate whose data in flight need the largest receive buffer.
    pub received: Option<Demand>,
    /// The link from this node with a rate whose data in flight need the largest send buffer.
    pub sent: Option<Demand>,
    /// The largest RTT of links without a rate, in nanoseconds.
    pub longest_rtt: Option<u64>,
    /// The highest rate of a link from or to this node, in bit/s.
    pub highest_rate: u64,
    /// The shortest one-way delay that is not 0, in nanoseconds.
    pub shortest_delay: Option<u64>,
    /// True if a link loses, duplicates, corrupts or reorders packets.
    pub is_random: bool,
}

/// A link with a rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Demand {
    /// The rate in bit/s.
    pub rate: u64,
    /// The RTT in nanoseconds.
    pub rtt: u64,
}

impl Demand {
    /// The bandwidth-delay product, in bytes.
    pub fn product(self) -> u64 {
        u64::try_from(u128::from(self.rate) * u128::from(self.rtt) / 8_000_000_000).unwrap_or(u64::MAX)
    }
}

/// The most groups of nodes whose links are computed group by group. The links of more groups need too much memory.
const MAX_GROUPS: usize = 1_000;

/// What a document needs of its nodes.
pub struct AllNeeds<'w> {
    wanted: &'w Wanted,
    /// All nodes, with their locations if they are known.
    nodes: Vec<(&'w NodeName, Option<&'w NodeLocation>)>,
    /// The needs of the links of each node, if they follow from the groups of the topology.
    by_group: BTreeMap<&'w NodeName, Needs>,
}

impl<'w> AllNeeds<'w> {
    /// Computes what follows from groups of nodes, because 10,000 nodes have 100 million links.
    pub fn of(wanted: &'w Wanted) -> Self {
        let located = &wanted.inventory.nodes;
        let unlocated = wanted.topology.iter().flat_map(Topology::nodes).filter(|node| !located.contains_key(*node));
        let nodes = located.iter().map(|(node, place)| (node, Some(place))).chain(unlocated.map(|node| (node, None)));
        let is_plain = wanted.overlays.is_empty() && wanted.partitions.is_empty();
        let groups = wanted.topology.as_ref().filter(|_| is_plain).map(Topology::groups);
        let groups = groups.filter(|groups| groups.count() <= MAX_GROUPS);
        Self { wanted, nodes: nodes.collect(), by_group: groups.map(|groups| of_groups(&groups)).unwrap_or_default() }
    }

    /// True if the node is in the topology or in the inventory.
    pub fn knows(&self, node: &NodeName) -> bool {
        let Wanted { topology, inventory, .. } = self.wanted;
        inventory.nodes.contains_key(node) || topology.as_ref().is_some_and(|topology| topology.contains(node))
    }

    /// The needs of some nodes together, each with an interface on these networks.
    pub fn of_nodes<'a>(&self, nodes: impl IntoIterator<Item = &'a NodeName>, networks: &[IpNetwork]) -> Needs {
        let mut needs = Needs::default();
        for node in nodes {
            needs.add_needs(&self.by_group.get(node).copied().unwrap_or_else(|| self.of_links(node)));
            let neighbours = self.neighbours(node, networks);
            needs.neighbours = [0, 1].map(|family| needs.neighbours[family].max(neighbours[family]));
        }
        needs
    }

    /// The needs of a node's links, one by one.
    pub(super) fn of_links(&self, node: &NodeName) -> Needs {
        let mut needs = Needs::default();
        for (peer, _) in self.nodes.iter().filter(|(peer, _)| *peer != node) {
            needs.add(&self.wanted.link(node, peer), &self.wanted.link(peer, node));
        }
        needs
    }

    /// The number of addresses of other nodes on these networks: IPv4 and IPv6.
    fn neighbours(&self, node: &NodeName, networks: &[IpNetwork]) -> [usize; 2] {
        let near = |address: &&IpAddr| networks.iter().any(|network| network.contains(**address));
        // Nodes whose addresses are not known count once for each family, which is usual.
        let of_unknown = [IpNetwork::is_ipv4, IpNetwork::is_ipv6].map(|is| usize::from(networks.iter().any(is)));
        let mut count = [0; 2];
        for (_, place) in self.nodes.iter().filter(|(peer, _)| *peer != node) {
            match place {
                Some(place) => place.addresses.iter().filter(near).for_each(|address| {
                    count[usize::from(address.is_ipv6())] += 1;
                }),
                None => count = [0, 1].map(|family| count[family] + of_unknown[family]),
            }
        }
        count
    }
}

/// The needs of the links of each node of a topology.
fn of_groups<'t>(groups: &NodeGroups<'t>) -> BTreeMap<&'t NodeName, Needs> {
    let links: Vec<_> = (0..groups.count()).map(|group| groups.links_from(group)).collect();
    let mut all = BTreeMap::new();
    for (group, from) in links.iter().enumerate() {
        let mut needs = Needs::default();
        for (there, to) in from.iter().zip(&links) {
            if let (Some(there), Some(back)) = (there, &to[group]) {
                needs.add(there, back);
            }
        }
        all.extend(groups.nodes(group).map(|node| (node, needs)));
    }
    all
}

impl Needs {
    /// Adds the needs of another node's links.
    fn add_needs(&mut self, other: &Self) {
        self.sent = larger(self.sent, other.sent);
        self.received = larger(self.received, other.received);
        self.longest_rtt = self.longest_rtt.max(other.longest_rtt);
        self.highest_rate = self.highest_rate.max(other.highest_rate);
        self.shortest_delay = self.shortest_delay.into_iter().chain(other.shortest_delay).min();
        self.is_random |= other.is_random;
    }

    /// Adds the two links between a node and a peer.
    fn add(&mut self, there: &Link, back: &Link) {
        let rtt = there.delay.as_nanos().saturating_add(back.delay.as_nanos());
        let rate = |link: &Link| link.rate.map(|rate| rate.bits.bits_per_second());
        let demand = |link: &Link| rate(link).map(|rate| Demand { rate, rtt });
        self.sent = larger(self.sent, demand(there));
        self.received = larger(self.received, demand(back));
        if there.rate.is_none() && rtt > 0 {
            self.longest_rtt = self.longest_rtt.max(Some(rtt));
        }
        for link in [there, back] {
            self.highest_rate = self.highest_rate.max(rate(link).unwrap_or_default());
            let delay = Some(link.delay.as_nanos()).filter(|delay| *delay > 0);
            self.shortest_delay = self.shortest_delay.into_iter().chain(delay).min();
            self.is_random |=
                link.loss.is_some() || link.duplicate.is_some() || link.corrupt.is_some() || link.reorder.is_some();
        }
    }
}

fn larger(one: Option<Demand>, other: Option<Demand>) -> Option<Demand> {
    one.into_iter().chain(other).max_by_key(|demand| demand.product())
}
