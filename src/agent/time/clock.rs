//! The node's clocks, read together: [`Now`].
//!
//! Moments that nodes agree on are of the wall clock. How much time has passed is counted by the clock that nobody sets,
//! the one since boot (`CLOCK_BOOTTIME`, see `clock_gettime(2)`), which also counts while the machine sleeps and which all
//! processes of one boot share: so it outlives the agent, and no step of the wall clock moves what has begun.

use std::{
    fs,
    time::{Duration, SystemTime},
};

use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use crate::plan::Moment;

/// Two clocks that are read within this time are read together.
const TOGETHER: Duration = Duration::from_micros(100);

/// How often they are read again if they were not. On a busy machine the best of them has to do.
const MORE_READINGS: usize = 9;

/// One reading of both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Now {
    /// How long ago the machine was started.
    pub uptime: Duration,
    /// What the wall clock shows.
    pub wall: Moment,
}

impl Now {
    /// Reads the clocks.
    pub fn read() -> Self {
        let mut best = Reading::take();
        // Whoever is put to sleep between the two clocks reads times that do not belong together.
        for _ in 0..MORE_READINGS {
            if best.took < TOGETHER {
                break;
            }
            let again = Reading::take();
            best = if again.took < best.took { again } else { best };
        }
        best.now
    }

    /// The reading after that much time, if nobody sets the wall clock.
    #[must_use]
    pub fn after(self, time: Duration) -> Self {
        Self { uptime: self.uptime.saturating_add(time), wall: self.wall.after(time) }
    }

    /// The reading by the wall clock of a controller that the node's is so many nanoseconds ahead of.
    pub(crate) fn by_controller(self, ahead: i64) -> Self {
        Self { wall: self.wall.by_a_clock_behind(ahead), ..self }
    }

    /// What the wall clock would show at an uptime if nobody had set it since this reading.
    pub(crate) fn wall_at(self, uptime: Duration) -> Moment {
        self.wall.after(uptime.saturating_sub(self.uptime))
    }

    /// The uptime at which it would show a moment that is not before this reading.
    pub(crate) fn uptime_of(self, moment: Moment) -> Duration {
        self.uptime.saturating_add(moment.since(self.wall).unwrap_or_default())
    }
}

/// One look at both clocks, and how long it took.
struct Reading {
    now: Now,
    took: Duration,
}

impl Reading {
    fn take() -> Self {
        let before = uptime();
        let wall = SystemTime::now().into();
        let took = uptime().saturating_sub(before);
        Self { now: Now { uptime: before + took / 2, wall }, took }
    }
}

fn uptime() -> Duration {
    // Linux has this clock since 2.6.39; without it, nothing would ever end.
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::ZERO, Duration::from)
}

/// Names the time between two starts of the machine, over which uptimes can be compared (random(4)); empty: unknown.
pub(crate) fn boot() -> String {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id");
    boot.map(|text| text.trim().to_owned()).unwrap_or_default()
}
