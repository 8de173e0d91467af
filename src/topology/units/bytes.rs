//! A number of bytes: [`Bytes`].

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use super::{decimal, notation};

/// A number of bytes, which may be negative where something is taken off. Written `20B`, `-14B`, `64kB` (64,000).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(try_from = "String", into = "String")]
pub struct Bytes(i32);

impl Bytes {
    /// So many bytes.
    pub const fn new(bytes: i32) -> Self {
        Self(bytes)
    }

    /// How many they are.
    pub const fn get(self) -> i32 {
        self.0
    }
}

/// Why a text is not a number of bytes. Its text is fit for a command line; [`help`](Self::help) says what would be
/// right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BytesError {
    /// A bare number.
    #[error("a unit is missing: write \"{number}B\"")]
    NoUnit {
        /// The number as written.
        number: String,
    },
    /// A number and a word that is no unit.
    #[error("`{unit}` is not a unit of size")]
    UnknownUnit {
        /// The word as written.
        unit: String,
    },
    /// More than 31 bits hold, or a fraction of a byte.
    #[error("`{text}` is not a whole number of bytes between -2147483647B and 2147483647B")]
    OutOfRange {
        /// The text as written.
        text: String,
    },
    /// Anything else.
    #[error("`{text}` is not a number of bytes")]
    NotASize {
        /// The text as written.
        text: String,
    },
}

impl BytesError {
    /// What to write instead.
    pub fn help(&self) -> String {
        let help = match self {
            Self::NoUnit { .. } | Self::UnknownUnit { .. } => "the units are B, kB (1000 bytes) and MB",
            Self::OutOfRange { .. } | Self::NotASize { .. } => "write a number and its unit, as in \"20B\"",
        };
        help.to_owned()
    }
}

const UNITS: [(&str, u32); 3] = [("MB", 6), ("kB", 3), ("B", 0)];

impl FromStr for Bytes {
    type Err = BytesError;

    fn from_str(text: &str) -> Result<Self, BytesError> {
        let written = || text.to_owned();
        let (sign, magnitude) = text.strip_prefix('-').map_or((1, text), |magnitude| (-1, magnitude));
        let ((digits, decimals), rest) = decimal(magnitude).ok_or_else(|| BytesError::NotASize { text: written() })?;
        let unit = rest.trim_start();
        if unit.is_empty() {
            return Err(BytesError::NoUnit { number: text.trim_end().to_owned() });
        }
        let scale = UNITS.iter().find(|(name, _)| *name == unit).map(|&(_, scale)| scale);
        let scale = scale.ok_or_else(|| BytesError::UnknownUnit { unit: unit.to_owned() })?;
        let factor = 10_u128.checked_pow(scale.wrapping_sub(decimals));
        let bytes = factor.and_then(|factor| digits.checked_mul(factor)).and_then(|bytes| i32::try_from(bytes).ok());
        bytes.map(|bytes| Self(sign * bytes)).ok_or_else(|| BytesError::OutOfRange { text: written() })
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fills = |&(_, decimals): &(&str, u32)| self.0 != 0 && self.0 % 10_i32.pow(decimals) == 0;
        let (unit, decimals) = UNITS.into_iter().find(fills).unwrap_or(("B", 0));
        f.pad(&format!("{}{unit}", self.0 / 10_i32.pow(decimals)))
    }
}

notation!(Bytes, BytesError);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes_are_decimal_and_may_be_negative() {
        for (text, bytes) in
            [("20B", 20), ("-14B", -14), ("64kB", 64_000), ("1.5kB", 1_500), ("0B", 0), ("2 MB", 2_000_000)]
        {
            assert_eq!(text.parse(), Ok(Bytes::new(bytes)), "{text}");
        }
        assert_eq!(Bytes::new(64_000).to_string(), "64kB");
    }

    #[test]
    fn each_mistake_has_its_own_error() {
        let error = |text: &str| text.parse::<Bytes>().expect_err(text).to_string();
        assert_eq!(error("20"), "a unit is missing: write \"20B\"");
        assert_eq!(error("20KiB"), "`KiB` is not a unit of size");
        assert!(error("1.5B").contains("is not a whole number of bytes"));
        assert!(error("3000MB").contains("is not a whole number of bytes"));
        assert_eq!(error("many"), "`many` is not a number of bytes");
    }

    proptest! {
        #[test]
        fn every_size_survives_its_notation(bytes in -i32::MAX..=i32::MAX) {
            prop_assert_eq!(Bytes::new(bytes).to_string().parse(), Ok(Bytes::new(bytes)));
        }

        #[test]
        fn no_text_makes_the_reader_panic(text in "[-+0-9.kMB ]{0,24}|\\PC{0,12}") {
            drop(text.parse::<Bytes>());
        }
    }
}
