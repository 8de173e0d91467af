//! Encodes parameters of a netem leaf in the bursts of the class above the leaf ([`LeafMark`]).
//!
//! The kernel does not show the distribution tables of a leaf. The kernel always shows a seed, also a seed that the
//! kernel itself drew. So netemctl encodes the distributions and the presence of a configured seed in the `burst` and
//! `cburst` of the htb class. Larger bursts do not delay packets.

use super::{
    Profile,
    tc_numbers::{BURST, CLASS_RATE},
};
use crate::topology::{Distribution, Spacing, TableId};

/// The number of bytes that a class sends in a microsecond.
const BYTES_PER_MICROSECOND: u64 = CLASS_RATE / 1_000_000;

/// The number of the first custom table. The built-in distributions have lower numbers.
const FIRST_TABLE: u32 = 4;

/// The mark of a leaf: the parameters that the kernel does not show.
///
/// An in-place change of a leaf keeps the distribution tables of the leaf and the bursts of the class. So the new
/// profile must have the same mark.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeafMark {
    /// The distribution of the delay. A leaf without jitter has the uniform distribution.
    pub delay: Distribution,
    /// The distribution of the time between slots. A leaf without slots has the uniform distribution.
    pub slot: Distribution,
    /// True if the profile has a seed. Without a seed in the profile, the kernel draws the seed.
    pub seeded: bool,
}

impl LeafMark {
    /// The `burst` and `cburst` of the class, in microseconds at the rate of the class.
    ///
    /// `tc` computes the same values from [`burst_bytes`](Self::burst_bytes).
    ///
    /// Each value is 838 µs (10 MiB) plus an offset. The offset of `burst` is the number of the delay distribution. The
    /// offset of `cburst` is twice the number of the slot distribution, plus 1 for a seed.
    pub fn bursts(self) -> [u32; 2] {
        self.numbers().map(|number| u32::try_from(BURST / BYTES_PER_MICROSECOND).unwrap_or(u32::MAX) + number)
    }

    /// The `burst` and `cburst` in bytes, for the command line of `tc`.
    ///
    /// Some releases of `tc` accept at most 4 GiB. Only marks of custom tables can exceed this limit.
    pub fn burst_bytes(self) -> [u64; 2] {
        self.numbers().map(|number| BURST + u64::from(number) * BYTES_PER_MICROSECOND)
    }

    /// Decodes the mark from `burst` and `cburst`. `None`: no class of netemctl has these bursts.
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
    /// The mark of a leaf with this profile.
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
    fn the_default_mark_is_a_burst_of_10_mib() {
        assert_eq!(LeafMark::default().bursts(), [838, 838]);
        assert_eq!(LeafMark::default().burst_bytes(), [10_485_760; 2]);
    }

    proptest! {
        #[test]
        fn bursts_decode_to_the_same_mark(delay in 0..4 + (1_u32 << 24), slot in 0..4 + (1_u32 << 24), seeded: bool) {
            let mark = LeafMark { delay: distribution(delay).unwrap(), slot: distribution(slot).unwrap(), seeded };
            prop_assert_eq!(LeafMark::from_bursts(mark.bursts()), Some(mark));
            // tc converts bytes at 12.5 GB/s to whole microseconds.
            prop_assert_eq!(mark.burst_bytes().map(|bytes| bytes / 12_500), mark.bursts().map(u64::from));
        }

        #[test]
        fn bursts_of_foreign_classes_are_no_mark(bursts: [u32; 2]) {
            prop_assert_eq!(LeafMark::from_bursts(bursts).is_none_or(|mark| mark.bursts() == bursts), true);
            prop_assert_eq!(LeafMark::from_bursts([bursts[0] % 838, 838]), None);
        }
    }
}
