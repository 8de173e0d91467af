//! Tests of the known tree: the agent does not read the filters again while nobody changes them.

use super::*;
use crate::{kernel::Event, plan::Filters};

/// A node with a delay and a partition in force, whose tree is known.
fn known() -> (Node<FakeKernel>, Wanted) {
    let mut node = n1();
    let wanted = parted(&uniform(&Wanted::default(), "100ms"), "n2", None);
    put(&mut node, "a", &wanted);
    node.tick(now()).unwrap();
    (node, wanted)
}

fn dumps(node: &mut Node<FakeKernel>) -> usize {
    node.watched_kernel().dumps
}

/// Another program removes all filters of chains.
fn disturb(node: &mut Node<FakeKernel>) {
    let kernel = node.watched_kernel();
    let egress = Filters { chains: [].into(), active: None, ..kernel.tree.egress.clone() };
    kernel.tree = Tree { egress, ..kernel.tree.clone() };
}

#[test]
fn without_an_event_neither_a_status_nor_a_change_without_steps_reads_the_filters() {
    let (mut node, wanted) = known();
    let before = dumps(&mut node);
    for tally in node.watched_kernel().tree.counters.cuts.values_mut() {
        tally.packets = 7;
    }
    let status = node.status(now()).unwrap();
    assert_eq!((status.drift.len(), status.partitions[0].cut), (0, Some(14)), "the counters are read");
    let again = Wanted { generation: wanted.generation + 1, ..wanted.clone() };
    let prepared = node.prepare(prepare("b", &wanted, &again), now()).unwrap();
    assert_eq!(prepared.change.steps, []);
    assert_eq!(node.commit(&commit("b"), &|| now()).unwrap().writes, 0);
    node.confirm(&confirm("b"), now()).unwrap();
    node.tick(now()).unwrap();
    assert_eq!(dumps(&mut node), before);
}

#[test]
fn each_event_that_may_stand_for_a_change_leads_to_one_complete_read() {
    let (mut node, _) = known();
    let link = |index| Event::Link { index, name: "db0".to_owned(), is_up: true, has_carrier: true };
    let reads = [
        (Event::Shaping { index: 2 }, 1),
        // A filter of another link may share an action with a filter of this link.
        (Event::Shaping { index: 3 }, 1),
        (Event::Actions, 1),
        (Event::Lost, 1),
        (link(2), 1),
        (link(3), 0),
        (Event::Address { index: 2 }, 0),
    ];
    for (event, expected) in reads {
        let before = dumps(&mut node);
        node.watched_kernel().events.push(event.clone());
        assert_eq!(node.status(now()).unwrap().drift, [""; 0]);
        node.status(now()).unwrap();
        node.tick(now()).unwrap();
        assert_eq!(dumps(&mut node) - before, expected, "{event:?}");
    }
    disturb(&mut node);
    node.watched_kernel().events.push(Event::Shaping { index: 2 });
    assert!(!node.status(now()).unwrap().drift.is_empty());
}

/// Changes from a known tree: filters in place, a new and a removed chain at ingress, and cuts in the active chains.
fn edits(wanted: &Wanted) -> Vec<Wanted> {
    let twice = parted(wanted, "n1", None);
    let healed = Wanted { generation: twice.generation + 1, partitions: Vec::new(), ..twice.clone() };
    let delayed = delayed(&healed, "80ms", None);
    let again = parted(&delayed, "n3", None);
    vec![twice, healed, delayed, again]
}

#[test]
fn a_change_reads_back_only_what_it_wrote_and_the_known_tree_follows() {
    let (mut node, wanted) = known();
    let before = dumps(&mut node);
    for (number, edit) in edits(&wanted).iter().enumerate() {
        put(&mut node, &number.to_string(), edit);
        assert_eq!(node.status(now()).unwrap().drift, [""; 0]);
        node.tick(now()).unwrap();
        assert_eq!(node.known_tree().as_ref(), Some(&node.watched_kernel().tree));
    }
    assert_eq!(dumps(&mut node), before);
}

#[test]
fn a_written_filter_that_the_kernel_did_not_make_is_found() {
    let (_, wanted) = known();
    let mut lost = 0;
    for edit in edits(&wanted) {
        for skipped in 0.. {
            let (mut node, wanted) = known();
            put(&mut node, "before", &Wanted { generation: edit.generation - 1, ..wanted });
            let (base, tree) = (wanted_of(&node), node.watched_kernel().tree.shaping());
            node.prepare(prepare("b", &base, &edit), now()).unwrap();
            node.watched_kernel().skips_at = Some(node.watched_kernel().writes + skipped);
            let Err(error) = node.commit(&commit("b"), &|| now()) else { break };
            assert_eq!((wanted_of(&node), node.watched_kernel().tree.shaping()), (base, tree));
            // The kernel refuses a filter whose class it did not make.
            lost += usize::from(error.message.contains("reads back something else"));
        }
    }
    assert!(lost > 4, "{lost}");
}

