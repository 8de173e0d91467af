//! ICMP and `ICMPv6` echo messages (RFC 792, RFC 4443 section 4).

use std::net::IpAddr;

/// What identifies one request among all: the prober's own number and the request's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    /// Drawn once per measurement.
    pub(super) run: u64,
    /// Counts the requests of a measurement.
    pub(super) request: u32,
}

const ECHO_REQUEST: u8 = 8;
const ECHO_REPLY: u8 = 0;
const ECHO_REQUEST_V6: u8 = 128;
const ECHO_REPLY_V6: u8 = 129;
const HEADER: usize = 8;

/// An echo request to `target`, 20 bytes, with the mark as its payload.
pub(super) fn request(target: IpAddr, mark: Mark) -> Vec<u8> {
    let kind = if target.is_ipv4() { ECHO_REQUEST } else { ECHO_REQUEST_V6 };
    // Type, code, checksum, identifier, sequence number: 16 bits of the latter two would not tell all requests apart.
    let mut packet = vec![kind, 0, 0, 0, 0, 0, 0, 0];
    packet.extend(mark.run.to_be_bytes());
    packet.extend(mark.request.to_be_bytes());
    // The kernel computes the checksum of ICMPv6, whose pseudo header has the source address (RFC 3542 section 3.1).
    if target.is_ipv4() {
        let checksum = checksum(&packet);
        packet[2..4].copy_from_slice(&checksum.to_be_bytes());
    }
    packet
}

/// The mark of a request that was sent, whatever headers are before it.
pub(super) fn mark_of_sent(packet: &[u8]) -> Option<Mark> {
    let (rest, request) = packet.split_last_chunk()?;
    Some(Mark { run: u64::from_be_bytes(*rest.last_chunk()?), request: u32::from_be_bytes(*request) })
}

/// What an echo message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Somebody asks.
    Request,
    /// Somebody answers.
    Reply,
}

/// What an echo message is, and its mark; or `None` for any other packet, and for one with flipped bits.
///
/// A raw IPv4 socket gives the packet with its IP header, before anybody has checked it; an IPv6 one without, checked.
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
    let (run, rest) = message.get(HEADER..)?.split_first_chunk()?;
    let request = rest.first_chunk()?;
    Some((kind, Mark { run: u64::from_be_bytes(*run), request: u32::from_be_bytes(*request) }))
}

/// The source and the destination in an IPv4 header (RFC 791).
pub(super) fn ends(packet: &[u8]) -> Option<(IpAddr, IpAddr)> {
    let (source, rest) = packet.get(12..)?.split_first_chunk::<4>()?;
    Some((IpAddr::from(*source), IpAddr::from(*rest.first_chunk::<4>()?)))
}

/// The internet checksum (RFC 1071).
fn checksum(bytes: &[u8]) -> u16 {
    let sum: u32 =
        bytes.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]))).sum();
    let fold = |sum: u32| (sum & 0xffff) + (sum >> 16);
    // Folded twice it fits in 16 bits.
    !u16::try_from(fold(fold(sum))).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_checksum_of_a_request_with_its_checksum_is_zero() {
        let packet = request("192.0.2.1".parse().unwrap(), Mark { run: 0xdead_beef_0123_4567, request: 7 });
        assert_eq!(checksum(&packet), 0);
    }

    proptest! {
        #[test]
        fn a_reply_carries_the_mark_of_its_request(run: u64, number: u32, is_v4: bool) {
            let target: IpAddr = if is_v4 { "192.0.2.1" } else { "2001:db8::1" }.parse().unwrap();
            let mark = Mark { run, request: number };
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
        fn no_packet_makes_the_decoder_panic(packet in proptest::collection::vec(any::<u8>(), 0..80), is_v4: bool) {
            echo(&packet, is_v4);
            ends(&packet);
            mark_of_sent(&packet);
        }
    }
}
