//! Time: [`Now`] reads the clocks, [`Timeline`] computes when timed changes begin and end, [`Alarm`] wakes the agent.

mod alarm;
mod clock;
mod timeline;

pub use clock::Now;
pub(super) use {
    alarm::{Alarm, EventWaiter},
    clock::boot,
    timeline::Timeline,
};
