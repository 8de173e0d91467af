//! Computes the expected measurement of two correct links: the median, its random error, and the losses.
//!
//! A probe is a small ICMP echo. The outbound link affects the request, and the return link affects the answer. Both
//! effects are independent. The network's own delay is the part of an RTT that is not configured.

use std::time::Duration;

use serde::Serialize;

use crate::topology::{Delay, Distribution, Jitter, Link, LossModel, Rate, Reorder, Rtt, Spacing};

/// The tolerance of a median. The random error of the median is added to it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Tolerance {
    /// The tolerance as a share of the expected RTT; 0.02 is 2 %.
    pub share: f64,
    /// The smallest tolerance, in nanoseconds: a multiple of the network's own delay, at most 1 ms.
    pub floor_ns: u64,
}

impl Default for Tolerance {
    /// 2 % or 1 ms, whichever is larger, until the network's own delay is known.
    fn default() -> Self {
        Self { share: 0.02, floor_ns: 1_000_000 }
    }
}

impl Tolerance {
    /// The tolerance on a network whose own delay is `noise_ns` on most pairs.
    #[must_use]
    pub fn on_network(self, noise_ns: u64) -> Self {
        let floor_ns = noise_ns.saturating_mul(NOISES).max(LEAST_FLOOR_NS).min(self.floor_ns);
        Self { floor_ns, ..self }
    }

    /// The tolerance of an RTT, in nanoseconds.
    pub fn of_ns(self, rtt: Rtt) -> u64 {
        to_nanos(self.share * rtt.as_nanos() as f64).max(self.floor_ns)
    }
}

/// The smallest tolerance as a multiple of the network's own delay.
const NOISES: u64 = 4;

/// The lowest `floor_ns`, in nanoseconds.
const LEAST_FLOOR_NS: u64 = 100_000;

/// The largest rounding error of the kernel's times, in nanoseconds.
const ROUNDED_NS: u64 = 50_000;

/// The share of the deviation that is left at least if packets keep their order: then, each packet waits for the latest of
/// all packets of its leaf before it.
const ORDERED: f64 = 0.25;

/// The inverse of the allowed clock drift: two clocks may drift by 500 ppm each.
const CLOCKS_DIFFER: u64 = 1_000;

/// For normally distributed values, the standard error of the median divided by the standard error of the mean: √(π/2).
const MEDIAN_TO_MEAN: f64 = 1.2533;

/// The number of allowed standard deviations. One in 16,000 measurements exceeds this limit by chance.
const SIGMAS: f64 = 4.0;

/// The size of the largest probe as netem counts it, in bytes: Ethernet, IPv6, `ICMPv6`, the mark.
const PROBE_BYTES: f64 = 82.0;

/// The number of probes that may queue at a slow rate in spite of their spacing.
const PROBES_AT_ONCE: f64 = 2.0;

/// The time between two probes, in standard deviations of the jitter. At this spacing, few probes overtake others.
const SPACING_SIGMAS: f64 = 4.0;

/// The time between two probes, in transmission times of one probe.
const SPACING_TRANSMISSIONS: f64 = 4.0;

/// The longest spacing because of jitter, in nanoseconds. With a longer spacing, a measurement would take minutes.
const MAX_JITTER_SPACING_NS: f64 = 250e6;

/// The largest distance of a value in a netem table from the mean, in multiples of the jitter (`tabledist` of
/// `sch_netem.c`: 16 bits, scaled by 8192).
const TABLE_REACH: f64 = 4.0;

/// The smallest share of lost round trips at which no probe is expected to pass.
const EVERYTHING: f64 = 1.0 - 1e-9;

/// Silence (no answer at all) is a fault only if the probability of losing all probes by chance is at most this value.
const SILENCE: f64 = 1e-4;

