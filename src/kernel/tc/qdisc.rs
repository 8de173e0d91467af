//! Qdiscs and classes: htb as the root, its classes, netem below them, clsact as the ingress hook.

use rtnetlink::packet_core::{DefaultNla, Nla, NlasIterator};
use rtnetlink::packet_route::{
    RouteNetlinkMessage,
    tc::{TcAttribute, TcHandle, TcMessage, TcOption, TcStats2},
};

use super::{ROOT_HANDLE, Request, TCA_OPTIONS, hex, kind, message};
use crate::{
    plan::{ClassMinor, DEFAULT_CLASS, MARK, Profile},
    topology::Delay,
};

// include/uapi/linux/pkt_sched.h
const TCA_HTB_PARMS: u16 = 1;
const TCA_HTB_INIT: u16 = 2;
const TCA_HTB_RATE64: u16 = 6;
const TCA_HTB_CEIL64: u16 = 7;
const TCA_NETEM_LATENCY64: u16 = 10;
const TCA_NETEM_PRNG_SEED: u16 = 14;
const NETEM_QOPT_LEN: usize = 24;

/// The rate of every class, in bytes per second: 100 Gbit/s, which never holds a packet back.
const CLASS_RATE: u64 = 12_500_000_000;

/// What a class may send at once before its rate holds it back, in bytes: `burst 10mb`.
///
/// Without it every single packet leaves the class in debt, which a timer must end before the next one may leave
/// (`overlimits` of `tc -s class show` then counts them all).
const BURST: u64 = 10 * 1024 * 1024;

/// What a class may send before the next has its turn, in bytes.
const QUANTUM: u32 = 60_000;

/// A tick of the psched clock, the unit of netem's old 32-bit fields, in nanoseconds (`/proc/net/psched`).
const TICK_NANOS: u64 = 64;

/// `tc qdisc add dev D root handle 4e7e: htb default 1`
pub(in crate::kernel) fn add_root(index: u32) -> Request {
    // struct tc_htb_glob: version, rate2quantum, defcls, debug, direct_pkts.
    let glob = words(&[3, 10, u32::from(DEFAULT_CLASS), 0, 0]);
    let root = with_options(message(index, ROOT_HANDLE, TcHandle::ROOT), "htb", &nested(&[(TCA_HTB_INIT, glob)]));
    Request::add(RouteNetlinkMessage::NewQueueDiscipline(root))
}

/// `tc qdisc del dev D root handle 4e7e:`
pub(in crate::kernel) fn delete_root(index: u32) -> Request {
    Request::existing(RouteNetlinkMessage::DelQueueDiscipline(message(index, ROOT_HANDLE, TcHandle::ROOT)))
}

/// `tc qdisc add dev D clsact`
pub(in crate::kernel) fn add_clsact(index: u32) -> Request {
    Request::add(RouteNetlinkMessage::NewQueueDiscipline(clsact(index)))
}

/// `tc qdisc del dev D clsact`
pub(in crate::kernel) fn delete_clsact(index: u32) -> Request {
    Request::existing(RouteNetlinkMessage::DelQueueDiscipline(clsact(index)))
}

/// `tc class add dev D parent 4e7e: classid 4e7e:C htb rate 100gbit burst 10mb cburst 10mb quantum 60000`
///
/// The 1,024-byte rate tables that tc adds are ignored by every kernel since 3.8 and left out.
pub(in crate::kernel) fn add_class(index: u32, class: ClassMinor) -> Request {
    // struct tc_ratespec: cell_log, linklayer (1: Ethernet), overhead, cell_align, mpu; rate, saturated for RATE64.
    let mut ratespec = vec![3, 1, 0, 0, 0xff, 0xff, 0, 0];
    ratespec.extend(u32::MAX.to_ne_bytes());
    // struct tc_htb_opt: rate, ceil, buffer, cbuffer, quantum, level, prio.
    // As tc computes it, in whole microseconds first.
    let burst = u32::try_from(BURST * 1_000_000 / CLASS_RATE * 1_000 / TICK_NANOS).unwrap_or(u32::MAX);
    let opt = [ratespec.clone(), ratespec, words(&[burst, burst, QUANTUM, 0, 0])].concat();
    let rate = CLASS_RATE.to_ne_bytes().to_vec();
    let options = nested(&[(TCA_HTB_RATE64, rate.clone()), (TCA_HTB_CEIL64, rate), (TCA_HTB_PARMS, opt)]);
    let class = with_options(message(index, class_id(class), ROOT_HANDLE), "htb", &options);
    Request::add(RouteNetlinkMessage::NewTrafficClass(class))
}

/// `tc class del dev D classid 4e7e:C`
pub(in crate::kernel) fn delete_class(index: u32, class: ClassMinor) -> Request {
    Request::existing(RouteNetlinkMessage::DelTrafficClass(message(index, class_id(class), TcHandle::UNSPEC)))
}

/// `tc qdisc add dev D parent 4e7e:C handle C: netem delay … limit …`
pub(in crate::kernel) fn add_netem(index: u32, class: ClassMinor, profile: Profile) -> Request {
    Request::add(RouteNetlinkMessage::NewQueueDiscipline(netem(index, class, profile)))
}

/// `tc qdisc change dev D parent 4e7e:C handle C: netem delay … limit …`
pub(in crate::kernel) fn change_netem(index: u32, class: ClassMinor, profile: Profile) -> Request {
    Request::existing(RouteNetlinkMessage::NewQueueDiscipline(netem(index, class, profile)))
}

/// `tc qdisc show` of all interfaces: the kernel has no filter by interface.
pub(in crate::kernel) fn dump_qdiscs(index: u32) -> Request {
    Request::dump(RouteNetlinkMessage::GetQueueDiscipline(TcMessage::with_index(index.cast_signed())))
}

