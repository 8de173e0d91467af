//! The results of a dry run and of a change.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use crate::{
    plan::{Moment, Wanted},
    topology::NodeName,
    wire::{Committed, Onset, PartitionEnded, Prepared},
};

/// The changes that an edit would make on each node.
#[derive(Debug)]
pub struct Preview {
    /// The document that would be in force.
    pub wanted: Wanted,
    /// Each node's change.
    pub nodes: BTreeMap<NodeName, Prepared>,
    /// True if the documents of all nodes that take part already have the content of `wanted`. Overlays and partitions
    /// that have ended do not count.
    pub is_unchanged: bool,
    /// True if the node of the newest document does not know yet that all nodes have confirmed this document. Then an
    /// edit without effect is committed too: the confirmation of the edit also confirms the earlier document.
    pub(crate) is_unfinished: bool,
    /// The generation of the document that is in force now.
    pub generation: u64,
    /// The nodes that earlier changes left out and this change includes.
    pub caught_up: BTreeSet<NodeName>,
    /// The nodes of the earlier document that are no longer in the inventory; empty if that document was clear.
    pub departed: BTreeSet<NodeName>,
}

impl Preview {
    /// True if there is nothing to do: no document and no kernel would change.
    pub fn is_empty(&self) -> bool {
        self.is_unchanged && self.nodes.values().all(|node| node.change.is_settled())
    }

    pub(super) fn warnings(&self) -> BTreeMap<NodeName, Vec<String>> {
        let nodes = self.nodes.iter().filter(|(_, prepared)| !prepared.warnings.is_empty());
        let nodes = nodes.map(|(node, prepared)| (node.clone(), prepared.warnings.clone()));
        let departed =
            "it left the inventory and keeps its state; to change or clear it, add it to the inventory again";
        nodes.chain(self.departed.iter().map(|node| (node.clone(), vec![departed.to_owned()]))).collect()
    }
}

/// The result of an edit.
#[derive(Debug, Default)]
pub struct Outcome {
    /// The document in force.
    pub wanted: Wanted,
    /// The number of steps written to each node's kernel; all zero: every kernel already had the change.
    pub writes: BTreeMap<NodeName, usize>,
    /// True if the content of the document changed.
    pub document_changed: bool,
    /// The times at which the change took effect; `None`: nothing was committed.
    pub onset: Option<FleetOnset>,
    /// The nodes that earlier changes left out and this change includes.
    pub caught_up: BTreeSet<NodeName>,
    /// True if a node did not confirm this change, but all nodes keep it, because another controller committed a second
    /// change on top.
    pub superseded: bool,
    /// The partitions that the change ended, each with the number of its dropped packets on all nodes together.
    pub ended: Vec<PartitionEnded>,
    /// Problems that the change does not solve, such as an interface that is down.
    pub warnings: BTreeMap<NodeName, Vec<String>>,
}

/// The times at which a change took effect on the nodes, by this machine's clock.
///
/// Each node subtracts its offset in `clocks` from the time of its own clock, and reports the result. A node without an
/// offset reports the time of its own clock, because no certain difference from this machine's clock was measured.
#[derive(Debug)]
pub struct FleetOnset {
    /// The agreed instant.
    pub agreed: Moment,
    /// The times at which the change took effect. Has only nodes that report an effect.
    pub nodes: BTreeMap<NodeName, Onset>,
    /// The time from the agreed instant to the commit's arrival, for nodes where the commit arrived too late.
    pub told_late: BTreeMap<NodeName, Duration>,
    /// The nanoseconds by which a node's clock is ahead of this machine's clock. Has only nodes whose clock certainly
    /// differs.
    pub clocks: BTreeMap<NodeName, i64>,
}

impl FleetOnset {
    pub(super) fn new(
        agreed: Moment,
        clocks: BTreeMap<NodeName, i64>,
        committed: &BTreeMap<NodeName, Committed>,
    ) -> Self {
        let nodes = committed.iter().filter_map(|(node, committed)| Some((node.clone(), committed.onset?)));
        let told_late = committed.iter().filter_map(|(node, committed)| Some((node.clone(), committed.told_late?)));
        Self { agreed, nodes: nodes.collect(), told_late: told_late.collect(), clocks }
    }

    /// The time from the first effect on any node to the last effect on any node; `None`: no effect.
    pub fn spread(&self) -> Option<Duration> {
        let first = self.nodes.values().map(|onset| onset.first).min()?;
        self.nodes.values().map(|onset| onset.last).max()?.since(first)
    }
}

/// The partitions that ended, each with the number of its dropped packets on all nodes together.
pub(super) fn ended(committed: &BTreeMap<NodeName, Committed>) -> Vec<PartitionEnded> {
    let mut all: BTreeMap<&str, PartitionEnded> = BTreeMap::new();
    for ended in committed.values().flat_map(|committed| &committed.ended) {
        let uncounted = || PartitionEnded { cut: 0, ..ended.clone() };
        all.entry(&ended.name).or_insert_with(uncounted).cut += ended.cut;
    }
    all.into_values().collect()
}
