//! What an agent refuses, and that a refusal anywhere changes nothing anywhere.

use std::{collections::BTreeMap, fs, path::Path};

use netemctl::{
    fleet::{Access, CallError, Fleet, Phase, TransactionError},
    lab::LabDirectory,
    plan::Inventory,
    topology::{NodeName, Source, Topology},
    wire::ErrorCode,
};
use tokio_util::sync::CancellationToken;

use crate::lab::{Lab, shipped};

/// Applies the study's topology on a fleet that the inventory describes otherwise than the lab's own.
fn apply_on(inventory: Inventory) -> Result<(), BTreeMap<NodeName, CallError>> {
    let fleet = Fleet::new(inventory.clone(), Access::default());
    let interrupt = CancellationToken::new();
    let edit = fleet.edit(true, &interrupt, |wanted| wanted.with_topology(study(), inventory));
    match tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(edit) {
        Ok(_) => Ok(()),
        Err(TransactionError::Nodes { failures, left, .. }) if left.is_empty() => Err(failures),
        Err(error) => panic!("{error}"),
    }
}

fn study() -> Topology {
    let path = shipped("hierarchical-9.toml");
    let text = fs::read_to_string(&path).unwrap();
    Topology::parse(Source::new(path.display().to_string(), text)).unwrap()
}

fn inventory_of(lab: &Lab) -> Inventory {
    LabDirectory::of_user(Some(lab.directory().to_owned())).unwrap().find().unwrap().inventory()
}

#[track_caller]
fn assert_refused(result: Result<(), BTreeMap<NodeName, CallError>>, node: &str, because: &str) {
    let failures = result.unwrap_err();
    assert_eq!(failures.keys().map(NodeName::as_str).collect::<Vec<_>>(), [node]);
    match &failures[&node.parse::<NodeName>().unwrap()] {
        CallError::Refused(error) => {
            assert_eq!(error.code, ErrorCode::Refused);
            assert!(error.message.contains(because), "{error}");
        }
        other => panic!("{other}"),
    }
}

#[test]
fn an_interface_that_the_agents_config_does_not_allow_is_refused() {
    let lab = Lab::hierarchical();
    let before = lab.tc();
    let mut inventory = inventory_of(&lab);
    let place = inventory.nodes.get_mut(&"n5".parse::<NodeName>().unwrap()).unwrap();
    place.interface = "mgmt0".parse().unwrap();
    assert_refused(apply_on(inventory), "n5", "not one that this agent may touch");
    assert_eq!(lab.tc(), before, "no other node was changed either");
}

#[test]
fn an_inventory_that_is_wrong_about_an_address_is_refused() {
    let lab = Lab::hierarchical();
    let mut inventory = inventory_of(&lab);
    let place = inventory.nodes.get_mut(&"n5".parse::<NodeName>().unwrap()).unwrap();
    place.addresses = vec!["10.78.0.99".parse().unwrap()];
    assert_refused(apply_on(inventory), "n5", "10.78.0.99");
}

#[test]
fn an_interface_with_a_default_route_is_refused() {
    let lab = Lab::hierarchical();
    drop(lab.exec("n5", "ip route add default via 10.78.0.1 dev db0"));
    assert_refused(apply_on(inventory_of(&lab)), "n5", "default route");
}

#[test]
fn an_apply_that_one_agent_refuses_changes_no_node() {
    let lab = Lab::hierarchical();
    drop(lab.exec("n5", "tc qdisc add dev db0 root handle 8001: fq"));
    let before = lab.tc();
    let refused = lab.run([Path::new("apply"), &shipped("hierarchical-9.toml")]).expect(5);
    assert!(refused.stderr.contains("n5") && refused.stderr.contains("qdisc fq 8001:"), "{}", refused.stderr);
    assert_eq!(lab.tc(), before);
    // Neither does clear touch what it did not put there.
    drop(lab.netemctl("clear").expect(0));
    assert_eq!(lab.tc(), before);
}

#[test]
fn somebody_elses_ingress_hook_is_refused() {
    let lab = Lab::hierarchical();
    drop(lab.exec("n5", "tc qdisc add dev db0 clsact"));
    let before = lab.tc();
    drop(lab.run([Path::new("apply"), &shipped("hierarchical-9.toml")]).expect(5));
    assert_eq!(lab.tc(), before);
}

#[test]
fn somebody_elses_filter_among_ours_stops_every_change() {
    let lab = Lab::hierarchical();
    lab.apply(&shipped("hierarchical-9.toml"));
    drop(lab.exec("n5", "tc filter add dev db0 ingress protocol ip pref 7 matchall action pass"));
    let before = lab.tc();
    for verb in ["clear", "partition Z3"] {
        let refused = lab.netemctl(verb).expect(5);
        assert!(refused.stderr.contains("pref 7"), "{}", refused.stderr);
    }
    assert_eq!(lab.tc(), before);
    drop(lab.netemctl("status").expect(4));
}

#[test]
fn a_node_that_fails_while_all_commit_takes_every_node_back() {
    let lab = Lab::hierarchical();
    let before = lab.tc();
    let inventory = inventory_of(&lab);
    let fleet = Fleet::new(inventory.clone(), Access::default());
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
        let rehearsal = fleet
            .rehearse(true, &CancellationToken::new(), |wanted| wanted.with_topology(study(), inventory))
            .await
            .unwrap();
        assert_eq!(rehearsal.preview.nodes.len(), 9);
        // All have prepared; now one of them loses its interface.
        drop(lab.exec("n5", "ip link set db0 down"));
        drop(lab.exec("n5", "ip link set db0 name gone0"));
        match rehearsal.commit(&CancellationToken::new()).await {
            Err(TransactionError::Nodes { phase: Phase::Commit, failures, left }) => {
                assert_eq!(failures.keys().map(NodeName::as_str).collect::<Vec<_>>(), ["n5"]);
                assert!(left.is_empty(), "{left:?}");
            }
            other => panic!("{other:?}"),
        }
    });
    drop(lab.exec("n5", "ip link set gone0 name db0"));
    drop(lab.exec("n5", "ip link set db0 up"));
    assert_eq!(lab.tc(), before);
}
