//! The transactions on one node: its document, the change under way, and the effect of each message.
//!
//! A transaction is one change on several nodes, under one ticket. [`Transactions::step`] is the only transition. The
//! step changes only this value in memory: it reads no clock and writes no file. The step returns the work to do
//! ([`Effect`]); the node does the work and reports the result as the next event. The protocol check
//! (`tests/protocol.rs`) runs this code through every order of messages.
//!
//! A change is prepared for the node's document. If the node gets another document, the prepared change is discarded.
//!
//! When all nodes have confirmed a transaction, its controller finishes the transaction. Until then, the node can roll
//! the confirmed transaction back. A transaction lies on top of the unfinished transactions before it. Finishing a
//! transaction also finishes the transactions below it. A transaction is rolled back only together with all
//! transactions on top of it.

use std::{collections::VecDeque, time::Duration};

use serde::{Deserialize, Serialize};

use crate::wire::Ticket;

/// Number of remembered tickets of ended transactions. A controller retries for 15 s and a change takes 0.1 s, so about
/// 150 transactions can end before a late message.
const REMEMBERED: usize = 256;

/// Largest number of unfinished transactions on top of each other. If there are more, the node finishes the lowest one.
const UNFINISHED: usize = 8;

/// The types that transactions carry.
pub(crate) trait Payload {
    /// The document that the nodes of a transaction share.
    type Document: Clone;
    /// The identity of a document.
    type Stamp: PartialEq;
    /// The result of preparing a change.
    type Prepared;
    /// A computed change that waits for its commit time.
    type Ready;
    /// The reply to a commit.
    type Answer: Clone;

    /// The identity of a document.
    fn stamp(document: &Self::Document) -> Self::Stamp;

    /// True if every node of `other` is also a node of `document`.
    fn is_on_all_of(document: &Self::Document, other: &Self::Document) -> bool;
}

/// The transactions on one node.
#[cfg_attr(test, derive(Clone, PartialEq, Eq, Hash))]
pub(crate) struct Transactions<P: Payload> {
    /// The node's document.
    held: P::Document,
    phase: Phase<P::Document, P::Prepared, P::Ready, P::Answer>,
    /// Tickets of transactions that can no longer be rolled back.
    finished: Tickets,
    /// Tickets of transactions that this node has cancelled or rolled back, or was asked to roll back. A late message
    /// must not start these transactions again.
    rolled_back: Tickets,
}

type PhaseOf<P> =
    Phase<<P as Payload>::Document, <P as Payload>::Prepared, <P as Payload>::Ready, <P as Payload>::Answer>;

/// The change under way. The parameters are the types of [`Payload`], so that `derive` finds their bounds.
#[cfg_attr(test, derive(Clone, PartialEq, Eq, Hash))]
enum Phase<D, P, R, A> {
    /// No change is under way. The controller of the last change may still roll that change back.
    AtRest(Last<D>),
    /// A change is prepared. With `staged`, the change is computed, waits for its commit time, and leads to the staged
    /// document.
    Prepared { last: Last<D>, change: Change<P>, staged: Option<(D, R)> },
    /// A change is committed. Without a confirmation, the node rolls the change back at the uptime `until`.
    Unconfirmed { change: Box<RollbackPoint<D>>, until: Duration, answer: A },
    /// A change must be rolled back, and the kernel may still have the change.
    RollingBack(Box<RollbackPoint<D>>),
}

/// The confirmed transaction that led to a document; `None`: there is nothing to roll back.
pub(crate) type Last<D> = Option<Box<RollbackPoint<D>>>;

#[cfg_attr(test, derive(Clone, PartialEq, Eq, Hash))]
struct Change<P> {
    ticket: Ticket,
    /// The uptime at which the change is cancelled.
    until: Duration,
    prepared: P,
}

