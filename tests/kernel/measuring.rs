//! `verify` finds what a median RTT does not show: opposite errors of the two directions, missing jitter, duplicates.

use serde_json::Value;

use crate::lab::{Lab, shipped};

/// The verdicts on all pairs, as `n1 n2: right`, in order.
fn verdicts(report: &Value) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let pairs = report["pairs"].as_array().unwrap().iter();
    let mut verdicts: Vec<String> = pairs
        .map(|pair| format!("{} {}: {}", text(&pair["from"]), text(&pair["to"]), text(&pair["verdict"])))
        .collect();
    verdicts.sort();
    verdicts
}

/// Gives the netems of a node other parameters, as another program would.
fn tamper(lab: &Lab, node: &str, parameters: &str) {
    let qdiscs = lab.exec(node, "tc qdisc show dev db0");
    let leaves = qdiscs.lines().filter_map(|line| line.strip_prefix("qdisc netem "));
    let changed = leaves.map(|leaf| {
        let mut words = leaf.split_whitespace();
        let (handle, parent) = (words.next().unwrap(), words.nth(1).unwrap());
        let change = format!("tc qdisc change dev db0 parent {parent} handle {handle} netem limit 100000 {parameters}");
        drop(lab.exec(node, &change));
    });
    assert!(changed.count() > 0, "{node}: {qdiscs}");
}

#[test]
fn verify_finds_a_delay_that_is_wrong_by_a_millisecond_in_twenty() {
    let lab = Lab::up(&shipped("uniform-3-rtt100.toml"));
    lab.apply(&lab.topology("name = 'r'\nnodes = 'n[1-3]'\n[links]\ndefault = { rtt = '20ms' }\n"));
    tamper(&lab, "n1", "delay 11ms");
    let report = lab.verify("--count 20").expect(4).json();
    assert_eq!(
        verdicts(&report),
        ["n1 n2: off", "n1 n3: off", "n2 n1: off", "n2 n3: right", "n3 n1: off", "n3 n2: right"]
    );
}

#[test]
fn verify_finds_swapped_directions_missing_jitter_and_duplicates() {
    let lab = Lab::up(&shipped("uniform-3-rtt100.toml"));
    let file = shipped("uniform-3-rtt100.toml");
    lab.apply(&file);
    assert!(verdicts(&lab.verify("--count 5").expect(0).json()).iter().all(|verdict| verdict.ends_with(": right")));

    // n1 sends 10 ms too early, n2 and n3 10 ms too late. So the RTT between n1 and n2 stays 100 ms.
    tamper(&lab, "n1", "delay 40ms");
    tamper(&lab, "n2", "delay 60ms");
    let report = lab.verify("--count 5 --pairs n1:n2 --pairs n2:n1").expect(4).json();
    assert_eq!(verdicts(&report), ["n1 n2: off", "n2 n1: off"]);
    assert_eq!(report["selection"], "chosen");
    for pair in report["pairs"].as_array().unwrap() {
        for measured in pair["measured"].as_array().unwrap() {
            let error_ms = |key: &str| measured[key].as_f64().unwrap() / 1e6;
            assert!(error_ms("error_ns").abs() < 5.0, "the RTT is right: {pair}");
            let one_way = if pair["from"] == "n1" { -10.0 } else { 10.0 };
            assert!((error_ms("one_way_error_ns") - one_way).abs() < 5.0, "{pair}");
        }
    }
    let drawn = lab.netemctl("verify --count 5 --pairs n1:n2").expect(4).stdout;
    assert!(drawn.contains("wrong delay one way: 40."), "{drawn}");

    tamper(&lab, "n1", "delay 50ms duplicate 100%");
    tamper(&lab, "n2", "delay 50ms");
    let report = lab.verify("--count 5 --pairs n1:n2 --pairs n3:*").expect(4).json();
    assert_eq!(verdicts(&report), ["n1 n2: duplicates", "n3 n1: duplicates", "n3 n2: right"]);

    tamper(&lab, "n1", "delay 50ms");
    lab.apply(&lab.topology("name = 'j'\nnodes = 'n[1-3]'\n[links]\ndefault = { rtt = '100ms', jitter = '10ms' }\n"));
    let report = lab.verify("--count 20 --tolerance 20").expect(0).json();
    assert!(report["pairs"][0]["measured"][0]["deviation_ns"].as_f64().unwrap() > 2e6, "{report}");
    for node in ["n1", "n2", "n3"] {
        tamper(&lab, node, "delay 50ms");
    }
    let report = lab.verify("--count 20 --tolerance 20 --quick --seed 7").expect(4).json();
    let verdicts = verdicts(&report);
    assert!(verdicts.len() < 6 && verdicts.iter().all(|verdict| verdict.ends_with(": steady")), "{verdicts:?}");
    assert_eq!(report["selection"], serde_json::json!({ "sample": { "seed": 7, "of": 6 } }));
}
