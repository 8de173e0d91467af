//! What others do to the interface, and what is done about it: [`DriftWatch`].
//!
//! The kernel tells that something has happened ([`Event`]); then the agent looks, and what it sees decides. Nothing here
//! looks or writes: the node does, and says what it saw and what came of it.
//!
//! A repair that wrote something is not followed by another one at once: the second waits a second, each next one twice as
//! long, a minute at the most, until there was none for two minutes. So two agents, or an agent and another tool, that roll back
//! each other's work never do so in a tight loop. What was refused before anything was written (an interface that is made
//! again and has no address yet) is tried again as soon as something happens, and every second.

use std::{collections::VecDeque, time::Duration};

use tracing::warn;

use crate::{
    agent::Now,
    kernel::Event,
    plan::{IfName, Moment},
    wire::{DRIFTS, Incident, OnDrift, WatchStatus},
};

/// How many incidents are remembered.
const REMEMBERED: usize = 16;

/// How long after a repair the next one waits, if it is the second.
const FIRST_WAIT: Duration = Duration::from_secs(1);

/// How long it waits at the most.
const LONGEST_WAIT: Duration = Duration::from_mins(1);

/// After how long without a repair the next one is a first one again.
const CALM: Duration = Duration::from_mins(2);

/// How long after a look that failed, or a repair that was refused, the next one comes, if nothing happens before.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// What is known of the interface, and of what was done about it.
#[derive(Debug, Default)]
pub(super) struct DriftWatch {
    on_drift: OnDrift,
    /// The interface that has what is in force, if anything is.
    ours: Option<u32>,
    /// It, as it was seen last; `None`: it is not there.
    seen: Option<Seen>,
    /// Since when it has not had what is in force.
    since: Option<Moment>,
    incidents: VecDeque<(Moment, String)>,
    repairs: u64,
    /// How many repairs wrote something since the last calm.
    tries: u32,
    /// The uptime of the last one.
    last_try: Option<Duration>,
    /// The uptime at which is looked although nothing has happened.
    look_at: Option<Duration>,
    obstacle: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    index: u32,
    is_up: bool,
    has_carrier: bool,
}

/// What a look at the interface came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DriftState {
    /// It has what is in force.
    AsWanted,
    /// It does not, and whoever may write can mend it.
    Differs,
    /// It does not, and what has to be done is not the agent's to do: it is down or gone.
    OutOfReach,
}

impl DriftWatch {
    pub(super) fn new(on_drift: OnDrift) -> Self {
        Self { on_drift, ..Self::default() }
    }

    /// The interface has what is in force, by a change of ours; `None`: nothing is.
    pub(super) fn begin(&mut self, ours: Option<(u32, bool, bool)>) {
        self.ours = ours.map(|(index, ..)| index);
        self.seen = ours.map(|(index, is_up, has_carrier)| Seen { index, is_up, has_carrier });
        self.since = None;
        self.incidents.clear();
        self.obstacle = None;
        self.look_at = None;
    }

    /// The index of the interface that has what is in force.
    pub(super) fn ours(&self) -> Option<u32> {
        self.ours
    }

    /// Hears what has happened. Answers whether it is time to look at the interface of that name.
    pub(super) fn hear(&mut self, events: &[Event], name: &IfName, now: Now) -> bool {
        let mut concerns = false;
        for event in events {
            concerns |= match event {
                Event::Link { index, name: told, is_up, has_carrier } => {
                    let seen = Seen { index: *index, is_up: *is_up, has_carrier: *has_carrier };
                    self.hear_of_link(seen, told, name, now)
                }
                Event::Gone { index } => {
                    self.is_seen(*index) && {
                        self.seen = None;
                        self.note(now, format!("interface {name} was deleted"));
                        true
                    }
                }
                Event::Shaping { index } | Event::Address { index } => self.is_seen(*index),
                Event::Lost => true,
            };
        }
        (concerns && self.ours.is_some()) || self.is_due(now)
    }

    /// The uptime at which it is to be looked at although nothing has happened.
    pub(super) fn next_look(&self) -> Option<Duration> {
        self.look_at
    }

    /// Whether it is to be looked at although nothing has happened.
    pub(super) fn is_due(&self, now: Now) -> bool {
        self.look_at.is_some_and(|at| at <= now.uptime)
    }

    fn hear_of_link(&mut self, link: Seen, told: &str, name: &IfName, now: Now) -> bool {
        if told != name.as_str() {
            return self.is_seen(link.index) && {
                self.seen = None;
                self.note(now, format!("interface {name} was renamed to {told}"));
                true
            };
        }
        match self.seen.replace(link) {
            Some(seen) if seen == link => {}
            Some(seen) if seen.index == link.index => {
                let what = match (seen.is_up == link.is_up, link.is_up, link.has_carrier) {
                    (false, true, _) => "went up",
                    (false, false, _) => "went down",
                    (true, _, true) => "has a carrier again",
                    (true, _, false) => "lost its carrier",
                };
                self.note(now, format!("interface {name} {what}"));
            }
            _ if self.ours == Some(link.index) => self.note(now, format!("interface {name} has its name again")),
            _ => self.note(now, format!("interface {name} was made again, as another one")),
        }
        true
    }

