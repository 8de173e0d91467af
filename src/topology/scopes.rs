//! Describes sets of links for people: [`LinkScope`], as in `between any two of Z[1-3]`.
//!
//! Nodes that the same rules cover are one class. If all classes of a zone have the same links, a scope names the zone.
//! The plan does not use scopes: it computes the links of each node.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
    hash::Hash,
};

use super::{
    hostlist,
    link::Link,
    members::Members,
    node_set::{NodeId, NodeSet},
    rules::{LinkRange, NodeRules, Rules},
};

/// A set of links. Hostlists name the nodes and zones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkScope {
    /// Every link of the topology.
    All,
    /// The links inside each zone of the hostlist, or between the nodes of the hostlist.
    Inside(String),
    /// The links from any zone or node of the hostlist to any other.
    AnyTwoOf(String),
    /// The links from the first hostlist to the second hostlist, and back.
    Between(String, String),
    /// The links from the first hostlist to the second hostlist.
    FromTo(String, String),
}

impl fmt::Display for LinkScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.pad("between any two nodes"),
            Self::Inside(group) => write!(f, "inside {group}"),
            Self::AnyTwoOf(group) => write!(f, "between any two of {group}"),
            Self::Between(ones, others) => write!(f, "between {ones} and {others}"),
            Self::FromTo(ones, others) => write!(f, "from {ones} to {others}"),
        }
    }
}

/// Every distinct link with its scopes, in the file's order.
pub(super) fn distinct_links(rules: &Rules, members: &Members) -> Vec<(Link, Vec<LinkScope>)> {
    let groups = group_links(rules, members, |from, others| {
        let ranges = from.link_ranges();
        others.iter().map(|to| LinkRange::find(&ranges, (*to)?)).collect()
    });
    groups.into_iter().map(|group| (group.value, group.scopes)).collect()
}

/// Links with the same value.
pub(super) struct LinkGroup<T> {
    pub(super) value: T,
    pub(super) scopes: Vec<LinkScope>,
    /// One of the links.
    pub(super) example: (NodeId, NodeId),
}

/// The links grouped by their values, in the file's order.
///
/// `row` computes the values of the links from one node to several other nodes. `None` in place of a node stands for no
/// link; the value is then `None`.
pub(super) fn group_links<T: Copy + Eq + Hash>(
    rules: &Rules,
    members: &Members,
    row: impl Fn(&NodeRules<'_>, &[Option<NodeId>]) -> Vec<Option<T>>,
) -> Vec<LinkGroup<T>> {
    let map = LinkMap::new(rules, members, row);
    let mut edges: BTreeMap<ValueId, BTreeSet<(usize, usize)>> = BTreeMap::new();
    for (from, to, value) in map.edges() {
        edges.entry(value).or_default().insert((from, to));
    }
    let mut groups: Vec<_> = edges.iter().collect();
    groups.sort_by_key(|(_, pairs)| pairs.first());
    let groups = groups.into_iter().map(|(&id, pairs)| {
        let (value, example) = map.values[id];
        let scopes = if edges.len() == 1 { vec![LinkScope::All] } else { map.scopes(pairs) };
        LinkGroup { value, scopes, example }
    });
    groups.collect()
}

/// The index of a value in [`LinkMap::values`].
type ValueId = usize;

/// The classes of a topology's nodes, and the values of the links between them.
struct LinkMap<'m, T> {
    members: &'m Members,
    classes: Vec<NodeSet>,
    /// Groups of class indexes: one group for each zone, and one group for the nodes outside zones.
    groups: Vec<Vec<usize>>,
    /// The distinct values, each with the first pair of nodes that has this value.
    values: Vec<(T, (NodeId, NodeId))>,
    /// The values by the indexes of the two classes. `None` if there is no link.
    between: Vec<Vec<Option<ValueId>>>,
}

