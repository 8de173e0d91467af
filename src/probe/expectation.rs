//! What is to be measured between two nodes whose links are as wanted: the median, how far it may be off by chance, how
//! many round trips are lost.
//!
//! A probe is a small ICMP echo, sent now and then; what it meets is the link there and the link back, independently.

use std::time::Duration;

use serde::Serialize;

use crate::topology::{Delay, Distribution, Jitter, Link, LossModel, Rate, Reorder, Rtt, Spacing};

/// How far a median may be off, apart from what chance does to it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Tolerance {
    /// As a share of the wanted RTT; 0.02 is 2 %.
    pub share: f64,
    /// At the least, in nanoseconds: several times what the network itself adds, and never more than 1 ms.
    pub floor_ns: u64,
}

impl Default for Tolerance {
    /// 2 % or 1 ms, whichever is larger, as long as the network is not known better.
    fn default() -> Self {
        Self { share: 0.02, floor_ns: 1_000_000 }
    }
}

impl Tolerance {
    /// The same on a network that adds so much to most round trips.
    #[must_use]
    pub fn on_network(self, noise_ns: u64) -> Self {
        let floor_ns = noise_ns.saturating_mul(NOISES).max(LEAST_FLOOR_NS).min(self.floor_ns);
        Self { floor_ns, ..self }
    }

    /// What is tolerated of a round trip, in nanoseconds.
    pub fn of_ns(self, rtt: Rtt) -> u64 {
        to_nanos(self.share * rtt.as_nanos() as f64).max(self.floor_ns)
    }
}

/// How many times what the network adds to most pairs it may add to any.
const NOISES: u64 = 4;

/// No floor is lower, in nanoseconds.
const LEAST_FLOOR_NS: u64 = 100_000;

/// Nothing makes a packet early, but the kernel's times are rounded, in nanoseconds.
const ROUNDED_NS: u64 = 50_000;

/// And the clocks of two machines may differ by 500 parts in a million each, so that one part of so many is allowed.
const CLOCKS_DIFFER: u64 = 1_000;

/// The standard error of a median of normally distributed values, in terms of that of their mean: √(π/2).
const MEDIAN_TO_MEAN: f64 = 1.2533;

/// How many standard deviations chance is granted: once in 16,000 it does more.
const SIGMAS: f64 = 4.0;

/// The size of the largest probe as netem counts it, in bytes: Ethernet, IPv6, `ICMPv6`, the mark.
const PROBE_BYTES: f64 = 74.0;

/// How many probes may wait for each other where a rate is slow, although they are spaced.
const PROBES_AT_ONCE: f64 = 2.0;

/// How many standard deviations of the jitter are between two probes, so that few would overtake.
const SPACING_SIGMAS: f64 = 4.0;

/// How many times as long as it takes to send a probe is between two of them.
const SPACING_TRANSMISSIONS: f64 = 4.0;

/// The most that jitter spaces probes, lest a measurement takes minutes.
const MAX_JITTER_SPACING_NS: f64 = 250e6;

/// How far from its mean a netem table reaches, in jitters (`tabledist`: 16 bits, scaled by 8192).
const TABLE_REACH: f64 = 4.0;

/// The share of lost round trips beyond which nothing is to get through.
const EVERYTHING: f64 = 1.0 - 1e-9;

/// How likely it may be that chance alone loses every probe, for silence to say nothing about the link.
const SILENCE: f64 = 1e-4;

/// What is to be measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Expectation {
    /// The round trip that both delays add up to.
    pub rtt: Rtt,
    /// The share of round trips that are lost, 0 to 1.
    pub loss: f64,
    /// The share that is lost at the least, as a flipped bit may not be found and a copy may get through.
    least_loss: f64,
    /// The smaller delay of the two ways, of those that have one, in nanoseconds.
    pub least_delay_ns: Option<u64>,
    /// The standard deviation of the round trip, in nanoseconds.
    deviation_ns: f64,
    /// How far the median is from `rtt` whatever chance does, at the most, in nanoseconds.
    bias_ns: f64,
    /// The share of round trips that skip a delay, and how much they skip, in nanoseconds.
    skip: (f64, f64),
    /// How much less is known by `n` probes than by `n` independent ones, because losses come in bursts.
    burst: f64,
}

