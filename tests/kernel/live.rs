//! Live changes with `set` and `unset`: they change only the named links, in place, and end on time.

use std::{
    io::Read,
    process::Stdio,
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    lab::{Lab, shipped},
    sockets::{Mesh, Stream},
};

/// The links between Z1 and Z3 have their own delay. So each node of these zones has a leaf for these links only.
const THREE_PROFILES: &str = "
name = 'three-profiles'
zones.Z1 = 'n[1-3]'
zones.Z2 = 'n[4-6]'
zones.Z3 = 'n[7-9]'
[links]
intra-zone = { rtt = '20ms' }
inter-zone = { rtt = '100ms' }
[[links.override]]
between = ['Z1', 'Z3']
rtt = '150ms'
";

/// The delays of a node's netem leaves, sorted as text.
fn delays(lab: &Lab, node: &str) -> Vec<String> {
    let shown = lab.exec(node, "tc qdisc show dev db0");
    let netems = shown.lines().filter(|line| line.starts_with("qdisc netem"));
    let word_behind_delay =
        |line: &str| line.split_whitespace().skip_while(|word| *word != "delay").nth(1).map(str::to_owned);
    let mut delays: Vec<_> = netems.filter_map(word_behind_delay).collect();
    delays.sort();
    delays
}

/// Waits until tc shows `before`. The agent removes a class only after the class has drained.
#[track_caller]
fn assert_becomes(lab: &Lab, before: &str) {
    let deadline = Instant::now() + Duration::from_mins(1);
    while lab.tc() != before {
        assert!(Instant::now() < deadline, "{}\ninstead of\n{before}", lab.tc());
        thread::sleep(Duration::from_millis(200));
    }
}

#[test]
fn a_change_of_a_delay_is_made_in_place_and_only_on_the_named_links() {
    let lab = Lab::hierarchical();
    lab.apply(&lab.topology(THREE_PROFILES));
    let before = lab.tc();
    let mut monitor = lab.command(["lab", "exec", "n1", "--", "tc", "monitor"]).stdout(Stdio::piped()).spawn().unwrap();
    // The change loses no packets in flight to Z3, and does not affect packets to Z2.
    let (unaffected, affected) = (Stream::start(&lab, 1, 4), Stream::start(&lab, 1, 7));
    thread::sleep(Duration::from_secs(1));
    let set = lab.netemctl("--json set Z1 Z3 delay=90ms").expect(0).json();
    let writes = set["writes"].as_object().unwrap();
    for (node, steps) in writes {
        assert_eq!(*steps, u64::from(!["n4", "n5", "n6"].contains(&node.as_str())), "{node} of {writes:?}");
    }
    thread::sleep(Duration::from_millis(500));
    drop(lab.netemctl("unset Z1:Z3").expect(0));
    thread::sleep(Duration::from_millis(500));
    for (stream, least) in [(unaffected.finish(), 50), (affected.finish(), 75)] {
        assert!(stream.sent > 1_000, "the stream sent only {} packets", stream.sent);
        assert_eq!(stream.delays.len() as u64, stream.sent, "packets were lost");
        assert!(*stream.delays.iter().min().unwrap() >= Duration::from_millis(least));
    }
    monitor.kill().unwrap();
    let mut heard = String::new();
    monitor.stdout.take().unwrap().read_to_string(&mut heard).unwrap();
    monitor.wait().unwrap();
    let heard: Vec<_> = heard.lines().filter(|line| line.contains("db0")).collect();
    assert_eq!(heard.len(), 2, "one event for set and one for unset: {heard:?}");
    assert!(heard.iter().all(|line| line.contains("qdisc netem")), "{heard:?}");
    assert_eq!(lab.tc(), before);
}

