//! The requests for the state of one node: its document and drift, and the kernel's counters.

use std::{collections::BTreeSet, net::IpAddr, path::PathBuf};

use serde::{Deserialize, Serialize};

use super::Routed;
use crate::{
    plan::{Cut, ForeignObject, IfName, Missing, Profile, Stamp, Tally},
    topology::NodeName,
};

/// Asks for the state in force, compared with the kernel at this moment.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct GetStatus {}

/// The state in force on one node, compared with the kernel's state.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct NodeStatus {
    /// The node.
    pub node: NodeName,
    /// The agent's version.
    pub version: String,
    /// The stamp of the wanted state.
    pub stamp: Stamp,
    /// The seconds until the node rolls back its last change; `None`: the change is confirmed.
    #[serde(rename = "unconfirmed_s")]
    pub unconfirmed: Option<f64>,
    /// The nodes that the document names as missing, because a change left them out.
    pub missing: Missing,
    /// The topology in force.
    pub topology: Option<String>,
    /// The overlays in force, oldest first.
    pub overlays: Vec<OverlayStatus>,
    /// The partitions that are in force or will be, oldest first.
    pub partitions: Vec<PartitionStatus>,
    /// The interface to shape.
    pub interface: IfName,
    /// The profiles in the kernel, one for each leaf qdisc in use.
    pub profiles: Vec<ProfileStatus>,
    /// The traffic that the kernel drops.
    pub cuts: Vec<Cut>,
    /// The steps that would remove the drift; empty: no drift.
    pub drift: Vec<String>,
    /// The number of steps at the start of `drift` that `netemctl apply` does not repair.
    #[serde(default)]
    pub by_hand: usize,
    /// Problems that are no drift but stop packets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// Qdiscs, classes and filters of other programs that prevent changes of the interface.
    pub foreign: Vec<ForeignObject>,
    /// The number of unused classes that are removed when their queues are empty.
    pub draining: usize,
    /// The path of the journal; `None`: the agent has no journal, and loses its state when it ends.
    pub journal: Option<PathBuf>,
    /// The process id of the agent if ssh started it; `None`: an installed agent. An agent that ssh started ends when
    /// no controller is connected and no timed change is pending.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keeper: Option<u32>,
    /// The changes of the interface by other programs.
    pub watch: WatchStatus,
    /// The recovery at the agent's start; `None`: nothing was in force.
    pub recovered: Option<Recovered>,
    /// The routes to networks behind other nodes; `None`: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub routed: Option<Routed>,
}

/// The reaction to drift.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum OnDrift {
    /// Report the drift in the status, and write nothing.
    #[default]
    Report,
    /// Repair the drift, as often as needed, with pauses.
    Repair,
}

/// The changes of the interface by other programs, and the agent's repairs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct WatchStatus {
    /// The reaction to drift.
    pub on_drift: OnDrift,
    /// The earliest known time of the drift, in UTC (RFC 3339); `None`: no drift.
    pub since: Option<String>,
    /// The latest 16 incidents since netemctl's last change, the newest last.
    pub incidents: Vec<Incident>,
    /// The number of repairs since the agent's start.
    pub repairs: u64,
    /// The error of the last repair, or of the last read of the kernel's state.
    pub obstacle: Option<String>,
    /// The lowest number of seconds until the next repair; `None`: the agent waits for an event.
    #[serde(rename = "next_try_s")]
    pub next_try: Option<f64>,
    /// The error of the last write of the journal. The agent retries the write. `None`: the journal is up to date.
    pub journal_behind: Option<String>,
}

/// The text of the incident at the begin of drift.
pub const DRIFTS: &str = "the kernel no longer has what is in force";

/// An event on the interface: a change by another program, or the begin, end or repair of drift.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Incident {
    /// The time at which the agent noticed, in UTC (RFC 3339).
    pub at: String,
    /// The event, as a sentence.
    pub what: String,
}

/// The recovery at an agent's start, from its journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Recovered {
    /// The agent's start, in UTC (RFC 3339).
    pub at: String,
    /// True if the machine rebooted. False if only the agent restarted.
    pub after_reboot: bool,
    /// True if the agent had ended during a change. The change was rolled back.
    pub interrupted: bool,
    /// True if the state was cleared because of `after-reboot` in the agent's config.
    pub cleared: bool,
    /// The overlays and partitions whose time had ended.
    pub ended: Vec<String>,
    /// The number of steps that restored the kernel's state; `None`: the state is not restored yet.
    pub writes: Option<usize>,
}

/// One overlay in force on a node.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct OverlayStatus {
    /// The name.
    pub name: String,
    /// The seconds until the node removes the overlay; `None`: no limit.
    #[serde(rename = "left_s")]
    pub left: Option<f64>,
}

/// One partition on a node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct PartitionStatus {
    /// The name.
    pub name: String,
    /// True if the partition is in force at this moment: begun, and not in a pause of a flap.
    pub is_on: bool,
    /// The seconds until the partition ends; `None`: no limit.
    #[serde(rename = "left_s")]
    pub left: Option<f64>,
    /// The seconds until the partition begins, ends or, during a flap, switches on or off; `None`: no such change.
    #[serde(rename = "next_change_s")]
    pub next_change: Option<f64>,
    /// The packets that the partition's filters dropped on this node; `None`: the node has no such filters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cut: Option<u64>,
}

/// One profile in the kernel.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ProfileStatus {
    /// The parameters, read from the kernel.
    #[serde(flatten)]
    pub profile: Profile,
    /// The number of addresses whose packets use the profile.
    pub addresses: usize,
    /// The number of nodes that have these addresses.
    #[serde(default)]
    pub nodes: usize,
    /// The number of packets in the queue at this moment.
    pub queued: u32,
}

/// Asks for the kernel's counters of the links and partitions in force.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct GetCounters {}

/// The kernel's counters of one node.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Counted {
    /// The node.
    pub node: NodeName,
    /// The interface.
    pub interface: IfName,
    /// The packets to other nodes, per leaf qdisc.
    pub links: Vec<LinkCounted>,
    /// The packets that partitions cut, per filter.
    pub cuts: Vec<CutCounted>,
}

/// The counters of one leaf qdisc.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct LinkCounted {
    /// The leaf's parameters.
    pub profile: Profile,
    /// The addresses whose packets pass the leaf.
    pub addresses: BTreeSet<IpAddr>,
    /// The packets sent, since the class was created.
    pub sent: Tally,
    /// The packets dropped since the class was created, by the configured loss or by a full queue.
    pub dropped: u64,
    /// The lowest possible number of packets that a full queue dropped; `None`: unknown, because these packets cannot
    /// be distinguished from losses in bursts or from ECN marks.
    pub overflowed: Option<u64>,
}

/// The counter of one filter.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct CutCounted {
    /// The traffic that the filter cuts.
    pub cut: Cut,
    /// The packets cut, since the filter was created.
    pub dropped: Tally,
}
