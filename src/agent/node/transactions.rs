//! The transactions on one node: which document it has, which change is under way, what each message does to both.
//!
//! [`Transactions::step`] is the only transition. It is pure: it reads no clock, writes nothing, and says what has to be
//! done ([`Effect`]). The node does that and reports the result as the next event. The protocol check
//! (`tests/protocol.rs`) drives this code through every order of messages.
//!
//! What is prepared belongs to the document that it was prepared on: whatever replaces that document drops it.
//!
//! A transaction that is confirmed can be rolled back until its controller says that all nodes have confirmed it, which finishes
//! it and all that lie below it. If another one is confirmed on top before that, it can only be rolled back with that one.

use std::{collections::VecDeque, time::Duration};

use serde::{Deserialize, Serialize};

use crate::wire::Ticket;

/// How many tickets of ended transactions are remembered. A controller asks again for 15 s; a change takes 0.1 s.
const REMEMBERED: usize = 256;

/// How many transactions that no controller has finished can lie on top of each other. The lowest is then kept for good.
const UNFINISHED: usize = 8;

/// What the transactions are about.
pub(crate) trait Subject {
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

    /// Whether a document is given to all nodes that another one was given to.
    fn is_on_all_of(document: &Self::Document, other: &Self::Document) -> bool;
}

/// The transactions on one node.
#[cfg_attr(test, derive(Clone, PartialEq, Eq, Hash))]
pub(crate) struct Transactions<S: Subject> {
    held: S::Document,
    phase: Phase<S::Document, S::Prepared, S::Ready, S::Answer>,
    /// Transactions that are finished: all nodes keep them.
    finished: Tickets,
    /// Transactions that this node has forgotten or rolled back. A late message must not begin them anew.
    rolled_back: Tickets,
}

/// Which change is under way. `D` is a document, `P` and `R` are what is known of a change that is prepared or ready, and
/// `A` what is answered when it is in force.
#[cfg_attr(test, derive(Clone, PartialEq, Eq, Hash))]
enum Phase<D, P, R, A> {
    /// None. The last one may still be rolled back by its controller.
    AtRest(Last<D>),
    /// One is prepared on the document.
    Prepared(Last<D>, Change<P>),
    /// One waits for its instant.
    Ready(Last<D>, Change<P>, Staged<D, R>),
    /// One is in force, and is taken back at that uptime unless it is confirmed.
    Unconfirmed { change: Box<Made<D>>, until: Duration, answer: A },
    /// One is to be taken back, and the kernel does not do it yet.
    Returning(Box<Made<D>>),
}

/// The confirmed transaction that led to a document, as long as its controller may roll it back.
pub(crate) type Last<D> = Option<Box<Made<D>>>;

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

/// A transaction that was made and can be rolled back.
#[cfg_attr(test, derive(Hash))]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Made<D> {
    pub(crate) ticket: Ticket,
    /// What the node had before.
    pub(crate) before: D,
    /// The uptime until which changes on some nodes wait for its controller to finish it.
    #[serde(default, skip_serializing_if = "Duration::is_zero")]
    pub(crate) until: Duration,
    /// Whether its controller has asked to roll it back. That is done as soon as nothing lies on top of it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) is_unwanted: bool,
    /// The confirmed transaction that led to what was before.
    #[serde(default = "Option::default", skip_serializing_if = "Option::is_none")]
    pub(crate) below: Last<D>,
}

/// What an agent must not forget of its transactions.
#[cfg_attr(test, derive(Hash))]
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record<D> {
    /// The document that the transaction leads to.
    pub(crate) held: D,
    /// The last transaction; `None`: there is nothing to go back to.
    pub(crate) transaction: Option<Recorded<D>>,
    /// Transactions that all nodes keep.
    pub(crate) finished: Tickets,
}

