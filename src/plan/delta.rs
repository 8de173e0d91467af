//! The difference between two documents ([`Delta`]): a change of 10,000 nodes is some hundred bytes instead of a
//! megabyte.

use std::{collections::BTreeMap, sync::Arc};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{Digest, Inventory, Missing, NodeLocation, Overlay, Partition, Stamp, TimedId, Wanted, node_set::NodeSet};
use crate::topology::{NodeName, Topology, ZoneName};

/// An edit of a document: the parts that differ, and the digest of the result.
///
/// A node that has the edited document computes the new document by [`Delta::applied_to`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Delta {
    /// The generation of the new document.
    generation: u64,
    /// The topology.
    #[serde(default, skip_serializing_if = "Part::is_kept")]
    topology: Part<Option<Topology>>,
    /// The nodes of the inventory that are new or have another location.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    nodes: BTreeMap<NodeName, NodeLocation>,
    /// The nodes that are no longer in the inventory.
    #[serde(default, skip_serializing_if = "NodeSet::is_empty")]
    departed: NodeSet,
    /// The zones of the inventory.
    #[serde(default, skip_serializing_if = "Part::is_kept")]
    zones: Part<BTreeMap<ZoneName, Vec<NodeName>>>,
    /// The overlays of the new document, in their order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    overlays: Vec<Entries<Overlay>>,
    /// The partitions of the new document, in their order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    partitions: Vec<Entries<Partition>>,
    /// The nodes that the change leaves out.
    #[serde(default, skip_serializing_if = "Part::is_kept")]
    missing: Part<Missing>,
    /// The digest of the new document.
    digest: Digest,
}

/// A part of a document: kept or new.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "Part_of_{T}"))]
#[serde(rename_all = "kebab-case")]
enum Part<T> {
    /// The part of the edited document.
    #[default]
    Kept,
    /// A new part.
    New(T),
}

/// Entries of a list in the new document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "Entries_of_{T}"))]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
enum Entries<T> {
    /// Entries of the edited document's list.
    Kept {
        /// The index of the first entry.
        first: usize,
        /// The number of entries.
        count: usize,
    },
    /// A new entry.
    New(Box<T>),
}

/// The reason why a node cannot apply a [`Delta`]. The whole document is necessary.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum DeltaError {
    /// The node's document is clear. Clear documents with different inventories have the same digest.
    #[error("the document here is clear")]
    Clear,
    /// The result has another digest than [`Delta`] says.
    #[error("the edit leads to another document here")]
    AnotherResult,
}

impl<T: PartialEq> Part<T> {
    fn between(before: &T, after: T) -> Self {
        if *before == after { Self::Kept } else { Self::New(after) }
    }

    fn is_kept(&self) -> bool {
        matches!(self, Self::Kept)
    }

    fn or(self, before: impl FnOnce() -> T) -> T {
        match self {
            Self::Kept => before(),
            Self::New(after) => after,
        }
    }
}

impl<T: PartialEq + Clone> Entries<T> {
    fn between(before: &[T], after: &[T], id: impl Fn(&T) -> TimedId) -> Vec<Self> {
        let places: BTreeMap<TimedId, usize> =
            before.iter().enumerate().map(|(place, entry)| (id(entry), place)).collect();
        let mut entries: Vec<Self> = Vec::new();
        for entry in after {
            let place = places.get(&id(entry)).copied().filter(|place| before[*place] == *entry);
            match (place, entries.last_mut()) {
                (Some(place), Some(Self::Kept { first, count })) if place == *first + *count => *count += 1,
                (Some(first), _) => entries.push(Self::Kept { first, count: 1 }),
                (None, _) => entries.push(Self::New(Box::new(entry.clone()))),
            }
        }
        entries
    }

    /// The new list. Kept entries that the edited list does not have are left out: the digest then differs.
    fn applied(entries: Vec<Self>, before: &[T]) -> Vec<T> {
        let applied = |entries: Self| match entries {
            Self::Kept { first, count } => {
                before.get(first..).unwrap_or_default().iter().take(count).cloned().collect()
            }
            Self::New(entry) => vec![*entry],
        };
        // Repeated ranges would make a list that is much longer than the request. Valid lists have no entry twice.
        let length = before.len() + entries.len();
        entries.into_iter().flat_map(applied).take(length).collect()
    }
}

impl Delta {
    /// The edit that leads from one document to another. `None`: the first document is clear, so its digest does not
    /// determine its content.
    pub fn between(before: &Wanted, after: &Wanted) -> Option<Self> {
        Self::to_stamp(before, after, || after.stamp())
    }

