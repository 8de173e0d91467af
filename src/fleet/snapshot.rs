//! The nodes that a change includes ([`Scope`]), and the state of the nodes before the change ([`Snapshot`]).
//!
//! The controller reads the snapshot once. Agents refuse the change if their document differs from the snapshot.

use std::collections::{BTreeMap, BTreeSet};

use super::{Preview, TransactionError};
use crate::{
    plan::{EditError, Missing, Stamp, Wanted},
    topology::NodeName,
    wire::Document,
};

/// The nodes that a change includes: all, unless options of the command leave out some.
///
/// Nodes that are left out stay unchanged. [`Wanted::missing`] has these nodes until a later change includes them.
#[derive(Clone, Debug, Default)]
pub struct Scope {
    /// Only these nodes; `None`: all.
    pub only: Option<BTreeSet<NodeName>>,
    /// True to leave out the nodes that do not answer.
    pub allow_missing: bool,
    /// Nodes to leave out without a further question, because they did not answer an earlier one.
    pub silent: BTreeSet<NodeName>,
    /// Nodes that are not in the fleet, because their interface or addresses are unknown. [`Wanted::missing`] has these
    /// nodes too.
    pub left_out: BTreeSet<NodeName>,
}

impl Scope {
    /// True if the change includes the node, if the node answers.
    pub fn includes(&self, node: &NodeName) -> bool {
        self.only.as_ref().is_none_or(|only| only.contains(node)) && !self.silent.contains(node)
    }
}

/// The node whose document has the highest generation. Of several such nodes, the first by name.
pub(crate) fn newest(stamps: &BTreeMap<NodeName, Stamp>) -> Option<&NodeName> {
    stamps.iter().rev().max_by_key(|(_, stamp)| stamp.generation).map(|(node, _)| node)
}

/// True if all nodes have the same document, or if all documents are clear.
pub(super) fn agree(stamps: &BTreeMap<NodeName, Stamp>) -> bool {
    let mut all = stamps.values();
    let first = all.next();
    first.is_none_or(|first| all.all(|stamp| stamp.agrees_with(first)))
}

/// True if the document has the stamp.
pub(super) fn is_of(document: &Document, stamp: &Stamp) -> bool {
    document.wanted.stamp() == *stamp
}

/// True if an edit can build on a node's document: the document has the node's stamp and is confirmed.
pub(crate) fn is_base(document: &Document, stamp: &Stamp) -> bool {
    !document.unconfirmed && is_of(document, stamp)
}

/// The state of the nodes before a change.
#[derive(Debug, Default)]
pub(crate) struct Snapshot {
    /// The stamp of each node's document.
    pub(crate) stamps: BTreeMap<NodeName, Stamp>,
    /// The document of the highest generation.
    pub(crate) document: Document,
}

impl Snapshot {
    /// The stamp of the document.
    pub(super) fn stamp(&self) -> Stamp {
        // The document has the stamp of its node, and a stamp takes a hash of the whole document.
        newest(&self.stamps).map_or_else(|| self.document.wanted.stamp(), |newest| self.stamps[newest].clone())
    }

    /// The nodes with an older document, because earlier changes left them out and they got no other change since. An
    /// error if any other node has another document, unless both documents are clear.
    pub(super) fn behind(&self) -> Result<BTreeSet<NodeName>, TransactionError> {
        let (newest, stamp) = (&self.document.wanted, self.stamp());
        let is_behind = |(node, other): &(&NodeName, &Stamp)| {
            **other != stamp && (newest.missing.contains(node) || !other.agrees_with(&stamp))
        };
        let behind: BTreeSet<_> = self.stamps.iter().filter(is_behind).map(|(node, _)| node.clone()).collect();
        if behind.iter().all(|node| newest.missing.is_behind(node, &self.stamps[node])) {
            Ok(behind)
        } else {
            Err(TransactionError::Disagreement(self.stamps.clone()))
        }
    }

    /// The edited document for the nodes that take part. `missing`: the nodes that the edit leaves out. If `replaces`
    /// is true, the nodes need not have the same document.
    pub(crate) fn edited(
        &self,
        takes_part: impl Fn(&NodeName) -> bool,
        missing: BTreeSet<NodeName>,
        replaces: bool,
        edit: impl FnOnce(&Wanted) -> Result<Wanted, EditError>,
    ) -> Result<Preview, TransactionError> {
        let Self { stamps, document } = self;
        let behind = match self.behind() {
            Err(_) if replaces => BTreeSet::new(),
            behind => behind?,
        };
        let stamp = self.stamp();
        let agreed = stamps.iter().all(|(node, other)| !takes_part(node) || other.agrees_with(&stamp));
        let lasting = document.lasting();
        let mut wanted = edit(&lasting)?;
        let has_left = |node: &&NodeName| !document.wanted.is_clear() && !takes_part(node) && !missing.contains(node);
        let departed = document.wanted.inventory.nodes.keys().filter(has_left).cloned().collect();
        // A node that left the fleet counts as missing as long as the document's inventory has the node.
        let absent = wanted.inventory.nodes.keys().filter(|node| !takes_part(node)).cloned();
        wanted.missing = Missing::after(&document.wanted, &stamp, absent.chain(missing));
        let is_unchanged = agreed && lasting.is_equivalent_to(&wanted);
        // The stamp may differ although the edit changes nothing: an overlay has ended, or the actual begin of a
        // partition has replaced the planned begin.
        wanted.generation = lasting.generation;
        wanted.generation += u64::from(!is_unchanged || wanted.stamp() != stamp);
        Ok(Preview {
            wanted,
            nodes: BTreeMap::new(),
            is_unchanged,
            is_unfinished: document.unfinished.is_some(),
            generation: lasting.generation,
            caught_up: behind.into_iter().filter(takes_part).collect(),
            departed,
        })
    }
}
