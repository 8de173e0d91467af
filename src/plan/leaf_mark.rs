//! The parameters of a netem leaf that the kernel does not show, encoded in the class above the leaf.
//!
//! The kernel does not show distribution tables. It shows a seed also if it drew the seed itself. So the htb class of a leaf
//! encodes both in its `burst` and `cburst`. Large bursts have no effect at the class's rate.

use super::{
    Profile,
    tc_numbers::{BURST, CLASS_RATE},
};
use crate::topology::{Distribution, Spacing, TableId};

/// The bytes that a class sends in a microsecond.
const BYTES_PER_MICROSECOND: u64 = CLASS_RATE / 1_000_000;

/// The number of the first custom table. Lower numbers are the built-in distributions.
const FIRST_TABLE: u32 = 4;

/// The parameters of a leaf that the kernel does not show.
///
/// A leaf is changed in place only to a profile with the same mark, because the kernel keeps the tables and the class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeafMark {
    /// The distribution of the delay. Uniform without jitter.
    pub delay: Distribution,
    /// The distribution of the time between slots. Uniform without slots.
    pub slot: Distribution,
    /// True if the profile has a seed.
    pub seeded: bool,
}

impl LeafMark {
    /// The `burst` and `cburst` of the class, in microseconds at the class's rate, as `tc` computes them.
    ///
    /// Both are 838 µs (10 MB) plus a number. `burst` has the number of the delay's distribution. `cburst` has twice the
    /// number of the slots' distribution, plus 1 for a seed.
    pub fn bursts(self) -> [u32; 2] {
        self.numbers().map(|number| u32::try_from(BURST / BYTES_PER_MICROSECOND).unwrap_or(u32::MAX) + number)
    }

    /// The same in bytes, for the command line of `tc`. Some releases of `tc` read at most 4 GiB, which only custom tables
    /// exceed.
    pub fn burst_bytes(self) -> [u64; 2] {
        self.numbers().map(|number| BURST + u64::from(number) * BYTES_PER_MICROSECOND)
    }

    /// The mark in two bursts. `None`: no class of ours has these bursts.
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
    /// The parameters that the kernel does not show.
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
