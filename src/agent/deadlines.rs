//! When what has a time limit ends on this node, by its own monotonic clock: [`Deadlines`].
//!
//! The document says how long something lasts and is the same on all nodes; when that is over, each node knows by
//! itself, whoever else is gone. What has ended stays in the document, and is remembered here, until an edit drops it.
//! Nothing here reads a clock: the moment is always given.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

/// When each of some things ends, by their names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Deadlines<N>(BTreeMap<N, Instant>);

/// No deadlines.
impl<N> Default for Deadlines<N> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<N: Ord + Clone> Deadlines<N> {
    /// Those of the things that last so long from `now` on. One that had a deadline before keeps it, over or not.
    pub(super) fn renewed(&self, lasting: impl IntoIterator<Item = (N, Duration)>, now: Instant) -> Self {
        let deadline = |(name, lasts): (N, Duration)| {
            let running = self.0.get(&name).copied();
            // A time that is beyond the clock's end never comes.
            running.or_else(|| now.checked_add(lasts)).map(|end| (name, end))
        };
        Self(lasting.into_iter().filter_map(deadline).collect())
    }

    /// What is over by `now`.
    pub(super) fn over(&self, now: Instant) -> BTreeSet<N> {
        self.0.iter().filter(|(_, end)| **end <= now).map(|(name, _)| name.clone()).collect()
    }

    /// How long something has left; zero if it is over, `None` if it has no end.
    pub(super) fn left(&self, name: &N, now: Instant) -> Option<Duration> {
        self.0.get(name).map(|end| end.saturating_duration_since(now))
    }

    /// The next moment at which something ends.
    pub(super) fn next(&self, now: Instant) -> Option<Instant> {
        self.0.values().filter(|end| **end > now).min().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn what_lasts_ten_seconds_is_over_after_ten_seconds_and_stays_so() {
        let start = Instant::now();
        let deadlines = Deadlines::default().renewed([("a", 10 * SECOND), ("b", 20 * SECOND)], start);
        assert_eq!(deadlines.over(start + 9 * SECOND), [].into());
        assert_eq!(deadlines.left(&"a", start + 9 * SECOND), Some(SECOND));
        assert_eq!(deadlines.next(start), Some(start + 10 * SECOND));
        assert_eq!(deadlines.over(start + 10 * SECOND), ["a"].into());
        assert_eq!(deadlines.next(start + 10 * SECOND), Some(start + 20 * SECOND));
        assert_eq!(deadlines.over(start + 99 * SECOND), ["a", "b"].into());
        assert_eq!(deadlines.left(&"a", start + 99 * SECOND), Some(Duration::ZERO));
        assert_eq!(deadlines.next(start + 99 * SECOND), None);
    }

    #[test]
    fn what_is_kept_goes_on_and_what_is_not_is_forgotten() {
        let start = Instant::now();
        let first = Deadlines::default().renewed([("a", SECOND), ("b", 9 * SECOND)], start);
        let later = start + 5 * SECOND;
        let second = first.renewed([("a", SECOND), ("c", SECOND)], later);
        assert_eq!(second.over(later), ["a"].into(), "what was over does not begin again");
        assert_eq!(second.left(&"b", later), None);
        assert_eq!(second.left(&"c", later), Some(SECOND));
        assert_eq!(second.renewed([("b", 9 * SECOND)], later).left(&"b", later), Some(9 * SECOND));
    }

    #[test]
    fn a_time_beyond_the_clocks_end_never_comes() {
        let now = Instant::now();
        assert_eq!(Deadlines::default().renewed([("a", Duration::MAX)], now).next(now), None);
    }
}
