//! The kernel's counters of an object (`include/uapi/linux/gen_stats.h`).

use rtnetlink::packet_core::Nla;
use rtnetlink::packet_route::tc::{TcAttribute, TcMessage, TcStats2, TcStatsQueue};

use crate::plan::Tally;

/// All packets, where the number of `TCA_STATS_BASIC` has too few bits.
const TCA_STATS_PKT64: u16 = 8;

/// The counters of a qdisc or class.
pub(super) fn of(message: &TcMessage) -> &[TcStats2] {
    let stats = message.attributes.iter().find_map(|attribute| match attribute {
        TcAttribute::Stats2(stats) => Some(stats.as_slice()),
        _ => None,
    });
    stats.unwrap_or_default()
}

/// The packets that went through.
pub(super) fn tally(stats: &[TcStats2]) -> Tally {
    let mut tally = Tally::default();
    for stat in stats {
        match stat {
            TcStats2::Basic(basic) => {
                tally.bytes = basic.bytes;
                tally.packets = tally.packets.max(basic.packets.into());
            }
            TcStats2::Other(nla) if nla.kind() == TCA_STATS_PKT64 && nla.value_len() == 8 => {
                let mut packets = [0; 8];
                nla.emit_value(&mut packets);
                tally.packets = u64::from_ne_bytes(packets);
            }
            _ => {}
        }
    }
    tally
}

/// The state of a queue.
pub(super) fn queue(stats: &[TcStats2]) -> Option<&TcStatsQueue> {
    stats.iter().find_map(|stat| match stat {
        TcStats2::Queue(queue) => Some(queue),
        _ => None,
    })
}
