//! Taking a transaction back on every node, and what is known of those that did not hear of it: [`Leftover`].

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{
    CallError, Fleet,
    insist::{Effort, is_silence},
    part,
};
use crate::{
    topology::NodeName,
    wire::{Ticket, Undo},
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
}

impl Leftover {
    /// Why the node did not take it back.
    pub fn error(&self) -> &CallError {
        match self {
            Self::GoesBack(error) | Self::Unknown(error) | Self::Stuck(error) => error,
        }
    }
}

impl Fleet {
    /// Has every node forget or take back a transaction that none was told to keep.
    pub(super) async fn forget(&self, ticket: &Ticket) -> BTreeMap<NodeName, Leftover> {
        self.retract(ticket, &BTreeSet::new(), Duration::ZERO).await
    }

    /// Has every node forget or take back the transaction. Those in `told` may have been told to keep it, which each can
    /// `within` that time only.
    pub(super) async fn retract(
        &self,
        ticket: &Ticket,
        told: &BTreeSet<NodeName>,
        within: Duration,
    ) -> BTreeMap<NodeName, Leftover> {
        let undo = |_: &NodeName| Undo { ticket: ticket.clone() };
        // They go back by themselves if they do not hear of it; they should do it sooner.
        let soon = Effort { patience: PATIENCE, lasts: PATIENCE / 3, awaits_agents: false };
        // One that comes back to life later than that was told too late.
        let surely = Effort { patience: PATIENCE, lasts: within, awaits_agents: true };
        let (others, told_ones) = (self.of(|node| !told.contains(node)), self.of(|node| told.contains(node)));
        let (others, told_ones) = tokio::join!(others.insist(soon, &undo), told_ones.insist(surely, &undo));
        let leftover = |(node, error): (NodeName, CallError)| {
            let leftover = match error {
                error if !is_silence(&error) => Leftover::Stuck(error),
                error if told.contains(&node) => Leftover::Unknown(error),
                error => Leftover::GoesBack(error),
            };
            (node, leftover)
        };
        part(told_ones).1.into_iter().chain(part(others).1).map(leftover).collect()
    }
}
