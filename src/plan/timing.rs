//! When something is in force: from an agreed moment on, for a time, in turns. [`Timing`].
//!
//! Nothing here reads a clock. All nodes have the same document, so they agree on every moment of it.

use std::{
    collections::BTreeSet,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};

use super::Dice;

/// A moment of the wall clock (`CLOCK_REALTIME`), in nanoseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(transparent)]
pub struct Moment(u64);

impl Moment {
    /// So many nanoseconds after 1970 began.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since 1970.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// So much later.
    #[must_use]
    pub fn after(self, time: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)))
    }

    /// The moment in the terms of a clock that this one is so many nanoseconds ahead of.
    #[must_use]
    pub const fn by_a_clock_behind(self, nanos: i64) -> Self {
        Self(self.0.saturating_add_signed(nanos.saturating_neg()))
    }

    /// How long ago `earlier` was, if it was.
    pub fn since(self, earlier: Self) -> Option<Duration> {
        self.0.checked_sub(earlier.0).map(Duration::from_nanos)
    }
}

/// A reading of the wall clock; one before 1970 is taken for 1970.
impl From<SystemTime> for Moment {
    fn from(time: SystemTime) -> Self {
        Self(0).after(time.duration_since(UNIX_EPOCH).unwrap_or_default())
    }
}

/// Names one overlay or partition of the document: made anew under its old name, it is another one, whose time starts
/// anew.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct TimedId {
    /// What it is.
    pub kind: TimedKind,
    /// Its name, which something of the other kind may have as well.
    pub name: String,
    /// The generation of the document in which it came.
    pub since: u64,
}

/// What has a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum TimedKind {
    /// An overlay.
    Overlay,
    /// A partition.
    Partition,
}

/// What of a document is not in force at some instant.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Absent {
    /// What is over for good.
    pub ended: BTreeSet<TimedId>,
    /// What has not begun yet, or is between two turns.
    pub asleep: BTreeSet<TimedId>,
}

/// When something is in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Timing {
    /// From when on, on all nodes at once.
    pub begins: Moment,
    /// For how long; `None`: until it is taken back.
    #[serde(rename = "lasts_ns", with = "super::nanos::option", default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "Option<u64>"))]
    pub lasts: Option<Duration>,
    /// In turns; `None`: all the time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flap: Option<Flap>,
}

/// In force and not in force by turns, beginning in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Flap {
    /// How long it is in force: the link is down.
    #[serde(rename = "down_ns", with = "super::nanos")]
    #[cfg_attr(test, schemars(with = "u64"))]
    pub down: Duration,
    /// How long it is not: the link is up.
    #[serde(rename = "up_ns", with = "super::nanos")]
    #[cfg_attr(test, schemars(with = "u64"))]
    pub up: Duration,
    /// How much each change may come early or late, in percent of the shorter of the two; at most 50.
    pub spread: u8,
    /// What the dice start from, so that all nodes throw the same.
    pub seed: u64,
}

/// What is so at some moment, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Phase {
    /// Whether it is in force.
    pub is_on: bool,
    /// When that changes, counted from the beginning; `None`: never.
    pub until: Option<Duration>,
}

impl Timing {
    /// What is so at this time after the beginning. (Before the beginning it is off, which is the caller's to know.)
    pub fn phase(&self, elapsed: Duration) -> Phase {
        if self.is_over(elapsed) {
            return Phase { is_on: false, until: None };
        }
        let phase = self.flap.map_or(Phase { is_on: true, until: None }, |flap| flap.phase(elapsed));
        let until = match (phase.until, self.lasts) {
            (Some(change), Some(end)) => Some(change.min(end)),
            (change, end) => change.or(end),
        };
        Phase { until, ..phase }
    }

    /// Whether it is over for good at this time after the beginning.
    pub fn is_over(&self, elapsed: Duration) -> bool {
        self.lasts.is_some_and(|lasts| elapsed >= lasts)
    }
}

