//! Computes the netem parameters of a leaf qdisc ([`Profile`]) from the parameters of a link.
//!
//! Several links may share a leaf.

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};

use super::tc_numbers::CLASS_RATE;
use crate::topology::{
    BitRate, Bytes, Chance, Delay, Distribution, Jitter, Link, Loss, LossModel, Probability, Rate, Reorder, Slot,
    Spacing, Undelayed,
};

/// The minimum queue of a link without a rate, in packets: the default limit of `tc`.
const MIN_QUEUE: u32 = 1_000;

/// The minimum queue of a link with a rate, in packets: a usual queue of a router.
const MIN_QUEUE_WITH_RATE: u32 = 100;

/// The maximum kernel memory of a full queue of full frames, in bytes. A configured limit may exceed this maximum.
///
/// A link with 10 Gbit/s and 150 ms has 124,000 full frames in flight. These frames take half of this memory.
const MAX_MEMORY: u64 = 512 << 20;

/// The largest computed netem `limit`, in packets.
#[expect(clippy::cast_possible_truncation, reason = "244,032")]
const MAX_LIMIT: u32 = (MAX_MEMORY / QUEUED_BYTES) as u32;

/// A rate that keeps packets in order and is too high to delay packets: 100 Gbit/s, the rate of the htb classes.
///
/// netem sends packets in order if the leaf has a rate (`netem_enqueue` of `sch_netem.c`).
const ORDER_RATE: Rate = Rate::plain(BitRate::from_bytes_per_second(CLASS_RATE));

/// The smallest Ethernet frame in bytes.
///
/// The limit of netem counts packets, not bytes. So a computed limit assumes that all packets in flight are this small.
const SMALLEST_FRAME: i32 = 64;

/// A full Ethernet frame in bytes: 1,500 bytes of payload and the header.
const FULL_FRAME: i32 = 1_514;

/// The measured kernel memory of a queued full frame in bytes (`skb` and data).
const QUEUED_BYTES: u64 = 2_200;

/// The line rate of an interface in bit/s.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(transparent)]
pub struct LineRate(u64);

impl LineRate {
    /// The assumed rate of an interface without a known speed (virtio, tun, Wi-Fi): 10 Gbit/s, as veth reports.
    pub const UNKNOWN: Self = Self::from_mbit(10_000);

    /// A rate of `mbit` Mbit/s, the unit of `/sys/class/net/<dev>/speed`.
    pub const fn from_mbit(mbit: u32) -> Self {
        Self(mbit as u64 * 1_000_000)
    }

    /// The rate in Mbit/s, rounded down.
    pub const fn mbit(self) -> u64 {
        self.0 / 1_000_000
    }
}

/// The parameters of a netem leaf (`tc-netem(8)`) in the kernel's terms.
///
/// A profile that is written to the kernel and read back is equal to the original.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Profile {
    /// The one-way delay of each packet. With jitter, the mean delay.
    #[serde(rename = "delay_ms")]
    pub delay: Delay,
    /// The variation of the delay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jitter: Option<Jitter>,
    /// The loss model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss: Option<Loss>,
    /// The share of packets with a flipped bit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub corrupt: Option<Chance>,
    /// The share of packets that are sent twice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duplicate: Option<Chance>,
    /// The share of packets that are not delayed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reorder: Option<Undelayed>,
    /// The rate. A leaf with a rate also keeps packets in order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<Rate>,
    /// The times at which packets are sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slot: Option<Slot>,
    /// The maximum number of packets in the queue.
    pub limit: u32,
    /// The seed. `None`: the kernel draws a seed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
}

impl Profile {
    /// A profile with a delay only.
    pub fn plain(delay: Delay, limit: u32) -> Self {
        Self { delay, limit, ..Self::default() }
    }

    /// The profile of a link on an interface with this line rate.
    ///
    /// `None`: the link has no parameters except a limit or a seed, so the link needs no leaf.
    ///
    /// A link with jitter and without a rate gets `ORDER_RATE`, so that packets stay in order. Links with
    /// `reorder = "jitter"` get no such rate.
    ///
    /// The default limit is the sum of two numbers of packets, and at most `MAX_LIMIT`:
    ///
    /// - The number of smallest frames in flight at the rate of the link, or at the line rate if the link has no rate.
    ///   So the leaf loses no packet that a real link carries.
    /// - The queue: the number of full frames in flight, but at least `MIN_QUEUE` or `MIN_QUEUE_WITH_RATE`.
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

