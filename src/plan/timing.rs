//! The start, duration and flap of a partition: [`Timing`].
//!
//! No function here reads a clock. All nodes have the same document, so all nodes compute the same times.

use std::{
    collections::BTreeSet,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};

use super::Dice;

/// A moment of `CLOCK_REALTIME` in nanoseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(transparent)]
pub struct Moment(u64);

impl Moment {
    /// The moment at this many nanoseconds since 1970.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since 1970.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// The moment that is `time` later.
    #[must_use]
    pub fn after(self, time: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)))
    }

    /// The time that another clock shows at this moment, if the other clock is `nanos` nanoseconds behind.
    #[must_use]
    pub const fn on_clock_behind_by(self, nanos: i64) -> Self {
        Self(self.0.saturating_add_signed(nanos.saturating_neg()))
    }

    /// The time since an earlier moment. `None`: the other moment is later.
    pub fn since(self, earlier: Self) -> Option<Duration> {
        self.0.checked_sub(earlier.0).map(Duration::from_nanos)
    }
}

/// Times before 1970 become 1970.
impl From<SystemTime> for Moment {
    fn from(time: SystemTime) -> Self {
        Self(0).after(time.duration_since(UNIX_EPOCH).unwrap_or_default())
    }
}

/// The identity of an overlay or partition. A later overlay or partition of the same name has another identity and its
/// own times.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct TimedId {
    /// The kind.
    pub kind: TimedKind,
    /// The name, unique for the kind.
    pub name: String,
    /// The generation of the document that added it.
    pub since: u64,
}

/// The kind of a timed change: overlay or partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum TimedKind {
    /// An overlay.
    Overlay,
    /// A partition.
    Partition,
}

/// The parts (overlays and partitions) of a document that are not in force at some moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Absent {
    /// The parts that have ended.
    pub ended: BTreeSet<TimedId>,
    /// The parts that have not started, and the partitions whose flap has the link up.
    #[serde(rename = "asleep")]
    pub inactive: BTreeSet<TimedId>,
}

/// The times of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Timing {
    /// The start, on all nodes.
    pub begins: Moment,
    /// The duration. `None`: until `heal`.
    #[serde(rename = "lasts_ns", with = "super::nanos::option", default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "Option<u64>"))]
    pub lasts: Option<Duration>,
    /// The flap. `None`: in force without interruption.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flap: Option<Flap>,
}

/// The partition alternates between in force and not in force. The partition starts in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Flap {
    /// The duration in force: the link is down.
    #[serde(rename = "down_ns", with = "super::nanos")]
    #[cfg_attr(test, schemars(with = "u64"))]
    pub down: Duration,
    /// The duration not in force: the link is up.
    #[serde(rename = "up_ns", with = "super::nanos")]
    #[cfg_attr(test, schemars(with = "u64"))]
    pub up: Duration,
    /// The time of each change is random within a range. `spread` is the width of the range in percent of the shorter
    /// duration; at most 50.
    pub spread: u8,
    /// The seed of the random times, the same on all nodes.
    pub seed: u64,
}

/// The state of a partition or overlay at some moment (in force or not), and the end of that state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Phase {
    /// True if the partition or overlay is in force.
    pub is_on: bool,
    /// The time from the start to the next change of the state. `None`: the state does not change again.
    pub until: Option<Duration>,
}

impl Timing {
    /// The state at this time after the start. Callers handle times before the start.
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

    /// True if the duration has passed at this time after the start. False without a duration.
    pub fn is_over(&self, elapsed: Duration) -> bool {
        self.lasts.is_some_and(|lasts| elapsed >= lasts)
    }
}

impl Flap {
    fn phase(&self, elapsed: Duration) -> Phase {
        let cycle = self.down.saturating_add(self.up).as_nanos().max(1);
        // The number of the change that begins the cycle at `elapsed`, calculated without the random times.
        let nominal = 2 * u64::try_from(elapsed.as_nanos() / cycle).unwrap_or(u64::MAX / 2);
        // Random times shift a change by at most a quarter of the shorter duration. So `changes` has the next change.
        let changes = nominal.saturating_sub(1)..nominal.saturating_add(4);
        let next = changes.clone().find(|change| self.change(*change) > elapsed).unwrap_or(changes.end);
        Phase { is_on: next % 2 == 1, until: Some(self.change(next)) }
    }

    /// The time from the start to a change. Change 0 is the start. Even changes take the link down. Odd changes bring
    /// the link up.
    fn change(&self, number: u64) -> Duration {
        let cycle = u32::try_from(number / 2).unwrap_or(u32::MAX);
        let turn = if number % 2 == 1 { self.down } else { Duration::ZERO };
        let base = self.down.saturating_add(self.up).saturating_mul(cycle).saturating_add(turn);
        if number == 0 {
            return base;
        }
        let range = self.down.min(self.up).mul_f64(f64::from(self.spread.min(50)) / 100.0);
        // Early or late by at most half of the range.
        let drawn = range.mul_f64(Dice::after(self.seed, number).roll());
        base.saturating_add(drawn).saturating_sub(range / 2)
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
    fn a_partition_without_a_duration_stays_in_force() {
        let timing = Timing { begins: BEGINS, lasts: None, flap: None };
        assert_eq!(timing.phase(seconds(1e6)), Phase { is_on: true, until: None });
    }

    #[test]
    fn a_partition_ends_after_its_duration() {
        let timing = Timing { begins: BEGINS, lasts: Some(seconds(30.0)), flap: None };
        assert_eq!(timing.phase(seconds(29.9)), Phase { is_on: true, until: Some(seconds(30.0)) });
        assert_eq!(timing.phase(seconds(30.0)), Phase { is_on: false, until: None });
        assert!(timing.is_over(seconds(30.0)) && !timing.is_over(seconds(29.9)));
    }

    #[test]
    fn a_flap_alternates_until_its_end() {
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
