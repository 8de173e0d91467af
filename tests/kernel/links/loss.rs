//! Loss: its share, its bursts, and ECN marks instead of loss.
//!
//! The links have no delay, so a packet can follow every 100 µs. Loss does not depend on the time between packets.

use std::time::Duration;

use super::{
    lab,
    measure::{Flow, Pace, Streamed, streams},
    shape_star,
    statistics::{SIGMAS, assert_near, assert_within, binomial_band, error_of_share, mean, runs, share},
};

/// This many packets distinguish 1 % from 0.65 % and 1.35 %, and 10 % from 9 % and 11 %.
const PACKETS: usize = 20_000;

const PACE: Pace = Pace::of(PACKETS, Duration::from_micros(100));

#[test]
fn random_loss_is_within_its_binomial_band() {
    let lab = lab(5);
    let flows: Vec<Flow> = (2..=5).map(|to| Flow::v4(&lab, 1, to)).collect();
    let correlated = "loss = { probability = '10%', correlation = '25%' }";
    shape_star(&lab, &["loss = '1%'", "loss = '10%'", correlated, "delay = '1ms'"]);
    let streamed = streams(&flows, PACE);
    let [one, ten, correlated, none] = &streamed[..] else { panic!("four flows") };
    assert_within("1 %", share(&one.lost()), &binomial_band(0.01, PACKETS));
    assert_within("10 %", share(&ten.lost()), &binomial_band(0.10, PACKETS));
    // Losses are independent, so the lengths of bursts are geometric.
    let bursts = runs(&ten.lost());
    assert_near("burst", mean(&bursts), 1.0 / 0.9, SIGMAS * (0.1_f64 / 0.81 / bursts.len() as f64).sqrt());
    assert_eq!(share(&none.lost()).to_bits(), 0, "a link without loss lost packets");
    // netem averages each draw with the previous draw. Averages are seldom low, so far fewer than 10 % are lost.
    let correlated = correlated.lost();
    assert_within("10 % correlated by 25 %", share(&correlated), &(0.008..=0.03));
}

/// The share of lost packets, the mean length of bursts, and the number of bursts.
fn bursts(streamed: &Streamed) -> (f64, f64, usize) {
    let lost = streamed.lost();
    let bursts = runs(&lost);
    (share(&lost), mean(&bursts), bursts.len())
}

/// Gilbert's chain with p = 5 % and r = 25 % loses p / (p + r) of the packets. The lengths of bursts are geometric with
/// a mean of 1 / r = 4. The 830 bursts in 20,000 packets give this mean to 0.6. Two links have the same parameters. If
/// they shared a leaf, each would see every second state of one chain, and bursts of 2.
#[test]
fn gemodel_loses_in_bursts_and_each_link_has_its_own_chain() {
    let lab = lab(4);
    let flows: Vec<Flow> = (2..=4).map(|to| Flow::v4(&lab, 1, to)).collect();
    let gilbert = "loss.gemodel = { p = '5%', r = '25%', bad = '100%', good = '0%' }";
    let elliott = "loss.gemodel = { p = '5%', r = '25%', bad = '70%', good = '1%' }";
    shape_star(&lab, &[gilbert, gilbert, elliott]);
    let streamed = streams(&flows, PACE);
    let in_bad = 0.05 / 0.30;
    // The correlation of successive states is 1 - p - r, so the standard error of a share is larger by this factor.
    let state_correlation: f64 = 1.0 - 0.30;
    let inflation = ((1.0 + state_correlation) / (1.0 - state_correlation)).sqrt();
    let error = |share: f64| inflation * (share * (1.0 - share) / PACKETS as f64).sqrt();
    for stream in &streamed[..2] {
        let (share, length, count) = bursts(stream);
        assert_near("share", share, in_bad, SIGMAS * error(in_bad));
        let error_of_length = 0.75_f64.sqrt() / 0.25 / (count as f64).sqrt();
        assert_near("burst", length, 4.0, SIGMAS * error_of_length);
    }
    let expected = in_bad * 0.7 + (1.0 - in_bad) * 0.01;
    assert_near("share over both states", bursts(&streamed[2]).0, expected, SIGMAS * error(expected));
}

/// The stationary distribution of the chain gives the share of each of the four states. Packets are lost in states 3
/// and 4. A burst in state 3 ends with probability p31 + p32 after each packet. A loss in state 4 is a burst of one
/// packet.
#[test]
fn the_four_state_chain_loses_as_its_stationary_distribution_says() {
    let lab = lab(2);
    let flows = [Flow::v4(&lab, 1, 2)];
    shape_star(&lab, &["loss.state = { p13 = '5%', p31 = '40%', p32 = '20%', p23 = '30%', p14 = '2%' }"]);
    let streamed = &streams(&flows, PACE)[0];
    let (in_1, in_3, in_4) = (1.0, 0.05 / 0.40, 0.02);
    let in_2 = in_3 * 0.20 / 0.30;
    let expected = (in_3 + in_4) / (in_1 + in_2 + in_3 + in_4);
    let lost = streamed.lost();
    assert_near("share", share(&lost), expected, (SIGMAS + 1.0) * error_of_share(&lost));
    let (bursts_of_3, bursts_of_4) = (in_1 * 0.05 + in_2 * 0.30, in_4);
    let length = (in_3 + in_4) / (bursts_of_3 + bursts_of_4);
    let bursts = runs(&lost);
    // Lengths in state 3 are geometric with probability 0.6. Lengths in state 4 are 1.
    let error = (0.4_f64 / 0.36 / bursts.len() as f64).sqrt();
    assert_near("burst", mean(&bursts), length, SIGMAS * error);
}

/// With 5,000 packets the test distinguishes 27 % from 30 %.
#[test]
fn ecn_marks_packets_that_are_ecn_capable_and_loses_others() {
    const CONGESTION_EXPERIENCED: u8 = 3;
    let lab = lab(2);
    let flows = [Flow::v4(&lab, 1, 2), Flow::v4(&lab, 1, 2)];
    flows[0].mark_as_ecn_capable();
    shape_star(&lab, &["loss = { probability = '30%', ecn = true }"]);
    let streamed = streams(&flows, Pace::of(5_000, Duration::from_micros(200)));
    let [capable, other] = &streamed[..] else { panic!("two flows") };
    let marked = |stream: &Streamed| -> Vec<bool> {
        stream.arrivals.iter().map(|arrival| arrival.ecn == CONGESTION_EXPERIENCED).collect()
    };
    assert_eq!(capable.arrivals.len(), 5_000, "packets were lost");
    assert_within("marked", share(&marked(capable)), &binomial_band(0.30, 5_000));
    assert_within("lost", share(&other.lost()), &binomial_band(0.30, 5_000));
    assert!(!marked(other).contains(&true), "a packet that is not ECN-capable was marked");
}
