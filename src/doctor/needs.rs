//! Computes what a topology needs of one node ([`Needs`]).

use std::net::IpAddr;

use ipnetwork::IpNetwork;

use crate::{
    plan::{NodeLocation, Wanted},
    topology::{Link, NodeName, Topology},
};

/// What a topology needs of one node.
#[derive(Debug, Clone, Default, PartialEq)]
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

impl Needs {
    /// The needs of some nodes together, each with an interface on these networks. The cost for one node is linear in the
    /// number of all nodes.
    pub fn of<'a>(wanted: &Wanted, nodes: impl IntoIterator<Item = &'a NodeName>, networks: &[IpNetwork]) -> Self {
        let located = &wanted.inventory.nodes;
        let unlocated = wanted.topology.iter().flat_map(Topology::nodes).filter(|node| !located.contains_key(*node));
        let peers: Vec<(&NodeName, Option<&NodeLocation>)> =
            located.iter().map(|(node, place)| (node, Some(place))).chain(unlocated.map(|node| (node, None))).collect();
        let mut needs = Self::default();
        for node in nodes {
            let mut neighbours = [0; 2];
            for (peer, place) in peers.iter().filter(|(peer, _)| *peer != node) {
                let near = |address: &&IpAddr| networks.iter().any(|network| network.contains(**address));
                if let Some(place) = place {
                    for address in place.addresses.iter().filter(near) {
                        neighbours[usize::from(address.is_ipv6())] += 1;
                    }
                } else {
                    // The addresses are not known. One address of each family is usual.
                    neighbours[0] += usize::from(networks.iter().any(IpNetwork::is_ipv4));
                    neighbours[1] += usize::from(networks.iter().any(IpNetwork::is_ipv6));
                }
                needs.add(&wanted.link(node, peer), &wanted.link(peer, node));
            }
            needs.neighbours = [0, 1].map(|family| needs.neighbours[family].max(neighbours[family]));
        }
        needs
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
