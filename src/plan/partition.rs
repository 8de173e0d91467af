//! A partition: sides of nodes that reach the nodes of their own side and nobody else.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::name::{MAX_NAME_CHARS, is_name};
use crate::topology::NodeName;

/// Nodes cut off from each other. The nodes that no side names are together one more side, the rest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Partition {
    /// What `heal` calls it.
    pub name: String,
    /// The sides, each a set of nodes; no node is in two.
    pub sides: Vec<BTreeSet<NodeName>>,
}

impl Partition {
    /// A partition of `everyone` into `sides` and the rest.
    pub fn new(
        name: String,
        sides: Vec<BTreeSet<NodeName>>,
        everyone: &BTreeSet<NodeName>,
    ) -> Result<Self, PartitionError> {
        if !is_name(&name) {
            return Err(PartitionError::Name(name));
        }
        let mut seen = BTreeSet::new();
        for node in sides.iter().flatten() {
            if !everyone.contains(node) {
                return Err(PartitionError::Unknown(node.clone()));
            }
            if !seen.insert(node) {
                return Err(PartitionError::Twice(node.clone()));
            }
        }
        let named = sides.iter().filter(|side| !side.is_empty()).count();
        let rest = usize::from(seen.len() < everyone.len());
        if named + rest < 2 {
            return Err(PartitionError::CutsNothing);
        }
        Ok(Self { name, sides })
    }

    /// Whether nothing passes between the two, in either direction.
    pub fn cuts(&self, a: &NodeName, b: &NodeName) -> bool {
        self.side_of(a) != self.side_of(b)
    }

    /// The index of the side that names `node`; `None` is the rest.
    fn side_of(&self, node: &NodeName) -> Option<usize> {
        self.sides.iter().position(|side| side.contains(node))
    }
}

/// Why a partition cannot be.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum PartitionError {
    /// Not something that `heal` could be given.
    #[error("`{0}` is no name for a partition; choose one of 1 to {MAX_NAME_CHARS} characters without white space")]
    Name(String),
    /// A node that is in no inventory.
    #[error("there is no node {0}")]
    Unknown(NodeName),
    /// A node cannot be cut off from itself.
    #[error("node {0} is on two sides")]
    Twice(NodeName),
    /// Everybody is on the same side.
    #[error("that cuts nothing: all nodes are on one side")]
    CutsNothing,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(names: &[&str]) -> BTreeSet<NodeName> {
        names.iter().map(|name| name.parse().unwrap()).collect()
    }

    fn node(name: &str) -> NodeName {
        name.parse().unwrap()
    }

    #[test]
    fn nodes_outside_every_side_are_one_side_of_their_own() {
        let all = set(&["n1", "n2", "n3", "n4"]);
        let cut = Partition::new("p".into(), vec![set(&["n1"]), set(&["n2"])], &all).unwrap();
        assert!(cut.cuts(&node("n1"), &node("n2")));
        assert!(cut.cuts(&node("n3"), &node("n1")));
        assert!(!cut.cuts(&node("n3"), &node("n4")));
        assert!(!cut.cuts(&node("n1"), &node("n1")));
    }

    #[test]
    fn a_partition_that_cuts_nothing_is_refused() {
        let all = set(&["n1", "n2"]);
        assert_eq!(Partition::new("p".into(), vec![all.clone()], &all), Err(PartitionError::CutsNothing));
        assert_eq!(Partition::new("p".into(), vec![], &all), Err(PartitionError::CutsNothing));
    }

    #[test]
    fn a_node_on_two_sides_or_unknown_is_refused() {
        let all = set(&["n1", "n2", "n3"]);
        let twice = Partition::new("p".into(), vec![set(&["n1", "n2"]), set(&["n2"])], &all);
        assert_eq!(twice, Err(PartitionError::Twice(node("n2"))));
        let unknown = Partition::new("p".into(), vec![set(&["n9"])], &all);
        assert_eq!(unknown, Err(PartitionError::Unknown(node("n9"))));
    }
}
