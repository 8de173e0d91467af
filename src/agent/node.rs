//! One node: its state, and the changes that begin and end at a set time.
//!
//! Further methods of [`Node`] are in submodules. [`changing`] prepares and commits the changes of controllers.
//! [`keeping`] confirms these changes or rolls them back. [`watching`] finds drift and repairs it. [`writing`] writes
//! the journal.
//!
//! A node reads no clock. The caller passes the time, or a function that reads the clock.

mod changing;
mod claim;
mod drift;
mod enforcer;
mod guard;
mod host;
pub(crate) mod journal;
mod keeping;
mod shared;
mod status;
#[cfg(test)]
mod test_access;
pub(super) mod transactions;
mod watched;
mod watching;
mod writing;

use std::{collections::BTreeSet, io, net::IpAddr, os::fd::OwnedFd, time::Duration};

use tokio::{net::UnixListener, sync::watch};
use tracing::{info, warn};

pub use self::journal::JournalError;
use self::{
    claim::Claim,
    drift::DriftWatch,
    enforcer::{Enforcer, Foreign, Staged},
    journal::Held,
    shared::Shared,
    transactions::{Effect, Event, Payload, Recorded, Refusal, Transactions},
};
use super::{
    AfterReboot, Config, Now, Via,
    dry_run::{Sandbox, ScratchNamespace, no_namespace},
    facts::OwnFacts,
    time,
};
use crate::{
    kernel::Kernel,
    plan::{Absent, Mode, Stamp, TimedId, Wanted},
    topology::NodeName,
    wire::{ApiError, Beginning, Committed, Counted, Document, ErrorCode, Host, NodeStatus, Recovered, Routed},
};

/// Interval between checks whether unused classes still hold packets.
const SWEEP_AGAIN: Duration = Duration::from_millis(200);

/// What a node needs while no client is connected: a running agent, the agent's journal, or nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// The process must run: it has work to do or to retry, answers rejected packets, or has no journal for its state.
    Process,
    /// The journal is enough: the state in the kernel does not change.
    Journal,
    /// Neither a process nor a journal: the node is clear.
    Nothing,
}

/// A node: its configuration, its kernel, and the state in force. The node handles one request at a time.
pub struct Node<K> {
    enforcer: Enforcer<K>,
    /// The id of this boot.
    boot: String,
    transactions: Transactions<NodePayload>,
    /// The timed parts (overlays and partitions) of the document that are not in force now.
    absent: Absent,
    /// The document without its ended parts. A partition that is inactive now stays in this document, but cuts nothing.
    in_force: Shared,
    /// The next timed change, already computed, with the parts that are absent after this change.
    precomputed: Option<(Absent, Staged)>,
    /// Set while the kernel may differ from the document: after a start from the journal, or after a failed commit
    /// whose rollback failed too. The value is a document that names the node's interface, because the node's own
    /// document may be clear and name no interface.
    unreconciled: Option<Shared>,
    /// The need for an agent. An agent that ssh started (a keeper) exits when the need is no longer [`Need::Process`].
    need: watch::Sender<Need>,
    /// The recovery from the journal, for the status.
    recovered: Option<Recovered>,
    drift_watch: DriftWatch,
    /// The error of the last journal write, and the uptime of the next try.
    journal_error: Option<(String, Duration)>,
    /// The locks that keep other agents from the journal and the interfaces.
    claim: Claim,
}

struct NodePayload;

impl Payload for NodePayload {
    type Document = Held;
    type Stamp = Stamp;
    type Prepared = Checked;
    type Ready = Ready;
    type Answer = Committed;

    fn stamp(held: &Held) -> Stamp {
        held.document.stamp()
    }

    fn is_on_all_of(held: &Held, other: &Held) -> bool {
        held.document.is_on_all_of(&other.document)
    }
}

/// A prepared change.
#[derive(Clone)]
struct Checked {
    wanted: Shared,
    /// The controller's connection.
    via: Via,
    /// The index of the interface.
    interface: u32,
}

/// A prepared change that waits for its commit time.
struct Ready {
    /// The uptime of the commit.
    at: Duration,
    absent: Absent,
    staged: Staged,
    /// How long after the commit time the request arrived. `None`: the request had no commit time, was in time, or was
    /// so little late that the delay does not prove a difference of the clocks.
    told_late: Option<Duration>,
}

