//! Computes the wanted state of a node's interface ([`Shaping`]): the netem leaf of each peer address, and the cuts.

use std::{
    cell::LazyCell,
    collections::{BTreeMap, BTreeSet, HashMap, btree_map},
    net::IpAddr,
    sync::Arc,
};

use sha2::{Digest as _, Sha256};

use super::{Answer, Cut, Inventory, LineRate, NodeLocation, Partition, Profile, Wanted};
use crate::topology::{Link, NodeName, RatePer, ZoneName};

/// The wanted state of a node's interface.
///
/// ARP and ND always pass. Packets to an address without a leaf pass without delay and loss, unless a cut drops them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shaping {
    /// The specification of the leaf for each destination address. The addresses of a leaf share one object.
    pub leaf_specs: BTreeMap<IpAddr, Arc<LeafSpec>>,
    /// The cuts.
    pub cuts: BTreeSet<Cut>,
}

impl Shaping {
    /// True if at least one cut answers with a refusal.
    pub fn has_refusals(&self) -> bool {
        self.cuts.iter().any(|cut| cut.answer == Answer::Refusal)
    }

    /// The different leaves.
    pub(super) fn distinct_specs(&self) -> BTreeSet<&LeafSpec> {
        let mut specs = BTreeSet::new();
        let mut last = None;
        for spec in self.leaf_specs.values() {
            // Addresses in a row mostly share a leaf, and a comparison of two leaves is slow.
            if !last.replace(spec).is_some_and(|last| Arc::ptr_eq(last, spec)) {
                specs.insert(&**spec);
            }
        }
        specs
    }
}

/// The specification of the leaf for an address. Addresses with equal specifications share a leaf.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeafSpec {
    /// The parameters.
    pub profile: Profile,
    /// If packets affect later packets in the leaf: the lowest address of the group that shares the leaf. It
    /// distinguishes groups with equal profiles.
    ///
    /// `None`: packets do not affect later packets, so all addresses with this profile share the leaf.
    pub shared_from: Option<IpAddr>,
}

impl LeafSpec {
    /// The specification of a leaf with this profile.
    ///
    /// If packets affect later packets in the leaf ([`Profile::has_memory`]), the leaf is for these addresses only.
    pub fn of<'a>(profile: Profile, addresses: impl IntoIterator<Item = &'a IpAddr>) -> Arc<Self> {
        let shared_from = if profile.has_memory() { addresses.into_iter().min().copied() } else { None };
        Arc::new(Self { profile, shared_from })
    }
}

impl Wanted {
    /// True if the node's interface is shaped.
    pub fn shapes(&self, node: &NodeName) -> bool {
        let is_in_topology = self.topology.as_ref().is_some_and(|topology| topology.contains(node));
        let sends = || self.overlays.iter().any(|overlay| overlay.has_sender(node));
        is_in_topology || !self.partitions.is_empty() || sends()
    }

    /// The wanted state of a node's interface. `None`: the interface is not shaped.
    ///
    /// `line` is the line rate of the interface, which determines the limits of profiles. The function computes only
    /// the links from `node`, so memory grows with the number of nodes, not of links.
    pub fn shaping(&self, node: &NodeName, line: LineRate) -> Option<Shaping> {
        if !self.shapes(node) {
            return None;
        }
        let zone_of = LazyCell::new(|| self.zone_index());
        let mut leaves = Leaves::default();
        let mut locations = Locations::of(&self.inventory);
        for (peer, link) in self.links_from(node) {
            let Some(location) = locations.find(peer) else { continue };
            let leaf = match leaves.last {
                Some((last, leaf)) if last == link => leaf,
                _ => Profile::of(&link, line).map(|mut profile| {
                    let sharers = if profile.has_memory() { Sharers::of(peer, &link, &zone_of) } else { Sharers::All };
                    profile.seed = profile.seed.map(|seed| own_seed(seed, node, &self.seed_text(sharers)));
                    leaves.leaf(profile, sharers)
                }),
            };
            leaves.add(&link, leaf, &location.addresses);
        }
        let mut shaping = Shaping { leaf_specs: leaves.specs_by_address(), ..Shaping::default() };
        shaping.cuts.extend(self.partitions.iter().flat_map(|partition| self.cuts_of(partition, node)));
        Some(shaping)
    }

