//! What a host's network consists of, as far as it decides which interface may be shaped: its links and what lies on
//! what, their addresses, the default routes.
//!
//! One look at one network namespace ([`Kernel::host`](super::Kernel::host)); what follows from it is pure.

use std::{collections::BTreeSet, fs, net::IpAddr};

use ipnetwork::IpNetwork;
use rtnetlink::packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressFlags, AddressMessage},
    link::{
        AfSpecInet, AfSpecInet6, AfSpecUnspec, InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage, LinkXdp,
        XdpAttached,
    },
    route::{RouteAddress, RouteAttribute, RouteMessage, RouteType, RouteVia},
};

use super::Mac;

/// The links, addresses and default routes of one network namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostNetwork {
    /// All links.
    pub links: Vec<Link>,
    /// All default routes, of both families and all tables, whatever rule leads to them.
    pub default_routes: Vec<DefaultRoute>,
    /// The routers of all routes of all tables, each with the link that leads there.
    pub gateways: BTreeSet<(u32, IpAddr)>,
}

/// A link (rtnetlink(7), `RTM_NEWLINK`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the kernel's")]
pub struct Link {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// What kind of virtual link it is (`IFLA_INFO_KIND`: bridge, bond, vlan); `None`: hardware.
    pub kind: Option<String>,
    /// Whether it is the loopback.
    pub is_loopback: bool,
    /// Whether it is set up (`IFF_UP`).
    pub is_up: bool,
    /// Whether it is connected (`IFF_LOWER_UP`).
    pub has_carrier: bool,
    /// The bridge, bond or other link that it is a port of.
    pub master: Option<u32>,
    /// The link that it lies on (a VLAN's or tunnel's).
    pub lies_on: Option<u32>,
    /// Its hardware address, if it has one of six bytes.
    pub mac: Option<Mac>,
    /// How many bytes a packet may have on it.
    pub mtu: u32,
    /// How many packets its queue holds (`txqueuelen`).
    pub queue_length: u32,
    /// Whether an XDP program sees what it receives before all filters do.
    pub has_xdp: bool,
    /// Its addresses with their networks' prefixes, IPv4 first, otherwise in the kernel's order.
    pub addresses: Vec<IpNetwork>,
    /// Whether packets that arrive by it and are for others are sent on (`net.ipv4.conf.*.forwarding` and
    /// `net.ipv6.conf.*.forwarding`).
    pub forwards: bool,
}

/// A route to everywhere else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DefaultRoute {
    /// The link that it leaves by; `None`: the kernel does not say.
    pub link: Option<u32>,
    /// The router that it leads to, if there is one.
    pub gateway: Option<IpAddr>,
    /// The table that it is in (`ip rule` shows what leads there); the usual one is 254, `main`.
    pub table: u32,
}

impl Link {
    /// Whether an address is one of its own.
    pub fn has(&self, address: IpAddr) -> bool {
        self.addresses.iter().any(|network| network.ip() == address)
    }

    /// Its speed in Mbit/s from sysfs, where it knows it and sysfs is that of this namespace.
    pub fn speed_mbit(&self) -> Option<u32> {
        /// What every tun and tap says of itself until somebody sets a speed (`tun_default_link_ksettings`).
        const TUN_MBIT: u32 = 10;
        let speed = fs::read_to_string(format!("/sys/class/net/{}/speed", self.name)).ok()?;
        let is_constant = |mbit: u32| mbit == TUN_MBIT && self.kind.as_deref() == Some("tun");
        speed.trim().parse().ok().filter(|mbit| *mbit > 0 && !is_constant(*mbit))
    }
}

impl HostNetwork {
    /// A link by its index.
    pub fn link(&self, index: u32) -> Option<&Link> {
        self.links.iter().find(|link| link.index == index)
    }

    /// The link that has an address.
    pub fn owner(&self, address: IpAddr) -> Option<&Link> {
        self.links.iter().find(|link| link.has(address))
    }

    /// The links of which packets go through the queues of this one: itself, what it is a port of, what lies on it, and
    /// so on upwards.
    pub fn carried_by(&self, index: u32) -> Vec<&Link> {
        let mut carried = BTreeSet::from([index]);
        let mut found: Vec<&Link> = self.link(index).into_iter().collect();
        let mut next = 0;
        while let Some(link) = found.get(next).copied() {
            next += 1;
            let is_above = |other: &&Link| link.master == Some(other.index) || other.lies_on == Some(link.index);
            found.extend(self.links.iter().filter(is_above).filter(|other| carried.insert(other.index)));
        }
        found
    }

    /// The routers of the routes by a link, or by what is above it.
    pub fn gateways_by(&self, index: u32) -> BTreeSet<IpAddr> {
        let carried: BTreeSet<u32> = self.carried_by(index).iter().map(|link| link.index).collect();
        self.gateways.iter().filter(|(link, _)| carried.contains(link)).map(|(_, gateway)| *gateway).collect()
    }

