//! Makes the refusal of a packet: a TCP reset, or an ICMP error "communication administratively prohibited".
//!
//! RFC 9293 section 3.10.7.1 defines the reset. RFC 1812 section 5.2.7.1 and RFC 4443 section 3.1 define the ICMP
//! error. Linux reports this ICMP code to the application at once, also on UDP sockets. Most other codes of
//! "destination unreachable" are only soft errors (`icmp_err_convert` of `net/ipv4/icmp.c`).

use std::net::IpAddr;

use etherparse::{
    EtherType, Icmpv4Type, Icmpv6Type, IpNumber, Ipv6ExtensionSlice, Ipv6ExtensionsSlice, LaxIpSlice, LaxSlicedPacket,
    PacketBuilder, TcpHeader, TcpHeaderSlice, icmpv4, icmpv6,
};

/// The maximum quote in an ICMP error, in bytes. The error has at most 576 bytes (RFC 1812 section 4.3.2.3).
const QUOTE_V4: usize = 576 - 20 - 8;
/// The maximum quote in an `ICMPv6` error, in bytes. The error has at most 1,280 bytes (RFC 4443 section 2.4).
const QUOTE_V6: usize = 1280 - 40 - 8;

/// The ICMP types of requests and replies. Other types get no answer: errors about errors are forbidden (RFC 1122
/// section 3.2.2).
const ICMP_QUERIES: [u8; 10] = [0, 8, 9, 10, 13, 14, 15, 16, 17, 18];
/// The lowest `ICMPv6` type that is not an error. Neighbour discovery needs no exception, because it is never cut.
const ICMPV6_QUERIES: u8 = 128;

const TTL: u8 = 64;

/// The answer to a packet, with its IP header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::kernel) struct Refusal {
    /// The sender of the packet.
    pub(in crate::kernel) to: IpAddr,
    /// The answer. Its source is the packet's destination.
    pub(in crate::kernel) packet: Vec<u8>,
}

/// The answer to a packet. `frame` is the beginning of the packet, link-layer header first.
///
/// These packets get no answer: TCP resets, ICMP errors, fragments after the first, unreadable packets, and packets
/// with a multicast, broadcast or unspecified address.
pub(in crate::kernel) fn refuse(frame: &[u8]) -> Option<Refusal> {
    let packet = ip_packet(frame);
    let (ip, None) = LaxIpSlice::from_slice(packet).ok()? else { return None };
    let (source, destination) = (ip.source_addr(), ip.destination_addr());
    if !is_one_host(source) || !is_one_host(destination) {
        return None;
    }
    let (total, is_later_fragment) = match &ip {
        LaxIpSlice::Ipv4(v4) => (v4.header().total_len().into(), v4.header().fragments_offset().value() > 0),
        LaxIpSlice::Ipv6(v6) => (40 + usize::from(v6.header().payload_length()), is_later_fragment(v6.extensions())),
    };
    if is_later_fragment {
        return None;
    }
    let (protocol, payload) = (ip.payload().ip_number, ip.payload().payload);
    let sampled = packet.get(..total).unwrap_or(packet);
    let mut answer = Vec::new();
    let builder = match (destination, source) {
        (IpAddr::V4(from), IpAddr::V4(to)) => PacketBuilder::ipv4(from.octets(), to.octets(), TTL),
        (IpAddr::V6(from), IpAddr::V6(to)) => PacketBuilder::ipv6(from.octets(), to.octets(), TTL),
        _ => return None,
    };
    let quote = |most: usize| sampled.get(..most).unwrap_or(sampled);
    let written = match (protocol, source.is_ipv4()) {
        (IpNumber::TCP, _) => {
            let headers = sampled.len().checked_sub(payload.len())?;
            builder.tcp_header(reset(payload, total.checked_sub(headers)?)?).write(&mut answer, &[])
        }
        (IpNumber::ICMP, true) if !ICMP_QUERIES.contains(payload.first()?) => return None,
        (IpNumber::IPV6_ICMP, false) if *payload.first()? < ICMPV6_QUERIES => return None,
        (_, true) => {
            let prohibited = icmpv4::DestUnreachableHeader::FilterProhibited;
            builder.icmpv4(Icmpv4Type::DestinationUnreachable(prohibited)).write(&mut answer, quote(QUOTE_V4))
        }
        (_, false) => {
            let prohibited = icmpv6::DestUnreachableCode::Prohibited;
            builder.icmpv6(Icmpv6Type::DestinationUnreachable(prohibited)).write(&mut answer, quote(QUOTE_V6))
        }
    };
    written.ok().map(|()| Refusal { to: source, packet: answer })
}

