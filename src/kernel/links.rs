//! Makes the links of a lab (rtnetlink(7)): bridges, veth pairs into other namespaces, addresses and neighbours.

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
        neighbour_table::{NeighbourTableAttribute, NeighbourTableMessage, NeighbourTableParameter},
    },
};

use super::{KernelError, bytes::first, neighbours::permanent, socket::Socket, tc::Request};
use crate::plan::is_link_local;

/// How often the kernel asks for the hardware address of a neighbour, once a second, before it resolves the address
/// itself.
const QUESTIONS: u32 = 1;

/// The links of one network namespace.
pub struct Links {
    socket: Socket,
}

/// The interface index of a bridge.
#[derive(Clone, Copy, Debug)]
pub struct Bridge(u32);

/// A veth pair between a bridge and an interface in another namespace.
pub struct Cable<'a> {
    /// The bridge.
    pub bridge: Bridge,
    /// The name of the bridge's port.
    pub port: String,
    /// The namespace of the interface.
    pub namespace: BorrowedFd<'a>,
    /// The name of the interface.
    pub interface: &'a str,
    /// The hardware address of the interface.
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
        self.write(&format!("add bridge {name}"), [Request::add(bridge)])?;
        self.index(name).map(Bridge)
    }

    /// Adds veth pairs, and sets their bridge ports up.
    pub fn add_cables(&mut self, cables: &[Cable<'_>]) -> Result<(), KernelError> {
        let requests = cables.iter().map(|cable| {
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
        });
        self.write("add the cables", requests)
    }

    /// Adds addresses to an interface, and sets the interface up.
    ///
    /// If one of the addresses is link-local, the kernel does not generate a link-local address. Duplicate address
    /// detection is off, because the detection delays the use of an IPv6 address by one second.
    pub fn configure(&mut self, interface: &str, addresses: &[IpNetwork]) -> Result<(), KernelError> {
        let index = self.index(interface)?;
        let up = LinkMessageBuilder::<LinkUnspec>::new().index(index).up().build();
        let mut requests = vec![Request::existing(RouteNetlinkMessage::SetLink(up))];
        if addresses.iter().any(|network| is_link_local(&network.ip())) {
            let mut no_other = LinkMessage::default();
            no_other.header.index = index;
            let mode = AfSpecInet6::AddrGenMode(In6AddrGenMode::None);
            no_other.attributes.push(LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(vec![mode])]));
            requests.insert(0, Request::existing(RouteNetlinkMessage::SetLink(no_other)));
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
        self.write(&format!("configure {interface}"), requests)
    }

    /// Adds permanent neighbour entries to an interface, so that no ARP or neighbour discovery is needed.
    pub fn add_neighbours(&mut self, interface: &str, neighbours: &[(IpAddr, Mac)]) -> Result<(), KernelError> {
        let index = self.index(interface)?;
        let add = |(address, mac): &(IpAddr, Mac)| {
            Request::add(RouteNetlinkMessage::NewNeighbour(permanent(index, *address, *mac)))
        };
        self.write(&format!("add the neighbours of {interface}"), neighbours.iter().map(add))
    }

    /// Makes the kernel ask [`NeighbourQuestions`](super::NeighbourQuestions) for unknown neighbours of an interface.
    pub fn ask_for_neighbours(&mut self, interface: &str) -> Result<(), KernelError> {
        let index = self.index(interface)?;
        let ask = |family, table: &str| {
            let mut message = NeighbourTableMessage::default();
            message.header.family = family;
            let parameters =
                vec![NeighbourTableParameter::Ifindex(index), NeighbourTableParameter::AppProbes(QUESTIONS)];
            message.attributes.push(NeighbourTableAttribute::Name(table.to_owned()));
            message.attributes.push(NeighbourTableAttribute::Parms(parameters));
            Request::existing(RouteNetlinkMessage::SetNeighbourTable(message))
        };
        let tables = [ask(AddressFamily::Inet, "arp_cache"), ask(AddressFamily::Inet6, "ndisc_cache")];
        self.write(&format!("ask for the neighbours of {interface}"), tables)
    }

    /// Waits until all links that are set up are operational. Bridge ports become operational after a delay.
    pub fn wait_until_up(&mut self, within: Duration) -> Result<(), KernelError> {
        let deadline = Instant::now() + within;
        loop {
            let answer = self.socket.ask(&Request::dump(RouteNetlinkMessage::GetLink(LinkMessage::default())))?;
            let links = answer.map_err(|refusal| refusal.because("list the links"))?;
            let Some(waiting) = links.iter().find_map(not_up) else { return Ok(()) };
            if Instant::now() > deadline {
                return Err(KernelError::Malformed(format!("link {waiting} does not come up")));
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn index(&mut self, name: &str) -> Result<u32, KernelError> {
        let link = self.socket.link_by_name(name)?;
        let link = link.ok_or_else(|| KernelError::Malformed(format!("no answer about {name}")))?;
        Ok(link.header.index)
    }

    fn write(&mut self, operation: &str, requests: impl IntoIterator<Item = Request>) -> Result<(), KernelError> {
        match self.socket.batch(requests)?.into_iter().next() {
            Some((_, refusal)) => Err(refusal.because(operation)),
            None => Ok(()),
        }
    }
}

pub(super) fn family(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

/// The name of a link that is set up and not yet operational. `None` for all other links.
///
/// The operational state of loopback is never `Up`. Links that are not set up are ignored: the kernel adds some to each
/// new namespace, such as `gre0` if the GRE module is loaded.
pub(super) fn not_up(message: &RouteNetlinkMessage) -> Option<String> {
    let RouteNetlinkMessage::NewLink(link) = message else { return None };
    let is_set_up = link.header.flags.contains(LinkFlags::Up) && !link.header.flags.contains(LinkFlags::Loopback);
    let is_operational = link.attributes.contains(&LinkAttribute::OperState(State::Up));
    let name = first!(link.attributes, LinkAttribute::IfName(name) => name.clone());
    (is_set_up && !is_operational).then(|| name.unwrap_or_default())
}
