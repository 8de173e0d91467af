//! Calls all nodes in parallel, and retries each node's call by itself. So a silent node does not delay other nodes.
//!
//! Calls are retried that fail temporarily or by a conflict with another controller. Agents accept repeated calls of a
//! transaction.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use tokio::task::JoinSet;

use super::{
    Answers, CallError, Fleet, Network, Timeouts,
    body::Body,
    clocks::Exchange,
    slots::{Slot, Slots},
};
use crate::{inventory::InterfaceSelector, plan::AgentAddress, topology::NodeName, wire::Call};

/// The time between two attempts.
const PAUSE: Duration = Duration::from_millis(100);

/// The shortest time to wait for the other nodes when the necessary nodes have answered. If these nodes took longer, the
/// other nodes get as much time as these nodes took.
const GRACE: Duration = Duration::from_secs(1);

/// The time limits of calls and of their retries.
#[derive(Clone, Copy, Debug)]
pub(super) struct RetryPolicy {
    /// The time limits of one call.
    pub(super) timeouts: Timeouts,
    /// The time within which attempts begin at a node that does not answer.
    pub(super) total: Duration,
    /// True to retry also if nothing listens at the address: the agent may be restarting.
    pub(super) awaits_agents: bool,
    /// The time within which attempts begin at a node that another controller is changing.
    pub(super) conflict: Duration,
    /// True if nodes may stay silent. When more than half of the nodes have answered, the others get as much time again,
    /// and at least one second.
    pub(super) allow_missing: bool,
}

impl RetryPolicy {
    /// One call, without a retry.
    pub(super) fn once(timeouts: Timeouts) -> Self {
        let (total, conflict) = (Duration::ZERO, Duration::ZERO);
        Self { timeouts, total, awaits_agents: false, conflict, allow_missing: false }
    }
}

/// The answers of all nodes, and this machine's clock at each node's last call.
pub(crate) type Timed<T> = (Answers<T>, BTreeMap<NodeName, Exchange>);

/// A node to call.
struct Callee {
    network: Arc<Network>,
    node: NodeName,
    agent: AgentAddress,
    interface: Option<InterfaceSelector>,
}

impl Fleet {
    /// Calls every node in parallel.
    pub async fn call<C: Call>(
        &self,
        timeouts: impl Into<Timeouts>,
        request: impl Fn(&NodeName) -> C,
    ) -> Answers<C::Reply> {
        self.retry(RetryPolicy::once(timeouts.into()), request).await
    }

    /// Like [`Self::call`]. With `allow_missing`, nodes may stay silent: when more than half of the nodes have answered,
    /// the others get as much time again, and at least one second.
    pub async fn call_within<C: Call>(
        &self,
        allow_missing: bool,
        timeouts: impl Into<Timeouts>,
        request: impl Fn(&NodeName) -> C,
    ) -> Answers<C::Reply> {
        self.retry(RetryPolicy { allow_missing, ..RetryPolicy::once(timeouts.into()) }, request).await
    }

    /// Calls every node in parallel, with retries.
    pub(super) async fn retry<C: Call>(
        &self,
        policy: RetryPolicy,
        request: impl Fn(&NodeName) -> C,
    ) -> Answers<C::Reply> {
        self.send::<C>(policy, |node| Body::of(&request(node))).await.0
    }

    /// Sends a body to every node in parallel, with retries.
    pub(super) async fn send<C: Call>(&self, policy: RetryPolicy, body: impl Fn(&NodeName) -> Body) -> Timed<C::Reply> {
        let (began, slots) = (Instant::now(), Slots::new());
        let mut open: BTreeMap<NodeName, AgentAddress> = BTreeMap::new();
        let mut calls = JoinSet::new();
        for node in self.inventory.nodes.keys().chain(self.unplaced.keys()) {
            let (agent, interface) = self.agent(node);
            open.insert(node.clone(), agent.clone());
            let callee = Callee { network: Arc::clone(&self.network), node: node.clone(), agent, interface };
            let (slots, slot, body) = (slots.clone(), slots.take().await, body(node));
            calls.spawn(async move {
                let (answer, exchange) = callee.ask::<C>(policy, began, body, slots, slot).await;
                (callee.node, answer, exchange)
            });
        }
        let mut required = if policy.allow_missing { open.len().min(open.len() / 2 + 1) } else { open.len() };
        let (mut answers, mut exchanges) = (BTreeMap::new(), BTreeMap::new());
        let mut deadline = None;
        while !calls.is_empty() {
            if required == 0 && deadline.is_none() {
                deadline = Some(Instant::now() + began.elapsed().max(GRACE));
            }
            let ended = match deadline {
                Some(deadline) => tokio::time::timeout_at(deadline.into(), calls.join_next()).await,
                None => Ok(calls.join_next().await),
            };
            // No answer until the deadline. Dropping the calls closes their connections.
            let Ok(ended) = ended else { break };
            // A call panics only if this program has a bug.
            let (node, answer, exchange) = match ended {
                Some(Ok(ended)) => ended,
                Some(Err(error)) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                _ => break,
            };
            open.remove(&node);
            required = required.saturating_sub(1);
            exchanges.insert(node.clone(), exchange);
            answers.insert(node, answer);
        }
        let after = began.elapsed();
        let silent =
            |(node, agent): (NodeName, AgentAddress)| (node, Err(CallError::TimedOut { at: agent.to_string(), after }));
        answers.extend(open.into_iter().map(silent));
        (answers, exchanges)
    }
}

impl Callee {
    /// Calls the node until it answers, or until the policy ends the retries.
    async fn ask<C: Call>(
        &self,
        policy: RetryPolicy,
        began: Instant,
        body: Body,
        slots: Slots,
        slot: Slot,
    ) -> (Result<C::Reply, CallError>, Exchange) {
        let (mut answer, mut exchange) = self.call::<C>(policy.timeouts, body.clone(), slot).await;
        let mut is_gone = false;
        loop {
            let is_left = |time: Duration| began.elapsed() + PAUSE <= time;
            let is_retried = |error: &CallError| {
                let may_answer = policy.awaits_agents || !error.is_absence() && !is_gone;
                error.is_conflict() && is_left(policy.conflict)
                    || error.is_temporary() && may_answer && is_left(policy.total)
            };
            if !answer.as_ref().is_err_and(is_retried) {
                return (answer, exchange);
            }
            tokio::time::sleep(PAUSE).await;
            let (again, timed) = self.call::<C>(policy.timeouts, body.clone(), slots.take().await).await;
            exchange = timed;
            // If nothing listens any more, the earlier error stays: the agent may have carried out the request before
            // the agent ended.
            if again.as_ref().is_err_and(CallError::is_absence) {
                is_gone = true;
            } else {
                answer = again;
            }
        }
    }

    async fn call<C: Call>(
        &self,
        timeouts: Timeouts,
        body: Body,
        slot: Slot,
    ) -> (Result<C::Reply, CallError>, Exchange) {
        let Self { network, node, agent, interface } = self;
        let sent = SystemTime::now().into();
        let call = network.call::<C>(node, agent.clone(), interface.clone(), body, slot.clone(), timeouts);
        let answer = slot.during(call).await;
        (answer, Exchange { sent, received: SystemTime::now().into() })
    }
}