impl<K: Kernel> Node<K> {
    /// Opens a node that continues from its journal, or is clear without a journal.
    ///
    /// Claims the journal and the interfaces. Writes neither to the kernel nor to the journal.
    pub fn open(config: Config, kernel: K, now: Now) -> Result<Self, JournalError> {
        let claim = Claim::of_journal(&config)?.and_interfaces(&config)?;
        let sandbox = match ScratchNamespace::find() {
            Ok(sandbox) => {
                info!("Dry runs use {sandbox}.");
                sandbox
            }
            Err(error) => {
                // The agent still starts, to end timed changes. `InUserNamespace` makes each dry run fail, so the agent
                // refuses every change that needs a dry run.
                warn!("{}.", no_namespace(&error));
                ScratchNamespace::InUserNamespace
            }
        };
        Self::from_journal(Enforcer::new(config, kernel, sandbox), claim, time::boot(), now)
    }

    /// A node with the given sandbox and boot id. Claims the journal, but no interface.
    pub fn with_sandbox(
        config: Config,
        kernel: K,
        sandbox: impl Sandbox + 'static,
        boot: &str,
        now: Now,
    ) -> Result<Self, JournalError> {
        let claim = Claim::of_journal(&config)?;
        Self::from_journal(Enforcer::new(config, kernel, sandbox), claim, boot.to_owned(), now)
    }

    fn from_journal(enforcer: Enforcer<K>, claim: Claim, boot: String, now: Now) -> Result<Self, JournalError> {
        let record = enforcer.config.journal.as_deref().map(journal::read).transpose()?.flatten();
        let drift_watch = DriftWatch::new(enforcer.config.on_drift);
        let mut node = Self {
            enforcer,
            boot,
            transactions: Transactions::of(Held::default()),
            absent: Absent::default(),
            in_force: Shared::default(),
            precomputed: None,
            unreconciled: None,
            need: watch::Sender::new(Need::Process),
            recovered: None,
            drift_watch,
            journal_error: None,
            claim,
        };
        let Some(record) = record else { return Ok(node) };
        let record = record.of(&node.enforcer.config)?;
        let after_reboot = !record.boot.is_empty() && !node.boot.is_empty() && record.boot != node.boot;
        let record = record.in_boot(&node.boot, now);
        let interrupted = record.transaction.as_ref().is_some_and(|transaction| !transaction.is_done);
        // For an interrupted change, the document before the change names the interface. If that document is clear, it
        // names no interface, so the document of the change is used.
        let names_interface = match &record.transaction {
            Some(Recorded { is_done: false, before, .. }) if !before.document.is_clear() => before.document.clone(),
            _ => record.held.document.clone(),
        };
        node.transactions = Transactions::recovered(record.record());
        if interrupted {
            warn!("A change was not confirmed when the agent ended; rolling back to {}.", node.stamp());
        }
        let is_clear = node.held().document.is_clear();
        let cleared = after_reboot && node.enforcer.config.after_reboot == AfterReboot::Clear && !is_clear;
        if cleared {
            warn!("The machine has rebooted; {} is cleared (after-reboot = \"clear\").", node.stamp());
        }
        if interrupted || !is_clear {
            let at = now.wall.to_string();
            let recovered = Recovered { at, after_reboot, interrupted, cleared, ended: Vec::new(), writes: None };
            node.recovered = Some(recovered);
        }
        if cleared {
            node.transactions = Transactions::of(Held::default());
        }
        node.unreconciled = Some(names_interface);
        node.set_absent(node.held().timeline.absent(now.uptime));
        Ok(node)
    }

    /// The sockets that claim the node's interfaces. The server must accept connections to these sockets, because
    /// another agent connects to look up their owner.
    pub(super) fn claims(&self) -> impl Iterator<Item = io::Result<UnixListener>> {
        self.claim.sockets().map(|claim| UnixListener::from_std(claim?))
    }

    /// A descriptor that becomes readable when the network changes; `None`: the kernel offers none. When the descriptor
    /// is readable, the caller calls [`Node::tick`].
    pub fn news(&mut self) -> Option<OwnedFd> {
        self.enforcer.kernel.event_descriptor()
    }

    /// The node's need for an agent, as of the last [`Node::tick`].
    pub fn need(&self) -> watch::Receiver<Need> {
        self.need.subscribe()
    }

