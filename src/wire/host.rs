//! The request for an agent's host: the interfaces, their addresses, and reasons not to shape an interface.

use std::{collections::BTreeSet, net::IpAddr};

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use crate::{
    plan::{IfName, Inventory, NodeLocation, is_link_local},
    topology::NodeName,
};

/// Asks for the host's interfaces, for an inventory.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct GetHost {}

/// The host of an agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Host {
    /// The name of the node.
    pub node: NodeName,
    /// True if the agent's config names the node. Otherwise, the name is the host name, or the name that the last
    /// command used.
    #[serde(default)]
    pub is_configured: bool,
    /// The agent's version.
    pub version: String,
    /// The running kernel's release.
    pub kernel: String,
    /// The interfaces, except the loopback.
    pub interfaces: Vec<HostInterface>,
}

/// One interface of a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[expect(clippy::struct_excessive_bools, reason = "each flag is independent of the others")]
pub struct HostInterface {
    /// The name.
    pub name: IfName,
    /// The hardware address, such as `02:4e:7e:4e:00:01`.
    pub mac: Option<String>,
    /// The addresses with their prefix lengths, IPv4 first.
    #[cfg_attr(test, schemars(with = "Vec<String>"))]
    pub addresses: Vec<IpNetwork>,
    /// True if the interface is up and has a carrier.
    pub is_up: bool,
    /// The largest packet, in bytes.
    pub mtu: u32,
    /// The speed in Mbit/s; `None`: unknown.
    pub speed_mbit: Option<u32>,
    /// True if a default route uses the interface.
    pub carries_default_route: bool,
    /// The gateways of the routes on this interface.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub gateways: BTreeSet<IpAddr>,
    /// True if the host forwards packets from other interfaces to this interface.
    #[serde(default)]
    pub forwards: bool,
    /// True if an XDP program sees received packets before netemctl's filters.
    #[serde(default)]
    pub has_xdp: bool,
    /// True if the agent's config allows the interface.
    pub is_allowed: bool,
}

/// The routes of a node to networks behind other nodes. Packets on these routes are neither delayed nor cut.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Routed {
    /// The nodes that are gateways.
    pub through: BTreeSet<NodeName>,
    /// True if the node also forwards packets of other hosts on these routes.
    pub forwards: bool,
}

impl Host {
    /// The routes on the inventory's interface to networks behind other nodes.
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
    /// The addresses that other nodes can reach. IPv6 link-local addresses are left out, because a connection to such
    /// an address also needs the name of an interface.
    pub fn reachable(&self) -> impl Iterator<Item = IpAddr> {
        let mut seen = BTreeSet::new();
        let addresses = self.addresses.iter().map(IpNetwork::ip).filter(|address| !is_link_local(address));
        addresses.filter(move |address| seen.insert(*address))
    }

    /// The IPv6 link-local addresses, which nodes on the same link can reach.
    pub fn link_local(&self) -> impl Iterator<Item = IpAddr> {
        self.addresses.iter().map(IpNetwork::ip).filter(is_link_local)
    }
}
