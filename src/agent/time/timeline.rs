//! [`Timeline`] computes the state of each timed change at an uptime, and the uptime at which a state changes next.
//!
//! The document ([`Wanted`]) has the start, duration and flap of each timed change. Each node follows the document
//! without the controller. An ended change stays in the document until a controller commits a document without the
//! change. Nothing here reads a clock.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Now;
use crate::plan::{Absent, Moment, TimedId, Timing, Wanted};

/// The timed changes (overlays and partitions) of a document.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Timeline(Vec<(TimedId, TimedChange)>);

/// A timed change, and a reading of the clocks at its commit. The reading converts wall-clock times to uptimes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TimedChange {
    timing: Timing,
    committed: Now,
}

/// The state of one timed change at an uptime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TimedState {
    /// True if the change is in force: between its start and its end, and not while a flap has the link up.
    pub(crate) is_on: bool,
    /// True if the change has ended.
    pub(crate) is_over: bool,
    /// The uptime at which the state changes next; `None`: never.
    pub(crate) until: Option<Duration>,
    /// The time until the change ends, zero if it has ended; `None`: the change has no end.
    pub(crate) left: Option<Duration>,
}

impl TimedState {
    /// The state of a change without times: in force, without an end.
    pub(crate) const UNTIMED: Self = Self { is_on: true, is_over: false, until: None, left: None };
}

impl Timeline {
    /// The timeline of the document `wanted` after a commit at the wall-clock time `at`. `now` is the reading of the
    /// clocks for new changes. Changes that are already in this timeline keep their times.
    pub(crate) fn renewed(&self, wanted: &Wanted, at: Moment, now: Now) -> Self {
        let renew = |(id, timing)| {
            let change = self.find(&id).copied().unwrap_or(TimedChange { timing, committed: now });
            (id, change)
        };
        Self(wanted.timings(at).map(renew).collect())
    }

    /// Continues the timeline after a reboot. Uptimes restart at zero, so only the wall clock tells how much time has
    /// passed.
    pub(crate) fn restart(&mut self, now: Now) {
        for (_, change) in &mut self.0 {
            change.committed = now;
        }
    }

    /// The timed changes that are not in force at an uptime.
    pub(crate) fn absent(&self, uptime: Duration) -> Absent {
        let mut absent = Absent::default();
        for (id, change) in &self.0 {
            let state = change.state(uptime);
            if state.is_over {
                absent.ended.insert(id.clone());
            } else if !state.is_on {
                absent.inactive.insert(id.clone());
            }
        }
        absent
    }

    /// The start of each timed change.
    pub(crate) fn begins(&self) -> Vec<(TimedId, Moment)> {
        self.0.iter().map(|(id, change)| (id.clone(), change.timing.begins)).collect()
    }

    /// The state of a change. A change that is not in this timeline is [`TimedState::UNTIMED`].
    pub(crate) fn state(&self, id: &TimedId, uptime: Duration) -> TimedState {
        self.find(id).map_or(TimedState::UNTIMED, |change| change.state(uptime))
    }

    /// The uptime at which any state changes next; `None`: never.
    pub(crate) fn next(&self, uptime: Duration) -> Option<Duration> {
        self.0.iter().filter_map(|(_, change)| change.state(uptime).until).min()
    }

    fn find(&self, id: &TimedId) -> Option<&TimedChange> {
        self.0.iter().find(|(own, _)| own == id).map(|(_, change)| change)
    }
}

