//! Properties of edits on the wire: a node that has the edited document computes the same new document.

use std::sync::Arc;

use netemctl::plan::{Delta, DeltaError, Inventory, Partition, Wanted};
use proptest::{prelude::*, sample::Index};

use super::{drawn::documents, over_the_wire};

/// One list after the other, without the entries whose place is not in `kept`. The order is turned by `turn` places.
fn mixed<T: Clone>(one: &[T], other: &[T], kept: u16, turn: Index) -> Vec<T> {
    let both = one.iter().chain(other).enumerate();
    let mut mixed: Vec<T> = both.filter(|(place, _)| kept >> place & 1 == 1).map(|(_, entry)| entry.clone()).collect();
    if !mixed.is_empty() {
        let turn = turn.index(mixed.len());
        mixed.rotate_left(turn);
    }
    mixed
}

proptest! {
    #[test]
    fn an_edit_leads_from_any_document_to_any_other(
        before in documents(),
        other in documents(),
        (has_topology, kept_overlays, kept_partitions) in any::<(bool, u16, u16)>(),
        (turn, gone, missing) in any::<(Index, u8, u8)>(),
        is_known in any::<bool>(),
    ) {
        let mut before = before;
        let places = &other.inventory.nodes;
        let node = |bits: u8| move |place: &usize| bits >> place & 1 == 1;
        if !is_known {
            before.inventory = Inventory::default().into();
        }
        let left_out = (0..6).filter(node(missing)).filter_map(|place| places.keys().nth(place).cloned());
        let mut after = Wanted {
            generation: before.generation + 3,
            topology: if has_topology { before.topology.clone() } else { other.topology.clone() },
            inventory: other.inventory.clone(),
            overlays: mixed(&before.overlays, &other.overlays, kept_overlays, turn),
            partitions: mixed(&before.partitions, &other.partitions, kept_partitions, turn),
            missing: left_out.map(|node| (node, before.stamp())).collect(),
        };
        let mut place = 0..;
        Arc::make_mut(&mut after.inventory).nodes.retain(|_, _| !place.next().is_some_and(|place| node(gone)(&place)));
        let Some(edit) = Delta::between(&before, &after) else {
            prop_assert!(before.is_clear());
            return Ok(());
        };
        prop_assert!(!before.is_clear());
        prop_assert_eq!(over_the_wire(&edit).applied_to(&before), Ok(after));
    }

    #[test]
    fn an_edit_of_another_document_is_refused(before in documents(), other in documents(), after in documents()) {
        let after = Wanted { generation: 1, ..after };
        let edit = Delta::between(&before, &after);
        prop_assume!(!after.is_clear());
        if let Some(edit) = edit {
            match edit.applied_to(&other) {
                Ok(result) => prop_assert_eq!(result, after),
                Err(error) => prop_assert_eq!(error == DeltaError::Clear, other.is_clear()),
            }
        }
    }

    #[test]
    fn an_edit_names_only_the_change(wanted in documents()) {
        let bytes = |edit: &Option<Delta>| edit.as_ref().map_or(0, |edit| serde_json::to_string(edit).unwrap().len());
        let again = Delta::between(&wanted, &Wanted { generation: 9, ..wanted.clone() });
        prop_assert!(bytes(&again) < 200);
        let Some(last) = wanted.partitions.last() else { return Ok(()) };
        let added = Partition { name: "added".to_owned(), ..last.clone() };
        let mut more = wanted.clone();
        more.partitions.push(added.clone());
        let own = serde_json::to_string(&added).unwrap().len();
        prop_assert!(bytes(&Delta::between(&wanted, &more)) < own + 250);
        prop_assert!(bytes(&Delta::between(&more, &wanted)) < 200);
    }
}
