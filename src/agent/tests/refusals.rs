//! Tests of the answers to rejected packets: when the agent starts and stops to send them.

use super::*;
use crate::plan::{Answer, Timing};

/// The document `base` with a partition that rejects all packets between node n1 and the other nodes.
fn refused(base: &Wanted, timing: Option<Timing>) -> Wanted {
    let mut wanted = parted(base, "n1", timing);
    wanted.partitions.iter_mut().for_each(|partition| partition.mode = Mode::Reject);
    wanted
}

#[test]
fn rejected_packets_are_answered_exactly_while_a_partition_rejects() {
    let mut node = n1();
    let delayed = uniform(&Wanted::default(), "100ms");
    put(&mut node, "a", &delayed);
    assert_eq!(node.kernel().answers, Some(false));
    let wanted = refused(&delayed, None);
    put(&mut node, "b", &wanted);
    assert_eq!(node.kernel().answers, Some(true));
    let cuts = node.status(now()).unwrap().cuts;
    assert!(cuts.iter().any(|cut| cut.answer == Answer::Refusal));
    put(&mut node, "c", &Wanted { partitions: Vec::new(), generation: 9, ..wanted });
    assert_eq!(node.kernel().answers, Some(false));
    node.rollback(&rollback("c"), now()).unwrap();
    assert_eq!(node.kernel().answers, Some(true), "the rollback starts the answers again");
    node.rollback(&rollback("b"), now()).unwrap();
}

#[test]
fn the_reject_responder_ends_with_its_timed_partition() {
    let mut node = n1();
    let timing = Timing { begins: now().wall, lasts: Some(Duration::from_secs(10)), flap: None };
    put(&mut node, "a", &refused(&Wanted::default(), Some(timing)));
    assert_eq!(node.kernel().answers, Some(true));
    node.tick(now() + Duration::from_secs(10)).unwrap();
    assert_eq!(node.kernel().answers, Some(false));
    assert_eq!(node.kernel().tree, Tree::default());
}

#[test]
fn a_cancelled_change_leaves_no_reject_responder() {
    let mut node = n1();
    let wanted = refused(&Wanted::default(), None);
    node.prepare(prepare("a", &Wanted::default(), &wanted), now()).unwrap();
    assert_eq!(node.kernel().answers, Some(false));
    node.make_ready(&commit("a"), now()).unwrap();
    assert_eq!(node.kernel().answers, Some(true), "answers start before the first packet is cut");
    node.rollback(&rollback("a"), now()).unwrap();
    assert_eq!(node.kernel().answers, Some(false));
    assert_eq!(node.kernel().tree, Tree::default());
}

#[test]
fn a_kernel_without_a_reject_responder_is_left_as_before() {
    let mut node = n1();
    let delayed = uniform(&Wanted::default(), "100ms");
    put(&mut node, "a", &delayed);
    let before = node.kernel().tree.clone();
    node.kernel().answers = None;
    node.prepare(prepare("b", &delayed, &refused(&delayed, None)), now()).unwrap();
    assert_eq!(node.commit(&commit("b"), &now).unwrap_err().code, ErrorCode::Failed);
    assert_eq!(node.kernel().tree, before);
}
