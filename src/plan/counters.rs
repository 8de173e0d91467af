//! What the kernel has counted on one interface: [`Counters`].

use std::{
    collections::BTreeMap,
    ops::{Add, Sub},
};

use serde::{Deserialize, Serialize};

use super::{ClassMinor, Cut, Profile};
use crate::topology::LossModel;

/// How many standard deviations chance may be off: beyond, one count in 30,000 would be.
const SIGMAS: f64 = 4.0;

/// Packets and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Tally {
    /// How many packets, each segment of a large one counted.
    pub packets: u64,
    /// Their bytes, headers included.
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

    /// What came since; nothing, where the kernel has begun to count anew.
    fn sub(self, earlier: Self) -> Self {
        Self { packets: self.packets.saturating_sub(earlier.packets), bytes: self.bytes.saturating_sub(earlier.bytes) }
    }
}

/// What became of the packets of one leaf, since its class was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeafCount {
    /// What left it.
    pub sent: Tally,
    /// How many packets it dropped, large ones counted once.
    pub dropped: u64,
}

/// The kernel's counters of one interface, as far as they are of ours.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Of each class with a leaf.
    pub leaves: BTreeMap<ClassMinor, LeafCount>,
    /// What each filter of a cut dropped, since it was written.
    pub cuts: BTreeMap<Cut, Tally>,
}

impl Counters {
    /// What these cuts have dropped together; `None`: none of them is there.
    pub fn cut(&self, cuts: impl IntoIterator<Item = Cut>) -> Option<Tally> {
        cuts.into_iter().filter_map(|cut| self.cuts.get(&cut).copied()).reduce(Tally::add)
    }
}

impl Profile {
    /// How many of the packets that its leaf dropped did not fit into the queue, at the least; `None`: that cannot be
    /// told.
    ///
    /// netem counts what it loses as asked and what does not fit in one number. Without a loss, all are what did not fit.
    /// With one that chooses each packet by itself, those are that chance cannot have lost. Losses in bursts, and packets
    /// that are marked instead, are not told apart.
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

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the cast saturates, which is meant")]
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
        Profile::of(&change.over(Link::LAN), LineRate::UNKNOWN).unwrap()
    }

    #[test]
    fn without_a_loss_all_that_is_dropped_did_not_fit() {
        assert_eq!(profile("delay = '10ms'").overflowed(0, 0), Some(0));
        assert_eq!(profile("delay = '10ms'").overflowed(90, 7), Some(7));
    }

    #[test]
    fn with_a_loss_what_chance_may_lose_is_not_called_too_much() {
        let lossy = profile("loss = '10%'");
        assert_eq!(lossy.overflowed(900, 100), Some(0));
        assert_eq!(lossy.overflowed(870, 130), Some(0), "three standard deviations");
        let far_too_many = lossy.overflowed(1_000, 1_000).unwrap();
        assert!((740..800).contains(&far_too_many), "{far_too_many}");
        assert_eq!(profile("loss = '100%'").overflowed(0, 1_000), Some(0));
    }

    #[test]
    fn losses_in_bursts_are_not_told_from_what_does_not_fit() {
        for loss in ["{ gemodel = { p = '1%', r = '10%' } }", "{ probability = '1%', ecn = true }"] {
            assert_eq!(profile(&format!("loss = {loss}")).overflowed(1_000, 500), None, "{loss}");
        }
    }

    #[test]
    fn what_is_not_there_is_not_nothing() {
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
        assert_eq!(tally(3) - tally(5), tally(0), "a filter that was made anew counts from nothing");
    }
}
