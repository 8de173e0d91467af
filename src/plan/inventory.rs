//! Defines the inventory ([`Inventory`]): the agent, the interface and the addresses of each node.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    net::IpAddr,
    str::FromStr,
};

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{MapAccess, Visitor},
};
use thiserror::Error;

use super::AgentAddress;
use crate::topology::{NodeName, ZoneName, json_text};

/// The name of a network interface: 1 to 15 bytes without `/`, `:` and white space (`dev_valid_name` of the kernel).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(with = "String"))]
pub struct IfName(String);

impl IfName {
    /// The name as a string slice.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

json_text!(IfName);

impl FromStr for IfName {
    type Err = InventoryError;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let is_valid = (1..=15).contains(&name.len())
            && name != "."
            && name != ".."
            && !name.contains(|c: char| c == '/' || c == ':' || c.is_whitespace());
        if is_valid { Ok(Self(name.to_owned())) } else { Err(InventoryError::Interface(name.to_owned())) }
    }
}

impl fmt::Display for IfName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// The location of a node: its agent, its interface and its addresses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct NodeLocation {
    /// The node's agent.
    pub agent: AgentAddress,
    /// The interface that netemctl shapes. The node's other interfaces stay unchanged.
    pub interface: IfName,
    /// The IPv4 and IPv6 addresses of the interface. Messages show the first address.
    ///
    /// The list includes link-local addresses, because netemctl also delays and cuts their packets.
    pub addresses: Vec<IpAddr>,
}

impl NodeLocation {
    /// The addresses that are not IPv6 link-local. A link-local address is valid only on its own network segment.
    pub fn global(&self) -> impl Iterator<Item = &IpAddr> {
        self.addresses.iter().filter(|address| !is_link_local(address))
    }
}

/// True if the address is an IPv6 link-local address (RFC 4291 section 2.5.6).
///
/// Nodes on different network segments may have the same link-local address.
pub fn is_link_local(address: &IpAddr) -> bool {
    matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local())
}

/// The inventory: all nodes, inside and outside the topology.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Inventory {
    /// The location of each node.
    #[serde(deserialize_with = "read_nodes")]
    #[cfg_attr(test, schemars(with = "BTreeMap<NodeName, NodeLocation>"))]
    pub nodes: BTreeMap<NodeName, NodeLocation>,
    /// The zones that commands use while the topology has no zones. So `partition Z3` works on a bare LAN.
    #[serde(default)]
    pub zones: BTreeMap<ZoneName, Vec<NodeName>>,
}

/// Reads all nodes before it makes the map. A map that grows node by node, in their order, is half empty.
fn read_nodes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<NodeName, NodeLocation>, D::Error> {
    struct Nodes;

    impl<'de> Visitor<'de> for Nodes {
        type Value = BTreeMap<NodeName, NodeLocation>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a map")
        }

        fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
            let mut nodes = Vec::new();
            while let Some((node, mut location)) = map.next_entry::<NodeName, NodeLocation>()? {
                location.addresses.shrink_to_fit();
                nodes.push((node, location));
            }
            Ok(nodes.into_iter().collect())
        }
    }

    deserializer.deserialize_map(Nodes)
}

impl Inventory {
    /// Checks that each node has an address and that no address occurs twice. Ignores IPv6 link-local addresses.
    pub fn check(&self) -> Result<(), InventoryError> {
        let mut owners = HashMap::with_capacity(2 * self.nodes.len());
        for (node, location) in &self.nodes {
            if location.global().next().is_none() {
                return Err(InventoryError::NoAddress(node.clone()));
            }
            for address in location.global() {
                if let Some(other) = owners.insert(address, node) {
                    return Err(InventoryError::SharedAddress(*address, other.clone(), node.clone()));
                }
            }
        }
        Ok(())
    }
}

/// An error in an inventory.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum InventoryError {
    /// The text is not a valid interface name.
    #[error("`{0}` is no interface name: 1 to 15 bytes without `/`, `:` or white space")]
    Interface(String),
    /// A node has no address, or only IPv6 link-local addresses.
    #[error("node {0} has no address")]
    NoAddress(NodeName),
    /// Two nodes have the same address, or a node lists an address twice.
    ///
    /// Filters match addresses, so each node needs its own addresses.
    #[error("{0} is the address of both {1} and {2}")]
    SharedAddress(IpAddr, NodeName, NodeName),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_name_is_valid_if_the_kernel_accepts_the_name() {
        for good in ["eth0", "db0", "enp3s0f0np0", "a", "veth@x"] {
            assert_eq!(good.parse::<IfName>().unwrap().as_str(), good);
        }
        for bad in ["", ".", "..", "a/b", "a b", "eth0:1", "sixteen-bytes-xx"] {
            assert_eq!(bad.parse::<IfName>(), Err(InventoryError::Interface(bad.into())));
        }
    }
}
