//! Every ordered pair, wanted against measured, judged.

use std::fmt;

use serde::Serialize;

use crate::{
    plan::Wanted,
    topology::{NodeName, Rtt},
    wire::Echoes,
};

/// How far a median may be off.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Tolerance {
    /// As a share of the wanted RTT; 0.02 is 2 %.
    pub share: f64,
    /// At the least, in nanoseconds.
    pub floor_ns: u64,
}

impl Default for Tolerance {
    /// 2 % or 1 ms, whichever is larger.
    fn default() -> Self {
        Self { share: 0.02, floor_ns: 1_000_000 }
    }
}

impl Tolerance {
    fn allows(self, wanted_ns: u64, error_ns: i64) -> bool {
        let share = self.share * wanted_ns as f64;
        error_ns.unsigned_abs() as f64 <= share.max(self.floor_ns as f64)
    }
}

/// What was measured from one node to another, over all of the other's addresses.
#[derive(Clone, Debug, Serialize)]
pub struct Pair {
    /// Who asked.
    pub from: NodeName,
    /// Who answered, or not.
    pub to: NodeName,
    /// The RTT that is wanted; `None`: nothing is to get through.
    pub wanted: Option<Rtt>,
    /// Each address, as measured.
    pub measured: Vec<Measured>,
    /// The judgement on the worst of them.
    pub verdict: Verdict,
}

/// What was measured to one address.
#[derive(Clone, Debug, Serialize)]
pub struct Measured {
    /// The requests and their answers.
    #[serde(flatten)]
    pub echoes: Echoes,
    /// The median RTT, if there was an answer.
    pub median: Option<Rtt>,
    /// Median less wanted, in nanoseconds, where both are.
    pub error_ns: Option<i64>,
}

/// What a pair is, compared with what it should be. The worst sorts last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// As wanted: within the tolerance, or unreachable where it is to be.
    Right,
    /// Reached, but more than one request in ten was lost.
    Lossy,
    /// The median is outside the tolerance.
    Off,
    /// Nothing came back, although it should.
    Unreachable,
    /// An answer came back through a partition.
    Leaks,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Right => "right",
            Self::Lossy => "lossy",
            Self::Off => "off",
            Self::Unreachable => "unreachable",
            Self::Leaks => "leaks",
        })
    }
}

/// All pairs, the worst first.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// How far a median may be off.
    pub tolerance: Tolerance,
    /// How many pairs are not as wanted.
    pub wrong: usize,
    /// The pairs.
    pub pairs: Vec<Pair>,
}

impl Report {
    /// Judges and sorts: the worst verdict first, among equals the largest error.
    pub fn new(mut pairs: Vec<Pair>, tolerance: Tolerance) -> Self {
        let error = |pair: &Pair| pair.measured.iter().filter_map(|m| m.error_ns).map(i64::unsigned_abs).max();
        pairs.sort_by(|a, b| {
            let worst_first = (b.verdict, error(b)).cmp(&(a.verdict, error(a)));
            worst_first.then_with(|| (&a.from, &a.to).cmp(&(&b.from, &b.to)))
        });
        let wrong = pairs.iter().filter(|pair| pair.verdict != Verdict::Right).count();
        Self { tolerance, wrong, pairs }
    }

    /// The pair's measurement.
    pub fn pair(&self, from: &NodeName, to: &NodeName) -> Option<&Pair> {
        self.pairs.iter().find(|pair| pair.from == *from && pair.to == *to)
    }
}

/// Judges what came back from one node's addresses.
pub fn judge(wanted: &Wanted, from: &NodeName, to: &NodeName, echoes: Vec<Echoes>, tolerance: Tolerance) -> Pair {
    let rtt = wanted.reaches(from, to).then(|| wanted.link(from, to).delay + wanted.link(to, from).delay);
    let measured: Vec<Measured> = echoes.into_iter().map(|echoes| measure(echoes, rtt)).collect();
    let verdict = measured.iter().map(|measured| verdict(measured, rtt, tolerance)).max();
    Pair { from: from.clone(), to: to.clone(), wanted: rtt, verdict: verdict.unwrap_or(Verdict::Unreachable), measured }
}

fn measure(echoes: Echoes, wanted: Option<Rtt>) -> Measured {
    let median = median(&echoes.rtts_ns);
    let error_ns = median.zip(wanted).map(|(median, wanted)| median.cast_signed() - wanted.as_nanos().cast_signed());
    Measured { median: median.map(Rtt::from_nanos), error_ns, echoes }
}

fn verdict(measured: &Measured, wanted: Option<Rtt>, tolerance: Tolerance) -> Verdict {
    let answers = measured.echoes.rtts_ns.len() as u64;
    match (wanted, measured.error_ns) {
        (None, _) if answers == 0 => Verdict::Right,
        (None, _) => Verdict::Leaks,
        (Some(_), None) => Verdict::Unreachable,
        (Some(wanted), Some(error)) if !tolerance.allows(wanted.as_nanos(), error) => Verdict::Off,
        (Some(_), Some(_)) if 10 * (u64::from(measured.echoes.sent) - answers) > u64::from(measured.echoes.sent) => {
            Verdict::Lossy
        }
        (Some(_), Some(_)) => Verdict::Right,
    }
}

/// The middle of sorted values; of an even number, the mean of the two in the middle.
fn median(sorted: &[u64]) -> Option<u64> {
    let last = sorted.len().checked_sub(1)?;
    Some(sorted[last / 2].midpoint(sorted[last.div_ceil(2)]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(sent: u32, rtts_ms: &[u64], wanted: Option<Rtt>) -> Measured {
        let rtts_ns = rtts_ms.iter().map(|ms| ms * 1_000_000).collect();
        measure(Echoes { address: [192, 0, 2, 1].into(), sent, rtts_ns }, wanted)
    }

    fn judged(sent: u32, rtts_ms: &[u64], wanted: Option<&str>) -> Verdict {
        let wanted = wanted.map(|rtt| rtt.parse().unwrap());
        verdict(&measured(sent, rtts_ms, wanted), wanted, Tolerance::default())
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
    fn the_median_of_an_even_number_is_the_mean_of_the_two_in_the_middle() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[7]), Some(7));
        assert_eq!(median(&[1, 3, 5, 100]), Some(4));
    }
}
