//! Reads `[zones]`: names for sets of nodes, for use without a topology.

use std::{
    collections::{BTreeMap, HashMap},
    ops::Range,
};

use super::words::Zone;
use crate::topology::{Finding, Hostlist, NAME_HELP, NodeName, UnknownName, Word, ZoneName};

/// Reads the nodes of each zone. Reports and skips wrong members.
pub(super) fn read(
    zones: &[Zone<'_>],
    nodes: &BTreeMap<NodeName, Range<usize>>,
    findings: &mut Vec<Finding>,
) -> BTreeMap<ZoneName, Vec<NodeName>> {
    let mut taken = HashMap::new();
    let mut read = BTreeMap::new();
    for Zone { name, members } in zones {
        let own: Vec<NodeName> = members
            .iter()
            .flat_map(|word| {
                members_of(word, nodes, &mut taken).unwrap_or_else(|finding| {
                    findings.push(*finding);
                    Vec::new()
                })
            })
            .collect();
        match name.get_ref().parse::<ZoneName>() {
            Ok(zone) => drop(read.insert(zone, own)),
            Err(error) => findings.push(
                Finding::new(name.span(), format!("`{}` is not a zone's name", name.get_ref()))
                    .label(error.to_string())
                    .help(NAME_HELP),
            ),
        }
        let namesake = name.get_ref().parse::<NodeName>().ok().and_then(|node| nodes.get(&node));
        if let Some(node) = namesake {
            findings.push(
                Finding::new(name.span(), format!("a zone and a node are both called `{}`", name.get_ref()))
                    .label("the zone")
                    .related(node.clone(), "the node")
                    .help("`netemctl partition` cannot tell them apart: rename one"),
            );
        }
    }
    read
}

/// The nodes of one word. Fails if a node is unknown, or is in a zone already.
fn members_of(
    word: &Word<'_>,
    nodes: &BTreeMap<NodeName, Range<usize>>,
    taken: &mut HashMap<NodeName, Range<usize>>,
) -> Result<Vec<NodeName>, Box<Finding>> {
    let list = Hostlist::parse(word.get_ref())
        .map_err(|error| Finding::new(word.span(), error.to_string()).help(error.help()))?;
    let mut members = Vec::new();
    for name in list.names() {
        let Some((node, _)) = name.parse().ok().and_then(|node: NodeName| nodes.get_key_value(&node)) else {
            let unknown = UnknownName::new(&name, nodes.keys().map(NodeName::as_str));
            return Err(Finding::new(word.span(), format!("no node is called `{name}`"))
                .label(unknown.label())
                .help("a zone has nodes of `[nodes]`")
                .into());
        };
        if let Some(earlier) = taken.insert(node.clone(), word.span()) {
            let finding = Finding::new(word.span(), format!("the node `{node}` is in the zones twice"))
                .help("a node is in at most one zone");
            let is_here = earlier == word.span();
            return Err(
                if is_here { finding.label("twice here") } else { finding.related(earlier, "here first") }.into()
            );
        }
        members.push(node.clone());
    }
    Ok(members)
}