/// The expected measurement.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Expectation {
    /// The sum of both delays.
    pub rtt: Rtt,
    /// The share of lost round trips, 0 to 1.
    pub loss: f64,
    /// The lowest share of lost round trips. Lower than `loss`, because a packet may arrive in spite of a flipped bit,
    /// or as a duplicate.
    least_loss: f64,
    /// The smallest delay of the two links that is above zero, in nanoseconds.
    pub least_delay_ns: Option<u64>,
    /// The standard deviation of the round trip, in nanoseconds.
    deviation_ns: f64,
    /// True if most delays spread as widely as the deviation says: for the uniform and the normal distribution without
    /// correlation. In the other distributions, few delays make up most of the deviation.
    spreads: bool,
    /// The share of round trips with more than one answer, 0 to 1.
    pub duplicates: f64,
    /// As `duplicates`, or 0 if the copies depend on each other.
    least_duplicates: f64,
    /// The largest systematic distance of the median from `rtt`, in nanoseconds.
    bias_ns: f64,
    /// The share of round trips that skip a delay, and the skipped time in nanoseconds.
    skip: (f64, f64),
    /// The variance of the number of losses, divided by the variance of independent losses. Above 1 for losses in
    /// bursts.
    burst: f64,
}

impl Expectation {
    /// Computes the expectation of probes with an average `spacing`.
    pub fn of(there: &Link, back: &Link, spacing: Duration) -> Self {
        let (a, b) = (Way::of(there, spacing), Way::of(back, spacing));
        let skip = 1.0 - (1.0 - a.skip) * (1.0 - b.skip);
        let skipped = if a.skip > 0.0 { nanos(there.delay) } else { 0.0 };
        let skipped_back = if b.skip > 0.0 { nanos(back.delay) } else { 0.0 };
        Self {
            rtt: there.delay + back.delay,
            loss: 1.0 - (1.0 - a.loss) * (1.0 - b.loss),
            least_loss: 1.0 - (1.0 - a.least_loss) * (1.0 - b.least_loss),
            least_delay_ns: [there, back]
                .map(|link| link.delay.as_nanos())
                .into_iter()
                .filter(|delay| *delay > 0)
                .min(),
            deviation_ns: a.deviation_ns.hypot(b.deviation_ns),
            spreads: a.spreads && b.spreads,
            duplicates: 1.0 - (1.0 - a.duplicates) * (1.0 - b.duplicates),
            least_duplicates: 1.0 - (1.0 - a.least_duplicates) * (1.0 - b.least_duplicates),
            bias_ns: a.bias_ns + b.bias_ns,
            skip: (skip, skipped + skipped_back),
            burst: a.burst.max(b.burst),
        }
    }

    /// The standard deviation of the round trip because of jitter, in nanoseconds.
    pub fn deviation_ns(&self) -> u64 {
        to_nanos(self.deviation_ns)
    }

    /// The lowest allowed standard deviation of the answers, in nanoseconds; 0: there are too few answers to judge. The
    /// latest tenth of the answers may be left out.
    ///
    /// The standard error is that of normally distributed values. The network's own delay only makes the deviation
    /// larger.
    pub fn least_deviation_ns(&self, answers: usize) -> u64 {
        let error = 1.0 / (2.0 * answers.max(1) as f64).sqrt();
        if self.spreads { to_nanos(self.deviation_ns * (1.0 - SIGMAS * error).min(ORDERED)) } else { 0 }
    }

    /// True if chance explains that no request got a second answer.
    pub fn explains_no_duplicate(&self, answers: usize) -> bool {
        (1.0 - self.least_duplicates * (1.0 - self.loss)).powf(answers as f64) > SILENCE
    }

    /// True if some probes are expected to pass.
    pub fn gets_through(&self) -> bool {
        self.loss < EVERYTHING
    }

    /// True if the delay is the same for all probes.
    pub fn is_plain(&self) -> bool {
        self.deviation_ns == 0.0 && self.bias_ns == 0.0 && self.skip.0 == 0.0
    }

    /// The largest allowed difference of a median above `rtt`, in nanoseconds.
    pub fn allowed_error_ns(&self, tolerance: Tolerance, answers: usize) -> u64 {
        tolerance.of_ns(self.rtt).saturating_add(self.chance_ns(answers))
    }

