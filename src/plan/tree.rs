//! The state of one interface in the kernel: our objects, decoded, and the objects of others. `tc_numbers` shows the
//! layout.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use serde::{Deserialize, Serialize};

use super::{ClassMinor, Counters, Cut, ForeignObject, LeafSpec, Profile, Shaping};

/// Everything on one interface that matters to us.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tree {
    /// Whether the root qdisc is ours, by its handle; else it is the kernel's default or foreign.
    pub taken: bool,
    /// Whether there is a clsact qdisc. It carries no mark of its own, so it is ours only where the root is.
    pub hook: bool,
    /// The classes under our root, the default class among them.
    pub classes: BTreeMap<ClassMinor, Leaf>,
    /// Filter chains of our root other than chain 0: chain → address → where its packets go.
    pub chains: BTreeMap<u32, BTreeMap<IpAddr, RouteTarget>>,
    /// The chain that packets are sent to; `None`: no chain, everything is undelayed.
    pub active: Option<u32>,
    /// The neighbour-discovery types that the root lets pass first.
    pub egress_passes: BTreeSet<u8>,
    /// The neighbour-discovery types that ingress lets pass first.
    pub ingress_passes: BTreeSet<u8>,
    /// What is dropped, with the filter's handle.
    #[serde(with = "crate::plan::cut::as_list")]
    pub cuts: BTreeMap<Cut, u32>,
    /// What the kernel has counted.
    #[serde(skip)]
    pub counters: Counters,
    /// What we did not make; while there is any, nothing is added.
    pub foreign: Vec<ForeignObject>,
}

/// A class and the netem under it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leaf {
    /// The netem leaf's parameters; `None` where there is no netem.
    pub profile: Option<Profile>,
    /// Packets that wait in it.
    pub queued: u32,
}

/// Where a filter of a chain sends an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteTarget {
    /// The class.
    pub class: ClassMinor,
    /// The filter's handle.
    pub handle: u32,
}

impl Tree {
    /// The classes that packets are sent to now.
    pub fn classes_in_use(&self) -> BTreeSet<ClassMinor> {
        self.active_routes().values().map(|target| target.class).collect()
    }

    /// The chain in use, or nothing.
    pub fn active_routes(&self) -> &BTreeMap<IpAddr, RouteTarget> {
        const NONE: &BTreeMap<IpAddr, RouteTarget> = &BTreeMap::new();
        self.active.and_then(|chain| self.chains.get(&chain)).unwrap_or(NONE)
    }

    /// What each leaf with a profile is, as it is used now.
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

    /// What the tree does, in the terms of what is wanted; `None` where our root is not there.
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
