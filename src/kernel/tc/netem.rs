//! Encodes and decodes netem leaves with every parameter of a [`Profile`] (`net/sched/sch_netem.c`).
//!
//! [`Settings`] has the leaf in the kernel's terms. A decoded leaf is encoded again and compared, so that a profile
//! describes its leaf completely.

use rtnetlink::packet_core::NLA_F_NESTED;
use rtnetlink::packet_core::NlasIterator;
use rtnetlink::packet_route::{
    RouteNetlinkMessage,
    tc::{TcHandle, TcMessage},
};

use super::{Request, TICK_NANOS, class_id, message, options, with_options};
use crate::{
    kernel::{
        KernelError,
        bytes::{Attribute, attributes, nested, read, read_u64, words},
    },
    plan::{ClassMinor, LeafMark, Profile, distribution_table},
    topology::{
        BitRate, Bytes, Chance, Delay, Distribution, Jitter, Loss, LossModel, Probability, Rate, Slot, Spacing, Tables,
        Undelayed,
    },
};

// include/uapi/linux/pkt_sched.h
const TCA_NETEM_CORR: u16 = 1;
const TCA_NETEM_DELAY_DIST: u16 = 2;
const TCA_NETEM_REORDER: u16 = 3;
const TCA_NETEM_CORRUPT: u16 = 4;
const TCA_NETEM_LOSS: u16 = 5;
const TCA_NETEM_RATE: u16 = 6;
const TCA_NETEM_ECN: u16 = 7;
const TCA_NETEM_RATE64: u16 = 8;
const TCA_NETEM_LATENCY64: u16 = 10;
const TCA_NETEM_JITTER64: u16 = 11;
const TCA_NETEM_SLOT: u16 = 12;
const TCA_NETEM_SLOT_DIST: u16 = 13;
const TCA_NETEM_PRNG_SEED: u16 = 14;
const NETEM_LOSS_GI: u16 = 1;
const NETEM_LOSS_GE: u16 = 2;

/// The length of `struct tc_netem_qopt`.
const QOPT: usize = 24;

/// The maximum number of values in the tables of one leaf. The length of a message's options has 16 bits.
const MAX_TABLE_VALUES: usize = 32_000;

/// A netem leaf in the terms of `struct netem_sched_data`. Unset parameters are zero.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Settings {
    /// In nanoseconds.
    latency: u64,
    /// In nanoseconds.
    jitter: u64,
    limit: u32,
    loss: u32,
    gap: u32,
    duplicate: u32,
    /// The correlations of delay, loss and duplicate.
    correlations: [u32; 3],
    /// Probability and correlation.
    reorder: [u32; 2],
    /// Probability and correlation.
    corrupt: [u32; 2],
    model: Model,
    ecn: u32,
    /// In bytes per second.
    rate: u64,
    /// The packet overhead, the cell size and the cell overhead.
    overheads: [i32; 3],
    slot: SlotConfig,
    seed: Option<u64>,
}

/// The loss model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Model {
    #[default]
    Random,
    /// `struct tc_netem_gimodel`: p13, p31, p32, p14, p23.
    State([u32; 5]),
    /// `struct tc_netem_gemodel`: p, r, h, k1.
    Gilbert([u32; 4]),
}

/// `struct tc_netem_slot`; times in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct SlotConfig {
    min_delay: u64,
    max_delay: u64,
    max_packets: u32,
    max_bytes: i32,
    dist_delay: u64,
    dist_jitter: u64,
}

/// `tc qdisc add dev D parent 4e7e:C handle C: netem …` with the parameters that are not zero, as tc does.
///
/// One difference: tc 6.1 leaves out the correlation of `duplicate` if there is no other correlation.
///
/// # Errors
///
/// A distribution table is not among `tables`, or the tables are too long for a message.
pub(in crate::kernel) fn add_netem(
    index: u32,
    class: ClassMinor,
    profile: &Profile,
    tables: &Tables,
) -> Result<Request, KernelError> {
    let options = Settings::from(profile).encode(Extent::NonZero, &distributions(profile.mark(), tables)?);
    Ok(Request::add(RouteNetlinkMessage::NewQueueDiscipline(netem(index, class, &options))))
}

