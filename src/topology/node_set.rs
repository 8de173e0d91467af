//! A set of a topology's nodes: [`NodeSet`].
//!
//! Nodes have numbers in the file's order, so the nodes of a zone are one range. A set needs few ranges for many nodes.

use std::ops::Range;

/// The number of a node, in the file's order.
pub(super) type NodeId = u32;

/// Sorted ranges of nodes that neither touch nor overlap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NodeSet(Vec<Range<NodeId>>);

impl NodeSet {
    pub(super) fn contains(&self, node: NodeId) -> bool {
        let next = self.0.partition_point(|range| range.end <= node);
        self.0.get(next).is_some_and(|range| range.start <= node)
    }

    pub(super) fn ranges(&self) -> &[Range<NodeId>] {
        &self.0
    }

    /// The node with the lowest number.
    pub(super) fn first(&self) -> Option<NodeId> {
        self.0.first().map(|range| range.start)
    }

    /// The nodes in ascending order.
    pub(super) fn iter(&self) -> impl Iterator<Item = NodeId> {
        self.0.iter().cloned().flatten()
    }

    /// The only node of the set; `None` for any other number of nodes.
    pub(super) fn single(&self) -> Option<NodeId> {
        match &self.0[..] {
            [range] if range.len() == 1 => Some(range.start),
            _ => None,
        }
    }
}

/// The union of ranges, which can be in any order.
impl FromIterator<Range<NodeId>> for NodeSet {
    fn from_iter<I: IntoIterator<Item = Range<NodeId>>>(ranges: I) -> Self {
        let mut ranges: Vec<_> = ranges.into_iter().filter(|range| !range.is_empty()).collect();
        ranges.sort_unstable_by_key(|range| range.start);
        ranges.dedup_by(|next, range| {
            let joined = next.start <= range.end;
            if joined {
                range.end = range.end.max(next.end);
            }
            joined
        });
        Self(ranges)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn adjacent_ranges_are_joined() {
        let set: NodeSet = [4..5, 0..1, 1..3, 2..3, 7..7].into_iter().collect();
        assert_eq!(set.ranges(), [0..3, 4..5]);
        assert_eq!(set.single(), None);
        assert_eq!(std::iter::once(4..5).collect::<NodeSet>().single(), Some(4));
    }

    proptest! {
        #[test]
        fn a_set_contains_the_nodes_of_its_ranges(ranges in proptest::collection::vec((0_u32..40, 0_u32..6), 0..12)) {
            let ranges: Vec<_> = ranges.into_iter().map(|(start, length)| start..start + length).collect();
            let expected: BTreeSet<NodeId> = ranges.iter().cloned().flatten().collect();
            let set: NodeSet = ranges.into_iter().collect();
            for node in 0..50 {
                prop_assert_eq!(set.contains(node), expected.contains(&node));
            }
            prop_assert!(set.ranges().windows(2).all(|pair| pair[0].end < pair[1].start));
        }
    }
}
