//! The errors of calls and transactions.

use std::{collections::BTreeMap, io, time::Duration};

use serde::Serialize;
use thiserror::Error;

use crate::{
    pki::Untrusted,
    plan::{EditError, Stamp},
    topology::{NodeName, hostlist},
    wire::{ApiError, ErrorCode},
};

/// The error of a failed call.
#[derive(Debug, Error)]
pub enum CallError {
    /// The agent answered with an error.
    #[error(transparent)]
    Refused(#[from] ApiError),
    /// The controller or the agent rejects the certificate of the other.
    #[error("the agent at {at}: {why}")]
    Untrusted {
        /// The agent's address.
        at: String,
        /// The reason.
        why: Untrusted,
    },
    /// The agent requires TLS, and the controller has no certificate.
    #[error(
        "the agent at {at} requires TLS: name a controller's certificate with --tls-dir, or issue one: netemctl pki issue --controller"
    )]
    NoIdentity {
        /// The agent's address.
        at: String,
    },
    /// This process or this machine cannot open more files.
    #[error("the agent at {at} was not asked: this process has too many open files; raise the limit: ulimit -n")]
    NoFiles {
        /// The agent's address.
        at: String,
    },
    /// The connection could not be opened. If the kind of `error` is `PermissionDenied`, a retry fails until somebody
    /// changes a setting.
    #[error("no agent at {at}: {error}")]
    Unreachable {
        /// The agent's address.
        at: String,
        /// The reason.
        #[source]
        error: io::Error,
    },
    /// The connection closed before the answer was complete.
    #[error("the agent at {at} hung up: {error}")]
    HungUp {
        /// The agent's address.
        at: String,
        /// The reason.
        #[source]
        error: hyper::Error,
    },
    /// No answer in time.
    #[error("the agent at {at} did not answer within {} s", tenths(*.after))]
    TimedOut {
        /// The agent's address.
        at: String,
        /// The time limit.
        after: Duration,
    },
    /// The answer is not a valid answer of an agent of this version.
    #[error("unexpected answer from {at}: {why}")]
    Unexpected {
        /// The agent's address.
        at: String,
        /// The reason.
        why: String,
    },
}

/// Seconds with one decimal.
fn tenths(time: Duration) -> f64 {
    (time.as_secs_f64() * 10.0).round() / 10.0
}

impl CallError {
    /// The message without the agent's address, so that nodes with the same failure share a line.
    pub fn reason(&self) -> String {
        match self {
            Self::Refused(error) => error.to_string(),
            Self::Untrusted { why, .. } => why.to_string(),
            Self::NoIdentity { .. } => {
                "no controller certificate; name its folder: --tls-dir DIR; or issue one: netemctl pki issue \
                 --controller"
                    .to_owned()
            }
            Self::NoFiles { .. } => {
                "not asked: this process has too many open files; raise the limit: ulimit -n".to_owned()
            }
            Self::Unreachable { error, .. } => format!("no agent: {error}"),
            Self::HungUp { error, .. } => format!("the agent hung up: {error}"),
            Self::TimedOut { after, .. } => format!("no answer within {} s", tenths(*after)),
            Self::Unexpected { why, .. } => format!("unexpected answer: {why}"),
        }
    }

    /// True unless the agent answered with an error. The agent may have carried out the request.
    pub(super) fn is_silence(&self) -> bool {
        !matches!(self, Self::Refused(_))
    }

    /// True if nothing listens at the address. Then the request was not carried out.
    pub(super) fn is_absence(&self) -> bool {
        use io::ErrorKind::{ConnectionRefused, NotFound};
        matches!(self, Self::Unreachable { error, .. } if matches!(error.kind(), ConnectionRefused | NotFound))
    }

    /// True if the agent refused the call because of another controller's change.
    pub(super) fn is_conflict(&self) -> bool {
        matches!(self, Self::Refused(error) if error.code == ErrorCode::Conflict)
    }

