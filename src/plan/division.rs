//! Turns a request of the command `partition` ([`PartitionRequest`]) into a partition of a document.
//!
//! A request has the selectors of the command line. A partition has the nodes.

use std::collections::BTreeSet;

use super::{Draw, EditError, Mode, Over, Partition, PartitionError, Port, Shape, Timing, Wanted};
use crate::topology::NodeName;

/// A request for a partition.
#[derive(Clone, Debug)]
pub struct PartitionRequest {
    /// The name. `None`: a name is made from the selectors of the sides, or from a random division's kind and seed.
    pub name: Option<String>,
    /// The division of the nodes.
    pub division: Division,
    /// The ports whose packets are cut. An empty set means all packets.
    pub ports: BTreeSet<Port>,
    /// The effect on the packets.
    pub mode: Mode,
    /// The times at which the partition is in force. `None`: from the commit until `heal`.
    pub timing: Option<Timing>,
}

/// A division of the nodes. A selector lists zones, nodes, hostlists or `*`, separated by commas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Division {
    /// One selector for each side.
    Sides(Vec<String>),
    /// The selector of the senders and the selector of the receivers.
    ///
    /// If only the selector of the senders is present, all other nodes are receivers.
    OneWay(Vec<String>),
    /// Random sides.
    Drawn {
        /// The kind of the draw.
        draw: Draw,
        /// The units of the draw: nodes or zones.
        over: Over,
        /// The selectors of the nodes to draw from. An empty list means all nodes.
        among: Vec<String>,
        /// The seed. The same seed gives the same sides.
        seed: u64,
    },
}

/// The selectors of the sides in command-line arguments.
///
/// If no argument has a slash, each argument is a side. Otherwise slashes separate the sides. So `Z1 Z2`,
/// `Z1,Z2 / Z3,n4` and `Z1 Z2/Z3 n4` have two sides each.
pub fn sides(arguments: &[String]) -> Vec<String> {
    if !arguments.iter().any(|argument| argument.contains('/')) {
        return arguments.to_vec();
    }
    let text = arguments.join(" ");
    text.split('/').map(|side| side.split_whitespace().collect::<Vec<_>>().join(",")).collect()
}

impl PartitionRequest {
    /// A request for a partition that drops all packets and has no end.
    pub fn of(division: Division) -> Self {
        Self { name: None, division, ports: BTreeSet::new(), mode: Mode::Drop, timing: None }
    }

    /// The requested partition, for the nodes and zones of a document.
    pub(super) fn partition(self, wanted: &Wanted) -> Result<Partition, EditError> {
        let Self { name, division, ports, mode, timing } = self;
        let partition = Partition {
            name: name.unwrap_or_else(|| division.name()),
            shape: division.shape(wanted)?,
            ports,
            mode,
            timing,
            since: wanted.generation + 1,
        };
        partition.check(&wanted.inventory)?;
        Ok(partition)
    }
}

impl Division {
    fn name(&self) -> String {
        match self {
            Self::Sides(sides) | Self::OneWay(sides) => sides.join("/"),
            Self::Drawn { draw, seed, .. } => draw.name(*seed),
        }
    }

    fn shape(&self, wanted: &Wanted) -> Result<Shape, EditError> {
        match self {
            Self::Sides(selectors) => Ok(Shape::sides(selected(selectors, wanted)?)?),
            Self::OneWay(selectors) => {
                let mut sides = selected(selectors, wanted)?.into_iter();
                match (sides.next(), sides.next(), sides.next()) {
                    (Some(from), Some(to), None) => Ok(Shape::OneWay { from, to }),
                    (Some(from), None, None) => Ok(Shape::OneWay { to: &everyone(wanted) - &from, from }),
                    _ => Err(PartitionError::OneWaySides(selectors.len()).into()),
                }
            }
            Self::Drawn { draw, over, among, seed } => {
                let among: BTreeSet<NodeName> = match among.as_slice() {
                    [] => everyone(wanted),
                    selectors => selected(selectors, wanted)?.into_iter().flatten().collect(),
                };
                let named = draw.named().map(|selector| wanted.select(selector)).transpose()?;
                if let Some(other) = named.iter().flatten().find(|node| !among.contains(*node)) {
                    return Err(PartitionError::NotAmong(other.clone()).into());
                }
                let units: Vec<BTreeSet<NodeName>> = match over {
                    Over::Nodes => among.into_iter().map(|node| BTreeSet::from([node])).collect(),
                    Over::Zones => {
                        let zones = wanted.zones();
                        if zones.is_empty() {
                            return Err(PartitionError::NoZones.into());
                        }
                        let members = zones.values().map(|nodes| nodes.iter().cloned().collect());
                        members.map(|zone: BTreeSet<_>| &zone & &among).filter(|zone| !zone.is_empty()).collect()
                    }
                };
                Ok(draw.draw(*over, units, named, *seed).map_err(PartitionError::from)?)
            }
        }
    }
}

fn selected(selectors: &[String], wanted: &Wanted) -> Result<Vec<BTreeSet<NodeName>>, EditError> {
    if selectors.iter().any(String::is_empty) {
        return Err(PartitionError::EmptySide.into());
    }
    Ok(selectors.iter().map(|selector| wanted.select(selector)).collect::<Result<_, _>>()?)
}

fn everyone(wanted: &Wanted) -> BTreeSet<NodeName> {
    wanted.inventory.nodes.keys().cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_argument_is_a_side_unless_slashes_separate_the_sides() {
        let sides = |words: &str| sides(&words.split(' ').map(str::to_owned).collect::<Vec<_>>());
        assert_eq!(sides("Z1 Z2"), ["Z1", "Z2"]);
        assert_eq!(sides("Z1,Z2 / Z3,n4"), ["Z1,Z2", "Z3,n4"]);
        assert_eq!(sides("Z1 Z2/Z3 n4"), ["Z1,Z2", "Z3,n4"]);
        assert_eq!(sides("n[1-2]/n3/n4"), ["n[1-2]", "n3", "n4"]);
        assert_eq!(sides("Z1 /"), ["Z1", ""]);
        assert_eq!(sides("/ /"), ["", "", ""]);
    }
}