    /// The cuts of a partition at a node's interface.
    pub fn cuts_of(&self, partition: &Partition, node: &NodeName) -> Vec<Cut> {
        let sides = partition.shape.side_index();
        let mut cuts = Vec::new();
        for (peer, place) in &self.inventory.nodes {
            for (direction, traffic, answer) in partition.drops(sides.cuts(node, peer), sides.cuts(peer, node)) {
                let cut = |address: &IpAddr| Cut { direction, address: *address, traffic, answer };
                cuts.extend(place.addresses.iter().map(cut));
            }
        }
        cuts
    }

    /// The text that gives the leaf of these peers a seed of its own: the name of the peer or the zone.
    ///
    /// Outside the topology, a node can have the name of a zone. The text of the zone then ends with a slash, which no
    /// name contains.
    fn seed_text(&self, sharers: Sharers<'_>) -> String {
        match sharers {
            Sharers::All => String::new(),
            Sharers::Peer(peer) => peer.to_string(),
            Sharers::Zone(zone) => {
                let node = zone.as_str().parse::<NodeName>();
                let is_ambiguous = node.is_ok_and(|node| self.inventory.nodes.contains_key(&node));
                if is_ambiguous { format!("{zone}/") } else { zone.to_string() }
            }
        }
    }

    /// The zone of each node that has a zone.
    fn zone_index(&self) -> HashMap<&NodeName, &ZoneName> {
        let zones = self.zones().into_iter();
        zones.flat_map(|(zone, nodes)| nodes.iter().map(move |node| (node, zone))).collect()
    }
}

/// The leaves of a node, and the addresses that they lead to.
#[derive(Default)]
struct Leaves<'a> {
    /// The leaves. A leaf that several links cannot share has its lowest address.
    specs: Vec<LeafSpec>,
    numbers: HashMap<(Profile, Sharers<'a>), usize>,
    /// The last link with a leaf for all its peers, or without a leaf. Most peers have the link of the peer before.
    last: Option<(Link, Option<usize>)>,
    /// The addresses with their leaves: first the first addresses of all peers, then the second ones, and so on.
    ///
    /// In this order, the addresses of most inventories are a few ascending lists, which are sorted fast.
    addresses: Vec<Vec<(IpAddr, usize)>>,
}

impl<'a> Leaves<'a> {
    /// The number of a leaf.
    fn leaf(&mut self, profile: Profile, sharers: Sharers<'a>) -> usize {
        *self.numbers.entry((profile, sharers)).or_insert_with(|| {
            self.specs.push(LeafSpec { profile, shared_from: None });
            self.specs.len() - 1
        })
    }

    /// Adds the addresses of a peer with this link.
    fn add(&mut self, link: &Link, leaf: Option<usize>, addresses: &[IpAddr]) {
        let spec = leaf.map(|leaf| &mut self.specs[leaf]);
        match spec.filter(|spec| spec.profile.has_memory()) {
            Some(spec) => spec.shared_from = spec.shared_from.iter().chain(addresses).min().copied(),
            None => self.last = Some((*link, leaf)),
        }
        let Some(leaf) = leaf else { return };
        self.addresses.resize_with(self.addresses.len().max(addresses.len()), Vec::new);
        for (list, address) in self.addresses.iter_mut().zip(addresses) {
            list.push((*address, leaf));
        }
    }

    /// The leaf of each address. If two peers have the same address, the greater leaf counts.
    fn specs_by_address(self) -> BTreeMap<IpAddr, Arc<LeafSpec>> {
        let mut addresses = self.addresses.concat();
        addresses.sort_by_key(|(address, _)| *address);
        addresses.dedup_by(|(address, leaf), (before, leaf_before)| {
            let is_same = address == before;
            if is_same && self.specs[*leaf] > self.specs[*leaf_before] {
                *leaf_before = *leaf;
            }
            is_same
        });
        let specs: Vec<Arc<LeafSpec>> = self.specs.into_iter().map(Arc::new).collect();
        addresses.into_iter().map(|(address, leaf)| (address, Arc::clone(&specs[leaf]))).collect()
    }
}

/// The locations of an inventory. Most topologies have their nodes in the order of the inventory.
struct Locations<'a> {
    inventory: &'a Inventory,
    /// The locations from the one after the last location that was found.
    next: btree_map::Range<'a, NodeName, NodeLocation>,
}

impl<'a> Locations<'a> {
    fn of(inventory: &'a Inventory) -> Self {
        Self { inventory, next: inventory.nodes.range(..) }
    }