    /// True if a retry may succeed soon. False for an agent's refusal, even for a conflict ([`Self::is_conflict`]).
    pub(super) fn is_temporary(&self) -> bool {
        match self {
            Self::Unreachable { error, .. } => error.kind() != io::ErrorKind::PermissionDenied,
            _ => matches!(self, Self::HungUp { .. } | Self::TimedOut { .. } | Self::NoFiles { .. }),
        }
    }
}

/// The phase in which a transaction failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Reading the documents in force, or measuring.
    Read,
    /// Checking the change, and writing the part of it that affects no packet.
    Prepare,
    /// Writing the change.
    Commit,
    /// Telling the nodes to keep the change.
    Confirm,
}

/// The error of a transaction. All nodes are unchanged, except possibly the nodes in `left`.
#[derive(Debug, Error)]
pub enum TransactionError {
    /// The edit itself is impossible.
    #[error(transparent)]
    Edit(#[from] EditError),
    /// The nodes have different documents, so there is no document to edit.
    #[error("the nodes have different states: {}", disagreement(.0))]
    Disagreement(BTreeMap<NodeName, Stamp>),
    /// Another controller is changing this node. The node's document may still be rolled back, or has just been
    /// replaced.
    #[error("another controller is changing {0}; try again in a moment")]
    Changing(NodeName),
    /// The kernel returned no random numbers for the transaction's identifier.
    #[error("cannot create a transaction id: {0}")]
    NoTicket(#[source] io::Error),
    /// Some nodes failed.
    #[error("{} of the nodes failed", .failures.len())]
    Nodes {
        /// The phase.
        phase: Phase,
        /// The nodes that failed.
        failures: BTreeMap<NodeName, CallError>,
        /// The nodes that did not confirm the rollback; empty: all nodes are unchanged.
        left: BTreeMap<NodeName, Leftover>,
    },
    /// The command was interrupted, and all nodes are unchanged.
    #[error("interrupted; rolled back on all nodes")]
    Interrupted,
}

impl TransactionError {
    /// The error if calls failed while documents were read or links were measured. No node is changed.
    pub(super) fn unread(failures: BTreeMap<NodeName, CallError>) -> Self {
        Self::Nodes { phase: Phase::Read, failures, left: BTreeMap::new() }
    }

    /// True if all nodes are unchanged and a retry may succeed.
    ///
    /// The cause is then another controller's change, or a node that did not answer.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Disagreement(_) | Self::Changing(_) => true,
            Self::Nodes { failures, left, .. } => {
                left.is_empty() && failures.values().all(|error| error.is_conflict() || error.is_temporary())
            }
            Self::Edit(_) | Self::NoTicket(_) | Self::Interrupted => false,
        }
    }
}

fn disagreement(stamps: &BTreeMap<NodeName, Stamp>) -> String {
    let mut groups: BTreeMap<String, Vec<NodeName>> = BTreeMap::new();
    for (node, stamp) in stamps {
        groups.entry(stamp.to_string()).or_default().push(node.clone());
    }
    let groups = groups.iter().map(|(stamp, nodes)| format!("{} at {stamp}", hostlist::fold(nodes)));
    groups.collect::<Vec<_>>().join(", ")
}

/// A node that did not confirm a rollback.
#[derive(Debug)]
pub struct Leftover {
    /// The state of the change on the node.
    pub state: RollbackState,
    /// The error of the call that asked for the rollback.
    pub error: CallError,
}

/// The state of a change on a node that did not confirm the rollback of the change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum RollbackState {
    /// The node was never told to keep the change. The node's agent rolls back by itself when the time to confirm is
    /// over, or when the agent restarts.
    RollsBack,
    /// Another command has committed a second change on top. The node keeps both changes or none.
    Covered,
    /// The node may have been told to keep the change, and may keep it.
    Unknown,
    /// The node failed to roll back, and its agent retries.
    Stuck,
}
