//! What a controller and an agent say to each other of a measurement.

use std::{collections::BTreeSet, fmt, net::IpAddr, time::Duration};

use serde::{Deserialize, Serialize};

use crate::plan::nanos;

/// Asks an agent to measure the way to other nodes by ICMP echo, and to listen for the requests of the others.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Probe {
    /// Names the measurement: all nodes that measure together have the same.
    pub run: u64,
    /// Whom to ask.
    pub targets: Vec<IpAddr>,
    /// How many requests each gets.
    pub count: u32,
    /// How long to wait before the first request, so that every node has been asked by then.
    #[serde(rename = "settle_ns", with = "nanos")]
    #[cfg_attr(test, schemars(with = "u64"))]
    pub settle: Duration,
    /// Time between two requests to the same target, on average.
    #[serde(rename = "interval_ns", with = "nanos")]
    #[cfg_attr(test, schemars(with = "u64"))]
    pub interval: Duration,
    /// How long an answer is waited for.
    #[serde(rename = "timeout_ns", with = "nanos")]
    #[cfg_attr(test, schemars(with = "u64"))]
    pub timeout: Duration,
    /// How long to listen at least, once the requests begin.
    #[serde(rename = "listen_ns", with = "nanos")]
    #[cfg_attr(test, schemars(with = "u64"))]
    pub listen: Duration,
}

/// What a node has measured.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Probed {
    /// What came back from each target.
    pub echoes: Vec<Echoes>,
    /// Whose requests have arrived here.
    pub heard: Vec<Heard>,
    /// Why the node does not answer echo requests as it should.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub mute: BTreeSet<Mute>,
    /// How many outgoing packets the node's kernel has discarded meanwhile, those of all programs: answers among them.
    #[serde(default)]
    pub discards: Discards,
    /// How late the node's own timers and its echoes to itself were, in nanoseconds: nine of ten were less late.
    pub late_ns: u64,
}

/// Outgoing packets that a firewall dropped, or a queue refused (`IpOutDiscards`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Discards {
    /// Of IPv4.
    pub ipv4: u64,
    /// Of IPv6.
    pub ipv6: u64,
}

/// A setting by which a node does not answer echo requests, or not all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Mute {
    /// `net.ipv4.icmp_echo_ignore_all` is set.
    IgnoresIpv4,
    /// `net.ipv6.icmp.echo_ignore_all` is set.
    IgnoresIpv6,
    /// `net.ipv4.icmp_ratemask` has the bit of echo replies.
    LimitsIpv4,
    /// `net.ipv6.icmp.ratemask` has the bit of echo replies.
    LimitsIpv6,
}

impl Mute {
    /// Whether it concerns an address.
    pub fn concerns(self, address: &IpAddr) -> bool {
        address.is_ipv6() == matches!(self, Self::IgnoresIpv6 | Self::LimitsIpv6)
    }

    /// The assignment for sysctl(8) that has the node answer.
    pub fn remedy(self) -> &'static str {
        match self {
            Self::IgnoresIpv4 => "net.ipv4.icmp_echo_ignore_all=0",
            Self::IgnoresIpv6 => "net.ipv6.icmp.echo_ignore_all=0",
            // The kernel's own.
            Self::LimitsIpv4 => "net.ipv4.icmp_ratemask=6168",
            Self::LimitsIpv6 => "net.ipv6.icmp.ratemask=0-1,3-127",
        }
    }
}

impl fmt::Display for Mute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::IgnoresIpv4 => "net.ipv4.icmp_echo_ignore_all",
            Self::IgnoresIpv6 => "net.ipv6.icmp.echo_ignore_all",
            Self::LimitsIpv4 => "net.ipv4.icmp_ratemask",
            Self::LimitsIpv6 => "net.ipv6.icmp.ratemask",
        })
    }
}

/// The requests of one node to one address that have arrived there, whether or not the answers got back.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Heard {
    /// The address that they came from.
    pub from: IpAddr,
    /// The address that they were for.
    pub to: IpAddr,
    /// How many.
    pub requests: u32,
    /// How many more arrived at an interface and went no further: a firewall dropped them.
    #[serde(default)]
    pub dropped: u32,
}

/// What came back from one target.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Echoes {
    /// The target.
    pub address: IpAddr,
    /// How many requests were sent: fewer than asked for where the node was too late to send them.
    pub sent: u32,
    /// How many of these the node's own firewall kept from leaving.
    #[serde(default)]
    pub refused: u32,
    /// How many answers arrived at an interface and went no further: a firewall dropped them.
    #[serde(default)]
    pub dropped: u32,
    /// The round-trip times of the answers, in nanoseconds, in ascending order.
    pub rtts_ns: Vec<u64>,
}