/// The transaction that was committed last, or that is about to be.
#[cfg_attr(test, derive(Hash))]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Recorded<D> {
    pub(crate) ticket: Ticket,
    /// What the node had before.
    pub(crate) before: D,
    /// Whether all nodes had it and it was confirmed. If not, what was before holds.
    pub(crate) is_done: bool,
    /// The uptime until which changes on some nodes wait for its controller to finish it.
    #[serde(default, skip_serializing_if = "Duration::is_zero")]
    pub(crate) until: Duration,
    /// The confirmed transaction that led to what was before.
    #[serde(default = "Option::default", skip_serializing_if = "Option::is_none")]
    pub(crate) below: Last<D>,
}

/// Names of transactions, the newest last. The oldest are forgotten.
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

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// What happens to a node.
pub(crate) enum Event<S: Subject> {
    /// A controller asks to prepare a change of the document with that stamp. `on_all`: on all nodes that have that
    /// document, or that are no longer waited for.
    Prepare { ticket: Ticket, base: S::Stamp, on_all: bool },
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
    /// A controller says that all nodes have the change. It finishes or rolls it back until that uptime.
    Confirm(Ticket, Duration),
    /// A controller says that all nodes have confirmed the change.
    Finish(Ticket),
    /// A controller takes the change back.
    Rollback(Ticket),
    /// The kernel has what was before.
    WentBack,
    /// The time of what is prepared or not confirmed is up, or the agent ends.
    LeaseOver,
}

/// What a node has to do.
pub(crate) enum Effect<S: Subject> {
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
    /// Write down that the change is to be rolled back, and say that another one lies on top of it.
    Covered,
    /// Say that the change is kept: all nodes have confirmed it, or another one on top of it.
    Kept,
}

/// Why a node does not do what it is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
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
    /// Another change lies on top of it, which may still be rolled back.
    Covered,
    /// The controller of the last change may still roll it back, and this one is not made on all nodes that have it.
    Unfinished,
}

impl<S: Subject> Transactions<S> {
    /// A node that has a document, and on which nothing is under way.
    pub(crate) fn of(held: S::Document) -> Self {
        let (finished, rolled_back) = (Tickets::default(), Tickets::default());
        Self { held, phase: Phase::AtRest(None), finished, rolled_back }
    }

    /// What an agent makes of what another one has written down. A change that was not confirmed never was.
    pub(crate) fn recovered(record: Record<S::Document>) -> Self {
        let Record { held, transaction, finished } = record;
        let mut recovered = Self { finished, ..Self::of(held) };
        let is_interrupted = transaction.as_ref().is_some_and(|transaction| !transaction.is_done);
        let mut last = transaction.map(|Recorded { ticket, before, is_done: _, until, below }| {
            Box::new(Made { ticket, before, until, is_unwanted: is_interrupted, below })
        });
        while let Some(made) = last.take_if(|made| made.is_unwanted) {
            recovered.held = made.before;
            recovered.rolled_back.add(made.ticket);
            last = made.below;
        }
        recovered.phase = Phase::AtRest(last);
        recovered
    }

    /// What has to be written down.
    pub(crate) fn record(&self) -> Record<S::Document> {
        let recorded = |made: &Made<S::Document>, is_done: bool| {
            let Made { ticket, before, until, is_unwanted: _, below } = made.clone();
            Recorded { ticket, before, is_done, until, below }
        };
        let transaction = match &self.phase {
            Phase::AtRest(last) | Phase::Prepared(last, _) => last.as_ref().map(|last| recorded(last, true)),
            Phase::Ready(_, change, staged) => return self.leading_to(staged.next.clone(), &change.ticket),
            Phase::Unconfirmed { change, .. } | Phase::Returning(change) => Some(recorded(change, false)),
        };
        Record { held: self.held.clone(), transaction, finished: self.finished.clone() }
    }

    /// What has to be written down before a change of the document is made.
    pub(crate) fn leading_to(&self, next: S::Document, ticket: &Ticket) -> Record<S::Document> {
        let (before, below) = (self.held.clone(), self.phase.last().cloned().map(Box::new));
        let (ticket, until) = (ticket.clone(), Duration::ZERO);
        let transaction = Some(Recorded { ticket, before, is_done: false, until, below });
        Record { held: next, transaction, finished: self.finished.clone() }
    }

