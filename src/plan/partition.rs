//! A partition: who is cut from whom, which of their packets, and in which way.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{
    Direction, Port, Timing, Traffic,
    name::{MAX_NAME_CHARS, is_name},
};
use crate::topology::{NodeName, Probability};

/// Nodes cut off from each other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Partition {
    /// What `heal` calls it.
    pub name: String,
    /// Who is cut from whom.
    pub shape: Shape,
    /// Which packets; none: all.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub ports: BTreeSet<Port>,
    /// What becomes of them.
    #[serde(default)]
    pub mode: Mode,
    /// When; `None`: all the time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timing: Option<Timing>,
    /// The generation of the document in which it came.
    #[serde(default)]
    pub since: u64,
}

/// Who is cut from whom.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Shape {
    /// Two nodes reach each other if they are on one side together. The nodes that no side names are one more side,
    /// the rest. A node on two sides is a bridge between them.
    Sides(Vec<BTreeSet<NodeName>>),
    /// Nothing gets from the first nodes to the second ones; the other way everything does.
    OneWay {
        /// Who is not heard.
        from: BTreeSet<NodeName>,
        /// Who does not hear.
        to: BTreeSet<NodeName>,
    },
    /// Nodes in a circle, each of which reaches so many neighbours on either hand.
    Ring {
        /// In which order they stand.
        order: Vec<NodeName>,
        /// How many neighbours on each hand.
        reach: usize,
    },
}

/// What becomes of the packets that are cut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// They vanish, as in a cut cable.
    #[default]
    Drop,
    /// They are refused, as by a router: TCP is reset, everything else told that its destination is unreachable.
    Reject,
    /// Some of them vanish.
    Loss(Probability),
}

impl Partition {
    /// A silent partition of all traffic, of `everyone` into `sides` and the rest.
    pub fn new(
        name: String,
        sides: Vec<BTreeSet<NodeName>>,
        everyone: &BTreeSet<NodeName>,
    ) -> Result<Self, PartitionError> {
        let partition =
            Self { name, shape: Shape::Sides(sides), ports: BTreeSet::new(), mode: Mode::Drop, timing: None, since: 0 };
        partition.check(everyone)?;
        Ok(partition)
    }

    /// Checks that it has a name and cuts something.
    pub fn check(&self, everyone: &BTreeSet<NodeName>) -> Result<(), PartitionError> {
        if !is_name(&self.name) {
            return Err(PartitionError::Name(self.name.clone()));
        }
        if let Some(unknown) = self.shape.nodes().find(|node| !everyone.contains(*node)) {
            return Err(PartitionError::Unknown(unknown.clone()));
        }
        match &self.shape {
            Shape::Sides(sides) => {
                let mut seen = BTreeSet::new();
                if let Some(twice) = sides.iter().flatten().find(|node| !seen.insert(*node)) {
                    return Err(PartitionError::Twice(twice.clone()));
                }
                let named = sides.iter().filter(|side| !side.is_empty()).count();
                let rest = usize::from(seen.len() < everyone.len());
                if named + rest < 2 {
                    return Err(PartitionError::CutsNothing);
                }
            }
            Shape::OneWay { from, to } => {
                if let Some(both) = from.intersection(to).next() {
                    return Err(PartitionError::Twice(both.clone()));
                }
                if from.is_empty() || to.is_empty() {
                    return Err(PartitionError::CutsNothing);
                }
            }
            Shape::Ring { order, reach } => {
                if 2 * reach + 1 >= order.len() {
                    return Err(PartitionError::CutsNothing);
                }
            }
        }
        Ok(())
    }

    /// Whether packets from one to the other are cut, or those of its ports.
    pub fn cuts(&self, from: &NodeName, to: &NodeName) -> bool {
        self.shape.parts(from, to)
    }

    /// What is dropped at a node's interface of what it exchanges with a peer.
    pub fn cuts_at(&self, node: &NodeName, peer: &NodeName) -> impl Iterator<Item = (Direction, Traffic)> {
        let drops = !matches!(self.mode, Mode::Loss(_));
        let egress = (drops && self.cuts(node, peer)).then_some(Direction::Egress);
        let ingress = (drops && self.cuts(peer, node)).then_some(Direction::Ingress);
        let traffic: Vec<Traffic> = if self.ports.is_empty() {
            vec![Traffic::All]
        } else {
            self.ports.iter().flat_map(|port| [Traffic::ToPort(*port), Traffic::FromPort(*port)]).collect()
        };
        let both = egress.into_iter().chain(ingress);
        both.flat_map(move |direction| traffic.clone().into_iter().map(move |traffic| (direction, traffic)))
    }
}

impl Shape {
    /// Every node that it names, some of them twice.
    pub fn nodes(&self) -> impl Iterator<Item = &NodeName> {
        let (sets, order): (Vec<&BTreeSet<NodeName>>, &[NodeName]) = match self {
            Self::Sides(sides) => (sides.iter().collect(), &[]),
            Self::OneWay { from, to } => (vec![from, to], &[]),
            Self::Ring { order, .. } => (Vec::new(), order),
        };
        sets.into_iter().flatten().chain(order)
    }

    fn parts(&self, from: &NodeName, to: &NodeName) -> bool {
        if from == to {
            return false;
        }
        match self {
            Self::Sides(sides) => {
                let is_on = |node, side: &BTreeSet<NodeName>| side.contains(node);
                let together = sides.iter().any(|side| is_on(from, side) && is_on(to, side));
                let is_rest = |node| !sides.iter().any(|side| is_on(node, side));
                !together && !(is_rest(from) && is_rest(to))
            }
            Self::OneWay { from: silent, to: deaf } => silent.contains(from) && deaf.contains(to),
            Self::Ring { order, reach } => {
                let place = |node: &NodeName| order.iter().position(|other| other == node);
                match (place(from), place(to)) {
                    (Some(a), Some(b)) => a.abs_diff(b).min(order.len() - a.abs_diff(b)) > *reach,
                    // The rest reaches itself and nobody else.
                    (None, None) => false,
                    _ => true,
                }
            }
        }
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

    #[test]
    fn one_way_cuts_one_way() {
        let shape = Shape::OneWay { from: set(&["n1"]), to: set(&["n2", "n3"]) };
        assert!(shape.parts(&node("n1"), &node("n3")));
        assert!(!shape.parts(&node("n3"), &node("n1")));
        assert!(!shape.parts(&node("n2"), &node("n3")));
    }

    #[test]
    fn each_node_of_a_ring_reaches_its_neighbours() {
        let order = ["n1", "n2", "n3", "n4", "n5"].map(node).to_vec();
        let ring = Shape::Ring { order, reach: 1 };
        let reached = |from: &str| {
            let others =
                ["n1", "n2", "n3", "n4", "n5", "n6"].into_iter().filter(|to| !ring.parts(&node(from), &node(to)));
            others.collect::<Vec<_>>().join(" ")
        };
        assert_eq!(reached("n1"), "n1 n2 n5");
        assert_eq!(reached("n3"), "n2 n3 n4");
        assert_eq!(reached("n6"), "n6");
    }
}
