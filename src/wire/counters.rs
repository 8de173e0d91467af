//! The kernel's counters of one node.

use std::{collections::BTreeSet, net::IpAddr};

use serde::{Deserialize, Serialize};

use crate::{
    plan::{Cut, IfName, Profile, Tally},
    topology::NodeName,
};

/// Asks what the kernel has counted of what is in force.
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
    /// What was sent to other nodes, by what delays it.
    pub links: Vec<LinkCounted>,
    /// What was cut.
    pub cuts: Vec<CutCounted>,
}

/// What became of the packets that one leaf delays.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct LinkCounted {
    /// What the leaf does.
    pub profile: Profile,
    /// The addresses whose packets go through it.
    pub addresses: BTreeSet<IpAddr>,
    /// What it has sent, since its class was made.
    pub sent: Tally,
    /// How many packets it has dropped: those that are lost as asked, and those that did not fit into its queue.
    pub dropped: u64,
    /// How many of them did not fit, at the least; `None`: they cannot be told from losses in bursts or marks.
    pub overflowed: Option<u64>,
}

/// What one filter has cut.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct CutCounted {
    /// What it cuts.
    pub cut: Cut,
    /// What it has cut, since it was written.
    pub dropped: Tally,
}
