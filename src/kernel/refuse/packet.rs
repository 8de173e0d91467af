//! What a router answers a packet with that it does not let through: a TCP reset (RFC 9293 section 3.10.7.1), or ICMP
//! "communication administratively prohibited" (RFC 1812 section 5.2.7.1, RFC 4443 section 3.1).
//!
//! Of the codes of "destination unreachable", this one is an error to applications at once, on a UDP socket as well;
//! others are only remembered (`icmp_err_convert` of `net/ipv4/icmp.c`).

use std::net::IpAddr;

const ETH_P_IP: u16 = 0x0800;
const ETH_P_IPV6: u16 = 0x86dd;
const VLAN_TAGS: [u16; 2] = [0x8100, 0x88a8];

const ICMP: u8 = 1;
const TCP: u8 = 6;
const ICMPV6: u8 = 58;

const V4_HEADER: usize = 20;
const V6_HEADER: usize = 40;

/// How much of a packet an ICMP error quotes: as much as makes a packet of 576 bytes (RFC 1812 section 4.3.2.3).
const QUOTE_V4: usize = 576 - V4_HEADER - 8;
/// As much as makes one of 1,280 bytes (RFC 4443 section 2.4).
const QUOTE_V6: usize = 1280 - V6_HEADER - 8;

/// Destination unreachable, communication administratively prohibited.
const PROHIBITED_V4: [u8; 2] = [3, 13];
const PROHIBITED_V6: [u8; 2] = [1, 1];

/// The ICMP messages that ask or answer, and so may be answered with an error; no error is (RFC 1122 section 3.2.2).
const ICMP_QUERIES: [u8; 10] = [0, 8, 9, 10, 13, 14, 15, 16, 17, 18];
/// From here on `ICMPv6` messages are no errors; neighbour discovery is never cut.
const ICMPV6_QUERIES: u8 = 128;

const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;

const TTL: u8 = 64;

/// A packet that answers another one, with its IP header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::kernel) struct Refusal {
    /// Who sent the other one.
    pub(in crate::kernel) to: IpAddr,
    /// The packet; it comes from the address that the other one was for.
    pub(in crate::kernel) packet: Vec<u8>,
}

/// The answer to the packet of which this is the beginning, from the link layer's header on.
///
/// `None` for what no router answers: resets, ICMP errors, fragments but the first, addresses of no single host; and
/// for what cannot be read.
pub(in crate::kernel) fn refuse(frame: &[u8]) -> Option<Refusal> {
    let datagram = Datagram::of(packet(frame)?)?;
    let is_single = |address: IpAddr| {
        let is_broadcast = matches!(address, IpAddr::V4(v4) if v4.is_broadcast());
        !address.is_unspecified() && !address.is_multicast() && !is_broadcast
    };
    if !is_single(datagram.source) || !is_single(datagram.destination) {
        return None;
    }
    let is_v4 = datagram.source.is_ipv4();
    let (protocol, message) = match datagram.protocol {
        TCP => (TCP, reset(&datagram)?),
        ICMP if is_v4 && !ICMP_QUERIES.contains(datagram.payload.first()?) => return None,
        ICMPV6 if !is_v4 && *datagram.payload.first()? < ICMPV6_QUERIES => return None,
        _ if is_v4 => (ICMP, prohibited(PROHIBITED_V4, datagram.quote(QUOTE_V4))),
        _ => (ICMPV6, prohibited(PROHIBITED_V6, datagram.quote(QUOTE_V6))),
    };
    Some(Refusal { to: datagram.source, packet: datagram.answer(protocol, message)? })
}

/// The IP packet in a frame of Ethernet, or of a link without a header.
fn packet(frame: &[u8]) -> Option<&[u8]> {
    let mut rest = frame.get(12..)?;
    while VLAN_TAGS.contains(&half(rest, 0)?) {
        rest = rest.get(4..)?;
    }
    match half(rest, 0)? {
        ETH_P_IP | ETH_P_IPV6 => rest.get(2..),
        _ => Some(frame),
    }
}