/// `tc class show dev D`
pub(in crate::kernel) fn dump_classes(index: u32) -> Request {
    Request::dump(RouteNetlinkMessage::GetTrafficClass(TcMessage::with_index(index.cast_signed())))
}

fn clsact(index: u32) -> TcMessage {
    let mut message = message(index, TcHandle { major: 0xffff, minor: 0 }, TcHandle::CLSACT);
    message.attributes.push(TcAttribute::Kind("clsact".to_owned()));
    message
}

fn netem(index: u32, class: ClassMinor, profile: Profile) -> TcMessage {
    let handle = TcHandle { major: class, minor: 0 };
    with_options(message(index, handle, class_id(class)), "netem", &netem_options(profile))
}

/// `struct tc_netem_qopt` (latency, limit, loss, gap, duplicate, jitter), then the delay once more in nanoseconds.
///
/// The 32-bit latency is what a kernel before 4.14 reads; later ones let `LATENCY64` override it, exactly.
fn netem_options(profile: Profile) -> Vec<u8> {
    let nanos = profile.delay.as_nanos();
    let ticks = u32::try_from(nanos / TICK_NANOS).unwrap_or(u32::MAX);
    let mut options = words(&[ticks, profile.limit, 0, 0, 0, 0]);
    options.extend(nested(&[(TCA_NETEM_LATENCY64, nanos.to_ne_bytes().to_vec())]));
    options
}

/// A netem leaf's parameters, or `None` where it does anything that we did not ask it to.
pub(in crate::kernel) fn decode_netem(message: &TcMessage) -> Option<Profile> {
    let options = options(message)?;
    let (qopt, attributes) = options.split_at_checked(NETEM_QOPT_LEN)?;
    let word = |index: usize| Some(u32::from_ne_bytes(qopt.get(4 * index..4 * index + 4)?.try_into().ok()?));
    let untouched = (2..6).all(|index| word(index) == Some(0));
    let mut nanos = u64::from(word(0)?) * TICK_NANOS;
    for attribute in NlasIterator::new(attributes) {
        let attribute = attribute.ok()?;
        match attribute.kind() {
            TCA_NETEM_LATENCY64 => nanos = u64::from_ne_bytes(attribute.value().try_into().ok()?),
            // The kernel reports its correlations, reorder, corrupt and rate even where they are zero.
            _ if is_neutral(attribute.kind(), attribute.value()) => {}
            _ => return None,
        }
    }
    (untouched && nanos <= Delay::MAX.as_nanos()).then_some(Profile::plain(Delay::from_nanos(nanos), word(1)?))
}

/// Whether an attribute of a netem dump says "nothing of that kind".
fn is_neutral(kind: u16, value: &[u8]) -> bool {
    kind == TCA_NETEM_PRNG_SEED || value.iter().all(|byte| *byte == 0)
}

/// What is foreign about an htb class of our root, or `None` if it is as [`add_class`] made it.
pub(in crate::kernel) fn class_defect(message: &TcMessage) -> Option<String> {
    let id = hex(message.header.handle);
    if kind(message) != "htb" {
        return Some(format!("class {id} of kind {}", kind(message)));
    }
    let options = options(message).unwrap_or_default();
    let rate = |kind: u16| {
        let attribute = NlasIterator::new(options.as_slice()).flatten().find(|attribute| attribute.kind() == kind);
        attribute.and_then(|attribute| attribute.value().try_into().ok()).map(u64::from_ne_bytes)
    };
    let ours = [TCA_HTB_RATE64, TCA_HTB_CEIL64].into_iter().all(|kind| rate(kind) == Some(CLASS_RATE));
    (!ours).then(|| format!("class {id} with a rate of its own"))
}

/// How many packets wait in a qdisc.
pub(in crate::kernel) fn queued(message: &TcMessage) -> u32 {
    let stats = message.attributes.iter().find_map(|attribute| match attribute {
        TcAttribute::Stats2(stats) => Some(stats),
        _ => None,
    });
    let queue = stats.into_iter().flatten().find_map(|stat| match stat {
        TcStats2::Queue(queue) => Some(queue.qlen),
        _ => None,
    });
    // Unknown counts as not empty: a class is removed only when it is known to have drained.
    queue.unwrap_or(1)
}

fn class_id(class: ClassMinor) -> TcHandle {
    TcHandle { major: MARK, minor: class }
}

fn with_options(mut message: TcMessage, kind: &str, options: &[u8]) -> TcMessage {
    message.attributes.push(TcAttribute::Kind(kind.to_owned()));
    message.attributes.push(TcAttribute::Other(DefaultNla::new(TCA_OPTIONS, options.to_vec())));
    message
}

/// The body of `TCA_OPTIONS` of a kind that the crate does not know.
fn options(message: &TcMessage) -> Option<Vec<u8>> {
    let option = message.attributes.iter().find_map(|attribute| match attribute {
        TcAttribute::Options(options) => options.first(),
        _ => None,
    });
    match option {
        Some(TcOption::Other(nla)) => {
            let mut body = vec![0; nla.value_len()];
            nla.emit_value(&mut body);
            Some(body)
        }
        _ => None,
    }
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

fn nested(attributes: &[(u16, Vec<u8>)]) -> Vec<u8> {
    use rtnetlink::packet_core::Emitable;
    let attributes: Vec<DefaultNla> =
        attributes.iter().map(|(kind, value)| DefaultNla::new(*kind, value.clone())).collect();
    let mut bytes = vec![0; attributes.as_slice().buffer_len()];
    attributes.as_slice().emit(&mut bytes);
    bytes
}
