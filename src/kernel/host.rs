//! The interfaces of a host, for whoever has to choose one: their names, addresses, state and speed. Read-only.

use std::{collections::BTreeSet, fs, net::IpAddr};

use ipnetwork::IpNetwork;
use rtnetlink::packet_route::{
    RouteNetlinkMessage,
    address::{AddressAttribute, AddressMessage},
    link::{LinkAttribute, LinkFlags, LinkMessage, State},
    route::{RouteAttribute, RouteMessage},
};

use super::{Interface, KernelError, Mac, socket::Socket, tc::Request};
use crate::plan::IfName;

/// One interface of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub name: IfName,
    /// Its hardware address, if it has one of six bytes.
    pub mac: Option<Mac>,
    /// Its addresses with their networks' prefixes, IPv4 first, otherwise in the kernel's order.
    pub addresses: Vec<IpNetwork>,
    /// Whether it carries packets at this moment.
    pub is_up: bool,
    /// How many bytes a packet may have on it.
    pub mtu: u32,
    /// Its speed in Mbit/s, where it knows it.
    pub speed_mbit: Option<u32>,
    /// Whether a default route leaves by it.
    pub carries_default_route: bool,
}

impl Port {
    /// An interface of which only that much is known, for a kernel in memory.
    pub(super) fn of(interface: &Interface) -> Self {
        Self {
            index: interface.index,
            name: interface.name.clone(),
            mac: None,
            addresses: interface.addresses.iter().copied().map(IpNetwork::from).collect(),
            is_up: true,
            mtu: 1_500,
            speed_mbit: None,
            carries_default_route: interface.carries_default_route,
        }
    }
}

/// All interfaces of the socket's namespace but the loopback, in the order of their indices.
pub(super) fn ports(socket: &mut Socket) -> Result<Vec<Port>, KernelError> {
    let mut ask = |what: &str, message| {
        let answer = socket.ask(&Request::dump(message))?;
        answer.map_err(|refusal| refusal.because(format!("list the {what}")))
    };
    let links = ask("links", RouteNetlinkMessage::GetLink(LinkMessage::default()))?;
    let addresses = ask("addresses", RouteNetlinkMessage::GetAddress(AddressMessage::default()))?;
    let routes = ask("routes", RouteNetlinkMessage::GetRoute(RouteMessage::default()))?;
    let default_routes: BTreeSet<u32> = routes.into_iter().flat_map(default_route_interfaces).collect();
    let mut addresses: Vec<(u32, IpNetwork)> = addresses.into_iter().filter_map(address).collect();
    addresses.sort_by_key(|(_, network)| network.is_ipv6());
    let mut ports: Vec<Port> = links.into_iter().filter_map(port).collect();
    ports.sort_by_key(|port| port.index);
    for port in &mut ports {
        let own = addresses.iter().filter(|(index, _)| *index == port.index);
        port.addresses = own.map(|(_, network)| *network).collect();
        port.carries_default_route = default_routes.contains(&port.index);
        port.speed_mbit = speed_mbit(&port.name);
    }
    Ok(ports)
}

/// An interface's speed in Mbit/s from sysfs, where it knows it and sysfs is that of this namespace.
pub(super) fn speed_mbit(name: &IfName) -> Option<u32> {
    let speed = fs::read_to_string(format!("/sys/class/net/{name}/speed")).ok()?;
    speed.trim().parse().ok().filter(|mbit| *mbit > 0)
}

/// What a link's own message says of it; `None` of the loopback.
fn port(message: RouteNetlinkMessage) -> Option<Port> {
    let RouteNetlinkMessage::NewLink(link) = message else { return None };
    if link.header.flags.contains(LinkFlags::Loopback) {
        return None;
    }
    let (mut name, mut mac, mut mtu, mut state) = (None, None, 0, State::Unknown);
    for attribute in link.attributes {
        match attribute {
            LinkAttribute::IfName(text) => name = text.parse().ok(),
            LinkAttribute::Address(bytes) => mac = bytes.try_into().ok(),
            LinkAttribute::Mtu(bytes) => mtu = bytes,
            LinkAttribute::OperState(now) => state = now,
            _ => {}
        }
    }
    // Drivers that do not say how they are (tun for one) are up when somebody has set them up.
    let is_up = match state {
        State::Up => true,
        State::Unknown => link.header.flags.contains(LinkFlags::Up),
        _ => false,
    };
    let index = link.header.index;
    Some(Port {
        index,
        name: name?,
        mac,
        addresses: Vec::new(),
        is_up,
        mtu,
        speed_mbit: None,
        carries_default_route: false,
    })
}

fn address(message: RouteNetlinkMessage) -> Option<(u32, IpNetwork)> {
    let RouteNetlinkMessage::NewAddress(message) = message else { return None };
    let address = own_address(&message)?;
    Some((message.header.index, IpNetwork::new(address, message.header.prefix_len).ok()?))
}

/// The interface's own address in a message about an address.
pub(super) fn own_address(message: &AddressMessage) -> Option<IpAddr> {
    // IFA_LOCAL is the interface's own address where IFA_ADDRESS is the peer's (point to point).
    let local = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    });
    let address = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Address(address) => Some(*address),
        _ => None,
    });
    local.or(address)
}

/// The interfaces that a default route leaves by; none of any other route.
pub(super) fn default_route_interfaces(message: RouteNetlinkMessage) -> Vec<u32> {
    let RouteNetlinkMessage::NewRoute(message) = message else { return Vec::new() };
    if message.header.destination_prefix_length != 0 {
        return Vec::new();
    }
    let interfaces = message.attributes.iter().flat_map(|attribute| match attribute {
        RouteAttribute::Oif(index) => vec![*index],
        RouteAttribute::MultiPath(hops) => hops.iter().map(|hop| hop.interface_index).collect(),
        _ => Vec::new(),
    });
    interfaces.collect()
}
