//! Judges the measurement of every ordered pair of nodes, and collects the verdicts in a [`Report`].

use std::{collections::BTreeSet, fmt, net::IpAddr, time::Duration};

use serde::Serialize;

use super::{Expectation, Filtered, Sample, Tolerance, ledger::LATE};
use crate::{
    topology::{NodeName, Rtt},
    wire::Mute,
};

/// The measurement from one node to all addresses of another.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Pair {
    /// The node that sent requests.
    pub from: NodeName,
    /// The node that answers.
    pub to: NodeName,
    /// The expected RTT; `None`: no answer expected.
    #[serde(rename = "wanted_rtt_ms")]
    pub wanted: Option<Rtt>,
    /// True if requests are expected to arrive.
    pub arrives: bool,
    /// The expected share of lost round trips, 0 to 1.
    pub wanted_loss: f64,
    /// The number of requests that is needed to distinguish this loss from no loss. Set only if fewer requests were
    /// sent. Too little loss is not reported then.
    pub requests_to_tell_loss: Option<u64>,
    /// The measurement of each address.
    pub measured: Vec<Measured>,
    /// The worst verdict of all addresses.
    pub verdict: Verdict,
}

/// The measurement of one address.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Measured {
    /// The address.
    pub address: IpAddr,
    /// The number of requests sent. A node that is too late sends fewer requests than planned.
    pub sent: u32,
    /// The round-trip times of the answers, in nanoseconds, in ascending order.
    pub rtts_ns: Vec<u64>,
    /// The number of requests that arrived. Includes the requests of the first round, which resolves neighbours.
    pub arrived: u32,
    /// The lateness of the later machine's own timers and echoes to itself, in nanoseconds: the 90th percentile.
    pub late_ns: u64,
    /// The median RTT; `None`: no answer.
    #[serde(rename = "median_rtt_ms")]
    pub median: Option<Rtt>,
    /// The median minus the expected RTT, in nanoseconds.
    pub error_ns: Option<i64>,
    /// The largest allowed error, in nanoseconds: the tolerance, wider where jitter, slots or low rates require it.
    pub allowed_error_ns: Option<u64>,
    /// The largest allowed error below the expected RTT, in nanoseconds.
    pub allowed_early_ns: Option<u64>,
    /// The setting by which the other node does not answer all echo requests.
    pub mute: Option<Mute>,
    /// The packets that the two nodes themselves dropped.
    pub filtered: Filtered,
}

/// The verdict on a pair. The worst sorts last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// The measurement is as expected: within the tolerance, or cut.
    Right,
    /// The configured delay is not larger than the network's own delay, so the measurement cannot confirm it.
    NotJudged,
    /// Answers are missing: by a setting, the other node does not answer all echo requests.
    Mute,
    /// Answers are missing: a firewall of one of the two nodes drops requests or answers.
    Filtered,
    /// A machine was too late to measure, or its lateness explains the error.
    Busy,
    /// Fewer round trips were lost than configured, beyond chance.
    Lossless,
    /// More round trips were lost than configured, beyond chance and an extra tenth.
    Lossy,
    /// The median is outside the tolerance.
    Off,
    /// Requests arrive, but no answer comes back, although answers are expected.
    Unanswered,
    /// No request arrives, although requests are expected.
    Unreachable,
    /// A packet passed a partition, or a link with 100 % loss.
    Leaks,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Right => "right",
            Self::NotJudged => "not judged",
            Self::Mute => "no echo reply",
            Self::Filtered => "filtered",
            Self::Busy => "busy",
            Self::Lossless => "lossless",
            Self::Lossy => "lossy",
            Self::Off => "wrong delay",
            Self::Unanswered => "unanswered",
            Self::Unreachable => "unreachable",
            Self::Leaks => "leaks",
        })
    }
}

/// The verdicts on all pairs, the worst first.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Report {
    /// The tolerance of medians.
    pub tolerance: Tolerance,
    /// The number of wrong pairs.
    pub wrong: usize,
    /// The number of pairs that are not judged because a machine was busy.
    pub busy: usize,
    /// The number of pairs that are not judged because a node's settings stop its answers.
    pub mute: usize,
    /// The number of pairs that are not judged because a node's firewall drops echo packets.
    pub filtered: usize,
    /// The number of pairs that are not judged because their delay is not larger than the network's own delay.
    pub not_judged: usize,
    /// The network's own delay on most pairs, in nanoseconds.
    pub noise_ns: u64,
    /// The largest lateness of a machine, in nanoseconds.
    pub late_ns: u64,
    /// The pairs, the worst first.
    pub pairs: Vec<Pair>,
}

