//! One set of netem parameters: what a leaf of the tree does to the packets of all links that share it.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::topology::{
    BitRate, Bytes, Chance, Delay, Distribution, Jitter, Link, Loss, LossModel, Probability, Rate, Reorder, Slot,
    Spacing, Undelayed,
};

/// The least netem `limit` of a link that is as fast as the LAN: tc's own default, in packets.
pub const MIN_LIMIT: u32 = 1_000;

/// The least netem `limit` of a link with a rate, in packets: beyond what is under way, a queue as routers have it.
pub const MIN_RATE_LIMIT: u32 = 100;

/// The largest netem `limit` that is ever computed, in packets.
///
/// A full queue of 1,500-byte packets then holds about 220 MB of kernel memory (2.2 kB a packet, measured).
pub const MAX_LIMIT: u32 = 100_000;

/// The rate that keeps packets in order and holds none back: that of the classes.
///
/// `netem_enqueue` of `sch_netem.c` lets no packet of a leaf that has a rate leave before the one in front of it.
const ORDER_RATE: Rate = Rate::plain(BitRate::from_bytes_per_second(12_500_000_000));

/// The packet size that the limit is computed for, in bytes: a full Ethernet payload.
const PACKET_BYTES: u128 = 1_500;

/// What one queued packet of [`PACKET_BYTES`] costs the kernel, in bytes (`skb` and data, measured).
const QUEUED_BYTES: u64 = 2_200;

/// How fast an interface can send, in bits per second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
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

/// What one netem leaf does, one way (`tc-netem(8)`), in the terms of the kernel: what is read back compares equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Profile {
    /// One-way delay added to every packet; with jitter, on average.
    pub delay: Delay,
    /// How much the delay varies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jitter: Option<Jitter>,
    /// Which packets are lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss: Option<Loss>,
    /// How many packets have one bit flipped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub corrupt: Option<Chance>,
    /// How many packets are sent twice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duplicate: Option<Chance>,
    /// How many packets are not delayed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reorder: Option<Undelayed>,
    /// How fast packets are sent one after the other; also what keeps them in order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<Rate>,
    /// When packets are sent at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slot: Option<Slot>,
    /// How many packets may be in the queue at once; one more is dropped.
    pub limit: u32,
    /// What the dice start from; `None`: from chance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
}

impl Profile {
    /// A leaf that only holds packets back.
    pub const fn plain(delay: Delay, limit: u32) -> Self {
        Self {
            delay,
            jitter: None,
            loss: None,
            corrupt: None,
            duplicate: None,
            reorder: None,
            rate: None,
            slot: None,
            limit,
            seed: None,
        }
    }

    /// The profile of `link` on an interface of `line`, or `None` where the link is the LAN as it is.
    ///
    /// Jitter keeps the packets' order, by a rate that is too high to hold any back, unless the link's `reorder` says
    /// that jitter may change it.
    ///
    /// The limit, where the link has none of its own, is twice the packets that are in flight at the link's rate or
    /// the interface's, so that the emulated link never loses one that the real one would carry:
    /// `2 × rate / (8 × 1500 B) × (delay + jitter)`, at least [`MIN_LIMIT`] or [`MIN_RATE_LIMIT`], at most
    /// [`MAX_LIMIT`].
    pub fn of(link: &Link, line: LineRate) -> Option<Self> {
        if link.is_lan() {
            return None;
        }
        let order = link.jitter.filter(|_| link.reorder != Some(Reorder::Jitter)).map(|_| ORDER_RATE);
        let reorder = match link.reorder {
            Some(Reorder::Undelayed(undelayed)) => Some(undelayed),
            Some(Reorder::Jitter) | None => None,
        };
        Some(Self {
            delay: link.delay,
            jitter: link.jitter,
            loss: link.loss,
            corrupt: link.corrupt,
            duplicate: link.duplicate,
            reorder,
            rate: link.rate.or(order),
            slot: link.slot.map(slot),
            limit: link.limit.unwrap_or_else(|| limit(link, line)),
            seed: link.seed,
        })
    }

    /// Whether what happens to a packet depends on the packets before it, so that two links that share the leaf would
    /// disturb each other.
    pub fn has_memory(&self) -> bool {
        let is_correlated = |chance: Option<Chance>| chance.is_some_and(|c| c.correlation > Probability::ZERO);
        self.rate.is_some()
            || self.slot.is_some()
            || self.reorder.is_some()
            || self.seed.is_some()
            || self.jitter.is_some_and(|jitter| jitter.correlation > Probability::ZERO)
            || is_correlated(self.corrupt)
            || is_correlated(self.duplicate)
            || self.loss.is_some_and(|loss| match loss.model {
                LossModel::Random(chance) => is_correlated(Some(chance)),
                LossModel::State { .. } | LossModel::GeModel { .. } => true,
            })
    }