    /// Whether packets that arrive by other links than this one may leave by it.
    pub fn forwards_to(&self, index: u32) -> bool {
        let carried: BTreeSet<u32> = self.carried_by(index).iter().map(|link| link.index).collect();
        self.links.iter().any(|link| link.forwards && !link.is_loopback && !carried.contains(&link.index))
    }

    /// The ports of a link.
    pub fn ports(&self, index: u32) -> Vec<&Link> {
        self.links.iter().filter(|link| link.master == Some(index)).collect()
    }
}

/// Puts a host together from what the kernel answers to dumps of its links, addresses and routes.
pub(super) fn decode(messages: impl IntoIterator<Item = RouteNetlinkMessage>) -> HostNetwork {
    let mut host = HostNetwork::default();
    let mut addresses: Vec<(u32, IpNetwork)> = Vec::new();
    for message in messages {
        match message {
            RouteNetlinkMessage::NewLink(message) => host.links.push(link(&message)),
            RouteNetlinkMessage::NewAddress(message) => {
                addresses.extend(address(&message).map(|address| (message.header.index, address)));
            }
            RouteNetlinkMessage::NewRoute(message) => {
                host.default_routes.extend(default_routes(&message));
                host.gateways.extend(ways(&message).into_iter().filter_map(|(link, gateway)| link.zip(gateway)));
            }
            _ => {}
        }
    }
    addresses.sort_by_key(|(_, address)| address.is_ipv6());
    for (index, address) in addresses {
        if let Some(link) = host.links.iter_mut().find(|link| link.index == index) {
            link.addresses.push(address);
        }
    }
    host
}

/// A link without its addresses, which the kernel tells by themselves.
pub(super) fn link(message: &LinkMessage) -> Link {
    let flags = message.header.flags;
    let mut link = Link {
        index: message.header.index,
        is_loopback: flags.contains(LinkFlags::Loopback),
        is_up: flags.contains(LinkFlags::Up),
        has_carrier: flags.contains(LinkFlags::LowerUp),
        ..Link::default()
    };
    let mut is_elsewhere = false;
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Address(bytes) => link.mac = bytes.as_slice().try_into().ok(),
            LinkAttribute::Mtu(bytes) => link.mtu = *bytes,
            LinkAttribute::TxQueueLen(packets) => link.queue_length = *packets,
            LinkAttribute::Xdp(xdp) => link.has_xdp = xdp.iter().any(is_attached),
            LinkAttribute::Controller(master) if *master > 0 => link.master = Some(*master),
            LinkAttribute::Link(below) if *below > 0 => link.lies_on = Some(*below),
            // What it lies on is in another namespace, where the index means another link.
            LinkAttribute::LinkNetNsId(_) => is_elsewhere = true,
            LinkAttribute::AfSpecUnspec(families) => link.forwards = families.iter().any(forwards),
            LinkAttribute::LinkInfo(info) => link.kind = info.iter().find_map(kind).or(link.kind),
            _ => {}
        }
    }
    // The two ends of a cable name each other and lie on nothing.
    let is_cable = matches!(link.kind.as_deref(), Some("veth" | "netkit" | "vxcan"));
    link.lies_on = link.lies_on.filter(|below| !is_elsewhere && !is_cable && *below != link.index);
    link
}

/// Whether a link forwards packets of one family.
fn forwards(family: &AfSpecUnspec) -> bool {
    match family {
        AfSpecUnspec::Inet(settings) => settings.iter().any(|setting| match setting {
            AfSpecInet::DevConf(settings) => settings.forwarding != 0,
            _ => false,
        }),
        AfSpecUnspec::Inet6(settings) => settings.iter().any(|setting| match setting {
            AfSpecInet6::DevConf(settings) => settings.forwarding != 0,
            _ => false,
        }),
        _ => false,
    }
}

fn is_attached(xdp: &LinkXdp) -> bool {
    matches!(xdp, LinkXdp::Attached(mode) if *mode != XdpAttached::None)
}

fn kind(info: &LinkInfo) -> Option<String> {
    match info {
        LinkInfo::Kind(InfoKind::Other(kind)) => Some(kind.clone()),
        LinkInfo::Kind(kind) => Some(kind.to_string()),
        _ => None,
    }
}

/// The address that an interface has by a message, with the prefix of its network.
pub(super) fn address(message: &AddressMessage) -> Option<IpNetwork> {
    // IFA_LOCAL is the interface's own address where IFA_ADDRESS is the peer's (point to point).
    let local = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    });
    let address = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Address(address) => Some(*address),
        _ => None,
    });
    IpNetwork::new(local.or(address)?, message.header.prefix_len).ok()
}

