//! `set` and `unset`: errors before any write to a kernel, and the effects on a kernel that can shape.

use super::{
    change::kernel_can_shape,
    harness::{Lab, Sandbox},
};

#[test]
fn a_change_that_makes_no_sense_is_shown_as_toml_with_carets_even_where_no_lab_is_up() {
    let sandbox = Sandbox::new();
    insta::assert_snapshot!(sandbox.run(["set", "Z1", "Z3", "jitter=10", "los=5%", "loss.ecn=maybe"]), @r#"
    --- stdout
    --- stderr
    error: a unit is missing: write "10ms"
     --> command line:1:10
      |
    1 | jitter = 10
      |          ^^ a number without a unit
      |
      = help: the units are ns, us, ms and s

    error: unknown key `los` in a link
     --> command line:2:1
      |
    2 | los = "5%"
      | ^^^ did you mean `loss`?
      |
      = help: the keys of a link are `rtt`, `delay`, `jitter`, `jitter-correlation`, `distribution`, `loss`, `corrupt`, `duplicate`, `reorder`, `rate`, `packet-overhead`, `cell-size`, `cell-overhead`, `rate-per`, `slot`, `limit`, `seed`

    error: `ecn` needs a loss
     --> command line:3:6
      |
    3 | loss.ecn = "maybe"
      |      ^^^ missing here
      |
      = help: write `probability = "0.1%"`, `gemodel = { p = "1%", r = "10%" }` or `state = { p13 = "1%" }`

    error: `ecn` must be true or false
     --> command line:3:12
      |
    3 | loss.ecn = "maybe"
      |            ^^^^^^^ this is a string

    --- exit status: 2
    "#);
    insta::assert_snapshot!(sandbox.run(["set", "Z1", "Z3", "rtt=10ms", "--one-way"]), @r#"
    --- stdout
    --- stderr
    error: `rtt` covers both directions, but --one-way describes one
     --> command line:1:1
      |
    1 | rtt = "10ms"
      | ^^^ use `delay`
      |
      = help: `delay = "75ms"` is one way; `rtt` needs a rule for both directions

    --- exit status: 2
    "#);
    insta::assert_snapshot!(sandbox.run(["set", "Z1", "Z3", "loss=5%", "loss=6%"]), @r#"
    --- stdout
    --- stderr
    error: not valid TOML: duplicate key
     --> command line:2:1
      |
    2 | loss = "6%"
      | ^^^^

    --- exit status: 2
    "#);
    insta::assert_snapshot!(sandbox.run(["set", "Z1", "Z3", "loss={ probability = }"]), @"
    --- stdout
    --- stderr
    error: not valid TOML: invalid literal string, expected `'`
     --> command line:1:24
      |
    1 | loss = { probability = }
      |                        ^

    --- exit status: 2
    ");
}

#[test]
fn with_json_the_errors_of_a_change_are_data() {
    let sandbox = Sandbox::new();
    insta::assert_snapshot!(sandbox.run(["set", "--json", "Z1", "Z3", "delay=10lightyears"]), @r#"
    --- stdout
    {
      "exit_code": 2,
      "error": {
        "message": "command line: 1 error",
        "problems": [
          {
            "severity": "error",
            "message": "`lightyears` is not a unit of time",
            "label": "",
            "path": "command line",
            "span": {
              "start": 8,
              "end": 22
            },
            "line": 1,
            "column": 9,
            "help": "the units are ns, us, ms and s",
            "related": []
          }
        ]
      }
    }
    --- stderr
    error: `lightyears` is not a unit of time
     --> command line:1:9
      |
    1 | delay = "10lightyears"
      |         ^^^^^^^^^^^^^^
      |
      = help: the units are ns, us, ms and s

    --- exit status: 2
    "#);
}

#[test]
fn arguments_that_are_no_change_are_a_usage_error() {
    let sandbox = Sandbox::new();
    insta::assert_snapshot!(sandbox.run(["set", "Z1", "Z3"]), @"
    --- stdout
    --- stderr
    error: the following required arguments were not provided:
      <KEY=VALUE>...

    Usage: netemctl set <FROM> <TO> <KEY=VALUE>...

    For more information, try '--help'.
    --- exit status: 2
    ");
    insta::assert_snapshot!(sandbox.run(["set", "Z1", "Z3", "5%"]), @"
    --- stdout
    --- stderr
    error: invalid value '5%' for '<KEY=VALUE>...': write KEY=VALUE, as in loss=5%

    For more information, try '--help'.
    --- exit status: 2
    ");
    insta::assert_snapshot!(sandbox.run(["set", "Z1", "Z3", "loss=5%", "--for", "30"]), @"
    --- stdout
    --- stderr
    error: invalid value '30' for '--for <TIME>': a unit is missing: write 30s

    For more information, try '--help'.
    --- exit status: 2
    ");
    insta::assert_snapshot!(sandbox.run(["set", "Z1", "Z3", "loss=5%", "--for", "2weeks"]), @"
    --- stdout
    --- stderr
    error: invalid value '2weeks' for '--for <TIME>': `weeks` is not a unit of time; the units are ms, s, m and h

    For more information, try '--help'.
    --- exit status: 2
    ");
    insta::assert_snapshot!(sandbox.run(["set", "Z1", "Z3", "loss=5%", "--for", "0s"]), @"
    --- stdout
    --- stderr
    error: invalid value '0s' for '--for <TIME>': the time must be between 1ms and 8760h (365 days)

    For more information, try '--help'.
    --- exit status: 2
    ");
}

#[test]
fn invalid_ends_and_names_are_refused_and_nothing_changes() {
    let lab = Lab::up("hierarchical-9");
    let before = lab.in_force();
    insta::assert_snapshot!(lab.run(["set", "Z1", "Z33", "delay=5ms"]), @"
    --- stdout
    --- stderr
    error: no zone or node is called `Z33`; did you mean `Z3`?
    --- exit status: 2
    ");
    insta::assert_snapshot!(lab.run(["set", "n1", "n[1-1]", "delay=5ms"]), @"
    --- stdout
    --- stderr
    error: both ends are n1, and a node has no link to itself
    --- exit status: 2
    ");
    insta::assert_snapshot!(lab.run(["set", "Z1", "Z3", "delay=5ms", "--name", "my storm"]), @r#"
    --- stdout
    --- stderr
    error: invalid name "my storm": --name takes 1 to 128 characters without white space
    --- exit status: 2
    "#);
    insta::assert_snapshot!(lab.run(["set", "Z1", "Z3", "jitter=5ms"]), @"
    --- stdout
    --- stderr
    error: n[1-3,7-9] cannot make this change; nothing was changed
      n[1-3,7-9]: change Z1:Z3:jitter: the jitter of 5ms is greater than the one-way delay of 0ms; set delay too, or use jitter=0ms
    --- exit status: 5
    ");
    insta::assert_snapshot!(lab.run(["unset", "storm"]), @"
    --- stdout
    --- stderr
    error: no change is called `storm`; in force: none
    --- exit status: 2
    ");
    insta::assert_snapshot!(lab.run(["unset"]), @"
    --- stdout
    nothing is in force; nothing to change
    --- stderr
    --- exit status: 0
    ");
    assert_eq!(lab.in_force(), before);
}

#[test]
fn set_shows_what_each_change_is_laid_over_or_reports_a_kernel_that_cannot_shape() {
    let lab = Lab::up("hierarchical-9");
    let set = lab.run(["set", "Z1", "Z3", "delay=60ms"]);
    if !kernel_can_shape() {
        assert!(set.ended(7).stderr.contains("nothing was changed"));
        return;
    }
    insta::assert_snapshot!(set, @"
    --- stdout
    in force on 9 nodes: change Z1:Z3:delay; changed 6 nodes, 48 steps
    --- stderr
    --- exit status: 0
    ");
    insta::assert_snapshot!(lab.run(["set", "n7", "*", "delay=10ms", "--one-way", "--name", "storm", "--for", "1h"]), @"
    --- stdout
    in force on 9 nodes: change Z1:Z3:delay, change storm (ends by itself); changed 1 node, 4 steps
    --- stderr
    --- exit status: 0
    ");
    let again = lab.run(["set", "--json", "n1", "n7", "delay=5ms", "--for", "1h"]).ended(0).json();
    assert_eq!(again["overlays"], serde_json::json!(["Z1:Z3:delay", "storm", "n1:n7:delay"]));
    let status = lab.run(["status"]).ended(0);
    let table = status.stdout.lines().skip_while(|line| !line.starts_with("CHANGE"));
    // The last column is the remaining time, which differs between runs.
    let overlays: Vec<_> = table.filter_map(|line| line.rsplit_once("  ")).map(|(line, _)| line.trim_end()).collect();
    insta::assert_snapshot!(overlays.join("\n"), @r#"
    CHANGE       LINKS    PARAMETERS      REPLACES
    Z1:Z3:delay  Z1 ↔ Z3  delay = "60ms"  the LAN
    storm        n7 → *   delay = "10ms"  different links
    n1:n7:delay  n1 ↔ n7  delay = "5ms"   different links
    "#);
    let document = lab.run(["status", "--json"]).ended(0).json();
    assert!(document["overlays"][1]["left_s"].as_f64().is_some_and(|left| (3_500.0..=3_600.0).contains(&left)));
    assert_eq!(document["nodes"]["n9"]["overlays"][0]["left_s"], serde_json::Value::Null);
    insta::assert_snapshot!(lab.run(["unset", "Z1"]), @"
    --- stdout
    in force on 9 nodes: change storm (ends by itself), change n1:n7:delay (ends by itself); changed 5 nodes, 38 steps
    --- stderr
    --- exit status: 0
    ");
    insta::assert_snapshot!(lab.run(["unset"]), @"
    --- stdout
    nothing is in force; changed 2 nodes, 17 steps
    --- stderr
    --- exit status: 0
    ");
}