impl<'m, T: Copy + Eq + Hash> LinkMap<'m, T> {
    fn new(
        rules: &Rules,
        members: &'m Members,
        row: impl Fn(&NodeRules<'_>, &[Option<NodeId>]) -> Vec<Option<T>>,
    ) -> Self {
        let classes = rules.classes(members);
        let (mut values, mut ids) = (Vec::new(), HashMap::new());
        let between = classes.iter().map(|from| {
            let Some(node) = from.first() else { return Vec::new() };
            let others: Vec<_> = classes.iter().map(|to| to.iter().find(|to| *to != node)).collect();
            let row = row(&rules.of_node(node, members), &others).into_iter().zip(others);
            let row = row.map(|(value, to)| {
                let (value, to) = (value?, to?);
                Some(*ids.entry(value).or_insert_with(|| {
                    values.push((value, (node, to)));
                    values.len() - 1
                }))
            });
            row.collect()
        });
        let between = between.collect();
        let mut groups: BTreeMap<Option<NodeId>, Vec<usize>> = BTreeMap::new();
        for (position, class) in classes.iter().enumerate() {
            let zone = class.first().and_then(|node| members.zone_of(node));
            groups.entry(zone.map(|zone| zone.nodes.start)).or_default().push(position);
        }
        Self { members, classes, groups: groups.into_values().collect(), values, between }
    }

    /// The edges of a graph: the vertices of both ends, and the value of the links between these vertices.
    ///
    /// A vertex is a group or a class. An edge connects two groups if all links between the groups have the same value.
    /// Otherwise edges connect the classes of the groups. Vertices have numbers: first the groups, then the classes.
    fn edges(&self) -> Vec<(usize, usize, ValueId)> {
        let mut edges = Vec::new();
        for (from_group, from_classes) in self.groups.iter().enumerate() {
            for (to_group, to_classes) in self.groups.iter().enumerate() {
                let pairs = from_classes.iter().flat_map(|&from| to_classes.iter().map(move |&to| (from, to)));
                let links = pairs.filter_map(|(from, to)| Some((from, to, self.between[from][to]?)));
                let links: Vec<_> = links.collect();
                match links.first() {
                    Some(&(.., link)) if links.iter().all(|&(.., other)| other == link) => {
                        edges.push((from_group, to_group, link));
                    }
                    _ => edges.extend(
                        links
                            .into_iter()
                            .map(|(from, to, link)| (self.vertex(from, from_group), self.vertex(to, to_group), link)),
                    ),
                }
            }
        }
        edges
    }

    /// The vertex of a class: its group, if the group has no other class.
    fn vertex(&self, class: usize, group: usize) -> usize {
        if self.groups[group].len() == 1 { group } else { self.groups.len() + class }
    }

    /// The scopes of the links between these pairs of vertices.
    fn scopes(&self, pairs: &BTreeSet<(usize, usize)>) -> Vec<LinkScope> {
        let mut scopes = Vec::new();
        let inside: Vec<_> = pairs.iter().filter(|(from, to)| from == to).map(|(from, _)| *from).collect();
        if !inside.is_empty() {
            scopes.push(LinkScope::Inside(self.names(inside)));
        }
        let (mut both_ways, mut one_way) = (BTreeMap::<_, BTreeSet<_>>::new(), BTreeMap::<_, BTreeSet<_>>::new());
        for &(from, to) in pairs.iter().filter(|(from, to)| from != to) {
            match pairs.contains(&(to, from)) {
                true if from < to => both_ways.entry(from).or_default().insert(to),
                true => false,
                false => one_way.entry(from).or_default().insert(to),
            };
        }
        let ends: BTreeSet<_> = both_ways.iter().flat_map(|(&from, to)| to.iter().copied().chain([from])).collect();
        let count: usize = both_ways.values().map(BTreeSet::len).sum();
        if ends.len() > 2 && count == ends.len() * (ends.len() - 1) / 2 {
            scopes.push(LinkScope::AnyTwoOf(self.names(ends)));
        } else {
            let stars = with_equal_ends(both_ways).into_iter();
            scopes.extend(stars.map(|(to, from)| LinkScope::Between(self.names(from), self.names(to))));
        }
        let one_way = with_equal_ends(one_way).into_iter();
        scopes.extend(one_way.map(|(to, from)| LinkScope::FromTo(self.names(from), self.names(to))));
        scopes
    }

    /// The hostlist of the zones and nodes of some vertices, in the file's order.
    fn names(&self, vertices: impl IntoIterator<Item = usize>) -> String {
        let mut names: Vec<(NodeId, &str)> = Vec::new();
        for vertex in vertices {
            let classes = match vertex.checked_sub(self.groups.len()) {
                None => &self.groups[vertex][..],
                Some(class) => &[class],
            };
            let nodes: NodeSet = classes.iter().flat_map(|&class| self.classes[class].ranges()).cloned().collect();
            let zone = nodes.first().and_then(|node| self.members.zone_of(node));
            match zone.filter(|zone| nodes.ranges() == std::slice::from_ref(&zone.nodes)) {
                Some(zone) => names.push((zone.nodes.start, zone.name.as_str())),
                None => names.extend(nodes.ranges().iter().flat_map(|range| {
                    range.clone().zip(self.members.names_in(range.clone()).iter().map(AsRef::as_ref))
                })),
            }
        }
        names.sort_unstable();
        hostlist::fold(names.into_iter().map(|(_, name)| name))
    }
}

/// Groups the vertices that have edges to the same vertices.
fn with_equal_ends(edges: BTreeMap<usize, BTreeSet<usize>>) -> Vec<(BTreeSet<usize>, Vec<usize>)> {
    let mut together: BTreeMap<BTreeSet<usize>, Vec<usize>> = BTreeMap::new();
    for (from, to) in edges {
        together.entry(to).or_default().push(from);
    }
    let mut together: Vec<_> = together.into_iter().collect();
    together.sort_by(|(_, a), (_, b)| a.cmp(b));
    together
}

#[cfg(test)]
mod tests {
    use crate::topology::{Source, Topology};

