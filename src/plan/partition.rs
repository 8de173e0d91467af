//! A partition: who is cut from whom, which of their packets, and in which way.

use std::collections::{BTreeSet, HashMap};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{
    Answer, Direction, DrawError, Port, Protocol, TimedId, TimedKind, Timing, Traffic,
    name::{MAX_NAME_CHARS, is_name},
};
use crate::topology::{NodeName, Probability};

/// Nodes cut off from each other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
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
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(from = "ShapeForm", into = "ShapeForm")]
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
    /// A circle in which each reaches so many neighbours on either hand. The nodes that it does not name are the rest.
    Ring {
        /// In which order they stand, single nodes or zones.
        order: Vec<BTreeSet<NodeName>>,
        /// How many neighbours on each hand.
        reach: usize,
    },
}

/// What becomes of the packets that are cut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(from = "ModeForm", into = "ModeForm")]
pub enum Mode {
    /// They vanish, as in a cut cable.
    #[default]
    Drop,
    /// They are refused, as by the router next to the sender: TCP is reset, everything else told that its destination
    /// is unreachable, at once.
    Reject,
    /// Some of them vanish.
    Loss(Probability),
}

/// A shape in JSON: an object that says its kind.
#[derive(Clone, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
enum ShapeForm {
    Sides { sides: Vec<BTreeSet<NodeName>> },
    OneWay { from: BTreeSet<NodeName>, to: BTreeSet<NodeName> },
    Ring { order: Vec<BTreeSet<NodeName>>, reach: usize },
}

impl From<ShapeForm> for Shape {
    fn from(form: ShapeForm) -> Self {
        match form {
            ShapeForm::Sides { sides } => Self::Sides(sides),
            ShapeForm::OneWay { from, to } => Self::OneWay { from, to },
            ShapeForm::Ring { order, reach } => Self::Ring { order, reach },
        }
    }
}

impl From<Shape> for ShapeForm {
    fn from(shape: Shape) -> Self {
        match shape {
            Shape::Sides(sides) => Self::Sides { sides },
            Shape::OneWay { from, to } => Self::OneWay { from, to },
            Shape::Ring { order, reach } => Self::Ring { order, reach },
        }
    }
}

/// A mode in JSON.
#[derive(Clone, Copy, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
enum ModeForm {
    Drop,
    Reject,
    Loss { loss: Probability },
}

impl From<ModeForm> for Mode {
    fn from(form: ModeForm) -> Self {
        match form {
            ModeForm::Drop => Self::Drop,
            ModeForm::Reject => Self::Reject,
            ModeForm::Loss { loss } => Self::Loss(loss),
        }
    }
}

impl From<Mode> for ModeForm {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Drop => Self::Drop,
            Mode::Reject => Self::Reject,
            Mode::Loss(loss) => Self::Loss { loss },
        }
    }
}

impl Partition {
    /// Checks that it has a name and cuts something.
    pub fn check(&self, everyone: &BTreeSet<NodeName>) -> Result<(), PartitionError> {
        self.check_alone()?;
        if let Some(unknown) = self.shape.nodes().find(|node| !everyone.contains(*node)) {
            return Err(PartitionError::Unknown(unknown.clone()));
        }
        if let Shape::Sides(sides) = &self.shape {
            let seen: BTreeSet<_> = sides.iter().flatten().collect();
            let named = sides.iter().filter(|side| !side.is_empty()).count();
            let rest = usize::from(seen.len() < everyone.len());
            if named + rest < 2 {
                return Err(PartitionError::CutsNothing);
            }
        }
        Ok(())
    }

