//! The time limits of a call.

use std::time::{Duration, Instant};

/// The time limits of a call.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// The time limit of the agent's answer. Includes connecting, but not a login by ssh.
    pub answer: Duration,
    /// The deadline of the whole call, including the wait for free file descriptors and the login. `None`: no limit.
    pub deadline: Option<Instant>,
}

impl Timeouts {
    /// A time limit of the answer, and no deadline.
    pub(super) const fn of(answer: Duration) -> Self {
        Self { answer, deadline: None }
    }
}

impl From<Duration> for Timeouts {
    fn from(answer: Duration) -> Self {
        Self::of(answer)
    }
}
