//! Draws the sides of random partitions: halves, minorities, bridges, rings. The same seed draws the same sides.
//!
//! The result of a draw is a [`Shape`]. The wanted-state document stores only the shape.

use std::{collections::BTreeSet, fmt};

use thiserror::Error;

use super::{Dice, Shape};
use crate::topology::NodeName;

/// The maximum number of sides of [`Draw::Random`].
const MOST_SIDES: usize = 5;

/// A kind of draw. A draw divides units: nodes or zones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Draw {
    /// Two sides of equal size. With an odd number of units, the second side has one unit more.
    Halves,
    /// Two sides: this number of units, and all other units.
    Minority(usize),
    /// One side: the nodes of this selector. `None`: a random unit.
    Isolate(Option<String>),
    /// Each unit alone.
    IsolateEach,
    /// Two halves that share nodes, the bridge. The bridge is the nodes of this selector; `None`: a random unit.
    Bridge(Option<String>),
    /// A ring in which each unit reaches a different majority of the units.
    Ring,
    /// Two to five sides of random sizes, but at most as many sides as units.
    Random,
}

/// The kind of the units of a draw.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Over {
    /// Nodes.
    #[default]
    Nodes,
    /// Zones.
    Zones,
}

impl Draw {
    /// True if the sides depend on the seed.
    pub fn is_random(&self) -> bool {
        !matches!(self, Self::Isolate(Some(_)) | Self::IsolateEach)
    }

    /// The selector of the isolated nodes or of the bridge, if the user has given a selector.
    pub(super) fn named(&self) -> Option<&str> {
        match self {
            Self::Isolate(word) | Self::Bridge(word) => word.as_deref(),
            _ => None,
        }
    }

    /// The name of the partition. The name consists of the kind and, for a random draw, the seed: `halves-31546`.
    pub(super) fn name(&self, seed: u64) -> String {
        let kind = match self {
            Self::Halves => "halves".to_owned(),
            Self::Minority(number) => format!("minority-{number}"),
            Self::Isolate(None) => "isolate".to_owned(),
            Self::Isolate(Some(word)) => format!("isolate-{word}"),
            Self::IsolateEach => "isolate-each".to_owned(),
            Self::Bridge(None) => "bridge".to_owned(),
            Self::Bridge(Some(word)) => format!("bridge-{word}"),
            Self::Ring => "ring".to_owned(),
            Self::Random => "random".to_owned(),
        };
        if self.is_random() { format!("{kind}-{seed}") } else { kind }
    }

    /// Draws the sides. Each unit is a set of nodes. `named` has the nodes of the selector [`Self::named`].
    pub(super) fn draw(
        &self,
        over: Over,
        mut units: Vec<BTreeSet<NodeName>>,
        named: Option<BTreeSet<NodeName>>,
        seed: u64,
    ) -> Result<Shape, DrawError> {
        let has = units.len();
        let at_least = |needs: usize, option| {
            if has < needs { Err(DrawError::TooFew { option, needs, has, over }) } else { Ok(()) }
        };
        let mut dice = Dice::new(seed);
        dice.shuffle(&mut units);
        match self {
            Self::Halves => {
                at_least(2, "--halves")?;
                let rest = units.split_off(has / 2);
                Ok(Shape::Sides { sides: vec![union(&units), union(&rest)] })
            }
            Self::Minority(number) => {
                at_least(3, "--minority")?;
                if !(1..=(has - 1) / 2).contains(number) {
                    return Err(DrawError::NoMinority { number: *number, has, over });
                }
                let rest = units.split_off(*number);
                Ok(Shape::Sides { sides: vec![union(&units), union(&rest)] })
            }
            Self::Isolate(_) => {
                at_least(1, "--isolate")?;
                Ok(Shape::Sides { sides: vec![named.unwrap_or_else(|| units.swap_remove(0))] })
            }
            Self::IsolateEach => {
                at_least(1, "--isolate-each")?;
                // Sorting undoes the shuffle, so that the result does not depend on the seed.
                units.sort();
                Ok(Shape::Sides { sides: units })
            }
            Self::Bridge(_) => {
                at_least(3, "--bridge")?;
                let bridge = named.unwrap_or_else(|| units.swap_remove(0));
                for unit in &mut units {
                    unit.retain(|node| !bridge.contains(node));
                }
                units.retain(|unit| !unit.is_empty());
                let others = units.len();
                if others < 2 {
                    return Err(DrawError::NothingToBridge { over });
                }
                let rest = units.split_off(others / 2);
                Ok(Shape::Sides { sides: [units, rest].map(|half| &union(&half) | &bridge).into() })
            }
            Self::Ring => {
                at_least(4, "--ring")?;
                // The smallest number of neighbours on each side that gives a majority.
                let reach = (has / 2).div_ceil(2);
                Ok(Shape::Ring { order: units, reach })
            }
            Self::Random => {
                at_least(2, "--random")?;
                let count = 2 + dice.below(has.min(MOST_SIDES) - 1);
                let rest = units.split_off(count);
                for unit in rest {
                    units[dice.below(count)].extend(unit);
                }
                Ok(Shape::Sides { sides: units })
            }
        }
    }
}

