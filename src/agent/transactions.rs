//! The transactions on one node: which document it has, which change is under way, what each message does to both.
//!
//! [`Transactions::step`] is the only transition. It is pure: it reads no clock, writes nothing, and says what has to be
//! done ([`Effect`]). The node does that and reports the result as the next event. The protocol check
//! (`tests/protocol.rs`) drives this code through every order of messages.
//!
//! What is prepared belongs to the document that it was prepared on: whatever replaces that document drops it.

use std::{collections::VecDeque, time::Duration};

use serde::{Deserialize, Serialize};

use crate::wire::Ticket;

/// How many tickets of ended transactions are remembered. A controller asks again for 15 s; a change takes 0.1 s.
const REMEMBERED: usize = 256;

/// What the transactions are about.
pub(super) trait Subject {
    /// What all nodes have.
    type Document: Clone;
    /// Names a document.
    type Stamp: PartialEq;
    /// What is known of a change that is prepared.
    type Prepared;
    /// What is known of one that only waits for its instant.
    type Ready;
    /// What is answered when it is in force.
    type Answer: Clone;

    /// The name of a document.
    fn stamp(document: &Self::Document) -> Self::Stamp;
}

/// The transactions on one node.
#[cfg_attr(test, derive(Clone, PartialEq, Eq, Hash))]
pub(super) struct Transactions<S: Subject> {
    held: S::Document,
    phase: Phase<S::Document, S::Prepared, S::Ready, S::Answer>,
    /// Transactions that this node has kept, and that cannot be undone any more.
    superseded: Tickets,
    /// Transactions that this node has forgotten or undone. A late message must not begin them anew.
    undone: Tickets,
}

/// Which change is under way. `D` is a document, `P` and `R` are what is known of a change that is prepared or ready, and
/// `A` what is answered when it is in force.
#[cfg_attr(test, derive(Clone, PartialEq, Eq, Hash))]
enum Phase<D, P, R, A> {
    /// None. The last one may still be undone by its controller.
    AtRest(Last<D>),
    /// One is prepared on the document.
    Prepared(Last<D>, Change<P>),
    /// One waits for its instant.
    Ready(Last<D>, Change<P>, Staged<D, R>),
    /// One is in force, and is taken back at that uptime unless it is confirmed.
    Unconfirmed { change: Transaction<D>, until: Duration, answer: A },
    /// One is to be taken back, and the kernel does not do it yet.
    Returning(Transaction<D>),
}

/// The confirmed transaction that led to the document, as long as its controller may undo it.
type Last<D> = Option<Confirmed<D>>;

#[cfg_attr(test, derive(Clone, PartialEq, Eq, Hash))]
struct Change<P> {
    ticket: Ticket,
    /// The uptime at which it is forgotten.
    until: Duration,
    prepared: P,
}

#[cfg_attr(test, derive(Clone, PartialEq, Eq, Hash))]
struct Staged<D, R> {
    /// The document that the change leads to.
    next: D,
    ready: R,
}

/// A transaction that was confirmed.
#[cfg_attr(test, derive(Hash))]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Confirmed<D> {
    pub(super) ticket: Ticket,
    /// What the node had before.
    pub(super) before: D,
}

/// A transaction that is not confirmed.
#[derive(Clone)]
#[cfg_attr(test, derive(PartialEq, Eq, Hash))]
struct Transaction<D> {
    ticket: Ticket,
    before: D,
    /// The confirmed transaction that led to what was before. It can be undone again when this one is undone.
    below: Last<D>,
}

/// What an agent must not forget of its transactions.
#[cfg_attr(test, derive(Hash))]
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record<D> {
    /// The document that the transaction leads to.
    pub(super) held: D,
    /// The last transaction; `None`: there is nothing to go back to.
    pub(super) transaction: Option<Recorded<D>>,
    /// Transactions that are kept for good.
    pub(super) superseded: Tickets,
}

/// The transaction that was committed last, or that is about to be.
#[cfg_attr(test, derive(Hash))]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Recorded<D> {
    pub(super) ticket: Ticket,
    /// What the node had before.
    pub(super) before: D,
    /// Whether all nodes had it and it was confirmed. If not, what was before holds.
    pub(super) is_done: bool,
    /// The confirmed transaction that led to what was before, if this one is not done.
    #[serde(default = "Option::default", skip_serializing_if = "Option::is_none")]
    pub(super) below: Option<Confirmed<D>>,
}

/// Names of transactions, the newest last. The oldest are forgotten.
#[cfg_attr(test, derive(Hash))]
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Tickets(VecDeque<Ticket>);

