//! Quantities with the bounds of a link parameter, such as [`OneWayDelay`] and [`Correlation`].

use super::{
    Decimal, Notation, Quantity, QuantityMistake,
    probability::Probability,
    time::{Delay, NOTATION, Rtt},
};

fn at_most<T: Quantity + Ord + Copy>(max: T, decimal: Decimal) -> Result<T, QuantityMistake> {
    T::from_decimal(decimal).and_then(|value| if value > max { Err(QuantityMistake::OutOfRange) } else { Ok(value) })
}

/// The one-way delay of a link, at most [`Delay::MAX`].
pub(in super::super) struct OneWayDelay(pub(in super::super) Delay);

impl Quantity for OneWayDelay {
    const NOTATION: Notation =
        Notation { range: "0ms and 60s", range_help: "a link delays packets by at most 60s one way", ..NOTATION };

    fn from_decimal(decimal: Decimal) -> Result<Self, QuantityMistake> {
        at_most(Delay::MAX, decimal).map(Self)
    }
}

/// Half of a round-trip time: the one-way delay of both directions.
///
/// An RTT with an odd number of nanoseconds is an error: it has no exact half.
pub(in super::super) struct HalfRtt(pub(in super::super) Delay);

impl Quantity for HalfRtt {
    const NOTATION: Notation = Notation {
        range: "0ms and 120s",
        range_help: "a link delays packets by at most 60s one way, which is an RTT of 120s",
        too_precise: "is not an even number of nanoseconds",
        precision_help: "each direction gets half of the RTT, in whole nanoseconds",
        ..NOTATION
    };

    fn from_decimal(decimal: Decimal) -> Result<Self, QuantityMistake> {
        let rtt: Rtt = at_most(Rtt::MAX, decimal)?;
        rtt.exact_half().map(Self).ok_or(QuantityMistake::TooPrecise)
    }
}

/// A jitter or the spacing of slots. The kernel keeps 31 bits of nanoseconds (`netem_change`, `get_slot`).
pub(in super::super) struct ShortTime(pub(in super::super) Delay);

impl ShortTime {
    pub(in super::super) const MAX: Delay = Delay::from_nanos(i32::MAX as u64);
}

impl Quantity for ShortTime {
    const NOTATION: Notation =
        Notation { range: "0ms and 2.147483647s", range_help: "the kernel keeps 31 bits of nanoseconds", ..NOTATION };

    fn from_decimal(decimal: Decimal) -> Result<Self, QuantityMistake> {
        at_most(Self::MAX, decimal).map(Self)
    }
}

/// A correlation, less than 100 %. At 100 % the kernel would repeat its first random number for ever.
pub(in super::super) struct Correlation(pub(in super::super) Probability);

impl Quantity for Correlation {
    const NOTATION: Notation = Notation {
        range: "0% and 99.9999999%",
        range_help: "at 100% all packets would be treated like the first one",
        ..Probability::NOTATION
    };

    fn from_decimal(decimal: Decimal) -> Result<Self, QuantityMistake> {
        at_most(Probability::from_parts(u32::MAX - 1), decimal).map(Self)
    }
}