impl Expectation {
    /// What probes meet, which follow each other through one leaf after `spacing` on average.
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
            bias_ns: a.bias_ns + b.bias_ns,
            skip: (skip, skipped + skipped_back),
            burst: a.burst.max(b.burst),
        }
    }

    /// Whether anything is to get through at all.
    pub fn gets_through(&self) -> bool {
        self.loss < EVERYTHING
    }

    /// Whether chance has no part in the delay.
    pub fn is_plain(&self) -> bool {
        self.deviation_ns == 0.0 && self.bias_ns == 0.0 && self.skip.0 == 0.0
    }

    /// How far the median of so many answers may be late, in nanoseconds.
    pub fn allowed_error_ns(&self, tolerance: Tolerance, answers: usize) -> u64 {
        tolerance.of_ns(self.rtt).saturating_add(self.chance_ns(answers))
    }

    /// How far it may be early. No tolerance: nothing makes a packet early but chance.
    pub fn allowed_early_ns(&self, answers: usize) -> u64 {
        (ROUNDED_NS + self.rtt.as_nanos() / CLOCKS_DIFFER).saturating_add(self.chance_ns(answers))
    }

    /// How far chance may move the median of so many answers, in nanoseconds.
    fn chance_ns(&self, answers: usize) -> u64 {
        let answers = answers.max(1) as f64;
        let chance = SIGMAS * MEDIAN_TO_MEAN * self.deviation_ns / answers.sqrt();
        // The median is among those that skip a delay once they are half of all.
        let (share, skipped_ns) = self.skip;
        let most_skip = share + SIGMAS * (share * (1.0 - share) / answers).sqrt() >= 0.5;
        let skipped = if most_skip { skipped_ns } else { 0.0 };
        to_nanos(chance + self.bias_ns + skipped)
    }

    /// How many of so many round trips may be lost: as many as chance allows, and a tenth for a busy machine.
    pub fn allowed_losses(&self, sent: u32) -> u64 {
        let sent = f64::from(sent);
        let deviation = (sent * self.loss * (1.0 - self.loss) * self.burst).sqrt();
        to_nanos(sent * self.loss + SIGMAS * deviation + sent / 10.0)
    }

    /// How many are to be lost at the least; 0: so few requests cannot tell.
    pub fn least_losses(&self, sent: u32) -> u64 {
        let (sent, loss) = (f64::from(sent), self.least_loss);
        to_nanos(sent * loss - SIGMAS * (sent * loss * (1.0 - loss) * self.burst).sqrt())
    }

    /// How many requests can tell the loss from none; `None`: there is none to be told, or only by chance.
    pub fn requests_to_tell_loss(&self) -> Option<u64> {
        let loss = self.least_loss;
        (loss > 0.0).then(|| to_nanos(SIGMAS * SIGMAS * (1.0 - loss) * self.burst / loss).saturating_add(1))
    }

    /// Whether it may well be chance that nothing came back.
    pub fn explains_silence(&self, sent: u32) -> bool {
        self.loss.powf(f64::from(sent) / self.burst) > SILENCE
    }
}

/// By when an answer is there, if it comes at all.
pub fn latest_answer(there: &Link, back: &Link) -> Duration {
    [there, back].into_iter().map(latest).sum()
}

/// How far apart probes are to follow each other, so that they hardly disturb each other.
pub fn probe_spacing(there: &Link, back: &Link) -> Duration {
    let spacing = |link: &Link| {
        let jitter = ordered_jitter(link).map_or(0.0, |jitter| SPACING_SIGMAS * deviation_ns(jitter));
        jitter.min(MAX_JITTER_SPACING_NS).max(SPACING_TRANSMISSIONS * transmission_ns(link.rate))
    };
    Duration::from_nanos(to_nanos(spacing(there).max(spacing(back))))
}

fn latest(link: &Link) -> Duration {
    let jitter = link.jitter.map_or(0.0, |jitter| reach(jitter.distribution) * nanos(jitter.amount));
    let wire = PROBES_AT_ONCE * transmission_ns(link.rate);
    Duration::from_nanos(to_nanos(nanos(link.delay) + jitter + longest_slot_ns(link) + wire))
}

/// One direction of the way.
struct Way {
    loss: f64,
    least_loss: f64,
    burst: f64,
    deviation_ns: f64,
    bias_ns: f64,
    skip: f64,
}

impl Way {
    fn of(link: &Link, spacing: Duration) -> Self {
        let (loss, burst) = loss_of(link);
        let jitter = link.jitter;
        let is_copied = link.duplicate.is_some_and(|chance| chance.probability.share() > 0.0);
        let least_loss = if is_copied { 0.0 } else { loss_of(&Link { corrupt: None, ..*link }).0 };
        Self {
            loss,
            least_loss,
            burst,
            deviation_ns: jitter.map_or(0.0, deviation_ns),
            bias_ns: jitter.map_or(0.0, skew_ns)
                + ordered_jitter(link).map_or(0.0, |jitter| order_ns(jitter, spacing))
                + longest_slot_ns(link)
                + PROBES_AT_ONCE * transmission_ns(link.rate),
            skip: skip_of(link),
        }
    }
}

