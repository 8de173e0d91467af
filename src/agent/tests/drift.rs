//! Tests of drift: the agent reports changes of other programs at once, and repairs them if the config says so.

use std::sync::Arc;

use super::*;
use crate::{
    kernel::{Event, Kernel},
    plan::{ForeignObject, Step, Timing, Tree, Within},
};

fn node(on_drift: OnDrift) -> Node<FakeKernel> {
    let config = Config { on_drift, ..config(None) };
    Node::with_sandbox(config, clear_kernel(), clear_kernel(), "boot", now()).unwrap()
}

/// A node with a topology in force.
fn shaped(on_drift: OnDrift) -> Node<FakeKernel> {
    let mut node = node(on_drift);
    put(&mut node, "a", &uniform(&Wanted::default(), "100ms"));
    node
}

/// Another program deactivates the agent's chain of filters, and the kernel sends an event.
fn disturb(node: &mut Node<FakeKernel>) {
    node.kernel().tree.egress.active = None;
    node.kernel().events.push(Event::Shaping { index: 2 });
}

/// Deletes the interface, and creates it again with another index and without an address.
fn recreate_interface(node: &mut Node<FakeKernel>) {
    let kernel = node.kernel();
    kernel.tree = Tree::default();
    kernel.interface.index = 12;
    kernel.interface.addresses.clear();
    let name = "db0".to_owned();
    kernel.events.extend([Event::Gone { index: 2 }, Event::Link { index: 12, name, is_up: true, has_carrier: true }]);
}

fn incidents(node: &mut Node<FakeKernel>, now: Now) -> Vec<String> {
    node.status(now).unwrap().watch.incidents.into_iter().map(|incident| incident.what).collect()
}

#[test]
fn on_drift_report_shows_the_start_of_drift_and_writes_nothing() {
    let mut node = shaped(OnDrift::Report);
    disturb(&mut node);
    let (start, writes) = (now(), node.kernel().writes);
    let status = node.status(start + SECOND).unwrap();
    assert!(!status.drift.is_empty());
    assert_eq!(status.watch.since, Some((start + SECOND).wall.to_string()));
    for second in 1..300 {
        node.tick(start + second * SECOND).unwrap();
    }
    assert_eq!(node.status(start + 300 * SECOND).unwrap().watch.since, Some((start + SECOND).wall.to_string()));
    assert_eq!(node.kernel().writes, writes);
    // A change by a controller ends the drift.
    let document = Wanted { generation: 5, ..wanted_of(&node) };
    put(&mut node, "b", &document);
    assert_eq!((node.status(now()).unwrap().drift, incidents(&mut node, now())), (vec![], vec![]));
}

#[test]
fn on_drift_repair_repairs_at_once_and_reports_it() {
    let mut node = shaped(OnDrift::Repair);
    let before = node.kernel().tree.clone();
    disturb(&mut node);
    node.tick(now() + SECOND).unwrap();
    assert_eq!(node.kernel().tree, before);
    let status = node.status(now() + SECOND).unwrap();
    assert_eq!((status.drift, status.watch.since, status.watch.repairs), (vec![], None, 1));
    let told = incidents(&mut node, now());
    assert!(told[0].starts_with("the kernel no longer") && told[1].starts_with("repaired in 3 steps"), "{told:?}");
}

/// Together with a root qdisc, the kernel deletes its classes and filters. The qdisc clsact and its cuts stay.
#[test]
fn a_deleted_root_qdisc_is_repaired_and_a_clear_removes_the_other_objects() {
    for on_drift in [OnDrift::Report, OnDrift::Repair] {
        let mut node = shaped(on_drift);
        let wanted = parted(&wanted_of(&node), "n2", None);
        put(&mut node, "b", &wanted);
        let before = node.kernel().tree.shaping();
        let interface = node.kernel().interface.clone();
        node.kernel().perform(&interface, &Step::RemoveRoot).unwrap();
        assert!(node.kernel().tree.hook && node.kernel().tree.cuts().count() > 0);
        node.kernel().events.push(Event::Shaping { index: 2 });
        node.tick(now()).unwrap();
        assert_eq!(node.kernel().tree.shaping() == before, on_drift == OnDrift::Repair);
        let cleared = Wanted { generation: 9, ..wanted.cleared(inventory()).unwrap() };
        put(&mut node, "c", &cleared);
        assert_eq!(node.kernel().tree, Tree::default());
    }
}

