//! The successors of each state, and the search through all histories.

use std::hash::{DefaultHasher, Hash, Hasher};

use super::{
    Check,
    agents::{Agent, AgentId, Answer, ChangeState, Held, Input, Message, Unfinished},
    controllers::{Controller, ControllerId, Phase},
    ticket,
};
use crate::fleet::decision::Heard;

/// The largest number of late messages at the same time.
const MAX_LATE: usize = 2;

/// A message that is delivered after its controller has given up, or for a second time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Late {
    node: u8,
    message: Message,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct State<const N: usize, const C: usize> {
    pub(super) agents: [AgentId; N],
    /// For each node and controller: true if the commit waits for its commit time.
    waiting_commits: [[bool; C]; N],
    pub(super) controllers: [ControllerId; C],
    late: [Option<Late>; MAX_LATE],
    /// True if a controller stopped for a minute, and a command on some of the nodes did not wait for the controller.
    pub(super) was_overdue: bool,
    /// The number of faults that may still occur.
    faults: u8,
}

impl<const N: usize, const C: usize> State<N, C> {
    /// The same state after one more fault.
    fn with_fault(&self) -> Self {
        Self { faults: self.faults - 1, ..*self }
    }

    fn delay(&mut self, number: usize, message: Message) {
        let free = self.late.iter_mut().find(|late| late.is_none());
        let late = Late { node: u8::try_from(number).unwrap_or_default(), message };
        *free.expect("each late message is a fault") = Some(late);
        self.late.sort();
    }

    /// True if the history continues even without another fault.
    fn can_continue(&self, check: &Check<N, C>) -> bool {
        let is_leased = |agent: &AgentId| check.lease_holders[usize::from(*agent)].is_some();
        self.late.iter().any(Option::is_some)
            || self.waiting_commits.iter().flatten().any(|waits| *waits)
            || self.controllers.iter().any(|controller| !check.controller(*controller).is_over)
            || self.agents.iter().any(is_leased)
    }
}

impl<const N: usize, const C: usize> Check<N, C> {
    /// All states that can follow a state.
    fn successors(&mut self, state: &State<N, C>) -> Vec<State<N, C>> {
        let mut next = Vec::new();
        let can_fail = state.faults > 0;
        for who in 0..C {
            let known = self.controller(state.controllers[who]);
            if known.is_over {
                continue;
            }
            let (controller, asks) = (known.controller, known.asks);
            if can_fail {
                let mut killed = state.with_fault();
                let halfway = self.is_halfway(state, who);
                killed.controllers[who] = self.controller_id(controller.ended(Phase::Killed { halfway }));
                next.push(killed);
            }
            for (number, message) in asks.into_iter().enumerate() {
                if let Some(message) = message {
                    self.deliver(state, who, number, message, &mut next);
                }
            }
        }
        for number in 0..N {
            for who in 0..C {
                if state.waiting_commits[number][who] {
                    next.push(self.reach_commit_time(state, number, who));
                }
            }
            if let Some(holder) = self.lease_holders[usize::from(state.agents[number])] {
                // The lease of a running controller expires only by a fault. Every other lease expires at some time.
                let has_ended = self.controller(state.controllers[usize::from(holder)]).is_over;
                if has_ended || can_fail {
                    let mut expired = if has_ended { *state } else { state.with_fault() };
                    expired.agents[number] = self.agent_step(state.agents[number], Input::LeaseExpired).0;
                    next.push(expired);
                }
            }
            if can_fail {
                let mut killed = state.with_fault();
                killed.agents[number] = self.agent_step(state.agents[number], Input::Killed).0;
                // A controller that waits for an answer sees the connection close.
                for who in 0..C {
                    killed.waiting_commits[number][who] = false;
                    if self.waits_for(&killed, who, number) {
                        self.give_answer(&mut killed, who, number, Answer::Heard(Heard::Silence));
                    }
                }
                next.push(killed);
            }
        }
        for place in 0..MAX_LATE {
            let mut delivered = *state;
            let Some(Late { node, message }) = delivered.late[place].take() else { continue };
            delivered.late.sort();
            self.receive(&mut delivered, usize::from(node), message);
            next.push(delivered);
        }
        next
    }

