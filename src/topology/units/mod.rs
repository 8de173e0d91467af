//! Quantities with units, each with its own type: [`Delay`] and [`Rtt`], [`Probability`], [`BitRate`], [`Bytes`].
//!
//! The text of a quantity is a decimal number and a unit. The unit is mandatory. The parser reads a printed text back
//! as the same value. First type to read: [`Notation`].

mod bounded;
mod bytes;
mod foreign;
mod probability;
mod rate;
mod time;

pub(super) use bounded::{Correlation, HalfRtt, OneWayDelay, ShortTime};
pub use bytes::Bytes;
pub use probability::Probability;
pub use rate::BitRate;
pub use time::{Delay, Rtt};

/// The mistake in a text that is not a quantity. [`help`](Self::help) is the remedy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct QuantityError {
    mistake: QuantityMistake,
    message: String,
    help: String,
}

/// The kinds of mistakes in a quantity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuantityMistake {
    /// A number without a unit.
    NoUnit,
    /// A number with a word that is not a unit of the quantity.
    UnknownUnit,
    /// A negative value, or a value that is too small or too large.
    OutOfRange,
    /// A number with more decimals than the resolution of the quantity.
    TooPrecise,
    /// Any other text.
    Malformed,
}

impl QuantityError {
    /// The kind of the mistake.
    pub fn mistake(&self) -> QuantityMistake {
        self.mistake
    }

    /// The remedy.
    pub fn help(&self) -> &str {
        &self.help
    }
}

/// A type whose text is a number and a unit.
pub(super) trait Quantity: Sized {
    const NOTATION: Notation;

    /// The value of a number that is in the base unit.
    fn from_decimal(decimal: Decimal) -> Result<Self, QuantityMistake>;

    fn parse(text: &str) -> Result<Self, QuantityError> {
        let decimal = Self::NOTATION.read(text);
        decimal.and_then(Self::from_decimal).map_err(|mistake| Self::NOTATION.error(mistake, text))
    }
}

/// The notation of a quantity, and the messages about texts with another notation.
pub(super) struct Notation {
    /// The quantity in messages: `a time`.
    pub(super) name: &'static str,
    /// A valid text: `75ms`.
    pub(super) example: &'static str,
    units: Units,
    /// The unit that messages suggest for a number without a unit.
    usual_unit: &'static str,
    units_help: &'static str,
    /// The quantity in the message about an unknown unit: `time`. `None` for a percentage: it has only one unit.
    unit_name: Option<&'static str>,
    range: &'static str,
    range_help: &'static str,
    /// The end of the message about a number with too many decimals.
    too_precise: &'static str,
    precision_help: &'static str,
    /// Advice for a text with a unit of another tool, or without a unit.
    advice: fn(&str) -> Option<String>,
}

/// Units, largest first, each with its power of ten: `("ms", 6)` means that 1 ms is 10^6 base units.
type Units = &'static [(&'static str, u32)];

/// The units of a rate (tc(8)).
const RATE_UNITS: Units = &[("tbit", 12), ("gbit", 9), ("mbit", 6), ("kbit", 3), ("bit", 0)];

impl Notation {
    /// Reads a number with its unit, and converts the number to the base unit.
    fn read(&self, text: &str) -> Result<Decimal, QuantityMistake> {
        let magnitude =
            text.strip_prefix('-').filter(|rest| rest.starts_with(|c: char| c.is_ascii_digit() || c == '.'));
        if magnitude.is_some() && !self.range.starts_with('-') {
            return Err(QuantityMistake::OutOfRange);
        }
        let (number, unit) = Decimal::split(magnitude.unwrap_or(text)).ok_or(QuantityMistake::Malformed)?;
        let unit = unit.trim_start();
        let power = match self.units.iter().find(|(name, _)| *name == unit) {
            Some(&(_, power)) => power,
            None if unit.is_empty() => return Err(QuantityMistake::NoUnit),
            None if unit.chars().all(|c| c.is_alphabetic() || c == '/') => return Err(QuantityMistake::UnknownUnit),
            None => return Err(QuantityMistake::Malformed),
        };
        let number = number.times_ten_to(power).ok_or(QuantityMistake::OutOfRange)?;
        Ok(Decimal { is_negative: magnitude.is_some(), ..number })
    }

