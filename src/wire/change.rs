//! The requests that read a node's document, and the requests of a transaction that changes the document.

use std::{collections::BTreeSet, time::Duration};

use serde::{Deserialize, Serialize};

use super::{ApiError, ErrorCode, Ticket};
use crate::plan::{Absent, Change, Delta, IfName, Moment, Port, Stamp, TimedId, Wanted, nanos};

/// Asks for the stamp of the wanted state. A controller asks all nodes for the stamp, but only one node for the
/// document.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct GetStamp {}

/// Asks for the wanted state.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct GetWanted {}

/// The wanted state of a node. All nodes have the same wanted state. A timed overlay or partition may end some
/// milliseconds apart on two nodes.
#[derive(Debug, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Document {
    /// The whole wanted state, including the overlays and partitions that are not in force.
    pub wanted: Wanted,
    /// The overlays and partitions that are not in force at this moment, by the node's clock.
    pub absent: Absent,
    /// The actual begin of each timed overlay and partition. `wanted` has only the earliest possible begin.
    pub begins: Vec<Beginning>,
    /// True if the node rolls back unless the controller confirms the last change.
    #[serde(default)]
    pub unconfirmed: bool,
    /// The remaining time in which the controller of the last change may roll back. A change that leaves out nodes
    /// waits for the end of this time. `None`: all nodes have confirmed.
    #[serde(rename = "unfinished_ns", with = "nanos::option", default)]
    #[cfg_attr(test, schemars(with = "Option<u64>"))]
    pub unfinished: Option<Duration>,
}

/// The begin of a timed overlay or partition.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Beginning {
    /// The overlay or partition.
    pub of: TimedId,
    /// The begin.
    pub at: Moment,
}

impl Document {
    /// The wanted state without overlays and partitions that have ended: the base of an edit.
    pub fn lasting(&self) -> Wanted {
        self.with_actual_begins(self.wanted.without(&self.absent.ended))
    }

    /// The wanted state with only the overlays and partitions that are in force at this moment.
    pub fn in_force(&self) -> Wanted {
        self.with_actual_begins(self.wanted.in_force(&self.absent))
    }

    /// Sets the actual begin of every partition.
    fn with_actual_begins(&self, mut wanted: Wanted) -> Wanted {
        for partition in &mut wanted.partitions {
            let own = partition.id();
            let begins = self.begins.iter().find(|beginning| beginning.of == own).map(|beginning| beginning.at);
            if let (Some(timing), Some(begins)) = (&mut partition.timing, begins) {
                timing.begins = begins;
            }
        }
        wanted
    }
}

/// Asks an agent for a dry run. Takes no lease, so other controllers can make changes.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// The stamp of the document that the change builds on. If the agent has another document, another controller was
    /// faster, and the agent refuses the request.
    pub base: Stamp,
    /// The whole new document. A request has either `wanted` or `edit`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wanted: Option<Wanted>,
    /// The new document as an edit of the document `base`. The agent refuses an edit that it cannot apply, with the
    /// code `needs-document`: send `wanted` instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub edit: Option<Delta>,
}

/// Asks an agent to check a new document, and to compute the steps for the node's kernel. Writes nothing to
/// the kernel.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Prepare {
    /// The transaction.
    pub ticket: Ticket,
    /// The stamp of the document that the change builds on. If the agent has another document, another controller was
    /// faster, and the agent refuses the request.
    pub base: Stamp,
    /// The whole new document. A request has either `wanted` or `edit`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wanted: Option<Wanted>,
    /// The new document as an edit of the document `base`. The agent refuses an edit that it cannot apply, with the
    /// code `needs-document`: send `wanted` instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub edit: Option<Delta>,
}

/// The new document of a [`Plan`] or [`Prepare`]. `before`: the document `base`.
pub(crate) fn new_document(wanted: Option<Wanted>, edit: Option<Delta>, before: &Wanted) -> Result<Wanted, ApiError> {
    match (wanted, edit) {
        (Some(wanted), None) => Ok(wanted),
        (None, Some(edit)) => edit
            .applied_to(before)
            .map_err(|error| ErrorCode::NeedsDocument.error(format!("{error}; send the whole document (`wanted`)"))),
        _ => Err(ErrorCode::BadRequest.error("a change has either `wanted` or `edit`")),
    }
}

