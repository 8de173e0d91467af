//! The transaction on one node, over a kernel in memory.

use std::net::IpAddr;

use super::{Config, Node};
use crate::{
    kernel::FakeKernel,
    plan::{AgentAddress, Inventory, Place, Tree, Wanted},
    topology::{NodeName, Source, Topology},
    wire::{Commit, ErrorCode, Prepare, Ticket, Undo},
};

fn address(number: u8) -> IpAddr {
    [10, 0, 0, number].into()
}

fn inventory() -> Inventory {
    let place = |number: u8| Place {
        agent: AgentAddress::Unix(format!("/run/n{number}.sock").into()),
        interface: "db0".parse().unwrap(),
        addresses: vec![address(number)],
    };
    let node = |number: u8| (format!("n{number}").parse::<NodeName>().unwrap(), place(number));
    Inventory { nodes: (1..=3).map(node).collect(), ..Inventory::default() }
}

/// The document under which every pair has this RTT.
fn uniform(base: &Wanted, rtt: &str) -> Wanted {
    let text = format!("name = 'uniform'\nnodes = 'n[1-3]'\n[links]\ndefault = {{ rtt = '{rtt}' }}\n");
    let topology = Topology::parse(Source::new("uniform.toml", text)).unwrap();
    let wanted = base.with_topology(topology, inventory()).unwrap();
    Wanted { generation: base.generation + 1, ..wanted }
}

fn n1() -> Node<FakeKernel> {
    let mut kernel = FakeKernel::new("db0".parse().unwrap());
    kernel.interface.addresses = vec![address(1)];
    let config =
        Config { node: "n1".parse().unwrap(), interfaces: vec!["db0".parse().unwrap()], socket: "/run/n1.sock".into() };
    Node::with_able_kernel(config, kernel)
}

fn prepare(ticket: &str, base: &Wanted, wanted: &Wanted) -> Prepare {
    Prepare { ticket: Ticket(ticket.into()), base: base.stamp(), wanted: wanted.clone() }
}

fn commit(ticket: &str) -> Commit {
    Commit { ticket: Ticket(ticket.into()) }
}

fn undo(ticket: &str) -> Undo {
    Undo { ticket: Ticket(ticket.into()) }
}

/// Puts a document in force.
fn put(node: &mut Node<FakeKernel>, ticket: &str, wanted: &Wanted) {
    let base = node.wanted().clone();
    node.prepare(prepare(ticket, &base, wanted)).unwrap();
    node.commit(&commit(ticket)).unwrap();
}

#[test]
fn preparing_writes_nothing_and_committing_puts_it_in_force() {
    let mut node = n1();
    let wanted = uniform(&Wanted::default(), "100ms");
    let prepared = node.prepare(prepare("a", &Wanted::default(), &wanted)).unwrap();
    assert!(!prepared.change.steps.is_empty());
    assert_eq!(node.kernel().writes, 0);
    let committed = node.commit(&commit("a")).unwrap();
    assert_eq!(committed.stamp, wanted.stamp());
    assert_eq!(committed.writes, prepared.change.steps.len());
    let status = node.status().unwrap();
    assert_eq!((status.drift, status.profiles.len()), (vec![], 1));
}

#[test]
fn an_edit_of_a_document_that_is_not_in_force_is_a_conflict() {
    let mut node = n1();
    let first = uniform(&Wanted::default(), "100ms");
    put(&mut node, "a", &first);
    let late = uniform(&Wanted::default(), "300ms");
    let error = node.prepare(prepare("b", &Wanted::default(), &late)).unwrap_err();
    assert_eq!(error.code, ErrorCode::Conflict);
    assert_eq!(*node.wanted(), first);
}

#[test]
fn a_prepared_change_keeps_other_controllers_out_until_it_is_undone() {
    let mut node = n1();
    let (ours, theirs) = (uniform(&Wanted::default(), "100ms"), uniform(&Wanted::default(), "300ms"));
    node.prepare(prepare("ours", &Wanted::default(), &ours)).unwrap();
    let error = node.prepare(prepare("theirs", &Wanted::default(), &theirs)).unwrap_err();
    assert_eq!(error.code, ErrorCode::Conflict);
    node.undo(&undo("ours")).unwrap();
    node.prepare(prepare("theirs", &Wanted::default(), &theirs)).unwrap();
    // What was undone cannot be committed any more.
    assert_eq!(node.commit(&commit("ours")).unwrap_err().code, ErrorCode::Conflict);
}

