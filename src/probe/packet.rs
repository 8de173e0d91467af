//! Encodes and decodes ICMP and `ICMPv6` echo messages (RFC 792, RFC 4443 section 4).

use std::net::{IpAddr, Ipv6Addr};

use etherparse::checksum::Sum16BitWords;

/// The payload that identifies a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    /// The number of the measurement.
    pub(super) run: u64,
    /// The number of the request in the measurement.
    pub(super) request: u32,
    /// The time of sending by the sender's clock, in nanoseconds since 1970.
    pub(super) sent_ns: u64,
}

impl Mark {
    /// The mark at the start of these bytes.
    fn at_start(bytes: &[u8]) -> Option<Self> {
        let (run, rest) = bytes.split_first_chunk()?;
        let (request, rest) = rest.split_first_chunk()?;
        let [run, sent_ns] = [run, rest.first_chunk()?].map(|bytes| u64::from_be_bytes(*bytes));
        Some(Self { run, request: u32::from_be_bytes(*request), sent_ns })
    }
}

/// The length of a mark.
const MARK: usize = 20;

const ECHO_REQUEST: u8 = 8;
const ECHO_REPLY: u8 = 0;
const ECHO_REQUEST_V6: u8 = 128;
const ECHO_REPLY_V6: u8 = 129;
const HEADER: usize = 8;
const IPV6_HEADER: usize = 40;
const ICMPV6: u8 = 58;

/// An echo request to `target`, 28 bytes, with the mark as its payload.
pub(super) fn request(target: IpAddr, mark: Mark) -> Vec<u8> {
    let kind = if target.is_ipv4() { ECHO_REQUEST } else { ECHO_REQUEST_V6 };
    // Type, code, checksum, identifier, sequence number. The identifier and the sequence number are too short to
    // identify a request.
    let mut packet = vec![kind, 0, 0, 0, 0, 0, 0, 0];
    packet.extend(mark.run.to_be_bytes());
    packet.extend(mark.request.to_be_bytes());
    packet.extend(mark.sent_ns.to_be_bytes());
    // The checksum of ICMPv6 includes the source address, so the kernel computes this checksum (RFC 3542 section 3.1).
    if target.is_ipv4() {
        let checksum = checksum(&packet);
        packet[2..4].copy_from_slice(&checksum.to_be_bytes());
    }
    packet
}

/// The mark of a sent request, at the end of the packet.
pub(super) fn mark_of_sent(packet: &[u8]) -> Option<Mark> {
    Mark::at_start(packet.last_chunk::<MARK>()?)
}

/// The kind of an echo message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// An echo request.
    Request,
    /// An echo reply.
    Reply,
}

/// The kind and the mark of an echo message; `None`: another packet, or flipped bits.
///
/// A raw IPv4 socket passes packets with their IP header, and does not check the ICMP checksum (raw(7)). An IPv6 socket
/// passes packets without their IP header, and checks the checksum (ipv6(7)).
pub(super) fn echo(packet: &[u8], is_v4: bool) -> Option<(Kind, Mark)> {
    let message = if is_v4 { packet.get(4 * usize::from(packet.first()? & 0xf)..)? } else { packet };
    let kind = match (*message.first()?, is_v4) {
        (ECHO_REQUEST, true) | (ECHO_REQUEST_V6, false) => Kind::Request,
        (ECHO_REPLY, true) | (ECHO_REPLY_V6, false) => Kind::Reply,
        _ => return None,
    };
    if is_v4 && checksum(message) != 0 {
        return None;
    }
    Some((kind, Mark::at_start(message.get(HEADER..)?)?))
}

/// An echo message that arrived at an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Arrived {
    pub(super) kind: Kind,
    pub(super) mark: Mark,
    /// The source and the destination.
    pub(super) ends: (IpAddr, IpAddr),
}

/// Reads an echo message with its IP header; `None`: another packet, or flipped bits.
pub(super) fn arrived(packet: &[u8], is_v4: bool) -> Option<Arrived> {
    let length = |at: usize| Some(usize::from(u16::from_be_bytes(*packet.get(at..)?.first_chunk()?)));
    if is_v4 {
        // Short Ethernet frames have padding after the IP packet.
        let packet = packet.get(..length(2)?)?;
        let header = packet.get(..4 * usize::from(packet.first()? & 0xf))?;
        let (kind, mark) = echo(packet, true).filter(|_| checksum(header) == 0)?;
        return Some(Arrived { kind, mark, ends: ends(packet)? });
    }
    let (header, message) = packet.split_at_checked(IPV6_HEADER)?;
    let message = message.get(..length(4)?)?;
    let (source, rest) = header.get(8..)?.split_first_chunk::<16>()?;
    let destination = rest.first_chunk::<16>()?;
    // The pseudo header (RFC 8200 section 8.1): both addresses, the length, the protocol.
    let mut sum = [&source[..], destination, &[0, 0]].concat();
    sum.extend([header[4], header[5], 0, 0, 0, ICMPV6]);
    sum.extend(message);
    let is_whole = header[6] == ICMPV6 && checksum(&sum) == 0;
    let (kind, mark) = echo(message, false).filter(|_| is_whole)?;
    Some(Arrived { kind, mark, ends: (Ipv6Addr::from(*source).into(), Ipv6Addr::from(*destination).into()) })
}

