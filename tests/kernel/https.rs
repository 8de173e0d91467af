//! The main job by HTTPS: the controller is a host of its own, and reaches the agents by the management network alone.

use std::{
    path::Path,
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use super::lab::{Lab, Ran, retry_while_busy, shipped};

/// How long an agent has what nobody confirms, and as long again on one CPU that all of this shares.
const GOES_BACK_WITHIN: Duration = Duration::from_secs(30);

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
    drop(retry_while_busy(|| controller(&lab, "verify --count 10 --tolerance 50")).expect(0));
    drop(controller(&lab, "partition Z3").expect(0));
    let parted = retry_while_busy(|| controller(&lab, "verify --count 10 --tolerance 50")).expect(0).stdout;
    assert!(parted.contains("cut"), "{parted}");
    assert_eq!(state(&lab)["nodes"]["n7"]["partitions"][0]["name"], "Z3");
    // Whoever is on this machine sees the same by the agents' sockets.
    assert_eq!(lab.netemctl("--json status").expect(0).json()["partitions"], state(&lab)["partitions"]);
    drop(controller(&lab, "heal").expect(0));
    drop(retry_while_busy(|| controller(&lab, "verify --count 10 --tolerance 50")).expect(0));
    assert_eq!(management(), untouched);
    drop(controller(&lab, "clear").expect(0));
    assert_eq!(lab.tc(), before);
}

/// What packets that get lost cannot do: leave nodes that differ, or something that nobody has confirmed.
#[test]
fn over_a_management_network_that_loses_three_of_ten_packets_all_nodes_change_or_none_does() {
    let lab = Lab::up_with(&shipped("uniform-3-rtt100.toml"), &["--tls"]);
    let before = lab.tc();
    let topologies = [10, 20].map(|rtt| {
        let text = format!("name = 'rtt-{rtt}'\nnodes = 'n[1-3]'\n[links]\ndefault = {{ rtt = '{rtt}ms' }}\n");
        lab.topology(&text)
    });
    drop(controller(&lab, &format!("apply {}", topologies[0].display())).expect(0));
    // On their way there, and on their way back.
    let on_all = |line: &str| ["controller", "n1", "n2", "n3"].iter().for_each(|host| drop(lab.exec(host, line)));
    on_all("tc qdisc add dev mgmt0 root netem loss 30%");
    let (mut has, mut made) = (0, 0);
    for attempt in 1.. {
        let other = 1 - has;
        let ran = controller(&lab, &format!("--json apply {}", topologies[other].display()));
        match ran.code {
            Some(0) => (has, made) = (other, made + 1),
            Some(1 | 6) => {}
            code => panic!("{code:?}: {}{}", ran.stdout, ran.stderr),
        }
        // The agents' own sockets lose nothing. What was not confirmed goes back by itself.
        let name = format!("rtt-{}", 10 * (has + 1));
        let deadline = Instant::now() + GOES_BACK_WITHIN;
        loop {
            let status = lab.netemctl("--json status").json();
            let has_it = |node: &Value| node["topology"] == *name && node["unconfirmed_s"].is_null();
            if status["ok"] == true && ["n1", "n2", "n3"].iter().all(|node| has_it(&status["nodes"][node])) {
                break;
            }
            assert!(Instant::now() < deadline, "{name} after {}{}: {status}", ran.stdout, ran.stderr);
            thread::sleep(Duration::from_millis(500));
        }
        // About half of them get through.
        if made == 2 {
            break;
        }
        assert!(attempt < 20, "{made} of {attempt} got through");
    }
    on_all("tc qdisc del dev mgmt0 root");
    drop(controller(&lab, "clear").expect(0));
    assert_eq!(lab.tc(), before);
}

/// An agent would refuse the change that `inventory check` tries. That says nothing of the node.
#[test]
fn inventory_check_by_a_viewers_certificate_says_that_it_tried_no_change() {
    let lab = Lab::up_with(&shipped("uniform-3-rtt100.toml"), &["--tls"]);
    let store = lab.directory().join("pki");
    drop(lab.netemctl(&format!("pki issue --viewer --dir {}", store.display())).expect(0));
    let check = format!("--tls-dir {} inventory check", store.join("viewer").display());
    let checked = controller(&lab, &format!("--json {check}")).expect(0).json();
    assert_eq!(checked["ok"], true, "{checked}");
    assert_eq!(checked["nodes"]["n1"]["state"], "ok", "{checked}");
    let said = controller(&lab, &check).expect(0).stdout;
    assert!(said.contains("\nno dry run: the certificate is a viewer's, which may only read"), "{said}");
    // A controller's certificate does try.
    assert_eq!(controller(&lab, "--json inventory check").expect(0).json()["untried"], Value::Null);
}
