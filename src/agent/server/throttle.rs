//! [`Throttle`] limits the log messages that unauthenticated clients can cause.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Largest number of messages that pass without a pause.
const BURST: u32 = 20;

/// After a burst, one more message may pass per interval of this length.
const EVERY: Duration = Duration::from_secs(5);

/// A token bucket for messages, which also counts the suppressed messages.
pub(super) struct Throttle(Mutex<State>);

struct State {
    left: u32,
    since: Instant,
    suppressed: u64,
}

impl Throttle {
    pub(super) fn new() -> Self {
        Self(Mutex::new(State { left: BURST, since: Instant::now(), suppressed: 0 }))
    }

    /// Passes (`Some`) or suppresses (`None`) a message.
    ///
    /// The value in `Some` is the number of messages that were suppressed since the last message that passed.
    pub(super) fn pass(&self) -> Option<u64> {
        self.pass_at(Instant::now())
    }

    fn pass_at(&self, now: Instant) -> Option<u64> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while state.left < BURST && now.duration_since(state.since) >= EVERY {
            state.left += 1;
            state.since += EVERY;
        }
        if state.left == BURST {
            state.since = now;
        }
        let Some(left) = state.left.checked_sub(1) else {
            state.suppressed += 1;
            return None;
        };
        state.left = left;
        Some(std::mem::take(&mut state.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twenty_messages_pass_at_once_and_the_next_reports_the_number_suppressed() {
        let throttle = Throttle::new();
        let start = Instant::now();
        let passed = (0..10_000).filter(|_| throttle.pass_at(start).is_some()).count();
        assert_eq!(passed, BURST as usize);
        assert_eq!(throttle.pass_at(start + EVERY), Some(10_000 - u64::from(BURST)));
        assert_eq!(throttle.pass_at(start + EVERY), None);
        assert_eq!(throttle.pass_at(start + EVERY * 1000), Some(1));
    }
}
