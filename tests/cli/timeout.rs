//! `--timeout`: whatever delays a command, it ends in time, with an error and without leftovers.

use std::time::{Duration, Instant};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::harness::{Answer, Lab, Sandbox, wait_until};

/// The limit for a command on a busy machine. Without `--timeout`, each command here would take far longer.
const IN_TIME: Duration = Duration::from_mins(1);

fn in_time<T>(work: impl FnOnce() -> T) -> T {
    let began = Instant::now();
    let done = work();
    assert!(began.elapsed() < IN_TIME, "the command took {:?}", began.elapsed());
    done
}

#[test]
fn an_invalid_timeout_is_a_usage_error() {
    let sandbox = Sandbox::new();
    for bad in ["0", "-1", "soon", "1e99", "nan", "inf", "5m", ""] {
        let answer = sandbox.run(["check", "wan.toml", &format!("--timeout={bad}")]).ended(2);
        assert!(answer.stderr.contains("write seconds above 0, such as 30 or 0.5"), "{answer}");
    }
    let file = sandbox.topology("uniform-3-rtt0");
    for good in ["30", "0.5s", "3e1"] {
        let _checked = sandbox.run(["check", &file, "--timeout", good]).ended(0);
    }
}

#[test]
fn a_file_that_nobody_finishes_to_write_does_not_hold_a_command_up() {
    let sandbox = Sandbox::new();
    let _made = sandbox.run_other("mkfifo", ["pipe.toml"]).ended(0);
    insta::assert_snapshot!(in_time(|| sandbox.run(["check", "pipe.toml", "--timeout", "0.5", "--json"])), @r#"
    --- stdout
    {
      "exit_code": 124,
      "error": {
        "message": "timed out after 0.5 s; nothing was changed"
      }
    }
    --- stderr
    error: timed out after 0.5 s; nothing was changed
    --- exit status: 124
    "#);
}

#[test]
fn a_lab_that_does_not_come_up_in_time_leaves_nothing() {
    let sandbox = Sandbox::new();
    let file = sandbox.topology("uniform-45-rtt0");
    // On a slow machine the shortest time ends before the lab has begun.
    let is_removed = |seconds: &str| {
        let up = in_time(|| sandbox.run(["lab", "up", &file, "--timeout", seconds])).ended(124);
        sandbox.wait_until_empty();
        let has_begun = !up.stderr.contains("nothing was changed");
        assert!(!has_begun || up.stderr.contains(&format!("timed out after {seconds} s; the lab was removed")), "{up}");
        has_begun
    };
    assert!(["0.3", "0.6", "1.2"].into_iter().any(is_removed), "no time ended while the lab came up");
    let _up = sandbox.run(["lab", "status"]).ended(6);
}

#[test]
fn an_agent_that_was_stopped_holds_no_command_up_and_nothing_is_changed_without_it() {
    let lab = Lab::up("uniform-3-rtt100");
    let stopped = Pid::from_raw(lab.sandbox.agent("n2"));
    kill(stopped, Signal::SIGSTOP).expect("an own process can be stopped");
    let timed_out = |answer: Answer, fate: &str| {
        let answer = answer.ended(124);
        assert!(answer.stderr.contains(&format!("error: timed out after 1 s; {fate}\n")), "{answer}");
    };
    in_time(|| timed_out(lab.run(["clear", "--timeout", "1"]), "rolled back on all nodes"));
    in_time(|| timed_out(lab.run(["apply", "uniform-3-rtt100.toml", "--timeout", "1"]), "rolled back on all nodes"));
    in_time(|| timed_out(lab.run(["plan", "uniform-3-rtt100.toml", "--timeout", "1"]), "nothing was changed"));
    in_time(|| timed_out(lab.run(["verify", "--timeout", "1"]), "nothing was changed"));
    // `status` prints the answers of the other nodes although one does not answer.
    let status = in_time(|| lab.run(["status", "--json", "--timeout", "1"])).ended(6).json();
    assert_eq!(
        (&status["nodes"]["n1"]["state"], &status["nodes"]["n2"]["state"]),
        (&"ok".into(), &"unreachable".into())
    );
    let status = in_time(|| lab.run(["lab", "status", "--json", "--timeout", "1"])).ended(6).json();
    assert_eq!(status["nodes"]["n1"]["agent"], "up");
    kill(stopped, Signal::SIGCONT).expect("an own process can be continued");
    assert_eq!(lab.in_force()["ok"], true);
    let _cleared = lab.run(["clear", "--timeout", "60"]).ended(0);
    // With --only, the wait for other nodes is shorter than the normal limit of a call.
    kill(stopped, Signal::SIGSTOP).expect("an own process can be stopped");
    let _cleared = lab.run(["clear", "--only", "n1", "--timeout", "9"]).ended(0);
    kill(stopped, Signal::SIGCONT).expect("an own process can be continued");
}

#[test]
fn a_measurement_that_takes_longer_than_there_is_time_is_not_begun() {
    let lab = Lab::up("uniform-3-rtt0");
    let answer = lab.run(["verify", "--count", "10000", "--timeout", "20"]).ended(124);
    assert!(answer.stderr.contains("measuring 6 pairs takes"), "{answer}");
    assert!(answer.stderr.contains("hint: increase --timeout, or reduce --count"), "{answer}");
}

#[test]
fn a_program_in_a_node_is_ended_with_all_that_it_started() {
    let lab = Lab::up("uniform-3-rtt0");
    // The sandbox's folder is in the command lines, so the test finds only its own processes.
    let path = lab.sandbox.path().to_string_lossy().into_owned();
    let script = format!("sh -c 'sleep 300; : {path}' & sh -c 'sleep 300; : {path}'; :");
    let before = lab.sandbox.processes();
    let exec = in_time(|| lab.run(["lab", "exec", "--timeout", "1", "n1", "--", "sh", "-c", &script])).ended(124);
    assert!(exec.stderr.contains("error: timed out after 1 s; the program was ended\n"), "{exec}");
    wait_until("the programs are gone", || lab.sandbox.processes() == before);
    let in_time = lab.run(["lab", "exec", "--timeout", "60", "n1", "--", "sh", "-c", "echo $NETEMCTL_NODE; exit 5"]);
    assert_eq!(in_time.ended(5).stdout, "n1\n");
}

#[test]
fn sigterm_ends_a_command_as_ctrl_c_does_with_its_document() {
    let lab = Lab::up("uniform-3-rtt0");
    let script = "
        \"$NETEMCTL\" verify --json --count 10000 & sleep 2; kill -TERM $!; wait $!; exit $?";
    let answer = in_time(|| lab.sandbox.run_other("sh", ["-c", script])).ended(130);
    assert_eq!(answer.json()["error"]["message"], "interrupted; nothing was changed");
    assert_eq!(answer.json()["exit_code"], 130);
}

#[test]
fn an_answer_that_cannot_be_written_is_told_from_a_command_that_failed() {
    let lab = Lab::up("uniform-3-rtt0");
    let full = |arguments: &str| {
        let script = format!("\"$NETEMCTL\" {arguments} >/dev/full");
        lab.sandbox.run_other("sh", ["-c", &script]).ended(10).stderr
    };
    for (arguments, done) in [
        ("check uniform-3-rtt0.toml", "uniform-3-rtt0.toml: topology uniform-3-rtt0, 3 nodes, no zones: ok"),
        ("clear", "nothing is in force"),
        ("clear --json", "nothing is in force"),
    ] {
        let said = full(arguments);
        assert!(said.starts_with("error: cannot write the answer to stdout: No space left"), "{said}");
        assert!(said.contains(&format!("hint: the command succeeded: {done}")), "{said}");
    }
}
