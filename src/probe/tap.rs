//! Receives the echo messages that arrive at the node's interfaces, before the node's firewall.
//!
//! A packet socket of one protocol receives packets after tc's ingress filters and before netfilter's prerouting hook
//! (`__netif_receive_skb_core` of net/core/dev.c). So the socket does not receive packets that netemctl's ingress cuts
//! drop. A raw socket receives only packets that netfilter accepts.

use std::{
    io::{self, Read},
    net::UdpSocket,
};

use nix::{
    libc,
    sys::socket::{setsockopt, sockopt::RcvBufForce},
};
use socket2::{Domain, Protocol, SockFilter, Socket, Type};

use super::{
    packet::{self, Arrived},
    socket::RECEIVE_BUFFER,
};

/// A packet socket of one address family.
pub(super) struct Tap {
    socket: Socket,
    is_v4: bool,
}

impl Tap {
    /// Opens a socket for the echo messages of a measurement; `None`: packet sockets are not permitted or not
    /// supported.
    pub(super) fn open(is_v4: bool, run: u64) -> io::Result<Option<Self>> {
        let protocol = if is_v4 { libc::ETH_P_IP } else { libc::ETH_P_IPV6 };
        let protocol = u16::try_from(protocol).map_err(io::Error::other)?.to_be();
        let Ok(socket) = Socket::new(Domain::PACKET, Type::DGRAM, Some(Protocol::from(i32::from(protocol)))) else {
            return Ok(None);
        };
        socket.attach_filter(&filter(is_v4, run))?;
        socket.set_nonblocking(true)?;
        setsockopt(&socket, RcvBufForce, &RECEIVE_BUFFER)?;
        Ok(Some(Self { socket, is_v4 }))
    }

    /// Reads the next echo message. Skips messages without a mark or with flipped bits.
    pub(super) fn next(&self) -> io::Result<Option<Arrived>> {
        let mut buffer = [0; 256];
        loop {
            match (&self.socket).read(&mut buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                read => {
                    let packet = buffer.get(..read?).unwrap_or_default();
                    if let Some(arrived) = packet::arrived(packet, self.is_v4) {
                        return Ok(Some(arrived));
                    }
                }
            }
        }
    }
}

/// True if the address belongs to this network namespace.
pub(super) fn is_own(address: std::net::IpAddr) -> bool {
    UdpSocket::bind((address, 0)).is_ok()
}

/// A BPF filter for the ICMP messages of a measurement, so that other traffic is not copied.
///
/// The packet begins with its IP header. The measurement's number follows the ICMP header. Echo messages have no IPv6
/// extension headers.
fn filter(is_v4: bool, run: u64) -> Vec<SockFilter> {
    let load_byte = |at| step(libc::BPF_LD | libc::BPF_B | libc::BPF_ABS, at);
    // The measurement's number as two words.
    let [high, low] = [run >> 32, run & u64::from(u32::MAX)].map(|word| u32::try_from(word).unwrap_or_default());
    let (mut steps, load_word, payload) = if is_v4 {
        // Loads the protocol, and the header's length as the offset of the words after the header.
        let header = step(libc::BPF_LDX | libc::BPF_B | libc::BPF_MSH, 0);
        let protocol = vec![load_byte(9), unless_equal(libc::IPPROTO_ICMP.cast_unsigned(), 6), header];
        (protocol, libc::BPF_LD | libc::BPF_W | libc::BPF_IND, 8)
    } else {
        let protocol = vec![load_byte(6), unless_equal(libc::IPPROTO_ICMPV6.cast_unsigned(), 5)];
        (protocol, libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 40 + 8)
    };
    steps.extend([step(load_word, payload), unless_equal(high, 3), step(load_word, payload + 4), unless_equal(low, 1)]);
    steps.extend([step(libc::BPF_RET | libc::BPF_K, u32::MAX), step(libc::BPF_RET | libc::BPF_K, 0)]);
    steps
}

fn step(code: u32, operand: u32) -> SockFilter {
    SockFilter::new(u16::try_from(code).unwrap_or_default(), 0, 0, operand)
}

/// Skips `skipped` steps unless the loaded value equals `value`.
fn unless_equal(value: u32, skipped: u8) -> SockFilter {
    let code = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    SockFilter::new(u16::try_from(code).unwrap_or_default(), 0, skipped, value)
}
