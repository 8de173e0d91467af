//! A killed keeper or agent: the remaining state, and the commands that still work.

use std::{
    fs,
    os::unix::net::UnixStream,
    time::{Duration, Instant},
};

use super::harness::{Lab, wait_until};

#[test]
fn a_keeper_that_is_killed_takes_its_agents_along_and_leaves_room_for_another_lab() {
    let lab = Lab::up("uniform-3-rtt0");
    assert_eq!(lab.sandbox.processes().len(), 1 + 3, "one keeper and three agents");
    lab.sandbox.kill(lab.keeper());
    lab.sandbox.wait_until_empty();
    insta::assert_snapshot!(lab.run(["status"]), @"
    --- stdout
    --- stderr
    error: no inventory is given, and no lab of this user is up (looked in [DIR]/lab)
    hint: give an inventory: --inventory FILE, or NETEMCTL_INVENTORY=FILE
    hint: or start a lab on this machine: netemctl lab up TOPOLOGY
    --- exit status: 6
    ");
    insta::assert_snapshot!(lab.run(["lab", "up", "uniform-3-rtt0.toml"]), @"
    --- stdout
    lab uniform-3-rtt0 is up: 3 nodes, each with an agent, in [TIME] s
    --- stderr
    --- exit status: 0
    ");
    let _status = lab.run(["lab", "status"]).ended(0);
}

#[test]
fn what_a_killed_lab_left_behind_is_taken_down() {
    let lab = Lab::up("uniform-3-rtt0");
    lab.sandbox.kill(lab.keeper());
    lab.sandbox.wait_until_empty();
    assert!(lab.sandbox.lab_directory().exists());
    let _down = lab.run(["lab", "down"]).ended(0);
    assert!(!lab.sandbox.lab_directory().exists());
}

/// An agent that is measuring ends late. By then, the next lab's agent has a socket at the same path.
#[test]
fn agents_that_outlive_their_keeper_leave_the_next_lab_alone() {
    let lab = Lab::up("uniform-3-rtt0");
    let measure = "\"$NETEMCTL\" verify --count 80 >verified 2>&1 & sleep 1";
    let _measuring = lab.sandbox.run_other("sh", ["-c", measure]).ended(0);
    lab.sandbox.kill(lab.keeper());
    let _up = lab.run(["lab", "up", "uniform-3-rtt0.toml"]).ended(0);
    wait_until("the first lab's agents have ended", || lab.sandbox.processes().len() == 1 + 3);
    let _status = lab.run(["lab", "status"]).ended(0);
}

/// An agent that ends gives running calls two seconds. This measurement would take far longer.
#[test]
fn a_lab_that_is_measured_goes_down_all_the_same() {
    let lab = Lab::up("uniform-3-rtt0");
    let measure = "{ \"$NETEMCTL\" verify --count 2000; echo $? >code; } >verified 2>&1 & sleep 1";
    let _measuring = lab.sandbox.run_other("sh", ["-c", measure]).ended(0);
    let _down = lab.run(["lab", "down"]).ended(0);
    let code = lab.sandbox.path().join("code");
    let ended = || fs::read_to_string(&code).is_ok_and(|code| code == "6\n");
    wait_until("verify ends with exit code 6", ended);
}

#[test]
fn a_dead_agent_is_named_and_no_change_is_made_without_it() {
    let lab = Lab::up("uniform-3-rtt100");
    lab.sandbox.kill(lab.sandbox.agent("n2"));
    // Until the kernel has closed the agent's socket, it accepts connections and then resets them.
    let socket = lab.sandbox.lab_directory().join("nodes/n2/agent.sock");
    wait_until("the agent's socket is closed", || UnixStream::connect(&socket).is_err());
    insta::assert_snapshot!(lab.run(["status"]), @"
    --- stdout
    nothing is in force on 2 of 3 nodes

    NODE    INTERFACE  ONE-WAY DELAYS  CUT ADDRESSES  STATE
    n[1,3]  db0        -               -              ok
    n2      -          -               -              unreachable

    n2: no agent at [DIR]/lab/nodes/n2/agent.sock: Connection refused (os error 111)

    hint: restart the agent: netemctl lab restart n2
    --- stderr
    --- exit status: 6
    ");
    insta::assert_snapshot!(lab.run(["lab", "status"]), @"
    --- stdout
    lab uniform-3-rtt100

    NODE  DATABASE (db0)     MANAGEMENT (mgmt0)  AGENT
    n1    10.78.0.1 fd78::1  10.77.0.1 fd77::1   up
    n2    10.78.0.2 fd78::2  10.77.0.2 fd77::2   dead
    n3    10.78.0.3 fd78::3  10.77.0.3 fd77::3   up

    n2: no agent at [DIR]/lab/nodes/n2/agent.sock: Connection refused (os error 111)
    the rules of a dead agent stay in force; restart the agent: netemctl lab restart NODE
    --- stderr
    --- exit status: 6
    ");
    insta::assert_snapshot!(lab.run(["apply", "uniform-3-rtt100.toml"]), @"
    --- stdout
    --- stderr
    error: n2 did not answer; nothing was changed
      n2: no agent at [DIR]/lab/nodes/n2/agent.sock: Connection refused (os error 111)
    hint: restart the agent: netemctl lab restart n2
    hint: leave out nodes that do not answer: --allow-missing
    --- exit status: 6
    ");
    insta::assert_snapshot!(lab.run(["apply", "--json", "uniform-3-rtt100.toml"]), @r#"
    --- stdout
    {
      "exit_code": 6,
      "error": {
        "message": "n2 did not answer; nothing was changed",
        "hints": [
          "restart the agent: netemctl lab restart n2",
          "leave out nodes that do not answer: --allow-missing"
        ],
        "nodes": {
          "n2": "no agent at [DIR]/lab/nodes/n2/agent.sock: Connection refused (os error 111)"
        }
      }
    }
    --- stderr
    error: n2 did not answer; nothing was changed
      n2: no agent at [DIR]/lab/nodes/n2/agent.sock: Connection refused (os error 111)
    hint: restart the agent: netemctl lab restart n2
    hint: leave out nodes that do not answer: --allow-missing
    --- exit status: 6
    "#);
    let status = lab.run(["status", "--json"]).ended(6).json();
    assert_eq!(status["ok"], false);
    assert_eq!(status["nodes"]["n1"]["state"], "ok");
    assert_eq!(status["nodes"]["n1"]["topology"], serde_json::Value::Null, "the other nodes have not changed");
    assert_eq!(status["nodes"]["n2"]["state"], "unreachable");
    assert!(status["nodes"]["n2"]["error"].as_str().is_some_and(|error| error.contains("agent.sock")));
    let agents = lab.run(["lab", "status", "--json"]).ended(6).json();
    assert_eq!((&agents["ok"], &agents["nodes"]["n1"]["agent"]), (&false.into(), &"up".into()));
    assert!(agents["nodes"]["n2"]["agent"].as_str().is_some_and(|agent| agent.starts_with("no agent at ")));
    // The node's namespace outlives the agent, so programs in the node continue.
    let _true = lab.run(["lab", "exec", "n2", "true"]).ended(0);
}

/// Regression: `status` reported running agents as unreachable when netemctl itself had too many open files.
#[test]
fn a_fleet_of_more_nodes_than_the_limit_of_open_files_is_asked_all_the_same() {
    let lab = Lab::up("uniform-9-rtt0");
    for limit in ["ulimit -Sn 16", "ulimit -n 16"] {
        let run = |verb| {
            let limited = format!("{limit} && \"$NETEMCTL\" {verb} --json");
            lab.sandbox.run_other("sh", ["-c", &limited]).ended(0).json()
        };
        let answer = run("status");
        assert_eq!(answer["nodes"].as_object().map(serde_json::Map::len), Some(9), "{answer}");
        drop(run("clear"));
    }
}

/// The changes are `clear` on an empty state. They need no write to a kernel, so the test needs no netem.
#[test]
fn a_change_without_a_silent_node_needs_allow_missing_and_the_other_nodes_record_it() {
    let lab = Lab::up("uniform-3-rtt0");
    lab.sandbox.kill(lab.sandbox.agent("n2"));
    let socket = lab.sandbox.lab_directory().join("nodes/n2/agent.sock");
    wait_until("the agent's socket is closed", || UnixStream::connect(&socket).is_err());
    let begin = Instant::now();
    let refused = lab.run(["clear", "--wait", "2s"]).ended(6);
    assert!(refused.stderr.contains("n2 did not answer; nothing was changed"), "{refused}");
    assert!(begin.elapsed() >= Duration::from_secs(1), "netemctl retried for only {:?}", begin.elapsed());
    insta::assert_snapshot!(lab.run(["clear", "--allow-missing"]), @"
    --- stdout
    nothing is in force on 2 nodes; recorded: kernels already match
    n2 keeps its earlier state; update: netemctl clear
    --- stderr
    --- exit status: 0
    ");
    insta::assert_snapshot!(lab.run(["status"]), @"
    --- stdout
    nothing is in force on 2 of 3 nodes

    NODE    INTERFACE  ONE-WAY DELAYS  CUT ADDRESSES  STATE
    n[1,3]  db0        -               -              ok
    n2      -          -               -              unreachable

    n2: no agent at [DIR]/lab/nodes/n2/agent.sock: Connection refused (os error 111)

    n2 keeps its earlier state; update: netemctl clear

    hint: restart the agent: netemctl lab restart n2
    --- stderr
    --- exit status: 6
    ");
    let status = lab.run(["status", "--json"]).ended(6).json();
    assert_eq!((&status["ok"], &status["missing"]), (&false.into(), &serde_json::json!(["n2"])));
    // Changes with --allow-missing or with --only work. A change on all nodes fails.
    let _refused = lab.run(["heal"]).ended(6);
    let again = lab.run(["clear", "--allow-missing", "--json"]).ended(0).json();
    assert_eq!((&again["changed"], &again["missing"]), (&false.into(), &serde_json::json!(["n2"])));
    let _two = lab.run(["clear", "--only", "n[1,3]"]).ended(0);
    let one = lab.run(["clear", "--only", "n1", "--json"]).ended(0).json();
    assert_eq!((&one["missing"], &one["generation"]), (&serde_json::json!(["n2", "n3"]), &2.into()));
    insta::assert_snapshot!(lab.run(["status"]), @"
    --- stdout
    nothing is in force on 2 of 3 nodes

    NODE  INTERFACE  ONE-WAY DELAYS  CUT ADDRESSES  STATE
    n1    db0        -               -              ok
    n2    -          -               -              unreachable
    n3    db0        -               -              behind

    n2: no agent at [DIR]/lab/nodes/n2/agent.sock: Connection refused (os error 111)

    n[2-3] keep their earlier state; update: netemctl clear

    hint: restart the agent: netemctl lab restart n2
    --- stderr
    --- exit status: 6
    ");
    let measured = lab.run(["verify", "--allow-missing", "--count", "1", "--json"]);
    assert_eq!(measured.json()["missing"], serde_json::json!(["n2", "n3"]), "{measured}");
    insta::assert_snapshot!(lab.run(["clear", "--only", "n[3-4]"]), @"
    --- stdout
    --- stderr
    error: --only takes nodes, not zones: no node is called n4; the nodes are n[1-3]
    --- exit status: 2
    ");
    // The next change also updates a node that is behind.
    insta::assert_snapshot!(lab.run(["clear", "--allow-missing"]), @"
    --- stdout
    nothing is in force on 2 nodes; recorded: kernels already match
    n2 keeps its earlier state; update: netemctl clear
    n3 now has the current state again
    --- stderr
    --- exit status: 0
    ");
}

#[test]
fn an_agent_without_its_interface_is_broken_and_not_dead() {
    let lab = Lab::up("uniform-3-rtt0");
    let _deleted = lab.run(["lab", "exec", "n2", "--", "ip", "link", "del", "db0"]).ended(0);
    let status = lab.run(["lab", "status"]).ended(6);
    assert!(status.stdout.contains("fd77::2   broken\n"), "{status}");
    let remedy = "\nn2: interface db0 does not exist\nrecreate the lab: netemctl lab down && netemctl lab up FILE\n";
    assert!(status.stdout.ends_with(remedy), "{status}");
    let status = lab.run(["status"]).ended(6);
    assert!(status.stdout.contains("broken\n") && !status.stdout.contains("hint: "), "{status}");
}
