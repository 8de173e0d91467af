//! Resolves the interface and addresses of each node from the agents' answers: [`InventoryFile::resolve`].

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnetwork::IpNetwork;
use thiserror::Error;

use super::{InterfaceSelector, InventoryFile, NodeEntry};
use crate::{
    plan::{AgentAddress, IfName, Inventory, NodeLocation},
    topology::NodeName,
    wire::{Host, HostInterface},
};

/// The resolved nodes, and the errors of the others. Each node of the file is either in `inventory` or in `mismatches`.
#[derive(Debug, PartialEq, Eq)]
pub struct Resolved {
    /// The resolved nodes.
    pub inventory: Inventory,
    /// The errors of the other nodes.
    pub mismatches: BTreeMap<NodeName, Mismatch>,
}

/// The reason why a node cannot be resolved.
#[derive(Debug, PartialEq, Eq, Error)]
pub enum Mismatch {
    /// The agent does not answer, and the file is not complete without an answer.
    #[error("the agent did not answer, and the inventory lacks `interface` or `addresses` of this node")]
    Silent,
    /// The agent belongs to another node.
    #[error(
        "the agent at {agent} is that of {found}; correct `host` in the inventory, or `node` in the agent's config"
    )]
    OtherNode {
        /// The address of the agent.
        agent: AgentAddress,
        /// The node in the agent's config.
        found: NodeName,
    },
    /// The host has no such interface.
    #[error("the host has no interface {interface}; found: {}", listed(.found))]
    NoInterface {
        /// The name in the file.
        interface: IfName,
        /// The host's interfaces.
        found: Vec<HostInterface>,
    },
    /// No interface has an address in the network.
    #[error("no interface of the host has an address in {network}; found: {}", listed(.found))]
    NoneInNetwork {
        /// The network in the file.
        network: IpNetwork,
        /// The host's interfaces.
        found: Vec<HostInterface>,
    },
    /// Several interfaces have an address in the network.
    #[error("several interfaces of its host have an address in {network}: {}; give this node an entry with `interface`", listed(.found))]
    SeveralInNetwork {
        /// The network in the file.
        network: IpNetwork,
        /// The interfaces with an address in the network.
        found: Vec<HostInterface>,
    },
    /// The agent's config does not allow the interface.
    #[error(
        "the agent's config allows {}add {interface} to `interfaces` in that config",
        if .allowed.is_empty() {
            "no interface of the host; ".to_owned()
        } else {
            format!("{0}, not {interface}; use {0}, or ", names(.allowed))
        }
    )]
    NotAllowed {
        /// The interface.
        interface: IfName,
        /// The interfaces that the config allows.
        allowed: Vec<IfName>,
    },
    /// The interface has no address.
    #[error("its interface {interface} has no address that other nodes can reach; give it one")]
    NoAddress {
        /// The interface.
        interface: IfName,
    },
    /// The interface does not have the address.
    #[error("interface {} lacks {address} of the inventory; found: {}; add the address or correct the inventory", .found.name, listed(std::slice::from_ref(&**.found)))]
    NotItsAddress {
        /// The address in the file.
        address: IpAddr,
        /// The interface.
        found: Box<HostInterface>,
    },
    /// Two nodes have the same address.
    #[error("{address} is also an address of {other}; give both nodes their `addresses` in the inventory")]
    SharedAddress {
        /// The address.
        address: IpAddr,
        /// The other node.
        other: NodeName,
    },
}

impl Mismatch {
    /// True if the mismatch concerns a second node: one node may be mistaken for the other.
    pub fn is_about_two_nodes(&self) -> bool {
        matches!(self, Self::OtherNode { .. } | Self::SharedAddress { .. })
    }
}

impl InventoryFile {
    /// Resolves the file with the agents' answers. An answer must fit the file.
    ///
    /// `remembered` has the locations in the document that an agent has in force. A node without an answer keeps its
    /// remembered location, if the location fits the file. Otherwise, the file must have the node's interface and
    /// addresses.
    pub fn resolve(&self, hosts: &BTreeMap<NodeName, Host>, remembered: &BTreeMap<NodeName, NodeLocation>) -> Resolved {
        let mut mismatches = BTreeMap::new();
        let located = self.nodes.iter().filter_map(|(node, entry)| {
            let remembered = || remembered.get(node).filter(|place| entry.fits(place)).cloned();
            let host = hosts.get(node);
            let found = match host.is_none().then(remembered).flatten() {
                Some(place) => Ok(place),
                None => place(node, entry, host),
            };
            let located = found.map_err(|mismatch| mismatches.insert(node.clone(), mismatch)).ok();
            Some((node.clone(), located?))
        });
        // Sorted names make a map faster all at once than one by one.
        let mut nodes: BTreeMap<_, _> = located.collect();
        let shared = shared_addresses(&nodes);
        nodes.retain(|node, _| !shared.contains_key(node));
        mismatches.extend(shared);
        Resolved { inventory: Inventory { nodes, zones: self.zones.clone() }, mismatches }
    }
}

