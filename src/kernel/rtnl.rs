//! Implements [`Kernel`] for the running kernel, over rtnetlink (rtnetlink(7)).

use std::{
    collections::{BTreeMap, BTreeSet},
    io, iter,
    net::IpAddr,
    os::fd::OwnedFd,
};

use nix::errno::Errno;
use rtnetlink::packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::AddressMessage,
    link::{LinkAttribute, LinkMessage},
    route::{RouteAttribute, RouteMessage},
    tc::TcMessage,
};

use super::{
    Event, HostNetwork, Interface, Kernel, KernelError, PartialFailure,
    bytes::first,
    host, namespace_socket,
    observe::{self, Classes, Filters, Qdiscs},
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
    plan::{Answer, ChainFilter, Direction, IfName, LineRate, Stale, Step, Tree, tc_numbers::cut_priority},
    topology::Tables,
};

/// The errors for missing and existing objects, which a rollback ignores. For a missing root qdisc, the kernel returns
/// EINVAL (`tc_get_qdisc`).
const ROLLED_BACK: [Errno; 3] = [Errno::ENOENT, Errno::EEXIST, Errno::EINVAL];

/// The default queue length of links (`DEFAULT_TX_QUEUE_LEN`).
const QUEUE_LENGTH: u32 = 1_000;

/// The kernel, for one network namespace.
pub struct Rtnl {
    socket: Socket,
    /// The custom distribution tables.
    tables: Tables,
    /// The sender of refusals, if refusals are wanted.
    refuser: Option<Refuser>,
    /// The socket for notifications. `None` before the first call of `events`.
    watch: Option<Watch>,
    /// The last known speed of each interface, by index. An interface without a carrier reports no speed.
    speeds: BTreeMap<u32, LineRate>,
}

impl Rtnl {
    /// Opens a socket in the network namespace of the calling thread.
    pub fn open() -> io::Result<Self> {
        Ok(Self::on(Socket::open()?))
    }

