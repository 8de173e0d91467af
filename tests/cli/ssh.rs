//! Agents by ssh, without an sshd: the ssh here is a script that runs in a node of a lab what a real one would run on a
//! host. Real sshds are in `tests/kernel`.

use std::fs;

use super::harness::{Answer, Lab, wait_until};

/// Each node has a `/run` of its own, as hosts have, and a login shell that talks.
const FAKE: &str = r#"
while [ "$1" != -- ]; do shift; done
echo "Welcome to $2"
exec "$NETEMCTL" lab exec "$2" -- unshare -m sh -c '
    mount --bind "$0/run-$1" /run
    HOME=$0/home PATH=$0:$PATH SSH_CONNECTION="10.77.0.200 5 10.77.0.1 22" exec sh -c "$2"
' "${0%/*}" "$2" "$3"
"#;

fn lab() -> Lab {
    let lab = Lab::up("uniform-3-rtt0");
    lab.sandbox.write("ssh", FAKE);
    let _linked = lab.sandbox.run_other("sh", ["-c", "ln -s \"$NETEMCTL\" netemctl; mkdir run-n1"]).ended(0);
    place(&lab, "n1", "db0");
    // It would have the interface, as any other agent of the host.
    lab.sandbox.kill(lab.sandbox.agent("n1"));
    lab
}

/// Has the inventory say which node the host is, and which interface is the database's.
fn place(lab: &Lab, node: &str, interface: &str) {
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
fn a_keeper_serves_one_command_after_the_other_is_replaced_by_a_change_and_ends_with_nothing_left() {
    let lab = lab();
    let first = keeper(&lab, "n1");
    assert_eq!(keeper(&lab, "n1"), first);
    // It allows another interface. A question replaces no keeper: somebody else's change may be under way there.
    place(&lab, "n1", "lo");
    assert_eq!(keeper(&lab, "n1"), first);
    let _clear = run(&lab, "clear").ended(0);
    let second = keeper(&lab, "n1");
    assert_ne!(second, first);
    // Nothing is in force that would be the other node's.
    place(&lab, "n7", "lo");
    let refused = status(&lab).ended(6).json();
    let said = refused["nodes"]["n7"]["error"].as_str().unwrap_or_default();
    assert!(
        said.contains("this host is node n1 by its keeper, which exits after 10 s without a request, not n7"),
        "{said}"
    );
    let _clear = run(&lab, "clear").ended(0);
    let third = keeper(&lab, "n7");
    assert_ne!(third, second);
    let is_there = |pid: i64| fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| !line.is_empty());
    assert!(!is_there(first) && !is_there(second), "each one ends before the next begins");
    // A keeper that talks otherwise is told by the first line of its configuration.
    let run_n1 = lab.sandbox.path().join("run-n1");
    let rewrite = "sed -i '1s/netemctl-agent 4/netemctl-agent 2/' run-n1/netemctl-ssh/*/agent.toml";
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

/// All of what it says would be kept, gigabytes in seconds.
#[test]
fn a_host_that_answers_without_an_end_to_what_is_copied_there_is_not_listened_to() {
    let lab = Lab::up("uniform-3-rtt0");
    place(&lab, "n1", "db0");
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
fn the_interface_of_the_session_and_a_host_without_netemctl_are_one_line_each() {
    let lab = lab();
    place(&lab, "n1", "mgmt0");
    let refused = status(&lab).ended(6).json();
    let said = refused["nodes"]["n1"]["error"].as_str().unwrap_or_default();
    assert!(said.contains("interface mgmt0 has the address that this ssh session came in by"), "{said}");
    place(&lab, "n1", "db0");
    fs::remove_file(lab.sandbox.path().join("netemctl")).unwrap();
    let lacks = status(&lab).ended(6).json();
    let said = lacks["nodes"]["n1"]["error"].as_str().unwrap_or_default();
    assert_eq!(
        said,
        "no agent at ssh://n1: there is no netemctl on the host; install it there, or copy this one there with --push"
    );
    assert_eq!(fs::read_dir(lab.sandbox.path().join("run-n1")).unwrap().count(), 0);
}
