//! The facts about a host that decide whether an experiment on it is what its topology says ([`Facts`]).
//!
//! An agent reads them, and a controller judges them. No fact is an opinion: every threshold is in [`judge`](super::judge).

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Display,
};

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use crate::plan::{ForeignObject, IfName};

/// A fact, or the reason why it could not be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Fact<T> {
    /// The value.
    Known(T),
    /// The reason why the value is not known.
    NotKnown(String),
}

impl<T> Fact<T> {
    /// The value, if it is known.
    pub fn known(&self) -> Option<&T> {
        match self {
            Self::Known(value) => Some(value),
            Self::NotKnown(_) => None,
        }
    }
}

impl<T, E: Display> From<Result<T, E>> for Fact<T> {
    fn from(read: Result<T, E>) -> Self {
        read.map_or_else(|error| Self::NotKnown(error.to_string()), Self::Known)
    }
}

/// The facts about a host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Facts {
    /// The id of the machine's boot. Nodes with the same id are on one machine.
    pub boot: String,
    /// The kernel, and its support for netemctl.
    pub kernel: KernelFacts,
    /// The rights of the process that read the facts.
    pub rights: Rights,
    /// The interfaces that the agent may shape.
    pub interfaces: BTreeMap<IfName, Fact<InterfaceFacts>>,
    /// The interfaces of the host that carry no default route, without the loopback.
    pub unrouted: BTreeSet<String>,
    /// The exceptions from the guard in the agent's config, such as `default-route`.
    pub allow: BTreeSet<String>,
    /// The memory and the queues of TCP, and the receive queue of the CPUs.
    pub tcp: TcpFacts,
    /// The neighbour tables (ARP and NDP), which all network namespaces of the machine share.
    pub neighbours: Fact<Vec<NeighbourTable>>,
    /// Timers and CPUs.
    pub time: TimeFacts,
    /// Firewalls and connection tracking.
    pub filtering: Filtering,
    /// The programs in the node's network namespace that change interfaces, qdiscs or sysctls.
    pub programs: Fact<BTreeSet<String>>,
    /// The programs of this machine that synchronise its clock.
    pub synchronisers: Fact<BTreeSet<String>>,
}

/// The kernel, and its support for netemctl.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct KernelFacts {
    /// The release, as `uname -r` prints it.
    pub release: String,
    /// `ID` and `ID_LIKE` of os-release(5), the most specific first.
    pub distribution: Fact<Vec<String>>,
    /// The result of a dry run of delays and cuts, in a scratch namespace.
    pub shaping: Trial,
    /// The result of a dry run of rejections, in a scratch namespace.
    pub rejecting: Trial,
    /// The modules that netemctl needs.
    pub modules: BTreeMap<String, Fact<ModuleState>>,
}

/// The result of a dry run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Trial {
    /// The kernel accepts everything, and reads it back.
    Works,
    /// The kernel lacks a feature.
    Unsupported(String),
    /// The process lacks a right.
    Denied(String),
    /// The dry run failed for another reason.
    Failed(String),
}

/// The state of a kernel module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum ModuleState {
    /// The module is a part of the kernel, or is loaded.
    Loaded,
    /// The kernel loads the module at its first use.
    OnDisk,
    /// The kernel's folder of modules lacks the module.
    Absent,
}

/// The rights of a process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Rights {
    /// The needed capabilities that the process lacks.
    pub missing_capabilities: Fact<BTreeSet<String>>,
    /// The sysctls that limit user namespaces, where they exist.
    pub user_namespaces: BTreeMap<String, Fact<u64>>,
}

