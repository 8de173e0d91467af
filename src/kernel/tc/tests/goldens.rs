//! Compares the encoders with messages of iproute2's `tc`, captured by `scripts/capture-tc-goldens`.

use std::net::IpAddr;

use super::super::{
    filter::{self, Filter},
    netem, qdisc,
};
use crate::{
    plan::{
        Answer, ChainFilter, Cut, CutFilter, Direction, LineRate, Port, Profile, Protocol, Route, Step, Traffic,
        tc_commands,
    },
    topology::{
        Bytes, Chance, Delay, Distribution, Jitter, Link, Loss, LossModel, Probability, Rate, Slot, Spacing, TableId,
        Tables, Undelayed,
    },
};

const TCA_NETEM_CORR: u16 = 1;
const TCA_NETEM_LATENCY64: u8 = 10;
const TCA_NETEM_JITTER64: u8 = 11;

/// The interface index in the captures.
const INDEX: u32 = 10;

fn capture(name: &str) -> String {
    format!("{}/tests/goldens/tc/{name}.txt", env!("CARGO_MANIFEST_DIR"))
}

/// The bytes of a capture. The first line of the file has the command.
fn golden(name: &str) -> Vec<u8> {
    let path = capture(name);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .flat_map(str::split_whitespace)
        .map(|byte| u8::from_str_radix(byte, 16).unwrap())
        .collect()
}

