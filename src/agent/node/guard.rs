//! The guard: refuses changes to unsuitable interfaces and addresses, even if a controller asks for them.
//!
//! Each refusal has a reason and a remedy. The guard admits a change under three conditions. The config allows the
//! interface. The interface is dedicated to the database. The addresses belong to the database's nodes. Exceptions in
//! the config (`allow`) relax the last two conditions.
//!
//! A change that only removes needs only the first condition. netemctl removes only its own objects, and must be able
//! to remove them after any other change on the host.

use std::{collections::BTreeSet, net::IpAddr};

use super::enforcer::Enforcer;
use crate::{
    agent::{Config, Exception, Via},
    kernel::{HostNetwork, Interface, Kernel, KernelError, Link},
    plan::{IfName, NodeLocation, Wanted, diff, is_link_local},
    topology::NodeName,
    wire::{ApiError, ErrorCode},
};

impl<K: Kernel> Enforcer<K> {
    /// Finds the node's interface in `wanted`, and checks that the agent may change it.
    pub(super) fn interface(&mut self, in_force: &Wanted, wanted: &Wanted, via: &Via) -> Result<Interface, ApiError> {
        let interface = self.allowed_interface(in_force, wanted)?;
        let Self { config, kernel, .. } = self;
        let node = &config.node;
        let place = place(config, wanted)?;
        let other = in_force.inventory.nodes.get(node).filter(|place_now| place_now.interface != place.interface);
        if let (Some(other), false) = (other, in_force.is_clear()) {
            return Err(refused(format!(
                "interface {} is in use; run `netemctl clear` before you move node {node} to interface {}",
                other.interface, place.interface
            )));
        }
        if !wanted.shapes(node) || wanted.only_removes_from(in_force) {
            return Ok(interface);
        }
        let host = kernel.host()?;
        let route_link = match via.peer_address() {
            Some(peer) => kernel.route_to(peer, via.local_address())?,
            None => None,
        };
        Admission { config, host: &host, interface: &interface, via, route_link }.check(place, wanted)?;
        Ok(interface)
    }

    /// Finds the node's interface in `wanted`, for a change that only removes or that the guard has admitted before.
    pub(super) fn own_interface(&mut self, wanted: &Wanted) -> Result<Interface, ApiError> {
        self.allowed_interface(wanted, wanted)
    }

    /// Finds the node's interface in `wanted`, even if it was renamed while it has the state in force. Fails if the
    /// config does not allow the interface.
    fn allowed_interface(&mut self, in_force: &Wanted, wanted: &Wanted) -> Result<Interface, ApiError> {
        let Config { node, interfaces, .. } = &self.config;
        let name = &place(&self.config, wanted)?.interface;
        if !interfaces.contains(name) {
            let allowed = interfaces.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            return Err(refused(format!(
                "interface {name} is not one that this agent may touch (its config allows {allowed}); \
                 add it to `interfaces` there if it is dedicated to the database"
            )));
        }
        let has_ours = in_force.inventory.nodes.get(node).is_some_and(|place| place.interface == *name);
        match self.kernel.interface(name) {
            Err(KernelError::NoInterface(_)) if has_ours => {
                self.renamed(in_force)?.ok_or_else(|| KernelError::NoInterface(name.clone()).into())
            }
            found => Ok(found?),
        }
    }

    /// Finds the interface that has the state in force under another name; `None`: no interface has this state.
    ///
    /// The state must match exactly, because an interface of another agent also has objects of netemctl.
    pub(super) fn renamed(&mut self, in_force: &Wanted) -> Result<Option<Interface>, KernelError> {
        let Self { config, kernel, .. } = self;
        let links = kernel.host()?.links;
        for name in links.into_iter().filter_map(|link| IfName::try_from(link.name).ok()) {
            let seen = kernel.interface(&name).and_then(|interface| Ok((kernel.observe(&interface)?, interface)));
            // The link may have been deleted since the links were listed.
            let Ok((tree, interface)) = seen else { continue };
            let shaping = in_force.shaping(&config.node, interface.rate);
            if shaping.is_some() && diff(shaping.as_ref(), &tree).is_ok_and(|change| change.is_settled()) {
                return Ok(Some(interface));
            }
        }
        Ok(None)
    }
}