    /// Opens a socket in a new network namespace. The namespace ends with the socket.
    ///
    /// Requires the right to make user namespaces, but not `CAP_SYS_ADMIN`.
    pub fn open_in_new_namespace() -> io::Result<Self> {
        Ok(Self::on(namespace_socket::request_namespace_socket()?))
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

    fn dump(&mut self, operation: &str, request: RouteNetlinkMessage) -> Result<Vec<RouteNetlinkMessage>, KernelError> {
        self.fold(operation, request, Vec::push)
    }

    /// Adds each message of a dump to a result. An interrupted dump begins again with an empty result.
    fn fold<T: Default>(
        &mut self,
        operation: &str,
        request: RouteNetlinkMessage,
        add: impl FnMut(&mut T, RouteNetlinkMessage),
    ) -> Result<T, KernelError> {
        self.socket.fold(&Request::dump(request), T::default, add)?.map_err(|refusal| refusal.because(operation))
    }

    fn write(&mut self, step: &Step, index: u32, tolerated: &[Errno]) -> Result<(), KernelError> {
        // Our classes take the queue length of the interface. A queue of length 0 would drop all packets.
        let length = match step {
            Step::AddRoot if self.is_queueless(index)? => Some(QUEUE_LENGTH),
            Step::RemoveRoot if self.was_queueless(index)? => Some(0),
            _ => None,
        };
        let requests = match (step, length) {
            (Step::AddRoot, Some(_)) => one(qdisc::add_root(index, true)),
            _ => encode(step, index, &self.tables)?,
        };
        self.send(step, requests, tolerated)?;
        length.map_or(Ok(()), |length| self.send(step, one(set_queue_length(index, length)), tolerated))
    }

    fn send(&mut self, step: &Step, requests: Requests<'_>, tolerated: &[Errno]) -> Result<(), KernelError> {
        let mut refusals = self.socket.batch(requests)?.into_iter().map(|(_, refusal)| refusal);
        match refusals.find(|refusal| !tolerated.contains(&refusal.errno)) {
            Some(refusal) => Err(refusal.because(step.to_string())),
            None => Ok(()),
        }
    }

    /// True if the queue of the interface has the length 0.
    fn is_queueless(&mut self, index: u32) -> Result<bool, KernelError> {
        Ok(self.socket.link_by_index(index)?.is_some_and(|link| host::link(&link).queue_length == 0))
    }

    /// True if the queue of the interface had the length 0 before our root was added.
    fn was_queueless(&mut self, index: u32) -> Result<bool, KernelError> {
        Ok(self.qdiscs(index)?.own_root().is_some_and(qdisc::was_queueless))
    }

    fn qdiscs(&mut self, index: u32) -> Result<Qdiscs, KernelError> {
        let index = index.cast_signed();
        let request = RouteNetlinkMessage::GetQueueDiscipline(TcMessage::with_index(index));
        self.fold("list the qdiscs", request, |qdiscs: &mut Qdiscs, message| match message {
            // The kernel lists the qdiscs of all interfaces.
            RouteNetlinkMessage::NewQueueDiscipline(qdisc) if qdisc.header.index == index => qdiscs.add(qdisc),
            _ => {}
        })
    }

    fn classes(&mut self, interface: &Interface) -> Result<Classes, KernelError> {
        let request = RouteNetlinkMessage::GetTrafficClass(TcMessage::with_index(interface.index.cast_signed()));
        self.fold("list the classes", request, |classes: &mut Classes, message| {
            if let RouteNetlinkMessage::NewTrafficClass(class) = message {
                classes.add(&class, &interface.name);
            }
        })
    }

    /// Reads the counters of the cuts of `filters`. False: the interface has other cuts.
    fn count_cuts(&mut self, interface: &Interface, filters: &mut Filters) -> Result<bool, KernelError> {
        if !filters.has_cuts() {
            return Ok(true);
        }
        let mut cuts = Filters::default();
        for parent in [tc::ROOT_HANDLE, tc::INGRESS] {
            for priority in cut_priorities() {
                cuts.append(self.filters(interface, filter::of_priority(interface.index, parent, priority))?);
            }
        }
        Ok(cuts.count(filters))
    }

    /// The filters that `which` selects. Without a clsact, the lists of its filters are empty.
    fn filters(&mut self, interface: &Interface, which: TcMessage) -> Result<Filters, KernelError> {
        let request = RouteNetlinkMessage::GetTrafficFilter(which);
        self.fold("list the filters", request, |filters: &mut Filters, message| filters.add(&message, &interface.name))
    }

    /// The filters of `tree`, with the stale ones read again. `None`: the place of a stale filter is gone.
    fn filters_again(
        &mut self,
        interface: &Interface,
        tree: Tree,
        stale: &Stale,
    ) -> Result<Option<Filters>, KernelError> {
        let mut filters = Filters::of(tree.without(stale));
        for (direction, chain) in &stale.chains {
            filters.append(self.filters(interface, filter::of_chain(interface.index, *direction, *chain))?);
        }
        for (chain, filter) in &stale.filters {
            match self.socket.ask(&Filter::InChain { chain: *chain, filter: *filter }.get(interface.index))? {
                Ok(answer) => answer.iter().for_each(|message| filters.add(message, &interface.name)),
                Err(Refusal { errno: Errno::ENOENT, .. }) => {}
                Err(_) => return Ok(None),
            }
        }
        Ok(Some(filters))
    }
}

impl Kernel for Rtnl {
    fn interface(&mut self, name: &IfName) -> Result<Interface, KernelError> {
        let link = self.socket.link_by_name(name.as_str())?.ok_or_else(|| KernelError::NoInterface(name.clone()))?;
        let link = host::link(&link);
        // The kernel finds a link by its alternative names too. Claims and journals need the main name.
        if link.name != name.as_str() {
            return Err(KernelError::AlternativeName { asked: name.clone(), name: link.name });
        }
        let host::Link { index, is_up, has_carrier, .. } = link;
        let (mut addresses, mut tentative) = (Vec::new(), BTreeSet::new());
        for message in self.dump("list the addresses", RouteNetlinkMessage::GetAddress(AddressMessage::default()))? {
            if let RouteNetlinkMessage::NewAddress(message) = message
                && message.header.index == index
                && let Some(network) = host::address(&message)
            {
                addresses.push(network.ip());
                tentative.extend((!host::is_used(&message)).then_some(network.ip()));
            }
        }
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
            // The routes of both families and all tables.
            ("list the routes", RouteNetlinkMessage::GetRoute(RouteMessage::default())),
        ];
        let mut messages = Vec::new();
        for (operation, request) in dumps {
            messages.extend(self.dump(operation, request)?);
        }
        Ok(host::decode(messages))
    }

