//! What a controller does next, and what it says in the end: pure, from what the nodes have answered.
//!
//! `Fleet` sends the messages. The protocol check (`agent/tests/protocol.rs`) drives the same functions.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Answers, CallError, TransactionError,
    insist::{is_absence, is_conflict, is_silence},
    scope::behind,
};
use crate::{
    plan::{EditError, Stamp, Wanted},
    topology::NodeName,
    wire::Document,
};

/// What all nodes are asked.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Stage<N> {
    /// To check and compute the change.
    Prepare,
    /// To make it.
    Commit,
    /// To keep it.
    Confirm,
    /// To keep it for good, as all have confirmed it. The change is made, whether they hear this or not.
    Finish,
    /// To forget it or to take it back.
    Rollback {
        /// The nodes that may have been told to keep it.
        told: BTreeSet<N>,
    },
}

/// What a node answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Heard {
    /// It has done it.
    Yes,
    /// It keeps the change, as all nodes do.
    Kept,
    /// Another controller is in the way.
    Conflict,
    /// It cannot do it.
    Failure,
    /// Nothing: it may have done it or not.
    Silence,
    /// Nothing, and nobody was there to hear it.
    Absence,
}

/// What a node may still have of a change that was taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Left {
    GoesBack,
    Unknown,
    Stuck,
    Covered,
}

/// What a controller does next.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Next<N> {
    /// Ask all nodes.
    Ask(Stage<N>),
    /// Say that all nodes have the change. `superseded`: another one lies on top of it.
    Succeeded { superseded: bool },
    /// Say that the change failed, and which nodes may still have something of it.
    Failed(BTreeMap<N, Left>),
}

/// What a controller does when all nodes have answered, or have not.
pub(crate) fn next<N: Ord + Clone>(stage: &Stage<N>, heard: &BTreeMap<N, Heard>) -> Next<N> {
    let all = |said: Heard| heard.values().all(|heard| *heard == said);
    match stage {
        Stage::Prepare if all(Heard::Yes) => Next::Ask(Stage::Commit),
        Stage::Commit if all(Heard::Yes) => Next::Ask(Stage::Confirm),
        Stage::Confirm if all(Heard::Yes) => Next::Ask(Stage::Finish),
        Stage::Finish => Next::Succeeded { superseded: false },
        Stage::Prepare | Stage::Commit => Next::Ask(Stage::Rollback { told: BTreeSet::new() }),
        Stage::Confirm => {
            // Whoever was not there, or has gone back, was certainly not told.
            let may_keep = |heard: &Heard| matches!(heard, Heard::Yes | Heard::Silence);
            let told = heard.iter().filter(|(_, heard)| may_keep(heard)).map(|(node, _)| node.clone());
            Next::Ask(Stage::Rollback { told: told.collect() })
        }
        // Another change has been confirmed on top of it by all nodes, so they have this one as well.
        Stage::Rollback { .. } if heard.values().any(|heard| *heard == Heard::Kept) => {
            Next::Succeeded { superseded: true }
        }
        Stage::Rollback { told } => {
            let left = heard.iter().filter_map(|(node, heard)| {
                let left = match heard {
                    Heard::Yes | Heard::Kept => return None,
                    Heard::Conflict => Left::Covered,
                    Heard::Failure => Left::Stuck,
                    Heard::Silence | Heard::Absence if told.contains(node) => Left::Unknown,
                    Heard::Silence | Heard::Absence => Left::GoesBack,
                };
                Some((node.clone(), left))
            });
            Next::Failed(left.collect())
        }
    }
}

/// The same of every node's answer. `kept`: whether an answer says that the change can no longer be rolled back.
pub(super) fn heard<T>(answers: &Answers<T>, kept: impl Fn(&T) -> bool) -> BTreeMap<NodeName, Heard> {
    let heard = |answer: &Result<T, CallError>| match answer {
        Ok(reply) if kept(reply) => Heard::Kept,
        Ok(_) => Heard::Yes,
        Err(error) if is_conflict(error) => Heard::Conflict,
        Err(error) if is_absence(error) => Heard::Absence,
        Err(error) if is_silence(error) => Heard::Silence,
        Err(_) => Heard::Failure,
    };
    answers.iter().map(|(node, answer)| (node.clone(), heard(answer))).collect()
}

/// The first node that has the document of the highest generation, for it to be asked for that.
pub(crate) fn newest(stamps: &BTreeMap<NodeName, Stamp>) -> Option<&NodeName> {
    stamps.iter().rev().max_by_key(|(_, stamp)| stamp.generation).map(|(node, _)| node)
}

/// Whether a node's document can be edited: it is the one that the node had named, and nobody takes it back. A node that
/// does not take part could take it back while others are given what follows from it.
pub(crate) fn is_base(document: &Document, stamp: &Stamp, takes_part: bool) -> bool {
    let is_waited_for = document.unfinished.is_some_and(|time| !time.is_zero());
    !document.unconfirmed && (takes_part || !is_waited_for) && is_the_named(document, stamp)
}

/// Whether a node's document is the one that the node had named, which is enough where nothing is changed.
pub(super) fn is_the_named(document: &Document, stamp: &Stamp) -> bool {
    document.wanted.stamp() == *stamp
}

/// An edited document.
pub(crate) struct Edited {
    pub(crate) wanted: Wanted,
    /// Whether all nodes have a document that says this already.
    pub(crate) said_already: bool,
    /// Whether the document that was edited may still be taken back. Then even a change that changes nothing has to be
    /// made, for what it says to stay true.
    pub(crate) is_unfinished: bool,
    /// The generation of the document that was edited.
    pub(crate) generation: u64,
    /// The nodes that earlier changes had left as they were, and that this one brings in line.
    pub(crate) caught_up: BTreeSet<NodeName>,
}

/// Edits the newest document for those that take part. One that `replaces` everything needs no agreement between nodes.
pub(crate) fn edited(
    stamps: &BTreeMap<NodeName, Stamp>,
    newest: &Document,
    takes_part: impl Fn(&NodeName) -> bool,
    missing: BTreeSet<NodeName>,
    replaces: bool,
    edit: impl FnOnce(&Wanted) -> Result<Wanted, EditError>,
) -> Result<Edited, TransactionError> {
    let behind = match behind(stamps, &newest.wanted) {
        Err(_) if replaces => BTreeSet::new(),
        behind => behind?,
    };
    let stamp = newest.wanted.stamp();
    let agreed = stamps.iter().all(|(node, other)| !takes_part(node) || other.agrees_with(&stamp));
    let lasting = newest.lasting();
    let mut wanted = edit(&lasting)?;
    // A node that left the inventory is in the document as long as that names it.
    wanted.missing = wanted.inventory.nodes.keys().filter(|node| !takes_part(node)).cloned().chain(missing).collect();
    let caught_up = behind.into_iter().filter(takes_part).collect();
    let said_already = agreed && lasting.says_the_same(&wanted);
    wanted.generation = lasting.generation;
    // Without what has ended, or with the moment at which something began, it is another document that says the same.
    wanted.generation += u64::from(!said_already || wanted.stamp() != stamp);
    let is_unfinished = newest.unfinished.is_some();
    Ok(Edited { wanted, said_already, is_unfinished, generation: lasting.generation, caught_up })
}
