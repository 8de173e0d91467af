//! The LAN becomes the WAN that the file describes, and becomes a LAN again.

use std::{
    process::{Command, Stdio},
    time::Duration,
};

use nix::{
    sys::time::TimeSpec,
    time::{ClockId, clock_settime},
};
use serde_json::Value;

use crate::lab::{Lab, shipped};

/// By how many milliseconds a machine that is busy elsewhere may be late with half of the answers.
const BUSY: f64 = 50.0;

/// The least and the median RTT of all measured addresses of one ordered pair, in milliseconds.
fn measured(report: &Value, from: &str, to: &str) -> Vec<(f64, f64)> {
    let pairs = report["pairs"].as_array().unwrap();
    let pair = pairs.iter().find(|pair| pair["from"] == from && pair["to"] == to).unwrap();
    let least_and_median = |measured: &Value| {
        let rtts = measured["rtts_ns"].as_array().unwrap();
        let nth = |n: usize| rtts[n].as_f64().unwrap() / 1e6;
        (nth(0), nth(rtts.len() / 2))
    };
    pair["measured"].as_array().unwrap().iter().map(least_and_median).collect()
}

#[test]
fn every_pair_is_within_its_band_on_ipv4_and_ipv6() {
    let lab = Lab::hierarchical();
    lab.apply(&shipped("hierarchical-9.toml"));
    // A wide band: the machine is shared. What verify says of it is its own test below.
    let report = lab.verify("--tolerance 50").expect(0).json();
    assert_eq!(report["pairs"].as_array().unwrap().len(), 72);
    for (from, to, rtt) in [("n1", "n2", 20.0), ("n1", "n4", 150.0), ("n9", "n1", 150.0), ("n8", "n9", 20.0)] {
        let measured = measured(&report, from, to);
        assert_eq!(measured.len(), 2, "both families are measured");
        for (least, median) in measured {
            let is_so = (rtt..rtt * 1.5).contains(&least) && median < rtt + BUSY;
            assert!(is_so, "{from} to {to}: {least} ms, {median} ms in the median, instead of {rtt} ms");
        }
    }
}

#[test]
fn verify_says_which_pair_is_not_as_wanted() {
    let lab = Lab::hierarchical();
    lab.apply(&shipped("hierarchical-9.toml"));
    // Somebody else lengthens n1's way out of its zone.
    drop(lab.exec("n1", "tc qdisc change dev db0 parent 4e7e:3 handle 3: netem delay 175ms limit 100000"));
    let report = lab.verify("--tolerance 50").expect(4).json();
    let pairs = report["pairs"].as_array().unwrap();
    let wrong: Vec<_> = pairs.iter().filter(|pair| pair["verdict"] != "right").collect();
    assert_eq!(wrong.len(), 12, "n1 with each node of the other zones, both ways");
    // A machine that is 50 ms late itself cannot say of whom 100 ms are.
    let is_told = |pair: &Value| pair["verdict"] == "off" || pair["verdict"] == "busy";
    assert!(wrong.iter().all(|pair| (pair["from"] == "n1" || pair["to"] == "n1") && is_told(pair)), "{wrong:?}");
}

#[test]
fn one_way_delays_add_up_to_the_rtt_whichever_side_asks() {
    let lab = Lab::hierarchical();
    let topology = lab.topology(
        "name = 'one-way'\nnodes = 'n[1-9]'\n[links]\ndefault = { rtt = '0ms' }\n\
         [[links.override]]\nfrom = 'n1'\nto = 'n2'\ndelay = '60ms'\n",
    );
    lab.apply(&topology);
    let report = lab.verify("--tolerance 50").expect(0).json();
    for (from, to) in [("n1", "n2"), ("n2", "n1")] {
        for (least, median) in measured(&report, from, to) {
            assert!((60.0..90.0).contains(&least) && median < 60.0 + BUSY, "{from} to {to}: {least} ms, {median} ms");
        }
    }
    assert!(measured(&report, "n1", "n3")[0].0 < 30.0, "the others are as the LAN is");
}

