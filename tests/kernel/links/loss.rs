//! Loss: how much, in what bursts, and marked instead of lost.
//!
//! The links have no delay, so that packets can follow one another every 100 µs: what is lost does not depend on when.

use std::time::Duration;

use super::{
    lab,
    measure::{Flow, Pace, Streamed, streams},
    shape_star,
    statistics::{SIGMAS, assert_near, assert_within, binomial_band, error_of_share, mean, runs, share},
};

/// With so many packets 1 % is told from 0.65 % or 1.35 %, and 10 % from 9 % or 11 %.
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
    // Each of them alone: the packets that are lost tell nothing of the next.
    let bursts = runs(&ten.lost());
    assert_near("burst", mean(&bursts), 1.0 / 0.9, SIGMAS * (0.1_f64 / 0.81 / bursts.len() as f64).sqrt());
    assert_eq!(share(&none.lost()).to_bits(), 0, "nothing else is lost");
    // What netem makes of a correlation: its mix of draws is closer to the middle than a draw is, and so seldom low.
    let correlated = correlated.lost();
    assert_within("10 % correlated by 25 %", share(&correlated), &(0.008..=0.03));
}

/// The share and mean burst length of what was lost, with the standard errors of both.
fn bursts(streamed: &Streamed) -> (f64, f64, usize) {
    let lost = streamed.lost();
    let bursts = runs(&lost);
    (share(&lost), mean(&bursts), bursts.len())
}

/// Gilbert's chain with p = 5 % and r = 25 % loses p / (p + r) of the packets, in bursts of 1 / r, whose lengths are
/// geometric: 830 of them in 20,000 packets give the mean, 4, to 0.6. Both links have the same rule; if they shared a
/// leaf, each would see every second draw of one chain, and bursts of 2.
#[test]
fn gemodel_loses_in_bursts_of_each_links_own() {
    let lab = lab(4);
    let flows: Vec<Flow> = (2..=4).map(|to| Flow::v4(&lab, 1, to)).collect();
    let gilbert = "loss.gemodel = { p = '5%', r = '25%', bad = '100%', good = '0%' }";
    let elliott = "loss.gemodel = { p = '5%', r = '25%', bad = '70%', good = '1%' }";
    shape_star(&lab, &[gilbert, gilbert, elliott]);
    let streamed = streams(&flows, PACE);
    let in_bad = 0.05 / 0.30;
    // Successive draws of a chain are correlated by 1 - p - r, so that the error of a share is larger by this factor.
    let kept: f64 = 1.0 - 0.30;
    let inflation = ((1.0 + kept) / (1.0 - kept)).sqrt();
    let error = |share: f64| inflation * (share * (1.0 - share) / PACKETS as f64).sqrt();
    for stream in &streamed[..2] {
        let (share, length, count) = bursts(stream);
        assert_near("share", share, in_bad, SIGMAS * error(in_bad));
        let error_of_length = 0.75_f64.sqrt() / 0.25 / (count as f64).sqrt();
        assert_near("burst", length, 4.0, SIGMAS * error_of_length);
    }
    let expected = in_bad * 0.7 + (1.0 - in_bad) * 0.01;
    assert_near("share of bad and good", bursts(&streamed[2]).0, expected, SIGMAS * error(expected));
}

/// The shares of time in the chain's four states follow from its balance; of losses, those of 3 and 4. A burst of
/// losses ends with p31 + p32, or after one packet if it is a single one of state 4.
#[test]
fn the_four_states_lose_what_their_balance_says() {
    let lab = lab(2);
    let flows = [Flow::v4(&lab, 1, 2)];
    shape_star(&lab, &["loss.state = { p13 = '5%', p31 = '40%', p32 = '20%', p23 = '30%', p14 = '2%' }"]);
    let streamed = &streams(&flows, PACE)[0];
    let (in_1, in_3, in_4) = (1.0, 0.05 / 0.40, 0.02);
    let in_2 = in_3 * 0.20 / 0.30;
    let expected = (in_3 + in_4) / (in_1 + in_2 + in_3 + in_4);
    let lost = streamed.lost();
    assert_near("share", share(&lost), expected, (SIGMAS + 1.0) * error_of_share(&lost));
    let (runs, singles) = (in_1 * 0.05 + in_2 * 0.30, in_4);
    let length = (in_3 + in_4) / (runs + singles);
    let bursts = super::statistics::runs(&lost);
    // The lengths of runs are geometric with 0.6, and those of singles are 1.
    let error = (0.4_f64 / 0.36 / bursts.len() as f64).sqrt();
    assert_near("burst", mean(&bursts), length, SIGMAS * error);
}

/// At 30 %, 5,000 packets tell 27 % from 30 %.
#[test]
fn ecn_marks_what_can_be_marked_and_loses_the_rest() {
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
    assert_eq!(capable.arrivals.len(), 5_000, "none is lost");
    assert_within("marked", share(&marked(capable)), &binomial_band(0.30, 5_000));
    assert_within("lost", share(&other.lost()), &binomial_band(0.30, 5_000));
    assert!(!marked(other).contains(&true), "what cannot be marked is not");
}
