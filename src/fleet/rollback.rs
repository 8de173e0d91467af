//! Cancels or rolls back a transaction on every node.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{
    Answers, CallError, Fleet, Leftover,
    decision::{Next, Stage, heard, next},
    fan_out::RetryPolicy,
};
use crate::{
    topology::NodeName,
    wire::{Rollback, RolledBack, Ticket},
};

/// The time limit of one call.
const TIMEOUT: Duration = Duration::from_secs(3);

impl Fleet {
    /// Cancels or rolls back a transaction that no node was told to keep. Returns the nodes that did not confirm the
    /// rollback.
    pub(super) async fn cancel(&self, ticket: &Ticket) -> BTreeMap<NodeName, Leftover> {
        self.roll_back(ticket, BTreeSet::new(), Duration::ZERO).await.unwrap_or_default()
    }

    /// Rolls back a transaction, and returns the nodes that did not confirm the rollback. Returns `None` if all nodes
    /// keep the transaction, because another change was committed on top.
    ///
    /// The nodes in `told` may have been told to keep the transaction. These nodes can roll back only for the time
    /// `within`.
    pub(super) async fn roll_back(
        &self,
        ticket: &Ticket,
        told: BTreeSet<NodeName>,
        within: Duration,
    ) -> Option<BTreeMap<NodeName, Leftover>> {
        let rollback = |_: &NodeName| Rollback { ticket: ticket.clone() };
        // Nodes that were not told to keep the transaction roll back by themselves. The call makes them roll back
        // sooner.
        let timeouts = TIMEOUT.into();
        let brief = RetryPolicy { total: TIMEOUT / 3, ..RetryPolicy::once(timeouts) };
        // After `within`, an agent can no longer roll back, so a longer wait for an agent that restarts is useless.
        // Another controller's change on top causes conflicts until that change is finished or rolled back, which takes
        // at most twice `within`.
        let thorough = RetryPolicy { total: within, awaits_agents: true, conflict: within * 2, ..brief };
        let (others, told_nodes) = (self.of(|node| !told.contains(node)), self.of(|node| told.contains(node)));
        let (others, told_nodes) = tokio::join!(others.retry(brief, &rollback), told_nodes.retry(thorough, &rollback));
        let answers: Answers<RolledBack> = others.into_iter().chain(told_nodes).collect();
        let heard = heard(&answers, |rolled_back| rolled_back.kept);
        let Next::Failed(left) = next(&Stage::Rollback { told }, &heard) else { return None };
        let leftover = |(node, answer): (NodeName, Result<RolledBack, CallError>)| {
            let leftover = Leftover { state: *left.get(&node)?, error: answer.err()? };
            Some((node, leftover))
        };
        Some(answers.into_iter().filter_map(leftover).collect())
    }
}
