//! Holds the state of one interface in the kernel ([`Tree`]): the objects of netemctl, decoded, and foreign objects.
//!
//! The module `tc_numbers` shows the layout of the objects.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use super::{ClassMinor, Counters, Cut, Direction, Filters, ForeignObject, LeafSpec, Profile, Route, Shaping, Step};

/// The state of one interface in the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
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
    /// The filters of our root.
    pub egress: Filters,
    /// The filters of the ingress. Without our root, these filters can remain.
    pub ingress: Filters,
    /// The kernel's counters.
    pub counters: Counters,
    /// The objects of other programs. netemctl adds no root to an interface with foreign objects.
    pub foreign: Vec<ForeignObject>,
}

/// A class and its netem leaf.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leaf {
    /// The parameters of the leaf. `None`: no leaf.
    pub profile: Option<Profile>,
    /// The number of packets in the queue of the leaf.
    pub queued: u32,
}

impl Tree {
    /// The filters of a direction.
    pub fn filters(&self, direction: Direction) -> &Filters {
        match direction {
            Direction::Egress => &self.egress,
            Direction::Ingress => &self.ingress,
        }
    }

    /// The filters of a direction, to change them.
    pub fn filters_mut(&mut self, direction: Direction) -> &mut Filters {
        match direction {
            Direction::Egress => &mut self.egress,
            Direction::Ingress => &mut self.ingress,
        }
    }

    /// The classes to which the active chain sends packets.
    pub fn classes_in_use(&self) -> BTreeSet<ClassMinor> {
        self.active_routes().values().map(|route| route.class).collect()
    }

    /// The routes of the active chain.
    pub fn active_routes(&self) -> &BTreeMap<IpAddr, Route> {
        &self.egress.in_use().routes
    }

    /// The cuts of the active chains.
    pub fn cuts(&self) -> impl Iterator<Item = &Cut> {
        self.egress.in_use().cuts.keys().chain(self.ingress.in_use().cuts.keys())
    }

    /// The specification of the leaf of each class that has a leaf.
    ///
    /// The addresses of a leaf are the addresses that the active chain sends to its class.
    pub fn leaf_specs(&self) -> BTreeMap<ClassMinor, Arc<LeafSpec>> {
        let mut lowest: BTreeMap<ClassMinor, IpAddr> = BTreeMap::new();
        for (address, route) in self.active_routes() {
            lowest.entry(route.class).or_insert(*address);
        }
        let spec = |(class, leaf): (&ClassMinor, &Leaf)| Some((*class, LeafSpec::of(leaf.profile?, lowest.get(class))));
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
                .filter_map(|(address, route)| Some((*address, Arc::clone(leaf_specs.get(&route.class)?))))
                .collect(),
            cuts: self.cuts().copied().collect(),
        })
    }

    /// The tree without the objects that these steps have added. The steps are the preparation of a change
    /// ([`Change::preparation`](super::Change::preparation)).
    #[must_use]
    pub fn before(mut self, preparation: &[Step]) -> Self {
        for step in preparation.iter().rev() {
            match step {
                Step::AddRoot => self.taken = false,
                Step::AddHook => self.hook = false,
                Step::AddClass { class, .. } => {
                    self.classes.remove(class);
                    self.counters.leaves.remove(class);
                }
                Step::AddPass { direction, types } => {
                    self.filters_mut(*direction).passes.retain(|kind| !types.contains(kind));
                }
                Step::BuildChain { direction, chain, .. } => {
                    self.filters_mut(*direction).chains.remove(chain);
                }
                _ => {}
            }
        }
        self
    }
}
