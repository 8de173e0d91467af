//! What `partition` asks for, in its user's words: [`PartitionRequest`]; and the nodes that these words divide.

use std::collections::BTreeSet;

use super::{Draw, EditError, Mode, Over, Partition, PartitionError, Port, Shape, Timing, Wanted};
use crate::topology::NodeName;

/// What `partition` asks for.
#[derive(Clone, Debug)]
pub struct PartitionRequest {
    /// What to call it; `None`: after the sides' words, or after what is drawn.
    pub name: Option<String>,
    /// Who is cut from whom.
    pub division: Division,
    /// Which packets; none: all.
    pub ports: BTreeSet<Port>,
    /// What becomes of them.
    pub mode: Mode,
    /// When; `None`: all the time.
    pub timing: Option<Timing>,
}

/// Who is cut from whom, in words. A word names zones, nodes, hostlists or `*`, separated by commas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Division {
    /// Each word a side.
    Sides(Vec<String>),
    /// Each word a side, and nothing gets from the first to the second, or to the rest if there is no second.
    OneWay(Vec<String>),
    /// Sides that are drawn.
    Drawn {
        /// How.
        draw: Draw,
        /// Nodes by themselves or zones as a whole.
        over: Over,
        /// From among whom; no word: everybody.
        among: Vec<String>,
        /// What the dice start from.
        seed: u64,
    },
}

/// The sides that words on a command line stand for: each word is one, or, if there is a slash among them, all words
/// up to the next slash are.
///
/// `Z1 Z2` are two sides, and so are `Z1,Z2 / Z3,n4` and `Z1 Z2/Z3 n4`.
pub fn sides(words: &[String]) -> Vec<String> {
    if !words.iter().any(|word| word.contains('/')) {
        return words.to_vec();
    }
    let text = words.join(" ");
    text.split('/').map(|side| side.split_whitespace().collect::<Vec<_>>().join(",")).collect()
}

impl PartitionRequest {
    /// A silent partition of all traffic, all the time, under its own name.
    pub fn of(division: Division) -> Self {
        Self { name: None, division, ports: BTreeSet::new(), mode: Mode::Drop, timing: None }
    }

    /// The partition that is asked for, in this document.
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
        partition.check(&everyone(wanted))?;
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
            Self::Sides(words) => Ok(Shape::sides(selected(words, wanted)?)?),
            Self::OneWay(words) => {
                let mut sides = selected(words, wanted)?.into_iter();
                match (sides.next(), sides.next(), sides.next()) {
                    (Some(from), Some(to), None) => Ok(Shape::OneWay { from, to }),
                    (Some(from), None, None) => Ok(Shape::OneWay { to: &everyone(wanted) - &from, from }),
                    _ => Err(PartitionError::OneWaySides(words.len()).into()),
                }
            }
            Self::Drawn { draw, over, among, seed } => {
                let among: BTreeSet<NodeName> = match among.as_slice() {
                    [] => everyone(wanted),
                    words => selected(words, wanted)?.into_iter().flatten().collect(),
                };
                let named = draw.named().map(|word| wanted.select(word)).transpose()?;
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

fn selected(words: &[String], wanted: &Wanted) -> Result<Vec<BTreeSet<NodeName>>, EditError> {
    if words.iter().any(String::is_empty) {
        return Err(PartitionError::EmptySide.into());
    }
    Ok(words.iter().map(|word| wanted.select(word)).collect::<Result<_, _>>()?)
}

fn everyone(wanted: &Wanted) -> BTreeSet<NodeName> {
    wanted.inventory.nodes.keys().cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_sides_and_a_slash_parts_them() {
        let sides = |words: &str| sides(&words.split(' ').map(str::to_owned).collect::<Vec<_>>());
        assert_eq!(sides("Z1 Z2"), ["Z1", "Z2"]);
        assert_eq!(sides("Z1,Z2 / Z3,n4"), ["Z1,Z2", "Z3,n4"]);
        assert_eq!(sides("Z1 Z2/Z3 n4"), ["Z1,Z2", "Z3,n4"]);
        assert_eq!(sides("n[1-2]/n3/n4"), ["n[1-2]", "n3", "n4"]);
        assert_eq!(sides("Z1 /"), ["Z1", ""]);
        assert_eq!(sides("/ /"), ["", "", ""]);
    }
}
