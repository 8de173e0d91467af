//! One node's state and the transaction on it: prepare, make ready, commit, read back; and what begins and ends by
//! itself. Whether it keeps what it committed is decided in [`keeping`].
//!
//! No clock is read here: whoever calls says what time it is, or brings the clock along.

mod keeping;
mod watching;
mod writing;

use std::{collections::BTreeSet, io, net::IpAddr, os::fd::OwnedFd, time::Duration};

use tokio::{net::UnixListener, sync::watch};
use tracing::{info, warn};

#[cfg(test)]
use super::specimen::Bench;
use super::{
    AfterReboot, Config, Need, Now, Via,
    claim::Claim,
    clock,
    drift::Vigil,
    enforcer::{Enforcer, Staged},
    guard, host,
    journal::{self, Held, JournalError},
    specimen::{ScratchNamespace, no_bench},
    status,
    transactions::{Effect, Event, Recorded, Refusal, Subject, Transactions},
};
use crate::{
    kernel::{Interface, Kernel},
    plan::{Absent, Change, Mode, Partition, Stamp, TimedId, Wanted},
    wire::{
        ApiError, Commit, Committed, Counted, Document, ErrorCode, Host, NodeStatus, PartitionEnded, Plan, Prepare,
        Prepared, Recovered, Routed,
    },
};

/// How long a change stays prepared if its controller never comes back.
const PREPARED_FOR: Duration = Duration::from_secs(15);

/// How long after its instant a change is still made: no controller waits for longer for an agent that was held up.
const LATEST: Duration = Duration::from_secs(10);

/// How long a change may be asked to be in force without being confirmed.
const LONGEST_UNCONFIRMED: Duration = Duration::from_mins(1);

/// How often is looked whether classes that nothing uses any more have drained.
const SWEEP_AGAIN: Duration = Duration::from_millis(200);

/// How far ahead the agreed instant of a change may be. A controller agrees on one within two seconds.
const FURTHEST: Duration = Duration::from_secs(5);

/// How long after the writes of an agreed instant is read back what they came to.
const PAUSE: Duration = Duration::from_millis(30);

/// How long after the agreed instant a node is told so by its own clock if not for the clock, but because it was busy.
const LATE_AFTER: Duration = Duration::from_secs(1);

/// A node: its configuration, its kernel and what is in force. All requests go through one of these, one at a time.
pub struct Node<K> {
    enforcer: Enforcer<K>,
    /// The boot that it runs in.
    boot: String,
    /// What all nodes have, when parts of it begin and end, and which change is under way.
    transactions: Transactions<Changes>,
    /// What of it the kernel does not have, because it is not in force.
    absent: Absent,
    /// What is in force here: the document without that.
    in_force: Wanted,
    /// The next change that comes by itself, computed.
    ahead: Option<(Absent, Staged)>,
    /// After a start from the journal, or after a change that could be neither done nor undone, until the kernel has what
    /// it should: a document that names the interface.
    unsettled: Option<Wanted>,
    /// What it needs of an agent, for a keeper to know when it may end.
    need: watch::Sender<Need>,
    /// What the journal had.
    recovered: Option<Recovered>,
    /// What others do to the interface.
    vigil: Vigil,
    /// Why the journal does not say what is in force, and at which uptime it is tried again.
    behind: Option<(String, Duration)>,
    /// Keeps other agents from the journal and the interfaces.
    claim: Claim,
}

/// A change that is possible.
struct Rehearsed {
    held: Held,
    interface: Interface,
    change: Change,
}

/// What a node's transactions are about.
struct Changes;

impl Subject for Changes {
    type Document = Held;
    type Stamp = Stamp;
    type Prepared = Checked;
    type Ready = Ready;
    type Answer = Committed;

    fn stamp(held: &Held) -> Stamp {
        held.document.stamp()
    }
}

/// A change that is prepared.
struct Checked {
    wanted: Wanted,
    /// How the controller's requests come.
    via: Via,
    /// The interface that was checked.
    interface: u32,
}

/// A prepared change that only waits for its moment.
struct Ready {
    /// The uptime of that moment.
    at: Duration,
    absent: Absent,
    staged: Staged,
    told_late: Option<Duration>,
}