    fn is_seen(&self, index: u32) -> bool {
        self.seen.is_some_and(|seen| seen.index == index)
    }

    /// Whether it was seen to have something else than what is in force.
    pub(super) fn differs(&self) -> bool {
        self.since.is_some()
    }

    /// Looks at it as soon as the node is tended.
    pub(super) fn look_again(&mut self, now: Now) {
        if self.differs() && self.on_drift == OnDrift::Repair {
            self.look_at.get_or_insert(now.uptime);
        }
    }

    /// Has seen the interface. Answers whether it is time to repair it.
    pub(super) fn see(&mut self, sight: DriftState, now: Now) -> bool {
        self.look_at = None;
        if sight == DriftState::AsWanted {
            if let Some(since) = self.since.take() {
                self.note(now, format!("the kernel has what is in force again, which it had not since {since}"));
            }
            self.obstacle = None;
            return false;
        }
        if self.since.is_none() {
            self.since = Some(now.wall);
            self.note(now, DRIFTS.to_owned());
        }
        if self.on_drift == OnDrift::Report || sight == DriftState::OutOfReach {
            self.obstacle = None;
            return false;
        }
        let wait = self.next_try().map(|at| at.saturating_sub(now.uptime)).unwrap_or_default();
        if !wait.is_zero() {
            self.look_at = Some(now.uptime + wait);
        }
        wait.is_zero()
    }

    /// The look itself failed, which says nothing about the interface.
    pub(super) fn could_not_look(&mut self, why: String, now: Now) {
        self.refused(why, now);
    }

    /// A repair was refused before anything was written.
    pub(super) fn refused(&mut self, why: String, now: Now) {
        // Once is enough in the log, however often it is tried again.
        if self.obstacle.as_ref() != Some(&why) {
            warn!("What somebody else has changed could not be repaired: {why}.");
        }
        self.obstacle = Some(why);
        self.look_at = Some(now.uptime + LOOK_AGAIN);
    }

    /// A repair was tried, which is not to be tried again too soon.
    pub(super) fn tried(&mut self, now: Now) {
        let was_calm = self.last_try.is_none_or(|last| now.uptime.saturating_sub(last) > CALM);
        self.tries = if was_calm { 1 } else { self.tries.saturating_add(1) };
        self.last_try = Some(now.uptime);
    }

    /// What was tried came to nothing.
    pub(super) fn failed(&mut self, why: String, now: Now) {
        self.refused(why, now);
        self.look_at = self.next_try();
    }

    /// The interface, which may be another one, has what is in force again.
    pub(super) fn repaired(&mut self, writes: usize, ours: u32, now: Now) {
        self.repairs += 1;
        self.ours = Some(ours);
        let since = self.since.take().unwrap_or(now.wall);
        let steps = if writes == 1 { "1 step".to_owned() } else { format!("{writes} steps") };
        self.note(now, format!("repaired in {steps} what was amiss since {since}"));
        (self.obstacle, self.look_at) = (None, None);
    }

    /// The uptime before which no repair is tried.
    fn next_try(&self) -> Option<Duration> {
        let wait = FIRST_WAIT.saturating_mul(1_u32.checked_shl(self.tries.saturating_sub(1)).unwrap_or(u32::MAX));
        let wait = wait.min(LONGEST_WAIT);
        self.last_try.filter(|_| self.tries > 0).map(|last| last + wait)
    }

    fn note(&mut self, now: Now, what: String) {
        // What befalls an interface on which nothing of ours is concerns nobody.
        if self.ours.is_none() {
            return;
        }
        warn!("{what}.");
        self.incidents.push_back((now.wall, what));
        if self.incidents.len() > REMEMBERED {
            self.incidents.pop_front();
        }
    }

    /// What is told of it.
    pub(super) fn status(&self, now: Now, journal_behind: Option<String>) -> WatchStatus {
        let incident = |(at, what): &(Moment, String)| Incident { at: at.to_string(), what: what.clone() };
        let waits = self.since.is_some() && self.on_drift == OnDrift::Repair;
        let next_try = self.look_at.filter(|_| waits).map(|at| at.saturating_sub(now.uptime).as_secs_f64());
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
        drift_watch.begin(Some((7, true, true)));
        drift_watch
    }

    fn link(index: u32, name: &str, is_up: bool, has_carrier: bool) -> Event {
        Event::Link { index, name: name.to_owned(), is_up, has_carrier }
    }

    fn told(drift_watch: &DriftWatch) -> Vec<String> {
        drift_watch.status(at(0), None).incidents.into_iter().map(|incident| incident.what).collect()
    }