    /// What the node does about an event: the one transition.
    #[expect(clippy::too_many_lines, reason = "one match, so that all transitions are seen together")]
    pub(crate) fn step(&mut self, event: Event<S>) -> Result<Effect<S>, Refusal> {
        use Phase::{AtRest, Prepared, Ready, Returning, Unconfirmed};
        // In every arm that does not say otherwise, the phase is put back as it was.
        let phase = std::mem::replace(&mut self.phase, AtRest(None));
        let (phase, outcome) = match (phase, event) {
            // Whoever repeats a message of a transaction that is over is told so, whatever is under way.
            (phase, Event::Prepare { ticket, .. }) if self.is_over(&ticket, &phase) => {
                (phase, Err(Refusal::NotPrepared))
            }
            (Prepared(last, change), Event::Prepare { ticket, .. }) if change.ticket != ticket => {
                (Prepared(last, change), Err(Refusal::Prepared))
            }
            (Ready(last, change, staged), Event::Prepare { ticket, .. }) if change.ticket != ticket => {
                (Ready(last, change, staged), Err(Refusal::Prepared))
            }
            (phase @ (Unconfirmed { .. } | Returning(_)), Event::Prepare { .. }) => (phase, Err(Refusal::Unconfirmed)),
            (phase, Event::Prepare { base, .. }) if base != S::stamp(&self.held) => {
                (phase, Err(Refusal::AnotherDocument))
            }
            // Nodes that are left out would be without the change if it is rolled back, and this one could not be.
            (phase, Event::Prepare { on_all: false, .. }) if phase.last().is_some() => {
                (phase, Err(Refusal::Unfinished))
            }
            (phase, Event::Prepare { .. }) => (phase, Ok(Effect::Compute)),
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
                let change = Box::new(Made { ticket, before, until: Duration::ZERO, is_unwanted: false, below });
                (Unconfirmed { change, until, answer }, Ok(Effect::None))
            }
            (Unconfirmed { change, until, answer }, Event::GetReady(ticket) | Event::Commit(ticket))
                if change.ticket == ticket =>
            {
                let again = answer.clone();
                (Unconfirmed { change, until, answer }, Ok(Effect::Answer(again)))
            }

            (Unconfirmed { mut change, .. }, Event::Confirm(ticket, until)) if change.ticket == ticket => {
                change.until = until;
                if let Some(lowest) = change.lowest_of(UNFINISHED) {
                    self.finished.add(lowest);
                }
                (AtRest(Some(change)), Ok(Effect::WriteDown))
            }
            (Returning(change), Event::Confirm(ticket, _)) if change.ticket == ticket => {
                (Returning(change), Ok(Effect::GoBack(None)))
            }
            (phase, Event::Confirm(ticket, _)) if self.finished.has(&ticket) || phase.has(&ticket) => {
                (phase, Ok(Effect::None))
            }
            (mut phase, Event::Finish(ticket)) if phase.has(&ticket) => {
                self.finish(&mut phase, &ticket);
                // An agent that forgets this only waits for longer.
                (phase, Ok(Effect::None))
            }
            (phase, Event::Finish(ticket)) if self.finished.has(&ticket) => (phase, Ok(Effect::None)),

            (AtRest(Some(last)), Event::Rollback(ticket)) if last.ticket == ticket => {
                (Returning(last), Ok(Effect::GoBack(None)))
            }
            // What is prepared on it goes with it.
            (Prepared(Some(last), change), Event::Rollback(ticket)) if last.ticket == ticket => {
                self.rolled_back.add(change.ticket);
                (Returning(last), Ok(Effect::GoBack(None)))
            }
            (Ready(Some(last), change, staged), Event::Rollback(ticket)) if last.ticket == ticket => {
                self.rolled_back.add(change.ticket);
                (Returning(last), Ok(Effect::GoBack(Some(staged.ready))))
            }
            (Prepared(last, change), Event::Rollback(ticket)) if change.ticket == ticket => {
                self.rolled_back.add(ticket);
                (AtRest(last), Ok(Effect::None))
            }
            (Ready(last, change, staged), Event::Rollback(ticket)) if change.ticket == ticket => {
                self.rolled_back.add(ticket);
                (AtRest(last), Ok(Effect::Forget(Some(staged.ready))))
            }
            (Unconfirmed { change, .. } | Returning(change), Event::Rollback(ticket)) if change.ticket == ticket => {
                (Returning(change), Ok(Effect::GoBack(None)))
            }
            (mut phase, Event::Rollback(ticket)) if phase.has(&ticket) => {
                let is_news = phase.find(&ticket).is_some_and(|made| !std::mem::replace(&mut made.is_unwanted, true));
                (phase, if is_news { Ok(Effect::Covered) } else { Err(Refusal::Covered) })
            }
            (phase, Event::Rollback(ticket)) if self.finished.has(&ticket) => (phase, Ok(Effect::Kept)),
            (phase, Event::Rollback(ticket)) => {
                self.rolled_back.add(ticket);
                (phase, Ok(Effect::None))
            }

            (Returning(change), Event::WentBack) => {
                let Made { ticket, before, below, .. } = *change;
                self.held = before;
                self.rolled_back.add(ticket);
                match below {
                    Some(below) if below.is_unwanted => (Returning(below), Ok(Effect::GoBack(None))),
                    below => (AtRest(below), Ok(Effect::None)),
                }
            }
            (Prepared(last, change), Event::LeaseOver) => {
                self.rolled_back.add(change.ticket);
                (AtRest(last), Ok(Effect::Forget(None)))
            }
            (Ready(last, change, staged), Event::LeaseOver) => {
                self.rolled_back.add(change.ticket);
                (AtRest(last), Ok(Effect::Forget(Some(staged.ready))))
            }
            (Unconfirmed { change, .. } | Returning(change), Event::LeaseOver) => {
                (Returning(change), Ok(Effect::GoBack(None)))
            }

            (phase, Event::GetReady(_) | Event::Commit(_) | Event::Checked(..) | Event::Staged(..)) => {
                (phase, Err(Refusal::NotPrepared))
            }
            (phase, Event::Confirm(..) | Event::Finish(_) | Event::Struck(..)) => (phase, Err(Refusal::NotInForce)),
            (phase, Event::Outdated | Event::WentBack | Event::LeaseOver) => (phase, Ok(Effect::None)),
        };
        self.phase = phase;
        outcome
    }

    /// All nodes keep a transaction, and with it those that it lies on. Of those, nothing is known where they were made on
    /// nodes that it was not made on.
    fn finish(&mut self, phase: &mut Phase<S::Document, S::Prepared, S::Ready, S::Answer>, ticket: &Ticket) {
        let (mut document, mut last) = match phase {
            Phase::AtRest(last) | Phase::Prepared(last, _) | Phase::Ready(last, ..) => (&self.held, last),
            Phase::Unconfirmed { change, .. } | Phase::Returning(change) => (&change.before, &mut change.below),
        };
        while let Some(made) = last.take_if(|made| made.ticket != *ticket) {
            let made = last.insert(made);
            (document, last) = (&made.before, &mut made.below);
        }
        let are_all_on = |made: &Made<S::Document>| made.below.is_none() || S::is_on_all_of(document, &made.before);
        if last.iter().flat_map(|made| made.down()).all(are_all_on) {
            let finished: Vec<_> = last.iter().flat_map(|made| made.down()).map(|made| made.ticket.clone()).collect();
            *last = None;
            // The oldest first, as the oldest are forgotten first.
            finished.into_iter().rev().for_each(|ticket| self.finished.add(ticket));
        }
    }

    /// Whether a transaction has ended here, in one way or the other.
    fn is_over(&self, ticket: &Ticket, phase: &Phase<S::Document, S::Prepared, S::Ready, S::Answer>) -> bool {
        self.rolled_back.has(ticket) || self.finished.has(ticket) || phase.has(ticket)
    }

    /// The document that the node has.
    pub(crate) fn held(&self) -> &S::Document {
        &self.held
    }

    /// What is known of the change that is prepared under a ticket.
    pub(crate) fn prepared(&self, ticket: &Ticket) -> Option<&S::Prepared> {
        self.phase.prepared(ticket)
    }

    /// The document before the change that is to be taken back.
    pub(crate) fn way_back(&self) -> Option<&S::Document> {
        match &self.phase {
            Phase::Returning(change) => Some(&change.before),
            _ => None,
        }
    }

    /// Whether a change waits for its instant.
    pub(crate) fn is_ready(&self) -> bool {
        matches!(self.phase, Phase::Ready(..))
    }

    /// The uptime at which what is under way ends by itself; `None`: nothing is under way.
    pub(crate) fn lease(&self) -> Option<Duration> {
        match &self.phase {
            Phase::AtRest(_) => None,
            Phase::Prepared(_, change) | Phase::Ready(_, change, _) => Some(change.until),
            Phase::Unconfirmed { until, .. } => Some(*until),
            Phase::Returning(_) => Some(Duration::ZERO),
        }
    }

    /// The uptime at which what nobody has confirmed is taken back; `None`: there is no such thing.
    pub(crate) fn taken_back_at(&self) -> Option<Duration> {
        self.lease().filter(|_| matches!(self.phase, Phase::Unconfirmed { .. } | Phase::Returning(_)))
    }

    /// The uptime until which changes on some nodes wait for the controller of the confirmed transaction that led to the
    /// document, which may still roll it back; `None`: nobody may.
    pub(crate) fn unfinished(&self) -> Option<Duration> {
        self.phase.last().map(|last| last.until)
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

    /// The confirmed transaction that led to the document, or to the one that is not confirmed.
    fn last(&self) -> Option<&Made<D>> {
        match self {
            Self::AtRest(last) | Self::Prepared(last, _) | Self::Ready(last, ..) => last.as_deref(),
            Self::Unconfirmed { change, .. } | Self::Returning(change) => change.below.as_deref(),
        }
    }

    /// Whether a transaction is confirmed and may still be rolled back, now or with what lies on top of it.
    fn has(&self, ticket: &Ticket) -> bool {
        self.last().is_some_and(|last| last.down().any(|made| made.ticket == *ticket))
    }

    /// That transaction.
    fn find(&mut self, ticket: &Ticket) -> Option<&mut Made<D>> {
        let mut made = match self {
            Self::AtRest(last) | Self::Prepared(last, _) | Self::Ready(last, ..) => last.as_deref_mut(),
            Self::Unconfirmed { change, .. } | Self::Returning(change) => change.below.as_deref_mut(),
        };
        while made.as_ref().is_some_and(|other| other.ticket != *ticket) {
            made = made?.below.as_deref_mut();
        }
        made
    }
}

impl<D> Recorded<D> {
    /// The confirmed transactions that it lies on.
    pub(crate) fn below(&self) -> impl Iterator<Item = &Made<D>> {
        self.below.iter().flat_map(|below| below.down())
    }
}

impl<D> Made<D> {
    /// Does the same to each of those that lie on each other.
    pub(crate) fn each(last: Last<D>, change: &impl Fn(Self) -> Self) -> Last<D> {
        let mut made = change(*last?);
        made.below = Self::each(made.below.take(), change);
        Some(Box::new(made))
    }

    /// The transaction and all that it lies on, the oldest last.
    fn down(&self) -> impl Iterator<Item = &Self> {
        std::iter::successors(Some(self), |made| made.below.as_deref())
    }

    /// Cuts off what lies deeper than so many, and answers its ticket.
    fn lowest_of(&mut self, most: usize) -> Option<Ticket> {
        let mut made = self;
        for _ in 1..most {
            made = made.below.as_mut()?;
        }
        Some(made.below.take()?.ticket)
    }
}
