//! A change on one node: planned, prepared, made ready, committed. Each step checks all that it can before it does anything.

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use tracing::{info, warn};

use super::{
    Checked, Node, Ready,
    enforcer::{Foreign, Staged},
    guard,
    journal::Held,
    status,
    transactions::{Effect, Event, Refusal},
};
use crate::{
    agent::{Now, Via},
    kernel::{Interface, Kernel},
    plan::{Change, Partition, TimedId, Wanted},
    wire::{ApiError, Commit, Committed, ErrorCode, PartitionEnded, Plan, Prepare, Prepared},
};

/// How long a change stays prepared if its controller never comes back.
const PREPARED_FOR: Duration = Duration::from_secs(15);

/// How long after its instant a change is still made: no controller waits for longer for an agent that was held up.
const LATEST: Duration = Duration::from_secs(10);

/// How long a change may be asked to be in force without being confirmed.
const LONGEST_UNCONFIRMED: Duration = Duration::from_mins(1);

/// How far ahead the agreed instant of a change may be. A controller agrees on one within two seconds.
const FURTHEST: Duration = Duration::from_secs(5);

/// How long after the writes of an agreed instant is read back what they came to.
const PAUSE: Duration = Duration::from_millis(30);

/// How long after the agreed instant a node is told so by its own clock if not for the clock, but because it was busy.
const LATE_AFTER: Duration = Duration::from_secs(1);

/// A change that is possible.
struct Possible {
    held: Held,
    interface: Interface,
    change: Change,
    warnings: Vec<String>,
}

impl<K: Kernel> Node<K> {
    /// Checks everything and computes the change for a controller on this machine; writes nothing.
    pub fn prepare(&mut self, request: Prepare, now: Now) -> Result<Prepared, ApiError> {
        self.prepare_via(request, Via::default(), now)
    }

    /// The same for one whose requests come by a network.
    pub fn prepare_via(&mut self, request: Prepare, via: Via, now: Now) -> Result<Prepared, ApiError> {
        self.expire(now)?;
        let Prepare { ticket, base, wanted } = request;
        let waits = self.transactions.unfinished().is_some_and(|until| now.uptime < until);
        let on_all = !waits || wanted.is_on_all_of(&self.held().document);
        self.step(Event::Prepare { ticket: ticket.clone(), base, on_all }, now)?;
        let Possible { held, interface, change, warnings } = self.dry_run(wanted, &via, now)?;
        // A disk that is full is found before any node has changed.
        self.check_journal(&held, &ticket)?;
        let checked = Checked { wanted: held.document, via, interface: interface.index };
        let until = now.uptime.saturating_add(PREPARED_FOR);
        self.step(Event::Checked(ticket, until, checked), now)?;
        Ok(Prepared { interface: interface.name, change, warnings, clock: None })
    }

    /// Checks everything and computes the change, for whoever only wants to know. Nobody is kept out, and what another
    /// controller has prepared stays so.
    pub fn plan(&mut self, request: Plan, via: Via, now: Now) -> Result<Prepared, ApiError> {
        self.expire(now)?;
        // The answer would be outdated in a moment, and the writes of that change must not wait for it.
        if self.transactions.is_ready() {
            return Err(self.refused(Refusal::Prepared, now));
        }
        if request.base != self.stamp() {
            return Err(self.refused(Refusal::AnotherDocument, now));
        }
        let Possible { interface, change, warnings, .. } = self.dry_run(request.wanted, &via, now)?;
        Ok(Prepared { interface: interface.name, change, warnings, clock: None })
    }

