//! Computes the steps that bring the filters of one direction to the wanted filters ([`ChainDiff`]).
//!
//! A few filters change one by one in the active chain. Otherwise, the new filters are built in the spare chain before
//! the change takes effect, and one flip makes this chain active. So the number of writes that take effect is limited,
//! whatever the number of filters.

use std::{
    cmp::Ordering,
    collections::{BTreeSet, HashSet},
    iter,
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
    /// The steps from `filters` to these routes and cuts, both in ascending order. `held`: the chains that must stay.
    pub(super) fn new(
        direction: Direction,
        routes: &[(IpAddr, ClassMinor)],
        cuts: &[Cut],
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
fn content(routes: &[(IpAddr, ClassMinor)], cuts: &[Cut], active: &Chain) -> Vec<ChainFilter> {
    let route = |((address, class), handle): (&(IpAddr, ClassMinor), u32)| {
        ChainFilter::Route(Route { address: *address, class: *class, handle })
    };
    let cut = |(cut, handle): (&Cut, u32)| {
        let counter = active.cuts.get(cut).and_then(|filter| filter.counter);
        ChainFilter::Cut(CutFilter { cut: *cut, handle, counter })
    };
    routes.iter().zip(1..).map(route).chain(cuts.iter().zip(1..).map(cut)).collect()
}

/// The steps in the active chain. `None`: more than [`FEW`] filters change.
fn one_by_one(chain: u32, routes: &[(IpAddr, ClassMinor)], cuts: &[Cut], active: &Chain) -> Option<ChainDiff> {
    let mut diff = ChainDiff::default();
    let add = |filter| Step::AddFilter { chain, filter };
    let remove = |filter| Step::RemoveFilter { chain, filter };

    let (mut missing, mut unwanted) = (Vec::new(), Vec::new());
    for pair in join(cuts.iter().map(|cut| (cut, *cut)), active.cuts.iter()) {
        match pair {
            (Some(cut), None) => missing.push(cut),
            (None, Some(filter)) => unwanted.push(remove(ChainFilter::Cut(*filter))),
            _ => continue,
        }
        if missing.len() + unwanted.len() > FEW {
            return None;
        }
    }
    let handles = free_handles(active.cuts.values().map(|filter| filter.handle), missing.len());
    let filters = missing.into_iter().zip(handles);
    diff.switch.extend(filters.map(|(cut, handle)| add(ChainFilter::Cut(CutFilter { cut, handle, counter: None }))));

    let mut missing = Vec::new();
    for pair in join(routes.iter().map(|route| (&route.0, *route)), active.routes.iter()) {
        match pair {
            (Some((_, class)), Some(from)) if from.class == class => continue,
            (Some((_, class)), Some(from)) => {
                diff.switch.push(Step::ChangeRoute { chain, from: *from, to: Route { class, ..*from } });
            }
            (Some(route), None) => missing.push(route),
            (None, Some(route)) => diff.removals.push(remove(ChainFilter::Route(*route))),
            (None, None) => {}
        }
        if diff.switch.len() + missing.len() + diff.removals.len() + unwanted.len() > FEW {
            return None;
        }
    }
    let handles = free_handles(active.routes.values().map(|route| route.handle), missing.len());
    let filters = missing.into_iter().zip(handles);
    diff.switch
        .extend(filters.map(|((address, class), handle)| add(ChainFilter::Route(Route { address, class, handle }))));
    diff.removals.extend(unwanted);
    Some(diff)
}

/// Joins two lists with ascending keys: for each key of both, the value of each list.
///
/// Most keys are in both lists. One pass is then much faster than a search for each key.
fn join<K: Ord, A, B>(
    one: impl Iterator<Item = (K, A)>,
    other: impl Iterator<Item = (K, B)>,
) -> impl Iterator<Item = (Option<A>, Option<B>)> {
    let (mut one, mut other) = (one.peekable(), other.peekable());
    iter::from_fn(move || {
        let order = match (one.peek(), other.peek()) {
            (Some((one, _)), Some((other, _))) => one.cmp(other),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => return None,
        };
        let one = if order.is_le() { one.next() } else { None };
        let other = if order.is_ge() { other.next() } else { None };
        Some((one.map(|(_, value)| value), other.map(|(_, value)| value)))
    })
}

/// The lowest handles that are not used.
fn free_handles(used: impl Iterator<Item = u32>, count: usize) -> Vec<u32> {
    if count == 0 {
        return Vec::new();
    }
    let used: HashSet<u32> = used.collect();
    (1..).filter(|handle| !used.contains(handle)).take(count).collect()
}
