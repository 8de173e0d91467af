//! Everything that can happen next, and so all histories.

use std::hash::{DefaultHasher, Hash, Hasher};

use super::{
    Check,
    agents::{Agent, AgentId, Answer, Happening, Held, Message, Standing, Unfinished},
    controllers::{Controller, ControllerId, Phase},
    ticket,
};
use crate::fleet::decision::Heard;

/// How many messages can be late at once.
const LATE: usize = 2;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Late {
    node: u8,
    message: Message,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct State<const N: usize, const C: usize> {
    pub(super) agents: [AgentId; N],
    /// Whose commits wait for their instant.
    waiting: [[bool; C]; N],
    pub(super) controllers: [ControllerId; C],
    late: [Option<Late>; LATE],
    /// Whether a controller was held up for a minute, and a command on some nodes has not waited for it.
    pub(super) was_overdue: bool,
    faults: u8,
}

impl<const N: usize, const C: usize> State<N, C> {
    /// The same with one fault more.
    fn failed(&self) -> Self {
        Self { faults: self.faults - 1, ..*self }
    }

    fn delay(&mut self, number: usize, message: Message) {
        let free = self.late.iter_mut().find(|late| late.is_none());
        let late = Late { node: u8::try_from(number).unwrap_or_default(), message };
        *free.expect("no more messages are late than there are faults") = Some(late);
        self.late.sort();
    }

    /// Whether something happens without another fault.
    fn has_more(&self, check: &Check<N, C>) -> bool {
        let is_leased = |agent: &AgentId| check.holders[usize::from(*agent)].is_some();
        self.late.iter().any(Option::is_some)
            || self.waiting.iter().flatten().any(|waits| *waits)
            || self.controllers.iter().any(|controller| !check.controller(*controller).is_over)
            || self.agents.iter().any(is_leased)
    }
}

impl<const N: usize, const C: usize> Check<N, C> {
    /// A state's successors.
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
                let mut killed = state.failed();
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
                if state.waiting[number][who] {
                    next.push(self.instant(state, number, who));
                }
            }
            if let Some(holder) = self.holders[usize::from(state.agents[number])] {
                // A lease that is over while its controller goes on is a fault; any other is over some day.
                let is_free = self.controller(state.controllers[usize::from(holder)]).is_over;
                if is_free || can_fail {
                    let mut over = if is_free { *state } else { state.failed() };
                    over.agents[number] = self.happen(state.agents[number], Happening::LeaseOver).0;
                    next.push(over);
                }
            }
            if can_fail {
                let mut killed = state.failed();
                killed.agents[number] = self.happen(state.agents[number], Happening::Killed).0;
                // Those that wait for an answer hear that it hung up.
                for who in 0..C {
                    killed.waiting[number][who] = false;
                    if self.waits_for(&killed, who, number) {
                        self.hear(&mut killed, who, number, Answer::Heard(Heard::Silence));
                    }
                }
                next.push(killed);
            }
        }
        for place in 0..LATE {
            let mut delivered = *state;
            let Some(Late { node, message }) = delivered.late[place].take() else { continue };
            delivered.late.sort();
            self.receive(&mut delivered, usize::from(node), message);
            next.push(delivered);
        }
        next
    }

    /// Whether some nodes have a controller's change for good and others have not, or may come to that.
    fn is_halfway(&self, state: &State<N, C>, who: usize) -> bool {
        if !self.controller(state.controllers[who]).controller.phase.is_after_confirm() {
            return false;
        }
        let by = u8::try_from(who).unwrap_or_default();
        let all = (0..N).filter(|number| self.commands[who].on[*number]);
        let standings: Vec<_> = all.map(|number| self.agent(state.agents[number]).standing(&ticket(by))).collect();
        let is_late = |message: Message| state.late.iter().flatten().any(|late| late.message == message);
        standings.iter().any(|standing| *standing != standings[0])
            || is_late(Message::Rollback { who: by }) && standings[0] != Standing::Gone
            || is_late(Message::Confirm { who: by }) && standings[0] == Standing::Gone
    }

    /// An agent gets a message; answers what it says.
    fn receive(&mut self, state: &mut State<N, C>, number: usize, message: Message) -> Answer {
        let (agent, answer) = self.happen(state.agents[number], Happening::Asked(message));
        state.agents[number] = agent;
        if let (Answer::Waits, Message::Commit { who }) = (answer, message) {
            state.waiting[number][usize::from(who)] = true;
        }
        answer
    }

    /// A controller gets an answer.
    fn hear(&mut self, state: &mut State<N, C>, who: usize, number: usize, answer: Answer) {
        state.controllers[who] = self.heard(state.controllers[who], number, answer);
    }

    /// Whether a controller waits for a node that waits for the instant.
    fn waits_for(&self, state: &State<N, C>, who: usize, number: usize) -> bool {
        self.controller(state.controllers[who]).controller.answers[number] == Some(Answer::Waits)
    }

    /// Everything that may become of a message.
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
        // What others are still at may end: some day if they have ended, else they are held up, which is a fault.
        let later =
            if self.are_others_over(state, who) { Some(delivered) } else { can_fail.then(|| delivered.failed()) };
        let mut heard = delivered;
        self.hear(&mut heard, who, number, answer);
        match (message, answer) {
            // It is asked again, until the change on top is finished or rolled back, or for half a minute.
            (Message::Rollback { .. }, Answer::Heard(Heard::Conflict)) => {
                next.push(delivered);
                if let Some(mut given_up) = later {
                    self.hear(&mut given_up, who, number, answer);
                    next.push(given_up);
                }
            }
            (Message::Prepare { base, wanted, .. }, Answer::Unfinished) => {
                let impatient = Message::Prepare { who: who.try_into().unwrap(), base, wanted, is_patient: false };
                next.extend(later.map(|later| self.answered(later, who, number, impatient)));
                next.push(heard);
            }
            (Message::Document { .. }, Answer::Document { unfinished: Unfinished::IsWaitedFor, .. })
                if !self.commands[who].on[number] =>
            {
                let impatient = Message::Document { is_patient: false };
                next.extend(later.map(|later| self.answered(later, who, number, impatient)));
                next.push(heard);
            }
            _ => next.push(heard),
        }
        if !can_fail {
            return;
        }
        if answer != Answer::Heard(Heard::Conflict) || !matches!(message, Message::Rollback { .. }) {
            let mut twice = heard.failed();
            twice.delay(number, message);
            next.push(twice);
        }
        for (mut lost, is_late, silence) in [
            // The answer is lost.
            (delivered.failed(), false, Heard::Silence),
            // The message is lost, or comes when the controller has given up.
            (state.failed(), false, Heard::Silence),
            (state.failed(), true, Heard::Silence),
            (state.failed(), false, Heard::Absence),
        ] {
            if is_late {
                lost.delay(number, message);
            }
            self.hear(&mut lost, who, number, Answer::Heard(silence));
            next.push(lost);
        }
    }

    fn are_others_over(&self, state: &State<N, C>, who: usize) -> bool {
        (0..C).all(|other| other == who || self.controller(state.controllers[other]).is_over)
    }

    /// A controller asks a node that no longer waits for another controller, and hears the answer.
    fn answered(&mut self, mut state: State<N, C>, who: usize, number: usize, message: Message) -> State<N, C> {
        state.was_overdue |= !self.are_others_over(&state, who);
        let answer = self.receive(&mut state, number, message);
        self.hear(&mut state, who, number, answer);
        state
    }

    /// The instant of a commit has come on a node.
    fn instant(&mut self, state: &State<N, C>, number: usize, who: usize) -> State<N, C> {
        let mut after = *state;
        let by = u8::try_from(who).unwrap_or_default();
        let (agent, answer) = self.happen(state.agents[number], Happening::Instant { who: by });
        after.agents[number] = agent;
        after.waiting[number][who] = false;
        if self.waits_for(&after, who, number) {
            self.hear(&mut after, who, number, answer);
        }
        after
    }

    /// How many histories lead on from a state. All of them are looked at.
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
            if self.wrong.is_some() {
                break;
            }
            histories += self.explore(next);
        }
        if !state.has_more(self) {
            self.judge(state);
            histories += 1.0;
        } else if histories == 0.0 && self.wrong.is_none() {
            self.wrong = Some(format!("nothing goes on: {state:#?}"));
        }
        self.visited.insert(key, histories);
        histories
    }

    /// The same state, whichever nodes are called how.
    fn renamed(&self, state: &State<N, C>) -> State<N, C> {
        let renamed = |(place, names): (usize, &[usize; N])| {
            let mut renamed = State {
                agents: names.map(|name| state.agents[name]),
                waiting: names.map(|name| state.waiting[name]),
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
        self.names.iter().enumerate().map(renamed).min().unwrap_or(*state)
    }

    pub(super) fn run(&mut self, faults: u8) -> f64 {
        let agent = self.agent_id(Agent::new(Held { document: 0, on: self.on(0) }));
        let controllers = std::array::from_fn(|who| self.controller_id(Controller::new(who.try_into().unwrap())));
        let start = State {
            agents: [agent; N],
            waiting: [[false; C]; N],
            controllers,
            late: [None; LATE],
            was_overdue: false,
            faults,
        };
        self.explore(&start)
    }
}
