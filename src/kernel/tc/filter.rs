//! Flower filters: an exact key, a hash lookup, a class or an action (`tc-flower(8)`, `net/sched/cls_flower.c`).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rtnetlink::packet_core::Nla;
use rtnetlink::packet_route::{
    RouteNetlinkMessage,
    tc::{TcAttribute, TcFilterFlowerOption as Key, TcHandle, TcHeader, TcMessage, TcOption},
};

pub(in crate::kernel) use super::action::Verdict;
use super::{CLSACT_EGRESS, INGRESS, ROOT_HANDLE, Request, action, filter_info, kind, message};
use crate::plan::{Answer, ClassMinor, Cut, Direction, MARK, Port, Protocol, Tally, Traffic};

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

/// The priority of the neighbour-discovery filters: before everything.
const PREF_PASS: u16 = 1;
/// The priorities of the cuts, one per address family, so that each list has one mask.
const PREF_CUT: (u16, u16) = (2, 3);
/// The same of those that are answered, which come after: where both are, silence it is.
const PREF_REFUSAL: (u16, u16) = (4, 5);
/// The priority of the filter that sends packets to the active chain.
const PREF_GATE: u16 = 100;
/// The priorities of a chain's filters, one per address family.
const PREF_ROUTE: (u16, u16) = (10, 11);

