//! `lab exec` in several nodes and in the background, `lab ps`, `lab restart`, and the end of programs with the lab.

use std::{fs, path::Path};

use serde_json::{Value, json};

use super::harness::{Lab, Sandbox, wait_until};

impl Lab {
    /// Starts a shell script in the background of a node. Its command line has the sandbox's folder.
    fn start(&self, node: &str, script: &str) -> Value {
        let script = format!(": {}; {script}", self.sandbox.path().display());
        self.run(["--json", "lab", "exec", "--detach", node, "--", "sh", "-c", &script]).ended(0).json()
    }

    /// The programs in all nodes, each as node and name.
    fn programs(&self) -> Vec<String> {
        let listed = self.run(["lab", "ps", "--json"]).ended(0).json();
        let programs = listed["programs"].as_array().expect("programs").iter();
        let name = |program: &Value| format!("{} {}", text(&program["node"]), text(&program["command"][0]));
        programs.map(name).collect()
    }
}

fn text(value: &Value) -> &str {
    value.as_str().expect("a text")
}

/// Regression: `lab down` left programs of `lab exec` running without a network and did not report them.
#[test]
fn what_exec_has_started_ends_with_the_lab() {
    let lab = Lab::up("uniform-3-rtt0");
    let agents = lab.sandbox.processes();
    let _background = lab.start("n[1-2]", "while :; do sleep 300; done");
    // Two daemons: one in another session, and one with another parent and an empty environment.
    let path = lab.sandbox.path().display();
    let daemon = format!(
        "setsid sh -c ': {path}; sleep 300; :' </dev/null >/dev/null 2>&1 &
        env -i sh -c 'sleep 300; : {path}' >/dev/null 2>&1 &"
    );
    let _daemons = lab.run(["lab", "exec", "n3", "--", "sh", "-c", &daemon]).ended(0);
    wait_until("all programs run", || lab.programs().len() >= 8);
    insta::assert_snapshot!(lab.run(["lab", "down", "--if-idle"]), @"
    --- stdout
    --- stderr
    error: programs run in the lab: sh in n[1-3], sleep in n[1-3]; nothing was changed
    hint: see them: netemctl lab ps
    hint: end them: omit --if-idle
    --- exit status: 5
    ");
    assert_eq!(lab.run(["lab", "down", "--keep", "--json"]).ended(5).json()["exit_code"], 5);
    assert!(lab.sandbox.processes().is_superset(&agents), "the keeper and the agents still run");
    insta::assert_snapshot!(lab.run(["lab", "down"]), @"
    --- stdout
    ended: sh in n[1-3], sleep in n[1-3]
    the lab is down; its directory is removed
    --- stderr
    --- exit status: 0
    ");
    lab.sandbox.wait_until_empty();
}

/// The program has one process. A forking shell could be listed twice if `lab down` found it between fork and exec.
#[test]
fn a_program_that_does_not_heed_sigterm_is_killed() {
    let lab = Lab::up("uniform-3-rtt0");
    let _program = lab.start("n2", "trap '' TERM HUP; exec sleep 300");
    wait_until("the program ignores SIGTERM", || lab.programs() == ["n2 sleep"]);
    let down = lab.run(["lab", "down", "--json"]).ended(0).json();
    let ended = down["ended"].as_array().expect("programs");
    let [program] = &ended[..] else { panic!("{down}") };
    assert_eq!((&program["program"], &program["killed"]), (&json!("sleep"), &json!(true)), "{down}");
    lab.sandbox.wait_until_empty();
}

/// Such programs keep the namespaces of their node alive, so netemctl finds the node by its namespace.
#[test]
fn programs_of_a_lab_whose_keeper_was_killed_are_ended_by_down_and_reported_by_up() {
    let lab = Lab::up("uniform-3-rtt0");
    let _background = lab.start("n1", "exec sleep 300");
    wait_until("the program runs", || lab.programs() == ["n1 sleep"]);
    lab.sandbox.kill(lab.keeper());
    wait_until("the agents are gone", || lab.sandbox.processes().is_empty());
    insta::assert_snapshot!(lab.run(["lab", "status"]), @"
    --- stdout
    --- stderr
    error: no lab is up
    hint: clean up: netemctl lab down
    --- exit status: 6
    ");
    insta::assert_snapshot!(lab.run(["status"]), @"
    --- stdout
    --- stderr
    error: no inventory is given, and no lab of this user is up (looked in [DIR]/lab)
    hint: give an inventory: --inventory FILE, or NETEMCTL_INVENTORY=FILE
    hint: or clean up the lab whose keeper was killed: netemctl lab down
    --- exit status: 6
    ");
    insta::assert_snapshot!(lab.run(["lab", "up", "uniform-3-rtt0.toml"]), @"
    --- stdout
    --- stderr
    error: programs of a lab whose keeper was killed still run: sleep in n1
    hint: end them: netemctl lab down
    --- exit status: 9
    ");
    insta::assert_snapshot!(lab.run(["lab", "down"]), @"
    --- stdout
    ended: sleep in n1
    no lab is up; a killed lab was cleaned up
    --- stderr
    --- exit status: 0
    ");
    let _up = lab.run(["lab", "up", "uniform-3-rtt0.toml"]).ended(0);
}

#[test]
fn down_spares_and_reports_the_shell_that_it_runs_in() {
    let lab = Lab::up("uniform-3-rtt0");
    let down = "\"$0\" lab down --json; echo $? >&2";
    let netemctl = super::harness::binary();
    let answer = lab.run(["lab", "exec", "n1", "--", "sh", "-c", down, netemctl]).ended(0);
    assert_eq!(answer.stderr, "0\n", "{answer}");
    let left = &answer.json()["left"];
    assert_eq!((&left[0]["node"], &left[0]["program"]), (&json!("n1"), &json!("sh")), "{answer}");
}

#[test]
fn ps_shows_programs_with_their_nodes_and_neither_agents_nor_the_keeper() {
    let lab = Lab::up("hierarchical-9");
    insta::assert_snapshot!(lab.run(["lab", "ps"]), @"
    --- stdout
    no program runs in the nodes
    --- stderr
    --- exit status: 0
    ");
    let _one = lab.start("n1", "exec sleep 300");
    let _other = lab.start("Z2", "exec sleep 400");
    wait_until("the programs run", || lab.programs() == ["n1 sleep", "n4 sleep", "n5 sleep", "n6 sleep"]);
    assert_eq!(lab.run(["lab", "ps", "n[2-3]"]).ended(0).stdout, "no program runs in n[2-3]\n");
    let in_zone = lab.run(["lab", "ps", "Z2", "--json"]).ended(0).json();
    let programs = in_zone["programs"].as_array().expect("programs");
    assert_eq!(programs.len(), 3, "{in_zone}");
    assert_eq!(programs[0]["command"], json!(["sleep", "400"]));
    assert!(programs[0]["pid"].as_i64().is_some_and(|pid| Path::new(&format!("/proc/{pid}")).exists()));
    assert!(programs[0]["age_s"].as_f64().is_some_and(|age| (0.0..100.0).contains(&age)), "{in_zone}");
    let drawn = lab.run(["lab", "ps", "n1", "n[4-5]"]).ended(0).stdout;
    let header: Vec<&str> = drawn.lines().next().unwrap_or_default().split_whitespace().collect();
    assert_eq!(header, ["NODE", "PID", "AGE", "COMMAND"]);
    assert_eq!(drawn.lines().filter(|line| line.ends_with("sleep 400")).count(), 2, "{drawn}");
    insta::assert_snapshot!(lab.run(["lab", "ps", "Z4"]), @"
    --- stdout
    --- stderr
    error: no zone or node is called Z4; zones: Z[1-3]; nodes: n[1-9]
    --- exit status: 2
    ");
}

#[test]
fn exec_in_several_nodes_prefixes_each_line_with_its_node() {
    let lab = Lab::up("hierarchical-9");
    insta::assert_snapshot!(sorted(&lab.run(["lab", "exec", "Z1,n9", "--", "sh", "-c", "echo $NETEMCTL_NODE; printf end"]).ended(0).stdout), @"
    n1: end
    n1: n1
    n2: end
    n2: n2
    n3: end
    n3: n3
    n9: end
    n9: n9
    ");
    let answer = lab.run(["lab", "exec", "n[1-3]", "--", "sh", "-c", "echo out; echo err >&2"]).ended(0);
    assert_eq!(sorted(&answer.stdout), "n1: out\nn2: out\nn3: out\n");
    assert_eq!(sorted(&answer.stderr), "n1: err\nn2: err\nn3: err\n");
    // The programs run at the same time: each waits for the others.
    let meet = "touch met-$NETEMCTL_NODE; while ! [ -e met-n1 -a -e met-n2 -a -e met-n3 ]; do sleep 0.1; done";
    let _met = lab.run(["lab", "exec", "Z1", "--", "sh", "-c", meet]).ended(0);
    insta::assert_snapshot!(lab.run(["lab", "exec", "n[1-4]", "--", "sh", "-c", "case $NETEMCTL_NODE in n2|n3) exit 7;; n4) exit 8;; esac"]), @"
    --- stdout
    --- stderr
    error: failed in n[2-4] (3 of 4 nodes)
      n[2-3]: exit code 7
      n4: exit code 8
    --- exit status: 7
    ");
    insta::assert_snapshot!(lab.run(["lab", "exec", "n[1-2]", "--", "/no/such/program"]), @"
    --- stdout
    --- stderr
    error: failed in n[1-2] (2 of 2 nodes)
      n[1-2]: no program /no/such/program
    --- exit status: 127
    ");
    insta::assert_snapshot!(lab.run(["lab", "exec", "n[1,12]", "--", "true"]), @"
    --- stdout
    --- stderr
    error: no zone or node is called n12; zones: Z[1-3]; nodes: n[1-9]
    --- exit status: 2
    ");
}

fn sorted(text: &str) -> String {
    let mut lines: Vec<&str> = text.split_inclusive('\n').collect();
    lines.sort_unstable();
    lines.concat()
}

#[test]
fn exec_in_several_nodes_is_one_document() {
    let lab = Lab::up("uniform-3-rtt0");
    let script = "echo in $NETEMCTL_NODE; echo err >&2; test $NETEMCTL_NODE != n2";
    let answer = lab.run(["lab", "exec", "--json", "*", "--", "sh", "-c", script]).ended(1).json();
    let failed = json!({ "exit_code": 1, "stdout": "in n2\n", "stderr": "err\n" });
    assert_eq!((&answer["exit_code"], &answer["nodes"]["n2"]), (&1.into(), &failed));
    assert_eq!(answer["nodes"]["n3"], json!({ "exit_code": 0, "stdout": "in n3\n", "stderr": "err\n" }));
    let answer = lab.run(["lab", "exec", "--json", "n[1-2]", "--", "/no/such/program"]).ended(127).json();
    let error = "no program /no/such/program";
    assert_eq!(answer["nodes"]["n1"], json!({ "exit_code": 127, "stdout": "", "stderr": "", "error": error }));
}

#[test]
fn an_interruption_ends_the_programs_in_all_nodes() {
    let lab = Lab::up("uniform-3-rtt0");
    for (way, code) in [("kill -INT $!; wait $!; exit $?", 130), ("wait $!; exit $?", 124)] {
        let timeout = if code == 124 { "--timeout 2" } else { "" };
        let script = format!(
            "\"$NETEMCTL\" lab exec {timeout} 'n[1-3]' -- sh -c 'sleep 300 & sleep 300; : {}' & sleep 1.5; {way}",
            lab.sandbox.path().display()
        );
        let answer = lab.sandbox.run_other("bash", ["-m", "-c", &script]).ended(code);
        assert!(answer.stderr.contains("; the program was ended in all nodes"), "{answer}");
        wait_until("no program is left", || lab.programs().is_empty());
    }
}

#[test]
fn a_program_in_the_background_has_a_log_that_goes_with_the_lab() {
    let lab = Lab::up("uniform-3-rtt0");
    let script = "echo out; echo err >&2; exec sleep 300";
    let started = lab.run(["lab", "exec", "--detach", "n[1-2]", "--", "sh", "-c", script]).ended(0);
    let lines: Vec<&str> = started.stdout.lines().collect();
    assert!(lines[0].starts_with("n1: sh runs as process "), "{started}");
    assert_eq!(lines[2], "netemctl lab down ends the program and removes the log");
    let answer = lab.run(["--json", "lab", "exec", "--detach", "n3", "--", "sh", "-c", script]).ended(0).json();
    let log = text(&answer["nodes"]["n3"]["log"]).replace("[DIR]", &lab.sandbox.path().to_string_lossy());
    wait_until("the log is there", || fs::read_to_string(&log).is_ok_and(|text| text == "out\nerr\n"));
    wait_until("the programs run", || lab.programs() == ["n1 sleep", "n2 sleep", "n3 sleep"]);
    insta::assert_snapshot!(lab.run(["lab", "exec", "--detach", "n[1-3]", "--", "/etc/passwd"]), @"
    --- stdout
    --- stderr
    error: failed in n[1-3] (3 of 3 nodes)
      n[1-3]: cannot run /etc/passwd: Permission denied (os error 13)
    --- exit status: 126
    ");
    let ended = lab.run(["lab", "down", "--json"]).ended(0).json();
    assert_eq!(ended["ended"].as_array().map(Vec::len), Some(3), "{ended}");
    assert!(!Path::new(&log).exists());
}

#[test]
fn a_node_that_is_restarted_loses_its_programs_and_keeps_what_is_in_force() {
    let lab = Lab::up("uniform-3-rtt0");
    let _all = lab.start("*", "exec sleep 300");
    wait_until("the programs run", || lab.programs().len() == 3);
    let before = lab.sandbox.agent("n2");
    insta::assert_snapshot!(lab.run(["lab", "restart", "n2"]), @"
    --- stdout
    ended: sleep in n2
    restarted n2; its agent continues from its journal
    --- stderr
    --- exit status: 0
    ");
    let agent = lab.sandbox.agent("n2");
    assert_ne!(agent, before);
    let called = fs::read_to_string(format!("/proc/{agent}/comm")).expect("the agent runs");
    assert_eq!(called, "netemctl\n", "the name in ps and top");
    assert_eq!(lab.programs(), ["n1 sleep", "n3 sleep"]);
    assert_eq!(lab.in_force()["ok"], true);
    // The restarted agent reads its state from the journal.
    let _cleared = lab.run(["clear", "--only", "n2"]).ended(0);
    let generation = |node: &str| lab.run(["status", "--json"]).json()["nodes"][node]["stamp"]["generation"].clone();
    let before = generation("n2");
    let answer = lab.run(["lab", "restart", "n[1-2]", "--json"]).ended(0).json();
    assert_eq!((&answer["nodes"], &answer["ended"][0]["program"]), (&json!(["n1", "n2"]), &json!("sleep")));
    assert_eq!(generation("n2"), before);
    // `lab restart` also starts a dead agent again.
    lab.sandbox.kill(lab.sandbox.agent("n3"));
    let _dead = lab.run(["lab", "status"]).ended(6);
    let _restarted = lab.run(["lab", "restart", "n3"]).ended(0);
    let _alive = lab.run(["lab", "status"]).ended(0);
}

#[test]
fn a_system_error_names_its_file() {
    let lab = Lab::up("uniform-3-rtt0");
    let folder = lab.sandbox.lab_directory().join("nodes/n2");
    fs::remove_dir_all(&folder).expect("the folder of n2 is there");
    fs::write(&folder, "").expect("a file can be in its place");
    let restart = lab.run(["lab", "restart", "n2"]).ended(1);
    assert!(restart.stderr.contains("cannot start the agent of n2: [DIR]/lab/nodes/n2: File exists"), "{restart}");
    fs::remove_file(lab.sandbox.lab_directory().join("keeper.sock")).expect("the keeper has a socket");
    let restart = lab.run(["lab", "restart", "n2"]).ended(6);
    assert!(restart.stderr.contains("does not answer at [DIR]/lab/keeper.sock: No such file"), "{restart}");
}

#[test]
fn the_log_of_an_agent_does_not_grow_without_end() {
    let lab = Lab::up("uniform-3-rtt0");
    let log = lab.sandbox.lab_directory().join("nodes/n1/agent.log");
    fs::write(&log, vec![b'x'; 600_000]).expect("the log can be written");
    let _restarted = lab.run(["lab", "restart", "n1"]).ended(0);
    let size = |name: &str| fs::metadata(log.with_file_name(name)).map_or(0, |file| file.len());
    assert!((600_000..700_000).contains(&size("agent.log.1")), "{}", size("agent.log.1"));
    assert!((1..100_000).contains(&size("agent.log")), "{}", size("agent.log"));
}

/// If a server listens on IPv4 only, a client that tries IPv6 first loses one RTT to the refused connection.
#[test]
fn names_in_a_lab_are_ipv4_addresses_first_or_as_the_user_says() {
    let first = |lab: &Lab, name: &str| {
        let addresses = lab.run(["lab", "exec", "n1", "--", "getent", "ahosts", name]).ended(0).stdout;
        addresses.split_whitespace().next().unwrap_or_default().to_owned()
    };
    let lab = Lab::up("uniform-3-rtt0");
    assert_eq!(first(&lab, "n2"), "10.78.0.2");
    assert_eq!(first(&lab, "n2.mgmt"), "10.77.0.2");
    assert_eq!(first(&lab, "localhost"), "127.0.0.1");
    // The server listens on IPv4 only. The client tries the addresses in the order of getaddrinfo.
    let _server = lab.run(["lab", "exec", "--detach", "n2", "--", "python3", "-m", "http.server", "8000"]).ended(0);
    let connect = "import socket; print(socket.getaddrinfo('n2', 8000, type=socket.SOCK_STREAM)[0][4][0]); \
                   socket.create_connection(('n2', 8000))";
    let connects = || lab.run(["lab", "exec", "n1", "--", "python3", "-c", connect]);
    wait_until("the client connects", || connects().code() == 0);
    assert_eq!(connects().stdout, "10.78.0.2\n");
    let _down = lab.run(["lab", "down"]).ended(0);
    let _up = lab.run(["lab", "up", "uniform-3-rtt0.toml", "--prefer", "ipv6"]).ended(0);
    assert_eq!(first(&lab, "n2"), "fd78::2");
    assert_eq!(first(&lab, "n2.mgmt"), "fd77::2");
}

/// Regression: the agents did not start, with "No such file or directory" and no path.
#[test]
fn a_lab_comes_up_on_a_host_without_a_hosts_file() {
    let sandbox = Sandbox::new();
    let _file = sandbox.topology("uniform-3-rtt0");
    let script = "
        mount -t tmpfs none /etc && mkdir /etc/folder && echo kept >/etc/folder/file && ln -s folder/file /etc/link &&
        echo 'hosts: files' >/etc/nsswitch.conf && \"$NETEMCTL\" lab up uniform-3-rtt0.toml || exit
        \"$NETEMCTL\" lab exec n1 -- sh -c 'getent ahosts n3; cat /etc/link /etc/nsswitch.conf'
        code=$?
        \"$NETEMCTL\" lab down
        ls /etc
        exit $code";
    let answer = sandbox.run_other("unshare", ["--map-root-user", "--mount", "sh", "-c", script]).ended(0);
    let lines: Vec<&str> = answer.stdout.lines().collect();
    assert!(lines[1].starts_with("10.78.0.3"), "{answer}");
    let rest = "kept\nhosts: files\nthe lab is down; its directory is removed\nfolder\nlink\nnsswitch.conf\n";
    assert!(answer.stdout.ends_with(rest), "{answer}");
}
