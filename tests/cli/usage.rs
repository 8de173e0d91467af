//! Command lines that make no sense, and verbs that have nothing to work on.

use std::fs;

use super::harness::Sandbox;

#[test]
fn a_command_line_that_makes_no_sense_ends_with_2_and_says_what_is_right() {
    let sandbox = Sandbox::new();
    insta::assert_snapshot!(sandbox.run([]), @"
    --- stdout
    --- stderr
    error: 'netemctl' requires a subcommand but one was not provided
      [subcommands: check, show, plan, apply, verify, status, partition, heal, clear, lab, agent, help]

    Usage: netemctl [OPTIONS] <COMMAND>

    For more information, try '--help'.
    --- exit status: 2
    ");
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

    Usage: netemctl apply --lab-dir <DIR> <TOPOLOGY>

    For more information, try '--help'.
    --- exit status: 2
    ");
    insta::assert_snapshot!(sandbox.run(["apply", "--jsno", "wan.toml"]), @"
    --- stdout
    --- stderr
    error: unexpected argument '--jsno' found

      tip: a similar argument exists: '--json'

    Usage: netemctl apply --json <TOPOLOGY>

    For more information, try '--help'.
    --- exit status: 2
    ");
    insta::assert_snapshot!(sandbox.run(["partition"]), @"
    --- stdout
    --- stderr
    error: the following required arguments were not provided:
      <SIDE>...

    Usage: netemctl partition --lab-dir <DIR> <SIDE>...

    For more information, try '--help'.
    --- exit status: 2
    ");
    insta::assert_snapshot!(sandbox.run(["lab", "exec", "n1"]), @"
    --- stdout
    --- stderr
    error: the following required arguments were not provided:
      <PROGRAM>...

    Usage: netemctl lab exec --lab-dir <DIR> <NODE> <PROGRAM>...

    For more information, try '--help'.
    --- exit status: 2
    ");
    insta::assert_snapshot!(sandbox.run(["verify", "--tolerance", "lots"]), @"
    --- stdout
    --- stderr
    error: invalid value 'lots' for '--tolerance <PERCENT>': not a percentage between 0 and 100

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
fn without_a_lab_every_verb_that_needs_one_says_how_to_bring_one_up() {
    let sandbox = Sandbox::new();
    let file = sandbox.topology("uniform-3-rtt100");
    let status = sandbox.run(["status"]);
    insta::assert_snapshot!(status, @"
    --- stdout
    --- stderr
    error: no lab is up
    hint: bring one up: netemctl lab up TOPOLOGY
    --- exit status: 6
    ");
    let others = [
        sandbox.run(["apply", &file]),
        sandbox.run(["plan", &file]),
        sandbox.run(["verify"]),
        sandbox.run(["partition", "n1"]),
        sandbox.run(["heal"]),
        sandbox.run(["clear"]),
        sandbox.run(["lab", "status"]),
        sandbox.run(["lab", "exec", "n1", "true"]),
    ];
    for other in others {
        assert_eq!(other.to_string(), status.to_string());
    }
    insta::assert_snapshot!(sandbox.run(["status", "--json"]), @r#"
    --- stdout
    {
      "exit_code": 6,
      "error": {
        "message": "no lab is up",
        "hints": [
          "bring one up: netemctl lab up TOPOLOGY"
        ]
      }
    }
    --- stderr
    error: no lab is up
    hint: bring one up: netemctl lab up TOPOLOGY
    --- exit status: 6
    "#);
    assert!(!sandbox.lab_directory().exists(), "a verb that needs a lab makes none");
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
    error: [DIR]/a/rather/long/path/to/a/lab is too long a path for the agents' sockets; choose a shorter one with NETEMCTL_LAB_DIR
    --- exit status: 2
    ");
    assert!(!sandbox.path().join("a").exists());
}

/// `lab down` removed whatever directory it was given, and `lab up` emptied it.
#[test]
#[ignore = "known bug: --lab-dir of a folder that never was a lab's has its contents deleted"]
fn a_folder_that_is_not_a_labs_is_never_emptied() {
    let sandbox = Sandbox::new();
    let file = sandbox.topology("uniform-3-rtt0");
    for arguments in [vec!["lab", "down"], vec!["lab", "up", &file]] {
        fs::create_dir_all(sandbox.lab_directory()).unwrap();
        sandbox.write("lab/thesis.txt", "years of work");
        let answer = sandbox.run_other("sh", ["-c", &format!("\"$NETEMCTL\" {}", arguments.join(" "))]);
        assert!(sandbox.path().join("lab/thesis.txt").exists(), "{arguments:?} deleted it\n{answer}");
        assert_ne!(answer.code(), 0, "{arguments:?}\n{answer}");
    }
}

/// clap reports its errors itself, on stderr only.
#[test]
#[ignore = "known bug: with --json a usage error prints nothing on stdout, although --help promises a document"]
fn with_json_a_usage_error_is_a_document_too() {
    let answer = Sandbox::new().run(["--json", "apply"]).ended(2);
    assert_eq!(answer.json()["exit_code"], 2);
}

#[test]
fn an_agent_that_has_no_config_says_where_to_see_one() {
    let sandbox = Sandbox::new();
    insta::assert_snapshot!(sandbox.run(["agent", "--config", "none.toml"]), @"
    --- stdout
    --- stderr
    error: cannot read none.toml: No such file or directory (os error 2)
    hint: netemctl agent --help shows what the file looks like
    --- exit status: 3
    ");
    sandbox.write("agent.toml", "node = 'n1'\ninterface = 'eno2'\nsocket = 'agent.sock'\n");
    insta::assert_snapshot!(sandbox.run(["agent", "--config", "agent.toml"]), @"
    --- stdout
    --- stderr
    error: agent.toml: TOML parse error at line 2, column 1
      |
    2 | interface = 'eno2'
      | ^^^^^^^^^
    unknown field `interface`, expected one of `node`, `interfaces`, `socket`

    hint: netemctl agent --help shows what the file looks like
    --- exit status: 3
    ");
}
