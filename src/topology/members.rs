//! The nodes and zones of a topology: [`Members`].
//!
//! `membership` reads the nodes and zones from a file. [`Members::find`] resolves the words of a file and of a command
//! line in the same way.

use std::{collections::HashMap, ops::Range, sync::Arc};

use super::{
    hostlist,
    name::{NodeName, ZoneName},
    node_set::{NodeId, NodeSet},
    unknown_name::UnknownName,
};

/// The nodes and zones of a topology.
#[derive(Clone, Debug, Default)]
pub(super) struct Members {
    /// The nodes in the file's order. The nodes of a zone are consecutive.
    nodes: Vec<NodeName>,
    /// The zones in the file's order, so their ranges of nodes ascend.
    zones: Vec<Zone>,
    /// The zones and nodes by name. The keys share the text of the names.
    index: HashMap<Arc<str>, Member>,
}

/// A zone and its nodes.
#[derive(Clone, Debug)]
pub(super) struct Zone {
    pub(super) name: ZoneName,
    pub(super) nodes: Range<NodeId>,
}

/// A zone or a node.
#[derive(Clone, Copy, Debug)]
pub(super) enum Member {
    Node(NodeId),
    /// The index in `zones`.
    Zone(usize),
}

impl Members {
    pub(super) fn nodes(&self) -> &[NodeName] {
        &self.nodes
    }

    pub(super) fn zones(&self) -> &[Zone] {
        &self.zones
    }

    /// The number of nodes. The next new node gets this number.
    pub(super) fn count(&self) -> NodeId {
        NodeId::try_from(self.nodes.len()).unwrap_or(NodeId::MAX)
    }

    /// Adds a zone without nodes. The name must be new.
    pub(super) fn add_zone(&mut self, name: ZoneName) {
        self.index.insert(name.shared(), Member::Zone(self.zones.len()));
        self.zones.push(Zone { name, nodes: 0..0 });
    }

    /// Adds a node at the end. The name must be new.
    pub(super) fn add_node(&mut self, name: NodeName) {
        self.index.insert(name.shared(), Member::Node(self.count()));
        self.nodes.push(name);
    }

    /// Puts the nodes from `first` to the last node into the zone.
    pub(super) fn fill_zone(&mut self, name: &ZoneName, first: NodeId) {
        let nodes = first..self.count();
        if let Some(&Member::Zone(position)) = self.index.get(name.as_str()) {
            self.zones[position].nodes = nodes;
        }
    }

    /// The zone or node with this name.
    pub(super) fn named(&self, name: &str) -> Option<Member> {
        self.index.get(name).copied()
    }

    pub(super) fn id_of(&self, node: &NodeName) -> Option<NodeId> {
        match self.named(node.as_str())? {
            Member::Node(id) => Some(id),
            Member::Zone(_) => None,
        }
    }

    /// The zone of a node. `None` if the node is in no zone.
    pub(super) fn zone_of(&self, node: NodeId) -> Option<&Zone> {
        let next = self.zones.partition_point(|zone| zone.nodes.end <= node);
        self.zones.get(next).filter(|zone| zone.nodes.contains(&node))
    }

    pub(super) fn names_in(&self, nodes: Range<NodeId>) -> &[NodeName] {
        self.nodes.get(nodes.start as usize..nodes.end as usize).unwrap_or_default()
    }

    /// The nodes that a word names: `*`, a zone, a node, or a hostlist of zones and nodes.
    pub(super) fn find(&self, word: &str) -> Result<NodeSet, UnknownName> {
        if word == "*" {
            return Ok(std::iter::once(0..self.count()).collect());
        }
        if let Some(nodes) = self.nodes_called(word) {
            return Ok(std::iter::once(nodes).collect());
        }
        if !hostlist::is_list(word) {
            return Err(UnknownName::new(word, self.names()));
        }
        let names = hostlist::expand(word).map_err(|error| UnknownName::malformed(word, error))?;
        names.iter().map(|name| self.nodes_called(name).ok_or_else(|| UnknownName::new(name, self.names()))).collect()
    }

    /// The nodes of the zone with this name, or the node with this name.
    pub(super) fn nodes_called(&self, name: &str) -> Option<Range<NodeId>> {
        match self.named(name)? {
            Member::Node(id) => Some(id..id + 1),
            Member::Zone(position) => self.zones.get(position).map(|zone| zone.nodes.clone()),
        }
    }

    /// The names of all zones and nodes.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.zones.iter().map(|zone| zone.name.as_str()).chain(self.nodes.iter().map(NodeName::as_str))
    }

    /// A list of all zones and nodes, for messages.
    pub(super) fn describe(&self) -> String {
        let nodes = format!("the nodes are {}", hostlist::fold(&self.nodes));
        if self.zones.is_empty() {
            return nodes;
        }
        let zones: Vec<_> = self.zones.iter().map(|zone| zone.name.as_str()).collect();
        format!("the zones are {}; {nodes}", zones.join(", "))
    }
}
