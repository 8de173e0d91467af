//! Fuzz targets for the decoders of netlink messages.

use rtnetlink::{packet_core::NetlinkPayload, packet_route::RouteNetlinkMessage};

use super::{
    host, links,
    observe::{Classes, Filters, Qdiscs, tree},
    refuse::packet::refuse,
    samples,
    socket::{refusal, split},
    tc::{Request, filter::Filter},
};
use crate::plan::diff;

/// The interface index in encoded filters.
const INDEX: u32 = 7;

/// Decodes a datagram of route messages. A filter that is decoded and encoded must decode to the same filter.
pub(crate) fn route(bytes: &[u8]) {
    let Ok(interface) = "eth0".parse() else { return };
    let (mut qdiscs, mut classes, mut filters) = (Qdiscs::default(), Classes::default(), Filters::default());
    for message in split(bytes) {
        let Ok(message) = message else { return };
        let inner = match message.payload {
            NetlinkPayload::InnerMessage(inner) => inner,
            NetlinkPayload::Error(ack) => {
                drop(refusal(-1, &ack.header));
                continue;
            }
            _ => continue,
        };
        drop(links::not_up(&inner));
        drop(host::decode([inner.clone()]));
        match inner {
            RouteNetlinkMessage::NewQueueDiscipline(message) => qdiscs.add(message),
            RouteNetlinkMessage::NewTrafficClass(message) => classes.add(&message, &interface),
            inner => {
                if let RouteNetlinkMessage::NewTrafficFilter(message) = &inner
                    && let Some(filter) = Filter::decode(message)
                {
                    let again = read_back(&filter.add(INDEX));
                    assert_eq!(again, Some(filter), "a decoded filter is encoded to the same filter");
                }
                filters.add(&inner, &interface);
            }
        }
    }
    let tree = tree(qdiscs, classes, filters, &interface);
    drop(tree.remaining(&interface));
    if let Some(shaping) = tree.shaping() {
        drop(diff(Some(&shaping), &tree));
    }
    drop(diff(None, &tree));
}

fn read_back(request: &Request) -> Option<Filter> {
    split(&request.to_bytes(0)).find_map(|message| match message.ok()?.payload {
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewTrafficFilter(message)) => Filter::decode(&message),
        _ => None,
    })
}

/// Decodes a datagram as a description of the `psample` family, and as a sample. Makes the refusal of the sampled
/// packet.
pub(crate) fn sample(bytes: &[u8]) {
    let _group = samples::family(bytes);
    let kind = bytes.get(4..6).map_or(0, |kind| u16::from_ne_bytes([kind[0], kind[1]]));
    if let Some(sample) = samples::sample(bytes, kind)
        && let Some(answer) = refuse(&sample.frame)
    {
        assert!(answer.packet.len() <= 1280, "an answer fits the minimum MTU of IPv6");
        // An answer to an answer would start an endless exchange.
        let ethertype: [u8; 2] = if answer.to.is_ipv4() { [0x08, 0x00] } else { [0x86, 0xdd] };
        let ethernet = [&[0; 12][..], &ethertype, &answer.packet].concat();
        assert_eq!(refuse(&ethernet), None, "an answer gets no answer");
    }
}