impl TimedChange {
    fn state(&self, uptime: Duration) -> TimedState {
        let Self { timing, committed } = self;
        let Some(elapsed) = committed.wall_at(uptime).since(timing.begins) else {
            let begins = committed.uptime_of(timing.begins);
            let left = timing.lasts.map(|lasts| begins.saturating_add(lasts).saturating_sub(uptime));
            return TimedState { is_on: false, is_over: false, until: Some(begins), left };
        };
        let phase = timing.phase(elapsed);
        TimedState {
            is_on: phase.is_on,
            is_over: timing.is_over(elapsed),
            // A flap of zero length has no next change.
            until: phase
                .until
                .filter(|until| *until > elapsed)
                .map(|until| uptime.saturating_add(until.saturating_sub(elapsed))),
            left: timing.lasts.map(|lasts| lasts.saturating_sub(elapsed)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Flap, TimedKind};

    const SECOND: Duration = Duration::from_secs(1);

    /// A reading of the clocks one hour after boot.
    const NOW: Now = Now { uptime: Duration::from_hours(1), wall: Moment::from_nanos(1_800_000_000_000_000_000) };

    fn id(name: &str) -> TimedId {
        TimedId { kind: TimedKind::Partition, name: name.to_owned(), since: 1 }
    }

    fn timeline(runs: &[(&str, Timing)]) -> Timeline {
        Timeline(
            runs.iter().map(|(name, timing)| (id(name), TimedChange { timing: *timing, committed: NOW })).collect(),
        )
    }

    fn timing(begins: Moment, lasts: Option<Duration>) -> Timing {
        Timing { begins, lasts, flap: None }
    }

    #[test]
    fn a_change_is_inactive_before_its_start_and_ended_after_its_duration() {
        let timeline = timeline(&[("a", timing(NOW.wall.after(5 * SECOND), Some(10 * SECOND)))]);
        let at = |seconds| NOW.uptime + seconds * SECOND;
        let absent = |seconds| {
            let Absent { ended, inactive } = timeline.absent(at(seconds));
            (ended.len(), inactive.len())
        };
        assert_eq!([0, 4, 5, 14, 15, 99].map(absent), [(0, 1), (0, 1), (0, 0), (0, 0), (1, 0), (1, 0)]);
        let next = [0, 4, 5, 14, 15].map(|seconds| timeline.next(at(seconds)));
        assert_eq!(next, [Some(at(5)), Some(at(5)), Some(at(15)), Some(at(15)), None]);
        let left = [0, 5, 14, 15].map(|seconds| timeline.state(&id("a"), at(seconds)).left);
        assert_eq!(left, [15, 10, 1, 0].map(|seconds| Some(seconds * SECOND)));
        assert_eq!(timeline.state(&id("b"), at(0)), TimedState::UNTIMED);
    }

    #[test]
    fn a_change_that_started_before_its_commit_has_run_since_its_start() {
        let flap = Some(Flap { down: 5 * SECOND, up: 10 * SECOND, spread: 0, seed: 1 });
        let began = Moment::from_nanos(NOW.wall.as_nanos() - 7_000_000_000);
        let timeline = timeline(&[("a", Timing { flap, ..timing(began, Some(20 * SECOND)) })]);
        let state = timeline.state(&id("a"), NOW.uptime);
        assert_eq!(state.until, Some(NOW.uptime + 8 * SECOND));
        assert_eq!((state.is_on, state.is_over, state.left), (false, false, Some(13 * SECOND)));
    }

    #[test]
    fn a_flap_of_zero_length_never_changes() {
        let tiny = Duration::from_nanos(1);
        for (down, up) in [(Duration::ZERO, Duration::ZERO), (tiny, Duration::ZERO), (Duration::ZERO, tiny)] {
            let flap = Some(Flap { down, up, spread: 0, seed: 1 });
            let timeline = timeline(&[("a", Timing { flap, ..timing(NOW.wall, Some(SECOND)) })]);
            for after in [1, 1_000_000_000_000] {
                let now = NOW.uptime + Duration::from_nanos(after);
                assert!(timeline.next(now).is_none_or(|next| next > now), "{down:?} {up:?}");
            }
        }
    }

    #[test]
    fn after_a_reboot_the_wall_clock_says_how_long_a_change_has_run() {
        let before = timeline(&[("a", timing(NOW.wall, Some(10 * SECOND)))]);
        let now = Now { uptime: 2 * SECOND, wall: NOW.wall.after(4 * SECOND) };
        let mut after = before.clone();
        after.restart(now);
        assert_eq!(after.next(now.uptime), Some(8 * SECOND));
        // Without `restart`, no time seems to have passed: the new uptime is before the uptime of the commit.
        assert_eq!(before.state(&id("a"), now.uptime).left, Some(10 * SECOND));
    }

    #[test]
    fn the_largest_start_and_duration_do_not_overflow() {
        let timeline = timeline(&[("a", timing(Moment::from_nanos(u64::MAX), Some(Duration::MAX)))]);
        assert_eq!(timeline.absent(NOW.uptime).inactive.len(), 1);
        assert!(timeline.next(NOW.uptime) > Some(Duration::from_hours(24 * 365 * 100)));
    }
}
