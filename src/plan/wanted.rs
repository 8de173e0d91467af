//! The wanted state: the one document that every verb edits and that every node derives its part from.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use thiserror::Error;

use super::{
    Absent, Inventory, InventoryError, Moment, Overlay, OverlayError, OverlayRequest, Partition, PartitionError,
    PartitionRequest, TimedId, Timing, loss::lost_on,
};
use crate::topology::{Incoherence, Link, NodeName, Parameter, Topology, UnknownName, ZoneName, hostlist, incoherence};

/// What the network should be like. The controller sends the same bytes to all agents.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    /// Counts the edits; a controller that edits an older one is refused.
    pub generation: u64,
    /// What the links are like; `None`: as the LAN is.
    pub topology: Option<Topology>,
    /// Where the nodes are.
    pub inventory: Inventory,
    /// What is laid over the links, in the order in which it was: later wins.
    pub overlays: Vec<Overlay>,
    /// What is cut, in the order in which it was.
    pub partitions: Vec<Partition>,
    /// The nodes that the last edit left as they were, by the wish of whoever made it: they have an older document.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub missing: BTreeSet<NodeName>,
}

/// Names one version of the document: two documents with one stamp are the same bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Stamp {
    /// How many edits led to it.
    pub generation: u64,
    /// What it says.
    pub digest: Digest,
}

/// SHA-256 of the document's JSON, in hexadecimal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(transparent)]
pub struct Digest(String);

impl Stamp {
    /// Whether both name the same document, or documents that ask for nothing: of those, an agent that ended in the
    /// meantime forgets how many edits led there.
    pub fn agrees_with(&self, other: &Self) -> bool {
        self == other || self.digest == other.digest && self.digest == Wanted::default().stamp().digest
    }
}

impl Wanted {
    /// The document's name.
    pub fn stamp(&self) -> Stamp {
        // What is clear is clear, whichever edits led there.
        let empty = Self::default();
        let says = if self.is_clear() { &empty } else { self };
        // Only maps with string keys and plain structs are in it, which JSON can always write.
        let bytes = serde_json::to_vec(says).unwrap_or_default();
        let digest = Sha256::digest(bytes).iter().flat_map(|byte| [byte >> 4, byte & 0xf]).map(hex_digit).collect();
        Stamp { generation: self.generation, digest: Digest(digest) }
    }

    /// Whether every interface is to be as it was found.
    pub fn is_clear(&self) -> bool {
        self.topology.is_none() && self.overlays.is_empty() && self.partitions.is_empty()
    }

    /// Whether both ask the same of every node, and of the same nodes, whichever edit led there.
    pub fn says_the_same(&self, other: &Self) -> bool {
        let both_clear = self.is_clear() && other.is_clear();
        let alike = self.topology == other.topology
            && self.inventory == other.inventory
            && self.overlays == other.overlays
            && self.partitions == other.partitions;
        (both_clear || alike) && self.missing == other.missing
    }

    /// Whether this asks for less than `other`, of the same nodes in the same places, and for nothing else.
    pub fn only_removes_from(&self, other: &Self) -> bool {
        let is_topology_kept = self.topology.is_none() || self.topology == other.topology;
        let has_overlay = |overlay| other.overlays.contains(overlay);
        // Between two turns, what is in force of a partition differs from what the document says of it.
        let has_partition = |partition: &Partition| {
            let is_same = |known: &Partition| known == partition || *known == partition.asleep();
            other.partitions.iter().any(is_same)
        };
        let is_same_place = |(node, place)| other.inventory.nodes.get(node) == Some(place);
        self.inventory.nodes.iter().all(is_same_place)
            && is_topology_kept
            && self.overlays.iter().all(has_overlay)
            && self.partitions.iter().all(has_partition)
            && !self.says_the_same(&Self { missing: self.missing.clone(), ..other.clone() })
    }

    /// Whether this is given to all nodes that `other` was given to.
    pub fn is_on_all_of(&self, other: &Self) -> bool {
        let has = |wanted: &Self, node| wanted.inventory.nodes.contains_key(node) && !wanted.missing.contains(node);
        other.inventory.nodes.keys().filter(|node| has(other, node)).all(|node| has(self, node))
    }

