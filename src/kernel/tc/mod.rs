//! Traffic-control messages: what rtnetlink has no builder for, encoded and decoded by hand.
//!
//! `netlink-packet-route` types flower but knows neither htb, netem nor gact, so their options are written here,
//! after `include/uapi/linux/pkt_sched.h` and `pkt_cls.h`. Every encoder is tested byte for byte against what
//! iproute2's `tc` sends (`tests/goldens/tc`); every decoder is total: it returns `None` on what it does not know.

mod action;
pub(super) mod filter;
pub(super) mod foreign;
pub(super) mod netem;
pub(super) mod qdisc;
mod stats;

#[cfg(test)]
mod tests;

use rtnetlink::packet_core::{
    DefaultNla, Emitable, NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST, NetlinkHeader,
    NetlinkMessage, NetlinkPayload, Nla,
};
use rtnetlink::packet_route::{
    RouteNetlinkMessage,
    tc::{TcAttribute, TcHandle, TcMessage, TcOption},
};

use crate::plan::{ClassMinor, MARK};

/// Our root qdisc's handle, `4e7e:`.
pub(super) const ROOT_HANDLE: TcHandle = TcHandle { major: MARK, minor: 0 };

/// The parent of clsact's ingress filters, `ffff:fff2`.
pub(super) const INGRESS: TcHandle = TcHandle { major: 0xffff, minor: TcHandle::MIN_INGRESS };

/// The parent of clsact's egress filters, `ffff:fff3`.
pub(super) const CLSACT_EGRESS: TcHandle = TcHandle { major: 0xffff, minor: TcHandle::MIN_EGRESS };

/// The attribute that holds a kind's own options.
const TCA_OPTIONS: u16 = 2;

/// One request to the kernel: a message and what is asked of it.
#[derive(Clone, Debug)]
pub(super) struct Request {
    message: RouteNetlinkMessage,
    flags: u16,
}

impl Request {
    /// `tc ... add`: it must not exist.
    pub(super) fn add(message: RouteNetlinkMessage) -> Self {
        Self { message, flags: NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL }
    }

    /// `tc filter replace`: with a handle, this replaces in place or creates.
    fn replace(message: RouteNetlinkMessage) -> Self {
        Self { message, flags: NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE }
    }

    /// `tc ... change` and `tc ... del`: it must exist.
    fn existing(message: RouteNetlinkMessage) -> Self {
        Self { message, flags: NLM_F_REQUEST | NLM_F_ACK }
    }

    /// One object, answered by that object.
    pub(super) fn get(message: RouteNetlinkMessage) -> Self {
        Self::existing(message)
    }

    /// A change of a link that exists.
    pub(super) fn set(message: RouteNetlinkMessage) -> Self {
        Self::existing(message)
    }

    /// All objects of a kind.
    pub(super) fn dump(message: RouteNetlinkMessage) -> Self {
        Self { message, flags: NLM_F_REQUEST | NLM_F_DUMP }
    }

    /// The bytes that go to the kernel.
    pub(super) fn to_bytes(&self, sequence: u32) -> Vec<u8> {
        let mut message =
            NetlinkMessage::new(NetlinkHeader::default(), NetlinkPayload::InnerMessage(self.message.clone()));
        message.header.flags = self.flags;
        message.header.sequence_number = sequence;
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        bytes
    }
}

/// A tc message about the object `handle` below `parent` on the interface `index`.
fn message(index: u32, handle: TcHandle, parent: TcHandle) -> TcMessage {
    let mut message = TcMessage::with_index(index.cast_signed());
    message.header.handle = handle;
    message.header.parent = parent;
    message
}

/// The first two bytes of a filter's `info` are its protocol in network order, the others its priority.
fn filter_info(pref: u16, protocol: u16) -> u32 {
    u32::from(pref) << 16 | u32::from(protocol.to_be())
}

/// The kind of an object, from its attributes.
pub(super) fn kind(message: &TcMessage) -> &str {
    let kind = message.attributes.iter().find_map(|attribute| match attribute {
        TcAttribute::Kind(kind) => Some(kind.as_str()),
        _ => None,
    });
    kind.unwrap_or("")
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

/// `message` of an object of this kind with these options of its own.
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

/// Words in the machine's own order, as the kernel's structures have them.
fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

/// Attributes one after the other.
fn nested(attributes: &[(u16, Vec<u8>)]) -> Vec<u8> {
    let attributes: Vec<DefaultNla> =
        attributes.iter().map(|(kind, value)| DefaultNla::new(*kind, value.clone())).collect();
    let mut bytes = vec![0; attributes.as_slice().buffer_len()];
    attributes.as_slice().emit(&mut bytes);
    bytes
}