/// The share of packets that are lost, and how much more their number varies than if each were lost by itself.
fn loss_of(link: &Link) -> (f64, f64) {
    let model = link.loss.map(|loss| loss.model);
    let lost = model.map_or(0.0, LossModel::mean);
    let persistence = match model {
        // netem's correlation hardly makes losses cluster (docs/links.md).
        None | Some(LossModel::Random(_)) => 0.0,
        Some(LossModel::State { p31, p32, .. }) => 1.0 - p31.share() - p32.share(),
        Some(LossModel::GeModel { p, r, .. }) => 1.0 - p.share() - r.share(),
    };
    // ICMP's checksum turns nearly every flipped bit into a loss.
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

/// How far the median of a delay is from its mean, at the most.
fn skew_ns(jitter: Jitter) -> f64 {
    let jitters = match jitter.distribution {
        Distribution::Uniform | Distribution::Normal => 0.0,
        Distribution::Pareto | Distribution::ParetoNormal => 0.35,
        // Of any distribution, one standard deviation.
        Distribution::Table(_) => 1.0,
    };
    jitters * nanos(jitter.amount)
}

/// The jitter of a link on which no packet overtakes another.
fn ordered_jitter(link: &Link) -> Option<Jitter> {
    link.jitter.filter(|_| link.reorder != Some(Reorder::Jitter))
}

/// How much later probes come because none may overtake another: each waits for the latest of those before it.
///
/// Of two whose delays differ by D, the later waits for D less what is between them, if that is positive. Over all that
/// come before at random moments, the mean of that is E[D⁺²] / 2 / spacing, which is half of the variance of one delay
/// by the spacing; twice as much is allowed. Never is it more than the longest delay.
fn order_ns(jitter: Jitter, spacing: Duration) -> f64 {
    let deviation = deviation_ns(jitter);
    let wait = deviation * deviation / (spacing.as_nanos() as f64).max(1.0);
    wait.min(reach(jitter.distribution) * nanos(jitter.amount))
}

/// How far from its mean a delay may be, in jitters.
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

/// The share of packets that are not delayed: of every `gap`, the last may be.
fn skip_of(link: &Link) -> f64 {
    match link.reorder {
        Some(Reorder::Undelayed(undelayed)) if undelayed.chance.probability.share() > 0.0 => {
            let before = f64::from(undelayed.gap.saturating_sub(1));
            1.0 / (before + 1.0 / undelayed.chance.probability.share())
        }
        _ => 0.0,
    }
}

/// As `packet_time_ns` of `sch_netem.c` has it.
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

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the cast saturates, which is meant")]
fn to_nanos(value: f64) -> u64 {
    value as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::{Bytes, Chance, Loss, Probability, Slot, Undelayed};

    /// Far apart.
    const SPACING: Duration = Duration::from_secs(1);

    const TIGHT: Tolerance = Tolerance { share: 0.0, floor_ns: 0 };

    fn link(delay: &str) -> Link {
        Link { delay: delay.parse().unwrap(), ..Link::LAN }
    }

    fn jittery(delay: &str, amount: &str, distribution: Distribution) -> Link {
        let jitter = Jitter { amount: amount.parse().unwrap(), correlation: Probability::ZERO, distribution };
        Link { jitter: Some(jitter), ..link(delay) }
    }

    fn chance(probability: &str) -> Chance {
        Chance { probability: probability.parse().unwrap(), correlation: Probability::ZERO }
    }

    fn lossy(model: LossModel) -> Link {
        Link { loss: Some(Loss { model, ecn: false }), ..Link::LAN }
    }

    fn share(text: &str) -> Probability {
        text.parse().unwrap()
    }

    #[track_caller]
    fn assert_near(value: f64, expected: f64) {
        assert!((value - expected).abs() < 1e-6, "{value} instead of {expected}");
    }

    #[test]
    fn a_plain_link_is_given_the_tolerance_and_nothing_else() {
        let plain = Expectation::of(&link("75ms"), &link("25ms"), SPACING);
        assert_eq!(plain.rtt.to_string(), "100ms");
        assert_eq!(plain.allowed_error_ns(Tolerance::default(), 10), 2_000_000);
        assert_eq!((plain.allowed_losses(20), plain.gets_through()), (2, true));
        let near = Expectation::of(&link("5ms"), &link("5ms"), SPACING);
        assert_eq!(near.allowed_error_ns(Tolerance::default(), 10), 1_000_000);
    }

    #[test]
    fn jitter_widens_the_band_by_four_standard_errors_of_the_median() {
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
    fn probes_that_may_not_overtake_each_other_come_later_than_their_delay() {
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
    fn a_median_may_be_late_but_hardly_early() {
        let near = Expectation::of(&link("1ms"), &link("1ms"), SPACING);
        assert_eq!((near.allowed_error_ns(Tolerance::default(), 10), near.allowed_early_ns(10)), (1_000_000, 52_000));
        // A network that is quiet is judged by a narrower band, one that is not by the same as ever.
        let floor = |noise_ns| Tolerance::default().on_network(noise_ns).floor_ns;
        assert_eq!([floor(1_000), floor(60_000), floor(5_000_000)], [100_000, 240_000, 1_000_000]);
        assert_eq!(near.least_delay_ns, Some(1_000_000));
        assert_eq!(Expectation::of(&Link::LAN, &Link::LAN, SPACING).least_delay_ns, None);
    }

    #[test]
    fn too_little_loss_is_known_when_enough_requests_were_sent() {
        let tenth = Expectation::of(&lossy(LossModel::Random(chance("10%"))), &Link::LAN, SPACING);
        let requests = tenth.requests_to_tell_loss().unwrap();
        assert!((144..=146).contains(&requests), "{requests}");
        assert!(tenth.least_losses(100) == 0 && tenth.least_losses(400) > 10);
        let lan = Expectation::of(&Link::LAN, &Link::LAN, SPACING);
        assert_eq!((lan.least_losses(400), lan.requests_to_tell_loss()), (0, None));
    }

    #[test]
    fn slots_rates_and_undelayed_packets_are_allowed_for() {
        let allowed = |link: &Link| Expectation::of(link, &Link::LAN, SPACING).allowed_error_ns(TIGHT, 20);
        let spacing = Spacing::Range { min: "1ms".parse().unwrap(), max: "10ms".parse().unwrap() };
        let slotted = Link { slot: Some(Slot { spacing, packets: 0, bytes: Bytes::default() }), ..Link::LAN };
        assert_eq!(allowed(&slotted), 10_000_000);
        let slow = Link { rate: Some(Rate::plain("74kbit".parse().unwrap())), ..Link::LAN };
        assert_eq!(allowed(&slow), 16_000_000);
        assert_eq!(probe_spacing(&Link::LAN, &slow), Duration::from_millis(32));
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
    fn round_trips_are_lost_on_either_way_and_by_a_flipped_bit() {
        let loss = |there: &Link, back: &Link| Expectation::of(there, back, SPACING).loss;
        let tenth = lossy(LossModel::Random(chance("10%")));
        assert_near(loss(&tenth, &Link::LAN), 0.1);
        assert_near(loss(&tenth, &tenth), 0.19);
        assert_near(loss(&Link { corrupt: Some(chance("10%")), ..tenth }, &Link::LAN), 0.19);
    }

    #[test]
    fn the_loss_of_a_chain_is_that_of_its_stationary_distribution() {
        let loss = |model| Expectation::of(&lossy(model), &Link::LAN, SPACING).loss;
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
        // From 1 to 3 and back half of the times; from 3 to 2 half of the times, and back at once.
        assert_near(loss(state("50%", "50%", "50%", "100%", "0%")), 0.4);
        assert_near(loss(state("0%", "100%", "0%", "100%", "50%")), 1.0 / 3.0);
        // It stays where it has no way out.
        assert_near(loss(state("10%", "0%", "0%", "100%", "0%")), 1.0);
        assert_near(loss(state("10%", "50%", "50%", "0%", "0%")), 0.0);
        assert_near(loss(state("0%", "0%", "0%", "0%", "0%")), 0.0);
        assert_near(loss(state("20%", "20%", "0%", "0%", "0%")), 0.5);
    }

    /// The chain as the kernel walks it (`loss_4state`), for the closed form to be checked against.
    #[test]
    fn a_walk_through_the_four_states_loses_what_the_closed_form_says() {
        let (p13, p31, p32, p23, p14) = (0.05, 0.3, 0.2, 0.4, 0.02);
        // The distribution after many steps, from state 1.
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
    fn losses_within_the_binomial_band_and_a_tenth_are_allowed() {
        let half = Expectation::of(&lossy(LossModel::Random(chance("50%"))), &Link::LAN, SPACING);
        assert_eq!(half.allowed_losses(100), 80);
        let bursts = LossModel::GeModel { p: share("1%"), r: share("9%"), bad: share("100%"), good: share("0%") };
        let bursts = Expectation::of(&lossy(bursts), &Link::LAN, SPACING);
        let each = Expectation::of(&lossy(LossModel::Random(chance("10%"))), &Link::LAN, SPACING);
        assert!(bursts.allowed_losses(1_000) > each.allowed_losses(1_000) + 50);
    }

    #[test]
    fn silence_is_chance_where_most_is_lost_and_few_were_sent() {
        let most = Expectation::of(&lossy(LossModel::Random(chance("90%"))), &Link::LAN, SPACING);
        assert!(most.explains_silence(40) && !most.explains_silence(200));
        assert!(!Expectation::of(&Link::LAN, &Link::LAN, SPACING).explains_silence(1));
        let all = Expectation::of(&lossy(LossModel::Random(chance("100%"))), &Link::LAN, SPACING);
        assert!(!all.gets_through() && most.gets_through());
    }
}
