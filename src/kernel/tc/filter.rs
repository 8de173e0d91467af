//! Encodes and decodes flower filters: exact keys, and a class or an action (`tc-flower(8)`, `net/sched/cls_flower.c`).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use etherparse::{EtherType, IpNumber};
use rtnetlink::packet_core::Nla as _;
use rtnetlink::packet_route::{
    RouteNetlinkMessage,
    tc::{TcAction, TcAttribute, TcFilterFlowerOption as Key, TcHandle, TcHeader, TcMessage, TcOption},
};

pub(in crate::kernel) use super::action::Verdict;
use super::{CLSACT_EGRESS, INGRESS, ROOT_HANDLE, Request, action, class_id, filter_info, kind, message};
use crate::{
    kernel::bytes::{first, u32_at, value},
    plan::{
        Answer, ChainFilter, ClassMinor, Cut, CutFilter, DEFAULT_CLASS, Direction, Port, Protocol, Route, Tally,
        Traffic,
        tc_numbers::{GATE_HANDLE, GATE_PRIORITY, PASS_PRIORITY, cut_priority, route_priority},
    },
};

/// All protocols (`ETH_P_ALL`).
pub(super) const ALL: EtherType = EtherType(0x0003);
const TCA_FLOWER_CLASSID: u16 = 1;
const SKIP_HW: u32 = 1;
const TCA_FLOWER_KEY_FLAGS_IS_FRAGMENT: u32 = 1;
const EXACT_V4: Ipv4Addr = Ipv4Addr::BROADCAST;
const EXACT_V6: Ipv6Addr = Ipv6Addr::from_bits(u128::MAX);

/// A filter of netemctl.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::kernel) enum Filter {
    /// Lets one type of neighbour discovery pass, uncut and undelayed.
    Pass {
        /// The hook.
        direction: Direction,
        /// The `ICMPv6` type, which is also the handle of the filter.
        icmp_type: u8,
    },
    /// Sends all packets to a chain.
    Gate {
        /// The hook.
        direction: Direction,
        /// The chain.
        chain: u32,
    },
    /// A filter of a chain.
    InChain {
        /// The chain.
        chain: u32,
        /// The packets and their treatment.
        filter: ChainFilter,
    },
}

impl Filter {
    /// `tc filter add …`, or `replace` for the gate, so that a flip is one write.
    pub(in crate::kernel) fn add(self, index: u32) -> Request {
        let message = RouteNetlinkMessage::NewTrafficFilter(self.message(index));
        if matches!(self, Self::Gate { .. }) { Request::replace(message) } else { Request::add(message) }
    }

    /// `tc filter replace …`
    pub(in crate::kernel) fn replace(self, index: u32) -> Request {
        Request::replace(RouteNetlinkMessage::NewTrafficFilter(self.message(index)))
    }

    /// `tc filter del dev D parent P protocol … pref … handle … flower`
    pub(in crate::kernel) fn delete(self, index: u32) -> Request {
        Request::existing(RouteNetlinkMessage::DelTrafficFilter(self.place(index)))
    }

    /// `tc filter get dev D parent P protocol … pref … handle … flower`
    pub(in crate::kernel) fn get(self, index: u32) -> Request {
        Request::existing(RouteNetlinkMessage::GetTrafficFilter(self.place(index)))
    }

    /// The message without the options: its parent, chain, priority, protocol, handle and kind.
    fn place(self, index: u32) -> TcMessage {
        let mut message = self.message(index);
        message.attributes.retain(|attribute| !matches!(attribute, TcAttribute::Options(_)));
        message
    }