    fn route_to(&mut self, address: IpAddr, from: Option<IpAddr>) -> Result<Option<u32>, KernelError> {
        let (family, bits) = if address.is_ipv4() { (AddressFamily::Inet, 32) } else { (AddressFamily::Inet6, 128) };
        let mut message = RouteMessage::default();
        message.header.address_family = family;
        message.header.destination_prefix_length = bits;
        message.attributes.push(RouteAttribute::Destination(address.into()));
        if let Some(from) = from {
            message.header.source_prefix_length = bits;
            message.attributes.push(RouteAttribute::Source(from.into()));
        }
        match self.socket.ask(&Request::existing(RouteNetlinkMessage::GetRoute(message)))? {
            Ok(answer) => Ok(answer.iter().find_map(outgoing_link)),
            Err(Refusal { errno: Errno::ENETUNREACH | Errno::EHOSTUNREACH, .. }) => Ok(None),
            Err(refusal) => Err(refusal.because(format!("look up the route to {address}"))),
        }
    }

    fn events(&mut self) -> Result<Vec<Event>, KernelError> {
        Ok(self.watch()?.events())
    }

    fn event_descriptor(&mut self) -> Option<OwnedFd> {
        self.watch().and_then(Watch::descriptor).ok()
    }

    fn observe(&mut self, interface: &Interface) -> Result<Tree, KernelError> {
        let qdiscs = self.qdiscs(interface.index)?;
        let is_taken = qdiscs.own_root().is_some();
        let classes = if is_taken { self.classes(interface)? } else { Classes::default() };
        let mut filters = Filters::default();
        // Another program may have deleted our root and left our clsact.
        if is_taken || qdiscs.has_hook() {
            for parent in filter::PARENTS.into_iter().filter(|parent| is_taken || *parent != tc::ROOT_HANDLE) {
                filters.append(self.filters(interface, filter::of_parent(interface.index, parent))?);
            }
        }
        // All dumps of a removed link are empty, as for a link without our objects.
        if self.socket.link_by_index(interface.index)?.is_none() {
            return Err(KernelError::NoInterface(interface.name.clone()));
        }
        Ok(observe::tree(qdiscs, classes, filters, &interface.name))
    }

    fn observe_again(
        &mut self,
        interface: &Interface,
        tree: Tree,
        stale: &Stale,
        counts: bool,
    ) -> Result<Tree, KernelError> {
        let qdiscs = self.qdiscs(interface.index)?;
        let is_taken = qdiscs.own_root().is_some();
        if is_taken != tree.taken || qdiscs.has_hook() != tree.hook {
            return self.observe(interface);
        }
        let Some(mut filters) = self.filters_again(interface, tree, stale)? else { return self.observe(interface) };
        if counts && !self.count_cuts(interface, &mut filters)? {
            return self.observe(interface);
        }
        let classes = if is_taken { self.classes(interface)? } else { Classes::default() };
        if self.socket.link_by_index(interface.index)?.is_none() {
            return Err(KernelError::NoInterface(interface.name.clone()));
        }
        Ok(observe::tree(qdiscs, classes, filters, &interface.name))
    }

    fn add_tables(&mut self, tables: &Tables) {
        self.tables.extend(tables.iter().map(|(id, table)| (*id, table.clone())));
    }

    fn perform(&mut self, interface: &Interface, step: &Step) -> Result<(), KernelError> {
        self.write(step, interface.index, &[])
    }

    fn perform_all(&mut self, interface: &Interface, steps: &[Step]) -> Result<(), PartialFailure> {
        let failed = |error, is_done| PartialFailure { error, done: vec![is_done; steps.len()] };
        let requests = steps.iter().map(|step| encode(step, interface.index, &self.tables));
        let requests = requests.collect::<Result<Vec<_>, _>>().map_err(|error| failed(error, false))?;
        // A message without an acknowledgement may have taken effect.
        let refusals = self.socket.batch(requests.into_iter().flatten()).map_err(|error| failed(error, true))?;
        let refused: BTreeSet<usize> = refusals.iter().map(|(position, _)| *position).collect();
        match refusals.into_iter().next() {
            Some((position, refusal)) => Err(PartialFailure {
                error: refusal.because(steps[position].to_string()),
                done: (0..steps.len()).map(|position| !refused.contains(&position)).collect(),
            }),
            None => Ok(()),
        }
    }

