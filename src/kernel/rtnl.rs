//! The real kernel, over one rtnetlink socket.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
    os::fd::OwnedFd,
};

use rtnetlink::packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::AddressMessage,
    link::{LinkAttribute, LinkMessage},
    route::{RouteAttribute, RouteMessage},
    tc::TcMessage,
};

use super::{
    Event, HostNetwork, Interface, Kernel, KernelError, Partly, host, loan,
    observe::{self, Dumps},
    refuse::Refuser,
    socket::{Refusal, Socket},
    tc::{
        self, Request,
        filter::{self, Filter},
        netem, qdisc,
    },
    watch::Watch,
};
use crate::{
    plan::{IfName, LineRate, Route, Step, Tree},
    topology::Tables,
};

const ENOENT: i32 = 2;
const EEXIST: i32 = 17;
/// What the kernel says of a qdisc that is not there (`tc_get_qdisc`: "Invalid handle").
const EINVAL: i32 = 22;
const ENETUNREACH: i32 = 101;
const EHOSTUNREACH: i32 = 113;

/// What the kernel gives links that say nothing of their queue (`DEFAULT_TX_QUEUE_LEN`).
const QUEUE_LENGTH: u32 = 1_000;

/// A socket of one network namespace.
pub struct Rtnl {
    socket: Socket,
    /// What has been learnt.
    tables: Tables,
    /// Who answers, while there is something to be answered.
    refuser: Option<Refuser>,
    /// Who tells what others do, once somebody has asked.
    watch: Option<Watch>,
    /// The last known speed of each interface, by index. An interface without a carrier has none.
    speeds: BTreeMap<u32, LineRate>,
}

impl Rtnl {
    /// Opens a socket in the network namespace of the calling thread.
    pub fn open() -> io::Result<Self> {
        Ok(Self::on(Socket::open()?))
    }

    /// A socket in a new network namespace that a child process makes and that ends with the socket: for who lacks
    /// `CAP_SYS_ADMIN`, but may make user namespaces.
    pub fn open_elsewhere() -> io::Result<Self> {
        Ok(Self::on(loan::borrow()?))
    }

    fn on(socket: Socket) -> Self {
        Self { socket, tables: Tables::new(), refuser: None, watch: None, speeds: BTreeMap::new() }
    }

    fn watch(&mut self) -> io::Result<&Watch> {
        match &mut self.watch {
            Some(watch) => Ok(watch),
            none => Ok(none.insert(Watch::open(self.socket.port()?)?)),
        }
    }

    fn dump<T>(
        &mut self,
        operation: &str,
        request: &Request,
        pick: impl Fn(RouteNetlinkMessage) -> Option<T>,
    ) -> Result<Vec<T>, KernelError> {
        let answer = self.socket.ask(request)?.map_err(|refusal| refusal.because(operation))?;
        Ok(answer.into_iter().filter_map(pick).collect())
    }

    fn write(&mut self, step: &Step, index: u32, tolerated: &[i32]) -> Result<(), KernelError> {
        // Our classes have queues of the interface's own length, and one of length 0 drops everything.
        let length = match step {
            Step::AddRoot if self.is_queueless(index)? => Some(QUEUE_LENGTH),
            Step::RemoveRoot if self.was_queueless(index)? => Some(0),
            _ => None,
        };
        let requests = match (step, length) {
            (Step::AddRoot, Some(_)) => vec![qdisc::add_root(index, true)],
            _ => encode(step, index, &self.tables)?,
        };
        self.send(step, &requests, tolerated)?;
        length.map_or(Ok(()), |length| self.send(step, &[set_queue_length(index, length)], tolerated))
    }

    fn send(&mut self, step: &Step, requests: &[Request], tolerated: &[i32]) -> Result<(), KernelError> {
        let is_tolerated =
            |refusal: &Refusal| refusal.errno.raw_os_error().is_some_and(|errno| tolerated.contains(&errno));
        let refusals = self.socket.batch(requests)?;
        match refusals.into_iter().map(|(_, refusal)| refusal).find(|refusal| !is_tolerated(refusal)) {
            Some(refusal) => Err(refusal.because(step.to_string())),
            None => Ok(()),
        }
    }

    /// Whether the interface's queue has the length 0.
    fn is_queueless(&mut self, index: u32) -> Result<bool, KernelError> {
        Ok(self.socket.link_by_index(index)?.is_some_and(|link| host::link(&link).queue_length == 0))
    }

    /// Whether it had when our root was put on it.
    fn was_queueless(&mut self, index: u32) -> Result<bool, KernelError> {
        Ok(observe::own_root(&self.qdiscs(index)?).is_some_and(qdisc::was_queueless))
    }

