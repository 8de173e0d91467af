//! Computes the links of a topology from its rules: [`Rules`].
//!
//! The order of the rules is: default, zone rule, matrix, overrides in the file's order. A later rule replaces each
//! parameter that it sets. A link that no rule covers is [`Link::default()`]. The module never creates a table of all
//! pairs of nodes.

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    iter,
    ops::Range,
};

use super::{
    link::{Link, Parameter},
    matrix::{Cell, Matrix},
    members::Members,
    node_set::{NodeId, NodeSet},
    patch::LinkPatch,
    source::SourceSpan,
};

/// The rules of a topology's links.
#[derive(Clone, Debug, Default)]
pub(super) struct Rules {
    /// The span of the key `links`.
    pub(super) span: Range<usize>,
    pub(super) default: LinkPatch,
    pub(super) intra_zone: LinkPatch,
    pub(super) inter_zone: LinkPatch,
    pub(super) matrix: Option<Matrix>,
    /// The overrides in the file's order. A later override wins.
    pub(super) overrides: Vec<Rule>,
}

/// One override.
#[derive(Clone, Debug)]
pub(super) struct Rule {
    pub(super) from: NodeSet,
    pub(super) to: NodeSet,
    pub(super) both_ways: bool,
    pub(super) patch: LinkPatch,
}

impl Rule {
    /// False if both ends are the same single node: a node has no link to itself.
    pub(super) fn covers_a_link(&self) -> bool {
        self.from.single().is_none() || self.from != self.to
    }

    /// The destinations that the override covers for packets from this node.
    fn destinations(&self, from: NodeId) -> impl Iterator<Item = &NodeSet> {
        let forward = self.from.contains(from).then_some(&self.to);
        let back = (self.both_ways && self.to.contains(from)).then_some(&self.from);
        forward.into_iter().chain(back)
    }
}

/// Consecutive nodes to which a given node has the same link.
pub(super) struct LinkRange {
    pub(super) nodes: Range<NodeId>,
    pub(super) link: Link,
}

impl LinkRange {
    /// The link to a node. `ranges` must ascend without gaps.
    pub(super) fn find(ranges: &[Self], to: NodeId) -> Option<Link> {
        ranges.get(ranges.partition_point(|range| range.nodes.end <= to)).map(|range| range.link)
    }
}

impl Rules {
    /// The rules for packets from one node.
    ///
    /// Takes time in proportion to the number of overrides.
    pub(super) fn of_node<'r>(&'r self, from: NodeId, members: &'r Members) -> NodeRules<'r> {
        let overrides = self.overrides.iter();
        let overrides = overrides.flat_map(|rule| rule.destinations(from).map(|nodes| (nodes, &rule.patch))).collect();
        NodeRules { rules: self, members, from, overrides }
    }

    /// The rules of the file except the matrix, in their order.
    pub(super) fn patches(&self) -> impl Iterator<Item = &LinkPatch> {
        let overrides = self.overrides.iter().map(|rule| &rule.patch);
        [&self.default, &self.intra_zone, &self.inter_zone].into_iter().chain(overrides)
    }

    /// True if the default or `inter-zone` certainly covers every link that needs a rule. Takes no time for pairs of zones.
    pub(super) fn cover_all(&self, members: &Members) -> bool {
        let in_zones: NodeId = members.zones().iter().map(|zone| zone.nodes.end - zone.nodes.start).sum();
        !self.default.is_empty() || !self.inter_zone.is_empty() && self.matrix.is_none() && in_zones == members.count()
    }

    /// Divides the nodes into classes. The same rules cover all nodes of a class.
    ///
    /// Nodes of one class are in the same zone, the same rows and columns of the matrix, and the same ends of
    /// overrides.
    pub(super) fn classes(&self, members: &Members) -> Vec<NodeSet> {
        let ends = self.overrides.iter().flat_map(|rule| [rule.from.ranges(), rule.to.ranges()]);
        let zones = members.zones().iter().map(|zone| &zone.nodes);
        let groups = zones.chain(self.matrix.iter().flat_map(Matrix::groups)).map(std::slice::from_ref);
        let borders = ends.chain(groups).enumerate().flat_map(|(set, ranges)| {
            // Each set of nodes (a zone, a matrix heading or an end) has a hash. The sum of the hashes of all sets
            // that contain a node identifies its class. Equal sums of different classes are too improbable in 64 bits
            // to matter.
            let mut hasher = DefaultHasher::new();
            set.hash(&mut hasher);
            let hash = hasher.finish();
            ranges.iter().flat_map(move |range| [(range.start, hash), (range.end, hash.wrapping_neg())])
        });
        let mut borders: Vec<_> = [(0, 0), (members.count(), 0)].into_iter().chain(borders).collect();
        borders.sort_unstable();
        let (mut sum, mut positions, mut classes) = (0_u64, HashMap::new(), Vec::<Vec<_>>::new());
        let mut rest = borders.chunk_by(|(a, _), (b, _)| a == b).peekable();
        while let (Some(here), Some(next)) = (rest.next(), rest.peek()) {
            sum = here.iter().fold(sum, |sum, (_, hash)| sum.wrapping_add(*hash));
            let position = *positions.entry(sum).or_insert(classes.len());
            if position == classes.len() {
                classes.push(Vec::new());
            }
            classes[position].push(here[0].0..next[0].0);
        }
        classes.into_iter().map(NodeSet::from_iter).collect()
    }
}

