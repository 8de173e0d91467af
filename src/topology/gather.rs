//! The second pass over a file: who is in it, from the words of a `Document` to [`Members`].
//!
//! Hostlists are expanded here, and every name is checked to be one, and to be there once.

use std::ops::Range;

use super::{
    MAX_NODES,
    diagnostic::Finding,
    hostlist::Hostlist,
    members::{Member, Members},
    name::{NAME_HELP, NameError, NodeName},
    node_set::NodeId,
    raw::Group,
    reader::Word,
    warnings,
};

/// Finds out who is in the file. What is wrong is reported and left out.
pub(super) fn gather(groups: &[Group<'_>], findings: &mut Vec<Finding>) -> Members {
    let before = findings.len();
    let mut gathering = Gathering::default();
    gathering.announce_zones(groups);
    for group in groups {
        gathering.add(group, findings);
    }

    let members = gathering.members;
    let intact = findings.len() == before && groups.iter().all(|group| group.complete);
    if let (Some(group), true) = (groups.first(), intact && members.nodes().len() < 2) {
        findings.push(
            Finding::new(group.key.span(), "a topology needs at least two nodes")
                .label("one node has no links")
                .help("add a node, as in \"n[1-2]\""),
        );
    }
    let words = groups.iter().flat_map(|group| &group.members);
    findings.extend(warnings::ranges_without_brackets(words, &members.nodes().iter()));
    members
}

/// Members in the making, with the places in the file that made them.
#[derive(Default)]
struct Gathering<'g> {
    members: Members,
    zone_keys: Vec<Range<usize>>,
    /// Of each node.
    places: Vec<NodePosition<'g>>,
    overflown: bool,
}

/// Where a node is said to be in the topology.
struct NodePosition<'g> {
    span: Range<usize>,
    /// The zone's name, or `nodes`.
    group: &'g str,
}

/// Nodes of one word that are in the topology already.
struct Repeated {
    first: NodeName,
    /// The node that is the first one's equal.
    earlier: NodeId,
    count: usize,
}

impl<'g> Gathering<'g> {
    /// Goes before any node, so that a node of a zone's name is found whichever comes first in the file.
    fn announce_zones(&mut self, groups: &[Group<'_>]) {
        for group in groups {
            if let Some(name) = &group.zone {
                self.members.add_zone(name.clone());
                self.zone_keys.push(group.key.span());
            }
        }
    }

    fn add(&mut self, group: &'g Group<'_>, findings: &mut Vec<Finding>) {
        let first = self.members.count();
        for word in &group.members {
            findings.extend(self.add_word(word, group.key.get_ref()));
        }
        if let Some(zone) = &group.zone {
            self.members.fill_zone(zone, first);
        }
    }

    /// Adds the nodes of one word. Reports at most one thing, so that a long list does not make a long report.
    fn add_word(&mut self, word: &Word<'_>, group: &'g str) -> Option<Finding> {
        let list = match Hostlist::parse(word.get_ref()) {
            Ok(list) => list,
            Err(error) => return Some(Finding::new(word.span(), error.to_string()).help(error.help())),
        };
        if self.members.nodes().len() + list.count() > MAX_NODES {
            let first_time = !std::mem::replace(&mut self.overflown, true);
            return first_time.then(|| {
                Finding::new(word.span(), format!("more than {MAX_NODES} nodes"))
                    .label("too many from here on")
                    .help(format!("a topology has at most {MAX_NODES} nodes"))
            });
        }

        let mut repeated: Option<Repeated> = None;
        for name in list.names() {
            let node = match name.parse::<NodeName>() {
                Ok(node) => node,
                Err(error) => return Some(not_a_name(&name, word, &error)),
            };
            match self.members.named(&name) {
                None => {
                    self.members.add_node(node);
                    self.places.push(NodePosition { span: word.span(), group });
                }
                Some(Member::Zone(position)) => return Some(self.clash(&node, word, position)),
                Some(Member::Node(earlier)) => {
                    repeated.get_or_insert(Repeated { first: node, earlier, count: 0 }).count += 1;
                }
            }
        }
        repeated.map(|repeated| self.repetition(&repeated, word, group))
    }

    fn clash(&self, node: &NodeName, word: &Word<'_>, zone: usize) -> Finding {
        Finding::new(word.span(), format!("a zone and a node are both called `{node}`"))
            .label("the node")
            .related(self.zone_keys[zone].clone(), "the zone")
            .help("an override could mean either: rename one of them")
    }

    fn repetition(&self, repeated: &Repeated, word: &Word<'_>, group: &str) -> Finding {
        let Repeated { first, earlier, count } = repeated;
        let place = &self.places[*earlier as usize];
        let who = match count {
            1 => format!("the node `{first}` is"),
            _ => format!("`{first}` and {} more nodes are", count - 1),
        };
        let message = if place.group == group {
            format!("{who} twice in `{group}`")
        } else {
            format!("{who} in both `{}` and `{group}`", place.group)
        };
        let finding =
            Finding::new(word.span(), message).help("a node is in at most one zone, and in the topology once");
        if place.span == word.span() {
            return finding.label("said twice here");
        }
        finding.label("again here").related(place.span.clone(), format!("`{first}` is here first"))
    }
}

fn not_a_name(name: &str, word: &Word<'_>, error: &NameError) -> Finding {
    Finding::new(word.span(), format!("`{name}` is not a node's name")).label(error.to_string()).help(NAME_HELP)
}
