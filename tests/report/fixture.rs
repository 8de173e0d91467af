//! A measurement of nodes in zones.

use std::{net::IpAddr, time::Duration};

use netemctl::{
    probe::{Expectation, Expected, Pair, Report, Sample, Tolerance, judge},
    report::{Document, Zone},
    topology::{Delay, Link, NodeName},
    wire::Mute,
};

/// The network's own delay.
const NOISE_NS: u64 = 150_000;

/// Nine nodes in three zones, with a wrong delay, a lossy link, a cut pair, an answer through a partition, a one-way
/// cut and a node that ignores echo requests.
pub(crate) fn nine_nodes() -> Report {
    measured(9, 3)
}

/// A measurement of nodes in zones of this size.
pub(crate) fn measured(nodes: usize, zone_size: usize) -> Report {
    let pairs = (1..=nodes).flat_map(|from| (1..=nodes).filter(move |to| *to != from).map(move |to| (from, to)));
    let tolerance = Tolerance::default().on_network(NOISE_NS);
    Report::new(pairs.map(|pair| judged(pair, zone_size, tolerance)).collect(), tolerance, NOISE_NS)
}

pub(crate) fn document(report: &Report, zone_size: usize) -> Document<'_> {
    let mut nodes: Vec<NodeName> = report.pairs.iter().map(|pair| pair.from.clone()).collect();
    nodes.sort();
    nodes.dedup();
    let zones = nodes.chunks(zone_size).zip(1..);
    let zone = |(nodes, number): (&[NodeName], u32)| Zone { name: Some(format!("Z{number}")), nodes: nodes.to_vec() };
    Document {
        version: "1.2.3",
        date: "2026-11-27T10:46:00.000Z".to_owned(),
        command: "netemctl verify --report 'nine nodes.html'".to_owned(),
        topology: Some("three continents".to_owned()),
        source: Some("name = \"three continents\"\n".to_owned()),
        selection: "all".to_owned(),
        generation: 7,
        digest: "4e7e".repeat(16),
        overlays: vec!["storm: Z1 ↔ Z3 loss = \"5%\"".to_owned()],
        partitions: vec!["partition p1 (n3 | n7)".to_owned(), "partition p2 (n8 → n2)".to_owned()],
        kernels: vec![("6.1.0-28-amd64".to_owned(), "n[1-8]".to_owned()), ("6.12.9".to_owned(), "n9".to_owned())],
        zones: zones.map(zone).collect(),
        report,
        warnings: vec!["warning: n1 dropped 3 packets to n4 during the measurement: the queue was full".to_owned()],
        unjudged: "\n9 pairs not judged: nodes ignore echo requests\n  n6: net.ipv4.icmp_echo_ignore_all is set\n"
            .to_owned(),
        json: "{}\n".to_owned(),
    }
}

/// The one-way delay between two zones, in milliseconds.
fn delay_ms(from: usize, to: usize) -> u64 {
    match from.abs_diff(to) {
        0 => 1,
        1 => 20,
        zones => 75 * zones.min(4) as u64 / 2,
    }
}

fn judged((from, to): (usize, usize), zone_size: usize, tolerance: Tolerance) -> Pair {
    let delay = delay_ms((from - 1) / zone_size, (to - 1) / zone_size);
    let link = Link { delay: format!("{delay}ms").parse::<Delay>().unwrap(), ..Link::default() };
    let expectation = |back: &Link| Some(Expectation::of(&link, back, Duration::from_secs(1)));
    let mut expected = Expected { echo: expectation(&link), request: expectation(&Link::default()) };
    // The same delays in every run, between 0.05 and 0.35 ms above the wanted RTT.
    let rtt =
        |number: usize| 2_000_000 * delay + ((from * 7_919 + to * 104_729 + number * 31_337) % 300_000) as u64 + 50_000;
    let mut rtts_ns: Vec<u64> = (0..10).map(rtt).collect();
    let (mut mute, mut arrived) = (None, 11);
    match (from, to) {
        (1, 4) => rtts_ns.iter_mut().for_each(|rtt| *rtt += 1_600_000),
        (2, 9) => rtts_ns.iter_mut().for_each(|rtt| *rtt -= 1_100_000),
        (5, 1) => rtts_ns.truncate(6),
        (3, 7) | (7, 3) => {
            expected = Expected::default();
            (rtts_ns, arrived) = (Vec::new(), if from == 7 { 2 } else { 0 });
        }
        (2, 8) => (expected.echo, rtts_ns) = (None, Vec::new()),
        (8, 2) => (expected, rtts_ns, arrived) = (Expected::default(), Vec::new(), 0),
        (9, 5) => (rtts_ns, arrived) = (Vec::new(), 0),
        (_, 6) => (rtts_ns, mute) = (Vec::new(), Some(Mute::IgnoresIpv4)),
        _ => {}
    }
    rtts_ns.sort_unstable();
    // Only the requests of n1 to n4 are late, not the answers.
    let late = if (from, to) == (1, 4) { 1_600_000 } else { 0 };
    let delays_ns =
        if arrived > 0 { vec![i64::try_from(1_000_000 * delay + 90_000 + late).unwrap(); 10] } else { Vec::new() };
    let sample = Sample { sent: 10, rtts_ns, delays_ns, arrived, mute, late_ns: 40_000, ..Sample::default() };
    let [from, to]: [NodeName; 2] = [from, to].map(|number| format!("n{number}").parse().unwrap());
    let address: IpAddr = [192, 0, 2, u8::try_from(to.as_ref()[1..].parse::<usize>().unwrap() % 250).unwrap()].into();
    judge((&from, &to), expected, vec![(address, sample)], [tolerance; 2], NOISE_NS)
}
