//! Taking a transaction back on every node, and what is known of those that did not hear of it: [`Leftover`].

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{
    Answers, CallError, Fleet,
    decision::{Left, Next, Stage, heard, next},
    insist::Effort,
};
use crate::{
    topology::NodeName,
    wire::{Rollback, RolledBack, Ticket},
};

/// How long one roll back may take.
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
    /// Another controller has changed something on top of it, and has not said what became of that. It has the change as
    /// long as it has that one.
    Covered(CallError),
}

impl Leftover {
    fn of(left: Left, error: Option<CallError>) -> Option<Self> {
        let error = error?;
        Some(match left {
            Left::GoesBack => Self::GoesBack(error),
            Left::Unknown => Self::Unknown(error),
            Left::Stuck => Self::Stuck(error),
            Left::Covered => Self::Covered(error),
        })
    }

    /// Why the node did not take it back.
    pub fn error(&self) -> &CallError {
        match self {
            Self::GoesBack(error) | Self::Unknown(error) | Self::Stuck(error) | Self::Covered(error) => error,
        }
    }
}

impl Fleet {
    /// Has every node forget or take back a transaction that none was told to keep.
    pub(super) async fn forget(&self, ticket: &Ticket) -> BTreeMap<NodeName, Leftover> {
        self.retract(ticket, BTreeSet::new(), Duration::ZERO).await.unwrap_or_default()
    }

    /// Has every node take back a transaction. Those that may have been `told` to keep it can do so `within` that time only.
    /// `None`: every node keeps it, and another change lies on top of it.
    pub(super) async fn retract(
        &self,
        ticket: &Ticket,
        told: BTreeSet<NodeName>,
        within: Duration,
    ) -> Option<BTreeMap<NodeName, Leftover>> {
        let rollback = |_: &NodeName| Rollback { ticket: ticket.clone() };
        // Nodes go back by themselves if they do not hear of it; they should do it sooner.
        let soon = Effort { patience: PATIENCE, lasts: PATIENCE / 3, awaits_agents: false, outlasts: Duration::ZERO };
        // A node that comes back to life later than that was told too late. Another controller's change that lies on top
        // is finished or taken back in that time, too.
        let surely = Effort { patience: PATIENCE, lasts: within, awaits_agents: true, outlasts: within * 2 };
        let (others, told_ones) = (self.of(|node| !told.contains(node)), self.of(|node| told.contains(node)));
        let (others, told_ones) = tokio::join!(others.insist(soon, &rollback), told_ones.insist(surely, &rollback));
        let answers: Answers<RolledBack> = others.into_iter().chain(told_ones).collect();
        let heard = heard(&answers, |rolled_back| rolled_back.kept);
        let Next::Failed(left) = next(&Stage::Rollback { told }, &heard) else { return None };
        let leftover = |(node, answer): (NodeName, Result<RolledBack, CallError>)| {
            let leftover = Leftover::of(*left.get(&node)?, answer.err());
            Some((node, leftover?))
        };
        Some(answers.into_iter().filter_map(leftover).collect())
    }
}
