//! Quantities with their units, each a type of its own: [`Delay`] and [`Rtt`], [`Probability`], [`BitRate`], [`Bytes`].
//!
//! Each has one notation, in which a unit is always written; what is printed reads back as the same value.

mod bytes;
mod foreign;
mod probability;
mod rate;
mod time;

pub use bytes::{Bytes, BytesError};
pub use probability::{Probability, ProbabilityError};
pub use rate::{BitRate, RateError};
pub use time::{Delay, Rtt, TimeError};

/// A decimal number as its digits and how many of them are behind the point: `1.50` is 15 and 1.
///
/// None if the text does not begin with such a number, else the number and what is behind it.
fn decimal(text: &str) -> Option<((u128, u32), &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, rest) = text.split_at(end);
    let (whole, fraction) = match number.split_once('.') {
        None => (number, ""),
        Some((whole, fraction)) if !fraction.is_empty() && !fraction.contains('.') => (whole, fraction),
        Some(_) => return None,
    };
    let fraction = fraction.trim_end_matches('0');
    // More digits than that mean nothing to anyone, and would overflow below.
    if whole.is_empty() || whole.len() > 20 || fraction.len() > 12 {
        return None;
    }
    let digits = format!("{whole}{fraction}").parse().ok()?;
    Some(((digits, u32::try_from(fraction.len()).ok()?), rest))
}

/// Gives a quantity its notation in JSON and on the command line.
macro_rules! notation {
    ($quantity:ident, $error:ident) => {
        impl TryFrom<String> for $quantity {
            type Error = $error;

            fn try_from(text: String) -> Result<Self, $error> {
                text.parse()
            }
        }

        impl From<$quantity> for String {
            fn from(quantity: $quantity) -> Self {
                quantity.to_string()
            }
        }
    };
}
use notation;