fn place<'w>(config: &Config, wanted: &'w Wanted) -> Result<&'w NodeLocation, ApiError> {
    let node = &config.node;
    wanted
        .inventory
        .nodes
        .get(node)
        .ok_or_else(|| ErrorCode::BadRequest.error(format!("the inventory has no node {node}, the name of this agent")))
}

/// Checks that the parameters of every link of this node are valid, both with all timed changes and without them.
pub(super) fn check_links(config: &Config, wanted: &Wanted) -> Result<(), ApiError> {
    let timed: BTreeSet<_> = wanted.timed().collect();
    if let Some(link) = wanted.incoherent_link(&config.node) {
        return Err(refused(link.to_string()));
    }
    if let Some(loss) = wanted.unaddable_loss(&config.node) {
        return Err(refused(loss.to_string()));
    }
    if let Some(link) = wanted.without(&timed).incoherent_link(&config.node) {
        return Err(refused(format!("after the end of all timed changes, {link}")));
    }
    Ok(())
}

/// The facts for one decision of the guard: the interface, its host, and the controller's connection.
struct Admission<'a> {
    config: &'a Config,
    host: &'a HostNetwork,
    interface: &'a Interface,
    via: &'a Via,
    /// The index of the link that the route to the controller uses; `None`: the controller's address is unknown, or has
    /// no route.
    route_link: Option<u32>,
}