    /// Whether packets get from one node to the other, apart from those that are lost and those of a port that is cut.
    pub fn reaches(&self, from: &NodeName, to: &NodeName) -> bool {
        let is_cut = |partition: &Partition| partition.ports.is_empty() && !partition.is_partial();
        !self.partitions.iter().any(|partition| is_cut(partition) && partition.cuts(from, to))
    }

    /// What a packet from one node to the other meets if no partition cuts it; partial ones are in the link's loss.
    pub fn link(&self, from: &NodeName, to: &NodeName) -> Link {
        let losses = self.partitions.iter().filter_map(|partition| partition.loss(from, to));
        lost_on(self.link_under(from, to, self.overlays.len()), losses)
    }

    /// What a packet from one node to the other would meet, partitions aside, under the overlay at `position`, and under all later ones.
    pub fn link_under(&self, from: &NodeName, to: &NodeName, position: usize) -> Link {
        let topology = self.topology.as_ref().and_then(|topology| topology.link(from, to));
        let overlays = self.overlays.iter().take(position).filter(|overlay| overlay.is_about(from, to));
        overlays.fold(topology.unwrap_or(Link::LAN), |link, overlay| overlay.over(link))
    }

    /// The links from a node to every other one of the topology, of an overlay or of a partial partition; the LAN is all
    /// around them.
    pub(super) fn links_from<'a>(&'a self, node: &'a NodeName) -> impl Iterator<Item = (&'a NodeName, Link)> {
        let losses = self.losses();
        self.own_links_from(node).map(move |(peer, link)| (peer, losses.over(node, peer, link)))
    }

    /// The same, partitions aside.
    pub(super) fn own_links_from<'a>(&'a self, node: &'a NodeName) -> impl Iterator<Item = (&'a NodeName, Link)> {
        let overlays: Vec<&Overlay> = self.overlays.iter().filter(|overlay| overlay.has_sender(node)).collect();
        let topology = self.topology.as_ref().filter(|topology| topology.contains(node));
        let of_topology = topology.into_iter().flat_map(|topology| topology.links_from(node));
        let is_outside = move |peer: &&NodeName| topology.is_none_or(|topology| !topology.contains(peer));
        // Without anything laid over it, whoever is not in the topology is on the LAN.
        let is_changed = !overlays.is_empty() || self.partitions.iter().any(Partition::is_partial);
        let others = is_changed.then(|| self.inventory.nodes.keys().filter(is_outside));
        let others = others.into_iter().flatten().filter(move |peer| *peer != node).map(|peer| (peer, Link::LAN));
        of_topology.chain(others).map(move |(peer, link)| {
            let about = overlays.iter().filter(|overlay| overlay.is_about(node, peer));
            (peer, about.fold(link, |link, overlay| overlay.over(link)))
        })
    }

    /// Where it is said that a link from this node has this parameter: a file and a line, a live change or a partition.
    /// None if no link from it has one.
    pub fn said_at(&self, node: &NodeName, parameter: Parameter) -> Option<String> {
        let (peer, _) = self.links_from(node).find(|(_, link)| link.parameters().any(|said| said == parameter))?;
        let says_so = |overlay: &&Overlay| {
            overlay.is_about(node, peer) && overlay.change.parameters().any(|said| said == parameter)
        };
        let loses = |partition: &&Partition| parameter == Parameter::Loss && partition.loss(node, peer).is_some();
        if let Some(partition) = self.partitions.iter().find(loses) {
            return Some(format!("partition {}", partition.name));
        }
        match self.overlays.iter().rfind(says_so) {
            Some(overlay) => Some(format!("live change {}", overlay.name)),
            None => Some(self.topology.as_ref()?.origin(node, peer, parameter)?.to_string()),
        }
    }

    /// The first link from a node whose parameters do not go together, which a topology never has and overlays may lead
    /// to; and which overlays are about it.
    pub fn incoherent_link(&self, node: &NodeName) -> Option<IncoherentLink> {
        if self.overlays.is_empty() {
            return None;
        }
        let mut links = self.links_from(node).filter_map(|(to, link)| Some((to, incoherence(&link)?)));
        let (to, why) = links.next()?;
        let overlays = self.overlays.iter().filter(|overlay| overlay.is_about(node, to));
        let overlays = overlays.map(|overlay| overlay.name.clone()).collect();
        Some(IncoherentLink { from: node.clone(), to: to.clone(), overlays, why })
    }

    /// The zones of the topology, or those of the inventory if it has none.
    pub fn zones(&self) -> BTreeMap<&ZoneName, &[NodeName]> {
        let zones: BTreeMap<_, _> = self.topology.iter().flat_map(Topology::zones).collect();
        if zones.is_empty() {
            return self.inventory.zones.iter().map(|(zone, nodes)| (zone, nodes.as_slice())).collect();
        }
        zones
    }

    /// The nodes of the inventory that the topology does not have, if there is one: they are on the LAN.
    pub fn outside(&self) -> Vec<NodeName> {
        let Some(topology) = &self.topology else { return Vec::new() };
        self.inventory.nodes.keys().filter(|node| !topology.contains(node)).cloned().collect()
    }

    /// The document without those overlays and partitions.
    #[must_use]
    pub fn without(&self, gone: &BTreeSet<TimedId>) -> Self {
        let mut rest = self.clone();
        rest.overlays.retain(|overlay| !gone.contains(&overlay.id()));
        rest.partitions.retain(|partition| !gone.contains(&partition.id()));
        rest
    }

    /// What of the document is in force while that much of it is not.
    #[must_use]
    pub fn in_force(&self, absent: &Absent) -> Self {
        let mut in_force = self.without(&absent.ended);
        for partition in &mut in_force.partitions {
            if absent.asleep.contains(&partition.id()) {
                *partition = partition.asleep();
            }
        }
        in_force
    }

    /// What does not stay in force until it is taken back.
    pub fn timed(&self) -> impl Iterator<Item = TimedId> {
        self.timings(Moment::from_nanos(0)).map(|(id, _)| id)
    }

    /// The same, with its times, if the document is committed at this moment.
    ///
    /// The time of an overlay begins then. So does that of a partition that came with this very document, if it was to
    /// begin before: so it lasts as long as it should, however long it took until all nodes were ready. An older
    /// partition began when it did, which a node may learn late.
    pub fn timings(&self, committed: Moment) -> impl Iterator<Item = (TimedId, Timing)> {
        let overlays = self.overlays.iter().filter_map(move |overlay| {
            let timing = Timing { begins: committed, lasts: Some(overlay.lasts?), flap: None };
            Some((overlay.id(), timing))
        });
        let partitions = self.partitions.iter();
        let partitions =
            partitions.filter_map(move |partition| Some((partition.id(), self.timing_of(partition, committed)?)));
        overlays.chain(partitions)
    }

    fn timing_of(&self, partition: &Partition, committed: Moment) -> Option<Timing> {
        let timing = partition.timing?;
        let is_new = partition.since == self.generation;
        Some(if is_new { Timing { begins: timing.begins.max(committed), ..timing } } else { timing })
    }

    /// The document with the beginnings that its partitions have once it is committed.
    #[must_use]
    pub fn committed(&self, at: Moment) -> Self {
        let began = |partition: &Partition| Partition { timing: self.timing_of(partition, at), ..partition.clone() };
        Self { partitions: self.partitions.iter().map(began).collect(), ..self.clone() }
    }

    /// The edit of `apply`: another topology, on these machines; overlays and partitions in force stay.
    pub fn with_topology(&self, topology: Topology, inventory: Inventory) -> Result<Self, EditError> {
        let missing: Vec<_> =
            topology.nodes().iter().filter(|node| !inventory.nodes.contains_key(*node)).cloned().collect();
        if !missing.is_empty() {
            return Err(EditError::Homeless { missing, known: inventory.nodes.keys().cloned().collect() });
        }
        Self { topology: Some(topology), ..self.clone() }.on(inventory)
    }

    /// The document without anything that was laid over its topology.
    #[must_use]
    pub fn bare(&self) -> Self {
        Self { overlays: Vec::new(), partitions: Vec::new(), ..self.clone() }
    }

    /// The edit of `set`: lays a change over the links between two sets of nodes, on top of all others.
    ///
    /// It takes the place of the one with its name, if there is one, and its time starts anew. One without an end that
    /// is on top already changes nothing.
    pub fn with_overlay(&self, wish: OverlayRequest, inventory: Inventory) -> Result<Self, EditError> {
        let mut edited = self.on(inventory)?;
        let (from, to) = (edited.select(&wish.from)?, edited.select(&wish.to)?);
        let overlay = Overlay::new(wish, from, to, self.generation + 1)?;
        if !edited.overlays.last().is_some_and(|top| overlay.repeats(top)) {
            edited.overlays.retain(|other| other.name != overlay.name);
            edited.overlays.push(overlay);
        }
        Ok(edited)
    }

    /// The edit of `unset`: without the overlays of those names, or without any if none is named.
    ///
    /// A name may be shortened to its beginning up to a colon, and means all that begin so then.
    pub fn without_overlays(&self, names: &[String], inventory: Inventory) -> Result<Self, EditError> {
        if let Some(name) = names.iter().find(|name| !self.overlays.iter().any(|overlay| overlay.is_called(name))) {
            let known = self.overlays.iter().map(|overlay| overlay.name.clone()).collect();
            return Err(OverlayError::NoSuchOverlay { name: name.clone(), known }.into());
        }
        let mut edited = self.clone();
        let is_meant = |overlay: &Overlay| names.is_empty() || names.iter().any(|name| overlay.is_called(name));
        edited.overlays.retain(|overlay| !is_meant(overlay));
        edited.on(inventory)
    }

    /// The edit of `partition`: cuts nodes off from each other, on top of all that is cut already.
    ///
    /// One that is in force already, under its name, with no time of its own, changes nothing.
    pub fn with_partition(&self, wish: PartitionRequest, inventory: Inventory) -> Result<Self, EditError> {
        let mut edited = self.on(inventory)?;
        let partition = wish.partition(&edited)?;
        match edited.partitions.iter().find(|other| other.name == partition.name) {
            Some(other) if partition.repeats(other) => {}
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
        let mut edited = self.clone();
        edited.partitions.retain(|partition| !names.is_empty() && !names.contains(&partition.name));
        edited.on(inventory)
    }

    /// The edit of `clear`: nothing is wanted any more.
    pub fn cleared(&self, inventory: Inventory) -> Result<Self, EditError> {
        Self { topology: None, overlays: Vec::new(), partitions: Vec::new(), ..self.clone() }.on(inventory)
    }

    /// The document with other places of the nodes. A node that is not among them any more stays where it was as long as
    /// something names it: what left the inventory stops no edit.
    pub fn on(&self, mut inventory: Inventory) -> Result<Self, EditError> {
        inventory.check()?;
        let owners: BTreeMap<IpAddr, NodeName> = inventory
            .nodes
            .iter()
            .flat_map(|(node, place)| place.global().map(|address| (*address, node.clone())))
            .collect();
        for (node, by) in self.named() {
            if inventory.nodes.contains_key(node) {
                continue;
            }
            let Some(place) = self.inventory.nodes.get(node) else {
                return Err(EditError::Nowhere(node.clone(), by));
            };
            if let Some(heir) = place.global().find_map(|address| owners.get(address)) {
                return Err(EditError::Inherited { node: node.clone(), heir: heir.clone(), by });
            }
            inventory.nodes.insert(node.clone(), place.clone());
        }
        Ok(Self { inventory, ..self.clone() })
    }

    /// The nodes that the document names, with what names them.
    fn named(&self) -> impl Iterator<Item = (&NodeName, NamedBy)> {
        let of_topology = self.topology.iter().flat_map(|topology| {
            topology.nodes().iter().map(|node| (node, NamedBy::Topology(topology.name().to_owned())))
        });
        let of_partitions = self.partitions.iter().flat_map(|partition| {
            partition.shape.nodes().map(|node| (node, NamedBy::Partition(partition.name.clone())))
        });
        let of_overlays = self.overlays.iter().flat_map(|overlay| {
            overlay.from.iter().chain(&overlay.to).map(|node| (node, NamedBy::Overlay(overlay.name.clone())))
        });
        of_topology.chain(of_partitions).chain(of_overlays)
    }

    /// The nodes that a word names: zones of the topology in force, or of the inventory if it has none, and nodes; `*` is
    /// everybody.
    pub(super) fn select(&self, word: &str) -> Result<BTreeSet<NodeName>, UnknownName> {
        let zones: BTreeMap<&str, &[NodeName]> =
            self.zones().into_iter().map(|(zone, nodes)| (zone.as_str(), nodes)).collect();
        let names = hostlist::expand(word).map_err(|error| UnknownName::malformed(word, error))?;
        let mut selected = BTreeSet::new();
        for name in names {
            let node = NodeName::try_from(name.clone()).ok().filter(|node| self.inventory.nodes.contains_key(node));
            match (zones.get(name.as_str()), node) {
                (Some(nodes), _) => selected.extend(nodes.iter().cloned()),
                (None, Some(node)) => drop(selected.insert(node)),
                (None, None) if name == "*" => selected.extend(self.inventory.nodes.keys().cloned()),
                (None, None) => {
                    let nodes = self.inventory.nodes.keys().map(NodeName::as_str);
                    return Err(UnknownName::new(&name, zones.keys().copied().chain(nodes)));
                }
            }
        }
        Ok(selected)
    }
}

