//! Invalid command lines, commands without a lab or an inventory, and invalid configs of agents.

use std::{fs, os::unix::fs::chown};

use nix::unistd::getuid;

use super::harness::Sandbox;

#[test]
fn a_command_line_that_makes_no_sense_ends_with_2_and_says_what_is_right() {
    let sandbox = Sandbox::new();
    let nothing = sandbox.run([]).ended(2);
    assert_eq!(nothing.stdout, "");
    assert_eq!(nothing.stderr, sandbox.run(["-h"]).stdout, "netemctl without arguments prints the short help");
    insta::assert_snapshot!(sandbox.run(["aply", "wan.toml"]), @"
    --- stdout
    --- stderr
    error: unrecognized subcommand 'aply'

      tip: a similar subcommand exists: 'apply'

    Usage: netemctl [OPTIONS] <COMMAND>

    For more information, try '--help'.
    --- exit status: 2
    ");
    insta::assert_snapshot!(sandbox.run(["apply"]), @"
    --- stdout
    --- stderr
    error: the following required arguments were not provided:
      <TOPOLOGY>

    Usage: netemctl apply <TOPOLOGY>

    For more information, try '--help'.
    --- exit status: 2
    ");
    insta::assert_snapshot!(sandbox.run(["apply", "--jsno", "wan.toml"]), @"
    --- stdout
    --- stderr
    error: unexpected argument '--jsno' found

      tip: a similar argument exists: '--json'

    Usage: netemctl apply --json[=<FORM>] <TOPOLOGY>

    For more information, try '--help'.
    --- exit status: 2
    ");
    insta::assert_snapshot!(sandbox.run(["partition"]), @"
    --- stdout
    --- stderr
    error: name sides, or a form such as --halves
    hint: see examples: netemctl partition --help
    --- exit status: 2
    ");
    insta::assert_snapshot!(sandbox.run(["lab", "exec", "n1"]), @"
    --- stdout
    --- stderr
    error: the following required arguments were not provided:
      <PROGRAM>...

    Usage: netemctl lab exec <NODES> <PROGRAM>...

    For more information, try '--help'.
    --- exit status: 2
    ");
    insta::assert_snapshot!(sandbox.run(["verify", "--tolerance", "lots"]), @"
    --- stdout
    --- stderr
    error: invalid value 'lots' for '--tolerance <PERCENT>': write a percentage between 0 and 100

    For more information, try '--help'.
    --- exit status: 2
    ");
    insta::assert_snapshot!(sandbox.run(["verify", "--count", "0"]), @"
    --- stdout
    --- stderr
    error: invalid value '0' for '--count <COUNT>': 0 is not in 1..=10000

    For more information, try '--help'.
    --- exit status: 2
    ");
}

#[test]
fn without_an_inventory_and_a_lab_every_command_names_both_remedies() {
    let sandbox = Sandbox::new();
    let file = sandbox.topology("uniform-3-rtt100");
    let status = sandbox.run(["status"]);
    insta::assert_snapshot!(status, @"
    --- stdout
    --- stderr
    error: no inventory is given, and no lab of this user is up (looked in [DIR]/lab)
    hint: give an inventory: --inventory FILE, or NETEMCTL_INVENTORY=FILE
    hint: or start a lab on this machine: netemctl lab up TOPOLOGY
    --- exit status: 6
    ");
    let others = [
        sandbox.run(["apply", &file]),
        sandbox.run(["verify"]),
        sandbox.run(["set", "n1", "n2", "delay=5ms"]),
        sandbox.run(["unset"]),
        sandbox.run(["partition", "n1"]),
        sandbox.run(["heal"]),
        sandbox.run(["clear"]),
        sandbox.run(["inventory", "show"]),
        sandbox.run(["inventory", "check"]),
    ];
    for other in others {
        assert_eq!(other.to_string(), status.to_string());
    }
    let of_a_lab = sandbox.run(["lab", "status"]);
    insta::assert_snapshot!(of_a_lab, @"
    --- stdout
    --- stderr
    error: no lab is up
    hint: start a lab: netemctl lab up TOPOLOGY
    --- exit status: 6
    ");
    assert_eq!(sandbox.run(["lab", "exec", "n1", "true"]).to_string(), of_a_lab.to_string());
    insta::assert_snapshot!(sandbox.run(["status", "--json"]), @r#"
    --- stdout
    {
      "exit_code": 6,
      "error": {
        "message": "no inventory is given, and no lab of this user is up (looked in [DIR]/lab)",
        "hints": [
          "give an inventory: --inventory FILE, or NETEMCTL_INVENTORY=FILE",
          "or start a lab on this machine: netemctl lab up TOPOLOGY"
        ]
      }
    }
    --- stderr
    error: no inventory is given, and no lab of this user is up (looked in [DIR]/lab)
    hint: give an inventory: --inventory FILE, or NETEMCTL_INVENTORY=FILE
    hint: or start a lab on this machine: netemctl lab up TOPOLOGY
    --- exit status: 6
    "#);
    assert!(!sandbox.lab_directory().exists(), "no command creates the lab directory");
}

#[test]
fn a_bad_topology_is_reported_even_where_no_lab_is_up() {
    let sandbox = Sandbox::new();
    sandbox.write("bad.toml", "name = 'bad'\nnodes = 'n[1-3]'\n[links]\ndefault = { rtt = '10' }\n");
    insta::assert_snapshot!(sandbox.run(["apply", "bad.toml"]), @r#"
    --- stdout
    --- stderr
    error: a unit is missing: write "10ms"
     --> bad.toml:4:19
      |
    4 | default = { rtt = '10' }
      |                   ^^^^ a number without a unit
      |
      = help: the units are ns, us, ms and s

    error: bad.toml: 1 error
    --- exit status: 3
    "#);
}

#[test]
fn a_lab_directory_that_is_too_deep_for_sockets_is_refused_before_anything_is_made() {
    let sandbox = Sandbox::new();
    let file = sandbox.topology("uniform-3-rtt0");
    insta::assert_snapshot!(sandbox.run(["--lab-dir", "a/rather/long/path/to/a/lab", "lab", "up", &file]), @"
    --- stdout
    --- stderr
    error: [DIR]/a/rather/long/path/to/a/lab is too long for the path of a socket; choose a shorter one with --lab-dir
    --- exit status: 2
    ");
    assert!(!sandbox.path().join("a").exists());
}

/// `lab up` and `lab down` empty the lab's directory. A wrong `--lab-dir` must not delete other files.
#[test]
fn a_folder_that_is_not_a_labs_is_never_emptied() {
    let sandbox = Sandbox::new();
    let file = sandbox.topology("uniform-3-rtt0");
    fs::create_dir(sandbox.lab_directory()).unwrap();
    sandbox.write("lab/thesis.txt", "years of work");
    // These two files do not prove that the folder is a lab's directory.
    sandbox.write("lab/layout.json", "{}");
    sandbox.write("lab/lock", "");
    for answer in [sandbox.run(["lab", "down"]), sandbox.run(["lab", "up", &file])] {
        insta::allow_duplicates! {
            insta::assert_snapshot!(answer, @"
            --- stdout
            --- stderr
            error: [DIR]/lab is neither empty nor the directory of a lab; nothing was changed
            hint: choose another directory with --lab-dir
            --- exit status: 5
            ");
        }
        assert_eq!(fs::read_dir(sandbox.lab_directory()).unwrap().count(), 3, "{answer}");
    }
}

#[test]
fn an_empty_folder_can_become_a_lab_directory() {
    let sandbox = Sandbox::new();
    let file = sandbox.topology("uniform-3-rtt0");
    fs::create_dir(sandbox.lab_directory()).unwrap();
    let _up = sandbox.run(["lab", "up", &file]).ended(0);
    let _down = sandbox.run(["lab", "down"]).ended(0);
    sandbox.wait_until_empty();
}

/// In a folder such as /tmp, another user could create the lab directory first and would control the agents' sockets.
#[test]
fn a_folder_of_another_user_is_refused() {
    if !getuid().is_root() {
        // Only root can change the owner of a folder.
        return;
    }
    let sandbox = Sandbox::new();
    let file = sandbox.topology("uniform-3-rtt0");
    fs::create_dir(sandbox.lab_directory()).unwrap();
    chown(sandbox.lab_directory(), Some(65534), Some(65534)).unwrap();
    for answer in [sandbox.run(["lab", "up", &file]), sandbox.run(["lab", "down"]), sandbox.run(["status"])] {
        insta::allow_duplicates! {
            insta::assert_snapshot!(answer, @"
            --- stdout
            --- stderr
            error: the lab directory [DIR]/lab belongs to another user (65534)
            hint: choose another directory with --lab-dir
            --- exit status: 5
            ");
        }
        assert_eq!(fs::read_dir(sandbox.lab_directory()).unwrap().count(), 0, "{answer}");
    }
}

/// The error for a busy lab would be wrong: it advises a retry, which does not help here.
#[test]
fn a_lab_directory_that_is_no_directory_is_not_taken_for_a_busy_one() {
    let sandbox = Sandbox::new();
    sandbox.write("lab", "");
    let down = sandbox.run(["lab", "down"]);
    assert_ne!(down.code(), 0, "{down}");
    assert!(!down.stderr.contains("retry"), "{down}");
}

#[test]
fn with_json_a_usage_error_is_a_document_too() {
    let sandbox = Sandbox::new();
    insta::assert_snapshot!(sandbox.run(["--json", "apply"]), @r#"
    --- stdout
    {
      "exit_code": 2,
      "error": {
        "message": "the following required arguments were not provided:\n  <TOPOLOGY>",
        "hints": [
          "Usage: netemctl apply <TOPOLOGY>"
        ]
      }
    }
    --- stderr
    error: the following required arguments were not provided:
      <TOPOLOGY>
    hint: Usage: netemctl apply <TOPOLOGY>
    --- exit status: 2
    "#);
    let misspelt = sandbox.run(["--json", "aply"]).ended(2).json();
    assert_eq!(misspelt["error"]["hints"][0], "a similar subcommand exists: 'apply'");
    for answer in [sandbox.run(["--json"]), sandbox.run(["lab", "--json"]), sandbox.run(["verify", "--json", "-x"])] {
        let answer = answer.ended(2);
        assert_eq!(answer.json()["exit_code"], 2, "{answer}");
    }
    // `--json` after `--` is an argument of the program in the node, not of netemctl.
    let other = sandbox.run(["lab", "exec", "n1", "--", "ip", "--json"]).ended(6);
    assert_eq!(other.stdout, "");
}

#[test]
fn an_answer_that_cannot_be_written_is_a_failure_but_one_that_nobody_reads_is_not() {
    let sandbox = Sandbox::new();
    let _file = sandbox.topology("uniform-45-rtt100");
    insta::assert_snapshot!(sandbox.run_other("sh", ["-c", "\"$NETEMCTL\" show uniform-45-rtt100.toml >/dev/full"]), @"
    --- stdout
    --- stderr
    error: cannot write the answer to stdout: No space left on device (os error 28)
    hint: the command succeeded: topology uniform-45-rtt100: 45 nodes (n[1-45])
    --- exit status: 10
    ");
    let script = "{ \"$NETEMCTL\" show --json uniform-45-rtt100.toml; echo exit code $? >&2; } | true";
    insta::assert_snapshot!(sandbox.run_other("sh", ["-c", script]), @"
    --- stdout
    --- stderr
    exit code 0
    --- exit status: 0
    ");
}

#[test]
fn an_agent_that_has_no_config_says_where_to_see_one() {
    let sandbox = Sandbox::new();
    insta::assert_snapshot!(sandbox.run(["agent", "--config", "none.toml"]), @"
    --- stdout
    --- stderr
    error: cannot read none.toml: No such file or directory (os error 2)
    hint: see the format: netemctl agent --help
    --- exit status: 3
    ");
    sandbox.write("right.toml", "node = 'n1'\ninterfaces = ['lo', 'none7']\nsocket = 'agent.sock'\n");
    let checked = sandbox.run(["agent", "--config", "right.toml", "--check"]).ended(0).stdout;
    assert!(checked.starts_with("right.toml: ok\n  node: n1\n  shapes: lo, none7\n"), "{checked}");
    assert!(checked.contains("warning: interface none7 does not exist; this machine has "), "{checked}");
}

#[test]
fn all_mistakes_of_an_agents_config_are_shown_with_their_lines() {
    let sandbox = Sandbox::new();
    sandbox.write(
        "agent.toml",
        "node = 'n 1'\ninterface = 'eno2'\nsocket = 'agent.sock'\njournal = './agent.sock'\nlisten = '0.0.0.0:20094'\n\
         allow = ['bridges', 'gateway']\non-drift = 'ignore'\n",
    );
    insta::assert_snapshot!(sandbox.run(["agent", "--config", "agent.toml", "--check"]), @r#"
    --- stdout
    --- stderr
    error: an agent's configuration needs `interfaces`
     --> agent.toml:1:1
      |
    1 | node = 'n 1'
      | ^
      |
      = help: netemctl agent --help shows what the file looks like

    error: `n 1` is not a node's name
     --> agent.toml:1:8
      |
    1 | node = 'n 1'
      |        ^^^^^
      |
      = help: a name is made of ASCII letters, digits, `-`, `.` and `_`, and starts with a letter or a digit

    error: unknown key `interface` in an agent's configuration
     --> agent.toml:2:1
      |
    2 | interface = 'eno2'
      | ^^^^^^^^^ did you mean `interfaces`?
      |
      = help: the keys of an agent's configuration are `node`, `interfaces`, `socket`, `socket-group`, `listen`, `tls`, `journal`, `allow`, `after-reboot`, `on-drift`

    error: `socket` and `journal` are the same file
     --> agent.toml:4:11
      |
    3 | socket = 'agent.sock'
      |          ------------ `socket`
    4 | journal = './agent.sock'
      |           ^^^^^^^^^^^^^^
      |
      = help: give each a path of its own

    error: anyone who reaches 0.0.0.0:20094 could change this node: [tls] is missing
     --> agent.toml:5:10
      |
    5 | listen = '0.0.0.0:20094'
      |          ^^^^^^^^^^^^^^^
      |
      = help: add a [tls] section with the files of `netemctl pki issue`, or listen on 127.0.0.1

    error: `bridges` is not a value of `allow`
     --> agent.toml:6:10
      |
    6 | allow = ['bridges', 'gateway']
      |          ^^^^^^^^^ did you mean `bridge`?
      |
      = help: the choices of `allow` are "default-route", "controller", "bridge", "gateway"

    error: `ignore` is not a value of `on-drift`
     --> agent.toml:7:12
      |
    7 | on-drift = 'ignore'
      |            ^^^^^^^^
      |
      = help: the choices of `on-drift` are "report", "repair"

    error: agent.toml: 7 errors
    --- exit status: 3
    "#);
    sandbox.write("silent.toml", "node = 'n1'\ninterfaces = ['eno2']\n[tls]\nca = 'ca.pem'\nkey = ''\n");
    insta::assert_snapshot!(sandbox.run(["agent", "--config", "silent.toml"]), @r#"
    --- stdout
    --- stderr
    error: `tls` is for a port, and there is none
     --> silent.toml:3:2
      |
    3 | [tls]
      |  ^^^
      |
      = help: add `listen = "ADDRESS:PORT"`

    error: `tls` needs `cert`
     --> silent.toml:3:2
      |
    3 | [tls]
      |  ^^^ `cert` is missing
      |
      = help: `netemctl pki issue` makes the files of `ca`, `cert` and `key`

    error: the file's name is empty
     --> silent.toml:5:7
      |
    5 | key = ''
      |       ^^

    error: silent.toml: 3 errors
    --- exit status: 3
    "#);
}

#[test]
fn a_system_error_names_its_operation() {
    let sandbox = Sandbox::new();
    insta::assert_snapshot!(sandbox.run(["send-namespace-socket"]), @"
    --- stdout
    --- stderr
    error: cannot send the network namespace to stdin: Socket operation on non-socket (os error 88)
    --- exit status: 1
    ");
    sandbox.write("inventory.toml", "[defaults]\ntransport = 'ssh'\ninterface = 'eno2'\n[nodes]\nn1 = {}\n");
    // The limit allows stdin, stdout, stderr and one file for the inventory.
    let script = "ulimit -n 4; exec \"$NETEMCTL\" inventory check inventory.toml";
    insta::assert_snapshot!(sandbox.run_other("sh", ["-c", script]), @"
    --- stdout
    --- stderr
    error: cannot wait for events: Too many open files (os error 24)
    --- exit status: 1
    ");
}

#[test]
fn a_range_without_brackets_in_an_inventory_is_warned_of() {
    let sandbox = Sandbox::new();
    sandbox.write("inventory.toml", "[defaults]\ninterface = 'eno2'\n[nodes]\n'n1-9' = {}\n");
    insta::assert_snapshot!(sandbox.run(["inventory", "show", "inventory.toml"]), @r#"
    --- stdout
    inventory: inventory.toml

    NODE  AGENT               INTERFACE  ADDRESSES
    n1-9  https://n1-9:20094  eno2       all
    --- stderr
    warning: `n1-9` is the name of one node
     --> inventory.toml:4:1
      |
    4 | 'n1-9' = {}
      | ^^^^^^ did you mean "n[1-9]"?
      |
      = help: a range needs brackets

    --- exit status: 0
    "#);
    let shown = sandbox.run(["--json", "inventory", "show", "inventory.toml"]).ended(0).json();
    assert_eq!((&shown["warnings"][0]["severity"], &shown["warnings"][0]["line"]), (&"warning".into(), &4.into()));
    let topology = "name = 'lan'\nnodes = 'n[1-9]'\n[links]\ndefault = { rtt = '10ms' }\n";
    sandbox.write("lan.toml", topology);
    let planned = sandbox.run(["plan", "lan.toml", "--offline", "--inventory", "inventory.toml"]).ended(2).stderr;
    assert!(planned.starts_with("warning: `n1-9` is the name of one node (inventory.toml:4)\n"), "{planned}");
    let own = "[inventory.nodes]\n'n[1-9]' = { interface = 'eno2' }\n'gw1-2' = { interface = 'eno2' }\n";
    sandbox.write("lan.toml", format!("{topology}{own}"));
    let checked = sandbox.run(["--json", "check", "lan.toml"]).ended(0).json();
    assert_eq!(checked["warnings"][0]["message"], "`gw1-2` is the name of one node");
    let planned = sandbox.run(["--json", "plan", "lan.toml", "--offline"]).json();
    assert_eq!(planned["warnings"][0]["line"], 7, "{planned}");
}
