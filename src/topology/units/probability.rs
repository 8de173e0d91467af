//! A share of packets, in percent: [`Probability`].

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use super::{decimal, foreign, notation};

/// How likely something is, as the kernel counts it: in parts of 4,294,967,295 (`tc_netem_qopt.loss` and its kin).
///
/// Written in percent, `0.1%`. It is read as `tc` reads it (to the nearest part) and printed with as few decimals as
/// read back as the same part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(try_from = "String", into = "String")]
pub struct Probability(u32);

impl Probability {
    /// Never.
    pub const ZERO: Self = Self(0);

    /// Always.
    pub const ONE: Self = Self(u32::MAX);

    /// So many parts of 4,294,967,295.
    pub const fn from_parts(parts: u32) -> Self {
        Self(parts)
    }

    /// The parts of 4,294,967,295, as the kernel takes them.
    pub const fn parts(self) -> u32 {
        self.0
    }

    /// From 0 to 1.
    pub fn share(self) -> f64 {
        f64::from(self.0) / f64::from(u32::MAX)
    }

    /// How likely it does not happen.
    #[must_use]
    pub const fn complement(self) -> Self {
        Self(u32::MAX - self.0)
    }
}

/// Why a text is not a probability. Its text is fit for a command line; [`help`](Self::help) says what would be right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProbabilityError {
    /// A bare number.
    #[error("a unit is missing: write \"{number}%\"{}", or_percent(number))]
    NoUnit {
        /// The number as written.
        number: String,
    },
    /// More than 100 %, or less than nothing.
    #[error("`{text}` is not between 0% and 100%")]
    OutOfRange {
        /// The text as written.
        text: String,
    },
    /// Not zero, but less than one part.
    #[error("`{text}` is less than one in four billion, which is all that the kernel can count")]
    TooSmall {
        /// The text as written.
        text: String,
    },
    /// Anything else.
    #[error("`{text}` is not a percentage")]
    NotAPercentage {
        /// The text as written.
        text: String,
    },
}

impl ProbabilityError {
    /// What to write instead.
    pub fn help(&self) -> String {
        let help = match self {
            Self::NoUnit { .. } | Self::OutOfRange { .. } => "a probability is in percent, from 0% to 100%",
            Self::TooSmall { .. } => "the smallest is about 0.00000003%",
            Self::NotAPercentage { .. } => "write a number and a percent sign, as in \"0.1%\"",
        };
        help.to_owned()
    }
}

/// What a number without a unit is in percent as well, if it may be meant as a share of 1.
fn or_percent(number: &str) -> String {
    foreign::percent(number).map(|percent| format!(", or \"{percent}%\" if it is a share of 1")).unwrap_or_default()
}

/// The nearest number of parts, of a percentage with so many decimals; of two equally near ones the even one, as `tc`
/// has it (`rint(3)`).
fn parts(digits: u128, decimals: u32) -> u128 {
    let whole = 100 * 10_u128.pow(decimals);
    let (parts, rest) = (digits * u128::from(u32::MAX) / whole, digits * u128::from(u32::MAX) % whole);
    let is_nearer_to_the_next = 2 * rest > whole || 2 * rest == whole && parts % 2 == 1;
    parts + u128::from(is_nearer_to_the_next)
}

impl FromStr for Probability {
    type Err = ProbabilityError;

    fn from_str(text: &str) -> Result<Self, ProbabilityError> {
        let not_a_percentage = || ProbabilityError::NotAPercentage { text: text.to_owned() };
        if let Some(positive) = text.strip_prefix('-')
            && decimal(positive).is_some()
        {
            return Err(ProbabilityError::OutOfRange { text: text.to_owned() });
        }
        let ((digits, decimals), unit) = decimal(text).ok_or_else(not_a_percentage)?;
        match unit.trim_start() {
            "%" => {}
            "" => return Err(ProbabilityError::NoUnit { number: text.trim_end().to_owned() }),
            _ => return Err(not_a_percentage()),
        }
        if digits > 100 * 10_u128.pow(decimals) {
            return Err(ProbabilityError::OutOfRange { text: text.to_owned() });
        }
        match u32::try_from(parts(digits, decimals)) {
            Ok(0) if digits > 0 => Err(ProbabilityError::TooSmall { text: text.to_owned() }),
            Ok(parts) => Ok(Self(parts)),
            Err(_) => Err(not_a_percentage()),
        }
    }
}

impl fmt::Display for Probability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for decimals in 0..=12 {
            let scale = 10_u128.pow(decimals);
            let digits = (u128::from(self.0) * 100 * scale + u128::from(u32::MAX) / 2) / u128::from(u32::MAX);
            if parts(digits, decimals) == u128::from(self.0) && (digits > 0 || self.0 == 0) {
                let (whole, fraction) = (digits / scale, digits % scale);
                let width = decimals as usize;
                let text = if width == 0 { format!("{whole}%") } else { format!("{whole}.{fraction:0width$}%") };
                return f.pad(&text);
            }
        }
        // Ten decimals tell any two parts from each other.
        f.pad(&format!("{}/{}", self.0, u32::MAX))
    }
}

notation!(Probability, ProbabilityError);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_percentage_is_read_as_tc_reads_it() {
        let parts = |text: &str| text.parse::<Probability>().unwrap().parts();
        assert_eq!(parts("0%"), 0);
        assert_eq!(parts("1%"), 42_949_673);
        assert_eq!(parts("25 %"), 1_073_741_824);
        assert_eq!(parts("0.1%"), 4_294_967);
        // These are half a part from the parts next to them.
        assert_eq!((parts("10%"), parts("30%"), parts("70%")), (429_496_730, 0x4ccc_cccc, 0xb333_3332));
        assert_eq!(parts("100.0%"), u32::MAX);
        assert_eq!("0.10%".parse::<Probability>().unwrap().to_string(), "0.1%");
    }

    #[test]
    fn each_mistake_has_its_own_error() {
        let error = |text: &str| text.parse::<Probability>().expect_err(text).to_string();
        assert_eq!(error("5"), "a unit is missing: write \"5%\"");
        assert_eq!(error("0.01"), "a unit is missing: write \"0.01%\", or \"1%\" if it is a share of 1");
        assert_eq!(error("101%"), "`101%` is not between 0% and 100%");
        assert_eq!(error("-1%"), "`-1%` is not between 0% and 100%");
        assert!(error("0.00000001%").contains("one in four billion"));
        for text in ["", "%", "nan%", "1e3%", ".5%", "1.%", "5%%", "5ms", "1.2.3%"] {
            assert_eq!(error(text), format!("`{text}` is not a percentage"));
        }
    }

    proptest! {
        #[test]
        fn every_probability_survives_its_notation(parts in prop_oneof![any::<u32>(), 0..100_u32, u32::MAX - 100..]) {
            let probability = Probability::from_parts(parts);
            prop_assert_eq!(probability.to_string().parse(), Ok(probability));
        }

        #[test]
        fn no_text_makes_the_reader_panic(text in "[-+0-9.% e]{0,24}|\\PC{0,12}") {
            drop(text.parse::<Probability>());
        }
    }
}
