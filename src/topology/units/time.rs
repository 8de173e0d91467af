//! Times with their units: [`Delay`] (one way) and [`Rtt`] (there and back).
//!
//! The two are separate types so that no code can mix them; they share one notation, `75ms`, in which a unit is always
//! written. This is neither a clock nor a duration of the machine's own time: see [`std::time`] for those. First type
//! to read: [`Delay`].

use std::{fmt, iter, ops::Add, str::FromStr, time::Duration};

use serde::{Deserialize, Serialize};

use super::foreign;

/// The time a packet takes in one direction, in whole nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(try_from = "f64", into = "f64")]
pub struct Delay(u64);

impl Delay {
    /// No delay at all.
    pub const ZERO: Self = Self(0);

    /// The longest delay that a link can be given: a minute, which is beyond any network on Earth.
    ///
    /// The type itself holds, reads and prints longer times, so that a mistake can be shown as it was written.
    pub const MAX: Self = Self(60_000_000_000);

    /// A delay of so many nanoseconds.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// The delay in nanoseconds.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }
}

/// One delay there, the other one back. Saturates instead of overflowing after 584 years.
impl Add for Delay {
    type Output = Rtt;

    fn add(self, back: Self) -> Rtt {
        Rtt(self.0.saturating_add(back.0))
    }
}

/// A round-trip time, there and back, in whole nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(try_from = "f64", into = "f64")]
pub struct Rtt(u64);

impl Rtt {
    /// A round trip that adds nothing to the LAN's own.
    pub const ZERO: Self = Self(0);

    /// The longest round trip that two links can add up to: [`Delay::MAX`] each way.
    pub const MAX: Self = Self(2 * Delay::MAX.0);

    /// A round trip of so many nanoseconds.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// The round trip in nanoseconds.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// The delay that makes this round trip when both directions have it; of an odd number of nanoseconds, the half
    /// is rounded down.
    pub const fn one_way(self) -> Delay {
        Delay(self.0 / 2)
    }
}

/// In JSON a time is a number of milliseconds; its key ends with `_ms`.
fn from_millis(millis: f64) -> Result<u64, TimeError> {
    let nanos = (millis * 1e6).round();
    if nanos < 0.0 {
        return Err(TimeError::Negative);
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is within these bounds")]
    if nanos < u64::MAX as f64 { Ok(nanos as u64) } else { Err(TimeError::TooLong { text: format!("{millis}ms") }) }
}

impl TryFrom<f64> for Delay {
    type Error = TimeError;

    fn try_from(millis: f64) -> Result<Self, TimeError> {
        from_millis(millis).map(Self)
    }
}

impl From<Delay> for f64 {
    fn from(delay: Delay) -> Self {
        delay.0 as Self / 1e6
    }
}

impl TryFrom<f64> for Rtt {
    type Error = TimeError;

    fn try_from(millis: f64) -> Result<Self, TimeError> {
        from_millis(millis).map(Self)
    }
}

impl From<Rtt> for f64 {
    fn from(rtt: Rtt) -> Self {
        rtt.0 as Self / 1e6
    }
}

/// Why a text is not a time. Its text is fit for a command line; [`help`](Self::help) says what would be right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TimeError {
    /// A bare number.
    #[error("a unit is missing: write \"{number}ms\"")]
    NoUnit {
        /// The number as written.
        number: String,
    },
    /// A number and a word that is no unit.
    #[error("`{unit}` is not a unit of time")]
    UnknownUnit {
        /// The word as written.
        unit: String,
        /// The whole text as written.
        text: String,
    },
    /// A minus sign and a number.
    #[error("a time cannot be negative")]
    Negative,
    /// Anything that does not start with a decimal number.
    #[error("`{text}` is not a time")]
    NotATime {
        /// The text as written.
        text: String,
    },
    /// More decimals than the unit has nanoseconds.
    #[error("`{text}` is finer than a nanosecond")]
    TooFine {
        /// The text as written.
        text: String,
    },
    /// More nanoseconds than 64 bits count.
    #[error("`{text}` is longer than 584 years")]
    TooLong {
        /// The text as written.
        text: String,
    },
}