    /// Checks the same, whoever else there is. An inventory that loses nodes later may leave no rest.
    pub(super) fn check_alone(&self) -> Result<(), PartitionError> {
        if !is_name(&self.name) {
            return Err(PartitionError::Name(self.name.clone()));
        }
        match self.mode {
            Mode::Loss(probability) if probability == Probability::ZERO => return Err(PartitionError::LosesNothing),
            Mode::Loss(_) if !self.ports.is_empty() => return Err(PartitionError::LossOfPorts),
            _ => {}
        }
        match &self.shape {
            Shape::Sides(_) => {}
            Shape::OneWay { from, to } => {
                if let Some(both) = from.intersection(to).next() {
                    return Err(PartitionError::Twice(both.clone()));
                }
                if from.is_empty() || to.is_empty() {
                    return Err(PartitionError::CutsNothing);
                }
            }
            Shape::Ring { order, reach } => {
                if reach.saturating_mul(2).saturating_add(1) >= order.len() {
                    return Err(PartitionError::CutsNothing);
                }
            }
        }
        Ok(())
    }

    /// Which partition it is, whatever was called so before.
    pub fn id(&self) -> TimedId {
        TimedId { kind: TimedKind::Partition, name: self.name.clone(), since: self.since }
    }

    /// What it is while it is not in force but will be: it cuts nobody from nobody, and the interface stays taken for
    /// it, so that the next turn disturbs nothing and takes no longer than its filters.
    pub(super) fn asleep(&self) -> Self {
        Self { shape: Shape::Sides(Vec::new()), ..self.clone() }
    }

    /// Whether packets from one to the other are cut, or those of its ports.
    pub fn cuts(&self, from: &NodeName, to: &NodeName) -> bool {
        self.shape.parts(from, to)
    }

    /// Whether both cut the same, whenever they came, at no time in particular.
    pub(super) fn repeats(&self, other: &Self) -> bool {
        self.timing.is_none() && Self { since: other.since, ..self.clone() } == *other
    }

    /// Whether it loses some of the packets and drops none for certain.
    pub fn is_partial(&self) -> bool {
        self.lost().is_some()
    }

    /// The share of packets from one node to the other that it loses, on top of what the link loses; `None`: none.
    pub fn loss(&self, from: &NodeName, to: &NodeName) -> Option<Probability> {
        self.lost().filter(|_| self.cuts(from, to))
    }

    /// The share of packets that is lost of those that are cut, if it is a share of them.
    pub(super) fn lost(&self) -> Option<Probability> {
        match self.mode {
            Mode::Loss(probability) => Some(probability),
            Mode::Drop | Mode::Reject => None,
        }
    }

    /// What is dropped at a node's interface of what it exchanges with a peer, and what the sender hears of it.
    ///
    /// A refusal comes from the sender's own node, so that what arrives nevertheless (what was in flight) is dropped in
    /// silence.
    pub fn cuts_at(&self, node: &NodeName, peer: &NodeName) -> impl Iterator<Item = (Direction, Traffic, Answer)> {
        self.drops(self.cuts(node, peer), self.cuts(peer, node))
    }

    /// The same, where it is known which of the two directions are cut.
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
            let ports = self.ports.iter().flat_map(|port| [Traffic::ToPort(*port), Traffic::FromPort(*port)]);
            let protocols: BTreeSet<Protocol> = self.ports.iter().map(|port| port.protocol).collect();
            ports.chain(protocols.into_iter().map(Traffic::FragmentsOf)).collect()
        };
        let both = egress.into_iter().chain(ingress);
        both.flat_map(move |(direction, answer)| {
            traffic.clone().into_iter().map(move |traffic| (direction, traffic, answer))
        })
    }
}

/// Where all nodes of a shape are, to be asked for many pairs: a shape may have as many sides as there are nodes.
pub(super) struct Seats<'a> {
    shape: &'a Shape,
    seats: HashMap<&'a NodeName, Vec<usize>>,
}

impl Seats<'_> {
    /// Whether packets from one node to the other are cut, as [`Shape::parts`].
    pub(super) fn part(&self, from: &NodeName, to: &NodeName) -> bool {
        let seats = |node| self.seats.get(node).map_or(&[][..], Vec::as_slice);
        from != to && self.shape.are_apart(seats(from), seats(to))
    }
}