impl Report {
    /// Creates a report. Sorts the pairs: the worst verdict first, then the largest error.
    pub fn new(mut pairs: Vec<Pair>, tolerance: Tolerance, noise_ns: u64) -> Self {
        let error = |pair: &Pair| pair.measured.iter().filter_map(|m| m.error_ns).map(i64::unsigned_abs).max();
        pairs.sort_by(|a, b| {
            let worst_first = (b.verdict, error(b)).cmp(&(a.verdict, error(a)));
            worst_first.then_with(|| (&a.from, &a.to).cmp(&(&b.from, &b.to)))
        });
        let wrong = pairs.iter().filter(|pair| pair.verdict > Verdict::Busy).count();
        let having = |verdict| pairs.iter().filter(|pair| pair.verdict == verdict).count();
        let (busy, mute, not_judged) = (having(Verdict::Busy), having(Verdict::Mute), having(Verdict::NotJudged));
        let filtered = having(Verdict::Filtered);
        let late_ns = pairs.iter().flat_map(|pair| &pair.measured).map(|measured| measured.late_ns).max();
        let late_ns = late_ns.unwrap_or_default();
        Self { tolerance, wrong, busy, mute, filtered, not_judged, noise_ns, late_ns, pairs }
    }

    /// True if no pair is wrong, busy, mute or filtered. Pairs with [`Verdict::NotJudged`] are allowed.
    pub fn is_right(&self) -> bool {
        self.wrong + self.busy + self.mute + self.filtered == 0
    }

    /// The pairs to measure again.
    pub fn doubtful(&self) -> BTreeSet<(NodeName, NodeName)> {
        // With heavy loss, silence may be chance. More requests may get an answer.
        let silent = |pair: &Pair| pair.wanted.is_some() && pair.measured.iter().any(|m| m.median.is_none());
        let doubtful = |pair: &&Pair| match pair.verdict {
            Verdict::Right | Verdict::Leaks => silent(pair),
            Verdict::Mute | Verdict::Filtered | Verdict::NotJudged => false,
            _ => true,
        };
        self.pairs.iter().filter(doubtful).map(|pair| (pair.from.clone(), pair.to.clone())).collect()
    }

    /// The pair of two nodes; `None`: the pair was not measured.
    pub fn pair(&self, from: &NodeName, to: &NodeName) -> Option<&Pair> {
        self.pairs.iter().find(|pair| pair.from == *from && pair.to == *to)
    }
}

/// The expectation of one ordered pair.
#[derive(Clone, Copy, Debug, Default)]
pub struct Expected {
    /// The expectation of round trips; `None`: no answer is expected.
    pub echo: Option<Expectation>,
    /// The expectation of requests; `None`: no request is expected to arrive.
    pub request: Option<Expectation>,
}

/// The lateness from which a machine loses answers. Such a machine sends fewer requests, or reads answers too late.
const LOSES: Duration = Duration::from_millis(100);

/// The largest delay that a late machine adds to an answer, as a multiple of the lateness. An answer passes four
/// queues. Two of the queues may be as late as the 90th percentile.
const TIMES_LATE: u64 = 2;

/// The network's own delay, in nanoseconds: the median over all links without jitter. A few wrong links hardly change
/// this median.
pub fn noise_ns<'a>(measured: impl Iterator<Item = (Expectation, &'a Sample)>) -> u64 {
    let added = |(expected, sample): (Expectation, &Sample)| {
        let median = median(&sample.rtts_ns).filter(|_| expected.is_plain())?;
        median.checked_sub(expected.rtt.as_nanos())
    };
    let mut added: Vec<u64> = measured.filter_map(added).collect();
    added.sort_unstable();
    added.get(added.len() / 2).copied().unwrap_or_default()
}

/// Judges one ordered pair. `noise_ns` is the network's own delay, in nanoseconds.
pub fn judge(
    (from, to): (&NodeName, &NodeName),
    expected: Expected,
    samples: Vec<(IpAddr, Sample)>,
    tolerance: Tolerance,
    noise_ns: u64,
) -> Pair {
    let wanted_loss = expected.echo.map_or(1.0, |echo| echo.loss);
    let expected = Expected {
        echo: expected.echo.filter(Expectation::gets_through),
        request: expected.request.filter(Expectation::gets_through),
    };
    let measured: Vec<Measured> =
        samples.into_iter().map(|(address, sample)| measure(address, sample, expected.echo, tolerance)).collect();
    let verdict = measured.iter().map(|measured| verdict(measured, expected, noise_ns)).max();
    let sent = measured.iter().map(|measured| u64::from(measured.sent)).min().unwrap_or_default();
    let requests = expected.echo.and_then(|echo| echo.requests_to_tell_loss());
    Pair {
        from: from.clone(),
        to: to.clone(),
        wanted: expected.echo.map(|echo| echo.rtt),
        arrives: expected.request.is_some(),
        wanted_loss,
        requests_to_tell_loss: requests.filter(|requests| *requests > sent),
        verdict: verdict.unwrap_or(Verdict::Unreachable),
        measured,
    }
}

