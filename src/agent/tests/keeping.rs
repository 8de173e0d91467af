//! Tests of leases, confirmations and rollbacks, and of requests that are repeated or late.

use super::*;

/// A node with a confirmed document and an unconfirmed change to a second document, and these two documents.
fn committed() -> (Node<FakeKernel>, Wanted, Wanted) {
    let mut node = n1();
    let before = uniform(&Wanted::default(), "100ms");
    put(&mut node, "a", &before);
    let after = uniform(&before, "300ms");
    node.prepare(prepare("b", &before, &after), now()).unwrap();
    node.commit(&commit("b"), &now).unwrap();
    (node, before, after)
}

#[test]
fn an_unconfirmed_change_is_rolled_back_when_its_lease_expires_and_not_before() {
    let (mut node, before, after) = committed();
    let shaping = node.kernel().tree.shaping();
    let (soon, late) = (now() + 14 * SECOND, now() + CONFIRM_WITHIN);
    node.tick(soon).unwrap();
    assert_eq!((node.stamp(), node.kernel().tree.shaping()), (after.stamp(), shaping.clone()));
    assert_eq!(node.status(soon).unwrap().unconfirmed, Some(1.0));
    node.tick(late).unwrap();
    assert_eq!(node.stamp(), before.stamp());
    assert_ne!(node.kernel().tree.shaping(), shaping);
    let status = node.status(late).unwrap();
    assert_eq!((status.unconfirmed, status.drift), (None, vec![]));
    // A controller that confirms too late gets an error.
    assert_eq!(node.confirm(&confirm("b"), late).unwrap_err().code, ErrorCode::Conflict);
    assert_eq!(node.stamp(), before.stamp());
}

#[test]
fn a_confirm_after_the_lease_rolls_back_even_without_a_tick() {
    let (mut node, before, _) = committed();
    assert_eq!(node.confirm(&confirm("b"), now() + CONFIRM_WITHIN).unwrap_err().code, ErrorCode::Conflict);
    assert_eq!(node.stamp(), before.stamp());
}

#[test]
fn a_confirmed_change_stays_and_can_be_confirmed_twice() {
    let (mut node, _, after) = committed();
    for _ in 0..2 {
        assert_eq!(node.confirm(&confirm("b"), now()).unwrap().stamp, after.stamp());
    }
    node.tick(now() + 100 * SECOND).unwrap();
    assert_eq!(node.stamp(), after.stamp());
    assert_eq!(node.status(now()).unwrap().unconfirmed, None);
}

#[test]
fn a_change_that_is_not_committed_cannot_be_confirmed() {
    let mut node = n1();
    let wanted = uniform(&Wanted::default(), "100ms");
    node.prepare(prepare("a", &Wanted::default(), &wanted), now()).unwrap();
    assert_eq!(node.confirm(&confirm("a"), now()).unwrap_err().code, ErrorCode::Conflict);
    node.make_ready(&commit("a"), now()).unwrap();
    assert_eq!(node.confirm(&confirm("a"), now()).unwrap_err().code, ErrorCode::Conflict);
    assert_eq!(node.kernel().tree.shaping(), Some(Shaping::default()), "the first classes and filters are not in use");
    assert_eq!(node.stamp(), Wanted::default().stamp());
}

#[test]
fn a_commit_can_be_repeated_after_a_lost_reply() {
    let (mut node, _, after) = committed();
    let writes = node.kernel().writes;
    assert_eq!(node.make_ready(&commit("b"), now()).unwrap(), Duration::ZERO);
    let again = node.commit(&commit("b"), &now).unwrap();
    assert_eq!((again.stamp, node.kernel().writes), (after.stamp(), writes));
    assert!(again.writes > 0, "the reply is that of the first commit");
    node.confirm(&confirm("b"), now()).unwrap();
}

#[test]
fn an_unconfirmed_change_keeps_other_controllers_out() {
    let (mut node, before, after) = committed();
    let other = uniform(&after, "10ms");
    let error = node.prepare(prepare("c", &after, &other), now()).unwrap_err();
    assert_eq!(error.code, ErrorCode::Conflict);
    assert!(error.message.ends_with("its unconfirmed change is rolled back in 15 s"), "{error}");
    // After the lease the node rolls back first. The other change must start from the document before.
    let late = now() + CONFIRM_WITHIN;
    assert_eq!(node.prepare(prepare("c", &after, &other), late).unwrap_err().code, ErrorCode::Conflict);
    node.prepare(prepare("c", &before, &uniform(&before, "10ms")), late).unwrap();
}

#[test]
fn a_prepared_change_is_cancelled_when_its_lease_expires() {
    let mut node = n1();
    let (ours, theirs) = (uniform(&Wanted::default(), "100ms"), uniform(&Wanted::default(), "300ms"));
    node.prepare(prepare("ours", &Wanted::default(), &ours), now()).unwrap();
    let error = node.prepare(prepare("theirs", &Wanted::default(), &theirs), now() + 14 * SECOND).unwrap_err();
    assert_eq!(error.code, ErrorCode::Conflict);
    let late = now() + 15 * SECOND;
    assert_eq!(node.make_ready(&commit("ours"), late).unwrap_err().code, ErrorCode::Conflict);
    assert_eq!(node.commit(&commit("ours"), &|| late).unwrap_err().code, ErrorCode::Conflict);
    node.prepare(prepare("theirs", &Wanted::default(), &theirs), late).unwrap();
    assert_eq!(node.kernel().writes, 0);
}