    fn qdiscs(&mut self, index: u32) -> Result<Vec<TcMessage>, KernelError> {
        let mut qdiscs = self.dump("list the qdiscs", &qdisc::dump_qdiscs(index), |message| match message {
            RouteNetlinkMessage::NewQueueDiscipline(message) => Some(message),
            _ => None,
        })?;
        qdiscs.retain(|message| message.header.index == index.cast_signed());
        Ok(qdiscs)
    }

    /// The messages of steps that have one each.
    fn encode_all(&self, steps: &[Step], index: u32) -> Result<Vec<Request>, KernelError> {
        let requests = steps.iter().map(|step| encode(step, index, &self.tables));
        Ok(requests.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
    }
}

impl Kernel for Rtnl {
    fn interface(&mut self, name: &IfName) -> Result<Interface, KernelError> {
        let link = self.socket.link_by_name(name.as_str())?.ok_or_else(|| KernelError::NoInterface(name.clone()))?;
        let link = host::link(&link);
        // The kernel finds a link by any of its names, but a claim and a journal are of one.
        if link.name != name.as_str() {
            return Err(KernelError::AlternativeName { asked: name.clone(), name: link.name });
        }
        let host::Link { index, is_up, has_carrier, .. } = link;
        let addresses = Request::dump(RouteNetlinkMessage::GetAddress(AddressMessage::default()));
        let addresses = self.dump("list the addresses", &addresses, |message| match message {
            RouteNetlinkMessage::NewAddress(message) if message.header.index == index => {
                host::address(&message).map(|network| (network.ip(), host::is_used(&message)))
            }
            _ => None,
        })?;
        let tentative = addresses.iter().filter(|(_, is_used)| !is_used).map(|(address, _)| *address).collect();
        let addresses = addresses.into_iter().map(|(address, _)| address).collect();
        if let Some(mbit) = link.speed_mbit() {
            self.speeds.insert(index, LineRate::from_mbit(mbit));
        }
        let rate = self.speeds.get(&index).copied().unwrap_or(LineRate::UNKNOWN);
        Ok(Interface { index, name: name.clone(), rate, addresses, tentative, is_up, has_carrier })
    }

    fn host(&mut self) -> Result<HostNetwork, KernelError> {
        let dumps = [
            ("list the links", RouteNetlinkMessage::GetLink(LinkMessage::default())),
            ("list the addresses", RouteNetlinkMessage::GetAddress(AddressMessage::default())),
            // Of both families, and of all tables.
            ("list the routes", RouteNetlinkMessage::GetRoute(RouteMessage::default())),
        ];
        let mut messages = Vec::new();
        for (operation, request) in dumps {
            messages.extend(self.dump(operation, &Request::dump(request), Some)?);
        }
        Ok(host::decode(messages))
    }

    fn way_to(&mut self, address: IpAddr, from: Option<IpAddr>) -> Result<Option<u32>, KernelError> {
        let (family, bits) = if address.is_ipv4() { (AddressFamily::Inet, 32) } else { (AddressFamily::Inet6, 128) };
        let mut message = RouteMessage::default();
        message.header.address_family = family;
        message.header.destination_prefix_length = bits;
        message.attributes.push(RouteAttribute::Destination(address.into()));
        if let Some(from) = from {
            message.header.source_prefix_length = bits;
            message.attributes.push(RouteAttribute::Source(from.into()));
        }
        match self.socket.ask(&Request::get(RouteNetlinkMessage::GetRoute(message)))? {
            Ok(answer) => Ok(answer.iter().find_map(leaves_by)),
            Err(refusal) if matches!(refusal.errno.raw_os_error(), Some(ENETUNREACH | EHOSTUNREACH)) => Ok(None),
            Err(refusal) => Err(refusal.because(format!("look up the way to {address}"))),
        }
    }

    fn events(&mut self) -> Result<Vec<Event>, KernelError> {
        Ok(self.watch()?.events())
    }

    fn news(&mut self) -> Option<OwnedFd> {
        self.watch().and_then(Watch::news).ok()
    }

    fn observe(&mut self, interface: &Interface) -> Result<Tree, KernelError> {
        let index = interface.index;
        let class = |message| match message {
            RouteNetlinkMessage::NewTrafficClass(message) => Some(message),
            _ => None,
        };
        let filter = |message| match message {
            RouteNetlinkMessage::NewTrafficFilter(message) => Some(message),
            _ => None,
        };
        let mut dumps = Dumps { qdiscs: self.qdiscs(index)?, ..Dumps::default() };
        if observe::is_taken(&dumps.qdiscs) {
            dumps.classes = self.dump("list the classes", &qdisc::dump_classes(index), class)?;
        }
        let is_taken = observe::is_taken(&dumps.qdiscs);
        // Where somebody has deleted our root, our hook is there still.
        if is_taken || observe::has_hook(&dumps.qdiscs) {
            for parent in filter::PARENTS.into_iter().filter(|parent| is_taken || *parent != tc::ROOT_HANDLE) {
                // Without clsact, its two parents are silently empty.
                dumps.filters.extend(self.dump("list the filters", &filter::dump(index, parent), filter)?);
            }
        }
        // Of a link that is gone, all dumps are empty.
        if !self.socket.has_link(index)? {
            return Err(KernelError::NoInterface(interface.name.clone()));
        }
        Ok(observe::decode(&dumps, &interface.name))
    }