#[test]
fn undoing_a_committed_change_goes_back_to_the_document_before() {
    let mut node = n1();
    put(&mut node, "a", &uniform(&Wanted::default(), "100ms"));
    let (before, tree) = (node.wanted().clone(), node.kernel().tree.shaping());
    put(&mut node, "b", &uniform(&before, "300ms"));
    assert_ne!(node.kernel().tree.shaping(), tree);
    // Undoing it twice is undoing it once; undoing another transaction is nothing.
    for ticket in ["b", "b", "unknown"] {
        let undone = node.undo(&undo(ticket)).unwrap();
        assert_eq!(undone.stamp, before.stamp());
        assert_eq!(node.kernel().tree.shaping(), tree);
    }
}

#[test]
fn undoing_the_first_change_gives_the_interface_back() {
    let mut node = n1();
    put(&mut node, "a", &uniform(&Wanted::default(), "100ms"));
    node.undo(&undo("a")).unwrap();
    assert_eq!(node.kernel().tree, Tree::default());
    assert_eq!(*node.wanted(), Wanted::default());
}

#[test]
fn a_change_that_the_kernel_fails_leaves_the_node_as_it_was() {
    let wanted = uniform(&Wanted::default(), "100ms");
    let steps = n1().prepare(prepare("a", &Wanted::default(), &wanted)).unwrap().change.steps.len();
    for step in 0..steps {
        let mut node = n1();
        node.prepare(prepare("a", &Wanted::default(), &wanted)).unwrap();
        node.kernel().fails_at = Some(step);
        assert_eq!(node.commit(&commit("a")).unwrap_err().code, ErrorCode::Failed);
        assert_eq!(node.kernel().tree, Tree::default(), "step {step} failed");
        assert_eq!(*node.wanted(), Wanted::default());
    }
}

#[test]
fn what_is_in_force_already_costs_no_write() {
    let mut node = n1();
    put(&mut node, "a", &uniform(&Wanted::default(), "100ms"));
    let (wanted, writes) = (node.wanted().clone(), node.kernel().writes);
    put(&mut node, "b", &wanted);
    assert_eq!(node.kernel().writes, writes);
}

#[test]
fn a_foreign_hand_shows_as_drift() {
    let mut node = n1();
    put(&mut node, "a", &uniform(&Wanted::default(), "100ms"));
    node.kernel().tree.active = None;
    assert!(!node.status().unwrap().drift.is_empty());
}

#[test]
fn a_node_that_the_inventory_does_not_have_or_has_elsewhere_is_refused() {
    let mut node = n1();
    let wanted = uniform(&Wanted::default(), "100ms");
    let name: NodeName = "n1".parse().unwrap();

    let mut without = wanted.clone();
    without.inventory.nodes.remove(&name);
    let error = node.prepare(prepare("a", &Wanted::default(), &without)).unwrap_err();
    assert_eq!(error.code, ErrorCode::BadRequest);

    let mut elsewhere = wanted.clone();
    elsewhere.inventory.nodes.get_mut(&name).unwrap().interface = "eth0".parse().unwrap();
    let error = node.prepare(prepare("a", &Wanted::default(), &elsewhere)).unwrap_err();
    assert_eq!(error.code, ErrorCode::Refused);

    node.kernel().interface.carries_default_route = true;
    let error = node.prepare(prepare("a", &Wanted::default(), &wanted)).unwrap_err();
    assert_eq!(error.code, ErrorCode::Refused);
    assert_eq!(node.kernel().writes, 0);
}

#[test]
fn classes_that_drain_are_swept_when_they_are_empty() {
    let mut node = n1();
    let zones = |text: &str| {
        let text = format!("name = 'zones'\nzones.A = 'n[1-2]'\nzones.B = 'n3'\n[links]\n{text}\n");
        Topology::parse(Source::new("zones.toml", text)).unwrap()
    };
    let two = zones("intra-zone = { rtt = '10ms' }\ninter-zone = { rtt = '100ms' }");
    let wanted = Wanted::default().with_topology(two, inventory()).unwrap();
    put(&mut node, "a", &Wanted { generation: 1, ..wanted });
    node.kernel().tree.classes.values_mut().for_each(|leaf| leaf.queued = 1);
    let wanted = uniform(node.wanted(), "100ms");
    put(&mut node, "b", &wanted);
    assert!(node.drains());
    node.sweep().unwrap();
    assert!(node.drains(), "it still holds a packet");
    node.kernel().tree.classes.values_mut().for_each(|leaf| leaf.queued = 0);
    node.sweep().unwrap();
    assert!(!node.drains());
    assert_eq!(node.kernel().tree.classes.len(), 2, "the default class and the one in use");
}
