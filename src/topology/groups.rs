//! Divides the nodes of a topology into groups with equal links: [`NodeGroups`].
//!
//! A list of all pairs of 10,000 nodes has 100 million entries. A topology with zones has few groups, whatever the
//! number of nodes.

use super::{
    link::Link,
    members::Members,
    name::{NodeName, ZoneName},
    node_set::{NodeId, NodeSet},
    rules::{LinkRange, Rules},
};

/// The groups of a topology's nodes. The same rules cover all nodes of a group.
///
/// So one link describes all links from the nodes of one group to the nodes of another, and one link describes all
/// links inside a group. A group is a part of one zone, or is outside all zones. Groups are in the file's order.
pub struct NodeGroups<'t> {
    rules: &'t Rules,
    members: &'t Members,
    groups: Vec<NodeSet>,
}

impl<'t> NodeGroups<'t> {
    pub(super) fn of(rules: &'t Rules, members: &'t Members) -> Self {
        Self { rules, members, groups: rules.classes(members) }
    }

    /// The number of groups.
    pub fn count(&self) -> usize {
        self.groups.len()
    }

    /// The nodes of a group, in the file's order. Empty for an unknown group.
    pub fn nodes(&self, group: usize) -> impl Iterator<Item = &'t NodeName> + use<'t> {
        let ranges = self.groups.get(group).map(NodeSet::ranges).unwrap_or_default().to_vec();
        let members = self.members;
        ranges.into_iter().flat_map(|range| members.names_in(range))
    }

    /// The zone of a group's nodes. `None`: the nodes are in no zone.
    pub fn zone(&self, group: usize) -> Option<&'t ZoneName> {
        Some(&self.members.zone_of(self.groups.get(group)?.first()?)?.name)
    }

    /// The links from each node of a group to each other node of every group, by the numbers of these groups.
    ///
    /// `None` for the group itself if it has only one node. Takes time in proportion to the number of groups and
    /// overrides.
    pub fn links_from(&self, group: usize) -> Vec<Option<Link>> {
        let Some(from) = self.groups.get(group).and_then(NodeSet::first) else { return Vec::new() };
        let ranges = self.rules.of_node(from, self.members).link_ranges();
        let other = |to: &NodeSet| -> Option<NodeId> { to.iter().find(|to| *to != from) };
        self.groups.iter().map(|to| LinkRange::find(&ranges, other(to)?)).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::topology::{Source, Topology};

    fn any_topology() -> impl Strategy<Value = Topology> {
        let end = || proptest::sample::select(vec!["*", "Z1", "Z2", "gw", "n[1-2]", "n3", "n[4,6]"]);
        let rule = (end(), end(), any::<bool>(), 1..90_u32).prop_map(|(one, other, both_ways, millis)| {
            let ends = if both_ways {
                format!("between = ['{one}', '{other}']")
            } else {
                format!("from = '{one}'\nto = '{other}'")
            };
            format!("[[links.override]]\n{ends}\ndelay = '{millis}ms'\n")
        });
        proptest::collection::vec(rule, 0..5).prop_filter_map("an override covers no link", |rules| {
            let text = "name = 't'\nnodes = 'gw'\nzones = { Z1 = 'n[1-3]', Z2 = 'n[4-6]', Z3 = 'n[7-9]' }\n[links]\n\
                        default.delay = '1ms'\nintra-zone.delay = '2ms'\n";
            Topology::parse(Source::new("t.toml", text.to_owned() + &rules.concat())).ok()
        })
    }

    proptest! {
        #[test]
        fn the_link_between_two_groups_is_the_link_of_each_pair_of_their_nodes(topology in any_topology()) {
            let groups = topology.groups();
            let mut pairs = 0;
            for from in 0..groups.count() {
                for (to, link) in groups.links_from(from).into_iter().enumerate() {
                    for one in groups.nodes(from) {
                        prop_assert_eq!(topology.zone_of(one), groups.zone(from));
                        for other in groups.nodes(to).filter(|other| *other != one) {
                            prop_assert_eq!(topology.link(one, other), link);
                            pairs += 1;
                        }
                    }
                    prop_assert!(link.is_some() || from == to && groups.nodes(from).count() == 1);
                }
            }
            prop_assert_eq!(pairs, 10 * 9);
        }
    }
}