fn assert_same(name: &str, ours: &super::super::Request) {
    let (ours, theirs) = (ours.to_bytes(0), golden(name));
    assert_eq!(ours, theirs, "\n{name}\n ours   {ours:02x?}\n theirs {theirs:02x?}");
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn qdiscs_and_deletions_are_encoded_as_by_tc() {
    // tc qdisc add dev v0 root handle 4e7e: htb default 1
    assert_same("htb-root", &qdisc::add_root(INDEX, false));
    // tc qdisc add dev v0 root handle 4e7e: htb default 1 direct_qlen 20094
    assert_same("htb-root-queueless", &qdisc::add_root(INDEX, true));
    // tc qdisc del dev v0 root handle 4e7e:
    assert_same("htb-root-del", &qdisc::delete_root(INDEX));
    // tc qdisc add dev v0 clsact
    assert_same("clsact", &qdisc::add_clsact(INDEX));
    // tc qdisc del dev v0 clsact
    assert_same("clsact-del", &qdisc::delete_clsact(INDEX));
    // tc class del dev v0 classid 4e7e:2
    assert_same("htb-class-del", &qdisc::delete_class(INDEX, 2));
    // tc filter del dev v0 parent 4e7e: chain 10
    assert_same("filter-del-chain", &filter::delete_chain(INDEX, Direction::Egress, 10));
    // tc filter del dev v0 ingress chain 11
    assert_same("filter-del-chain-ingress", &filter::delete_chain(INDEX, Direction::Ingress, 11));
}

#[test]
fn a_class_is_encoded_as_by_tc_without_the_two_unused_rate_tables() {
    /// `TCA_HTB_RTAB` and `TCA_HTB_CTAB` of 256 words each, with their headers.
    const TABLES: usize = 2 * (4 + 1024);
    let jitter = |distribution| Some(Jitter { distribution, ..jitter("5ms", "0%") });
    let normal = Profile { jitter: jitter(Distribution::Normal), ..plain("10ms") };
    let pareto = Profile { jitter: jitter(Distribution::Pareto), seed: Some(7), ..normal };
    let table = Profile { jitter: jitter(Distribution::Table(TableId::new(295_999))), ..normal };
    let slots = Profile { slot: Some(slot(distributed(Distribution::ParetoNormal))), ..plain("10ms") };
    let cases = [
        // tc class add dev v0 parent 4e7e: classid 4e7e:1 htb rate 100gbit burst 10mb cburst 10mb quantum 60000
        ("htb-class-default", 1, None),
        ("htb-class-2", 2, Some(plain("10ms"))),
        // tc class add dev v0 parent 4e7e: classid 4e7e:2 htb rate 100gbit burst 10498260b cburst 10mb quantum 60000
        ("htb-class-normal", 2, Some(normal)),
        ("htb-class-pareto-seeded", 2, Some(pareto)),
        ("htb-class-slot-paretonormal", 2, Some(slots)),
        ("htb-class-table", 2, Some(table)),
    ];
    for (name, class, profile) in cases {
        let mut theirs = golden(name);
        let tables = theirs.split_off(theirs.len() - TABLES);
        assert_eq!(tables.iter().filter(|byte| **byte != 0).count(), 6, "only the attribute headers are not zero");
        shorten(&mut theirs, TABLES, 44);
        let mark = profile.map(|profile| profile.mark()).unwrap_or_default();
        assert_eq!(qdisc::add_class(INDEX, class, mark).to_bytes(0), theirs, "{name}");
        let step = Step::AddClass { class, profile };
        assert_eq!(tc_commands(&step, &"v0".parse().unwrap())[0], command(name));
    }
}

#[test]
fn netem_is_encoded_as_by_tc_followed_by_the_times_in_nanoseconds() {
    let cases = [
        // tc qdisc add dev v0 parent 4e7e:2 handle 2: netem delay 75ms limit 100000
        ("netem-75ms", Profile::plain(time("75ms"), 100_000)),
        ("netem-150us", plain("150us")),
        ("netem-limit", Profile::plain(time("10ms"), 4_000_000)),
        // tc qdisc add dev v0 parent 4e7e:2 handle 2: netem delay 10ms 2ms 25% loss 1% limit 1000
        (
            "netem-jitter-loss",
            Profile { jitter: Some(jitter("2ms", "25%")), loss: Some(loss("1%", "0%")), ..plain("10ms") },
        ),
        ("netem-jitter", Profile { jitter: Some(jitter("5ms", "0%")), ..plain("20ms") }),
        ("netem-jitter-ordered", {
            let link =
                Link { delay: time("20ms"), jitter: Some(jitter("5ms", "0%")), limit: Some(1_000), ..Link::default() };
            Profile::of(&link, LineRate::UNKNOWN).unwrap()
        }),
        ("netem-table", Profile { jitter: Some(tabled(jitter("5ms", "25%"))), ..plain("20ms") }),
        ("netem-loss", Profile { loss: Some(loss("0.1%", "25%")), ..plain("10ms") }),
        ("netem-loss-ecn", Profile { loss: Some(Loss { ecn: true, ..loss("5%", "0%") }), ..plain("10ms") }),
        ("netem-loss-state", Profile { loss: Some(Loss { model: state(), ecn: false }), ..plain("10ms") }),
        ("netem-loss-gemodel", Profile { loss: Some(Loss { model: gemodel(), ecn: true }), ..plain("10ms") }),
        ("netem-corrupt", Profile { corrupt: Some(chance("0.5%", "10%")), ..plain("10ms") }),
        ("netem-duplicate", Profile { duplicate: Some(chance("2%", "30%")), ..plain("10ms") }),
        ("netem-reorder", Profile { reorder: Some(undelayed()), ..plain("10ms") }),
        ("netem-rate", Profile { rate: Some(rate("1mbit", [0; 3])), ..plain("10ms") }),
        ("netem-rate-cells", Profile { rate: Some(rate("1gbit", [20, 48, 5])), ..plain("10ms") }),
        ("netem-rate-overhead", Profile { rate: Some(rate("1gbit", [-14, 0, 0])), ..plain("10ms") }),
        ("netem-rate-64", Profile { rate: Some(rate("40gbit", [0; 3])), ..plain("10ms") }),
        ("netem-slot", Profile { slot: Some(bounded(range())), ..plain("10ms") }),
        ("netem-slot-table", Profile { slot: Some(slot(distributed(TABLE_OF_SLOTS))), ..plain("10ms") }),
        ("netem-all", {
            let (jitter, slot) = (Some(tabled(jitter("5ms", "25%"))), Some(bounded(distributed(TABLE_OF_SLOTS))));
            Profile { jitter, slot, ..all() }
        }),
    ];
    for (name, profile) in cases {
        let mut ours = netem::add_netem(INDEX, 2, &profile, &tables()).unwrap().to_bytes(0);
        let nanos = |time: Delay| time.as_nanos().to_le_bytes().to_vec();
        let jitter64 = profile.jitter.map(|jitter| (TCA_NETEM_JITTER64, nanos(jitter.amount)));
        let behind: Vec<_> = [(TCA_NETEM_LATENCY64, nanos(profile.delay))].into_iter().chain(jitter64).collect();
        for (kind, nanos) in behind.into_iter().rev() {
            assert_eq!(ours[ours.len() - 12..][..4], [12, 0, kind, 0], "{name}: the time is last");
            assert_eq!(remove(&mut ours, u16::from(kind)), Some(nanos), "{name}");
        }
        let mut theirs = golden(name);
        if profile.duplicate.is_some() && profile.jitter.is_none() {
            // tc 6.1 does not send the correlation.
            assert_eq!(remove(&mut ours, TCA_NETEM_CORR), Some([[0; 4], [0; 4], [0xcc, 0xcc, 0xcc, 0x4c]].concat()));
        } else if (profile.corrupt.is_some() || profile.reorder.is_some()) && profile.jitter.is_none() {
            // tc sends zero correlations if only `corrupt` or `reorder` has a correlation.
            assert_eq!(remove(&mut theirs, TCA_NETEM_CORR), Some(vec![0; 12]));
        }
        assert_eq!(ours, theirs, "\n{name}\n ours   {ours:02x?}\n theirs {theirs:02x?}");
        let step = Step::AddClass { class: 2, profile: Some(profile) };
        assert_eq!(tc_commands(&step, &"v0".parse().unwrap())[1], command(name));
    }
    // tc qdisc add dev v0 parent 4e7e:2 handle 2: netem delay 0ms limit 1000
    for (name, delay) in [("netem-0", "0ms"), ("netem-4200ms", "4200ms")] {
        let mut ours = netem::add_netem(INDEX, 2, &plain(delay), &tables()).unwrap().to_bytes(0);
        assert!(remove(&mut ours, u16::from(TCA_NETEM_LATENCY64)).is_some());
        assert_eq!(ours, golden(name), "{name}");
    }
}

#[test]
fn a_change_is_encoded_as_by_tc_with_zeros_for_unset_parameters() {
    /// The attributes that every change has, with their lengths. The times in nanoseconds are left out here.
    const KEPT: [(u16, usize); 6] = [(TCA_NETEM_CORR, 12), (3, 8), (7, 4), (4, 8), (12, 40), (6, 16)];
    // tc qdisc change dev v0 parent 4e7e:2 handle 2: netem delay 10ms limit 100000
    let to = Profile::plain(time("10ms"), 100_000);
    let mut ours = netem::change_netem(INDEX, 2, &to).to_bytes(0);
    assert!(remove(&mut ours, u16::from(TCA_NETEM_LATENCY64)).is_some());
    for (kind, length) in KEPT {
        assert_eq!(remove(&mut ours, kind), Some(vec![0; length]), "attribute {kind}");
    }
    assert_eq!(ours, golden("netem-change-10ms"));

    // tc qdisc change dev v0 parent 4e7e:2 handle 2: netem delay 75ms 5ms 25% reorder 1% 50% gap 5 …
    let to = all();
    let mut ours = netem::change_netem(INDEX, 2, &to).to_bytes(0);
    for kind in [TCA_NETEM_LATENCY64, TCA_NETEM_JITTER64] {
        assert!(remove(&mut ours, u16::from(kind)).is_some());
    }
    assert_eq!(ours, golden("netem-change-all"));
    let step = Step::ChangeLeaf { class: 2, from: plain("10ms"), to };
    assert_eq!(tc_commands(&step, &"v0".parse().unwrap()), [command("netem-change-all")]);
}

#[test]
fn a_seed_is_the_last_attribute() {
    // struct nlattr: length 12, TCA_NETEM_PRNG_SEED 14; the seed. tc has seeds since 6.7.
    let seeded = Profile { seed: Some(0x0102_0304_0506_0708), ..plain("10ms") };
    let ours = netem::add_netem(INDEX, 2, &seeded, &tables()).unwrap().to_bytes(0);
    assert_eq!(ours[ours.len() - 12..], [12, 0, 14, 0, 8, 7, 6, 5, 4, 3, 2, 1]);
}

#[test]
fn unknown_tables_and_long_tables_are_refused() {
    let profile = Profile {
        jitter: Some(tabled(jitter("5ms", "0%"))),
        slot: Some(slot(distributed(TABLE_OF_SLOTS))),
        ..plain("10ms")
    };
    let error = |tables: &Tables| netem::add_netem(INDEX, 2, &profile, tables).unwrap_err().to_string();
    assert!(error(&Tables::new()).starts_with("the agent does not have the distribution table 0000ff"));
    let long: Tables = tables().keys().map(|id| (*id, vec![1; 16_384].into())).collect();
    assert!(error(&long).contains("have 32768 values"));
    let empty: Tables = tables().keys().map(|id| (*id, Vec::new().into())).collect();
    assert!(error(&empty).contains("does not have the distribution table"));
}

/// The distribution tables that `scripts/capture-tc-goldens` gives to tc.
fn tables() -> Tables {
    let Distribution::Table(of_slots) = TABLE_OF_SLOTS else { panic!("not a table") };
    [(TableId::new(0xff), vec![-8_192, -1, 0, 1, 8_192].into()), (of_slots, vec![-32_768, 32_767].into())].into()
}

const TABLE_OF_SLOTS: Distribution = Distribution::Table(TableId::new(0x00ab_cdef));

/// A profile with every parameter that a change can set.
fn all() -> Profile {
    Profile {
        jitter: Some(jitter("5ms", "25%")),
        loss: Some(Loss { model: gemodel(), ecn: true }),
        corrupt: Some(chance("0.5%", "10%")),
        duplicate: Some(chance("2%", "30%")),
        reorder: Some(undelayed()),
        rate: Some(rate("40gbit", [20, 48, 5])),
        slot: Some(bounded(range())),
        ..Profile::plain(time("75ms"), 5_000)
    }
}

fn time(text: &str) -> Delay {
    text.parse().unwrap()
}

fn plain(delay: &str) -> Profile {
    Profile::plain(time(delay), 1_000)
}

fn share(text: &str) -> Probability {
    text.parse().unwrap()
}

fn chance(probability: &str, correlation: &str) -> Chance {
    Chance { probability: share(probability), correlation: share(correlation) }
}

fn jitter(amount: &str, correlation: &str) -> Jitter {
    Jitter { amount: time(amount), correlation: share(correlation), distribution: Distribution::Uniform }
}

fn tabled(jitter: Jitter) -> Jitter {
    Jitter { distribution: Distribution::Table(TableId::new(0xff)), ..jitter }
}

fn loss(probability: &str, correlation: &str) -> Loss {
    Loss { model: LossModel::Random(chance(probability, correlation)), ecn: false }
}

fn state() -> LossModel {
    let [p13, p31, p32, p23, p14] = ["1%", "80%", "50%", "10%", "0.1%"].map(share);
    LossModel::State { p13, p31, p32, p23, p14 }
}

fn gemodel() -> LossModel {
    let [p, r, bad, good] = ["1%", "10%", "70%", "0.1%"].map(share);
    LossModel::GeModel { p, r, bad, good }
}

fn undelayed() -> Undelayed {
    Undelayed { chance: chance("1%", "50%"), gap: 5 }
}

fn rate(bits: &str, overheads: [i32; 3]) -> Rate {
    let [packet_overhead, cell_size, cell_overhead] = overheads.map(Bytes::new);
    Rate { bits: bits.parse().unwrap(), packet_overhead, cell_size, cell_overhead }
}

fn range() -> Spacing {
    Spacing::Range { min: time("2ms"), max: time("4ms") }
}

fn distributed(distribution: Distribution) -> Spacing {
    Spacing::Distributed { delay: time("2ms"), jitter: time("1ms"), distribution }
}

fn slot(spacing: Spacing) -> Slot {
    Slot { spacing, packets: 0, bytes: Bytes::new(0) }
}

fn bounded(spacing: Spacing) -> Slot {
    Slot { spacing, packets: 32, bytes: Bytes::new(64_000) }
}

#[test]
fn filters_are_encoded_as_by_tc() {
    let v4 = address("10.9.0.2");
    let v6 = address("fd09::2");
    let route =
        |address, class| Filter::InChain { chain: 10, filter: ChainFilter::Route(Route { address, class, handle: 1 }) };
    let cut_of = |direction, address, traffic, answer| cut(10, Cut { direction, address, traffic, answer }, None);
    let all = |direction, address| cut_of(direction, address, Traffic::All, Answer::Silence);
    let refusal = |address, traffic| cut_of(Direction::Egress, address, traffic, Answer::Refusal);
    let tcp = Port { protocol: Protocol::Tcp, number: 26257 };
    let udp = Port { protocol: Protocol::Udp, number: 4567 };
    let gate = |direction, chain| Filter::Gate { direction, chain };
    let pass = |direction| Filter::Pass { direction, icmp_type: 133 };
    // tc filter add dev v0 parent 4e7e: protocol ip chain 10 pref 10 handle 1 flower skip_hw dst_ip 10.9.0.2 classid 4e7e:2
    assert_same("flower-v4-class", &route(v4, 2).add(INDEX));
    // tc filter add dev v0 parent 4e7e: protocol ipv6 chain 10 pref 11 handle 1 flower skip_hw dst_ip fd09::2 classid 4e7e:2
    assert_same("flower-v6-class", &route(v6, 2).add(INDEX));
    // tc filter replace dev v0 parent 4e7e: protocol all pref 100 handle 1 flower skip_hw action goto chain 10
    assert_same("flower-goto-replace", &gate(Direction::Egress, 10).add(INDEX));
    // tc filter replace dev v0 ingress protocol all pref 100 handle 1 flower skip_hw action goto chain 11
    assert_same("flower-goto-replace-ingress", &gate(Direction::Ingress, 11).add(INDEX));
    // tc filter replace dev v0 parent 4e7e: protocol ip chain 10 pref 10 handle 1 flower skip_hw dst_ip 10.9.0.2 classid 4e7e:3
    assert_same("flower-v4-class-replace", &route(v4, 3).replace(INDEX));
    // tc filter add dev v0 parent 4e7e: protocol ip chain 10 pref 2 handle 1 flower skip_hw dst_ip 10.9.0.2 action drop
    assert_same("flower-cut-egress-v4", &all(Direction::Egress, v4).add(INDEX));
    // tc filter add dev v0 parent 4e7e: protocol ipv6 chain 10 pref 3 handle 1 flower skip_hw dst_ip fd09::2 action drop
    assert_same("flower-cut-egress-v6", &all(Direction::Egress, v6).add(INDEX));
    // tc filter add dev v0 ingress protocol ip chain 10 pref 2 handle 1 flower skip_hw src_ip 10.9.0.2 action drop
    assert_same("flower-cut-ingress-v4", &all(Direction::Ingress, v4).add(INDEX));
    // tc filter add dev v0 ingress protocol ipv6 chain 10 pref 3 handle 1 flower skip_hw src_ip fd09::2 action drop
    assert_same("flower-cut-ingress-v6", &all(Direction::Ingress, v6).add(INDEX));
    for (name, direction, address, traffic) in [
        // tc filter add dev v0 parent 4e7e: protocol ip chain 10 pref 2 handle 1 flower skip_hw dst_ip 10.9.0.2 ip_proto tcp dst_port 26257 action drop
        ("flower-cut-egress-v4-to-tcp", Direction::Egress, v4, Traffic::ToPort { port: tcp }),
        ("flower-cut-egress-v4-from-udp", Direction::Egress, v4, Traffic::FromPort { port: udp }),
        ("flower-cut-egress-v6-from-tcp", Direction::Egress, v6, Traffic::FromPort { port: tcp }),
        ("flower-cut-egress-v6-to-udp", Direction::Egress, v6, Traffic::ToPort { port: udp }),
        // tc filter add dev v0 ingress protocol ip chain 10 pref 2 handle 1 flower skip_hw src_ip 10.9.0.2 ip_proto tcp src_port 26257 action drop
        ("flower-cut-ingress-v4-from-tcp", Direction::Ingress, v4, Traffic::FromPort { port: tcp }),
        ("flower-cut-ingress-v4-to-udp", Direction::Ingress, v4, Traffic::ToPort { port: udp }),
        ("flower-cut-ingress-v6-to-tcp", Direction::Ingress, v6, Traffic::ToPort { port: tcp }),
        ("flower-cut-egress-v4-fragments-udp", Direction::Egress, v4, Traffic::FragmentsOf { protocol: Protocol::Udp }),
        (
            "flower-cut-ingress-v6-fragments-tcp",
            Direction::Ingress,
            v6,
            Traffic::FragmentsOf { protocol: Protocol::Tcp },
        ),
        ("flower-cut-ingress-v6-from-udp", Direction::Ingress, v6, Traffic::FromPort { port: udp }),
    ] {
        assert_same(name, &cut_of(direction, address, traffic, Answer::Silence).add(INDEX));
    }
    // tc filter add dev v0 parent 4e7e: protocol ip chain 10 pref 4 handle 1 flower skip_hw dst_ip 10.9.0.2 action sample rate 1 group 20094 trunc 1280 action drop
    assert_same("flower-reject-v4", &refusal(v4, Traffic::All).add(INDEX));
    // tc filter add dev v0 parent 4e7e: protocol ipv6 chain 10 pref 5 handle 1 flower skip_hw dst_ip fd09::2 ip_proto tcp dst_port 26257 action sample …
    assert_same("flower-reject-v6-to-tcp", &refusal(v6, Traffic::ToPort { port: tcp }).add(INDEX));
    let [all_v4, refused_v4] = [Answer::Silence, Answer::Refusal].map(|answer| {
        let of_all = Cut { direction: Direction::Egress, address: v4, traffic: Traffic::All, answer };
        cut(11, of_all, Some(7))
    });
    // tc filter add dev v0 parent 4e7e: protocol ip chain 11 pref 2 handle 1 flower skip_hw dst_ip 10.9.0.2 action drop index 7
    assert_same("flower-cut-egress-v4-shared", &all_v4.add(INDEX));
    // tc filter add dev v0 parent 4e7e: protocol ip chain 11 pref 4 handle 1 flower skip_hw dst_ip 10.9.0.2 action sample … action drop index 7
    assert_same("flower-reject-v4-shared", &refused_v4.add(INDEX));
    // tc filter add dev v0 parent 4e7e: protocol ipv6 pref 1 handle 133 flower skip_hw ip_proto icmpv6 type 133 classid 4e7e:1
    assert_same("flower-nd-egress", &pass(Direction::Egress).add(INDEX));
    // tc filter add dev v0 ingress protocol ipv6 pref 1 handle 133 flower skip_hw ip_proto icmpv6 type 133 action pass
    assert_same("flower-nd-ingress", &pass(Direction::Ingress).add(INDEX));
}

#[test]
fn a_filter_is_deleted_and_requested_as_by_tc_without_the_empty_options() {
    /// `TCA_OPTIONS { TCA_FLOWER_FLAGS 0, TCA_FLOWER_KEY_ETH_TYPE }`: tc sends these options with every deletion.
    const OPTIONS: usize = 20;
    const RTM_GETTFILTER: u8 = 46;
    let cases = [
        // tc filter del dev v0 parent 4e7e: protocol ip chain 10 pref 2 handle 1 flower
        ("filter-del-one", Direction::Egress),
        // tc filter del dev v0 ingress protocol ip chain 10 pref 2 handle 1 flower
        ("filter-del-one-ingress", Direction::Ingress),
    ];
    for (name, direction) in cases {
        let mut theirs = golden(name);
        theirs.truncate(theirs.len() - OPTIONS);
        let length = u32::try_from(theirs.len()).unwrap();
        theirs[..4].copy_from_slice(&length.to_le_bytes());
        let (address, traffic, answer) = (address("10.9.0.2"), Traffic::All, Answer::Silence);
        let cut = cut(10, Cut { direction, address, traffic, answer }, None);
        assert_eq!(cut.delete(INDEX).to_bytes(0), theirs, "{name}");
        let mut get = theirs;
        get[4] = RTM_GETTFILTER;
        assert_eq!(cut.get(INDEX).to_bytes(0), get, "{name}");
    }
}

fn cut(chain: u32, cut: Cut, counter: Option<u32>) -> Filter {
    Filter::InChain { chain, filter: ChainFilter::Cut(CutFilter { cut, handle: 1, counter }) }
}

/// The command of a capture.
fn command(name: &str) -> String {
    let text = std::fs::read_to_string(capture(name)).unwrap();
    text.lines().next().unwrap().trim_start_matches("# ").to_owned()
}

/// Removes an attribute from the options of a netem message, and returns the value of the attribute.
fn remove(message: &mut Vec<u8>, kind: u16) -> Option<Vec<u8>> {
    /// The offset of the options' length. The options' header and `struct tc_netem_qopt` follow.
    const OPTIONS: usize = 48;
    let mut at = OPTIONS + 4 + 24;
    while at < message.len() {
        let word = |at: usize| u16::from_le_bytes([message[at], message[at + 1]]);
        let (length, this) = (usize::from(word(at)), word(at + 2));
        let end = at + length.next_multiple_of(4);
        if this == kind {
            let value = message[at + 4..at + length].to_vec();
            message.drain(at..end);
            shorten(message, end - at, OPTIONS);
            return Some(value);
        }
        at = end;
    }
    None
}

/// Subtracts `by` from the length of the message and from the length of the attribute at `at`.
fn shorten(message: &mut [u8], by: usize, at: usize) {
    let length = u32::try_from(message.len()).unwrap();
    message[..4].copy_from_slice(&length.to_le_bytes());
    let attribute = u16::from_le_bytes([message[at], message[at + 1]]) - u16::try_from(by).unwrap();
    message[at..at + 2].copy_from_slice(&attribute.to_le_bytes());
}