#[test]
fn the_management_interface_never_changes() {
    let lab = Lab::hierarchical();
    let qdisc = || lab.exec("n1", "tc qdisc show dev mgmt0");
    let rtt = || -> f64 {
        let said = lab.exec("n1", "ping -n -q -c 10 -i 0.05 n4.mgmt");
        let figures = said.lines().find(|line| line.starts_with("rtt")).unwrap().split('/').nth(3).unwrap();
        figures.rsplit(' ').next().unwrap().parse().unwrap()
    };
    let before = qdisc();
    // Its least RTT is that of a LAN: the tens of milliseconds that are in force elsewhere would show.
    assert!(rtt() < 5.0);
    lab.apply(&shipped("uniform-9-rtt300.toml"));
    assert_eq!(qdisc(), before);
    assert!(rtt() < 5.0);
    drop(lab.netemctl("partition Z3").expect(0));
    assert_eq!(qdisc(), before);
    assert!(lab.exec("n1", "ping -n -q -c 3 -i 0.05 n9.mgmt").contains("3 received"), "the cut is elsewhere");
    drop(lab.netemctl("clear").expect(0));
    assert_eq!(qdisc(), before);
    assert!(rtt() < 5.0);
}

#[test]
fn clear_leaves_every_interface_as_it_was() {
    let lab = Lab::hierarchical();
    let before = lab.tc();
    lab.apply(&shipped("hierarchical-9.toml"));
    drop(lab.netemctl("partition Z3").expect(0));
    assert_ne!(lab.tc(), before);
    drop(lab.netemctl("clear").expect(0));
    assert_eq!(lab.tc(), before);
    let again = lab.netemctl("--json clear").expect(0).json();
    assert_eq!(again["changed"], false);
}

#[test]
fn forty_five_nodes_are_a_wan_as_well() {
    let lab = Lab::up(&shipped("hierarchical-45.toml"));
    lab.apply(&shipped("hierarchical-45.toml"));
    // A machine may be too slow to measure 45 nodes. That is said of it, and not of the network; nothing is ever early.
    let report = lab.netemctl("--json verify --count 3").json();
    assert_eq!(report["wrong"], 0, "{:?}", worst(&report));
    let pairs = report["pairs"].as_array().unwrap();
    assert_eq!(pairs.len(), 45 * 44);
    let zone = |node: &Value| (node.as_str().unwrap()[1..].parse::<u32>().unwrap() - 1) / 15;
    for pair in pairs {
        let rtt = if zone(&pair["from"]) == zone(&pair["to"]) { 20.0 } else { 150.0 };
        let is_busy = pair["verdict"] == "busy";
        for measured in pair["measured"].as_array().unwrap() {
            // How late may be right is for verify to say, which knows how late the machine was.
            let late = if is_busy { f64::INFINITY } else { BUSY + 2.0 * measured["late_ns"].as_f64().unwrap() / 1e6 };
            match measured["rtts_ns"][0].as_f64().map(|least| least / 1e6) {
                Some(least) => assert!(least >= rtt && least < rtt + late, "{least} ms: {pair}"),
                None => assert!(is_busy, "no answer: {pair}"),
            }
        }
    }
}

/// The verdict on the worst pair, with its figures.
fn worst(report: &Value) -> &Value {
    &report["pairs"][0]
}