fn measure(address: IpAddr, sample: Sample, expected: Option<Expectation>, tolerance: Tolerance) -> Measured {
    let Sample { sent, rtts_ns, arrived, late_ns, mute, filtered } = sample;
    let median = median(&rtts_ns);
    let error = |(median, expected): (u64, Expectation)| {
        let allowed = expected.allowed_error_ns(tolerance, rtts_ns.len());
        let error = median.cast_signed().saturating_sub(expected.rtt.as_nanos().cast_signed());
        (error, (allowed, expected.allowed_early_ns(rtts_ns.len())))
    };
    let (error_ns, allowed) = median.zip(expected).map(error).unzip();
    let (allowed_error_ns, allowed_early_ns) = allowed.unzip();
    let median = median.map(Rtt::from_nanos);
    Measured {
        address,
        sent,
        rtts_ns,
        arrived,
        late_ns,
        median,
        error_ns,
        allowed_error_ns,
        allowed_early_ns,
        mute,
        filtered,
    }
}

fn verdict(measured: &Measured, expected: Expected, noise_ns: u64) -> Verdict {
    let (sent, answers) = (measured.sent, measured.rtts_ns.len() as u64);
    let lost = u64::from(sent).saturating_sub(answers);
    let arrived = measured.arrived > 0 || answers > 0;
    let loses = sent == 0 || u128::from(measured.late_ns) >= LOSES.as_nanos();
    // The packets that the nodes dropped are subtracted from the loss. A pair is filtered if the rest is within bounds.
    // Some dropped packets are not counted, because a node may stop recording arrivals when it has all answers.
    let allowed = expected.echo.or(expected.request).map_or(0, |expected| expected.allowed_losses(sent));
    let filtered = measured.filtered.total();
    let is_filtered = filtered > 0 && lost.saturating_sub(filtered) <= allowed.max(filtered / 3);
    let unless_explained = |verdict| match measured.mute {
        Some(_) => Verdict::Mute,
        None if is_filtered => Verdict::Filtered,
        None if loses => Verdict::Busy,
        None => verdict,
    };
    let Some(echo) = expected.echo else {
        return match expected.request {
            _ if answers > 0 => Verdict::Leaks,
            None if arrived => Verdict::Leaks,
            None if sent == 0 => Verdict::Busy,
            Some(request) if !arrived && !request.explains_silence(sent) => unless_explained(Verdict::Unreachable),
            _ => Verdict::Right,
        };
    };
    let is_early = |error: i64| error < 0 && Some(error.unsigned_abs()) > measured.allowed_early_ns;
    let is_late = |error: i64, allowed: u64| error > 0 && error.unsigned_abs() > allowed;
    let explained_ns = measured.late_ns.saturating_mul(TIMES_LATE);
    // A wrong delay makes every answer late. A busy machine makes only some answers late.
    let is_busy_machine = |allowed: u64| {
        let is_machine_late = u128::from(measured.late_ns) >= LATE.as_nanos();
        let least = measured.rtts_ns.first().map(|least| least.saturating_sub(echo.rtt.as_nanos()));
        is_machine_late && least.is_some_and(|late| late <= allowed)
    };
    let is_below_noise = echo.least_delay_ns.is_some_and(|delay| delay <= noise_ns);
    match measured.error_ns.zip(measured.allowed_error_ns) {
        None if sent == 0 => Verdict::Busy,
        None if echo.explains_silence(sent) => Verdict::Right,
        None if arrived => unless_explained(Verdict::Unanswered),
        None => unless_explained(Verdict::Unreachable),
        Some((error, _)) if is_early(error) => Verdict::Off,
        Some((error, allowed)) if is_late(error, allowed.saturating_add(explained_ns)) && !is_busy_machine(allowed) => {
            Verdict::Off
        }
        Some((error, allowed)) if is_late(error, allowed) => Verdict::Busy,
        Some(_) if lost > echo.allowed_losses(sent) => unless_explained(Verdict::Lossy),
        Some(_) if lost < echo.least_losses(sent) => Verdict::Lossless,
        Some(_) if is_below_noise => Verdict::NotJudged,
        Some(_) => Verdict::Right,
    }
}

/// The median of sorted values. The median of an even number of values is the mean of the middle two.
fn median(sorted: &[u64]) -> Option<u64> {
    let last = sorted.len().checked_sub(1)?;
    Some(sorted[last / 2].midpoint(sorted[last.div_ceil(2)]))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::topology::{Chance, Link, Loss, LossModel, Probability};

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
        judge((&from, &to), expected, vec![([192, 0, 2, 1].into(), sample)], Tolerance::default(), 200_000).verdict
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
        let expected =
            |link| Expected { echo: Some(Expectation::of(link, link, Duration::from_secs(1))), request: None };
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
            verdict_on(
                both_ways,
                Sample { sent: 10, rtts_ns: vec![0; answers], arrived, filtered, ..Sample::default() },
            )
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
}
