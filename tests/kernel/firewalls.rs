//! Firewalls and rate limits of nodes that drop echo requests or replies. `verify` reports them as such, not as a
//! broken network.

use serde_json::Value;

use crate::lab::{Lab, shipped};

/// The pairs of a report that are not right, with the hooks that dropped packets at either end. Example:
/// `n1-n3 filtered requests_in`.
fn not_right(report: &Value) -> Vec<String> {
    let pairs = report["pairs"].as_array().unwrap().iter();
    let lines = pairs.filter(|pair| pair["verdict"] != "right").map(|pair| {
        let measured = pair["measured"].as_array().unwrap().iter();
        let dropped = measured.flat_map(|measured| measured["filtered"].as_object().unwrap());
        let mut hooks: Vec<_> =
            dropped.filter(|(_, packets)| packets.as_u64() > Some(0)).map(|(hook, _)| hook.as_str()).collect();
        hooks.sort_unstable();
        hooks.dedup();
        let [from, to, verdict] = ["from", "to", "verdict"].map(|key| pair[key].as_str().unwrap());
        format!("{from}-{to} {verdict} {}", hooks.join("+"))
    });
    let mut lines: Vec<_> = lines.map(|line| line.trim_end().to_owned()).collect();
    lines.sort();
    lines
}

/// Runs `verify` with firewall rules on n3. Returns the JSON document and the printed report.
fn verified_with(lab: &Lab, rule: &str, count: u32) -> (Value, String) {
    let rules: Vec<_> = rule.split(" && ").collect();
    for rule in &rules {
        drop(lab.exec("n3", rule));
    }
    let report = lab.verify(&format!("--tolerance 50 --count {count}")).expect(4).json();
    let drawn = lab.netemctl(&format!("verify --tolerance 50 --count {count}")).expect(4).stdout;
    for rule in rules {
        drop(lab.exec("n3", &rule.replace(" -A ", " -D ")));
    }
    assert_eq!(report["wrong"], 0, "verify reports a wrong link: {report}");
    (report, drawn)
}

/// Regression: with INPUT or OUTPUT rules, `verify` reported a node as `unreachable` or `unanswered`. With a rule
/// against the node's own requests, it reported that the agent lacks `CAP_NET_RAW`.
#[test]
fn a_firewall_that_drops_echoes_is_not_reported_as_a_broken_link() {
    let lab = Lab::up(&shipped("uniform-3-rtt100.toml"));
    lab.apply(&shipped("uniform-3-rtt100.toml"));
    let to_n3 = ["n1-n3 filtered", "n2-n3 filtered"];
    let from_n3 = ["n3-n1 filtered", "n3-n2 filtered"];
    for (rule, pairs, hook, hint) in [
        (
            "iptables-legacy -A INPUT -p icmp --icmp-type echo-request -j DROP",
            to_n3,
            "requests_in",
            "n3: the input rules drop all echo requests that arrive",
        ),
        (
            "ip6tables-legacy -A INPUT -p icmpv6 --icmpv6-type 128 -j DROP",
            to_n3,
            "requests_in",
            "n3: the input rules drop all echo requests that arrive",
        ),
        (
            "iptables-legacy -A OUTPUT -p icmp --icmp-type echo-reply -j DROP",
            to_n3,
            "answers_out",
            "n3: the output rules drop all echo replies that leave",
        ),
        (
            "iptables-legacy -A INPUT -p icmp --icmp-type echo-reply -j DROP",
            from_n3,
            "answers_in",
            "n3: the input rules drop all echo replies that arrive",
        ),
        (
            "ip6tables-legacy -A OUTPUT -p icmpv6 --icmpv6-type 128 -j DROP",
            from_n3,
            "requests_out",
            "n3: the output rules drop all echo requests that leave",
        ),
    ] {
        let (report, drawn) = verified_with(&lab, rule, 3);
        assert_eq!(not_right(&report), pairs.map(|pair| format!("{pair} {hook}")), "{rule}");
        assert!(drawn.contains("2 pairs not judged: a firewall drops echo requests or replies"), "{drawn}");
        assert!(drawn.contains(hint), "{drawn}");
    }

    // A broken link is still reported.
    drop(lab.exec("n3", "tc qdisc change dev db0 parent 4e7e:2 handle 2: netem delay 50ms limit 100000 loss 100%"));
    let report = lab.verify("--tolerance 50 --count 3").expect(4).json();
    let broken = not_right(&report);
    assert!(broken.contains(&"n1-n3 unanswered".to_owned()), "{broken:?}");
    assert!(broken.contains(&"n3-n1 unreachable".to_owned()), "{broken:?}");
}

#[test]
fn a_rate_limit_of_echoes_is_not_reported_as_loss_on_a_link() {
    let lab = Lab::up(&shipped("uniform-3-rtt100.toml"));
    lab.apply(&shipped("uniform-3-rtt100.toml"));
    let limited = "iptables-legacy -A INPUT -p icmp --icmp-type echo-request -m limit --limit 5/second --limit-burst 2 \
                   -j ACCEPT && iptables-legacy -A INPUT -p icmp --icmp-type echo-request -j DROP";
    let (report, drawn) = verified_with(&lab, limited, 40);
    assert_eq!(not_right(&report), ["n1-n3 filtered requests_in", "n2-n3 filtered requests_in"]);
    assert!(drawn.contains("echo requests that arrive; look for a rate limit"), "{drawn}");

    // The kernel's own limit: one reply per ten seconds to each node, after a burst of six.
    drop(lab.exec("n3", "sysctl -qw net.ipv4.icmp_ratemask=1 net.ipv4.icmp_ratelimit=10000"));
    let report = lab.verify("--tolerance 50 --count 12").expect(4).json();
    assert_eq!((&report["wrong"], not_right(&report)), (&0.into(), vec!["n1-n3 mute".into(), "n2-n3 mute".into()]));
    let drawn = lab.netemctl("verify --tolerance 50 --count 12").expect(4).stdout;
    assert!(drawn.contains("n3: net.ipv4.icmp_ratemask is set; to measure, run sysctl -w"), "{drawn}");
    assert!(drawn.contains("sysctl -w net.ipv4.icmp_ratemask=6168"), "{drawn}");
}
