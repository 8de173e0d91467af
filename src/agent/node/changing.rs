//! Makes a change on one node in steps: plan, prepare, get ready, commit.
//!
//! Each step checks its request before it writes anything.

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use tracing::{info, warn};

use super::{
    Checked, Node, Ready,
    enforcer::{Foreign, Staged},
    guard,
    journal::Held,
    shared::Shared,
    status,
    transactions::{Effect, Event, Refusal},
};
use crate::{
    agent::{Now, Via},
    kernel::{Interface, Kernel},
    plan::{Delta, NodeLocation, Partition, Stamp, TimedId, Wanted},
    wire::{
        ApiError, Commit, Committed, ErrorCode, GetReady, PartitionEnded, Plan, Prepare, Prepared, Ticket, new_document,
    },
};

/// Time after which a prepared change is cancelled if the controller has not committed it.
const PREPARED_FOR: Duration = Duration::from_secs(15);

/// Largest delay of a commit after the commit time. A controller does not wait longer for a busy agent.
const LATEST: Duration = Duration::from_secs(10);

/// Longest time to confirm a committed change.
const LONGEST_UNCONFIRMED: Duration = Duration::from_mins(1);

/// Largest time from now to the commit time. Controllers choose 2 s at most.
const FURTHEST: Duration = Duration::from_secs(5);

/// Pause between the writes and the reads that check them, so that the reads do not delay other nodes on this machine,
/// which write at the same time.
const PAUSE: Duration = Duration::from_millis(30);

/// A request that comes later than this after the commit time shows that the clocks differ. A busy machine may cause a
/// shorter delay.
const LATE_AFTER: Duration = Duration::from_secs(1);

/// A change that has passed all checks and the dry run.
struct Possible {
    held: Held,
    /// The index of the interface.
    interface: u32,
    prepared: Prepared,
}

impl<K: Kernel> Node<K> {
    /// Checks and computes a change, and prepares the change for its commit. A prepared change is cancelled when its
    /// lease expires.
    pub fn prepare_via(&mut self, request: Prepare, via: Via, now: Now) -> Result<Prepared, ApiError> {
        self.expire(now)?;
        let Prepare { ticket, base, wanted, edit } = request;
        // An edit of another document is refused below.
        let wanted = self.new_document(wanted, edit);
        let waits = self.transactions.unfinished().is_some_and(|until| now.uptime < until);
        let leaves_out = |wanted: &Shared| !wanted.is_on_all_of(&self.held().document);
        let on_all = !waits || !wanted.as_ref().is_ok_and(leaves_out);
        self.step(Event::Prepare { ticket: ticket.clone(), base, on_all }, now)?;
        let Possible { held, interface, mut prepared } = self.check(wanted?, &via, now)?;
        prepared.change.omit_filters();
        let checked = Checked { wanted: held.document, via, interface };
        let until = now.uptime.saturating_add(PREPARED_FOR);
        self.step(Event::Checked(ticket, until, checked), now)?;
        Ok(prepared)
    }

    /// Checks and computes a change without preparing it. Takes no lease.
    pub fn plan(&mut self, request: Plan, via: Via, now: Now) -> Result<Prepared, ApiError> {
        self.expire(now)?;
        // While a change waits for its commit time, no plan is computed: the commit would make the plan outdated, and
        // the plan would delay the commit.
        if self.transactions.is_ready() {
            return Err(self.refused(Refusal::Prepared, now));
        }
        if request.base != self.stamp() {
            return Err(self.refused(Refusal::AnotherDocument, now));
        }
        let wanted = self.new_document(request.wanted, request.edit)?;
        Ok(self.check(wanted, &via, now)?.prepared)
    }

    /// The document of a change.
    fn new_document(&self, wanted: Option<Wanted>, edit: Option<Delta>) -> Result<Shared, ApiError> {
        let stamp = edit.as_ref().map(Delta::stamp);
        Ok(Shared::new(new_document(wanted, edit, &self.held().document)?, stamp))
    }

