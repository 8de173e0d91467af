//! [`DriftWatch`] decides when to compare the interface with the state in force, and when to repair drift.
//!
//! Drift is any difference from the state in force that another program has made.
//!
//! This module neither reads the kernel nor writes to it. The node passes on the kernel's events and the result of each
//! comparison and repair.
//!
//! The rate of repairs is limited, because another program may undo each repair. The second repair waits 1 s, and each
//! further repair waits twice as long as the one before, 1 min at most. More than 2 min without a repair reset the
//! wait. A repair may be refused before it writes, for example because a new interface has no address. The agent
//! retries a refused repair at the next event, or after 1 s.

use std::{collections::VecDeque, time::Duration};

use tracing::warn;

use crate::{
    agent::Now,
    kernel::Event,
    plan::{IfName, Moment},
    wire::{DRIFTS, Incident, OnDrift, WatchStatus},
};

/// Largest number of incidents in the status.
const REMEMBERED: usize = 16;

/// Wait before the second repair.
const FIRST_WAIT: Duration = Duration::from_secs(1);

/// Longest wait before a repair.
const LONGEST_WAIT: Duration = Duration::from_mins(1);

/// Time without a repair that resets the wait.
const CALM: Duration = Duration::from_mins(2);

/// Interval of retries after a failed comparison or a refused repair.
const COMPARE_AGAIN: Duration = Duration::from_secs(1);

/// The state of the interface as last seen, and the repairs.
#[derive(Debug, Default)]
pub(super) struct DriftWatch {
    on_drift: OnDrift,
    /// The index of the interface with the state in force; `None`: the node is clear, or the state is not yet written
    /// since the agent's start.
    ours: Option<u32>,
    /// The last known state of the interface with the node's interface name; `None`: none is known, or the interface
    /// was deleted or renamed.
    seen: Option<Seen>,
    /// The time at which a comparison found the present drift; `None`: no drift is known.
    since: Option<Moment>,
    incidents: VecDeque<(Moment, String)>,
    repairs: u64,
    /// Number of repairs that have started to write. The first repair after more than [`CALM`] without one counts as 1
    /// again.
    tries: u32,
    /// The uptime of the last repair that started to write.
    last_try: Option<Duration>,
    /// The uptime of the next comparison if no event comes first; `None`: only an event starts a comparison.
    compare_at: Option<Duration>,
    /// The error of the last comparison or repair, if it failed.
    obstacle: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) index: u32,
    pub(super) is_up: bool,
    pub(super) has_carrier: bool,
}

/// The result of a comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DriftState {
    /// The interface has the state in force.
    None,
    /// The interface differs, and the agent can try to repair it.
    Repairable,
    /// The interface differs, and only the user can repair it, for example because the interface is down or gone.
    ByHand,
}

impl DriftWatch {
    pub(super) fn new(on_drift: OnDrift) -> Self {
        Self { on_drift, ..Self::default() }
    }

    /// Restarts the watch after a change, without the earlier incidents. `seen`: the interface; `None`: the node is
    /// clear.
    pub(super) fn begin(&mut self, seen: Option<Seen>) {
        let Self { on_drift, repairs, tries, last_try, .. } = *self;
        let ours = seen.map(|seen| seen.index);
        *self = Self { on_drift, ours, seen, repairs, tries, last_try, ..Self::default() };
    }

    /// The index of the interface with the state in force.
    pub(super) fn ours(&self) -> Option<u32> {
        self.ours
    }

    /// Receives events of the kernel. True if the interface `name` must be compared.
    pub(super) fn receive(&mut self, events: &[Event], name: &IfName, now: Now) -> bool {
        let mut concerns = false;
        for event in events {
            concerns |= match event {
                Event::Link { index, name: event_name, is_up, has_carrier } => {
                    let seen = Seen { index: *index, is_up: *is_up, has_carrier: *has_carrier };
                    self.receive_link(seen, event_name, name, now)
                }
                Event::Gone { index } => self.lose(*index, || format!("interface {name} was deleted"), now),
                Event::Shaping { index } | Event::Address { index } => self.is_seen(*index),
                Event::Actions | Event::Lost => true,
            };
        }
        (concerns && self.ours.is_some()) || self.is_due(now)
    }