impl<K: Kernel> Node<K> {
    /// A node that goes on from its journal, or on which nothing is in force. Nothing is written yet, neither to the
    /// kernel nor to the journal. While it lives, no other one gets that journal or those interfaces.
    pub fn open(config: Config, kernel: K, now: Now) -> Result<Self, JournalError> {
        let claim = Claim::of_journal(&config)?.and_interfaces(&config)?;
        // Without one nothing new can be put in force, but what is in force can still be looked after, and end.
        let bench = match ScratchNamespace::find() {
            Ok(bench) => {
                info!("The kernel is tried out in {bench}.");
                bench
            }
            Err(error) => {
                warn!("{}.", no_bench(&error));
                ScratchNamespace::Lent
            }
        };
        Self::from_journal(Enforcer::new(config, kernel, bench), claim, clock::boot(), now)
    }

    /// A node whose kernel is tried out elsewhere, in a boot of that name.
    #[cfg(test)]
    pub(super) fn with_bench(
        config: Config,
        kernel: K,
        bench: impl Bench + 'static,
        boot: &str,
        now: Now,
    ) -> Result<Self, JournalError> {
        let claim = Claim::of_journal(&config)?;
        Self::from_journal(Enforcer::new(config, kernel, bench), claim, boot.to_owned(), now)
    }

    fn from_journal(enforcer: Enforcer<K>, claim: Claim, boot: String, now: Now) -> Result<Self, JournalError> {
        let entry = enforcer.config.journal.as_deref().map(journal::read).transpose()?.flatten();
        let vigil = Vigil::new(enforcer.config.on_drift);
        let mut node = Self {
            enforcer,
            boot,
            transactions: Transactions::of(Held::default()),
            absent: Absent::default(),
            in_force: Wanted::default(),
            ahead: None,
            unsettled: None,
            need: watch::Sender::new(Need::Process),
            recovered: None,
            vigil,
            behind: None,
            claim,
        };
        let Some(entry) = entry else { return Ok(node) };
        let entry = entry.of(&node.enforcer.config)?;
        let after_reboot = ![&entry.boot, &node.boot].iter().any(|boot| boot.is_empty()) && entry.boot != node.boot;
        let entry = entry.in_boot(&node.boot, now);
        let interrupted = entry.transaction.as_ref().is_some_and(|transaction| !transaction.is_done);
        // What was clear before names no interface, or one that was free to be changed for another.
        let names_interface = match &entry.transaction {
            Some(Recorded { is_done: false, before, .. }) if !before.document.is_clear() => before.document.clone(),
            _ => entry.held.document.clone(),
        };
        node.transactions = Transactions::recovered(entry.record());
        if interrupted {
            warn!("A change was not confirmed when the agent ended; going back to {}.", node.stamp());
        }
        let forgets = after_reboot && node.enforcer.config.after_reboot == AfterReboot::Clear;
        let cleared = forgets && !node.held().document.is_clear();
        if cleared {
            warn!("The machine was started anew; {} is forgotten, as the config says.", node.stamp());
        }
        if interrupted || !node.held().document.is_clear() {
            let at = now.wall.to_string();
            let recovered = Recovered { at, after_reboot, interrupted, cleared, ended: Vec::new(), writes: None };
            node.recovered = Some(recovered);
        }
        if cleared {
            node.transactions = Transactions::of(Held::default());
        }
        node.unsettled = Some(names_interface);
        node.note(node.held().timeline.absent(now.uptime));
        Ok(node)
    }

    /// Its kernel, for the tests to look at and to disturb.
    #[cfg(test)]
    pub(super) fn kernel(&mut self) -> &mut K {
        &mut self.enforcer.kernel
    }

    /// Whether classes are left that nothing uses any more.
    #[cfg(test)]
    pub(super) fn drains(&self) -> bool {
        self.enforcer.drains()
    }

    /// What keeps other agents from its interfaces; somebody has to accept there.
    pub(super) fn claims(&self) -> impl Iterator<Item = io::Result<UnixListener>> {
        self.claim.callers().map(|claim| UnixListener::from_std(claim?))
    }

