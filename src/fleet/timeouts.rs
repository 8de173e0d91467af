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
    /// Limits the whole call to `limit` from now. An earlier deadline stays.
    #[must_use]
    pub fn at_most(self, limit: Duration) -> Self {
        let deadline = Instant::now() + limit;
        Self { deadline: Some(self.deadline.map_or(deadline, |other| other.min(deadline))), ..self }
    }
}

impl From<Duration> for Timeouts {
    fn from(answer: Duration) -> Self {
        Self { answer, deadline: None }
    }
}