impl Tickets {
    fn has(&self, ticket: &Ticket) -> bool {
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

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// What happens to a node.
pub(super) enum Event<S: Subject> {
    /// A controller asks to prepare a change of the document with that stamp.
    Prepare(Ticket, S::Stamp),
    /// The change has been checked.
    Checked(Ticket, Duration, S::Prepared),
    /// A controller asks to get ready for the instant.
    GetReady(Ticket),
    /// The change is computed and leads to that document.
    Staged(S::Document, S::Ready),
    /// What was computed no longer fits the kernel.
    Outdated,
    /// The instant has come.
    Commit(Ticket),
    /// The kernel has the change, until that uptime.
    Struck(Ticket, S::Document, Duration, S::Answer),
    /// A controller says that all nodes have the change.
    Confirm(Ticket),
    /// A controller takes the change back. `all_had_it`: every node had committed it.
    Undo { ticket: Ticket, all_had_it: bool },
    /// The kernel has what was before.
    WentBack,
    /// The time of what is prepared or not confirmed is up, or the agent ends.
    LeaseOver,
}

/// What a node has to do.
pub(super) enum Effect<S: Subject> {
    /// Nothing.
    None,
    /// Compute what was asked for.
    Compute,
    /// Give the answer that was given before.
    Answer(S::Answer),
    /// Write the change to the kernel.
    Strike(S::Document, S::Ready),
    /// Write down that the change is confirmed.
    WriteDown,
    /// Forget what was computed, if anything was.
    Forget(Option<S::Ready>),
    /// Forget what was computed, if anything was, and bring the kernel back to what was before.
    GoBack(Option<S::Ready>),
    /// Say that the change is kept: it was confirmed, and another one has been confirmed since.
    Kept,
}

/// Why a node does not do what it is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Another controller has prepared a change.
    Prepared,
    /// Another controller has committed a change and not confirmed it.
    Unconfirmed,
    /// The node has another document.
    AnotherDocument,
    /// The change is not prepared here.
    NotPrepared,
    /// The change is not in force here.
    NotInForce,
    /// Another change lies on top of it, and is not confirmed.
    Covered,
}

impl<S: Subject> Transactions<S> {
    /// A node that has a document, and on which nothing is under way.
    pub(super) fn of(held: S::Document) -> Self {
        let (superseded, undone) = (Tickets::default(), Tickets::default());
        Self { held, phase: Phase::AtRest(None), superseded, undone }
    }

    /// What an agent makes of what another one has written down. A change that was not confirmed never was.
    pub(super) fn recovered(record: Record<S::Document>) -> Self {
        let Record { held, transaction, superseded } = record;
        let mut recovered = Self { superseded, ..Self::of(held) };
        recovered.phase = Phase::AtRest(transaction.and_then(|transaction| {
            let Recorded { ticket, before, is_done, below } = transaction;
            if is_done {
                return Some(Confirmed { ticket, before });
            }
            recovered.held = before;
            recovered.undone.add(ticket);
            below
        }));
        recovered
    }

    /// What has to be written down.
    pub(super) fn record(&self) -> Record<S::Document> {
        let transaction = match &self.phase {
            Phase::AtRest(last) | Phase::Prepared(last, _) => last.clone().map(|last| {
                let Confirmed { ticket, before } = last;
                Recorded { ticket, before, is_done: true, below: None }
            }),
            Phase::Ready(_, change, staged) => return self.leading_to(staged.next.clone(), &change.ticket),
            Phase::Unconfirmed { change, .. } | Phase::Returning(change) => {
                let Transaction { ticket, before, below } = change.clone();
                Some(Recorded { ticket, before, is_done: false, below })
            }
        };
        Record { held: self.held.clone(), transaction, superseded: self.superseded.clone() }
    }

    /// What has to be written down before a change of the document is made.
    pub(super) fn leading_to(&self, next: S::Document, ticket: &Ticket) -> Record<S::Document> {
        let (before, below) = (self.held.clone(), self.last().cloned());
        let transaction = Some(Recorded { ticket: ticket.clone(), before, is_done: false, below });
        Record { held: next, transaction, superseded: self.superseded.clone() }
    }

