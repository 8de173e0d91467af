//! Whether all nodes have one document when everything has come to rest, and whether what each controller has said is true.

use super::{Check, DocumentId, Verb, controllers::Phase, histories::State, ticket};
use crate::{
    fleet::{
        RollbackState,
        snapshot::{self, Snapshot},
    },
    wire::Document,
};

impl<const N: usize, const C: usize> Check<N, C> {
    /// Whether what all have come to is as it should be.
    pub(super) fn judge(&mut self, state: &State<N, C>) {
        self.rests += 1;
        let documents = state.agents.map(|agent| self.agent(agent).transactions.held().document);
        let mut wrong = Vec::new();
        let is_one = self.agree(documents);
        if state.was_overdue || (0..C).any(|who| self.phase(state, who).may_leave_nodes_that_differ()) {
            self.residues[0] += 1;
            self.residues[1] += u64::from(!is_one);
        } else if !is_one {
            wrong.push("the nodes do not agree".to_owned());
        }
        for who in 0..C {
            wrong.extend(self.untrue(state, who, documents));
        }
        if !wrong.is_empty() && self.wrong.is_none() {
            let wanted: Vec<_> = documents.iter().map(|document| self.said(*document)).collect();
            let phases: Vec<_> = (0..C).map(|who| self.phase(state, who)).collect();
            self.wrong = Some(format!("{}: {wanted:?} {phases:?}", wrong.join("; ")));
        }
    }

    fn phase(&self, state: &State<N, C>, who: usize) -> &Phase<N> {
        &self.controller(state.controllers[who]).controller.phase
    }

    /// Whether all nodes have one document, or those that were left out an older one; and whether each change is on all
    /// its nodes or on none.
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
        (0..C).all(is_whole) && (edited.is_ok() || self.are_apart(documents))
    }

    /// Whether the changes of two commands are in force that no node takes part in both of. Then their nodes are at odds if
    /// the commands ran at once: neither knew of the other.
    fn are_apart(&self, documents: [DocumentId; N]) -> bool {
        let takes_part = |who: usize, number: usize| self.commands[who].on[number];
        let is_made = |who: &usize| {
            let by = u8::try_from(*who).unwrap_or_default();
            (0..N).all(|number| !takes_part(*who, number) || self.has(documents[number], by))
        };
        let share = |one, other| (0..N).any(|number| takes_part(one, number) && takes_part(other, number));
        let pairs = (0..C).flat_map(|one| (0..one).map(move |other| (one, other)));
        pairs.filter(|(one, other)| is_made(one) && is_made(other)).any(|(one, other)| !share(one, other))
    }

    /// What a controller has said that is not true.
    fn untrue(&self, state: &State<N, C>, who: usize, documents: [DocumentId; N]) -> Vec<String> {
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
                lack.map(|number| format!("{name} was told that n{} has what it said", number + 1)).collect()
            }
            Phase::Superseded => {
                let lack = own.filter(|number| !self.has(documents[*number], by));
                lack.map(|number| format!("{name} was told that n{} keeps its change", number + 1)).collect()
            }
            Phase::Failed { left } => {
                // What one node may have for good may have become what another command starts from. That command gives it to
                // nodes that went back, if it brings nodes in line.
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
                have.map(|number| format!("{name} was told that n{} went back", number + 1)).collect()
            }
            _ => Vec::new(),
        }
    }

    fn said(&self, document: DocumentId) -> String {
        let wanted = self.wanted(document);
        let names: Vec<_> = wanted.partitions.iter().map(|partition| partition.name.as_str()).collect();
        format!("generation {}: {}, without {:?}", wanted.generation, names.join(" "), wanted.missing)
    }
}

impl<const N: usize> Phase<N> {
    /// Whether no protocol can rule out that nodes differ when a controller has ended so.
    fn may_leave_nodes_that_differ(&self) -> bool {
        match self {
            Self::Killed { halfway } => *halfway,
            Self::Failed { left } => left.contains(&Some(RollbackState::Unknown)),
            _ => false,
        }
    }
}