impl Shape {
    /// Sides that have no node in common.
    pub fn sides(sides: Vec<BTreeSet<NodeName>>) -> Result<Self, PartitionError> {
        let mut seen = BTreeSet::new();
        match sides.iter().flatten().find(|node| !seen.insert(*node)) {
            Some(twice) => Err(PartitionError::Twice(twice.clone())),
            None => Ok(Self::Sides(sides)),
        }
    }

    /// Every node that it names, some of them twice.
    pub fn nodes(&self) -> impl Iterator<Item = &NodeName> {
        self.sets().into_iter().flatten()
    }

    /// Its sides, or the places of its circle.
    fn sets(&self) -> Vec<&BTreeSet<NodeName>> {
        match self {
            Self::Sides(sets) | Self::Ring { order: sets, .. } => sets.iter().collect(),
            Self::OneWay { from, to } => vec![from, to],
        }
    }

    /// Where everybody is, in time that is linear in the number of nodes.
    pub(super) fn seats(&self) -> Seats<'_> {
        let mut seats: HashMap<&NodeName, Vec<usize>> = HashMap::new();
        for (seat, set) in self.sets().into_iter().enumerate() {
            for node in set {
                seats.entry(node).or_default().push(seat);
            }
        }
        Seats { shape: self, seats }
    }

    /// Whether packets from one node to the other are cut. For many pairs see [`Self::seats`].
    pub(super) fn parts(&self, from: &NodeName, to: &NodeName) -> bool {
        let sets = self.sets();
        let seats = |node| -> Vec<usize> { (0..sets.len()).filter(|seat| sets[*seat].contains(node)).collect() };
        from != to && self.are_apart(&seats(from), &seats(to))
    }

    /// Whether packets from one node to another are cut that sit there, the rest nowhere.
    fn are_apart(&self, from: &[usize], to: &[usize]) -> bool {
        match self {
            Self::Sides(_) if from.is_empty() => !to.is_empty(),
            Self::Sides(_) => !from.iter().any(|side| to.contains(side)),
            Self::OneWay { .. } => from.contains(&0) && to.contains(&1),
            Self::Ring { order, reach } => match (from.first(), to.first()) {
                (Some(a), Some(b)) => a.abs_diff(*b).min(order.len() - a.abs_diff(*b)) > *reach,
                // The rest reaches itself and nobody else.
                (None, None) => false,
                _ => true,
            },
        }
    }
}

