//! Which links are alike, in few words: [`Scope`], as in `between any two of Z[1-3]`.
//!
//! Nodes that the rules do not tell apart are one class, and the classes of a zone are one wherever that makes no
//! difference. Only for people: what is wanted of a node is worked out from its own links.

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
    rules::Rules,
};

/// Some of a topology's links. Nodes and zones are named as hostlists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Every link that there is.
    All,
    /// Those inside each of the zones, or among the nodes.
    Inside(String),
    /// Those from any of them to any other.
    AnyTwoOf(String),
    /// Those from the ones to the others, and back.
    Between(String, String),
    /// Those from the ones to the others.
    FromTo(String, String),
}

impl fmt::Display for Scope {
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

/// Every distinct link with where it is, in the file's order.
pub(super) fn distinct_links(rules: &Rules, members: &Members) -> Vec<(Link, Vec<Scope>)> {
    let distinct = distinct(rules, members, |from, to| {
        let outlook = rules.outlook(from, members);
        let link = |to: NodeId| Some(outlook.get(outlook.partition_point(|stretch| stretch.nodes.end <= to))?.link);
        to.iter().map(|to| link((*to)?)).collect()
    });
    distinct.into_iter().map(|Distinct { what, scopes, .. }| (what, scopes)).collect()
}

/// Links that are alike.
pub(super) struct Distinct<T> {
    /// What is the same of them.
    pub(super) what: T,
    pub(super) scopes: Vec<Scope>,
    /// One of the links.
    pub(super) example: (NodeId, NodeId),
}

/// The links by what they are, in the file's order. `row` says what the links from a node to some others are; where there
/// is no other node, there is no link.
pub(super) fn distinct<T: Copy + Eq + Hash>(
    rules: &Rules,
    members: &Members,
    row: impl Fn(NodeId, &[Option<NodeId>]) -> Vec<Option<T>>,
) -> Vec<Distinct<T>> {
    let map = Map::draw(rules, members, row);
    let mut places: BTreeMap<LinkId, BTreeSet<(usize, usize)>> = BTreeMap::new();
    for (from, to, link) in map.edges() {
        places.entry(link).or_default().insert((from, to));
    }
    let scopes = |pairs: &BTreeSet<_>| if places.len() == 1 { vec![Scope::All] } else { map.scopes(pairs) };
    let mut found: Vec<_> = places.iter().map(|(&link, pairs)| (pairs.first(), link, scopes(pairs))).collect();
    found.sort_by_key(|(first, ..)| *first);
    let distinct = found.into_iter().map(|(_, link, scopes)| {
        let (what, example) = map.links[link];
        Distinct { what, scopes, example }
    });
    distinct.collect()
}

/// The place of a link among the distinct ones.
type LinkId = usize;

/// A topology's nodes as classes in groups, and the links between them.
struct Map<'m, T> {
    members: &'m Members,
    classes: Vec<NodeSet>,
    /// Classes by their places: one group for each zone, and one for the nodes outside.
    groups: Vec<Vec<usize>>,
    /// Each with the first pair of nodes that has it.
    links: Vec<(T, (NodeId, NodeId))>,
    /// From each class to each; none where there is no link.
    between: Vec<Vec<Option<LinkId>>>,
}

impl<'m, T: Copy + Eq + Hash> Map<'m, T> {
    fn draw(rules: &Rules, members: &'m Members, row: impl Fn(NodeId, &[Option<NodeId>]) -> Vec<Option<T>>) -> Self {
        let classes = rules.classes(members);
        let (mut links, mut ids) = (Vec::new(), HashMap::new());
        let between = classes.iter().map(|from| {
            let Some(node) = from.first() else { return Vec::new() };
            let others: Vec<_> = classes.iter().map(|to| to.iter().find(|to| *to != node)).collect();
            let found = row(node, &others).into_iter().zip(others);
            let found = found.map(|(link, to)| {
                let link = link?;
                Some(*ids.entry(link).or_insert_with(|| {
                    links.push((link, (node, to.unwrap_or(node))));
                    links.len() - 1
                }))
            });
            found.collect()
        });
        let between = between.collect();
        let mut groups: BTreeMap<Option<NodeId>, Vec<usize>> = BTreeMap::new();
        for (position, class) in classes.iter().enumerate() {
            let zone = class.first().and_then(|node| members.zone_of(node));
            groups.entry(zone.map(|zone| zone.nodes.start)).or_default().push(position);
        }
        Self { members, classes, groups: groups.into_values().collect(), links, between }
    }

    /// The links from vertex to vertex, which is a group wherever the classes of it are alike, else a class.
    ///
    /// Groups are numbered first, then classes.
    fn edges(&self) -> Vec<(usize, usize, LinkId)> {
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

    /// A class that is its group's only one is the group.
    fn vertex(&self, class: usize, group: usize) -> usize {
        if self.groups[group].len() == 1 { group } else { self.groups.len() + class }
    }

    fn scopes(&self, pairs: &BTreeSet<(usize, usize)>) -> Vec<Scope> {
        let mut scopes = Vec::new();
        let inside: Vec<_> = pairs.iter().filter(|(from, to)| from == to).map(|(from, _)| *from).collect();
        if !inside.is_empty() {
            scopes.push(Scope::Inside(self.names(inside)));
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
            scopes.push(Scope::AnyTwoOf(self.names(ends)));
        } else {
            let stars = with_equal_ends(both_ways).into_iter();
            scopes.extend(stars.map(|(to, from)| Scope::Between(self.names(from), self.names(to))));
        }
        let one_way = with_equal_ends(one_way).into_iter();
        scopes.extend(one_way.map(|(to, from)| Scope::FromTo(self.names(from), self.names(to))));
        scopes
    }

    /// The vertices as a hostlist of zones and nodes, in the file's order.
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
        hostlist::fold(&names.into_iter().map(|(_, name)| name).collect::<Vec<_>>())
    }
}

/// Those that lead to the same ends, together.
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
    fn links_that_are_all_alike_are_one() {
        assert_eq!(shown("name = 't'\nnodes = 'n[1-9]'\nlinks.default.delay = '5ms'"), ["5ms: between any two nodes"]);
    }

    #[test]
    fn zones_are_named_and_folded() {
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
    fn what_one_node_has_of_its_own_is_told_from_its_zone() {
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