    /// What the node does about an event: the one transition.
    #[expect(clippy::too_many_lines, reason = "one match, so that all transitions are seen together")]
    pub(super) fn step(&mut self, event: Event<S>) -> Result<Effect<S>, Refusal> {
        use Phase::{AtRest, Prepared, Ready, Returning, Unconfirmed};
        // In every arm that does not say otherwise, the phase is put back as it was.
        let phase = std::mem::replace(&mut self.phase, AtRest(None));
        let (phase, outcome) = match (phase, event) {
            // Whoever repeats a message of a transaction that is over is told so, whatever is under way.
            (phase, Event::Prepare(ticket, _)) if self.is_over(&ticket) => (phase, Err(Refusal::NotPrepared)),
            (Prepared(last, change), Event::Prepare(ticket, _)) if change.ticket != ticket => {
                (Prepared(last, change), Err(Refusal::Prepared))
            }
            (Ready(last, change, staged), Event::Prepare(ticket, _)) if change.ticket != ticket => {
                (Ready(last, change, staged), Err(Refusal::Prepared))
            }
            (phase @ (Unconfirmed { .. } | Returning(_)), Event::Prepare(..)) => (phase, Err(Refusal::Unconfirmed)),
            (phase, Event::Prepare(_, base)) if base != S::stamp(&self.held) => (phase, Err(Refusal::AnotherDocument)),
            (phase, Event::Prepare(..)) => (phase, Ok(Effect::Compute)),
            (AtRest(last) | Prepared(last, _) | Ready(last, ..), Event::Checked(ticket, until, prepared)) => {
                (Prepared(last, Change { ticket, until, prepared }), Ok(Effect::None))
            }

            (phase, Event::GetReady(ticket)) if phase.prepared(&ticket).is_some() => (phase, Ok(Effect::Compute)),
            (Prepared(last, change) | Ready(last, change, _), Event::Staged(next, ready)) => {
                (Ready(last, change, Staged { next, ready }), Ok(Effect::None))
            }
            (Ready(last, change, staged), Event::Outdated) => {
                (Prepared(last, change), Ok(Effect::Forget(Some(staged.ready))))
            }
            (Prepared(last, change), Event::Commit(ticket)) if change.ticket == ticket => {
                (Prepared(last, change), Ok(Effect::Compute))
            }
            // If the kernel fails, nothing of it is left.
            (Ready(last, change, staged), Event::Commit(ticket)) if change.ticket == ticket => {
                (AtRest(last), Ok(Effect::Strike(staged.next, staged.ready)))
            }
            (AtRest(below), Event::Struck(ticket, next, until, answer)) => {
                let before = std::mem::replace(&mut self.held, next);
                let change = Transaction { ticket, before, below };
                (Unconfirmed { change, until, answer }, Ok(Effect::None))
            }
            (Unconfirmed { change, until, answer }, Event::GetReady(ticket) | Event::Commit(ticket))
                if change.ticket == ticket =>
            {
                let again = answer.clone();
                (Unconfirmed { change, until, answer }, Ok(Effect::Answer(again)))
            }

            (Unconfirmed { change, .. }, Event::Confirm(ticket)) if change.ticket == ticket => {
                let Transaction { ticket, before, below } = change;
                self.supersede(below);
                (AtRest(Some(Confirmed { ticket, before })), Ok(Effect::WriteDown))
            }
            (Returning(change), Event::Confirm(ticket)) if change.ticket == ticket => {
                (Returning(change), Ok(Effect::GoBack(None)))
            }
            (phase, Event::Confirm(ticket)) if self.superseded.has(&ticket) || phase.is_last(&ticket) => {
                (phase, Ok(Effect::None))
            }

            (AtRest(Some(last)), Event::Undo { ticket, .. }) if last.ticket == ticket => {
                (Returning(last.into()), Ok(Effect::GoBack(None)))
            }
            // What is prepared on it goes with it.
            (Prepared(Some(last), change), Event::Undo { ticket, .. }) if last.ticket == ticket => {
                self.undone.add(change.ticket);
                (Returning(last.into()), Ok(Effect::GoBack(None)))
            }
            (Ready(Some(last), change, staged), Event::Undo { ticket, .. }) if last.ticket == ticket => {
                self.undone.add(change.ticket);
                (Returning(last.into()), Ok(Effect::GoBack(Some(staged.ready))))
            }
            (Prepared(last, change), Event::Undo { ticket, .. }) if change.ticket == ticket => {
                self.undone.add(ticket);
                (AtRest(last), Ok(Effect::None))
            }
            (Ready(last, change, staged), Event::Undo { ticket, .. }) if change.ticket == ticket => {
                self.undone.add(ticket);
                (AtRest(last), Ok(Effect::Forget(Some(staged.ready))))
            }
            (Unconfirmed { mut change, .. } | Returning(mut change), Event::Undo { ticket, all_had_it })
                if change.ticket == ticket =>
            {
                // Some node may have confirmed it, and so have said that the one below is kept.
                if all_had_it {
                    self.supersede(change.below.take());
                }
                (Returning(change), Ok(Effect::GoBack(None)))
            }
            (phase, Event::Undo { ticket, .. }) if phase.covers(&ticket) => (phase, Err(Refusal::Covered)),
            (phase, Event::Undo { ticket, .. }) if self.superseded.has(&ticket) => (phase, Ok(Effect::Kept)),
            (phase, Event::Undo { ticket, .. }) => {
                self.undone.add(ticket);
                (phase, Ok(Effect::None))
            }

            (Returning(change), Event::WentBack) => {
                self.held = change.before;
                self.undone.add(change.ticket);
                (AtRest(change.below), Ok(Effect::None))
            }
            (Prepared(last, change), Event::LeaseOver) => {
                self.undone.add(change.ticket);
                (AtRest(last), Ok(Effect::Forget(None)))
            }
            (Ready(last, change, staged), Event::LeaseOver) => {
                self.undone.add(change.ticket);
                (AtRest(last), Ok(Effect::Forget(Some(staged.ready))))
            }
            (Unconfirmed { change, .. } | Returning(change), Event::LeaseOver) => {
                (Returning(change), Ok(Effect::GoBack(None)))
            }

            (phase, Event::GetReady(_) | Event::Commit(_) | Event::Checked(..) | Event::Staged(..)) => {
                (phase, Err(Refusal::NotPrepared))
            }
            (phase, Event::Confirm(_) | Event::Struck(..)) => (phase, Err(Refusal::NotInForce)),
            (phase, Event::Outdated | Event::WentBack | Event::LeaseOver) => (phase, Ok(Effect::None)),
        };
        self.phase = phase;
        outcome
    }