    pub(super) fn message(self, index: u32) -> TcMessage {
        let ether_type = |address: IpAddr| if address.is_ipv4() { EtherType::IPV4 } else { EtherType::IPV6 };
        let (handle, priority, protocol) = match self {
            Self::Pass { icmp_type, .. } => (icmp_type.into(), PASS_PRIORITY, EtherType::IPV6),
            Self::Gate { .. } => (GATE_HANDLE, GATE_PRIORITY, ALL),
            Self::InChain {
                filter: ChainFilter::Cut(CutFilter { cut: Cut { address, answer, .. }, handle, .. }),
                ..
            } => (handle, cut_priority(address, answer), ether_type(address)),
            Self::InChain { filter: ChainFilter::Route(Route { address, handle, .. }), .. } => {
                (handle, route_priority(address), ether_type(address))
            }
        };
        let mut message = message(index, TcHandle::from(handle), parent(self.direction()));
        message.header.info = filter_info(priority, protocol.0);
        if let Self::InChain { chain, .. } = self {
            message.attributes.push(TcAttribute::Chain(chain));
        }
        message.attributes.push(TcAttribute::Kind("flower".to_owned()));
        let mut keys = self.keys();
        keys.push(Key::Flags(SKIP_HW));
        if let Self::InChain { filter: ChainFilter::Cut(CutFilter { cut, .. }), .. } = self
            && let Traffic::FragmentsOf { .. } = cut.traffic
        {
            let flags = TCA_FLOWER_KEY_FLAGS_IS_FRAGMENT;
            keys.extend([Key::KeyFlags(flags), Key::KeyFlagsMask(flags)]);
        }
        if protocol != ALL {
            keys.push(Key::EthType(protocol.0));
        }
        message.attributes.push(TcAttribute::Options(keys.into_iter().map(TcOption::Flower).collect()));
        message
    }

    fn direction(self) -> Direction {
        match self {
            Self::Pass { direction, .. } | Self::Gate { direction, .. } => direction,
            Self::InChain { filter, .. } => filter.direction(),
        }
    }

    fn keys(self) -> Vec<Key> {
        match self {
            Self::Pass { direction, icmp_type } => vec![
                Key::IpProto(IpNumber::IPV6_ICMP.0),
                Key::Icmpv6Type(icmp_type),
                Key::Icmpv6TypeMask(u8::MAX),
                match direction {
                    Direction::Egress => class_key(DEFAULT_CLASS),
                    Direction::Ingress => Key::Actions(action::encode(Verdict::Pass, None)),
                },
            ],
            Self::Gate { chain, .. } => vec![Key::Actions(action::encode(Verdict::GotoChain(chain), None))],
            Self::InChain { filter: ChainFilter::Cut(CutFilter { cut, counter, .. }), .. } => {
                let mut keys = address_keys(cut.direction, cut.address);
                keys.extend(port_keys(cut.traffic));
                let verdict = match cut.answer {
                    Answer::Silence => Verdict::Drop,
                    Answer::Refusal => Verdict::SampleAndDrop,
                };
                keys.push(Key::Actions(action::encode(verdict, counter)));
                keys
            }
            Self::InChain { filter: ChainFilter::Route(Route { address, class, .. }), .. } => {
                let mut keys = address_keys(Direction::Egress, address);
                keys.push(class_key(class));
                keys
            }
        }
    }

    /// Decodes a filter of a dump. `None`: netemctl would not write exactly this filter.
    ///
    /// The decoded filter is encoded again and compared. So a filter with an unknown key, mask or action is foreign.
    pub(in crate::kernel) fn decode(message: &TcMessage) -> Option<Self> {
        if kind(message) != "flower" {
            return None;
        }
        let direction = match message.header.parent {
            ROOT_HANDLE => Direction::Egress,
            INGRESS => Direction::Ingress,
            _ => return None,
        };
        let content = Content::of(message)?;
        let handle = u32::from(message.header.handle);
        let chain = content.chain;
        let filter = match (content.icmp_type(), content.address(), content.class, content.verdict) {
            (Some(icmp_type), None, _, _) => Self::Pass { direction, icmp_type },
            (None, None, None, Some(Verdict::GotoChain(chain))) => Self::Gate { direction, chain },
            // Chain 0 has neither routes nor cuts.
            (None, Some(address), Some(class), None) if chain != 0 && direction == Direction::Egress => {
                let class = TcHandle::from(class).minor;
                Self::InChain { chain, filter: ChainFilter::Route(Route { address, class, handle }) }
            }
            (None, Some(address), None, Some(verdict @ (Verdict::Drop | Verdict::SampleAndDrop))) if chain != 0 => {
                let answer = if verdict == Verdict::Drop { Answer::Silence } else { Answer::Refusal };
                let cut = Cut { direction, address, traffic: content.traffic(), answer };
                let filter = ChainFilter::Cut(CutFilter { cut, handle, counter: counter(message) });
                Self::InChain { chain, filter }
            }
            _ => return None,
        };
        let ours = filter.message(message.header.index.cast_unsigned());
        let place = |header: &TcHeader| (header.parent, header.info, header.handle);
        (place(&ours.header) == place(&message.header) && Content::of(&ours)? == content).then_some(filter)
    }
}