    /// True if the effect on a packet depends on earlier packets.
    ///
    /// Links do not share such a leaf, because the packets of one link would affect the other link. Only links with a
    /// common rate per zone share such a leaf.
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

    /// True if the leaf has jitter and `ORDER_RATE`, which keeps packets in order and has no other effect.
    pub fn is_ordered_by_rate(&self) -> bool {
        self.jitter.is_some() && self.rate == Some(ORDER_RATE)
    }

    /// The kernel memory of a full queue of full frames, in bytes.
    pub fn full_queue_memory(&self) -> u64 {
        u64::from(self.limit) * QUEUED_BYTES
    }

    /// The time to send a full queue of full frames at the rate of the leaf. `None`: the leaf has no configured rate.
    pub fn full_queue_time(&self) -> Option<Duration> {
        let rate = self.rate.filter(|_| !self.is_ordered_by_rate())?;
        let bits = u128::from(self.limit) * 8 * u128::from(frame(FULL_FRAME, rate));
        let nanos = bits * 1_000_000_000 / u128::from(rate.bits.bits_per_second());
        Some(Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)))
    }
}

/// Converts a slot to the kernel's terms.
///
/// The kernel stores a uniform distribution as a range. A limit of `i32::MAX` packets or bytes means no limit, which a
/// profile stores as 0.
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
    let rate = link.rate.unwrap_or_else(|| Rate::plain(BitRate::from_bytes_per_second(line.0 / 8)));
    let least = if link.rate.is_some() { MIN_QUEUE_WITH_RATE } else { MIN_QUEUE };
    let nanos = u128::from(longest_stay(link)) * u128::from(rate.bits.bits_per_second());
    let in_flight = |bytes: i32| nanos / (8_000_000_000 * u128::from(frame(bytes, rate)));
    let packets = in_flight(SMALLEST_FRAME) + in_flight(FULL_FRAME).max(least.into());
    u32::try_from(packets).unwrap_or(MAX_LIMIT).min(MAX_LIMIT)
}

/// The size of a frame with the overheads of a rate, in bytes (`packet_time_ns` of `sch_netem.c`).
fn frame(bytes: i32, rate: Rate) -> u32 {
    let bytes = bytes.saturating_add(rate.packet_overhead.get()).max(1).unsigned_abs();
    match rate.cell_size.get().max(0).unsigned_abs() {
        0 => bytes,
        cell => bytes.div_ceil(cell).saturating_mul(cell.saturating_add_signed(rate.cell_overhead.get()).max(1)),
    }
}

/// The longest time of a packet in a leaf without a queue, in nanoseconds.
///
/// The time is the sum of the delay, the largest jitter and the longest wait for a slot. The largest jitter is four
/// standard deviations, or one jitter for a uniform distribution.
fn longest_stay(link: &Link) -> u64 {
    let drawn = |amount: Delay, distribution| {
        amount.as_nanos().saturating_mul(if distribution == Distribution::Uniform { 1 } else { 4 })
    };
    let jitter = link.jitter.map_or(0, |jitter| drawn(jitter.amount, jitter.distribution));
    let slot = link.slot.map_or(0, |slot| match slot.spacing {
        Spacing::Range { max, .. } => max.as_nanos(),
        Spacing::Distributed { delay, jitter, distribution } => {
            delay.as_nanos().saturating_add(drawn(jitter, distribution))
        }
    });
    link.delay.as_nanos().saturating_add(jitter).saturating_add(slot)
}