/// The source and the destination in an IPv4 header (RFC 791).
pub(super) fn ends(packet: &[u8]) -> Option<(IpAddr, IpAddr)> {
    let (source, rest) = packet.get(12..)?.split_first_chunk::<4>()?;
    Some((IpAddr::from(*source), IpAddr::from(*rest.first_chunk::<4>()?)))
}

/// The internet checksum (RFC 1071).
fn checksum(bytes: &[u8]) -> u16 {
    Sum16BitWords::new().add_slice(bytes).ones_complement().to_be()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_request_has_a_valid_checksum() {
        let packet = request("192.0.2.1".parse().unwrap(), Mark { run: 0xdead_beef_0123_4567, request: 7, sent_ns: 8 });
        assert_eq!(checksum(&packet), 0);
    }

    proptest! {
        #[test]
        fn a_reply_carries_the_mark_of_its_request(run: u64, number: u32, sent_ns: u64, is_v4: bool) {
            let target: IpAddr = if is_v4 { "192.0.2.1" } else { "2001:db8::1" }.parse().unwrap();
            let mark = Mark { run, request: number, sent_ns };
            let sent = request(target, mark);
            prop_assert_eq!(mark_of_sent(&sent), Some(mark));
            let mut answer = sent.clone();
            answer[0] = if is_v4 { ECHO_REPLY } else { ECHO_REPLY_V6 };
            if is_v4 {
                answer[2..4].fill(0);
                let sum = checksum(&answer);
                answer[2..4].copy_from_slice(&sum.to_be_bytes());
            }
            for (kind, message) in [(Kind::Request, sent), (Kind::Reply, answer)] {
                let mut received = if is_v4 { vec![0x45; 20] } else { Vec::new() };
                received.extend(message);
                prop_assert_eq!(echo(&received, is_v4), Some((kind, mark)));
                if is_v4 {
                    *received.last_mut().unwrap() ^= 1;
                    prop_assert_eq!(echo(&received, is_v4), None);
                }
            }
        }

        #[test]
        fn a_packet_with_padding_is_decoded_and_a_packet_with_a_flipped_bit_is_not(
            run: u64,
            number: u32,
            sent_ns: u64,
            source: [u8; 16],
            flipped in 0..62_usize,
            padding in 0..9_usize,
        ) {
            let mark = Mark { run, request: number, sent_ns };
            // IPv4: the header has 20 bytes, with its checksum in bytes 10 and 11.
            let v4 = |last| IpAddr::from([192, 0, 2, last]);
            let mut packet = vec![0x45, 0, 0, 48, 0, 0, 0, 0, 64, 1, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2];
            let sum = checksum(&packet);
            packet[10..12].copy_from_slice(&sum.to_be_bytes());
            packet.extend(request(v4(2), mark));
            let expected = Arrived { kind: Kind::Request, mark, ends: (v4(1), v4(2)) };
            let padded = [&packet[..], &vec![0; padding]].concat();
            prop_assert_eq!(arrived(&padded, true), Some(expected));
            packet[flipped % 48] ^= 0x10;
            prop_assert_eq!(arrived(&packet, true), None);

            // IPv6: the checksum is in the message and covers the addresses.
            let mut packet = vec![0x60, 0, 0, 0, 0, 28, 58, 64];
            let destination = [0xfd; 16];
            packet.extend(source.iter().chain(&destination));
            let mut message = request(IpAddr::from(destination), mark);
            let pseudo = [&source[..], &destination, &[0, 0, 0, 28, 0, 0, 0, 58], &message].concat();
            message[2..4].copy_from_slice(&checksum(&pseudo).to_be_bytes());
            packet.extend(message);
            let expected = Arrived { kind: Kind::Request, mark, ends: (source.into(), destination.into()) };
            let padded = [&packet[..], &vec![0; padding]].concat();
            prop_assert_eq!(arrived(&padded, false), Some(expected));
            packet[8 + flipped % 60] ^= 0x10;
            prop_assert_eq!(arrived(&packet, false), None);
        }

        #[test]
        fn no_packet_makes_the_decoder_panic(packet in proptest::collection::vec(any::<u8>(), 0..80), is_v4: bool) {
            echo(&packet, is_v4);
            arrived(&packet, is_v4);
            ends(&packet);
            mark_of_sent(&packet);
        }
    }
}