    /// The uptime of the next comparison if no event comes first.
    pub(super) fn next_look(&self) -> Option<Duration> {
        self.compare_at
    }

    /// True if a comparison is due without an event.
    pub(super) fn is_due(&self, now: Now) -> bool {
        self.compare_at.is_some_and(|at| at <= now.uptime)
    }

    fn receive_link(&mut self, link: Seen, event_name: &str, name: &IfName, now: Now) -> bool {
        if event_name != name.as_str() {
            return self.lose(link.index, || format!("interface {name} was renamed to {event_name}"), now);
        }
        let incident = match self.seen.replace(link) {
            Some(seen) if seen == link => return true,
            Some(seen) if seen.index == link.index => match (seen.is_up == link.is_up, link.is_up, link.has_carrier) {
                (false, true, _) => "went up",
                (false, false, _) => "went down",
                (true, _, true) => "has a carrier again",
                (true, _, false) => "lost its carrier",
            },
            _ if self.ours == Some(link.index) => "has its name again",
            _ => "was replaced by a new one",
        };
        self.note(now, format!("interface {name} {incident}"));
        true
    }

    /// If the lost interface is the one that was seen last, notes the incident and returns true.
    fn lose(&mut self, index: u32, incident: impl FnOnce() -> String, now: Now) -> bool {
        let is_seen = self.is_seen(index);
        if is_seen {
            self.seen = None;
            self.note(now, incident());
        }
        is_seen
    }

    fn is_seen(&self, index: u32) -> bool {
        self.seen.is_some_and(|seen| seen.index == index)
    }

    /// True if a comparison has found drift, and no repair or later comparison has ended it.
    pub(super) fn differs(&self) -> bool {
        self.since.is_some()
    }

    /// Schedules a comparison at once if there is drift to repair and no comparison is scheduled.
    pub(super) fn compare_soon(&mut self, now: Now) {
        if self.differs() && self.on_drift == OnDrift::Repair {
            self.compare_at.get_or_insert(now.uptime);
        }
    }

    /// Receives the result of a comparison. True if a repair is due.
    pub(super) fn found(&mut self, state: DriftState, now: Now) -> bool {
        self.compare_at = None;
        if state == DriftState::None {
            if let Some(since) = self.since.take() {
                self.note(now, format!("drift ended; it began at {since}"));
            }
            self.obstacle = None;
            return false;
        }
        if self.since.is_none() {
            self.since = Some(now.wall);
            self.note(now, DRIFTS.to_owned());
        }
        if self.on_drift == OnDrift::Report || state == DriftState::ByHand {
            self.obstacle = None;
            return false;
        }
        let wait = self.next_try().map(|at| at.saturating_sub(now.uptime)).unwrap_or_default();
        if !wait.is_zero() {
            self.compare_at = Some(now.uptime + wait);
        }
        wait.is_zero()
    }

    /// Receives the error of reading events, of a comparison, or of a repair that was refused before it wrote.
    pub(super) fn refused(&mut self, why: String, now: Now) {
        // Retries must not fill the log.
        if self.obstacle.as_ref() != Some(&why) {
            warn!("Cannot compare or repair the interface: {why}.");
        }
        self.obstacle = Some(why);
        self.compare_at = Some(now.uptime + COMPARE_AGAIN);
    }

    /// Notes that a repair starts to write.
    pub(super) fn tried(&mut self, now: Now) {
        let was_calm = self.last_try.is_none_or(|last| now.uptime.saturating_sub(last) > CALM);
        self.tries = if was_calm { 1 } else { self.tries.saturating_add(1) };
        self.last_try = Some(now.uptime);
    }

    /// Receives the error of a repair that had started to write.
    pub(super) fn failed(&mut self, why: String, now: Now) {
        self.refused(why, now);
        self.compare_at = self.next_try();
    }

    /// Notes that a repair has succeeded. `ours`: the index of the interface, which may be new.
    pub(super) fn repaired(&mut self, writes: usize, ours: u32, now: Now) {
        self.repairs += 1;
        self.ours = Some(ours);
        let since = self.since.take().unwrap_or(now.wall);
        let steps = if writes == 1 { "step" } else { "steps" };
        self.note(now, format!("repaired in {writes} {steps}; the drift began at {since}"));
        (self.obstacle, self.compare_at) = (None, None);
    }

