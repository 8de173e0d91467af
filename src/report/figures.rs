//! The figures of pairs: texts of times, percentiles, the table of pairs, and the distribution of errors.

use super::Document;
use crate::{
    probe::{Measured, Pair, Verdict, percentile},
    topology::Rtt,
};

/// The largest number of pairs in the table of pairs, if more pairs are wrong or not judged.
const MAX_LISTED: usize = 100;

/// The number of pairs in the table of pairs, if fewer pairs are wrong or not judged.
const MIN_LISTED: usize = 20;

/// The header of the table of pairs. RTTs and errors are in milliseconds.
pub(super) const HEADER: [&str; 12] =
    ["From", "To", "Address", "Verdict", "Wanted", "Median", "p1", "p99", "Error", "One-way error", "Allowed", "Lost"];

/// A time in milliseconds, with two decimals below 10 ms and one decimal below 1 s.
pub(super) fn ms(nanos: u64) -> String {
    let value = nanos as f64 / 1e6;
    let decimals = match value {
        ..9.995 => 2,
        ..999.95 => 1,
        _ => 0,
    };
    format!("{value:.decimals$}")
}

/// A wanted RTT in milliseconds, with all its decimals.
pub(super) fn wanted_ms(rtt: Rtt) -> String {
    format!("{}", rtt.as_nanos() as f64 / 1e6)
}

/// An error in milliseconds with its sign.
pub(super) fn signed_ms(nanos: i64) -> String {
    let sign = if nanos < 0 { '\u{2212}' } else { '+' };
    format!("{sign}{}", ms(nanos.unsigned_abs()))
}

/// A number with commas between thousands.
pub(super) fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let comma = |at: usize| if at > 0 && (digits.len() - at).is_multiple_of(3) { "," } else { "" };
    digits.char_indices().fold(String::new(), |text, (at, digit)| format!("{text}{}{digit}", comma(at)))
}

/// The least and the greatest value in one text; `None`: there are no values.
pub(crate) fn range<T: Ord + Copy>(values: impl Iterator<Item = T>, text: impl Fn(T) -> String) -> Option<String> {
    let (least, most) = values.fold(None, |range, value| {
        let (least, most) = range.unwrap_or((value, value));
        Some((value.min(least), value.max(most)))
    })?;
    let (least, most) = (text(least), text(most));
    Some(if least == most { least } else { format!("{least}–{most}") })
}

/// The largest expected error on the side of this error, in nanoseconds.
pub(super) fn allowed_ns(measured: &Measured, error_ns: i64) -> Option<u64> {
    if error_ns < 0 { measured.allowed_early_ns } else { measured.allowed_error_ns }
}

/// The expectation of a pair: its wanted RTT, or which direction is cut.
pub(super) fn wanted(pair: &Pair) -> String {
    match pair.wanted {
        Some(wanted) => wanted_ms(wanted),
        None if pair.arrives => "answers cut".to_owned(),
        None => "cut".to_owned(),
    }
}

/// The rows of the table of pairs, the worst first: all pairs that are not right, and more of the largest errors.
pub(super) fn rows(document: &Document<'_>) -> Vec<(Verdict, [String; HEADER.len()])> {
    let pairs = &document.report.pairs;
    let not_right = pairs.iter().filter(|pair| pair.verdict != Verdict::Right).count();
    let listed = pairs.iter().filter(|pair| pair.verdict != Verdict::Right || pair.wanted.is_some());
    listed.take(not_right.clamp(MIN_LISTED, MAX_LISTED)).map(|pair| (pair.verdict, row(pair))).collect()
}

