//! Encodes and decodes flower filters: exact keys, and a class or an action (`tc-flower(8)`, `net/sched/cls_flower.c`).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rtnetlink::packet_core::Nla as _;
use rtnetlink::packet_route::{
    RouteNetlinkMessage,
    tc::{TcAttribute, TcFilterFlowerOption as Key, TcHandle, TcHeader, TcMessage, TcOption},
};

pub(in crate::kernel) use super::action::Verdict;
use super::{CLSACT_EGRESS, INGRESS, ROOT_HANDLE, Request, action, class_id, filter_info, kind, message};
use crate::{
    kernel::bytes::{first, read, value},
    plan::{
        Answer, ClassMinor, Cut, DEFAULT_CLASS, Direction, MARK, Port, Protocol, Tally, Traffic,
        tc_numbers::{GATE_HANDLE, GATE_PRIORITY, PASS_PRIORITY, cut_priority, route_priority},
    },
};

const ETH_P_ALL: u16 = 0x0003;
const ETH_P_IP: u16 = 0x0800;
const ETH_P_IPV6: u16 = 0x86dd;
const IPPROTO_ICMPV6: u8 = 58;
const IPPROTO_TCP: u8 = 6;
const IPPROTO_UDP: u8 = 17;
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
    /// Drops packets.
    Cut {
        /// The packets.
        cut: Cut,
        /// The filter's handle.
        handle: u32,
    },
    /// Sends all packets to a chain.
    Gate {
        /// The chain.
        chain: u32,
    },
    /// Sends the packets for an address to a class.
    Route {
        /// The chain of the filter.
        chain: u32,
        /// The address.
        address: IpAddr,
        /// The class.
        class: ClassMinor,
        /// The filter's handle.
        handle: u32,
    },
}

impl Filter {
    /// `tc filter add …`, or `replace` for the gate, so that a flip is one write.
    pub(in crate::kernel) fn add(self, index: u32) -> Request {
        let message = RouteNetlinkMessage::NewTrafficFilter(self.message(index));
        if matches!(self, Self::Gate { .. }) { Request::replace(message) } else { Request::add(message) }
    }

    /// `tc filter del dev D parent P protocol … pref … handle … flower`
    pub(in crate::kernel) fn delete(self, index: u32) -> Request {
        let mut message = self.message(index);
        message.attributes = vec![TcAttribute::Kind("flower".to_owned())];
        Request::existing(RouteNetlinkMessage::DelTrafficFilter(message))
    }

    fn message(self, index: u32) -> TcMessage {
        let ether_type = |address: IpAddr| if address.is_ipv4() { ETH_P_IP } else { ETH_P_IPV6 };
        let (direction, handle, priority, protocol) = match self {
            Self::Pass { direction, icmp_type } => (direction, icmp_type.into(), PASS_PRIORITY, ETH_P_IPV6),
            Self::Cut { cut: Cut { direction, address, answer, .. }, handle } => {
                (direction, handle, cut_priority(address, answer), ether_type(address))
            }
            Self::Gate { .. } => (Direction::Egress, GATE_HANDLE, GATE_PRIORITY, ETH_P_ALL),
            Self::Route { address, handle, .. } => {
                (Direction::Egress, handle, route_priority(address), ether_type(address))
            }
        };
        let mut message = message(index, TcHandle::from(handle), parent(direction));
        message.header.info = filter_info(priority, protocol);
        if let Self::Route { chain, .. } = self {
            message.attributes.push(TcAttribute::Chain(chain));
        }
        message.attributes.push(TcAttribute::Kind("flower".to_owned()));
        let mut keys = self.keys();
        keys.push(Key::Flags(SKIP_HW));
        if let Self::Cut { cut: Cut { traffic: Traffic::FragmentsOf { .. }, .. }, .. } = self {
            let flags = TCA_FLOWER_KEY_FLAGS_IS_FRAGMENT;
            keys.extend([Key::KeyFlags(flags), Key::KeyFlagsMask(flags)]);
        }
        if protocol != ETH_P_ALL {
            keys.push(Key::EthType(protocol));
        }
        message.attributes.push(TcAttribute::Options(keys.into_iter().map(TcOption::Flower).collect()));
        message
    }