#[test]
fn repairs_that_are_undone_are_not_repeated_in_a_tight_loop() {
    let mut node = shaped(OnDrift::Repair);
    let writes = node.kernel().writes;
    for tick in 0..5 * 60 {
        disturb(&mut node);
        node.tick(now() + tick * Duration::from_millis(200)).unwrap();
    }
    let repairs = node.status(now() + 60 * SECOND).unwrap().watch.repairs;
    assert_eq!((repairs, node.kernel().writes - writes), (6, 6 * 3), "repairs and writes in a minute");
    // The next repair needs no further event.
    node.tick(now() + 63 * SECOND).unwrap();
    assert!(node.status(now() + 64 * SECOND).unwrap().drift.is_empty());
}

#[test]
fn the_agents_own_writes_are_no_drift() {
    let mut node = shaped(OnDrift::Repair);
    let timing = Timing { begins: now().wall, lasts: Some(SECOND), flap: None };
    let wanted = parted(&wanted_of(&node), "n2", Some(timing));
    put(&mut node, "b", &wanted);
    for second in 0..5 {
        node.kernel().events.push(Event::Lost);
        node.tick(now() + second * SECOND).unwrap();
    }
    assert_eq!(node.status(now() + 5 * SECOND).unwrap().watch.repairs, 0);
    assert_eq!(incidents(&mut node, now() + 5 * SECOND), [""; 0]);
}

#[test]
fn with_on_drift_repair_a_replaced_interface_is_repaired_when_it_has_its_address() {
    for on_drift in [OnDrift::Report, OnDrift::Repair] {
        let mut node = shaped(on_drift);
        let (before, writes) = (node.kernel().tree.clone(), node.kernel().writes);
        recreate_interface(&mut node);
        node.tick(now()).unwrap();
        let status = node.status(now()).unwrap();
        assert!(
            status
                .drift
                .contains(&"interface db0 lacks 10.0.0.1; add it: ip address add 10.0.0.1/PREFIX dev db0".to_owned()),
            "{:?}",
            status.drift
        );
        assert_eq!(node.kernel().writes, writes, "an interface without the address is not changed");
        let told = incidents(&mut node, now());
        assert_eq!(told[..2], ["interface db0 was deleted", "interface db0 was replaced by a new one"]);

        node.kernel().interface.addresses = vec![address(1)];
        node.kernel().events.push(Event::Address { index: 12 });
        node.tick(now()).unwrap();
        let repaired = on_drift == OnDrift::Repair;
        assert_eq!(node.kernel().tree == before, repaired);
        assert_eq!(node.kernel().writes == writes, !repaired);
        assert_eq!(node.status(now()).unwrap().drift.is_empty(), repaired);
    }
}

#[test]
fn a_deleted_interface_is_drift_and_timed_changes_end_without_it() {
    let mut node = shaped(OnDrift::Report);
    let wanted = delayed(&wanted_of(&node), "80ms", Some(10 * SECOND));
    put(&mut node, "b", &wanted);
    recreate_interface(&mut node);
    node.kernel().is_gone = true;
    let status = node.status(now()).unwrap();
    assert_eq!(status.drift, ["create interface db0 again, with its addresses: it is gone"]);
    assert_eq!((status.interface.as_str(), status.profiles.len()), ("db0", 0));
    let writes = node.kernel().writes;
    assert_eq!(node.tick(now() + 10 * SECOND).unwrap(), None);
    node.kernel().is_gone = false;
    node.tick(now() + 20 * SECOND).unwrap();
    assert!(node.status(now() + 20 * SECOND).unwrap().overlays.is_empty());
    assert_eq!(node.kernel().writes, writes, "an end writes nothing to a new interface");
    // A rollback of the change succeeds and writes nothing.
    node.rollback(&rollback("b"), now() + 21 * SECOND).unwrap();
    assert_eq!(node.kernel().writes, writes);
}

