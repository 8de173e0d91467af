//! The controller's side of the transaction protocol, as pure functions of the nodes' answers.
//!
//! `Fleet` sends the messages. The protocol check (`agent/tests/protocol.rs`) calls [`next`] too.

use std::collections::{BTreeMap, BTreeSet};

use super::{Answers, CallError, RollbackState};
use crate::topology::NodeName;

/// A request that the controller sends to all nodes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Stage<N> {
    /// Check and compute the change.
    Prepare,
    /// Write the part of the change that affects no packet.
    Ready,
    /// Make the change.
    Commit,
    /// Keep the change.
    Confirm,
    /// Tell the nodes that all nodes have confirmed. The change succeeds even if this message is lost.
    Finish,
    /// Cancel the change or roll it back.
    Rollback {
        /// The nodes that may have confirmed the change: they answered `Yes` to `Confirm`, or gave no valid answer.
        told: BTreeSet<N>,
    },
}

/// A node's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Heard {
    /// The node has carried out the request.
    Yes,
    /// The node can no longer roll back: all nodes have confirmed this change, or a change on top of it.
    Kept,
    /// The node refuses because of another controller's change.
    Conflict,
    /// The node cannot carry out the request.
    Failure,
    /// No valid answer. The node may have carried out the request.
    Silence,
    /// Nothing listens at the node's address, so the request was not carried out.
    Absence,
}

/// The controller's next step.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Next<N> {
    /// Ask all nodes.
    Ask(Stage<N>),
    /// Report that all nodes have the change. `superseded`: another change was committed on top.
    Succeeded { superseded: bool },
    /// Report that the change failed, with the nodes that did not confirm the rollback.
    Failed(BTreeMap<N, RollbackState>),
}

/// The controller's next step after the answers to a request.
pub(crate) fn next<N: Ord + Clone>(stage: &Stage<N>, heard: &BTreeMap<N, Heard>) -> Next<N> {
    let all = |said: Heard| heard.values().all(|heard| *heard == said);
    match stage {
        Stage::Prepare if all(Heard::Yes) => Next::Ask(Stage::Ready),
        Stage::Ready if all(Heard::Yes) => Next::Ask(Stage::Commit),
        Stage::Commit if all(Heard::Yes) => Next::Ask(Stage::Confirm),
        Stage::Confirm if all(Heard::Yes) => Next::Ask(Stage::Finish),
        Stage::Finish => Next::Succeeded { superseded: false },
        Stage::Prepare | Stage::Ready | Stage::Commit => Next::Ask(Stage::Rollback { told: BTreeSet::new() }),
        Stage::Confirm => {
            // `Absence`: the node did not get the request. `Conflict` and `Failure`: the node refuses the request, and
            // does not keep the change.
            let may_keep = |heard: &Heard| matches!(heard, Heard::Yes | Heard::Silence);
            let told = heard.iter().filter(|(_, heard)| may_keep(heard)).map(|(node, _)| node.clone());
            Next::Ask(Stage::Rollback { told: told.collect() })
        }
        // `Kept` from one node: all nodes have confirmed a second change on top of this change, so all nodes have both
        // changes. The controller asks for no rollback after all nodes have confirmed this change itself.
        Stage::Rollback { .. } if heard.values().any(|heard| *heard == Heard::Kept) => {
            Next::Succeeded { superseded: true }
        }
        Stage::Rollback { told } => {
            let left = heard.iter().filter_map(|(node, heard)| {
                let state = match heard {
                    Heard::Yes | Heard::Kept => return None,
                    Heard::Conflict => RollbackState::Covered,
                    Heard::Failure => RollbackState::Stuck,
                    Heard::Silence | Heard::Absence if told.contains(node) => RollbackState::Unknown,
                    Heard::Silence | Heard::Absence => RollbackState::RollsBack,
                };
                Some((node.clone(), state))
            });
            Next::Failed(left.collect())
        }
    }
}

/// Each node's answer. `kept` returns true if a reply says that the change can no longer be rolled back.
pub(super) fn heard<T>(answers: &Answers<T>, kept: impl Fn(&T) -> bool) -> BTreeMap<NodeName, Heard> {
    let heard = |answer: &Result<T, CallError>| match answer {
        Ok(reply) if kept(reply) => Heard::Kept,
        Ok(_) => Heard::Yes,
        Err(error) if error.is_conflict() => Heard::Conflict,
        Err(error) if error.is_absence() => Heard::Absence,
        Err(error) if error.is_silence() => Heard::Silence,
        Err(_) => Heard::Failure,
    };
    answers.iter().map(|(node, answer)| (node.clone(), heard(answer))).collect()
}