    fn find(&mut self, node: &NodeName) -> Option<&'a NodeLocation> {
        let is_node = |(name, location): (&NodeName, &'a NodeLocation)| (name == node).then_some(location);
        self.next.next().and_then(is_node).or_else(|| {
            self.next = self.inventory.nodes.range(node..);
            self.next.next().and_then(is_node)
        })
    }
}

/// The peers that share a leaf.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Sharers<'a> {
    /// All peers with the same profile: packets do not affect later packets.
    All,
    /// The peers in a zone: the link has a rate per zone.
    Zone(&'a ZoneName),
    /// One peer.
    Peer(&'a NodeName),
}

impl<'a> Sharers<'a> {
    /// The peers that share the leaf of a link to `peer`, if packets affect later packets.
    fn of(peer: &'a NodeName, link: &Link, zone_of: &HashMap<&NodeName, &'a ZoneName>) -> Self {
        match zone_of.get(peer) {
            Some(zone) if link.rate.is_some() && link.rate_per == RatePer::Zone => Self::Zone(zone),
            _ => Self::Peer(peer),
        }
    }
}

/// Derives a different seed for each leaf. `to` names its peer or, with a rate per zone, its zone. With the same seed, all
/// leaves would lose packets at the same positions.
fn own_seed(seed: u64, from: &NodeName, to: &str) -> u64 {
    // Names contain no slash, so the text is unique.
    let digest = Sha256::digest(format!("{seed}/{from}/{to}"));
    digest.iter().take(8).fold(0, |own, byte| own << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        plan::{AgentAddress, Overlay},
        topology::{LinkChange, Source, Topology},
    };

    /// A zone `b` of two nodes, and a node outside the topology.
    fn wanted(outsider: &str) -> Wanted {
        let text = "name = 't'\nzones = { a = 'n1', b = 'n[2-3]' }\n[links]\n\
                    default = { rtt = '10ms', rate = '1gbit', rate-per = 'zone', seed = 7 }\n";
        let change = LinkChange::parse(Source::new("set", "rtt = '10ms'\nrate = '1gbit'\nseed = 7\n"), true).unwrap();
        let node = |name: &str| name.parse::<NodeName>().unwrap();
        let place = |number: u8| NodeLocation {
            agent: AgentAddress::Unix(format!("/run/{number}.sock").into()),
            interface: "db0".parse().unwrap(),
            addresses: vec![IpAddr::from([10, 0, 0, number])],
        };
        let overlay = Overlay {
            name: "far".into(),
            from: [node("n1")].into(),
            to: [node(outsider)].into(),
            both_ways: true,
            change,
            since: 1,
            lasts: None,
        };
        let names = ["n1", "n2", "n3", outsider].map(node);
        Wanted {
            topology: Some(Topology::parse(Source::new("t.toml", text)).unwrap()),
            inventory: Inventory { nodes: names.into_iter().zip((1..).map(place)).collect(), ..Inventory::default() }
                .into(),
            overlays: vec![overlay],
            ..Wanted::default()
        }
    }

    /// The leaves of `n1` to `n2`, `n3` and the outsider.
    fn leaves(outsider: &str) -> [Arc<LeafSpec>; 3] {
        let shaping = wanted(outsider).shaping(&"n1".parse().unwrap(), LineRate::UNKNOWN).unwrap();
        [2, 3, 4].map(|number| Arc::clone(&shaping.leaf_specs[&IpAddr::from([10, 0, 0, number])]))
    }

    #[test]
    fn a_node_outside_the_topology_with_the_name_of_a_zone_has_its_own_leaf_and_seed() {
        let [n2, n3, outsider] = leaves("b");
        assert_eq!(n2, n3);
        assert_ne!(n2.profile.seed, outsider.profile.seed);
        assert_ne!(n2.shared_from, outsider.shared_from);
    }

    #[test]
    fn the_seeds_of_zones_and_nodes_with_different_names_do_not_change() {
        let seed = |text: &str| {
            let digest = Sha256::digest(format!("7/n1/{text}"));
            Some(u64::from_be_bytes(digest[..8].try_into().unwrap()))
        };
        let [n2, _, outsider] = leaves("c");
        assert_eq!([n2.profile.seed, outsider.profile.seed], [seed("b"), seed("c")]);
    }
}
