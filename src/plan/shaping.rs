//! Computes the wanted state of a node's interface ([`Shaping`]): the netem leaf of each peer address, and the cuts.

use std::{
    cell::LazyCell,
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{Answer, Cut, LineRate, Partition, Profile, Wanted};
use crate::topology::{Link, NodeName, RatePer, ZoneName};

/// The wanted state of a node's interface.
///
/// ARP and ND always pass. Packets to an address without a leaf pass without delay and loss, unless a cut drops them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shaping {
    /// The specification of the leaf for each destination address.
    pub leaf_specs: BTreeMap<IpAddr, LeafSpec>,
    /// The cuts.
    pub cuts: BTreeSet<Cut>,
}

impl Shaping {
    /// True if at least one cut answers with a refusal.
    pub fn has_refusals(&self) -> bool {
        self.cuts.iter().any(|cut| cut.answer == Answer::Refusal)
    }
}

/// The specification of the leaf for an address. Addresses with equal specifications share a leaf.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
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
    pub fn of<'a>(profile: Profile, addresses: impl IntoIterator<Item = &'a IpAddr>) -> Self {
        let shared_from = if profile.has_memory() { addresses.into_iter().min().copied() } else { None };
        Self { profile, shared_from }
    }
}

impl Wanted {
    /// The wanted state of a node's interface. `None`: the interface is not shaped.
    ///
    /// `line` is the line rate of the interface, which determines the limits of profiles. The function computes only
    /// the links from `node`, so memory grows with the number of nodes, not of links.
    pub fn shaping(&self, node: &NodeName, line: LineRate) -> Option<Shaping> {
        let is_in_topology = self.topology.as_ref().is_some_and(|topology| topology.contains(node));
        let sends = || self.overlays.iter().any(|overlay| overlay.has_sender(node));
        if !is_in_topology && self.partitions.is_empty() && !sends() {
            return None;
        }
        let zone_of = LazyCell::new(|| self.zone_index());
        let mut groups: BTreeMap<(Profile, &str), Vec<IpAddr>> = BTreeMap::new();
        for (peer, link) in self.links_from(node) {
            let Some(place) = self.inventory.nodes.get(peer) else { continue };
            let Some(mut profile) = Profile::of(&link, line) else { continue };
            let sharers = if profile.has_memory() { sharers(peer, &link, &zone_of) } else { "" };
            profile.seed = profile.seed.map(|seed| own_seed(seed, node, sharers));
            groups.entry((profile, sharers)).or_default().extend(&place.addresses);
        }
        let mut shaping = Shaping::default();
        for ((profile, _), addresses) in groups {
            let spec = LeafSpec::of(profile, &addresses);
            shaping.leaf_specs.extend(addresses.into_iter().map(|address| (address, spec)));
        }
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

    /// The zone of each node that has a zone.
    fn zone_index(&self) -> HashMap<&NodeName, &ZoneName> {
        let zones = self.zones().into_iter();
        zones.flat_map(|(zone, nodes)| nodes.iter().map(move |node| (node, zone))).collect()
    }
}

/// The name of the group of peers that share a leaf: with a rate per zone, the zone of this peer.
///
/// Without a rate per zone, or if the peer has no zone, the group is the peer alone.
fn sharers<'a>(peer: &'a NodeName, link: &Link, zone_of: &HashMap<&NodeName, &'a ZoneName>) -> &'a str {
    match zone_of.get(peer) {
        Some(zone) if link.rate.is_some() && link.rate_per == RatePer::Zone => zone.as_str(),
        _ => peer.as_str(),
    }
}

/// Derives a different seed for each leaf: `to` is a peer or, with a rate per zone, a zone. With the same seed, all
/// leaves would lose packets at the same positions.
fn own_seed(seed: u64, from: &NodeName, to: &str) -> u64 {
    // Names contain no slash, so the text is unique.
    let digest = Sha256::digest(format!("{seed}/{from}/{to}"));
    digest.iter().take(8).fold(0, |own, byte| own << 8 | u64::from(*byte))
}
