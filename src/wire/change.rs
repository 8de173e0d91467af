//! The document of a node, and the transaction that changes it.

use std::{collections::BTreeSet, time::Duration};

use serde::{Deserialize, Serialize};

use super::Ticket;
use crate::plan::{Absent, Change, IfName, Moment, Port, Stamp, TimedId, Wanted, nanos};

/// Asks which wanted state is in force, by name: all nodes are asked for this, and one of them for the whole.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct GetStamp {}

/// Asks for the wanted state, as a whole.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct GetWanted {}

/// The wanted state that a node has. All nodes have the same, although what lasts for a time may end on one of them a
/// few milliseconds before it ends on another.
#[derive(Debug, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Document {
    /// The document, as its stamp names it.
    pub wanted: Wanted,
    /// What of it is not in force at this moment, as the node knows by its own clock.
    pub absent: Absent,
    /// When what has a time began or will, where the document only says that it is not before.
    pub begins: Vec<Beginning>,
    /// True if the node takes it back unless its controller confirms it.
    #[serde(default)]
    pub unconfirmed: bool,
    /// For how long changes that leave out nodes wait for the controller that made the last change, which may still roll back
    /// it; `None`: it said that all nodes have confirmed it.
    #[serde(rename = "unfinished_ns", with = "nanos::option", default)]
    #[cfg_attr(test, schemars(with = "Option<u64>"))]
    pub unfinished: Option<Duration>,
}

/// When something of a document began or will.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Beginning {
    /// What.
    pub of: TimedId,
    /// When.
    pub at: Moment,
}

impl Document {
    /// The document without what is over for good: what an edit starts from.
    pub fn lasting(&self) -> Wanted {
        self.on_time(self.wanted.without(&self.absent.ended))
    }

    /// What is in force at this moment.
    pub fn in_force(&self) -> Wanted {
        self.on_time(self.wanted.in_force(&self.absent))
    }

    /// With every partition beginning when it does.
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

/// Asks an agent what it would do, without a transaction: nothing waits for it, and nobody is kept out.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// The document that the agent is believed to have; another one means that somebody else was faster.
    pub base: Stamp,
    /// The document that it would have.
    pub wanted: Wanted,
}

/// Asks an agent to check everything and compute its change, without writing anything.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Prepare {
    /// The transaction.
    pub ticket: Ticket,
    /// The document that the agent is believed to have; another one means that somebody else was faster.
    pub base: Stamp,
    /// The document that it is to have.
    pub wanted: Wanted,
}

/// What an agent would do.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Prepared {
    /// The interface.
    pub interface: IfName,
    /// The steps.
    pub change: Change,
    /// What the steps do not change, such as an interface that is down, or a qdisc that holds what somebody else put there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// What the node's clock showed; `None`: the agent does not say so.
    #[serde(default)]
    pub clock: Option<ClockReading>,
}

/// What a node's wall clock showed as it got a request and as it answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ClockReading {
    /// As it began with the request.
    pub asked: Moment,
    /// As it answered.
    pub answered: Moment,
}

/// Asks an agent to do what it prepared, and to read it back.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Commit {
    /// The transaction.
    pub ticket: Ticket,
    /// When, on all nodes at once, by the controller's clock; `None`: as soon as possible.
    #[serde(default)]
    pub at: Option<Moment>,
    /// By how many nanoseconds the node's clock is ahead of the controller's. All moments of the change are by the
    /// controller's clock: this one, those in the document, and those in the answer.
    #[serde(default)]
    pub clock_ahead_ns: i64,
    /// How long the node then has it, unless it is told to keep it.
    #[serde(rename = "confirm_within_ns", with = "nanos", default = "confirm_within")]
    #[cfg_attr(test, schemars(with = "u64"))]
    pub confirm_within: Duration,
}

/// How long a node has a change that nobody confirms. All nodes have to do it and to say so within that time.
pub const CONFIRM_WITHIN: Duration = Duration::from_secs(15);

fn confirm_within() -> Duration {
    CONFIRM_WITHIN
}

/// What an agent has done.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Committed {
    /// What is in force now, read back from the kernel.
    pub stamp: Stamp,
    /// How many steps were written to the kernel.
    pub writes: usize,
    /// When packets began to fare otherwise; `None`: they do not.
    pub onset: Option<Onset>,
    /// How much later than the agreed instant it was by the node's clock when it was told, if that is too much for a
    /// busy moment: the clocks differ.
    #[serde(rename = "told_late_ns", with = "nanos::option", default)]
    #[cfg_attr(test, schemars(with = "Option<u64>"))]
    pub told_late: Option<Duration>,
    /// What the partitions had cut here that this change ends.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ended: Vec<PartitionEnded>,
}

/// What a partition has cut that is no longer in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct PartitionEnded {
    /// Its name.
    pub name: String,
    /// Which packets it cut; none: all.
    pub ports: BTreeSet<Port>,
    /// How many packets its filters had dropped, since they were written.
    pub cut: u64,
}

/// When a change took effect on a node, by its own clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Onset {
    /// When the kernel acknowledged the first write that changes what becomes of packets.
    pub first: Moment,
    /// When it acknowledged the last one.
    pub last: Moment,
}

/// Tells an agent that all nodes have the change, so that it keeps it, or that all have confirmed it.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Confirm {
    /// The transaction.
    pub ticket: Ticket,
    /// True if all nodes have confirmed it. It can no longer be rolled back then, and neither can those before it.
    #[serde(default)]
    pub by_all: bool,
}

/// The change is in force until another one comes.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Confirmed {
    /// What is in force.
    pub stamp: Stamp,
}

/// Asks an agent to forget what it prepared, or to go back to what it had before it committed.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Rollback {
    /// The transaction. One that the agent does not know needs no rolling back.
    pub ticket: Ticket,
}

/// The transaction has left nothing on the node, or can no longer be rolled back.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct RolledBack {
    /// What is in force.
    pub stamp: Stamp,
    /// True if all nodes keep the transaction: all have confirmed it, or another one on top of it.
    #[serde(default)]
    pub kept: bool,
}