    /// The change from what is in force to `document`, of which every step is found to be possible.
    fn dry_run(&mut self, document: Wanted, via: &Via, now: Now) -> Result<Possible, ApiError> {
        let unfit = document.check().and_then(|()| document.check_for(&self.enforcer.config.node));
        let unfit = unfit.and_then(|()| document.check_after(&self.stamp()));
        unfit.map_err(|unfit| ApiError::new(ErrorCode::BadRequest, unfit))?;
        if let Err(error) = self.reconcile(now) {
            warn!(%error, "The kernel could not be brought in line with the journal.");
        }
        // What has ended here stays so, if the controller did not know it yet.
        let timeline = self.held().timeline.renewed(&document, now.wall, now);
        let absent = timeline.absent(now.uptime);
        let wanted = document.without(&absent.ended);
        let interface = self.enforcer.interface(&self.in_force, &wanted, via)?;
        guard::check_links(&self.enforcer.config, &wanted)?;
        // What is only to come is tried now as well: later nobody is there to be told.
        let (mut change, left) = self.enforcer.dry_run(&interface, &self.in_force, &wanted)?;
        if !absent.asleep.is_empty() {
            let foreign = Foreign::to_change(&self.in_force, &wanted);
            change = self.enforcer.change(&interface, &document.in_force(&absent), foreign)?;
        }
        let left_out = self.left_out(&document, &interface);
        let mut warnings = status::warnings(&self.enforcer.config.node, &interface, &document, &left_out);
        warnings.extend(left);
        Ok(Possible { held: Held { document, timeline, left_out }, interface, change, warnings })
    }

    /// The addresses of the interface that a document does not name, and that are no news: the interface had them when the
    /// node was put there.
    fn left_out(&self, document: &Wanted, interface: &Interface) -> BTreeSet<IpAddr> {
        let place = |wanted: &Wanted| {
            let place = wanted.inventory.nodes.get(&self.enforcer.config.node)?;
            Some((place.interface.clone(), place.addresses.clone()))
        };
        let before = self.held();
        if !before.document.is_clear() && place(&before.document) == place(document) {
            return before.left_out.clone();
        }
        let place = document.inventory.nodes.get(&self.enforcer.config.node);
        place.map(|place| status::unnamed(interface, place)).unwrap_or_default()
    }

    /// Does everything of a commit but the writes to the kernel. Answers how long it still is to the agreed instant.
    pub fn make_ready(&mut self, request: &Commit, now: Now) -> Result<Duration, ApiError> {
        self.expire(now)?;
        if let Effect::Answer(_) = self.step(Event::GetReady(request.ticket.clone()), now)? {
            return Ok(Duration::ZERO);
        }
        let now = now.by_controller(request.clock_ahead_ns);
        let wait = request.at.and_then(|at| at.since(now.wall)).unwrap_or_default();
        if wait > FURTHEST {
            return Err(ApiError::new(
                ErrorCode::Refused,
                format!(
                    "the instant at which all nodes are to change is {:.1} s ahead of this node's clock; set the \
                     clocks of the nodes and of this machine by NTP",
                    wait.as_secs_f64()
                ),
            ));
        }
        if request.confirm_within > LONGEST_UNCONFIRMED {
            let longest = LONGEST_UNCONFIRMED.as_secs();
            let message = format!("a change may wait for {longest} s at most until it is confirmed");
            return Err(ApiError::new(ErrorCode::Refused, message));
        }
        let told_late = request.at.and_then(|at| now.wall.since(at)).filter(|late| *late > LATE_AFTER);
        if let Some(late) = told_late {
            warn!(node = %self.enforcer.config.node, ?late, "Told after the agreed instant: the clocks differ.");
        }
        let at = request.at.filter(|_| told_late.is_none()).unwrap_or(now.wall);
        let Checked { wanted, via, interface: checked } =
            self.transactions.prepared(&request.ticket).ok_or_else(|| self.refused(Refusal::NotPrepared, now))?;
        let (document, via, checked) = (wanted.clone(), *via, *checked);
        let timeline = self.held().timeline.renewed(&document, at, now);
        let absent = timeline.absent(now.after(wait).uptime);
        let in_force = document.in_force(&absent);
        let interface = self.enforcer.interface(&self.in_force, &in_force, &via)?;
        if interface.index != checked {
            return Err(ApiError::new(
                ErrorCode::Failed,
                format!("interface {} was deleted and made again after it was checked; try again", interface.name),
            ));
        }
        let left_out = self.left_out(&document, &interface);
        let foreign = Foreign::to_change(&self.in_force, &in_force);
        let staged = self.enforcer.stage(interface, in_force, foreign)?;
        let held = Held { document, timeline, left_out };
        if let Err(error) = self.write_journal_before(&held, &request.ticket) {
            self.enforcer.forget(&staged);
            return Err(error);
        }
        self.step(Event::Staged(held, Ready { at: now.after(wait).uptime, absent, staged, told_late }), now)?;
        Ok(wait)
    }