    /// Remembers that a transaction can no longer be undone.
    fn supersede(&mut self, last: Last<S::Document>) {
        if let Some(last) = last {
            self.superseded.add(last.ticket);
        }
    }

    /// Whether a transaction has ended here, in one way or the other.
    fn is_over(&self, ticket: &Ticket) -> bool {
        self.undone.has(ticket) || self.superseded.has(ticket) || self.phase.is_last(ticket)
    }

    /// The document that the node has.
    pub(super) fn held(&self) -> &S::Document {
        &self.held
    }

    /// What is known of the change that is prepared under a ticket.
    pub(super) fn prepared(&self, ticket: &Ticket) -> Option<&S::Prepared> {
        self.phase.prepared(ticket)
    }

    /// The document before the change that is to be taken back.
    pub(super) fn way_back(&self) -> Option<&S::Document> {
        match &self.phase {
            Phase::Returning(change) => Some(&change.before),
            _ => None,
        }
    }

    /// Whether a change waits for its instant.
    pub(super) fn is_ready(&self) -> bool {
        matches!(self.phase, Phase::Ready(..))
    }

    /// The uptime at which what is under way ends by itself; `None`: nothing is under way.
    pub(super) fn lease(&self) -> Option<Duration> {
        match &self.phase {
            Phase::AtRest(_) => None,
            Phase::Prepared(_, change) | Phase::Ready(_, change, _) => Some(change.until),
            Phase::Unconfirmed { until, .. } => Some(*until),
            Phase::Returning(_) => Some(Duration::ZERO),
        }
    }

    /// The uptime at which what nobody has confirmed is taken back; `None`: there is no such thing.
    pub(super) fn taken_back_at(&self) -> Option<Duration> {
        self.lease().filter(|_| matches!(self.phase, Phase::Unconfirmed { .. } | Phase::Returning(_)))
    }

    fn last(&self) -> Option<&Confirmed<S::Document>> {
        match &self.phase {
            Phase::AtRest(last) | Phase::Prepared(last, _) | Phase::Ready(last, ..) => last.as_ref(),
            Phase::Unconfirmed { .. } | Phase::Returning(_) => None,
        }
    }
}

impl<D, P, R, A> Phase<D, P, R, A> {
    fn prepared(&self, ticket: &Ticket) -> Option<&P> {
        match self {
            Self::Prepared(_, change) | Self::Ready(_, change, _) => {
                Some(&change.prepared).filter(|_| change.ticket == *ticket)
            }
            _ => None,
        }
    }

    /// Whether a transaction is confirmed and may still be undone, now or when what covers it is undone.
    fn is_last(&self, ticket: &Ticket) -> bool {
        let last = match self {
            Self::AtRest(last) | Self::Prepared(last, _) | Self::Ready(last, ..) => last,
            Self::Unconfirmed { change, .. } | Self::Returning(change) => &change.below,
        };
        last.as_ref().is_some_and(|last| last.ticket == *ticket)
    }

    /// Whether an unconfirmed change lies on top of a transaction.
    fn covers(&self, ticket: &Ticket) -> bool {
        matches!(self, Self::Unconfirmed { .. } | Self::Returning(_)) && self.is_last(ticket)
    }
}

impl<D> From<Confirmed<D>> for Transaction<D> {
    fn from(Confirmed { ticket, before }: Confirmed<D>) -> Self {
        Self { ticket, before, below: None }
    }
}