    /// The largest allowed difference of a median below `rtt`, in nanoseconds.
    ///
    /// The tolerance is not added: the network's own delay only makes packets later.
    pub fn allowed_early_ns(&self, answers: usize) -> u64 {
        (ROUNDED_NS + self.rtt.as_nanos() / CLOCKS_DIFFER).saturating_add(self.chance_ns(answers))
    }

    /// The largest random and systematic error of a median, in nanoseconds.
    fn chance_ns(&self, answers: usize) -> u64 {
        let answers = answers.max(1) as f64;
        let chance = SIGMAS * MEDIAN_TO_MEAN * self.deviation_ns / answers.sqrt();
        // If half of all packets skip the delay, the median skips it too.
        let (share, skipped_ns) = self.skip;
        let most_skip = share + SIGMAS * (share * (1.0 - share) / answers).sqrt() >= 0.5;
        let skipped = if most_skip { skipped_ns } else { 0.0 };
        to_nanos(chance + self.bias_ns + skipped)
    }

    /// The largest allowed number of losses: the expected losses, their random error, and a tenth of the requests
    /// for a busy machine.
    pub fn allowed_losses(&self, sent: u32) -> u64 {
        let sent = f64::from(sent);
        let deviation = (sent * self.loss * (1.0 - self.loss) * self.burst).sqrt();
        to_nanos(sent * self.loss + SIGMAS * deviation + sent / 10.0)
    }

    /// The lowest allowed number of losses; 0: there are too few requests to judge.
    pub fn least_losses(&self, sent: u32) -> u64 {
        let (sent, loss) = (f64::from(sent), self.least_loss);
        to_nanos(sent * loss - SIGMAS * (sent * loss * (1.0 - loss) * self.burst).sqrt())
    }

    /// The number of requests that is needed to distinguish the loss from no loss; `None`: no loss is expected.
    pub fn requests_to_tell_loss(&self) -> Option<u64> {
        let loss = self.least_loss;
        (loss > 0.0).then(|| to_nanos(SIGMAS * SIGMAS * (1.0 - loss) * self.burst / loss).saturating_add(1))
    }

    /// True if all probes may be lost by chance.
    pub fn explains_silence(&self, sent: u32) -> bool {
        self.loss.powf(f64::from(sent) / self.burst) > SILENCE
    }
}

/// The longest round trip over two links.
pub fn latest_answer(there: &Link, back: &Link) -> Duration {
    [there, back].into_iter().map(latest).sum()
}

/// The time between two probes at which probes hardly delay each other.
pub fn probe_spacing(there: &Link, back: &Link) -> Duration {
    let spacing = |link: &Link| {
        let jitter = ordered_jitter(link).map_or(0.0, |jitter| SPACING_SIGMAS * deviation_ns(jitter));
        jitter.min(MAX_JITTER_SPACING_NS).max(SPACING_TRANSMISSIONS * transmission_ns(link.rate))
    };
    Duration::from_nanos(to_nanos(spacing(there).max(spacing(back))))
}

/// The longest one-way delay of a probe on a link.
fn latest(link: &Link) -> Duration {
    let jitter = link.jitter.map_or(0.0, |jitter| reach(jitter.distribution) * nanos(jitter.amount));
    let wire = PROBES_AT_ONCE * transmission_ns(link.rate);
    Duration::from_nanos(to_nanos(nanos(link.delay) + jitter + longest_slot_ns(link) + wire))
}

/// The expectation of one direction. Its fields are those of [`Expectation`].
struct Way {
    loss: f64,
    least_loss: f64,
    burst: f64,
    deviation_ns: f64,
    spreads: bool,
    duplicates: f64,
    least_duplicates: f64,
    bias_ns: f64,
    skip: f64,
}

impl Way {
    fn of(link: &Link, spacing: Duration) -> Self {
        let (loss, burst) = loss_of(link);
        let jitter = link.jitter;
        let duplicates = link.duplicate.map_or(0.0, |chance| chance.probability.share());
        let are_independent = link.duplicate.is_none_or(|chance| chance.correlation.share() == 0.0);
        let least_loss = if duplicates > 0.0 { 0.0 } else { loss_of(&Link { corrupt: None, ..*link }).0 };
        Self {
            loss,
            least_loss,
            burst,
            deviation_ns: jitter.map_or(0.0, deviation_ns),
            spreads: jitter.is_none_or(spreads),
            duplicates,
            least_duplicates: if are_independent { duplicates } else { 0.0 },
            bias_ns: jitter.map_or(0.0, skew_ns)
                + ordered_jitter(link).map_or(0.0, |jitter| order_ns(jitter, spacing))
                + longest_slot_ns(link)
                + PROBES_AT_ONCE * transmission_ns(link.rate),
            skip: skip_of(link),
        }
    }
}