/// `tc qdisc change dev D parent 4e7e:C handle C: netem …` with all parameters except the tables.
///
/// The kernel keeps the old tables, and the old value of each parameter that is not in the message (`netem_change`). So
/// unset parameters are written as zeros, which tc cannot do.
pub(in crate::kernel) fn change_netem(index: u32, class: ClassMinor, profile: &Profile) -> Request {
    let options = Settings::from(profile).encode(Extent::All, &[]);
    Request::existing(RouteNetlinkMessage::NewQueueDiscipline(netem(index, class, &options)))
}

/// The profile of a netem leaf. `None`: no profile describes the leaf.
///
/// `mark` is the mark of the leaf's class, with the parameters that the kernel does not show. Kernels before 6.6 have
/// no seeds, so the profile has no seed there.
pub(in crate::kernel) fn decode_netem(message: &TcMessage, mark: LeafMark) -> Option<Profile> {
    let shown = Settings::decode(&options(message)?)?;
    // The kernel draws a random seed for a leaf without a seed. Only the mark tells if the seed is configured.
    let shown = Settings { seed: shown.seed.filter(|_| mark.seeded), ..shown };
    let profile = shown.profile(mark);
    let hidden = LeafMark { seeded: mark.seeded, ..profile.mark() };
    (is_possible(&profile) && hidden == mark && Settings::from(&profile) == shown).then_some(profile)
}

fn netem(index: u32, class: ClassMinor, options: &[u8]) -> TcMessage {
    let handle = TcHandle { major: class, minor: 0 };
    with_options(message(index, handle, class_id(class)), "netem", options)
}

/// The tables of a leaf as attributes.
fn distributions(mark: LeafMark, tables: &Tables) -> Result<Vec<Attribute>, KernelError> {
    let mut attributes = Vec::new();
    let mut values = 0;
    for (kind, distribution) in [(TCA_NETEM_DELAY_DIST, mark.delay), (TCA_NETEM_SLOT_DIST, mark.slot)] {
        let table = match distribution {
            // An empty table is an error, because the kernel divides by the length of a table.
            Distribution::Table(id) => match tables.get(&id) {
                Some(table) if !table.is_empty() => Some(table.as_ref()),
                _ => return Err(KernelError::UnknownTable(id)),
            },
            _ => distribution_table(distribution),
        };
        values += table.map_or(0, <[i16]>::len);
        attributes.extend(table.map(|table| (kind, table.iter().flat_map(|value| value.to_ne_bytes()).collect())));
    }
    if values > MAX_TABLE_VALUES { Err(KernelError::TablesTooLong(values)) } else { Ok(attributes) }
}

/// The set of parameters in a message.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Extent {
    /// The parameters that are not zero.
    NonZero,
    /// All parameters.
    All,
}

