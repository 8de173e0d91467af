//! Defines the wanted-state document ([`Wanted`]) and the edits that the commands make.
//!
//! Each node computes the state of its own interface from the document.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, io,
    net::IpAddr,
    sync::{Arc, LazyLock},
};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use thiserror::Error;

use super::{
    Absent, Inventory, InventoryError, Missing, Moment, Overlay, OverlayError, OverlayRequest, Partition,
    PartitionError, PartitionRequest, TimedId, Timing, loss::lost_on,
};
use crate::topology::{
    Delay, Incoherence, Link, NodeName, Parameter, Topology, UnknownName, ZoneName, hostlist, incoherence,
};

/// The wanted state of the network. The controller sends the same bytes to all agents.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    /// The number of edits so far. Agents refuse a document with a lower generation than their own.
    pub generation: u64,
    /// The topology. `None`: no topology shapes the LAN.
    pub topology: Option<Topology>,
    /// The locations of the nodes.
    // Shared, so that an edit of 10,000 nodes copies no location.
    pub inventory: Arc<Inventory>,
    /// The overlays in the order of their addition. Later overlays win.
    pub overlays: Vec<Overlay>,
    /// The partitions in the order of their addition.
    pub partitions: Vec<Partition>,
    /// The nodes that the last edit left out on request. These nodes still have an older document.
    #[serde(default, skip_serializing_if = "Missing::is_empty")]
    pub missing: Missing,
}

/// The identity of a document. Two documents with the same stamp want the same network state.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Stamp {
    /// The generation.
    pub generation: u64,
    /// The digest of the document's content.
    pub digest: Digest,
}

/// SHA-256 of the document's JSON, in hexadecimal.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(transparent)]
pub struct Digest(Arc<str>);

/// The digest of all clear documents.
static CLEAR: LazyLock<Digest> = LazyLock::new(|| Digest::of(&Wanted::default()));

