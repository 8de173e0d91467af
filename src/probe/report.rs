//! Judges the measurement of every ordered pair of nodes, and collects the verdicts in a [`Report`].

use std::{fmt, net::IpAddr, time::Duration};

use serde::Serialize;

use super::{
    Expectation, Filtered, Pairs, Sample, Tolerance,
    figures::{deviation, median, percentile, share_interval},
    ledger::LATE,
};
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
    /// The expected one-way delay of requests; `None`: no request is expected to arrive.
    #[serde(rename = "wanted_one_way_ms")]
    pub wanted_one_way: Option<Rtt>,
    /// The expected standard deviation of the RTT because of jitter, in nanoseconds.
    pub wanted_deviation_ns: u64,
    /// The expected share of lost round trips, 0 to 1.
    pub wanted_loss: f64,
    /// The expected share of round trips with more than one answer, 0 to 1.
    pub wanted_duplicates: f64,
    /// The number of requests that is needed to distinguish this loss from no loss. Set only if fewer requests were
    /// sent. Too little loss is not reported then.
    pub requests_to_tell_loss: Option<u64>,
    /// The measurement of each address.
    pub measured: Vec<Measured>,
    /// The worst verdict of all addresses.
    pub verdict: Verdict,
}

impl Pair {
    /// The measurement of the address with the largest error. An address without an answer is the worst.
    pub fn worst(&self) -> Option<&Measured> {
        let error = |measured: &&Measured| match (self.wanted, measured.error_ns) {
            (Some(_), None) => (u64::MAX, false),
            (_, error) => (error.map_or(0, i64::unsigned_abs), measured.median.is_some()),
        };
        self.measured.iter().rev().max_by_key(error)
    }
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
    /// The first percentile of the RTT. With fewer than 100 answers, this is the smallest RTT.
    #[serde(rename = "p1_rtt_ms")]
    pub p1: Option<Rtt>,
    /// The 99th percentile of the RTT. With fewer than 100 answers, this is the largest RTT.
    #[serde(rename = "p99_rtt_ms")]
    pub p99: Option<Rtt>,
    /// The standard deviation of the RTT, in nanoseconds; `None`: fewer than two answers.
    pub deviation_ns: Option<u64>,
    /// The shares of lost round trips that explain the number of answers, with 95 % confidence, if losses are
    /// independent: the Wilson score interval.
    pub loss_interval: [f64; 2],
    /// The further answers to requests that have an answer already.
    pub duplicates: u32,
    /// The answers that arrived after the answer to a later request.
    pub reordered: u32,
    /// The median one-way delay of the requests, in nanoseconds; `None`: no request arrived, or the nodes are on different
    /// machines, whose clocks may differ.
    pub one_way_ns: Option<i64>,
    /// The least one-way delay of the requests, in nanoseconds.
    pub least_one_way_ns: Option<i64>,
    /// The median one-way delay minus the expected one-way delay, in nanoseconds.
    pub one_way_error_ns: Option<i64>,
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
    /// No request got a second answer, although the link duplicates packets.
    NoDuplicates,
    /// The RTT varies less than the jitter requires, beyond chance.
    Steady,
    /// Requests got second answers, although the link does not duplicate packets.
    Duplicates,
    /// More round trips were lost than configured, beyond chance and an extra tenth.
    Lossy,
    /// The median RTT or the median one-way delay is outside the tolerance.
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
            Self::NoDuplicates => "no duplicates",
            Self::Steady => "too little jitter",
            Self::Duplicates => "duplicates",
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
    pub fn doubtful(&self) -> Pairs {
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

/// The number of answers that a machine which is hardly late does not make late all together.
const ENOUGH: u64 = 5;

/// The network's own delay, in nanoseconds: the median over all links without jitter. A few wrong links hardly change
/// this median.
pub fn noise_ns<'a>(measured: impl Iterator<Item = (Expectation, &'a Sample)>) -> u64 {
    let added = |(expected, sample): (Expectation, &Sample)| {
        let median = median(&sample.rtts_ns).filter(|_| expected.is_plain())?;
        median.checked_sub(expected.rtt.as_nanos())
    };
    middle(measured.filter_map(added).collect())
}

