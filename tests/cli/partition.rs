//! `partition`: errors for invalid partitions. `tests/kernel/partitions` tests the effects on a real kernel.

use super::harness::{Answer, Lab, Sandbox};

/// Runs `netemctl partition` with arguments that are separated by spaces.
fn partition(sandbox: &Sandbox, line: &str) -> Answer {
    // `-f`: the shell must not expand `*`.
    sandbox.run_other("sh", ["-fc", &format!("\"$NETEMCTL\" partition {line}")])
}

#[test]
fn options_that_contradict_each_other_are_a_usage_error() {
    let sandbox = Sandbox::new();
    insta::assert_snapshot!(partition(&sandbox, "--halves --one-way"), @"
    --- stdout
    --- stderr
    error: --one-way needs named sides: drawn sides have no order
    hint: name both sides: netemctl partition --one-way Z1 Z3
    --- exit status: 2
    ");
    insta::assert_snapshot!(partition(&sandbox, "Z3 --over zones"), @"
    --- stdout
    --- stderr
    error: --over needs a random form, such as --halves
    --- exit status: 2
    ");
    insta::assert_snapshot!(partition(&sandbox, "Z3 --flap 5s/10s --seed 7"), @"
    --- stdout
    --- stderr
    error: --seed needs a random form, such as --halves, or --flap with --spread
    --- exit status: 2
    ");
    for line in ["--halves --ring", "--isolate --bridge n1", "Z3 --loss 30% --mode reject", "Z3 --spread 20%"] {
        let answer = partition(&sandbox, line).ended(2);
        assert!(answer.stderr.contains("cannot be used with") || answer.stderr.contains("--flap"), "{answer}");
    }
}

#[test]
fn ports_losses_and_times_say_how_they_are_written() {
    let sandbox = Sandbox::new();
    let said = |line: &str| {
        let answer = partition(&sandbox, line).ended(2);
        answer.stderr.lines().next().unwrap_or_default().to_owned()
    };
    insta::assert_snapshot!(said("Z3 --port 26257"), @"error: invalid value '26257' for '--port <PROTOCOL/PORT>': `26257` is not a port: write the protocol and the number, as in tcp/26257 or udp/4567");
    insta::assert_snapshot!(said("Z3 --loss 30"), @r#"error: invalid value '30' for '--loss <PERCENT>': a unit is missing: write "30%""#);
    insta::assert_snapshot!(said("Z3 --for 30"), @"error: invalid value '30' for '--for <TIME>': a unit is missing: write 30s");
    insta::assert_snapshot!(said("Z3 --flap 5s"), @"
    error: invalid value '5s' for '--flap <DOWN/UP>': write DOWN/UP, as in 5s/10s
    ");
    insta::assert_snapshot!(said("Z3 --flap 1ms/1s"), @"
    error: invalid value '1ms/1s' for '--flap <DOWN/UP>': the shortest flap is 10 ms down and 10 ms up
    ");
    insta::assert_snapshot!(said("Z3 --flap 5s/5s --spread 60%"), @"
    error: invalid value '60%' for '--spread <PERCENT>': write a whole percentage between 0% and 50%
    ");
    insta::assert_snapshot!(said("Z3 --at noon"), @"error: invalid value 'noon' for '--at <TIME>': noon is not a time; write +5s, or 2026-11-22T10:46:00Z");
    let past = said("Z3 --at 2020-01-01T00:00:00Z");
    assert!(
        past.starts_with("error: --at is in the past (") && past.ends_with(" ago); give a time at least 1.0 s ahead"),
        "{past}"
    );
}

#[test]
fn sides_that_cut_nothing_overlap_or_do_not_exist_are_refused_and_nothing_changes() {
    let lab = Lab::up("hierarchical-9");
    let before = lab.in_force();
    let said = |line: &str| {
        let answer = partition(&lab.sandbox, line).ended(2);
        assert_eq!(answer.stdout, "", "{answer}");
        answer.stderr
    };
    insta::assert_snapshot!(said("*"), @"error: all nodes are on one side, so nothing is cut; name two sides");
    insta::assert_snapshot!(said("Z1,Z2 / Z3,Z1"), @"error: node n1 is on two sides");
    insta::assert_snapshot!(said("n1 / n1"), @"error: node n1 is on two sides");
    insta::assert_snapshot!(said("Z1 /"), @"error: a side is empty: name zones or nodes before and after every /");
    insta::assert_snapshot!(said("Z1 / Z33"), @"error: no zone or node is called `Z33`; did you mean `Z3`?");
    insta::assert_snapshot!(said("--one-way n1 n1"), @"error: node n1 is on two sides");
    insta::assert_snapshot!(said("--one-way *"), @"error: all nodes are on one side, so nothing is cut; name two sides");
    insta::assert_snapshot!(said("--one-way Z1 Z2 Z3"), @"error: a one-way partition has one or two sides, not 3; with one side, the other is the rest");
    insta::assert_snapshot!(said("--minority 5"), @"error: a minority of 9 nodes has 1 to 4 nodes, not 5");
    insta::assert_snapshot!(said("--ring --over zones"), @"error: --ring needs at least 4 zones; there are 3");
    insta::assert_snapshot!(said("Z1 --isolate n4"), @"error: node n4 is not among the nodes to draw from: add it, or name no nodes");
    insta::assert_snapshot!(said("n[1-2] --bridge n1"), @"error: --bridge needs at least 3 nodes; there are 2");
    insta::assert_snapshot!(said("--isolate n10"), @"error: no zone or node is called `n10`; did you mean `n1`?");
    insta::assert_snapshot!(said("Z3 --loss 0%"), @"error: a loss of 0% cuts nothing");
    insta::assert_snapshot!(said("Z3 --loss 30% --port tcp/5432"), @"error: --loss applies to all packets of a link; leave out --port, or leave out --loss to cut the ports");
    assert_eq!(lab.in_force(), before);
}
