//! The node's clocks, read together: [`Now`].
//!
//! Moments that nodes agree on are of the wall clock. How much time has passed is counted by the clock that nobody sets,
//! the one since boot (`CLOCK_BOOTTIME`, clock_gettime(2)), which also counts while the machine sleeps and which all
//! processes of one boot share: so it outlives the agent, and no step of the wall clock moves what has begun.

use std::{
    fs,
    time::{Duration, SystemTime},
};

use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use crate::plan::Moment;

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
        // Linux has this clock since 2.6.39; without it, nothing would ever end.
        let uptime = clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::ZERO, Duration::from);
        Self { uptime, wall: SystemTime::now().into() }
    }

    /// The reading after that much time, if nobody sets the wall clock.
    #[must_use]
    pub fn after(self, time: Duration) -> Self {
        Self { uptime: self.uptime.saturating_add(time), wall: self.wall.after(time) }
    }

    /// What the wall clock would show at an uptime if nobody had set it since this reading.
    pub(super) fn wall_at(self, uptime: Duration) -> Moment {
        self.wall.after(uptime.saturating_sub(self.uptime))
    }

    /// The uptime at which it would show a moment that is not before this reading.
    pub(super) fn uptime_of(self, moment: Moment) -> Duration {
        self.uptime.saturating_add(moment.since(self.wall).unwrap_or_default())
    }
}

/// Names the time between two starts of the machine, over which uptimes can be compared (random(4)); empty: unknown.
pub(super) fn boot() -> String {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id");
    boot.map(|text| text.trim().to_owned()).unwrap_or_default()
}
