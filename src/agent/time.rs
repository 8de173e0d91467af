//! Time: [`Now`] reads the clocks, [`Timeline`] computes the begin and end of timed changes, [`Alarm`] wakes the agent.

mod alarm;
mod clock;
mod timeline;

pub use clock::Now;
pub(super) use {
    alarm::{Alarm, EventWaiter},
    clock::boot,
    timeline::Timeline,
};
