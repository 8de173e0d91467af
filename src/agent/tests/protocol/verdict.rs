//! Checks of final states: all nodes have the same document, and each controller's report is true.

use super::{Check, DocumentId, Verb, controllers::Phase, histories::State, ticket};
use crate::{
    fleet::{
        RollbackState,
        snapshot::{self, Snapshot},
    },
    wire::Document,
};

impl<const N: usize, const C: usize> Check<N, C> {
    /// Checks a final state, and records the first violation.
    pub(super) fn check_final_state(&mut self, state: &State<N, C>) {
        self.final_states += 1;
        let documents = state.agents.map(|agent| self.agent(agent).transactions.held().document);
        let mut wrong = Vec::new();
        let do_agree = self.agree(documents);
        if state.was_overdue || (0..C).any(|who| self.phase(state, who).may_leave_nodes_different()) {
            self.exceptions[0] += 1;
            self.exceptions[1] += u64::from(!do_agree);
        } else if !do_agree {
            wrong.push("the nodes have different documents, or a change is on some of its nodes only".to_owned());
        }
        for who in 0..C {
            wrong.extend(self.false_reports(state, who, documents));
        }
        if !wrong.is_empty() && self.violation.is_none() {
            let wanted: Vec<_> = documents.iter().map(|document| self.describe(*document)).collect();
            let phases: Vec<_> = (0..C).map(|who| self.phase(state, who)).collect();
            self.violation = Some(format!("{}: {wanted:?} {phases:?}", wrong.join("; ")));
        }
    }

    fn phase(&self, state: &State<N, C>, who: usize) -> &Phase<N> {
        &self.controller(state.controllers[who]).controller.phase
    }

    /// True if all nodes have the same document and each change is on all its nodes or on none. Nodes that were left
    /// out may have an older document.
    fn agree(&self, documents: [DocumentId; N]) -> bool {
        let is_whole = |who: usize| {
            let on = self.commands[who].on;
            let by = u8::try_from(who).unwrap_or_default();
            let mut has = (0..N).filter(|number| on[*number]).map(|number| self.has(documents[number], by));
            let first = has.next();
            has.all(|has| Some(has) == first)
        };
        let stamps = self.named(documents.map(Some));
        let newest = snapshot::newest(&stamps).cloned();
        let newest = (0..N).find(|number| Some(super::node(*number)) == newest).unwrap_or_default();
        let document = Document { wanted: self.wanted(documents[newest]).clone(), ..Document::default() };
        let edited = Snapshot { stamps, document }.edited(|_| true, [].into(), false, |wanted| Ok(wanted.clone()));
        (0..C).all(is_whole) && (edited.is_ok() || self.has_disjoint_changes(documents))
    }

    /// True if the changes of two commands without a common node are in force. Neither document has the other change, so
    /// the documents differ.
    fn has_disjoint_changes(&self, documents: [DocumentId; N]) -> bool {
        let takes_part = |who: usize, number: usize| self.commands[who].on[number];
        let is_made = |who: &usize| {
            let by = u8::try_from(*who).unwrap_or_default();
            (0..N).all(|number| !takes_part(*who, number) || self.has(documents[number], by))
        };
        let share = |one, other| (0..N).any(|number| takes_part(one, number) && takes_part(other, number));
        let pairs = (0..C).flat_map(|one| (0..one).map(move |other| (one, other)));
        pairs.filter(|(one, other)| is_made(one) && is_made(other)).any(|(one, other)| !share(one, other))
    }

    /// The false statements in a controller's report.
    fn false_reports(&self, state: &State<N, C>, who: usize, documents: [DocumentId; N]) -> Vec<String> {
        let by = u8::try_from(who).unwrap_or_default();
        let own = (0..N).filter(|number| self.commands[who].on[*number]);
        let name = ticket(by).0;
        match self.phase(state, who) {
            Phase::Succeeded { wanted } => {
                let lacks = |number: &usize| {
                    let changes = (0..C).filter_map(|change| u8::try_from(change).ok());
                    changes
                        .filter(|change| self.has(*wanted, *change))
                        .any(|change| !self.has(documents[*number], change))
                };
                let lack = own.filter(lacks);
                lack.map(|number| format!("controller {name} reported success, but n{} lacks a change", number + 1))
                    .collect()
            }
            Phase::Superseded => {
                let lack = own.filter(|number| !self.has(documents[*number], by));
                lack.map(|number| {
                    format!("controller {name} reported its change as kept, but n{} lacks the change", number + 1)
                })
                .collect()
            }
            Phase::Failed { left } => {
                // If one node keeps the change, another command may start from that node's document. If that command
                // replaces different documents, the nodes that rolled back get the change again.
                let is_open = |other: usize| {
                    let is_covered = left.contains(&Some(RollbackState::Covered));
                    let is_halfway = matches!(self.phase(state, other), Phase::Killed { halfway: true });
                    self.commands[other].verb != Verb::Adds && (is_covered || is_halfway || state.was_overdue)
                };
                let spreads =
                    left.contains(&Some(RollbackState::Unknown)) || (0..C).any(|other| other != who && is_open(other));
                let may_have = |number: usize| {
                    spreads || matches!(left[number], Some(RollbackState::Unknown | RollbackState::Covered))
                };
                let have = own.filter(|number| self.has(documents[*number], by) && !may_have(*number));
                have.map(|number| {
                    format!(
                        "controller {name} reported that n{} has rolled back, but the node has the change",
                        number + 1
                    )
                })
                .collect()
            }
            _ => Vec::new(),
        }
    }

    fn describe(&self, document: DocumentId) -> String {
        let wanted = self.wanted(document);
        let names: Vec<_> = wanted.partitions.iter().map(|partition| partition.name.as_str()).collect();
        format!("generation {}: {}, without {:?}", wanted.generation, names.join(" "), wanted.missing)
    }
}

impl<const N: usize> Phase<N> {
    /// True if nodes may differ after this end of a controller, because no protocol can prevent it.
    fn may_leave_nodes_different(&self) -> bool {
        match self {
            Self::Killed { halfway } => *halfway,
            Self::Failed { left } => left.contains(&Some(RollbackState::Unknown)),
            _ => false,
        }
    }
}
