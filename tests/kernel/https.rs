//! The main job by HTTPS: the controller is a host of its own, and reaches the agents by the management network alone.

use std::path::Path;

use serde_json::Value;

use super::lab::{Lab, Ran, shipped};

/// Runs netemctl on the controller host.
fn controller(lab: &Lab, line: &str) -> Ran {
    let words = line.split(' ').map(Path::new);
    lab.run(["lab", "exec", "controller", "--", env!("CARGO_BIN_EXE_netemctl")].map(Path::new).into_iter().chain(words))
}

#[track_caller]
fn state(lab: &Lab) -> Value {
    controller(lab, "--json status").expect(0).json()
}

#[test]
fn the_whole_main_job_is_done_by_https_from_another_host() {
    let lab = Lab::up_with(&shipped("hierarchical-9.toml"), &["--tls"]);
    let topology = shipped("hierarchical-9.toml");
    let topology = topology.to_str().unwrap();
    let management = || (1..=9).map(|n| lab.exec(&format!("n{n}"), "tc qdisc show dev mgmt0")).collect::<Vec<_>>();
    let (before, untouched) = (lab.tc(), management());

    let applied = controller(&lab, &format!("--json apply {topology}")).expect(0).json();
    assert_eq!((&applied["changed"], &applied["nodes"]), (&Value::Bool(true), &Value::from(9)), "{applied}");
    let again = controller(&lab, &format!("--json apply {topology}")).expect(0).json();
    assert_eq!(again["changed"], false, "{again}");
    drop(controller(&lab, "verify --count 10 --tolerance 50").expect(0));
    drop(controller(&lab, "partition Z3").expect(0));
    let parted = controller(&lab, "verify --count 10 --tolerance 50").expect(0).stdout;
    assert!(parted.contains("cut"), "{parted}");
    assert_eq!(state(&lab)["nodes"]["n7"]["partitions"][0]["name"], "Z3");
    // Whoever is on this machine sees the same by the agents' sockets.
    assert_eq!(lab.netemctl("--json status").expect(0).json()["partitions"], state(&lab)["partitions"]);
    drop(controller(&lab, "heal").expect(0));
    drop(controller(&lab, "verify --count 10 --tolerance 50").expect(0));
    assert_eq!(management(), untouched);
    drop(controller(&lab, "clear").expect(0));
    assert_eq!(lab.tc(), before);
}