/// 9 nodes on a machine on which somebody else computes: netemctl's figures are those of ping, or it says that the machine
/// is too busy. It does not say that the network is wrong.
#[test]
fn a_busy_machine_is_not_taken_for_a_wrong_network() {
    let lab = Lab::hierarchical();
    lab.apply(&shipped("hierarchical-9.toml"));
    #[expect(clippy::disallowed_methods, reason = "somebody else is at work")]
    let burn = || Command::new("sh").args(["-c", "while :; do :; done"]).spawn().unwrap();
    let mut burners = [burn(), burn(), burn()];
    let ping = lab
        .command(["lab", "exec", "n1", "--", "ping", "-n", "-q", "-c", "20", "-i", "0.2", "n4"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let ran = lab.netemctl("--json verify --count 5");
    let ping = String::from_utf8(ping.wait_with_output().unwrap().stdout).unwrap();
    for burner in &mut burners {
        burner.kill().unwrap();
        burner.wait().unwrap();
    }
    let report = ran.json();
    assert_eq!(report["wrong"], 0, "{:?}; ping says {ping}", worst(&report));
    assert_eq!(ran.code, Some(if report["busy"] == 0 { 0 } else { 4 }));
    let figures = ping.lines().find(|line| line.starts_with("rtt")).unwrap().split(" = ").nth(1).unwrap();
    let least: f64 = figures.split('/').next().unwrap().parse().unwrap();
    assert!((150.0..200.0).contains(&least), "{ping}");
    for (own, _) in measured(&report, "n1", "n4") {
        assert!((150.0..200.0).contains(&own), "{own} ms, and ping says {ping}");
    }
}

#[test]
fn what_verify_called_right_is_told_apart() {
    let lab = Lab::up(&shipped("uniform-3-rtt100.toml"));
    let file = "name = 'near'\nnodes = 'n[1-3]'\n[links]\ndefault = { rtt = '2ms' }\n";
    lab.apply(&lab.topology(file));
    // Somebody deletes what n1 does to its packets. 1 ms of 2 is left, and was within 1 ms.
    drop(lab.exec("n1", "tc qdisc del dev db0 root"));
    let report = lab.netemctl("--json verify").json();
    for pair in report["pairs"].as_array().unwrap() {
        let is_cut_short = pair["from"] == "n1" || pair["to"] == "n1";
        assert!(!is_cut_short || pair["verdict"] != "right", "{pair}");
    }

    lab.apply(&shipped("uniform-3-rtt100.toml"));
    let ignore = |value: &str| {
        drop(
            lab.run([
                "lab",
                "exec",
                "n3",
                "--",
                "sh",
                "-c",
                &format!("echo {value} >/proc/sys/net/ipv4/icmp_echo_ignore_all"),
            ])
            .expect(0),
        );
    };
    ignore("1");
    let ran = lab.verify("--count 3 --tolerance 50").expect(4);
    assert_eq!(ran.json()["mute"], 2, "n1 and n2 with n3: {}", ran.stdout);
    assert_eq!(ran.json()["wrong"], 0, "the network is as it should be: {}", ran.stdout);
    assert!(lab.netemctl("verify --count 3").stdout.contains("n3: net.ipv4.icmp_echo_ignore_all"));
    ignore("0");

    // netem's correlation leaves hardly anything of 20 % there and back.
    drop(lab.run(["set", "n1", "n2", "loss={ probability = \"20%\", correlation = \"75%\" }"]).expect(0));
    let few = lab.netemctl("verify --count 3 --tolerance 50").stdout;
    assert!(few.contains("loss not judged on 2 pairs"), "{few}");
    let report = lab.verify("--count 50 --tolerance 50").expect(4).json();
    for pair in report["pairs"].as_array().unwrap() {
        let is_lossy = pair["from"] != "n3" && pair["to"] != "n3";
        assert_eq!(pair["verdict"], if is_lossy { "lossless" } else { "right" }, "{pair}");
    }
}

#[test]
fn a_clock_that_is_stepped_changes_no_round_trip() {
    let lab = Lab::up(&shipped("uniform-3-rtt100.toml"));
    lab.apply(&shipped("uniform-3-rtt100.toml"));
    let verify = lab.command(["--json", "verify", "--count", "40"]).stdout(Stdio::piped()).spawn().unwrap();
    for ahead in [1, -1].repeat(10) {
        std::thread::sleep(Duration::from_millis(100));
        let now = ClockId::CLOCK_REALTIME.now().unwrap();
        clock_settime(ClockId::CLOCK_REALTIME, now + TimeSpec::new(ahead, 0)).unwrap();
    }
    let report: Value = serde_json::from_slice(&verify.wait_with_output().unwrap().stdout).unwrap();
    for pair in report["pairs"].as_array().unwrap() {
        for rtt in pair["measured"].as_array().unwrap().iter().flat_map(|m| m["rtts_ns"].as_array().unwrap()) {
            assert!((100.0..900.0).contains(&(rtt.as_f64().unwrap() / 1e6)), "{pair}");
        }
    }
}
