//! What happens to single packets: duplicated, sent ahead of others, corrupted.

use std::time::Duration;

use super::{
    lab,
    measure::{Arrival, Flow, Pace, stream, streams},
    shape, shape_star,
    statistics::{SIGMAS, assert_near, assert_within, binomial_band, quantile},
};

/// Some kernels refuse a netem that duplicates next to any other, so this topology is uniform: one profile, one leaf.
/// At 10 %, 10,000 packets tell 8.5 % from 10 %.
#[test]
fn duplicates_are_as_many_as_was_said_and_arrive_twice_only() {
    const PACKETS: usize = 10_000;
    let lab = lab(2);
    let flow = Flow::v4(&lab, 1, 2);
    shape(&lab, 2, "default = { delay = '5ms', duplicate = '10%' }");
    let streamed = stream(&flow, Pace::of(PACKETS, Duration::from_micros(200)));
    assert!(!streamed.lost().contains(&true), "none is lost");
    let share = streamed.duplicates() as f64 / PACKETS as f64;
    assert_within("duplicates", share, &binomial_band(0.10, PACKETS));
    // The copy is delayed as the packet is.
    assert!(streamed.arrivals.iter().all(|arrival| arrival.delay > 5.0));
}

/// With a gap, the first `gap - 1` packets after one that went ahead cannot, and each later one goes with the
/// probability: one of `gap - 1 + 1 / probability` in the mean. The spacing of those is geometric but for a constant,
/// with a variance of `(1 - p) / p²`; 4,000 packets give the share to a hundredth.
#[test]
fn reordered_packets_are_not_delayed_and_the_others_keep_their_order() {
    const PACKETS: usize = 4_000;
    let lab = lab(3);
    let flows: Vec<Flow> = (2..=3).map(|to| Flow::v4(&lab, 1, to)).collect();
    let with_gap = "delay = '40ms'\nreorder = { probability = '25%', gap = 5 }";
    shape_star(&lab, &[with_gap, "delay = '40ms'\nreorder = '10%'"]);
    let streamed = streams(&flows, Pace::of(PACKETS, Duration::from_millis(1)));
    for (streamed, (spacing, variance)) in streamed.iter().zip([(8.0, 0.75 / 0.0625), (10.0, 0.9 / 0.01)]) {
        assert_eq!(streamed.arrivals.len(), PACKETS, "none is lost");
        let (ahead, behind): (Vec<_>, Vec<Arrival>) =
            streamed.arrivals.iter().copied().partition(|arrival| arrival.delay < 40.0);
        let error = (variance / f64::powi(spacing, 3) / PACKETS as f64).sqrt();
        assert_near("share", ahead.len() as f64 / PACKETS as f64, 1.0 / spacing, SIGMAS * error);
        let delays: Vec<f64> = ahead.iter().map(|arrival| arrival.delay).collect();
        assert!(quantile(&delays, 0.9) < 20.0, "those that go ahead are not delayed");
        assert!(behind.is_sorted_by_key(|arrival| arrival.number), "the others keep their order");
    }
}

/// One bit of the frame is flipped, anywhere. In a header it has the packet thrown away on its way, except in the six
/// bytes of the sender's MAC address, which nobody checks. In the payload it arrives, where raw packets are looked at,
/// and is thrown away for its UDP checksum. 6,000 packets tell 8 % from 10 %.
#[test]
fn corrupted_packets_are_as_many_as_was_said_and_no_application_sees_them() {
    const PACKETS: usize = 6_000;
    let lab = lab(2);
    let flow = Flow::raw(&lab, 1, 2);
    shape_star(&lab, &["corrupt = '10%'"]);
    let streamed = stream(&flow, Pace::of(PACKETS, Duration::from_micros(300)).sized(1_000));
    let corrupted = PACKETS - streamed.accepted;
    assert_within("corrupted", corrupted as f64 / PACKETS as f64, &binomial_band(0.10, PACKETS));
    let altered = streamed.altered as f64 / corrupted as f64;
    assert_within("arrived altered", altered, &(0.9..=1.0));
    assert_eq!(streamed.undetected, 0, "a flipped bit always changes the checksum");
}
