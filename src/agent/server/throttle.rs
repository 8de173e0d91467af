//! Saying again and again what strangers do, without filling a disk: [`Throttle`].

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// How many messages go out at once.
const BURST: u32 = 20;

/// How often one more may.
const EVERY: Duration = Duration::from_secs(5);

/// Lets so many messages pass and counts the others.
pub(super) struct Throttle(Mutex<State>);

struct State {
    left: u32,
    since: Instant,
    unsaid: u64,
}

impl Throttle {
    pub(super) fn new() -> Self {
        Self(Mutex::new(State { left: BURST, since: Instant::now(), unsaid: 0 }))
    }

    /// Whether a message may go out now, and how many were not let out since the last one.
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
            state.unsaid += 1;
            return None;
        };
        state.left = left;
        Some(std::mem::take(&mut state.unsaid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_passes_as_a_few_messages_that_say_how_many_there_were() {
        let throttle = Throttle::new();
        let start = Instant::now();
        let passed = (0..10_000).filter(|_| throttle.pass_at(start).is_some()).count();
        assert_eq!(passed, BURST as usize);
        assert_eq!(throttle.pass_at(start + EVERY), Some(10_000 - u64::from(BURST)));
        assert_eq!(throttle.pass_at(start + EVERY), None);
        assert_eq!(throttle.pass_at(start + EVERY * 1000), Some(1));
    }
}