/// Writes the arguments of `tc`.
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
        Link { delay: delay.parse().unwrap(), ..Link::default() }
    }

    fn jitter(amount: &str) -> Jitter {
        let amount = amount.parse().unwrap();
        Jitter { amount, correlation: Probability::ZERO, distribution: Distribution::Normal }
    }

    fn limit(mbit: u32, link: &Link) -> u32 {
        Profile::of(link, LineRate::from_mbit(mbit)).unwrap().limit
    }

    #[test]
    fn a_plain_lan_link_needs_no_profile() {
        assert_eq!(Profile::of(&Link::default(), LineRate::UNKNOWN), None);
        assert_eq!(Profile::of(&Link { limit: Some(5), seed: Some(1), ..Link::default() }, LineRate::UNKNOWN), None);
    }

    /// The number of packets of a size in flight on a link without jitter.
    fn in_flight(mbit: u64, delay_ms: u64, bytes: u64) -> u64 {
        mbit * 1_000 * delay_ms / (8 * bytes)
    }

    #[test]
    fn the_limit_is_the_smallest_frames_in_flight_plus_a_queue() {
        let rate = |rate: &str| Some(Rate::plain(rate.parse().unwrap()));
        assert_eq!(in_flight(10, 75, 64), 1_464);
        assert_eq!(limit(10_000, &Link { rate: rate("10mbit"), ..link("75ms") }), 1_464 + MIN_QUEUE_WITH_RATE);
        assert_eq!(limit(10, &link("75ms")), 1_464 + MIN_QUEUE);
        assert_eq!(in_flight(1_000, 75, 1_514), 6_192);
        assert_eq!(limit(1_000, &link("75ms")), 146_484 + 6_192);
        assert_eq!(limit(10_000, &Link { rate: rate("1gbit"), ..link("75ms") }), 146_484 + 6_192);
        assert_eq!(limit(10_000, &Link { rate: rate("1mbit"), limit: Some(7), ..link("75ms") }), 7);
        assert_eq!(limit(10, &link("1us")), MIN_QUEUE);
    }

    #[test]
    fn a_computed_limit_takes_at_most_512_mib_and_holds_10_gbit_for_150_ms() {
        let most = Profile::plain(Delay::ZERO, limit(100_000, &link("60s")));
        assert_eq!(most.limit, MAX_LIMIT);
        assert!(most.full_queue_memory() <= MAX_MEMORY);
        assert!(u64::from(limit(10_000, &link("150ms"))) > in_flight(10_000, 150, 1_514));
    }

    #[test]
    fn the_limit_counts_jitter_slots_and_overheads() {
        let of = |link: Link| limit(1, &Link { rate: Some(Rate::plain("1mbit".parse().unwrap())), ..link });
        let plain = |delay: &str| of(link(delay));
        assert_eq!(
            of(Link { jitter: Some(jitter("5ms")), ..link("50ms") }),
            plain("70ms"),
            "four standard deviations of 5 ms"
        );
        let uniform = Jitter { distribution: Distribution::Uniform, ..jitter("5ms") };
        assert_eq!(of(Link { jitter: Some(uniform), ..link("50ms") }), plain("55ms"));
        let spacing = Spacing::Range { min: "5ms".parse().unwrap(), max: "10ms".parse().unwrap() };
        let slot = Slot { spacing, packets: 0, bytes: Bytes::new(0) };
        assert_eq!(of(Link { slot: Some(slot), ..link("50ms") }), plain("60ms"));
        let atm =
            Rate { cell_size: Bytes::new(48), cell_overhead: Bytes::new(5), ..Rate::plain("1mbit".parse().unwrap()) };
        assert_eq!((frame(64, atm), frame(1_514, atm)), (2 * 53, 32 * 53));
        assert_eq!(frame(64, Rate { packet_overhead: Bytes::new(-14), ..Rate::plain(atm.bits) }), 50);
    }

    #[test]
    fn the_time_of_a_full_queue_depends_on_limit_and_rate() {
        let rate = Rate::plain("300kbit".parse().unwrap());
        let slow = Profile { rate: Some(rate), ..Profile::plain("10ms".parse().unwrap(), 100) };
        assert_eq!(slow.full_queue_time().map(|time| time.as_millis()), Some(4_037));
        assert_eq!(Profile { rate: None, ..slow }.full_queue_time(), None);
        assert_eq!(Profile { rate: Some(ORDER_RATE), jitter: Some(jitter("5ms")), ..slow }.full_queue_time(), None);
    }

    #[test]
    fn jitter_keeps_packets_in_order_unless_reorder_is_jitter() {
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
    fn a_profile_prints_as_tc_arguments() {
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