#[test]
fn a_timed_change_ends_on_time_without_the_controller_and_leaves_nothing() {
    let lab = Lab::hierarchical();
    lab.apply(&shipped("hierarchical-9.toml"));
    let before = lab.tc();
    let left = |node: &str| {
        let status = lab.netemctl("--json status").expect(0).json();
        status["nodes"][node]["overlays"][0]["left_s"].as_f64()
    };
    // At the end, the agent replaces the filters at once. The leaf stays until it has drained.
    let is_over = || !lab.exec("n7", "tc filter show dev db0").contains("4e7e:4");
    // On a slow machine, the change may end before the checks. The loop then repeats them with a longer change.
    for seconds in [4, 8, 16, 32, 64] {
        let limit = Duration::from_secs(seconds);
        let start = Instant::now();
        drop(lab.netemctl(&format!("set Z1 Z3 delay=90ms --for {seconds}s")).expect(0));
        let set_at = Instant::now();
        let seen = (delays(&lab, "n7"), delays(&lab, "n4"), left("n1"));
        let was_in_time = start.elapsed() < limit;
        if was_in_time {
            assert_eq!(seen.0, ["10ms", "75ms", "90ms"]);
            assert_eq!(seen.1, ["10ms", "75ms"], "the change does not affect Z2");
            assert!(seen.2.is_some_and(|left| left < limit.as_secs_f64()), "{seen:?}");
        }
        while !is_over() {
            assert!(set_at.elapsed() < limit + Duration::from_mins(1), "the change does not end");
        }
        assert!(start.elapsed() >= limit, "the change ended after {:?}", start.elapsed());
        if was_in_time {
            break;
        }
        assert_ne!(seconds, 64, "this machine is too slow to check a change of 64 s");
        assert_becomes(&lab, &before);
    }
    let status = lab.netemctl("--json status").expect(0).json();
    assert_eq!(status["overlays"], Value::Array(vec![]));
    assert_becomes(&lab, &before);
    // The next edit starts from the state after the overlay, so the same topology changes nothing.
    let again = lab.apply(&shipped("hierarchical-9.toml"));
    assert_eq!((&again["changed"], &again["overlays"]), (&false.into(), &Value::Array(vec![])));
    drop(lab.netemctl("partition Z3").expect(0));
    drop(lab.netemctl("heal").expect(0));
    assert_eq!(lab.tc(), before);
}

#[test]
fn a_change_without_a_topology_touches_only_the_senders_and_restores_their_interfaces() {
    let lab = Lab::hierarchical();
    let before = lab.tc();
    drop(lab.netemctl("set n1 n[2-3] delay=60ms --one-way").expect(0));
    assert_eq!(delays(&lab, "n1"), ["60ms"]);
    for node in 2..=9 {
        assert!(lab.exec(&format!("n{node}"), "tc qdisc show dev db0").contains("noqueue"), "n{node} was touched");
    }
    let report = lab.verify("--tolerance 50").expect(0).json();
    let pairs = report["pairs"].as_array().unwrap();
    let slow: Vec<_> = pairs.iter().filter(|pair| pair["wanted_rtt_ms"] == 60.0).collect();
    assert_eq!(slow.len(), 4, "n1 with n2 and n3, in both directions");
    assert!(slow.iter().all(|pair| pair["from"] == "n1" || pair["to"] == "n1"));
    drop(lab.netemctl("unset n1:n[2-3]").expect(0));
    assert_eq!(lab.tc(), before);
    // On a slow machine, the change may end before the check. The loop then repeats it with a longer change.
    for seconds in [2, 8, 32] {
        let start = Instant::now();
        drop(lab.netemctl(&format!("set * n1 delay=60ms --for {seconds}s")).expect(0));
        let shown = lab.tc();
        let was_in_time = start.elapsed() < Duration::from_secs(seconds);
        assert!(!was_in_time || shown != before, "nothing was changed");
        assert_becomes(&lab, &before);
        if was_in_time {
            return;
        }
    }
    panic!("this machine is too slow to check a change of 32 s");
}

