//! Duplication, reordering and corruption of packets.

use std::time::Duration;

use super::{
    lab,
    measure::{Arrival, Flow, Pace, stream, streams},
    shape, shape_star,
    statistics::{SIGMAS, assert_near, assert_within, binomial_band, quantile},
};

/// Some kernels refuse a duplicating netem beside another netem. All links of this topology therefore share one
/// profile. With 10,000 packets the test distinguishes 8.5 % from 10 %.
#[test]
fn the_share_of_duplicates_is_as_configured_and_copies_are_delayed_too() {
    const PACKETS: usize = 10_000;
    let lab = lab(2);
    let flow = Flow::v4(&lab, 1, 2);
    shape(&lab, 2, "default = { delay = '5ms', duplicate = '10%' }");
    let streamed = stream(&flow, Pace::of(PACKETS, Duration::from_micros(200)));
    assert!(!streamed.lost().contains(&true), "packets were lost");
    let share = streamed.duplicates() as f64 / PACKETS as f64;
    assert_within("duplicates", share, &binomial_band(0.10, PACKETS));
    // The copy has the same delay as the packet.
    assert!(streamed.arrivals.iter().all(|arrival| arrival.delay > 5.0));
}

/// With a gap, the `gap - 1` packets after a reordered packet are never reordered. Each later packet is reordered with
/// probability `p`. The mean spacing of reordered packets is therefore `gap - 1 + 1 / p`. The spacing is a constant
/// plus a geometric variable, so its variance is `(1 - p) / p²`. 4,000 packets give the share to within 0.01.
#[test]
fn reordered_packets_are_not_delayed_and_the_others_keep_their_order() {
    const PACKETS: usize = 4_000;
    let lab = lab(3);
    let flows: Vec<Flow> = (2..=3).map(|to| Flow::v4(&lab, 1, to)).collect();
    let with_gap = "delay = '40ms'\nreorder = { probability = '25%', gap = 5 }";
    shape_star(&lab, &[with_gap, "delay = '40ms'\nreorder = '10%'"]);
    let streamed = streams(&flows, Pace::of(PACKETS, Duration::from_millis(1)));
    for (streamed, (spacing, variance)) in streamed.iter().zip([(8.0, 0.75 / 0.0625), (10.0, 0.9 / 0.01)]) {
        assert_eq!(streamed.arrivals.len(), PACKETS, "packets were lost");
        let (ahead, behind): (Vec<_>, Vec<Arrival>) =
            streamed.arrivals.iter().copied().partition(|arrival| arrival.delay < 40.0);
        let error = (variance / f64::powi(spacing, 3) / PACKETS as f64).sqrt();
        assert_near("share", ahead.len() as f64 / PACKETS as f64, 1.0 / spacing, SIGMAS * error);
        let delays: Vec<f64> = ahead.iter().map(|arrival| arrival.delay).collect();
        assert!(quantile(&delays, 0.9) < 20.0, "reordered packets were delayed");
        assert!(behind.is_sorted_by_key(|arrival| arrival.number), "the other packets were reordered");
    }
}

/// netem flips one bit anywhere in the frame. A packet with a corrupted header is dropped on its way. Only the six
/// bytes of the sender's MAC address are not checked. A packet with a corrupted payload reaches the raw socket, and is
/// then dropped for its UDP checksum. With 6,000 packets the test distinguishes 8 % from 10 %.
#[test]
fn the_share_of_corrupted_packets_is_as_configured_and_no_application_sees_them() {
    const PACKETS: usize = 6_000;
    let lab = lab(2);
    let flow = Flow::raw(&lab, 1, 2);
    shape_star(&lab, &["corrupt = '10%'"]);
    let streamed = stream(&flow, Pace::of(PACKETS, Duration::from_micros(300)).sized(1_000));
    let corrupted = PACKETS - streamed.accepted;
    assert_within("corrupted", corrupted as f64 / PACKETS as f64, &binomial_band(0.10, PACKETS));
    let altered = streamed.altered as f64 / corrupted as f64;
    assert_within("arrived altered", altered, &(0.9..=1.0));
    assert_eq!(streamed.undetected, 0, "corrupted packets reached the application");
}