impl Digest {
    fn of(content: &Wanted) -> Self {
        let mut digest = io::BufWriter::new(Sha256::new());
        // Serialization fails only for map keys that are not strings. The document has no such keys. Hashing never fails.
        let hashed = serde_json::to_writer(&mut digest, content).ok().and_then(|()| digest.into_inner().ok());
        Self(format!("{:x}", hashed.unwrap_or_default().finalize()).into())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl Stamp {
    /// True if both stamps are equal, or if both stamps are of clear documents ([`Wanted::is_clear`]).
    ///
    /// Generations of clear documents may differ, because a restarted agent does not know the last generation.
    pub fn agrees_with(&self, other: &Self) -> bool {
        self == other || self.is_of_clear() && other.is_of_clear()
    }

    /// True if the document is clear ([`Wanted::is_clear`]).
    pub(super) fn is_of_clear(&self) -> bool {
        self.digest == *CLEAR
    }
}

impl Wanted {
    /// The identity of the document.
    pub fn stamp(&self) -> Stamp {
        // All clear documents get the same digest: their generation, inventory and missing nodes do not count.
        let digest = if self.is_clear() { CLEAR.clone() } else { Digest::of(self) };
        Stamp { generation: self.generation, digest }
    }

    /// True if the document has no topology, no overlays and no partitions. A clear document shapes no interface.
    pub fn is_clear(&self) -> bool {
        self.topology.is_none() && self.overlays.is_empty() && self.partitions.is_empty()
    }

    /// True if both documents want the same network state and have the same [`missing`](Self::missing) nodes.
    ///
    /// Ignores the generation. Ignores the inventories of two clear documents.
    pub fn is_equivalent_to(&self, other: &Self) -> bool {
        self.wants_the_same_as(other) && self.missing == other.missing
    }

    fn wants_the_same_as(&self, other: &Self) -> bool {
        let both_clear = || self.is_clear() && other.is_clear();
        let alike = self.topology == other.topology
            && self.overlays == other.overlays
            && self.partitions == other.partitions
            && self.inventory == other.inventory;
        alike || both_clear()
    }

    /// True if this document differs from `other` only by removals: of the topology, or of overlays, partitions or
    /// nodes.
    ///
    /// False if both documents are equivalent apart from [`missing`](Self::missing). Ignores zones of the inventory.
    pub fn only_removes_from(&self, other: &Self) -> bool {
        let is_topology_kept = self.topology.is_none() || self.topology == other.topology;
        let has_overlay = |overlay| other.overlays.contains(overlay);
        // In `other`, a partition that is not in force now has its inactive form (`in_force`).
        let has_partition = |partition: &Partition| {
            let is_same = |known: &Partition| known == partition || *known == partition.inactive();
            other.partitions.iter().any(is_same)
        };
        let is_same_place = |(node, place)| other.inventory.nodes.get(node) == Some(place);
        is_topology_kept
            && self.overlays.iter().all(has_overlay)
            && self.partitions.iter().all(has_partition)
            && !self.wants_the_same_as(other)
            && (Arc::ptr_eq(&self.inventory, &other.inventory) || self.inventory.nodes.iter().all(is_same_place))
    }

    /// True if all nodes that get `other` also get this document.
    ///
    /// All nodes of a document's inventory get the document, except the nodes in [`missing`](Self::missing).
    pub fn is_on_all_of(&self, other: &Self) -> bool {
        let has = |wanted: &Self, node| wanted.inventory.nodes.contains_key(node) && !wanted.missing.contains(node);
        other.inventory.nodes.keys().filter(|node| has(other, node)).all(|node| has(self, node))
    }

    /// False if a partition cuts all packets from one node to another.
    ///
    /// Ignores cuts of ports. Ignores partial partitions (`partition --loss`), which lose only a share of the packets.
    pub fn reaches(&self, from: &NodeName, to: &NodeName) -> bool {
        let is_cut = |partition: &Partition| partition.ports.is_empty() && !partition.is_partial();
        !self.partitions.iter().any(|partition| is_cut(partition) && partition.cuts(from, to))
    }

    /// The link from one node to another, with the losses of partial partitions.
    ///
    /// Leaves out a partition's loss if netemctl cannot add it to the link's own loss: if the link has ECN, correlation
    /// or the model `state`.
    pub fn link(&self, from: &NodeName, to: &NodeName) -> Link {
        let losses = self.partitions.iter().filter_map(|partition| partition.loss(from, to));
        lost_on(self.link_under(from, to, self.overlays.len()), losses)
    }

    /// The link from one node to another with the first `position` overlays. Ignores all partitions.
    pub fn link_under(&self, from: &NodeName, to: &NodeName, position: usize) -> Link {
        let topology = self.topology.as_ref().and_then(|topology| topology.link(from, to));
        let overlays = self.overlays.iter().take(position).filter(|overlay| overlay.is_about(from, to));
        overlays.fold(topology.unwrap_or_default(), |link, overlay| overlay.over(link))
    }

    /// The receivers of a node's packets, each with the link to it. Leaves out links that no topology, overlay or
    /// partial partition can change.
    pub(super) fn links_from<'a>(&'a self, node: &'a NodeName) -> impl Iterator<Item = (&'a NodeName, Link)> {
        let losses = self.losses();
        self.own_links_from(node).map(move |(peer, link)| (peer, losses.over(node, peer, link)))
    }

    /// Like [`Self::links_from`], without the losses of partitions.
    pub(super) fn own_links_from<'a>(&'a self, node: &'a NodeName) -> impl Iterator<Item = (&'a NodeName, Link)> {
        let overlays: Vec<&Overlay> = self.overlays.iter().filter(|overlay| overlay.has_sender(node)).collect();
        let topology = self.topology.as_ref().filter(|topology| topology.contains(node));
        let of_topology = topology.into_iter().flat_map(|topology| topology.links_from(node));
        let is_outside = move |peer: &&NodeName| topology.is_none_or(|topology| !topology.contains(peer));
        // Links outside the topology have no parameters if no overlay has this sender and no partial partition exists.
        let is_changed = !overlays.is_empty() || self.partitions.iter().any(Partition::is_partial);
        let others = is_changed.then(|| self.inventory.nodes.keys().filter(is_outside));
        let others = others.into_iter().flatten().filter(move |peer| *peer != node).map(|peer| (peer, Link::default()));
        of_topology.chain(others).map(move |(peer, link)| {
            let about = overlays.iter().filter(|overlay| overlay.is_about(node, peer));
            (peer, about.fold(link, |link, overlay| overlay.over(link)))
        })
    }

