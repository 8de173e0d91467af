//! The controllers of the protocol check. They run `fleet::decision`, and send its requests as `Fleet` does.

use std::collections::BTreeMap;

use super::{
    Check, DocumentId, Draft, Mutant,
    agents::{Answer, Message},
    node,
};
use crate::{
    fleet::{
        RollbackState,
        decision::{self, Heard, Next, Stage},
        snapshot,
    },
    wire::Document,
};

/// A state of a controller: an index in [`Check::controllers`].
pub(super) type ControllerId = u16;

/// The current request of a controller, or its final report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Phase<const N: usize> {
    Stamps,
    /// The controller reads the document from any of the nodes with the newest document.
    Document {
        from: [bool; N],
    },
    Prepare,
    Ready,
    Commit,
    Confirm,
    Finish,
    Rollback {
        told: [bool; N],
        after_confirm: bool,
    },
    /// The controller has reported that all nodes have this document.
    Succeeded {
        wanted: DocumentId,
    },
    /// The controller has reported that all nodes have its change, and that another change is on top.
    Superseded,
    /// The controller has reported a failure, and the state of the rollback on each node.
    Failed {
        left: [Option<RollbackState>; N],
    },
    /// `halfway`: some nodes, but not all, had received the *confirm* or the *roll back*.
    Killed {
        halfway: bool,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Controller<const N: usize> {
    who: u8,
    pub(super) phase: Phase<N>,
    stamps: [Option<DocumentId>; N],
    wanted: DocumentId,
    /// True if `wanted` is in force already, so that no change is necessary.
    is_in_force: bool,
    pub(super) answers: [Option<Answer>; N],
}

impl<const N: usize> Phase<N> {
    pub(super) fn is_over(&self) -> bool {
        matches!(self, Self::Succeeded { .. } | Self::Superseded | Self::Failed { .. } | Self::Killed { .. })
    }

    pub(super) fn is_after_confirm(&self) -> bool {
        matches!(self, Self::Confirm | Self::Finish | Self::Rollback { after_confirm: true, .. })
    }

    fn stage(&self) -> Stage<usize> {
        match self {
            Self::Ready => Stage::Ready,
            Self::Commit => Stage::Commit,
            Self::Confirm => Stage::Confirm,
            Self::Finish => Stage::Finish,
            Self::Rollback { told, .. } => Stage::Rollback { told: (0..N).filter(|number| told[*number]).collect() },
            _ => Stage::Prepare,
        }
    }
}

impl<const N: usize> Controller<N> {
    pub(super) fn new(who: u8) -> Self {
        Self { who, phase: Phase::Stamps, stamps: [None; N], wanted: 0, is_in_force: false, answers: [None; N] }
    }

    /// The controller at its end. Its knowledge is dropped, so that equal ends are equal states.
    pub(super) fn ended(self, phase: Phase<N>) -> Self {
        Self { phase, ..Self::new(self.who) }
    }

    /// The same controller with the nodes in another order.
    fn renamed(self, names: [usize; N]) -> Self {
        let phase = match self.phase {
            Phase::Document { from } => Phase::Document { from: names.map(|name| from[name]) },
            Phase::Rollback { told, after_confirm } => {
                Phase::Rollback { told: names.map(|name| told[name]), after_confirm }
            }
            Phase::Failed { left } => Phase::Failed { left: names.map(|name| left[name]) },
            phase => phase,
        };
        let (stamps, answers) = (names.map(|name| self.stamps[name]), names.map(|name| self.answers[name]));
        Self { phase, stamps, answers, ..self }
    }
}

/// A controller and values computed from it once.
pub(super) struct Known<const N: usize> {
    pub(super) controller: Controller<N>,
    pub(super) is_over: bool,
    /// The request to each node that has not answered.
    pub(super) asks: [Option<Message>; N],
    /// The same controller under each of [`Check::renamings`].
    pub(super) renamed: Vec<ControllerId>,
}

impl<const N: usize, const C: usize> Check<N, C> {
    pub(super) fn controller_id(&mut self, controller: Controller<N>) -> ControllerId {
        if let Some(id) = self.controller_ids.get(&controller) {
            return *id;
        }
        let id = ControllerId::try_from(self.controllers.len()).unwrap();
        let asks = std::array::from_fn(|number| {
            self.message(&controller, number).filter(|_| controller.answers[number].is_none())
        });
        self.controller_ids.insert(controller, id);
        self.controllers.push(Known { controller, is_over: controller.phase.is_over(), asks, renamed: Vec::new() });
        let renamed = self.renamings.clone().into_iter().map(|names| self.controller_id(controller.renamed(names)));
        self.controllers[usize::from(id)].renamed = renamed.collect();
        id
    }

    pub(super) fn controller(&self, controller: ControllerId) -> &Known<N> {
        &self.controllers[usize::from(controller)]
    }

    /// The request of a controller to a node; `None`: no request.
    fn message(&self, controller: &Controller<N>, number: usize) -> Option<Message> {
        let who = controller.who;
        let takes_part = self.commands[usize::from(who)].on[number];
        match (controller.phase, controller.stamps[number]) {
            (Phase::Stamps, _) => takes_part.then_some(Message::Stamp),
            (Phase::Document { from }, _) => from[number].then_some(Message::Document { agent_waits: true }),
            _ if !takes_part => None,
            (Phase::Prepare, Some(base)) => {
                Some(Message::Prepare { who, base, wanted: controller.wanted, agent_waits: true })
            }
            (Phase::Ready, _) => Some(Message::Ready { who }),
            (Phase::Commit, _) => Some(Message::Commit { who }),
            (Phase::Confirm, _) => Some(Message::Confirm { who }),
            (Phase::Finish, _) => Some(Message::Finish { who }),
            (Phase::Rollback { .. }, _) => Some(Message::Rollback { who }),
            _ => None,
        }
    }

    /// The controller's state after an answer.
    pub(super) fn controller_step(&mut self, id: ControllerId, number: usize, answer: Answer) -> ControllerId {
        if let Some(known) = self.controller_steps.get(&(id, number, answer)) {
            return *known;
        }
        let mut controller = self.controller(id).controller;
        controller.answers[number] = Some(answer);
        let after = self.advance(controller);
        let after = self.controller_id(after);
        self.controller_steps.insert((id, number, answer), after);
        after
    }

    /// Moves a controller to its next phase if all required answers have arrived.
    fn advance(&mut self, mut controller: Controller<N>) -> Controller<N> {
        let is_open = |answer: Option<Answer>| answer.is_none() || answer == Some(Answer::Waits);
        let is_asked = |number: &usize| self.message(&controller, *number).is_some();
        let is_one_enough = matches!(controller.phase, Phase::Document { .. });
        if !is_one_enough && (0..N).filter(is_asked).any(|number| is_open(controller.answers[number])) {
            return controller;
        }
        let Controller { who, phase, wanted, stamps, answers, .. } = controller;
        let on = self.commands[usize::from(who)].on;
        controller.answers = [None; N];
        let failed = Phase::Failed { left: [None; N] };
        match phase {
            Phase::Stamps => {
                let stamps = answers.map(|answer| answer.and_then(Answer::document));
                let named = self.named(stamps);
                let Some(newest) = snapshot::newest(&named) else { return controller.ended(failed) };
                if (0..N).any(|number| on[number] && stamps[number].is_none()) {
                    return controller.ended(failed);
                }
                let is_newest = |stamp: &crate::plan::Stamp| stamp.generation == named[newest].generation;
                let from = std::array::from_fn(|number| named.get(&node(number)).is_some_and(is_newest));
                Controller { stamps, phase: Phase::Document { from }, ..controller }
            }
            Phase::Document { .. } => {
                let from = (0..N).find(|number| answers[*number].is_some()).unwrap_or_default();
                let draft = answers[from].and_then(|answer| self.read(who, from, stamps, answer));
                match draft {
                    Some(Draft { wanted, is_in_force }) => {
                        Controller { wanted, is_in_force, phase: Phase::Prepare, ..controller }
                    }
                    None => controller.ended(failed),
                }
            }
            phase => {
                let heard = |number: usize| match answers[number] {
                    Some(Answer::Heard(heard)) => heard,
                    Some(Answer::Unfinished) => Heard::Conflict,
                    _ => Heard::Silence,
                };
                let asked = (0..N).filter(|number| on[*number]);
                let heard: BTreeMap<usize, Heard> = asked.map(|number| (number, heard(number))).collect();
                match decision::next(&phase.stage(), &heard) {
                    Next::Ask(Stage::Ready) if controller.is_in_force => controller.ended(Phase::Succeeded { wanted }),
                    Next::Ask(Stage::Ready) => Controller { phase: Phase::Ready, ..controller },
                    Next::Ask(Stage::Commit) => Controller { phase: Phase::Commit, ..controller },
                    Next::Ask(Stage::Confirm) => Controller { phase: Phase::Confirm, ..controller },
                    Next::Ask(Stage::Finish) => Controller { phase: Phase::Finish, ..controller },
                    Next::Ask(Stage::Rollback { told }) => {
                        let told = std::array::from_fn(|number| told.contains(&number));
                        Controller {
                            phase: Phase::Rollback { told, after_confirm: phase.is_after_confirm() },
                            ..controller
                        }
                    }
                    Next::Ask(Stage::Prepare) => unreachable!("no answer leads to Prepare"),
                    Next::Succeeded { superseded: false } => controller.ended(Phase::Succeeded { wanted }),
                    Next::Succeeded { superseded: true } => controller.ended(Phase::Superseded),
                    Next::Failed(left) => {
                        let left = std::array::from_fn(|number| left.get(&number).copied());
                        controller.ended(Phase::Failed { left })
                    }
                }
            }
        }
    }

    /// Edits the document that a node has sent; `None`: the controller refuses to edit it.
    fn read(&mut self, who: u8, from: usize, stamps: [Option<DocumentId>; N], answer: Answer) -> Option<Draft> {
        let Answer::Document { document: read, is_unconfirmed, unfinished } = answer else { return None };
        let stamp = &self.documents[usize::from(stamps[from]?)].1;
        let (wanted, unfinished) = (self.wanted(read).clone(), unfinished.waits());
        let document = Document { wanted, unconfirmed: is_unconfirmed, unfinished, ..Document::default() };
        let is_base = snapshot::is_base(&document, stamp);
        if !is_base && self.mutant != Mutant::EditsAnything {
            return None;
        }
        self.draft(who, stamps, read, unfinished.is_some())
    }
}

impl Answer {
    fn document(self) -> Option<DocumentId> {
        match self {
            Self::Stamp(document) => Some(document),
            _ => None,
        }
    }
}