impl TimeError {
    /// What to write instead.
    pub fn help(&self) -> String {
        const UNITS: &str = "the units are ns, us, ms and s";
        let help = match self {
            Self::UnknownUnit { text, .. } => {
                return foreign::time(text)
                    .map_or_else(|| UNITS.to_owned(), |ours| format!("write \"{ours}\"; {UNITS}"));
            }
            Self::NoUnit { .. } => UNITS,
            Self::Negative => "write \"0ms\" for a link that adds nothing",
            Self::NotATime { .. } => "write a number and its unit, as in \"75ms\"",
            Self::TooFine { .. } => "the resolution is 1ns",
            Self::TooLong { .. } => "write fewer digits or a smaller unit",
        };
        help.to_owned()
    }
}

/// The units, largest first, with the decimals that one nanosecond is away from them.
const UNITS: [(&str, u32); 4] = [("s", 9), ("ms", 6), ("us", 3), ("ns", 0)];

/// Unicode has two letters for micro: the micro sign, and the Greek letter that keyboards with Greek layouts type.
const OTHER_SPELLINGS_OF_US: [&str; 2] = ["\u{b5}s", "\u{3bc}s"];

/// Reads `1.5ms` as 1,500,000.
///
/// Integers throughout: a floating-point number would turn `0.1s` into something that does not print as `100ms`.
fn parse_nanos(text: &str) -> Result<u64, TimeError> {
    let not_a_time = || TimeError::NotATime { text: text.to_owned() };

    if text.strip_prefix('-').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit() || c == '.')) {
        return Err(TimeError::Negative);
    }
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = (&text[..end], text[end..].trim_start());
    let (whole, fraction) = match number.split_once('.') {
        None => (number, ""),
        Some((whole, fraction)) if !fraction.is_empty() && !fraction.contains('.') => (whole, fraction),
        Some(_) => return Err(not_a_time()),
    };
    if whole.is_empty() || !unit.chars().all(char::is_alphabetic) {
        return Err(not_a_time());
    }
    if unit.is_empty() {
        return Err(TimeError::NoUnit { number: number.to_owned() });
    }

    let decimals = decimals_of(unit)
        .ok_or_else(|| TimeError::UnknownUnit { unit: unit.to_owned(), text: text.to_owned() })?
        as usize;
    let fraction = fraction.trim_end_matches('0');
    if fraction.len() > decimals {
        return Err(TimeError::TooFine { text: text.to_owned() });
    }
    let digits = whole.chars().chain(fraction.chars()).chain(iter::repeat_n('0', decimals - fraction.len()));
    digits
        .filter_map(|digit| digit.to_digit(10))
        .try_fold(0_u64, |nanos, digit| nanos.checked_mul(10)?.checked_add(u64::from(digit)))
        .ok_or_else(|| TimeError::TooLong { text: text.to_owned() })
}

fn decimals_of(unit: &str) -> Option<u32> {
    let unit = if OTHER_SPELLINGS_OF_US.contains(&unit) { "us" } else { unit };
    UNITS.iter().find(|(name, _)| *name == unit).map(|&(_, decimals)| decimals)
}

/// Writes 1,500,000 as `1.5ms`: the largest unit that the time fills, and as many decimals as are needed to be exact.
fn format_nanos(nanos: u64) -> String {
    if nanos == 0 {
        return "0ms".to_owned();
    }
    let (unit, decimals) = UNITS.into_iter().find(|&(_, decimals)| nanos >= 10_u64.pow(decimals)).unwrap_or(("ns", 0));
    let scale = 10_u64.pow(decimals);
    let (whole, fraction) = (nanos / scale, nanos % scale);
    if fraction == 0 {
        return format!("{whole}{unit}");
    }
    let fraction = format!("{fraction:0width$}", width = decimals as usize);
    format!("{whole}.{}{unit}", fraction.trim_end_matches('0'))
}

/// Gives a time its notation. A macro, because the two types must never differ in it and never share a type.
macro_rules! written_with_its_unit {
    ($time:ident) => {
        impl fmt::Display for $time {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&format_nanos(self.0))
            }
        }

        impl FromStr for $time {
            type Err = TimeError;

            fn from_str(text: &str) -> Result<Self, TimeError> {
                parse_nanos(text).map(Self)
            }
        }

        impl TryFrom<String> for $time {
            type Error = TimeError;

            fn try_from(text: String) -> Result<Self, TimeError> {
                text.parse()
            }
        }

        impl From<$time> for String {
            fn from(time: $time) -> Self {
                format_nanos(time.0)
            }
        }

        impl From<$time> for Duration {
            fn from(time: $time) -> Self {
                Self::from_nanos(time.0)
            }
        }
    };
}