    /// Checks and computes the change from the state in force to `document`.
    fn check(&mut self, document: Shared, via: &Via, now: Now) -> Result<Possible, ApiError> {
        let checked = document.check().and_then(|()| document.check_for(self.name()));
        let checked = checked.and_then(|()| document.check_after(&self.stamp()));
        checked.map_err(|error| ErrorCode::BadRequest.error(error))?;
        if let Err(error) = self.reconcile(now) {
            warn!(%error, "The kernel does not match the journal.");
        }
        // Leaves out timed changes that have ended here, because the controller may not know yet that they have.
        let timeline = self.held().timeline.renewed(&document, now.wall, now);
        let absent = timeline.absent(now.uptime);
        let wanted = document.without(&absent.ended);
        let interface = self.enforcer.interface(&self.in_force, &wanted, via)?;
        guard::check_links(&self.enforcer.config, &wanted)?;
        // The dry run includes the timed changes that start later, because no controller sees errors at their start.
        let (mut change, left) = self.enforcer.dry_run(&interface, &self.in_force, &wanted)?;
        if !absent.inactive.is_empty() {
            let foreign = Foreign::to_change(&self.in_force, &wanted);
            change = self.enforcer.change(&interface, &document.in_force(&absent), foreign)?;
        }
        let left_out = self.left_out(&document, &interface);
        let mut warnings = status::warnings(self.name(), &interface, &document, &left_out);
        warnings.extend(left);
        let prepared = Prepared { interface: interface.name, change, warnings, clock: None };
        Ok(Possible { held: Held { document, timeline, left_out }, interface: interface.index, prepared })
    }

    /// The addresses of the interface that the document does not name and that are no drift.
    ///
    /// A change of a clear node, or of the node's interface or addresses in the inventory, makes this list anew. Other
    /// changes keep the list.
    fn left_out(&self, document: &Wanted, interface: &Interface) -> BTreeSet<IpAddr> {
        let place = document.inventory.nodes.get(self.name());
        let Held { document: before, left_out, .. } = self.held();
        let had = before.inventory.nodes.get(self.name());
        let location = |place: &NodeLocation| (place.interface.clone(), place.addresses.clone());
        if !before.is_clear() && had.map(location) == place.map(location) {
            return left_out.clone();
        }
        place.map(|place| status::unnamed(interface, place)).unwrap_or_default()
    }

    /// Writes the part of the prepared change that affects no packet, so that the commit writes only the switch.
    pub fn get_ready(&mut self, request: &GetReady, now: Now) -> Result<Stamp, ApiError> {
        self.expire(now)?;
        if matches!(self.step(Event::GetReady(request.ticket.clone()), now)?, Effect::Compute) {
            self.stage_prepared(&request.ticket, now, None, now)?;
        }
        Ok(self.stamp())
    }

    /// Does the work of a commit that precedes the switch, unless [`get_ready`](Self::get_ready) has done this work.
    /// Returns the time until the commit time; zero: commit at once.
    pub fn make_ready(&mut self, request: &Commit, now: Now) -> Result<Duration, ApiError> {
        self.expire(now)?;
        if let Effect::Answer(_) = self.step(Event::GetReady(request.ticket.clone()), now)? {
            return Ok(Duration::ZERO);
        }
        let now = now.by_controller(request.clock_ahead_ns);
        let wait = request.at.and_then(|at| at.since(now.wall)).unwrap_or_default();
        if wait > FURTHEST {
            return Err(ErrorCode::Refused.error(format!(
                "the commit time is {:.1} s ahead of this node's clock; synchronise the clocks of the nodes and of this \
                 machine by NTP",
                wait.as_secs_f64()
            )));
        }
        if request.confirm_within > LONGEST_UNCONFIRMED {
            let longest = LONGEST_UNCONFIRMED.as_secs();
            let message = format!("a change must be confirmed within {longest} s at most");
            return Err(ErrorCode::Refused.error(message));
        }
        let told_late = request.at.and_then(|at| now.wall.since(at)).filter(|late| *late > LATE_AFTER);
        if let Some(late) = told_late {
            warn!(node = %self.name(), ?late, "The request came after the commit time: the clocks differ.");
        }
        let wall = request.at.filter(|_| told_late.is_none()).unwrap_or(now.wall);
        self.stage_prepared(&request.ticket, Now { wall, ..now.after(wait) }, told_late, now)?;
        Ok(wait)
    }

