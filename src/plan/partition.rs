//! Defines partitions ([`Partition`]): the separated nodes, the affected packets and the effect on these packets.

use std::collections::{BTreeSet, HashMap};

use serde::{Deserialize, Serialize};
use thiserror::Error;

#[cfg(test)]
use super::node_set::NodeSet;
use super::{
    Answer, Direction, DrawError, Inventory, Port, Protocol, TimedId, TimedKind, Timing, Traffic,
    name::{MAX_NAME_CHARS, is_name},
    node_set,
};
use crate::topology::{NodeName, Probability};

/// A partition: a set of nodes that are cut off from each other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Partition {
    /// The name, as an argument of `heal`.
    pub name: String,
    /// The separated nodes.
    pub shape: Shape,
    /// The ports whose packets are cut. An empty set cuts all packets.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub ports: BTreeSet<Port>,
    /// The effect on the packets.
    #[serde(default)]
    pub mode: Mode,
    /// The times at which the partition is in force. `None`: always.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timing: Option<Timing>,
    /// The generation of the document that added the partition.
    #[serde(default)]
    pub since: u64,
}

/// The way in which a partition separates nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Shape {
    /// Several sides. Two nodes reach each other if a side contains both nodes.
    ///
    /// All nodes without a side form one more side, the rest. A node on two sides is a bridge.
    Sides {
        /// The sides.
        #[serde(with = "node_set::list")]
        #[cfg_attr(test, schemars(with = "Vec<NodeSet>"))]
        sides: Vec<BTreeSet<NodeName>>,
    },
    /// A one-way cut: packets from the senders to the receivers are cut. Packets in the other direction pass.
    OneWay {
        /// The senders.
        #[serde(with = "node_set")]
        #[cfg_attr(test, schemars(with = "NodeSet"))]
        from: BTreeSet<NodeName>,
        /// The receivers.
        #[serde(with = "node_set")]
        #[cfg_attr(test, schemars(with = "NodeSet"))]
        to: BTreeSet<NodeName>,
    },
    /// A ring in which each position reaches its nearest neighbours. Nodes without a position reach only each other.
    Ring {
        /// The positions in order: single nodes or zones.
        #[serde(with = "node_set::list")]
        #[cfg_attr(test, schemars(with = "Vec<NodeSet>"))]
        order: Vec<BTreeSet<NodeName>>,
        /// The number of reachable neighbours on each side.
        reach: usize,
    },
}

/// The effect of a partition on its packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Mode {
    /// All packets are dropped without an answer, as by a cut cable.
    #[default]
    Drop,
    /// All packets are rejected at once, as by the sender's router.
    ///
    /// A TCP connection is reset. The sender of another packet gets "destination unreachable".
    Reject,
    /// Some packets are lost.
    #[value(skip)]
    Loss {
        /// The share of lost packets.
        loss: Probability,
    },
}

impl Partition {
    /// Checks a new partition. A valid partition cuts at least one link.
    pub(super) fn check(&self, inventory: &Inventory) -> Result<(), PartitionError> {
        self.check_lasting(inventory)?;
        if let Shape::Sides { sides } = &self.shape {
            let seen: BTreeSet<_> = sides.iter().flatten().collect();
            let named = sides.iter().filter(|side| !side.is_empty()).count();
            let rest = usize::from(seen.len() < inventory.nodes.len());
            if named + rest < 2 {
                return Err(PartitionError::CutsNothing);
            }
        }
        Ok(())
    }