    fn need_at(&self, now: Now) -> Need {
        let Held { document, timeline, .. } = self.held();
        let is_unsure = self.unreconciled.is_some() || self.journal_error.is_some();
        let is_under_way = self.transactions.lease().is_some() || is_unsure;
        let will_change = self.enforcer.drains() || timeline.next(now.uptime).is_some();
        // The agent itself answers rejected packets.
        let rejects = self.in_force.partitions.iter().any(|partition| partition.mode == Mode::Reject);
        let is_in_memory = self.enforcer.config.journal.is_none() && !document.is_clear();
        if is_under_way || will_change || rejects || is_in_memory {
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

    fn name(&self) -> &NodeName {
        &self.enforcer.config.node
    }

    /// The stamp of the node's document.
    pub fn stamp(&self) -> Stamp {
        self.held().document.stamp()
    }

    /// The state in force as one line, for the service manager.
    pub fn summary(&self) -> String {
        let Wanted { topology, overlays, partitions, .. } = &*self.in_force;
        let some = |count: usize, what: &str| (count > 0).then(|| format!("{what}: {count}"));
        let parts = [
            topology.as_ref().map(|topology| format!("topology {}", topology.name())),
            some(overlays.len(), "overlays"),
            some(partitions.len(), "partitions"),
        ];
        let parts = parts.into_iter().flatten().collect::<Vec<_>>().join(", ");
        let parts = if parts.is_empty() { "nothing is in force" } else { &parts };
        let unreconciled = if self.unreconciled.is_some() { "; not yet compared with the kernel" } else { "" };
        format!("generation {}: {parts}{unreconciled}", self.held().document.generation)
    }

    /// The node's document, its parts that are not in force, the starts of its timed changes, and the state of the last
    /// transaction.
    pub fn document(&self, now: Now) -> Document {
        let Held { document, timeline, .. } = self.held();
        Document {
            wanted: Wanted::clone(document),
            absent: timeline.absent(now.uptime),
            begins: timeline.begins().into_iter().map(|(of, at)| Beginning { of, at }).collect(),
            unconfirmed: self.transactions.rolls_back_at().is_some(),
            unfinished: self.transactions.unfinished().map(|until| until.saturating_sub(now.uptime)),
        }
    }

    /// Brings the kernel to the state of the journal, and writes the journal.
    ///
    /// [`Node::tick`] retries both if they fail, so an agent with a full disk still ends timed changes.
    pub fn resume(&mut self, now: Now) {
        if self.unreconciled.is_none() {
            // This write reports an unwritable journal at the start, not only at the first commit.
            self.update_journal(now);
        } else if let Err(error) = self.reconcile(now) {
            warn!(%error, "The kernel does not match the journal; retrying.");
        }
    }

    /// Does the work that depends on time and events, not on a request.
    ///
    /// Cancels or rolls back a change whose lease has expired, begins and ends timed changes, removes empty unused
    /// classes, and repairs drift if configured. Returns the uptime of the next work; `None`: no work is due before a
    /// request or an event. After an error the next call retries.
    pub fn tick(&mut self, now: Now) -> Result<Option<Duration>, ApiError> {
        self.need.send_replace(Need::Process);
        self.watch_drift(now);
        if self.journal_error.as_ref().is_some_and(|(_, again)| *again <= now.uptime) {
            self.update_journal(now);
        }
        self.expire(now)?;
        self.apply_timeline(now)?;
        if self.enforcer.drains() && !self.transactions.is_ready() {
            self.precomputed = None;
            self.enforcer.sweep(&self.in_force)?;
        }
        if self.precomputed.is_none() && !self.transactions.is_ready() {
            self.enforcer.remove_preparation();
        }
        if self.transactions.lease().is_none() {
            self.enforcer.rest();
        }
        self.need.send_replace(self.need_at(now));
        Ok(self.next(now))
    }

    /// The uptime of the next work if no request and no event comes first.
    fn next(&self, now: Now) -> Option<Duration> {
        let change = self.held().timeline.next(now.uptime);
        let journal = self.journal_error.as_ref().map(|(_, again)| *again);
        // A change that waits for its commit time is already computed, so the interface must not change until then.
        let is_free = !self.transactions.is_ready();
        let look = self.drift_watch.next_look().filter(|_| is_free && self.interface_name().is_some());
        let sweep = (is_free && self.enforcer.drains()).then(|| now.uptime + SWEEP_AGAIN);
        // A look since the tick may have taken events from the descriptor.
        let events = self.enforcer.kernel.has_events().then_some(now.uptime);
        [change, self.transactions.lease(), journal, look, sweep, events].into_iter().flatten().min()
    }

    /// Computes the timed change of a future uptime in advance, and writes its preparation. At that uptime only the
    /// steps that take effect remain.
    ///
    /// Does nothing while another change waits for its commit time, because the kernel has the preparation of that
    /// change.
    pub fn precompute(&mut self, uptime: Duration) -> Result<(), ApiError> {
        let absent = self.held().timeline.absent(uptime);
        let is_done = absent == self.absent || self.precomputed.as_ref().is_some_and(|(done, _)| *done == absent);
        if is_done || self.unreconciled.is_some() || self.transactions.is_ready() || self.is_interface_replaced()? {
            return Ok(());
        }
        let staged = self.stage_without(&absent)?;
        self.enforcer.write_preparation(&staged)?;
        self.precomputed = Some((absent, staged));
        Ok(())
    }

    /// Writes to the kernel the timed changes that have begun or ended. The document itself does not change.
    fn apply_timeline(&mut self, now: Now) -> Result<(), ApiError> {
        self.reconcile(now)?;
        let absent = self.held().timeline.absent(now.uptime);
        if absent == self.absent {
            return Ok(());
        }
        if self.is_interface_replaced()? {
            // The interface with the state is gone, so there is nothing to change. If a new interface has the name, a
            // repair or the next change writes the whole state.
            self.set_absent(absent);
            return Ok(());
        }
        let staged = match self.precomputed.take() {
            Some((precomputed, staged)) if precomputed == absent => staged,
            _ => self.stage_without(&absent)?,
        };
        self.step(Event::Outdated, now)?;
        let writes = self.enforcer.write(&staged, &|| now, Duration::ZERO)?.writes;
        let node = self.name();
        for TimedId { name, .. } in absent.ended.difference(&self.absent.ended) {
            info!(%node, writes, "{name} has ended.");
        }
        for id in absent.inactive.difference(&self.absent.inactive) {
            info!(%node, writes, "{} is not in force until its next start.", id.name);
        }
        for id in self.absent.inactive.difference(&absent.inactive).filter(|id| !absent.ended.contains(id)) {
            info!(%node, writes, "{} is in force.", id.name);
        }
        if staged.wanted.is_clear() {
            self.drift_watch.begin(None);
        }
        (self.absent, self.in_force) = (absent, staged.wanted);
        Ok(())
    }

    /// Writes the state in force to the kernel if the kernel may have another state (`unreconciled`).
    fn reconcile(&mut self, now: Now) -> Result<(), ApiError> {
        let Some(names_interface) = &self.unreconciled else { return Ok(()) };
        let absent = self.held().timeline.absent(now.uptime);
        let mut writes = 0;
        // If the inventory does not name this node, the agent has written nothing to the kernel.
        if names_interface.inventory.nodes.contains_key(self.name()) {
            let in_force = self.held().document.in_force(&absent);
            let interface = if in_force.is_clear() {
                self.enforcer.own_interface(names_interface)?
            } else {
                self.enforcer.interface(names_interface, names_interface, &Via::default())?
            };
            let staged = self.enforcer.stage(interface, in_force, Foreign::Refuse)?;
            writes = self.enforcer.write(&staged, &|| now, Duration::ZERO)?.writes;
            self.reset_drift_watch(&staged.interface, &staged.wanted);
        }
        self.unreconciled = None;
        self.set_absent(absent);
        let ended: Vec<String> = self.absent.ended.iter().map(|id| id.name.clone()).collect();
        info!(node = %self.name(), writes, ?ended, "{} is in force again.", self.stamp());
        if let Some(recovered) = &mut self.recovered {
            (recovered.writes, recovered.ended) = (Some(writes), ended);
        }
        self.update_journal(now);
        Ok(())
    }

    /// The machine's interfaces, for inventories.
    pub fn host(&mut self) -> Result<Host, ApiError> {
        host::host(&self.enforcer.config, &mut self.enforcer.kernel)
    }

    /// The facts about the host that need the node's kernel, for `netemctl doctor`.
    pub(super) fn own_facts(&mut self, via: Via) -> OwnFacts {
        self.enforcer.facts(via)
    }

    /// The kernel's packet counters.
    pub fn counted(&mut self, now: Now) -> Result<Counted, ApiError> {
        let look = self.look(now)?;
        Ok(status::counted(&self.enforcer.config, &look))
    }

    /// Refuses to measure an address unless a node of the inventory has the address or a network of an allowed
    /// interface contains the address.
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
            Some(target) => Err(ErrorCode::Refused.error(format!(
                "{target} is not measured: no node has this address, and it is in no network of an allowed interface"
            ))),
        }
    }