impl Settings {
    /// `struct tc_netem_qopt` and the attributes in tc's order, then the attributes that tc 6.1 does not send.
    ///
    /// Kernels before 4.14 read the 32-bit times. Later kernels use the exact 64-bit times.
    fn encode(&self, extent: Extent, tables: &[Attribute]) -> Vec<u8> {
        let ticks = |nanos: u64| u32::try_from(nanos / TICK_NANOS).unwrap_or(u32::MAX);
        let qopt = [ticks(self.latency), self.limit, self.loss, self.gap, self.duplicate, ticks(self.jitter)];
        let mut attributes = Vec::new();
        let mut push = |kind: u16, value: Vec<u8>| {
            if extent == Extent::All || value.iter().any(|byte| *byte != 0) {
                attributes.push((kind, value));
            }
        };
        push(TCA_NETEM_CORR, words(&self.correlations));
        push(TCA_NETEM_REORDER, words(&self.reorder));
        push(TCA_NETEM_ECN, words(&[self.ecn]));
        push(TCA_NETEM_CORRUPT, words(&self.corrupt));
        push(TCA_NETEM_SLOT, self.slot.encode());
        // A message without a model means the random model.
        attributes.extend(self.model.encode().map(|model| (TCA_NETEM_LOSS | NLA_F_NESTED, nested(&[model]))));
        let rate = u32::try_from(self.rate);
        if rate.is_err() {
            attributes.push((TCA_NETEM_RATE64, self.rate.to_ne_bytes().to_vec()));
        }
        let mut value = words(&[rate.unwrap_or(u32::MAX)]);
        value.extend(words(&self.overheads.map(i32::cast_unsigned)));
        if extent == Extent::All || self.rate > 0 {
            attributes.push((TCA_NETEM_RATE, value));
        }
        attributes.extend(tables.iter().cloned());
        attributes.push((TCA_NETEM_LATENCY64, self.latency.to_ne_bytes().to_vec()));
        if self.jitter > 0 {
            attributes.push((TCA_NETEM_JITTER64, self.jitter.to_ne_bytes().to_vec()));
        }
        attributes.extend(self.seed.map(|seed| (TCA_NETEM_PRNG_SEED, seed.to_ne_bytes().to_vec())));
        [words(&qopt), nested(&attributes)].concat()
    }

    /// Decodes the options of `netem_dump`. Unknown attributes must be zero, because newer kernels show unset
    /// parameters.
    fn decode(options: &[u8]) -> Option<Self> {
        let (qopt, attributes) = options.split_at_checked(QOPT)?;
        let [latency, limit, loss, gap, duplicate, jitter] = read(qopt)?;
        let [latency, jitter] = [latency, jitter].map(|ticks| u64::from(ticks) * TICK_NANOS);
        let mut settings = Self { latency, jitter, limit, loss, gap, duplicate, ..Self::default() };
        let mut rate64 = None;
        for attribute in NlasIterator::new(attributes) {
            let attribute = attribute.ok()?;
            let value = attribute.value();
            match attribute.kind() {
                TCA_NETEM_LATENCY64 => settings.latency = read_u64(value)?,
                TCA_NETEM_JITTER64 => settings.jitter = read_u64(value)?,
                TCA_NETEM_CORR => settings.correlations = read(value)?,
                TCA_NETEM_REORDER => settings.reorder = read(value)?,
                TCA_NETEM_CORRUPT => settings.corrupt = read(value)?,
                TCA_NETEM_LOSS => settings.model = Model::decode(value)?,
                TCA_NETEM_ECN => [settings.ecn] = read(value)?,
                TCA_NETEM_RATE => {
                    let [rate, overheads @ ..] = read::<4>(value)?;
                    settings.rate = u64::from(rate);
                    settings.overheads = overheads.map(u32::cast_signed);
                }
                TCA_NETEM_RATE64 => rate64 = Some(read_u64(value)?),
                TCA_NETEM_SLOT => settings.slot = SlotConfig::decode(value)?,
                TCA_NETEM_PRNG_SEED => settings.seed = Some(read_u64(value)?),
                _ if value.iter().all(|byte| *byte == 0) => {}
                _ => return None,
            }
        }
        // A rate of more than 32 bits comes with a 32-bit rate of all ones.
        match rate64 {
            None => {}
            Some(rate) if settings.rate == u64::from(u32::MAX) && rate > settings.rate => settings.rate = rate,
            Some(_) => return None,
        }
        Some(settings)
    }

