//! Answers the kernel's questions for the hardware addresses of neighbours (`app_solicit` in arp(7)):
//! [`NeighbourQuestions`].
//!
//! All network namespaces of a machine share one ARP table and one NDP table. Each table has room for 1,024 resolved
//! entries (`gc_thresh3`), but permanent entries do not count. So the answer is a permanent entry. Only pairs of nodes
//! that communicate have one: entries for all pairs would be as many as the square of the number of nodes.

use std::{
    io,
    net::IpAddr,
    os::fd::{AsFd, OwnedFd},
};

use nix::{errno::Errno, libc};
use rtnetlink::{
    packet_core::{NLM_F_CREATE, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload},
    packet_route::{
        RouteNetlinkMessage,
        neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState},
    },
    sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE},
};
use socket2::{SockFilter, SockRef};

use super::{Mac, links::family, socket::split};

/// The size of the buffer for a datagram, in bytes. Questions are shorter.
const DATAGRAM: usize = 4 * 1024;

/// The questions of one network namespace.
///
/// [`Links::ask_for_neighbours`](super::Links::ask_for_neighbours) makes the kernel ask. Without an answer within a
/// second, the kernel sends ARP requests and neighbour solicitations as usual.
pub struct NeighbourQuestions {
    socket: Socket,
}

impl NeighbourQuestions {
    /// Opens a socket for the questions in the network namespace of the calling thread.
    pub fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        // The kernel also reports each change of a neighbour to this group. These reports must not wake the reader.
        SockRef::from(&socket.as_fd()).attach_filter(&only_questions())?;
        socket.add_membership(libc::RTNLGRP_NEIGH)?;
        socket.set_non_blocking(true)?;
        Ok(Self { socket })
    }

    /// A copy of the descriptor, to wait for questions.
    pub fn descriptor(&self) -> io::Result<OwnedFd> {
        self.socket.as_fd().try_clone_to_owned()
    }

    /// Answers the questions since the last call. Ignores questions about unknown addresses, and lost questions.
    pub fn answer(&self, mac_of: impl Fn(&IpAddr) -> Option<Mac>) {
        let mut datagram = Vec::with_capacity(DATAGRAM);
        loop {
            datagram.clear();
            match self.socket.recv_from(&mut datagram, 0) {
                // Other processes may send to the group too.
                Ok((_, sender)) if sender == SocketAddr::new(0, sender.multicast_groups()) => {
                    for answer in answers(&datagram, &mac_of) {
                        // The kernel repeats the question, and then resolves the address itself.
                        drop(self.socket.send(&answer, 0));
                    }
                }
                Ok(_) => {}
                // The kernel has dropped questions.
                Err(error) if error.raw_os_error().map(Errno::from_raw) == Some(Errno::ENOBUFS) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    }
}

/// The answers to the questions of a datagram, as messages for the kernel.
fn answers(datagram: &[u8], mac_of: impl Fn(&IpAddr) -> Option<Mac>) -> Vec<Vec<u8>> {
    let answer = |message: NetlinkMessage<RouteNetlinkMessage>| {
        let NetlinkPayload::InnerMessage(RouteNetlinkMessage::GetNeighbour(question)) = message.payload else {
            return None;
        };
        let address = question.attributes.iter().find_map(|attribute| match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) => Some(IpAddr::V4(*address)),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(address)) => Some(IpAddr::V6(*address)),
            _ => None,
        })?;
        let mac = mac_of(&address)?;
        let entry = permanent(question.header.ifindex, address, mac);
        let mut answer = NetlinkMessage::new(
            NetlinkHeader::default(),
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewNeighbour(entry)),
        );
        answer.header.flags = NLM_F_REQUEST | NLM_F_CREATE | NLM_F_REPLACE;
        answer.finalize();
        let mut bytes = vec![0; answer.buffer_len()];
        answer.serialize(&mut bytes);
        Some(bytes)
    };
    split(datagram).filter_map(Result::ok).filter_map(answer).collect()
}

/// A permanent ARP or NDP entry.
pub(super) fn permanent(interface: u32, address: IpAddr, mac: Mac) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.ifindex = interface;
    message.header.state = NeighbourState::Permanent;
    message.header.family = family(address);
    message.attributes.push(NeighbourAttribute::Destination(address.into()));
    message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.to_vec()));
    message
}

/// A BPF filter that passes only `RTM_GETNEIGH`.
fn only_questions() -> [SockFilter; 4] {
    let step = |code: u32, skipped: u8, operand: u32| {
        SockFilter::new(u16::try_from(code).unwrap_or_default(), 0, skipped, operand)
    };
    // The type is at byte 4 of `struct nlmsghdr`. BPF reads it as big-endian, but netlink has the order of the machine.
    let kind = u32::from(libc::RTM_GETNEIGH.to_be());
    [
        step(libc::BPF_LD | libc::BPF_H | libc::BPF_ABS, 0, 4),
        step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 1, kind),
        step(libc::BPF_RET | libc::BPF_K, 0, u32::MAX),
        step(libc::BPF_RET | libc::BPF_K, 0, 0),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The kernel's question for an address, or another message of the same form.
    fn message(inner: RouteNetlinkMessage) -> Vec<u8> {
        let mut message = NetlinkMessage::new(NetlinkHeader::default(), NetlinkPayload::InnerMessage(inner));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        bytes
    }

    #[test]
    fn only_questions_for_known_addresses_are_answered_by_a_permanent_entry() {
        let known = IpAddr::from([10, 78, 0, 9]);
        let mac_of = |address: &IpAddr| (*address == known).then_some([2, 0, 0, 0, 0, 9]);
        let about = |address: IpAddr| permanent(7, address, [0; 6]);
        let question = |address| message(RouteNetlinkMessage::GetNeighbour(about(address)));
        let expected = RouteNetlinkMessage::NewNeighbour(permanent(7, known, [2, 0, 0, 0, 0, 9]));
        let given = answers(&question(known), mac_of);
        assert_eq!(given.len(), 1);
        assert_eq!(split(&given[0]).next().unwrap().unwrap().payload, NetlinkPayload::InnerMessage(expected));
        assert!(answers(&question(IpAddr::from([10, 78, 0, 8])), mac_of).is_empty());
        assert!(answers(&message(RouteNetlinkMessage::NewNeighbour(about(known))), mac_of).is_empty());
    }
}
