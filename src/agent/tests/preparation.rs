//! Tests of the writes before a change takes effect: new classes, and filters in a spare chain.

use std::time::Duration;

use super::{commit, count_cuts, get_ready, n1, now, parted, prepare, put, rollback, uniform, wanted_of};
use crate::{
    agent::{Node, Now},
    fake_kernel::FakeKernel,
    plan::{Timing, Tree, Wanted},
    wire::Commit,
};

const SECOND: Duration = Duration::from_secs(1);

/// A node with a topology in force and a partition that waits for its commit time. Returns the tree before the
/// partition and the commit time.
fn waiting() -> (Node<FakeKernel>, Tree, Now, Commit) {
    let mut node = n1();
    put(&mut node, "a", &uniform(&Wanted::default(), "100ms"));
    let before = node.kernel().tree.clone();
    let base = wanted_of(&node);
    node.prepare(prepare("b", &base, &parted(&base, "n1", None)), now()).unwrap();
    let at = now().after(SECOND);
    let commit = Commit { at: Some(at.wall), ..commit("b") };
    assert_eq!(node.make_ready(&commit, now()).unwrap(), SECOND);
    (node, before, at, commit)
}

#[test]
fn before_its_commit_time_a_change_writes_only_what_no_packet_uses() {
    let (mut node, before, at, commit) = waiting();
    assert_eq!(node.kernel().tree.shaping(), before.shaping());
    assert_ne!(node.kernel().tree, before, "the new chain at ingress is built");
    let writes = node.kernel().writes;
    node.commit(&commit, &|| at).unwrap();
    // Two cuts at egress in the active chain, and the gate at ingress.
    assert_eq!(node.kernel().writes - writes, 3);
    assert_eq!(node.kernel().tree.cuts().count(), 4);
}

#[test]
fn a_node_that_is_ready_writes_only_the_switch_after_the_commit_arrives() {
    let (mut node, at) = (n1(), now().after(SECOND));
    put(&mut node, "a", &uniform(&Wanted::default(), "100ms"));
    let base = wanted_of(&node);
    node.prepare(prepare("b", &base, &parted(&base, "n1", None)), now()).unwrap();
    assert_eq!(node.get_ready(&get_ready("b"), now()).unwrap(), base.stamp());
    let prepared = node.kernel().clone();
    assert_eq!(node.get_ready(&get_ready("b"), now()).unwrap(), base.stamp());
    node.make_ready(&Commit { at: Some(at.wall), ..commit("b") }, now()).unwrap();
    assert_eq!((node.kernel().writes, &node.kernel().tree), (prepared.writes, &prepared.tree));
    node.commit(&commit("b"), &|| at).unwrap();
    assert_eq!(node.kernel().writes - prepared.writes, 3);
    assert_eq!(
        node.get_ready(&get_ready("b"), at).unwrap(),
        wanted_of(&node).stamp(),
        "a late request changes nothing"
    );
}

#[test]
fn a_ready_change_is_computed_again_if_an_earlier_partition_ends_before_the_commit_time() {
    let (mut node, start) = (n1(), now());
    let timing = Timing { begins: start.wall, lasts: Some(SECOND), flap: None };
    put(&mut node, "a", &parted(&Wanted::default(), "n2", Some(timing)));
    let base = wanted_of(&node);
    node.prepare(prepare("b", &base, &parted(&base, "n3", None)), start).unwrap();
    node.get_ready(&get_ready("b"), start).unwrap();
    let at = start.after(2 * SECOND);
    let commit = Commit { at: Some(at.wall), ..commit("b") };
    node.make_ready(&commit, start).unwrap();
    node.commit(&commit, &|| at).unwrap();
    // The filters of the second partition only, at egress and at ingress.
    assert_eq!(node.kernel().tree.cuts().count(), 2);
    let status = node.status(at).unwrap();
    assert_eq!((status.drift, status.draining, status.partitions.len()), (vec![], 0, 1));
}

#[test]
fn a_change_that_waits_for_its_commit_time_is_no_drift() {
    let (mut node, ..) = waiting();
    let status = node.status(now()).unwrap();
    assert_eq!((status.drift, status.draining), (vec![], 0));
}

#[test]
fn a_cancelled_change_leaves_no_preparation() {
    let (mut node, before, ..) = waiting();
    node.rollback(&rollback("b"), now()).unwrap();
    assert_eq!(node.kernel().tree, before);

    let (mut node, before, ..) = waiting();
    node.tick(now().after(20 * SECOND)).unwrap();
    assert_eq!(node.kernel().tree, before, "the lease has expired");
}

#[test]
fn a_preparation_that_fails_leaves_the_interface_as_before() {
    for step in 0..6 {
        let mut node = n1();
        node.kernel().fails_at = Some(step);
        let wanted = uniform(&Wanted::default(), "100ms");
        node.prepare(prepare("a", &Wanted::default(), &wanted), now()).unwrap();
        let commit = Commit { at: Some(now().after(SECOND).wall), ..commit("a") };
        node.make_ready(&commit, now()).unwrap_err();
        assert_eq!(node.kernel().tree, Tree::default(), "step {step} failed");
    }
}

#[test]
fn the_counters_of_a_partition_stay_when_another_partition_begins() {
    let mut node = n1();
    let first = parted(&Wanted::default(), "n2", None);
    put(&mut node, "a", &first);
    count_cuts(&mut node, 7);
    put(&mut node, "b", &parted(&first, "n3", None));
    assert_eq!(node.status(now()).unwrap().partitions[0].cut, Some(14));
}