    fn keys(self) -> Vec<Key> {
        match self {
            Self::Pass { direction, icmp_type } => vec![
                Key::IpProto(IPPROTO_ICMPV6),
                Key::Icmpv6Type(icmp_type),
                Key::Icmpv6TypeMask(u8::MAX),
                match direction {
                    Direction::Egress => class_key(DEFAULT_CLASS),
                    Direction::Ingress => Key::Actions(action::encode(Verdict::Pass)),
                },
            ],
            Self::Cut { cut, .. } => {
                let mut keys = address_keys(cut.direction, cut.address);
                keys.extend(port_keys(cut.traffic));
                keys.push(Key::Actions(action::encode(match cut.answer {
                    Answer::Silence => Verdict::Drop,
                    Answer::Refusal => Verdict::SampleAndDrop,
                })));
                keys
            }
            Self::Gate { chain } => vec![Key::Actions(action::encode(Verdict::GotoChain(chain)))],
            Self::Route { address, class, .. } => {
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
        let seen = Seen::of(message)?;
        let handle = u32::from(message.header.handle);
        let filter = match (seen.icmp_type, seen.address, seen.class, seen.verdict) {
            (Some(icmp_type), None, _, _) => Self::Pass { direction, icmp_type },
            (None, Some(address), None, Some(verdict @ (Verdict::Drop | Verdict::SampleAndDrop))) => {
                let answer = if verdict == Verdict::Drop { Answer::Silence } else { Answer::Refusal };
                Self::Cut { cut: Cut { direction, address, traffic: seen.traffic()?, answer }, handle }
            }
            (None, None, None, Some(Verdict::GotoChain(chain))) => Self::Gate { chain },
            // Chain 0 has no routes.
            (None, Some(address), Some(class), None) if seen.chain != 0 => {
                Self::Route { chain: seen.chain, address, class, handle }
            }
            _ => return None,
        };
        let ours = filter.message(message.header.index.cast_unsigned());
        let place = |header: &TcHeader| (header.parent, header.info, header.handle);
        (place(&ours.header) == place(&message.header) && Seen::of(&ours)? == seen).then_some(filter)
    }
}

/// The counters of a filter's actions.
pub(in crate::kernel) fn tally(message: &TcMessage) -> Tally {
    let options = first!(message.attributes, TcAttribute::Options(options) => options);
    let actions = options.and_then(|options| first!(options, TcOption::Flower(Key::Actions(actions)) => actions));
    action::tally(actions.map_or(&[], Vec::as_slice))
}

/// `tc filter del dev D parent 4e7e: chain N`
pub(in crate::kernel) fn delete_chain(index: u32, chain: u32) -> Request {
    let mut message = message(index, TcHandle::UNSPEC, ROOT_HANDLE);
    message.attributes.push(TcAttribute::Chain(chain));
    Request::existing(RouteNetlinkMessage::DelTrafficFilter(message))
}

/// `tc filter show dev D parent P`, all chains.
pub(in crate::kernel) fn dump(index: u32, parent: TcHandle) -> Request {
    Request::dump(RouteNetlinkMessage::GetTrafficFilter(message(index, TcHandle::UNSPEC, parent)))
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
#[derive(Default, PartialEq)]
struct Seen {
    chain: u32,
    eth_type: Option<u16>,
    ip_proto: Option<u8>,
    icmp_type: Option<u8>,
    to_port: Option<(Protocol, u16)>,
    from_port: Option<(Protocol, u16)>,
    is_fragment: bool,
    address: Option<IpAddr>,
    class: Option<ClassMinor>,
    verdict: Option<Verdict>,
    /// The number of keys and masks, so that the comparison covers keys without a field here.
    keys: usize,
}

impl Seen {
    fn of(message: &TcMessage) -> Option<Self> {
        let mut seen = Self { chain: chain(message), ..Self::default() };
        let source = message.header.parent == INGRESS;
        let options = first!(message.attributes, TcAttribute::Options(options) => options)?;
        for option in options {
            let TcOption::Flower(key) = option else { return None };
            seen.keys += 1;
            match key {
                Key::EthType(protocol) => seen.eth_type = Some(*protocol),
                Key::IpProto(protocol) => seen.ip_proto = Some(*protocol),
                Key::Icmpv6Type(icmp_type) => seen.icmp_type = Some(*icmp_type),
                Key::Icmpv6TypeMask(u8::MAX) | Key::KeyFlagsMask(TCA_FLOWER_KEY_FLAGS_IS_FRAGMENT) => {}
                Key::TcpDst(number) => seen.to_port = Some((Protocol::Tcp, *number)),
                Key::UdpDst(number) => seen.to_port = Some((Protocol::Udp, *number)),
                Key::TcpSrc(number) => seen.from_port = Some((Protocol::Tcp, *number)),
                Key::UdpSrc(number) => seen.from_port = Some((Protocol::Udp, *number)),
                Key::KeyFlags(TCA_FLOWER_KEY_FLAGS_IS_FRAGMENT) => seen.is_fragment = true,
                Key::Ipv4Dst(address) if !source => seen.address = Some((*address).into()),
                Key::Ipv6Dst(address) if !source => seen.address = Some((*address).into()),
                Key::Ipv4Src(address) if source => seen.address = Some((*address).into()),
                Key::Ipv6Src(address) if source => seen.address = Some((*address).into()),
                Key::Ipv4DstMask(mask) if !source && *mask == EXACT_V4 => {}
                Key::Ipv6DstMask(mask) if !source && *mask == EXACT_V6 => {}
                Key::Ipv4SrcMask(mask) if source && *mask == EXACT_V4 => {}
                Key::Ipv6SrcMask(mask) if source && *mask == EXACT_V6 => {}
                Key::ClassId(id) => seen.class = class_of(*id),
                Key::Actions(actions) => seen.verdict = Some(action::decode(actions)?),
                // The crate writes class ids but does not parse them.
                Key::Other(other) if other.kind() == TCA_FLOWER_CLASSID && other.value_len() == 4 => {
                    let [id] = read(&value(other))?;
                    seen.class = class_of(id);
                }
                // Hardware offload does not change the effect of a filter. The kernel adds the exact mask of a port.
                Key::Flags(_)
                | Key::InHwCount(_)
                | Key::TcpDstMask(u16::MAX)
                | Key::UdpDstMask(u16::MAX)
                | Key::TcpSrcMask(u16::MAX)
                | Key::UdpSrcMask(u16::MAX) => seen.keys -= 1,
                _ => return None,
            }
        }
        Some(seen)
    }

    fn traffic(&self) -> Option<Traffic> {
        let port = |(protocol, number)| Port { protocol, number };
        match (self.to_port, self.from_port, self.is_fragment) {
            (None, None, false) => Some(Traffic::All),
            (Some(to), None, false) => Some(Traffic::ToPort { port: port(to) }),
            (None, Some(from), false) => Some(Traffic::FromPort { port: port(from) }),
            (None, None, true) => match self.ip_proto? {
                IPPROTO_TCP => Some(Traffic::FragmentsOf { protocol: Protocol::Tcp }),
                IPPROTO_UDP => Some(Traffic::FragmentsOf { protocol: Protocol::Udp }),
                _ => None,
            },
            _ => None,
        }
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
        Protocol::Tcp => Key::IpProto(IPPROTO_TCP),
        Protocol::Udp => Key::IpProto(IPPROTO_UDP),
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

fn class_of(id: u32) -> Option<ClassMinor> {
    let handle = TcHandle::from(id);
    (handle.major == MARK).then_some(handle.minor)
}