#[test]
fn an_agent_that_is_busy_past_the_commit_time_refuses_the_commit() {
    let (mut node, wanted) = (n1(), uniform(&Wanted::default(), "100ms"));
    node.prepare(prepare("a", &Wanted::default(), &wanted), now()).unwrap();
    node.make_ready(&Commit { at: Some((now() + SECOND).wall), ..commit("a") }, now()).unwrap();
    let error = node.commit(&commit("a"), &|| now() + 13 * SECOND).unwrap_err();
    assert_eq!(error.message, "the agent was busy until 12.0 s after the commit time");
    assert_eq!((node.kernel().tree.clone(), node.stamp()), (Tree::default(), Wanted::default().stamp()));
    // The refused commit does not block another change.
    node.prepare(prepare("b", &Wanted::default(), &wanted), now() + 13 * SECOND).unwrap();
}

#[test]
fn the_lease_of_an_unconfirmed_change_is_limited() {
    let (mut node, wanted) = (n1(), uniform(&Wanted::default(), "100ms"));
    node.prepare(prepare("a", &Wanted::default(), &wanted), now()).unwrap();
    let request = Commit { confirm_within: 61 * SECOND, ..commit("a") };
    assert_eq!(node.commit(&request, &now).unwrap_err().code, ErrorCode::Refused);
    assert_eq!(node.kernel().writes, 0);
}

#[test]
fn a_failed_rollback_is_reported_and_retried() {
    for is_confirmed in [false, true] {
        let (mut node, before, _) = committed();
        if is_confirmed {
            node.confirm(&confirm("b"), now()).unwrap();
        }
        node.kernel().fails_from = Some(0);
        for _ in 0..2 {
            assert_eq!(node.rollback(&rollback("b"), now()).unwrap_err().code, ErrorCode::Broken);
        }
        assert!(node.tick(now() + SECOND).is_err());
        assert_eq!(node.confirm(&confirm("b"), now()).unwrap_err().code, ErrorCode::Broken, "the rollback has begun");
        node.kernel().fails_from = None;
        node.tick(now() + 2 * SECOND).unwrap();
        assert_eq!(node.stamp(), before.stamp());
        assert!(node.status(now() + 2 * SECOND).unwrap().drift.is_empty());
        node.rollback(&rollback("b"), now() + 2 * SECOND).unwrap();
    }
}

#[test]
fn a_commit_whose_rollback_fails_is_not_reported_as_rolled_back() {
    let wanted = uniform(&Wanted::default(), "100ms");
    let mut node = n1();
    node.prepare(prepare("a", &Wanted::default(), &wanted), now()).unwrap();
    node.kernel().fails_from = Some(3);
    assert_eq!(node.commit(&commit("a"), &now).unwrap_err().code, ErrorCode::Broken);
    assert_ne!(node.kernel().tree, Tree::default());
    assert_eq!(node.rollback(&rollback("a"), now()).unwrap_err().code, ErrorCode::Broken);
    assert!(node.tick(now()).is_err());
    assert!(!node.status(now()).unwrap().drift.is_empty());
    node.kernel().fails_from = None;
    assert_eq!(node.rollback(&rollback("a"), now()).unwrap().stamp, Wanted::default().stamp());
    assert_eq!(node.kernel().tree, Tree::default());
    assert!(node.status(now()).unwrap().drift.is_empty());
}

#[test]
fn a_timed_change_ends_while_another_change_is_unconfirmed() {
    let mut node = n1();
    let timed = delayed(&Wanted::default(), "80ms", Some(2 * SECOND));
    node.prepare(prepare("a", &Wanted::default(), &timed), now()).unwrap();
    node.commit(&commit("a"), &now).unwrap();
    node.tick(now() + 2 * SECOND).unwrap();
    assert_eq!(node.kernel().tree, Tree::default());
    node.confirm(&confirm("a"), now() + 3 * SECOND).unwrap();
    assert_eq!(node.stamp(), timed.stamp());
}

#[test]
fn an_agent_that_exits_rolls_back_an_unconfirmed_change_and_keeps_confirmed_ones() {
    let (mut node, before, _) = committed();
    assert_eq!(node.tick(now()).unwrap(), Some((now() + CONFIRM_WITHIN).uptime));
    node.end(now()).unwrap();
    assert_eq!(node.stamp(), before.stamp());
    let tree = node.kernel().tree.clone();
    node.end(now()).unwrap();
    assert_eq!((node.tick(now()).unwrap(), &node.kernel().tree), (None, &tree));
}