/// A committed transaction that can be rolled back.
#[cfg_attr(test, derive(Hash))]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RollbackPoint<D> {
    pub(crate) ticket: Ticket,
    /// The document before this transaction.
    pub(crate) before: D,
    /// The node refuses a change that leaves out nodes of this transaction, because the controller may still roll this
    /// transaction back. The refusal ends at this uptime, or earlier if the transaction is finished.
    #[serde(default, skip_serializing_if = "Duration::is_zero")]
    pub(crate) until: Duration,
    /// True if this transaction must be rolled back as soon as no other transaction lies on top.
    #[serde(rename = "is_unwanted", default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) must_roll_back: bool,
    /// The confirmed transaction that led to `before`.
    #[serde(default = "Option::default", skip_serializing_if = "Option::is_none")]
    pub(crate) below: Last<D>,
}

/// The part of the transactions that the journal keeps.
#[cfg_attr(test, derive(Hash))]
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record<D> {
    /// The document that the transaction leads to. Without a transaction: the node's document.
    pub(crate) held: D,
    /// The last transaction; `None`: there is nothing to roll back.
    pub(crate) transaction: Option<Recorded<D>>,
    /// Tickets of transactions that can no longer be rolled back.
    pub(crate) finished: Tickets,
}

/// The last transaction, committed or about to be committed.
#[cfg_attr(test, derive(Hash))]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Recorded<D> {
    pub(crate) ticket: Ticket,
    /// The document before this transaction.
    pub(crate) before: D,
    /// True if the transaction is confirmed and not being rolled back. If not, a restarted agent goes back to `before`.
    pub(crate) is_done: bool,
    /// As in [`RollbackPoint`].
    #[serde(default, skip_serializing_if = "Duration::is_zero")]
    pub(crate) until: Duration,
    /// The confirmed transaction that led to `before`.
    #[serde(default = "Option::default", skip_serializing_if = "Option::is_none")]
    pub(crate) below: Last<D>,
}

/// Tickets of transactions, the newest last. The oldest are dropped.
#[cfg_attr(test, derive(Hash))]
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Tickets(VecDeque<Ticket>);

impl Tickets {
    pub(crate) fn has(&self, ticket: &Ticket) -> bool {
        self.0.contains(ticket)
    }