#[test]
fn a_change_by_another_program_during_an_own_write_is_found() {
    let (mut node, wanted) = known();
    node.prepare(prepare("b", &wanted, &parted(&wanted, "n1", None)), now()).unwrap();
    node.make_ready(&commit("b"), now()).unwrap();
    // The new cuts are in the active chain at egress, so the change writes no route.
    let egress = &mut node.watched_kernel().tree.egress;
    let active = egress.active.unwrap();
    egress.chains.get_mut(&active).unwrap().routes.clear();
    node.watched_kernel().events.push(Event::Shaping { index: 2 });
    let error = node.commit(&commit("b"), &|| now()).unwrap_err();
    assert!(error.message.contains("reads back something else"), "{error:?}");
}

#[test]
fn a_change_by_another_program_after_an_own_write_is_drift() {
    let (mut node, wanted) = known();
    put(&mut node, "b", &parted(&wanted, "n1", None));
    disturb(&mut node);
    node.watched_kernel().events.push(Event::Shaping { index: 2 });
    assert!(!node.status(now()).unwrap().drift.is_empty());
}

#[test]
fn after_a_write_that_fails_everything_is_read() {
    let (mut node, wanted) = known();
    node.prepare(prepare("b", &wanted, &parted(&wanted, "n1", None)), now()).unwrap();
    let before = dumps(&mut node);
    node.watched_kernel().fails_at = Some(node.watched_kernel().writes);
    node.commit(&commit("b"), &|| now()).unwrap_err();
    assert_eq!(node.status(now()).unwrap().drift, [""; 0]);
    assert!(dumps(&mut node) > before);
}

#[test]
fn a_status_before_the_commit_time_reads_only_the_preparation() {
    let mut node = n1();
    let wanted = uniform(&Wanted::default(), "100ms");
    put(&mut node, "a", &wanted);
    node.tick(now()).unwrap();
    let before = dumps(&mut node);
    node.prepare(prepare("b", &wanted, &parted(&wanted, "n1", None)), now()).unwrap();
    let at = now().after(SECOND);
    let commit = Commit { at: Some(at.wall), ..commit("b") };
    node.make_ready(&commit, now()).unwrap();
    assert_eq!(node.status(now()).unwrap().drift, [""; 0]);
    node.commit(&commit, &|| at).unwrap();
    assert_eq!(dumps(&mut node), before);
}

#[test]
fn a_change_whose_event_the_kernel_did_not_send_is_found_within_a_minute_of_use() {
    let (mut node, _) = known();
    let before = dumps(&mut node);
    disturb(&mut node);
    assert_eq!(node.status(now() + 59 * SECOND).unwrap().drift, [""; 0]);
    node.tick(now() + 59 * SECOND).unwrap();
    assert_eq!(dumps(&mut node), before);
    node.tick(now() + 61 * SECOND).unwrap();
    assert!(dumps(&mut node) > before);
    assert!(!node.status(now() + 61 * SECOND).unwrap().drift.is_empty());
}

#[test]
fn an_idle_agent_does_not_read_again() {
    let (mut node, _) = known();
    node.kernel();
    node.status(now()).unwrap();
    let before = dumps(&mut node);
    for minute in 1..100 {
        node.tick(now() + minute * 60 * SECOND).unwrap();
    }
    assert_eq!(dumps(&mut node), before);
}

#[test]
fn an_event_that_a_request_has_taken_still_leads_to_a_repair() {
    let config = Config { on_drift: OnDrift::Repair, ..config(None) };
    let mut node = Node::with_sandbox(config, clear_kernel(), clear_kernel(), "boot", now()).unwrap();
    let wanted = uniform(&Wanted::default(), "100ms");
    put(&mut node, "a", &wanted);
    node.tick(now()).unwrap();
    disturb(&mut node);
    node.watched_kernel().events.push(Event::Shaping { index: 2 });
    node.prepare(prepare("b", &wanted, &uniform(&wanted, "300ms")), now()).unwrap();
    node.rollback(&rollback("b"), now()).unwrap();
    assert_eq!(node.watched_kernel().tree.egress.active, None);
    node.tick(now()).unwrap();
    assert!(node.watched_kernel().tree.egress.active.is_some());
}
