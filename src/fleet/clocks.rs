//! Computes the offset of a node's clock from the times of a call, as in NTP (RFC 5905, section 8).

use std::collections::BTreeMap;

use super::Answers;
use crate::{plan::Moment, topology::NodeName, wire::ClockReading};

/// This machine's clock at the request and at the answer of a call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Exchange {
    pub(super) sent: Moment,
    pub(super) received: Moment,
}

impl Exchange {
    /// The nanoseconds by which the node's clock is ahead of this machine's clock; 0: both clocks may agree, or a clock
    /// was set during the call.
    ///
    /// The node reads its clock after the request is sent, and again before the answer arrives. The first reading gives
    /// an upper bound of the offset, the second reading a lower bound. If 0 is outside the bounds, the result is the
    /// middle of the bounds.
    fn clock_ahead(self, reading: ClockReading) -> i64 {
        let least = difference(reading.answered, self.received);
        let most = difference(reading.asked, self.sent);
        // If a clock is set during the call, the lower bound may be above the upper bound.
        if least > most || (least <= 0 && most >= 0) { 0 } else { least.midpoint(most) }
    }
}

/// `one` minus `other` in nanoseconds, limited to the range of `i64`.
fn difference(one: Moment, other: Moment) -> i64 {
    let nanos = i128::from(one.as_nanos()) - i128::from(other.as_nanos());
    i64::try_from(nanos).unwrap_or(if nanos < 0 { i64::MIN } else { i64::MAX })
}

/// The nanoseconds by which a node's clock is ahead of this machine's clock. Has only nodes whose clock certainly
/// differs.
pub(super) fn ahead<T>(
    answers: &Answers<T>,
    exchanges: &BTreeMap<NodeName, Exchange>,
    reading: impl Fn(&T) -> Option<ClockReading>,
) -> BTreeMap<NodeName, i64> {
    let ahead = |(node, answer): (&NodeName, &Result<T, _>)| {
        let (reading, exchange) = (reading(answer.as_ref().ok()?)?, exchanges.get(node)?);
        Some((node.clone(), exchange.clock_ahead(reading))).filter(|(_, ahead)| *ahead != 0)
    };
    answers.iter().filter_map(ahead).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The measured offset of a clock that is `milliseconds` ahead. The one-way delays are `there` and `back`, in ms.
    fn ahead(milliseconds: i64, there: u64, back: u64) -> i64 {
        let at = |time: u64| Moment::from_nanos(1_800_000_000_000_000_000 + time * 1_000_000);
        let by_node = |time: u64| at(time).on_clock_behind_by(-milliseconds * 1_000_000);
        let exchange = Exchange { sent: at(0), received: at(there + 700 + back) };
        exchange.clock_ahead(ClockReading { asked: by_node(there), answered: by_node(there + 700) })
    }

    #[test]
    fn a_clock_offset_is_reported_only_if_no_network_delay_explains_it() {
        for off in [-4_800, -20, 20, 4_800] {
            assert_eq!(ahead(off, 5, 5), off * 1_000_000);
            for (there, back) in [(0, 10), (10, 0)] {
                assert!((ahead(off, there, back) - off * 1_000_000).abs() <= 5_000_000);
            }
        }
        for (off, there, back) in [(0, 5, 5), (0, 0, 300), (9, 0, 10), (-9, 10, 0)] {
            assert_eq!(ahead(off, there, back), 0, "{off} ms, {there} ms there, {back} ms back");
        }
    }

    #[test]
    fn a_clock_that_is_set_during_the_call_gives_no_offset() {
        let at = Moment::from_nanos;
        let exchange = Exchange { sent: at(100), received: at(200) };
        assert_eq!(exchange.clock_ahead(ClockReading { asked: at(110), answered: at(900) }), 0);
        let reading = ClockReading { asked: at(u64::MAX), answered: at(u64::MAX) };
        assert_eq!(exchange.clock_ahead(reading), i64::MAX);
    }
}
