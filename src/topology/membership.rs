//! Reads the nodes and zones of a `Document` into [`Members`]: the second pass.
//!
//! The pass expands hostlists and checks names. Each name must be valid and unique.

use std::ops::Range;

use super::{
    MAX_NODES,
    diagnostic::Finding,
    document::Group,
    hostlist::Hostlist,
    members::{Member, Members},
    name::NodeName,
    node_set::NodeId,
    reader::Word,
    warnings,
};

/// Reads the nodes and zones. Reports nodes with mistakes, and omits these nodes.
pub(super) fn read(groups: &[Group<'_>], findings: &mut Vec<Finding>) -> Members {
    let before = findings.len();
    let mut reader = MemberReader::default();
    reader.add_zone_names(groups);
    for group in groups {
        reader.add(group, findings);
    }

    let members = reader.members;
    let is_complete = findings.len() == before && groups.iter().all(|group| group.is_complete);
    if let (Some(group), true) = (groups.first(), is_complete && members.nodes().len() < 2) {
        Finding::new(group.key.span(), "a topology needs at least two nodes")
            .label("one node has no links")
            .help("add a node: \"n[1-2]\"")
            .report(findings);
    }
    let words = groups.iter().flat_map(|group| &group.members);
    findings.extend(warnings::ranges_without_brackets(words, &members.nodes().iter()));
    members
}

/// The members so far, with their spans in the file.
#[derive(Default)]
struct MemberReader<'g> {
    members: Members,
    zone_keys: Vec<Range<usize>>,
    /// The position of each node, by the number of the node.
    positions: Vec<NodePosition<'g>>,
    has_too_many: bool,
}

/// The position of a node in the file: its string and its group.
struct NodePosition<'g> {
    span: Range<usize>,
    /// The key of the group: the zone's name, or `nodes`.
    group: &'g str,
}

impl<'g> MemberReader<'g> {
    /// Adds all zones. The caller adds the nodes afterwards.
    ///
    /// In this order, a node with the name of a zone is reported even if the zone comes later in the file.
    fn add_zone_names(&mut self, groups: &[Group<'_>]) {
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

    /// Adds the nodes of one hostlist. Returns at most one mistake, so a long list has a short report.
    fn add_word(&mut self, word: &Word<'_>, group: &'g str) -> Option<Finding> {
        let list = match Hostlist::parse(word.get_ref()) {
            Ok(list) => list,
            Err(error) => return Some(Finding::new(word.span(), error.to_string()).help(error.help())),
        };
        if self.members.nodes().len() + list.count() > MAX_NODES {
            let first_time = !std::mem::replace(&mut self.has_too_many, true);
            return first_time.then(|| {
                Finding::new(word.span(), format!("more than {MAX_NODES} nodes"))
                    .label("this list exceeds the limit")
                    .help(format!("a topology has at most {MAX_NODES} nodes"))
            });
        }

        let mut duplicates = Vec::new();
        for name in list.names() {
            let node = match name.parse::<NodeName>() {
                Ok(node) => node,
                Err(error) => return Some(error.finding(word.span(), &name, "a node's name")),
            };
            match self.members.named(&name) {
                None => {
                    self.members.add_node(node);
                    self.positions.push(NodePosition { span: word.span(), group });
                }
                Some(Member::Zone(position)) => return Some(self.name_clash(&node, word, position)),
                Some(Member::Node(earlier)) => duplicates.push((node, earlier)),
            }
        }
        self.duplicate(&duplicates, word, group)
    }

    fn name_clash(&self, node: &NodeName, word: &Word<'_>, zone: usize) -> Finding {
        Finding::new(word.span(), format!("a zone and a node are both called `{node}`"))
            .label("the node")
            .related(self.zone_keys[zone].clone(), "the zone")
            .help("rename one of them")
    }

    /// The finding about repeated nodes. `nodes` has each repeated name with the number of the node that has this name.
    fn duplicate(&self, nodes: &[(NodeName, NodeId)], word: &Word<'_>, group: &str) -> Option<Finding> {
        let (first, earlier) = nodes.first()?;
        let position = &self.positions[*earlier as usize];
        let who = match nodes.len() {
            1 => format!("the node `{first}` is"),
            count => format!("`{first}` and {} more nodes are", count - 1),
        };
        let message = if position.group == group {
            format!("{who} twice in `{group}`")
        } else {
            format!("{who} in both `{}` and `{group}`", position.group)
        };
        let finding =
            Finding::new(word.span(), message).help("a node is in the topology once, and in at most one zone");
        Some(if position.span == word.span() {
            finding.label("twice in this list")
        } else {
            finding.label("again here").related(position.span.clone(), format!("`{first}` is here first"))
        })
    }
}
