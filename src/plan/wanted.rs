//! The wanted state: the one document that every verb edits and that every node derives its part from.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use thiserror::Error;

use super::{Inventory, InventoryError, Partition, PartitionError};
use crate::topology::{Link, NodeName, Topology, UnknownName, hostlist};

/// What the network should be like. The controller sends the same bytes to all agents.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    /// Counts the edits; a controller that edits an older one is refused.
    pub generation: u64,
    /// What the links are like; `None`: as the LAN is.
    pub topology: Option<Topology>,
    /// Where the nodes are.
    pub inventory: Inventory,
    /// What is cut, in the order in which it was.
    pub partitions: Vec<Partition>,
}

/// Names one version of the document: two documents with one stamp are the same bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    /// How many edits led to it.
    pub generation: u64,
    /// What it says.
    pub digest: Digest,
}

/// SHA-256 of the document's JSON, in hexadecimal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Digest(String);

impl Wanted {
    /// The document's name.
    pub fn stamp(&self) -> Stamp {
        // Only maps with string keys and plain structs are in it, which JSON can always write.
        let bytes = serde_json::to_vec(self).unwrap_or_default();
        let digest = Sha256::digest(bytes).iter().flat_map(|byte| [byte >> 4, byte & 0xf]).map(hex_digit).collect();
        Stamp { generation: self.generation, digest: Digest(digest) }
    }

    /// Whether every interface is to be as it was found.
    pub fn is_clear(&self) -> bool {
        self.topology.is_none() && self.partitions.is_empty()
    }

    /// Whether both ask the same of every node, whichever edit led there.
    pub fn says_the_same(&self, other: &Self) -> bool {
        let both_clear = self.is_clear() && other.is_clear();
        both_clear
            || self.topology == other.topology
                && self.inventory == other.inventory
                && self.partitions == other.partitions
    }

    /// Whether a packet gets from one node to the other.
    pub fn reaches(&self, from: &NodeName, to: &NodeName) -> bool {
        !self.partitions.iter().any(|partition| partition.cuts(from, to))
    }

    /// What a packet from one node to the other meets, partitions aside.
    pub fn link(&self, from: &NodeName, to: &NodeName) -> Link {
        self.topology.as_ref().and_then(|topology| topology.link(from, to)).unwrap_or(Link::LAN)
    }

    /// The edit of `apply`: another topology, on these machines; partitions in force stay.
    pub fn with_topology(&self, topology: Topology, inventory: Inventory) -> Result<Self, EditError> {
        let missing: Vec<_> =
            topology.nodes().iter().filter(|node| !inventory.nodes.contains_key(*node)).cloned().collect();
        if !missing.is_empty() {
            return Err(EditError::Homeless { missing, known: inventory.nodes.len() });
        }
        Self { topology: Some(topology), ..self.clone() }.on(inventory)
    }

    /// The edit of `partition`: each word is a side, its parts (zones, nodes, hostlists) separated by commas.
    ///
    /// A partition that is in force already, under that name, with those sides, changes nothing.
    pub fn with_partition(
        &self,
        name: Option<String>,
        sides: &[String],
        inventory: Inventory,
    ) -> Result<Self, EditError> {
        let mut edited = self.on(inventory)?;
        let sets = sides.iter().map(|side| edited.select(side)).collect::<Result<_, _>>()?;
        let everyone = edited.inventory.nodes.keys().cloned().collect();
        let partition = Partition::new(name.unwrap_or_else(|| sides.join("/")), sets, &everyone)?;
        match edited.partitions.iter().find(|other| other.name == partition.name) {
            Some(other) if *other == partition => {}
            Some(_) => return Err(EditError::NameTaken(partition.name)),
            None => edited.partitions.push(partition),
        }
        Ok(edited)
    }

    /// The edit of `heal`: without those partitions, or without any if none is named.
    pub fn healed(&self, names: &[String], inventory: Inventory) -> Result<Self, EditError> {
        if let Some(name) = names.iter().find(|name| !self.partitions.iter().any(|p| p.name == **name)) {
            let known = self.partitions.iter().map(|partition| partition.name.clone()).collect();
            return Err(EditError::NoSuchPartition { name: name.clone(), known });
        }
        let mut edited = self.on(inventory)?;
        edited.partitions.retain(|partition| !names.is_empty() && !names.contains(&partition.name));
        Ok(edited)
    }

    /// The edit of `clear`: nothing is wanted any more.
    pub fn cleared(&self, inventory: Inventory) -> Result<Self, EditError> {
        Self { topology: None, partitions: Vec::new(), ..self.clone() }.on(inventory)
    }

    fn on(&self, inventory: Inventory) -> Result<Self, EditError> {
        inventory.check()?;
        for node in self.partitions.iter().flat_map(|partition| partition.sides.iter().flatten()) {
            if !inventory.nodes.contains_key(node) {
                return Err(PartitionError::Unknown(node.clone()).into());
            }
        }
        Ok(Self { inventory, ..self.clone() })
    }

    /// The nodes that a side names: zones of the topology in force, or of the inventory if it has none, and nodes.
    fn select(&self, side: &str) -> Result<BTreeSet<NodeName>, UnknownName> {
        let mut zones: BTreeMap<&str, &[NodeName]> = BTreeMap::new();
        if let Some(topology) = &self.topology {
            zones.extend(topology.zones().map(|(zone, nodes)| (zone.as_str(), nodes)));
        }
        if zones.is_empty() {
            zones.extend(self.inventory.zones.iter().map(|(zone, nodes)| (zone.as_str(), nodes.as_slice())));
        }
        let names = hostlist::expand(side).map_err(|error| UnknownName::malformed(side, error))?;
        let mut selected = BTreeSet::new();
        for name in names {
            let node = NodeName::try_from(name.clone()).ok().filter(|node| self.inventory.nodes.contains_key(node));
            match (zones.get(name.as_str()), node) {
                (Some(nodes), _) => selected.extend(nodes.iter().cloned()),
                (None, Some(node)) => drop(selected.insert(node)),
                (None, None) => {
                    let nodes = self.inventory.nodes.keys().map(NodeName::as_str);
                    return Err(UnknownName::new(&name, zones.keys().copied().chain(nodes)));
                }
            }
        }
        Ok(selected)
    }
}

fn hex_digit(nibble: u8) -> char {
    char::from_digit(nibble.into(), 16).unwrap_or('?')
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "generation {} ({:.8})", self.generation, self.digest.0)
    }
}

/// Why an edit of the wanted state cannot be.
#[derive(Debug, Error)]
pub enum EditError {
    /// Nodes of the topology that are nowhere.
    #[error("the topology's nodes {} are not among the {known} of the fleet", hostlist::fold(.missing))]
    Homeless {
        /// Those nodes.
        missing: Vec<NodeName>,
        /// How many nodes the inventory has.
        known: usize,
    },
    /// A zone or node that does not exist.
    #[error(transparent)]
    UnknownName(#[from] UnknownName),
    /// A partition that cannot be.
    #[error(transparent)]
    Partition(#[from] PartitionError),
    /// An inventory that cannot be.
    #[error(transparent)]
    Inventory(#[from] InventoryError),
    /// Another partition has the name.
    #[error("another partition is called `{0}`: heal it first, or give this one a name of its own with --name")]
    NameTaken(String),
    /// Nothing to heal under that name.
    #[error("no partition is called `{name}`; in force: {}", if .known.is_empty() { "none".to_owned() } else { .known.join(", ") })]
    NoSuchPartition {
        /// What was asked for.
        name: String,
        /// What there is.
        known: Vec<String>,
    },
}