/// Prepares and commits a change on top of `base`, as another controller does. Returns the new document.
fn cover(node: &mut Node<FakeKernel>, ticket: &str, base: &Wanted) -> Wanted {
    let wanted = uniform(base, "10ms");
    node.prepare(prepare(ticket, base, &wanted), now()).unwrap();
    node.commit(&commit(ticket), &now).unwrap();
    wanted
}

#[test]
fn a_rollback_of_a_covered_change_is_not_reported_as_rolled_back() {
    let by_all = |ticket| Confirm { by_all: true, ..confirm(ticket) };
    let (mut node, before, after) = committed();
    node.confirm(&confirm("b"), now()).unwrap();
    let top = cover(&mut node, "c", &after);
    let error = node.rollback(&rollback("b"), now()).unwrap_err();
    assert_eq!((error.code, node.stamp()), (ErrorCode::Conflict, top.stamp()), "c may be rolled back: {error}");
    node.confirm(&confirm("c"), now()).unwrap();
    let error = node.rollback(&rollback("b"), now()).unwrap_err();
    assert_eq!(error.code, ErrorCode::Conflict, "another node may not have confirmed c: {error}");
    node.confirm(&by_all("c"), now()).unwrap();
    for ticket in ["b", "c"] {
        let rolled_back = node.rollback(&rollback(ticket), now()).unwrap();
        assert_eq!((rolled_back.kept, rolled_back.stamp), (true, top.stamp()));
        // A late, repeated confirmation also succeeds.
        node.confirm(&confirm(ticket), now()).unwrap();
    }

    // The rollback of c also rolls back b if a rollback of b was requested.
    for (is_asked, is_confirmed) in [(false, false), (false, true), (true, false), (true, true)] {
        let (mut node, _, after) = committed();
        node.confirm(&confirm("b"), now()).unwrap();
        cover(&mut node, "c", &after);
        if is_confirmed {
            node.confirm(&confirm("c"), now()).unwrap();
        }
        if is_asked {
            node.rollback(&rollback("b"), now()).unwrap_err();
        }
        let rolled_back = node.rollback(&rollback("c"), now()).unwrap();
        assert_eq!(rolled_back.stamp, if is_asked { before.stamp() } else { after.stamp() });
        assert_eq!(node.status(now()).unwrap().drift, [""; 0]);
        let rolled_back = node.rollback(&rollback("b"), now()).unwrap();
        assert_eq!((rolled_back.kept, rolled_back.stamp), (false, before.stamp()));
    }
    // The rollback of c when its lease expires also rolls back b.
    let (mut node, before, after) = committed();
    node.confirm(&confirm("b"), now()).unwrap();
    cover(&mut node, "c", &after);
    node.rollback(&rollback("b"), now()).unwrap_err();
    node.tick(now() + CONFIRM_WITHIN).unwrap();
    assert_eq!(node.stamp(), before.stamp());
}

#[test]
fn an_unfinished_change_can_be_rolled_back_until_eight_others_lie_on_top() {
    let (mut node, _, mut top) = committed();
    node.confirm(&confirm("b"), now()).unwrap();
    for number in 1..=8 {
        let ticket = number.to_string();
        top = cover(&mut node, &ticket, &top);
        node.confirm(&confirm(&ticket), now()).unwrap();
        assert_eq!(node.rollback(&rollback("b"), now()).is_ok_and(|rolled_back| rolled_back.kept), number == 8);
    }
    assert_eq!(node.stamp(), top.stamp());
}

#[test]
fn a_rollback_also_cancels_the_change_prepared_on_top() {
    for is_ready in [false, true] {
        let (mut node, before, after) = committed();
        node.confirm(&confirm("b"), now()).unwrap();
        node.prepare(prepare("c", &after, &uniform(&after, "10ms")), now()).unwrap();
        if is_ready {
            let request = Commit { at: Some((now() + SECOND).wall), ..commit("c") };
            assert_eq!(node.make_ready(&request, now()).unwrap(), SECOND);
        }
        assert_eq!(node.rollback(&rollback("b"), now()).unwrap().stamp, before.stamp());
        assert_eq!(node.commit(&commit("c"), &now).unwrap_err().code, ErrorCode::Conflict);
        assert_eq!(node.stamp(), before.stamp());
        // No prepared change blocks the next change.
        cover(&mut node, "d", &before);
    }
}

#[test]
fn a_late_message_of_an_ended_transaction_starts_nothing() {
    let (mut node, before, after) = committed();
    node.rollback(&rollback("b"), now()).unwrap();
    node.rollback(&rollback("never heard of"), now()).unwrap();
    for ticket in ["b", "never heard of"] {
        let error = node.prepare(prepare(ticket, &before, &after), now()).unwrap_err();
        assert_eq!(error.code, ErrorCode::Conflict);
    }
    cover(&mut node, "c", &before);
}

#[test]
fn an_unconfirmed_document_is_marked_as_unconfirmed() {
    let (mut node, _, _) = committed();
    assert!(node.document(now()).unconfirmed);
    node.confirm(&confirm("b"), now()).unwrap();
    assert!(!node.document(now()).unconfirmed);
}
