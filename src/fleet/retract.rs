//! Taking a transaction back on every node, and what is known of those that did not hear of it: [`Leftover`].

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{
    Answers, CallError, Fleet,
    insist::{Effort, is_conflict, is_silence},
};
use crate::{
    topology::NodeName,
    wire::{Ticket, Undo, Undone},
};

/// How long one undo may take.
const PATIENCE: Duration = Duration::from_secs(3);

/// How hard a node is told that goes back by itself anyway: it should do it sooner.
const SOON: Effort =
    Effort { patience: PATIENCE, lasts: Duration::from_secs(1), awaits_agents: false, outlasts: Duration::ZERO };

/// What taking a transaction back came to.
#[derive(Debug)]
pub(super) enum Retraction {
    /// No node has the change any more, but for these.
    Back(BTreeMap<NodeName, Leftover>),
    /// Every node keeps it: another change has been confirmed on top of it.
    Kept,
}

/// What a node may still have of a change that was taken back, when it did not say that it has nothing of it.
#[derive(Debug)]
pub enum Leftover {
    /// It did not answer, and was never told to keep the change. So it takes it back by itself, if it has it at all, or
    /// when its agent is started again.
    GoesBack(CallError),
    /// It did not answer either when it was told to keep the change or when it was told to take it back: it may have it.
    Unknown(CallError),
    /// It could not take it back, and tries again by itself.
    Stuck(CallError),
    /// It has kept it, and another controller has changed something on top of it since.
    Kept,
    /// Another controller has committed a change on top of it. If that is confirmed, it is kept.
    Covered(CallError),
}

impl Leftover {
    /// Why the node did not take it back.
    pub fn error(&self) -> Option<&CallError> {
        match self {
            Self::GoesBack(error) | Self::Unknown(error) | Self::Stuck(error) | Self::Covered(error) => Some(error),
            Self::Kept => None,
        }
    }
}

impl Fleet {
    /// Has every node forget or take back a transaction that none was told to keep.
    pub(super) async fn forget(&self, ticket: &Ticket) -> BTreeMap<NodeName, Leftover> {
        let undo = |_: &NodeName| Undo { ticket: ticket.clone(), all_had_it: false };
        let answers = self.insist(SOON, &undo).await;
        answers.into_iter().filter_map(|(node, answer)| Some((node, leftover(answer, false)?))).collect()
    }

    /// Has every node take back a transaction that all had. Those in `told` may have been told to keep it, which each can
    /// `within` that time only.
    pub(super) async fn retract(&self, ticket: &Ticket, told: &BTreeSet<NodeName>, within: Duration) -> Retraction {
        let undo = |_: &NodeName| Undo { ticket: ticket.clone(), all_had_it: true };
        // A node that comes back to life later than that was told too late. Another controller's change that lies on top
        // is confirmed or taken back in that time, too.
        let surely = Effort { patience: PATIENCE, lasts: within, awaits_agents: true, outlasts: within * 2 };
        let (others, told_ones) = (self.of(|node| !told.contains(node)), self.of(|node| told.contains(node)));
        let (others, told_ones) = tokio::join!(others.insist(SOON, &undo), told_ones.insist(surely, &undo));
        retraction(others.into_iter().chain(told_ones).collect(), told)
    }
}

/// What the answers to *undo* come to.
fn retraction(answers: Answers<Undone>, told: &BTreeSet<NodeName>) -> Retraction {
    let nodes = answers.len();
    let left = answers.into_iter().filter_map(|(node, answer)| {
        let leftover = leftover(answer, told.contains(&node));
        Some((node, leftover?))
    });
    let left: BTreeMap<_, _> = left.collect();
    let all_kept = left.len() == nodes && left.values().all(|leftover| matches!(leftover, Leftover::Kept));
    if all_kept { Retraction::Kept } else { Retraction::Back(left) }
}

/// What a node has of the change after that answer; `None`: nothing.
fn leftover(answer: Result<Undone, CallError>, was_told: bool) -> Option<Leftover> {
    match answer {
        Ok(Undone { kept, .. }) => kept.then_some(Leftover::Kept),
        Err(error) if is_conflict(&error) => Some(Leftover::Covered(error)),
        Err(error) if !is_silence(&error) => Some(Leftover::Stuck(error)),
        Err(error) if was_told => Some(Leftover::Unknown(error)),
        Err(error) => Some(Leftover::GoesBack(error)),
    }
}