    /// The profile that is closest to the settings.
    fn profile(&self, mark: LeafMark) -> Profile {
        let [delay_correlation, loss_correlation, duplicate_correlation] = self.correlations;
        let parts = Probability::from_parts;
        let model = match self.model {
            Model::Random => chance(self.loss, loss_correlation).map(LossModel::Random),
            Model::State(state) => {
                let [p13, p31, p32, p14, p23] = state.map(parts);
                Some(LossModel::State { p13, p31, p32, p23, p14 })
            }
            Model::Gilbert(model) => {
                let [p, r, h, good] = model.map(parts);
                Some(LossModel::GeModel { p, r, bad: h.complement(), good })
            }
        };
        let [packet_overhead, cell_size, cell_overhead] = self.overheads.map(Bytes::new);
        let bits = BitRate::from_bytes_per_second(self.rate);
        Profile {
            delay: Delay::from_nanos(self.latency),
            jitter: (self.jitter > 0).then_some(Jitter {
                amount: Delay::from_nanos(self.jitter),
                correlation: parts(delay_correlation),
                distribution: mark.delay,
            }),
            loss: model.map(|model| Loss { model, ecn: self.ecn > 0 }),
            corrupt: chance(self.corrupt[0], self.corrupt[1]),
            duplicate: chance(self.duplicate, duplicate_correlation),
            reorder: chance(self.reorder[0], self.reorder[1]).map(|chance| Undelayed { chance, gap: self.gap }),
            rate: (self.rate > 0).then_some(Rate { bits, packet_overhead, cell_size, cell_overhead }),
            slot: self.slot.slot(mark.slot),
            limit: self.limit,
            seed: self.seed,
        }
    }
}

impl From<&Profile> for Settings {
    fn from(profile: &Profile) -> Self {
        let pair = |chance: Option<Chance>| {
            chance.map_or([0, 0], |chance| [chance.probability.parts(), chance.correlation.parts()])
        };
        let ([loss, loss_correlation], model) = match profile.loss.map(|loss| loss.model) {
            None => ([0, 0], Model::Random),
            Some(LossModel::Random(chance)) => (pair(Some(chance)), Model::Random),
            Some(LossModel::State { p13, p31, p32, p23, p14 }) => {
                ([0, 0], Model::State([p13, p31, p32, p14, p23].map(Probability::parts)))
            }
            // The kernel takes the share that passes in the bad state, and the share that is lost in the good state.
            Some(LossModel::GeModel { p, r, bad, good }) => {
                ([0, 0], Model::Gilbert([p, r, bad.complement(), good].map(Probability::parts)))
            }
        };
        let [duplicate, duplicate_correlation] = pair(profile.duplicate);
        let delay_correlation = profile.jitter.map_or(0, |jitter| jitter.correlation.parts());
        let overheads = profile
            .rate
            .map_or([0; 3], |rate| [rate.packet_overhead, rate.cell_size, rate.cell_overhead].map(Bytes::get));
        Self {
            latency: profile.delay.as_nanos(),
            jitter: profile.jitter.map_or(0, |jitter| jitter.amount.as_nanos()),
            limit: profile.limit,
            loss,
            gap: profile.reorder.map_or(0, |reorder| reorder.gap),
            duplicate,
            correlations: [delay_correlation, loss_correlation, duplicate_correlation],
            reorder: pair(profile.reorder.map(|reorder| reorder.chance)),
            corrupt: pair(profile.corrupt),
            model,
            ecn: profile.loss.map_or(0, |loss| u32::from(loss.ecn)),
            rate: profile.rate.map_or(0, |rate| rate.bits.bytes_per_second()),
            overheads,
            slot: profile.slot.map(SlotConfig::from).unwrap_or_default(),
            seed: profile.seed,
        }
    }
}

impl Model {
    fn encode(self) -> Option<(u16, Vec<u8>)> {
        match self {
            Self::Random => None,
            Self::State(state) => Some((NETEM_LOSS_GI, words(&state))),
            Self::Gilbert(model) => Some((NETEM_LOSS_GE, words(&model))),
        }
    }