impl Admission<'_> {
    fn check(&self, place: &NodeLocation, wanted: &Wanted) -> Result<(), ApiError> {
        self.check_link()?;
        self.check_default_routes()?;
        self.check_controller()?;
        self.check_own_addresses(place)?;
        wanted.inventory.nodes.iter().try_for_each(|(node, place)| {
            place.addresses.iter().try_for_each(|address| self.check_address(node, address.to_canonical()))
        })
    }

    /// Refuses the loopback, ports of another interface except a VRF, and interfaces with ports except bonds and teams.
    fn check_link(&self) -> Result<(), ApiError> {
        let name = &self.interface.name;
        let link = self.host.link(self.interface.index);
        let link = link.ok_or_else(|| KernelError::NoInterface(name.clone()))?;
        if link.is_loopback {
            return Err(refused(format!("interface {name} is the loopback, which is never shaped")));
        }
        let kind = |link: &Link| link.kind.clone().unwrap_or_else(|| "link".to_owned());
        // A VRF is a routing table: a member of a VRF still sends only its own packets.
        let master = link.master.and_then(|master| self.host.link(master)).filter(|master| kind(master) != "vrf");
        if let Some(master) = master {
            let why = format!(
                "interface {name} is a port of the {} {}, so more than the database's traffic goes through it",
                kind(master),
                master.name
            );
            self.unless(Exception::Bridge, &why)?;
        }
        // A bond has ports too, but they carry only the bond's packets.
        if let (Some(port), false) = (self.host.ports(link.index).first(), matches!(&*kind(link), "bond" | "team")) {
            let why = format!(
                "interface {name} is a {} with ports ({}), so more than the database's traffic goes through it",
                kind(link),
                port.name
            );
            self.unless(Exception::Bridge, &why)?;
        }
        Ok(())
    }

    fn check_default_routes(&self) -> Result<(), ApiError> {
        let name = &self.interface.name;
        let carried = self.carried();
        for route in &self.host.default_routes {
            let Some(index) = route.link else {
                let why = format!(
                    "a default route (`ip route show table {}`) does not name its interface, which may be {name}",
                    route.table
                );
                self.unless(Exception::DefaultRoute, &why)?;
                continue;
            };
            let Some(link) = carried.iter().find(|link| link.index == index) else { continue };
            let table = if route.table == MAIN { String::new() } else { format!(" (table {})", route.table) };
            let why = format!(
                "interface {name} carries a default route{}{table}, so more than the database's traffic leaves by it",
                self.through(link)
            );
            self.unless(Exception::DefaultRoute, &why)?;
        }
        Ok(())
    }

    /// Refuses an interface that carries the controller's connection: a partition would cut the connection, and the
    /// agent could not receive the heal.
    fn check_controller(&self) -> Result<(), ApiError> {
        let local = self.via.local_address().and_then(|address| self.host.owner(address)).map(|link| link.index);
        let links: BTreeSet<u32> = [local, self.via.named_link(), self.route_link].into_iter().flatten().collect();
        let Some(link) = self.carried().into_iter().find(|link| links.contains(&link.index)) else { return Ok(()) };
        let (name, through) = (&self.interface.name, self.through(link));
        self.unless(
            Exception::Controller,
            &format!("interface {name} carries the controller's own connection{through}"),
        )
    }

    fn check_own_addresses(&self, place: &NodeLocation) -> Result<(), ApiError> {
        let name = &self.interface.name;
        // Link-local addresses are not checked: they may change at each boot.
        match place.global().find(|address| !self.interface.addresses.contains(address)) {
            Some(address) => Err(refused(format!(
                "interface {name} lacks the address {address} of the inventory; add it: ip address add {address}/PREFIX dev \
                 {name}, or correct the inventory"
            ))),
            None => Ok(()),
        }
    }

    /// Refuses a node's address that no host can have, such as a multicast address.
    ///
    /// Another node's address must also not belong to this host, the controller or the default router, because packets
    /// to the address are delayed and cut.
    fn check_address(&self, node: &NodeName, address: IpAddr) -> Result<(), ApiError> {
        let given = || format!("{address}, which the inventory gives to node {node}");
        if address.is_unspecified() || address.is_loopback() || address.is_multicast() {
            return Err(refused(format!("{}, is no address of a host on a network; correct the inventory", given())));
        }
        if *node == self.config.node {
            return Ok(());
        }
        // Another link of this host may have the same link-local address.
        let is_here = |link: Option<u32>| !is_link_local(&address) || link == Some(self.interface.index);
        if let Some(owner) = self.host.owner(address).filter(|owner| is_here(Some(owner.index))) {
            return Err(refused(format!("{}, is this host's own ({}); correct the inventory", given(), owner.name)));
        }
        if self.via.peer_address() == Some(address) && is_here(self.via.named_link()) {
            self.unless(Exception::Controller, &format!("{}, is the controller's", given()))?;
        }
        if self.host.default_routes.iter().any(|route| route.gateway == Some(address) && is_here(route.link)) {
            self.unless(Exception::Gateway, &format!("{}, is the router of this host's default route", given()))?;
        }
        Ok(())
    }

    /// The links that send through the interface, and the interface itself.
    fn carried(&self) -> Vec<&Link> {
        self.host.carried_by(self.interface.index)
    }

    fn through(&self, link: &Link) -> String {
        if link.index == self.interface.index { String::new() } else { format!(" (that of {} above it)", link.name) }
    }

    /// Refuses the change for the reason `why`, unless the config has the exception.
    fn unless(&self, exception: Exception, why: &str) -> Result<(), ApiError> {
        if self.config.allow.contains(&exception) {
            return Ok(());
        }
        Err(refused(format!(
            "{why}; use an interface dedicated to the database, or allow it by `allow = [\"{exception}\"]` in the agent's \
             config"
        )))
    }
}

/// The main routing table (`RT_TABLE_MAIN`).
const MAIN: u32 = 254;

fn refused(message: String) -> ApiError {
    ErrorCode::Refused.error(message)
}