    /// The origin of a parameter on a node's links: a file and a line, an overlay ("live change") or a partition.
    ///
    /// If several links have the parameter, the first link counts. `None`: no link from the node has the parameter, or
    /// the topology does not know the origin.
    pub fn origin(&self, node: &NodeName, parameter: Parameter) -> Option<String> {
        let (peer, _) = self.links_from(node).find(|(_, link)| link.parameters().any(|other| other == parameter))?;
        let sets_parameter = |overlay: &&Overlay| {
            overlay.is_about(node, peer) && overlay.change.parameters().any(|other| other == parameter)
        };
        let loses = |partition: &&Partition| parameter == Parameter::Loss && partition.loss(node, peer).is_some();
        if let Some(partition) = self.partitions.iter().find(loses) {
            return Some(format!("partition {}", partition.name));
        }
        match self.overlays.iter().rfind(sets_parameter) {
            Some(overlay) => Some(format!("live change {}", overlay.name)),
            None => Some(self.topology.as_ref()?.origin(node, peer, parameter)?.to_string()),
        }
    }

    /// The first link from the node whose parameters contradict each other because of overlays.
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

    /// The zones of the topology. Without a topology, or if the topology has no zones: the zones of the inventory.
    pub fn zones(&self) -> BTreeMap<&ZoneName, &[NodeName]> {
        let zones: BTreeMap<_, _> = self.topology.iter().flat_map(Topology::zones).collect();
        if zones.is_empty() {
            return self.inventory.zones.iter().map(|(zone, nodes)| (zone, nodes.as_slice())).collect();
        }
        zones
    }

    /// The nodes of the inventory that are not in the topology. Empty if there is no topology.
    pub fn outside(&self) -> Vec<NodeName> {
        let Some(topology) = &self.topology else { return Vec::new() };
        self.inventory.nodes.keys().filter(|node| !topology.contains(node)).cloned().collect()
    }

    /// The document without these overlays and partitions.
    #[must_use]
    pub fn without(&self, gone: &BTreeSet<TimedId>) -> Self {
        let mut rest = self.clone();
        rest.overlays.retain(|overlay| !gone.contains(&overlay.id()));
        rest.partitions.retain(|partition| !gone.contains(&partition.id()));
        rest
    }

    /// The document without its ended overlays and partitions.
    ///
    /// A partition before its start, or while its flap has the link up, stays but cuts nothing.
    #[must_use]
    pub fn in_force(&self, absent: &Absent) -> Self {
        let mut in_force = self.without(&absent.ended);
        for partition in &mut in_force.partitions {
            if absent.inactive.contains(&partition.id()) {
                *partition = partition.inactive();
            }
        }
        in_force
    }

    /// The overlays with a duration and the partitions with a timing.
    pub fn timed(&self) -> impl Iterator<Item = TimedId> {
        self.timings(Moment::from_nanos(0)).map(|(id, _)| id)
    }

    /// The times of the overlays with a duration and of the partitions with a timing, if the commit is at this moment.
    ///
    /// An overlay begins at the commit. A partition that this generation added begins at the commit if its start has
    /// passed, so a slow preparation does not shorten the partition. An older partition keeps its start.
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

    /// The document after its commit at this moment. A new partition begins at the commit or later.
    #[must_use]
    pub fn committed(&self, at: Moment) -> Self {
        let began = |partition: &Partition| Partition { timing: self.timing_of(partition, at), ..partition.clone() };
        Self { partitions: self.partitions.iter().map(began).collect(), ..self.clone() }
    }

    /// The edit of `apply`: replaces the topology and the inventory. Overlays and partitions stay.
    pub fn with_topology(&self, topology: Topology, inventory: Inventory) -> Result<Self, EditError> {
        let missing: Vec<_> =
            topology.nodes().iter().filter(|node| !inventory.nodes.contains_key(*node)).cloned().collect();
        if !missing.is_empty() {
            return Err(EditError::UnknownNodes { missing, known: inventory.nodes.keys().cloned().collect() });
        }
        Self { topology: Some(topology), ..self.clone() }.on(inventory)
    }

