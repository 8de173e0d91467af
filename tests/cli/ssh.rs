//! Agents by ssh, without an sshd. A script replaces ssh and runs the remote command in a node of a lab. `tests/kernel`
//! uses real sshds.

use std::fs;

use super::harness::{Answer, Lab, wait_until};

/// The fake ssh. Each node has its own `/run`, as hosts have. The login shell prints a welcome line.
const FAKE_SSH: &str = r#"
while [ "$1" != -- ]; do shift; done
echo "Welcome to $2"
exec "$NETEMCTL" lab exec "$2" -- unshare -m sh -c '
    mount --bind "$0/run-$1" /run
    HOME=$0/home PATH=$0:$PATH SSH_CONNECTION="10.77.0.200 5 10.77.0.1 22" exec sh -c "$2"
' "${0%/*}" "$2" "$3"
"#;

fn lab() -> Lab {
    let lab = Lab::up("uniform-3-rtt0");
    lab.sandbox.write("ssh", FAKE_SSH);
    let _linked = lab.sandbox.run_other("sh", ["-c", "ln -s \"$NETEMCTL\" netemctl; mkdir run-n1"]).ended(0);
    write_inventory(&lab, "n1", "db0");
    // The lab's agent of n1 is killed, because an interface can have only one agent.
    lab.sandbox.kill(lab.sandbox.agent("n1"));
    lab
}

/// Writes an inventory in which the host n1 has this node name and this interface.
fn write_inventory(lab: &Lab, node: &str, interface: &str) {
    let text = format!(
        "[nodes.{node}]\ntransport = \"ssh\"\nhost = \"n1\"\ninterface = \"{interface}\"\naddresses = \"10.78.0.1\"\n"
    );
    lab.sandbox.write("inventory.toml", text);
}

fn run(lab: &Lab, verb: &str) -> Answer {
    let ssh = format!("sh {}/ssh", lab.sandbox.path().display());
    lab.run(["--json", "--inventory", "inventory.toml", "--ssh", &ssh, verb])
}

fn status(lab: &Lab) -> Answer {
    run(lab, "status")
}

#[track_caller]
fn keeper(lab: &Lab, node: &str) -> i64 {
    let answer = status(lab).ended(0);
    answer.json()["nodes"][node]["keeper"].as_i64().unwrap_or_else(|| panic!("no keeper\n{answer}"))
}

#[test]
fn a_keeper_serves_several_commands_then_a_change_replaces_it_and_its_end_leaves_nothing() {
    let lab = lab();
    let first = keeper(&lab, "n1");
    assert_eq!(keeper(&lab, "n1"), first);
    // The inventory has another interface than the keeper's config. A read-only command does not replace the keeper,
    // because another controller's change may be running.
    write_inventory(&lab, "n1", "lo");
    assert_eq!(keeper(&lab, "n1"), first);
    let _clear = run(&lab, "clear").ended(0);
    let second = keeper(&lab, "n1");
    assert_ne!(second, first);
    // The host gets another node name. A change may replace the keeper, because nothing is in force.
    write_inventory(&lab, "n7", "lo");
    let refused = status(&lab).ended(6).json();
    let said = refused["nodes"]["n7"]["error"].as_str().unwrap_or_default();
    assert!(
        said.contains("this host is node n1, not n7: its keeper has this name, and exits after 10 s without a request"),
        "{said}"
    );
    let _clear = run(&lab, "clear").ended(0);
    let third = keeper(&lab, "n7");
    assert_ne!(third, second);
    let is_there = |pid: i64| fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| !line.is_empty());
    assert!(!is_there(first) && !is_there(second), "each keeper ends before the next one starts");
    // The first line of a keeper's config has its protocol version. An incompatible keeper is reported and replaced.
    let run_n1 = lab.sandbox.path().join("run-n1");
    let rewrite = "sed -i '1s/netemctl-agent [0-9]*/netemctl-agent 2/' run-n1/netemctl-ssh/*/agent.toml";
    let _rewritten = lab.sandbox.run_other("sh", ["-c", rewrite]).ended(0);
    let refused = status(&lab).ended(6).json();
    let said = refused["nodes"]["n7"]["error"].as_str().unwrap_or_default();
    assert!(said.contains("has an incompatible version; any change by this netemctl replaces it"), "{said}");
    assert!(is_there(third));
    let _clear = run(&lab, "clear").ended(0);
    let fourth = keeper(&lab, "n7");
    assert_ne!(fourth, third);
    assert_eq!(fs::read_dir(&run_n1).unwrap().count(), 1);
    wait_until("the keeper has ended", || !is_there(fourth));
    assert_eq!(fs::read_dir(&run_n1).unwrap().count(), 0);
}

/// netemctl must limit the output that it stores. An endless answer has gigabytes within seconds.
#[test]
fn endless_output_of_a_host_during_push_ends_the_copy() {
    let lab = Lab::up("uniform-3-rtt0");
    write_inventory(&lab, "n1", "db0");
    for reads in ["cat >/dev/null; ", ""] {
        let endless = format!("case \"$*\" in *mktemp*) {reads}exec yes;; *) exit 69;; esac");
        lab.sandbox.write("ssh", endless);
        let ssh = format!("sh {}/ssh", lab.sandbox.path().display());
        let limited = "ulimit -v 4000000; exec \"$NETEMCTL\" --inventory inventory.toml --ssh \"$0\" --push status";
        let answer = lab.sandbox.run_other("sh", ["-c", limited, &ssh]).ended(6);
        assert!(answer.stdout.contains("netemctl could not be copied there"), "{answer}");
    }
}

#[test]
fn the_ssh_sessions_interface_and_a_missing_netemctl_are_errors_of_one_line() {
    let lab = lab();
    write_inventory(&lab, "n1", "mgmt0");
    let refused = status(&lab).ended(6).json();
    let said = refused["nodes"]["n1"]["error"].as_str().unwrap_or_default();
    assert!(said.contains("interface mgmt0 has the address that this ssh session came in by"), "{said}");
    write_inventory(&lab, "n1", "db0");
    fs::remove_file(lab.sandbox.path().join("netemctl")).unwrap();
    let lacks = status(&lab).ended(6).json();
    let said = lacks["nodes"]["n1"]["error"].as_str().unwrap_or_default();
    assert_eq!(
        said,
        "no agent at ssh://n1: there is no netemctl on the host; install it there, or copy this one there with --push"
    );
    assert_eq!(fs::read_dir(lab.sandbox.path().join("run-n1")).unwrap().count(), 0);
}
