//! Describes foreign objects: their names in the terms of `tc`, and the `tc` commands that remove them.

use etherparse::EtherType;
use rtnetlink::{
    packet_core::Nla as _,
    packet_route::tc::{TcAttribute, TcHandle, TcMessage, TcOption},
};

use super::{CLSACT_EGRESS, INGRESS, ROOT_HANDLE, filter, hex, kind};
use crate::{
    kernel::bytes::{Attribute, attributes, find, first, read, value},
    plan::{ClassMinor, ForeignObject, IfName, MARK, Within, tc_numbers::is_own_priority},
};

// include/uapi/linux/pkt_cls.h
const TCA_BPF_CLASSID: u16 = 3;
/// The class id of flower, u32, matchall, basic, fw and route.
const TCA_CLASSID: u16 = 1;

/// A foreign qdisc of an interface. `is_taken`: the root qdisc is ours.
pub(in crate::kernel) fn qdisc(message: &TcMessage, interface: &IfName, is_taken: bool) -> ForeignObject {
    let TcHandle { major, minor } = message.header.parent;
    let (kind, parent) = (kind(message), hex(message.header.parent));
    let place = match message.header.parent {
        TcHandle::ROOT => "root".to_owned(),
        TcHandle::CLSACT => kind.to_owned(),
        _ => format!("parent {parent}"),
    };
    let within = match message.header.parent {
        TcHandle::ROOT | TcHandle::CLSACT => None,
        _ => is_taken.then(|| Within::Root { class: (major == MARK).then_some(minor), chain: None }),
    };
    ForeignObject {
        what: format!("qdisc {kind} {} parent {parent}", hex(message.header.handle)),
        remove: format!("tc qdisc del dev {interface} {place}"),
        within,
    }
}

/// A foreign class of our root. `what` is the name of the class and its difference from our classes.
pub(in crate::kernel) fn class(message: &TcMessage, interface: &IfName, what: String) -> ForeignObject {
    let handle = message.header.handle;
    ForeignObject {
        what,
        remove: format!("tc class del dev {interface} classid {}", hex(handle)),
        within: Some(Within::Root { class: Some(handle.minor), chain: None }),
    }
}

/// A foreign filter of our root or of clsact.
pub(in crate::kernel) fn filter(message: &TcMessage, interface: &IfName) -> ForeignObject {
    let header = &message.header;
    let TcHandle { major: pref, minor: protocol } = TcHandle::from(header.info);
    let chain = Some(filter::chain(message)).filter(|chain| *chain != 0);
    let parent = match header.parent {
        INGRESS => "ingress".to_owned(),
        CLSACT_EGRESS => "egress".to_owned(),
        parent => format!("parent {}", hex(parent)),
    };
    let mut remove = format!("tc filter del dev {interface} {parent}");
    if let Some(chain) = chain {
        remove += &format!(" chain {chain}");
    }
    remove += &format!(" protocol {} pref {pref}", protocol_name(u16::from_be(protocol)));
    // Without a handle, the command removes all filters of the priority, and the hash tables of u32. Our own priorities
    // also have our filters, so the command has the handle.
    if is_own_priority(pref) {
        remove += &format!(" handle {} {}", handle(message), kind(message));
    }
    let within = match header.parent {
        ROOT_HANDLE => Within::Root { class: class_of(message), chain },
        INGRESS => Within::Hook { chain },
        _ => Within::Hook { chain: None },
    };
    ForeignObject { what: filter::describe(message), remove, within: Some(within) }
}

fn protocol_name(protocol: u16) -> String {
    match EtherType(protocol) {
        filter::ALL => "all".to_owned(),
        EtherType::IPV4 => "ip".to_owned(),
        EtherType::IPV6 => "ipv6".to_owned(),
        EtherType::ARP => "arp".to_owned(),
        EtherType::VLAN_TAGGED_FRAME => "802.1Q".to_owned(),
        EtherType(other) => format!("{other:#06x}"),
    }
}

/// The handle of a filter. Handles of u32 have three parts: a hash table, a bucket and a number.
fn handle(message: &TcMessage) -> String {
    let handle = u32::from(message.header.handle);
    match kind(message) {
        "u32" => format!("{:x}:{:x}:{:x}", handle >> 20, handle >> 12 & 0xff, handle & 0xfff),
        _ => format!("{handle:#x}"),
    }
}

/// The class of our root that a filter sends packets to.
fn class_of(message: &TcMessage) -> Option<ClassMinor> {
    let wanted = if kind(message) == "bpf" { TCA_BPF_CLASSID } else { TCA_CLASSID };
    let options = first!(message.attributes, TcAttribute::Options(options) => options)?;
    let options: Vec<Attribute> = options
        .iter()
        .flat_map(|option| match option {
            // If the crate does not know the kind, one option contains all attributes.
            TcOption::Other(option) => attributes(&value(option)),
            option => vec![(option.kind(), value(option))],
        })
        .collect();
    let [id] = read(find(&options, wanted)?)?;
    let handle = TcHandle::from(id);
    (handle.major == MARK).then_some(handle.minor)
}
