//! Encodes and decodes the root htb, its classes, and clsact. `netem` has the leaves.

use rtnetlink::packet_route::{
    RouteNetlinkMessage,
    tc::{TcAttribute, TcHandle, TcMessage},
};

use super::{ROOT_HANDLE, Request, TICK_NANOS, class_id, hex, kind, message, options, stats, with_options};
use crate::{
    kernel::bytes::{attributes, find, nested, read, read_u64, words},
    plan::{
        ClassMinor, DEFAULT_CLASS, LeafCount, LeafMark, MARK,
        tc_numbers::{CLASS_RATE, QUANTUM},
    },
};

// include/uapi/linux/pkt_sched.h
const TCA_HTB_PARMS: u16 = 1;
const TCA_HTB_INIT: u16 = 2;
const TCA_HTB_DIRECT_QLEN: u16 = 5;
const TCA_HTB_RATE64: u16 = 6;
const TCA_HTB_CEIL64: u16 = 7;

/// The byte range of the two bursts in `struct tc_htb_opt`.
const BURSTS: std::ops::Range<usize> = 24..32;

/// The `direct_qlen` of a root on an interface whose queue had the length 0.
///
/// `direct_qlen` is the queue length for packets without a class. Every packet has a class here, so the value is only a
/// mark. On other interfaces, the value is the interface's queue length.
const QUEUELESS: u32 = MARK as u32;

/// `tc qdisc add dev D root handle 4e7e: htb default 1`. With `was_queueless`, also `direct_qlen 20094`.
pub(in crate::kernel) fn add_root(index: u32, was_queueless: bool) -> Request {
    // struct tc_htb_glob: version, rate2quantum, defcls, debug, direct_pkts.
    let glob = words(&[3, 10, u32::from(DEFAULT_CLASS), 0, 0]);
    let mut options = vec![(TCA_HTB_INIT, glob)];
    options.extend(was_queueless.then(|| (TCA_HTB_DIRECT_QLEN, words(&[QUEUELESS]))));
    let root = with_options(message(index, ROOT_HANDLE, TcHandle::ROOT), "htb", &nested(&options));
    Request::add(RouteNetlinkMessage::NewQueueDiscipline(root))
}

/// True if the queue of the interface had the length 0 before our root was added.
pub(in crate::kernel) fn was_queueless(root: &TcMessage) -> bool {
    let attributes = attributes(&options(root).unwrap_or_default());
    find(&attributes, TCA_HTB_DIRECT_QLEN) == Some(&QUEUELESS.to_ne_bytes())
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
/// The bursts encode the mark of the leaf. The 1,024-byte rate tables of tc are left out: kernels since 3.8 ignore
/// them.
pub(in crate::kernel) fn add_class(index: u32, class: ClassMinor, mark: LeafMark) -> Request {
    // struct tc_ratespec: cell_log, linklayer (1: Ethernet), overhead, cell_align, mpu; rate, saturated for RATE64.
    let mut ratespec = vec![3, 1, 0, 0, 0xff, 0xff, 0, 0];
    ratespec.extend(u32::MAX.to_ne_bytes());
    // struct tc_htb_opt: rate, ceil, buffer, cbuffer, quantum, level, prio.
    let [burst, cburst] = mark.bursts().map(ticks);
    let opt = [ratespec.clone(), ratespec, words(&[burst, cburst, QUANTUM, 0, 0])].concat();
    let rate = CLASS_RATE.to_ne_bytes().to_vec();
    let options = nested(&[(TCA_HTB_RATE64, rate.clone()), (TCA_HTB_CEIL64, rate), (TCA_HTB_PARMS, opt)]);
    let class = with_options(message(index, class_id(class), ROOT_HANDLE), "htb", &options);
    Request::add(RouteNetlinkMessage::NewTrafficClass(class))
}

/// `tc class del dev D classid 4e7e:C`
pub(in crate::kernel) fn delete_class(index: u32, class: ClassMinor) -> Request {
    Request::existing(RouteNetlinkMessage::DelTrafficClass(message(index, class_id(class), TcHandle::UNSPEC)))
}

fn clsact(index: u32) -> TcMessage {
    let mut message = message(index, TcHandle { major: 0xffff, minor: 0 }, TcHandle::CLSACT);
    message.attributes.push(TcAttribute::Kind("clsact".to_owned()));
    message
}

/// The mark of a class of our root.
///
/// # Errors
///
/// [`add_class`] would not write this class. The text describes the difference.
pub(in crate::kernel) fn decode_class(message: &TcMessage) -> Result<LeafMark, String> {
    let id = hex(message.header.handle);
    if kind(message) != "htb" {
        return Err(format!("class {id} of kind {}", kind(message)));
    }
    let attributes = attributes(&options(message).unwrap_or_default());
    let rate = |kind| find(&attributes, kind).and_then(read_u64);
    if [TCA_HTB_RATE64, TCA_HTB_CEIL64].into_iter().any(|kind| rate(kind) != Some(CLASS_RATE)) {
        return Err(format!("class {id} with a rate of its own"));
    }
    let bursts = find(&attributes, TCA_HTB_PARMS).and_then(|parms| read::<2>(parms.get(BURSTS)?));
    let mark = bursts.and_then(|[burst, cburst]| LeafMark::from_bursts([microseconds(burst)?, microseconds(cburst)?]));
    let mark = mark.filter(|mark| message.header.handle.minor != DEFAULT_CLASS || *mark == LeafMark::default());
    mark.ok_or_else(|| format!("class {id} with a burst of its own"))
}

/// Converts a burst from microseconds to ticks, as tc does.
fn ticks(microseconds: u32) -> u32 {
    u32::try_from(u64::from(microseconds) * 1_000 / TICK_NANOS).unwrap_or(u32::MAX)
}

/// Converts a burst from ticks to microseconds. `None`: the burst is not a whole number of microseconds.
fn microseconds(burst: u32) -> Option<u32> {
    let microseconds = u32::try_from((u64::from(burst) * TICK_NANOS).div_ceil(1_000)).ok()?;
    (ticks(microseconds) == burst).then_some(microseconds)
}

/// The number of packets that wait in a qdisc.
pub(in crate::kernel) fn queued(message: &TcMessage) -> u32 {
    // An unknown length counts as 1, because the agent removes a class only if its queue is empty.
    stats::queue(stats::of(message)).map_or(1, |queue| queue.qlen)
}

/// The counters of a qdisc.
pub(in crate::kernel) fn count(message: &TcMessage) -> LeafCount {
    let stats = stats::of(message);
    let dropped = stats::queue(stats).map_or(0, |queue| queue.drops.into());
    LeafCount { sent: stats::tally(stats), dropped }
}
