//! Which nodes a change is made on: all of them, unless it is said otherwise.

use std::collections::{BTreeMap, BTreeSet};

use super::{CallError, Fleet, TransactionError, transaction::unread};
use crate::{
    plan::{Stamp, Wanted},
    topology::NodeName,
};

/// An exception to the rule that all nodes change or none. The nodes that are left out stay as they are, and the
/// document that the others have names them, until a change is made on them as well.
#[derive(Clone, Debug, Default)]
pub struct Scope {
    /// Only these; `None`: all.
    pub only: Option<BTreeSet<NodeName>>,
    /// Without those that do not answer.
    pub allow_missing: bool,
    /// Nodes that are not in the fleet, as nobody knows their interface or addresses. The document names them as missing.
    pub left_out: BTreeSet<NodeName>,
}

impl Scope {
    /// Who takes part, of those that have answered; an error if others would have to.
    pub(super) fn participants(
        &self,
        fleet: &Fleet,
        stamps: &BTreeMap<NodeName, Stamp>,
        silent: BTreeMap<NodeName, CallError>,
    ) -> Result<Fleet, TransactionError> {
        let is_meant = |node: &NodeName| self.only.as_ref().is_none_or(|only| only.contains(node));
        let participants = fleet.of(|node| is_meant(node) && stamps.contains_key(node));
        let lacking: BTreeMap<_, _> = silent.into_iter().filter(|(node, _)| is_meant(node)).collect();
        if !lacking.is_empty() && (!self.allow_missing || participants.inventory.nodes.is_empty()) {
            return Err(unread(lacking));
        }
        Ok(participants)
    }
}

/// The nodes that do not have the newest document. An error if any of them should.
pub(super) fn behind(
    stamps: &BTreeMap<NodeName, Stamp>,
    newest: &Wanted,
) -> Result<BTreeSet<NodeName>, TransactionError> {
    let stamp = newest.stamp();
    let is_behind = |(node, other): &(&NodeName, &Stamp)| {
        **other != stamp && (newest.missing.contains(*node) || !other.agrees_with(&stamp))
    };
    let behind: BTreeSet<_> = stamps.iter().filter(is_behind).map(|(node, _)| node.clone()).collect();
    let was_left_out = |node: &NodeName| newest.missing.contains(node) && stamps[node].generation < stamp.generation;
    if behind.iter().all(was_left_out) { Ok(behind) } else { Err(TransactionError::Disagreement(stamps.clone())) }
}