    /// Does what was prepared, reads it back, and answers only if the kernel now has what is wanted. It is taken back by
    /// itself unless it is confirmed in time. Asked again, it gives the same answer.
    ///
    /// What lasts for a time begins at the agreed instant, unless it has begun before or begins later.
    pub fn commit(&mut self, request: &Commit, clock: &dyn Fn() -> Now) -> Result<Committed, ApiError> {
        let mut effect = self.step_at(Event::Commit(request.ticket.clone()), clock)?;
        if matches!(effect, Effect::Compute) {
            self.make_ready(request, clock())?;
            effect = self.step_at(Event::Commit(request.ticket.clone()), clock)?;
        }
        let (held, Ready { at, absent, mut staged, told_late }) = match effect {
            Effect::Write(held, ready) => (held, ready),
            Effect::Answer(committed) => return Ok(committed),
            _ => return Err(self.refused(Refusal::NotPrepared, clock())),
        };
        self.ahead = None;
        let late = clock().uptime.saturating_sub(at);
        if late > LATEST {
            self.enforcer.forget(&staged);
            self.update_journal(clock());
            let message = format!("the agent was held up for {:.1} s over the agreed instant", late.as_secs_f64());
            return Err(ApiError::new(ErrorCode::Failed, message));
        }
        let mut ended = self.ended_by(&staged);
        // A packet may have come since: nothing is said of a partition that has cut nothing unless that is so.
        if ended.iter().any(|ended| ended.cut == 0) {
            self.enforcer.count_again(&mut staged);
            ended = self.ended_by(&staged);
        }
        let pause = if request.at.is_some() { PAUSE } else { Duration::ZERO };
        let by_controller = || clock().by_controller(request.clock_ahead_ns);
        let written = match self.enforcer.strike_with_others(&staged, &by_controller, pause) {
            Ok(written) => written,
            Err(error) => {
                if error.code == ErrorCode::Broken {
                    self.unreconciled = Some(staged.wanted);
                }
                self.update_journal(clock());
                return Err(error);
            }
        };
        // The journal says all the time from before the first write on that this is not done.
        let committed =
            Committed { stamp: held.document.stamp(), writes: written.writes, onset: written.onset, told_late, ended };
        let now = clock();
        let until = now.uptime.saturating_add(request.confirm_within);
        self.step(Event::Committed(request.ticket.clone(), held, until, committed.clone()), now)?;
        self.reset_drift_watch(staged.interface(), &staged.wanted);
        (self.absent, self.in_force, self.unreconciled) = (absent, staged.wanted, None);
        self.behind = None;
        info!(node = %self.enforcer.config.node, writes = written.writes, "{} is in force.", committed.stamp);
        Ok(committed)
    }

    /// What the partitions have cut that are in force and that a change ends.
    fn ended_by(&self, staged: &Staged) -> Vec<PartitionEnded> {
        let lasts: BTreeSet<TimedId> = staged.wanted.partitions.iter().map(Partition::id).collect();
        let ended = |partition: &Partition| {
            let cuts = self.in_force.cuts_of(partition, &self.enforcer.config.node);
            let cut = staged.counters().cut(cuts)?.packets;
            Some(PartitionEnded { name: partition.name.clone(), ports: partition.ports.clone(), cut })
        };
        self.in_force.partitions.iter().filter(|partition| !lasts.contains(&partition.id())).filter_map(ended).collect()
    }
}
