//! Reads an inventory file (TOML) as an [`InventoryFile`], and resolves it to an [`Inventory`](crate::plan::Inventory).
//!
//! ```toml
//! [defaults]                           # for all nodes; an entry of a node overrides these
//! host = "{node}.example.org"          # {node} is the node's name; the default is "{node}"
//! network = "10.20.0.0/16"             # selects the interface with an address in this network
//!
//! [nodes]                              # each key is a node name or a hostlist
//! "n[1-7]" = {}
//! n8 = { host = "10.0.0.8", interface = "enp3s0f1" }
//! n9 = { transport = "ssh", user = "root", addresses = "10.20.0.9" }
//!
//! [tls]                                # paths relative to this file's folder
//! ca = "pki/ca.crt"
//! cert = "pki/controller.crt"
//! key = "pki/controller.key"
//!
//! [zones]                              # for `netemctl partition Z3` on a plain LAN
//! Z3 = "n[7-9]"
//! ```
//!
//! `docs/inventory.md` has every key. A topology may carry the same tables under `[inventory]`.
//!
//! This module does no I/O. `words` checks keys and types, and `gather` makes the nodes. Both report all errors, as
//! [`crate::topology`] does. [`InventoryFile::resolve`] adds interfaces and addresses from the agents' answers.
//! [`draft()`] writes a new file from the agents' answers. First type to read: [`InventoryFile`].

mod agent;
mod draft;
mod gather;
mod pattern;
mod resolve;
#[cfg(test)]
mod tests;
mod words;
mod zones;

use std::{collections::BTreeMap, fmt, net::IpAddr};

use ipnetwork::IpNetwork;
use toml::de::DeTable;

pub use self::{
    draft::{Draft, Drafted, SameNode, draft},
    resolve::{Mismatch, Resolved},
};
use crate::{
    pki::TlsFiles,
    plan::{AgentAddress, IfName, Inventory, NodeLocation, is_link_local},
    topology::{FileKind, FileReport, Finding, NodeName, Origin, Source, Table, Topology, ZoneName, parse_toml},
};

/// The content of an inventory file. Valid by construction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InventoryFile {
    nodes: BTreeMap<NodeName, NodeEntry>,
    zones: BTreeMap<ZoneName, Vec<NodeName>>,
    tls: Option<TlsFiles>,
    warnings: FileReport,
}

/// One node of an inventory file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeEntry {
    /// The address of the node's agent.
    pub agent: AgentAddress,
    /// The node's interface for the database.
    pub interface: InterfaceSelector,
    /// The node's addresses on this interface. Empty: all addresses of the interface.
    pub addresses: Vec<IpAddr>,
    /// The position in the file. `None`: the entry comes from no file.
    pub origin: Option<Origin>,
}

/// The agent of a node that is not resolved yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contact {
    /// The agent's address.
    pub agent: AgentAddress,
    /// The interface for the database, if known.
    pub interface: Option<InterfaceSelector>,
}

/// The selection of a node's interface, by the key `interface` or by the key `network`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum InterfaceSelector {
    /// The interface with this name.
    Named(IfName),
    /// The interface with an address in this network.
    InNetwork(IpNetwork),
}

impl InventoryFile {
    /// Reads an inventory file's text.
    ///
    /// # Errors
    ///
    /// All errors of the file. If the file is not valid TOML, only the first error.
    pub fn parse(source: Source) -> Result<Self, FileReport> {
        let read = parse_toml(&source.text).and_then(|file| Self::of_table(file.get_ref(), &source));
        read.map_err(|findings| FileReport::new(source, findings))
    }

    /// Like [`Self::parse`]; `None`: the text is a topology with an `[inventory]` table.
    pub fn parse_own_file(source: Source) -> Result<Option<Self>, FileReport> {
        let read = parse_toml(&source.text).and_then(|file| {
            let is_in_topology = file.get_ref().contains_key("inventory");
            if is_in_topology { Ok(None) } else { Self::of_table(file.get_ref(), &source).map(Some) }
        });
        read.map_err(|findings| FileReport::new(source, findings))
    }