/// The same for one-way delays, in nanoseconds. The sender's program stamps a request before the kernel does, so a one-way
/// delay may have more noise than an RTT.
pub fn one_way_noise_ns<'a>(measured: impl Iterator<Item = (Expectation, &'a Sample)>) -> u64 {
    let added = |(expected, sample): (Expectation, &Sample)| {
        let median = one_way_median(sample).filter(|_| expected.is_plain())?;
        u64::try_from(median).ok()?.checked_sub(expected.rtt.as_nanos())
    };
    middle(measured.filter_map(added).collect())
}

fn middle(mut values: Vec<u64>) -> u64 {
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or_default()
}

fn one_way_median(sample: &Sample) -> Option<i64> {
    sample.delays_ns.get(sample.delays_ns.len() / 2).copied()
}

/// Judges one ordered pair. `tolerances`: of RTTs and of one-way delays. `noise_ns`: the network's own delay, in
/// nanoseconds.
pub fn judge(
    (from, to): (&NodeName, &NodeName),
    expected: Expected,
    samples: Vec<(IpAddr, Sample)>,
    tolerances: [Tolerance; 2],
    noise_ns: u64,
) -> Pair {
    let [tolerance, one_way] = tolerances;
    let wanted_loss = expected.echo.map_or(1.0, |echo| echo.loss);
    let expected = Expected {
        echo: expected.echo.filter(Expectation::gets_through),
        request: expected.request.filter(Expectation::gets_through),
    };
    let measured: Vec<Measured> =
        samples.into_iter().map(|(address, sample)| measure(address, sample, expected, tolerance)).collect();
    let verdict = measured.iter().map(|measured| verdict(measured, expected, one_way, noise_ns)).max();
    let sent = measured.iter().map(|measured| u64::from(measured.sent)).min().unwrap_or_default();
    let requests = expected.echo.and_then(|echo| echo.requests_to_tell_loss());
    Pair {
        from: from.clone(),
        to: to.clone(),
        wanted: expected.echo.map(|echo| echo.rtt),
        arrives: expected.request.is_some(),
        wanted_one_way: expected.request.map(|request| request.rtt),
        wanted_deviation_ns: expected.echo.map_or(0, |echo| echo.deviation_ns()),
        wanted_loss,
        wanted_duplicates: expected.echo.map_or(0.0, |echo| echo.duplicates),
        requests_to_tell_loss: requests.filter(|requests| *requests > sent),
        verdict: verdict.unwrap_or(Verdict::Unreachable),
        measured,
    }
}

fn measure(address: IpAddr, sample: Sample, expected: Expected, tolerance: Tolerance) -> Measured {
    let one_way_ns = one_way_median(&sample);
    let Sample { sent, rtts_ns, delays_ns, duplicates, reordered, arrived, late_ns, mute, filtered } = sample;
    let answers = rtts_ns.len() as u64;
    let one_way_error =
        |(median, request): (i64, Expectation)| median.saturating_sub(request.rtt.as_nanos().cast_signed());
    let median = median(&rtts_ns);
    let error = |(median, expected): (u64, Expectation)| {
        let allowed = expected.allowed_error_ns(tolerance, rtts_ns.len());
        let error = median.cast_signed().saturating_sub(expected.rtt.as_nanos().cast_signed());
        (error, (allowed, expected.allowed_early_ns(rtts_ns.len())))
    };
    let (error_ns, allowed) = median.zip(expected.echo).map(error).unzip();
    let (allowed_error_ns, allowed_early_ns) = allowed.unzip();
    let median = median.map(Rtt::from_nanos);
    Measured {
        address,
        sent,
        arrived,
        late_ns,
        median,
        p1: percentile(&rtts_ns, 1).map(Rtt::from_nanos),
        p99: percentile(&rtts_ns, 99).map(Rtt::from_nanos),
        deviation_ns: deviation(&rtts_ns),
        loss_interval: share_interval(u64::from(sent).saturating_sub(answers), u64::from(sent)),
        duplicates,
        reordered,
        one_way_ns,
        least_one_way_ns: delays_ns.first().copied(),
        one_way_error_ns: one_way_ns.zip(expected.request).map(one_way_error),
        rtts_ns,
        error_ns,
        allowed_error_ns,
        allowed_early_ns,
        mute,
        filtered,
    }
}

