//! A number of bytes: [`Bytes`].

use std::fmt;

use super::{Decimal, Notation, Quantity, QuantityMistake, Units, notation};
use crate::topology::json_text;

/// A number of bytes: `20B`, `64kB` (64,000 bytes). An overhead that makes packets smaller is negative: `-14B`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(with = "String"))]
pub struct Bytes(i32);

impl Bytes {
    /// A number of bytes.
    pub const fn new(bytes: i32) -> Self {
        Self(bytes)
    }

    /// The number.
    pub const fn get(self) -> i32 {
        self.0
    }
}

const UNITS: Units = &[("MB", 6), ("kB", 3), ("B", 0)];

impl Quantity for Bytes {
    const NOTATION: Notation = Notation {
        name: "a number of bytes",
        example: "20B",
        units: UNITS,
        usual_unit: "B",
        units_help: "the units are B, kB (1000 bytes) and MB",
        unit_name: Some("size"),
        range: "-2147483647B and 2147483647B",
        range_help: "write a smaller number",
        too_precise: "is not a whole number of bytes",
        precision_help: "write a whole number of bytes, as in \"1500B\"",
        advice: |_| None,
    };

    fn from_decimal(decimal: Decimal) -> Result<Self, QuantityMistake> {
        let bytes: i32 = decimal.whole()?;
        Ok(Self(if decimal.is_negative { -bytes } else { bytes }))
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fills = |&(_, power): &(&'static str, u32)| self.0 != 0 && self.0 % 10_i32.pow(power) == 0;
        let (unit, power) = UNITS.iter().copied().find(fills).unwrap_or(("B", 0));
        f.pad(&format!("{}{unit}", self.0 / 10_i32.pow(power)))
    }
}

notation!(Bytes);
json_text!(Bytes);

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
    fn each_mistake_in_a_size_has_its_own_error() {
        let error = |text: &str| text.parse::<Bytes>().expect_err(text).to_string();
        assert_eq!(error("20"), "a unit is missing: write \"20B\"");
        assert_eq!(error("20KiB"), "`KiB` is not a unit of size");
        assert!(error("1.5B").contains("is not a whole number of bytes"));
        assert!(error("3000MB").contains("is not between -2147483647B and 2147483647B"));
        assert_eq!(error("many"), "`many` is not a number of bytes");
    }

    proptest! {
        #[test]
        fn every_size_is_read_back(bytes in -i32::MAX..=i32::MAX) {
            prop_assert_eq!(Bytes::new(bytes).to_string().parse(), Ok(Bytes::new(bytes)));
        }

        #[test]
        fn no_text_makes_the_size_parser_panic(text in "[-+0-9.kMB ]{0,24}|\\PC{0,12}") {
            drop(text.parse::<Bytes>());
        }
    }
}