/// An interface that may be shaped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[expect(clippy::struct_excessive_bools, reason = "each flag is independent of the others")]
pub struct InterfaceFacts {
    /// True if the interface is set up.
    pub is_up: bool,
    /// True if the interface has a carrier.
    pub has_carrier: bool,
    /// The kind of a virtual interface (veth, vlan, bond). Absent: hardware.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// The addresses with their prefix lengths.
    #[cfg_attr(test, schemars(with = "Vec<String>"))]
    pub addresses: Vec<IpNetwork>,
    /// The largest packet, in bytes.
    pub mtu: u32,
    /// The speed in Mbit/s.
    pub speed_mbit: Fact<u32>,
    /// The driver of hardware.
    pub driver: Fact<String>,
    /// The number of transmit queues.
    pub tx_queues: Fact<usize>,
    /// The active features, as `ethtool -k` names them, such as `tx-tcp-segmentation`.
    pub features: Fact<BTreeSet<String>>,
    /// The qdiscs, classes and filters of other programs.
    pub foreign: Fact<Vec<ForeignObject>>,
    /// The links with a default route whose packets pass this interface: the interface itself, or links above it.
    pub default_routes: BTreeSet<String>,
    /// The links above the interface (VLANs, tunnels), which send through its queues.
    pub above: BTreeSet<String>,
    /// The bridge or bond that has the interface as a port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub master: Option<String>,
    /// True if the connection of the controller uses the interface.
    pub carries_controller: bool,
    /// True if the host forwards packets from other interfaces to this interface.
    pub forwards: bool,
    /// True if an XDP program sees received packets before netemctl's filters.
    pub has_xdp: bool,
}

/// The sysctls and counters of TCP and of the receive queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct TcpFacts {
    /// `net.ipv4.tcp_rmem`: the least, the default and the largest receive buffer, in bytes.
    pub rmem: Fact<[u64; 3]>,
    /// `net.ipv4.tcp_wmem`: the least, the default and the largest send buffer, in bytes.
    pub wmem: Fact<[u64; 3]>,
    /// `net.ipv4.tcp_limit_output_bytes`.
    pub limit_output_bytes: Fact<u64>,
    /// `net.core.netdev_max_backlog`, in packets.
    pub backlog: Fact<u64>,
    /// The packets since boot that the full receive queues of the CPUs dropped (`/proc/net/softnet_stat`).
    pub backlog_drops: Fact<u64>,
}

/// A neighbour table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct NeighbourTable {
    /// True for ARP, false for NDP.
    pub is_v4: bool,
    /// `gc_thresh2`: above this number of entries, entries older than 5 s are removed.
    pub soft_limit: u32,
    /// `gc_thresh3`: the largest number of entries. Permanent entries do not count.
    pub hard_limit: u32,
    /// The number of entries on this machine, including permanent entries.
    pub entries: u32,
}

/// Timers and CPUs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct TimeFacts {
    /// The resolution of the kernel's timers, in nanoseconds: 1 with high-resolution timers, otherwise one tick.
    pub timer_ns: u64,
    /// The length of a tick, in nanoseconds: 1 s divided by `HZ`.
    pub tick_ns: u64,
    /// The clock source, such as `tsc`.
    pub clock_source: Fact<String>,
    /// The number of CPUs that are online.
    pub cpus: Fact<usize>,
    /// The share of CPU time since boot that the hypervisor gave to other guests, in percent.
    pub steal_percent: Fact<f64>,
    /// The share of the last 10 s in which at least one task waited for a CPU, in percent. Not all kernels count it.
    pub busy_percent: Fact<f64>,
    /// The average number of tasks that ran or waited for a CPU in the last minute.
    pub load: Fact<f64>,
    /// The time that a CPU needs to leave its deepest enabled idle state, in microseconds.
    pub idle_exit_us: Fact<u64>,
}

/// Firewalls and connection tracking.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Filtering {
    /// The tracked connections of the node's network namespace. Absent: connections are not tracked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tracked: Option<Fact<u64>>,
    /// The largest number of tracked connections. Absent: connections are not tracked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tracked_limit: Option<Fact<u64>>,
    /// The chains of nftables that see packets of the host.
    pub chains: Fact<Vec<FirewallChain>>,
    /// The tables of iptables-legacy and ip6tables-legacy, such as `iptables filter`.
    pub legacy_tables: Fact<BTreeSet<String>>,
}

/// A base chain of nftables.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct FirewallChain {
    /// The family, the table and the chain, such as `inet filter input`.
    pub name: String,
    /// True if the chain drops packets that no rule accepts.
    pub drops: bool,
}
