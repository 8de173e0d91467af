//! `doctor` in a lab, and on this host without an agent.

use serde_json::Value;

use super::{
    change::kernel_can_shape,
    harness::{Lab, Sandbox},
};

/// The findings of a node with this level, in the order of the answer.
fn findings<'a>(document: &'a Value, node: &str, level: &str) -> Vec<&'a Value> {
    let all = document["nodes"][node]["findings"].as_array().expect("a node has findings");
    all.iter().filter(|finding| finding["level"] == level).collect()
}

#[test]
fn a_lab_has_no_problem_except_a_kernel_that_cannot_shape_and_equal_findings_are_one_line() {
    let lab = Lab::up("uniform-3-rtt100");
    let before = lab.in_force();
    let code = if kernel_can_shape() { 0 } else { 7 };
    let told = lab.run(["doctor", "--topology", "uniform-3-rtt100.toml"]).ended(code);
    let document = lab.run(["doctor", "--json", "--all"]).ended(code).json();
    assert_eq!(lab.in_force(), before, "doctor changes nothing");
    let problems = findings(&document, "n2", "problem");
    if code == 0 {
        assert_eq!(problems, [&Value::Null; 0], "{document:#}");
        assert_eq!(document["ok"], true);
    } else {
        assert_eq!(problems.len(), 1, "{problems:#?}");
        assert_eq!(problems[0]["check"], "shaping");
        assert_eq!(told.stdout.matches("problem n[1-3]: ").count(), 1, "{told}");
    }
    // The default buffers of TCP are too small for 10 Gbit/s at 100 ms.
    assert_eq!(told.stdout.matches("note n[1-3]: tcp_rmem limits one TCP connection to ").count(), 1, "{told}");
    assert!(told.stdout.contains("\n  fix: sysctl -w net.ipv4.tcp_rmem='"), "{told}");
    assert!(!told.stdout.contains("\nok "), "{told}");
    assert!(told.stdout.ends_with("on 3 nodes, compared with topology uniform-3-rtt100\n"), "{told}");
    let ok = findings(&document, "n1", "ok");
    assert!(ok.iter().any(|finding| finding["check"] == "interface"), "{ok:#?}");
    assert_eq!(document["nodes"]["n3"]["facts"]["interfaces"]["db0"]["known"]["mtu"], 1_500);
    assert!(document["topology"].is_null(), "nothing is in force");
}

#[test]
fn an_interface_that_is_down_is_a_problem_of_its_node_and_a_dead_agent_is_an_error() {
    let lab = Lab::up("uniform-3-rtt100");
    let _down = lab.run(["lab", "exec", "n2", "--", "ip", "link", "set", "db0", "down"]).ended(0);
    lab.sandbox.kill(lab.sandbox.agent("n3"));
    let told = lab.run(["doctor"]);
    // The kernel of this host decides between 6 and 7.
    assert!([6, 7].contains(&told.code()), "{told}");
    assert!(told.stdout.contains("problem n2: interface db0 is down\n"), "{told}");
    assert!(told.stdout.contains("\n  fix: ip link set db0 up\n"), "{told}");
    assert!(told.stdout.starts_with("n3: no agent"), "{told}");
    let unknown = lab.sandbox.topology("uniform-9-rtt100");
    let refused = lab.run(["doctor", "--topology", &unknown]).ended(2);
    assert!(refused.stderr.contains("the topology's nodes n[4-9] do not exist"), "{refused}");
}

#[test]
fn a_node_that_does_not_match_the_inventory_is_a_problem() {
    let lab = Lab::up("uniform-3-rtt0");
    let socket = lab.sandbox.lab_directory().join("nodes/{node}/agent.sock").display().to_string();
    let defaults = format!("[defaults]\ntransport = 'unix'\nsocket = '{socket}'\n");
    lab.sandbox.write("wrong.toml", defaults + "interface = 'nosuch0'\n[nodes]\n'n[1-3]' = {}\n");
    let told = lab.run(["--inventory", "wrong.toml", "doctor"]);
    assert!([4, 7].contains(&told.code()), "{told}");
    assert!(told.stdout.contains("problem n1: the host has no interface nosuch0; found: "), "{told}");
}

#[test]
fn without_an_inventory_and_a_lab_this_host_is_examined() {
    let sandbox = Sandbox::new();
    let file = sandbox.topology("hierarchical-9");
    let document = sandbox.run(["doctor", "--json", "--all"]).json();
    assert!(document["inventory"].is_null(), "{document:#}");
    let nodes = document["nodes"].as_object().expect("the nodes");
    assert_eq!(nodes.len(), 1);
    let (node, examined) = nodes.iter().next().expect("one");
    assert!(examined["facts"]["kernel"]["release"].is_string(), "{examined:#}");
    let told = sandbox.run(["doctor", "--interface", "nosuch0", "--topology", &file]);
    assert!([4, 7, 8].contains(&told.code()), "{told}");
    assert!(told.stdout.contains(&format!("problem {node}: interface nosuch0 does not exist\n")), "{told}");
    assert!(told.stdout.contains("compared with topology hierarchical-9\n"), "{told}");
}

#[test]
fn lab_up_warns_of_a_kernel_that_cannot_shape() {
    let sandbox = Sandbox::new();
    let file = sandbox.topology("uniform-3-rtt0");
    // The other tests do not see these lines, because they depend on the kernel.
    let script = format!("\"$NETEMCTL\" lab up --json {file} | grep -c cannot_shape; \"$NETEMCTL\" lab down >&2");
    let lines = sandbox.run_other("sh", ["-c", &script]).ended(0);
    assert_eq!(lines.stdout, if kernel_can_shape() { "0\n" } else { "1\n" }, "{lines}");
}