/// The change that an agent would make.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Prepared {
    /// The interface.
    pub interface: IfName,
    /// The steps to write to the kernel. In the answer to a prepare, steps for a whole chain do not list its filters.
    pub change: Change,
    /// Problems that the steps do not solve, such as an interface that is down or a foreign qdisc.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// The readings of the node's clock; `None`: the agent does not report its clock.
    #[serde(default)]
    pub clock: Option<ClockReading>,
}

/// A node's wall clock at a request and at its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ClockReading {
    /// The time at which the agent received the request.
    pub asked: Moment,
    /// The time at which the agent answered.
    pub answered: Moment,
}

/// Asks an agent to write the part of the prepared change that affects no packet: the journal, new classes, and filters
/// in a spare chain. Then the commit writes only the switch. The reply is the stamp in force. An agent that does not get
/// this request does the same work at the commit.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct GetReady {
    /// The transaction.
    pub ticket: Ticket,
}

/// Asks an agent to make the prepared change, and to read back the kernel's state.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Commit {
    /// The transaction.
    pub ticket: Ticket,
    /// The instant at which all nodes change, by the controller's clock; `None`: as soon as possible.
    #[serde(default)]
    pub at: Option<Moment>,
    /// The nanoseconds by which the node's clock is ahead of the controller's clock. All moments in the request, the
    /// document and the answer are by the controller's clock.
    #[serde(default)]
    pub clock_ahead_ns: i64,
    /// The time after which the node rolls back unless the change is confirmed.
    #[serde(rename = "confirm_within_ns", with = "nanos", default = "confirm_within")]
    #[cfg_attr(test, schemars(with = "u64"))]
    pub confirm_within: Duration,
}

/// The time after which a node rolls back an unconfirmed change. All nodes have to commit and answer within this time.
pub const CONFIRM_WITHIN: Duration = Duration::from_secs(15);

fn confirm_within() -> Duration {
    CONFIRM_WITHIN
}

/// The result of a commit.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Committed {
    /// The stamp in force, read back from the kernel.
    pub stamp: Stamp,
    /// The number of steps written to the kernel.
    pub writes: usize,
    /// The times at which the change took effect on packets; `None`: the change affects no packets.
    pub onset: Option<Onset>,
    /// The time from the agreed instant to the commit's arrival, by the node's clock minus `clock_ahead_ns`. Reported
    /// only if this time is so long that the clocks must differ.
    #[serde(rename = "told_late_ns", with = "nanos::option", default)]
    #[cfg_attr(test, schemars(with = "Option<u64>"))]
    pub told_late: Option<Duration>,
    /// The partitions that the change ended, with the packets that they cut on this node.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ended: Vec<PartitionEnded>,
}

/// A partition that has ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct PartitionEnded {
    /// The name.
    pub name: String,
    /// The ports that the partition cut; empty: the partition cut all packets.
    pub ports: BTreeSet<Port>,
    /// The packets that the partition's filters dropped.
    pub cut: u64,
}

/// The times at which a change took effect on a node, by the node's clock minus `clock_ahead_ns` of the commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Onset {
    /// The time of the kernel's acknowledgement of the first write that affects packets.
    pub first: Moment,
    /// The time of the kernel's acknowledgement of the last write that affects packets.
    pub last: Moment,
}

/// Tells an agent to keep the change, because all nodes have committed. With `by_all`, tells the agent that all nodes
/// have confirmed.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Confirm {
    /// The transaction.
    pub ticket: Ticket,
    /// True if all nodes have confirmed. Then this change and all earlier changes can no longer be rolled back.
    #[serde(default)]
    pub by_all: bool,
}

/// The reply to a confirm: the change stays in force until the next change.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Confirmed {
    /// The stamp in force.
    pub stamp: Stamp,
}

/// Asks an agent to cancel a prepared change, or to roll back a committed change.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Rollback {
    /// The transaction. An unknown ticket is no error.
    pub ticket: Ticket,
}

/// The reply to a rollback: the node has undone the transaction, or (`kept`) can no longer roll it back.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct RolledBack {
    /// The stamp in force.
    pub stamp: Stamp,
    /// True if all nodes keep the transaction, because all nodes have confirmed it or a later transaction.
    #[serde(default)]
    pub kept: bool,
}
