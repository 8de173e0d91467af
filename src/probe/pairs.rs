//! The ordered pairs of nodes that a measurement measures: all pairs, chosen pairs, or a sample of a large fleet.

use std::collections::{BTreeMap, BTreeSet};

use crate::{plan::Dice, topology::NodeName};

/// Ordered pairs of different nodes, by sender.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pairs(BTreeMap<NodeName, BTreeSet<NodeName>>);

impl Pairs {
    /// Every ordered pair.
    pub fn all<T>(nodes: &BTreeMap<NodeName, T>) -> Self {
        nodes.keys().flat_map(|from| nodes.keys().map(move |to| (from.clone(), to.clone()))).collect()
    }

    /// A sample: a pair for each ordered pair of zones and for each zone with itself, and each node in at least one pair.
    /// Nodes without a zone count as a zone. The seed decides which nodes of a zone are taken.
    pub fn sample<'a>(zones: impl Iterator<Item = &'a [NodeName]>, seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let mut turns: Vec<Turns<'_>> =
            zones.filter(|zone| !zone.is_empty()).map(|zone| Turns::of(zone, &mut dice)).collect();
        let mut pairs = Self::default();
        for from in 0..turns.len() {
            for to in 0..turns.len() {
                pairs.insert(turns[from].next(), turns[to].next());
            }
        }
        while let Some(from) = turns.iter().position(Turns::has_new) {
            let to = (from + 1) % turns.len();
            pairs.insert(turns[from].next(), turns[to].next());
        }
        pairs
    }

    fn insert(&mut self, from: NodeName, to: NodeName) {
        if from != to {
            self.0.entry(from).or_default().insert(to);
        }
    }

    /// The receivers of the requests of a node.
    pub fn from(&self, node: &NodeName) -> impl Iterator<Item = &NodeName> {
        self.0.get(node).into_iter().flatten()
    }

    /// All pairs.
    pub fn iter(&self) -> impl Iterator<Item = (&NodeName, &NodeName)> {
        self.0.iter().flat_map(|(from, to)| to.iter().map(move |to| (from, to)))
    }

    /// The number of pairs.
    pub fn len(&self) -> usize {
        self.0.values().map(BTreeSet::len).sum()
    }

    /// True if there is no pair.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<(NodeName, NodeName)> for Pairs {
    fn from_iter<T: IntoIterator<Item = (NodeName, NodeName)>>(pairs: T) -> Self {
        let mut all = Self::default();
        pairs.into_iter().for_each(|(from, to)| all.insert(from, to));
        all
    }
}

/// The nodes of a zone in a random order, one after the other, again and again.
struct Turns<'a> {
    nodes: Vec<&'a NodeName>,
    taken: usize,
}

impl<'a> Turns<'a> {
    fn of(zone: &'a [NodeName], dice: &mut Dice) -> Self {
        let mut nodes: Vec<&NodeName> = zone.iter().collect();
        dice.shuffle(&mut nodes);
        Self { nodes, taken: 0 }
    }

    fn next(&mut self) -> NodeName {
        let node = self.nodes[self.taken % self.nodes.len()];
        self.taken += 1;
        node.clone()
    }

    /// True if a node was not taken yet.
    fn has_new(&self) -> bool {
        self.taken < self.nodes.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn zone(number: usize, size: usize) -> Vec<NodeName> {
        (0..size).map(|node| format!("z{number}-{node}").parse().unwrap()).collect()
    }

    proptest! {
        #[test]
        fn a_sample_has_every_pair_of_zones_and_every_node(sizes in proptest::collection::vec(1..9_usize, 1..6), seed: u64) {
            let zones: Vec<Vec<NodeName>> = sizes.iter().enumerate().map(|(number, size)| zone(number, *size)).collect();
            let pairs = Pairs::sample(zones.iter().map(Vec::as_slice), seed);
            let all: Vec<&NodeName> = zones.iter().flatten().collect();
            for (a, from) in zones.iter().enumerate() {
                for (b, to) in zones.iter().enumerate() {
                    let is_between = |(one, other): (&NodeName, &NodeName)| from.contains(one) && to.contains(other);
                    prop_assert!(pairs.iter().any(is_between) || a == b && from.len() == 1);
                }
            }
            let is_in = |node: &&&NodeName| pairs.iter().any(|(from, to)| [from, to].contains(*node));
            prop_assert!(all.len() == 1 || all.iter().filter(is_in).count() == all.len());
            prop_assert!(pairs.len() <= zones.len() * zones.len() + all.len());
            prop_assert_eq!(Pairs::sample(zones.iter().map(Vec::as_slice), seed), pairs);
        }
    }

    #[test]
    fn all_pairs_are_ordered_and_of_different_nodes() {
        let nodes: BTreeMap<NodeName, usize> = zone(1, 4).into_iter().zip(1..).collect();
        let pairs = Pairs::all(&nodes);
        assert!(pairs.len() == 12 && nodes.keys().all(|node| pairs.from(node).count() == 3));
        assert!(pairs.iter().all(|(from, to)| from != to));
    }
}
