//! Packet counters of links and partitions, and warnings about traffic that a partition or delay does not affect.

use std::{net::IpAddr, thread, time::Duration};

use serde_json::Value;

use crate::{
    lab::{Lab, shipped},
    sockets::{WAIT, udp, v4, v6},
    tcp::{connect, listen},
};

const DISCARD: u16 = 9;

/// Sends this number of small packets, as fast as possible.
fn send(lab: &Lab, from: u16, to: u16, packets: u32) {
    let socket = udp(lab, &format!("n{from}"), v4(from), 0);
    for _ in 0..packets {
        socket.send_to(b"counted", (v4(to), DISCARD)).unwrap();
    }
}

/// The packets sent, dropped and overflowed on a link. Waits until these counters no longer change.
fn counted(lab: &Lab, from: u16, to: u16) -> [u64; 3] {
    let read = || -> [u64; 3] {
        let status = lab.netemctl("--json status --counters").expect(0).json();
        let links = status["counters"][format!("n{from}")]["links"].as_array().unwrap().clone();
        let is_there = |link: &&Value| link["addresses"].as_array().unwrap().contains(&Value::from(v4(to).to_string()));
        let link = links.iter().find(is_there).unwrap();
        [&link["sent"]["packets"], &link["dropped"], &link["overflowed"]].map(|count| count.as_u64().unwrap())
    };
    let (mut before, mut now) = (read(), read());
    while before != now {
        (before, now) = (now, read());
    }
    now
}

/// Regression: `status` showed neither the overflow of a short queue nor configured loss.
#[test]
fn sent_lost_and_overflowed_packets_are_counted_separately() {
    let topology = "
        name = 'counted'
        nodes = 'n[1-4]'
        [links]
        default = { delay = '50ms' }
        [[links.override]]
        from = 'n1'
        to = 'n2'
        limit = 10
        [[links.override]]
        from = 'n1'
        to = 'n3'
        loss = '30%'
        [[links.override]]
        from = 'n1'
        to = 'n4'
        loss = '10%'
        limit = 10";
    let lab = Lab::up(&shipped("uniform-9-rtt100.toml"));
    lab.apply(&lab.topology(topology));
    // With open ports, no node sends ICMP port unreachable.
    let _sinks: Vec<_> = (2..=4).map(|to| udp(&lab, &format!("n{to}"), v4(to), DISCARD)).collect();
    // The first packet resolves the neighbour.
    for to in 2..=4 {
        send(&lab, 1, to, 1);
        thread::sleep(Duration::from_millis(300));
    }
    send(&lab, 1, 2, 199);
    let [sent, dropped, overflowed] = counted(&lab, 1, 2);
    assert_eq!((sent + dropped, overflowed), (200, dropped), "packets were counted twice or not at all");
    assert!(sent >= 11 && dropped > 0, "{sent} {dropped}");

    for _ in 0..100 {
        send(&lab, 1, 3, 10);
        thread::sleep(Duration::from_millis(1));
    }
    let [sent, dropped, overflowed] = counted(&lab, 1, 3);
    assert_eq!((sent + dropped, overflowed), (1_001, 0));
    assert!((200..=400).contains(&dropped), "{dropped} dropped; expected 300 with a standard deviation of 14");

    send(&lab, 1, 4, 999);
    let [sent, dropped, overflowed] = counted(&lab, 1, 4);
    assert_eq!(sent + dropped, 1_000);
    assert!(overflowed > 0 && overflowed < dropped, "{sent} {dropped} {overflowed}");

    let drawn = lab.netemctl("status --counters").expect(0).stdout;
    let table = drawn.split("\n\n").find(|part| part.starts_with("NODE") && part.contains("OVERFLOW")).unwrap();
    assert!(table.lines().all(|line| line.chars().count() <= 80), "{table}");
    let line = |start: &str| table.lines().find(|line| line.starts_with(start)).unwrap_or_else(|| panic!("{table}"));
    assert!(line("n1      n3").contains("50ms, 30% loss"), "{table}");
    assert!(line("n[2-4]").contains("n[1-4]"), "nodes with the same figures are not on one line: {table}");
    assert!(lab.netemctl("--json status").expect(0).json().get("counters").is_none());
}

