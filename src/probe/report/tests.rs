//! Tests of the verdicts.

use std::time::Duration;

use super::*;
use crate::topology::{Chance, Distribution, Jitter, Link, Loss, LossModel, Probability};

fn judged(sent: u32, rtts_ms: &[u64], wanted: Option<&str>) -> Verdict {
    let link = |rtt: &str| Link { delay: rtt.parse::<Rtt>().unwrap().one_way(), ..Link::default() };
    judged_on(sent, rtts_ms, wanted.map(link))
}

/// The verdict on RTTs if the links in both directions are `link`; `None`: both directions are cut.
fn judged_on(sent: u32, rtts_ms: &[u64], link: Option<Link>) -> Verdict {
    let echo = link.map(|link| Expectation::of(&link, &link, Duration::from_secs(1)));
    let request = link.map(|link| Expectation::of(&link, &Link::default(), Duration::from_secs(1)));
    judged_as(Expected { echo, request }, sent, rtts_ms, 0)
}

fn judged_as(expected: Expected, sent: u32, rtts_ms: &[u64], arrived: u32) -> Verdict {
    let rtts_ns = rtts_ms.iter().map(|ms| ms * 1_000_000).collect();
    verdict_on(expected, Sample { sent, rtts_ns, arrived, ..Sample::default() })
}

fn verdict_on(expected: Expected, sample: Sample) -> Verdict {
    let [from, to] = ["n1", "n2"].map(|name| name.parse().unwrap());
    judge((&from, &to), expected, vec![([192, 0, 2, 1].into(), sample)], [Tolerance::default(); 2], 200_000).verdict
}

fn lan() -> Expectation {
    Expectation::of(&Link::default(), &Link::default(), Duration::from_secs(1))
}

#[test]
fn requests_that_arrive_through_a_cut_are_a_leak_even_without_an_answer() {
    assert_eq!(judged_as(Expected::default(), 20, &[], 0), Verdict::Right);
    assert_eq!(judged_as(Expected::default(), 20, &[], 1), Verdict::Leaks);
}

#[test]
fn with_only_the_return_direction_cut_requests_must_arrive_and_answers_must_not() {
    let one_way = Expected { echo: None, request: Some(lan()) };
    assert_eq!(judged_as(one_way, 20, &[], 21), Verdict::Right);
    assert_eq!(judged_as(one_way, 20, &[], 0), Verdict::Unreachable);
    assert_eq!(judged_as(one_way, 20, &[1], 21), Verdict::Leaks);
}

#[test]
fn requests_that_arrive_without_an_answer_show_the_broken_direction() {
    let both_ways = Expected { echo: Some(lan()), request: Some(lan()) };
    assert_eq!(judged_as(both_ways, 20, &[], 21), Verdict::Unanswered);
    assert_eq!(judged_as(both_ways, 20, &[], 0), Verdict::Unreachable);
}

#[test]
fn a_long_rtt_or_a_loss_on_a_late_machine_is_busy() {
    let [link, slower] = ["10ms", "20ms"].map(|delay| Link { delay: delay.parse().unwrap(), ..Link::default() });
    let expected = |link| Expected { echo: Some(Expectation::of(link, link, Duration::from_secs(1))), request: None };
    let judged = |link, late_ms: u64, rtt_ms: u64| {
        let rtts_ns = vec![rtt_ms * 1_000_000; 3];
        let late_ns = late_ms * 1_000_000;
        verdict_on(expected(link), Sample { sent: 3, rtts_ns, arrived: 4, late_ns, ..Sample::default() })
    };
    assert_eq!(judged(&link, 30, 20), Verdict::Right, "the median is as expected");
    assert_eq!(judged(&link, 1, 60), Verdict::Off);
    assert_eq!(judged(&link, 30, 60), Verdict::Busy);
    assert_eq!(judged(&link, 700, 1_400), Verdict::Busy);
    assert_eq!(judged(&slower, 700, 20), Verdict::Off, "an early answer is a wrong delay even on a late machine");
    let once_in_time = |late_ns| {
        let rtts_ns = vec![20_100_000, 150_000_000, 190_000_000];
        verdict_on(expected(&link), Sample { sent: 3, rtts_ns, arrived: 4, late_ns, ..Sample::default() })
    };
    assert_eq!(once_in_time(51_000_000), Verdict::Busy, "one answer came in time, so the delay is correct");
    assert_eq!(once_in_time(1_000_000), Verdict::Off, "the machine is not late, so the delay is wrong");
    // Regression: a delay that was wrong by less than twice the lateness was busy.
    let all_late = |answers, late_ns| {
        let sample = Sample { sent: 9, rtts_ns: vec![22_000_000; answers], arrived: 9, late_ns, ..Sample::default() };
        verdict_on(expected(&link), sample)
    };
    assert_eq!(
        [all_late(9, 2_000_000), all_late(3, 2_000_000), all_late(9, 20_000_000)],
        [Verdict::Off, Verdict::Busy, Verdict::Busy]
    );
    let lost = |late_ms: u64| {
        verdict_on(expected(&link), Sample { sent: 3, late_ns: late_ms * 1_000_000, ..Sample::default() })
    };
    assert_eq!((lost(30), lost(300)), (Verdict::Unreachable, Verdict::Busy));
    assert_eq!(verdict_on(expected(&link), Sample::default()), Verdict::Busy, "no request was sent");
}

