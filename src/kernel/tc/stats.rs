//! Reads the counters of qdiscs, classes and actions (`include/uapi/linux/gen_stats.h`).

use rtnetlink::packet_core::Nla;
use rtnetlink::packet_route::tc::{TcAttribute, TcMessage, TcStats2, TcStatsQueue};

use crate::{
    kernel::bytes::{first, read_u64, value},
    plan::Tally,
};

/// The 64-bit number of packets. `TCA_STATS_BASIC` has 32 bits.
const TCA_STATS_PKT64: u16 = 8;

/// The counters of a qdisc or class.
pub(super) fn of(message: &TcMessage) -> &[TcStats2] {
    first!(message.attributes, TcAttribute::Stats2(stats) => stats.as_slice()).unwrap_or_default()
}

/// The counted packets and bytes.
pub(super) fn tally(stats: &[TcStats2]) -> Tally {
    let mut tally = Tally::default();
    for stat in stats {
        match stat {
            TcStats2::Basic(basic) => {
                tally.bytes = basic.bytes;
                tally.packets = tally.packets.max(basic.packets.into());
            }
            TcStats2::Other(nla) if nla.kind() == TCA_STATS_PKT64 => {
                tally.packets = read_u64(&value(nla)).unwrap_or(tally.packets);
            }
            _ => {}
        }
    }
    tally
}

/// The state of the object's queue, if the counters have it.
pub(super) fn queue(stats: &[TcStats2]) -> Option<&TcStatsQueue> {
    first!(stats, TcStats2::Queue(queue) => queue)
}