/// The rules for packets from one node.
pub(super) struct NodeRules<'r> {
    rules: &'r Rules,
    members: &'r Members,
    from: NodeId,
    /// The destinations and the parameters of each override for these packets.
    overrides: Vec<(&'r NodeSet, &'r LinkPatch)>,
}

impl<'r> NodeRules<'r> {
    pub(super) fn node(&self) -> NodeId {
        self.from
    }

    /// The link to another node.
    pub(super) fn link(&self, to: NodeId) -> Link {
        self.overrides_to(to).fold(self.link_before_overrides(to), |link, patch| patch.over(link))
    }

    /// The links to all nodes, as ascending ranges without gaps. One range contains the node itself.
    ///
    /// Takes time in proportion to the number of ranges in the destinations of the overrides.
    pub(super) fn link_ranges(&self) -> Vec<LinkRange> {
        let zones = self.members.zones().iter().map(|zone| &zone.nodes);
        let matrix = self.rules.matrix.iter().flat_map(|matrix| matrix.cells_from(self.from)).map(|cell| &cell.to);
        let overrides = self.overrides.iter().flat_map(|(nodes, _)| nodes.ranges());
        let mut cuts = vec![0, self.members.count()];
        cuts.extend(zones.chain(matrix).chain(overrides).flat_map(|range| [range.start, range.end]));
        cuts.sort_unstable();
        cuts.dedup();
        let range = |ends: &[NodeId]| LinkRange { nodes: ends[0]..ends[1], link: self.link_before_overrides(ends[0]) };
        let mut ranges: Vec<_> = cuts.windows(2).map(range).collect();
        for (nodes, patch) in &self.overrides {
            for covered in nodes.ranges() {
                let first = ranges.partition_point(|range| range.nodes.start < covered.start);
                for range in ranges[first..].iter_mut().take_while(|range| range.nodes.end <= covered.end) {
                    range.link = patch.over(range.link);
                }
            }
        }
        ranges
    }

    /// True if a rule covers the link to another node.
    pub(super) fn covers(&self, to: NodeId) -> bool {
        self.overrides_to(to).next().is_some()
            || self.cell(to).is_some()
            || self.general_rules(to).any(|patch| !patch.is_empty())
    }

    /// The span of the key or the cell that sets this parameter of the link to another node.
    pub(super) fn span_of(&self, to: NodeId, parameter: Parameter) -> Option<SourceSpan> {
        let in_matrix = || {
            let cell = self.cell(to).filter(|_| parameter == Parameter::Delay)?;
            Some(self.rules.matrix.as_ref()?.span_of(cell))
        };
        let general = || self.general_rules(to).filter_map(|patch| patch.span_of(parameter)).last();
        let last_override = self.overrides_to(to).filter_map(|patch| patch.span_of(parameter)).last();
        last_override.map(SourceSpan::from).or_else(in_matrix).or_else(|| general().map(SourceSpan::from))
    }

    fn overrides_to(&self, to: NodeId) -> impl Iterator<Item = &'r LinkPatch> {
        self.overrides.iter().filter(move |(nodes, _)| nodes.contains(to)).map(|(_, patch)| *patch)
    }

    fn link_before_overrides(&self, to: NodeId) -> Link {
        let link = self.general_rules(to).fold(Link::default(), |link, patch| patch.over(link));
        self.cell(to).map_or(link, |cell| Link { delay: cell.delay, ..link })
    }

    fn cell(&self, to: NodeId) -> Option<&'r Cell> {
        self.rules.matrix.as_ref()?.cell(self.from, to)
    }

    /// The default, and `intra-zone` or `inter-zone` if both nodes are in zones.
    fn general_rules(&self, to: NodeId) -> impl Iterator<Item = &'r LinkPatch> + use<'r> {
        let of_zones = match (self.members.zone_of(self.from), self.members.zone_of(to)) {
            (Some(a), Some(b)) if a.nodes == b.nodes => Some(&self.rules.intra_zone),
            (Some(_), Some(_)) => Some(&self.rules.inter_zone),
            _ => None,
        };
        iter::once(&self.rules.default).chain(of_zones)
    }
}
