//! What a kernel never shows of a netem leaf, and how the class above it says it.
//!
//! The kernel takes distribution tables and never gives them back, and it shows a seed whether it was given one or drew
//! one. So that what is read back is what was written, the htb class of a leaf carries a mark in its `burst` and its
//! `cburst`, which have no effect at the class's rate beyond being large enough.

use super::{
    Profile,
    tc_numbers::{BURST, CLASS_RATE},
};
use crate::topology::{Distribution, Spacing, TableId};

/// The bytes that a class sends in a microsecond.
const BYTES_PER_MICROSECOND: u64 = CLASS_RATE / 1_000_000;

/// The number of the first table of the user's own; the ones before are the uniform distribution and those of `tc`.
const FIRST_TABLE: u32 = 4;

/// What a kernel does not show of a leaf.
///
/// A leaf is changed in place only to a profile with the same mark: the kernel keeps the tables that it has, and the
/// class stays as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeafMark {
    /// How the delay is distributed; of a leaf without jitter, uniformly.
    pub delay: Distribution,
    /// How the time between slots is distributed; of a leaf without slots, uniformly.
    pub slot: Distribution,
    /// Whether the leaf was given a seed.
    pub seeded: bool,
}

impl LeafMark {
    /// The `burst` and `cburst` of the class, in whole microseconds at the class's rate, as `tc` computes them.
    ///
    /// 838 µs, which are 10 MB, and the mark: of the delay's distribution in `burst`; of the slots', doubled, and one
    /// for a seed in `cburst`.
    pub fn bursts(self) -> [u32; 2] {
        // As much as a table's number can be, it is far from overflowing.
        self.numbers().map(|number| u32::try_from(BURST / BYTES_PER_MICROSECOND).unwrap_or(u32::MAX) + number)
    }

    /// The same in bytes, for the command line of `tc`. (Some releases of `tc` read no more than 4 GiB, which only
    /// tables of the user's own exceed.)
    pub fn burst_bytes(self) -> [u64; 2] {
        self.numbers().map(|number| BURST + u64::from(number) * BYTES_PER_MICROSECOND)
    }

    /// The mark that says itself in these two bursts; none if no class of ours has them.
    pub fn from_bursts(bursts: [u32; 2]) -> Option<Self> {
        let [delay, slot] = bursts.map(|burst| u64::from(burst).checked_sub(BURST / BYTES_PER_MICROSECOND));
        let [delay, slot] = [u32::try_from(delay?).ok()?, u32::try_from(slot?).ok()?];
        Some(Self { delay: distribution(delay)?, slot: distribution(slot / 2)?, seeded: slot % 2 == 1 })
    }

    fn numbers(self) -> [u32; 2] {
        [number(self.delay), 2 * number(self.slot) + u32::from(self.seeded)]
    }
}

impl Profile {
    /// What the kernel will not show of it.
    pub fn mark(&self) -> LeafMark {
        let slot = match self.slot.map(|slot| slot.spacing) {
            Some(Spacing::Distributed { distribution, .. }) => distribution,
            Some(Spacing::Range { .. }) | None => Distribution::Uniform,
        };
        let delay = self.jitter.map(|jitter| jitter.distribution).unwrap_or_default();
        LeafMark { delay, slot, seeded: self.seed.is_some() }
    }
}

fn number(distribution: Distribution) -> u32 {
    match distribution {
        Distribution::Uniform => 0,
        Distribution::Normal => 1,
        Distribution::Pareto => 2,
        Distribution::ParetoNormal => 3,
        Distribution::Table(id) => FIRST_TABLE + id.number(),
    }
}

fn distribution(number: u32) -> Option<Distribution> {
    Some(match number {
        0 => Distribution::Uniform,
        1 => Distribution::Normal,
        2 => Distribution::Pareto,
        3 => Distribution::ParetoNormal,
        _ => {
            let id = TableId::new(number - FIRST_TABLE);
            return (FIRST_TABLE + id.number() == number).then_some(Distribution::Table(id));
        }
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_leaf_that_hides_nothing_has_the_burst_of_ten_megabytes() {
        assert_eq!(LeafMark::default().bursts(), [838, 838]);
        assert_eq!(LeafMark::default().burst_bytes(), [10_485_760; 2]);
    }

    proptest! {
        #[test]
        fn every_mark_survives_its_bursts(delay in 0..4 + (1_u32 << 24), slot in 0..4 + (1_u32 << 24), seeded: bool) {
            let mark = LeafMark { delay: distribution(delay).unwrap(), slot: distribution(slot).unwrap(), seeded };
            prop_assert_eq!(LeafMark::from_bursts(mark.bursts()), Some(mark));
            // As tc computes it: bytes at 12.5 GB/s, in whole microseconds.
            prop_assert_eq!(mark.burst_bytes().map(|bytes| bytes / 12_500), mark.bursts().map(u64::from));
        }

        #[test]
        fn bursts_that_no_class_of_ours_has_are_no_mark(bursts: [u32; 2]) {
            prop_assert_eq!(LeafMark::from_bursts(bursts).is_none_or(|mark| mark.bursts() == bursts), true);
            prop_assert_eq!(LeafMark::from_bursts([bursts[0] % 838, 838]), None);
        }
    }
}
