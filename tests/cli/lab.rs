//! `lab`: start, status, end and directory of a lab, and programs in its nodes.

use std::{
    fs::{self, Permissions},
    os::unix::fs::{PermissionsExt, chown},
    thread::sleep,
    time::Duration,
};

use nix::unistd::getuid;

use super::harness::{Lab, Sandbox};

/// Regression: each agent woke up every 200 ms. 45 agents used a third of a CPU and so disturbed measurements.
#[test]
fn a_lab_that_nobody_uses_sleeps() {
    let lab = Lab::up("uniform-9-rtt0");
    let _asked = lab.run(["status"]).ended(0);
    // A busy machine may need a while to finish earlier work, so the test takes the first quiet 5 s of 30 s.
    let wake_ups = (0..6).map(|_| lab.sandbox.wake_ups(Duration::from_secs(5))).find(|wake_ups| *wake_ups <= 18);
    assert!(wake_ups.is_some(), "nine agents and a keeper woke up more than 18 times in each of six periods of 5 s");
}

/// The directory's files name the sockets to connect to and the process whose namespaces are entered.
#[test]
fn a_lab_directory_that_other_users_can_change_is_refused() {
    let lab = Lab::up("uniform-3-rtt0");
    let folder = lab.sandbox.lab_directory();
    let refused = |why: &str| {
        for answer in [lab.run(["status"]), lab.run(["lab", "exec", "n1", "true"]), lab.run(["lab", "down"])] {
            let answer = answer.ended(5);
            assert!(answer.stderr.contains(why), "{answer}");
        }
    };
    fs::set_permissions(&folder, Permissions::from_mode(0o770)).unwrap();
    refused("other users may write to the lab directory [DIR]/lab; run: chmod go-w [DIR]/lab");
    fs::set_permissions(&folder, Permissions::from_mode(0o700)).unwrap();
    if getuid().is_root() {
        // Only root can change the owner of a folder.
        chown(&folder, Some(65534), None).unwrap();
        refused("the lab directory [DIR]/lab belongs to another user (65534)");
        chown(&folder, Some(0), None).unwrap();
    }
    let _status = lab.run(["status"]).ended(0);
}