    fn decode(value: &[u8]) -> Option<Self> {
        match attributes(value).as_slice() {
            [(NETEM_LOSS_GI, state)] => Some(Self::State(read(state)?)),
            [(NETEM_LOSS_GE, model)] => Some(Self::Gilbert(read(model)?)),
            _ => None,
        }
    }
}

impl SlotConfig {
    fn encode(self) -> Vec<u8> {
        let Self { min_delay, max_delay, max_packets, max_bytes, dist_delay, dist_jitter } = self;
        let [min, max, delay, jitter] = [min_delay, max_delay, dist_delay, dist_jitter].map(u64::to_ne_bytes);
        [&min[..], &max, &words(&[max_packets, max_bytes.cast_unsigned()]), &delay, &jitter].concat()
    }

    fn decode(value: &[u8]) -> Option<Self> {
        let (times, []) = value.as_chunks::<8>() else { return None };
        let [min_delay, max_delay, most, dist_delay, dist_jitter] = times.try_into().ok()?;
        let [min_delay, max_delay, dist_delay, dist_jitter] =
            [min_delay, max_delay, dist_delay, dist_jitter].map(u64::from_ne_bytes);
        let [max_packets, max_bytes] = read(&most)?;
        let max_bytes = max_bytes.cast_signed();
        Some(Self { min_delay, max_delay, max_packets, max_bytes, dist_delay, dist_jitter })
    }

    /// The slots, if any. `netem_dump` shows slots only with a range or a jitter.
    fn slot(self, distribution: Distribution) -> Option<Slot> {
        let nanos = Delay::from_nanos;
        let spacing = match (self.min_delay | self.max_delay, self.dist_jitter) {
            (0, 0) => return None,
            (0, jitter) => Spacing::Distributed { delay: nanos(self.dist_delay), jitter: nanos(jitter), distribution },
            _ => Spacing::Range { min: nanos(self.min_delay), max: nanos(self.max_delay) },
        };
        Some(Slot { spacing, packets: self.max_packets, bytes: Bytes::new(self.max_bytes) })
    }
}

impl From<Slot> for SlotConfig {
    fn from(slot: Slot) -> Self {
        let most = Self { max_packets: slot.packets, max_bytes: slot.bytes.get(), ..Self::default() };
        match slot.spacing {
            Spacing::Range { min, max } => Self { min_delay: min.as_nanos(), max_delay: max.as_nanos(), ..most },
            Spacing::Distributed { delay, jitter, .. } => {
                Self { dist_delay: delay.as_nanos(), dist_jitter: jitter.as_nanos(), ..most }
            }
        }
    }
}

/// True if the parameters are within the limits of the topology language.
fn is_possible(profile: &Profile) -> bool {
    let overheads =
        profile.rate.map(|rate| [rate.packet_overhead, rate.cell_size, rate.cell_overhead]).into_iter().flatten();
    let sizes = overheads.chain(profile.slot.map(|slot| slot.bytes));
    let times: Vec<Delay> = match profile.slot.map(|slot| slot.spacing) {
        None => Vec::new(),
        Some(Spacing::Range { min, max }) => vec![min, max],
        Some(Spacing::Distributed { delay, jitter, .. }) => vec![delay, jitter],
    };
    let times = times.into_iter().chain(profile.jitter.map(|jitter| jitter.amount));
    profile.delay <= Delay::MAX
        && times.into_iter().all(|time| time <= Jitter::MAX)
        && profile.rate.is_none_or(|rate| rate.bits <= BitRate::MAX && rate.cell_size.get() >= 0)
        && sizes.into_iter().all(|size| size.get() != i32::MIN)
        && profile.slot.is_none_or(|slot| slot.packets <= i32::MAX.cast_unsigned() && slot.bytes.get() >= 0)
}

fn chance(probability: u32, correlation: u32) -> Option<Chance> {
    let [probability, correlation] = [probability, correlation].map(Probability::from_parts);
    (probability > Probability::ZERO).then_some(Chance { probability, correlation })
}
