//! Encodes and decodes netem leaves with every parameter of a [`Profile`] (`net/sched/sch_netem.c`).
//!
//! A decoded leaf is encoded again and compared, so that a profile describes its leaf completely.

use rtnetlink::packet_core::NLA_F_NESTED;
use rtnetlink::packet_core::NlasIterator;
use rtnetlink::packet_route::{
    RouteNetlinkMessage,
    tc::{TcHandle, TcMessage},
};

use super::{Request, TICK_NANOS, class_id, message, with_options};
use crate::{
    kernel::{
        KernelError,
        bytes::{Attribute, attributes, find, nested, read, read_u64, words},
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

/// The length of `struct tc_netem_slot`.
const SLOT: usize = 40;

/// The maximum number of values in the tables of one leaf. The length of a message's options has 16 bits.
const MAX_TABLE_VALUES: usize = 32_000;

/// The options of a netem leaf (`TCA_OPTIONS`).
struct Options {
    /// `struct tc_netem_qopt`: latency, limit, loss, gap, duplicate, jitter. The times are in ticks.
    qopt: [u32; 6],
    attributes: Vec<Attribute>,
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
    let options = encode(profile, Extent::NonZero, distributions(profile.mark(), tables)?);
    Ok(Request::add(RouteNetlinkMessage::NewQueueDiscipline(netem(index, class, &options))))
}

/// `tc qdisc change dev D parent 4e7e:C handle C: netem …` with all parameters except the tables.
///
/// The kernel keeps the old tables, and the old value of each parameter that is not in the message (`netem_change`). So
/// unset parameters are written as zeros, which tc cannot do.
pub(in crate::kernel) fn change_netem(index: u32, class: ClassMinor, profile: &Profile) -> Request {
    let options = encode(profile, Extent::All, Vec::new());
    Request::existing(RouteNetlinkMessage::NewQueueDiscipline(netem(index, class, &options)))
}

/// The profile of a netem leaf with these options. `None`: no profile describes the leaf.
///
/// `mark` is the mark of the leaf's class, with the parameters that the kernel does not show. Kernels before 6.6 have
/// no seeds, so the profile has no seed there.
pub(in crate::kernel) fn decode_netem(options: &[u8], mark: LeafMark) -> Option<Profile> {
    let shown = Options::parse(options)?;
    let profile = shown.profile(mark)?;
    let hidden = LeafMark { seeded: mark.seeded, ..profile.mark() };
    (is_possible(&profile) && hidden == mark && shown.are_of(&profile)).then_some(profile)
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

/// `struct tc_netem_qopt` and the attributes in tc's order, then the attributes that tc 6.1 does not send.
///
/// Kernels before 4.14 read the 32-bit times. Later kernels use the exact 64-bit times.
fn encode(profile: &Profile, extent: Extent, tables: Vec<Attribute>) -> Vec<u8> {
    let ticks = |time: Delay| u32::try_from(time.as_nanos() / TICK_NANOS).unwrap_or(u32::MAX);
    let nanos = |time: Delay| time.as_nanos().to_ne_bytes().to_vec();
    let pair = |chance: Option<Chance>| {
        chance.map_or([0, 0], |chance| [chance.probability.parts(), chance.correlation.parts()])
    };
    let ([loss, loss_correlation], model) = match profile.loss.map(|loss| loss.model) {
        None => ([0, 0], None),
        Some(LossModel::Random(chance)) => (pair(Some(chance)), None),
        // struct tc_netem_gimodel
        Some(LossModel::State { p13, p31, p32, p23, p14 }) => {
            ([0, 0], Some((NETEM_LOSS_GI, words(&[p13, p31, p32, p14, p23].map(Probability::parts)))))
        }
        // struct tc_netem_gemodel: p, r, the share of packets that pass in the bad state, the share of packets that are
        // lost in the good state.
        Some(LossModel::GeModel { p, r, bad, good }) => {
            ([0, 0], Some((NETEM_LOSS_GE, words(&[p, r, bad.complement(), good].map(Probability::parts)))))
        }
    };
    let [duplicate, duplicate_correlation] = pair(profile.duplicate);
    let delay_correlation = profile.jitter.map_or(0, |jitter| jitter.correlation.parts());
    let jitter = profile.jitter.map_or(Delay::ZERO, |jitter| jitter.amount);
    let gap = profile.reorder.map_or(0, |reorder| reorder.gap);
    let ecn = profile.loss.map_or(0, |loss| u32::from(loss.ecn));
    let rate = profile.rate.map_or(0, |rate| rate.bits.bytes_per_second());
    let [packet_overhead, cell_size, cell_overhead] =
        profile.rate.map_or([0; 3], |rate| rate_sizes(rate).map(|size| size.get().cast_unsigned()));
    let rate32 = u32::try_from(rate);

    let qopt = [ticks(profile.delay), profile.limit, loss, gap, duplicate, ticks(jitter)];
    let mut attributes = vec![
        (TCA_NETEM_CORR, words(&[delay_correlation, loss_correlation, duplicate_correlation])),
        (TCA_NETEM_REORDER, words(&pair(profile.reorder.map(|reorder| reorder.chance)))),
        (TCA_NETEM_ECN, words(&[ecn])),
        (TCA_NETEM_CORRUPT, words(&pair(profile.corrupt))),
        (TCA_NETEM_SLOT, profile.slot.map_or_else(|| vec![0; SLOT], slot_bytes)),
    ];
    // A message without a model means the random model.
    attributes.extend(model.map(|model| (TCA_NETEM_LOSS | NLA_F_NESTED, nested(&[model]))));
    attributes.extend(rate32.is_err().then(|| (TCA_NETEM_RATE64, rate.to_ne_bytes().to_vec())));
    let rate32 = rate32.unwrap_or(u32::MAX);
    attributes.push((TCA_NETEM_RATE, words(&[rate32, packet_overhead, cell_size, cell_overhead])));
    if extent == Extent::NonZero {
        attributes.retain(|(_, value)| !is_zero(value));
    }
    attributes.extend(tables);
    attributes.push((TCA_NETEM_LATENCY64, nanos(profile.delay)));
    attributes.extend((jitter > Delay::ZERO).then(|| (TCA_NETEM_JITTER64, nanos(jitter))));
    attributes.extend(profile.seed.map(|seed| (TCA_NETEM_PRNG_SEED, seed.to_ne_bytes().to_vec())));
    [words(&qopt), nested(&attributes)].concat()
}

impl Options {
    fn parse(options: &[u8]) -> Option<Self> {
        let (qopt, attributes) = options.split_at_checked(QOPT)?;
        let attributes = NlasIterator::new(attributes).map(Result::ok);
        let attributes = attributes.map(|attribute| attribute.map(|nla| (nla.kind(), nla.value().to_vec())));
        Some(Self { qopt: read(qopt)?, attributes: attributes.collect::<Option<_>>()? })
    }

    /// The 32-bit integers of an attribute. Zeros: there is no such attribute.
    fn words<const N: usize>(&self, kind: u16) -> Option<[u32; N]> {
        find(&self.attributes, kind).map_or(Some([0; N]), read)
    }

    /// The 64-bit integer of an attribute. `otherwise`: there is no such attribute.
    fn long(&self, kind: u16, otherwise: u64) -> Option<u64> {
        find(&self.attributes, kind).map_or(Some(otherwise), read_u64)
    }

    /// The profile of the options. Ignores options that a profile cannot describe. `None`: an attribute cannot be read.
    fn profile(&self, mark: LeafMark) -> Option<Profile> {
        let [latency, limit, loss, gap, duplicate, jitter] = self.qopt;
        let [delay_correlation, loss_correlation, duplicate_correlation] = self.words(TCA_NETEM_CORR)?;
        let [reorder, reorder_correlation] = self.words(TCA_NETEM_REORDER)?;
        let [corrupt, corrupt_correlation] = self.words(TCA_NETEM_CORRUPT)?;
        let [ecn] = self.words(TCA_NETEM_ECN)?;
        let [rate, sizes @ ..] = self.words::<4>(TCA_NETEM_RATE)?;
        let rate = self.long(TCA_NETEM_RATE64, rate.into())?;
        let nanos = |kind, ticks| self.long(kind, u64::from(ticks) * TICK_NANOS).map(Delay::from_nanos);
        let amount = nanos(TCA_NETEM_JITTER64, jitter)?;
        let parts = Probability::from_parts;
        let model = match find(&self.attributes, TCA_NETEM_LOSS).map(attributes).as_deref() {
            None => chance(loss, loss_correlation).map(LossModel::Random),
            Some([(NETEM_LOSS_GI, state)]) => {
                let [p13, p31, p32, p14, p23] = read(state)?.map(parts);
                Some(LossModel::State { p13, p31, p32, p23, p14 })
            }
            Some([(NETEM_LOSS_GE, model)]) => {
                let [p, r, passes, good] = read(model)?.map(parts);
                Some(LossModel::GeModel { p, r, bad: passes.complement(), good })
            }
            Some(_) => return None,
        };
        let [packet_overhead, cell_size, cell_overhead] = sizes.map(|size| Bytes::new(size.cast_signed()));
        let bits = BitRate::from_bytes_per_second(rate);
        let jitter = Jitter { amount, correlation: parts(delay_correlation), distribution: mark.delay };
        // The kernel draws a random seed for a leaf without a seed. Only the mark tells if the seed is configured.
        let seed = find(&self.attributes, TCA_NETEM_PRNG_SEED).filter(|_| mark.seeded);
        Some(Profile {
            delay: nanos(TCA_NETEM_LATENCY64, latency)?,
            jitter: (amount > Delay::ZERO).then_some(jitter),
            loss: model.map(|model| Loss { model, ecn: ecn > 0 }),
            corrupt: chance(corrupt, corrupt_correlation),
            duplicate: chance(duplicate, duplicate_correlation),
            reorder: chance(reorder, reorder_correlation).map(|chance| Undelayed { chance, gap }),
            rate: (rate > 0).then_some(Rate { bits, packet_overhead, cell_size, cell_overhead }),
            slot: find(&self.attributes, TCA_NETEM_SLOT).and_then(|value| slot(value, mark.slot)),
            limit,
            seed: seed.and_then(read_u64),
        })
    }

    /// True if the profile describes the options completely. Zeros are unset parameters, which the kernel may show.
    fn are_of(&self, profile: &Profile) -> bool {
        let Some(ours) = Self::parse(&encode(profile, Extent::NonZero, Vec::new())) else { return false };
        let [_, limits @ .., _] = self.qopt;
        let [_, our_limits @ .., _] = ours.qopt;
        // The times are decoded exactly. A seed is decoded if it is configured, and otherwise it is random.
        let is_ignored = |kind| [TCA_NETEM_LATENCY64, TCA_NETEM_JITTER64, TCA_NETEM_PRNG_SEED].contains(&kind);
        limits == our_limits
            && self.attributes.iter().all(|attribute @ (kind, value)| {
                is_zero(value) || is_ignored(*kind) || ours.attributes.contains(attribute)
            })
    }
}

fn is_zero(value: &[u8]) -> bool {
    value.iter().all(|byte| *byte == 0)
}

/// The packet overhead, the cell size and the cell overhead of a rate.
fn rate_sizes(rate: Rate) -> [Bytes; 3] {
    [rate.packet_overhead, rate.cell_size, rate.cell_overhead]
}

/// `struct tc_netem_slot`: the range, the maximum number of packets and of bytes, the delay, the jitter.
///
/// The times are in nanoseconds.
fn slot_bytes(slot: Slot) -> Vec<u8> {
    let (range, drawn) = match slot.spacing {
        Spacing::Range { min, max } => ([min, max], [Delay::ZERO; 2]),
        Spacing::Distributed { delay, jitter, .. } => ([Delay::ZERO; 2], [delay, jitter]),
    };
    let nanos = |times: [Delay; 2]| times.map(|time| time.as_nanos().to_ne_bytes()).concat();
    [nanos(range), words(&[slot.packets, slot.bytes.get().cast_unsigned()]), nanos(drawn)].concat()
}

/// The slots in a `struct tc_netem_slot`, if any. `netem_dump` shows slots only with a range or a jitter.
fn slot(value: &[u8], distribution: Distribution) -> Option<Slot> {
    let (fields, []) = value.as_chunks::<8>() else { return None };
    let [min, max, most, delay, jitter] = fields.try_into().ok()?;
    let [min, max, delay, jitter] = [min, max, delay, jitter].map(|nanos| Delay::from_nanos(u64::from_ne_bytes(nanos)));
    let [packets, bytes] = read(&most)?;
    let spacing = match (min.max(max), jitter) {
        (Delay::ZERO, Delay::ZERO) => return None,
        (Delay::ZERO, _) => Spacing::Distributed { delay, jitter, distribution },
        _ => Spacing::Range { min, max },
    };
    Some(Slot { spacing, packets, bytes: Bytes::new(bytes.cast_signed()) })
}

/// True if the parameters are within the limits of the topology language.
fn is_possible(profile: &Profile) -> bool {
    let sizes = profile.rate.map(rate_sizes).into_iter().flatten().chain(profile.slot.map(|slot| slot.bytes));
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
