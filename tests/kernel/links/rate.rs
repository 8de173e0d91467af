//! Rate: the throughput of a link, the transmission time of a packet, and the nodes that share a rate.

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

/// Bytes of a full Ethernet frame per byte of TCP payload: headers of 14 + 20 + 20, timestamps of 12, payload of 1,448.
const FRAMES_V4: f64 = 1_514.0 / 1_448.0;
/// The same with the IPv6 header of 40 bytes.
const FRAMES_V6: f64 = 1_514.0 / 1_428.0;

/// A connection from n1 to another node.
fn to(node: u16, address: fn(u16) -> IpAddr) -> (u16, (u16, IpAddr)) {
    (1, (node, address(node)))
}

#[test]
fn tcp_fills_the_rate_within_five_percent() {
    let lab = lab(3);
    shape_star(&lab, &["delay = '5ms'\nrate = '10mbit'", "delay = '5ms'\nrate = '100mbit'"]);
    let measured = goodputs(&lab, &[to(2, v4), to(3, v4)], WARM_UP, LASTING);
    assert_near("share of 10 mbit", measured[0] * FRAMES_V4 / 10e6, 1.0, 0.05);
    assert_near("share of 100 mbit", measured[1] * FRAMES_V4 / 100e6, 1.0, 0.05);
}

/// A burst of packets of 1,000 bytes, 1,042 with headers, queues at the link. The time between two arrivals is the
/// transmission time of one packet. This time does not depend on chance.
#[test]
fn the_transmission_time_of_a_packet_counts_its_bytes_overheads_and_cells() {
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
            // The shortest of these queues holds a burst of this size.
            let streamed = stream(flow, Pace::burst(100).sized(1_000));
            assert_eq!(streamed.arrivals.len(), 100, "packets were lost");
            // A packet that the machine delivers late does not delay the next packet, so the median is unaffected.
            let apart = |pair: &[Arrival]| (pair[50].at - pair[0].at) / 50.0;
            median(&streamed.arrivals.windows(51).map(apart).collect::<Vec<_>>())
        };
        // A stall of the machine for half of a burst spoils this burst only. A wrong rate spoils every burst.
        let times: Vec<f64> = (0..5).map(|_| measure()).collect();
        let nearest =
            times.iter().copied().min_by(|a, b| (a - expected).abs().total_cmp(&(b - expected).abs())).unwrap();
        assert_near(link, nearest, expected, 0.01 * expected);
    }
}

/// A topology with zone A of n1 and zone B of n2 and n3.
fn two_zones(rate: &str) -> String {
    format!(
        "name = 'zones'\nzones.A = ['n1']\nzones.B = ['n2', 'n3']\n[links]\n\
         intra-zone = {{ rtt = '0ms' }}\ninter-zone = {{ delay = '5ms', {rate} }}\n"
    )
}

#[test]
fn a_rate_is_shared_by_all_addresses_of_a_pair_of_nodes_or_by_the_zone() {
    let lab = lab(3);
    let connections = [to(2, v4), to(2, v6), to(3, v4)];
    for (rate_per, links) in [("node", [20e6, 20e6]), ("zone", [20e6, 0.0])] {
        lab.apply(&lab.topology(&two_zones(&format!("rate = '20mbit', rate-per = '{rate_per}'"))));
        let measured = goodputs(&lab, &connections, WARM_UP, LASTING);
        let [n2_v4, n2_v6, n3_v4] = measured[..] else { panic!("three connections") };
        let (n2, n3) = (n2_v4 * FRAMES_V4 + n2_v6 * FRAMES_V6, n3_v4 * FRAMES_V4);
        assert!(measured.iter().all(|goodput| *goodput > 0.0), "{measured:?}");
        if rate_per == "node" {
            assert_near("n2, both families together, as a share of 20 mbit", n2 / links[0], 1.0, 0.05);
            assert_near("n3, as a share of another 20 mbit", n3 / links[1], 1.0, 0.05);
        } else {
            assert_near("n2 and n3 together, as a share of 20 mbit", (n2 + n3) / links[0], 1.0, 0.05);
        }
    }
}

/// The links to n2 and n3 have the same parameters. A queue of almost a second to n2 does not delay packets to n3.
#[test]
fn a_queue_on_one_link_does_not_delay_another_link_with_the_same_parameters() {
    let lab = lab(3);
    let flows: Vec<Flow> = (2..=3).map(|to| Flow::v4(&lab, 1, to)).collect();
    shape_star(&lab, &["delay = '10ms'\nrate = '1mbit'", "delay = '10ms'\nrate = '1mbit'"]);
    let full = std::thread::scope(|scope| {
        let full = scope.spawn(|| stream(&flows[0], Pace::burst(90).sized(1_000)));
        std::thread::sleep(Duration::from_millis(100));
        let other = stream(&flows[1], Pace::of(20, Duration::from_millis(10)));
        // A packet of 66 bytes takes half a millisecond at 1 Mbit/s.
        assert_within("median delay to n3", median(&other.delays()), &(10.5..=50.0));
        full.join().unwrap()
    });
    // The last packet arrives after the transmission of 90 packets of 1,042 bytes at 1 Mbit/s, and the delay.
    assert_within("arrival of the last packet to n2", full.arrivals[89].at, &(760.0..=3_000.0));
}
