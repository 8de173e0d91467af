//! The main commands by HTTPS, from a controller on a separate host that reaches agents only by the management network.

use std::{
    path::Path,
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use super::lab::{Lab, Ran, retry_while_busy, shipped};

/// An unconfirmed change is rolled back within this time: the lease of 15 s, and 15 s for a busy CPU.
const ROLLED_BACK_WITHIN: Duration = Duration::from_secs(30);

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
fn apply_verify_partition_heal_and_clear_work_by_https_from_another_host() {
    let lab = Lab::up_with(&shipped("hierarchical-9.toml"), &["--tls"]);
    let topology = shipped("hierarchical-9.toml");
    let topology = topology.to_str().unwrap();
    let management = || (1..=9).map(|n| lab.exec(&format!("n{n}"), "tc qdisc show dev mgmt0")).collect::<Vec<_>>();
    let (before, untouched) = (lab.tc(), management());

    let applied = controller(&lab, &format!("--json apply {topology}")).expect(0).json();
    assert_eq!((&applied["changed"], &applied["nodes"]), (&Value::Bool(true), &Value::from(9)), "{applied}");
    let again = controller(&lab, &format!("--json apply {topology}")).expect(0).json();
    assert_eq!(again["changed"], false, "{again}");
    drop(retry_while_busy(|| controller(&lab, "verify --count 10 --tolerance 50")).expect(0));
    drop(controller(&lab, "partition Z3").expect(0));
    let parted = retry_while_busy(|| controller(&lab, "verify --count 10 --tolerance 50")).expect(0).stdout;
    assert!(parted.contains("cut"), "{parted}");
    assert_eq!(state(&lab)["nodes"]["n7"]["partitions"][0]["name"], "Z3");
    // A command on this machine shows the same by the agents' Unix sockets.
    assert_eq!(lab.netemctl("--json status").expect(0).json()["partitions"], state(&lab)["partitions"]);
    drop(controller(&lab, "heal").expect(0));
    drop(retry_while_busy(|| controller(&lab, "verify --count 10 --tolerance 50")).expect(0));
    assert_eq!(management(), untouched);
    drop(controller(&lab, "clear").expect(0));
    assert_eq!(lab.tc(), before);
}

/// Packet loss leaves neither nodes with different states nor an unconfirmed change.
#[test]
fn over_a_management_network_that_loses_three_of_ten_packets_all_nodes_change_or_none_does() {
    let lab = Lab::up_with(&shipped("uniform-3-rtt100.toml"), &["--tls"]);
    let before = lab.tc();
    let topologies = [10, 20].map(|rtt| {
        let text = format!("name = 'rtt-{rtt}'\nnodes = 'n[1-3]'\n[links]\ndefault = {{ rtt = '{rtt}ms' }}\n");
        lab.topology(&text)
    });
    drop(controller(&lab, &format!("apply {}", topologies[0].display())).expect(0));
    // The controller's packets and the agents' replies are lost.
    let on_all = |line: &str| ["controller", "n1", "n2", "n3"].iter().for_each(|host| drop(lab.exec(host, line)));
    on_all("tc qdisc add dev mgmt0 root netem loss 30%");
    let (mut current, mut successes) = (0, 0);
    for attempt in 1.. {
        let other = 1 - current;
        let ran = controller(&lab, &format!("--json apply {}", topologies[other].display()));
        match ran.code {
            Some(0) => (current, successes) = (other, successes + 1),
            Some(1 | 6) => {}
            code => panic!("{code:?}: {}{}", ran.stdout, ran.stderr),
        }
        // The agents' Unix sockets lose nothing. An unconfirmed change is rolled back by itself.
        let name = format!("rtt-{}", 10 * (current + 1));
        let deadline = Instant::now() + ROLLED_BACK_WITHIN;
        loop {
            let status = lab.netemctl("--json status").json();
            let has_it = |node: &Value| node["topology"] == *name && node["unconfirmed_s"].is_null();
            if status["ok"] == true && ["n1", "n2", "n3"].iter().all(|node| has_it(&status["nodes"][node])) {
                break;
            }
            assert!(
                Instant::now() < deadline,
                "the nodes do not have {name} after {}{}: {status}",
                ran.stdout,
                ran.stderr
            );
            thread::sleep(Duration::from_millis(500));
        }
        // About half of the applies succeed.
        if successes == 2 {
            break;
        }
        assert!(attempt < 20, "{successes} of {attempt} applies succeeded");
    }
    on_all("tc qdisc del dev mgmt0 root");
    drop(controller(&lab, "clear").expect(0));
    assert_eq!(lab.tc(), before);
}

/// Agents would refuse a viewer's dry run. So `inventory check` makes none, and does not report the nodes as faulty.
#[test]
fn inventory_check_by_a_viewers_certificate_says_that_it_tried_no_change() {
    let lab = Lab::up_with(&shipped("uniform-3-rtt100.toml"), &["--tls"]);
    let store = lab.directory().join("pki");
    drop(lab.netemctl(&format!("pki issue --viewer --dir {}", store.display())).expect(0));
    let check = format!("--tls-dir {} inventory check", store.join("viewer").display());
    let checked = controller(&lab, &format!("--json {check}")).expect(0).json();
    assert_eq!(checked["ok"], true, "{checked}");
    assert_eq!(checked["nodes"]["n1"]["state"], "ok", "{checked}");
    let output = controller(&lab, &check).expect(0).stdout;
    assert!(output.contains("\nno dry run: a viewer's certificate is read-only"), "{output}");
    // With a controller's certificate, the check makes a dry run.
    assert_eq!(controller(&lab, "--json inventory check").expect(0).json()["untried"], Value::Null);
}