impl NodeEntry {
    /// True if the location fits this entry.
    fn fits(&self, place: &NodeLocation) -> bool {
        let is_interface = match &self.interface {
            InterfaceSelector::Named(interface) => place.interface == *interface,
            InterfaceSelector::InNetwork(network) => place.addresses.iter().any(|address| network.contains(*address)),
        };
        let are_addresses = self.addresses.is_empty() || place.global().eq(self.global());
        place.agent == self.agent && is_interface && are_addresses
    }
}

fn place(node: &NodeName, entry: &NodeEntry, host: Option<&Host>) -> Result<NodeLocation, Mismatch> {
    let agent = entry.agent.clone();
    let Some(host) = host else {
        return match &entry.interface {
            InterfaceSelector::Named(interface) if entry.is_complete() => {
                Ok(NodeLocation { agent, interface: interface.clone(), addresses: entry.addresses.clone() })
            }
            _ => Err(Mismatch::Silent),
        };
    };
    if host.node != *node {
        return Err(Mismatch::OtherNode { agent, found: host.node.clone() });
    }
    let interface = find(&entry.interface, host)?;
    if !interface.is_allowed {
        let allowed = host.interfaces.iter().filter(|other| other.is_allowed).map(|other| other.name.clone());
        return Err(Mismatch::NotAllowed { interface: interface.name.clone(), allowed: allowed.collect() });
    }
    let addresses = addresses(entry, interface)?;
    Ok(NodeLocation { agent, interface: interface.name.clone(), addresses })
}

fn find<'h>(selector: &InterfaceSelector, host: &'h Host) -> Result<&'h HostInterface, Mismatch> {
    match selector {
        InterfaceSelector::Named(name) => host
            .interfaces
            .iter()
            .find(|interface| interface.name == *name)
            .ok_or_else(|| Mismatch::NoInterface { interface: name.clone(), found: host.interfaces.clone() }),
        InterfaceSelector::InNetwork(network) => {
            let is_in = |interface: &&HostInterface| interface.addresses.iter().any(|own| network.contains(own.ip()));
            let found: Vec<&HostInterface> = host.interfaces.iter().filter(is_in).collect();
            match found[..] {
                [interface] => Ok(interface),
                [] => Err(Mismatch::NoneInNetwork { network: *network, found: host.interfaces.clone() }),
                _ => Err(Mismatch::SeveralInNetwork { network: *network, found: found.into_iter().cloned().collect() }),
            }
        }
    }
}

/// A node's addresses on an interface: the addresses of the file, or else all reachable addresses.
///
/// The link-local addresses of the interface come last.
fn addresses(entry: &NodeEntry, interface: &HostInterface) -> Result<Vec<IpAddr>, Mismatch> {
    let mut own: Vec<IpAddr> = interface.reachable().collect();
    if let Some(address) = entry.global().find(|address| !own.contains(address)) {
        return Err(Mismatch::NotItsAddress { address: *address, found: Box::new(interface.clone()) });
    }
    if !entry.addresses.is_empty() {
        own = entry.global().copied().collect();
    } else if let InterfaceSelector::InNetwork(network) = &entry.interface {
        // An address in the network comes first, because messages and tables show the first address.
        own.sort_by_key(|address| !network.contains(*address));
    }
    if own.is_empty() {
        return Err(Mismatch::NoAddress { interface: interface.name.clone() });
    }
    own.extend(interface.link_local());
    Ok(own)
}

/// The nodes that share an address with another node.
fn shared_addresses(nodes: &BTreeMap<NodeName, NodeLocation>) -> BTreeMap<NodeName, Mismatch> {
    let mut owners: BTreeMap<IpAddr, BTreeSet<&NodeName>> = BTreeMap::new();
    for (node, place) in nodes {
        for address in place.global() {
            owners.entry(*address).or_default().insert(node);
        }
    }
    let mut shared = BTreeMap::new();
    for (address, owners) in owners.into_iter().filter(|(_, owners)| owners.len() > 1) {
        for node in &owners {
            if let Some(other) = owners.iter().find(|other| other != &node) {
                let mismatch = Mismatch::SharedAddress { address, other: (*other).clone() };
                shared.entry((*node).clone()).or_insert(mismatch);
            }
        }
    }
    shared
}

/// Interfaces with their addresses, for a message.
fn listed(interfaces: &[HostInterface]) -> String {
    if interfaces.is_empty() {
        return "none".to_owned();
    }
    let interface = |interface: &HostInterface| {
        let addresses: Vec<_> = interface.reachable().map(|address| address.to_string()).collect();
        let addresses = if addresses.is_empty() { "no address".to_owned() } else { addresses.join(" ") };
        format!("{} ({addresses})", interface.name)
    };
    interfaces.iter().map(interface).collect::<Vec<_>>().join(", ")
}

fn names(interfaces: &[IfName]) -> String {
    interfaces.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