/// The counters of a filter's actions.
pub(in crate::kernel) fn tally(message: &TcMessage) -> Tally {
    action::tally(actions(message))
}

/// The index of the action that counts the packets of a cut.
fn counter(message: &TcMessage) -> Option<u32> {
    action::counter(actions(message))
}

fn actions(message: &TcMessage) -> &[TcAction] {
    let options = first!(message.attributes, TcAttribute::Options(options) => options);
    let actions = options.and_then(|options| first!(options, TcOption::Flower(Key::Actions(actions)) => actions));
    actions.map_or(&[], Vec::as_slice)
}

/// `tc filter del dev D parent P chain N`
pub(in crate::kernel) fn delete_chain(index: u32, direction: Direction, chain: u32) -> Request {
    Request::existing(RouteNetlinkMessage::DelTrafficFilter(of_chain(index, direction, chain)))
}

/// The filters of a chain, for a dump or a deletion.
pub(in crate::kernel) fn of_chain(index: u32, direction: Direction, chain: u32) -> TcMessage {
    let mut message = message(index, TcHandle::UNSPEC, parent(direction));
    message.attributes.push(TcAttribute::Chain(chain));
    message
}

/// The filters below a parent, for a dump.
pub(in crate::kernel) fn of_parent(index: u32, parent: TcHandle) -> TcMessage {
    message(index, TcHandle::UNSPEC, parent)
}

/// The filters of a priority below a parent, for a dump.
pub(in crate::kernel) fn of_priority(index: u32, parent: TcHandle, priority: u16) -> TcMessage {
    let mut message = of_parent(index, parent);
    message.header.info = filter_info(priority, 0);
    message
}

/// The parents of filters on a shaped interface.
pub(in crate::kernel) const PARENTS: [TcHandle; 3] = [ROOT_HANDLE, INGRESS, CLSACT_EGRESS];

/// The name of a foreign filter in messages, in the terms of `tc`.
pub(in crate::kernel) fn describe(message: &TcMessage) -> String {
    let TcHandle { major: priority, minor: protocol } = TcHandle::from(message.header.info);
    let chain = chain(message);
    format!(
        "filter parent {} chain {chain} pref {priority} protocol {:#06x} handle {:#x} {}",
        super::hex(message.header.parent),
        u16::from_be(protocol),
        u32::from(message.header.handle),
        kind(message)
    )
}

/// The effective content of a flower filter.
struct Content {
    chain: u32,
    /// The other keys and masks, in any order.
    keys: Vec<Key>,
    class: Option<u32>,
    verdict: Option<Verdict>,
}

impl PartialEq for Content {
    fn eq(&self, other: &Self) -> bool {
        (self.chain, self.class, self.verdict) == (other.chain, other.class, other.verdict)
            && self.keys.len() == other.keys.len()
            && self.keys.iter().all(|key| other.keys.contains(key))
    }
}

impl Content {
    fn of(message: &TcMessage) -> Option<Self> {
        let mut content = Self { chain: chain(message), keys: Vec::new(), class: None, verdict: None };
        for option in first!(message.attributes, TcAttribute::Options(options) => options)? {
            let TcOption::Flower(key) = option else { return None };
            match key {
                Key::ClassId(id) => content.class = Some(*id),
                // The crate writes class ids but does not parse them.
                Key::Other(other) if other.kind() == TCA_FLOWER_CLASSID => content.class = u32_at(&value(other), 0),
                Key::Actions(actions) => content.verdict = Some(action::decode(actions)?),
                // Hardware offload does not change the effect of a filter. The kernel adds the exact mask of a port.
                Key::Flags(_)
                | Key::InHwCount(_)
                | Key::TcpDstMask(u16::MAX)
                | Key::UdpDstMask(u16::MAX)
                | Key::TcpSrcMask(u16::MAX)
                | Key::UdpSrcMask(u16::MAX) => {}
                key => content.keys.push(key.clone()),
            }
        }
        Some(content)
    }

