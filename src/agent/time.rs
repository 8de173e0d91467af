//! Clocks, and what waits for them: [`Now`] reads them, [`Timeline`] says what begins and ends, [`Alarm`] wakes the agent.

mod alarm;
mod clock;
mod timeline;

pub use clock::Now;
pub(super) use {
    alarm::{Alarm, EventWaiter},
    clock::boot,
    timeline::Timeline,
};