impl Flap {
    fn phase(&self, elapsed: Duration) -> Phase {
        let cycle = self.down.saturating_add(self.up).as_nanos().max(1);
        // A change is at most half of the shorter turn off, so the neighbours of the nominal change are enough.
        let nominal = 2 * u64::try_from(elapsed.as_nanos() / cycle).unwrap_or(u64::MAX / 2);
        let changes = nominal.saturating_sub(1)..nominal.saturating_add(4);
        let next = changes.clone().find(|change| self.change(*change) > elapsed).unwrap_or(changes.end);
        Phase { is_on: next % 2 == 1, until: Some(self.change(next)) }
    }

    /// When the change of this number comes; the even ones are when it goes down. The first is at the beginning.
    fn change(&self, number: u64) -> Duration {
        let cycle = u32::try_from(number / 2).unwrap_or(u32::MAX);
        let turn = if number % 2 == 1 { self.down } else { Duration::ZERO };
        let base = self.down.saturating_add(self.up).saturating_mul(cycle).saturating_add(turn);
        if number == 0 {
            return base;
        }
        let room = self.down.min(self.up).mul_f64(f64::from(self.spread.min(50)) / 100.0);
        // From half of the room early to half of it late.
        let early_or_late = room.mul_f64(Dice::after(self.seed, number).roll());
        base.saturating_add(early_or_late).saturating_sub(room / 2)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BEGINS: Moment = Moment::from_nanos(0);

    fn seconds(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    #[test]
    fn what_has_no_end_is_on_for_good() {
        let timing = Timing { begins: BEGINS, lasts: None, flap: None };
        assert_eq!(timing.phase(seconds(1e6)), Phase { is_on: true, until: None });
    }

    #[test]
    fn what_lasts_for_a_time_is_over_then() {
        let timing = Timing { begins: BEGINS, lasts: Some(seconds(30.0)), flap: None };
        assert_eq!(timing.phase(seconds(29.9)), Phase { is_on: true, until: Some(seconds(30.0)) });
        assert_eq!(timing.phase(seconds(30.0)), Phase { is_on: false, until: None });
        assert!(timing.is_over(seconds(30.0)) && !timing.is_over(seconds(29.9)));
    }

    #[test]
    fn a_flap_goes_down_and_up_by_turns_until_its_end() {
        let flap = Flap { down: seconds(5.0), up: seconds(10.0), spread: 0, seed: 1 };
        let timing = Timing { begins: BEGINS, lasts: Some(seconds(32.0)), flap: Some(flap) };
        let at = |now| timing.phase(seconds(now));
        assert_eq!(at(0.0), Phase { is_on: true, until: Some(seconds(5.0)) });
        assert_eq!(at(4.9), Phase { is_on: true, until: Some(seconds(5.0)) });
        assert_eq!(at(5.0), Phase { is_on: false, until: Some(seconds(15.0)) });
        assert_eq!(at(15.0), Phase { is_on: true, until: Some(seconds(20.0)) });
        assert_eq!(at(30.0), Phase { is_on: true, until: Some(seconds(32.0)) });
        assert_eq!(at(32.0), Phase { is_on: false, until: None });
    }

    proptest! {
        #[test]
        fn each_phase_ends_where_the_next_one_begins(
            down in 1..5_000_u64, up in 1..5_000_u64, spread in 0..=50_u8, seed: u64, from in 0..1_000_000_u64,
        ) {
            let flap = Flap { down: Duration::from_millis(down), up: Duration::from_millis(up), spread, seed };
            let mut now = Duration::from_millis(from);
            let mut is_on = flap.phase(now).is_on;
            for _ in 0..20 {
                let Phase { until: Some(until), .. } = flap.phase(now) else { panic!("a flap never ends") };
                prop_assert!(until > now);
                prop_assert_eq!(flap.phase(until.saturating_sub(Duration::from_nanos(1))).is_on, is_on);
                now = until;
                is_on = !is_on;
                prop_assert_eq!(flap.phase(now).is_on, is_on);
            }
        }
    }
}
