//! Which rule speaks of which link: [`Rules`], and the link that results.
//!
//! The default comes first, then what zones say, then the matrix, then the overrides in the file's order; a later rule
//! wins, parameter by parameter. A link about which nothing is said is as the LAN is. Rules are kept as rules, never as
//! a table of node times node, unless the user wrote one: what one node's links are is worked out when it is asked for.

use std::{
    borrow::Cow,
    collections::HashMap,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    ops::Range,
};

use super::{
    link::{Link, Parameter},
    matrix::Matrix,
    members::Members,
    node_set::{NodeId, NodeSet},
    patch::LinkPatch,
    source::SourceSpan,
};

/// Everything that a topology says of its links.
#[derive(Clone, Debug, Default)]
pub(super) struct Rules {
    /// Where the file begins to speak of links.
    pub(super) place: Range<usize>,
    pub(super) default: LinkPatch,
    pub(super) intra_zone: LinkPatch,
    pub(super) inter_zone: LinkPatch,
    pub(super) matrix: Option<Matrix>,
    /// Later wins.
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
    /// Whether there is a link that the rule is about. There is none from a node to itself.
    pub(super) fn is_about_a_link(&self) -> bool {
        self.from.single().is_none() || self.from != self.to
    }

    /// The destinations to which the rule says something for packets from this node.
    fn destinations(&self, from: NodeId) -> impl Iterator<Item = &NodeSet> {
        let there = self.from.contains(from).then_some(&self.to);
        let back = (self.both_ways && self.to.contains(from)).then_some(&self.from);
        there.into_iter().chain(back)
    }
}

/// Neighbouring nodes to which one node's links are alike.
pub(super) struct Stretch {
    pub(super) nodes: Range<NodeId>,
    pub(super) link: Link,
}

impl Rules {
    /// The link between two different nodes. Takes time in proportion to the number of overrides.
    pub(super) fn link(&self, from: NodeId, to: NodeId, members: &Members) -> Link {
        let link = self.before_overrides(from, to, members);
        self.overrides_of(from, to).fold(link, |link, patch| patch.over(link))
    }

    /// Where it is said what this parameter of the link between two different nodes is.
    pub(super) fn place_of(
        &self,
        from: NodeId,
        to: NodeId,
        parameter: Parameter,
        members: &Members,
    ) -> Option<SourceSpan> {
        self.view(from, members).place_of(to, parameter)
    }

    fn overrides_of(&self, from: NodeId, to: NodeId) -> impl Iterator<Item = &LinkPatch> {
        let concerned =
            self.overrides.iter().filter(move |rule| rule.destinations(from).any(|nodes| nodes.contains(to)));
        concerned.map(|rule| &rule.patch)
    }

    /// All rules but the default, which is for every link. A later one wins. Of the matrix it is the least delay.
    pub(super) fn patches_over_the_default(&self) -> impl Iterator<Item = Cow<'_, LinkPatch>> {
        let of_zones = [&self.intra_zone, &self.inter_zone].into_iter().map(Cow::Borrowed);
        let matrix = self.matrix.iter().filter_map(Matrix::least_delay).map(Cow::Owned);
        of_zones.chain(matrix).chain(self.overrides.iter().map(|rule| Cow::Borrowed(&rule.patch)))
    }

    /// The links from one node to all nodes, as ascending stretches without gaps; the node's own place is in one too.
    pub(super) fn outlook(&self, from: NodeId, members: &Members) -> Vec<Stretch> {
        self.view(from, members).outlook()
    }

    /// The rules as one node sees them. The overrides that concern it are picked once, for all its links.
    pub(super) fn view<'r>(&'r self, from: NodeId, members: &'r Members) -> View<'r> {
        let overrides = self.overrides.iter();
        let relevant = overrides.flat_map(|rule| rule.destinations(from).map(|nodes| (nodes, &rule.patch))).collect();
        View { rules: self, members, from, relevant }
    }

    /// The nodes by what the rules tell apart: those of one set are in one zone, in the same rows and columns of the
    /// matrix, and at the same ends of overrides.
    pub(super) fn classes(&self, members: &Members) -> Vec<NodeSet> {
        let ends = self.overrides.iter().flat_map(|rule| [rule.from.ranges(), rule.to.ranges()]);
        let zones = members.zones().iter().map(|zone| &zone.nodes);
        let groups = zones.chain(self.matrix.iter().flat_map(Matrix::ends)).map(std::slice::from_ref);
        let borders = ends.chain(groups).enumerate().flat_map(|(set, ranges)| {
            // What a node is in is told by the sum of the numbers that stand for the sets, and each has one that is as
            // good as random: no two sums of a million are ever the same.
            let mut hasher = DefaultHasher::new();
            set.hash(&mut hasher);
            let number = hasher.finish();
            ranges.iter().flat_map(move |range| [(range.start, number), (range.end, number.wrapping_neg())])
        });
        let mut borders: Vec<_> = [(0, 0), (members.count(), 0)].into_iter().chain(borders).collect();
        borders.sort_unstable();
        let (mut sum, mut positions, mut classes) = (0_u64, HashMap::new(), Vec::<Vec<_>>::new());
        let mut rest = borders.chunk_by(|(a, _), (b, _)| a == b).peekable();
        while let (Some(here), Some(next)) = (rest.next(), rest.peek()) {
            sum = here.iter().fold(sum, |sum, (_, number)| sum.wrapping_add(*number));
            let position = *positions.entry(sum).or_insert(classes.len());
            if position == classes.len() {
                classes.push(Vec::new());
            }
            classes[position].push(here[0].0..next[0].0);
        }
        classes.into_iter().map(NodeSet::from_iter).collect()
    }

    fn before_overrides(&self, from: NodeId, to: NodeId, members: &Members) -> Link {
        let link = self.general_rules(from, to, members).fold(Link::LAN, |link, patch| patch.over(link));
        match self.matrix.as_ref().and_then(|matrix| matrix.cell(from, to)) {
            Some(cell) => Link { delay: cell.delay, ..link },
            None => link,
        }
    }

    /// What is said of all links, and of those inside or between zones.
    fn general_rules(&self, from: NodeId, to: NodeId, members: &Members) -> impl Iterator<Item = &LinkPatch> + use<'_> {
        let of_zones = match (members.zone_of(from), members.zone_of(to)) {
            (Some(a), Some(b)) if a.nodes == b.nodes => Some(&self.intra_zone),
            (Some(_), Some(_)) => Some(&self.inter_zone),
            _ => None,
        };
        [&self.default].into_iter().chain(of_zones)
    }
}

