//! One node's part of the wanted state: which address gets which profile, and which is cut.

use std::{
    cell::LazyCell,
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{Answer, Cut, LineRate, Partition, Profile, Wanted};
use crate::topology::{Link, NodeName, RatePer, ZoneName};

/// What one node's interface does to the packets that it sends, and which it refuses.
///
/// An address in neither (ARP and ND in any case) passes as on the bare LAN.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shaping {
    /// Destination address → what delays it.
    pub leaf_specs: BTreeMap<IpAddr, LeafSpec>,
    /// What is dropped.
    pub cuts: BTreeSet<Cut>,
}

impl Shaping {
    /// Whether the agent has to answer some of what is cut.
    pub fn has_refusals(&self) -> bool {
        self.cuts.iter().any(|cut| cut.answer == Answer::Refusal)
    }
}

/// What an address is sent through: one leaf for all addresses of one lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LeafSpec {
    /// What it does.
    pub profile: Profile,
    /// Of a profile with memory, the lowest of the addresses that share it; else none, and all addresses share it.
    pub shared_from: Option<IpAddr>,
}

impl LeafSpec {
    /// The lane of a leaf with this profile that these addresses are sent through.
    pub fn of<'a>(profile: Profile, addresses: impl IntoIterator<Item = &'a IpAddr>) -> Self {
        let shared_from = if profile.has_memory() { addresses.into_iter().min().copied() } else { None };
        Self { profile, shared_from }
    }
}

impl Wanted {
    /// What `node` must do, or `None` where its interface is to be as it was found.
    ///
    /// `line` is the rate of the node's own interface; only the profiles' limits depend on it. Time and memory are
    /// linear in the number of nodes: no table of pairs is ever built.
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

    /// What a partition drops at the interface of `node`.
    pub fn cuts_of(&self, partition: &Partition, node: &NodeName) -> Vec<Cut> {
        let seats = partition.shape.seats();
        let mut cuts = Vec::new();
        for (peer, place) in &self.inventory.nodes {
            for (direction, traffic, answer) in partition.drops(seats.part(node, peer), seats.part(peer, node)) {
                let cut = |address: &IpAddr| Cut { direction, address: *address, traffic, answer };
                cuts.extend(place.addresses.iter().map(cut));
            }
        }
        cuts
    }

    /// The zone of each node that is in one.
    fn zone_index(&self) -> HashMap<&NodeName, &ZoneName> {
        let zones = self.zones().into_iter();
        zones.flat_map(|(zone, nodes)| nodes.iter().map(move |node| (node, zone))).collect()
    }
}

/// The name of those who share a leaf with `peer`: itself, or its zone.
fn sharers<'a>(peer: &'a NodeName, link: &Link, zone_of: &HashMap<&NodeName, &'a ZoneName>) -> &'a str {
    match zone_of.get(peer) {
        Some(zone) if link.rate.is_some() && link.rate_per == RatePer::Zone => zone.as_str(),
        _ => peer.as_str(),
    }
}

/// A seed of a link's own: with one seed for all, all would lose the same packets.
fn own_seed(seed: u64, from: &NodeName, to: &str) -> u64 {
    // No name has a slash in it.
    let digest = Sha256::digest(format!("{seed}/{from}/{to}"));
    digest.iter().take(8).fold(0, |own, byte| own << 8 | u64::from(*byte))
}
