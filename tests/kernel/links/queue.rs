//! When a link sends, and how much it holds. Nothing here depends on chance.

use std::time::Duration;

use super::{
    lab,
    measure::{Flow, Pace, Streamed, stream, streams},
    shape_star,
    statistics::{assert_near, assert_within, median, quantile},
};

/// The packets that arrive together: when, in milliseconds, and how many.
fn groups(streamed: &Streamed) -> Vec<(f64, usize)> {
    let mut groups: Vec<(f64, usize)> = Vec::new();
    let mut last = f64::NEG_INFINITY;
    for arrival in &streamed.arrivals {
        match groups.last_mut() {
            Some((_, count)) if arrival.at - last < 10.0 => *count += 1,
            _ => groups.push((arrival.at, 1)),
        }
        last = arrival.at;
    }
    groups
}

fn spacings(groups: &[(f64, usize)]) -> Vec<f64> {
    groups.windows(2).map(|pair| pair[1].0 - pair[0].0).collect()
}

/// A packet each 5 ms is twice what slots of four packets each 40 ms take: their queue grows, and they follow one
/// another. A slot that takes all there is leaves nothing to wait for the next, which is counted from the next packet.
#[test]
fn packets_leave_in_slots_and_no_more_than_a_slot_takes() {
    let lab = lab(4);
    let flows: Vec<Flow> = (2..=4).map(|to| Flow::v4(&lab, 1, to)).collect();
    let links = [
        "slot = '40ms'",
        "slot = { min = '40ms', max = '40ms', packets = 4 }",
        "slot = { min = '20ms', max = '60ms', packets = 4 }",
    ];
    shape_star(&lab, &links);
    let streamed = streams(&flows, Pace::of(400, Duration::from_millis(5)));
    assert!(streamed.iter().all(|stream| stream.arrivals.len() == 400), "packets were lost");
    assert!(streamed.iter().all(|stream| stream.overtaken() == 0), "packets were overtaken");
    let [any, four, ranged] = &streamed[..] else { panic!("three flows") };

    let slots = spacings(&groups(any));
    assert_within("median slot and wait for a packet", median(&slots), &(39.0..=48.0));
    let slots = groups(four);
    assert!(slots.iter().all(|(_, packets)| *packets == 4), "{slots:?}");
    assert_near("median slot", median(&spacings(&slots)), 40.0, 1.0);
    let slots = spacings(&groups(ranged));
    // Of 100 even draws from 20 to 60, the tenths are good to 6 (√(0.1 × 0.9 / 100) × 40 × 5), the median to 10.
    assert_within("shortest slots", quantile(&slots, 0.1), &(19.0..=31.0));
    assert_within("longest slots", quantile(&slots, 0.9), &(49.0..=66.0));
    assert_near("median slot", median(&slots), 40.0, 11.0);
}

/// 500 packets are sent within a tenth of the delay, so that none has left when the last comes.
#[test]
fn what_is_more_than_the_limit_is_lost_and_no_more() {
    let lab = lab(2);
    let flow = Flow::v4(&lab, 1, 2);
    shape_star(&lab, &["delay = '300ms'\nlimit = 200"]);
    let streamed = stream(&flow, Pace::burst(500));
    let arrived: Vec<usize> = streamed.arrivals.iter().map(|arrival| arrival.number).collect();
    assert_eq!(arrived, (0..200).collect::<Vec<_>>());
}

/// 1,000 packets of less than 100 bytes are fewer than a link of 10 Mbit/s has in flight.
#[test]
fn the_automatic_limit_of_a_link_with_a_rate_loses_no_small_packet() {
    let lab = lab(2);
    let flow = Flow::v4(&lab, 1, 2);
    shape_star(&lab, &["delay = '75ms'\nrate = '10mbit'"]);
    assert_eq!(stream(&flow, Pace::burst(1_000)).arrivals.len(), 1_000);
}