    /// Checks a partition that a document already has. Accepts sides that cut nothing.
    ///
    /// Sides cut nothing if all other nodes have left the inventory since the partition was added.
    pub(super) fn check_lasting(&self, inventory: &Inventory) -> Result<(), PartitionError> {
        if !is_name(&self.name) {
            return Err(PartitionError::Name(self.name.clone()));
        }
        match self.mode {
            Mode::Loss { loss: Probability::ZERO } => return Err(PartitionError::LosesNothing),
            Mode::Loss { .. } if !self.ports.is_empty() => return Err(PartitionError::LossOfPorts),
            _ => {}
        }
        match &self.shape {
            Shape::OneWay { from, to } => {
                if let Some(both) = from.intersection(to).next() {
                    return Err(PartitionError::Twice(both.clone()));
                }
                if from.is_empty() || to.is_empty() {
                    return Err(PartitionError::CutsNothing);
                }
            }
            Shape::Ring { order, reach } if reach.saturating_mul(2).saturating_add(1) >= order.len() => {
                return Err(PartitionError::CutsNothing);
            }
            _ => {}
        }
        match self.shape.nodes().find(|node| !inventory.nodes.contains_key(*node)) {
            Some(unknown) => Err(PartitionError::Unknown(unknown.clone())),
            None => Ok(()),
        }
    }

    /// The identity of the partition. A later partition of the same name has another identity.
    pub fn id(&self) -> TimedId {
        TimedId { kind: TimedKind::Partition, name: self.name.clone(), since: self.since }
    }

    /// The partition while it is not in force: a partition that cuts nothing.
    ///
    /// While a document has a partition, the root qdisc stays on the interface. So no step needs to add the root qdisc
    /// when the partition comes into force.
    pub(super) fn inactive(&self) -> Self {
        Self { shape: Shape::Sides { sides: Vec::new() }, ..self.clone() }
    }

    /// True if the partition is not in force: it has not started, or its flap has the link up.
    ///
    /// Only documents of [`Wanted::in_force`](super::Wanted::in_force) show this state.
    pub fn is_inactive(&self) -> bool {
        matches!(&self.shape, Shape::Sides { sides } if sides.is_empty())
    }

    /// True if the partition cuts some or all packets from one node to another.
    pub fn cuts(&self, from: &NodeName, to: &NodeName) -> bool {
        self.shape.cuts(from, to)
    }

    /// True if both partitions are equal and have no timing. Ignores [`since`](Self::since).
    pub(super) fn repeats(&self, other: &Self) -> bool {
        self.timing.is_none() && Self { since: other.since, ..self.clone() } == *other
    }

    /// True if the partition loses a share of the packets at random ([`Mode::Loss`]).
    pub fn is_partial(&self) -> bool {
        self.lost().is_some()
    }

    /// The share of packets from one node to another that the partition loses, in addition to the loss of the link.
    ///
    /// `None`: the partition is not partial, or does not affect these packets.
    pub fn loss(&self, from: &NodeName, to: &NodeName) -> Option<Probability> {
        self.lost().filter(|_| self.cuts(from, to))
    }

    /// The share of packets that a partial partition loses. `None`: the partition is not partial.
    pub(super) fn lost(&self) -> Option<Probability> {
        match self.mode {
            Mode::Loss { loss } => Some(loss),
            Mode::Drop | Mode::Reject => None,
        }
    }

    /// The packets between a node and a peer that the node's interface drops, and the answer to the sender.
    ///
    /// `to_peer` is true if the partition cuts packets to the peer, `from_peer` if it cuts packets from the peer. Only
    /// the sender's node sends a refusal. The receiver's node drops without an answer: only packets that were in flight
    /// when the cut began arrive there. A partial partition drops nothing here, because netem loses its packets.
    pub(super) fn drops(
        &self,
        to_peer: bool,
        from_peer: bool,
    ) -> impl Iterator<Item = (Direction, Traffic, Answer)> + use<> {
        let drops = !self.is_partial();
        let answer = if self.mode == Mode::Reject { Answer::Refusal } else { Answer::Silence };
        let egress = (drops && to_peer).then_some((Direction::Egress, answer));
        let ingress = (drops && from_peer).then_some((Direction::Ingress, Answer::Silence));
        let traffic: Vec<Traffic> = if self.ports.is_empty() {
            vec![Traffic::All]
        } else {
            let ports = self.ports.iter().copied();
            let ports = ports.flat_map(|port| [Traffic::ToPort { port }, Traffic::FromPort { port }]);
            let protocols: BTreeSet<Protocol> = self.ports.iter().map(|port| port.protocol).collect();
            ports.chain(protocols.into_iter().map(|protocol| Traffic::FragmentsOf { protocol })).collect()
        };
        let both = egress.into_iter().chain(ingress);
        both.flat_map(move |(direction, answer)| {
            traffic.clone().into_iter().map(move |traffic| (direction, traffic, answer))
        })
    }
}

