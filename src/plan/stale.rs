//! Tells which filters of a known tree the agent's own steps may have changed ([`Stale`]).

use std::collections::BTreeSet;

use super::{ChainFilter, Cut, CutFilter, Direction, Step, Tree};

/// Filters of one interface that must be read again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stale {
    /// Whole chains. Chain 0 has the pass filters and the gate.
    pub chains: BTreeSet<(Direction, u32)>,
    /// Single filters, each with its chain.
    pub filters: Vec<(u32, ChainFilter)>,
}

impl Stale {
    /// Adds the filters that a step or its rollback may change. False: the step may change any filter.
    pub fn add(&mut self, step: &Step) -> bool {
        match step {
            Step::AddRoot | Step::RemoveRoot | Step::AddHook | Step::RemoveHook => return false,
            Step::AddClass { .. } | Step::RemoveClass { .. } | Step::ChangeLeaf { .. } => {}
            Step::AddPass { direction, .. } | Step::RemovePass { direction, .. } | Step::Flip { direction, .. } => {
                self.chains.insert((*direction, 0));
            }
            Step::BuildChain { direction, chain, .. } | Step::DropChain { direction, chain, .. } => {
                self.chains.insert((*direction, *chain));
            }
            Step::AddFilter { chain, filter } | Step::RemoveFilter { chain, filter } => {
                self.filters.push((*chain, *filter));
            }
            // Both routes have the same address and handle.
            Step::ChangeRoute { chain, to, .. } => self.filters.push((*chain, ChainFilter::Route(*to))),
        }
        true
    }
}

impl Tree {
    /// The tree without these filters, and without the counters of cuts that have no filter left.
    #[must_use]
    pub fn without(mut self, stale: &Stale) -> Self {
        let mut cuts: Vec<Cut> = Vec::new();
        for (direction, number) in &stale.chains {
            let filters = self.filters_mut(*direction);
            if *number == 0 {
                (filters.passes, filters.active) = (BTreeSet::new(), None);
            } else if let Some(chain) = filters.chains.remove(number) {
                cuts.extend(chain.cuts.into_keys());
            }
        }
        for (number, filter) in &stale.filters {
            let filters = self.filters_mut(filter.direction());
            if let Some(chain) = filters.chains.get_mut(number) {
                chain.remove(filter);
                if chain.is_empty() {
                    filters.chains.remove(number);
                }
            }
            if let ChainFilter::Cut(CutFilter { cut, .. }) = filter {
                cuts.push(*cut);
            }
        }
        for cut in cuts {
            if !self.filters(cut.direction).chains.values().any(|chain| chain.cuts.contains_key(&cut)) {
                self.counters.cuts.remove(&cut);
            }
        }
        self
    }
}