/// A link whose parameters do not go together.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("the link from {from} to {to} cannot be, with {} laid over it: {why}; {}", .overlays.join(", "), .why.help())]
pub struct IncoherentLink {
    /// Whose packets.
    pub from: NodeName,
    /// To whom.
    pub to: NodeName,
    /// The overlays that are about it, by name.
    pub overlays: Vec<String>,
    /// What does not go together.
    pub why: Incoherence,
}

fn hex_digit(nibble: u8) -> char {
    char::from_digit(nibble.into(), 16).unwrap_or('?')
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "generation {} ({:.8})", self.generation, self.digest.0)
    }
}

/// A part of the document that names nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NamedBy {
    /// The topology of this name.
    Topology(String),
    /// A partition.
    Partition(String),
    /// A change of links.
    Overlay(String),
}

impl NamedBy {
    /// What takes it off.
    pub fn remedy(&self) -> String {
        match self {
            Self::Topology(_) => "apply a topology of the nodes that are there, or run: netemctl clear".to_owned(),
            Self::Partition(name) => format!("heal it first: netemctl heal {name}"),
            Self::Overlay(name) => format!("take it off first: netemctl unset {name}"),
        }
    }
}

impl fmt::Display for NamedBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Topology(name) => write!(f, "topology {name}"),
            Self::Partition(name) => write!(f, "partition {name}"),
            Self::Overlay(name) => write!(f, "change {name}"),
        }
    }
}

