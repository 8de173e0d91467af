//! [`Now`]: one reading of the wall clock and the uptime together.
//!
//! The nodes agree on times of the wall clock. Each node measures elapsed time by its uptime (`CLOCK_BOOTTIME`,
//! `clock_gettime(2)`). Nobody can set the uptime. The uptime also counts during suspend, and across a restart of the
//! agent. A step of the wall clock therefore moves a committed timed change only if the host reboots afterwards.

use std::{
    cmp::min_by_key,
    fs,
    time::{Duration, SystemTime},
};

use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use crate::plan::Moment;

/// A reading of both clocks that takes this long or longer is retried.
const SLOW_READING: Duration = Duration::from_micros(100);

/// Largest number of retries. If all readings are slow, the fastest of them is used.
const MORE_READINGS: usize = 9;

/// One reading of both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Now {
    /// Time since boot, suspend included.
    pub uptime: Duration,
    /// The wall clock.
    pub wall: Moment,
}

impl Now {
    /// Reads the clocks.
    pub fn read() -> Self {
        let (mut took, mut now) = Self::read_once();
        // The scheduler may interrupt the process between the two clocks.
        for _ in 0..MORE_READINGS {
            if took < SLOW_READING {
                break;
            }
            (took, now) = min_by_key((took, now), Self::read_once(), |(took, _)| *took);
        }
        now
    }

    /// A reading of both clocks, and its duration.
    fn read_once() -> (Duration, Self) {
        let before = uptime();
        let wall = SystemTime::now().into();
        let took = uptime().saturating_sub(before);
        (took, Self { uptime: before + took / 2, wall })
    }

    /// The reading after the duration `time`, if nobody sets the wall clock.
    #[must_use]
    pub fn after(self, time: Duration) -> Self {
        Self { uptime: self.uptime.saturating_add(time), wall: self.wall.after(time) }
    }

    /// This reading with the controller's wall clock. `ahead`: nanoseconds by which the node's wall clock is ahead of
    /// the controller's; negative: behind.
    pub(crate) fn by_controller(self, ahead: i64) -> Self {
        Self { wall: self.wall.on_clock_behind_by(ahead), ..self }
    }

    /// The wall clock at an uptime, if nobody has set the wall clock since this reading. An uptime before this reading
    /// gives the wall clock of this reading.
    pub(crate) fn wall_at(self, uptime: Duration) -> Moment {
        self.wall.after(uptime.saturating_sub(self.uptime))
    }

    /// The uptime at a wall-clock time. A time before this reading gives the uptime of this reading.
    pub(crate) fn uptime_of(self, moment: Moment) -> Duration {
        self.uptime.saturating_add(moment.since(self.wall).unwrap_or_default())
    }
}

fn uptime() -> Duration {
    // Linux has had this clock since 2.6.39, so no error is expected.
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::ZERO, Duration::from)
}

/// The id of this boot (random(4)); empty: unknown. Only uptimes of the same boot can be compared.
pub(crate) fn boot() -> String {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id");
    boot.map(|text| text.trim().to_owned()).unwrap_or_default()
}