fn union(units: &[BTreeSet<NodeName>]) -> BTreeSet<NodeName> {
    units.iter().flatten().cloned().collect()
}

impl fmt::Display for Over {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Nodes => "nodes",
            Self::Zones => "zones",
        })
    }
}

/// An error in a draw.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DrawError {
    /// There are too few units for this kind of draw.
    #[error("{option} needs at least {needs} {over}; there are {has}")]
    TooFew {
        /// The option of the draw.
        option: &'static str,
        /// The minimum number of units.
        needs: usize,
        /// The number of units.
        has: usize,
        /// Nodes or zones.
        over: Over,
    },
    /// The requested minority is zero, or at least half of the units.
    #[error("a minority of {has} {over} has 1 to {} {over}, not {number}", (.has - 1) / 2)]
    NoMinority {
        /// The requested number of units.
        number: usize,
        /// The number of units.
        has: usize,
        /// Nodes or zones.
        over: Over,
    },
    /// The bridge leaves fewer than two units for the halves.
    #[error("a bridge needs at least two {over} that are not on it, one for each half")]
    NothingToBridge {
        /// Nodes or zones.
        over: Over,
    },
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn units(number: usize) -> Vec<BTreeSet<NodeName>> {
        (1..=number).map(|node| BTreeSet::from([format!("n{node}").parse().unwrap()])).collect()
    }

    fn sides(shape: Shape) -> Vec<BTreeSet<NodeName>> {
        match shape {
            Shape::Sides { sides } => sides,
            other => panic!("{other:?}"),
        }
    }

    fn draw(draw: &Draw, number: usize, seed: u64) -> Result<Shape, DrawError> {
        draw.draw(Over::Nodes, units(number), None, seed)
    }

    #[test]
    fn too_few_units_are_an_error() {
        for (kind, least) in
            [(Draw::Halves, 2), (Draw::Minority(1), 3), (Draw::Bridge(None), 3), (Draw::Ring, 4), (Draw::Random, 2)]
        {
            assert!(matches!(draw(&kind, least - 1, 1), Err(DrawError::TooFew { .. })), "{kind:?}");
            assert!(draw(&kind, least, 1).is_ok(), "{kind:?}");
        }
        assert_eq!(
            draw(&Draw::Minority(5), 9, 1).unwrap_err().to_string(),
            "a minority of 9 nodes has 1 to 4 nodes, not 5"
        );
        assert!(draw(&Draw::Minority(0), 9, 1).is_err());
        assert!(draw(&Draw::Minority(2), 4, 1).is_err());
    }

    #[test]
    fn a_named_bridge_is_the_only_common_node_of_the_halves() {
        let named = |nodes: &[&str]| Some(nodes.iter().map(|node| node.parse().unwrap()).collect::<BTreeSet<_>>());
        let bridge = Draw::Bridge(Some("n2".to_owned()));
        let sides = sides(bridge.draw(Over::Nodes, units(5), named(&["n2"]), 1).unwrap());
        assert_eq!(sides.iter().map(BTreeSet::len).collect::<Vec<_>>(), [3, 3]);
        assert_eq!(&sides[0] & &sides[1], named(&["n2"]).unwrap());
        let all_but_one = bridge.draw(Over::Nodes, units(3), named(&["n1", "n2"]), 1);
        assert_eq!(all_but_one, Err(DrawError::NothingToBridge { over: Over::Nodes }));
    }

    #[test]
    fn the_name_of_a_draw_has_the_kind_and_the_seed_of_a_random_draw() {
        assert_eq!(Draw::Minority(2).name(7), "minority-2-7");
        assert_eq!(Draw::Bridge(Some("n4".to_owned())).name(7), "bridge-n4-7");
        assert_eq!(Draw::Isolate(Some("Z3".to_owned())).name(7), "isolate-Z3");
        assert_eq!(Draw::IsolateEach.name(7), "isolate-each");
    }

    fn draws() -> impl Strategy<Value = Draw> {
        prop_oneof![
            Just(Draw::Halves),
            (1..3_usize).prop_map(Draw::Minority),
            Just(Draw::Isolate(None)),
            Just(Draw::IsolateEach),
            Just(Draw::Bridge(None)),
            Just(Draw::Ring),
            Just(Draw::Random),
        ]
    }

    proptest! {
        #[test]
        fn the_same_seed_draws_the_same_sides(kind in draws(), number in 5..40_usize, seed: u64) {
            prop_assert_eq!(draw(&kind, number, seed).unwrap(), draw(&kind, number, seed).unwrap());
        }

        #[test]
        fn each_node_is_on_one_side_and_the_bridge_on_both(kind in draws(), number in 5..40_usize, seed: u64) {
            let Shape::Sides { sides } = draw(&kind, number, seed).unwrap() else { return Ok(()) };
            let expected = match &kind {
                Draw::Isolate(_) => 1,
                Draw::Bridge(_) => number + 1,
                _ => number,
            };
            prop_assert_eq!(sides.iter().map(BTreeSet::len).sum::<usize>(), expected);
            prop_assert!(sides.iter().all(|side| !side.is_empty()));
            let named = sides.iter().flatten().collect::<BTreeSet<_>>().len();
            prop_assert_eq!(named, if matches!(kind, Draw::Isolate(_)) { 1 } else { number });
            let sizes: Vec<usize> = sides.iter().map(BTreeSet::len).collect();
            match &kind {
                Draw::Halves => prop_assert_eq!(sizes, [number / 2, number.div_ceil(2)]),
                Draw::Minority(few) => prop_assert_eq!(sizes, [*few, number - few]),
                Draw::Bridge(_) => prop_assert_eq!((&sides[0] & &sides[1]).len(), 1),
                Draw::IsolateEach => prop_assert_eq!(sizes.len(), number),
                Draw::Random => prop_assert!((2..=MOST_SIDES).contains(&sizes.len())),
                _ => {}
            }
        }

        #[test]
        fn each_node_of_a_drawn_ring_reaches_a_different_majority(number in 4..25_usize, seed: u64) {
            let ring = draw(&Draw::Ring, number, seed).unwrap();
            let sides = ring.side_index();
            let nodes: Vec<NodeName> = units(number).into_iter().flatten().collect();
            let mut seen = BTreeSet::new();
            for from in &nodes {
                let reached: BTreeSet<_> = nodes.iter().filter(|to| !sides.cuts(from, to)).collect();
                prop_assert!(2 * reached.len() > number && reached.len() < number);
                prop_assert!(reached.iter().all(|to| !sides.cuts(to, from)), "reachable in one direction only");
                prop_assert!(seen.insert(reached), "two nodes reach the same majority");
            }
        }
    }
}
