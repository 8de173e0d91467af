//! Changes that are refused before any write to a kernel, and `apply` on the kernel of this host.

use super::harness::{Lab, Sandbox};

/// True if this kernel can shape. The check uses `tc`, independent of the code under test.
pub(crate) fn kernel_can_shape() -> bool {
    // Root needs no user namespace, which some containers deny.
    let script = "
        case $(id -u) in 0) unshare=-n ;; *) unshare=-rn ;; esac
        command -v tc >/dev/null && unshare $unshare true || exit 99
        unshare $unshare sh -ec '
            tc qdisc add dev lo root handle 1: htb default 1
            tc class add dev lo parent 1: classid 1:1 htb rate 1gbit
            tc qdisc add dev lo parent 1:1 netem delay 1ms
            tc qdisc add dev lo clsact
            tc filter add dev lo ingress protocol ip pref 1 flower src_ip 192.0.2.1 action drop'";
    let tried = Sandbox::new().run_other("sh", ["-c", script]);
    assert_ne!(tried.code(), 99, "this test needs tc, and unshare to make a network namespace\n{tried}");
    tried.code() == 0
}

#[test]
fn apply_does_all_of_it_or_says_what_the_kernel_lacks_and_does_nothing() {
    let lab = Lab::up("uniform-3-rtt100");
    let before = lab.in_force();
    let plan = lab.run(["plan", "uniform-3-rtt100.toml"]);
    let planned = lab.run(["plan", "--json", "uniform-3-rtt100.toml"]).json();
    assert_eq!(lab.in_force(), before, "plan changes nothing\n{plan}");
    let apply = lab.run(["apply", "uniform-3-rtt100.toml"]);
    if kernel_can_shape() {
        assert_eq!((plan.code(), apply.code()), (0, 0), "{plan}\n{apply}");
        assert_eq!(planned["changed"], true, "{planned}");
        assert_eq!(planned["nodes"].as_array().map(Vec::len), Some(3), "{planned}");
        let offline = Sandbox::new();
        let offline = offline.run(["plan", "--json", &offline.topology("uniform-3-rtt100")]).ended(0).json();
        assert_eq!(
            offline["nodes"], planned["nodes"],
            "an offline plan has the same steps as one of a new lab's agents"
        );
        assert!(apply.stdout.starts_with("in force on 3 nodes: topology uniform-3-rtt100; changed 3 nodes"), "{apply}");
        let again = lab.run(["apply", "--json", "uniform-3-rtt100.toml"]).ended(0).json();
        assert_eq!(again["changed"], false);
        let planned = lab.run(["plan", "--json", "uniform-3-rtt100.toml"]).ended(0).json();
        assert_eq!(planned["changed"], false, "{planned}");
        let cleared = lab.run(["clear"]).ended(0);
        assert!(cleared.stdout.starts_with("cleared; 3 interfaces restored"), "{cleared}");
    } else {
        assert_eq!((plan.code(), apply.code()), (7, 7), "{plan}\n{apply}");
        assert_eq!(apply.stdout, "");
        // An error that all nodes share is printed once.
        for text in ["n[1-3] cannot make this change; nothing was changed", "n[1-3]: ", "sch_netem", "cls_flower"] {
            assert_eq!(apply.stderr.matches(text).count(), 1, "{text} does not occur exactly once in\n{apply}");
        }
        assert_eq!(planned["exit_code"], 7, "{planned}");
        let document = lab.run(["apply", "--json", "uniform-3-rtt100.toml"]).ended(7).json();
        assert_eq!(document["exit_code"], 7);
        assert!(document["error"]["nodes"]["n2"].as_str().is_some_and(|said| said.contains("sch_netem")));
        let cut = lab.run(["partition", "n1"]).ended(7);
        assert!(cut.stderr.contains("nothing was changed"), "{cut}");
        assert_eq!(lab.in_force(), before);
    }
}