fn row(pair: &Pair) -> [String; HEADER.len()] {
    let worst = pair.worst();
    let of = |text: fn(&Measured) -> Option<String>| worst.and_then(text).unwrap_or_default();
    let loss = if pair.wanted.is_some() && pair.wanted_loss > 0.0 {
        format!(" ({} % expected)", (1e5 * pair.wanted_loss).round() / 1e3)
    } else {
        String::new()
    };
    [
        pair.from.to_string(),
        pair.to.to_string(),
        of(|measured| Some(measured.address.to_string())),
        pair.verdict.to_string(),
        wanted(pair),
        of(|measured| measured.median.map(|median| ms(median.as_nanos()))),
        of(|measured| measured.p1.map(|p1| ms(p1.as_nanos()))),
        of(|measured| measured.p99.map(|p99| ms(p99.as_nanos()))),
        of(|measured| measured.error_ns.map(signed_ms)),
        of(|measured| measured.one_way_error_ns.map(signed_ms)),
        of(|measured| {
            let (early, late) = measured.allowed_early_ns.zip(measured.allowed_error_ns)?;
            Some(format!("\u{2212}{} to +{}", ms(early), ms(late)))
        }),
        of(|measured| Some(format!("{}/{}", lost(measured), measured.sent))) + &loss,
    ]
}

/// The number of requests without an answer.
pub(super) fn lost(measured: &Measured) -> u64 {
    u64::from(measured.sent).saturating_sub(measured.rtts_ns.len() as u64)
}

/// The distribution of the errors of all pairs.
pub(super) struct Distribution {
    /// The median, the percentiles and the extremes in a sentence.
    pub(super) summary: String,
    /// The bins: the range of errors, and the number of pairs. The first and the last bin are open.
    pub(super) bins: Vec<(String, usize)>,
}

/// The largest number of bins between the open bins.
const MAX_BINS: i64 = 12;

impl Distribution {
    /// The distribution; `None`: no pair has an error.
    pub(super) fn of(pairs: &[Pair]) -> Option<Self> {
        let mut errors: Vec<i64> = pairs.iter().filter_map(|pair| pair.worst()?.error_ns).collect();
        errors.sort_unstable();
        let [least, low, median, high, most] =
            [0, 2, 50, 98, 100].map(|percent| percentile(&errors, percent).unwrap_or_default());
        if errors.is_empty() {
            return None;
        }
        // The widths are 1, 2 or 5 times a power of ten, from 0.01 ms on.
        let widths = (4..).flat_map(|power| [1, 2, 5].map(|factor| factor * 10_i64.pow(power)));
        let covers = |width: &i64| high.div_euclid(*width) - low.div_euclid(*width) < MAX_BINS;
        let width = widths.into_iter().take(40).find(covers).unwrap_or(i64::MAX);
        let (first, last) = (low.div_euclid(width), high.div_euclid(width));
        // 10, 20 and 50 µs need two decimals, 100, 200 and 500 µs one.
        let decimals = match width {
            ..100_000 => 2,
            100_000..1_000_000 => 1,
            _ => 0,
        };
        let edge = |bin: i64| {
            let edge = format!("{:.decimals$}", bin.saturating_mul(width) as f64 / 1e6);
            edge.replace('-', "\u{2212}")
        };
        let count = |from: i64, to: i64| {
            errors.partition_point(|error| *error < to) - errors.partition_point(|error| *error < from)
        };
        let inner = (first..=last).map(|bin| {
            let (from, to) = (bin.saturating_mul(width), (bin + 1).saturating_mul(width));
            (format!("{} to {}", edge(bin), edge(bin + 1)), count(from, to))
        });
        let below = (format!("below {}", edge(first)), count(i64::MIN, first.saturating_mul(width)));
        let above = (
            format!("{} and more", edge(last + 1)),
            errors.len() - below.1 - inner.clone().map(|(_, count)| count).sum::<usize>(),
        );
        let bins = std::iter::once(below).chain(inner).chain([above]);
        let is_open = |label: &str| label.starts_with("below") || label.ends_with("more");
        Some(Self {
            summary: format!(
                "{} pairs with an answer. Error in ms: median {}, 2nd to 98th percentile {} to {}, least {}, greatest {}.",
                grouped(errors.len()),
                signed_ms(median),
                signed_ms(low),
                signed_ms(high),
                signed_ms(least),
                signed_ms(most)
            ),
            bins: bins.filter(|(label, count)| *count > 0 || !is_open(label)).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_three_digits_and_numbers_have_commas() {
        assert_eq!(
            [4_000, 9_994_999, 9_996_000, 150_340_000, 1_500_400_000].map(ms),
            ["0.00", "9.99", "10.0", "150.3", "1500"]
        );
        assert_eq!(signed_ms(-1_500_000), "\u{2212}1.50");
        assert_eq!([0, 999, 1_000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
    }
}