    /// The document without overlays and partitions.
    #[must_use]
    pub fn bare(&self) -> Self {
        Self { overlays: Vec::new(), partitions: Vec::new(), ..self.clone() }
    }

    /// The edit of `set`: adds an overlay on top of all others.
    ///
    /// The new overlay replaces an older overlay of the same name, and the duration restarts. The request changes no
    /// overlay if the latest overlay is already the same and has no end.
    pub fn with_overlay(&self, request: OverlayRequest, inventory: Inventory) -> Result<Self, EditError> {
        let mut edited = self.on(inventory)?;
        let (from, to) = (edited.select(&request.from)?, edited.select(&request.to)?);
        let overlay = Overlay::new(request, from, to, self.generation + 1)?;
        if !edited.overlays.last().is_some_and(|top| overlay.repeats(top)) {
            edited.overlays.retain(|other| other.name != overlay.name);
            edited.overlays.push(overlay);
        }
        Ok(edited)
    }

    /// The edit of `unset`: removes the named overlays. An empty list removes all overlays.
    ///
    /// `Z1:Z3` also removes all overlays whose names begin with `Z1:Z3:`.
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

    /// The edit of `partition`: adds a partition.
    ///
    /// The request adds no partition if the document already has the same partition under this name, without a timing.
    pub fn with_partition(&self, request: PartitionRequest, inventory: Inventory) -> Result<Self, EditError> {
        let mut edited = self.on(inventory)?;
        let partition = request.partition(&edited)?;
        match edited.partitions.iter().find(|other| other.name == partition.name) {
            Some(other) if partition.repeats(other) => {}
            Some(_) => return Err(EditError::NameTaken(partition.name)),
            None => edited.partitions.push(partition),
        }
        Ok(edited)
    }

    /// The edit of `heal`: removes the named partitions. An empty list removes all partitions.
    pub fn healed(&self, names: &[String], inventory: Inventory) -> Result<Self, EditError> {
        if let Some(name) = names.iter().find(|name| !self.partitions.iter().any(|p| p.name == **name)) {
            let known = self.partitions.iter().map(|partition| partition.name.clone()).collect();
            return Err(EditError::NoSuchPartition { name: name.clone(), known });
        }
        let mut edited = self.clone();
        edited.partitions.retain(|partition| !names.is_empty() && !names.contains(&partition.name));
        edited.on(inventory)
    }

    /// The edit of `clear`: removes the topology, all overlays and all partitions.
    pub fn cleared(&self, inventory: Inventory) -> Result<Self, EditError> {
        Self { topology: None, overlays: Vec::new(), partitions: Vec::new(), ..self.clone() }.on(inventory)
    }

    /// The document with another inventory.
    ///
    /// The topology, an overlay or a partition may name a node that the new inventory lacks. The document then keeps
    /// the node's old location, so that other edits remain possible. Fails if the document has no old location of the
    /// node, or if another node now has the address of the node.
    pub fn on(&self, mut inventory: Inventory) -> Result<Self, EditError> {
        inventory.check()?;
        let others: Vec<_> = self.named().filter(|(node, _)| !inventory.nodes.contains_key(*node)).collect();
        // Rarely needed, and large.
        let places = (!others.is_empty()).then_some(&inventory.nodes).into_iter().flatten();
        let owners: BTreeMap<IpAddr, NodeName> =
            places.flat_map(|(node, place)| place.global().map(|address| (*address, node.clone()))).collect();
        for (node, by) in others {
            let Some(place) = self.inventory.nodes.get(node) else {
                return Err(EditError::Nowhere(node.clone(), by));
            };
            if let Some(owner) = place.global().find_map(|address| owners.get(address)) {
                return Err(EditError::AddressTaken { node: node.clone(), owner: owner.clone(), by });
            }
            inventory.nodes.insert(node.clone(), place.clone());
        }
        let inventory = if *self.inventory == inventory { Arc::clone(&self.inventory) } else { Arc::new(inventory) };
        Ok(Self { inventory, ..self.clone() })
    }

