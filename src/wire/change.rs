//! The document of a node, and the transaction that changes it.

use std::{collections::BTreeSet, time::Duration};

use serde::{Deserialize, Serialize};

use super::Ticket;
use crate::plan::{Absent, Change, IfName, Moment, Port, Stamp, TimedId, Wanted, nanos};

/// Asks for the stamp of the wanted state. All nodes are asked for the stamp, and one for the document.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct GetStamp {}

/// Asks for the wanted state.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct GetWanted {}

/// The wanted state of a node. All nodes have the same. Time limits may end some milliseconds apart on two nodes.
#[derive(Debug, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Document {
    /// The document that the stamp names.
    pub wanted: Wanted,
    /// The parts that are not in force at this moment, by the node's clock.
    pub absent: Absent,
    /// The begin of timed parts, where the document has only the earliest time.
    pub begins: Vec<Beginning>,
    /// True if the node rolls back unless its controller confirms.
    #[serde(default)]
    pub unconfirmed: bool,
    /// The time in which the controller of the last change may still roll back. Changes that leave out nodes wait for its
    /// end. `None`: all nodes have confirmed.
    #[serde(rename = "unfinished_ns", with = "nanos::option", default)]
    #[cfg_attr(test, schemars(with = "Option<u64>"))]
    pub unfinished: Option<Duration>,
}

/// The begin of a timed part of a document.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Beginning {
    /// The part.
    pub of: TimedId,
    /// The begin.
    pub at: Moment,
}

impl Document {
    /// The document without parts that have ended: the base of an edit.
    pub fn lasting(&self) -> Wanted {
        self.on_time(self.wanted.without(&self.absent.ended))
    }

    /// The parts that are in force at this moment.
    pub fn in_force(&self) -> Wanted {
        self.on_time(self.wanted.in_force(&self.absent))
    }

    /// Sets the begin of every partition.
    fn on_time(&self, mut wanted: Wanted) -> Wanted {
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

/// Asks an agent for a dry run. Takes no lease, so other controllers' changes go on.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// The document that the agent should have. If the agent has another one, another controller was faster.
    pub base: Stamp,
    /// The new document.
    pub wanted: Wanted,
}

/// Asks an agent to check and compute its change. Writes nothing.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Prepare {
    /// The transaction.
    pub ticket: Ticket,
    /// The document that the agent should have. If the agent has another one, another controller was faster.
    pub base: Stamp,
    /// The new document.
    pub wanted: Wanted,
}

/// The change that an agent would make.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Prepared {
    /// The interface.
    pub interface: IfName,
    /// The steps.
    pub change: Change,
    /// Problems that the steps do not solve, such as an interface that is down or a foreign qdisc.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// The node's clock; `None`: the agent does not report it.
    #[serde(default)]
    pub clock: Option<ClockReading>,
}

/// A node's wall clock at a request and at its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ClockReading {
    /// At the request.
    pub asked: Moment,
    /// At the answer.
    pub answered: Moment,
}

/// Asks an agent to make the prepared change, and to read it back.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Commit {
    /// The transaction.
    pub ticket: Ticket,
    /// The instant at which all nodes change, by the controller's clock; `None`: as soon as possible.
    #[serde(default)]
    pub at: Option<Moment>,
    /// The nanoseconds by which the node's clock is ahead of the controller's. All moments in the request, the document and
    /// the answer are by the controller's clock.
    #[serde(default)]
    pub clock_ahead_ns: i64,
    /// The time after which the node rolls back unless the change is confirmed.
    #[serde(rename = "confirm_within_ns", with = "nanos", default = "confirm_within")]
    #[cfg_attr(test, schemars(with = "u64"))]
    pub confirm_within: Duration,
}

/// The time after which a node rolls back an unconfirmed change. All nodes have to commit and answer within that time.
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
    /// When the change took effect on packets; `None`: no effect.
    pub onset: Option<Onset>,
    /// The time from the agreed instant until the commit arrived, by the node's clock. Reported only if it is so long that
    /// the clocks must differ.
    #[serde(rename = "told_late_ns", with = "nanos::option", default)]
    #[cfg_attr(test, schemars(with = "Option<u64>"))]
    pub told_late: Option<Duration>,
    /// The packets that the ended partitions cut on this node.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ended: Vec<PartitionEnded>,
}

/// A partition that has ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct PartitionEnded {
    /// Its name.
    pub name: String,
    /// The ports that it cut; none: all packets.
    pub ports: BTreeSet<Port>,
    /// The packets that its filters dropped.
    pub cut: u64,
}

/// The time at which a change took effect on a node, by the node's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Onset {
    /// The kernel's acknowledgement of the first write that affects packets.
    pub first: Moment,
    /// The acknowledgement of the last such write.
    pub last: Moment,
}

/// Tells an agent to keep the change, because all nodes have committed it; or that all nodes have confirmed.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Confirm {
    /// The transaction.
    pub ticket: Ticket,
    /// True if all nodes have confirmed. Then this change and those before it can no longer be rolled back.
    #[serde(default)]
    pub by_all: bool,
}

/// The change stays in force until the next change.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Confirmed {
    /// The stamp in force.
    pub stamp: Stamp,
}

/// Asks an agent to cancel what it prepared, or to roll back what it committed.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Rollback {
    /// The transaction. An unknown ticket is no error.
    pub ticket: Ticket,
}

/// The node has nothing of the transaction, or the transaction can no longer be rolled back.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct RolledBack {
    /// The stamp in force.
    pub stamp: Stamp,
    /// True if all nodes keep the transaction: all have confirmed it, or a transaction on top.
    #[serde(default)]
    pub kept: bool,
}