#[test]
fn a_lab_comes_up_shows_itself_and_goes_down() {
    let lab = Sandbox::new();
    let file = lab.topology("uniform-3-rtt100");
    insta::assert_snapshot!(lab.run(["lab", "up", &file]), @"
    --- stdout
    lab uniform-3-rtt100 is up: 3 nodes, each with an agent, in [TIME] s
    --- stderr
    --- exit status: 0
    ");
    insta::assert_snapshot!(lab.run(["lab", "status"]), @"
    --- stdout
    lab uniform-3-rtt100

    NODE  DATABASE (db0)     MANAGEMENT (mgmt0)  AGENT
    n1    10.78.0.1 fd78::1  10.77.0.1 fd77::1   up
    n2    10.78.0.2 fd78::2  10.77.0.2 fd77::2   up
    n3    10.78.0.3 fd78::3  10.77.0.3 fd77::3   up
    --- stderr
    --- exit status: 0
    ");
    insta::assert_snapshot!(lab.run(["status"]), @"
    --- stdout
    nothing is in force on 3 nodes

    NODE    INTERFACE  ONE-WAY DELAYS  CUT ADDRESSES  STATE
    n[1-3]  db0        -               -              ok
    --- stderr
    --- exit status: 0
    ");
    insta::assert_snapshot!(lab.run(["lab", "down"]), @"
    --- stdout
    the lab is down; its directory is removed
    --- stderr
    --- exit status: 0
    ");
    lab.wait_until_empty();
    assert!(!lab.lab_directory().exists());
    insta::assert_snapshot!(lab.run(["lab", "down"]), @"
    --- stdout
    no lab is up
    --- stderr
    --- exit status: 0
    ");
}

#[test]
fn lab_commands_print_json() {
    let lab = Lab::up("uniform-3-rtt0");
    let _down = lab.run(["lab", "down"]).ended(0);
    insta::assert_snapshot!(lab.run(["--json", "lab", "up", "uniform-3-rtt0.toml"]), @r#"
    --- stdout
    {
      "topology": "uniform-3-rtt0",
      "nodes": 3,
      "directory": "[DIR]/lab",
      "took_s": [TIME]
    }
    --- stderr
    --- exit status: 0
    "#);
    let status = lab.run(["lab", "status", "--json"]).ended(0).json();
    assert_eq!(status["nodes"]["n2"]["database"], serde_json::json!(["10.78.0.2", "fd78::2"]));
    assert_eq!(status["nodes"]["n2"]["management"], serde_json::json!(["10.77.0.2", "fd77::2"]));
    assert_eq!(status["nodes"]["n2"]["agent"], "up");
    assert_eq!(status["ok"], true);
    assert_eq!(status["directory"], "[DIR]/lab");
    assert_eq!(status["topology"], "uniform-3-rtt0");
    let in_force = lab.in_force();
    assert_eq!(in_force["ok"], true);
    assert_eq!(in_force["nodes"]["n1"]["state"], "ok");
    assert_eq!(in_force["nodes"]["n1"]["stamp"]["generation"], 0);
    assert_eq!(in_force["nodes"].as_object().map(serde_json::Map::len), Some(3));
    insta::assert_snapshot!(lab.run(["lab", "down", "--json"]), @r#"
    --- stdout
    {
      "was_up": true,
      "ended": []
    }
    --- stderr
    --- exit status: 0
    "#);
}

#[test]
fn exec_runs_a_program_in_a_node_as_it_was_typed_and_ends_as_it_does() {
    let lab = Lab::up("uniform-3-rtt0");
    insta::assert_snapshot!(lab.run(["lab", "exec", "n1", "--", "printf", "<%s>\n", "a b", "", "*", "--json"]), @"
    --- stdout
    <a b>
    <>
    <*>
    <--json>
    --- stderr
    --- exit status: 0
    ");
    insta::assert_snapshot!(lab.run(["lab", "exec", "n1", "sh", "-c", "echo out; echo err >&2; exit 42"]), @"
    --- stdout
    out
    --- stderr
    err
    --- exit status: 42
    ");
    insta::assert_snapshot!(lab.run(["lab", "exec", "n3", "--", "sh", "-c", "echo $NETEMCTL_NODE; pwd"]), @"
    --- stdout
    n3
    [DIR]
    --- stderr
    --- exit status: 0
    ");
    let piped = lab.sandbox.run_with_stdin(["lab", "exec", "n1", "cat"], "what comes in\n").ended(0);
    assert_eq!(piped.stdout, "what comes in\n");
}

#[test]
fn in_a_node_names_are_addresses_and_the_lan_is_there() {
    let lab = Lab::up("uniform-3-rtt0");
    let of = |name: &str, family: &str| lab.run(["lab", "exec", "n1", "--", "getent", family, name]).ended(0).stdout;
    let first = |text: String| text.split_whitespace().next().unwrap_or_default().to_owned();
    assert_eq!(first(of("n2", "ahostsv4")), "10.78.0.2");
    assert_eq!(first(of("n2", "ahostsv6")), "fd78::2");
    assert_eq!(first(of("n2.mgmt", "ahostsv4")), "10.77.0.2");
    assert_eq!(first(of("localhost", "ahostsv4")), "127.0.0.1");

    let links = lab.run(["lab", "exec", "n1", "--", "sh", "-c", "cd /sys/class/net && echo *"]).ended(0).stdout;
    for link in ["lo", "db0", "mgmt0"] {
        assert!(links.split_whitespace().any(|name| name == link), "{link} is not in {links}");
    }
}

#[test]
fn a_controller_host_reaches_the_nodes_by_their_management_addresses_alone() {
    let sandbox = Sandbox::new();
    let file = sandbox.topology("uniform-3-rtt0");
    let _up = sandbox.run(["lab", "up", &file, "--controller"]).ended(0);
    let lab = Lab { sandbox };
    let links = lab.run(["lab", "exec", "controller", "--", "sh", "-c", "cd /sys/class/net && echo *"]).ended(0);
    assert_eq!(links.stdout, "lo mgmt0\n");
    // A host refuses a connection to a closed port. A connection to an address without a host times out.
    let reach = "for host in n1.mgmt n3.mgmt 10.77.0.2 fd77::2; do bash -c ': < /dev/tcp/'$host/9 2>&1; done";
    let reached = lab.run(["lab", "exec", "controller", "--", "sh", "-c", reach]).ended(1);
    assert_eq!(reached.stdout.matches("connect: Connection refused").count(), 4, "{reached}");
    let own = lab.run(["lab", "exec", "n1", "--", "getent", "ahostsv4", "controller"]).ended(0);
    assert!(own.stdout.starts_with("10.77.255.254"), "{own}");
    let status = lab.run(["lab", "status", "--json"]).ended(0).json();
    assert_eq!(status["nodes"].as_object().map(serde_json::Map::len), Some(3), "the controller host is not a node");
}

#[test]
fn a_node_called_controller_keeps_its_name_or_the_lab_has_no_controller_host() {
    let sandbox = Sandbox::new();
    sandbox.write("odd.toml", "name = 'odd'\nnodes = ['n1', 'controller']\n[links]\ndefault = { rtt = '1ms' }\n");
    insta::assert_snapshot!(sandbox.run(["lab", "up", "odd.toml", "--controller"]), @"
    --- stdout
    --- stderr
    error: `controller` is the name of the lab's controller host; rename the topology's node
    --- exit status: 5
    ");
    let _up = sandbox.run(["lab", "up", "odd.toml"]).ended(0);
    let lab = Lab { sandbox };
    let node = lab.run(["lab", "exec", "controller", "--", "getent", "ahostsv4", "controller"]).ended(0);
    assert!(node.stdout.starts_with("10.78.0.2"), "{node}");
}

#[test]
fn exec_names_the_program_or_node_that_it_cannot_use() {
    let lab = Lab::up("uniform-3-rtt0");
    insta::assert_snapshot!(lab.run(["lab", "exec", "n4", "true"]), @"
    --- stdout
    --- stderr
    error: no zone or node is called n4; nodes: n[1-3]
    --- exit status: 2
    ");
    insta::assert_snapshot!(lab.run(["lab", "exec", "controller", "true"]), @"
    --- stdout
    --- stderr
    error: the lab has no controller host
    hint: bring one up that has: netemctl lab up TOPOLOGY --controller
    --- exit status: 2
    ");
    // A path, because for a bare name the error may be about an inaccessible folder of PATH.
    insta::assert_snapshot!(lab.run(["lab", "exec", "n1", "/no/such/program"]), @"
    --- stdout
    --- stderr
    error: no program /no/such/program in n1
    --- exit status: 127
    ");
    insta::assert_snapshot!(lab.run(["lab", "exec", "n1", "/"]), @"
    --- stdout
    --- stderr
    error: cannot run / in n1: Permission denied (os error 13)
    --- exit status: 126
    ");
}

#[test]
fn a_second_lab_is_refused_and_the_first_one_stays() {
    let lab = Lab::up("uniform-3-rtt0");
    let before = lab.keeper();
    let other = lab.sandbox.topology("uniform-9-rtt0");
    insta::assert_snapshot!(lab.run(["lab", "up", &other]), @"
    --- stdout
    --- stderr
    error: a lab is up already, of topology uniform-3-rtt0
    hint: stop it first: netemctl lab down
    --- exit status: 9
    ");
    assert_eq!(lab.keeper(), before);
    let _status = lab.run(["lab", "status"]).ended(0);
}

#[test]
fn a_lab_that_does_not_come_up_leaves_nothing_running() {
    let sandbox = Sandbox::new();
    sandbox.write("big.toml", "name = 'big'\nnodes = 'n[1-1001]'\n[links]\ndefault = { rtt = '1ms' }\n");
    insta::assert_snapshot!(sandbox.run(["lab", "up", "big.toml"]), @"
    --- stdout
    --- stderr
    error: the topology has 1001 nodes; a lab has at most 1000
    --- exit status: 5
    ");
    sandbox.wait_until_empty();
    assert!(!sandbox.lab_directory().exists());
}

#[test]
fn a_lab_of_45_nodes_comes_up() {
    let lab = Lab::up("uniform-45-rtt0");
    let status = lab.run(["lab", "status", "--json"]).ended(0).json();
    let nodes = status["nodes"].as_object().expect("nodes by name");
    assert_eq!(nodes.values().filter(|node| node["agent"] == "up").count(), 45);
    let far = lab.run(["lab", "exec", "n1", "--", "getent", "ahostsv4", "n45"]).ended(0);
    assert!(far.stdout.starts_with("10.78.0.45"), "{far}");
}

/// Regression: each node had entries for all others. The time for 1,000 nodes was 50 times that for 100.
#[test]
fn a_large_lab_adds_a_neighbour_when_a_packet_needs_it() {
    let lab = Lab::up("uniform-45-rtt0");
    let neighbours = || lab.run(["lab", "exec", "n1", "--", "ip", "neigh", "show", "dev", "db0"]).ended(0).stdout;
    assert_eq!(neighbours(), "");
    for address in ["10.78.0.45", "fd78::2d"] {
        let send = format!("echo > /dev/udp/{address}/9");
        let _sent = lab.run(["lab", "exec", "n1", "--", "bash", "-c", &send]).ended(0);
    }
    let expected = ["10.78.0.45 lladdr 02:4e:7e:4e:00:2d PERMANENT", "fd78::2d lladdr 02:4e:7e:4e:00:2d PERMANENT"];
    let is_known = (0..100).any(|_| {
        let shown = neighbours();
        expected.iter().all(|entry| shown.lines().any(|line| line.trim_end() == *entry)) || {
            sleep(Duration::from_millis(20));
            false
        }
    });
    assert!(is_known, "{}", neighbours());
}

/// Access to an agent's socket gives control of the network of its node.
#[test]
fn nobody_else_can_enter_a_labs_directory() {
    use std::os::unix::fs::PermissionsExt;

    let lab = Lab::up("uniform-3-rtt0");
    let mode = |path: &str| fs::metadata(lab.sandbox.path().join(path)).expect("the path exists").permissions().mode();
    assert_eq!(mode("lab") & 0o777, 0o700);
    assert_eq!(mode("lab/nodes/n1/agent.sock") & 0o777, 0o600);
}