written_with_its_unit!(Delay);
written_with_its_unit!(Rtt);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_time_prints_in_the_largest_unit_that_it_fills() {
        let prints = |nanos, text: &str| assert_eq!(Delay::from_nanos(nanos).to_string(), text);
        prints(0, "0ms");
        prints(1, "1ns");
        prints(150_000, "150us");
        prints(1_500_000, "1.5ms");
        prints(75_000_000, "75ms");
        prints(75_000_001, "75.000001ms");
        prints(999_999_999, "999.999999ms");
        prints(2_000_000_000, "2s");
        prints(u64::MAX, "18446744073.709551615s");
    }

    #[test]
    fn every_spelling_of_a_microsecond_is_read() {
        for text in ["150us", "150µs", "150μs", "0.15ms", "150 us", "150000ns", "0.000150s"] {
            assert_eq!(text.parse(), Ok(Delay::from_nanos(150_000)), "{text}");
        }
    }

    #[test]
    fn each_mistake_has_its_own_error() {
        let error = |text: &str| text.parse::<Rtt>().expect_err(text);
        assert_eq!(error("150").to_string(), "a unit is missing: write \"150ms\"");
        assert_eq!(error("1.5").to_string(), "a unit is missing: write \"1.5ms\"");
        assert_eq!(error("-5ms"), TimeError::Negative);
        assert_eq!(error("-.5ms"), TimeError::Negative);
        assert_eq!(error("150 lightyears").to_string(), "`lightyears` is not a unit of time");
        assert_eq!(error("1h").help(), "the units are ns, us, ms and s");
        assert_eq!(error("0.5ns").to_string(), "`0.5ns` is finer than a nanosecond");
        assert_eq!(error("18446744073.709551616s").to_string(), "`18446744073.709551616s` is longer than 584 years");
        for text in ["", "abc", "nan", "inf", "ms", ".5ms", "5.ms", "1.2.3ms", "1,5ms", "+5ms", " 5ms", "5ms ", "-ms"] {
            assert_eq!(error(text), TimeError::NotATime { text: text.to_owned() });
        }
    }

    #[test]
    fn a_round_trip_is_two_delays() {
        let (there, back) = (Delay::from_nanos(1), Delay::from_nanos(2));
        assert_eq!(there + back, Rtt::from_nanos(3));
        assert_eq!(Rtt::from_nanos(3).one_way(), Delay::from_nanos(1));
    }

    #[test]
    fn in_json_a_time_is_a_number_of_milliseconds_to_the_nanosecond() {
        let json = |nanos| serde_json::to_string(&Delay::from_nanos(nanos)).unwrap();
        assert_eq!([1_500_000, 75_000_000, 1].map(json), ["1.5", "75.0", "1e-6"]);
        for nanos in [0, 1, 333_333, 1_500_001, Delay::MAX.as_nanos() - 1, Delay::MAX.as_nanos()] {
            assert_eq!(serde_json::from_str::<Delay>(&json(nanos)).unwrap(), Delay::from_nanos(nanos));
        }
        assert_eq!(serde_json::from_str::<Rtt>("150").unwrap(), Rtt::from_nanos(150_000_000));
        for bad in ["-1", "1e300", "\"75ms\"", "null"] {
            assert!(serde_json::from_str::<Delay>(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn every_time_survives_its_notation(nanos in prop_oneof![any::<u64>(), 0..10_000_000_u64]) {
            let delay = Delay::from_nanos(nanos);
            prop_assert_eq!(delay.to_string().parse(), Ok(delay));
            let rtt = Rtt::from_nanos(nanos);
            prop_assert_eq!(rtt.to_string().parse(), Ok(rtt));
        }

        #[test]
        fn no_text_makes_the_reader_panic(text in "[-+0-9.nums eµ]{0,24}|\\PC{0,12}") {
            drop(text.parse::<Delay>());
        }
    }
}