/// The IP packet of a frame. The frame has an Ethernet header, with or without VLAN tags, or no link-layer header.
fn ip_packet(frame: &[u8]) -> &[u8] {
    let ethernet = LaxSlicedPacket::from_ethernet(frame).ok().and_then(|packet| packet.ether_payload());
    match ethernet {
        Some(ethernet) if [EtherType::IPV4, EtherType::IPV6].contains(&ethernet.ether_type) => ethernet.payload,
        _ => frame,
    }
}

fn is_one_host(address: IpAddr) -> bool {
    let is_broadcast = matches!(address, IpAddr::V4(v4) if v4.is_broadcast());
    !address.is_unspecified() && !address.is_multicast() && !is_broadcast
}

fn is_later_fragment(extensions: &Ipv6ExtensionsSlice<'_>) -> bool {
    extensions.clone().into_iter().any(|extension| match extension {
        Ipv6ExtensionSlice::Fragment(fragment) => fragment.fragment_offset().value() > 0,
        _ => false,
    })
}

/// The reset that a closed port sends for a segment of `length` bytes. `sample` may be only the start of the segment.
fn reset(sample: &[u8], length: usize) -> Option<TcpHeader> {
    let segment = TcpHeaderSlice::from_slice(sample).ok()?;
    if segment.rst() {
        return None;
    }
    let mut reset = TcpHeader::new(segment.destination_port(), segment.source_port(), 0, 0);
    reset.rst = true;
    if segment.ack() {
        reset.sequence_number = segment.acknowledgment_number();
    } else {
        let data = u32::try_from(length.saturating_sub(segment.slice().len())).ok()?;
        let taken = data + u32::from(segment.syn()) + u32::from(segment.fin());
        reset.ack = true;
        reset.acknowledgment_number = segment.sequence_number().wrapping_add(taken);
    }
    Some(reset)
}

#[cfg(test)]
mod tests {
    use etherparse::checksum::Sum16BitWords;
    use proptest::prelude::*;

    use super::*;

    const ETHERNET: usize = 14;
    const V4_HEADER: usize = 20;
    const V6_HEADER: usize = 40;

    const ICMP: u8 = 1;
    const TCP: u8 = 6;
    const ICMPV6: u8 = 58;

    const FIN: u8 = 1;
    const SYN: u8 = 2;
    const RST: u8 = 4;
    const ACK: u8 = 16;

    fn half(bytes: &[u8], at: usize) -> u16 {
        u16::from_be_bytes(bytes[at..at + 2].try_into().unwrap())
    }

