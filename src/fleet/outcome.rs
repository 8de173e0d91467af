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

/// What would change on each node.
#[derive(Debug)]
pub struct Preview {
    /// The document that would be in force.
    pub wanted: Wanted,
    /// Each node's change.
    pub nodes: BTreeMap<NodeName, Prepared>,
    /// True if all nodes have a document that says this already.
    pub said_already: bool,
    /// True if the edited document may still be rolled back. Then even an edit without effect has to be committed.
    pub(crate) is_unfinished: bool,
    /// The generation that is in force now.
    pub generation: u64,
    /// The nodes that earlier changes had left out, and that this one includes.
    pub caught_up: BTreeSet<NodeName>,
    /// The nodes that left the inventory while something was in force on them.
    pub departed: BTreeSet<NodeName>,
}

impl Preview {
    /// True if there is nothing to do: the documents say it, and the kernels have it.
    pub fn is_empty(&self) -> bool {
        self.said_already && self.nodes.values().all(|node| node.change.is_settled())
    }

    pub(super) fn warnings(&self) -> BTreeMap<NodeName, Vec<String>> {
        let nodes = self.nodes.iter().filter(|(_, prepared)| !prepared.warnings.is_empty());
        let nodes = nodes.map(|(node, prepared)| (node.clone(), prepared.warnings.clone()));
        let departed = "it left the inventory, so it was not asked and stays as it is; put it in again to give it back";
        nodes.chain(self.departed.iter().map(|node| (node.clone(), vec![departed.to_owned()]))).collect()
    }
}

/// The result of an edit.
#[derive(Debug, Default)]
pub struct Outcome {
    /// The document in force.
    pub wanted: Wanted,
    /// The number of steps in each node's kernel; all zero: everything was in force already.
    pub writes: BTreeMap<NodeName, usize>,
    /// True if the document says something else than before.
    pub says_otherwise: bool,
    /// When the change took effect; `None`: nothing was committed.
    pub onset: Option<FleetOnset>,
    /// The nodes that earlier changes had left out, and that are included now.
    pub caught_up: BTreeSet<NodeName>,
    /// True if another controller committed a change on top before all nodes had confirmed this one.
    pub superseded: bool,
    /// The partitions that the change ended, with the packets that they cut on all nodes together.
    pub ended: Vec<PartitionEnded>,
    /// Problems that the change does not solve, such as an interface that is down.
    pub warnings: BTreeMap<NodeName, Vec<String>>,
}

/// When a change took effect on the nodes, by this machine's clock. A node's own clock counts if it may be in step.
#[derive(Debug)]
pub struct FleetOnset {
    /// The agreed instant.
    pub agreed: Moment,
    /// When the change took effect on each node that it changed.
    pub nodes: BTreeMap<NodeName, Onset>,
    /// The time from the agreed instant until a node was told, for nodes that were told too late.
    pub told_late: BTreeMap<NodeName, Duration>,
    /// The nanoseconds by which clocks are ahead, for clocks that are certainly not in step with this machine's.
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

/// The partitions that ended, each with the packets that all nodes cut.
pub(super) fn ended(committed: &BTreeMap<NodeName, Committed>) -> Vec<PartitionEnded> {
    let mut all: BTreeMap<&str, PartitionEnded> = BTreeMap::new();
    for ended in committed.values().flat_map(|committed| &committed.ended) {
        let of_none = || PartitionEnded { cut: 0, ..ended.clone() };
        all.entry(&ended.name).or_insert_with(of_none).cut += ended.cut;
    }
    all.into_values().collect()
}