    /// What becomes readable when others have changed something; the node is to be [tended](Node::tend) then.
    pub fn news(&mut self) -> Option<OwnedFd> {
        self.enforcer.kernel.news()
    }

    /// What this node needs of an agent, as of the last time that it was [tended](Node::tend).
    pub fn need(&self) -> watch::Receiver<Need> {
        self.need.subscribe()
    }

    fn need_at(&self, now: Now) -> Need {
        let Held { document, timeline, .. } = self.held();
        let is_unsure = self.unsettled.is_some() || self.behind.is_some();
        let is_under_way = self.transactions.lease().is_some() || is_unsure;
        let is_to_end = self.enforcer.drains() || timeline.next(now.uptime).is_some();
        // Refusals come from the agent itself.
        let answers = self.in_force.partitions.iter().any(|partition| partition.mode == Mode::Reject);
        let would_forget = self.enforcer.config.journal.is_none() && !document.is_clear();
        if is_under_way || is_to_end || answers || would_forget {
            Need::Process
        } else if document.is_clear() {
            Need::Nothing
        } else {
            Need::Journal
        }
    }

    fn held(&self) -> &Held {
        self.transactions.held()
    }

    /// Names the document that this node has.
    pub fn stamp(&self) -> Stamp {
        self.held().document.stamp()
    }

    /// What is in force here, in a line for people.
    pub fn summary(&self) -> String {
        let Wanted { topology, overlays, partitions, .. } = &self.in_force;
        let some = |count: usize, what: &str| (count > 0).then(|| format!("{what}: {count}"));
        let parts = [
            topology.as_ref().map(|topology| format!("topology {}", topology.name())),
            some(overlays.len(), "overlays"),
            some(partitions.len(), "partitions"),
        ];
        let parts = parts.into_iter().flatten().collect::<Vec<_>>().join(", ");
        let parts = if parts.is_empty() { "nothing is in force" } else { &parts };
        let unsettled = if self.unsettled.is_some() { "; the kernel does not have it yet" } else { "" };
        format!("generation {}: {parts}{unsettled}", self.held().document.generation)
    }

    /// The document that this node has, and what of it is not in force.
    pub fn document(&self, now: Now) -> Document {
        let Held { document, timeline, .. } = self.held();
        Document {
            wanted: document.clone(),
            absent: timeline.absent(now.uptime),
            begins: timeline.begins(),
            unconfirmed: self.transactions.taken_back_at().is_some(),
        }
    }

    /// Brings the kernel in line with the journal, and begins one if there is none. Where either fails, [`Node::tend`]
    /// tries again: an agent without a disk still ends what has its time.
    pub fn resume(&mut self, now: Now) {
        if self.unsettled.is_none() {
            // A commit that is interrupted right away has something to go back to.
            self.correct_journal(now);
        } else if let Err(error) = self.settle(now) {
            warn!(%error, "The kernel could not be brought in line with the journal; trying again.");
        }
    }

    /// Checks everything and computes the change for a controller on this machine; writes nothing.
    pub fn prepare(&mut self, request: Prepare, now: Now) -> Result<Prepared, ApiError> {
        self.prepare_via(request, Via::default(), now)
    }

    /// The same for one whose requests come by a network.
    pub fn prepare_via(&mut self, request: Prepare, via: Via, now: Now) -> Result<Prepared, ApiError> {
        self.expire(now)?;
        let Prepare { ticket, base, wanted } = request;
        self.step(Event::Prepare(ticket.clone(), base), now)?;
        let Rehearsed { held, interface, change } = self.rehearse(wanted, &via, now)?;
        // A disk that is full is found before any node has changed.
        self.try_to_write_down(&held, &ticket)?;
        let checked = Checked { wanted: held.document, via, interface: interface.index };
        let until = now.uptime.saturating_add(PREPARED_FOR);
        self.step(Event::Checked(ticket, until, checked), now)?;
        Ok(Prepared { interface: interface.name, change, clock: None })
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
        let Rehearsed { interface, change, .. } = self.rehearse(request.wanted, &via, now)?;
        Ok(Prepared { interface: interface.name, change, clock: None })
    }

