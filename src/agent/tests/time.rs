//! Tests of timed changes, and of commits that wait for their commit time.

use std::cell::Cell;

use super::*;
use crate::{
    plan::{Flap, Timing},
    wire::{Onset, PartitionStatus},
};

/// A timing with an end.
fn lasting(begins: Moment, lasts: Duration) -> Timing {
    Timing { begins, lasts: Some(lasts), flap: None }
}

/// The status of the node's only partition. The node must have no drift.
fn partition(node: &mut Node<FakeKernel>, now: Now) -> PartitionStatus {
    let status = node.status(now).unwrap();
    assert_eq!(status.drift, [""; 0]);
    status.partitions.into_iter().next().unwrap()
}

fn cuts(node: &mut Node<FakeKernel>) -> usize {
    node.kernel().tree.cuts().count()
}

#[test]
fn a_timed_partition_begins_and_ends_by_itself_and_removes_all_objects() {
    let mut node = n1();
    let start = now();
    let wanted = parted(&Wanted::default(), "n2", Some(lasting((start + 5 * SECOND).wall, 10 * SECOND)));
    put_at(&mut node, "a", &wanted, start);
    assert_eq!(cuts(&mut node), 0);
    let status = |is_on: bool, left, next_change| {
        let cut = is_on.then_some(0);
        PartitionStatus { name: "n2".into(), is_on, left, next_change, cut }
    };
    assert_eq!(partition(&mut node, start + SECOND), status(false, Some(14.0), Some(4.0)));
    assert_eq!(node.tick(start + 4 * SECOND).unwrap(), Some((start + 5 * SECOND).uptime));
    assert_eq!(cuts(&mut node), 0);

    assert_eq!(node.tick(start + 5 * SECOND).unwrap(), Some((start + 15 * SECOND).uptime));
    assert_eq!(cuts(&mut node), 2, "one cut to n2 and one from n2");
    assert_eq!(partition(&mut node, start + 6 * SECOND), status(true, Some(9.0), Some(9.0)));

    assert_eq!(node.tick(start + 15 * SECOND).unwrap(), None);
    assert_eq!(node.kernel().tree, Tree::default());
    assert_eq!(node.stamp(), wanted.stamp(), "the document stays the same on all nodes");
    assert!(node.document(start + 15 * SECOND).lasting().partitions.is_empty());
    assert!(node.status(start + 15 * SECOND).unwrap().partitions.is_empty());
}

#[test]
fn a_flap_keeps_the_interface_between_its_cuts() {
    let mut node = n1();
    let start = now();
    let flap = Flap { down: 5 * SECOND, up: 10 * SECOND, spread: 0, seed: 1 };
    let timing = Timing { begins: start.wall, lasts: Some(32 * SECOND), flap: Some(flap) };
    put_at(&mut node, "a", &parted(&Wanted::default(), "n2", Some(timing)), start);
    let mut changes = Vec::new();
    let mut next = Some(start.uptime);
    while let Some(uptime) = next {
        let elapsed = uptime.saturating_sub(start.uptime);
        next = node.tick(start + elapsed).unwrap();
        assert_eq!(node.kernel().tree.taken, next.is_some());
        changes.push((elapsed.as_secs(), cuts(&mut node) > 0));
    }
    assert_eq!(changes, [(0, true), (5, false), (15, true), (20, false), (30, true), (32, false)]);
    assert_eq!(node.kernel().tree, Tree::default());
}

#[test]
fn a_late_agent_skips_missed_flaps() {
    let mut node = n1();
    let start = now();
    let flap = Flap { down: SECOND, up: SECOND, spread: 0, seed: 1 };
    let timing = Timing { begins: start.wall, lasts: None, flap: Some(flap) };
    put_at(&mut node, "a", &parted(&Wanted::default(), "n2", Some(timing)), start);
    let writes = node.kernel().writes;
    assert_eq!(node.tick(start + 100 * SECOND).unwrap(), Some((start + 101 * SECOND).uptime));
    assert_eq!(node.kernel().writes, writes, "the partition is in force at 100 s as at 0 s");
    node.tick(start + 101 * SECOND).unwrap();
    assert_eq!(node.kernel().writes, writes + 4, "a flip and the removal of a chain in each direction");
}

#[test]
fn a_timed_change_counts_from_the_commit_time() {
    let mut node = n1();
    let start = now();
    let wanted = parted(&Wanted::default(), "n2", Some(lasting(start.wall, 10 * SECOND)));
    node.prepare(prepare("a", &Wanted::default(), &wanted), start + SECOND).unwrap();
    let at = start + 3 * SECOND;
    node.make_ready(&commit_at("a", at.wall), start + 2 * SECOND).unwrap();
    node.commit(&commit_at("a", at.wall), &|| at).unwrap();
    assert_eq!(partition(&mut node, at).left, Some(10.0));
    let begins = node.document(at).lasting().partitions[0].timing.map(|timing| timing.begins);
    assert_eq!(begins, Some(at.wall), "the next document has the real start");
    // A node that gets the partition by a later document counts from the start in that document.
    let mut other = n1();
    let later = Wanted { generation: 2, ..wanted };
    put_at(&mut other, "b", &later, at);
    assert_eq!(partition(&mut other, at).left, Some(7.0));
}