#[test]
fn a_link_that_went_down_and_up_is_an_incident() {
    let mut node = shaped(OnDrift::Repair);
    let mut link = |is_up| {
        let event = Event::Link { index: 2, name: "db0".to_owned(), is_up, has_carrier: is_up };
        node.kernel().events.push(event);
        node.kernel().interface.is_up = is_up;
        node.tick(now()).unwrap();
        let status = node.status(now()).unwrap();
        (status.drift, incidents(&mut node, now()).len())
    };
    assert_eq!(link(false), (vec!["set interface db0 up (ip link set db0 up)".to_owned()], 2));
    assert_eq!(link(true), (vec![], 4));
    assert_eq!(node.status(now()).unwrap().watch.repairs, 0, "the agent cannot set a link up");
}

#[test]
fn a_missing_carrier_is_a_warning_at_prepare_and_no_drift() {
    let mut node = node(OnDrift::Report);
    node.kernel().interface.has_carrier = false;
    let document = uniform(&Wanted::default(), "100ms");
    let prepared = node.prepare(prepare("a", &Wanted::default(), &document), now()).unwrap();
    let warning = "interface db0 has no carrier: no packet passes until it is connected";
    assert_eq!(prepared.warnings, [warning]);
    node.commit(&commit("a"), &now).unwrap();
    let status = node.status(now()).unwrap();
    assert_eq!((status.drift, status.warnings), (vec![], vec![warning.to_owned()]));
}

#[test]
fn a_link_that_is_down_is_a_warning_at_prepare_and_drift_afterwards() {
    let mut node = node(OnDrift::Report);
    node.kernel().interface.is_up = false;
    let document = uniform(&Wanted::default(), "100ms");
    let prepared = node.prepare(prepare("a", &Wanted::default(), &document), now()).unwrap();
    node.commit(&commit("a"), &now).unwrap();
    assert_eq!(prepared.warnings, node.status(now()).unwrap().drift);
}

#[test]
fn nothing_is_repaired_while_the_kernel_does_not_answer() {
    let mut node = shaped(OnDrift::Repair);
    let writes = node.kernel().writes;
    node.kernel().observe_fails = true;
    node.kernel().tree.egress.active = None;
    node.kernel().events.push(Event::Lost);
    node.tick(now()).unwrap();
    assert!(node.status(now()).is_err());
    assert_eq!(node.kernel().writes, writes);
    node.kernel().observe_fails = false;
    node.tick(now() + SECOND).unwrap();
    let status = node.status(now() + SECOND).unwrap();
    assert_eq!((status.drift, status.watch.repairs, status.watch.obstacle), (vec![], 1, None));
}

fn foreign(what: &str) -> ForeignObject {
    ForeignObject {
        what: what.to_owned(),
        remove: format!("tc del {what}"),
        within: Some(Within::Hook { chain: None }),
    }
}

#[test]
fn foreign_objects_stop_neither_the_end_of_a_partition_nor_a_heal_nor_a_clear() {
    let mut node = n1();
    let start = now();
    let lasts = Timing { begins: start.wall, lasts: Some(10 * SECOND), flap: None };
    put_at(&mut node, "a", &uniform(&Wanted::default(), "100ms"), start);
    let base = wanted_of(&node);
    put_at(&mut node, "b", &parted(&base, "n2", Some(lasts)), start);
    let parted_twice = parted(&wanted_of(&node), "n3", None);
    put_at(&mut node, "c", &parted_twice, start);
    let object = foreign("filter pref 7");
    node.kernel().tree.foreign.push(object.clone());
    assert_eq!(node.kernel().tree.cuts().count(), 4);
    node.tick(start + 10 * SECOND).unwrap();
    assert_eq!(node.kernel().tree.cuts().count(), 2, "the first partition is over");

    // A change that adds is refused. The refusal has the command that removes the foreign object.
    let before = wanted_of(&node);
    let refused = node.prepare(prepare("d", &before, &uniform(&before, "300ms")), start + 11 * SECOND).unwrap_err();
    assert_eq!(refused.code, ErrorCode::Refused);
    assert!(refused.message.contains("filter pref 7; remove them on the node: tc del filter pref 7"), "{refused}");
    let healed = Wanted { partitions: Vec::new(), generation: before.generation + 1, ..before };
    put_at(&mut node, "e", &healed, start + 11 * SECOND);
    assert_eq!(node.kernel().tree.cuts().count(), 0);

    let cleared = Wanted { topology: None, generation: healed.generation + 1, ..healed.clone() };
    let prepared = node.prepare(prepare("f", &healed, &cleared), start + 12 * SECOND).unwrap();
    assert!(prepared.warnings[0].contains("the qdisc clsact stays on db0"), "{:?}", prepared.warnings);
    node.commit(&commit("f"), &|| start + 12 * SECOND).unwrap();
    node.confirm(&confirm("f"), start + 12 * SECOND).unwrap();
    let foreign = vec![object];
    assert_eq!(node.kernel().tree, Tree { hook: true, foreign, ..Tree::default() });
}