    fn of_table(file: &DeTable<'_>, source: &Source) -> Result<Self, Vec<Finding>> {
        FileKind::Inventory.check(file)?;
        gather::read(Table::open("an inventory", file), 0..0, source)
    }

    /// Reads the `[inventory]` table of a topology file, if it has one. Ignores the rest of the file.
    ///
    /// # Errors
    ///
    /// All errors of the `[inventory]` table.
    pub fn of_topology(topology: &Source) -> Result<Option<Self>, FileReport> {
        // Invalid TOML is reported when the topology is read.
        let Ok(file) = parse_toml(&topology.text) else { return Ok(None) };
        let mut top = Table::open("a topology", file.get_ref());
        let Some(entry) = top.take("inventory") else { return Ok(None) };
        let mut findings = Vec::new();
        let inventory = match entry.table("`inventory`", &mut findings) {
            Some(table) => gather::read(table, entry.key_span(), topology),
            None => Err(findings),
        };
        inventory.map(Some).map_err(|findings| FileReport::new(topology.clone(), findings))
    }

    /// Makes a file that resolves to this inventory.
    pub fn of(inventory: &Inventory, tls: Option<TlsFiles>) -> Self {
        let entry = |place: &NodeLocation| NodeEntry {
            agent: place.agent.clone(),
            interface: InterfaceSelector::Named(place.interface.clone()),
            addresses: place.addresses.clone(),
            origin: None,
        };
        let nodes = inventory.nodes.iter().map(|(node, place)| (node.clone(), entry(place))).collect();
        Self { nodes, zones: inventory.zones.clone(), tls, warnings: FileReport::default() }
    }

    /// Adds the zones of the topology, unless the file has zones.
    #[must_use]
    pub fn with_zones_of(mut self, topology: &Topology) -> Self {
        if self.zones.is_empty() {
            let known =
                |nodes: &[NodeName]| nodes.iter().filter(|node| self.nodes.contains_key(*node)).cloned().collect();
            let zones = topology.zones().map(|(zone, nodes)| (zone.clone(), known(nodes)));
            self.zones = zones.filter(|(_, nodes): &(_, Vec<NodeName>)| !nodes.is_empty()).collect();
        }
        self
    }

    /// All nodes, at least one.
    pub fn nodes(&self) -> &BTreeMap<NodeName, NodeEntry> {
        &self.nodes
    }

    /// The zones with their nodes. A node may be in no zone.
    pub fn zones(&self) -> &BTreeMap<ZoneName, Vec<NodeName>> {
        &self.zones
    }

    /// The files for TLS, if the inventory names them.
    pub fn tls(&self) -> Option<&TlsFiles> {
        self.tls.as_ref()
    }

    /// Warnings about the file.
    pub fn warnings(&self) -> &FileReport {
        &self.warnings
    }

    /// The agents of all nodes.
    pub fn agents(&self) -> BTreeMap<NodeName, Contact> {
        let contact =
            |entry: &NodeEntry| Contact { agent: entry.agent.clone(), interface: Some(entry.interface.clone()) };
        self.nodes.iter().map(|(node, entry)| (node.clone(), contact(entry))).collect()
    }

    /// The nodes whose agents netemctl asks for the interface's name or addresses.
    ///
    /// Includes all nodes without link-local addresses. A file has no link-local addresses, but the result of
    /// [`of`](Self::of) can have them.
    pub fn nodes_to_ask(&self) -> impl Iterator<Item = &NodeName> {
        let is_open = |entry: &NodeEntry| !entry.is_complete() || !entry.addresses.iter().any(is_link_local);
        self.nodes.iter().filter(move |(_, entry)| is_open(entry)).map(|(node, _)| node)
    }
}

impl fmt::Display for InterfaceSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named(name) => name.fmt(f),
            Self::InNetwork(network) => write!(f, "in {network}"),
        }
    }
}

impl NodeEntry {
    /// True if the node can be resolved without an answer of its agent.
    pub fn is_complete(&self) -> bool {
        matches!(self.interface, InterfaceSelector::Named(_)) && !self.addresses.is_empty()
    }

    /// The addresses that are not link-local.
    fn global(&self) -> impl Iterator<Item = &IpAddr> {
        self.addresses.iter().filter(|address| !is_link_local(address))
    }
}
