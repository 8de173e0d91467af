//! Rate: how fast a link is, what a packet costs on it, and who shares it.

use std::{net::IpAddr, time::Duration};

use super::{
    lab,
    measure::{Arrival, Flow, Pace, goodputs, stream},
    shape_star,
    statistics::{assert_near, assert_within, median},
};
use crate::sockets::{v4, v6};

const WARM_UP: Duration = Duration::from_secs(1);
const LASTING: Duration = Duration::from_secs(3);

/// The Ethernet frames of a full segment, over its payload: 14 + 20 + 20 + 12 of timestamps, and 1,448.
const FRAMES_V4: f64 = 1_514.0 / 1_448.0;
/// IPv6 has a header of 40.
const FRAMES_V6: f64 = 1_514.0 / 1_428.0;

/// From n1 to another node.
fn to(node: u16, address: fn(u16) -> IpAddr) -> (u16, (u16, IpAddr)) {
    (1, (node, address(node)))
}

#[test]
fn tcp_fills_the_rate_within_five_percent() {
    let lab = lab(3);
    shape_star(&lab, &["delay = '5ms'\nrate = '10mbit'", "delay = '5ms'\nrate = '100mbit'"]);
    let measured = goodputs(&lab, &[to(2, v4), to(3, v4)], WARM_UP, LASTING);
    assert_near("of 10 mbit", measured[0] * FRAMES_V4 / 10e6, 1.0, 0.05);
    assert_near("of 100 mbit", measured[1] * FRAMES_V4 / 100e6, 1.0, 0.05);
}

/// Packets of 1,000 bytes, 1,042 with headers, that all wait for one another: what lies between two of them is the
/// time that one takes. It does not depend on chance.
#[test]
fn packets_take_the_time_of_their_bytes_overheads_and_cells() {
    let lab = lab(6);
    let rates = [
        ("rate = '10mbit'", 1_042.0),
        ("rate = '10mbit'\npacket-overhead = '250B'", 1_292.0),
        ("rate = '10mbit'\npacket-overhead = '-20B'", 1_022.0),
        // 22 cells of 48 bytes, the last of them padded.
        ("rate = '10mbit'\ncell-size = '48B'", 22.0 * 48.0),
        ("rate = '10mbit'\npacket-overhead = '10B'\ncell-size = '48B'\ncell-overhead = '5B'", 22.0 * 53.0),
    ];
    let flows: Vec<Flow> = (2..=6).map(|to| Flow::v4(&lab, 1, to)).collect();
    shape_star(&lab, &rates.map(|(link, _)| link));
    for (flow, (link, bytes)) in flows.iter().zip(rates) {
        let expected = bytes * 8.0 / 10e3;
        let measure = || {
            // No more than the shortest queue takes.
            let streamed = stream(flow, Pace::burst(100).sized(1_000));
            assert_eq!(streamed.arrivals.len(), 100, "none is lost");
            // A packet that the machine delivers late does not make the next one late: most pairs are as they should be.
            let apart = |pair: &[Arrival]| (pair[50].at - pair[0].at) / 50.0;
            median(&streamed.arrivals.windows(51).map(apart).collect::<Vec<_>>())
        };
        // A machine that stands still for half of a burst spoils it; a wrong rate would spoil every one.
        let bursts: Vec<f64> = (0..5).map(|_| measure()).collect();
        let each = bursts.iter().copied().min_by(|a, b| (a - expected).abs().total_cmp(&(b - expected).abs())).unwrap();
        assert_near(link, each, expected, 0.01 * expected);
    }
}

/// A topology in which n1 is a zone and n2 and n3 are the other.
fn two_zones(rate: &str) -> String {
    format!(
        "name = 'zones'\nzones.A = ['n1']\nzones.B = ['n2', 'n3']\n[links]\n\
         intra-zone = {{ rtt = '0ms' }}\ninter-zone = {{ delay = '5ms', {rate} }}\n"
    )
}

#[test]
fn a_rate_is_that_of_each_pair_of_nodes_with_all_its_addresses_or_of_the_zone() {
    let lab = lab(3);
    let connections = [to(2, v4), to(2, v6), to(3, v4)];
    for (rate_per, links) in [("node", [20e6, 20e6]), ("zone", [20e6, 0.0])] {
        lab.apply(&lab.topology(&two_zones(&format!("rate = '20mbit', rate-per = '{rate_per}'"))));
        let measured = goodputs(&lab, &connections, WARM_UP, LASTING);
        let [n2_v4, n2_v6, n3_v4] = measured[..] else { panic!("three connections") };
        let (n2, n3) = (n2_v4 * FRAMES_V4 + n2_v6 * FRAMES_V6, n3_v4 * FRAMES_V4);
        assert!(measured.iter().all(|goodput| *goodput > 0.0), "{measured:?}");
        if rate_per == "node" {
            assert_near("n2, both families together, of 20 mbit", n2 / links[0], 1.0, 0.05);
            assert_near("n3, of another 20 mbit", n3 / links[1], 1.0, 0.05);
        } else {
            assert_near("n2 and n3 together, of 20 mbit", (n2 + n3) / links[0], 1.0, 0.05);
        }
    }
}

/// A queue of a second in front of n2 makes no packet to n3 wait, whose link has the same rule.
#[test]
fn a_queue_on_one_link_delays_no_other_that_is_alike() {
    let lab = lab(3);
    let flows: Vec<Flow> = (2..=3).map(|to| Flow::v4(&lab, 1, to)).collect();
    shape_star(&lab, &["delay = '10ms'\nrate = '1mbit'", "delay = '10ms'\nrate = '1mbit'"]);
    let full = std::thread::scope(|scope| {
        let full = scope.spawn(|| stream(&flows[0], Pace::burst(90).sized(1_000)));
        std::thread::sleep(Duration::from_millis(100));
        let other = stream(&flows[1], Pace::of(20, Duration::from_millis(10)));
        // 66 bytes at 1 mbit are half a millisecond.
        assert_within("median to n3", median(&other.delays()), &(10.5..=50.0));
        full.join().unwrap()
    });
    // 90 packets of 1,042 bytes at 1 mbit, and the delay.
    assert_within("last to n2", full.arrivals[89].at, &(760.0..=3_000.0));
}