    fn error(&self, mistake: QuantityMistake, text: &str) -> QuantityError {
        let text = text.trim_end();
        let Self { name, example, usual_unit, units_help, range, .. } = self;
        let advice = (self.advice)(text);
        let (message, help) = match (mistake, self.unit_name) {
            (QuantityMistake::NoUnit, _) => {
                let or = advice.map(|advice| format!(", or {advice}")).unwrap_or_default();
                (format!("a unit is missing: write \"{text}{usual_unit}\"{or}"), (*units_help).to_owned())
            }
            (QuantityMistake::UnknownUnit, Some(unit_name)) => {
                let unit = Decimal::split(text).map_or(text, |(_, unit)| unit.trim_start());
                let help = advice.map_or_else(|| (*units_help).to_owned(), |advice| format!("{advice}; {units_help}"));
                (format!("`{unit}` is not a unit of {unit_name}"), help)
            }
            (QuantityMistake::OutOfRange, _) => {
                (format!("`{text}` is not between {range}"), self.range_help.to_owned())
            }
            (QuantityMistake::TooPrecise, _) => {
                (format!("`{text}` {}", self.too_precise), self.precision_help.to_owned())
            }
            (QuantityMistake::Malformed | QuantityMistake::UnknownUnit, _) => {
                (format!("`{text}` is not {name}"), format!("write a number and its unit, as in \"{example}\""))
            }
        };
        QuantityError { mistake, message, help }
    }
}

/// A decimal number: `digits` × 10^-`decimals`. It has no trailing zeros behind the point.
#[derive(Clone, Copy)]
pub(super) struct Decimal {
    is_negative: bool,
    digits: u128,
    decimals: u32,
}

impl Decimal {
    /// The number at the start of a text, and the rest of the text.
    ///
    /// `None` if there is no number, or if the number has more than 20 digits before or 18 digits behind the point.
    fn split(text: &str) -> Option<(Self, &str)> {
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, rest) = text.split_at(end);
        let (whole, fraction) = match number.split_once('.') {
            None => (number, ""),
            Some((whole, fraction)) if !fraction.is_empty() && !fraction.contains('.') => (whole, fraction),
            Some(_) => return None,
        };
        let fraction = fraction.trim_end_matches('0');
        if whole.is_empty() || whole.len() > 20 || fraction.len() > 18 {
            return None;
        }
        let digits = format!("{whole}{fraction}").parse().ok()?;
        Some((Self { is_negative: false, digits, decimals: u32::try_from(fraction.len()).ok()? }, rest))
    }

    /// The number times 10^`power`. `None` if the product is too large.
    fn times_ten_to(self, power: u32) -> Option<Self> {
        let digits = self.digits.checked_mul(10_u128.pow(power.saturating_sub(self.decimals)))?;
        Some(Self { digits, decimals: self.decimals.saturating_sub(power), ..self })
    }

    /// The number without its sign, which must be a whole number that fits into `T`.
    fn whole<T: TryFrom<u128>>(self) -> Result<T, QuantityMistake> {
        match self.decimals {
            0 => T::try_from(self.digits).map_err(|_| QuantityMistake::OutOfRange),
            _ => Err(QuantityMistake::TooPrecise),
        }
    }
}

/// Writes a value in the largest unit that is not greater than the value, with the necessary decimals.
fn with_unit(value: u64, units: Units) -> String {
    let fills = |&(_, power): &(&'static str, u32)| value >= 10_u64.pow(power);
    let (unit, power) = units.iter().copied().find(fills).unwrap_or(units[units.len() - 1]);
    format!("{}{unit}", decimal(value.into(), power))
}

/// Writes `digits` × 10^-`decimals` without trailing zeros.
fn decimal(digits: u128, decimals: u32) -> String {
    let scale = 10_u128.pow(decimals);
    match (digits / scale, digits % scale) {
        (whole, 0) => whole.to_string(),
        (whole, fraction) => {
            let fraction = format!("{fraction:0width$}", width = decimals as usize);
            format!("{whole}.{}", fraction.trim_end_matches('0'))
        }
    }
}

/// Implements the conversion of a text to a quantity.
macro_rules! notation {
    ($quantity:ident) => {
        impl std::str::FromStr for $quantity {
            type Err = super::QuantityError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                <Self as super::Quantity>::parse(text)
            }
        }
    };
}
use notation;
