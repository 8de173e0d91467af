//! What an agent says of its host: interfaces, addresses, what speaks against each.

use std::{collections::BTreeSet, net::IpAddr};

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use crate::{
    plan::{IfName, Inventory, NodeLocation, is_link_local},
    topology::NodeName,
};

/// Asks which machine this is: what an inventory is made of.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct GetHost {}

/// The machine that an agent runs on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Host {
    /// Which node it is, as the agent's config says.
    pub node: NodeName,
    /// Whether a config of the host says which node it is. Else the host is called so by itself or by its last command.
    #[serde(default)]
    pub is_configured: bool,
    /// The agent's version.
    pub version: String,
    /// The running kernel's release.
    pub kernel: String,
    /// Its interfaces, the loopback aside.
    pub interfaces: Vec<HostInterface>,
}

/// One interface of a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact by itself")]
pub struct HostInterface {
    /// Its name.
    pub name: IfName,
    /// Its hardware address, as in `02:4e:7e:4e:00:01`; `None`: it has none.
    pub mac: Option<String>,
    /// Its addresses, each with the length of its network's prefix, IPv4 first.
    #[cfg_attr(test, schemars(with = "Vec<String>"))]
    pub addresses: Vec<IpNetwork>,
    /// Whether it carries packets at this moment.
    pub is_up: bool,
    /// How many bytes a packet may have on it.
    pub mtu: u32,
    /// Its speed in Mbit/s; `None`: it does not know.
    pub speed_mbit: Option<u32>,
    /// Whether a default route leaves by it.
    pub carries_default_route: bool,
    /// The routers of the routes by it.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub gateways: BTreeSet<IpAddr>,
    /// Whether packets that arrive by other interfaces may be sent on by it.
    #[serde(default)]
    pub forwards: bool,
    /// Whether an XDP program sees what it receives before netemctl's filters do.
    #[serde(default)]
    pub has_xdp: bool,
    /// Whether the agent's config allows to shape it.
    pub is_allowed: bool,
}

/// Packets that a node sends to networks behind other nodes. They are neither delayed nor cut.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Routed {
    /// The nodes that are the routers.
    pub through: BTreeSet<NodeName>,
    /// Whether these may be packets of others, which the node forwards.
    pub forwards: bool,
}

impl Host {
    /// What the host sends by its interface of the inventory to networks behind other nodes; `None`: no route leads there.
    pub fn routed(&self, inventory: &Inventory) -> Option<Routed> {
        let interface = &inventory.nodes.get(&self.node)?.interface;
        let interface = self.interfaces.iter().find(|own| own.name == *interface)?;
        let is_router = |(node, place): &(&NodeName, &NodeLocation)| {
            **node != self.node && place.addresses.iter().any(|address| interface.gateways.contains(address))
        };
        let through: BTreeSet<NodeName> =
            inventory.nodes.iter().filter(is_router).map(|(node, _)| node.clone()).collect();
        (!through.is_empty()).then_some(Routed { through, forwards: interface.forwards })
    }
}

impl HostInterface {
    /// The addresses that other nodes can send to: all but link-local ones of IPv6, which mean nothing without an
    /// interface.
    pub fn reachable(&self) -> impl Iterator<Item = IpAddr> {
        let mut seen = BTreeSet::new();
        let addresses = self.addresses.iter().map(IpNetwork::ip).filter(|address| !is_link_local(address));
        addresses.filter(move |address| seen.insert(*address))
    }

    /// Its link-local addresses of IPv6, by which nodes on the same link reach it.
    pub fn link_local(&self) -> impl Iterator<Item = IpAddr> {
        self.addresses.iter().map(IpNetwork::ip).filter(is_link_local)
    }
}