    /// The earliest uptime of the next repair; `None`: at once, because no repair has started to write yet.
    fn next_try(&self) -> Option<Duration> {
        let wait = FIRST_WAIT.saturating_mul(1_u32.checked_shl(self.tries.saturating_sub(1)).unwrap_or(u32::MAX));
        self.last_try.filter(|_| self.tries > 0).map(|last| last + wait.min(LONGEST_WAIT))
    }

    fn note(&mut self, now: Now, incident: String) {
        // A node without a watched interface, such as a clear node, has no incidents.
        if self.ours.is_none() {
            return;
        }
        warn!("{incident}.");
        self.incidents.push_back((now.wall, incident));
        if self.incidents.len() > REMEMBERED {
            self.incidents.pop_front();
        }
    }

    /// The part of the node's status about drift.
    pub(super) fn status(&self, now: Now, journal_behind: Option<String>) -> WatchStatus {
        let incident = |(at, what): &(Moment, String)| Incident { at: at.to_string(), what: what.clone() };
        let waits = self.since.is_some() && self.on_drift == OnDrift::Repair;
        let next_try = self.compare_at.filter(|_| waits).map(|at| at.saturating_sub(now.uptime).as_secs_f64());
        WatchStatus {
            on_drift: self.on_drift,
            since: self.since.map(|since| since.to_string()),
            incidents: self.incidents.iter().map(incident).collect(),
            repairs: self.repairs,
            obstacle: self.obstacle.clone(),
            next_try,
            journal_behind,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn at(seconds: u32) -> Now {
        let start = Now { uptime: Duration::from_hours(1), wall: Moment::from_nanos(1_800_000_000_000_000_000) };
        start.after(SECOND * seconds)
    }

    fn db0() -> IfName {
        "db0".parse().unwrap()
    }

    fn on(on_drift: OnDrift) -> DriftWatch {
        let mut drift_watch = DriftWatch::new(on_drift);
        drift_watch.begin(Some(Seen { index: 7, is_up: true, has_carrier: true }));
        drift_watch
    }

    fn link(index: u32, name: &str, is_up: bool, has_carrier: bool) -> Event {
        Event::Link { index, name: name.to_owned(), is_up, has_carrier }
    }

    fn told(drift_watch: &DriftWatch) -> Vec<String> {
        drift_watch.status(at(0), None).incidents.into_iter().map(|incident| incident.what).collect()
    }

    #[test]
    fn only_incidents_of_the_own_interface_are_kept() {
        let mut drift_watch = on(OnDrift::Report);
        let others = [
            link(8, "eth0", false, false),
            Event::Gone { index: 9 },
            Event::Shaping { index: 8 },
            link(7, "db0", true, true),
        ];
        assert!(!drift_watch.receive(&others[..3], &db0(), at(0)));
        assert!(
            drift_watch.receive(&others[3..], &db0(), at(0)),
            "an event of the own interface requires a comparison even if its state is the same"
        );
        assert_eq!(told(&drift_watch), [""; 0]);
        let events = [
            link(7, "db0", false, false),
            link(7, "db0", true, false),
            link(7, "db0", true, true),
            Event::Gone { index: 7 },
            link(12, "db0", false, false),
            link(12, "x", false, false),
            link(7, "db0", true, true),
        ];
        for event in events {
            assert!(drift_watch.receive(&[event], &db0(), at(0)));
        }
        assert_eq!(
            told(&drift_watch),
            [
                "interface db0 went down",
                "interface db0 went up",
                "interface db0 has a carrier again",
                "interface db0 was deleted",
                "interface db0 was replaced by a new one",
                "interface db0 was renamed to x",
                "interface db0 has its name again",
            ]
        );
        assert!(drift_watch.receive(&[Event::Lost], &db0(), at(0)));
    }

    #[test]
    fn a_clear_node_has_no_incidents() {
        let mut drift_watch = DriftWatch::new(OnDrift::Repair);
        let events = [link(7, "db0", true, true), Event::Lost, Event::Gone { index: 7 }];
        assert!(!drift_watch.receive(&events, &db0(), at(0)));
        assert_eq!(told(&drift_watch), [""; 0]);
    }

    #[test]
    fn drift_is_not_repaired_with_on_drift_report_and_its_start_is_in_the_status() {
        let mut drift_watch = on(OnDrift::Report);
        for second in 3..100 {
            assert!(!drift_watch.found(DriftState::Repairable, at(second)));
        }
        assert_eq!(drift_watch.status(at(100), None).since, Some(at(3).wall.to_string()));
        assert!(!drift_watch.found(DriftState::None, at(101)));
        assert_eq!(drift_watch.status(at(102), None).since, None);
        assert_eq!(told(&drift_watch).len(), 2);
        drift_watch.begin(Some(Seen { index: 7, is_up: true, has_carrier: true }));
        assert_eq!(told(&drift_watch), [""; 0], "a change empties the list of incidents");
    }

    #[test]
    fn each_undone_repair_doubles_the_wait_and_two_minutes_without_a_repair_reset_it() {
        let mut drift_watch = on(OnDrift::Repair);
        let mut repairs = Vec::new();
        // Another program undoes each repair at once.
        for second in 0..400 {
            if drift_watch.found(DriftState::Repairable, at(second)) {
                drift_watch.tried(at(second));
                drift_watch.repaired(1, 7, at(second));
                repairs.push(second);
            }
        }
        assert_eq!(repairs, [0, 1, 3, 7, 15, 31, 63, 123, 183, 243, 303, 363]);
        assert_eq!(drift_watch.status(at(400), None).repairs, 12);
        assert!(!drift_watch.found(DriftState::Repairable, at(400)));
        assert_eq!(drift_watch.status(at(400), None).next_try, Some(23.0));
        assert!(drift_watch.receive(&[], &db0(), at(423)), "a comparison is due after the wait");
        assert!(drift_watch.found(DriftState::Repairable, at(500)), "two minutes without a repair reset the wait");
    }

    #[test]
    fn a_repair_refused_before_it_writes_is_retried_at_the_next_event() {
        let mut drift_watch = on(OnDrift::Repair);
        for second in 0..5 {
            assert!(drift_watch.found(DriftState::Repairable, at(second)));
            drift_watch.refused("it has no address".to_owned(), at(second));
        }
        assert_eq!(drift_watch.status(at(5), None).obstacle.as_deref(), Some("it has no address"));
        assert!(drift_watch.receive(&[Event::Address { index: 7 }], &db0(), at(4)));
        assert!(!drift_watch.receive(&[], &db0(), at(4)) && drift_watch.receive(&[], &db0(), at(5)));
        drift_watch.tried(at(5));
        drift_watch.repaired(9, 12, at(5));
        assert_eq!((drift_watch.ours(), drift_watch.status(at(5), None).obstacle), (Some(12), None));
    }

    #[test]
    fn drift_that_the_agent_cannot_repair_starts_no_repair() {
        let mut drift_watch = on(OnDrift::Repair);
        assert!(!drift_watch.found(DriftState::ByHand, at(0)));
        assert!(drift_watch.status(at(0), None).since.is_some());
    }

    #[test]
    fn a_failed_comparison_is_no_drift_and_is_retried() {
        let mut drift_watch = on(OnDrift::Repair);
        drift_watch.refused("the kernel did not answer".to_owned(), at(0));
        let status = drift_watch.status(at(0), None);
        assert_eq!((status.since, status.incidents.len()), (None, 0));
        assert!(drift_watch.receive(&[], &db0(), at(1)), "a comparison is due again after a second");
    }

    #[test]
    fn only_the_last_16_incidents_are_kept() {
        let mut drift_watch = on(OnDrift::Report);
        for second in 0..100 {
            drift_watch.receive(&[link(7, "db0", second % 2 == 1, true)], &db0(), at(second));
        }
        assert_eq!(told(&drift_watch).len(), REMEMBERED);
        assert_eq!(told(&drift_watch).last().unwrap(), "interface db0 went up");
    }
}
