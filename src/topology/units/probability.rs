//! A probability in percent: [`Probability`].

use std::fmt;

use super::{Decimal, Notation, Quantity, QuantityMistake, decimal, foreign, notation};
use crate::topology::json_text;

/// A probability in the kernel's unit, 1/4,294,967,295 (`loss` of `struct tc_netem_qopt`).
///
/// The text is in percent: `0.1%`. The parser rounds to the nearest unit, as tc(8) does. The printed text has the
/// fewest decimals that identify the value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(with = "String"))]
pub struct Probability(u32);

impl Probability {
    /// 0 %.
    pub const ZERO: Self = Self(0);

    /// 100 %.
    pub const ONE: Self = Self(u32::MAX);

    /// A probability in units of 1/4,294,967,295.
    pub const fn from_parts(parts: u32) -> Self {
        Self(parts)
    }

    /// The probability in units of 1/4,294,967,295.
    pub const fn parts(self) -> u32 {
        self.0
    }

    /// The probability as a number from 0 to 1.
    pub fn share(self) -> f64 {
        f64::from(self.0) / f64::from(u32::MAX)
    }

    /// The probability that the event does not happen: 100 % minus the probability.
    #[must_use]
    pub const fn complement(self) -> Self {
        Self(u32::MAX - self.0)
    }
}

/// The nearest number of parts to `digits` × 10^-`decimals` percent. A tie goes to the even number (rint(3)), as in tc.
fn parts(digits: u128, decimals: u32) -> u128 {
    let whole = 100 * 10_u128.pow(decimals);
    let (parts, rest) = (digits * u128::from(u32::MAX) / whole, digits * u128::from(u32::MAX) % whole);
    let rounds_up = 2 * rest > whole || 2 * rest == whole && parts % 2 == 1;
    parts + u128::from(rounds_up)
}

impl Quantity for Probability {
    const NOTATION: Notation = Notation {
        name: "a percentage",
        example: "0.1%",
        units: &[("%", 0)],
        usual_unit: "%",
        units_help: "a probability is in percent, from 0% to 100%",
        unit_name: None,
        range: "0% and 100%",
        range_help: "a probability is in percent, from 0% to 100%",
        too_precise: "is less than the kernel's resolution, 1 in 4294967295",
        precision_help: "the smallest probability is about 0.00000003%",
        advice: foreign::percent,
    };

    fn from_decimal(Decimal { digits, decimals, .. }: Decimal) -> Result<Self, QuantityMistake> {
        if digits > 100 * 10_u128.pow(decimals) {
            return Err(QuantityMistake::OutOfRange);
        }
        match u32::try_from(parts(digits, decimals)) {
            Ok(0) if digits > 0 => Err(QuantityMistake::TooPrecise),
            Ok(parts) => Ok(Self(parts)),
            Err(_) => Err(QuantityMistake::OutOfRange),
        }
    }
}

impl fmt::Display for Probability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rounded = |decimals| {
            let scaled = u128::from(self.0) * 100 * 10_u128.pow(decimals);
            (scaled + u128::from(u32::MAX) / 2) / u128::from(u32::MAX)
        };
        // Ten decimals distinguish any two values.
        let reads_back = |decimals: &u32| {
            let digits = rounded(*decimals);
            parts(digits, *decimals) == u128::from(self.0) && (digits > 0 || self.0 == 0)
        };
        let decimals = (0..10).find(reads_back).unwrap_or(10);
        f.pad(&format!("{}%", decimal(rounded(decimals), decimals)))
    }
}

notation!(Probability);
json_text!(Probability);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_percentage_is_rounded_as_in_tc() {
        let parts = |text: &str| text.parse::<Probability>().unwrap().parts();
        assert_eq!(parts("0%"), 0);
        assert_eq!(parts("1%"), 42_949_673);
        assert_eq!(parts("25 %"), 1_073_741_824);
        assert_eq!(parts("0.1%"), 4_294_967);
        // These percentages are exactly in the middle between two numbers of parts.
        assert_eq!((parts("10%"), parts("30%"), parts("70%")), (429_496_730, 0x4ccc_cccc, 0xb333_3332));
        assert_eq!(parts("100.0%"), u32::MAX);
        assert_eq!("0.10%".parse::<Probability>().unwrap().to_string(), "0.1%");
    }

    #[test]
    fn each_mistake_in_a_percentage_has_its_own_error() {
        let error = |text: &str| text.parse::<Probability>().expect_err(text).to_string();
        assert_eq!(error("5"), "a unit is missing: write \"5%\"");
        assert_eq!(error("0.01"), "a unit is missing: write \"0.01%\", or \"1%\" if it is a share of 1");
        assert_eq!(error("101%"), "`101%` is not between 0% and 100%");
        assert_eq!(error("-1%"), "`-1%` is not between 0% and 100%");
        assert!(error("0.00000001%").contains("1 in 4294967295"));
        for text in ["", "%", "nan%", "1e3%", ".5%", "1.%", "5%%", "5ms", "1.2.3%"] {
            assert_eq!(error(text), format!("`{text}` is not a percentage"));
        }
    }

    proptest! {
        #[test]
        fn every_probability_is_read_back(parts in prop_oneof![any::<u32>(), 0..100_u32, u32::MAX - 100..]) {
            let probability = Probability::from_parts(parts);
            prop_assert_eq!(probability.to_string().parse(), Ok(probability));
        }

        #[test]
        fn no_text_makes_the_percentage_parser_panic(text in "[-+0-9.% e]{0,24}|\\PC{0,12}") {
            drop(text.parse::<Probability>());
        }
    }
}
