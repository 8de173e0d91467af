//! Times with units: [`Delay`] (one way) and [`Rtt`] (there and back).
//!
//! There are two types, so code cannot confuse a one-way delay with an RTT. Both types have one notation: `75ms`. For
//! clocks and durations of the machine see [`std::time`].

use std::{fmt, ops::Add, time::Duration};

use serde::{Deserialize, Serialize};

use super::{Decimal, Notation, Quantity, QuantityError, QuantityMistake, foreign, notation, with_unit};

/// The notation of a time.
///
/// Unicode has two letters for micro: the micro sign (U+00B5) and the Greek letter mu (U+03BC).
pub(super) const NOTATION: Notation = Notation {
    name: "a time",
    example: "75ms",
    units: &[("s", 9), ("ms", 6), ("us", 3), ("\u{b5}s", 3), ("\u{3bc}s", 3), ("ns", 0)],
    usual_unit: "ms",
    units_help: "the units are ns, us, ms and s",
    unit_name: Some("time"),
    range: "0ms and 584 years",
    range_help: "for no delay, write \"0ms\"",
    too_precise: "is finer than a nanosecond",
    precision_help: "the resolution is 1ns",
    advice: foreign::time,
};

/// Defines a type for times. In JSON a time is a number of milliseconds; its key ends with `_ms`.
macro_rules! time {
    ($(#[$doc:meta])* $time:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[cfg_attr(test, derive(schemars::JsonSchema))]
        #[serde(try_from = "f64", into = "f64")]
        pub struct $time(u64);

        impl $time {
            /// No time.
            pub const ZERO: Self = Self(0);

            /// A time in nanoseconds.
            pub const fn from_nanos(nanos: u64) -> Self {
                Self(nanos)
            }

            /// The time in nanoseconds.
            pub const fn as_nanos(self) -> u64 {
                self.0
            }
        }

        impl Quantity for $time {
            const NOTATION: Notation = NOTATION;

            fn from_decimal(decimal: Decimal) -> Result<Self, QuantityMistake> {
                decimal.whole().map(Self)
            }
        }

        impl fmt::Display for $time {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&if self.0 == 0 { "0ms".to_owned() } else { with_unit(self.0, NOTATION.units) })
            }
        }

        impl TryFrom<f64> for $time {
            type Error = QuantityError;

            fn try_from(millis: f64) -> Result<Self, QuantityError> {
                from_millis(millis).map(Self)
            }
        }

        impl From<$time> for f64 {
            fn from(time: $time) -> Self {
                time.0 as Self / 1e6
            }
        }

        impl From<$time> for Duration {
            fn from(time: $time) -> Self {
                Self::from_nanos(time.0)
            }
        }

        notation!($time);
    };
}

time! {
    /// A one-way delay, in whole nanoseconds.
    Delay
}

time! {
    /// A round-trip time, in whole nanoseconds.
    Rtt
}

impl Delay {
    /// The longest delay of a link: one minute. The type can hold longer times, so messages can show longer times.
    pub const MAX: Self = Self(60_000_000_000);
}

impl Rtt {
    /// The longest round-trip time of two links: [`Delay::MAX`] each way.
    pub const MAX: Self = Self(2 * Delay::MAX.0);

    /// Half of the round-trip time, rounded down to a nanosecond.
    pub const fn one_way(self) -> Delay {
        Delay(self.0 / 2)
    }

    /// Half of the round-trip time. `None` for an odd number of nanoseconds.
    pub(crate) const fn exact_half(self) -> Option<Delay> {
        if self.0.is_multiple_of(2) { Some(self.one_way()) } else { None }
    }
}

/// The sum of the delays of the two directions. Saturates after 584 years.
impl Add for Delay {
    type Output = Rtt;

    fn add(self, back: Self) -> Rtt {
        Rtt(self.0.saturating_add(back.0))
    }
}

fn from_millis(millis: f64) -> Result<u64, QuantityError> {
    let nanos = (millis * 1e6).round();
    if !(0.0..u64::MAX as f64).contains(&nanos) {
        return Err(NOTATION.error(QuantityMistake::OutOfRange, &format!("{millis}ms")));
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the value is in the range of u64")]
    Ok(nanos as u64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_time_is_printed_in_the_largest_unit_below_it() {
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
    fn all_spellings_of_a_microsecond_are_read() {
        for text in ["150us", "150µs", "150μs", "0.15ms", "150 us", "150000ns", "0.000150s"] {
            assert_eq!(text.parse(), Ok(Delay::from_nanos(150_000)), "{text}");
        }
    }

    #[test]
    fn each_mistake_in_a_time_has_its_own_error() {
        let error = |text: &str| text.parse::<Rtt>().expect_err(text);
        assert_eq!(error("150").to_string(), "a unit is missing: write \"150ms\"");
        assert_eq!(error("1.5").to_string(), "a unit is missing: write \"1.5ms\"");
        for text in ["-5ms", "-.5ms"] {
            assert_eq!(error(text).to_string(), format!("`{text}` is not between 0ms and 584 years"));
        }
        assert_eq!(error("150 lightyears").to_string(), "`lightyears` is not a unit of time");
        assert_eq!(error("1h").help(), "the units are ns, us, ms and s");
        assert_eq!(error("0.5ns").to_string(), "`0.5ns` is finer than a nanosecond");
        assert_eq!(
            error("18446744073.709551616s").to_string(),
            "`18446744073.709551616s` is not between 0ms and 584 years"
        );
        for text in ["", "abc", "nan", "inf", "ms", ".5ms", "5.ms", "1.2.3ms", "1,5ms", "+5ms", " 5ms", "5ms ", "-ms"] {
            assert_eq!(error(text).mistake(), QuantityMistake::Malformed, "{text}");
        }
    }

    #[test]
    fn a_round_trip_is_two_delays() {
        let (there, back) = (Delay::from_nanos(1), Delay::from_nanos(2));
        assert_eq!(there + back, Rtt::from_nanos(3));
        assert_eq!(Rtt::from_nanos(3).one_way(), Delay::from_nanos(1));
    }

    #[test]
    fn a_time_in_json_is_in_milliseconds_and_keeps_each_nanosecond() {
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
        fn every_time_is_read_back(nanos in prop_oneof![any::<u64>(), 0..10_000_000_u64]) {
            let delay = Delay::from_nanos(nanos);
            prop_assert_eq!(delay.to_string().parse(), Ok(delay));
            let rtt = Rtt::from_nanos(nanos);
            prop_assert_eq!(rtt.to_string().parse(), Ok(rtt));
        }

        #[test]
        fn no_text_makes_the_time_parser_panic(text in "[-+0-9.nums eµ]{0,24}|\\PC{0,12}") {
            drop(text.parse::<Delay>());
        }
    }
}
