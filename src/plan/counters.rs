//! Holds the kernel's packet counters of one interface ([`Counters`]) and estimates overflows of queues.

use std::{
    collections::BTreeMap,
    ops::{Add, Sub},
};

use serde::{Deserialize, Serialize};

use super::{ClassMinor, Cut, Profile};
use crate::topology::LossModel;

/// The tolerance for the number of random losses, in standard deviations. If many losses are expected, random losses
/// exceed the tolerance in about one of 30,000 comparisons. If one loss is expected, in about one of 2,000.
const SIGMAS: f64 = 4.0;

/// A number of packets and the number of their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Tally {
    /// The number of packets. Each segment of a large packet (GSO) counts.
    pub packets: u64,
    /// The number of bytes, with headers.
    pub bytes: u64,
}

impl Add for Tally {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { packets: self.packets + other.packets, bytes: self.bytes + other.bytes }
    }
}

impl Sub for Tally {
    type Output = Self;

    /// The packets and bytes since an earlier count. A counter below its earlier count gives 0: the kernel has
    /// restarted the counter.
    fn sub(self, earlier: Self) -> Self {
        Self { packets: self.packets.saturating_sub(earlier.packets), bytes: self.bytes.saturating_sub(earlier.bytes) }
    }
}

/// The counters of a leaf since its class was added.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeafCount {
    /// The packets that have left the leaf.
    pub sent: Tally,
    /// The number of dropped packets. A large packet (GSO) counts once.
    pub dropped: u64,
}

/// The counters of our objects on one interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// The counters of each class with a leaf.
    pub leaves: BTreeMap<ClassMinor, LeafCount>,
    /// The packets that each cut has dropped since its filter was added.
    pub cuts: BTreeMap<Cut, Tally>,
}

impl Counters {
    /// The sum of the packets that these cuts have dropped. `None`: the interface has none of the cuts.
    pub fn cut(&self, cuts: impl IntoIterator<Item = Cut>) -> Option<Tally> {
        cuts.into_iter().filter_map(|cut| self.cuts.get(&cut).copied()).reduce(Tally::add)
    }
}

impl Profile {
    /// The minimum number of packets that were dropped because the queue was full. `None`: unknown.
    ///
    /// netem has one counter for configured losses and for overflows. Without a configured loss, all drops are
    /// overflows. With a random loss without correlation, drops beyond the tolerance are overflows. With a correlation,
    /// another loss model or ECN, the number of overflows is unknown.
    pub fn overflowed(&self, sent: u64, dropped: u64) -> Option<u64> {
        let Some(loss) = self.loss else { return Some(dropped) };
        let share = match loss.model {
            LossModel::Random(chance) if chance.correlation.share() == 0.0 && !loss.ecn => chance.probability.share(),
            _ => return None,
        };
        let expected = (sent + dropped) as f64 * share;
        let by_chance = expected + SIGMAS * (expected * (1.0 - share)).sqrt();
        Some(dropped.saturating_sub(to_count(by_chance.ceil())))
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the cast saturates, as intended")]
fn to_count(value: f64) -> u64 {
    value as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        plan::{Answer, Direction, LineRate, Traffic},
        topology::{Link, LinkChange, Source},
    };

    fn profile(change: &str) -> Profile {
        let change = LinkChange::parse(Source::new("test", change), false).unwrap();
        Profile::of(&change.over(Link::default()), LineRate::UNKNOWN).unwrap()
    }

    #[test]
    fn without_a_configured_loss_all_drops_are_overflows() {
        assert_eq!(profile("delay = '10ms'").overflowed(0, 0), Some(0));
        assert_eq!(profile("delay = '10ms'").overflowed(90, 7), Some(7));
    }

    #[test]
    fn with_a_configured_loss_only_drops_beyond_the_tolerance_are_overflows() {
        let lossy = profile("loss = '10%'");
        assert_eq!(lossy.overflowed(900, 100), Some(0));
        assert_eq!(lossy.overflowed(870, 130), Some(0), "three standard deviations");
        let far_too_many = lossy.overflowed(1_000, 1_000).unwrap();
        assert!((740..800).contains(&far_too_many), "{far_too_many}");
        assert_eq!(profile("loss = '100%'").overflowed(0, 1_000), Some(0));
    }

    #[test]
    fn with_a_loss_in_bursts_or_ecn_the_overflows_are_unknown() {
        for loss in ["{ gemodel = { p = '1%', r = '10%' } }", "{ probability = '1%', ecn = true }"] {
            assert_eq!(profile(&format!("loss = {loss}")).overflowed(1_000, 500), None, "{loss}");
        }
    }

    #[test]
    fn the_sum_of_absent_cuts_is_none_and_the_sum_of_unused_cuts_is_zero() {
        let cut = |last: u8| Cut {
            direction: Direction::Egress,
            address: [10, 0, 0, last].into(),
            traffic: Traffic::All,
            answer: Answer::Silence,
        };
        let tally = |packets| Tally { packets, bytes: 0 };
        let counters = Counters { cuts: [(cut(1), tally(0)), (cut(2), tally(3))].into(), ..Counters::default() };
        assert_eq!(counters.cut([cut(1)]), Some(tally(0)));
        assert_eq!(counters.cut([cut(1), cut(2), cut(3)]), Some(tally(3)));
        assert_eq!(counters.cut([cut(3)]), None);
        assert_eq!(tally(3) - tally(5), tally(0), "a new filter counts from zero");
    }
}
