//! Defines the numbers of netemctl's objects in the kernel: handles, classes, chains and priorities.
//!
//! The planner, the encoders, the decoders and the `tc` texts use these numbers. The layout shows the objects of one
//! interface. The number before a filter is its priority. Priorities 10 and 11 are unrelated to chains 10 and 11:
//!
//! ```text
//! root htb 4e7e: default 1
//! ├─ class 4e7e:1              undelayed: ARP, ND, addresses without a leaf
//! ├─ class 4e7e:2 ─ netem 2:   one class and one leaf per distinct leaf specification
//! ├─ filters, chain 0          1 ND → 4e7e:1 · 100 the gate: goto chain 10 or 11
//! └─ filters, chain 10 or 11   2, 3 cuts: drop · 4, 5 refusals: sample, drop · 10, 11 address → class
//! clsact, ingress
//! ├─ filters, chain 0          1 ND passes · 100 the gate: goto chain 10 or 11
//! └─ filters, chain 10 or 11   2, 3 cuts: drop
//! ```

use std::net::IpAddr;

use super::Answer;

/// The minor number of a class under the root. The same number is the major number of the netem leaf's handle.
pub type ClassMinor = u16;

/// The major number of the handle of netemctl's root qdisc ("N~" in ASCII).
///
/// netemctl never changes a root qdisc with another handle. Only the kernel's default root, which has no handle, is
/// replaced.
pub const MARK: u16 = 0x4e7e;

/// The default class of the root, which does not delay packets.
pub const DEFAULT_CLASS: ClassMinor = 1;

/// The two chains of each direction. Packets use one chain while netemctl builds the other.
pub(crate) const CHAINS: [u32; 2] = [10, 11];

/// The `ICMPv6` types of neighbour discovery (RFC 4861). netemctl never delays or cuts these packets.
///
/// The filter for each type has the type as its handle.
pub const ND_TYPES: [u8; 5] = [133, 134, 135, 136, 137];

/// The priority of the neighbour-discovery filters. The kernel tries these filters first.
pub(crate) const PASS_PRIORITY: u16 = 1;

/// The priority of the filter that sends packets to the active chain.
pub(crate) const GATE_PRIORITY: u16 = 100;

/// The handle of the filter that sends packets to the active chain.
pub(crate) const GATE_HANDLE: u32 = 1;

/// The `tc-sample(8)` group of cuts with a refusal. The kernel copies the cut packets to the agent, which refuses them.
pub const SAMPLE_GROUP: u32 = MARK as u32;

/// The maximum length of a sampled packet in bytes, including the link-layer header.
///
/// The length is enough for the quoted packet in an `ICMPv6` error (RFC 4443 section 2.4).
pub const SAMPLE_LENGTH: u32 = 1280;

/// The rate of every class, in bytes per second. 100 Gbit/s is so high that the class delays no packet.
pub(crate) const CLASS_RATE: u64 = 12_500_000_000;

/// The number of bytes that a class sends before the next class may send.
pub(crate) const QUANTUM: u32 = 60_000;

/// The burst of a class in bytes (`10mb`), without the offset that a [`LeafMark`](super::leaf_mark::LeafMark) adds.
///
/// Without a burst, the class waits for a timer after each packet, before the next packet may leave. The counter
/// `overlimits` of `tc -s class show` counts these waits.
pub(crate) const BURST: u64 = 10 * 1024 * 1024;

/// The priority of the filter of a cut.
///
/// Each address family has its own priority, because the kernel allows one protocol per priority (`tcf_chain_tp_find`
/// of `cls_api.c`). Silent cuts come before refusals. So a packet that matches both kinds of cut gets no answer.
pub(crate) fn cut_priority(address: IpAddr, answer: Answer) -> u16 {
    match (answer, address) {
        (Answer::Silence, IpAddr::V4(_)) => 2,
        (Answer::Silence, IpAddr::V6(_)) => 3,
        (Answer::Refusal, IpAddr::V4(_)) => 4,
        (Answer::Refusal, IpAddr::V6(_)) => 5,
    }
}

/// The priority of a filter that assigns an address to a class, in its chain.
pub(crate) fn route_priority(address: IpAddr) -> u16 {
    if address.is_ipv4() { 10 } else { 11 }
}

/// True if filters of netemctl have this priority.
pub(crate) fn is_own_priority(priority: u16) -> bool {
    matches!(priority, PASS_PRIORITY..=5 | 10 | 11 | GATE_PRIORITY)
}
