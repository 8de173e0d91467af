//! Qdiscs and classes: htb as the root, its classes, clsact as the ingress hook. The leaves are in `netem`.

use rtnetlink::packet_core::NlasIterator;
use rtnetlink::packet_route::{
    RouteNetlinkMessage,
    tc::{TcAttribute, TcHandle, TcMessage},
};

use super::{ROOT_HANDLE, Request, class_id, hex, kind, message, nested, options, stats, with_options, words};
use crate::plan::{ClassMinor, DEFAULT_CLASS, LeafCount, LeafMark, MARK};

// include/uapi/linux/pkt_sched.h
const TCA_HTB_PARMS: u16 = 1;
const TCA_HTB_INIT: u16 = 2;
const TCA_HTB_DIRECT_QLEN: u16 = 5;
const TCA_HTB_RATE64: u16 = 6;
const TCA_HTB_CEIL64: u16 = 7;

/// The rate of every class, in bytes per second: 100 Gbit/s, which never holds a packet back.
const CLASS_RATE: u64 = 12_500_000_000;

/// What a class may send before the next has its turn, in bytes.
const QUANTUM: u32 = 60_000;

/// A tick of the psched clock, the unit of bursts, in nanoseconds (`/proc/net/psched`).
const TICK_NANOS: u64 = 64;

/// Where `struct tc_htb_opt` has its two bursts.
const BURSTS: std::ops::Range<usize> = 24..32;

/// The length of the queue for packets of no class, of which we have none: a mark that the interface's own queue had the
/// length 0. Without it, that of the interface counts.
const QUEUELESS: u32 = MARK as u32;

/// `tc qdisc add dev D root handle 4e7e: htb default 1`, and ` direct_qlen 20094` on an interface whose queue had the
/// length 0.
pub(in crate::kernel) fn add_root(index: u32, was_queueless: bool) -> Request {
    // struct tc_htb_glob: version, rate2quantum, defcls, debug, direct_pkts.
    let glob = words(&[3, 10, u32::from(DEFAULT_CLASS), 0, 0]);
    let mut options = vec![(TCA_HTB_INIT, glob)];
    options.extend(was_queueless.then(|| (TCA_HTB_DIRECT_QLEN, words(&[QUEUELESS]))));
    let root = with_options(message(index, ROOT_HANDLE, TcHandle::ROOT), "htb", &nested(&options));
    Request::add(RouteNetlinkMessage::NewQueueDiscipline(root))
}

/// Whether our root was put on an interface whose queue had the length 0.
pub(in crate::kernel) fn was_queueless(root: &TcMessage) -> bool {
    let options = options(root).unwrap_or_default();
    let mut attributes = NlasIterator::new(options.as_slice()).flatten();
    attributes.any(|nla| nla.kind() == TCA_HTB_DIRECT_QLEN && nla.value() == QUEUELESS.to_ne_bytes())
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
/// The bursts are larger where the leaf has a mark. The 1,024-byte rate tables that tc adds are ignored by every kernel
/// since 3.8 and left out.
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

/// The mark of an htb class of our root, or what is foreign about it if it is not as [`add_class`] makes them.
pub(in crate::kernel) fn decode_class(message: &TcMessage) -> Result<LeafMark, String> {
    let id = hex(message.header.handle);
    if kind(message) != "htb" {
        return Err(format!("class {id} of kind {}", kind(message)));
    }
    let options = options(message).unwrap_or_default();
    let attribute = |kind: u16| {
        let mut attributes = NlasIterator::new(options.as_slice()).flatten();
        attributes.find(|attribute| attribute.kind() == kind).map(|attribute| attribute.value().to_vec())
    };
    let rate = |kind: u16| Some(u64::from_ne_bytes(attribute(kind)?.try_into().ok()?));
    if [TCA_HTB_RATE64, TCA_HTB_CEIL64].into_iter().any(|kind| rate(kind) != Some(CLASS_RATE)) {
        return Err(format!("class {id} with a rate of its own"));
    }
    let mark = attribute(TCA_HTB_PARMS).and_then(|parms| mark(parms.get(BURSTS)?));
    let mark = mark.filter(|mark| message.header.handle.minor != DEFAULT_CLASS || *mark == LeafMark::default());
    mark.ok_or_else(|| format!("class {id} with a burst of its own"))
}

fn mark(bursts: &[u8]) -> Option<LeafMark> {
    let (first, second) = bursts.split_at_checked(4)?;
    let [burst, cburst] = [microseconds(first)?, microseconds(second)?];
    LeafMark::from_bursts([burst, cburst])
}

/// A burst as tc computes it: of whole microseconds.
fn ticks(microseconds: u32) -> u32 {
    u32::try_from(u64::from(microseconds) * 1_000 / TICK_NANOS).unwrap_or(u32::MAX)
}

/// The microseconds of a burst, if it is of whole ones.
fn microseconds(burst: &[u8]) -> Option<u32> {
    let burst = u32::from_ne_bytes(burst.try_into().ok()?);
    let microseconds = u32::try_from((u64::from(burst) * TICK_NANOS).div_ceil(1_000)).ok()?;
    (ticks(microseconds) == burst).then_some(microseconds)
}

/// How many packets wait in a qdisc.
pub(in crate::kernel) fn queued(message: &TcMessage) -> u32 {
    // Unknown counts as not empty: a class is removed only when it is known to have drained.
    stats::queue(stats::of(message)).map_or(1, |queue| queue.qlen)
}

/// What became of the packets of a qdisc.
pub(in crate::kernel) fn count(message: &TcMessage) -> LeafCount {
    let stats = stats::of(message);
    let dropped = stats::queue(stats).map_or(0, |queue| queue.drops.into());
    LeafCount { sent: stats::tally(stats), dropped }
}