/// The share of lost packets, and `burst`: the variance of their number divided by the variance of independent losses.
fn loss_of(link: &Link) -> (f64, f64) {
    let model = link.loss.map(|loss| loss.model);
    let lost = model.map_or(0.0, LossModel::mean);
    let persistence = match model {
        // netem's correlation hardly clusters losses (docs/links.md).
        None | Some(LossModel::Random(_)) => 0.0,
        Some(LossModel::State { p31, p32, .. }) => 1.0 - p31.share() - p32.share(),
        Some(LossModel::GeModel { p, r, .. }) => 1.0 - p.share() - r.share(),
    };
    // The ICMP checksum turns nearly every flipped bit into a loss.
    let corrupted = link.corrupt.map_or(0.0, |chance| chance.probability.share());
    let persistence = persistence.clamp(0.0, 0.99);
    (1.0 - (1.0 - lost) * (1.0 - corrupted), (1.0 + persistence) / (1.0 - persistence))
}

fn deviation_ns(jitter: Jitter) -> f64 {
    match jitter.distribution {
        Distribution::Uniform => nanos(jitter.amount) / 3_f64.sqrt(),
        _ => nanos(jitter.amount),
    }
}

/// As [`Expectation::spreads`].
fn spreads(jitter: Jitter) -> bool {
    let is_wide = matches!(jitter.distribution, Distribution::Uniform | Distribution::Normal);
    is_wide && jitter.correlation.share() == 0.0
}

/// The largest distance of the median delay from the mean delay, in nanoseconds.
fn skew_ns(jitter: Jitter) -> f64 {
    let jitters = match jitter.distribution {
        Distribution::Uniform | Distribution::Normal => 0.0,
        Distribution::Pareto | Distribution::ParetoNormal => 0.35,
        // In any distribution, the median is at most one standard deviation from the mean.
        Distribution::Table(_) => 1.0,
    };
    jitters * nanos(jitter.amount)
}

/// The jitter of a link if packets keep their order on this link.
fn ordered_jitter(link: &Link) -> Option<Jitter> {
    link.jitter.filter(|_| link.reorder != Some(Reorder::Jitter))
}

/// The extra delay if probes keep their order: each probe waits for the latest of all earlier probes.
///
/// For two probes whose delays differ by D, the wait is D minus the time between the probes, and at least 0. The mean
/// wait for random times is E[D⁺²] / 2 / spacing. D⁺ is the larger of D and 0, and E[D⁺²] is the variance of one delay.
/// Twice the mean wait is allowed, up to the largest distance of a delay from the mean delay.
fn order_ns(jitter: Jitter, spacing: Duration) -> f64 {
    let deviation = deviation_ns(jitter);
    let wait = deviation * deviation / (spacing.as_nanos() as f64).max(1.0);
    wait.min(reach(jitter.distribution) * nanos(jitter.amount))
}

/// The largest distance of a delay from the mean delay, in multiples of the jitter.
fn reach(distribution: Distribution) -> f64 {
    if distribution == Distribution::Uniform { 1.0 } else { TABLE_REACH }
}

fn longest_slot_ns(link: &Link) -> f64 {
    match link.slot.map(|slot| slot.spacing) {
        None => 0.0,
        Some(Spacing::Range { max, .. }) => nanos(max),
        Some(Spacing::Distributed { delay, jitter, distribution }) => {
            nanos(delay) + reach(distribution) * nanos(jitter)
        }
    }
}