/// Whether the kernel uses an address: it has found that no other host has it, or does not wait to find out.
pub(super) fn is_used(message: &AddressMessage) -> bool {
    let flags = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Flags(flags) => Some(*flags),
        _ => None,
    });
    let has = |flag| flags.is_some_and(|flags| flags.contains(flag));
    !has(AddressFlags::Dadfailed) && (!has(AddressFlags::Tentative) || has(AddressFlags::Optimistic))
}

/// The default routes that a message tells of: one for each way that it leads.
pub(super) fn default_routes(message: &RouteMessage) -> Vec<DefaultRoute> {
    let header = &message.header;
    // Half of all addresses, and IPv6's 2000::/3, are a default route by another name, as VPNs set it.
    let is_default = match header.address_family {
        AddressFamily::Inet => header.destination_prefix_length <= 1,
        AddressFamily::Inet6 => header.destination_prefix_length <= 3,
        _ => false,
    };
    if !is_default {
        return Vec::new();
    }
    let table = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Table(number) => Some(*number),
        _ => None,
    });
    let table = table.unwrap_or_else(|| u32::from(header.table));
    ways(message).into_iter().map(|(link, gateway)| DefaultRoute { link, gateway, table }).collect()
}

/// The ways of a route: the link of each, and its router.
fn ways(message: &RouteMessage) -> Vec<(Option<u32>, Option<IpAddr>)> {
    // What is to be dropped (`blackhole`) or is for this host leads nowhere.
    if message.header.kind != RouteType::Unicast {
        return Vec::new();
    }
    let (mut link, mut router, mut ways) = (None, None, Vec::new());
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Oif(index) => link = Some(*index),
            RouteAttribute::MultiPath(hops) => {
                let way = |hop: &rtnetlink::packet_route::route::RouteNextHop| {
                    (Some(hop.interface_index), hop.attributes.iter().find_map(gateway))
                };
                ways.extend(hops.iter().map(way));
            }
            other => router = gateway(other).or(router),
        }
    }
    if ways.is_empty() {
        ways.push((link, router));
    }
    ways
}