fn verdict(measured: &Measured, expected: Expected, one_way: Tolerance, noise_ns: u64) -> Verdict {
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
    let is_machine_late = u128::from(measured.late_ns) >= LATE.as_nanos();
    let least = measured.rtts_ns.first().map_or(0, |least| least.saturating_sub(echo.rtt.as_nanos()));
    let is_wrong = |error: i64, allowed: u64| {
        let is_explained = !is_late(error, allowed.saturating_add(explained_ns));
        let are_all_late = least > allowed;
        match (is_machine_late, is_explained) {
            (true, true) => false,
            (true, false) => are_all_late,
            (false, true) => are_all_late && answers >= ENOUGH,
            (false, false) => true,
        }
    };
    // On a busy machine, some answers are late and vary.
    let punctual = &measured.rtts_ns[..measured.rtts_ns.len().saturating_sub(measured.rtts_ns.len() / 10)];
    let is_steady = |deviation| deviation < echo.least_deviation_ns(punctual.len());
    let is_below_noise = echo.least_delay_ns.is_some_and(|delay| delay <= noise_ns);
    match measured.error_ns.zip(measured.allowed_error_ns) {
        None if sent == 0 => Verdict::Busy,
        None if echo.explains_silence(sent) => Verdict::Right,
        None if arrived => unless_explained(Verdict::Unanswered),
        None => unless_explained(Verdict::Unreachable),
        Some((error, _)) if is_early(error) => Verdict::Off,
        Some((error, allowed)) if is_late(error, allowed) && is_wrong(error, allowed) => Verdict::Off,
        Some((error, allowed)) if is_late(error, allowed) => Verdict::Busy,
        Some(_) if let Some(verdict) = one_way_verdict(measured, expected.request, one_way) => verdict,
        Some(_) if lost > echo.allowed_losses(sent) => unless_explained(Verdict::Lossy),
        Some(_) if measured.duplicates > 0 && echo.duplicates == 0.0 => Verdict::Duplicates,
        Some(_) if deviation(punctual).is_some_and(is_steady) => Verdict::Steady,
        Some(_) if measured.duplicates == 0 && !echo.explains_no_duplicate(measured.rtts_ns.len()) => {
            Verdict::NoDuplicates
        }
        Some(_) if lost < echo.least_losses(sent) => Verdict::Lossless,
        Some(_) if is_below_noise => Verdict::NotJudged,
        Some(_) => Verdict::Right,
    }
}

/// The verdict on the one-way delay; `None`: the delay is as expected, or not known. The median RTT is the same if both
/// directions are wrong by opposite amounts.
fn one_way_verdict(measured: &Measured, expected: Option<Expectation>, tolerance: Tolerance) -> Option<Verdict> {
    let ((median, least), request) = measured.one_way_ns.zip(measured.least_one_way_ns).zip(expected)?;
    let requests = measured.arrived as usize;
    let error = |delay: i64| delay.saturating_sub(request.rtt.as_nanos().cast_signed());
    let (early, allowed) = (request.allowed_early_ns(requests), request.allowed_error_ns(tolerance, requests));
    let is_late = |delay| error(delay) > allowed.cast_signed();
    let is_machine_late = u128::from(measured.late_ns) >= LATE.as_nanos();
    match error(median) {
        error if error < -early.cast_signed() => Some(Verdict::Off),
        // A wrong delay makes every request late. A busy machine makes only some requests late.
        _ if is_late(least) && !is_machine_late => Some(Verdict::Off),
        _ if is_late(median) => Some(Verdict::Busy),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