    fn set_refusals(&mut self, interface: &Interface, wanted: bool) -> Result<(), KernelError> {
        if !wanted {
            self.refuser = None;
        } else if !self.refuser.as_ref().is_some_and(|refuser| refuser.is_at(interface.index)) {
            self.refuser = None;
            self.refuser = Some(Refuser::start(interface.index).map_err(KernelError::Answering)?);
        }
        Ok(())
    }

    fn rollback(&mut self, interface: &Interface, step: &Step) -> Result<(), KernelError> {
        self.write(&step.inverse(), interface.index, &ROLLED_BACK)
    }
}

/// The priorities of the filters of cuts.
fn cut_priorities() -> BTreeSet<u16> {
    let families = [IpAddr::from([0_u8; 4]), IpAddr::from([0_u8; 16])];
    families
        .into_iter()
        .flat_map(|family| [Answer::Silence, Answer::Refusal].map(|answer| cut_priority(family, answer)))
        .collect()
}

/// Requests that are encoded one after the other.
type Requests<'s> = Box<dyn Iterator<Item = Request> + 's>;

fn one<'s>(request: Request) -> Requests<'s> {
    Box::new(iter::once(request))
}

/// The messages of a step, in the order that the kernel needs.
fn encode<'s>(step: &'s Step, index: u32, tables: &Tables) -> Result<Requests<'s>, KernelError> {
    let passes = |direction: Direction, types: &'s [u8]| {
        types.iter().map(move |icmp_type| Filter::Pass { direction, icmp_type: *icmp_type })
    };
    let in_chain = |chain, filter| Filter::InChain { chain, filter };
    Ok(match step {
        Step::AddRoot => one(qdisc::add_root(index, false)),
        Step::RemoveRoot => one(qdisc::delete_root(index)),
        Step::AddHook => one(qdisc::add_clsact(index)),
        Step::RemoveHook => one(qdisc::delete_clsact(index)),
        Step::AddClass { class, profile } => {
            let leaf = profile.map(|profile| netem::add_netem(index, *class, &profile, tables)).transpose()?;
            let mark = profile.map(|profile| profile.mark()).unwrap_or_default();
            Box::new(iter::once(qdisc::add_class(index, *class, mark)).chain(leaf))
        }
        Step::RemoveClass { class, .. } => one(qdisc::delete_class(index, *class)),
        Step::ChangeLeaf { class, to, .. } => one(netem::change_netem(index, *class, to)),
        Step::AddPass { direction, types } => Box::new(passes(*direction, types).map(move |pass| pass.add(index))),
        Step::RemovePass { direction, types } => {
            Box::new(passes(*direction, types).map(move |pass| pass.delete(index)))
        }
        Step::BuildChain { chain, filters, .. } => {
            Box::new(filters.iter().map(move |filter| in_chain(*chain, *filter).add(index)))
        }
        Step::DropChain { direction, chain, .. } => one(filter::delete_chain(index, *direction, *chain)),
        Step::Flip { direction, to: Some(chain), .. } => {
            one(Filter::Gate { direction: *direction, chain: *chain }.add(index))
        }
        Step::Flip { direction, from, to: None } => {
            let gate = from.map(|chain| Filter::Gate { direction: *direction, chain });
            Box::new(gate.into_iter().map(move |gate| gate.delete(index)))
        }
        Step::AddFilter { chain, filter } => one(in_chain(*chain, *filter).add(index)),
        Step::RemoveFilter { chain, filter } => one(in_chain(*chain, *filter).delete(index)),
        Step::ChangeRoute { chain, to, .. } => one(in_chain(*chain, ChainFilter::Route(*to)).replace(index)),
    })
}

/// `ip link set D txqueuelen N`
fn set_queue_length(index: u32, packets: u32) -> Request {
    let mut link = LinkMessage::default();
    link.header.index = index;
    link.attributes.push(LinkAttribute::TxQueueLen(packets));
    Request::existing(RouteNetlinkMessage::SetLink(link))
}

/// The outgoing link in an answer to `RTM_GETROUTE`.
fn outgoing_link(message: &RouteNetlinkMessage) -> Option<u32> {
    let RouteNetlinkMessage::NewRoute(message) = message else { return None };
    first!(message.attributes, RouteAttribute::Oif(index) => *index)
}