/// The share of packets that skip the delay. After `gap - 1` delayed packets, each next packet may skip the delay.
fn skip_of(link: &Link) -> f64 {
    match link.reorder {
        Some(Reorder::Undelayed(undelayed)) if undelayed.chance.probability.share() > 0.0 => {
            let before = f64::from(undelayed.gap.saturating_sub(1));
            1.0 / (before + 1.0 / undelayed.chance.probability.share())
        }
        _ => 0.0,
    }
}

/// The transmission time of a probe, in nanoseconds, as in `packet_time_ns` of `sch_netem.c`.
fn transmission_ns(rate: Option<Rate>) -> f64 {
    let Some(rate) = rate else { return 0.0 };
    let mut bytes = PROBE_BYTES + f64::from(rate.packet_overhead.get());
    if rate.cell_size.get() > 0 {
        let cell = f64::from(rate.cell_size.get());
        bytes = (bytes / cell).ceil() * (cell + f64::from(rate.cell_overhead.get()));
    }
    bytes.max(0.0) * 1e9 / rate.bits.bytes_per_second() as f64
}

fn nanos(delay: Delay) -> f64 {
    delay.as_nanos() as f64
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the cast saturates on purpose")]
fn to_nanos(value: f64) -> u64 {
    value as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::{Bytes, Chance, Loss, Probability, Slot, Undelayed};

    /// A spacing at which probes do not delay each other.
    const SPACING: Duration = Duration::from_secs(1);

    /// No tolerance: only the random error is left.
    const TIGHT: Tolerance = Tolerance { share: 0.0, floor_ns: 0 };

    fn link(delay: &str) -> Link {
        Link { delay: delay.parse().unwrap(), ..Link::default() }
    }

    fn jittery(delay: &str, amount: &str, distribution: Distribution) -> Link {
        let jitter = Jitter { amount: amount.parse().unwrap(), correlation: Probability::ZERO, distribution };
        Link { jitter: Some(jitter), ..link(delay) }
    }

    fn chance(probability: &str) -> Chance {
        Chance { probability: probability.parse().unwrap(), correlation: Probability::ZERO }
    }

    fn lossy(model: LossModel) -> Link {
        Link { loss: Some(Loss { model, ecn: false }), ..Link::default() }
    }

    fn share(text: &str) -> Probability {
        text.parse().unwrap()
    }

    #[track_caller]
    fn assert_near(value: f64, expected: f64) {
        assert!((value - expected).abs() < 1e-6, "{value} instead of {expected}");
    }

    #[test]
    fn a_plain_link_allows_only_the_tolerance() {
        let plain = Expectation::of(&link("75ms"), &link("25ms"), SPACING);
        assert_eq!(plain.rtt.to_string(), "100ms");
        assert_eq!(plain.allowed_error_ns(Tolerance::default(), 10), 2_000_000);
        assert_eq!((plain.allowed_losses(20), plain.gets_through()), (2, true));
        let near = Expectation::of(&link("5ms"), &link("5ms"), SPACING);
        assert_eq!(near.allowed_error_ns(Tolerance::default(), 10), 1_000_000);
    }

    #[test]
    fn jitter_increases_the_allowed_error_by_four_standard_errors_of_the_median() {
        let free = |link| Link { reorder: Some(Reorder::Jitter), ..link };
        let normal = free(jittery("50ms", "3ms", Distribution::Normal));
        let back = free(jittery("50ms", "4ms", Distribution::Normal));
        let both = Expectation::of(&normal, &back, SPACING);
        assert_eq!(both.allowed_error_ns(TIGHT, 25), 5_013_200);
        let uniform = Expectation::of(&free(jittery("50ms", "3ms", Distribution::Uniform)), &link("50ms"), SPACING);
        assert_eq!(uniform.allowed_error_ns(TIGHT, 25), 1_736_623);
        let skewed = Expectation::of(&free(jittery("50ms", "3ms", Distribution::Pareto)), &link("50ms"), SPACING);
        let plain = Expectation::of(&normal, &link("50ms"), SPACING);
        assert_eq!(skewed.allowed_error_ns(TIGHT, 25) - plain.allowed_error_ns(TIGHT, 25), 1_050_000);
    }

    #[test]
    fn probes_that_keep_their_order_may_be_later_than_their_delay() {
        let wild = jittery("50ms", "20ms", Distribution::Uniform);
        let close = Duration::from_millis(10);
        let ordered = Expectation::of(&wild, &link("0ms"), close).allowed_error_ns(TIGHT, 100);
        let free = Link { reorder: Some(Reorder::Jitter), ..wild };
        let free = Expectation::of(&free, &link("0ms"), close).allowed_error_ns(TIGHT, 100);
        assert!(ordered - free > 10_000_000, "{ordered} {free}");
        let far = Expectation::of(&wild, &link("0ms"), SPACING).allowed_error_ns(TIGHT, 100);
        assert!(far - free < 200_000, "{far} {free}");
        // Four standard deviations of 20 ms / √3.
        assert_eq!(probe_spacing(&wild, &link("0ms")), Duration::from_nanos(46_188_021));
        assert_eq!(probe_spacing(&link("5ms"), &link("5ms")), Duration::ZERO);
    }

    #[test]
    fn a_median_may_be_later_than_expected_but_hardly_earlier() {
        let near = Expectation::of(&link("1ms"), &link("1ms"), SPACING);
        assert_eq!((near.allowed_error_ns(Tolerance::default(), 10), near.allowed_early_ns(10)), (1_000_000, 52_000));
        // A quiet network has a narrower band.
        let floor = |noise_ns| Tolerance::default().on_network(noise_ns).floor_ns;
        assert_eq!([floor(1_000), floor(60_000), floor(5_000_000)], [100_000, 240_000, 1_000_000]);
        assert_eq!(near.least_delay_ns, Some(1_000_000));
        assert_eq!(Expectation::of(&Link::default(), &Link::default(), SPACING).least_delay_ns, None);
    }

    #[test]
    fn too_little_loss_is_detected_after_enough_requests() {
        let tenth = Expectation::of(&lossy(LossModel::Random(chance("10%"))), &Link::default(), SPACING);
        let requests = tenth.requests_to_tell_loss().unwrap();
        assert!((144..=146).contains(&requests), "{requests}");
        assert!(tenth.least_losses(100) == 0 && tenth.least_losses(400) > 10);
        let lan = Expectation::of(&Link::default(), &Link::default(), SPACING);
        assert_eq!((lan.least_losses(400), lan.requests_to_tell_loss()), (0, None));
    }

    #[test]
    fn slots_rates_and_undelayed_packets_increase_the_allowed_error() {
        let allowed = |link: &Link| Expectation::of(link, &Link::default(), SPACING).allowed_error_ns(TIGHT, 20);
        let spacing = Spacing::Range { min: "1ms".parse().unwrap(), max: "10ms".parse().unwrap() };
        let slotted = Link { slot: Some(Slot { spacing, packets: 0, bytes: Bytes::default() }), ..Link::default() };
        assert_eq!(allowed(&slotted), 10_000_000);
        let slow = Link { rate: Some(Rate::plain("82kbit".parse().unwrap())), ..Link::default() };
        assert_eq!(allowed(&slow), 16_000_000);
        assert_eq!(probe_spacing(&Link::default(), &slow), Duration::from_millis(32));
        let undelayed = |probability: &str, gap| {
            let reorder = Reorder::Undelayed(Undelayed { chance: chance(probability), gap });
            Link { reorder: Some(reorder), ..link("30ms") }
        };
        assert_eq!(allowed(&undelayed("1%", 1)), 0);
        assert_eq!(allowed(&undelayed("60%", 1)), 30_000_000);
        assert_eq!(allowed(&undelayed("60%", 50)), 0);
        assert_eq!(latest_answer(&slotted, &jittery("50ms", "5ms", Distribution::Normal)), Duration::from_millis(80));
    }

    #[test]
    fn round_trips_are_lost_in_either_direction_and_by_a_flipped_bit() {
        let loss = |there: &Link, back: &Link| Expectation::of(there, back, SPACING).loss;
        let tenth = lossy(LossModel::Random(chance("10%")));
        assert_near(loss(&tenth, &Link::default()), 0.1);
        assert_near(loss(&tenth, &tenth), 0.19);
        assert_near(loss(&Link { corrupt: Some(chance("10%")), ..tenth }, &Link::default()), 0.19);
    }

    #[test]
    fn the_loss_of_a_markov_chain_follows_from_its_stationary_distribution() {
        let loss = |model| Expectation::of(&lossy(model), &Link::default(), SPACING).loss;
        let gilbert = |p: &str, r: &str, bad: &str, good: &str| LossModel::GeModel {
            p: share(p),
            r: share(r),
            bad: share(bad),
            good: share(good),
        };
        assert_near(loss(gilbert("1%", "9%", "100%", "0%")), 0.1);
        assert_near(loss(gilbert("10%", "30%", "70%", "10%")), 0.25);
        assert_near(loss(gilbert("0%", "0%", "70%", "10%")), 0.1);
        let state = |p13: &str, p31: &str, p32: &str, p23: &str, p14: &str| LossModel::State {
            p13: share(p13),
            p31: share(p31),
            p32: share(p32),
            p23: share(p23),
            p14: share(p14),
        };
        assert_near(loss(state("1%", "99%", "0%", "100%", "0%")), 0.01);
        // State 1 goes to state 3 with 50 %. State 3 goes to state 1 or 2 with 50 % each. State 2 goes to state 3 at
        // once.
        assert_near(loss(state("50%", "50%", "50%", "100%", "0%")), 0.4);
        assert_near(loss(state("0%", "100%", "0%", "100%", "50%")), 1.0 / 3.0);
        // The chain stays in a state without a way out.
        assert_near(loss(state("10%", "0%", "0%", "100%", "0%")), 1.0);
        assert_near(loss(state("10%", "50%", "50%", "0%", "0%")), 0.0);
        assert_near(loss(state("0%", "0%", "0%", "0%", "0%")), 0.0);
        assert_near(loss(state("20%", "20%", "0%", "0%", "0%")), 0.5);
    }

    /// Checks the closed form against the steps of the kernel's function `loss_4state`.
    #[test]
    fn a_simulation_of_the_four_states_loses_as_much_as_the_closed_form() {
        let (p13, p31, p32, p23, p14) = (0.05, 0.3, 0.2, 0.4, 0.02);
        // The probabilities of the four states, at first state 1.
        let mut at = [1.0, 0.0, 0.0, 0.0];
        for _ in 0..10_000 {
            let [one, two, three, four] = at;
            at = [
                one * (1.0 - p13 - p14) + three * p31 + four,
                two * (1.0 - p23) + three * p32,
                one * p13 + two * p23 + three * (1.0 - p31 - p32),
                one * p14,
            ];
        }
        let [p13, p31, p32, p23, p14] = ["5%", "30%", "20%", "40%", "2%"].map(share);
        assert_near(LossModel::State { p13, p31, p32, p23, p14 }.mean(), at[2] + at[3]);
    }

    #[test]
    fn the_allowed_losses_include_the_random_error_and_a_tenth() {
        let half = Expectation::of(&lossy(LossModel::Random(chance("50%"))), &Link::default(), SPACING);
        assert_eq!(half.allowed_losses(100), 80);
        let bursts = LossModel::GeModel { p: share("1%"), r: share("9%"), bad: share("100%"), good: share("0%") };
        let bursts = Expectation::of(&lossy(bursts), &Link::default(), SPACING);
        let each = Expectation::of(&lossy(LossModel::Random(chance("10%"))), &Link::default(), SPACING);
        assert!(bursts.allowed_losses(1_000) > each.allowed_losses(1_000) + 50);
    }

    #[test]
    fn silence_may_be_chance_only_with_high_loss_and_few_requests() {
        let most = Expectation::of(&lossy(LossModel::Random(chance("90%"))), &Link::default(), SPACING);
        assert!(most.explains_silence(40) && !most.explains_silence(200));
        assert!(!Expectation::of(&Link::default(), &Link::default(), SPACING).explains_silence(1));
        let all = Expectation::of(&lossy(LossModel::Random(chance("100%"))), &Link::default(), SPACING);
        assert!(!all.gets_through() && most.gets_through());
    }
}
