//! The encoders against what iproute2's `tc` sends, captured by `scripts/capture-tc-goldens`.

use std::net::IpAddr;

use super::{
    filter::{self, Filter},
    netem, qdisc,
};
use crate::{
    plan::{Direction, LeafMark, Profile},
    topology::Tables,
};

/// The captures' interface index.
const INDEX: u32 = 10;

/// The bytes of a capture; its first line has the command.
fn golden(name: &str) -> Vec<u8> {
    let path = format!("{}/tests/goldens/tc/{name}.txt", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .flat_map(str::split_whitespace)
        .map(|byte| u8::from_str_radix(byte, 16).unwrap())
        .collect()
}

fn assert_same(name: &str, ours: &super::Request) {
    let (ours, theirs) = (ours.to_bytes(0), golden(name));
    assert_eq!(ours, theirs, "\n{name}\n ours   {ours:02x?}\n theirs {theirs:02x?}");
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn profile(delay: &str, limit: u32) -> Profile {
    Profile::plain(delay.parse().unwrap(), limit)
}

#[test]
fn qdiscs_and_deletions_are_what_tc_sends() {
    // tc qdisc add dev v0 root handle 4e7e: htb default 1
    assert_same("htb-root", &qdisc::add_root(INDEX));
    // tc qdisc del dev v0 root handle 4e7e:
    assert_same("htb-root-del", &qdisc::delete_root(INDEX));
    // tc qdisc add dev v0 clsact
    assert_same("clsact", &qdisc::add_clsact(INDEX));
    // tc qdisc del dev v0 clsact
    assert_same("clsact-del", &qdisc::delete_clsact(INDEX));
    // tc class del dev v0 classid 4e7e:2
    assert_same("htb-class-del", &qdisc::delete_class(INDEX, 2));
    // tc filter del dev v0 parent 4e7e: chain 10
    assert_same("filter-del-chain", &filter::delete_chain(INDEX, 10));
}

#[test]
fn a_class_is_what_tc_sends_without_its_two_dead_rate_tables() {
    /// `TCA_HTB_RTAB` and `TCA_HTB_CTAB` of 256 words each, with their headers.
    const TABLES: usize = 2 * (4 + 1024);
    // tc class add dev v0 parent 4e7e: classid 4e7e:1 htb rate 100gbit burst 10mb cburst 10mb quantum 60000
    for (name, class) in [("htb-class-default", 1), ("htb-class-2", 2)] {
        let mut theirs = golden(name);
        let tables = theirs.split_off(theirs.len() - TABLES);
        assert_eq!(tables.iter().filter(|byte| **byte != 0).count(), 6, "only the attribute headers are not zero");
        shorten(&mut theirs, TABLES, 44);
        assert_eq!(qdisc::add_class(INDEX, class, LeafMark::default()).to_bytes(0), theirs, "{name}");
    }
}

#[test]
fn netem_is_what_tc_sends_and_the_delay_in_nanoseconds_behind_it() {
    /// `TCA_NETEM_LATENCY64` with its header.
    const LATENCY64: usize = 4 + 8;
    let cases = [
        // tc qdisc add dev v0 parent 4e7e:2 handle 2: netem delay 75ms limit 100000
        ("netem-75ms", netem::add_netem(INDEX, 2, &profile("75ms", 100_000), &Tables::new()).unwrap()),
        // tc qdisc add dev v0 parent 4e7e:2 handle 2: netem delay 0ms limit 1000
        ("netem-0", netem::add_netem(INDEX, 2, &profile("0ms", 1_000), &Tables::new()).unwrap()),
        // tc qdisc add dev v0 parent 4e7e:2 handle 2: netem delay 150us limit 1000
        ("netem-150us", netem::add_netem(INDEX, 2, &profile("150us", 1_000), &Tables::new()).unwrap()),
        // tc qdisc add dev v0 parent 4e7e:2 handle 2: netem delay 4200ms limit 1000
        ("netem-4200ms", netem::add_netem(INDEX, 2, &profile("4200ms", 1_000), &Tables::new()).unwrap()),
    ];
    for (name, request) in cases {
        let mut ours = request.to_bytes(0);
        let latency64 = ours.split_off(ours.len() - LATENCY64);
        assert_eq!(latency64[..4], [12, 0, 10, 0], "{name}: TCA_NETEM_LATENCY64 comes last");
        shorten(&mut ours, LATENCY64, 48);
        assert_eq!(ours, golden(name), "{name}");
    }
}

#[test]
fn filters_are_what_tc_sends() {
    let v4 = address("10.9.0.2");
    let v6 = address("fd09::2");
    let route = |address| Filter::Route { chain: 10, address, class: 2, handle: 1 };
    let cut = |direction, address| Filter::Cut { direction, address, handle: 1 };
    let pass = |direction| Filter::Pass { direction, icmp_type: 133 };
    // tc filter add dev v0 parent 4e7e: protocol ip chain 10 pref 10 handle 1 flower skip_hw dst_ip 10.9.0.2 classid 4e7e:2
    assert_same("flower-v4-class", &route(v4).add(INDEX));
    // tc filter add dev v0 parent 4e7e: protocol ipv6 chain 10 pref 11 handle 1 flower skip_hw dst_ip fd09::2 classid 4e7e:2
    assert_same("flower-v6-class", &route(v6).add(INDEX));
    // tc filter replace dev v0 parent 4e7e: protocol all pref 100 handle 1 flower skip_hw action goto chain 10
    assert_same("flower-goto-replace", &Filter::Gate { chain: 10 }.add(INDEX));
    // tc filter add dev v0 parent 4e7e: protocol ip pref 2 handle 1 flower skip_hw dst_ip 10.9.0.2 action drop
    assert_same("flower-cut-egress-v4", &cut(Direction::Egress, v4).add(INDEX));
    // tc filter add dev v0 parent 4e7e: protocol ipv6 pref 3 handle 1 flower skip_hw dst_ip fd09::2 action drop
    assert_same("flower-cut-egress-v6", &cut(Direction::Egress, v6).add(INDEX));
    // tc filter add dev v0 ingress protocol ip pref 2 handle 1 flower skip_hw src_ip 10.9.0.2 action drop
    assert_same("flower-cut-ingress-v4", &cut(Direction::Ingress, v4).add(INDEX));
    // tc filter add dev v0 ingress protocol ipv6 pref 3 handle 1 flower skip_hw src_ip fd09::2 action drop
    assert_same("flower-cut-ingress-v6", &cut(Direction::Ingress, v6).add(INDEX));
    // tc filter add dev v0 parent 4e7e: protocol ipv6 pref 1 handle 133 flower skip_hw ip_proto icmpv6 type 133 classid 4e7e:1
    assert_same("flower-nd-egress", &pass(Direction::Egress).add(INDEX));
    // tc filter add dev v0 ingress protocol ipv6 pref 1 handle 133 flower skip_hw ip_proto icmpv6 type 133 action pass
    assert_same("flower-nd-ingress", &pass(Direction::Ingress).add(INDEX));
}

#[test]
fn deleting_a_filter_is_what_tc_sends_without_its_empty_options() {
    /// `TCA_OPTIONS { TCA_FLOWER_FLAGS 0, TCA_FLOWER_KEY_ETH_TYPE }`: tc writes them whatever it deletes.
    const OPTIONS: usize = 20;
    let cases = [
        // tc filter del dev v0 parent 4e7e: protocol ip pref 2 handle 1 flower
        ("filter-del-one", Direction::Egress),
        // tc filter del dev v0 ingress protocol ip pref 2 handle 1 flower
        ("filter-del-one-ingress", Direction::Ingress),
    ];
    for (name, direction) in cases {
        let mut theirs = golden(name);
        theirs.truncate(theirs.len() - OPTIONS);
        let length = u32::try_from(theirs.len()).unwrap();
        theirs[..4].copy_from_slice(&length.to_le_bytes());
        let cut = Filter::Cut { direction, address: address("10.9.0.2"), handle: 1 };
        assert_eq!(cut.delete(INDEX).to_bytes(0), theirs, "{name}");
    }
}

/// Corrects the message's length and that of the attribute at `at` after `by` bytes were cut off the end.
fn shorten(message: &mut [u8], by: usize, at: usize) {
    let length = u32::try_from(message.len()).unwrap();
    message[..4].copy_from_slice(&length.to_le_bytes());
    let attribute = u16::from_le_bytes([message[at], message[at + 1]]) - u16::try_from(by).unwrap();
    message[at..at + 2].copy_from_slice(&attribute.to_le_bytes());
}