/// An index from nodes to their sides in a shape.
///
/// Without the index, each query searches all sides. A shape may have as many sides as nodes.
pub(super) struct SideIndex<'a> {
    shape: &'a Shape,
    sides: HashMap<&'a NodeName, Vec<usize>>,
}

impl SideIndex<'_> {
    /// Like [`Shape::cuts`].
    pub(super) fn cuts(&self, from: &NodeName, to: &NodeName) -> bool {
        let sides = |node| self.sides.get(node).map_or(&[][..], Vec::as_slice);
        from != to && self.shape.separates(sides(from), sides(to))
    }
}

impl Shape {
    /// Creates a shape of sides. Fails if a node is on two sides.
    pub fn sides(sides: Vec<BTreeSet<NodeName>>) -> Result<Self, PartitionError> {
        let mut seen = BTreeSet::new();
        match sides.iter().flatten().find(|node| !seen.insert(*node)) {
            Some(twice) => Err(PartitionError::Twice(twice.clone())),
            None => Ok(Self::Sides { sides }),
        }
    }

    /// The nodes of the shape. A bridge occurs more than once.
    pub fn nodes(&self) -> impl Iterator<Item = &NodeName> {
        self.sets().into_iter().flatten()
    }

    /// The sides, the positions of a ring, or the senders and the receivers.
    pub(super) fn sets(&self) -> Vec<&BTreeSet<NodeName>> {
        match self {
            Self::Sides { sides: sets } | Self::Ring { order: sets, .. } => sets.iter().collect(),
            Self::OneWay { from, to } => vec![from, to],
        }
    }

    /// The index from nodes to their sides. Takes time linear in the number of nodes.
    pub(super) fn side_index(&self) -> SideIndex<'_> {
        let mut sides: HashMap<&NodeName, Vec<usize>> = HashMap::new();
        for (side, set) in self.sets().into_iter().enumerate() {
            for node in set {
                sides.entry(node).or_default().push(side);
            }
        }
        SideIndex { shape: self, sides }
    }

    /// True if packets from one node to another are cut. For many pairs, [`Self::side_index`] is faster.
    pub(super) fn cuts(&self, from: &NodeName, to: &NodeName) -> bool {
        let sets = self.sets();
        let sides = |node| -> Vec<usize> { (0..sets.len()).filter(|side| sets[*side].contains(node)).collect() };
        from != to && self.separates(&sides(from), &sides(to))
    }

    /// True if packets are cut between a sender on the sides `from` and a receiver on the sides `to`.
    ///
    /// The numbers are indices of [`Self::sets`]. A node without a side or position has an empty list.
    fn separates(&self, from: &[usize], to: &[usize]) -> bool {
        match self {
            Self::Sides { .. } if from.is_empty() => !to.is_empty(),
            Self::Sides { .. } => !from.iter().any(|side| to.contains(side)),
            Self::OneWay { .. } => from.contains(&0) && to.contains(&1),
            Self::Ring { order, reach } => match (from.first(), to.first()) {
                (Some(a), Some(b)) => a.abs_diff(*b).min(order.len() - a.abs_diff(*b)) > *reach,
                // Two nodes without a position reach each other.
                (None, None) => false,
                _ => true,
            },
        }
    }
}