/// Why a partition cannot be.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum PartitionError {
    /// Not something that `heal` could be given.
    #[error(
        "`{0}` is no name for a partition; choose one of 1 to {MAX_NAME_CHARS} characters without white space, with \
         --name"
    )]
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
    /// A side without a word.
    #[error("a side is empty: name zones or nodes before and behind every /")]
    EmptySide,
    /// Neither from one to another nor from one to the rest.
    #[error("one way is from one side to another, or from one side to the rest; these are {0} sides")]
    OneWaySides(usize),
    /// Zones are to be divided, and there are none.
    #[error("there are no zones to draw from; leave out --over zones, and nodes are drawn")]
    NoZones,
    /// What is to be alone, or the bridge, is not among those that are divided.
    #[error("node {0} is not among those to draw from: name it too, or no side at all")]
    NotAmong(NodeName),
    /// Nothing can be drawn.
    #[error(transparent)]
    Draw(#[from] DrawError),
    /// A partition that loses no packet.
    #[error("a loss of 0% cuts nothing")]
    LosesNothing,
    /// The queue that loses packets does not see ports.
    #[error("packets are lost by link, whatever their port: leave out --loss, and those ports are cut, or --port")]
    LossOfPorts,
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

    fn divided(sides: Vec<BTreeSet<NodeName>>, everyone: &BTreeSet<NodeName>) -> Result<Partition, PartitionError> {
        let shape = Shape::sides(sides)?;
        let name = "p".to_owned();
        let partition = Partition { name, shape, ports: BTreeSet::new(), mode: Mode::Drop, timing: None, since: 0 };
        partition.check(everyone).map(|()| partition)
    }

    #[test]
    fn nodes_outside_every_side_are_one_side_of_their_own() {
        let all = set(&["n1", "n2", "n3", "n4"]);
        let cut = divided(vec![set(&["n1"]), set(&["n2"])], &all).unwrap();
        assert!(cut.cuts(&node("n1"), &node("n2")));
        assert!(cut.cuts(&node("n3"), &node("n1")));
        assert!(!cut.cuts(&node("n3"), &node("n4")));
        assert!(!cut.cuts(&node("n1"), &node("n1")));
    }

    #[test]
    fn what_is_rejected_is_refused_by_its_sender_and_dropped_by_who_receives_it_nevertheless() {
        let port = Port { protocol: Protocol::Tcp, number: 26257 };
        let cut = divided(vec![set(&["n1"])], &set(&["n1", "n2"])).unwrap();
        let cut = Partition { ports: [port].into(), mode: Mode::Reject, ..cut };
        let cuts: Vec<_> = cut.cuts_at(&node("n1"), &node("n2")).collect();
        let expected = [(Direction::Egress, Answer::Refusal), (Direction::Ingress, Answer::Silence)];
        let expected = expected.into_iter().flat_map(|(direction, answer)| {
            let fragments = Traffic::FragmentsOf(Protocol::Tcp);
            [Traffic::ToPort(port), Traffic::FromPort(port), fragments].map(|traffic| (direction, traffic, answer))
        });
        assert_eq!(cuts, expected.collect::<Vec<_>>());

        let one_way = Partition { shape: Shape::OneWay { from: set(&["n1"]), to: set(&["n2"]) }, ..cut };
        assert!(one_way.cuts_at(&node("n1"), &node("n2")).all(|(_, _, answer)| answer == Answer::Refusal));
        assert!(one_way.cuts_at(&node("n2"), &node("n1")).all(|(_, _, answer)| answer == Answer::Silence));
    }

    #[test]
    fn a_partition_that_cuts_nothing_is_refused() {
        let all = set(&["n1", "n2"]);
        assert_eq!(divided(vec![all.clone()], &all), Err(PartitionError::CutsNothing));
        assert_eq!(divided(vec![], &all), Err(PartitionError::CutsNothing));
    }

    #[test]
    fn a_node_on_two_sides_or_unknown_is_refused() {
        let all = set(&["n1", "n2", "n3"]);
        let twice = divided(vec![set(&["n1", "n2"]), set(&["n2"])], &all);
        assert_eq!(twice, Err(PartitionError::Twice(node("n2"))));
        let unknown = divided(vec![set(&["n9"])], &all);
        assert_eq!(unknown, Err(PartitionError::Unknown(node("n9"))));
    }

    #[test]
    fn a_loss_needs_a_share_and_knows_no_ports() {
        let all = set(&["n1", "n2"]);
        let cut = divided(vec![set(&["n1"])], &all).unwrap();
        let lossy = |percent: &str| Partition { mode: Mode::Loss(percent.parse().unwrap()), ..cut.clone() };
        assert_eq!(lossy("30%").check(&all), Ok(()));
        assert_eq!(lossy("30%").loss(&node("n1"), &node("n2")), "30%".parse().ok());
        assert_eq!(cut.loss(&node("n1"), &node("n2")), None);
        assert_eq!(lossy("0%").check(&all), Err(PartitionError::LosesNothing));
        let ports = ["tcp/5432".parse().unwrap()].into();
        assert_eq!(Partition { ports, ..lossy("30%") }.check(&all), Err(PartitionError::LossOfPorts));
    }

    #[test]
    fn a_node_on_two_sides_is_a_bridge() {
        let shape = Shape::Sides(vec![set(&["n1", "n2"]), set(&["n2", "n3"])]);
        let pairs = ["n1", "n2", "n3", "n4"].map(node);
        let parted = |from: &NodeName| pairs.iter().filter(|to| shape.parts(from, to)).count();
        assert_eq!([0, 1, 2, 3].map(|place| parted(&pairs[place])), [2, 1, 2, 3]);
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
        let order = ["n1", "n2", "n3", "n4", "n5"].map(|name| set(&[name])).to_vec();
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