#[test]
fn a_step_of_the_wall_clock_moves_no_change_that_has_begun() {
    let mut node = n1();
    let start = now();
    put_at(&mut node, "a", &parted(&Wanted::default(), "n2", Some(lasting(start.wall, 10 * SECOND))), start);
    let set_ahead = Now { wall: start.wall.after(1_000 * SECOND), uptime: start.uptime + 4 * SECOND };
    assert_eq!(partition(&mut node, set_ahead).left, Some(6.0));
    let set_back = Now { wall: Moment::from_nanos(0), ..set_ahead };
    assert_eq!(node.tick(set_back).unwrap(), Some(start.uptime + 10 * SECOND));
}

#[test]
fn the_next_timed_change_is_computed_before_its_time() {
    let mut node = n1();
    let start = now();
    let begins = start + 5 * SECOND;
    put_at(&mut node, "a", &parted(&Wanted::default(), "n2", Some(lasting(begins.wall, SECOND))), start);
    let tree = node.kernel().tree.clone();
    assert!(tree.taken && tree.cuts().count() == 0, "the root qdisc is installed in advance");
    node.precompute(begins.uptime).unwrap();
    assert_eq!(node.kernel().tree.shaping(), tree.shaping());
    assert_eq!(node.kernel().tree.egress.chains.len(), 1, "the chain is built before its time");
    assert_eq!(node.status(start).unwrap().drift, [""; 0]);
    node.tick(begins).unwrap();
    assert_eq!(cuts(&mut node), 2);
}

#[test]
fn a_precomputed_change_is_dropped_after_another_change() {
    let mut node = n1();
    let start = now();
    let begins = start + 5 * SECOND;
    put_at(&mut node, "a", &parted(&Wanted::default(), "n2", Some(lasting(begins.wall, SECOND))), start);
    node.precompute(begins.uptime).unwrap();
    let healed = wanted_of(&node).healed(&[], inventory()).unwrap();
    put_at(&mut node, "b", &Wanted { generation: 2, ..healed }, start + SECOND);
    node.tick(begins).unwrap();
    assert_eq!(node.kernel().tree, Tree::default());
}

fn commit_at(ticket: &str, at: Moment) -> Commit {
    Commit { at: Some(at), ..commit(ticket) }
}

/// A node with a prepared partition, and the document of this change.
fn prepared() -> (Node<FakeKernel>, Wanted) {
    let mut node = n1();
    let wanted = parted(&uniform(&Wanted::default(), "100ms"), "n2", None);
    node.prepare(prepare("a", &Wanted::default(), &wanted), now()).unwrap();
    (node, wanted)
}

#[test]
fn a_commit_waits_for_its_time_and_returns_its_onset() {
    let (mut node, wanted) = prepared();
    let at = now() + SECOND;
    assert_eq!(node.make_ready(&commit_at("a", at.wall), now()).unwrap(), SECOND);
    assert_eq!(node.kernel().tree.shaping(), Some(Shaping::default()));
    // While the commit waits, the status has the document that is still in force.
    assert_eq!(node.status(now()).unwrap().stamp, Wanted::default().stamp());
    // The lease expires 15 s later.
    assert_eq!(node.tick(now()).unwrap(), Some((now() + 15 * SECOND).uptime));
    let readings = Cell::new(0);
    let clock = || {
        readings.set(readings.get() + 1);
        at + readings.get() * Duration::from_millis(1)
    };
    let committed = node.commit(&commit_at("a", at.wall), &clock).unwrap();
    assert_eq!(committed.stamp, wanted.stamp());
    // Two steps take effect: the flips at egress and at ingress.
    let after = |milliseconds| at.wall.after(Duration::from_millis(milliseconds));
    assert_eq!(committed.onset, Some(Onset { first: after(2), last: after(3) }));
    assert_eq!(committed.told_late, None);
}

#[test]
fn a_commit_that_changes_nothing_has_no_onset() {
    let (mut node, wanted) = prepared();
    node.commit(&commit("a"), &now).unwrap();
    node.confirm(&confirm("a"), now()).unwrap();
    node.prepare(prepare("b", &wanted, &wanted), now()).unwrap();
    assert_eq!(node.commit(&commit("b"), &now).unwrap().onset, None);
}