    fn icmp_type(&self) -> Option<u8> {
        first!(self.keys, Key::Icmpv6Type(icmp_type) => *icmp_type)
    }

    fn address(&self) -> Option<IpAddr> {
        let v4 = first!(self.keys, Key::Ipv4Dst(address) | Key::Ipv4Src(address) => IpAddr::V4(*address));
        v4.or_else(|| first!(self.keys, Key::Ipv6Dst(address) | Key::Ipv6Src(address) => IpAddr::V6(*address)))
    }

    fn traffic(&self) -> Traffic {
        let port = |protocol, number: &u16| Port { protocol, number: *number };
        let of_port = self.keys.iter().find_map(|key| match key {
            Key::TcpDst(number) => Some(Traffic::ToPort { port: port(Protocol::Tcp, number) }),
            Key::UdpDst(number) => Some(Traffic::ToPort { port: port(Protocol::Udp, number) }),
            Key::TcpSrc(number) => Some(Traffic::FromPort { port: port(Protocol::Tcp, number) }),
            Key::UdpSrc(number) => Some(Traffic::FromPort { port: port(Protocol::Udp, number) }),
            _ => None,
        });
        of_port.unwrap_or_else(|| match first!(self.keys, Key::IpProto(protocol) => IpNumber(*protocol)) {
            Some(IpNumber::TCP) => Traffic::FragmentsOf { protocol: Protocol::Tcp },
            Some(IpNumber::UDP) => Traffic::FragmentsOf { protocol: Protocol::Udp },
            _ => Traffic::All,
        })
    }
}

pub(super) fn chain(message: &TcMessage) -> u32 {
    first!(message.attributes, TcAttribute::Chain(chain) => *chain).unwrap_or(0)
}

fn parent(direction: Direction) -> TcHandle {
    match direction {
        Direction::Egress => ROOT_HANDLE,
        Direction::Ingress => INGRESS,
    }
}

fn address_keys(direction: Direction, address: IpAddr) -> Vec<Key> {
    match (direction, address) {
        (Direction::Egress, IpAddr::V4(ip)) => vec![Key::Ipv4Dst(ip), Key::Ipv4DstMask(EXACT_V4)],
        (Direction::Egress, IpAddr::V6(ip)) => vec![Key::Ipv6Dst(ip), Key::Ipv6DstMask(EXACT_V6)],
        (Direction::Ingress, IpAddr::V4(ip)) => vec![Key::Ipv4Src(ip), Key::Ipv4SrcMask(EXACT_V4)],
        (Direction::Ingress, IpAddr::V6(ip)) => vec![Key::Ipv6Src(ip), Key::Ipv6SrcMask(EXACT_V6)],
    }
}

/// The keys of a port or protocol, in the order of `tc`.
fn port_keys(traffic: Traffic) -> Vec<Key> {
    let protocol_key = |protocol| match protocol {
        Protocol::Tcp => Key::IpProto(IpNumber::TCP.0),
        Protocol::Udp => Key::IpProto(IpNumber::UDP.0),
    };
    let keys = |Port { protocol, number }, tcp: fn(u16) -> Key, udp: fn(u16) -> Key| {
        let port = if protocol == Protocol::Tcp { tcp(number) } else { udp(number) };
        vec![protocol_key(protocol), port]
    };
    match traffic {
        Traffic::All => vec![],
        Traffic::ToPort { port } => keys(port, Key::TcpDst, Key::UdpDst),
        Traffic::FromPort { port } => keys(port, Key::TcpSrc, Key::UdpSrc),
        Traffic::FragmentsOf { protocol } => vec![protocol_key(protocol)],
    }
}

fn class_key(class: ClassMinor) -> Key {
    Key::ClassId(class_id(class).into())
}
