//! The agents of the protocol check. They run `Transactions::step`, and do the resulting work as `Node` does.

use super::{super::*, Check, DocumentId, Mutant, ticket};
use crate::{
    agent::node::transactions::{Effect, Event, Payload, Record, Refusal, Transactions, chain},
    fleet::decision::Heard,
};

/// A state of an agent: an index in [`Check::agents`].
pub(super) type AgentId = u16;

/// The types that the transactions of the protocol check carry.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct TestPayload;

/// A document, and the nodes that it is for, one bit for each node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Held {
    pub(super) document: DocumentId,
    pub(super) on: u8,
}

impl Payload for TestPayload {
    type Document = Held;
    type Stamp = DocumentId;
    type Prepared = Held;
    type Ready = ();
    type Answer = ();

    fn stamp(held: &Held) -> DocumentId {
        held.document
    }

    fn is_on_all_of(held: &Held, other: &Held) -> bool {
        other.on & !held.on == 0
    }
}

/// An agent and its journal.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct Agent {
    pub(super) transactions: Transactions<TestPayload>,
    journal: Record<Held>,
}

/// A request to an agent, by the controller with the number `who`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Message {
    Stamp,
    /// `agent_waits`: the agent still waits for the controller of its last change.
    Document {
        agent_waits: bool,
    },
    Prepare {
        who: u8,
        base: DocumentId,
        wanted: DocumentId,
        agent_waits: bool,
    },
    Ready {
        who: u8,
    },
    Commit {
        who: u8,
    },
    Confirm {
        who: u8,
    },
    Finish {
        who: u8,
    },
    Rollback {
        who: u8,
    },
}

/// An input of an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Input {
    Received(Message),
    /// The commit time of the controller `who` has come.
    CommitTime {
        who: u8,
    },
    LeaseExpired,
    Killed,
}

/// Says whether the controller that made a document may still roll it back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Unfinished {
    No,
    AgentWaits,
    /// The controller has not finished the change, and the agent no longer waits for the controller.
    Overdue,
}

