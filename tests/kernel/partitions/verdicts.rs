//! The output of `verify` and `status` for partitions that leak, do not heal, or lose a share of the packets.

use nix::sys::socket::{setsockopt, sockopt};
use serde_json::Value;

use crate::{
    lab::{Lab, shipped},
    sockets::{udp, v4},
};

/// The verdicts on the pairs n1 → n9 and n9 → n1.
#[track_caller]
fn verdicts(lab: &Lab, exit: i32) -> [String; 2] {
    let report = lab.verify("--count 3 --tolerance 50").expect(exit).json();
    let pairs = report["pairs"].as_array().unwrap();
    let verdict = |from: &str, to: &str| {
        let pair = pairs.iter().find(|pair| pair["from"] == from && pair["to"] == to).unwrap();
        pair["verdict"].as_str().unwrap().to_owned()
    };
    [verdict("n1", "n9"), verdict("n9", "n1")]
}

#[test]
fn a_one_way_cut_that_leaks_is_reported_although_no_answer_comes_back() {
    let lab = Lab::hierarchical();
    lab.apply(&shipped("hierarchical-9.toml"));
    drop(lab.netemctl("partition --one-way n1 n9").expect(0));
    drop(lab.netemctl("partition --one-way n9 n1").expect(0));
    assert_eq!(verdicts(&lab, 0), ["right", "right"]);
    // Two filters cut the IPv4 packets from n1 to n9: one at the egress of n1, one at the ingress of n9. Either is
    // enough. Without both, requests arrive at n9, but the answers are still cut.
    let delete_filter = |node: &str, at: &str| {
        let shown = lab.exec(node, &format!("tc filter show dev db0 {at}"));
        let key = if node == "n1" { "dst_ip 10.78.0.9" } else { "src_ip 10.78.0.1" };
        let before = &shown[..shown.find(key).unwrap()];
        let last = |word| before.rsplit(word).next().unwrap().split_whitespace().next().unwrap();
        let place = format!("protocol ip chain {} pref 2 handle {}", last("chain "), last("handle "));
        drop(lab.exec(node, &format!("tc filter del dev db0 {at} {place} flower")));
    };
    delete_filter("n1", "parent 4e7e:");
    assert_eq!(verdicts(&lab, 0), ["right", "right"]);
    delete_filter("n9", "ingress");
    assert_eq!(verdicts(&lab, 4), ["leaks", "right"]);
    assert!(lab.netemctl("status").expect(4).stdout.contains("n9: drift since"));
}

#[test]
fn a_pair_that_has_not_healed_one_way_shows_which_way() {
    let lab = Lab::hierarchical();
    lab.apply(&shipped("hierarchical-9.toml"));
    drop(lab.netemctl("partition Z3").expect(0));
    drop(lab.netemctl("heal").expect(0));
    drop(lab.exec("n9", "tc filter add dev db0 ingress protocol ip pref 7 flower src_ip 10.78.0.1 action drop"));
    assert_eq!(verdicts(&lab, 4), ["unreachable", "unanswered"]);
}

#[test]
fn the_loss_of_a_partition_adds_to_the_loss_of_the_link() {
    let lab = Lab::hierarchical();
    lab.apply(&shipped("hierarchical-9.toml"));
    let (source, sink) = (udp(&lab, "n1", v4(1), 0), udp(&lab, "n9", v4(9), 7001));
    // The large buffer keeps the receiving socket from dropping packets, so only netem loses packets.
    setsockopt(&sink, sockopt::RcvBufForce, &(16 * 1024 * 1024)).unwrap();
    let lost = || {
        sink.set_nonblocking(true).unwrap();
        let mut packet = [0; 8];
        while sink.recv(&mut packet).is_ok() {}
        for number in 0..1_000 {
            source.send_to(b"!", (v4(9), 7001)).unwrap();
            if number % 50 == 0 {
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
        }
        std::thread::sleep(std::time::Duration::from_millis(500));
        1_000 - std::iter::from_fn(|| sink.recv(&mut packet).ok()).count()
    };
    drop(lab.netemctl("partition --loss 30% n9").expect(0));
    // The band is four standard deviations around 300 losses, and wider for a busy machine.
    let some = lost();
    assert!((240..370).contains(&some), "{some} of 1,000 packets lost, expected 300");
    let report = lab.verify("--count 20 --tolerance 50").expect(0).json();
    let pair = report["pairs"].as_array().unwrap().iter().find(|pair| pair["from"] == "n1" && pair["to"] == "n9");
    assert!((pair.unwrap()["wanted_loss"].as_f64().unwrap() - 0.51).abs() < 1e-6, "{pair:?}");

    drop(lab.netemctl("set n1 n9 loss=50%").expect(0));
    let more = lost();
    assert!((580..730).contains(&more), "{more} of 1,000 packets lost, expected 650");
    let correlated = lab.run(["set", "n1", "n9", "loss={ probability = \"5%\", correlation = \"25%\" }"]).expect(5);
    assert!(correlated.stderr.contains("partition n9 cannot lose packets from n1 to n9"), "{}", correlated.stderr);
    drop(lab.netemctl("heal").expect(0));
    drop(lab.netemctl("unset").expect(0));
    assert!(lost() < 20);
}

#[test]
fn status_shows_who_is_cut_from_whom_and_which_packets() {
    let lab = Lab::hierarchical();
    drop(lab.netemctl("partition --halves --seed 1").expect(0));
    drop(lab.netemctl("partition --one-way Z1 Z3 --port tcp/26257 --port udp/4567").expect(0));
    drop(lab.netemctl("partition n2 --loss 10% --name rain").expect(0));
    let status = lab.netemctl("status").expect(0).stdout;
    let lines: Vec<Vec<&str>> =
        status.lines().map(|line| line.split("  ").map(str::trim).filter(|word| !word.is_empty()).collect()).collect();
    assert!(lines.contains(&vec!["PARTITION", "SIDES", "PACKETS", "MODE", "PACKETS CUT", "TIME"]), "{status}");
    assert!(lines.contains(&vec!["Z1/Z3", "Z1 → Z3", "tcp/26257, udp/4567", "dropped", "0", "-"]), "{status}");
    assert!(lines.contains(&vec!["rain", "n2 | the rest", "all", "10% lost", "-", "-"]), "{status}");
    let shown = lab.netemctl("--json status").expect(0).json();
    let partition = |number: usize| &shown["partitions"][number];
    assert_eq!(partition(0)["kind"], "sides");
    let nodes =
        |sides: &Value| sides.as_array().unwrap().iter().map(|side| side.as_array().unwrap().len()).sum::<usize>();
    assert_eq!((nodes(&partition(0)["sides"]), &partition(0)["rest"]), (9, &Value::Array(Vec::new())));
    assert_eq!((&partition(1)["kind"], &partition(1)["one_way"]), (&"one-way".into(), &true.into()));
    assert_eq!((&partition(2)["mode"], &partition(2)["loss"]), (&"loss".into(), &"10%".into()));
    let again = lab.netemctl("partition n3 --name rain").expect(5);
    assert!(again.stderr.contains("heal it first (netemctl heal rain)"), "{}", again.stderr);
}
