//! Asking again whoever did not answer: what a transaction asks of an agent may be repeated.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    time::{Duration, Instant},
};

use super::{Answers, CallError, Fleet, clocks::Exchange};
use crate::{
    topology::NodeName,
    wire::{Call, ErrorCode},
};

/// How long after an agent has hung up it is asked again.
const PAUSE: Duration = Duration::from_millis(100);

/// How hard it is tried to get an answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Effort {
    /// How long one call may take.
    pub(super) patience: Duration,
    /// For how long whoever did not answer is asked again.
    pub(super) lasts: Duration,
    /// Whether to go on where nobody listens: an agent may be started again.
    pub(super) awaits_agents: bool,
    /// For how long a node is asked again that another controller is changing.
    pub(super) outlasts: Duration,
}

impl Fleet {
    /// Asks every node in parallel, and those again that did not answer, until all have or the effort is made.
    pub(super) async fn insist<C: Call>(
        &self,
        effort: Effort,
        request: impl Fn(&NodeName) -> C + Copy,
    ) -> Answers<C::Reply> {
        self.insist_timed(effort, request).await.0
    }

    /// The same, with when each last call was made and answered.
    pub(super) async fn insist_timed<C: Call>(
        &self,
        effort: Effort,
        request: impl Fn(&NodeName) -> C + Copy,
    ) -> (Answers<C::Reply>, BTreeMap<NodeName, Exchange>) {
        let began = Instant::now();
        let (mut answers, mut exchanges) = self.call_timed(effort.patience.into(), request).await;
        let mut gone: BTreeSet<NodeName> = BTreeSet::new();
        loop {
            let is_left = |time: Duration| began.elapsed() + PAUSE <= time;
            let is_worth_it = |node: &NodeName, error: &CallError| {
                let may_answer = effort.awaits_agents || !is_absence(error) && !gone.contains(node);
                is_conflict(error) && is_left(effort.outlasts) || may_pass(error) && may_answer && is_left(effort.lasts)
            };
            let lacks = |node: &NodeName| answers[node].as_ref().is_err_and(|error| is_worth_it(node, error));
            let again = self.of(lacks);
            if again.inventory.nodes.is_empty() {
                return (answers, exchanges);
            }
            tokio::time::sleep(PAUSE).await;
            let (again, timed) = again.call_timed(effort.patience.into(), request).await;
            exchanges.extend(timed);
            for (node, answer) in again {
                // Of an agent that hung up and then was gone, what is to be known is that it may have done it.
                if answer.as_ref().is_err_and(is_absence) {
                    gone.insert(node);
                } else {
                    answers.insert(node, answer);
                }
            }
        }
    }

    /// The part of the fleet that has those nodes.
    pub(crate) fn of(&self, is_meant: impl Fn(&NodeName) -> bool) -> Self {
        let mut part = self.clone();
        part.inventory.nodes.retain(|node, _| is_meant(node));
        part.unplaced.retain(|node, _| is_meant(node));
        part
    }
}

/// Whether the agent said nothing, so that what it was asked may have been done or not.
pub(super) fn is_silence(error: &CallError) -> bool {
    !matches!(error, CallError::Refused(_))
}

/// Whether the same call may be answered in a moment. Who does not trust us, or answers nonsense, does so again.
pub(super) fn may_pass(error: &CallError) -> bool {
    match error {
        CallError::HungUp { .. }
        | CallError::TimedOut { .. }
        | CallError::Unreachable { .. }
        | CallError::NoFiles { .. } => true,
        CallError::Refused(_)
        | CallError::Barred { .. }
        | CallError::Untrusted { .. }
        | CallError::NoIdentity { .. }
        | CallError::Garbled { .. } => false,
    }
}

/// Whether another controller is in the way.
pub(super) fn is_conflict(error: &CallError) -> bool {
    matches!(error, CallError::Refused(error) if error.code == ErrorCode::Conflict)
}

/// Whether nobody was there to be asked.
pub(super) fn is_absence(error: &CallError) -> bool {
    let CallError::Unreachable { error, .. } = error else { return false };
    matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound)
}
