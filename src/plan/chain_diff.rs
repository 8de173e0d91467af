//! Computes the steps that bring the filters of one direction to the wanted filters ([`ChainDiff`]).
//!
//! A few filters change one by one in the active chain. Otherwise, the new filters are built in the spare chain before
//! the change takes effect, and one flip makes this chain active. So the number of writes that take effect is limited,
//! whatever the number of filters.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use super::{Chain, ChainFilter, ClassMinor, Cut, CutFilter, Direction, Filters, Route, Step, tc_numbers::CHAINS};

/// The maximum number of filters that change one by one. Packets can be sent between two of these changes.
const FEW: usize = 16;

/// The steps for one direction, by the time at which they are written.
#[derive(Debug, Default)]
pub(super) struct ChainDiff {
    /// Builds the spare chain, if necessary.
    pub(super) preparation: Option<Step>,
    /// Adds and changes filters, or flips.
    pub(super) switch: Vec<Step>,
    /// Removes filters. These steps take effect too, after those of `switch`.
    pub(super) removals: Vec<Step>,
    /// Removes the chain that was active.
    pub(super) cleanup: Option<Step>,
}

impl ChainDiff {
    /// The steps from `filters` to these routes and cuts. `held`: the chains that must stay.
    pub(super) fn new(
        direction: Direction,
        routes: &BTreeMap<IpAddr, ClassMinor>,
        cuts: &BTreeSet<Cut>,
        filters: &Filters,
        held: &BTreeSet<u32>,
    ) -> Self {
        let is_empty = routes.is_empty() && cuts.is_empty();
        let active = filters.in_use();
        match filters.active {
            None if is_empty => return Self::default(),
            Some(chain) if !is_empty => {
                if let Some(one_by_one) = one_by_one(chain, routes, cuts, active) {
                    return one_by_one;
                }
            }
            _ => {}
        }
        let to = (!is_empty).then(|| CHAINS.into_iter().find(|chain| filters.active != Some(*chain))).flatten();
        let build = |chain| Step::BuildChain { direction, chain, filters: content(routes, cuts, active) };
        let spare = filters.active.filter(|chain| !held.contains(chain));
        Self {
            preparation: to.map(build),
            switch: vec![Step::Flip { direction, from: filters.active, to }],
            removals: Vec::new(),
            cleanup: spare.map(|chain| drop_chain(direction, chain, active)),
        }
    }
}

/// The step that removes a chain.
pub(super) fn drop_chain(direction: Direction, chain: u32, content: &Chain) -> Step {
    Step::DropChain { direction, chain, filters: content.filters().collect() }
}

/// The filters of a new chain. A cut of the active chain keeps its counter.
fn content(routes: &BTreeMap<IpAddr, ClassMinor>, cuts: &BTreeSet<Cut>, active: &Chain) -> Vec<ChainFilter> {
    let route = |((address, class), handle): ((&IpAddr, &ClassMinor), u32)| {
        ChainFilter::Route(Route { address: *address, class: *class, handle })
    };
    let cut = |(cut, handle): (&Cut, u32)| {
        let counter = active.cuts.get(cut).and_then(|filter| filter.counter);
        ChainFilter::Cut(CutFilter { cut: *cut, handle, counter })
    };
    routes.iter().zip(1..).map(route).chain(cuts.iter().zip(1..).map(cut)).collect()
}

/// The steps in the active chain. `None`: more than [`FEW`] filters change.
fn one_by_one(
    chain: u32,
    routes: &BTreeMap<IpAddr, ClassMinor>,
    cuts: &BTreeSet<Cut>,
    active: &Chain,
) -> Option<ChainDiff> {
    let mut diff = ChainDiff::default();
    let add = |filter| Step::AddFilter { chain, filter };
    let remove = |filter| Step::RemoveFilter { chain, filter };

    let missing = cuts.iter().filter(|cut| !active.cuts.contains_key(cut)).take(FEW + 1);
    let missing: Vec<Cut> = missing.copied().collect();
    let handles = free_handles(active.cuts.values().map(|filter| filter.handle), missing.len());
    let filters = missing.into_iter().zip(handles);
    diff.switch.extend(filters.map(|(cut, handle)| add(ChainFilter::Cut(CutFilter { cut, handle, counter: None }))));

    let mut missing = Vec::new();
    for (address, class) in routes {
        match active.routes.get(address) {
            Some(from) if from.class == *class => {}
            Some(from) => {
                diff.switch.push(Step::ChangeRoute { chain, from: *from, to: Route { class: *class, ..*from } });
            }
            None => missing.push((*address, *class)),
        }
        if diff.switch.len() + missing.len() > FEW {
            return None;
        }
    }
    let handles = free_handles(active.routes.values().map(|route| route.handle), missing.len());
    let filters = missing.into_iter().zip(handles);
    diff.switch
        .extend(filters.map(|((address, class), handle)| add(ChainFilter::Route(Route { address, class, handle }))));

    let is_unwanted = |filter: &ChainFilter| match filter {
        ChainFilter::Route(route) => !routes.contains_key(&route.address),
        ChainFilter::Cut(filter) => !cuts.contains(&filter.cut),
    };
    diff.removals.extend(active.filters().filter(is_unwanted).take(FEW + 1).map(remove));
    (diff.switch.len() + diff.removals.len() <= FEW).then_some(diff)
}

/// The lowest handles that are not used.
fn free_handles(used: impl Iterator<Item = u32>, count: usize) -> Vec<u32> {
    if count == 0 {
        return Vec::new();
    }
    let used: BTreeSet<u32> = used.collect();
    (1..).filter(|handle| !used.contains(handle)).take(count).collect()
}
