//! One node's part of the wanted state: which address gets which profile, and which is cut.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use serde::{Deserialize, Serialize};

use super::{LineRate, Profile, Wanted};
use crate::topology::NodeName;

/// What one node's interface does to the packets that it sends, and which it refuses.
///
/// An address in neither map (ARP and ND in any case) passes as on the bare LAN.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shaping {
    /// Destination address → what delays it.
    pub profiles: BTreeMap<IpAddr, Profile>,
    /// Addresses with which nothing is exchanged, in either direction.
    pub cuts: BTreeSet<IpAddr>,
}

impl Wanted {
    /// What `node` must do, or `None` where its interface is to be as it was found.
    ///
    /// `rate` is that of the node's own interface; only the profiles' limits depend on it. Time and memory are
    /// linear in the number of nodes: no table of pairs is ever built.
    pub fn shaping(&self, node: &NodeName, rate: LineRate) -> Option<Shaping> {
        let shaped = self.topology.as_ref().filter(|topology| topology.contains(node));
        if shaped.is_none() && self.partitions.is_empty() {
            return None;
        }
        let mut shaping = Shaping::default();
        for (peer, link) in shaped.into_iter().flat_map(|topology| topology.links_from(node)) {
            if let (Some(place), Some(profile)) = (self.inventory.nodes.get(peer), Profile::of(link, rate)) {
                shaping.profiles.extend(place.addresses.iter().map(|address| (*address, profile)));
            }
        }
        for partition in &self.partitions {
            for (peer, place) in &self.inventory.nodes {
                if partition.cuts(node, peer) {
                    shaping.cuts.extend(&place.addresses);
                }
            }
        }
        Some(shaping)
    }
}
