//! Taking a transaction back on every node, and what is known of those that did not hear of it: [`Leftover`].

use std::{collections::BTreeMap, time::Duration};

use super::{
    Answers, CallError, Fleet,
    decision::{Left, Next, Stage, Undoing, heard, next},
    insist::Effort,
};
use crate::{
    topology::NodeName,
    wire::{Ticket, Undo, Undone},
};

/// How long one undo may take.
const PATIENCE: Duration = Duration::from_secs(3);

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
    fn of(left: Left, error: Option<CallError>) -> Option<Self> {
        Some(match (left, error) {
            (Left::Kept, _) => Self::Kept,
            (Left::GoesBack, Some(error)) => Self::GoesBack(error),
            (Left::Unknown, Some(error)) => Self::Unknown(error),
            (Left::Stuck, Some(error)) => Self::Stuck(error),
            (Left::Covered, Some(error)) => Self::Covered(error),
            (_, None) => return None,
        })
    }

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
        self.retract(ticket, Undoing::of_what_nobody_keeps(), Duration::ZERO).await.unwrap_or_default()
    }

    /// Has every node take back a transaction. Those that may have been told to keep it can do so `within` that time only.
    /// `None`: every node keeps it, and another change lies on top of it.
    pub(super) async fn retract(
        &self,
        ticket: &Ticket,
        undoing: Undoing<NodeName>,
        within: Duration,
    ) -> Option<BTreeMap<NodeName, Leftover>> {
        let Undoing { told, all_had_it } = &undoing;
        let undo = |_: &NodeName| Undo { ticket: ticket.clone(), all_had_it: *all_had_it };
        // Nodes go back by themselves if they do not hear of it; they should do it sooner.
        let soon = Effort { patience: PATIENCE, lasts: PATIENCE / 3, awaits_agents: false, outlasts: Duration::ZERO };
        // A node that comes back to life later than that was told too late. Another controller's change that lies on top
        // is confirmed or taken back in that time, too.
        let surely = Effort { patience: PATIENCE, lasts: within, awaits_agents: true, outlasts: within * 2 };
        let (others, told_ones) = (self.of(|node| !told.contains(node)), self.of(|node| told.contains(node)));
        let (others, told_ones) = tokio::join!(others.insist(soon, &undo), told_ones.insist(surely, &undo));
        let answers: Answers<Undone> = others.into_iter().chain(told_ones).collect();
        let heard = heard(&answers, |undone| undone.kept);
        let Next::Failed(left) = next(&Stage::Undo(undoing), &heard) else { return None };
        let leftover = |(node, answer): (NodeName, Result<Undone, CallError>)| {
            let leftover = Leftover::of(*left.get(&node)?, answer.err());
            Some((node, leftover?))
        };
        Some(answers.into_iter().filter_map(leftover).collect())
    }
}