/// The rules as one node sees them.
pub(super) struct View<'r> {
    rules: &'r Rules,
    members: &'r Members,
    from: NodeId,
    /// The destinations of each override that concerns the node, and what it says of them.
    relevant: Vec<(&'r NodeSet, &'r LinkPatch)>,
}

impl View<'_> {
    /// The links to all nodes, as ascending stretches without gaps; the node's own place is in one too.
    ///
    /// Each override costs what its destinations take as ranges.
    pub(super) fn outlook(&self) -> Vec<Stretch> {
        let mut stretches = self.stretches_before_overrides();
        for (nodes, patch) in &self.relevant {
            for range in nodes.ranges() {
                let first = stretches.partition_point(|stretch| stretch.nodes.start < range.start);
                for stretch in stretches[first..].iter_mut().take_while(|stretch| stretch.nodes.end <= range.end) {
                    stretch.link = patch.over(stretch.link);
                }
            }
        }
        stretches
    }

    /// Whether any rule speaks of the link to another node.
    pub(super) fn covers(&self, to: NodeId) -> bool {
        let in_matrix = || self.rules.matrix.as_ref().is_some_and(|matrix| matrix.cell(self.from, to).is_some());
        let in_general = || self.rules.general_rules(self.from, to, self.members).any(LinkPatch::says_something);
        self.relevant.iter().any(|(nodes, _)| nodes.contains(to)) || in_matrix() || in_general()
    }

    /// Where it is said what this parameter of the link to another node is.
    pub(super) fn place_of(&self, to: NodeId, parameter: Parameter) -> Option<SourceSpan> {
        let overrides = self.relevant.iter().filter(|(nodes, _)| nodes.contains(to)).map(|(_, patch)| *patch);
        let in_matrix = || {
            let matrix = self.rules.matrix.as_ref().filter(|_| parameter == Parameter::Delay)?;
            Some(matrix.place_of(matrix.cell(self.from, to)?))
        };
        let general = || self.rules.general_rules(self.from, to, self.members);
        let last = |patches: &mut dyn Iterator<Item = &LinkPatch>| {
            patches.filter_map(|patch| patch.place_of(parameter)).last().map(SourceSpan::from)
        };
        last(&mut { overrides }).or_else(in_matrix).or_else(|| last(&mut general()))
    }

    /// Cuts the nodes wherever the link may change, and gives each piece its link before overrides.
    fn stretches_before_overrides(&self) -> Vec<Stretch> {
        let zones = self.members.zones().iter().map(|zone| &zone.nodes);
        let matrix = self.rules.matrix.iter().flat_map(|matrix| matrix.cells_from(self.from)).map(|cell| &cell.to);
        let overrides = self.relevant.iter().flat_map(|(nodes, _)| nodes.ranges());
        let mut cuts = vec![0, self.members.count()];
        cuts.extend(zones.chain(matrix).chain(overrides).flat_map(|range| [range.start, range.end]));
        cuts.sort_unstable();
        cuts.dedup();
        let link = |to| self.rules.before_overrides(self.from, to, self.members);
        cuts.windows(2).map(|ends| Stretch { nodes: ends[0]..ends[1], link: link(ends[0]) }).collect()
    }
}