/// An IP packet that was taken apart.
struct Datagram<'a> {
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    /// As much as there is of the payload.
    payload: &'a [u8],
    /// How long all of it is.
    length: usize,
    /// As much as there is of the packet, without what a link may have put behind it.
    whole: &'a [u8],
}

impl<'a> Datagram<'a> {
    fn of(packet: &'a [u8]) -> Option<Self> {
        match packet.first()? >> 4 {
            4 => Self::v4(packet),
            6 => Self::v6(packet),
            _ => None,
        }
    }

    fn v4(packet: &'a [u8]) -> Option<Self> {
        /// The flag and the offset that say which part of a packet this is (RFC 791).
        const OFFSET: u16 = 0x1fff;
        let header = 4 * usize::from(packet.first()? & 0xf);
        if header < V4_HEADER || half(packet, 6)? & OFFSET != 0 {
            return None;
        }
        let total = usize::from(half(packet, 2)?);
        let whole = packet.get(..total).unwrap_or(packet);
        Some(Self {
            source: IpAddr::from(*packet.get(12..)?.first_chunk::<4>()?),
            destination: IpAddr::from(*packet.get(16..)?.first_chunk::<4>()?),
            protocol: *packet.get(9)?,
            payload: whole.get(header..)?,
            length: total.saturating_sub(header),
            whole,
        })
    }

    fn v6(packet: &'a [u8]) -> Option<Self> {
        // Hop by hop, routing, destination options: each says the next one's kind and its own length (RFC 8200).
        const OPTIONS: [u8; 3] = [0, 43, 60];
        const FRAGMENT: u8 = 44;
        let total = V6_HEADER + usize::from(half(packet, 4)?);
        let whole = packet.get(..total).unwrap_or(packet);
        let (mut protocol, mut at) = (*packet.get(6)?, V6_HEADER);
        loop {
            let header = whole.get(at..)?;
            if OPTIONS.contains(&protocol) {
                protocol = *header.first()?;
                at += 8 + 8 * usize::from(*header.get(1)?);
            } else if protocol == FRAGMENT {
                if half(header, 2)? & !7 != 0 {
                    return None;
                }
                protocol = *header.first()?;
                at += 8;
            } else {
                break;
            }
        }
        Some(Self {
            source: IpAddr::from(*packet.get(8..)?.first_chunk::<16>()?),
            destination: IpAddr::from(*packet.get(24..)?.first_chunk::<16>()?),
            protocol,
            payload: whole.get(at..)?,
            length: total.saturating_sub(at),
            whole,
        })
    }

    fn quote(&self, at_most: usize) -> &'a [u8] {
        self.whole.get(..at_most).unwrap_or(self.whole)
    }

    /// A packet to whoever sent this one, with the message's checksum filled in.
    fn answer(&self, protocol: u8, mut message: Vec<u8>) -> Option<Vec<u8>> {
        let place = if protocol == TCP { 16 } else { 2 };
        // ICMP of IPv4 alone is summed without addresses.
        let pseudo = if protocol == ICMP { 0 } else { self.pseudo_header(protocol, message.len())? };
        let checksum = !fold(pseudo + sum(&message));
        message.get_mut(place..place + 2)?.copy_from_slice(&checksum.to_be_bytes());
        let mut packet = match (self.source, self.destination) {
            (IpAddr::V4(to), IpAddr::V4(from)) => {
                let [high, low] = u16::try_from(V4_HEADER + message.len()).ok()?.to_be_bytes();
                // Not to be fragmented, so that it needs no number.
                let mut header = vec![0x45, 0, high, low, 0, 0, 0x40, 0, TTL, protocol, 0, 0];
                header.extend(from.octets());
                header.extend(to.octets());
                let checksum = !fold(sum(&header));
                header.get_mut(10..12)?.copy_from_slice(&checksum.to_be_bytes());
                header
            }
            (IpAddr::V6(to), IpAddr::V6(from)) => {
                let [high, low] = u16::try_from(message.len()).ok()?.to_be_bytes();
                let mut header = vec![0x60, 0, 0, 0, high, low, protocol, TTL];
                header.extend(from.octets());
                header.extend(to.octets());
                header
            }
            _ => return None,
        };
        packet.extend(message);
        Some(packet)
    }

    /// What of the addresses goes into the checksum of an answer.
    fn pseudo_header(&self, protocol: u8, length: usize) -> Option<u32> {
        let addresses = [self.source, self.destination].map(|address| match address {
            IpAddr::V4(v4) => sum(&v4.octets()),
            IpAddr::V6(v6) => sum(&v6.octets()),
        });
        Some(addresses.into_iter().sum::<u32>() + u32::from(protocol) + u32::try_from(length).ok()?)
    }
}