fn gateway(attribute: &RouteAttribute) -> Option<IpAddr> {
    match attribute {
        RouteAttribute::Gateway(RouteAddress::Inet(address)) | RouteAttribute::Via(RouteVia::Inet(address)) => {
            Some((*address).into())
        }
        RouteAttribute::Gateway(RouteAddress::Inet6(address)) | RouteAttribute::Via(RouteVia::Inet6(address)) => {
            Some((*address).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use rtnetlink::packet_route::{link::InetDevConf, route::RouteNextHop};

    use super::*;

    fn link(index: u32, master: Option<u32>, lies_on: Option<u32>) -> Link {
        Link { index, name: format!("l{index}"), master, lies_on, ..Link::default() }
    }

    #[test]
    fn what_is_above_a_link_at_any_height_goes_through_its_queues_and_what_is_below_does_not() {
        // 1 and 2 are ports of bond 3, on which VLAN 4 lies, which is a port of bridge 5; 6 is by itself.
        let links = vec![
            link(1, Some(3), None),
            link(2, Some(3), None),
            link(3, None, None),
            link(4, Some(5), Some(3)),
            link(5, None, None),
            link(6, None, None),
        ];
        let host = HostNetwork { links, ..HostNetwork::default() };
        let carried = |index| host.carried_by(index).iter().map(|link| link.index).collect::<Vec<_>>();
        assert_eq!(carried(1), [1, 3, 4, 5]);
        assert_eq!(carried(3), [3, 4, 5]);
        assert_eq!(carried(4), [4, 5]);
        assert_eq!(carried(6), [6]);
        assert_eq!(carried(7), [0; 0]);
        assert_eq!(host.ports(3).len(), 2);
        let circle =
            HostNetwork { links: vec![link(1, Some(2), None), link(2, Some(1), None)], ..HostNetwork::default() };
        assert_eq!(circle.carried_by(1).len(), 2);
    }

    #[test]
    fn a_cable_lies_on_nothing_and_neither_does_what_lies_in_another_namespace() {
        let lies_on = |kind: InfoKind, others: &[LinkAttribute]| {
            let mut message = LinkMessage::default();
            message.attributes = vec![LinkAttribute::Link(7), LinkAttribute::LinkInfo(vec![LinkInfo::Kind(kind)])];
            message.attributes.extend(others.iter().cloned());
            super::link(&message).lies_on
        };
        assert_eq!(lies_on(InfoKind::Vlan, &[]), Some(7));
        assert_eq!(lies_on(InfoKind::Veth, &[]), None);
        assert_eq!(lies_on(InfoKind::MacVlan, &[LinkAttribute::LinkNetNsId(1)]), None);
    }

    #[test]
    fn an_address_that_another_host_may_have_is_not_used_yet() {
        let used = |flags: AddressFlags| {
            let mut message = AddressMessage::default();
            message.attributes.push(AddressAttribute::Flags(flags));
            is_used(&message)
        };
        assert!([AddressFlags::empty(), AddressFlags::Secondary, AddressFlags::Deprecated].into_iter().all(used));
        assert!(!used(AddressFlags::Tentative) && used(AddressFlags::Tentative | AddressFlags::Optimistic));
        assert!(!used(AddressFlags::Tentative | AddressFlags::Dadfailed));
    }

    #[test]
    fn an_xdp_program_is_seen_in_any_mode() {
        let has_xdp = |mode| {
            let mut message = LinkMessage::default();
            message.attributes = vec![LinkAttribute::Xdp(vec![LinkXdp::Attached(mode), LinkXdp::ProgId(7)])];
            super::link(&message).has_xdp
        };
        assert!([XdpAttached::Driver, XdpAttached::SocketBuffer, XdpAttached::Hardware].into_iter().all(has_xdp));
        assert!(!has_xdp(XdpAttached::None));
        assert!(!super::link(&LinkMessage::default()).has_xdp);
    }

    fn route(family: AddressFamily, prefix: u8, attributes: Vec<RouteAttribute>) -> RouteMessage {
        let mut message = RouteMessage::default();
        message.header.address_family = family;
        message.header.destination_prefix_length = prefix;
        message.header.kind = RouteType::Unicast;
        message.header.table = 254;
        message.attributes = attributes;
        message
    }

    #[test]
    fn a_router_is_told_with_its_link_whatever_the_route_and_a_link_says_whether_it_forwards() {
        let router: IpAddr = [10, 0, 0, 2].into();
        let by = vec![RouteAttribute::Gateway(router.into()), RouteAttribute::Oif(3)];
        let pods = RouteNetlinkMessage::NewRoute(route(AddressFamily::Inet, 24, by.clone()));
        let network = RouteNetlinkMessage::NewRoute(route(AddressFamily::Inet, 24, vec![RouteAttribute::Oif(3)]));
        let link = |index: u32, forwarding: i32| {
            let mut message = LinkMessage::default();
            message.header.index = index;
            let mut settings = InetDevConf::default();
            settings.forwarding = forwarding;
            let settings = AfSpecUnspec::Inet(vec![AfSpecInet::DevConf(settings)]);
            message.attributes = vec![LinkAttribute::AfSpecUnspec(vec![settings])];
            RouteNetlinkMessage::NewLink(message)
        };
        let host = decode([link(3, 1), link(4, 1), link(5, 0), pods, network]);
        assert_eq!(host.gateways_by(3), [router].into());
        assert_eq!(host.gateways_by(4), [].into());
        assert!(host.forwards_to(3), "what arrives by link 4");
        let alone = decode([link(3, 1), link(5, 0)]);
        assert!(!alone.forwards_to(3), "what it receives it does not send back");
    }

    #[test]
    fn a_default_route_is_one_in_any_table_by_any_way_and_by_halves() {
        let router: IpAddr = [10, 0, 0, 254].into();
        let by = |link| vec![RouteAttribute::Gateway(router.into()), RouteAttribute::Oif(link)];
        let told = |message: &RouteMessage| -> Vec<_> {
            default_routes(message).into_iter().map(|route| (route.link, route.gateway, route.table)).collect()
        };
        assert_eq!(told(&route(AddressFamily::Inet, 0, by(3))), [(Some(3), Some(router), 254)]);
        assert_eq!(told(&route(AddressFamily::Inet, 1, by(3))).len(), 1);
        assert_eq!(told(&route(AddressFamily::Inet, 8, by(3))), []);
        assert_eq!(told(&route(AddressFamily::Inet6, 3, by(3))).len(), 1);
        let elsewhere = [by(3), vec![RouteAttribute::Table(1000)]].concat();
        assert_eq!(told(&route(AddressFamily::Inet6, 0, elsewhere)), [(Some(3), Some(router), 1000)]);
        let hop = |index| {
            let mut hop = RouteNextHop::default();
            hop.interface_index = index;
            hop
        };
        let both = route(AddressFamily::Inet, 0, vec![RouteAttribute::MultiPath(vec![hop(3), hop(4)])]);
        assert_eq!(told(&both), [(Some(3), None, 254), (Some(4), None, 254)]);
        // By a next hop object of which the kernel does not tell the way.
        assert_eq!(told(&route(AddressFamily::Inet, 0, vec![RouteAttribute::NhId(9)])), [(None, None, 254)]);
        let mut dropped = route(AddressFamily::Inet, 0, Vec::new());
        dropped.header.kind = RouteType::BlackHole;
        assert_eq!(told(&dropped), []);
    }
}
