//! Which rule speaks of which link: [`Rules`], and the link that results.
//!
//! The default comes first, then what zones say, then the overrides in the file's order; a later rule wins, parameter
//! by parameter. A link about which nothing is said is as the LAN is. Rules are kept as rules, never as a table of
//! node times node: what one node's links are is worked out when it is asked for.

use std::ops::Range;

use super::{
    link::{Link, Parameter},
    members::Members,
    node_set::{NodeId, NodeSet},
    patch::LinkPatch,
};

/// Everything that a topology says of its links.
#[derive(Clone, Debug, Default)]
pub(super) struct Rules {
    pub(super) default: LinkPatch,
    pub(super) intra_zone: LinkPatch,
    pub(super) inter_zone: LinkPatch,
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
        self.patches(from, to, members).fold(Link::LAN, |link, patch| patch.over(link))
    }

    /// Where the file says what this parameter of the link between two different nodes is.
    pub(super) fn place_of(
        &self,
        from: NodeId,
        to: NodeId,
        parameter: Parameter,
        members: &Members,
    ) -> Option<Range<usize>> {
        self.patches(from, to, members).filter_map(|patch| patch.place_of(parameter)).last()
    }

    /// Everything that is said of the link, later wins.
    fn patches(&self, from: NodeId, to: NodeId, members: &Members) -> impl Iterator<Item = &LinkPatch> {
        let overrides =
            self.overrides.iter().filter(move |rule| rule.destinations(from).any(|nodes| nodes.contains(to)));
        self.patches_before_overrides(from, to, members).chain(overrides.map(|rule| &rule.patch))
    }

    /// The links from one node to all nodes, as ascending stretches without gaps; the node's own place is in one too.
    ///
    /// The overrides that concern the node are picked once; each then costs what its destinations take as ranges.
    pub(super) fn outlook(&self, from: NodeId, members: &Members) -> Vec<Stretch> {
        let relevant: Vec<(&NodeSet, &LinkPatch)> =
            self.overrides.iter().flat_map(|rule| rule.destinations(from).map(|nodes| (nodes, &rule.patch))).collect();

        let mut stretches = self.stretches_cut_at(&relevant, from, members);
        for (nodes, patch) in relevant {
            for range in nodes.ranges() {
                let first = stretches.partition_point(|stretch| stretch.nodes.start < range.start);
                for stretch in stretches[first..].iter_mut().take_while(|stretch| stretch.nodes.end <= range.end) {
                    stretch.link = patch.over(stretch.link);
                }
            }
        }
        stretches
    }

    /// Cuts the nodes wherever the link from this one may change, and gives each piece its link before overrides.
    fn stretches_cut_at(&self, relevant: &[(&NodeSet, &LinkPatch)], from: NodeId, members: &Members) -> Vec<Stretch> {
        let zones = members.zones().iter().map(|zone| &zone.nodes);
        let overrides = relevant.iter().flat_map(|(nodes, _)| nodes.ranges());
        let mut cuts = vec![0, members.count()];
        cuts.extend(zones.chain(overrides).flat_map(|range| [range.start, range.end]));
        cuts.sort_unstable();
        cuts.dedup();
        cuts.windows(2)
            .map(|ends| Stretch { nodes: ends[0]..ends[1], link: self.before_overrides(from, ends[0], members) })
            .collect()
    }

    fn before_overrides(&self, from: NodeId, to: NodeId, members: &Members) -> Link {
        self.patches_before_overrides(from, to, members).fold(Link::LAN, |link, patch| patch.over(link))
    }

    fn patches_before_overrides(
        &self,
        from: NodeId,
        to: NodeId,
        members: &Members,
    ) -> impl Iterator<Item = &LinkPatch> + use<'_> {
        let of_zones = match (members.zone_of(from), members.zone_of(to)) {
            (Some(a), Some(b)) if a.nodes == b.nodes => Some(&self.intra_zone),
            (Some(_), Some(_)) => Some(&self.inter_zone),
            _ => None,
        };
        [&self.default].into_iter().chain(of_zones)
    }
}
