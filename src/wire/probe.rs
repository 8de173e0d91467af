//! The request for a measurement of the network, and its results.

use std::{collections::BTreeSet, fmt, net::IpAddr, time::Duration};

use serde::{Deserialize, Serialize};

use crate::plan::nanos;

/// Asks an agent to send ICMP echo requests to other nodes, and to record requests that arrive.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Probe {
    /// The number of the measurement. All nodes get the same number.
    pub run: u64,
    /// The addresses to measure.
    pub targets: Vec<IpAddr>,
    /// The number of requests to each target.
    pub count: u32,
    /// The time before the first request. In this time, all nodes get this call.
    #[serde(rename = "settle_ns", with = "nanos")]
    #[cfg_attr(test, schemars(with = "u64"))]
    pub settle: Duration,
    /// The average time between two requests to the same target.
    #[serde(rename = "interval_ns", with = "nanos")]
    #[cfg_attr(test, schemars(with = "u64"))]
    pub interval: Duration,
    /// The time limit of an answer.
    #[serde(rename = "timeout_ns", with = "nanos")]
    #[cfg_attr(test, schemars(with = "u64"))]
    pub timeout: Duration,
    /// The minimum time for which arriving requests are recorded, counted from the first request that the node sends.
    #[serde(rename = "listen_ns", with = "nanos")]
    #[cfg_attr(test, schemars(with = "u64"))]
    pub listen: Duration,
}

/// The measurement of a node.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Probed {
    /// The answers of each target.
    pub echoes: Vec<Echoes>,
    /// The requests of other nodes that arrived.
    pub heard: Vec<Heard>,
    /// The settings that prevent the node from answering all echo requests.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub mute: BTreeSet<Mute>,
    /// The outgoing packets of all programs that the kernel discarded during the measurement. Includes echo
    /// replies.
    #[serde(default)]
    pub discards: Discards,
    /// The lateness of the node's own timers and echoes to itself, in nanoseconds: the 90th percentile.
    pub late_ns: u64,
}

/// Outgoing packets that a firewall or a full queue dropped (`IpOutDiscards`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Discards {
    /// IPv4 packets.
    pub ipv4: u64,
    /// IPv6 packets.
    pub ipv6: u64,
}

/// A setting that prevents a node from answering all echo requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Mute {
    /// `net.ipv4.icmp_echo_ignore_all` is set.
    IgnoresIpv4,
    /// `net.ipv6.icmp.echo_ignore_all` is set.
    IgnoresIpv6,
    /// `net.ipv4.icmp_ratemask` has the bit of echo replies, so the kernel limits their rate.
    LimitsIpv4,
    /// `net.ipv6.icmp.ratemask` has the bit of echo replies, so the kernel limits their rate.
    LimitsIpv6,
}

impl Mute {
    /// True if the setting concerns the address.
    pub fn concerns(self, address: &IpAddr) -> bool {
        address.is_ipv6() == matches!(self, Self::IgnoresIpv6 | Self::LimitsIpv6)
    }

    /// The assignment for sysctl(8) that makes the node answer.
    pub fn remedy(self) -> String {
        let (name, value) = self.sysctl();
        format!("{name}={value}")
    }

    /// The name of the setting, and the kernel's default value.
    fn sysctl(self) -> (&'static str, &'static str) {
        match self {
            Self::IgnoresIpv4 => ("net.ipv4.icmp_echo_ignore_all", "0"),
            Self::IgnoresIpv6 => ("net.ipv6.icmp.echo_ignore_all", "0"),
            Self::LimitsIpv4 => ("net.ipv4.icmp_ratemask", "6168"),
            Self::LimitsIpv6 => ("net.ipv6.icmp.ratemask", "0-1,3-127"),
        }
    }
}

impl fmt::Display for Mute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.sysctl().0)
    }
}

/// The requests of one node that arrived at one address, with or without an answer.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Heard {
    /// The source address.
    pub from: IpAddr,
    /// The destination address.
    pub to: IpAddr,
    /// The number of requests, copies included.
    pub requests: u32,
    /// The requests that arrived at an interface and that a firewall dropped. `requests` does not include these
    /// requests.
    #[serde(default)]
    pub dropped: u32,
    /// The time of the arrival of each request by this node's clock, minus the time of its sending by the sender's clock.
    /// In nanoseconds, in ascending order. Includes the difference of the two clocks. Without requests during which this
    /// node's clock was stepped.
    #[serde(default)]
    pub delays_ns: Vec<i64>,
}

/// The answers of one target.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Echoes {
    /// The target.
    pub address: IpAddr,
    /// The number of requests sent. An overloaded node sends fewer requests than `count`.
    pub sent: u32,
    /// The requests that the node's own firewall dropped.
    #[serde(default)]
    pub refused: u32,
    /// The answers that arrived at an interface and that a firewall dropped.
    #[serde(default)]
    pub dropped: u32,
    /// The further answers to requests that have an answer already.
    #[serde(default)]
    pub duplicates: u32,
    /// The answers that arrived after the answer to a later request (RFC 4737).
    #[serde(default)]
    pub reordered: u32,
    /// The round-trip times of the answers, in nanoseconds, in ascending order. Without duplicates.
    pub rtts_ns: Vec<u64>,
}

impl Echoes {
    /// A target that got no request yet.
    pub fn of(address: IpAddr) -> Self {
        Self { address, sent: 0, refused: 0, dropped: 0, duplicates: 0, reordered: 0, rtts_ns: Vec::new() }
    }
}
