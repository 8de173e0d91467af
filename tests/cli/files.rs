//! `check` and `show`: valid files, and all kinds of errors in files.

use std::fs::{self, File};

use super::harness::Sandbox;

#[test]
fn a_good_file_is_summed_up() {
    let sandbox = Sandbox::new();
    let file = sandbox.topology("hierarchical-9");
    insta::assert_snapshot!(sandbox.run(["check", &file]), @"
    --- stdout
    hierarchical-9.toml: topology hierarchical-9, 9 nodes, 3 zones: ok
    --- stderr
    --- exit status: 0
    ");
    insta::assert_snapshot!(sandbox.run(["check", "--json", &file]), @r#"
    --- stdout
    {
      "file": "hierarchical-9.toml",
      "topology": "hierarchical-9",
      "nodes": 9,
      "zones": 3,
      "warnings": []
    }
    --- stderr
    --- exit status: 0
    "#);
}

#[test]
fn of_several_files_each_is_checked_and_the_exit_code_is_the_worst() {
    let sandbox = Sandbox::new();
    let (good, other) = (sandbox.topology("hierarchical-9"), sandbox.topology("uniform-3-rtt0"));
    sandbox.write("bad.toml", "name = 't'\nnodes = 'n[1-2]'\n[links]\nrtt = '5ms'\n");
    insta::assert_snapshot!(sandbox.run(["check", &good, "bad.toml", "missing.toml", &other]), @r#"
    --- stdout
    hierarchical-9.toml: topology hierarchical-9, 9 nodes, 3 zones: ok
    bad.toml: invalid
    missing.toml: invalid
    uniform-3-rtt0.toml: topology uniform-3-rtt0, 3 nodes, no zones: ok
    --- stderr
    error: unknown key `rtt` in `links`
     --> bad.toml:4:1
      |
    4 | rtt = '5ms'
      | ^^^ no such key here
      |
      = help: write `default = { rtt = "5ms" }` for all links

    error: bad.toml: 1 error
    error: cannot read missing.toml: no such file
    hint: print a file to begin with: netemctl new > FILE
    --- exit status: 3
    "#);
    let several = sandbox.run(["check", "--json", &good, "bad.toml"]).ended(3).json();
    assert_eq!(several["files"][0]["nodes"], 9, "{several}");
    assert_eq!(several["files"][1]["file"], "bad.toml", "{several}");
    assert_eq!(several["files"][1]["error"]["problems"][0]["line"], 4, "{several}");
    let _both_right = sandbox.run(["check", &good, &other]).ended(0);
}

#[test]
fn links_that_no_rule_covers_are_a_warning_and_the_exit_code_is_0() {
    let sandbox = Sandbox::new();
    let text = "name = 'wan'\nzones = { Z1 = 'n1', Z2 = 'n2', Z3 = 'n3' }\n[links]\n\
                override = [{ between = ['Z2', '*'], rtt = '50ms' }]\n";
    sandbox.write("wan.toml", text);
    insta::assert_snapshot!(sandbox.run(["check", "wan.toml"]), @r#"
    --- stdout
    wan.toml: topology wan, 3 nodes, 3 zones: ok, 1 warning
    --- stderr
    warning: the links between Z1 and Z3 have no rule and no delay
     --> wan.toml:3:2
      |
    3 | [links]
      |  ^^^^^ no rule for them
      |
      = help: if this is intended, add `default = { rtt = "0ms" }` to `[links]`

    --- exit status: 0
    "#);
    let checked = sandbox.run(["check", "--json", "wan.toml"]).ended(0);
    assert_eq!(checked.stderr, "");
    assert_eq!(checked.json()["warnings"][0]["severity"], "warning", "{checked}");
    // No lab is up, but the file is read first, so the warning is printed.
    let applied = sandbox.run(["apply", "wan.toml"]).ended(6).stderr;
    insta::assert_snapshot!(applied.lines().next().expect("a line"), @"warning: the links between Z1 and Z3 have no rule and no delay (wan.toml:3)");
    // An explicit default of 0 ms avoids the warning.
    sandbox.write("meant.toml", text.replace("[links]", "[links]\ndefault = { rtt = '0ms' }"));
    assert_eq!(sandbox.run(["check", "meant.toml"]).ended(0).stderr, "");
}

#[test]
fn show_draws_the_nodes_the_zones_and_the_rtt_of_every_pair() {
    let sandbox = Sandbox::new();
    let file = sandbox.topology("hierarchical-9");
    insta::assert_snapshot!(sandbox.run(["show", &file]), @"
    --- stdout
    topology hierarchical-9: 9 nodes (n[1-9])
      zone Z1: n[1-3]
      zone Z2: n[4-6]
      zone Z3: n[7-9]

    wanted RTT
        n1     n2     n3     n4     n5     n6     n7     n8     n9
    n1  -      20ms   20ms   150ms  150ms  150ms  150ms  150ms  150ms
    n2  20ms   -      20ms   150ms  150ms  150ms  150ms  150ms  150ms
    n3  20ms   20ms   -      150ms  150ms  150ms  150ms  150ms  150ms
    n4  150ms  150ms  150ms  -      20ms   20ms   150ms  150ms  150ms
    n5  150ms  150ms  150ms  20ms   -      20ms   150ms  150ms  150ms
    n6  150ms  150ms  150ms  20ms   20ms   -      150ms  150ms  150ms
    n7  150ms  150ms  150ms  150ms  150ms  150ms  -      20ms   20ms
    n8  150ms  150ms  150ms  150ms  150ms  150ms  20ms   -      20ms
    n9  150ms  150ms  150ms  150ms  150ms  150ms  20ms   20ms   -

    links
    LINKS                      ONE-WAY DELAY  OTHER PARAMETERS
    inside Z[1-3]              10ms           -
    between any two of Z[1-3]  75ms           -
    --- stderr
    --- exit status: 0
    ");
}

#[test]
fn show_draws_zones_where_single_nodes_would_be_too_many() {
    let sandbox = Sandbox::new();
    let file = sandbox.topology("hierarchical-45");
    insta::assert_snapshot!(sandbox.run(["show", &file]), @"
    --- stdout
    topology hierarchical-45: 45 nodes (n[1-45])
      zone Z1: n[1-15]
      zone Z2: n[16-30]
      zone Z3: n[31-45]

    wanted RTT
        Z1     Z2     Z3
    Z1  20ms   150ms  150ms
    Z2  150ms  20ms   150ms
    Z3  150ms  150ms  20ms

    links
    LINKS                      ONE-WAY DELAY  OTHER PARAMETERS
    inside Z[1-3]              10ms           -
    between any two of Z[1-3]  75ms           -
    --- stderr
    --- exit status: 0
    ");
}

#[test]
fn show_says_what_each_link_adds() {
    let sandbox = Sandbox::new();
    let text = "name = 'wan'\nnodes = 'gw'\nzones = { Z1 = 'n[1-2]', Z2 = 'n[3-4]' }\n[links]\n\
                inter-zone = { rtt = '40ms', jitter = '2ms', loss = '0.1%', rate = '1gbit' }\n\
                [[links.override]]\nfrom = 'n1'\nto = 'Z2'\nreorder = 'jitter'\n\
                loss.gemodel.p = '1%'\n";
    sandbox.write("wan.toml", text);
    insta::assert_snapshot!(sandbox.run(["show", "wan.toml"]), @r#"
    --- stdout
    topology wan: 5 nodes (gw,n[1-4])
      zone Z1: n[1-2]
      zone Z2: n[3-4]

    wanted RTT
        gw   n1    n2    n3    n4
    gw  -    0ms   0ms   0ms   0ms
    n1  0ms  -     0ms   40ms  40ms
    n2  0ms  0ms   -     40ms  40ms
    n3  0ms  40ms  40ms  -     0ms
    n4  0ms  40ms  40ms  0ms   -

    links
    LINKS                  ONE-WAY DELAY  OTHER PARAMETERS
    inside Z[1-2]          0ms            -
    between gw and Z[1-2]  0ms            -
    from Z2 to Z1          20ms           jitter = "2ms", loss = "0.1%", rate = "1gbit"  # packets keep their order; each pair of nodes has its own rate
    from n2 to Z2          20ms           jitter = "2ms", loss = "0.1%", rate = "1gbit"  # packets keep their order; each pair of nodes has its own rate
    from n1 to Z2          20ms           jitter = "2ms", loss = { gemodel = { p = "1%", r = "99%", bad = "100%", good = "0%" } }, reorder = "jitter", rate = "1gbit"  # each pair of nodes has its own rate
    --- stderr
    --- exit status: 0
    "#);
}

#[test]
fn show_gives_programs_every_parameter() {
    let sandbox = Sandbox::new();
    let parameters = "rtt = '10ms', jitter = '1ms', loss = { probability = '0.1%', ecn = true }, rate = '1gbit'";
    sandbox.write("pair.toml", format!("name = 'pair'\nnodes = 'n[1-2]'\n[links]\ndefault = {{ {parameters} }}\n"));
    let shown = sandbox.run(["show", "--json", "pair.toml"]).ended(0).json();
    insta::assert_snapshot!(
        shown["links"][0]["link"],
        @r#"
        {"delay_ms":5.0,"jitter":{"amount_ms":1.0,"correlation":"0%","distribution":"uniform"},"loss":{"ecn":true,"model":{"correlation":"0%","kind":"random","probability":"0.1%"}},"rate":{"bits":"1gbit","cell_overhead":"0B","cell_size":"0B","packet_overhead":"0B"}}
        "#
    );
}

#[test]
fn show_gives_programs_the_links_between_groups_of_nodes() {
    let sandbox = Sandbox::new();
    sandbox.write("pair.toml", "name = 'pair'\nnodes = 'n[1-2]'\n[links]\ndefault = { rtt = '10ms' }\n");
    insta::assert_snapshot!(sandbox.run(["show", "--json", "pair.toml"]), @r#"
    --- stdout
    {
      "topology": "pair",
      "zones": [],
      "nodes": [
        "n1",
        "n2"
      ],
      "groups": [
        {
          "zone": null,
          "nodes": [
            "n1",
            "n2"
          ]
        }
      ],
      "links": [
        {
          "from": 0,
          "to": [
            0
          ],
          "one_way_delay_ms": 5.0,
          "link": {
            "delay_ms": 5.0
          }
        }
      ]
    }
    --- stderr
    --- exit status: 0
    "#);
    let file = sandbox.topology("hierarchical-45");
    let shown = sandbox.run(["show", "--json", &file]).ended(0).json();
    let groups: Vec<usize> =
        shown["groups"].as_array().unwrap().iter().map(|group| group["nodes"].as_array().unwrap().len()).collect();
    let mut pairs = 0;
    for link in shown["links"].as_array().unwrap() {
        let from = usize::try_from(link["from"].as_u64().unwrap()).unwrap();
        for to in link["to"].as_array().unwrap() {
            let to = usize::try_from(to.as_u64().unwrap()).unwrap();
            pairs += groups[from] * if from == to { groups[to] - 1 } else { groups[to] };
        }
    }
    assert_eq!(pairs, 45 * 44, "each ordered pair is in one entry");
}

#[test]
fn show_draws_no_matrix_that_is_too_wide_for_every_terminal() {
    let sandbox = Sandbox::new();
    let zone = |text: String, zone: u32| text + &format!("Z{zone} = 'n[{zone}001-{zone}002]'\n");
    let zones = (1..=61).fold(String::new(), zone);
    let links = "[links]\nintra-zone.rtt = '20ms'\ninter-zone.rtt = '150ms'\n";
    sandbox.write("wide.toml", format!("name = 'wide'\n[zones]\n{zones}{links}"));
    let shown = sandbox.run(["show", "wide.toml"]).ended(0).stdout;
    assert!(shown.contains("\nwanted RTT\nno table: 61 zones are too many for a terminal\n\nlinks\n"), "{shown}");
    assert!(shown.contains("between any two of Z[1-61]  75ms"), "{shown}");
}

#[test]
fn a_topology_is_read_from_stdin_where_the_file_is_a_dash() {
    let sandbox = Sandbox::new();
    let good = "name = 'piped'\nnodes = 'n[1-3]'\n[links]\ndefault = { rtt = '10ms' }\n";
    insta::assert_snapshot!(sandbox.run_with_stdin(["check", "-"], good), @"
    --- stdout
    <stdin>: topology piped, 3 nodes, no zones: ok
    --- stderr
    --- exit status: 0
    ");
    insta::assert_snapshot!(sandbox.run_with_stdin(["check", "-"], "name = 'piped'\n"), @r#"
    --- stdout
    --- stderr
    error: a topology needs nodes
     --> <stdin>:1:1
      |
    1 | name = 'piped'
      | ^ `nodes` and `zones` are missing
      |
      = help: add `nodes = "n[1-9]"`, or `[zones]` and `Z1 = "n[1-3]"`

    error: a topology needs links
     --> <stdin>:1:15
      |
    1 | name = 'piped'
      |               ^ `[links]` is missing
      |
      = help: add `[links]` and `default = { rtt = "0ms" }`

    error: <stdin>: 2 errors
    --- exit status: 3
    "#);
}

#[test]
fn an_unreadable_or_invalid_file_is_an_error_that_names_the_cause() {
    let sandbox = Sandbox::new();
    insta::assert_snapshot!(sandbox.run(["check", "missing.toml"]), @"
    --- stdout
    --- stderr
    error: cannot read missing.toml: no such file
    hint: print a file to begin with: netemctl new > FILE
    --- exit status: 3
    ");

    fs::create_dir(sandbox.path().join("folder")).unwrap();
    insta::assert_snapshot!(sandbox.run(["check", "folder"]), @"
    --- stdout
    --- stderr
    error: cannot read folder: it is a folder; name a file
    --- exit status: 3
    ");

    sandbox.write("latin1.toml", b"name = 'x'\n# caf\xe9\n");
    insta::assert_snapshot!(sandbox.run(["check", "latin1.toml"]), @"
    --- stdout
    --- stderr
    error: cannot read latin1.toml: line 2 is not UTF-8 text
    --- exit status: 3
    ");

    sandbox.write("empty.toml", "");
    insta::assert_snapshot!(sandbox.run(["check", "empty.toml"]), @r#"
    --- stdout
    --- stderr
    error: a topology needs a name
     --> empty.toml:1:1
      |
    1 |
      | ^ `name` is missing
      |
      = help: add `name = "my-wan"`

    error: a topology needs nodes
     --> empty.toml:1:1
      |
    1 |
      | ^ `nodes` and `zones` are missing
      |
      = help: add `nodes = "n[1-9]"`, or `[zones]` and `Z1 = "n[1-3]"`

    error: a topology needs links
     --> empty.toml:1:1
      |
    1 |
      | ^ `[links]` is missing
      |
      = help: add `[links]` and `default = { rtt = "0ms" }`

    error: empty.toml: 3 errors
    --- exit status: 3
    "#);

    sandbox.write("not.toml", "This is my topology.\n");
    insta::assert_snapshot!(sandbox.run(["check", "not.toml"]), @"
    --- stdout
    --- stderr
    error: not valid TOML: key with no value, expected `=`
     --> not.toml:1:6
      |
    1 | This is my topology.
      |      ^

    error: not.toml: 1 error
    --- exit status: 3
    ");

    sandbox.write("matrix.csv", "ms,n1,n2\nn1,,5\nn2,5,\n");
    insta::assert_snapshot!(sandbox.run(["check", "matrix.csv"]), @r#"
    --- stdout
    --- stderr
    error: this is a CSV file, not a TOML file
     --> matrix.csv:1:1
      |
    1 | ms,n1,n2
      | ^
      |
      = help: name the matrix in a topology: `matrix = "FILE.csv"` in `[links]`

    error: matrix.csv: 1 error
    --- exit status: 3
    "#);
}

#[test]
fn a_file_of_50_megabytes_is_refused_without_being_read_whole() {
    let sandbox = Sandbox::new();
    File::create(sandbox.path().join("huge.toml")).unwrap().set_len(50_000_000).unwrap();
    insta::assert_snapshot!(sandbox.run(["check", "huge.toml"]), @r#"
    --- stdout
    --- stderr
    error: the file is larger than 4 MiB
    --> huge.toml:1:1
     = help: use hostlists such as "n[1-9]", and zones

    error: huge.toml: 1 error
    --- exit status: 3
    "#);
    // The program stops at the limit, even in a file without an end.
    let endless = sandbox.run(["check", "/dev/zero"]).ended(3);
    assert!(endless.stderr.contains("larger than"), "{endless}");
}

#[test]
fn a_matrix_is_looked_for_next_to_its_topology() {
    let sandbox = Sandbox::new();
    fs::create_dir(sandbox.path().join("wan")).unwrap();
    let text = "name = 'wan'\nnodes = 'n[1-2]'\n[links]\nmatrix = 'rtt.csv'\n";
    sandbox.write("wan/wan.toml", text);
    insta::assert_snapshot!(sandbox.run(["check", "wan/wan.toml"]), @"
    --- stdout
    --- stderr
    error: cannot read `rtt.csv`: no such file
     --> wan/wan.toml:4:10
      |
    4 | matrix = 'rtt.csv'
      |          ^^^^^^^^^ path: wan/rtt.csv
      |
      = help: a file's name is relative to the folder of the topology file

    error: wan/wan.toml: 1 error
    --- exit status: 3
    ");

    sandbox.write("wan/rtt.csv", "ms,n1\nn2,30\n");
    insta::assert_snapshot!(sandbox.run(["show", "wan/wan.toml"]), @"
    --- stdout
    topology wan: 2 nodes (n[1-2])

    wanted RTT
        n1    n2
    n1  -     30ms
    n2  30ms  -

    links
    LINKS                  ONE-WAY DELAY  OTHER PARAMETERS
    between any two nodes  15ms           -
    --- stderr
    --- exit status: 0
    ");

    // A topology from stdin has no folder, so the matrix is read from the current folder.
    sandbox.write("rtt.csv", "ms,n1\nn2,40\n");
    let piped = sandbox.run_with_stdin(["show", "-"], text).ended(0);
    assert!(piped.stdout.contains("40ms"), "{piped}");
}

#[test]
fn a_problem_in_a_matrix_is_shown_with_the_matrix() {
    let sandbox = Sandbox::new();
    fs::create_dir(sandbox.path().join("wan")).unwrap();
    sandbox.write("wan/wan.toml", "name = 'wan'\nnodes = 'n[1-2]'\n[links]\nmatrix = 'rtt.csv'\n");
    sandbox.write("wan/rtt.csv", "# of: today\nms,n1,n2\nn1,,30\nn2,31,\n");
    insta::assert_snapshot!(sandbox.run(["check", "--json", "wan/wan.toml"]), @r#"
    --- stdout
    {
      "exit_code": 3,
      "error": {
        "message": "wan/wan.toml: 1 error",
        "problems": [
          {
            "severity": "error",
            "message": "the two directions have different RTTs",
            "label": "31ms",
            "path": "wan/rtt.csv",
            "span": {
              "start": 31,
              "end": 33
            },
            "line": 4,
            "column": 4,
            "help": "two measurements of one RTT differ: leave one of them empty, or write their mean in both",
            "related": [
              {
                "path": "wan/rtt.csv",
                "span": {
                  "start": 25,
                  "end": 27
                },
                "label": "30ms"
              }
            ]
          }
        ]
      }
    }
    --- stderr
    error: the two directions have different RTTs
     --> wan/rtt.csv:4:4
      |
    3 | n1,,30
      |     -- 30ms
    4 | n2,31,
      |    ^^ 31ms
      |
      = help: two measurements of one RTT differ: leave one of them empty, or write their mean in both

    error: wan/wan.toml: 1 error
    --- exit status: 3
    "#);
    sandbox.write("wan/rtt.csv", b"ms,n1\nn2,caf\xe9\n");
    let latin1 = sandbox.run(["check", "wan/wan.toml"]).ended(3);
    assert!(latin1.stderr.contains("cannot read `rtt.csv`: line 2 is not UTF-8 text"), "{latin1}");
    File::create(sandbox.path().join("wan/rtt.csv")).unwrap().set_len(50_000_000).unwrap();
    let huge = sandbox.run(["check", "wan/wan.toml"]).ended(3);
    assert!(huge.stderr.contains("cannot read `rtt.csv`: it is larger than 4 MiB"), "{huge}");
}

#[test]
fn all_of_100_errors_are_shown_in_one_run() {
    let sandbox = Sandbox::new();
    let mut text = "name = 'bad'\nnodes = 'n[1-3]'\n[links]\n".to_owned();
    text.extend((1..=100).map(|number| format!("lonk{number} = {{ rtt = '10ms' }}\n")));
    sandbox.write("bad.toml", text);
    let people = sandbox.run(["check", "bad.toml"]).ended(3);
    assert_eq!(people.stdout, "");
    for number in 1..=100 {
        assert!(people.stderr.contains(&format!("unknown key `lonk{number}`")), "{number} is not shown\n{people}");
    }
    assert!(people.stderr.ends_with("error: bad.toml: 100 errors\n"), "{people}");

    let programs = sandbox.run(["check", "--json", "bad.toml"]).ended(3).json();
    assert_eq!(programs["error"]["problems"].as_array().map(Vec::len), Some(100));
    assert_eq!(programs["error"]["problems"][99]["line"], 103);
}

#[test]
fn for_programs_an_error_is_a_document_on_stdout_with_the_place_of_every_problem() {
    let sandbox = Sandbox::new();
    let two = "name = 'bad'\n[zones]\nZ1 = 'n1'\nZ2 = ['n1', 'n2']\n[links]\ndefault = { rtt = '10' }\n";
    sandbox.write("bad.toml", two);
    insta::assert_snapshot!(sandbox.run(["check", "--json", "bad.toml"]), @r#"
    --- stdout
    {
      "exit_code": 3,
      "error": {
        "message": "bad.toml: 2 errors",
        "problems": [
          {
            "severity": "error",
            "message": "the node `n1` is in both `Z1` and `Z2`",
            "label": "again here",
            "path": "bad.toml",
            "span": {
              "start": 37,
              "end": 41
            },
            "line": 4,
            "column": 7,
            "help": "a node is in the topology once, and in at most one zone",
            "related": [
              {
                "path": "bad.toml",
                "span": {
                  "start": 26,
                  "end": 30
                },
                "label": "`n1` is here first"
              }
            ]
          },
          {
            "severity": "error",
            "message": "a unit is missing: write \"10ms\"",
            "label": "a number without a unit",
            "path": "bad.toml",
            "span": {
              "start": 75,
              "end": 79
            },
            "line": 6,
            "column": 19,
            "help": "the units are ns, us, ms and s",
            "related": []
          }
        ]
      }
    }
    --- stderr
    error: the node `n1` is in both `Z1` and `Z2`
     --> bad.toml:4:7
      |
    3 | Z1 = 'n1'
      |      ---- `n1` is here first
    4 | Z2 = ['n1', 'n2']
      |       ^^^^ again here
      |
      = help: a node is in the topology once, and in at most one zone

    error: a unit is missing: write "10ms"
     --> bad.toml:6:19
      |
    6 | default = { rtt = '10' }
      |                   ^^^^ a number without a unit
      |
      = help: the units are ns, us, ms and s

    error: bad.toml: 2 errors
    --- exit status: 3
    "#);
    insta::assert_snapshot!(sandbox.run(["check", "--json", "missing.toml"]), @r#"
    --- stdout
    {
      "exit_code": 3,
      "error": {
        "message": "cannot read missing.toml: no such file",
        "hints": [
          "print a file to begin with: netemctl new > FILE"
        ]
      }
    }
    --- stderr
    error: cannot read missing.toml: no such file
    hint: print a file to begin with: netemctl new > FILE
    --- exit status: 3
    "#);
}
