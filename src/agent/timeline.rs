//! What of the document is in force on this node at a given instant, and when that changes next: [`Timeline`].
//!
//! The document is the same on all nodes and says when something begins, how long it lasts and in which turns; from
//! there on each node knows by itself, whoever else is gone. What has ended stays in the document, and is remembered
//! here, until an edit drops it. Nothing here reads a clock: the instant is always given, as an uptime.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

use super::Now;
use crate::plan::{Absent, Moment, TimedId, Timing, Wanted};

/// The times of what does not stay in force until it is taken back.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<(TimedId, Run)>", into = "Vec<(TimedId, Run)>")]
pub(super) struct Timeline(BTreeMap<TimedId, Run>);

/// One thing's times, and what the clocks showed as it was committed.
///
/// That reading is what ties moments of the wall clock to uptimes, once and for all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Run {
    timing: Timing,
    committed: Now,
}

/// How it stands with one thing at some instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Standing {
    /// Whether it is in force.
    pub(super) is_on: bool,
    /// Whether it is over for good.
    pub(super) is_over: bool,
    /// The uptime at which that changes; `None`: never.
    pub(super) until: Option<Duration>,
    /// How long until it is over for good; `None`: it has no end.
    pub(super) left: Option<Duration>,
}

impl Standing {
    /// How it stands with what has no times.
    pub(super) const FOR_GOOD: Self = Self { is_on: true, is_over: false, until: None, left: None };
}

impl Timeline {
    /// That of `wanted`, committed at the moment `at`, when the clocks show `now`. What had its times before keeps them,
    /// over or not.
    pub(super) fn renewed(&self, wanted: &Wanted, at: Moment, now: Now) -> Self {
        let run = |(id, timing)| (self.0.get(&id).copied().unwrap_or(Run { timing, committed: now }), id);
        Self(wanted.timings(at).map(run).map(|(run, id)| (id, run)).collect())
    }

    /// The same after a new start of the machine, which uptimes do not survive: the wall clock is believed once more.
    pub(super) fn after_boot(&self, now: Now) -> Self {
        Self(self.0.iter().map(|(id, run)| (id.clone(), Run { committed: now, ..*run })).collect())
    }

    /// What is not in force at an uptime.
    pub(super) fn absent(&self, uptime: Duration) -> Absent {
        let mut absent = Absent::default();
        for (id, run) in &self.0 {
            let standing = run.standing(uptime);
            if standing.is_over {
                absent.ended.insert(id.clone());
            } else if !standing.is_on {
                absent.asleep.insert(id.clone());
            }
        }
        absent
    }

    /// When each thing began or will.
    pub(super) fn begins(&self) -> Vec<(TimedId, Moment)> {
        self.0.iter().map(|(id, run)| (id.clone(), run.timing.begins)).collect()
    }

    /// How it stands with one thing.
    pub(super) fn standing(&self, id: &TimedId, uptime: Duration) -> Standing {
        self.0.get(id).map_or(Standing::FOR_GOOD, |run| run.standing(uptime))
    }

    /// The next uptime at which something changes.
    pub(super) fn next(&self, uptime: Duration) -> Option<Duration> {
        self.0.values().filter_map(|run| run.standing(uptime).until).min()
    }
}

impl Run {
    fn standing(&self, uptime: Duration) -> Standing {
        let Self { timing, committed } = self;
        let Some(elapsed) = committed.wall_at(uptime).since(timing.begins) else {
            let begins = committed.uptime_of(timing.begins);
            let left = timing.lasts.map(|lasts| begins.saturating_add(lasts).saturating_sub(uptime));
            return Standing { is_on: false, is_over: false, until: Some(begins), left };
        };
        let phase = timing.phase(elapsed);
        Standing {
            is_on: phase.is_on,
            is_over: timing.is_over(elapsed),
            until: phase.until.map(|until| uptime.saturating_add(until.saturating_sub(elapsed))),
            left: timing.lasts.map(|lasts| lasts.saturating_sub(elapsed)),
        }
    }
}

impl From<Vec<(TimedId, Run)>> for Timeline {
    fn from(runs: Vec<(TimedId, Run)>) -> Self {
        Self(runs.into_iter().collect())
    }
}

impl From<Timeline> for Vec<(TimedId, Run)> {
    fn from(timeline: Timeline) -> Self {
        timeline.0.into_iter().collect()
    }
}
