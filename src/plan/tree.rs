//! Holds the state of one interface in the kernel ([`Tree`]): the objects of netemctl, decoded, and foreign objects.
//!
//! The module `tc_numbers` shows the layout of the objects.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use serde::{Deserialize, Serialize};

use super::{ClassMinor, Counters, Cut, ForeignObject, LeafSpec, Profile, Route, Shaping};

/// The state of one interface in the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tree {
    /// True if the root qdisc has the handle of netemctl.
    pub taken: bool,
    /// True if the clsact qdisc belongs to netemctl.
    ///
    /// clsact cannot carry a mark. So clsact belongs to netemctl if the root belongs to netemctl, or if clsact has all
    /// neighbour-discovery filters of netemctl.
    pub hook: bool,
    /// The classes of our root, including the default class.
    pub classes: BTreeMap<ClassMinor, Leaf>,
    /// The chains of our root except chain 0. Each chain maps addresses to routes.
    pub chains: BTreeMap<u32, BTreeMap<IpAddr, Route>>,
    /// The active chain: the chain to which a filter of chain 0 sends packets. `None`: the root delays no packet.
    pub active: Option<u32>,
    /// The `ICMPv6` types of neighbour discovery for which our root has a pass filter.
    pub egress_passes: BTreeSet<u8>,
    /// The `ICMPv6` types of neighbour discovery for which the ingress has a pass filter.
    pub ingress_passes: BTreeSet<u8>,
    /// The cuts, with the handles of their filters.
    #[serde(with = "crate::plan::cut::as_list")]
    pub cuts: BTreeMap<Cut, u32>,
    /// The kernel's counters.
    #[serde(skip)]
    pub counters: Counters,
    /// The objects of other programs. netemctl adds no root to an interface with foreign objects.
    pub foreign: Vec<ForeignObject>,
}

/// A class and its netem leaf.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leaf {
    /// The parameters of the leaf. `None`: no leaf.
    pub profile: Option<Profile>,
    /// The number of packets in the queue of the leaf.
    pub queued: u32,
}

impl Tree {
    /// The classes to which the active chain sends packets.
    pub fn classes_in_use(&self) -> BTreeSet<ClassMinor> {
        self.active_routes().values().map(|route| route.class).collect()
    }

    /// The routes of the active chain.
    pub fn active_routes(&self) -> &BTreeMap<IpAddr, Route> {
        const NONE: &BTreeMap<IpAddr, Route> = &BTreeMap::new();
        self.active.and_then(|chain| self.chains.get(&chain)).unwrap_or(NONE)
    }

    /// The specification of the leaf of each class that has a leaf.
    ///
    /// The addresses of a leaf are the addresses that the active chain sends to its class.
    pub fn leaf_specs(&self) -> BTreeMap<ClassMinor, LeafSpec> {
        let mut addresses: BTreeMap<ClassMinor, Vec<IpAddr>> = BTreeMap::new();
        for (address, route) in self.active_routes() {
            addresses.entry(route.class).or_default().push(*address);
        }
        let spec = |(class, leaf): (&ClassMinor, &Leaf)| {
            let addresses = addresses.get(class).map(Vec::as_slice).unwrap_or_default();
            Some((*class, LeafSpec::of(leaf.profile?, addresses)))
        };
        self.classes.iter().filter_map(spec).collect()
    }

    /// The state of the interface as a [`Shaping`]. `None`: our root is missing.
    pub fn shaping(&self) -> Option<Shaping> {
        if !self.taken {
            return None;
        }
        let leaf_specs = self.leaf_specs();
        Some(Shaping {
            leaf_specs: self
                .active_routes()
                .iter()
                .filter_map(|(address, route)| Some((*address, *leaf_specs.get(&route.class)?)))
                .collect(),
            cuts: self.cuts.keys().copied().collect(),
        })
    }
}
