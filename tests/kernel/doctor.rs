//! `doctor` on a kernel that can shape: a healthy lab has no problem, and each problem that a test makes is named.

use std::fs;

use serde_json::Value;

use crate::{
    lab::{Lab, shipped},
    sshd::Hosts,
};

/// Links whose rate needs 1.25 MB in flight.
const RATED: &str = "name = 'rated'\nnodes = 'n[1-3]'\n[links]\ndefault = { rtt = '100ms', rate = '100mbit' }\n";

/// The problems of all nodes, as `node check: text`.
fn problems(document: &Value) -> Vec<String> {
    let nodes = document["nodes"].as_object().unwrap();
    let of_node = |(node, examined): (&String, &Value)| {
        let findings = examined["findings"].as_array().unwrap().clone();
        let problems = findings.into_iter().filter(|finding| finding["level"] == "problem");
        let node = node.clone();
        problems.map(move |problem| {
            assert!(problem["effect"].is_string() && problem["remedy"].is_string(), "{problem}");
            format!("{node} {}: {}", problem["check"].as_str().unwrap(), problem["text"].as_str().unwrap())
        })
    };
    nodes.iter().flat_map(of_node).collect()
}

#[test]
fn a_healthy_lab_has_no_problem_before_and_after_apply() {
    let lab = Lab::up(&shipped("hierarchical-9.toml"));
    let file = shipped("hierarchical-9.toml").display().to_string();
    let document = lab.netemctl(&format!("--json doctor --all --topology {file}")).expect(0).json();
    assert_eq!(problems(&document), [""; 0], "{document:#}");
    // No fact of the shaped interface is unknown, except the driver, which virtual interfaces do not have.
    let interface = &document["nodes"]["n1"]["facts"]["interfaces"]["db0"]["known"];
    for fact in ["speed_mbit", "tx_queues", "features", "foreign"] {
        assert!(!interface[fact]["known"].is_null(), "{fact}: {interface:#}");
    }
    lab.apply(&shipped("hierarchical-9.toml"));
    let tree = lab.tc();
    let document = lab.netemctl("--json doctor").expect(0).json();
    assert_eq!(problems(&document), [""; 0], "{document:#}");
    assert_eq!(document["topology"], "hierarchical-9", "doctor compares with what is in force");
    assert_eq!(lab.tc(), tree, "doctor writes nothing");
}

#[test]
fn each_problem_is_named_with_its_node_and_the_command_that_mends_it() {
    let lab = Lab::up(&shipped("uniform-3-rtt100.toml"));
    let rated = lab.topology(RATED).display().to_string();
    drop(lab.netemctl(&format!("doctor --topology {rated}")).expect(0));
    drop(lab.exec("n1", "ip link set db0 down"));
    drop(lab.exec("n2", "tc qdisc add dev db0 root handle 8001: netem delay 1ms"));
    let set = ["lab", "exec", "n3", "--", "sysctl", "-qw", "net.ipv4.tcp_rmem=4096 65536 131072"];
    drop(lab.run(set).expect(0));
    let limit = "/proc/sys/net/ipv4/neigh/default/gc_thresh3";
    let before = fs::read_to_string(limit).unwrap();
    fs::write(limit, "1").unwrap();
    let document = lab.netemctl(&format!("--json doctor --topology {rated}")).expect(4).json();
    fs::write(limit, before.trim()).unwrap();
    let found = problems(&document);
    let arp = |node: &str| format!("{node} neighbours: the ARP table has room for 1 neighbours; the node has 2");
    for expected in [
        "n1 interface: interface db0 is down",
        "n2 qdiscs: interface db0 has objects of other programs: ",
        "n3 tcp-rmem: tcp_rmem limits one TCP connection to ",
        &arp("n2"),
        &arp("n3"),
    ] {
        let count = found.iter().filter(|problem| problem.starts_with(expected)).count();
        assert_eq!(count, 1, "{expected}: {found:#?}");
    }

    // The remedies mend.
    let remedy = |node: &str, check: &str| {
        let findings = document["nodes"][node]["findings"].as_array().unwrap();
        let finding = findings.iter().find(|finding| finding["check"] == check && finding["level"] == "problem");
        finding.unwrap()["remedy"].as_str().unwrap().to_owned()
    };
    for (node, check) in [("n1", "interface"), ("n2", "qdiscs"), ("n3", "tcp-rmem")] {
        let ran = lab.run(["lab", "exec", node, "--", "sh", "-c", &remedy(node, check)]);
        drop(ran.expect(0));
    }
    // The kernel has removed the IPv6 addresses of the interface that was down.
    let told = lab.netemctl("doctor").expect(4);
    assert!(told.stdout.contains("problem n1: interface db0 lacks fd78::1 of the inventory"), "{}", told.stdout);
    drop(lab.exec("n1", "ip address add fd78::1/64 dev db0 nodad"));
    let told = lab.netemctl(&format!("doctor --topology {rated}")).expect(0);
    assert!(told.stdout.contains("0 problems, "), "{}", told.stdout);
}

#[test]
fn doctor_without_an_agent_names_the_default_route_of_an_interface() {
    let lab = Lab::up(&shipped("uniform-3-rtt100.toml"));
    drop(lab.exec("n1", "ip route add default via 10.78.0.2"));
    let here = lab.run(["lab", "exec", "n1", "--", env!("CARGO_BIN_EXE_netemctl"), "doctor", "--interface", "db0"]);
    let here = here.expect(4);
    assert!(here.stdout.contains(": interface db0 carries a default route\n"), "{}", here.stdout);
    let told = lab.netemctl("doctor").expect(4);
    assert!(told.stdout.contains("problem n1: interface db0 carries a default route\n"), "{}", told.stdout);
}

#[test]
fn doctor_examines_hosts_by_https_and_by_ssh_and_leaves_nothing_behind() {
    let lab = Lab::up_with(&shipped("uniform-3-rtt100.toml"), &["--tls"]);
    let words = ["lab", "exec", "controller", "--", env!("CARGO_BIN_EXE_netemctl"), "--json", "doctor", "--all"];
    let by_https = lab.run(words).expect(0).json();
    assert_eq!(problems(&by_https), [""; 0], "{by_https:#}");
    assert_eq!(by_https["nodes"].as_object().unwrap().len(), 3);
    drop(lab);

    let hosts = Hosts::up(&shipped("uniform-3-rtt100.toml"), true);
    let by_ssh = hosts.netemctl("--json doctor --all").expect(0).json();
    assert_eq!(problems(&by_ssh), [""; 0], "{by_ssh:#}");
    for node in ["n1", "n2", "n3"] {
        assert!(by_ssh["nodes"][node]["facts"]["interfaces"]["db0"]["known"].is_object(), "{by_ssh:#}");
        hosts.wait_until_clean(node);
    }
}