    fn learn(&mut self, tables: &Tables) {
        self.tables.extend(tables.iter().map(|(id, table)| (*id, table.clone())));
    }

    fn perform(&mut self, interface: &Interface, step: &Step) -> Result<(), KernelError> {
        self.write(step, interface.index, &[])
    }

    fn perform_all(&mut self, interface: &Interface, steps: &[Step]) -> Result<(), Partly> {
        let nothing = |error| Partly { error, done: vec![false; steps.len()] };
        let requests = self.encode_all(steps, interface.index).map_err(nothing)?;
        // What became of a message that is not acknowledged, nobody knows.
        let refusals = self.socket.batch(&requests).map_err(|error| Partly { error, done: vec![true; steps.len()] })?;
        let refused: BTreeSet<usize> = refusals.iter().map(|(place, _)| *place).collect();
        match refusals.into_iter().next() {
            Some((place, refusal)) => Err(Partly {
                error: refusal.because(steps[place].to_string()),
                done: (0..steps.len()).map(|place| !refused.contains(&place)).collect(),
            }),
            None => Ok(()),
        }
    }

    fn answer(&mut self, interface: &Interface, wanted: bool) -> Result<(), KernelError> {
        if !wanted {
            self.refuser = None;
        } else if !self.refuser.as_ref().is_some_and(|refuser| refuser.is_at(interface.index)) {
            self.refuser = None;
            self.refuser = Some(Refuser::start(interface.index).map_err(KernelError::Answering)?);
        }
        Ok(())
    }

    fn rollback(&mut self, interface: &Interface, step: &Step) -> Result<(), KernelError> {
        self.write(&step.inverse(), interface.index, &[ENOENT, EEXIST, EINVAL])
    }
}

/// The messages of a step, in the order in which the kernel must see them.
fn encode(step: &Step, index: u32, tables: &Tables) -> Result<Vec<Request>, KernelError> {
    Ok(match step {
        Step::AddRoot => vec![qdisc::add_root(index, false)],
        Step::RemoveRoot => vec![qdisc::delete_root(index)],
        Step::AddHook => vec![qdisc::add_clsact(index)],
        Step::RemoveHook => vec![qdisc::delete_clsact(index)],
        Step::AddClass { class, profile } => {
            let leaf = profile.map(|profile| netem::add_netem(index, *class, &profile, tables)).transpose()?;
            let mark = profile.map(|profile| profile.mark()).unwrap_or_default();
            [qdisc::add_class(index, *class, mark)].into_iter().chain(leaf).collect()
        }
        Step::RemoveClass { class, .. } => vec![qdisc::delete_class(index, *class)],
        Step::ChangeLeaf { class, to, .. } => vec![netem::change_netem(index, *class, to)],
        Step::AddPass { direction, types } => types
            .iter()
            .map(|icmp_type| Filter::Pass { direction: *direction, icmp_type: *icmp_type }.add(index))
            .collect(),
        Step::RemovePass { direction, types } => types
            .iter()
            .map(|icmp_type| Filter::Pass { direction: *direction, icmp_type: *icmp_type }.delete(index))
            .collect(),
        Step::BuildChain { chain, routes } => routes
            .iter()
            .map(|Route { address, class, handle }| {
                Filter::Route { chain: *chain, address: *address, class: *class, handle: *handle }.add(index)
            })
            .collect(),
        Step::DropChain { chain, .. } => vec![filter::delete_chain(index, *chain)],
        Step::Flip { to: Some(chain), .. } => vec![Filter::Gate { chain: *chain }.add(index)],
        Step::Flip { from, to: None } => from.map(|chain| Filter::Gate { chain }.delete(index)).into_iter().collect(),
        Step::Cut { cut, handle } => {
            vec![Filter::Cut { cut: *cut, handle: *handle }.add(index)]
        }
        Step::Uncut { cut, handle } => {
            vec![Filter::Cut { cut: *cut, handle: *handle }.delete(index)]
        }
    })
}

/// `ip link set D txqueuelen N`
fn set_queue_length(index: u32, packets: u32) -> Request {
    let mut link = LinkMessage::default();
    link.header.index = index;
    link.attributes.push(LinkAttribute::TxQueueLen(packets));
    Request::set(RouteNetlinkMessage::SetLink(link))
}

/// The link that a route leads to, which an answer to `RTM_GETROUTE` names.
fn leaves_by(message: &RouteNetlinkMessage) -> Option<u32> {
    let RouteNetlinkMessage::NewRoute(message) = message else { return None };
    message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Oif(index) => Some(*index),
        _ => None,
    })
}
