//! Links and addresses for the lab, over netlink: bridges, virtual cables into other namespaces.

use std::{
    io,
    net::IpAddr,
    os::fd::{AsRawFd, BorrowedFd},
    thread,
    time::{Duration, Instant},
};

use ipnetwork::IpNetwork;
use rtnetlink::{
    LinkBridge, LinkMessageBuilder, LinkUnspec, LinkVeth,
    packet_route::{
        AddressFamily, RouteNetlinkMessage,
        address::{AddressAttribute, AddressFlags, AddressMessage},
        link::{
            AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoData, InfoVeth, LinkAttribute, LinkFlags, LinkMessage, State,
        },
        neighbour::{NeighbourAttribute, NeighbourMessage, NeighbourState},
    },
};

use super::{KernelError, socket::Socket, tc::Request};
use crate::plan::is_link_local;

/// The links of one network namespace.
pub struct Links {
    socket: Socket,
}

/// A bridge by its interface index.
#[derive(Clone, Copy, Debug)]
pub struct Bridge(u32);

/// A virtual cable (veth) from a bridge to an interface in another namespace.
pub struct Cable<'a> {
    /// Where it is plugged in here.
    pub bridge: Bridge,
    /// The name of the end that is here.
    pub port: String,
    /// The namespace of the other end.
    pub namespace: BorrowedFd<'a>,
    /// The name of the other end.
    pub interface: &'a str,
    /// The hardware address of the other end.
    pub mac: Mac,
}

/// A hardware address.
pub type Mac = [u8; 6];

impl Links {
    /// Opens a socket in the network namespace of the calling thread.
    pub fn open() -> io::Result<Self> {
        Ok(Self { socket: Socket::open()? })
    }

    /// Adds a bridge and sets it up.
    pub fn add_bridge(&mut self, name: &str) -> Result<Bridge, KernelError> {
        let bridge = RouteNetlinkMessage::NewLink(LinkBridge::new(name).up().build());
        self.write(&format!("add bridge {name}"), &[Request::add(bridge)])?;
        self.index(name).map(Bridge)
    }

    /// Adds cables, their ends here up and plugged in.
    pub fn add_cables(&mut self, cables: &[Cable<'_>]) -> Result<(), KernelError> {
        let requests: Vec<Request> = cables
            .iter()
            .map(|cable| {
                let far_end = LinkMessageBuilder::<LinkUnspec>::new()
                    .name(cable.interface)
                    .address(cable.mac.to_vec())
                    .setns_by_fd(cable.namespace.as_raw_fd())
                    .build();
                let near_end = LinkMessageBuilder::<LinkVeth>::new(&cable.port, cable.interface)
                    .set_info_data(InfoData::Veth(InfoVeth::Peer(far_end)))
                    .controller(cable.bridge.0)
                    .up()
                    .build();
                Request::add(RouteNetlinkMessage::NewLink(near_end))
            })
            .collect();
        self.write("add the cables", &requests)
    }

    /// Gives an interface its addresses and sets it up. With a link-local address among them, it has no other.
    ///
    /// Duplicate address detection is left out: it would keep an IPv6 address from use for a second.
    pub fn configure(&mut self, interface: &str, addresses: &[IpNetwork]) -> Result<(), KernelError> {
        let index = self.index(interface)?;
        let up = LinkMessageBuilder::<LinkUnspec>::new().index(index).up().build();
        let mut requests = vec![Request::set(RouteNetlinkMessage::SetLink(up))];
        if addresses.iter().any(|network| is_link_local(&network.ip())) {
            let mut no_other = LinkMessage::default();
            no_other.header.index = index;
            let mode = AfSpecInet6::AddrGenMode(In6AddrGenMode::None);
            no_other.attributes.push(LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(vec![mode])]));
            requests.insert(0, Request::set(RouteNetlinkMessage::SetLink(no_other)));
        }
        requests.extend(addresses.iter().map(|network| {
            let mut message = AddressMessage::default();
            message.header.index = index;
            message.header.prefix_len = network.prefix();
            message.header.family = family(network.ip());
            message.attributes.push(AddressAttribute::Local(network.ip()));
            message.attributes.push(AddressAttribute::Address(network.ip()));
            message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
            Request::add(RouteNetlinkMessage::NewAddress(message))
        }));
        self.write(&format!("configure {interface}"), &requests)
    }

    /// Writes down the neighbours of an interface for good, so that it never has to ask for them.
    pub fn add_neighbours(&mut self, interface: &str, neighbours: &[(IpAddr, Mac)]) -> Result<(), KernelError> {
        let index = self.index(interface)?;
        let add = |(address, mac): &(IpAddr, Mac)| {
            let mut message = NeighbourMessage::default();
            message.header.ifindex = index;
            message.header.state = NeighbourState::Permanent;
            message.header.family = family(*address);
            message.attributes.push(NeighbourAttribute::Destination((*address).into()));
            message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.to_vec()));
            Request::add(RouteNetlinkMessage::NewNeighbour(message))
        };
        let requests: Vec<Request> = neighbours.iter().map(add).collect();
        self.write(&format!("add the neighbours of {interface}"), &requests)
    }

    /// Waits until every link that is set up carries packets, which a bridge's port does some time after it is set up.
    pub fn wait_until_up(&mut self, within: Duration) -> Result<(), KernelError> {
        let deadline = Instant::now() + within;
        loop {
            let answer = self.socket.ask(&Request::dump(RouteNetlinkMessage::GetLink(LinkMessage::default())))?;
            let links = answer.map_err(|refusal| refusal.because("list the links"))?;
            let Some(waiting) = links.iter().find_map(not_up) else { return Ok(()) };
            if Instant::now() > deadline {
                return Err(KernelError::Garbled(format!("link {waiting} does not come up")));
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn index(&mut self, name: &str) -> Result<u32, KernelError> {
        let index = self.socket.link_index(name)?;
        index.ok_or_else(|| KernelError::Garbled(format!("no answer about {name}")))
    }

    fn write(&mut self, operation: &str, requests: &[Request]) -> Result<(), KernelError> {
        match self.socket.batch(requests)?.into_iter().next() {
            Some((_, refusal)) => Err(refusal.because(operation)),
            None => Ok(()),
        }
    }
}

fn family(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

/// The name of a link that is set up and does not carry packets yet. Loopback has no such state. Links that nobody set up
/// are those that the kernel gives every new namespace, such as `gre0` where the module of GRE is loaded.
pub(super) fn not_up(message: &RouteNetlinkMessage) -> Option<String> {
    let RouteNetlinkMessage::NewLink(link) = message else { return None };
    let is_up = |attribute: &LinkAttribute| matches!(attribute, LinkAttribute::OperState(State::Up));
    let name = link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.clone()),
        _ => None,
    });
    let is_set_up = link.header.flags.contains(LinkFlags::Up) && !link.header.flags.contains(LinkFlags::Loopback);
    let waits = is_set_up && !link.attributes.iter().any(is_up);
    waits.then(|| name.unwrap_or_default())
}