    /// The state in force, compared with the kernel.
    pub fn status(&mut self, now: Now) -> Result<NodeStatus, ApiError> {
        // Writes the changes that are due, so that the status does not report them as drift.
        if let Err(error) = self.expire(now).and_then(|()| self.apply_timeline(now)) {
            warn!(%error, "A rollback or a timed change could not be written.");
        }
        let look = self.look(now)?;
        let journal_behind = self.journal_error.as_ref().map(|(why, _)| why.clone());
        let watch = self.drift_watch.status(now, journal_behind);
        let recovered = self.recovered.clone();
        let status = status::status(&self.enforcer.config, self.held(), now.uptime, look, watch, recovered);
        let unconfirmed = self.unconfirmed_for(now).map(|left| left.as_secs_f64());
        Ok(NodeStatus { unconfirmed, routed: self.routed(), ..status })
    }

    /// The routes of this node that lead through other nodes; `None`: there are none, the node is clear, or the kernel
    /// cannot be read.
    fn routed(&mut self) -> Option<Routed> {
        if self.in_force.is_clear() {
            return None;
        }
        self.host().ok()?.routed(&self.in_force.inventory)
    }

    fn set_absent(&mut self, absent: Absent) {
        self.in_force = self.held().document.in_force(&absent);
        (self.absent, self.precomputed) = (absent, None);
    }

