//! Decodes the links, addresses and routes of a host: [`HostNetwork`].
//!
//! [`Kernel::host`](super::Kernel::host) reads the dumps. The agent decides from the result which interface may be
//! shaped. Only [`Link::speed_mbit`] does I/O in this module.

use std::{collections::BTreeSet, fs, net::IpAddr};

use ipnetwork::IpNetwork;
use rtnetlink::packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressFlags, AddressMessage},
    link::{
        AfSpecInet, AfSpecInet6, AfSpecUnspec, InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage, LinkXdp,
        XdpAttached,
    },
    route::{RouteAddress, RouteAttribute, RouteMessage, RouteNextHop, RouteType, RouteVia},
};

use super::{Mac, bytes::first};

/// The links, addresses and default routes of one network namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostNetwork {
    /// All links.
    pub links: Vec<Link>,
    /// The default routes of both families and all tables.
    pub default_routes: Vec<DefaultRoute>,
    /// The gateways of all routes of all tables, each with the index of its link.
    pub gateways: BTreeSet<(u32, IpAddr)>,
}

/// A link (rtnetlink(7), `RTM_NEWLINK`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the kernel")]
pub struct Link {
    /// The index.
    pub index: u32,
    /// The name.
    pub name: String,
    /// The kind of a virtual link (`IFLA_INFO_KIND`: bridge, bond, vlan). `None`: hardware.
    pub kind: Option<String>,
    /// `IFF_LOOPBACK`.
    pub is_loopback: bool,
    /// `IFF_UP`.
    pub is_up: bool,
    /// `IFF_LOWER_UP`.
    pub has_carrier: bool,
    /// The index of the bridge or bond that has this link as a port (`IFLA_MASTER`).
    pub master: Option<u32>,
    /// The index of the link below a VLAN or tunnel (`IFLA_LINK`).
    pub lies_on: Option<u32>,
    /// The hardware address, if it has six bytes.
    pub mac: Option<Mac>,
    /// The MTU in bytes.
    pub mtu: u32,
    /// The queue length in packets (`txqueuelen`).
    pub queue_length: u32,
    /// True if the link has an XDP program. The program sees received packets before the filters.
    pub has_xdp: bool,
    /// The addresses with their prefixes: IPv4 first, otherwise in the kernel's order.
    pub addresses: Vec<IpNetwork>,
    /// True if the link forwards packets (`net.ipv4.conf.*.forwarding`, `net.ipv6.conf.*.forwarding`).
    pub forwards: bool,
}

/// A default route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DefaultRoute {
    /// The index of the outgoing link. `None`: the kernel does not report the link.
    pub link: Option<u32>,
    /// The gateway, if any.
    pub gateway: Option<IpAddr>,
    /// The routing table. The usual table is 254, `main`.
    pub table: u32,
}

impl Link {
    /// True if the link has this address.
    pub fn has(&self, address: IpAddr) -> bool {
        self.addresses.iter().any(|network| network.ip() == address)
    }

    /// The speed in Mbit/s from sysfs. `None`: the speed is unknown, or sysfs shows another namespace.
    pub fn speed_mbit(&self) -> Option<u32> {
        /// The constant speed of tun and tap (`tun_default_link_ksettings`).
        const TUN_MBIT: u32 = 10;
        let speed = fs::read_to_string(format!("/sys/class/net/{}/speed", self.name)).ok()?;
        let is_constant = |mbit: u32| mbit == TUN_MBIT && self.kind.as_deref() == Some("tun");
        speed.trim().parse().ok().filter(|mbit| *mbit > 0 && !is_constant(*mbit))
    }
}

impl HostNetwork {
    /// The link with this index.
    pub fn link(&self, index: u32) -> Option<&Link> {
        self.links.iter().find(|link| link.index == index)
    }

    /// The link with this address.
    pub fn owner(&self, address: IpAddr) -> Option<&Link> {
        self.links.iter().find(|link| link.has(address))
    }

    /// The links whose packets pass the queues of this link: the link itself and all links above it.
    ///
    /// A master is above its ports. A VLAN or tunnel is above its lower link.
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

    /// The gateways of the routes over this link, or over the links above this link.
    pub fn gateways_by(&self, index: u32) -> BTreeSet<IpAddr> {
        let carried: BTreeSet<u32> = self.carried_by(index).iter().map(|link| link.index).collect();
        self.gateways.iter().filter(|(link, _)| carried.contains(link)).map(|(_, gateway)| *gateway).collect()
    }

    /// True if the host may forward packets from other links to this link.
    pub fn forwards_to(&self, index: u32) -> bool {
        let carried: BTreeSet<u32> = self.carried_by(index).iter().map(|link| link.index).collect();
        self.links.iter().any(|link| link.forwards && !link.is_loopback && !carried.contains(&link.index))
    }

    /// The ports of a bridge or bond.
    pub fn ports(&self, index: u32) -> Vec<&Link> {
        self.links.iter().filter(|link| link.master == Some(index)).collect()
    }
}

/// Decodes the dumps of links, addresses and routes.
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
                host.gateways.extend(next_hops(&message).into_iter().filter_map(|(link, gateway)| link.zip(gateway)));
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