    /// As [`between`](Self::between). `stamp`: returns the stamp of the second document.
    pub(crate) fn to_stamp(before: &Wanted, after: &Wanted, stamp: impl FnOnce() -> Stamp) -> Option<Self> {
        if before.is_clear() {
            return None;
        }
        let changed = |(node, location): &(&NodeName, &NodeLocation)| {
            before.inventory.nodes.get(*node).is_none_or(|earlier| earlier != *location)
        };
        let nodes = after.inventory.nodes.iter().filter(changed);
        let has_departed = |node: &&NodeName| !after.inventory.nodes.contains_key(*node);
        Some(Self {
            generation: after.generation,
            topology: Part::between(&before.topology, after.topology.clone()),
            nodes: nodes.map(|(node, location)| (node.clone(), location.clone())).collect(),
            departed: NodeSet(before.inventory.nodes.keys().filter(has_departed).cloned().collect()),
            zones: Part::between(&before.inventory.zones, after.inventory.zones.clone()),
            overlays: Entries::between(&before.overlays, &after.overlays, Overlay::id),
            partitions: Entries::between(&before.partitions, &after.partitions, Partition::id),
            missing: Part::between(&before.missing, after.missing.clone()),
            digest: stamp().digest,
        })
    }

    /// The stamp of the new document. [`applied_to`](Self::applied_to) checks the digest.
    pub fn stamp(&self) -> Stamp {
        Stamp { generation: self.generation, digest: self.digest.clone() }
    }

    /// The new document. `before`: the document that the edit starts from.
    pub fn applied_to(self, before: &Wanted) -> Result<Wanted, DeltaError> {
        if before.is_clear() {
            return Err(DeltaError::Clear);
        }
        let Self { generation, topology, nodes, departed, zones, overlays, partitions, missing, digest } = self;
        let mut inventory = Arc::clone(&before.inventory);
        if !(nodes.is_empty() && departed.is_empty() && zones.is_kept()) {
            let Inventory { nodes: places, zones: old_zones } = Arc::make_mut(&mut inventory);
            for node in &departed.0 {
                places.remove(node);
            }
            places.extend(nodes);
            *old_zones = zones.or(|| std::mem::take(old_zones));
        }
        let after = Wanted {
            generation,
            topology: topology.or(|| before.topology.clone()),
            inventory,
            overlays: Entries::applied(overlays, &before.overlays),
            partitions: Entries::applied(partitions, &before.partitions),
            missing: missing.or(|| before.missing.clone()),
        };
        if after.stamp().digest == digest { Ok(after) } else { Err(DeltaError::AnotherResult) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Division, PartitionRequest};

    #[test]
    fn a_partition_of_ten_thousand_nodes_is_an_edit_of_some_hundred_bytes() {
        let location = |number: u16| NodeLocation {
            agent: format!("https://host-{number}.example:20094").try_into().unwrap(),
            interface: "eno2".parse().unwrap(),
            addresses: vec![std::net::Ipv4Addr::from(0x0A00_0000 + u32::from(number)).into()],
        };
        let node = |number: u16| (format!("n{number}").parse().unwrap(), location(number));
        let inventory = Inventory { nodes: (1..=10_000).map(node).collect(), ..Inventory::default() };
        let side = |side: &str| PartitionRequest::of(Division::Sides(vec![side.to_owned()]));
        let lan = Wanted { inventory: inventory.clone().into(), ..Wanted::default() };
        let before = lan.with_partition(side("n[1-3000]"), inventory.clone()).unwrap();
        let after = before.with_partition(side("n[2000-2999,9000-10000]"), inventory).unwrap();
        assert_eq!(Delta::between(&lan, &after), None, "a clear document has no digest of its own");
        let edit = Delta::between(&before, &after).unwrap();
        let json = serde_json::to_string(&edit).unwrap();
        assert!(json.len() < 400, "{json}");
        assert_eq!(edit.applied_to(&before), Ok(after));
    }

    #[test]
    fn kept_entries_that_the_document_lacks_change_the_result() {
        let before: Vec<u8> = vec![1, 2, 3];
        let kept = |first, count| Entries::<u8>::Kept { first, count };
        assert_eq!(Entries::applied(vec![kept(1, 2), Entries::New(Box::new(9))], &before), [2, 3, 9]);
        assert_eq!(Entries::applied(vec![kept(2, usize::MAX), kept(usize::MAX, 1)], &before), [3]);
        let repeated = vec![kept(0, 3); 1_000];
        assert_eq!(Entries::applied(repeated, &before).len(), 3 + 1_000, "not 3,000");
    }
}
