//! Encodes and decodes traffic-control messages for which rtnetlink has no builder.
//!
//! `netlink-packet-route` has types for flower, but none for htb, netem and gact. Their options are encoded here, after
//! `include/uapi/linux/pkt_sched.h` and `pkt_cls.h`. The tests compare every encoder byte for byte with iproute2's `tc`
//! (`tests/goldens/tc`). No decoder panics. A decoder returns `None` or an error for unknown input.

mod action;
pub(super) mod filter;
pub(super) mod foreign;
pub(super) mod netem;
pub(super) mod qdisc;
mod stats;

#[cfg(test)]
mod tests;

use std::ops::Range;

use rtnetlink::packet_core::{
    DefaultNla, NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage,
    NetlinkPayload,
};
use rtnetlink::packet_route::{
    RouteNetlinkMessage,
    tc::{TcAttribute, TcHandle, TcMessage, TcOption},
};

use super::bytes::{first, value};
use crate::plan::{ClassMinor, MARK};

/// Our root qdisc's handle, `4e7e:`.
pub(super) const ROOT_HANDLE: TcHandle = TcHandle { major: MARK, minor: 0 };

/// The parent of clsact's ingress filters, `ffff:fff2`.
pub(super) const INGRESS: TcHandle = TcHandle { major: 0xffff, minor: TcHandle::MIN_INGRESS };

/// The parent of clsact's egress filters, `ffff:fff3`.
pub(super) const CLSACT_EGRESS: TcHandle = TcHandle { major: 0xffff, minor: TcHandle::MIN_EGRESS };

/// The attribute with the options of a qdisc, class or filter.
const TCA_OPTIONS: u16 = 2;

/// A tick of the psched clock in nanoseconds (`/proc/net/psched`): the unit of bursts and of netem's 32-bit times.
const TICK_NANOS: u64 = 64;

/// One request to the kernel: the bytes of a message with its flags (netlink(7)).
#[derive(Clone, Debug)]
pub(super) struct Request(Vec<u8>);

/// The place of the sequence number in `struct nlmsghdr`.
const SEQUENCE: Range<usize> = 8..12;

impl Request {
    fn new(message: RouteNetlinkMessage, flags: u16) -> Self {
        let mut message = NetlinkMessage::new(NetlinkHeader::default(), NetlinkPayload::InnerMessage(message));
        message.header.flags = flags;
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        Self(bytes)
    }

    /// `tc ... add`: the object must not exist.
    pub(super) fn add(message: RouteNetlinkMessage) -> Self {
        Self::new(message, NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL)
    }

    /// `tc filter replace`: replaces the filter of this handle in place, or creates it.
    fn replace(message: RouteNetlinkMessage) -> Self {
        Self::new(message, NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE)
    }

    /// `tc ... change`, `tc ... del`, `ip link set` and get requests: the object must exist.
    pub(super) fn existing(message: RouteNetlinkMessage) -> Self {
        Self::new(message, NLM_F_REQUEST | NLM_F_ACK)
    }

    /// Lists all objects of a kind.
    pub(super) fn dump(message: RouteNetlinkMessage) -> Self {
        Self::new(message, NLM_F_REQUEST | NLM_F_DUMP)
    }

    /// The bytes of the request.
    pub(super) fn to_bytes(&self, sequence: u32) -> Vec<u8> {
        let mut bytes = self.0.clone();
        bytes[SEQUENCE].copy_from_slice(&sequence.to_ne_bytes());
        bytes
    }
}

/// A tc message about the object `handle` below `parent` on the interface `index`.
pub(super) fn message(index: u32, handle: TcHandle, parent: TcHandle) -> TcMessage {
    let mut message = TcMessage::with_index(index.cast_signed());
    message.header.handle = handle;
    message.header.parent = parent;
    message
}

/// The `info` of a filter: the priority, then the protocol in network byte order.
fn filter_info(pref: u16, protocol: u16) -> u32 {
    u32::from(pref) << 16 | u32::from(protocol.to_be())
}

/// The kind of an object, from its attributes.
pub(super) fn kind(message: &TcMessage) -> &str {
    first!(message.attributes, TcAttribute::Kind(kind) => kind.as_str()).unwrap_or_default()
}

/// A handle as `tc` writes it, in hexadecimal (the crate's own `Display` is decimal).
pub(super) fn hex(handle: TcHandle) -> String {
    match handle {
        TcHandle::ROOT => "root".to_owned(),
        TcHandle { major, minor: 0 } => format!("{major:x}:"),
        TcHandle { major, minor } => format!("{major:x}:{minor:x}"),
    }
}

/// The handle of a class of our root.
fn class_id(class: ClassMinor) -> TcHandle {
    TcHandle { major: MARK, minor: class }
}

/// Adds the kind and the options of an object to `message`.
fn with_options(mut message: TcMessage, kind: &str, options: &[u8]) -> TcMessage {
    message.attributes.push(TcAttribute::Kind(kind.to_owned()));
    message.attributes.push(TcAttribute::Other(DefaultNla::new(TCA_OPTIONS, options.to_vec())));
    message
}

/// The bytes of `TCA_OPTIONS`. `None`: there are no options, or the crate knows the kind and has parsed the options.
pub(super) fn options(message: &TcMessage) -> Option<Vec<u8>> {
    match first!(message.attributes, TcAttribute::Options(options) => options.first()?)? {
        TcOption::Other(attribute) => Some(value(attribute)),
        _ => None,
    }
}
