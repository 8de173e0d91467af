//! The inventory language: where the nodes are, from a TOML file to [`InventoryFile`], which cannot be invalid, and with
//! what their agents say to an [`Inventory`](crate::plan::Inventory).
//!
//! ```toml
//! [defaults]                           # for every node that does not say otherwise
//! host = "{node}.example.org"          # {node} is the node's name; `host = "{node}"` goes without saying
//! network = "10.20.0.0/16"             # the interface that has an address in it, whatever it is called there
//!
//! [nodes]                              # a node or a hostlist, and what is special about it
//! "n[1-7]" = {}
//! n8 = { host = "10.0.0.8", interface = "enp3s0f1" }
//! n9 = { transport = "ssh", user = "root", addresses = "10.20.0.9" }
//!
//! [tls]                                # files, relative to the folder of this one
//! ca = "pki/ca.crt"
//! cert = "pki/controller.crt"
//! key = "pki/controller.key"
//!
//! [zones]                              # so that `netemctl partition Z3` works on a bare LAN, too
//! Z3 = "n[7-9]"
//! ```
//!
//! `docs/inventory.md` has every key. A topology may carry the same tables under `[inventory]`.
//!
//! The module is pure. A file passes through `words` (TOML to words) and `gather` (words to nodes), which report
//! everything that they find by the machinery of [`crate::topology`]. What the file leaves open its agents answer:
//! [`InventoryFile::resolve`] takes what they said. [`draft()`] goes the other way, from what they said to a file. First
//! type to read: [`InventoryFile`].

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

pub use self::{
    draft::{Draft, Drafted, SameNode, draft},
    resolve::{Mismatch, Resolved},
};
use crate::{
    pki::TlsFiles,
    plan::{AgentAddress, IfName, Inventory, NodeLocation, is_link_local},
    topology::{FileKind, NodeName, Origin, Rejected, Source, Table, Topology, Warnings, ZoneName, parse_toml},
};

/// What a file says of where the nodes are. Valid by construction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InventoryFile {
    nodes: BTreeMap<NodeName, NodeEntry>,
    zones: BTreeMap<ZoneName, Vec<NodeName>>,
    tls: Option<TlsFiles>,
    warnings: Warnings,
}

/// What the file says of one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeEntry {
    /// The address of its agent.
    pub agent: AgentAddress,
    /// Which of its interfaces is dedicated to the database.
    pub interface: Which,
    /// Its addresses on that interface; empty: all that it has.
    pub addresses: Vec<IpAddr>,
    /// Where the file says all this; `None`: no file does.
    pub origin: Option<Origin>,
}

/// A node that can be asked although its place is not known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contact {
    /// Its agent.
    pub agent: AgentAddress,
    /// What is known of the interface that is the database's.
    pub interface: Option<Which>,
}

/// How a file says which interface it means.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Which {
    /// The one of this name.
    Named(IfName),
    /// The one that has an address in this network.
    InNetwork(IpNetwork),
}

impl InventoryFile {
    /// Reads an inventory file's text.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with it; of broken TOML, the first thing.
    pub fn parse(source: Source) -> Result<Self, Rejected> {
        let file = match parse_toml(&source.text) {
            Ok(file) => file,
            Err(findings) => return Err(Rejected::new(source, findings)),
        };
        if let Some(mistaken) = FileKind::Inventory.reject_other_kind(file.get_ref()) {
            return Err(Rejected::new(source.clone(), vec![mistaken]));
        }
        match gather::read(Table::open("an inventory", file.get_ref()), 0..0, &source) {
            Ok(inventory) => Ok(inventory),
            Err(findings) => Err(Rejected::new(source.clone(), findings)),
        }
    }

    /// Reads the `[inventory]` table of a topology file, if it has one. The rest of the file may be wrong in any way.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with that table.
    pub fn of_topology(topology: &Source) -> Result<Option<Self>, Rejected> {
        // What is no TOML at all is the topology's own matter.
        let Ok(file) = parse_toml(&topology.text) else { return Ok(None) };
        let mut top = Table::open("a topology", file.get_ref());
        let Some(entry) = top.take("inventory") else { return Ok(None) };
        let mut findings = Vec::new();
        let inventory = match entry.table("`inventory`", &mut findings) {
            Some(table) => gather::read(table, entry.key_span(), topology),
            None => Err(findings),
        };
        inventory.map(Some).map_err(|findings| Rejected::new(topology.clone(), findings))
    }

    /// Whether a file's text is that of a topology with an `[inventory]` table, rather than an inventory file.
    pub fn is_in_topology(text: &str) -> bool {
        parse_toml(text).is_ok_and(|file| file.get_ref().contains_key("inventory"))
    }

    /// What a file would say of an inventory of which everything is known.
    pub fn of(inventory: &Inventory, tls: Option<TlsFiles>) -> Self {
        let entry = |place: &NodeLocation| NodeEntry {
            agent: place.agent.clone(),
            interface: Which::Named(place.interface.clone()),
            addresses: place.addresses.clone(),
            origin: None,
        };
        let nodes = inventory.nodes.iter().map(|(node, place)| (node.clone(), entry(place))).collect();
        Self { nodes, zones: inventory.zones.clone(), tls, warnings: Warnings::default() }
    }

    /// With the zones of the topology that it belongs to, unless it has its own.
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

    /// The zones with their nodes. A node may be in none.
    pub fn zones(&self) -> &BTreeMap<ZoneName, Vec<NodeName>> {
        &self.zones
    }

    /// What to speak TLS with, if the file says so.
    pub fn tls(&self) -> Option<&TlsFiles> {
        self.tls.as_ref()
    }

    /// What is probably not meant in the file, although the file is right.
    pub fn warnings(&self) -> &Warnings {
        &self.warnings
    }

    /// The agents of all nodes.
    pub fn agents(&self) -> BTreeMap<NodeName, Contact> {
        let contact =
            |entry: &NodeEntry| Contact { agent: entry.agent.clone(), interface: Some(entry.interface.clone()) };
        self.nodes.iter().map(|(node, entry)| (node.clone(), contact(entry))).collect()
    }

    /// The nodes of which the file does not say everything, so that their agents are asked. No file has link-local
    /// addresses.
    pub fn open_questions(&self) -> impl Iterator<Item = &NodeName> {
        let is_open = |entry: &NodeEntry| !entry.is_complete() || !entry.addresses.iter().any(is_link_local);
        self.nodes.iter().filter(move |(_, entry)| is_open(entry)).map(|(node, _)| node)
    }
}

impl fmt::Display for Which {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named(name) => name.fmt(f),
            Self::InNetwork(network) => write!(f, "in {network}"),
        }
    }
}

impl NodeEntry {
    /// Whether the node has a place although its agent says nothing.
    pub fn is_complete(&self) -> bool {
        matches!(self.interface, Which::Named(_)) && !self.addresses.is_empty()
    }

    fn global(&self) -> impl Iterator<Item = &IpAddr> {
        self.addresses.iter().filter(|address| !is_link_local(address))
    }
}
