//! The state of one interface in the kernel: our objects, decoded, and the objects of others. `tc_numbers` shows the
//! layout.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use serde::{Deserialize, Serialize};

use super::{ClassMinor, Counters, Cut, ForeignObject, LeafSpec, Profile, Shaping};

/// The objects of one interface that concern netemctl.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tree {
    /// True if the root qdisc is ours, by its handle.
    pub taken: bool,
    /// True if clsact is ours. A clsact has no mark: it is ours beside our root.
    pub hook: bool,
    /// The classes of our root, with the default class.
    pub classes: BTreeMap<ClassMinor, Leaf>,
    /// The chains of our root except chain 0: chain → address → target.
    pub chains: BTreeMap<u32, BTreeMap<IpAddr, RouteTarget>>,
    /// The active chain. `None`: all packets are undelayed.
    pub active: Option<u32>,
    /// The neighbour-discovery types with a filter at our root.
    pub egress_passes: BTreeSet<u8>,
    /// The neighbour-discovery types with a filter at ingress.
    pub ingress_passes: BTreeSet<u8>,
    /// The cuts, with the handles of their filters.
    #[serde(with = "crate::plan::cut::as_list")]
    pub cuts: BTreeMap<Cut, u32>,
    /// The kernel's counters.
    #[serde(skip)]
    pub counters: Counters,
    /// The foreign objects. Nothing is added beside them.
    pub foreign: Vec<ForeignObject>,
}

/// A class and its netem leaf.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leaf {
    /// The parameters of the leaf. `None`: no leaf.
    pub profile: Option<Profile>,
    /// The number of waiting packets.
    pub queued: u32,
}

/// The target of an address in a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteTarget {
    /// The class.
    pub class: ClassMinor,
    /// The filter's handle.
    pub handle: u32,
}

impl Tree {
    /// The classes of the active chain.
    pub fn classes_in_use(&self) -> BTreeSet<ClassMinor> {
        self.active_routes().values().map(|target| target.class).collect()
    }

    /// The routes of the active chain.
    pub fn active_routes(&self) -> &BTreeMap<IpAddr, RouteTarget> {
        const NONE: &BTreeMap<IpAddr, RouteTarget> = &BTreeMap::new();
        self.active.and_then(|chain| self.chains.get(&chain)).unwrap_or(NONE)
    }

    /// The leaf of each class, with the addresses of the active chain.
    pub fn leaf_specs(&self) -> BTreeMap<ClassMinor, LeafSpec> {
        let mut addresses: BTreeMap<ClassMinor, Vec<IpAddr>> = BTreeMap::new();
        for (address, target) in self.active_routes() {
            addresses.entry(target.class).or_default().push(*address);
        }
        let spec = |(class, leaf): (&ClassMinor, &Leaf)| {
            let addresses = addresses.get(class).map(Vec::as_slice).unwrap_or_default();
            Some((*class, LeafSpec::of(leaf.profile?, addresses)))
        };
        self.classes.iter().filter_map(spec).collect()
    }

    /// The state of the interface in the planner's terms. `None`: our root is missing.
    pub fn shaping(&self) -> Option<Shaping> {
        if !self.taken {
            return None;
        }
        let leaf_specs = self.leaf_specs();
        Some(Shaping {
            leaf_specs: self
                .active_routes()
                .iter()
                .filter_map(|(address, target)| Some((*address, *leaf_specs.get(&target.class)?)))
                .collect(),
            cuts: self.cuts.keys().copied().collect(),
        })
    }
}