    fn add(&mut self, ticket: Ticket) {
        if !self.has(&ticket) {
            self.0.push_back(ticket);
        }
        if self.0.len() > REMEMBERED {
            self.0.pop_front();
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// An input of [`Transactions::step`].
pub(crate) enum Event<P: Payload> {
    /// A controller asks to prepare a change of the document with the stamp `base`. `on_all`: the new document has
    /// every node of the present document, or need not have them all. It need not if no earlier change can be rolled
    /// back, or if [`RollbackPoint::until`] of the last change has passed.
    Prepare { ticket: Ticket, base: P::Stamp, on_all: bool },
    /// The change is possible and stays prepared until the given uptime.
    Checked(Ticket, Duration, P::Prepared),
    /// A controller asks to get ready for the commit time.
    GetReady(Ticket),
    /// The change is computed and leads to the given document.
    Staged(P::Document, P::Ready),
    /// The computed change no longer fits the kernel.
    Outdated,
    /// The commit time has come.
    Commit(Ticket),
    /// The kernel has the change. A controller must confirm the change by the given uptime.
    Committed(Ticket, P::Document, Duration, P::Answer),
    /// A controller says that all nodes have committed the change. The given uptime becomes [`RollbackPoint::until`].
    Confirm(Ticket, Duration),
    /// A controller says that all nodes have confirmed the change.
    Finish(Ticket),
    /// A controller rolls the change back.
    Rollback(Ticket),
    /// The kernel has the previous document again.
    RolledBack,
    /// The lease of the change under way has expired, or the agent ends.
    LeaseExpired,
}

/// The work that a step requires.
pub(crate) enum Effect<P: Payload> {
    /// No work.
    None,
    /// Compute the requested change.
    Compute,
    /// Repeat the previous reply.
    Answer(P::Answer),
    /// Write the change to the kernel.
    Write(P::Document, P::Ready),
    /// Write to the journal that the change is confirmed.
    WriteJournal,
    /// Discard the computed change, if there is one.
    Discard(Option<P::Ready>),
    /// Discard the computed change, if there is one, and restore the previous document in the kernel.
    RollBack(Option<P::Ready>),
    /// Write to the journal that the change is to be rolled back, and reply that another change lies on top.
    Covered,
    /// Reply that the change is kept, because it can no longer be rolled back.
    Kept,
}

/// A reason why a node refuses an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Another controller has prepared a change.
    Prepared,
    /// Another controller has committed a change and not confirmed it.
    Unconfirmed,
    /// The node's document is not the one that the change was made for.
    AnotherDocument,
    /// The change is not prepared here.
    NotPrepared,
    /// The change is not in force here.
    NotInForce,
    /// Another change, which may still be rolled back, lies on top.
    Covered,
    /// The last change may still be rolled back, and the new change leaves out some nodes of the last change.
    Unfinished,
}

impl<P: Payload> Transactions<P> {
    /// A node with a document, and no change under way.
    pub(crate) fn of(held: P::Document) -> Self {
        let (finished, rolled_back) = (Tickets::default(), Tickets::default());
        Self { held, phase: Phase::AtRest(None), finished, rolled_back }
    }

    /// The transactions of a restarted agent. Goes back to the document before an unconfirmed change; the node writes
    /// this document to the kernel.
    pub(crate) fn recovered(record: Record<P::Document>) -> Self {
        let Record { held, transaction, finished } = record;
        let mut recovered = Self { finished, ..Self::of(held) };
        let mut last = transaction.map(|Recorded { ticket, before, is_done, until, below }| {
            Box::new(RollbackPoint { ticket, before, until, must_roll_back: !is_done, below })
        });
        while let Some(point) = last.take_if(|point| point.must_roll_back) {
            recovered.held = point.before;
            recovered.rolled_back.add(point.ticket);
            last = point.below;
        }
        recovered.phase = Phase::AtRest(last);
        recovered
    }

    /// The record for the journal.
    pub(crate) fn record(&self) -> Record<P::Document> {
        let recorded = |point: &RollbackPoint<P::Document>, is_done: bool| {
            let RollbackPoint { ticket, before, until, must_roll_back: _, below } = point.clone();
            Recorded { ticket, before, is_done, until, below }
        };
        let transaction = match &self.phase {
            Phase::Prepared { change, staged: Some((next, _)), .. } => {
                return self.leading_to(next.clone(), &change.ticket);
            }
            Phase::AtRest(last) | Phase::Prepared { last, .. } => last.as_ref().map(|last| recorded(last, true)),
            Phase::Unconfirmed { change, .. } | Phase::RollingBack(change) => Some(recorded(change, false)),
        };
        Record { held: self.held.clone(), transaction, finished: self.finished.clone() }
    }

    /// The record for the journal before a change to `next` is written to the kernel.
    pub(crate) fn leading_to(&self, next: P::Document, ticket: &Ticket) -> Record<P::Document> {
        let (before, below) = (self.held.clone(), self.phase.last().cloned().map(Box::new));
        let (ticket, until) = (ticket.clone(), Duration::ZERO);
        let transaction = Some(Recorded { ticket, before, is_done: false, until, below });
        Record { held: next, transaction, finished: self.finished.clone() }
    }

    /// Handles an event: the only transition.
    #[expect(clippy::too_many_lines, reason = "one match shows all transitions together")]
    pub(crate) fn step(&mut self, event: Event<P>) -> Result<Effect<P>, Refusal> {
        use Phase::{AtRest, Prepared, RollingBack, Unconfirmed};
        let ready = |staged: Option<(P::Document, P::Ready)>| staged.map(|(_, ready)| ready);
        let phase = std::mem::replace(&mut self.phase, AtRest(None));
        let (phase, outcome) = match (phase, event) {
            // A late `Prepare` of a transaction that is over is refused in every phase.
            (phase, Event::Prepare { ticket, .. }) if self.is_over(&ticket, &phase) => {
                (phase, Err(Refusal::NotPrepared))
            }
            (phase @ Prepared { .. }, Event::Prepare { ticket, .. }) if phase.prepared(&ticket).is_none() => {
                (phase, Err(Refusal::Prepared))
            }
            (phase @ (Unconfirmed { .. } | RollingBack(_)), Event::Prepare { .. }) => {
                (phase, Err(Refusal::Unconfirmed))
            }
            (phase, Event::Prepare { base, .. }) if base != P::stamp(&self.held) => {
                (phase, Err(Refusal::AnotherDocument))
            }
            // Refused, because the last change could then no longer be rolled back on all nodes: the new change would
            // lie on top of the last change on this node, but not on the nodes that the new change leaves out.
            (phase, Event::Prepare { on_all: false, .. }) if phase.last().is_some() => {
                (phase, Err(Refusal::Unfinished))
            }
            (phase, Event::Prepare { .. }) => (phase, Ok(Effect::Compute)),
            (AtRest(last) | Prepared { last, .. }, Event::Checked(ticket, until, prepared)) => {
                (Prepared { last, change: Change { ticket, until, prepared }, staged: None }, Ok(Effect::None))
            }

            (phase, Event::GetReady(ticket)) if phase.prepared(&ticket).is_some() => (phase, Ok(Effect::Compute)),
            (Prepared { last, change, .. }, Event::Staged(next, ready)) => {
                (Prepared { last, change, staged: Some((next, ready)) }, Ok(Effect::None))
            }
            (Prepared { last, change, staged: Some((_, ready)) }, Event::Outdated) => {
                (Prepared { last, change, staged: None }, Ok(Effect::Discard(Some(ready))))
            }
            (Prepared { last, change, staged }, Event::Commit(ticket)) if change.ticket == ticket => match staged {
                None => (Prepared { last, change, staged }, Ok(Effect::Compute)),
                // If the write fails, the node keeps its document and the last transaction.
                Some((next, ready)) => (AtRest(last), Ok(Effect::Write(next, ready))),
            },
            (AtRest(below), Event::Committed(ticket, next, until, answer)) => {
                let before = std::mem::replace(&mut self.held, next);
                let change =
                    Box::new(RollbackPoint { ticket, before, until: Duration::ZERO, must_roll_back: false, below });
                (Unconfirmed { change, until, answer }, Ok(Effect::None))
            }
            (Unconfirmed { change, until, answer }, Event::GetReady(ticket) | Event::Commit(ticket))
                if change.ticket == ticket =>
            {
                let reply = answer.clone();
                (Unconfirmed { change, until, answer }, Ok(Effect::Answer(reply)))
            }

            (Unconfirmed { mut change, .. }, Event::Confirm(ticket, until)) if change.ticket == ticket => {
                change.until = until;
                if let Some(dropped) = change.cut_below(UNFINISHED) {
                    self.finished.add(dropped);
                }
                (AtRest(Some(change)), Ok(Effect::WriteJournal))
            }
            (RollingBack(change), Event::Confirm(ticket, _)) if change.ticket == ticket => {
                (RollingBack(change), Ok(Effect::RollBack(None)))
            }
            (phase, Event::Confirm(ticket, _)) if self.finished.has(&ticket) || phase.has(&ticket) => {
                (phase, Ok(Effect::None))
            }
            (mut phase, Event::Finish(ticket)) if phase.has(&ticket) => {
                self.finish(&mut phase, &ticket);
                // No journal write. A restarted agent only treats the transaction as unfinished for longer.
                (phase, Ok(Effect::None))
            }
            (phase, Event::Finish(ticket)) if self.finished.has(&ticket) => (phase, Ok(Effect::None)),

            (AtRest(Some(last)), Event::Rollback(ticket)) if last.ticket == ticket => {
                (RollingBack(last), Ok(Effect::RollBack(None)))
            }
            // The prepared change on top of the last change is cancelled as well.
            (Prepared { last: Some(last), change, staged }, Event::Rollback(ticket)) if last.ticket == ticket => {
                self.rolled_back.add(change.ticket);
                (RollingBack(last), Ok(Effect::RollBack(ready(staged))))
            }
            (Prepared { last, change, staged }, Event::Rollback(ticket)) if change.ticket == ticket => {
                self.rolled_back.add(ticket);
                (AtRest(last), Ok(Effect::Discard(ready(staged))))
            }
            (Unconfirmed { change, .. } | RollingBack(change), Event::Rollback(ticket)) if change.ticket == ticket => {
                (RollingBack(change), Ok(Effect::RollBack(None)))
            }
            (mut phase, Event::Rollback(ticket)) if phase.has(&ticket) => {
                let is_first =
                    phase.find(&ticket).is_some_and(|point| !std::mem::replace(&mut point.must_roll_back, true));
                (phase, if is_first { Ok(Effect::Covered) } else { Err(Refusal::Covered) })
            }
            (phase, Event::Rollback(ticket)) if self.finished.has(&ticket) => (phase, Ok(Effect::Kept)),
            (phase, Event::Rollback(ticket)) => {
                self.rolled_back.add(ticket);
                (phase, Ok(Effect::None))
            }

            (RollingBack(change), Event::RolledBack) => {
                let RollbackPoint { ticket, before, below, .. } = *change;
                self.held = before;
                self.rolled_back.add(ticket);
                match below {
                    Some(below) if below.must_roll_back => (RollingBack(below), Ok(Effect::RollBack(None))),
                    below => (AtRest(below), Ok(Effect::None)),
                }
            }
            (Prepared { last, change, staged }, Event::LeaseExpired) => {
                self.rolled_back.add(change.ticket);
                (AtRest(last), Ok(Effect::Discard(ready(staged))))
            }
            (Unconfirmed { change, .. } | RollingBack(change), Event::LeaseExpired) => {
                (RollingBack(change), Ok(Effect::RollBack(None)))
            }

            (phase, Event::GetReady(_) | Event::Commit(_) | Event::Checked(..) | Event::Staged(..)) => {
                (phase, Err(Refusal::NotPrepared))
            }
            (phase, Event::Confirm(..) | Event::Finish(_) | Event::Committed(..)) => (phase, Err(Refusal::NotInForce)),
            (phase, Event::Outdated | Event::RolledBack | Event::LeaseExpired) => (phase, Ok(Effect::None)),
        };
        self.phase = phase;
        outcome
    }

    /// Finishes a transaction and the transactions below it. Does nothing if a transaction below has a node that this
    /// transaction leaves out, because that node may not have confirmed the transaction below.
    fn finish(&mut self, phase: &mut PhaseOf<P>, ticket: &Ticket) {
        let (mut document, mut last) = match phase {
            Phase::AtRest(last) | Phase::Prepared { last, .. } => (&self.held, last),
            Phase::Unconfirmed { change, .. } | Phase::RollingBack(change) => (&change.before, &mut change.below),
        };
        while let Some(point) = last.take_if(|point| point.ticket != *ticket) {
            let point = last.insert(point);
            (document, last) = (&point.before, &mut point.below);
        }
        let are_all_on =
            |point: &RollbackPoint<P::Document>| point.below.is_none() || P::is_on_all_of(document, &point.before);
        if chain(last.as_deref()).all(are_all_on) {
            let finished: Vec<_> = chain(last.as_deref()).map(|point| point.ticket.clone()).collect();
            *last = None;
            // Add the oldest first: `Tickets` drops the first entries first.
            finished.into_iter().rev().for_each(|ticket| self.finished.add(ticket));
        }
    }

    /// True if a transaction is confirmed, finished, cancelled or rolled back here.
    fn is_over(&self, ticket: &Ticket, phase: &PhaseOf<P>) -> bool {
        self.rolled_back.has(ticket) || self.finished.has(ticket) || phase.has(ticket)
    }

    /// The node's document.
    pub(crate) fn held(&self) -> &P::Document {
        &self.held
    }

    /// The change that is prepared under a ticket.
    pub(crate) fn prepared(&self, ticket: &Ticket) -> Option<&P::Prepared> {
        self.phase.prepared(ticket)
    }

    /// The document to restore, if a change is being rolled back.
    pub(crate) fn rollback_target(&self) -> Option<&P::Document> {
        match &self.phase {
            Phase::RollingBack(change) => Some(&change.before),
            _ => None,
        }
    }

    /// True if a change waits for its commit time.
    pub(crate) fn is_ready(&self) -> bool {
        matches!(self.phase, Phase::Prepared { staged: Some(_), .. })
    }

    /// The uptime at which the lease of the change under way expires; zero during a rollback; `None`: no change is
    /// under way.
    pub(crate) fn lease(&self) -> Option<Duration> {
        match &self.phase {
            Phase::AtRest(_) => None,
            Phase::Prepared { change, .. } => Some(change.until),
            Phase::Unconfirmed { until, .. } => Some(*until),
            Phase::RollingBack(_) => Some(Duration::ZERO),
        }
    }

    /// The uptime at which the unconfirmed change is rolled back; zero during a rollback; `None`: there is no such
    /// change.
    pub(crate) fn rolls_back_at(&self) -> Option<Duration> {
        self.lease().filter(|_| matches!(self.phase, Phase::Unconfirmed { .. } | Phase::RollingBack(_)))
    }

    /// The uptime until which the node refuses changes that leave out nodes of the last change.
    ///
    /// `None`: no confirmed change can be rolled back.
    pub(crate) fn unfinished(&self) -> Option<Duration> {
        self.phase.last().map(|last| last.until)
    }
}

impl<D, P, R, A> Phase<D, P, R, A> {
    fn prepared(&self, ticket: &Ticket) -> Option<&P> {
        match self {
            Self::Prepared { change, .. } if change.ticket == *ticket => Some(&change.prepared),
            _ => None,
        }
    }

    /// The confirmed transaction that led to the node's document. During an unconfirmed change or a rollback: the
    /// transaction that led to the previous document.
    fn last(&self) -> Option<&RollbackPoint<D>> {
        match self {
            Self::AtRest(last) | Self::Prepared { last, .. } => last.as_deref(),
            Self::Unconfirmed { change, .. } | Self::RollingBack(change) => change.below.as_deref(),
        }
    }

    /// True if a transaction is confirmed and may still be rolled back, alone or with the transactions on top of it.
    fn has(&self, ticket: &Ticket) -> bool {
        chain(self.last()).any(|point| point.ticket == *ticket)
    }

    /// The confirmed transaction with this ticket.
    fn find(&mut self, ticket: &Ticket) -> Option<&mut RollbackPoint<D>> {
        let mut point = match self {
            Self::AtRest(last) | Self::Prepared { last, .. } => last.as_deref_mut(),
            Self::Unconfirmed { change, .. } | Self::RollingBack(change) => change.below.as_deref_mut(),
        };
        while point.as_ref().is_some_and(|other| other.ticket != *ticket) {
            point = point?.below.as_deref_mut();
        }
        point
    }
}

/// A transaction and the transactions below it, the oldest last.
pub(crate) fn chain<D>(last: Option<&RollbackPoint<D>>) -> impl Iterator<Item = &RollbackPoint<D>> {
    std::iter::successors(last, |point| point.below.as_deref())
}

impl<D> RollbackPoint<D> {
    /// Keeps the uppermost `most` transactions from this one down, and drops the rest. Returns the ticket of the
    /// uppermost dropped transaction; `None`: nothing was dropped.
    fn cut_below(&mut self, most: usize) -> Option<Ticket> {
        let mut point = self;
        for _ in 1..most {
            point = point.below.as_mut()?;
        }
        Some(point.below.take()?.ticket)
    }
}