/// Why an edit of the wanted state cannot be.
#[derive(Debug, Error)]
pub enum EditError {
    /// Nodes of the topology that are nowhere.
    #[error("the topology's nodes {} do not exist; the fleet has {}", hostlist::fold(.missing), hostlist::fold(.known))]
    Homeless {
        /// Those nodes.
        missing: Vec<NodeName>,
        /// The nodes that the inventory has.
        known: Vec<NodeName>,
    },
    /// A node that is neither in the inventory nor in the document.
    #[error("{1} names node {0}, which is not in the inventory")]
    Nowhere(NodeName, NamedBy),
    /// A node that left the inventory, and another one has its address.
    #[error("{by} names node {node}, which is not in the inventory any more, and {heir} has its address")]
    Inherited {
        /// The node that left.
        node: NodeName,
        /// The one with its address.
        heir: NodeName,
        /// What names it.
        by: NamedBy,
    },
    /// A zone or node that does not exist.
    #[error(transparent)]
    UnknownName(#[from] UnknownName),
    /// A change of links that cannot be.
    #[error(transparent)]
    Overlay(#[from] OverlayError),
    /// A partition that cannot be.
    #[error(transparent)]
    Partition(#[from] PartitionError),
    /// An inventory that cannot be.
    #[error(transparent)]
    Inventory(#[from] InventoryError),
    /// Another partition has the name.
    #[error(
        "another partition is called `{0}`: heal it first (netemctl heal {0}), or give this one a name of its own with \
         --name"
    )]
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
