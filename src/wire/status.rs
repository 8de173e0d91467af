//! What is in force on one node, and what drifted.

use std::{collections::BTreeSet, path::PathBuf};

use serde::{Deserialize, Serialize};

use super::Routed;
use crate::{
    plan::{Cut, ForeignObject, IfName, Profile, Stamp},
    topology::NodeName,
};

/// Asks what is in force, compared with the kernel at this moment.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct GetStatus {}

/// What is in force on one node, and whether the kernel agrees.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct NodeStatus {
    /// The node.
    pub node: NodeName,
    /// The agent's version.
    pub version: String,
    /// Which wanted state it has.
    pub stamp: Stamp,
    /// In how many seconds the node takes its last change back, which its controller has not confirmed; `None`: it has.
    #[serde(rename = "unconfirmed_s")]
    pub unconfirmed: Option<f64>,
    /// The nodes that the last change left as they were, as its document says.
    pub missing: BTreeSet<NodeName>,
    /// The name of the topology in force.
    pub topology: Option<String>,
    /// The overlays in force, in the order in which they were laid.
    pub overlays: Vec<OverlayStatus>,
    /// The partitions that are in force or will be, in the order in which they came.
    pub partitions: Vec<PartitionStatus>,
    /// The interface that is shaped, or that would be.
    pub interface: IfName,
    /// The profiles in the kernel, each with what it does now.
    pub profiles: Vec<ProfileStatus>,
    /// What the kernel drops.
    pub cuts: Vec<Cut>,
    /// What would have to be done for the kernel to have what is wanted; empty: no drift.
    pub drift: Vec<String>,
    /// How many of these, the first ones, are not the agent's to do: `netemctl apply` does not repair them.
    #[serde(default)]
    pub by_hand: usize,
    /// What keeps packets away although the kernel has what is wanted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// What somebody else put on the interface, where this is in our way.
    pub foreign: Vec<ForeignObject>,
    /// How many classes hold no traffic any more and go when they have drained.
    pub draining: usize,
    /// Where the agent writes down what is in force; `None`: nowhere, so that it forgets that when it ends.
    pub journal: Option<PathBuf>,
    /// The process that is the agent, if nobody installed one: started by ssh, it ends when it is not needed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keeper: Option<u32>,
    /// What the agent has seen of what others do to the interface.
    pub watch: WatchStatus,
    /// What the agent found in its journal when it was started; `None`: nothing was in force.
    pub recovered: Option<Recovered>,
    /// What the node sends to networks behind other nodes; `None`: nothing, as far as its routes say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub routed: Option<Routed>,
}

/// What is done when the kernel no longer has what is in force.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum OnDrift {
    /// Nothing is written; it shows in the status.
    #[default]
    Report,
    /// It is brought in line again, as often as needed, but never in a tight loop.
    Repair,
}

/// What an agent has seen of what others do to its interface.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct WatchStatus {
    /// What is done about it.
    pub on_drift: OnDrift,
    /// Since when the kernel has not had what is in force, as far as is known, in UTC (RFC 3339); `None`: it has it.
    pub since: Option<String>,
    /// What has befallen the interface since the last change of ours, the newest last. The oldest are left out.
    pub incidents: Vec<Incident>,
    /// How often it was brought in line since the agent was started.
    pub repairs: u64,
    /// Why it cannot be brought in line, or not be looked at.
    pub obstacle: Option<String>,
    /// In how many seconds it is tried again at the earliest; `None`: as soon as something happens.
    #[serde(rename = "next_try_s")]
    pub next_try: Option<f64>,
    /// Why the journal could not be written; it is tried again. `None`: it says what is in force.
    pub journal_behind: Option<String>,
}

/// What an incident says as drift begins.
pub const DRIFTS: &str = "the kernel no longer has what is in force";

/// Something that has befallen an interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Incident {
    /// When the agent noticed, in UTC (RFC 3339).
    pub at: String,
    /// What.
    pub what: String,
}

/// What an agent found in its journal, and what came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Recovered {
    /// When the agent was started, in UTC (RFC 3339).
    pub at: String,
    /// Whether the machine was started anew since the journal was written, and not only the agent.
    pub after_reboot: bool,
    /// Whether the agent had ended in the middle of a change, which was taken back.
    pub interrupted: bool,
    /// Whether what was in force was forgotten, as the agent's config says (`after-reboot`).
    pub cleared: bool,
    /// What was over by then: names of changes and partitions.
    pub ended: Vec<String>,
    /// How many steps it took until the kernel had what is in force; `None`: it does not have it yet.
    pub writes: Option<usize>,
}

/// One overlay in force on a node.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct OverlayStatus {
    /// Its name.
    pub name: String,
    /// In how many seconds the node takes it off; `None`: not by itself.
    #[serde(rename = "left_s")]
    pub left: Option<f64>,
}

/// One partition on a node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct PartitionStatus {
    /// Its name.
    pub name: String,
    /// Whether it is in force at this moment, and not yet to begin or between two turns.
    pub is_on: bool,
    /// In how many seconds it is over for good; `None`: not by itself.
    #[serde(rename = "left_s")]
    pub left: Option<f64>,
    /// In how many seconds it comes into force or goes out of it; `None`: not by itself.
    #[serde(rename = "next_change_s")]
    pub next_change: Option<f64>,
    /// How many packets its filters on this node have dropped, since they were written; `None`: it has no filters here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cut: Option<u64>,
}

/// One profile in the kernel.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ProfileStatus {
    /// The parameters, read back.
    #[serde(flatten)]
    pub profile: Profile,
    /// How many addresses are sent through it.
    pub addresses: usize,
    /// How many packets are in it at this moment.
    pub queued: u32,
}