/// Decodes a link without its addresses. Addresses have their own messages.
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
            // The link below is in another namespace. Its index means another link here.
            LinkAttribute::LinkNetNsId(_) => is_elsewhere = true,
            LinkAttribute::AfSpecUnspec(families) => link.forwards = families.iter().any(forwards),
            LinkAttribute::LinkInfo(info) => link.kind = info.iter().find_map(kind).or(link.kind),
            _ => {}
        }
    }
    // IFLA_LINK of each end of a pair is the other end. Neither end is above the other.
    let is_pair = matches!(link.kind.as_deref(), Some("veth" | "netkit" | "vxcan"));
    link.lies_on = link.lies_on.filter(|below| !is_elsewhere && !is_pair && *below != link.index);
    link
}

/// True if a link forwards packets of the address family.
fn forwards(family: &AfSpecUnspec) -> bool {
    let forwarding = match family {
        AfSpecUnspec::Inet(settings) => first!(settings, AfSpecInet::DevConf(settings) => settings.forwarding),
        AfSpecUnspec::Inet6(settings) => first!(settings, AfSpecInet6::DevConf(settings) => settings.forwarding),
        _ => None,
    };
    forwarding.is_some_and(|forwarding| forwarding != 0)
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

/// The address in a message, with the prefix of its network.
pub(super) fn address(message: &AddressMessage) -> Option<IpNetwork> {
    // IFA_LOCAL is the interface's own address if IFA_ADDRESS is the peer's (point to point).
    let local = first!(message.attributes, AddressAttribute::Local(address) => *address);
    let address = || first!(message.attributes, AddressAttribute::Address(address) => *address);
    IpNetwork::new(local.or_else(address)?, message.header.prefix_len).ok()
}

/// True if the kernel uses the address: duplicate address detection has passed, or the address is optimistic.
pub(super) fn is_used(message: &AddressMessage) -> bool {
    let flags = first!(message.attributes, AddressAttribute::Flags(flags) => *flags);
    let has = |flag| flags.is_some_and(|flags| flags.contains(flag));
    !has(AddressFlags::Dadfailed) && (!has(AddressFlags::Tentative) || has(AddressFlags::Optimistic))
}

/// The default routes in a message, one for each next hop.
pub(super) fn default_routes(message: &RouteMessage) -> Vec<DefaultRoute> {
    let header = &message.header;
    // VPNs replace the default route by two routes to half of IPv4 each, or by a route to 2000::/3.
    let is_default = match header.address_family {
        AddressFamily::Inet => header.destination_prefix_length <= 1,
        AddressFamily::Inet6 => header.destination_prefix_length <= 3,
        _ => false,
    };
    if !is_default {
        return Vec::new();
    }
    let table = first!(message.attributes, RouteAttribute::Table(number) => *number);
    let table = table.unwrap_or_else(|| u32::from(header.table));
    next_hops(message).into_iter().map(|(link, gateway)| DefaultRoute { link, gateway, table }).collect()
}

/// The link and the gateway of each next hop of a route.
fn next_hops(message: &RouteMessage) -> Vec<(Option<u32>, Option<IpAddr>)> {
    // Routes of other types drop packets (`blackhole`) or deliver packets to this host.
    if message.header.kind != RouteType::Unicast {
        return Vec::new();
    }
    if let Some(hops) = first!(message.attributes, RouteAttribute::MultiPath(hops) if !hops.is_empty() => hops) {
        let hop = |hop: &RouteNextHop| (Some(hop.interface_index), hop.attributes.iter().find_map(gateway));
        return hops.iter().map(hop).collect();
    }
    let link = first!(message.attributes, RouteAttribute::Oif(index) => *index);
    vec![(link, message.attributes.iter().find_map(gateway))]
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
    fn a_link_carries_the_packets_of_links_above_and_not_of_links_below() {
        // Links 1 and 2 are ports of bond 3. VLAN 4 is above bond 3 and is a port of bridge 5. Link 6 is separate.
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
    fn a_veth_and_a_link_with_a_lower_link_in_another_namespace_have_no_lower_link() {
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
    fn tentative_and_duplicate_addresses_are_not_used() {
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
    fn an_xdp_program_is_detected_in_any_mode() {
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
    fn gateways_are_found_by_link_and_forwarding_is_from_other_links() {
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
        assert!(host.forwards_to(3), "link 4 forwards to link 3");
        let alone = decode([link(3, 1), link(5, 0)]);
        assert!(!alone.forwards_to(3), "a link does not forward to itself");
    }

    #[test]
    fn default_routes_are_found_in_all_tables_with_all_next_hops_and_as_halves() {
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
        // A route over a next hop object: the kernel does not report the link.
        assert_eq!(told(&route(AddressFamily::Inet, 0, vec![RouteAttribute::NhId(9)])), [(None, None, 254)]);
        let mut dropped = route(AddressFamily::Inet, 0, Vec::new());
        dropped.header.kind = RouteType::BlackHole;
        assert_eq!(told(&dropped), []);
    }
}