    /// The change from what is in force to `document`, of which every step is found to be possible.
    fn rehearse(&mut self, document: Wanted, via: &Via, now: Now) -> Result<Rehearsed, ApiError> {
        let unfit = document.check().and_then(|()| document.check_after(&self.stamp()));
        unfit.map_err(|unfit| ApiError::new(ErrorCode::BadRequest, unfit))?;
        if let Err(error) = self.settle(now) {
            warn!(%error, "The kernel could not be brought in line with the journal.");
        }
        // What has ended here stays so, if the controller did not know it yet.
        let timeline = self.held().timeline.renewed(&document, now.wall, now);
        let absent = timeline.absent(now.uptime);
        let wanted = document.without(&absent.ended);
        let interface = self.enforcer.interface(&self.in_force, &wanted, via)?;
        guard::check_links(&self.enforcer.config, &wanted)?;
        // What is only to come is tried now as well: later nobody is there to be told.
        let mut change = self.enforcer.rehearse(&interface, &self.in_force, &wanted)?;
        if !absent.asleep.is_empty() {
            change = self.enforcer.change(&interface, &document.in_force(&absent))?;
        }
        let left_out = self.left_out(&document, &interface);
        Ok(Rehearsed { held: Held { document, timeline, left_out }, interface, change })
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
        let staged = self.enforcer.stage(interface, in_force)?;
        let held = Held { document, timeline, left_out };
        if let Err(error) = self.write_down_before(&held, &request.ticket) {
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
            Effect::Strike(held, ready) => (held, ready),
            Effect::Answer(committed) => return Ok(committed),
            _ => return Err(self.refused(Refusal::NotPrepared, clock())),
        };
        self.ahead = None;
        let late = clock().uptime.saturating_sub(at);
        if late > LATEST {
            self.enforcer.forget(&staged);
            self.correct_journal(clock());
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
        let struck = match self.enforcer.strike_with_others(&staged, &by_controller, pause) {
            Ok(struck) => struck,
            Err(error) => {
                if error.code == ErrorCode::Broken {
                    self.unsettled = Some(staged.wanted);
                }
                self.correct_journal(clock());
                return Err(error);
            }
        };
        // The journal says all the time from before the first write on that this is not done.
        let committed =
            Committed { stamp: held.document.stamp(), writes: struck.writes, onset: struck.onset, told_late, ended };
        let now = clock();
        let until = now.uptime.saturating_add(request.confirm_within);
        self.step(Event::Struck(request.ticket.clone(), held, until, committed.clone()), now)?;
        self.watch_over(staged.interface(), &staged.wanted);
        (self.absent, self.in_force, self.unsettled) = (absent, staged.wanted, None);
        self.behind = None;
        info!(node = %self.enforcer.config.node, writes = struck.writes, "{} is in force.", committed.stamp);
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

    /// Does what is to be done without being asked: takes back what nobody confirms, begins and ends what has its time,
    /// removes classes that have drained, undoes what others do if that is asked of it.
    ///
    /// Answers at which uptime something changes next. After an error everything is tried again at the next call.
    pub fn tend(&mut self, now: Now) -> Result<Option<Duration>, ApiError> {
        self.need.send_replace(Need::Process);
        self.keep_watch(now);
        if self.behind.as_ref().is_some_and(|(_, again)| *again <= now.uptime) {
            self.correct_journal(now);
        }
        self.expire(now)?;
        self.keep_time(now)?;
        if self.enforcer.drains() && !self.transactions.is_ready() {
            self.ahead = None;
            self.enforcer.sweep(&self.in_force)?;
        }
        self.need.send_replace(self.need_at(now));
        Ok(self.next(now))
    }

    /// The uptime at which something is to be done next although nobody asks and nothing happens.
    fn next(&self, now: Now) -> Option<Duration> {
        let turn = self.held().timeline.next(now.uptime);
        let written_down = self.behind.as_ref().map(|(_, again)| *again);
        // While a change waits for its instant, the interface is left alone.
        let is_free = !self.transactions.is_ready();
        let looked = self.vigil.next_look().filter(|_| is_free && self.interface_name().is_some());
        let swept = (is_free && self.enforcer.drains()).then(|| now.uptime + SWEEP_AGAIN);
        [turn, self.transactions.lease(), written_down, looked, swept].into_iter().flatten().min()
    }

    /// Computes what is to be written at an uptime to come, so that only the writes are left to do then.
    pub fn look_ahead(&mut self, uptime: Duration) -> Result<(), ApiError> {
        let absent = self.held().timeline.absent(uptime);
        if self.unsettled.is_none() && absent != self.absent {
            if self.is_displaced()? {
                return Ok(());
            }
            let in_force = self.held().document.in_force(&absent);
            let interface = self.interface_for(&absent)?;
            let staged = self.enforcer.stage(interface, in_force)?;
            self.ahead = Some((absent, staged));
        }
        Ok(())
    }

    /// Puts in force what has begun and takes off what has not or is over. The document stays: it is the same on all
    /// nodes.
    fn keep_time(&mut self, now: Now) -> Result<(), ApiError> {
        self.settle(now)?;
        let absent = self.held().timeline.absent(now.uptime);
        if absent == self.absent {
            return Ok(());
        }
        if self.is_displaced()? {
            // The interface that had it is gone, and with it all that was there; the vigil knows what to do.
            self.note(absent);
            return Ok(());
        }
        // What was computed for another moment is of no use at this one.
        let staged = if let Some((_, staged)) = self.ahead.take().filter(|(ahead, _)| *ahead == absent) {
            staged
        } else {
            let interface = self.interface_for(&absent)?;
            self.enforcer.stage(interface, self.held().document.in_force(&absent))?
        };
        self.step(Event::Outdated, now)?;
        let writes = self.enforcer.strike(&staged, &|| now)?.writes;
        let node = &self.enforcer.config.node;
        for TimedId { name, .. } in absent.ended.difference(&self.absent.ended) {
            info!(%node, writes, "{name} has ended.");
        }
        for id in absent.asleep.difference(&self.absent.asleep) {
            info!(%node, writes, "{} is not in force until its next turn.", id.name);
        }
        for id in self.absent.asleep.difference(&absent.asleep).filter(|id| !absent.ended.contains(id)) {
            info!(%node, writes, "{} is in force.", id.name);
        }
        if staged.wanted.is_clear() {
            self.vigil.begin(None);
        }
        (self.absent, self.in_force) = (absent, staged.wanted);
        Ok(())
    }

    /// After a start from the journal: makes the kernel do what is in force now, whatever was when the agent ended.
    fn settle(&mut self, now: Now) -> Result<(), ApiError> {
        let Some(names_interface) = &self.unsettled else { return Ok(()) };
        let absent = self.held().timeline.absent(now.uptime);
        let mut writes = 0;
        // A node that was never told where it is has nothing in force and nothing left over.
        if names_interface.inventory.nodes.contains_key(&self.enforcer.config.node) {
            let in_force = self.held().document.in_force(&absent);
            let interface = if in_force.is_clear() {
                self.enforcer.own_interface(names_interface)?
            } else {
                self.enforcer.interface(names_interface, names_interface, &Via::default())?
            };
            let staged = self.enforcer.stage(interface, in_force)?;
            writes = self.enforcer.strike(&staged, &|| now)?.writes;
            self.watch_over(staged.interface(), &staged.wanted);
        }
        self.unsettled = None;
        self.note(absent);
        let ended: Vec<String> = self.absent.ended.iter().map(|id| id.name.clone()).collect();
        info!(node = %self.enforcer.config.node, writes, ?ended, "{} is in force again.", self.stamp());
        if let Some(recovered) = &mut self.recovered {
            (recovered.writes, recovered.ended) = (Some(writes), ended);
        }
        self.correct_journal(now);
        Ok(())
    }

    /// Which machine it runs on.
    pub fn host(&mut self) -> Result<Host, ApiError> {
        host::host(&self.enforcer.config, &mut self.enforcer.kernel)
    }

    /// What the kernel has counted of what is in force.
    pub fn counted(&mut self, now: Now) -> Result<Counted, ApiError> {
        let look = self.look(now)?;
        Ok(status::counted(&self.enforcer.config, &look))
    }

    /// Refuses a measurement of addresses that are neither of a node nor on a network of an interface that may be shaped.
    pub fn may_measure(&mut self, targets: &[IpAddr], now: Now) -> Result<(), ApiError> {
        let document = self.document(now);
        let places = document.wanted.inventory.nodes.values();
        let known: BTreeSet<&IpAddr> = places.flat_map(|place| &place.addresses).collect();
        let mut strangers = targets.iter().filter(|target| !known.contains(target)).peekable();
        if strangers.peek().is_none() {
            return Ok(());
        }
        let interfaces = self.host()?.interfaces;
        let networks = || interfaces.iter().filter(|each| each.is_allowed).flat_map(|each| &each.addresses);
        match strangers.find(|target| !networks().any(|network| network.contains(**target))) {
            None => Ok(()),
            Some(target) => Err(ApiError::new(
                ErrorCode::Refused,
                format!("{target} is not measured: no node has it, and no interface that may be shaped leads there"),
            )),
        }
    }

    /// What is in force, compared with the kernel at this moment.
    pub fn status(&mut self, now: Now) -> Result<NodeStatus, ApiError> {
        // A moment's lag is no drift; what cannot be ended is.
        if let Err(error) = self.expire(now).and_then(|()| self.keep_time(now)) {
            warn!(%error, "What has begun or ended could not be put in force.");
        }
        let look = self.look(now)?;
        let behind = self.behind.as_ref().map(|(why, _)| why.clone());
        let watch = self.vigil.status(now, behind);
        let recovered = self.recovered.clone();
        let status = status::status(&self.enforcer.config, self.held(), now.uptime, look, watch, recovered);
        let unconfirmed = self.unconfirmed_for(now).map(|left| left.as_secs_f64());
        Ok(NodeStatus { unconfirmed, routed: self.routed(), ..status })
    }

    /// Where this node sends packets by way of others that are in the document.
    fn routed(&mut self) -> Option<Routed> {
        if self.in_force.is_clear() {
            return None;
        }
        self.host().ok()?.routed(&self.in_force.inventory)
    }

    /// Remembers what the kernel has.
    fn note(&mut self, absent: Absent) {
        self.in_force = self.held().document.in_force(&absent);
        (self.absent, self.ahead) = (absent, None);
    }

    /// The interface of the document in force, for what is absent from it to be so. What ends may do so whatever has
    /// come in the way since it was admitted; what begins is admitted anew.
    fn interface_for(&mut self, absent: &Absent) -> Result<Interface, ApiError> {
        let mut begins = self.absent.asleep.difference(&absent.asleep);
        if begins.any(|id| !absent.ended.contains(id)) {
            self.enforcer.interface(&self.in_force, &self.in_force, &Via::default())
        } else {
            self.enforcer.own_interface(&self.in_force)
        }
    }

    /// The next step of the transactions.
    fn step(&mut self, event: Event<Changes>, now: Now) -> Result<Effect<Changes>, ApiError> {
        self.step_at(event, &|| now)
    }

    /// The same where the clock is to be read only if it is refused.
    fn step_at(&mut self, event: Event<Changes>, clock: &dyn Fn() -> Now) -> Result<Effect<Changes>, ApiError> {
        self.transactions.step(event).map_err(|refusal| self.refused(refusal, clock()))
    }

    /// Why a controller is refused, in words.
    fn refused(&self, refusal: Refusal, now: Now) -> ApiError {
        let message = match refusal {
            Refusal::Prepared => "another controller is changing this node; try again in a moment".to_owned(),
            Refusal::Unconfirmed => format!(
                "another controller is changing this node; what it has not confirmed is taken back in {:.0} s",
                self.unconfirmed_for(now).unwrap_or_default().as_secs_f64().ceil()
            ),
            Refusal::AnotherDocument => format!("{} is in force here now: another controller was faster", self.stamp()),
            Refusal::NotPrepared => "that change is no longer prepared here; start again".to_owned(),
            Refusal::NotInForce => "that change is not in force here any more, or never was; start again".to_owned(),
            Refusal::Covered => "another controller has committed a change on top of this one".to_owned(),
        };
        ApiError::new(ErrorCode::Conflict, message)
    }
}
