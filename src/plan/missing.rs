//! The nodes that a document leaves out ([`Missing`]).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde::{Deserialize, Serialize, Serializer};

use super::{Stamp, Wanted, node_set::NodeSet};
use crate::topology::{NodeName, hostlist};

/// The nodes that changes have left out on request, each with the stamp of its last document.
///
/// With the stamp, a node that only lacks the changes that left it out differs from a node that got other changes since.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(with = "Vec<Group>"))]
#[serde(from = "Form")]
pub struct Missing(Arc<BTreeMap<NodeName, Stamp>>);

/// Nodes with the same stamp: the form in JSON. The groups have different stamps in ascending order.
#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "MissingNodes"))]
#[serde(deny_unknown_fields)]
struct Group {
    nodes: NodeSet,
    /// The stamp of these nodes' last document.
    stamp: Stamp,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Form {
    Groups(Vec<Group>),
    /// The form in journals up to version 5. The stamps are unknown.
    Nodes(NodeSet),
}

impl Missing {
    /// The nodes that an edit of `document` leaves out. The last stamp of a node is that of `document`, unless `document`
    /// leaves out the node, too.
    pub(crate) fn after(document: &Wanted, stamp: &Stamp, nodes: impl Iterator<Item = NodeName>) -> Self {
        let last = |node: &NodeName| match document.missing.0.get(node) {
            Some(stamp) => stamp.clone(),
            None if document.inventory.nodes.contains_key(node) => stamp.clone(),
            None => Wanted::default().stamp(),
        };
        nodes.map(|node| (node.clone(), last(&node))).collect()
    }

    /// True if no node is left out.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// True if the node is left out.
    pub fn contains(&self, node: &NodeName) -> bool {
        self.0.contains_key(node)
    }

    /// True if the node is left out and has got no change since: its document, which has this stamp, is clear or is the
    /// document that the node had then.
    pub fn is_behind(&self, node: &NodeName, stamp: &Stamp) -> bool {
        self.0.get(node).is_some_and(|last| last.agrees_with(stamp) || stamp.is_of_clear())
    }

    /// The nodes.
    pub fn nodes(&self) -> BTreeSet<NodeName> {
        self.0.keys().cloned().collect()
    }
}

impl FromIterator<(NodeName, Stamp)> for Missing {
    fn from_iter<T: IntoIterator<Item = (NodeName, Stamp)>>(nodes: T) -> Self {
        Self(Arc::new(nodes.into_iter().collect()))
    }
}

impl From<Form> for Missing {
    fn from(form: Form) -> Self {
        let groups = match form {
            Form::Groups(groups) => groups,
            Form::Nodes(nodes) => vec![Group { nodes, stamp: Wanted::default().stamp() }],
        };
        let nodes = |Group { nodes, stamp }: Group| nodes.0.into_iter().map(move |node| (node, stamp.clone()));
        groups.into_iter().flat_map(nodes).collect()
    }
}

/// Writes a list of [`Group`].
impl Serialize for Missing {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Written<'m> {
            nodes: String,
            stamp: &'m Stamp,
        }
        let mut groups: BTreeMap<&Stamp, Vec<&NodeName>> = BTreeMap::new();
        for (node, stamp) in &*self.0 {
            groups.entry(stamp).or_default().push(node);
        }
        serializer.collect_seq(groups.into_iter().map(|(stamp, nodes)| Written { nodes: hostlist::fold(nodes), stamp }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str) -> NodeName {
        name.parse().unwrap()
    }

    fn stamp(generation: u64) -> Stamp {
        Stamp { generation, digest: serde_json::from_str(&format!("\"{generation}\"")).unwrap() }
    }

    #[test]
    fn nodes_with_the_same_stamp_are_one_hostlist_in_json() {
        let stamps = [("n1", 3), ("n2", 2), ("n3", 3), ("n4", 3)];
        let missing: Missing = stamps.map(|(name, generation)| (node(name), stamp(generation))).into_iter().collect();
        let json = serde_json::to_value(&missing).unwrap();
        let groups = [("n2", stamp(2)), ("n[1,3-4]", stamp(3))];
        assert_eq!(
            json,
            serde_json::json!(groups.map(|(nodes, stamp)| serde_json::json!({ "nodes": nodes, "stamp": stamp })))
        );
        assert_eq!(serde_json::from_value::<Missing>(json).unwrap(), missing);
        let before: Missing = serde_json::from_str("\"n[1-2]\"").unwrap();
        assert_eq!(before.nodes(), [node("n1"), node("n2")].into());
    }

    #[test]
    fn a_node_is_behind_with_its_last_document_or_a_clear_one_and_not_with_another() {
        let missing: Missing = [(node("n1"), stamp(3))].into_iter().collect();
        let clear = Wanted { generation: 7, ..Wanted::default() }.stamp();
        let is_behind = [stamp(3), clear, stamp(2), stamp(4)].map(|stamp| missing.is_behind(&node("n1"), &stamp));
        assert_eq!(is_behind, [true, true, false, false]);
        assert!(!missing.is_behind(&node("n2"), &stamp(3)));
    }
}