#[test]
fn a_repair_never_removes_foreign_objects() {
    let mut node = shaped(OnDrift::Repair);
    disturb(&mut node);
    node.kernel().tree.foreign.push(foreign("filter pref 7"));
    let writes = node.kernel().writes;
    node.tick(now()).unwrap();
    let status = node.status(now()).unwrap();
    assert!(status.watch.obstacle.unwrap().contains("filter pref 7"));
    assert_eq!((status.watch.repairs, node.kernel().writes), (0, writes));
    node.kernel().tree.foreign.clear();
    node.tick(now() + SECOND).unwrap();
    assert!(node.status(now() + SECOND).unwrap().drift.is_empty());
}

#[test]
fn nothing_is_repaired_while_a_change_waits_for_its_commit_time() {
    let mut node = shaped(OnDrift::Repair);
    let base = wanted_of(&node);
    node.prepare(prepare("b", &base, &parted(&base, "n2", None)), now()).unwrap();
    node.make_ready(&commit("b"), now()).unwrap();
    disturb(&mut node);
    let writes = node.kernel().writes;
    node.tick(now()).unwrap();
    assert_eq!(node.kernel().writes, writes);
    node.rollback(&rollback("b"), now()).unwrap();
    node.tick(now() + SECOND).unwrap();
    assert!(node.status(now() + SECOND).unwrap().drift.is_empty());
}

/// Partitions do not cut packets to an unnamed address, such as a virtual address or a new lease.
#[test]
fn an_address_added_after_the_commit_is_drift_until_the_document_names_it() {
    let mut node = node(OnDrift::Repair);
    let known: IpAddr = "192.0.2.1".parse().unwrap();
    node.kernel().interface.addresses.push(known);
    let document = uniform(&Wanted::default(), "100ms");
    put(&mut node, "a", &document);
    assert_eq!(node.status(now()).unwrap().drift, [""; 0], "the interface had the address at the commit");

    let add = |node: &mut Node<FakeKernel>, address: &str| {
        node.kernel().interface.addresses.push(address.parse().unwrap());
        node.kernel().events.push(Event::Address { index: 2 });
    };
    add(&mut node, "fe80::7");
    node.kernel().interface.tentative.insert("2001:db8::7".parse().unwrap());
    add(&mut node, "2001:db8::7");
    assert_eq!(node.status(now()).unwrap().drift, [""; 0]);
    node.kernel().interface.tentative.clear();
    add(&mut node, "10.0.0.77");
    let writes = node.kernel().writes;
    node.tick(now() + SECOND).unwrap();
    let status = node.status(now() + SECOND).unwrap();
    assert_eq!(status.drift.len(), 2, "{:?}", status.drift);
    assert!(
        status.drift[0].starts_with("apply again: address 10.0.0.77 of interface db0 is new"),
        "{:?}",
        status.drift
    );
    assert!(status.watch.since.is_some() && status.watch.repairs == 0);
    assert_eq!(node.kernel().writes, writes, "the agent cannot repair a new address");

    let partition = parted(&document, "n2", None);
    put(&mut node, "b", &partition);
    assert_eq!(node.status(now()).unwrap().drift.len(), 2, "another change does not accept the address");
    let mut named = Wanted { generation: 9, ..partition };
    let place = Arc::make_mut(&mut named.inventory).nodes.get_mut(&node_name()).unwrap();
    place.addresses.extend(["2001:db8::7", "10.0.0.77"].map(|address| address.parse::<IpAddr>().unwrap()));
    put(&mut node, "c", &named);
    assert_eq!(node.status(now()).unwrap().drift, [""; 0]);
}

fn node_name() -> NodeName {
    "n1".parse().unwrap()
}