/// An error in a partition.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum PartitionError {
    /// The name is empty, is too long, or has a character that is not allowed.
    #[error("invalid name \"{0}\": --name takes 1 to {MAX_NAME_CHARS} characters without white space")]
    Name(String),
    /// A node is not in the inventory.
    #[error("there is no node {0}")]
    Unknown(NodeName),
    /// A node is on two sides. Only the bridge of a random partition may be on two sides.
    #[error("node {0} is on two sides")]
    Twice(NodeName),
    /// The partition cuts no link, for example because all nodes are on one side.
    #[error("all nodes are on one side, so nothing is cut; name two sides")]
    CutsNothing,
    /// A side has no selector.
    #[error("a side is empty: name zones or nodes before and after every /")]
    EmptySide,
    /// A one-way partition has no side or more than two sides.
    #[error("a one-way partition has one or two sides, not {0}; with one side, the other is the rest")]
    OneWaySides(usize),
    /// The draw is over zones, but there are no zones.
    #[error("there are no zones; leave out --over zones to draw from the nodes")]
    NoZones,
    /// The isolated node or the bridge is not among the nodes to draw from.
    #[error("node {0} is not among the nodes to draw from: add it, or name no nodes")]
    NotAmong(NodeName),
    /// The draw is not possible.
    #[error(transparent)]
    Draw(#[from] DrawError),
    /// The loss is zero.
    #[error("a loss of 0% cuts nothing")]
    LosesNothing,
    /// The partition has a loss and ports. netem cannot limit a loss to ports.
    #[error("--loss applies to all packets of a link; leave out --port, or leave out --loss to cut the ports")]
    LossOfPorts,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::NodeLocation;

    fn set(names: &[&str]) -> BTreeSet<NodeName> {
        names.iter().map(|name| name.parse().unwrap()).collect()
    }

    fn node(name: &str) -> NodeName {
        name.parse().unwrap()
    }

    fn divided(sides: Vec<BTreeSet<NodeName>>, everyone: &BTreeSet<NodeName>) -> Result<Partition, PartitionError> {
        let shape = Shape::sides(sides)?;
        let name = "p".to_owned();
        let partition = Partition { name, shape, ports: BTreeSet::new(), mode: Mode::Drop, timing: None, since: 0 };
        partition.check(&inventory(everyone)).map(|()| partition)
    }

    fn cuts_at(cut: &Partition, node: &NodeName, peer: &NodeName) -> Vec<(Direction, Traffic, Answer)> {
        cut.drops(cut.cuts(node, peer), cut.cuts(peer, node)).collect()
    }

    fn inventory(everyone: &BTreeSet<NodeName>) -> Inventory {
        let location = |node: &NodeName| NodeLocation {
            agent: format!("unix:/{node}").parse().unwrap(),
            interface: "eth0".parse().unwrap(),
            addresses: Vec::new(),
        };
        Inventory {
            nodes: everyone.iter().map(|node| (node.clone(), location(node))).collect(),
            ..Inventory::default()
        }
    }

    #[test]
    fn nodes_without_a_side_form_one_more_side() {
        let all = set(&["n1", "n2", "n3", "n4"]);
        let cut = divided(vec![set(&["n1"]), set(&["n2"])], &all).unwrap();
        assert!(cut.cuts(&node("n1"), &node("n2")));
        assert!(cut.cuts(&node("n3"), &node("n1")));
        assert!(!cut.cuts(&node("n3"), &node("n4")));
        assert!(!cut.cuts(&node("n1"), &node("n1")));
    }

    #[test]
    fn the_sender_refuses_a_rejected_packet_and_the_receiver_drops_it() {
        let port = Port { protocol: Protocol::Tcp, number: 26257 };
        let cut = divided(vec![set(&["n1"])], &set(&["n1", "n2"])).unwrap();
        let cut = Partition { ports: [port].into(), mode: Mode::Reject, ..cut };
        let cuts = cuts_at(&cut, &node("n1"), &node("n2"));
        let expected = [(Direction::Egress, Answer::Refusal), (Direction::Ingress, Answer::Silence)];
        let expected = expected.into_iter().flat_map(|(direction, answer)| {
            let fragments = Traffic::FragmentsOf { protocol: Protocol::Tcp };
            [Traffic::ToPort { port }, Traffic::FromPort { port }, fragments]
                .map(|traffic| (direction, traffic, answer))
        });
        assert_eq!(cuts, expected.collect::<Vec<_>>());

        let one_way = Partition { shape: Shape::OneWay { from: set(&["n1"]), to: set(&["n2"]) }, ..cut };
        assert!(cuts_at(&one_way, &node("n1"), &node("n2")).iter().all(|(_, _, answer)| *answer == Answer::Refusal));
        assert!(cuts_at(&one_way, &node("n2"), &node("n1")).iter().all(|(_, _, answer)| *answer == Answer::Silence));
    }

    #[test]
    fn a_partition_that_cuts_nothing_is_refused() {
        let all = set(&["n1", "n2"]);
        assert_eq!(divided(vec![all.clone()], &all), Err(PartitionError::CutsNothing));
        assert_eq!(divided(vec![], &all), Err(PartitionError::CutsNothing));
    }

    #[test]
    fn a_partition_with_an_unknown_node_or_a_node_on_two_sides_is_refused() {
        let all = set(&["n1", "n2", "n3"]);
        let twice = divided(vec![set(&["n1", "n2"]), set(&["n2"])], &all);
        assert_eq!(twice, Err(PartitionError::Twice(node("n2"))));
        let unknown = divided(vec![set(&["n9"])], &all);
        assert_eq!(unknown, Err(PartitionError::Unknown(node("n9"))));
    }

    #[test]
    fn a_partial_partition_needs_a_loss_above_zero_and_no_ports() {
        let all = set(&["n1", "n2"]);
        let cut = divided(vec![set(&["n1"])], &all).unwrap();
        let lossy = |percent: &str| Partition { mode: Mode::Loss { loss: percent.parse().unwrap() }, ..cut.clone() };
        assert_eq!(lossy("30%").check(&inventory(&all)), Ok(()));
        assert_eq!(lossy("30%").loss(&node("n1"), &node("n2")), "30%".parse().ok());
        assert_eq!(cut.loss(&node("n1"), &node("n2")), None);
        assert_eq!(lossy("0%").check(&inventory(&all)), Err(PartitionError::LosesNothing));
        let ports = ["tcp/5432".parse().unwrap()].into();
        assert_eq!(Partition { ports, ..lossy("30%") }.check(&inventory(&all)), Err(PartitionError::LossOfPorts));
    }

    #[test]
    fn a_node_on_two_sides_reaches_both_sides() {
        let shape = Shape::Sides { sides: vec![set(&["n1", "n2"]), set(&["n2", "n3"])] };
        let pairs = ["n1", "n2", "n3", "n4"].map(node);
        let parted = |from: &NodeName| pairs.iter().filter(|to| shape.cuts(from, to)).count();
        assert_eq!([0, 1, 2, 3].map(|place| parted(&pairs[place])), [2, 1, 2, 3]);
    }

    #[test]
    fn a_one_way_partition_cuts_only_one_direction() {
        let shape = Shape::OneWay { from: set(&["n1"]), to: set(&["n2", "n3"]) };
        assert!(shape.cuts(&node("n1"), &node("n3")));
        assert!(!shape.cuts(&node("n3"), &node("n1")));
        assert!(!shape.cuts(&node("n2"), &node("n3")));
    }

    #[test]
    fn each_node_of_a_ring_reaches_only_its_neighbours() {
        let order = ["n1", "n2", "n3", "n4", "n5"].map(|name| set(&[name])).to_vec();
        let ring = Shape::Ring { order, reach: 1 };
        let reached = |from: &str| {
            let others =
                ["n1", "n2", "n3", "n4", "n5", "n6"].into_iter().filter(|to| !ring.cuts(&node(from), &node(to)));
            others.collect::<Vec<_>>().join(" ")
        };
        assert_eq!(reached("n1"), "n1 n2 n5");
        assert_eq!(reached("n3"), "n2 n3 n4");
        assert_eq!(reached("n6"), "n6");
    }
}
