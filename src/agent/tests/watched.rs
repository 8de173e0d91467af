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

#[test]
fn a_write_is_read_back_completely() {
    let (mut node, wanted) = known();
    let before = dumps(&mut node);
    put(&mut node, "b", &uniform(&wanted, "300ms"));
    assert!(dumps(&mut node) > before);
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