/// The reset that says that nobody is there, whichever state the sender is in.
fn reset(datagram: &Datagram<'_>) -> Option<Vec<u8>> {
    let segment = datagram.payload;
    let flags = *segment.get(13)?;
    if flags & RST != 0 {
        return None;
    }
    let (sequence, acknowledgement, own_flags) = if flags & ACK != 0 {
        (word(segment, 8)?, 0, RST)
    } else {
        let header = 4 * usize::from(segment.get(12)? >> 4);
        let data = u32::try_from(datagram.length.saturating_sub(header)).ok()?;
        let length = data + u32::from(flags & SYN != 0) + u32::from(flags & FIN != 0);
        (0, word(segment, 4)?.wrapping_add(length), RST | ACK)
    };
    let (from, to) = (segment.get(2..4)?, segment.get(..2)?);
    let mut reset = [from, to].concat();
    reset.extend(sequence.to_be_bytes());
    reset.extend(acknowledgement.to_be_bytes());
    // A header of five words, the flags, no window, the checksum's place, nothing urgent.
    reset.extend([5 << 4, own_flags, 0, 0, 0, 0, 0, 0]);
    Some(reset)
}

fn prohibited([kind, code]: [u8; 2], quote: &[u8]) -> Vec<u8> {
    let mut message = vec![kind, code, 0, 0, 0, 0, 0, 0];
    message.extend(quote);
    message
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// The sum of the internet checksum (RFC 1071), not folded: a packet's fits in 32 bits.
fn sum(bytes: &[u8]) -> u32 {
    bytes.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]))).sum()
}