    fn shown(text: &str) -> Vec<String> {
        let topology = Topology::parse(Source::new("t.toml", text)).unwrap();
        let lines = topology.distinct_links().into_iter().map(|(link, scopes)| {
            let scopes: Vec<_> = scopes.iter().map(ToString::to_string).collect();
            format!("{}: {}", link.delay, scopes.join("; "))
        });
        lines.collect()
    }

    #[test]
    fn a_topology_of_equal_links_has_one_scope() {
        assert_eq!(shown("name = 't'\nnodes = 'n[1-9]'\nlinks.default.delay = '5ms'"), ["5ms: between any two nodes"]);
    }

    #[test]
    fn scopes_name_zones_in_hostlists() {
        let text = "name = 't'\nzones = { dc1 = 'a[1-3]', dc2 = 'b[1-3]', dc3 = 'c1' }\n[links]\n\
                    intra-zone.delay = '1ms'\ninter-zone.delay = '2ms'\n";
        assert_eq!(shown(text), ["1ms: inside dc[1-2]", "2ms: between any two of dc[1-3]"]);
        let longer = text.to_owned() + "[[links.override]]\nbetween = ['dc1', 'dc3']\ndelay = '3ms'\n";
        assert_eq!(
            shown(&longer),
            ["1ms: inside dc[1-2]", "2ms: between dc1 and dc2; between dc2 and dc3", "3ms: between dc1 and dc3"]
        );
    }

    #[test]
    fn a_node_with_an_override_of_its_own_is_shown_apart_from_its_zone() {
        let text = "name = 't'\nnodes = 'gw'\nzones = { Z1 = 'n[1-3]', Z2 = 'n[4-6]' }\n[links]\n\
                    intra-zone.delay = '1ms'\ninter-zone.delay = '2ms'\n\
                    [[links.override]]\nfrom = 'n1'\nto = ['Z2', 'gw']\ndelay = '3ms'\n";
        assert_eq!(
            shown(text),
            [
                "0ms: between gw and Z2; from gw to Z1; from n[2-3] to gw",
                "1ms: inside Z[1-2]",
                "2ms: from Z2 to Z1; from n[2-3] to Z2",
                "3ms: from n1 to gw,Z2",
            ]
        );
    }
}