    /// True if some nodes, but not all, keep a controller's change, or if a late message may cause this.
    fn is_halfway(&self, state: &State<N, C>, who: usize) -> bool {
        if !self.controller(state.controllers[who]).controller.phase.is_after_confirm() {
            return false;
        }
        let by = u8::try_from(who).unwrap_or_default();
        let all = (0..N).filter(|number| self.commands[who].on[*number]);
        let change_states: Vec<_> =
            all.map(|number| self.agent(state.agents[number]).change_state(&ticket(by))).collect();
        let is_late = |message: Message| state.late.iter().flatten().any(|late| late.message == message);
        change_states.iter().any(|change_state| *change_state != change_states[0])
            || is_late(Message::Rollback { who: by }) && change_states[0] != ChangeState::Absent
            || is_late(Message::Confirm { who: by }) && change_states[0] == ChangeState::Absent
    }

    /// Delivers a message to an agent, and returns the answer.
    fn receive(&mut self, state: &mut State<N, C>, number: usize, message: Message) -> Answer {
        let (agent, answer) = self.agent_step(state.agents[number], Input::Received(message));
        state.agents[number] = agent;
        if let (Answer::Waits, Message::Commit { who }) = (answer, message) {
            state.waiting_commits[number][usize::from(who)] = true;
        }
        answer
    }

    /// Delivers an answer to a controller.
    fn give_answer(&mut self, state: &mut State<N, C>, who: usize, number: usize, answer: Answer) {
        state.controllers[who] = self.controller_step(state.controllers[who], number, answer);
    }

    /// True if a controller waits for a node whose commit waits for its commit time.
    fn waits_for(&self, state: &State<N, C>, who: usize, number: usize) -> bool {
        self.controller(state.controllers[who]).controller.answers[number] == Some(Answer::Waits)
    }

    /// Adds all outcomes of a message to `next`: delivered, lost, late or repeated.
    fn deliver(
        &mut self,
        state: &State<N, C>,
        who: usize,
        number: usize,
        message: Message,
        next: &mut Vec<State<N, C>>,
    ) {
        let can_fail = state.faults > 0;
        let mut delivered = *state;
        let answer = self.receive(&mut delivered, number, message);
        // The state after the agent's wait for other controllers. If another controller still runs, the wait ends only
        // if that controller stops, which is a fault.
        let later =
            if self.are_others_over(state, who) { Some(delivered) } else { can_fail.then(|| delivered.with_fault()) };
        let mut heard = delivered;
        self.give_answer(&mut heard, who, number, answer);
        match (message, answer) {
            // The controller repeats the request for 30 s, or until the change on top is finished or rolled back.
            (Message::Rollback { .. }, Answer::Heard(Heard::Conflict)) => {
                next.push(delivered);
                if let Some(mut given_up) = later {
                    self.give_answer(&mut given_up, who, number, answer);
                    next.push(given_up);
                }
            }
            (Message::Prepare { base, wanted, .. }, Answer::Unfinished) => {
                let no_wait = Message::Prepare { who: who.try_into().unwrap(), base, wanted, agent_waits: false };
                next.extend(later.map(|later| self.ask_without_waiting(later, who, number, no_wait)));
                next.push(heard);
            }
            (Message::Document { .. }, Answer::Document { unfinished: Unfinished::AgentWaits, .. })
                if !self.commands[who].on[number] =>
            {
                let no_wait = Message::Document { agent_waits: false };
                next.extend(later.map(|later| self.ask_without_waiting(later, who, number, no_wait)));
                next.push(heard);
            }
            _ => next.push(heard),
        }
        if !can_fail {
            return;
        }
        if answer != Answer::Heard(Heard::Conflict) || !matches!(message, Message::Rollback { .. }) {
            let mut twice = heard.with_fault();
            twice.delay(number, message);
            next.push(twice);
        }
        for (mut lost, is_late, silence) in [
            // The answer is lost.
            (delivered.with_fault(), false, Heard::Silence),
            // The message is lost, or arrives after the controller has given up.
            (state.with_fault(), false, Heard::Silence),
            (state.with_fault(), true, Heard::Silence),
            (state.with_fault(), false, Heard::Absence),
        ] {
            if is_late {
                lost.delay(number, message);
            }
            self.give_answer(&mut lost, who, number, Answer::Heard(silence));
            next.push(lost);
        }
    }