    fn word(bytes: &[u8], at: usize) -> u32 {
        u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap())
    }

    /// The internet checksum (RFC 1071) of bytes that contain their checksum.
    fn checksum(parts: &[&[u8]]) -> u16 {
        Sum16BitWords::new().add_slice(&parts.concat()).ones_complement()
    }

    /// A frame with an IP packet of this protocol and payload, from node 1 to node 2.
    fn frame(is_v4: bool, protocol: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![2; 12];
        if is_v4 {
            let total = u16::try_from(V4_HEADER + payload.len()).unwrap().to_be_bytes();
            frame.extend([0x08, 0x00]);
            frame.extend([0x45, 0, total[0], total[1], 0, 7, 0, 0, 9, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        } else {
            let length = u16::try_from(payload.len()).unwrap().to_be_bytes();
            frame.extend([0x86, 0xdd]);
            frame.extend([0x60, 0, 0, 0, length[0], length[1], protocol, 9]);
            for node in [1, 2] {
                frame.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, node]);
            }
        }
        frame.extend(payload);
        frame
    }

    /// A TCP segment from port 5000 to port 26257.
    fn segment(sequence: u32, acknowledgement: u32, flags: u8, data: usize) -> Vec<u8> {
        let mut segment = vec![0x13, 0x88, 0x66, 0x91];
        segment.extend(sequence.to_be_bytes());
        segment.extend(acknowledgement.to_be_bytes());
        segment.extend([5 << 4, flags, 1, 0, 0, 0, 0, 0]);
        segment.extend(vec![0xda; data]);
        segment
    }

    fn header(is_v4: bool) -> usize {
        if is_v4 { V4_HEADER } else { V6_HEADER }
    }

    /// Checks the IP header and the checksums of an answer. Returns the protocol and the message.
    #[track_caller]
    fn message(is_v4: bool, refusal: &Refusal) -> (u8, Vec<u8>) {
        let Refusal { to, packet } = refusal;
        let (header, message) = packet.split_at(header(is_v4));
        let protocol = header[if is_v4 { 9 } else { 6 }];
        let addresses = if is_v4 { &header[12..] } else { &header[8..] };
        let length = u16::try_from(message.len()).unwrap().to_be_bytes();
        if is_v4 {
            assert_eq!(to.to_string(), "10.0.0.1");
            assert_eq!(addresses, [10, 0, 0, 2, 10, 0, 0, 1]);
            assert_eq!(usize::from(half(header, 2)), packet.len());
            assert_eq!(checksum(&[header]), 0, "the header's checksum");
        } else {
            assert_eq!(to.to_string(), "fd00::1");
            assert_eq!((addresses[15], addresses[31]), (2, 1));
            assert_eq!(usize::from(half(header, 4)), message.len());
        }
        let pseudo = if protocol == ICMP { vec![] } else { [addresses, &length, &[0, protocol]].concat() };
        assert_eq!(checksum(&[&pseudo, message]), 0, "the message's checksum");
        (protocol, message.to_vec())
    }

    #[track_caller]
    fn reset_of(is_v4: bool, segment: &[u8]) -> (u32, u32, u8) {
        let (protocol, reset) = message(is_v4, &refuse(&frame(is_v4, TCP, segment)).unwrap());
        assert_eq!((protocol, reset.len()), (TCP, 20));
        assert_eq!(reset[..4], [0x66, 0x91, 0x13, 0x88], "the ports are swapped");
        (word(&reset, 4), word(&reset, 8), reset[13])
    }

    #[test]
    fn the_reset_of_an_acknowledging_segment_has_the_acknowledged_sequence_number() {
        for is_v4 in [true, false] {
            assert_eq!(reset_of(is_v4, &segment(1_000, 77, ACK, 500)), (77, 0, RST));
            assert_eq!(reset_of(is_v4, &segment(1_000, 77, SYN | ACK, 0)), (77, 0, RST));
            assert_eq!(reset_of(is_v4, &segment(1_000, 77, FIN | ACK, 0)), (77, 0, RST));
        }
    }

    #[test]
    fn the_reset_of_a_segment_without_acknowledgement_acknowledges_its_length() {
        for is_v4 in [true, false] {
            assert_eq!(reset_of(is_v4, &segment(1_000, 0, SYN, 0)), (0, 1_001, RST | ACK));
            // TCP Fast Open.
            assert_eq!(reset_of(is_v4, &segment(u32::MAX, 0, SYN, 100)), (0, 100, RST | ACK));
            assert_eq!(reset_of(is_v4, &segment(1_000, 0, FIN, 10)), (0, 1_011, RST | ACK));
        }
    }

    #[test]
    fn the_length_of_a_segment_includes_data_beyond_the_sample() {
        for is_v4 in [true, false] {
            let mut sample = frame(is_v4, TCP, &segment(1_000, 0, FIN, 1_400));
            sample.truncate(ETHERNET + header(is_v4) + 20);
            let (_, reset) = message(is_v4, &refuse(&sample).unwrap());
            assert_eq!(word(&reset, 8), 2_401);
        }
    }

    #[test]
    fn other_packets_get_an_icmp_error_with_the_longest_quote() {
        for (is_v4, protocol, most) in [(true, ICMP, 548), (false, ICMPV6, 1_232)] {
            for length in [8, 100, 3_000] {
                let udp = frame(is_v4, 17, &vec![7; length]);
                let refusal = refuse(&udp[..udp.len().min(1_280)]).unwrap();
                let (answered, error) = message(is_v4, &refusal);
                assert_eq!(answered, protocol);
                assert_eq!(error[..2], if is_v4 { [3, 13] } else { [1, 1] });
                assert_eq!(error[4..8], [0; 4]);
                let packet = &udp[ETHERNET..];
                assert_eq!(error[8..], packet[..packet.len().min(most)]);
            }
        }
        // SCTP packets get an ICMP error too.
        assert_eq!(message(true, &refuse(&frame(true, 132, &[0; 12])).unwrap()).0, ICMP);
    }

    #[test]
    fn icmp_queries_get_an_answer_and_errors_get_none() {
        for kind in 0..=u8::MAX {
            let is_answered = |is_v4, protocol| refuse(&frame(is_v4, protocol, &[kind, 0, 0, 0, 0, 0, 0, 0])).is_some();
            assert_eq!(is_answered(true, ICMP), [0, 8, 9, 10, 13, 14, 15, 16, 17, 18].contains(&kind), "{kind}");
            assert_eq!(is_answered(false, ICMPV6), kind >= 128, "{kind}");
        }
        for is_v4 in [true, false] {
            for flags in [RST, RST | ACK] {
                assert_eq!(refuse(&frame(is_v4, TCP, &segment(1, 2, flags, 0))), None);
            }
        }
    }

    #[test]
    fn an_answer_gets_no_answer() {
        for (is_v4, protocol) in [(true, 17), (true, TCP), (false, 17), (false, TCP)] {
            let answer = refuse(&frame(is_v4, protocol, &segment(1, 2, ACK, 0))).unwrap();
            assert_eq!(refuse(&answer.packet), None);
        }
    }

    #[test]
    fn only_the_first_fragment_gets_an_answer() {
        let mut v4 = frame(true, 17, &[0; 64]);
        v4[ETHERNET + 6] = 0x20;
        assert!(refuse(&v4).is_some());
        v4[ETHERNET + 7] = 1;
        assert_eq!(refuse(&v4), None);

        let fragment = |offset: u8| frame(false, 44, &[[17, 0, 0, offset, 0, 0, 0, 1].as_slice(), &[0; 64]].concat());
        assert!(refuse(&fragment(1)).is_some());
        assert_eq!(refuse(&fragment(8)), None);
    }

    #[test]
    fn a_segment_behind_extension_headers_is_found() {
        let hop_by_hop_and_options = [60, 0, 1, 4, 0, 0, 0, 0, TCP, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let behind = [&hop_by_hop_and_options, segment(1_000, 0, SYN, 5).as_slice()].concat();
        let (protocol, reset) = message(false, &refuse(&frame(false, 0, &behind)).unwrap());
        assert_eq!((protocol, word(&reset, 8)), (TCP, 1_006));
    }

    #[test]
    fn a_packet_is_found_behind_vlan_tags_and_without_a_link_layer_header() {
        let plain = frame(true, TCP, &segment(1_000, 0, SYN, 0));
        let tag = [0x81, 0, 0, 7];
        let tagged = [&plain[..12], &tag, &tag, &plain[12..]].concat();
        let expected = refuse(&plain);
        assert!(expected.is_some());
        assert_eq!(refuse(&tagged), expected);
        assert_eq!(refuse(&plain[ETHERNET..]), expected);
    }

    #[test]
    fn only_single_hosts_get_an_answer() {
        for (at, address) in [(12, [224, 0, 0, 1]), (12, [0; 4]), (16, [255; 4]), (16, [239, 1, 2, 3])] {
            let mut frame = frame(true, 17, &[0; 8]);
            frame[ETHERNET + at..ETHERNET + at + 4].copy_from_slice(&address);
            assert_eq!(refuse(&frame), None);
        }
    }

    proptest! {
        #[test]
        fn no_sample_makes_refuse_panic(
            bytes in prop::collection::vec(any::<u8>(), 0..120),
            (is_v4, protocol) in (any::<bool>(), prop::sample::select(vec![TCP, ICMP, ICMPV6, 17, 0, 43, 44, 60])),
            length in 0..200_usize,
        ) {
            refuse(&bytes);
            let mut frame = frame(is_v4, protocol, &bytes);
            frame.truncate(length);
            refuse(&frame);
        }

        #[test]
        fn an_answer_has_at_most_576_bytes_for_ipv4_and_1280_bytes_for_ipv6(
            payload in prop::collection::vec(any::<u8>(), 0..1_300),
            (is_v4, protocol) in (any::<bool>(), any::<u8>()),
        ) {
            if let Some(refusal) = refuse(&frame(is_v4, protocol, &payload)) {
                let most = if is_v4 { 576 } else { 1_280 };
                prop_assert!(refusal.packet.len() <= most);
                message(is_v4, &refusal);
            }
        }
    }
}