    /// Whether packets are kept in order by a rate that is there for nothing else.
    pub fn is_ordered_by_rate(&self) -> bool {
        self.jitter.is_some() && self.rate == Some(ORDER_RATE)
    }

    /// The kernel memory that a full queue holds, in bytes, with packets of 1,500 bytes.
    pub fn memory_at_stake(&self) -> u64 {
        u64::from(self.limit) * QUEUED_BYTES
    }
}

/// A slot in the kernel's terms: it draws evenly from a range and not from a table, and shows all 31 bits as no limit.
fn slot(slot: Slot) -> Slot {
    let spacing = match slot.spacing {
        Spacing::Distributed { delay, jitter, distribution: Distribution::Uniform } => {
            let (delay, jitter) = (delay.as_nanos(), jitter.as_nanos());
            let (min, max) = (delay.saturating_sub(jitter), delay.saturating_add(jitter));
            Spacing::Range { min: Delay::from_nanos(min), max: Delay::from_nanos(max) }
        }
        spacing => spacing,
    };
    let packets = if slot.packets == i32::MAX.unsigned_abs() { 0 } else { slot.packets };
    let bytes = if slot.bytes.get() == i32::MAX { Bytes::new(0) } else { slot.bytes };
    Slot { spacing, packets, bytes }
}

fn limit(link: &Link, line: LineRate) -> u32 {
    let rate = link.rate.map_or(line.0, |rate| rate.bits.bits_per_second());
    let least = if link.rate.is_some() { MIN_RATE_LIMIT } else { MIN_LIMIT };
    let jitter = link.jitter.map_or(Delay::ZERO, |jitter| jitter.amount);
    let nanos = u128::from(link.delay.as_nanos()) + u128::from(jitter.as_nanos());
    let bits_in_flight = u128::from(rate) * nanos / 1_000_000_000;
    let packets = 2 * bits_in_flight / (8 * PACKET_BYTES);
    u32::try_from(packets).unwrap_or(MAX_LIMIT).clamp(least, MAX_LIMIT)
}

/// As `tc` would be told.
impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "delay {}", self.delay)?;
        if let Some(Jitter { amount, correlation, distribution }) = self.jitter {
            write!(f, " {amount}")?;
            correlated(f, correlation)?;
            if distribution != Distribution::Uniform {
                write!(f, " distribution {distribution}")?;
            }
        }
        if let Some(Undelayed { chance, gap }) = self.reorder {
            named(f, "reorder", Some(chance))?;
            write!(f, " gap {gap}")?;
        }
        if let Some(Loss { model, ecn }) = self.loss {
            match model {
                LossModel::Random(chance) => named(f, "loss", Some(chance))?,
                LossModel::State { p13, p31, p32, p23, p14 } => {
                    write!(f, " loss state {p13} {p31} {p32} {p23} {p14}")?;
                }
                LossModel::GeModel { p, r, bad, good } => write!(f, " loss gemodel {p} {r} {bad} {good}")?,
            }
            f.write_str(if ecn { " ecn" } else { "" })?;
        }
        named(f, "corrupt", self.corrupt)?;
        named(f, "duplicate", self.duplicate)?;
        if let Some(Rate { bits, packet_overhead, cell_size, cell_overhead }) = self.rate {
            write!(f, " rate {bits}")?;
            let overheads = [packet_overhead, cell_size, cell_overhead].map(Bytes::get);
            let last = overheads.iter().rposition(|bytes| *bytes != 0).map_or(0, |position| position + 1);
            overheads[..last].iter().try_for_each(|bytes| write!(f, " {bytes}"))?;
        }
        if let Some(Slot { spacing, packets, bytes }) = self.slot {
            match spacing {
                Spacing::Range { min, max } => write!(f, " slot {min} {max}")?,
                Spacing::Distributed { delay, jitter, distribution } => {
                    write!(f, " slot distribution {distribution} {delay} {jitter}")?;
                }
            }
            if packets > 0 {
                write!(f, " packets {packets}")?;
            }
            if bytes.get() > 0 {
                write!(f, " bytes {}", bytes.get())?;
            }
        }
        write!(f, " limit {}", self.limit)?;
        self.seed.map_or(Ok(()), |seed| write!(f, " seed {seed}"))
    }
}