    #[test]
    fn what_befalls_the_interface_is_told_and_what_befalls_others_is_not() {
        let mut drift_watch = on(OnDrift::Report);
        let others = [
            link(8, "eth0", false, false),
            Event::Gone { index: 9 },
            Event::Shaping { index: 8 },
            link(7, "db0", true, true),
        ];
        assert!(!drift_watch.hear(&others[..3], &db0(), at(0)));
        assert!(drift_watch.hear(&others[3..], &db0(), at(0)), "a link of which something else changed is looked at");
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
            assert!(drift_watch.hear(&[event], &db0(), at(0)));
        }
        assert_eq!(
            told(&drift_watch),
            [
                "interface db0 went down",
                "interface db0 went up",
                "interface db0 has a carrier again",
                "interface db0 was deleted",
                "interface db0 was made again, as another one",
                "interface db0 was renamed to x",
                "interface db0 has its name again",
            ]
        );
        assert!(drift_watch.hear(&[Event::Lost], &db0(), at(0)));
    }

    #[test]
    fn an_interface_on_which_nothing_is_in_force_is_nobodys_concern() {
        let mut drift_watch = DriftWatch::new(OnDrift::Repair);
        let events = [link(7, "db0", true, true), Event::Lost, Event::Gone { index: 7 }];
        assert!(!drift_watch.hear(&events, &db0(), at(0)));
        assert_eq!(told(&drift_watch), [""; 0]);
    }

    #[test]
    fn what_is_only_to_be_reported_is_never_repaired_and_says_since_when() {
        let mut drift_watch = on(OnDrift::Report);
        for second in 3..100 {
            assert!(!drift_watch.see(DriftState::Differs, at(second)));
        }
        assert_eq!(drift_watch.status(at(100), None).since, Some(at(3).wall.to_string()));
        assert!(!drift_watch.see(DriftState::AsWanted, at(101)));
        assert_eq!(drift_watch.status(at(102), None).since, None);
        assert_eq!(told(&drift_watch).len(), 2);
        drift_watch.begin(Some((7, true, true)));
        assert_eq!(told(&drift_watch), [""; 0], "a change of ours is a new beginning");
    }

    #[test]
    fn repairs_that_do_not_last_come_less_and_less_often_and_at_once_again_after_a_calm() {
        let mut drift_watch = on(OnDrift::Repair);
        let mut repairs = Vec::new();
        // Somebody rolls back each of them at once.
        for second in 0..400 {
            if drift_watch.see(DriftState::Differs, at(second)) {
                drift_watch.tried(at(second));
                drift_watch.repaired(1, 7, at(second));
                repairs.push(second);
            }
        }
        assert_eq!(repairs, [0, 1, 3, 7, 15, 31, 63, 123, 183, 243, 303, 363]);
        assert_eq!(drift_watch.status(at(400), None).repairs, 12);
        assert!(!drift_watch.see(DriftState::Differs, at(400)));
        assert_eq!(drift_watch.status(at(400), None).next_try, Some(23.0));
        assert!(drift_watch.hear(&[], &db0(), at(423)), "it is looked at when the time has come");
        assert!(drift_watch.see(DriftState::Differs, at(500)), "after a calm, the first repair comes at once");
    }

    #[test]
    fn what_is_refused_before_it_is_written_is_tried_again_as_soon_as_something_happens() {
        let mut drift_watch = on(OnDrift::Repair);
        for second in 0..5 {
            assert!(drift_watch.see(DriftState::Differs, at(second)));
            drift_watch.refused("it has no address".to_owned(), at(second));
        }
        assert_eq!(drift_watch.status(at(5), None).obstacle.as_deref(), Some("it has no address"));
        assert!(drift_watch.hear(&[Event::Address { index: 7 }], &db0(), at(4)));
        assert!(!drift_watch.hear(&[], &db0(), at(4)) && drift_watch.hear(&[], &db0(), at(5)));
        drift_watch.tried(at(5));
        drift_watch.repaired(9, 12, at(5));
        assert_eq!((drift_watch.ours(), drift_watch.status(at(5), None).obstacle), (Some(12), None));
    }

    #[test]
    fn what_only_others_can_mend_is_not_tried() {
        let mut drift_watch = on(OnDrift::Repair);
        assert!(!drift_watch.see(DriftState::OutOfReach, at(0)));
        assert!(drift_watch.status(at(0), None).since.is_some());
    }

    #[test]
    fn a_look_that_failed_says_nothing_about_the_interface() {
        let mut drift_watch = on(OnDrift::Repair);
        drift_watch.could_not_look("the kernel did not answer".to_owned(), at(0));
        let status = drift_watch.status(at(0), None);
        assert_eq!((status.since, status.incidents.len()), (None, 0));
        assert!(drift_watch.hear(&[], &db0(), at(1)), "it is looked at again");
    }

    #[test]
    fn only_the_last_incidents_are_remembered() {
        let mut drift_watch = on(OnDrift::Report);
        for second in 0..100 {
            drift_watch.hear(&[link(7, "db0", second % 2 == 1, true)], &db0(), at(second));
        }
        assert_eq!(told(&drift_watch).len(), REMEMBERED);
        assert_eq!(told(&drift_watch).last().unwrap(), "interface db0 went up");
    }
}