#[test]
fn a_change_without_effect_needs_no_kernel_that_can_shape() {
    let lab = Lab::up("uniform-3-rtt0");
    let before = lab.in_force();
    insta::assert_snapshot!(lab.run(["clear"]), @"
    --- stdout
    nothing is in force; nothing to change
    --- stderr
    --- exit status: 0
    ");
    insta::assert_snapshot!(lab.run(["heal"]), @"
    --- stdout
    nothing is in force; nothing to change
    --- stderr
    --- exit status: 0
    ");
    insta::assert_snapshot!(lab.run(["clear", "--json"]), @r#"
    --- stdout
    {
      "changed": false,
      "generation": 0,
      "topology": null,
      "overlays": [],
      "partitions": [],
      "nodes": 3,
      "writes": {
        "n1": 0,
        "n2": 0,
        "n3": 0
      },
      "onset": null
    }
    --- stderr
    --- exit status: 0
    "#);
    assert_eq!(lab.in_force(), before, "the state of the nodes is unchanged");
}

#[test]
fn a_topology_with_more_nodes_than_the_lab_is_refused_and_nothing_changes() {
    let lab = Lab::up("uniform-3-rtt0");
    let before = lab.in_force();
    let file = lab.sandbox.topology("uniform-9-rtt100");
    insta::assert_snapshot!(lab.run(["apply", &file]), @"
    --- stdout
    --- stderr
    error: the topology's nodes n[4-9] do not exist; the fleet has n[1-3]
    hint: restart the lab with this topology: netemctl lab down && netemctl lab up FILE; or add the nodes to the inventory
    --- exit status: 2
    ");
    insta::assert_snapshot!(lab.run(["apply", "--json", &file]), @r#"
    --- stdout
    {
      "exit_code": 2,
      "error": {
        "message": "the topology's nodes n[4-9] do not exist; the fleet has n[1-3]",
        "hints": [
          "restart the lab with this topology: netemctl lab down && netemctl lab up FILE; or add the nodes to the inventory"
        ]
      }
    }
    --- stderr
    error: the topology's nodes n[4-9] do not exist; the fleet has n[1-3]
    hint: restart the lab with this topology: netemctl lab down && netemctl lab up FILE; or add the nodes to the inventory
    --- exit status: 2
    "#);
    let plan = lab.run(["plan", &file]).ended(2);
    assert!(plan.stderr.contains("n[4-9]"), "{plan}");
    assert_eq!(lab.in_force(), before);
}

#[test]
fn an_invalid_partition_is_refused_and_nothing_changes() {
    let lab = Lab::up("hierarchical-9");
    let before = lab.in_force();
    insta::assert_snapshot!(lab.run(["partition", "Z33"]), @"
    --- stdout
    --- stderr
    error: no zone or node is called `Z33`; did you mean `Z3`?
    --- exit status: 2
    ");
    insta::assert_snapshot!(lab.run(["partition", "n1", "Z1"]), @"
    --- stdout
    --- stderr
    error: node n1 is on two sides
    --- exit status: 2
    ");
    insta::assert_snapshot!(lab.run(["partition", "Z1,Z2,Z3"]), @"
    --- stdout
    --- stderr
    error: all nodes are on one side, so nothing is cut; name two sides
    --- exit status: 2
    ");
    insta::assert_snapshot!(lab.run(["partition", "n[1-"]), @"
    --- stdout
    --- stderr
    error: unmatched bracket in `n[1-`
    --- exit status: 2
    ");
    insta::assert_snapshot!(lab.run(["partition", "--name", "", "Z1"]), @r#"
    --- stdout
    --- stderr
    error: invalid name "": --name takes 1 to 128 characters without white space
    --- exit status: 2
    "#);
    insta::assert_snapshot!(lab.run(["heal", "Z3"]), @"
    --- stdout
    --- stderr
    error: no partition is called `Z3`; in force: none
    --- exit status: 2
    ");
    insta::assert_snapshot!(lab.run(["plan", "hierarchical-9.toml", "--node", "n10"]), @"
    --- stdout
    --- stderr
    error: no node `n10`; the nodes are n[1-9]
    --- exit status: 2
    ");
    assert_eq!(lab.in_force(), before);
}

#[test]
fn a_lan_is_measured_as_a_lan() {
    let lab = Lab::up("uniform-3-rtt0");
    let verified = lab.run(["verify", "--json", "--count", "2"]);
    // On a busy machine an RTT may exceed the tolerance, so exit code 4 is allowed.
    assert!(matches!(verified.code(), 0 | 4), "{verified}");
    let report = verified.json();
    assert_eq!(report["pairs"].as_array().map(Vec::len), Some(6), "{verified}");
    assert!(report["pairs"][0]["measured"].as_array().is_some_and(|by_address| by_address.len() == 2), "{verified}");
}

/// The document in force has no nodes before the first change, so the matrix must take them from the lab.
#[test]
fn the_matrix_has_every_node_even_with_nothing_in_force() {
    let lab = Lab::up("uniform-3-rtt0");
    let verified = lab.run(["verify", "--count", "1"]);
    let (_, matrix) = verified.stdout.split_once("median of the worst address; ! = not OK\n").expect("a title");
    let header: Vec<&str> = matrix.lines().next().unwrap_or_default().split_whitespace().collect();
    assert_eq!(header, ["n1", "n2", "n3"], "{verified}");
    let (_, errors) = verified.stdout.split_once("\nlargest errors, RTT in ms\n").expect("the table of largest errors");
    let lan = |line: &&str| line.split_whitespace().nth(2) == Some("LAN");
    assert_eq!(errors.lines().filter(lan).count(), 6, "{verified}");
}
