//! The request for the kernel's counters of one node.

use std::{collections::BTreeSet, net::IpAddr};

use serde::{Deserialize, Serialize};

use crate::{
    plan::{Cut, IfName, Profile, Tally},
    topology::NodeName,
};

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
