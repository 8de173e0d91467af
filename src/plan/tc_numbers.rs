//! The numbers of netemctl's objects in the kernel. Planner, encoders, decoders and `tc` texts take them from here.
//!
//! ```text
//! root htb 4e7e: default 1
//! ├─ class 4e7e:1              undelayed: ARP, ND, hosts outside the topology
//! ├─ class 4e7e:2 ─ netem 2:   one class and one leaf per distinct profile
//! ├─ filters, chain 0          1 ND → 4e7e:1 · 2, 3 cuts: drop · 4, 5 refusals: sample, drop · 100 goto chain 10 or 11
//! └─ filters, chain 10 or 11   10, 11 address → class
//! clsact, ingress              1 ND passes · 2, 3 cuts: drop
//! ```

use std::net::IpAddr;

use super::Answer;

/// The minor number of a class under the root. It is the major number of the handle of the class's netem leaf.
pub type ClassMinor = u16;

/// The major number of the root qdisc's handle ("N~" in ASCII). netemctl changes no object without this mark.
pub const MARK: u16 = 0x4e7e;

/// The class that delays nothing, the default of the root.
pub const DEFAULT_CLASS: ClassMinor = 1;

/// The two chains of routes. One is active; the other is rebuilt.
pub(crate) const CHAINS: [u32; 2] = [10, 11];

/// The `ICMPv6` types of neighbour discovery (RFC 4861), which are never delayed and never cut. Each type is the handle
/// of its filter.
pub const ND_TYPES: [u8; 5] = [133, 134, 135, 136, 137];

/// The priority of the neighbour-discovery filters, before all others.
pub(crate) const PASS_PRIORITY: u16 = 1;

/// The priority of the filter that sends packets to the active chain.
pub(crate) const GATE_PRIORITY: u16 = 100;

/// The handle of that filter.
pub(crate) const GATE_HANDLE: u32 = 1;

/// The sample group of cuts with a refusal (`tc-sample(8)`).
pub const SAMPLE_GROUP: u32 = MARK as u32;

/// The bytes of each packet that a sample has: what an `ICMPv6` error quotes (RFC 4443 section 2.4) and the link-layer
/// header.
pub const SAMPLE_LENGTH: u32 = 1280;

/// The rate of every class, in bytes per second: 100 Gbit/s, which holds no packet back.
pub(crate) const CLASS_RATE: u64 = 12_500_000_000;

/// The bytes that a class sends before the next class has its turn.
pub(crate) const QUANTUM: u32 = 60_000;

/// The burst of a class whose leaf hides nothing, in bytes: `10mb`.
///
/// Without a burst, each packet leaves the class in debt. A timer ends the debt before the next packet leaves
/// (`overlimits` of `tc -s class show` counts them).
pub(crate) const BURST: u64 = 10 * 1024 * 1024;

/// The priority of a cut's filter. Each address family has its own, so that each list of filters has one mask.
///
/// Refusals come after silent cuts: a packet of both is dropped in silence.
pub(crate) fn cut_priority(address: IpAddr, answer: Answer) -> u16 {
    match (answer, address) {
        (Answer::Silence, IpAddr::V4(_)) => 2,
        (Answer::Silence, IpAddr::V6(_)) => 3,
        (Answer::Refusal, IpAddr::V4(_)) => 4,
        (Answer::Refusal, IpAddr::V6(_)) => 5,
    }
}

/// The priority of a route's filter in its chain.
pub(crate) fn route_priority(address: IpAddr) -> u16 {
    if address.is_ipv4() { 10 } else { 11 }
}

/// True if filters of netemctl have this priority.
pub(crate) fn is_own_priority(priority: u16) -> bool {
    matches!(priority, PASS_PRIORITY..=5 | 10 | 11 | GATE_PRIORITY)
}