    /// Computes the steps that bring the kernel to the document without its absent parts.
    ///
    /// If a timed change begins, the guard checks the interface again.
    fn stage_without(&mut self, absent: &Absent) -> Result<Staged, ApiError> {
        let mut begins = self.absent.inactive.difference(&absent.inactive);
        let (interface, foreign) = if begins.any(|id| !absent.ended.contains(id)) {
            let interface = self.enforcer.interface(&self.in_force, &self.in_force, &Via::default())?;
            (interface, Foreign::Refuse)
        } else {
            (self.enforcer.own_interface(&self.in_force)?, Foreign::Keep)
        };
        self.enforcer.stage(interface, self.held().document.in_force(absent), foreign)
    }

    /// Passes an event to the transactions.
    fn step(&mut self, event: Event<NodePayload>, now: Now) -> Result<Effect<NodePayload>, ApiError> {
        self.step_at(event, &|| now)
    }

    /// As [`step`](Self::step), but reads the clock only for a refusal.
    fn step_at(&mut self, event: Event<NodePayload>, clock: &dyn Fn() -> Now) -> Result<Effect<NodePayload>, ApiError> {
        self.transactions.step(event).map_err(|refusal| self.refused(refusal, clock()))
    }

    fn refused(&self, refusal: Refusal, now: Now) -> ApiError {
        let message = match refusal {
            Refusal::Prepared => "another controller is changing this node; try again in a moment".to_owned(),
            Refusal::Unconfirmed => format!(
                "another controller is changing this node; its unconfirmed change is rolled back in {:.0} s",
                self.unconfirmed_for(now).unwrap_or_default().as_secs_f64().ceil()
            ),
            Refusal::AnotherDocument => format!("another change was made first: {} is in force here now", self.stamp()),
            Refusal::NotPrepared => "that change is no longer prepared here; start again".to_owned(),
            Refusal::NotInForce => "that change is not in force here; start again".to_owned(),
            Refusal::Covered => "another controller has committed a change on top of this one".to_owned(),
            Refusal::Unfinished => {
                "the last change may still be rolled back, and this change does not include all of its nodes; try \
                 again in a moment"
                    .to_owned()
            }
        };
        ErrorCode::Conflict.error(message)
    }
}