#[test]
fn a_waiting_commit_can_be_cancelled() {
    let (mut node, _) = prepared();
    let at = now() + SECOND;
    node.make_ready(&commit_at("a", at.wall), now()).unwrap();
    node.rollback(&rollback("a"), now()).unwrap();
    assert_eq!(node.commit(&commit_at("a", at.wall), &|| at).unwrap_err().code, ErrorCode::Conflict);
    assert_eq!(node.kernel().tree, Tree::default());
    put(&mut node, "b", &uniform(&Wanted::default(), "300ms"));
}

#[test]
fn a_commit_time_too_far_ahead_is_refused() {
    let (mut node, _) = prepared();
    let error = node.make_ready(&commit_at("a", (now() + 6 * SECOND).wall), now()).unwrap_err();
    assert_eq!(error.code, ErrorCode::Refused);
    assert!(error.message.contains("6.0 s ahead of this node's clock"), "{error}");
}

#[test]
fn a_past_commit_time_commits_at_once_and_a_clock_difference_is_reported() {
    for (late, told_late, left) in [(SECOND / 2, None, 9.5), (7 * SECOND, Some(7 * SECOND), 10.0)] {
        let mut node = n1();
        let at = now() + SECOND;
        let wanted = parted(&Wanted::default(), "n2", Some(lasting(now().wall, 10 * SECOND)));
        node.prepare(prepare("a", &Wanted::default(), &wanted), now()).unwrap();
        assert_eq!(node.make_ready(&commit_at("a", at.wall), at + late).unwrap(), Duration::ZERO);
        assert_eq!(node.commit(&commit_at("a", at.wall), &|| at + late).unwrap().told_late, told_late);
        assert_eq!(
            partition(&mut node, at + late).left,
            Some(left),
            "if the clocks differ, the node uses only the durations"
        );
    }
}

#[test]
fn a_waiting_commit_is_computed_again_after_a_timed_change_has_ended() {
    let mut node = n1();
    let start = now();
    let first = parted(&Wanted::default(), "n2", Some(lasting(start.wall, 10 * SECOND)));
    put_at(&mut node, "a", &first, start);
    let second = parted(&first, "n3", None);
    let (asked, at) = (start + 9 * SECOND, start + 11 * SECOND);
    node.prepare(prepare("b", &first, &second), asked).unwrap();
    node.make_ready(&commit_at("b", at.wall), asked).unwrap();
    node.tick(start + 10 * SECOND).unwrap();
    node.commit(&commit_at("b", at.wall), &|| at).unwrap();
    let cut: Vec<IpAddr> = node.kernel().tree.cuts().map(|cut| cut.address).collect();
    assert_eq!(cut, [address(3); 2]);
}

#[test]
fn overlapping_partitions_may_end_in_either_order() {
    for (first_lasts, second_lasts) in [(5, 9), (9, 5)] {
        let mut node = n1();
        let start = now();
        let one = parted(&Wanted::default(), "n2", Some(lasting(start.wall, first_lasts * SECOND)));
        put_at(&mut node, "a", &one, start);
        // Both partitions part n1 from n2, and the second also parts n1 from n3.
        let both = parted(&one, "n[2-3]", Some(lasting(start.wall, second_lasts * SECOND)));
        put_at(&mut node, "b", &both, start);
        assert_eq!(cuts(&mut node), 4);
        node.tick(start + 5 * SECOND).unwrap();
        assert_eq!(cuts(&mut node), if first_lasts == 5 { 4 } else { 2 });
        node.tick(start + 9 * SECOND).unwrap();
        assert_eq!(node.kernel().tree, Tree::default());
    }
}

/// The commit time is a time of the controller's clock. The node's clock is 4.8 s ahead or behind.
#[test]
fn a_node_with_a_wrong_clock_commits_with_the_others() {
    for ahead in [-4_800_000_000_i64, 4_800_000_000] {
        let mut node = n1();
        let by_node = |time: Now| time.by_controller(-ahead);
        let timing = Timing { begins: (now() + 60 * SECOND).wall, lasts: Some(10 * SECOND), flap: None };
        let at_once = parted(&Wanted::default(), "n2", None);
        let wanted = parted(&at_once, "n3", Some(timing));
        node.prepare(prepare("a", &Wanted::default(), &wanted), by_node(now())).unwrap();
        let request = Commit { at: Some((now() + SECOND).wall), clock_ahead_ns: ahead, ..commit("a") };
        assert_eq!(node.make_ready(&request, by_node(now())).unwrap(), SECOND);
        let committed = node.commit(&request, &|| by_node(now() + SECOND)).unwrap();
        // The onset in the reply is also a time of the controller's clock.
        assert_eq!(committed.onset.unwrap().first, (now() + SECOND).wall);
        assert_eq!(committed.told_late, None);
        node.confirm(&confirm("a"), by_node(now() + SECOND)).unwrap();
        // A later start is also a time of the controller's clock.
        assert_eq!(node.tick(by_node(now() + 2 * SECOND)).unwrap(), Some((now() + 60 * SECOND).uptime));
    }
}
