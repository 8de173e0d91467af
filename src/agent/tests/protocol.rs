//! The protocol, checked: two controllers and three agents, through every order of messages and a number of faults.
//!
//! What an agent does is `Transactions::step`, what a controller does is `fleet::decision`: the code itself, not a model of
//! it. The only things that are made up are the kernel, which does as it is told, and the network. It may lose a message or
//! its answer, deliver it late or twice; an agent may be killed and started again, a lease may be over early, a controller
//! may be killed.
//!
//! After every history, when everything has come to rest, all nodes have one document, and what each controller has said
//! is true. The exceptions are what no protocol can rule out. Nodes may differ after a controller was killed between its
//! first *confirm* and the last answer; after one has said `unknown` of a node; and after one has said that some nodes have
//! `kept` its change and others went back. The last takes two faults at least.

use std::collections::{BTreeMap, HashMap, hash_map::DefaultHasher};
use std::hash::{Hash, Hasher};

use super::*;
use crate::{
    agent::transactions::{Effect, Event, Record, Subject, Transactions},
    fleet::decision::{self, Heard, Left, Next, Stage, Undoing},
    plan::Stamp,
    wire::Document,
};

/// How many messages can be late at once.
const LATE: usize = 3;

const CONTROLLERS: usize = 2;

/// A document, by its place in [`Check::documents`].
type DocumentId = u8;

/// What an agent has, by its place in [`Check::agents`].
type AgentId = u16;

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Toy;

impl Subject for Toy {
    type Document = DocumentId;
    type Stamp = DocumentId;
    type Prepared = DocumentId;
    type Ready = ();
    type Answer = ();

    fn stamp(document: &DocumentId) -> DocumentId {
        *document
    }
}

/// An agent, and its journal.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Agent {
    transactions: Transactions<Toy>,
    journal: Record<DocumentId>,
}

/// What is asked of an agent, by the controller of that number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Message {
    Stamp,
    Document,
    Prepare { who: u8, base: DocumentId, wanted: DocumentId },
    Commit { who: u8 },
    Confirm { who: u8 },
    Undo { who: u8, all_had_it: bool },
}

/// What happens to an agent apart from messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Happening {
    Asked(Message),
    /// The instant of a commit has come.
    Instant {
        who: u8,
    },
    LeaseOver,
    Killed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Answer {
    Heard(Heard),
    Document(DocumentId, bool),
    /// The commit waits for its instant.
    Waits,
}