fn fold(sum: u32) -> u16 {
    let once = (sum & 0xffff) + (sum >> 16);
    // Folded twice it fits in 16 bits.
    u16::try_from((once & 0xffff) + (once >> 16)).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ETHERNET: usize = 14;

    /// A frame with an IP packet of this protocol and payload, from node 1 to node 2.
    fn frame(is_v4: bool, protocol: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![2; 12];
        if is_v4 {
            let total = u16::try_from(V4_HEADER + payload.len()).unwrap().to_be_bytes();
            frame.extend(ETH_P_IP.to_be_bytes());
            frame.extend([0x45, 0, total[0], total[1], 0, 7, 0, 0, 9, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        } else {
            let length = u16::try_from(payload.len()).unwrap().to_be_bytes();
            frame.extend(ETH_P_IPV6.to_be_bytes());
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

    /// Checks everything of an answer's IP header and its checksums; its protocol and its message.
    #[track_caller]
    fn message(is_v4: bool, refusal: &Refusal) -> (u8, Vec<u8>) {
        let Refusal { to, packet } = refusal;
        let (header, message) = packet.split_at(header(is_v4));
        let protocol = header[if is_v4 { 9 } else { 6 }];
        let addresses = if is_v4 { &header[12..] } else { &header[8..] };
        let pseudo = sum(addresses) + u32::from(protocol) + u32::try_from(message.len()).unwrap();
        if is_v4 {
            assert_eq!(to.to_string(), "10.0.0.1");
            assert_eq!(addresses, [10, 0, 0, 2, 10, 0, 0, 1]);
            assert_eq!(usize::from(half(header, 2).unwrap()), packet.len());
            assert_eq!(fold(sum(header)), u16::MAX, "the header's checksum");
        } else {
            assert_eq!(to.to_string(), "fd00::1");
            assert_eq!((addresses[15], addresses[31]), (2, 1));
            assert_eq!(usize::from(half(header, 4).unwrap()), message.len());
        }
        let summed = sum(message) + if protocol == ICMP { 0 } else { pseudo };
        assert_eq!(fold(summed), u16::MAX, "the message's checksum");
        (protocol, message.to_vec())
    }

    #[track_caller]
    fn reset_of(is_v4: bool, segment: &[u8]) -> (u32, u32, u8) {
        let (protocol, reset) = message(is_v4, &refuse(&frame(is_v4, TCP, segment)).unwrap());
        assert_eq!((protocol, reset.len()), (TCP, 20));
        assert_eq!(reset[..4], [0x66, 0x91, 0x13, 0x88], "the ports are the other way round");
        (word(&reset, 4).unwrap(), word(&reset, 8).unwrap(), reset[13])
    }

    #[test]
    fn a_segment_that_acknowledges_is_reset_at_what_its_sender_expects() {
        for is_v4 in [true, false] {
            assert_eq!(reset_of(is_v4, &segment(1_000, 77, ACK, 500)), (77, 0, RST));
            assert_eq!(reset_of(is_v4, &segment(1_000, 77, SYN | ACK, 0)), (77, 0, RST));
            assert_eq!(reset_of(is_v4, &segment(1_000, 77, FIN | ACK, 0)), (77, 0, RST));
        }
    }

    #[test]
    fn a_segment_that_does_not_is_acknowledged_with_all_that_it_takes_up() {
        for is_v4 in [true, false] {
            assert_eq!(reset_of(is_v4, &segment(1_000, 0, SYN, 0)), (0, 1_001, RST | ACK));
            // TCP Fast Open.
            assert_eq!(reset_of(is_v4, &segment(u32::MAX, 0, SYN, 100)), (0, 100, RST | ACK));
            assert_eq!(reset_of(is_v4, &segment(1_000, 0, FIN, 10)), (0, 1_011, RST | ACK));
        }
    }

    #[test]
    fn data_that_was_cut_off_the_sample_counts() {
        for is_v4 in [true, false] {
            let mut sample = frame(is_v4, TCP, &segment(1_000, 0, FIN, 1_400));
            sample.truncate(ETHERNET + header(is_v4) + 20);
            let (_, reset) = message(is_v4, &refuse(&sample).unwrap());
            assert_eq!(word(&reset, 8), Some(2_401));
        }
    }

    #[test]
    fn everything_but_tcp_is_told_that_it_is_prohibited_with_as_much_of_it_as_fits() {
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
        // SCTP has ports, and no reset that a router would know of.
        assert_eq!(message(true, &refuse(&frame(true, 132, &[0; 12])).unwrap()).0, ICMP);
    }

    #[test]
    fn an_echo_is_answered_and_an_error_never() {
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
    fn an_answer_is_never_answered() {
        for (is_v4, protocol) in [(true, 17), (true, TCP), (false, 17), (false, TCP)] {
            let answer = refuse(&frame(is_v4, protocol, &segment(1, 2, ACK, 0))).unwrap();
            assert_eq!(refuse(&answer.packet), None);
        }
    }

    #[test]
    fn of_fragments_the_first_is_answered() {
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
        assert_eq!((protocol, word(&reset, 8)), (TCP, Some(1_006)));
    }

    #[test]
    fn a_packet_is_found_behind_vlan_tags_and_without_any_header() {
        let plain = frame(true, TCP, &segment(1_000, 0, SYN, 0));
        let tag = [0x81, 0, 0, 7];
        let tagged = [&plain[..12], &tag, &tag, &plain[12..]].concat();
        let expected = refuse(&plain);
        assert!(expected.is_some());
        assert_eq!(refuse(&tagged), expected);
        assert_eq!(refuse(&plain[ETHERNET..]), expected);
    }

    #[test]
    fn nobody_is_answered_who_is_not_one_host() {
        for (at, address) in [(12, [224, 0, 0, 1]), (12, [0; 4]), (16, [255; 4]), (16, [239, 1, 2, 3])] {
            let mut frame = frame(true, 17, &[0; 8]);
            frame[ETHERNET + at..ETHERNET + at + 4].copy_from_slice(&address);
            assert_eq!(refuse(&frame), None);
        }
    }

    proptest! {
        #[test]
        fn no_sample_makes_it_panic(
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
        fn no_answer_is_longer_than_the_smallest_packet_that_every_link_carries(
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
