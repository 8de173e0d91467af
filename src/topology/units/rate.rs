//! The rate of a link: [`BitRate`].

use std::fmt;

use super::{Decimal, Notation, Quantity, QuantityMistake, RATE_UNITS, foreign, notation, with_unit};
use crate::topology::json_text;

/// A rate in bits per second: `1gbit`.
///
/// A rate is greater than zero. It is a whole number of bytes per second, which is the kernel's unit. tc(8) has the
/// same units: `bit`, `kbit`, `mbit`, `gbit` and `tbit`. Each unit is 1,000 times the previous unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(with = "String"))]
pub struct BitRate(u64);

impl BitRate {
    /// The lowest rate of a link: 1 byte per second.
    pub const MIN: Self = Self(8);

    /// The highest rate of a link: 1 Tbit/s.
    pub const MAX: Self = Self(1_000_000_000_000);

    /// A rate in bytes per second.
    pub const fn from_bytes_per_second(bytes: u64) -> Self {
        Self(bytes.saturating_mul(8))
    }

    /// The rate in bytes per second, the kernel's unit.
    pub const fn bytes_per_second(self) -> u64 {
        self.0 / 8
    }

    /// The rate in bits per second.
    pub const fn bits_per_second(self) -> u64 {
        self.0
    }
}

impl Quantity for BitRate {
    const NOTATION: Notation = Notation {
        name: "a rate",
        example: "100mbit",
        units: RATE_UNITS,
        usual_unit: "mbit",
        units_help: "the units are bit, kbit, mbit, gbit and tbit (per second)",
        unit_name: Some("rate"),
        range: "8bit and 1tbit",
        range_help: "for no rate limit, write \"unlimited\" or leave `rate` out",
        too_precise: "is not a whole number of bytes per second",
        precision_help: "the kernel's unit is one byte per second: write a multiple of 8bit",
        advice: foreign::rate,
    };

    fn from_decimal(decimal: Decimal) -> Result<Self, QuantityMistake> {
        let rate = Self(decimal.whole()?);
        if !rate.0.is_multiple_of(8) {
            return Err(QuantityMistake::TooPrecise);
        }
        (Self::MIN..=Self::MAX).contains(&rate).then_some(rate).ok_or(QuantityMistake::OutOfRange)
    }
}

impl fmt::Display for BitRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&with_unit(self.0, RATE_UNITS))
    }
}

notation!(BitRate);
json_text!(BitRate);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_rate_is_printed_in_the_largest_unit_below_it() {
        let prints = |text: &str, as_text: &str, bytes| {
            let rate: BitRate = text.parse().unwrap();
            assert_eq!((rate.to_string().as_str(), rate.bytes_per_second()), (as_text, bytes));
        };
        prints("1gbit", "1gbit", 125_000_000);
        prints("1000 mbit", "1gbit", 125_000_000);
        prints("1.5mbit", "1.5mbit", 187_500);
        prints("64kbit", "64kbit", 8_000);
        prints("8bit", "8bit", 1);
        prints("1tbit", "1tbit", 125_000_000_000);
    }

    #[test]
    fn each_mistake_in_a_rate_has_its_own_error() {
        let error = |text: &str| text.parse::<BitRate>().expect_err(text).to_string();
        assert_eq!(error("100"), "a unit is missing: write \"100mbit\"");
        assert_eq!(error("1Gbps"), "`Gbps` is not a unit of rate");
        assert_eq!(error("9bit"), "`9bit` is not a whole number of bytes per second");
        assert_eq!(error("0mbit"), "`0mbit` is not between 8bit and 1tbit");
        assert_eq!(error("2tbit"), "`2tbit` is not between 8bit and 1tbit");
        assert_eq!(error("-1mbit"), "`-1mbit` is not between 8bit and 1tbit");
        for text in ["", "fast", ".5mbit", "1.mbit"] {
            assert_eq!(error(text), format!("`{text}` is not a rate"));
        }
    }

    proptest! {
        #[test]
        fn every_rate_is_read_back(bytes in 1..=BitRate::MAX.bytes_per_second()) {
            let rate = BitRate::from_bytes_per_second(bytes);
            prop_assert_eq!(rate.to_string().parse(), Ok(rate));
        }

        #[test]
        fn no_text_makes_the_rate_parser_panic(text in "[-+0-9.kmgtbi ]{0,24}|\\PC{0,12}") {
            drop(text.parse::<BitRate>());
        }
    }
}