    /// The nodes that the document names, each with the topology, partition or overlay that names the node.
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

    /// The nodes of a selector. A selector has names of [zones](Self::zones), names of nodes, or `*` for all nodes.
    ///
    /// If a zone and a node have the same name, the name means the zone.
    pub(crate) fn select(&self, selector: &str) -> Result<BTreeSet<NodeName>, UnknownName> {
        let zones: BTreeMap<&str, &[NodeName]> =
            self.zones().into_iter().map(|(zone, nodes)| (zone.as_str(), nodes)).collect();
        let names = hostlist::expand(selector).map_err(|error| UnknownName::malformed(selector, error))?;
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

/// A link with contradictory parameters.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{}: {why}; {}", changes(.overlays), remedy(*.why))]
pub struct IncoherentLink {
    /// The sender.
    pub from: NodeName,
    /// The receiver.
    pub to: NodeName,
    /// The names of the overlays on the link.
    pub overlays: Vec<String>,
    /// The contradiction.
    pub why: Incoherence,
}

/// The subject of the message of [`IncoherentLink`]: the overlays on the link.
fn changes(overlays: &[String]) -> String {
    let noun = if overlays.len() == 1 { "change" } else { "changes" };
    format!("{noun} {}", overlays.join(", "))
}

/// The remedy for a contradiction, in terms of the command `set`.
fn remedy(why: Incoherence) -> String {
    match why {
        Incoherence::JitterBeyondDelay { delay: Delay::ZERO, .. } => "set delay too, or use jitter=0ms".to_owned(),
        Incoherence::JitterBeyondDelay { delay, .. } => format!("use jitter of at most {delay}, or set delay too"),
        Incoherence::ReorderWithoutDelay => "set delay too, or use reorder=0%".to_owned(),
        Incoherence::ReorderWithoutJitter => "set jitter too, or use reorder=0%".to_owned(),
    }
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "generation {} ({:.8})", self.generation, self.digest.0)
    }
}

/// A part of the document that names a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NamedBy {
    /// The topology with this name.
    Topology(String),
    /// The partition with this name.
    Partition(String),
    /// The overlay with this name.
    Overlay(String),
}

impl NamedBy {
    /// The user's remedy: how to remove or replace the part.
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

/// An error in an edit.
#[derive(Debug, Error)]
pub enum EditError {
    /// The topology has nodes that are not in the inventory.
    #[error("the topology's nodes {} do not exist; the fleet has {}", hostlist::fold(.missing), hostlist::fold(.known))]
    UnknownNodes {
        /// The nodes that are not in the inventory.
        missing: Vec<NodeName>,
        /// The nodes of the inventory.
        known: Vec<NodeName>,
    },
    /// A part of the document names a node that is in neither the old nor the new inventory.
    #[error("{1} names node {0}, which is not in the inventory")]
    Nowhere(NodeName, NamedBy),
    /// A part of the document names a node that has left the inventory, and another node has its address.
    #[error("{by} names node {node}, which is not in the inventory any more, and {owner} has its address")]
    AddressTaken {
        /// The node that has left the inventory.
        node: NodeName,
        /// The node that now has the address.
        owner: NodeName,
        /// The part that names the node.
        by: NamedBy,
    },
    /// A selector has an unknown zone or node.
    #[error(transparent)]
    UnknownName(#[from] UnknownName),
    /// An error in an overlay.
    #[error(transparent)]
    Overlay(#[from] OverlayError),
    /// An error in a partition.
    #[error(transparent)]
    Partition(#[from] PartitionError),
    /// An error in the inventory.
    #[error(transparent)]
    Inventory(#[from] InventoryError),
    /// Another partition already has the name.
    #[error(
        "another partition is called `{0}`: heal it first (netemctl heal {0}), or give this one a name of its own with \
         --name"
    )]
    NameTaken(String),
    /// No partition has the requested name.
    #[error("no partition is called `{name}`; in force: {}", if .known.is_empty() { "none".to_owned() } else { .known.join(", ") })]
    NoSuchPartition {
        /// The requested name.
        name: String,
        /// The names of the existing partitions.
        known: Vec<String>,
    },
}
