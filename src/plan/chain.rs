//! Defines the filters of a chain ([`ChainFilter`]) and the chains of one direction ([`Filters`]).

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use serde::{Deserialize, Serialize};

use super::{ClassMinor, Cut, Direction};

/// A filter of a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum ChainFilter {
    /// Assigns packets for an address to a class. Only egress has routes.
    Route(Route),
    /// Drops packets.
    Cut(CutFilter),
}

impl ChainFilter {
    /// The place of the filter.
    pub fn direction(&self) -> Direction {
        match self {
            Self::Route(_) => Direction::Egress,
            Self::Cut(filter) => filter.cut.direction,
        }
    }
}

/// A filter that assigns packets for an address to a class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Route {
    /// The destination.
    pub address: IpAddr,
    /// The class.
    pub class: ClassMinor,
    /// The filter's handle.
    pub handle: u32,
}

/// The filter of a cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct CutFilter {
    /// The cut.
    pub cut: Cut,
    /// The filter's handle.
    pub handle: u32,
    /// The number (`index`) of the kernel's drop action, which counts the packets.
    ///
    /// Two filters with the same action share its counter. So a cut keeps its counter when its chain is built again.
    /// `None`: the kernel makes a new action, whose counter starts at 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counter: Option<u32>,
}

/// The filters of a chain, by the packets that they match.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chain {
    /// The routes, by destination.
    pub routes: BTreeMap<IpAddr, Route>,
    /// The filters of the cuts.
    pub cuts: BTreeMap<Cut, CutFilter>,
}

/// The filters of one direction: of our root qdisc (egress) or of the ingress.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filters {
    /// The `ICMPv6` types of neighbour discovery that have a pass filter in chain 0.
    pub passes: BTreeSet<u8>,
    /// The active chain: the chain to which the gate, a filter of chain 0, sends all other packets. `None`: there is no
    /// gate.
    pub active: Option<u32>,
    /// The chains except chain 0.
    pub chains: BTreeMap<u32, Chain>,
}

impl Chain {
    /// Adds a filter. Returns the filter that had the same key.
    pub fn insert(&mut self, filter: ChainFilter) -> Option<ChainFilter> {
        match filter {
            ChainFilter::Route(route) => self.routes.insert(route.address, route).map(ChainFilter::Route),
            ChainFilter::Cut(filter) => self.cuts.insert(filter.cut, filter).map(ChainFilter::Cut),
        }
    }

    /// Removes the filter with the same key. Returns the removed filter.
    pub fn remove(&mut self, filter: &ChainFilter) -> Option<ChainFilter> {
        match filter {
            ChainFilter::Route(route) => self.routes.remove(&route.address).map(ChainFilter::Route),
            ChainFilter::Cut(filter) => self.cuts.remove(&filter.cut).map(ChainFilter::Cut),
        }
    }

    /// The filters: the routes, then the cuts.
    pub fn filters(&self) -> impl Iterator<Item = ChainFilter> {
        let cuts = self.cuts.values().copied().map(ChainFilter::Cut);
        self.routes.values().copied().map(ChainFilter::Route).chain(cuts)
    }

    /// True if the chain has no filter.
    pub fn is_empty(&self) -> bool {
        self.routes.is_empty() && self.cuts.is_empty()
    }
}

impl Filters {
    /// The filters of the active chain.
    pub fn in_use(&self) -> &Chain {
        const NONE: &Chain = &Chain { routes: BTreeMap::new(), cuts: BTreeMap::new() };
        self.active.and_then(|chain| self.chains.get(&chain)).unwrap_or(NONE)
    }
}

/// The directions, each with its own list of filters.
pub(super) const DIRECTIONS: [Direction; 2] = [Direction::Egress, Direction::Ingress];