fn heal(lab: &Lab) -> (String, Value) {
    let drawn = lab.netemctl("heal").expect(0).stdout;
    (drawn, lab.netemctl("--json status").expect(0).json())
}

/// Regression: a partition of a misspelt port cut nothing, and no command reported that.
#[test]
fn the_number_of_packets_that_a_partition_has_cut_is_reported_also_if_it_is_zero() {
    let lab = Lab::up(&shipped("uniform-3-rtt100.toml"));
    let _listener = listen(&lab, 2, v4(2), 26257);
    drop(lab.netemctl("partition n2 --port tcp/26275").expect(0));
    assert!(connect(&lab, 1, v4(2), 26257, 5 * WAIT).0.is_ok(), "the partition of another port cut this connection");
    let nothing = "0 packets: no node sent any to or from tcp/26275 to another side";
    let status = lab.netemctl("status").expect(0).stdout;
    assert!(status.contains(&format!("partition n2 has cut {nothing}")), "{status}");
    let (healed, _) = heal(&lab);
    assert!(healed.contains(&format!("partition n2 cut {nothing}")), "{healed}");

    for mode in ["drop", "reject"] {
        drop(lab.netemctl(&format!("partition n2 --name p --port udp/9 --mode {mode}")).expect(0));
        let cut = |to: IpAddr, from: IpAddr, node: &str| {
            let socket = udp(&lab, node, from, 0);
            for _ in 0..5 {
                // After a reject, the next send on this socket reports the ICMP error.
                let _sent = socket.send_to(b"cut", (to, DISCARD));
            }
        };
        cut(v4(2), v4(1), "n1");
        cut(v6(2), v6(3), "n3");
        let status = lab.netemctl("--json status").expect(0).json();
        assert_eq!(status["partitions"][0]["cut"], 10, "{mode}: {status}");
        let drawn = lab.netemctl("status --counters").expect(0).stdout;
        assert!(drawn.contains("to udp/9"), "{drawn}");
        let healed = lab.netemctl("--json heal").expect(0).json();
        assert_eq!(healed["ended"][0]["name"], "p", "{healed}");
        assert_eq!(healed["ended"][0]["cut"], 10, "{mode}: {healed}");
    }
    // A partition that has not begun has no filters, so it reports no number.
    drop(lab.netemctl("partition n2 --at +1h").expect(0));
    let (healed, status) = heal(&lab);
    assert!(!healed.contains("packets"), "{healed}");
    assert_eq!(status["partitions"], serde_json::json!([]));
}

/// Regression: packets of pods behind a host were neither delayed nor cut, and no command warned of them.
#[test]
fn routes_to_networks_behind_nodes_cause_a_warning_and_the_same_exit_code() {
    let lab = Lab::up(&shipped("uniform-3-rtt100.toml"));
    lab.apply(&shipped("uniform-3-rtt100.toml"));
    let quiet = lab.netemctl("status").expect(0).stdout;
    assert!(!quiet.contains("warning"), "{quiet}");
    for (node, other) in [("n1", 2), ("n2", 1)] {
        drop(lab.exec(node, &format!("ip route add 10.244.{other}.0/24 via 10.78.0.{other}")));
        drop(lab.exec(node, "ip link add cali0 type dummy"));
    }
    drop(lab.exec("n1", "sysctl -qw net.ipv4.conf.cali0.forwarding=1"));
    let warning = "packets of n[1-2] to other networks go through n[1-2];";
    for command in ["status", "inventory check"] {
        let ran = lab.netemctl(command).expect(0);
        let said = ran.stdout + &ran.stderr;
        assert_eq!(said.matches(warning).count(), 1, "{command}: {said}");
        assert!(said.contains(" n1 can forward packets of other hosts there."), "{command}: {said}");
    }
    // The exit code may also say that the machine is too busy to measure, so it is not checked.
    let verified = lab.netemctl("verify --count 3").stdout;
    assert_eq!(verified.matches(warning).count(), 1, "{verified}");
    let status = lab.netemctl("--json status").expect(0).json();
    assert_eq!(status["nodes"]["n1"]["routed"], serde_json::json!({ "through": ["n2"], "forwards": true }));
    assert_eq!(status["nodes"]["n2"]["routed"]["forwards"], false);
    assert!(status["nodes"]["n3"].get("routed").is_none());
}
