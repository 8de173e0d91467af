//! Slots and queue limits of links. The results do not depend on chance, except for random slots.

use std::time::Duration;

use super::{
    lab,
    measure::{Flow, Pace, Streamed, stream, streams},
    shape_star,
    statistics::{assert_near, assert_within, median, quantile},
};

/// The groups of packets that arrive together: the arrival of the first in milliseconds, and the number of packets.
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

/// A packet every 5 ms is twice the rate of a slot of four packets every 40 ms. The queue grows, so every such slot is
/// full. A slot without a packet limit empties the queue. The next slot is then counted from the next packet.
#[test]
fn packets_leave_in_slots_and_a_slot_sends_no_more_than_its_limit() {
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
    assert_within("median slot plus the wait for a packet", median(&slots), &(39.0..=48.0));
    let slots = groups(four);
    assert!(slots.iter().all(|(_, packets)| *packets == 4), "{slots:?}");
    assert_near("median slot", median(&spacings(&slots)), 40.0, 1.0);
    let slots = spacings(&groups(ranged));
    // For 100 uniform draws from 20 to 60, the outer deciles are accurate to 6 (√(0.1 × 0.9 / 100) × 40 × 5), the
    // median to 10.
    assert_within("shortest slots", quantile(&slots, 0.1), &(19.0..=31.0));
    assert_within("longest slots", quantile(&slots, 0.9), &(49.0..=66.0));
    assert_near("median slot", median(&slots), 40.0, 11.0);
}

/// 500 packets are sent within a tenth of the delay. None has left the queue when the last enters it.
#[test]
fn only_packets_beyond_the_limit_are_lost() {
    let lab = lab(2);
    let flow = Flow::v4(&lab, 1, 2);
    shape_star(&lab, &["delay = '300ms'\nlimit = 200"]);
    let streamed = stream(&flow, Pace::burst(500));
    let arrived: Vec<usize> = streamed.arrivals.iter().map(|arrival| arrival.number).collect();
    assert_eq!(arrived, (0..200).collect::<Vec<_>>());
}

/// A link of 10 Mbit/s and 75 ms has up to 1,420 packets of 66 bytes in flight, more than this burst.
#[test]
fn the_automatic_limit_of_a_link_with_a_rate_loses_no_small_packet() {
    let lab = lab(2);
    let flow = Flow::v4(&lab, 1, 2);
    shape_star(&lab, &["delay = '75ms'\nrate = '10mbit'"]);
    assert_eq!(stream(&flow, Pace::burst(1_000)).arrivals.len(), 1_000);
}