#[test]
fn an_rtt_of_1_ms_instead_of_2_ms_is_off() {
    let link = |delay: &str| Link { delay: delay.parse().unwrap(), ..Link::default() };
    let judged = |delay: &str, rtt_us: u64| {
        let echo = Some(Expectation::of(&link(delay), &link(delay), Duration::from_secs(1)));
        let rtts_ns = vec![rtt_us * 1_000; 10];
        verdict_on(Expected { echo, request: echo }, Sample { sent: 10, rtts_ns, arrived: 11, ..Sample::default() })
    };
    assert_eq!([judged("1ms", 2_150), judged("1ms", 1_200)], [Verdict::Right, Verdict::Off]);
    // The network's own delay is 0.2 ms. A measurement cannot confirm a delay of 0.1 ms.
    assert_eq!(judged("100us", 250), Verdict::NotJudged);
}

#[test]
fn a_node_that_ignores_echo_requests_is_mute_and_not_unanswered() {
    let both_ways = Expected { echo: Some(lan()), request: Some(lan()) };
    let sample = Sample { sent: 10, arrived: 11, mute: Some(Mute::IgnoresIpv4), ..Sample::default() };
    assert_eq!(verdict_on(both_ways, sample), Verdict::Mute);
}

#[test]
fn packets_that_a_nodes_own_firewall_drops_are_filtered_and_not_lossy() {
    let both_ways = Expected { echo: Some(lan()), request: Some(lan()) };
    let judged = |answers: usize, arrived, filtered| {
        verdict_on(both_ways, Sample { sent: 10, rtts_ns: vec![0; answers], arrived, filtered, ..Sample::default() })
    };
    let input = |requests_in| Filtered { requests_in, ..Filtered::default() };
    assert_eq!(judged(0, 11, input(10)), Verdict::Filtered, "the firewall drops all requests");
    assert_eq!(judged(3, 11, input(7)), Verdict::Filtered, "the firewall drops some requests");
    assert_eq!(judged(3, 11, input(2)), Verdict::Lossy, "the network loses more packets than the firewall drops");
    assert_eq!(judged(0, 11, input(2)), Verdict::Unanswered);
    assert_eq!(judged(9, 11, input(1)), Verdict::Right);
    let output = Filtered { requests_out: 10, ..Filtered::default() };
    assert_eq!(judged(0, 0, output), Verdict::Filtered);
    let leaks = Sample { sent: 10, arrived: 3, filtered: input(3), ..Sample::default() };
    assert_eq!(verdict_on(Expected::default(), leaks), Verdict::Leaks, "requests passed the partition");
}

#[test]
fn a_missing_loss_is_lossless_and_not_right() {
    let probability = "20%".parse().unwrap();
    let model = LossModel::Random(Chance { probability, correlation: Probability::ZERO });
    let link = Link { loss: Some(Loss { model, ecn: false }), ..Link::default() };
    assert_eq!(judged_on(200, &[0; 200], Some(link)), Verdict::Lossless);
    assert_eq!(judged_on(10, &[0; 10], Some(link)), Verdict::Right, "10 requests are too few to judge the loss");
}

#[test]
fn the_tolerance_is_two_percent_or_a_millisecond_whichever_is_larger() {
    assert_eq!(judged(1, &[21], Some("20ms")), Verdict::Right);
    assert_eq!(judged(1, &[22], Some("20ms")), Verdict::Off);
    assert_eq!(judged(1, &[153], Some("150ms")), Verdict::Right);
    assert_eq!(judged(1, &[154], Some("150ms")), Verdict::Off);
}

#[test]
fn one_answer_through_a_partition_is_a_leak() {
    assert_eq!(judged(20, &[], None), Verdict::Right);
    assert_eq!(judged(20, &[150], None), Verdict::Leaks);
}

#[test]
fn silence_is_unreachable_and_more_than_a_tenth_lost_is_lossy() {
    assert_eq!(judged(20, &[], Some("20ms")), Verdict::Unreachable);
    assert_eq!(judged(20, &[20; 18], Some("20ms")), Verdict::Right);
    assert_eq!(judged(20, &[20; 17], Some("20ms")), Verdict::Lossy);
}