/// One filter of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::kernel) enum Filter {
    /// Neighbour discovery of one type passes, uncut and undelayed.
    Pass {
        /// At which hook.
        direction: Direction,
        /// The `ICMPv6` type, which is the filter's handle as well.
        icmp_type: u8,
    },
    /// Some packets are dropped.
    Cut {
        /// Which.
        cut: Cut,
        /// The filter's handle.
        handle: u32,
    },
    /// Everything goes to a chain.
    Gate {
        /// The chain.
        chain: u32,
    },
    /// An address goes to a class.
    Route {
        /// The chain that the filter is in.
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
    /// `tc filter add …` (`replace` for the gate, which is what makes a flip one write).
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
        let (direction, handle, pref, protocol) = match self {
            Self::Pass { direction, icmp_type } => (direction, u32::from(icmp_type), PREF_PASS, ETH_P_IPV6),
            Self::Cut { cut: Cut { direction, address, answer, .. }, handle } => {
                let prefs = match answer {
                    Answer::Silence => PREF_CUT,
                    Answer::Refusal => PREF_REFUSAL,
                };
                (direction, handle, by_family(address, prefs), by_family(address, (ETH_P_IP, ETH_P_IPV6)))
            }
            Self::Gate { .. } => (Direction::Egress, 1, PREF_GATE, ETH_P_ALL),
            Self::Route { address, handle, .. } => {
                let pref = by_family(address, PREF_ROUTE);
                (Direction::Egress, handle, pref, by_family(address, (ETH_P_IP, ETH_P_IPV6)))
            }
        };
        let mut message = message(index, TcHandle::from(handle), parent(direction));
        message.header.info = filter_info(pref, protocol);
        if let Self::Route { chain, .. } = self {
            message.attributes.push(TcAttribute::Chain(chain));
        }
        message.attributes.push(TcAttribute::Kind("flower".to_owned()));
        let mut keys = self.keys();
        keys.push(Key::Flags(SKIP_HW));
        if let Self::Cut { cut: Cut { traffic: Traffic::FragmentsOf(_), .. }, .. } = self {
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
                    Direction::Egress => class_key(crate::plan::DEFAULT_CLASS),
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

    /// The filter that a dump shows, or `None` if it is not exactly one that we would make.
    ///
    /// It is decoded by what it does, then encoded again and compared, so that a key, a mask or an action that we
    /// know nothing of can never be taken for ours.
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
            // Chain 0 has the passes, the cuts and the gate, never a route.
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

/// What a filter's actions have seen.
pub(in crate::kernel) fn tally(message: &TcMessage) -> Tally {
    let options = message.attributes.iter().find_map(|attribute| match attribute {
        TcAttribute::Options(options) => Some(options),
        _ => None,
    });
    let actions = options.into_iter().flatten().find_map(|option| match option {
        TcOption::Flower(Key::Actions(actions)) => Some(actions.as_slice()),
        _ => None,
    });
    action::tally(actions.unwrap_or_default())
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

/// The three places of an interface that have filters, once we have taken it.
pub(in crate::kernel) const PARENTS: [TcHandle; 3] = [ROOT_HANDLE, INGRESS, CLSACT_EGRESS];

/// A filter as `tc` would point at it, for a message about one that is not ours.
pub(in crate::kernel) fn describe(message: &TcMessage) -> String {
    let [pref, protocol] = halves(message.header.info);
    let chain = chain(message);
    format!(
        "filter parent {} chain {chain} pref {pref} protocol {:#06x} handle {:#x} {}",
        super::hex(message.header.parent),
        u16::from_be(protocol),
        u32::from(message.header.handle),
        kind(message)
    )
}

/// Whether filters of ours have that priority.
pub(super) fn is_own_priority(pref: u16) -> bool {
    let pairs = [PREF_CUT, PREF_REFUSAL, PREF_ROUTE].into_iter().flat_map(|(v4, v6)| [v4, v6]);
    [PREF_PASS, PREF_GATE].into_iter().chain(pairs).any(|own| own == pref)
}

fn halves(word: u32) -> [u16; 2] {
    let TcHandle { major, minor } = TcHandle::from(word);
    [major, minor]
}

/// Everything in a flower filter that decides what it does.
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
    /// How many keys and masks there are, so that none escapes the comparison.
    keys: usize,
}

impl Seen {
    fn of(message: &TcMessage) -> Option<Self> {
        let mut seen = Self { chain: chain(message), ..Self::default() };
        let source = message.header.parent == INGRESS;
        let options = message.attributes.iter().find_map(|attribute| match attribute {
            TcAttribute::Options(options) => Some(options),
            _ => None,
        })?;
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
                // The crate writes the class id but does not read it back.
                Key::Other(nla) if nla.kind() == TCA_FLOWER_CLASSID && nla.value_len() == 4 => {
                    let mut id = [0; 4];
                    nla.emit_value(&mut id);
                    seen.class = class_of(u32::from_ne_bytes(id));
                }
                // Whether hardware took part, and how often, is not what the filter does; and the kernel shows the mask
                // of a port although none was given.
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
            (Some(to), None, false) => Some(Traffic::ToPort(port(to))),
            (None, Some(from), false) => Some(Traffic::FromPort(port(from))),
            (None, None, true) => match self.ip_proto? {
                IPPROTO_TCP => Some(Traffic::FragmentsOf(Protocol::Tcp)),
                IPPROTO_UDP => Some(Traffic::FragmentsOf(Protocol::Udp)),
                _ => None,
            },
            _ => None,
        }
    }
}

pub(super) fn chain(message: &TcMessage) -> u32 {
    let chain = message.attributes.iter().find_map(|attribute| match attribute {
        TcAttribute::Chain(chain) => Some(*chain),
        _ => None,
    });
    chain.unwrap_or(0)
}

fn parent(direction: Direction) -> TcHandle {
    match direction {
        Direction::Egress => ROOT_HANDLE,
        Direction::Ingress => INGRESS,
    }
}

fn by_family(address: IpAddr, (v4, v6): (u16, u16)) -> u16 {
    if address.is_ipv4() { v4 } else { v6 }
}

fn address_keys(direction: Direction, address: IpAddr) -> Vec<Key> {
    match (direction, address) {
        (Direction::Egress, IpAddr::V4(ip)) => vec![Key::Ipv4Dst(ip), Key::Ipv4DstMask(EXACT_V4)],
        (Direction::Egress, IpAddr::V6(ip)) => vec![Key::Ipv6Dst(ip), Key::Ipv6DstMask(EXACT_V6)],
        (Direction::Ingress, IpAddr::V4(ip)) => vec![Key::Ipv4Src(ip), Key::Ipv4SrcMask(EXACT_V4)],
        (Direction::Ingress, IpAddr::V6(ip)) => vec![Key::Ipv6Src(ip), Key::Ipv6SrcMask(EXACT_V6)],
    }
}

/// The keys of a port or protocol, in the order in which `tc` writes them.
fn port_keys(traffic: Traffic) -> Vec<Key> {
    let of = |protocol: Protocol| {
        Key::IpProto(match protocol {
            Protocol::Tcp => IPPROTO_TCP,
            Protocol::Udp => IPPROTO_UDP,
        })
    };
    let protocol = |port: Port| of(port.protocol);
    match traffic {
        Traffic::All => vec![],
        Traffic::ToPort(port @ Port { protocol: Protocol::Tcp, number }) => {
            vec![protocol(port), Key::TcpDst(number)]
        }
        Traffic::ToPort(port @ Port { protocol: Protocol::Udp, number }) => {
            vec![protocol(port), Key::UdpDst(number)]
        }
        Traffic::FromPort(port @ Port { protocol: Protocol::Tcp, number }) => {
            vec![protocol(port), Key::TcpSrc(number)]
        }
        Traffic::FromPort(port @ Port { protocol: Protocol::Udp, number }) => {
            vec![protocol(port), Key::UdpSrc(number)]
        }
        Traffic::FragmentsOf(protocol) => vec![of(protocol)],
    }
}

fn class_key(class: ClassMinor) -> Key {
    Key::ClassId(u32::from(TcHandle { major: MARK, minor: class }))
}

fn class_of(id: u32) -> Option<ClassMinor> {
    let handle = TcHandle::from(id);
    (handle.major == MARK).then_some(handle.minor)
}