#[test]
fn overlays_stack_and_combine_with_partitions() {
    let lab = Lab::hierarchical();
    lab.apply(&shipped("hierarchical-9.toml"));
    let before = lab.tc();
    let mesh = Mesh::of(&lab, 9);
    drop(lab.netemctl("partition Z3").expect(0));
    drop(lab.netemctl("set Z1 * delay=30ms").expect(0));
    drop(lab.netemctl("set n1 n2 delay=5ms --name near").expect(0));
    mesh.assert_heard(|a, b| (a >= 7) == (b >= 7));
    let wanted_rtt = |from: &str, to: &str| {
        let report = lab.verify("--tolerance 50 --count 5").expect(0).json();
        let pairs = report["pairs"].as_array().unwrap();
        pairs.iter().find(|pair| pair["from"] == from && pair["to"] == to).unwrap()["wanted_rtt_ms"]
            .as_f64()
            .map(|ms| format!("{ms}ms"))
            .unwrap_or_default()
    };
    assert_eq!(wanted_rtt("n1", "n2"), "10ms");
    drop(lab.netemctl("heal").expect(0));
    assert_eq!(wanted_rtt("n1", "n9"), "60ms", "the overlay from the time of the cut applies after heal");
    let again = lab.netemctl("--json set n1 n2 delay=5ms --name near").expect(0).json();
    assert_eq!(again["changed"], false);
    // The overlay `Z1:*:delay` is now above the overlay `near`.
    drop(lab.netemctl("set Z1 * delay=30ms").expect(0));
    assert_eq!(wanted_rtt("n1", "n2"), "60ms");
    // `apply` of another topology keeps the overlays.
    let applied = lab.apply(&shipped("uniform-9-rtt100.toml"));
    assert_eq!(applied["overlays"], serde_json::json!(["near", "Z1:*:delay"]));
    assert_eq!(wanted_rtt("n4", "n9"), "100ms");
    let again = shipped("hierarchical-9.toml").display().to_string();
    let stays = lab.netemctl(&format!("apply {again}")).expect(0).stdout;
    assert!(
        stays.contains("still in force: change near, change Z1:*:delay; remove: netemctl unset near Z1:*:delay"),
        "{stays}"
    );
    // `apply --fresh` removes the overlays, so a parameter sweep needs no `unset`.
    let fresh = lab.netemctl(&format!("--json apply --fresh {again}")).expect(0).json();
    assert_eq!(fresh["overlays"], serde_json::json!([]));
    assert_becomes(&lab, &before);
}

#[test]
fn verify_allows_for_the_loss_and_the_jitter_that_are_wanted_and_for_no_more() {
    let lab = Lab::up(&shipped("uniform-3-rtt100.toml"));
    lab.apply(&shipped("uniform-3-rtt100.toml"));
    let verdicts = |code: i32| -> Vec<(String, String)> {
        let report = lab.verify("--tolerance 50 --count 20").expect(code).json();
        let pairs = report["pairs"].as_array().unwrap().iter();
        let between = pairs.filter(|pair| pair["from"] != "n3" && pair["to"] != "n3");
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        between
            .map(|pair| {
                (pair["wanted_rtt_ms"].as_f64().map(|ms| format!("{ms}ms")).unwrap_or_default(), text(&pair["verdict"]))
            })
            .collect()
    };
    let both = |wanted: &str, verdict: &str| vec![(wanted.to_owned(), verdict.to_owned()); 2];
    drop(lab.netemctl("set n1 n2 jitter=20ms loss=20%").expect(0));
    assert_eq!(verdicts(0), both("100ms", "right"));
    drop(lab.netemctl("set n1 n2 loss=100%").expect(0));
    assert_eq!(verdicts(0), both("", "right"), "verify expects no packets, and no packets arrive");
    drop(lab.netemctl("unset").expect(0));
    // Another program sets a loss of 70 % on the packets of n1.
    drop(lab.exec("n1", "tc qdisc change dev db0 parent 4e7e:2 handle 2: netem delay 50ms limit 100000 loss 70%"));
    assert_eq!(verdicts(4), both("100ms", "lossy"));
}