fn named(f: &mut fmt::Formatter<'_>, name: &str, chance: Option<Chance>) -> fmt::Result {
    let Some(Chance { probability, correlation }) = chance else { return Ok(()) };
    write!(f, " {name} {probability}")?;
    correlated(f, correlation)
}

fn correlated(f: &mut fmt::Formatter<'_>, correlation: Probability) -> fmt::Result {
    if correlation > Probability::ZERO { write!(f, " {correlation}") } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(delay: &str) -> Link {
        Link { delay: delay.parse().unwrap(), ..Link::LAN }
    }

    fn jitter(amount: &str) -> Jitter {
        let amount = amount.parse().unwrap();
        Jitter { amount, correlation: Probability::ZERO, distribution: Distribution::Normal }
    }

    fn limit(mbit: u32, link: &Link) -> u32 {
        Profile::of(link, LineRate::from_mbit(mbit)).unwrap().limit
    }

    #[test]
    fn a_link_without_delay_needs_no_profile() {
        assert_eq!(Profile::of(&Link::LAN, LineRate::UNKNOWN), None);
        assert_eq!(Profile::of(&Link { limit: Some(5), seed: Some(1), ..Link::LAN }, LineRate::UNKNOWN), None);
    }

    #[test]
    fn the_limit_is_twice_what_is_in_flight_at_line_rate() {
        assert_eq!(limit(1_000, &link("75ms")), 12_500);
        assert_eq!(limit(10_000, &link("10ms")), 16_666);
        assert_eq!(limit(1_000, &Link { jitter: Some(jitter("25ms")), ..link("50ms") }), 12_500);
    }

    #[test]
    fn the_limit_of_a_link_with_a_rate_is_what_that_rate_needs() {
        let rate = |rate: &str| Some(Rate::plain(rate.parse().unwrap()));
        assert_eq!(limit(10_000, &Link { rate: rate("1gbit"), ..link("75ms") }), 12_500);
        assert_eq!(limit(10_000, &Link { rate: rate("1mbit"), ..link("75ms") }), MIN_RATE_LIMIT);
        assert_eq!(limit(10_000, &Link { rate: rate("1mbit"), limit: Some(7), ..link("75ms") }), 7);
    }

    #[test]
    fn the_limit_stays_within_its_bounds() {
        assert_eq!(limit(10, &link("1ms")), MIN_LIMIT);
        assert_eq!(limit(100_000, &link("60s")), MAX_LIMIT);
    }

    #[test]
    fn jitter_keeps_the_order_unless_it_is_asked_to_reorder() {
        let wild = Link { jitter: Some(jitter("5ms")), ..link("20ms") };
        let profile = Profile::of(&wild, LineRate::UNKNOWN).unwrap();
        assert_eq!(profile.rate, Some(ORDER_RATE));
        assert!(profile.is_ordered_by_rate() && profile.has_memory());
        let free = Profile::of(&Link { reorder: Some(Reorder::Jitter), ..wild }, LineRate::UNKNOWN).unwrap();
        assert_eq!(free.rate, None);
        assert!(!free.has_memory());
        let slow = Rate::plain("1mbit".parse().unwrap());
        let slow = Profile::of(&Link { rate: Some(slow), ..wild }, LineRate::UNKNOWN).unwrap();
        assert!(!slow.is_ordered_by_rate());
    }

    #[test]
    fn a_profile_reads_as_tc_would_be_told() {
        assert_eq!(Profile::plain("75ms".parse().unwrap(), 1_000).to_string(), "delay 75ms limit 1000");
        let chance = |probability: &str, correlation: &str| Chance {
            probability: probability.parse().unwrap(),
            correlation: correlation.parse().unwrap(),
        };
        let all = Profile {
            jitter: Some(jitter("5ms")),
            loss: Some(Loss { model: LossModel::Random(chance("0.1%", "25%")), ecn: true }),
            corrupt: Some(chance("1%", "0%")),
            duplicate: Some(chance("2%", "0%")),
            reorder: Some(Undelayed { chance: chance("1%", "50%"), gap: 5 }),
            rate: Some(Rate { packet_overhead: "20B".parse().unwrap(), ..Rate::plain("1gbit".parse().unwrap()) }),
            seed: Some(42),
            ..Profile::plain("75ms".parse().unwrap(), 1_000)
        };
        assert_eq!(
            all.to_string(),
            "delay 75ms 5ms distribution normal reorder 1% 50% gap 5 loss 0.1% 25% ecn corrupt 1% duplicate 2% \
             rate 1gbit 20 limit 1000 seed 42"
        );
    }
}