    /// Computes the prepared change for the commit time `at`, and writes the journal and the preparation. Keeps a change
    /// that is already computed, unless other parts of the document are in force at the commit time.
    fn stage_prepared(
        &mut self,
        ticket: &Ticket,
        at: Now,
        told_late: Option<Duration>,
        now: Now,
    ) -> Result<(), ApiError> {
        let Checked { wanted: document, via, interface } =
            self.transactions.prepared(ticket).cloned().ok_or_else(|| self.refused(Refusal::NotPrepared, now))?;
        let timeline = self.held().timeline.renewed(&document, at.wall, now);
        let absent = timeline.absent(at.uptime);
        let computed = match self.step(Event::Outdated, now)? {
            Effect::Discard(computed) => computed,
            _ => None,
        };
        let (held, staged) = match computed {
            Some(computed) if computed.absent == absent => {
                let left_out = self.left_out(&document, &computed.staged.interface);
                (Held { document, timeline, left_out }, computed.staged)
            }
            computed => {
                if let Some(computed) = computed {
                    self.discard(computed.staged);
                }
                let in_force = document.in_force(&absent);
                let own = self.enforcer.interface(&self.in_force, &in_force, &via)?;
                if own.index != interface {
                    return Err(ErrorCode::Failed.error(format!(
                        "interface {} was deleted and created again after the check; try again",
                        own.name
                    )));
                }
                let held = Held { left_out: self.left_out(&document, &own), document, timeline };
                let foreign = Foreign::to_change(&self.in_force, &in_force);
                let staged = self.enforcer.stage(own, in_force, foreign)?;
                let staged = self.write_preparation(staged, &held, ticket, now)?;
                (held, staged)
            }
        };
        self.step(Event::Staged(held, Ready { at: at.uptime, absent, staged, told_late }), now)?;
        Ok(())
    }

    /// Writes the journal and the preparation of a computed change. Discards the change if this fails.
    fn write_preparation(
        &mut self,
        staged: Staged,
        held: &Held,
        ticket: &Ticket,
        now: Now,
    ) -> Result<Staged, ApiError> {
        if let Err(error) = self.write_journal_before(held, ticket) {
            self.discard(staged);
            return Err(error);
        }
        if let Err(error) = self.enforcer.write_preparation(&staged) {
            let is_broken = error.code == ErrorCode::Broken;
            self.enforcer.discard(&staged);
            if is_broken {
                self.unreconciled = Some(staged.wanted);
            }
            self.update_journal(now);
            return Err(error);
        }
        Ok(staged)
    }

    /// Writes the prepared change to the kernel and reads the result back. A repeated request gets the same reply until
    /// the change is confirmed or rolled back.
    ///
    /// The node rolls the change back unless the controller confirms it in time. A timed change that is new in the
    /// document starts at the commit time, unless it has a later start.
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
        self.precomputed = None;
        let late = clock().uptime.saturating_sub(at);
        if late > LATEST {
            self.discard(staged);
            self.update_journal(clock());
            let message = format!("the agent was busy until {:.1} s after the commit time", late.as_secs_f64());
            return Err(ErrorCode::Failed.error(message));
        }
        let mut ended = self.ended_by(&staged);
        // A partition may have cut its first packet after the counters were read.
        if ended.iter().any(|ended| ended.cut == 0) {
            self.enforcer.count_again(&mut staged);
            ended = self.ended_by(&staged);
        }
        let pause = if request.at.is_some() { PAUSE } else { Duration::ZERO };
        let by_controller = || clock().by_controller(request.clock_ahead_ns);
        let written = match self.enforcer.write(&staged, &by_controller, pause) {
            Ok(written) => written,
            Err(error) => {
                if error.code == ErrorCode::Broken {
                    self.unreconciled = Some(staged.wanted);
                }
                self.update_journal(clock());
                return Err(error);
            }
        };
        let committed =
            Committed { stamp: held.document.stamp(), writes: written.writes, onset: written.onset, told_late, ended };
        let now = clock();
        let until = now.uptime.saturating_add(request.confirm_within);
        self.step(Event::Committed(request.ticket.clone(), held, until, committed.clone()), now)?;
        self.reset_drift_watch(&staged.interface, &staged.wanted);
        (self.absent, self.in_force, self.unreconciled) = (absent, staged.wanted, None);
        self.journal_error = None;
        info!(node = %self.name(), writes = written.writes, "{} is in force.", committed.stamp);
        Ok(committed)
    }

    /// Discards a computed change.
    pub(super) fn discard(&mut self, staged: Staged) {
        if !self.enforcer.discard(&staged) {
            self.unreconciled = Some(staged.wanted);
        }
    }

    /// The partitions that a change ends, each with the number of packets it has cut. Leaves out partitions that have
    /// no cut on this interface.
    fn ended_by(&self, staged: &Staged) -> Vec<PartitionEnded> {
        let kept: BTreeSet<TimedId> = staged.wanted.partitions.iter().map(Partition::id).collect();
        let ended = |partition: &Partition| {
            let cuts = self.in_force.cuts_of(partition, self.name());
            let cut = staged.counters().cut(cuts)?.packets;
            Some(PartitionEnded { name: partition.name.clone(), ports: partition.ports.clone(), cut })
        };
        self.in_force.partitions.iter().filter(|partition| !kept.contains(&partition.id())).filter_map(ended).collect()
    }
}
