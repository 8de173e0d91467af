//! Retries calls that fail temporarily or by a conflict with another controller. Agents accept repeated calls of a
//! transaction.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use super::{Answers, CallError, Fleet, clocks::Exchange};
use crate::{topology::NodeName, wire::Call};

/// The time between two attempts.
const PAUSE: Duration = Duration::from_millis(100);

/// The time limits of calls and of their retries.
#[derive(Clone, Copy, Debug)]
pub(super) struct RetryPolicy {
    /// The time limit of one call.
    pub(super) timeout: Duration,
    /// The time within which attempts begin at a node that does not answer.
    pub(super) total: Duration,
    /// True to retry also if nothing listens at the address: the agent may be restarting.
    pub(super) awaits_agents: bool,
    /// The time within which attempts begin at a node that another controller is changing.
    pub(super) conflict: Duration,
}

impl Fleet {
    /// Calls every node in parallel, with retries.
    pub(super) async fn retry<C: Call>(
        &self,
        policy: RetryPolicy,
        request: impl Fn(&NodeName) -> C + Copy,
    ) -> Answers<C::Reply> {
        self.retry_timed(policy, request).await.0
    }

    /// Calls every node in parallel, with retries. Also returns the times of each node's last call.
    pub(super) async fn retry_timed<C: Call>(
        &self,
        policy: RetryPolicy,
        request: impl Fn(&NodeName) -> C + Copy,
    ) -> (Answers<C::Reply>, BTreeMap<NodeName, Exchange>) {
        let began = Instant::now();
        let (mut answers, mut exchanges) = self.call_timed(policy.timeout.into(), request).await;
        let mut gone: BTreeSet<NodeName> = BTreeSet::new();
        loop {
            let is_left = |time: Duration| began.elapsed() + PAUSE <= time;
            let is_retried = |node: &NodeName, error: &CallError| {
                let may_answer = policy.awaits_agents || !error.is_absence() && !gone.contains(node);
                error.is_conflict() && is_left(policy.conflict)
                    || error.is_temporary() && may_answer && is_left(policy.total)
            };
            let again = self.of(|node| answers[node].as_ref().is_err_and(|error| is_retried(node, error)));
            if again.inventory.nodes.is_empty() {
                return (answers, exchanges);
            }
            tokio::time::sleep(PAUSE).await;
            let (again, timed) = again.call_timed(policy.timeout.into(), request).await;
            exchanges.extend(timed);
            for (node, answer) in again {
                // If nothing listens any more, the earlier error stays: the agent may have carried out the request
                // before the agent ended.
                if answer.as_ref().is_err_and(CallError::is_absence) {
                    gone.insert(node);
                } else {
                    answers.insert(node, answer);
                }
            }
        }
    }
}
