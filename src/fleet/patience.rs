//! How long a call may take: the agent's own time, and the instant at which the whole call has to be over.

use std::time::{Duration, Instant};

/// How long a call may take.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// How long the agent may take to answer, once the call can be made.
    pub answer: Duration,
    /// When the call is over, whatever it waits for: files, its turn to log in, the login, the answer. `None`: no such limit.
    pub until: Option<Instant>,
}

impl Patience {
    /// The same, but the whole call takes no longer than that.
    #[must_use]
    pub fn at_most(self, limit: Duration) -> Self {
        let until = Instant::now() + limit;
        Self { until: Some(self.until.map_or(until, |other| other.min(until))), ..self }
    }
}

impl From<Duration> for Patience {
    fn from(answer: Duration) -> Self {
        Self { answer, until: None }
    }
}
