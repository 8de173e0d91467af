//! One set of netem parameters: what a leaf of the tree does to the packets of all links that share it.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::topology::{Delay, Link};

/// The least netem `limit`: tc's own default, in packets.
pub const MIN_LIMIT: u32 = 1_000;

/// The largest netem `limit` that is ever asked for, in packets.
///
/// A full queue of 1,500-byte packets then holds about 220 MB of kernel memory (2.2 kB a packet, measured).
pub const MAX_LIMIT: u32 = 100_000;

/// The packet size that the limit is computed for, in bytes: a full Ethernet payload.
const PACKET_BYTES: u128 = 1_500;

/// What one queued packet of [`PACKET_BYTES`] costs the kernel, in bytes (`skb` and data, measured).
const QUEUED_BYTES: u64 = 2_200;

/// How fast an interface can send, in bits per second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LineRate(u64);

impl LineRate {
    /// What is assumed of an interface that does not know its speed (virtio, for one): 10 Gbit/s.
    pub const UNKNOWN: Self = Self::from_mbit(10_000);

    /// A rate of `mbit` Mbit/s, the unit of `/sys/class/net/<dev>/speed`.
    pub const fn from_mbit(mbit: u32) -> Self {
        Self(mbit as u64 * 1_000_000)
    }
}

/// What one netem leaf does, one way (`tc-netem(8)`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Profile {
    /// One-way delay added to every packet.
    pub delay: Delay,
    /// How many packets may be in the queue at once; one more is dropped.
    pub limit: u32,
}

impl Profile {
    /// The profile of `link` on an interface of `rate`, or `None` where the link is the LAN as it is.
    ///
    /// The limit is twice the packets that are in flight at line rate, so that the emulated link never loses one
    /// that the real one would carry: `2 × rate / (8 × 1500 B) × delay`, within [`MIN_LIMIT`] and [`MAX_LIMIT`].
    pub fn of(link: Link, rate: LineRate) -> Option<Self> {
        if link.is_lan() {
            return None;
        }
        let bits_in_flight = u128::from(rate.0) * u128::from(link.delay.as_nanos()) / 1_000_000_000;
        let packets = 2 * bits_in_flight / (8 * PACKET_BYTES);
        let limit = u32::try_from(packets).unwrap_or(MAX_LIMIT).clamp(MIN_LIMIT, MAX_LIMIT);
        Some(Self { delay: link.delay, limit })
    }

    /// The kernel memory that a full queue holds, in bytes, with packets of 1,500 bytes.
    pub fn memory_at_stake(&self) -> u64 {
        u64::from(self.limit) * QUEUED_BYTES
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "delay {} limit {}", self.delay, self.limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(mbit: u32, delay: &str) -> u32 {
        let link = Link { delay: delay.parse().unwrap() };
        Profile::of(link, LineRate::from_mbit(mbit)).unwrap().limit
    }

    #[test]
    fn a_link_without_delay_needs_no_profile() {
        assert_eq!(Profile::of(Link::LAN, LineRate::UNKNOWN), None);
    }

    #[test]
    fn the_limit_is_twice_what_is_in_flight_at_line_rate() {
        assert_eq!(limit(1_000, "75ms"), 12_500);
        assert_eq!(limit(10_000, "10ms"), 16_666);
    }

    #[test]
    fn the_limit_stays_within_its_bounds() {
        assert_eq!(limit(10, "1ms"), MIN_LIMIT);
        assert_eq!(limit(100_000, "60s"), MAX_LIMIT);
    }
}
