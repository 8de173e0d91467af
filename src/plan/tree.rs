//! What the kernel has on one interface: our tree, decoded, and whatever in it is not ours.
//!
//! ```text
//! root htb 4e7e: default 1
//! ├─ class 4e7e:1              undelayed: ARP, ND, hosts outside the topology
//! ├─ class 4e7e:2 ─ netem 2:   one class and one leaf per distinct profile
//! ├─ filters, chain 0          1 ND → 4e7e:1 · 2, 3 cuts: drop · 4, 5 refusals: sample, drop · 100 goto chain 10 or 11
//! └─ filters, chain 10 or 11   10, 11 address → class
//! clsact, ingress              1 ND passes · 2, 3 cuts: drop
//! ```

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use serde::{Deserialize, Serialize};

use super::{Counters, Cut, ForeignObject, LeafSpec, Profile, Shaping};

/// Our mark: the major number of the root qdisc's handle ("N~" in ASCII). Nothing without it is ever touched.
pub const MARK: u16 = 0x4e7e;

/// How the kernel hands the agent what a cut with a refusal drops: the group of its samples. Ours by its number, which
/// is that of the mark.
pub const SAMPLE_GROUP: u32 = MARK as u32;

/// How much of each packet it hands over, in bytes: what an `ICMPv6` error may quote (RFC 4443 section 2.4), and the
/// link layer's header.
pub const SAMPLE_LENGTH: u32 = 1280;

/// The class that delays nothing; the root's default.
pub const DEFAULT_CLASS: ClassMinor = 1;

/// The `ICMPv6` types of neighbour discovery (RFC 4861), which are never delayed and never cut.
pub const ND_TYPES: [u8; 5] = [133, 134, 135, 136, 137];

/// The minor number of a class under the root; its netem leaf's handle has it as the major number.
pub type ClassMinor = u16;

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
