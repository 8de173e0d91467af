//! Computes the nodes of a lab, their addresses and their files. This module does no I/O.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
};

use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{
    kernel::Mac,
    pki::store::Store,
    plan::{AGENT_PORT, AgentAddress, HostPort, IfName, Inventory, NodeLocation, is_link_local},
    topology::{NodeName, Topology, ZoneName, hostlist},
};

/// The maximum number of nodes in a lab. A bridge has at most 1,023 ports.
pub const MAX_NODES: usize = 1_000;

/// The name of the interface dedicated to the database, in every node.
pub(super) const DATABASE: &str = "db0";
/// The name of the interface for everything else, in every node.
pub(super) const MANAGEMENT: &str = "mgmt0";

/// The name of the controller host. The controller host is not a node, and reaches all agents.
pub const CONTROLLER: &str = "controller";
/// The number of the controller host on the management network. Nodes have 1 to [`MAX_NODES`].
pub(super) const CONTROLLER_NUMBER: u16 = 0xfffe;

const DATABASE_NET: (u8, u16) = (78, 0xfd78);
const MANAGEMENT_NET: (u8, u16) = (77, 0xfd77);

/// The nodes, zones and options of a lab. The lab's directory stores them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Layout {
    /// The name of the lab's topology.
    pub topology: String,
    /// The nodes, in the order of the topology.
    pub members: Vec<Member>,
    /// The zones.
    pub zones: BTreeMap<ZoneName, Vec<NodeName>>,
    /// The addresses of the [`CONTROLLER`] host on the management network. `None`: the lab has no controller host.
    #[serde(default)]
    pub controller: Option<Vec<IpNetwork>>,
    /// True if the agents listen on the management network, by TLS.
    #[serde(default)]
    pub tls: bool,
    /// The address family that names resolve to first.
    #[serde(default)]
    pub prefer: Family,
}

/// A family of addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Family {
    /// IPv4, such as 10.78.0.9.
    #[default]
    Ipv4,
    /// IPv6, such as `fd78::9`.
    Ipv6,
}

/// One node of a lab.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Member {
    /// The name of the node.
    pub node: NodeName,
    /// The node's addresses on the database interface: IPv4, IPv6, then the link-local address.
    pub database: Vec<IpNetwork>,
    /// The node's addresses on the management interface: IPv4, then IPv6.
    pub management: Vec<IpNetwork>,
}

/// The reason why a topology cannot be a lab.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum LayoutError {
    /// The topology has more than [`MAX_NODES`] nodes.
    #[error("the topology has {0} nodes; a lab has at most {MAX_NODES}")]
    TooMany(usize),
    /// A node has the name of the controller host.
    #[error("`{CONTROLLER}` is the name of the lab's controller host; rename the topology's node")]
    NameTaken,
}

impl Layout {
    /// The layout of a lab for a topology.
    pub fn of(topology: &Topology) -> Result<Self, LayoutError> {
        let nodes = topology.nodes();
        if nodes.len() > MAX_NODES {
            return Err(LayoutError::TooMany(nodes.len()));
        }
        let member = |(node, number): (&NodeName, u16)| Member {
            node: node.clone(),
            database: addresses(DATABASE_NET, number).into_iter().chain(link_local(number)).collect(),
            management: addresses(MANAGEMENT_NET, number),
        };
        Ok(Self {
            topology: topology.name().to_owned(),
            members: nodes.iter().zip(1..).map(member).collect(),
            zones: topology.zones().map(|(zone, nodes)| (zone.clone(), nodes.to_vec())).collect(),
            controller: None,
            tls: false,
            prefer: Family::default(),
        })
    }

    /// Adds the controller host to the management network.
    pub fn with_controller(mut self) -> Result<Self, LayoutError> {
        if self.members.iter().any(|member| member.node.as_str() == CONTROLLER) {
            return Err(LayoutError::NameTaken);
        }
        self.controller = Some(addresses(MANAGEMENT_NET, CONTROLLER_NUMBER));
        Ok(self)
    }

    /// The hosts that a name stands for: a zone, a node, the controller host, or `*` for all nodes.
    pub(super) fn named(&self, name: &str) -> Option<Vec<NodeName>> {
        let node: Option<NodeName> = name.parse().ok();
        let nodes = || self.members.iter().map(|member| &member.node);
        if let Some((_, nodes)) = self.zones.iter().find(|(zone, _)| zone.as_str() == name) {
            return Some(nodes.clone());
        }
        match node {
            Some(node) if nodes().any(|other| *other == node) => Some(vec![node]),
            Some(node) if name == CONTROLLER && self.controller.is_some() => Some(vec![node]),
            None if name == "*" => Some(nodes().cloned().collect()),
            _ => None,
        }
    }

    /// The names of the nodes and zones, for an error message.
    pub(super) fn names(&self) -> String {
        let nodes: Vec<&NodeName> = self.members.iter().map(|member| &member.node).collect();
        let zones: Vec<&ZoneName> = self.zones.keys().collect();
        let zones = if zones.is_empty() { String::new() } else { format!("zones: {}; ", hostlist::fold(&zones)) };
        format!("{zones}nodes: {}", hostlist::fold(&nodes))
    }

