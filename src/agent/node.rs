//! One node's state, and what begins and ends on it by itself. [`changing`] has the changes that controllers ask for,
//! [`keeping`] whether the node keeps what it committed.
//!
//! No clock is read here: whoever calls says what time it is, or brings the clock along.

mod changing;
mod claim;
mod drift;
mod enforcer;
mod guard;
mod host;
pub(crate) mod journal;
mod keeping;
mod status;
pub(super) mod transactions;
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
    transactions::{Effect, Event, Payload, Recorded, Refusal, Transactions},
};
#[cfg(test)]
use super::dry_run::Sandbox;
use super::{
    AfterReboot, Config, Now, Via,
    dry_run::{ScratchNamespace, no_namespace},
    time,
};
use crate::{
    kernel::{Interface, Kernel},
    plan::{Absent, Mode, Stamp, TimedId, Wanted},
    wire::{ApiError, Beginning, Committed, Counted, Document, ErrorCode, Host, NodeStatus, Recovered, Routed},
};

/// How often is looked whether classes that nothing uses any more have drained.
const SWEEP_AGAIN: Duration = Duration::from_millis(200);

/// What a node needs of its agent when nobody is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// That it runs: something is under way, or will begin, end or be answered.
    Process,
    /// That the next one goes on from the journal: what is in force stays as it is.
    Journal,
    /// Nothing: nothing is in force.
    Nothing,
}

/// A node: its configuration, its kernel and what is in force. All requests go through one of these, one at a time.
pub struct Node<K> {
    enforcer: Enforcer<K>,
    /// The boot that it runs in.
    boot: String,
    /// What all nodes have, when parts of it begin and end, and which change is under way.
    transactions: Transactions<NodePayload>,
    /// What of it the kernel does not have, because it is not in force.
    absent: Absent,
    /// What is in force here: the document without that.
    in_force: Wanted,
    /// The next change that comes by itself, computed.
    ahead: Option<(Absent, Staged)>,
    /// After a start from the journal, or after a change that could be neither done nor rolled back, until the kernel has what
    /// it should: a document that names the interface.
    unreconciled: Option<Wanted>,
    /// What it needs of an agent, for a keeper to know when it may end.
    need: watch::Sender<Need>,
    /// What the journal had.
    recovered: Option<Recovered>,
    /// What others do to the interface.
    drift_watch: DriftWatch,
    /// Why the journal does not say what is in force, and at which uptime it is tried again.
    behind: Option<(String, Duration)>,
    /// Keeps other agents from the journal and the interfaces.
    claim: Claim,
}