    fn are_others_over(&self, state: &State<N, C>, who: usize) -> bool {
        (0..C).all(|other| other == who || self.controller(state.controllers[other]).is_over)
    }

    /// Sends a request to a node that no longer waits for another controller, and delivers the answer.
    fn ask_without_waiting(
        &mut self,
        mut state: State<N, C>,
        who: usize,
        number: usize,
        message: Message,
    ) -> State<N, C> {
        state.was_overdue |= !self.are_others_over(&state, who);
        let answer = self.receive(&mut state, number, message);
        self.give_answer(&mut state, who, number, answer);
        state
    }

    /// The commit time has come on a node.
    fn reach_commit_time(&mut self, state: &State<N, C>, number: usize, who: usize) -> State<N, C> {
        let mut after = *state;
        let by = u8::try_from(who).unwrap_or_default();
        let (agent, answer) = self.agent_step(state.agents[number], Input::CommitTime { who: by });
        after.agents[number] = agent;
        after.waiting_commits[number][who] = false;
        if self.waits_for(&after, who, number) {
            self.give_answer(&mut after, who, number, answer);
        }
        after
    }

    /// Explores all histories from a state, and returns their number.
    fn explore(&mut self, state: &State<N, C>) -> f64 {
        let state = &self.renamed(state);
        let mut hasher = DefaultHasher::new();
        state.hash(&mut hasher);
        let key = hasher.finish();
        if let Some(known) = self.visited.get(&key) {
            return *known;
        }
        let successors = self.successors(state);
        self.transitions += successors.len() as u64;
        let mut histories = 0.0;
        for next in successors.iter().filter(|next| *next != state) {
            if self.violation.is_some() {
                break;
            }
            histories += self.explore(next);
        }
        if !state.can_continue(self) {
            self.check_final_state(state);
            histories += 1.0;
        } else if histories == 0.0 && self.violation.is_none() {
            self.violation = Some(format!("a state without a successor that is not final: {state:#?}"));
        }
        self.visited.insert(key, histories);
        histories
    }

    /// The smallest state among all equivalent ones, which differ only in the order of the nodes.
    fn renamed(&self, state: &State<N, C>) -> State<N, C> {
        let renamed = |(place, names): (usize, &[usize; N])| {
            let mut renamed = State {
                agents: names.map(|name| state.agents[name]),
                waiting_commits: names.map(|name| state.waiting_commits[name]),
                controllers: state.controllers.map(|controller| self.controller(controller).renamed[place]),
                ..*state
            };
            for late in renamed.late.iter_mut().flatten() {
                let place = names.iter().position(|name| *name == usize::from(late.node)).unwrap_or_default();
                late.node = u8::try_from(place).unwrap_or_default();
            }
            renamed.late.sort();
            renamed
        };
        self.renamings.iter().enumerate().map(renamed).min().unwrap_or(*state)
    }

    pub(super) fn run(&mut self, faults: u8) -> f64 {
        let agent = self.agent_id(Agent::new(Held { document: 0, on: self.on(0) }));
        let controllers = std::array::from_fn(|who| self.controller_id(Controller::new(who.try_into().unwrap())));
        let start = State {
            agents: [agent; N],
            waiting_commits: [[false; C]; N],
            controllers,
            late: [None; MAX_LATE],
            was_overdue: false,
            faults,
        };
        self.explore(&start)
    }
}
