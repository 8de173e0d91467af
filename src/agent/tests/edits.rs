//! Tests of edits on the wire, and of the time that a change waits for nodes that it can leave out.

use std::time::Instant;

use tokio_util::sync::CancellationToken;

use super::{fleet::Site, *};
use crate::{
    agent::Via,
    fleet::{Edit, Scope, split, transaction::NewDocument},
    plan::Delta,
    wire::Plan,
};

fn prepare_edit(ticket: &str, base: &Wanted, wanted: &Wanted) -> Prepare {
    Prepare { wanted: None, edit: Delta::between(base, wanted), ..prepare(ticket, base, wanted) }
}

#[test]
fn a_node_computes_the_new_document_from_an_edit_of_its_own() {
    let mut node = n1();
    let wan = uniform(&Wanted::default(), "100ms");
    let parted = parted(&wan, "n2", None);
    put(&mut node, "a", &wan);
    let planned = Plan { base: wan.stamp(), wanted: None, edit: Delta::between(&wan, &parted) };
    let planned = node.plan(planned, Via::default(), now()).unwrap();
    assert!(!planned.change.is_settled());
    node.prepare(prepare_edit("b", &wan, &parted), now()).unwrap();
    node.commit(&commit("b"), &now).unwrap();
    node.confirm(&confirm("b"), now()).unwrap();
    assert_eq!(node.document(now()).wanted, parted);
}

#[test]
fn a_node_refuses_an_edit_of_another_document_and_asks_for_the_whole_document_if_the_edit_does_not_fit() {
    let mut node = n1();
    let wan = uniform(&Wanted::default(), "100ms");
    let (parted, other) = (parted(&wan, "n2", None), uniform(&Wanted::default(), "50ms"));
    put(&mut node, "a", &wan);
    let refused = |node: &mut Node<FakeKernel>, request| node.prepare(request, now()).unwrap_err().code;
    assert_eq!(refused(&mut node, prepare_edit("b", &other, &parted)), ErrorCode::Conflict);
    let misfit = Prepare { base: wan.stamp(), ..prepare_edit("b", &other, &super::parted(&other, "n2", None)) };
    assert_eq!(refused(&mut node, misfit), ErrorCode::NeedsDocument);
    let both = Prepare { wanted: Some(parted.clone()), ..prepare_edit("b", &wan, &parted) };
    assert_eq!(refused(&mut node, both), ErrorCode::BadRequest);
    let neither = Prepare { edit: None, ..prepare_edit("b", &wan, &parted) };
    assert_eq!(refused(&mut node, neither), ErrorCode::BadRequest);
    // A refused edit prepares nothing, so another controller can make a change.
    node.prepare(prepare("c", &wan, &parted), now()).unwrap();
}

#[tokio::test]
async fn nodes_that_ask_for_the_whole_document_get_it() {
    let site = Site::up().await;
    let (terms, running) = (Edit::default(), CancellationToken::new());
    site.fleet.edit(&terms, &running, |wanted| Ok(uniform(wanted, "100ms"))).await.unwrap();
    let part = |wanted: &Wanted| Ok(Wanted { inventory: wanted.inventory.clone(), ..parted(wanted, "n2", None) });
    let mut draft = site.fleet.draft(&terms, part).await.unwrap();
    // An edit that does not lead to the digest that it names.
    let other = uniform(&Wanted::default(), "50ms");
    draft.edit = draft.edit.map(|(base, _)| (base, Delta::between(&other, &parted(&other, "n3", None)).unwrap()));
    assert!(draft.edit.is_some());
    let plan = |base, NewDocument { wanted, edit }| Plan { base, wanted, edit };
    let (planned, failures) = split(draft.send(plan).await.0);
    assert!(failures.is_empty(), "{failures:?}");
    assert_eq!(planned.len(), 3);
}

/// Regression test: a command with `--only` waited three seconds for a silent node, and one with `--allow-missing` ten.
#[tokio::test]
async fn a_silent_node_is_not_asked_if_only_leaves_it_out_and_gets_one_second_if_it_may_be_missing() {
    let site = Site::up().await;
    let (fleet, listener) = site.with_a_silent_node();
    let change = async |scope: Scope, rtt: &str| {
        let began = Instant::now();
        let terms = Edit { scope, ..Edit::default() };
        let edit = |wanted: &Wanted| Ok(uniform(wanted, rtt));
        let outcome = fleet.edit(&terms, &CancellationToken::new(), edit).await.unwrap();
        assert_eq!(outcome.writes.len(), 2);
        began.elapsed()
    };
    let two = ["n1", "n2"].map(|name| name.parse().unwrap()).into();
    let _took = change(Scope { only: Some(two), ..Scope::default() }, "100ms").await;
    listener.set_nonblocking(true).unwrap();
    assert!(listener.accept().is_err(), "the silent node was asked");
    let took = change(Scope { allow_missing: true, ..Scope::default() }, "50ms").await;
    assert!((SECOND..SECOND * 5 / 2).contains(&took), "{took:?}");
}