/// What a node's transactions are about.
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
        let sandbox = match ScratchNamespace::find() {
            Ok(sandbox) => {
                info!("The kernel is tried out in {sandbox}.");
                sandbox
            }
            Err(error) => {
                warn!("{}.", no_namespace(&error));
                ScratchNamespace::InUserNamespace
            }
        };
        Self::from_journal(Enforcer::new(config, kernel, sandbox), claim, time::boot(), now)
    }

    /// A node whose kernel is tried out elsewhere, in a boot of that name.
    #[cfg(test)]
    pub(super) fn with_sandbox(
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
        let entry = enforcer.config.journal.as_deref().map(journal::read).transpose()?.flatten();
        let drift_watch = DriftWatch::new(enforcer.config.on_drift);
        let mut node = Self {
            enforcer,
            boot,
            transactions: Transactions::of(Held::default()),
            absent: Absent::default(),
            in_force: Wanted::default(),
            ahead: None,
            unreconciled: None,
            need: watch::Sender::new(Need::Process),
            recovered: None,
            drift_watch,
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
        node.unreconciled = Some(names_interface);
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
        self.enforcer.kernel.event_descriptor()
    }

    /// What this node needs of an agent, as of the last time that it was [tended](Node::tend).
    pub fn need(&self) -> watch::Receiver<Need> {
        self.need.subscribe()
    }

    fn need_at(&self, now: Now) -> Need {
        let Held { document, timeline, .. } = self.held();
        let is_unsure = self.unreconciled.is_some() || self.behind.is_some();
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
        let unreconciled = if self.unreconciled.is_some() { "; the kernel does not have it yet" } else { "" };
        format!("generation {}: {parts}{unreconciled}", self.held().document.generation)
    }

    /// The document that this node has, and what of it is not in force.
    pub fn document(&self, now: Now) -> Document {
        let Held { document, timeline, .. } = self.held();
        Document {
            wanted: document.clone(),
            absent: timeline.absent(now.uptime),
            begins: timeline.begins().into_iter().map(|(of, at)| Beginning { of, at }).collect(),
            unconfirmed: self.transactions.rolls_back_at().is_some(),
            unfinished: self.transactions.unfinished().map(|until| until.saturating_sub(now.uptime)),
        }
    }

    /// Brings the kernel in line with the journal, and begins one if there is none. Where either fails, [`Node::tick`]
    /// tries again: an agent without a disk still ends what has its time.
    pub fn resume(&mut self, now: Now) {
        if self.unreconciled.is_none() {
            // A commit that is interrupted right away has something to go back to.
            self.update_journal(now);
        } else if let Err(error) = self.reconcile(now) {
            warn!(%error, "The kernel could not be brought in line with the journal; trying again.");
        }
    }

    /// Does what is to be done without being asked: takes back what nobody confirms, begins and ends what has its time,
    /// removes classes that have drained, rolls back what others do if that is asked of it.
    ///
    /// Answers at which uptime something changes next. After an error everything is tried again at the next call.
    pub fn tick(&mut self, now: Now) -> Result<Option<Duration>, ApiError> {
        self.need.send_replace(Need::Process);
        self.watch_drift(now);
        if self.behind.as_ref().is_some_and(|(_, again)| *again <= now.uptime) {
            self.update_journal(now);
        }
        self.expire(now)?;
        self.apply_timeline(now)?;
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
        let looked = self.drift_watch.next_look().filter(|_| is_free && self.interface_name().is_some());
        let swept = (is_free && self.enforcer.drains()).then(|| now.uptime + SWEEP_AGAIN);
        [turn, self.transactions.lease(), written_down, looked, swept].into_iter().flatten().min()
    }

    /// Computes what is to be written at an uptime to come, so that only the writes are left to do then.
    pub fn precompute(&mut self, uptime: Duration) -> Result<(), ApiError> {
        let absent = self.held().timeline.absent(uptime);
        if self.unreconciled.is_none() && absent != self.absent {
            if self.is_interface_replaced()? {
                return Ok(());
            }
            let in_force = self.held().document.in_force(&absent);
            let (interface, foreign) = self.interface_for(&absent)?;
            let staged = self.enforcer.stage(interface, in_force, foreign)?;
            self.ahead = Some((absent, staged));
        }
        Ok(())
    }

    /// Puts in force what has begun and takes off what has not or is over. The document stays: it is the same on all
    /// nodes.
    fn apply_timeline(&mut self, now: Now) -> Result<(), ApiError> {
        self.reconcile(now)?;
        let absent = self.held().timeline.absent(now.uptime);
        if absent == self.absent {
            return Ok(());
        }
        if self.is_interface_replaced()? {
            // The interface that had it is gone, and with it all that was there; the vigil knows what to do.
            self.note(absent);
            return Ok(());
        }
        // What was computed for another moment is of no use at this one.
        let staged = if let Some((_, staged)) = self.ahead.take().filter(|(ahead, _)| *ahead == absent) {
            staged
        } else {
            let (interface, foreign) = self.interface_for(&absent)?;
            self.enforcer.stage(interface, self.held().document.in_force(&absent), foreign)?
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
            self.drift_watch.begin(None);
        }
        (self.absent, self.in_force) = (absent, staged.wanted);
        Ok(())
    }

    /// After a start from the journal: makes the kernel do what is in force now, whatever was when the agent ended.
    fn reconcile(&mut self, now: Now) -> Result<(), ApiError> {
        let Some(names_interface) = &self.unreconciled else { return Ok(()) };
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
            let staged = self.enforcer.stage(interface, in_force, Foreign::Refuses)?;
            writes = self.enforcer.strike(&staged, &|| now)?.writes;
            self.reset_drift_watch(staged.interface(), &staged.wanted);
        }
        self.unreconciled = None;
        self.note(absent);
        let ended: Vec<String> = self.absent.ended.iter().map(|id| id.name.clone()).collect();
        info!(node = %self.enforcer.config.node, writes, ?ended, "{} is in force again.", self.stamp());
        if let Some(recovered) = &mut self.recovered {
            (recovered.writes, recovered.ended) = (Some(writes), ended);
        }
        self.update_journal(now);
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
        if let Err(error) = self.expire(now).and_then(|()| self.apply_timeline(now)) {
            warn!(%error, "What has begun or ended could not be put in force.");
        }
        let look = self.look(now)?;
        let behind = self.behind.as_ref().map(|(why, _)| why.clone());
        let watch = self.drift_watch.status(now, behind);
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
    fn interface_for(&mut self, absent: &Absent) -> Result<(Interface, Foreign), ApiError> {
        let mut begins = self.absent.asleep.difference(&absent.asleep);
        if begins.any(|id| !absent.ended.contains(id)) {
            let interface = self.enforcer.interface(&self.in_force, &self.in_force, &Via::default())?;
            Ok((interface, Foreign::Refuses))
        } else {
            Ok((self.enforcer.own_interface(&self.in_force)?, Foreign::Stays))
        }
    }

    /// The next step of the transactions.
    fn step(&mut self, event: Event<NodePayload>, now: Now) -> Result<Effect<NodePayload>, ApiError> {
        self.step_at(event, &|| now)
    }

    /// The same where the clock is to be read only if it is refused.
    fn step_at(&mut self, event: Event<NodePayload>, clock: &dyn Fn() -> Now) -> Result<Effect<NodePayload>, ApiError> {
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
            Refusal::Unfinished => {
                "the command that made the last change may still roll it back, and this change leaves out \
                                    nodes that have it; try again in a moment"
                    .to_owned()
            }
        };
        ApiError::new(ErrorCode::Conflict, message)
    }
}