#[test]
fn configured_loss_is_right_and_answers_through_a_link_with_full_loss_are_leaks() {
    let lossy = |percent: &str| {
        let probability = percent.parse().unwrap();
        let model = LossModel::Random(Chance { probability, correlation: Probability::ZERO });
        Some(Link { loss: Some(Loss { model, ecn: false }), ..Link::default() })
    };
    assert_eq!(judged_on(100, &[0; 50], lossy("20%")), Verdict::Right);
    assert_eq!(judged_on(100, &[0; 20], lossy("20%")), Verdict::Lossy);
    assert_eq!(judged_on(100, &[], lossy("20%")), Verdict::Unreachable);
    assert_eq!(judged_on(10, &[], lossy("90%")), Verdict::Right);
    assert_eq!(judged_on(10, &[], lossy("100%")), Verdict::Right);
    assert_eq!(judged_on(10, &[1], lossy("100%")), Verdict::Leaks);
}

#[test]
fn the_median_of_an_even_number_of_values_is_the_mean_of_the_middle_two() {
    assert_eq!(median(&[]), None);
    assert_eq!(median(&[7]), Some(7));
    assert_eq!(median(&[1, 3, 5, 100]), Some(4));
}

/// Regression test: jitter that another program removed was right, because it does not change the median.
#[test]
fn too_little_jitter_is_wrong_and_chance_explains_little() {
    let jitter =
        Jitter { amount: "5ms".parse().unwrap(), correlation: Probability::ZERO, distribution: Distribution::Normal };
    let link = Link { delay: "50ms".parse().unwrap(), jitter: Some(jitter), ..Link::default() };
    let around = |spread: u64| -> Vec<u64> { (0..10).map(|answer| 100 + spread * (answer % 3)).collect() };
    assert_eq!(judged_on(10, &around(0), Some(link)), Verdict::Steady);
    assert_eq!(
        judged_on(10, &around(1), Some(link)),
        Verdict::Right,
        "chance explains a small deviation of 10 answers"
    );
    assert_eq!(judged_on(3, &[100, 100, 100], Some(link)), Verdict::Right, "too few answers");
    let correlated = Jitter { correlation: share("50%"), ..jitter };
    assert_eq!(judged_on(10, &around(0), Some(Link { jitter: Some(correlated), ..link })), Verdict::Right);
}

#[test]
fn duplicates_must_come_if_and_only_if_the_link_duplicates() {
    let plain = Link { delay: "50ms".parse().unwrap(), ..Link::default() };
    let chance = Chance { probability: share("50%"), correlation: Probability::ZERO };
    let judged = |link: Link, duplicates| {
        let echo = Expectation::of(&link, &link, Duration::from_secs(1));
        let sample = Sample { sent: 10, rtts_ns: vec![100_000_000; 10], arrived: 11, duplicates, ..Sample::default() };
        verdict_on(Expected { echo: Some(echo), request: None }, sample)
    };
    assert_eq!([judged(plain, 0), judged(plain, 1)], [Verdict::Right, Verdict::Duplicates]);
    let copying = Link { duplicate: Some(chance), ..plain };
    assert_eq!([judged(copying, 7), judged(copying, 0)], [Verdict::Right, Verdict::NoDuplicates]);
}

/// Regression test: if one direction was too slow and the other too fast, the RTT was right.
#[test]
fn a_wrong_one_way_delay_is_wrong_even_if_the_rtt_is_right() {
    let [there, back] = ["5ms", "15ms"].map(|delay| Link { delay: delay.parse().unwrap(), ..Link::default() });
    let of = |there: &Link, back: &Link| Some(Expectation::of(there, back, Duration::from_secs(1)));
    let expected = Expected { echo: of(&there, &back), request: of(&there, &Link::default()) };
    let judged = |delay_ms: i64, late_ms: u64| {
        let delays_ns = vec![delay_ms * 1_000_000 + 90_000; 10];
        let rtts_ns = vec![20_100_000; 10];
        let late_ns = late_ms * 1_000_000;
        verdict_on(expected, Sample { sent: 10, rtts_ns, delays_ns, arrived: 11, late_ns, ..Sample::default() })
    };
    assert_eq!([5, 15, 4].map(|delay| judged(delay, 0)), [Verdict::Right, Verdict::Off, Verdict::Off]);
    assert_eq!(judged(15, 21), Verdict::Busy, "the machine is late");
}

fn share(text: &str) -> Probability {
    text.parse().unwrap()
}

/// Regression test: the time from the stamp of a request to the kernel counted as an error of the link.
#[test]
fn the_noise_of_one_way_delays_is_measured() {
    let sample = |delay_us: i64| Sample { delays_ns: vec![delay_us * 1_000; 3], ..Sample::default() };
    let samples = [sample(60), sample(110), sample(90), sample(10_050)];
    let noise_ns = one_way_noise_ns(samples.iter().map(|sample| (lan(), sample)));
    assert_eq!(noise_ns, 110_000);
    assert_eq!(Tolerance::default().on_network(noise_ns).floor_ns, 440_000);
}