/// What a controller is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Phase<const N: usize> {
    Stamps,
    Document {
        from: u8,
    },
    Prepare,
    Commit,
    Confirm,
    Undo {
        told: [bool; N],
        all_had_it: bool,
        after_confirm: bool,
    },
    /// It has said that every node has the change.
    Succeeded,
    /// It has said what each node has of it.
    Failed {
        left: [Option<Left>; N],
    },
    Killed {
        after_confirm: bool,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Controller<const N: usize> {
    phase: Phase<N>,
    stamps: [DocumentId; N],
    wanted: DocumentId,
    answers: [Option<Answer>; N],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Late {
    node: u8,
    message: Message,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct State<const N: usize> {
    agents: [AgentId; N],
    /// Whose commits wait for their instant.
    waiting: [[bool; CONTROLLERS]; N],
    controllers: [Controller<N>; CONTROLLERS],
    late: [Option<Late>; LATE],
    faults: u8,
}

/// What is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mutant {
    /// The code as it is.
    None,
    /// An agent that says of what it kept that it is undone, as it once did.
    SaysUndone,
    /// An agent that keeps what is prepared when it undoes the document below.
    KeepsPrepared,
    /// A controller that edits whatever document it reads.
    EditsAnything,
}

struct Check<const N: usize> {
    mutant: Mutant,
    /// Whether each controller's command replaces everything, as `apply` does.
    replaces: [bool; CONTROLLERS],
    documents: Vec<(Wanted, Stamp)>,
    edits: HashMap<(u8, [DocumentId; N], DocumentId), Option<DocumentId>>,
    agents: Vec<Agent>,
    /// Whose change is under way on each of them.
    holders: Vec<Option<u8>>,
    agent_ids: HashMap<Agent, AgentId>,
    happened: HashMap<(AgentId, Happening), (AgentId, Answer)>,
    /// How many histories lead on from a state.
    visited: HashMap<u64, f64>,
    transitions: u64,
    rests: u64,
    residues: u64,
    wrong: Option<String>,
}

fn ticket(who: u8) -> Ticket {
    Ticket(if who == 0 { "a" } else { "b" }.to_owned())
}

fn node(number: usize) -> NodeName {
    format!("n{}", number + 1).parse().unwrap()
}

impl<const N: usize> Check<N> {
    fn new(mutant: Mutant, replaces: [bool; CONTROLLERS]) -> Self {
        let nothing = Wanted { inventory: inventory(), ..Wanted::default() };
        // Something is in force, so that documents differ in more than their generation.
        let base = parted(&nothing, "n3", None);
        let stamp = base.stamp();
        Self {
            mutant,
            replaces,
            documents: vec![(base, stamp)],
            edits: HashMap::new(),
            agents: Vec::new(),
            holders: Vec::new(),
            agent_ids: HashMap::new(),
            happened: HashMap::new(),
            visited: HashMap::new(),
            transitions: 0,
            rests: 0,
            residues: 0,
            wrong: None,
        }
    }

    fn agent_id(&mut self, agent: Agent) -> AgentId {
        if let Some(id) = self.agent_ids.get(&agent) {
            return *id;
        }
        let id = AgentId::try_from(self.agents.len()).unwrap();
        self.holders.push((0..=1).find(|who| agent.is_leased_to(&ticket(*who))));
        self.agents.push(agent.clone());
        self.agent_ids.insert(agent, id);
        id
    }

    fn held(&self, agent: AgentId) -> DocumentId {
        *self.agents[usize::from(agent)].transactions.held()
    }

    /// Whether a document has a controller's change.
    fn has(&self, document: DocumentId, who: u8) -> bool {
        self.documents[usize::from(document)].0.partitions.iter().any(|partition| partition.name == ticket(who).0)
    }

    /// Edits the document that was read, as `Fleet` does.
    fn edited(&mut self, who: u8, stamps: [DocumentId; N], read: DocumentId) -> Option<DocumentId> {
        if let Some(edited) = self.edits.get(&(who, stamps, read)) {
            return *edited;
        }
        let named: BTreeMap<_, _> =
            (0..N).map(|number| (node(number), self.documents[usize::from(stamps[number])].1.clone())).collect();
        let document = Document { wanted: self.documents[usize::from(read)].0.clone(), ..Document::default() };
        let replaces = self.replaces[usize::from(who)];
        let edit = |wanted: &Wanted| {
            let mut wanted = parted(wanted, "n2", None);
            if let Some(partition) = wanted.partitions.last_mut() {
                partition.name = ticket(who).0;
            }
            Ok(wanted)
        };
        let edited = decision::edited(&named, &document, |_| true, [].into(), replaces, edit).ok();
        let edited = edited.map(|edited| {
            let known = self.documents.iter().position(|(wanted, _)| *wanted == edited.wanted);
            let id = known.unwrap_or_else(|| {
                let stamp = edited.wanted.stamp();
                self.documents.push((edited.wanted, stamp));
                self.documents.len() - 1
            });
            DocumentId::try_from(id).unwrap()
        });
        self.edits.insert((who, stamps, read), edited);
        edited
    }

    /// What happens to an agent, and what it answers.
    fn happen(&mut self, agent: AgentId, happening: Happening) -> (AgentId, Answer) {
        if let Some(known) = self.happened.get(&(agent, happening)) {
            return *known;
        }
        let mut after = self.agents[usize::from(agent)].clone();
        let answer = after.happen(happening, self.mutant);
        let result = (self.agent_id(after), answer);
        self.happened.insert((agent, happening), result);
        result
    }
}

impl Agent {
    fn is_leased_to(&self, ticket: &Ticket) -> bool {
        let under_way = self.transactions.record().transaction.filter(|transaction| !transaction.is_done);
        self.transactions.prepared(ticket).is_some() || under_way.is_some_and(|under_way| under_way.ticket == *ticket)
    }

    fn happen(&mut self, happening: Happening, mutant: Mutant) -> Answer {
        let heard = match happening {
            Happening::Asked(Message::Stamp) => return Answer::Document(*self.transactions.held(), false),
            Happening::Asked(Message::Document) => {
                let unconfirmed = self.transactions.taken_back_at().is_some();
                return Answer::Document(*self.transactions.held(), unconfirmed);
            }
            Happening::Asked(Message::Prepare { who, base, wanted }) => {
                match self.transactions.step(Event::Prepare(ticket(who), base)) {
                    Ok(_) => self.step(Event::Checked(ticket(who), Duration::ZERO, wanted)),
                    Err(_) => Heard::Conflict,
                }
            }
            Happening::Asked(Message::Commit { who }) => match self.transactions.step(Event::GetReady(ticket(who))) {
                Ok(Effect::Answer(())) => Heard::Yes,
                Ok(_) => {
                    self.stage(who);
                    return Answer::Waits;
                }
                Err(_) => Heard::Conflict,
            },
            Happening::Instant { who } => self.commit(who),
            Happening::Asked(Message::Confirm { who }) => self.step(Event::Confirm(ticket(who))),
            Happening::Asked(Message::Undo { who, all_had_it }) => self.undo(who, all_had_it, mutant),
            Happening::LeaseOver => self.step(Event::LeaseOver),
            Happening::Killed => {
                self.transactions = Transactions::recovered(self.journal.clone());
                self.journal = self.transactions.record();
                Heard::Absence
            }
        };
        Answer::Heard(heard)
    }

    /// Takes a step, and does what there is to do, as `Node` does.
    fn step(&mut self, event: Event<Toy>) -> Heard {
        match self.transactions.step(event) {
            Ok(Effect::GoBack(_)) => {
                self.journal = self.transactions.record();
                assert!(self.transactions.step(Event::WentBack).is_ok());
                self.journal = self.transactions.record();
                Heard::Yes
            }
            Ok(Effect::WriteDown | Effect::Forget(Some(()))) => {
                self.journal = self.transactions.record();
                Heard::Yes
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
            Ok(Effect::Strike(next, ())) => self.step(Event::Struck(ticket(who), next, Duration::ZERO, ())),
            Ok(Effect::Answer(())) => Heard::Yes,
            _ => Heard::Conflict,
        }
    }

    fn undo(&mut self, who: u8, all_had_it: bool, mutant: Mutant) -> Heard {
        let other = ticket(1 - who);
        let prepared = self.transactions.prepared(&other).copied();
        let before = *self.transactions.held();
        let heard = self.step(Event::Undo { ticket: ticket(who), all_had_it });
        match (mutant, prepared) {
            (Mutant::SaysUndone, _) if heard == Heard::Kept || heard == Heard::Conflict => Heard::Yes,
            (Mutant::KeepsPrepared, Some(wanted)) if before != *self.transactions.held() => {
                self.step(Event::Checked(other, Duration::ZERO, wanted));
                heard
            }
            _ => heard,
        }
    }
}

impl<const N: usize> Check<N> {
    /// A state's successors.
    fn successors(&mut self, state: &State<N>) -> Vec<State<N>> {
        let mut next = Vec::new();
        let can_fail = state.faults > 0;
        for who in 0..CONTROLLERS {
            if state.controllers[who].phase.is_over() {
                continue;
            }
            if can_fail {
                let mut killed = state.failed();
                killed.controllers[who].phase =
                    Phase::Killed { after_confirm: state.controllers[who].phase.is_after_confirm() };
                killed.controllers[who].forget();
                next.push(killed);
            }
            for number in 0..N {
                if state.controllers[who].answers[number].is_some() {
                    continue;
                }
                let Some(message) = state.controllers[who].message(who, number) else { continue };
                self.deliver(state, who, number, message, can_fail, &mut next);
            }
        }
        for number in 0..N {
            for who in 0..CONTROLLERS {
                if state.waiting[number][who] {
                    next.push(self.instant(state, number, who));
                }
            }
            if let Some(holder) = self.holders[usize::from(state.agents[number])] {
                // A lease that is over while its controller goes on is a fault; any other is over some day.
                let is_free = state.controllers[usize::from(holder)].phase.is_over();
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
                for who in 0..CONTROLLERS {
                    killed.waiting[number][who] = false;
                    if killed.controllers[who].answers[number] == Some(Answer::Waits) {
                        killed.controllers[who].answers[number] = Some(Answer::Heard(Heard::Silence));
                        self.proceed(&mut killed, who);
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

    /// An agent gets a message; answers what it says.
    fn receive(&mut self, state: &mut State<N>, number: usize, message: Message) -> Answer {
        let (agent, answer) = self.happen(state.agents[number], Happening::Asked(message));
        state.agents[number] = agent;
        if let (Answer::Waits, Message::Commit { who }) = (answer, message) {
            state.waiting[number][usize::from(who)] = true;
        }
        answer
    }

    /// Everything that may become of a message.
    fn deliver(
        &mut self,
        state: &State<N>,
        who: usize,
        number: usize,
        message: Message,
        can_fail: bool,
        next: &mut Vec<State<N>>,
    ) {
        let mut delivered = *state;
        let answer = self.receive(&mut delivered, number, message);
        let is_undo = matches!(message, Message::Undo { .. });
        if is_undo && answer == Answer::Heard(Heard::Conflict) {
            // It is asked again, until the change on top is confirmed or undone.
            return;
        }
        let mut heard = delivered;
        heard.controllers[who].answers[number] = Some(answer);
        self.proceed(&mut heard, who);
        if can_fail {
            let late = Late { node: u8::try_from(number).unwrap_or_default(), message };
            let mut twice = heard.failed();
            twice.delay(late);
            next.push(twice);
            for (mut lost, is_late, silence) in [
                // The answer is lost.
                (delivered.failed(), false, Heard::Silence),
                // The message is lost, or comes when the controller has given up.
                (state.failed(), false, Heard::Silence),
                (state.failed(), true, Heard::Silence),
                (state.failed(), false, Heard::Absence),
            ] {
                if is_late {
                    lost.delay(late);
                }
                lost.controllers[who].answers[number] = Some(Answer::Heard(silence));
                self.proceed(&mut lost, who);
                next.push(lost);
            }
        }
        next.push(heard);
    }

    /// The instant of a commit has come on a node.
    fn instant(&mut self, state: &State<N>, number: usize, who: usize) -> State<N> {
        let mut after = *state;
        let by = u8::try_from(who).unwrap_or_default();
        let (agent, answer) = self.happen(state.agents[number], Happening::Instant { who: by });
        after.agents[number] = agent;
        after.waiting[number][who] = false;
        if after.controllers[who].answers[number] == Some(Answer::Waits) {
            after.controllers[who].answers[number] = Some(answer);
            self.proceed(&mut after, who);
        }
        after
    }

    /// What a controller does when all nodes have answered.
    fn proceed(&mut self, state: &mut State<N>, who: usize) {
        let by = u8::try_from(who).unwrap_or_default();
        let controller = state.controllers[who];
        let asked = |number: usize| controller.message(who, number).is_some();
        let is_open = |answer: Option<Answer>| answer.is_none() || answer == Some(Answer::Waits);
        if (0..N).any(|number| asked(number) && is_open(controller.answers[number])) {
            return;
        }
        let answers = controller.answers;
        let controller = &mut state.controllers[who];
        controller.answers = [None; N];
        let fail = |controller: &mut Controller<N>| {
            controller.phase = Phase::Failed { left: [None; N] };
            controller.forget();
        };
        match controller.phase {
            Phase::Stamps => {
                let stamps: Option<Vec<_>> = answers.iter().map(|answer| answer.and_then(Answer::document)).collect();
                let Some(stamps) = stamps else { return fail(controller) };
                controller.stamps.copy_from_slice(&stamps);
                let named: BTreeMap<_, _> = (0..N)
                    .map(|number| (node(number), self.documents[usize::from(stamps[number])].1.clone()))
                    .collect();
                let newest = decision::newest(&named).cloned();
                let from = (0..N).find(|number| Some(node(*number)) == newest).unwrap_or_default();
                controller.phase = Phase::Document { from: u8::try_from(from).unwrap_or_default() };
            }
            Phase::Document { from } => {
                let Some(Answer::Document(read, unconfirmed)) = answers[usize::from(from)] else {
                    return fail(controller);
                };
                let (wanted, _) = self.documents[usize::from(read)].clone();
                let stamp = &self.documents[usize::from(controller.stamps[usize::from(from)])].1;
                let document = Document { wanted, unconfirmed, ..Document::default() };
                if !decision::is_base(&document, stamp) && self.mutant != Mutant::EditsAnything {
                    return fail(controller);
                }
                let stamps = controller.stamps;
                match self.edited(by, stamps, read) {
                    Some(wanted) => (controller.wanted, controller.phase) = (wanted, Phase::Prepare),
                    None => fail(controller),
                }
            }
            phase => {
                let heard = |number: usize| match answers[number] {
                    Some(Answer::Heard(heard)) => heard,
                    _ => Heard::Silence,
                };
                let heard: BTreeMap<usize, Heard> = (0..N).map(|number| (number, heard(number))).collect();
                let after_confirm = phase.is_after_confirm();
                match decision::next(&phase.stage(), &heard) {
                    Next::Ask(Stage::Commit) => controller.phase = Phase::Commit,
                    Next::Ask(Stage::Confirm) => controller.phase = Phase::Confirm,
                    Next::Ask(Stage::Undo(Undoing { told, all_had_it })) => {
                        let told = std::array::from_fn(|number| told.contains(&number));
                        controller.phase = Phase::Undo { told, all_had_it, after_confirm };
                    }
                    Next::Ask(Stage::Prepare) => unreachable!("nothing leads there"),
                    Next::Succeeded { .. } => {
                        controller.phase = Phase::Succeeded;
                        controller.forget();
                    }
                    Next::Failed(left) => {
                        let left = std::array::from_fn(|number| left.get(&number).copied());
                        controller.phase = Phase::Failed { left };
                        controller.forget();
                    }
                }
            }
        }
    }

    /// Whether what all have come to is as it should be.
    fn judge(&mut self, state: &State<N>) {
        self.rests += 1;
        let documents = state.agents.map(|agent| self.held(agent));
        let unknown = |left: &[Option<Left>; N]| left.contains(&Some(Left::Unknown));
        let is_residue = state.controllers.iter().any(|controller| match &controller.phase {
            Phase::Killed { after_confirm } => *after_confirm,
            Phase::Failed { left } => unknown(left) || left.contains(&Some(Left::Kept)),
            _ => false,
        });
        let mut wrong = Vec::new();
        if is_residue {
            self.residues += 1;
        } else if documents.iter().any(|document| *document != documents[0]) {
            wrong.push("the nodes have different documents".to_owned());
        }
        for (who, controller) in (0_u8..).zip(&state.controllers) {
            let has = documents.map(|document| self.has(document, who));
            match &controller.phase {
                Phase::Succeeded if has != [true; N] => {
                    wrong.push(format!("{} was told that all have its change: {has:?}", ticket(who).0));
                }
                // What a node had kept another command may have given to all.
                Phase::Failed { left } if !left.contains(&Some(Left::Kept)) => {
                    for number in 0..N {
                        let may_have = matches!(left[number], Some(Left::Unknown | Left::Covered));
                        // What one node may have for good may have become a base of the other command.
                        if has[number] && !may_have && !unknown(left) {
                            wrong.push(format!("{} was told that n{} went back", ticket(who).0, number + 1));
                        }
                    }
                }
                _ => {}
            }
        }
        if !wrong.is_empty() && self.wrong.is_none() {
            self.wrong = Some(format!("{}: {documents:?} {state:#?}", wrong.join("; ")));
        }
    }

    /// How many histories lead on from a state. All of them are looked at.
    fn explore(&mut self, state: &State<N>) -> f64 {
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

    fn run(&mut self, faults: u8) -> f64 {
        let transactions = Transactions::of(0);
        let agent = self.agent_id(Agent { journal: transactions.record(), transactions });
        let controller = Controller { phase: Phase::Stamps, stamps: [0; N], wanted: 0, answers: [None; N] };
        let start = State {
            agents: [agent; N],
            waiting: [[false; CONTROLLERS]; N],
            controllers: [controller; CONTROLLERS],
            late: [None; LATE],
            faults,
        };
        self.explore(&start)
    }
}

impl<const N: usize> State<N> {
    /// The same with one fault more.
    fn failed(&self) -> Self {
        Self { faults: self.faults - 1, ..*self }
    }

    fn delay(&mut self, late: Late) {
        let free = self.late.iter_mut().find(|late| late.is_none());
        *free.expect("no more messages are late than there are faults") = Some(late);
        self.late.sort();
    }

    /// Whether something happens without another fault.
    fn has_more(&self, check: &Check<N>) -> bool {
        let is_leased = |agent: &AgentId| check.holders[usize::from(*agent)].is_some();
        self.late.iter().any(Option::is_some)
            || self.waiting.iter().flatten().any(|waits| *waits)
            || self.controllers.iter().any(|controller| !controller.phase.is_over())
            || self.agents.iter().any(is_leased)
    }
}

impl Answer {
    fn document(self) -> Option<DocumentId> {
        match self {
            Self::Document(document, _) => Some(document),
            _ => None,
        }
    }
}

impl<const N: usize> Phase<N> {
    fn is_over(&self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed { .. } | Self::Killed { .. })
    }

    fn is_after_confirm(&self) -> bool {
        matches!(self, Self::Confirm | Self::Undo { after_confirm: true, .. })
    }

    fn stage(&self) -> Stage<usize> {
        match self {
            Self::Commit => Stage::Commit,
            Self::Confirm => Stage::Confirm,
            Self::Undo { told, all_had_it, .. } => {
                let told = (0..N).filter(|number| told[*number]).collect();
                Stage::Undo(Undoing { told, all_had_it: *all_had_it })
            }
            _ => Stage::Prepare,
        }
    }
}

impl<const N: usize> Controller<N> {
    /// What it asks a node; `None`: nothing.
    fn message(&self, who: usize, number: usize) -> Option<Message> {
        let who = u8::try_from(who).unwrap_or_default();
        Some(match self.phase {
            Phase::Stamps => Message::Stamp,
            Phase::Document { from } if usize::from(from) == number => Message::Document,
            Phase::Prepare => Message::Prepare { who, base: self.stamps[number], wanted: self.wanted },
            Phase::Commit => Message::Commit { who },
            Phase::Confirm => Message::Confirm { who },
            Phase::Undo { all_had_it, .. } => Message::Undo { who, all_had_it },
            _ => return None,
        })
    }

    /// What it knows makes no difference any more.
    fn forget(&mut self) {
        (self.stamps, self.wanted, self.answers) = ([0; N], 0, [None; N]);
    }
}

/// Goes through every history with that many faults.
#[expect(clippy::print_stdout, reason = "says how much was enumerated")]
fn check<const N: usize>(mutant: Mutant, replaces: [bool; CONTROLLERS], faults: u8) -> Check<N> {
    let mut check = Check::new(mutant, replaces);
    let began = std::time::Instant::now();
    let histories = check.run(faults);
    println!(
        "{N} agents, {CONTROLLERS} controllers (replacing everything: {replaces:?}), up to {faults} faults: {histories:.1e} \
         histories, {} states, {} transitions; at rest in {} states, {} of them where nodes may differ; {:.1?}",
        check.visited.len(),
        check.transitions,
        check.rests,
        check.residues,
        began.elapsed()
    );
    check
}

#[test]
fn whatever_gets_lost_or_dies_all_nodes_have_one_document_and_what_was_said_is_true() {
    for replaces in [[false, false], [true, false]] {
        assert_eq!(check::<3>(Mutant::None, replaces, 1).wrong, None);
    }
    assert_eq!(check::<2>(Mutant::None, [false, false], 2).wrong, None);
}

#[test]
fn the_check_finds_each_race_that_there_once_was() {
    for mutant in [Mutant::SaysUndone, Mutant::KeepsPrepared, Mutant::EditsAnything] {
        let found =
            [[false, false], [true, false]].iter().any(|replaces| check::<2>(mutant, *replaces, 1).wrong.is_some());
        assert!(found, "{mutant:?}");
    }
}
