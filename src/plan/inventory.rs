//! Where the nodes are: which agent to ask, which interface it may shape, which addresses the others know it by.

use std::{collections::BTreeMap, fmt, net::IpAddr, path::PathBuf, str::FromStr};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{HostPort, SshAddress};
use crate::topology::{NodeName, ZoneName};

/// A network interface's name as the kernel accepts it: 1 to 15 bytes, no `/`, no white space (`dev_valid_name`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(try_from = "String", into = "String")]
pub struct IfName(String);

impl IfName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for IfName {
    type Error = InventoryError;

    fn try_from(name: String) -> Result<Self, Self::Error> {
        let sound = (1..=15).contains(&name.len())
            && name != "."
            && name != ".."
            && !name.contains(|c: char| c == '/' || c == ':' || c.is_whitespace());
        if sound { Ok(Self(name)) } else { Err(InventoryError::Interface(name)) }
    }
}

impl FromStr for IfName {
    type Err = InventoryError;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::try_from(name.to_owned())
    }
}

impl From<IfName> for String {
    fn from(name: IfName) -> Self {
        name.0
    }
}

impl fmt::Display for IfName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// How the controller reaches an agent; written `unix:/path`, `https://HOST:PORT`, `http://127.0.0.1:PORT` or
/// `ssh://[USER@]HOST[:PORT]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(try_from = "String", into = "String")]
pub enum AgentAddress {
    /// A Unix socket of this machine.
    Unix(PathBuf),
    /// HTTPS with mutual TLS.
    Https(HostPort),
    /// HTTP without TLS, to this machine alone.
    Http(HostPort),
    /// A host on which ssh starts `netemctl agent --stdio`.
    Ssh(SshAddress),
}

impl TryFrom<String> for AgentAddress {
    type Error = InventoryError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        match text.strip_prefix("unix:") {
            Some(path) if path.starts_with('/') => return Ok(Self::Unix(path.into())),
            _ => {}
        }
        if text.starts_with("ssh:") {
            return text.parse().map(Self::Ssh);
        }
        if let Some(Ok(address)) = text.strip_prefix("https://").map(str::parse) {
            return Ok(Self::Https(address));
        }
        match text.strip_prefix("http://").map(str::parse::<HostPort>) {
            Some(Ok(address)) if address.is_loopback() => Ok(Self::Http(address)),
            Some(Ok(_)) => Err(InventoryError::Plain(text)),
            _ => Err(InventoryError::Agent(text)),
        }
    }
}

impl From<AgentAddress> for String {
    fn from(address: AgentAddress) -> Self {
        address.to_string()
    }
}

impl fmt::Display for AgentAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Https(address) => write!(f, "https://{address}"),
            Self::Http(address) => write!(f, "http://{address}"),
            Self::Ssh(address) => address.fmt(f),
        }
    }
}

/// Where one node is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct NodeLocation {
    /// The node's agent.
    pub agent: AgentAddress,
    /// The interface dedicated to the database: the only one that is ever shaped.
    pub interface: IfName,
    /// The node's addresses on that interface, IPv4 and IPv6, the first being the one shown to people. Link-local ones of
    /// IPv6 are among them: what is sent to these is delayed and cut as well.
    pub addresses: Vec<IpAddr>,
}

impl NodeLocation {
    /// The addresses that mean the same on every host: all but link-local ones of IPv6, which mean nothing without a link.
    pub fn global(&self) -> impl Iterator<Item = &IpAddr> {
        self.addresses.iter().filter(|address| !is_link_local(address))
    }
}

/// Whether an address is one of a link, as each IPv6 interface gives itself (RFC 4291 section 2.5.6). Nodes on different
/// links may have the same.
pub fn is_link_local(address: &IpAddr) -> bool {
    matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local())
}

/// All the nodes that there are, whether a topology names them or not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Inventory {
    /// Each node's place.
    pub nodes: BTreeMap<NodeName, NodeLocation>,
    /// Zones that are known without a topology in force, so that `partition Z3` works on a bare LAN.
    #[serde(default)]
    pub zones: BTreeMap<ZoneName, Vec<NodeName>>,
}

impl Inventory {
    /// Checks what the types do not: no address belongs to two nodes, but for link-local ones, and each node has one.
    pub fn check(&self) -> Result<(), InventoryError> {
        let mut owners = BTreeMap::new();
        for (node, place) in &self.nodes {
            if place.global().next().is_none() {
                return Err(InventoryError::NoAddress(node.clone()));
            }
            for address in place.global() {
                if let Some(other) = owners.insert(address, node) {
                    return Err(InventoryError::SharedAddress(*address, other.clone(), node.clone()));
                }
            }
        }
        Ok(())
    }
}

/// Why an inventory, or a part of one, cannot be.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum InventoryError {
    /// Not a name that the kernel gives an interface.
    #[error("`{0}` is no interface name: 1 to 15 bytes without `/`, `:` or white space")]
    Interface(String),
    /// Not an agent's address.
    #[error("`{0}` is no agent address: write https://HOST:PORT, ssh://USER@HOST or unix:/path/of/the/socket")]
    Agent(String),
    /// Without TLS, by a network.
    #[error("`{0}`: without TLS an agent is reached on its own machine only; write https://HOST:PORT")]
    Plain(String),
    /// Not a host that ssh could go to.
    #[error("`{0}` is no address for ssh: write ssh://[USER@]HOST[:PORT], an IPv6 address in brackets")]
    Ssh(String),
    /// A node that nobody could send to.
    #[error("node {0} has no address")]
    NoAddress(NodeName),
    /// One address, two nodes: the filters could not tell them apart.
    #[error("{0} is the address of both {1} and {2}")]
    SharedAddress(IpAddr, NodeName, NodeName),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_name_is_what_the_kernel_accepts() {
        for good in ["eth0", "db0", "enp3s0f0np0", "a", "veth@x"] {
            assert_eq!(good.parse::<IfName>().unwrap().as_str(), good);
        }
        for bad in ["", ".", "..", "a/b", "a b", "eth0:1", "sixteen-bytes-xx"] {
            assert_eq!(bad.parse::<IfName>(), Err(InventoryError::Interface(bad.into())));
        }
    }

    #[test]
    fn an_agent_address_round_trips_and_needs_an_absolute_path() {
        let address = AgentAddress::try_from("unix:/run/n1.sock".to_owned()).unwrap();
        assert_eq!(String::from(address), "unix:/run/n1.sock");
        assert!(AgentAddress::try_from("unix:n1.sock".to_owned()).is_err());
        assert!(AgentAddress::try_from("/run/n1.sock".to_owned()).is_err());
        for good in ["https://n1.mgmt:7946", "https://[fd77::1]:7946", "http://127.0.0.1:7946", "http://[::1]:80"] {
            assert_eq!(AgentAddress::try_from(good.to_owned()).map(String::from).as_deref(), Ok(good));
        }
        for bad in ["https://n1", "https://n1:7946/", "HTTPS://n1:7946", "http://localhost", "n1:7946"] {
            assert_eq!(AgentAddress::try_from(bad.to_owned()), Err(InventoryError::Agent(bad.to_owned())));
        }
        let plain = "http://10.0.0.1:7946".to_owned();
        assert_eq!(AgentAddress::try_from(plain.clone()), Err(InventoryError::Plain(plain)));
        let address = AgentAddress::try_from("ssh://root@n1:22".to_owned()).unwrap();
        assert_eq!(String::from(address), "ssh://root@n1:22");
        assert!(AgentAddress::try_from("ssh:n1".to_owned()).is_err());
    }
}
