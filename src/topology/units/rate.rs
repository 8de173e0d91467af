//! How fast a link is: [`BitRate`].

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use super::{decimal, foreign, notation};

/// A rate, in bits per second, of whole bytes per second, which is what the kernel counts in. Never zero.
///
/// Written `1gbit`; the units are `bit`, `kbit`, `mbit`, `gbit` and `tbit`, each a thousand of the one before, as `tc`
/// has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(try_from = "String", into = "String")]
pub struct BitRate(u64);

impl BitRate {
    /// The slowest rate that a link can be given: 1 byte per second.
    pub const MIN: Self = Self(8);

    /// The fastest rate that a link can be given: 1 Tbit/s.
    pub const MAX: Self = Self(1_000_000_000_000);

    /// So many bytes per second.
    pub const fn from_bytes_per_second(bytes: u64) -> Self {
        Self(bytes.saturating_mul(8))
    }

    /// In bytes per second, as the kernel takes it.
    pub const fn bytes_per_second(self) -> u64 {
        self.0 / 8
    }

    /// In bits per second.
    pub const fn bits_per_second(self) -> u64 {
        self.0
    }
}

/// Why a text is not a rate. Its text is fit for a command line; [`help`](Self::help) says what would be right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RateError {
    /// A bare number.
    #[error("a unit is missing: write \"{number}mbit\"")]
    NoUnit {
        /// The number as written.
        number: String,
    },
    /// A number and a word that is no unit.
    #[error("`{unit}` is not a unit of rate")]
    UnknownUnit {
        /// The word as written.
        unit: String,
        /// The whole text as written.
        text: String,
    },
    /// Not of whole bytes.
    #[error("`{text}` is not a whole number of bytes per second")]
    NotWhole {
        /// The text as written.
        text: String,
    },
    /// Slower than a byte per second, or faster than any link.
    #[error("`{text}` is not between {} and {}", BitRate::MIN, BitRate::MAX)]
    OutOfRange {
        /// The text as written.
        text: String,
    },
    /// Anything else.
    #[error("`{text}` is not a rate")]
    NotARate {
        /// The text as written.
        text: String,
    },
}

impl RateError {
    /// What to write instead.
    pub fn help(&self) -> String {
        const UNITS: &str = "the units are bit, kbit, mbit, gbit and tbit (per second)";
        let help = match self {
            Self::UnknownUnit { text, .. } => {
                return foreign::rate(text).map_or_else(|| UNITS.to_owned(), |ours| format!("{ours}; {UNITS}"));
            }
            Self::NoUnit { .. } => UNITS,
            Self::NotWhole { .. } => "the kernel counts in whole bytes: write a multiple of 8bit",
            Self::OutOfRange { .. } => "leave it out, or write \"unlimited\", for a link as fast as the LAN",
            Self::NotARate { .. } => "write a number and its unit, as in \"100mbit\"",
        };
        help.to_owned()
    }
}

/// The units, largest first, with the decimals that one bit is away from them.
const UNITS: [(&str, u32); 5] = [("tbit", 12), ("gbit", 9), ("mbit", 6), ("kbit", 3), ("bit", 0)];

impl FromStr for BitRate {
    type Err = RateError;

    fn from_str(text: &str) -> Result<Self, RateError> {
        let written = || text.to_owned();
        let ((digits, decimals), rest) = decimal(text).ok_or_else(|| RateError::NotARate { text: written() })?;
        let unit = rest.trim_start();
        if unit.is_empty() {
            return Err(RateError::NoUnit { number: text.trim_end().to_owned() });
        }
        let scale = UNITS.iter().find(|(name, _)| *name == unit).map(|&(_, scale)| scale);
        let scale = scale.ok_or_else(|| RateError::UnknownUnit { unit: unit.to_owned(), text: written() })?;
        if decimals > scale {
            return Err(RateError::NotWhole { text: written() });
        }
        let bits = digits.checked_mul(10_u128.pow(scale - decimals)).and_then(|bits| u64::try_from(bits).ok());
        match bits {
            Some(bits) if bits % 8 != 0 => Err(RateError::NotWhole { text: written() }),
            Some(bits) if (Self::MIN.0..=Self::MAX.0).contains(&bits) => Ok(Self(bits)),
            _ => Err(RateError::OutOfRange { text: written() }),
        }
    }
}

impl fmt::Display for BitRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fills = |&(_, decimals): &(&str, u32)| self.0 >= 10_u64.pow(decimals);
        let (unit, decimals) = UNITS.into_iter().find(fills).unwrap_or(("bit", 0));
        let scale = 10_u64.pow(decimals);
        let (whole, fraction) = (self.0 / scale, self.0 % scale);
        if fraction == 0 {
            return f.pad(&format!("{whole}{unit}"));
        }
        let fraction = format!("{fraction:0width$}", width = decimals as usize);
        f.pad(&format!("{whole}.{}{unit}", fraction.trim_end_matches('0')))
    }
}

notation!(BitRate, RateError);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_rate_is_decimal_and_prints_in_the_largest_unit_that_it_fills() {
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
    fn each_mistake_has_its_own_error() {
        let error = |text: &str| text.parse::<BitRate>().expect_err(text).to_string();
        assert_eq!(error("100"), "a unit is missing: write \"100mbit\"");
        assert_eq!(error("1Gbps"), "`Gbps` is not a unit of rate");
        assert_eq!(error("9bit"), "`9bit` is not a whole number of bytes per second");
        assert_eq!(error("0mbit"), "`0mbit` is not between 8bit and 1tbit");
        assert_eq!(error("2tbit"), "`2tbit` is not between 8bit and 1tbit");
        for text in ["", "fast", "-1mbit", ".5mbit", "1.mbit"] {
            assert_eq!(error(text), format!("`{text}` is not a rate"));
        }
    }

    proptest! {
        #[test]
        fn every_rate_survives_its_notation(bytes in 1..=BitRate::MAX.bytes_per_second()) {
            let rate = BitRate::from_bytes_per_second(bytes);
            prop_assert_eq!(rate.to_string().parse(), Ok(rate));
        }

        #[test]
        fn no_text_makes_the_reader_panic(text in "[-+0-9.kmgtbi ]{0,24}|\\PC{0,12}") {
            drop(text.parse::<BitRate>());
        }
    }
}