    /// The inventory of the lab. The agents' addresses are Unix sockets in `directory`.
    pub fn inventory(&self, directory: &Path) -> Inventory {
        self.inventory_by(|member| Some(AgentAddress::Unix(agent_socket(directory, &member.node))))
    }

    /// The inventory of the lab. The agents' addresses are HTTPS addresses on the management network.
    pub fn inventory_by_tls(&self) -> Inventory {
        let by_tls = |member: &Member| {
            let address = agent_port(member)?;
            Some(AgentAddress::Https(HostPort { host: address.ip().to_string(), port: address.port() }))
        };
        self.inventory_by(by_tls)
    }

    fn inventory_by(&self, agent: impl Fn(&Member) -> Option<AgentAddress>) -> Inventory {
        let place = |member: &Member| {
            // The constant is a valid interface name, so `ok` drops no error.
            let interface: IfName = DATABASE.parse().ok()?;
            let place = NodeLocation {
                agent: agent(member)?,
                interface,
                addresses: member.database.iter().map(IpNetwork::ip).collect(),
            };
            Some((member.node.clone(), place))
        };
        Inventory { nodes: self.members.iter().filter_map(place).collect(), zones: self.zones.clone() }
    }

    /// The hosts file of every node: `n4` has the database addresses, and `n4.mgmt` the management addresses.
    pub(super) fn hosts_file(&self) -> String {
        let mut lines = vec!["127.0.0.1 localhost".to_owned(), "::1 localhost ip6-localhost ip6-loopback".to_owned()];
        for Member { node, database, management } in &self.members {
            let global = database.iter().map(IpNetwork::ip).filter(|address| !is_link_local(address));
            lines.extend(global.map(|address| format!("{address} {node}")));
            lines.extend(management.iter().map(|network| format!("{} {node}.mgmt", network.ip())));
        }
        let controller = self.controller.iter().flatten();
        lines.extend(controller.map(|network| format!("{} {CONTROLLER} {CONTROLLER}.mgmt", network.ip())));
        lines.join("\n") + "\n"
    }

    /// The `gai.conf(5)` of every node: the order of a name's addresses in the GNU C library.
    ///
    /// The library's default (RFC 3484) prefers IPv6. With this default, a client of a server that listens only on IPv4
    /// loses one RTT to a refused connection. Programs with their own resolvers (Go, musl) follow RFC 6724. RFC 6724
    /// prefers IPv4 over addresses such as `fd78::9`.
    pub(super) fn address_order(&self) -> String {
        let of_ipv4 = match self.prefer {
            Family::Ipv4 => 100,
            Family::Ipv6 => 10,
        };
        let rules = [("::1/128", 50), ("::/0", 40), ("2002::/16", 30), ("::/96", 20), ("::ffff:0:0/96", of_ipv4)];
        rules.map(|(network, precedence)| format!("precedence {network} {precedence}\n")).concat()
    }
}

/// The address of a node's agent on the management network, in a lab with TLS.
pub(super) fn agent_port(member: &Member) -> Option<SocketAddr> {
    Some(SocketAddr::new(member.management.first()?.ip(), AGENT_PORT))
}

/// The certificates of a lab with TLS.
pub(super) fn certificates(directory: &Path) -> Store {
    Store::at(directory.join("pki"))
}

/// The socket of a node's agent.
pub(super) fn agent_socket(directory: &Path, node: &NodeName) -> PathBuf {
    node_directory(directory, node).join("agent.sock")
}

/// The folder of a node's files.
pub(super) fn node_directory(directory: &Path, node: &NodeName) -> PathBuf {
    directory.join("nodes").join(node.as_str())
}

/// The MAC address of node `number` on the database interface, locally administered.
pub(super) fn database_mac(number: u16) -> Mac {
    mac(DATABASE_NET.0, number)
}

/// The MAC address of node `number` on the management interface, locally administered.
pub(super) fn management_mac(number: u16) -> Mac {
    mac(MANAGEMENT_NET.0, number)
}

fn mac(network: u8, number: u16) -> Mac {
    let [high, low] = number.to_be_bytes();
    [0x02, 0x4e, 0x7e, network, high, low]
}

/// The link-local address of node `number`, such as `fe80::9/64`.
fn link_local(number: u16) -> Option<IpNetwork> {
    Ipv6Network::new(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, number), 64).map(IpNetwork::V6).ok()
}

/// The addresses of node `number`, counted from 1, such as 10.78.0.9/16 and `fd78::9/64`.
fn addresses((v4, v6): (u8, u16), number: u16) -> Vec<IpNetwork> {
    // All numbers, also that of the controller host, are below the broadcast address of a /16.
    let v4 = Ipv4Addr::from_bits(Ipv4Addr::new(10, v4, 0, 0).to_bits() + u32::from(number));
    let v6 = Ipv6Addr::new(v6, 0, 0, 0, 0, 0, 0, number);
    let v4 = Ipv4Network::new(v4, 16).map(IpNetwork::V4);
    let v6 = Ipv6Network::new(v6, 64).map(IpNetwork::V6);
    // Both prefix lengths are valid, so `flatten` drops no error.
    [v4, v6].into_iter().flatten().collect()
}