impl Unfinished {
    pub(super) fn waits(self) -> Option<Duration> {
        match self {
            Self::No => None,
            Self::AgentWaits => Some(SECOND),
            Self::Overdue => Some(Duration::ZERO),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Answer {
    Heard(Heard),
    Stamp(DocumentId),
    Document {
        document: DocumentId,
        is_unconfirmed: bool,
        unfinished: Unfinished,
    },
    /// The change leaves out nodes of the last change, so it must wait for the controller of the last change.
    Unfinished,
    /// The commit waits for its commit time.
    Waits,
}

/// The state of a controller's change on an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ChangeState {
    Absent,
    Kept,
    /// The agent rolls the change back together with the change on top.
    Unwanted,
}

impl Agent {
    pub(super) fn new(held: Held) -> Self {
        let transactions = Transactions::of(held);
        Self { journal: transactions.record(), transactions }
    }

    pub(super) fn is_leased_to(&self, ticket: &Ticket) -> bool {
        let under_way = self.transactions.record().transaction.filter(|transaction| !transaction.is_done);
        self.transactions.prepared(ticket).is_some() || under_way.is_some_and(|under_way| under_way.ticket == *ticket)
    }

    pub(super) fn change_state(&self, ticket: &Ticket) -> ChangeState {
        let record = self.transactions.record();
        let last = record.transaction.as_ref();
        let top = last.filter(|last| last.is_done && last.ticket == *ticket).map(|_| false);
        let below = last
            .and_then(|last| chain(last.below.as_deref()).find(|made| made.ticket == *ticket))
            .map(|made| made.must_roll_back);
        match top.or(below) {
            Some(true) => ChangeState::Unwanted,
            Some(false) => ChangeState::Kept,
            None if record.finished.has(ticket) => ChangeState::Kept,
            None => ChangeState::Absent,
        }
    }

    fn handle(&mut self, input: Input, on: impl Fn(DocumentId) -> u8, mutant: Mutant) -> Answer {
        let heard = match input {
            Input::Received(Message::Stamp) => return Answer::Stamp(self.transactions.held().document),
            Input::Received(Message::Document { agent_waits }) => {
                let unfinished = match self.transactions.unfinished() {
                    None => Unfinished::No,
                    Some(_) if agent_waits => Unfinished::AgentWaits,
                    Some(_) => Unfinished::Overdue,
                };
                return Answer::Document {
                    document: self.transactions.held().document,
                    is_unconfirmed: self.transactions.rolls_back_at().is_some(),
                    unfinished,
                };
            }
            Input::Received(Message::Prepare { who, base, wanted, agent_waits }) => {
                let wanted = Held { document: wanted, on: on(wanted) };
                let is_on_all = TestPayload::is_on_all_of(&wanted, self.transactions.held());
                let on_all = !agent_waits || is_on_all || mutant == Mutant::AcceptsSubset;
                match self.transactions.step(Event::Prepare { ticket: ticket(who), base, on_all }) {
                    Ok(_) => self.step(Event::Checked(ticket(who), Duration::ZERO, wanted)),
                    Err(Refusal::Unfinished) => return Answer::Unfinished,
                    Err(_) => Heard::Conflict,
                }
            }
            Input::Received(Message::Ready { who }) => match self.transactions.step(Event::GetReady(ticket(who))) {
                Ok(effect) => {
                    if matches!(effect, Effect::Compute) {
                        self.stage(who);
                    }
                    Heard::Yes
                }
                Err(_) => Heard::Conflict,
            },
            Input::Received(Message::Commit { who }) => match self.transactions.step(Event::GetReady(ticket(who))) {
                Ok(Effect::Answer(())) => Heard::Yes,
                Ok(_) => {
                    self.stage(who);
                    return Answer::Waits;
                }
                Err(_) => Heard::Conflict,
            },
            Input::CommitTime { who } => self.commit(who),
            Input::Received(Message::Confirm { who }) => self.step(Event::Confirm(ticket(who), Duration::ZERO)),
            Input::Received(Message::Finish { who }) => self.step(Event::Finish(ticket(who))),
            Input::Received(Message::Rollback { who }) => self.rollback(who, mutant),
            Input::LeaseExpired => self.step(Event::LeaseExpired),
            Input::Killed => {
                self.transactions = Transactions::recovered(self.journal.clone());
                self.journal = self.transactions.record();
                Heard::Absence
            }
        };
        Answer::Heard(heard)
    }

    /// Runs a step and does the resulting work, as `Node` does.
    fn step(&mut self, event: Event<TestPayload>) -> Heard {
        match self.transactions.step(event) {
            Ok(Effect::RollBack(_)) => {
                self.journal = self.transactions.record();
                while let Ok(Effect::RollBack(_)) = self.transactions.step(Event::RolledBack) {
                    self.journal = self.transactions.record();
                }
                self.journal = self.transactions.record();
                Heard::Yes
            }
            Ok(Effect::WriteJournal | Effect::Discard(Some(()))) => {
                self.journal = self.transactions.record();
                Heard::Yes
            }
            Ok(Effect::Covered) => {
                self.journal = self.transactions.record();
                Heard::Conflict
            }
            Ok(Effect::Kept) => Heard::Kept,
            Ok(_) => Heard::Yes,
            Err(_) => Heard::Conflict,
        }
    }

    fn stage(&mut self, who: u8) {
        let Some(next) = self.transactions.prepared(&ticket(who)).copied() else { return };
        self.journal = self.transactions.leading_to(next, &ticket(who));
        assert!(self.transactions.step(Event::Staged(next, ())).is_ok());
    }

    fn commit(&mut self, who: u8) -> Heard {
        let mut effect = self.transactions.step(Event::Commit(ticket(who)));
        if matches!(effect, Ok(Effect::Compute)) {
            self.stage(who);
            effect = self.transactions.step(Event::Commit(ticket(who)));
        }
        match effect {
            Ok(Effect::Write(next, ())) => self.step(Event::Committed(ticket(who), next, Duration::ZERO, ())),
            Ok(Effect::Answer(())) => Heard::Yes,
            _ => Heard::Conflict,
        }
    }

    fn rollback(&mut self, who: u8, mutant: Mutant) -> Heard {
        let other = ticket(u8::from(who == 0));
        let prepared = self.transactions.prepared(&other).copied();
        let before = self.clone();
        let heard = self.step(Event::Rollback(ticket(who)));
        let is_confirmed = self.transactions.rolls_back_at().is_none();
        match mutant {
            Mutant::SaysRolledBack if heard == Heard::Kept || heard == Heard::Conflict => Heard::Yes,
            Mutant::SaysKept if heard == Heard::Conflict && is_confirmed => {
                *self = before;
                Heard::Kept
            }
            Mutant::ForgetsRollback if heard == Heard::Conflict => {
                *self = before;
                heard
            }
            Mutant::KeepsPrepared if before.transactions.held() != self.transactions.held() => {
                if let Some(wanted) = prepared {
                    self.step(Event::Checked(other, Duration::ZERO, wanted));
                }
                heard
            }
            _ => heard,
        }
    }
}

impl<const N: usize, const C: usize> Check<N, C> {
    pub(super) fn agent_id(&mut self, agent: Agent) -> AgentId {
        if let Some(id) = self.agent_ids.get(&agent) {
            return *id;
        }
        let id = AgentId::try_from(self.agents.len()).unwrap();
        let who = (0..C).filter_map(|who| u8::try_from(who).ok());
        self.lease_holders.push(who.into_iter().find(|who| agent.is_leased_to(&ticket(*who))));
        self.agents.push(agent.clone());
        self.agent_ids.insert(agent, id);
        id
    }

    pub(super) fn agent(&self, agent: AgentId) -> &Agent {
        &self.agents[usize::from(agent)]
    }

    /// The nodes that a document is for, one bit for each node.
    pub(super) fn on(&self, document: DocumentId) -> u8 {
        let wanted = self.wanted(document);
        let is_on = |number: &usize| {
            let alone = super::node(*number);
            wanted.inventory.nodes.contains_key(&alone) && !wanted.missing.contains(&alone)
        };
        (0..N).filter(is_on).map(|number| 1 << number).sum()
    }

    /// The agent's state after an input, and its answer.
    pub(super) fn agent_step(&mut self, agent: AgentId, input: Input) -> (AgentId, Answer) {
        if let Some(known) = self.agent_steps.get(&(agent, input)) {
            return *known;
        }
        let mut after = self.agent(agent).clone();
        let answer = after.handle(input, |document| self.on(document), self.mutant);
        let result = (self.agent_id(after), answer);
        self.agent_steps.insert((agent, input), result);
        result
    }
}
