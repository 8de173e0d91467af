//! Reads `[zones]`: names for sets of nodes, for use without a topology.

use std::{
    collections::{BTreeMap, HashMap},
    ops::Range,
};

use super::words::Zone;
use crate::topology::{Finding, Hostlist, NodeName, UnknownName, Word, ZoneName};

/// Reads the nodes of each zone. Reports and skips wrong members.
pub(super) fn read(
    zones: &[Zone<'_>],
    nodes: &BTreeMap<NodeName, Range<usize>>,
    findings: &mut Vec<Finding>,
) -> BTreeMap<ZoneName, Vec<NodeName>> {
    let mut taken = HashMap::new();
    let mut read = BTreeMap::new();
    for Zone { name, members } in zones {
        let own = members.iter().filter_map(|word| members_of(word, nodes, &mut taken, findings)).flatten().collect();
        match name.get_ref().parse::<ZoneName>() {
            Ok(zone) => drop(read.insert(zone, own)),
            Err(error) => findings.push(error.finding(name.span(), name.get_ref(), "a zone's name")),
        }
        let namesake = name.get_ref().parse::<NodeName>().ok().and_then(|node| nodes.get(&node));
        if let Some(node) = namesake {
            Finding::new(name.span(), format!("a zone and a node are both called `{}`", name.get_ref()))
                .label("the zone")
                .related(node.clone(), "the node")
                .help("`netemctl partition` cannot tell them apart: rename one")
                .report(findings);
        }
    }
    read
}

/// The nodes of one word. Reports a node that is unknown, or that is in a zone already.
fn members_of(
    word: &Word<'_>,
    nodes: &BTreeMap<NodeName, Range<usize>>,
    taken: &mut HashMap<NodeName, Range<usize>>,
    findings: &mut Vec<Finding>,
) -> Option<Vec<NodeName>> {
    let list = match Hostlist::parse(word.get_ref()) {
        Ok(list) => list,
        Err(error) => return Finding::new(word.span(), error.to_string()).help(error.help()).refuse(findings),
    };
    let mut members = Vec::new();
    for name in list.names() {
        let Some((node, _)) = name.parse().ok().and_then(|node: NodeName| nodes.get_key_value(&node)) else {
            let unknown = UnknownName::new(&name, nodes.keys().map(NodeName::as_str));
            return Finding::new(word.span(), format!("no node is called `{name}`"))
                .label(unknown.label())
                .help("a zone has nodes of `[nodes]`")
                .refuse(findings);
        };
        if let Some(earlier) = taken.insert(node.clone(), word.span()) {
            let finding = Finding::new(word.span(), format!("the node `{node}` is in the zones twice"))
                .help("a node is in at most one zone");
            let is_here = earlier == word.span();
            let finding = if is_here { finding.label("twice here") } else { finding.related(earlier, "here first") };
            return finding.refuse(findings);
        }
        members.push(node.clone());
    }
    Some(members)
}
