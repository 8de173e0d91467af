//! Receives the kernel's notifications about links, addresses and traffic control (rtnetlink(7)): [`Watch`].
//!
//! Notifications have a socket of their own. On the request socket, they would mix with answers. After an event, the
//! agent reads the interface again.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
};

use nix::{
    errno::Errno,
    libc,
    sys::socket::{setsockopt, sockopt},
};
use rtnetlink::{
    packet_core::{NetlinkMessage, NetlinkPayload},
    packet_route::RouteNetlinkMessage,
    sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE},
};

use socket2::{SockFilter, SockRef};

use super::{
    bytes::u32_at,
    host,
    socket::{HEADER, RawMessage, messages},
};

// include/uapi/linux/rtnetlink.h
const RTM_NEWACTION: u16 = 48;
const RTM_DELACTION: u16 = 49;
const RTM_NEWCHAIN: u16 = 100;
const RTM_DELCHAIN: u16 = 101;

/// The size of the buffer for a datagram, in bytes. Notifications are shorter.
const DATAGRAM: usize = 64 * 1024;

/// The size of the receive buffer, in bytes. The buffer holds the notifications for 10,000 filters of other programs.
///
/// If the buffer is full, the kernel drops notifications, and the events have [`Event::Lost`].
const BUFFER: usize = 4 * 1024 * 1024;

/// A change of a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The link is new, or its state has changed.
    Link {
        /// The index of the link.
        index: u32,
        /// The name.
        name: String,
        /// `IFF_UP`.
        is_up: bool,
        /// `IFF_LOWER_UP`.
        has_carrier: bool,
    },
    /// The link was removed.
    Gone {
        /// The index of the link.
        index: u32,
    },
    /// Another process has changed a qdisc, class or filter of the link.
    Shaping {
        /// The index of the link.
        index: u32,
    },
    /// Another process has changed or removed an action. The filters of any link may use the action.
    Actions,
    /// An address was added or removed.
    Address {
        /// The index of the link.
        index: u32,
    },
    /// Notifications are missing: the kernel has dropped them, or they cannot be read.
    Lost,
}

/// A socket for the notifications of its network namespace.
pub(super) struct Watch {
    socket: Socket,
    /// The port of the socket for our own changes. Our own changes of qdiscs, classes and filters are no events.
    own: u32,
}

impl Watch {
    /// Opens a socket in the network namespace of the calling thread.
    ///
    /// Changes of qdiscs, classes and filters by the socket with the port `own` are no events.
    pub(super) fn open(own: u32) -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        for group in [libc::RTNLGRP_LINK, libc::RTNLGRP_TC, libc::RTNLGRP_IPV4_IFADDR, libc::RTNLGRP_IPV6_IFADDR] {
            socket.add_membership(group)?;
        }
        // Our own notifications would fill the buffer during a change. A socket without this filter still works.
        drop(SockRef::from(&socket.as_fd()).attach_filter(&without(own)));
        // Without CAP_NET_ADMIN, the socket keeps the default buffer size.
        let _ = setsockopt(&socket, sockopt::RcvBufForce, &BUFFER);
        socket.set_non_blocking(true)?;
        Ok(Self { socket, own })
    }

    /// A copy of the descriptor, to wait for events.
    pub(super) fn descriptor(&self) -> io::Result<OwnedFd> {
        self.socket.as_fd().try_clone_to_owned()
    }

    /// The events since the last call.
    pub(super) fn events(&self) -> Vec<Event> {
        let mut events = Vec::new();
        let mut datagram = Vec::with_capacity(DATAGRAM);
        loop {
            datagram.clear();
            match self.socket.recv_from(&mut datagram, 0) {
                // Other processes may send to the groups too.
                Ok((_, sender)) if sender == SocketAddr::new(0, sender.multicast_groups()) => {
                    events.extend(decode(&datagram, self.own));
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return events,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    events.push(Event::Lost);
                    if error.raw_os_error().map(Errno::from_raw) != Some(Errno::ENOBUFS) {
                        return events;
                    }
                }
            }
        }
    }
}

/// A BPF filter that drops the notifications of changes of qdiscs, classes and filters by the socket with the port
/// `own`. The kernel sends the messages of one datagram for one request, so the filter looks only at the first.
fn without(own: u32) -> [SockFilter; 7] {
    // BPF reads integers in network byte order. The types are below 256, so one byte of the type is enough.
    let type_byte = if cfg!(target_endian = "little") { 4 } else { 5 };
    let port = u32::from_be_bytes(own.to_ne_bytes());
    let jump = |code: u32, then: u8, otherwise: u8, operand| {
        SockFilter::new(u16::try_from(code).unwrap_or_default(), then, otherwise, operand)
    };
    let step = |code, operand| jump(code, 0, 0, operand);
    let is_at_least = libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K;
    [
        step(libc::BPF_LD | libc::BPF_B | libc::BPF_ABS, type_byte),
        jump(is_at_least, 0, 4, libc::RTM_NEWQDISC.into()),
        jump(is_at_least, 3, 0, u32::from(libc::RTM_DELTFILTER) + 1),
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 12),
        jump(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, port),
        step(libc::BPF_RET | libc::BPF_K, 0),
        step(libc::BPF_RET | libc::BPF_K, u32::MAX),
    ]
}

/// The events of a datagram, without changes of qdiscs, classes and filters by the socket with the port `own`.
fn decode(bytes: &[u8], own: u32) -> Vec<Event> {
    messages(bytes).filter_map(|message| message.map_or(Some(Event::Lost), |message| event(&message, own))).collect()
}

fn event(message: &RawMessage<'_>, own: u32) -> Option<Event> {
    // struct tcamsg has no index.
    if matches!(message.kind, RTM_NEWACTION | RTM_DELACTION) {
        return (message.port != own).then_some(Event::Actions);
    }
    // The index is the second word of struct ifinfomsg, struct ifaddrmsg and struct tcmsg.
    let index = u32_at(message.bytes, HEADER + 4)?;
    match message.kind {
        libc::RTM_NEWLINK => Some(link(index, message.bytes)),
        libc::RTM_DELLINK => Some(Event::Gone { index }),
        libc::RTM_NEWADDR | libc::RTM_DELADDR => Some(Event::Address { index }),
        // The kernel itself adds a chain with its first filter and removes it with its last one (`tc_chain_notify` without
        // a request). The filter has a notification of its own, with the port of the request.
        RTM_NEWCHAIN | RTM_DELCHAIN if message.port == 0 => None,
        libc::RTM_NEWQDISC..=libc::RTM_DELTFILTER | RTM_NEWCHAIN | RTM_DELCHAIN if message.port != own => {
            Some(Event::Shaping { index })
        }
        _ => None,
    }
}

fn link(index: u32, message: &[u8]) -> Event {
    match NetlinkMessage::<RouteNetlinkMessage>::deserialize(message).map(|message| message.payload) {
        Ok(NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(message))) => {
            let host::Link { name, is_up, has_carrier, .. } = host::link(&message);
            Event::Link { index, name, is_up, has_carrier }
        }
        // The library cannot read the message.
        _ => Event::Lost,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;

    use proptest::prelude::*;
    use rtnetlink::packet_route::{
        link::{LinkAttribute, LinkFlags, LinkMessage},
        tc::TcMessage,
    };

    use super::*;

    const OWN: u32 = 4711;

    fn bytes(message: RouteNetlinkMessage, port: u32) -> Vec<u8> {
        let mut message = NetlinkMessage::from(message);
        message.header.port_number = port;
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        bytes
    }

    fn new_link() -> RouteNetlinkMessage {
        let mut link = LinkMessage::default();
        link.header.index = 7;
        link.header.flags = LinkFlags::Up;
        link.attributes.push(LinkAttribute::IfName("db0".to_owned()));
        RouteNetlinkMessage::NewLink(link)
    }

    fn filter() -> RouteNetlinkMessage {
        RouteNetlinkMessage::DelTrafficFilter(TcMessage::with_index(7))
    }

    #[test]
    fn changes_by_other_sockets_are_events_and_own_changes_are_not() {
        let both = [bytes(new_link(), 0), bytes(filter(), 1), bytes(filter(), OWN)].concat();
        let link = Event::Link { index: 7, name: "db0".to_owned(), is_up: true, has_carrier: false };
        assert_eq!(decode(&both, OWN), [link, Event::Shaping { index: 7 }]);
    }

    #[test]
    fn an_action_changed_by_another_socket_is_an_event() {
        // `tc actions change action pass index 5`: struct tcamsg has no index of a link.
        let message = |port: u32| {
            let mut bytes = [20_u32, RTM_NEWACTION.into(), 0, port, 0].map(u32::to_ne_bytes).concat();
            bytes[4..6].copy_from_slice(&RTM_NEWACTION.to_ne_bytes());
            bytes
        };
        assert_eq!(decode(&[message(1), message(OWN)].concat(), OWN), [Event::Actions]);
    }

    #[test]
    fn the_chain_of_an_own_filter_is_no_event_and_a_chain_that_a_program_adds_is_one() {
        // If a new filter makes a new chain, the kernel's notification of the chain has port 0.
        let chain = |port: u32| {
            let mut bytes = bytes(filter(), port);
            bytes[4..6].copy_from_slice(&RTM_NEWCHAIN.to_ne_bytes());
            bytes
        };
        assert_eq!(decode(&[chain(0), chain(OWN), chain(1)].concat(), OWN), [Event::Shaping { index: 7 }]);
    }

    #[test]
    fn own_notifications_do_not_reach_the_buffer() {
        let (socket, sender) = UnixDatagram::pair().unwrap();
        socket.set_nonblocking(true).unwrap();
        SockRef::from(&socket).attach_filter(&without(OWN)).unwrap();
        let mut buffer = [0; 256];
        let mut passes = |message: &[u8]| {
            sender.send(message).unwrap();
            socket.recv(&mut buffer).is_ok()
        };
        assert!(!passes(&bytes(filter(), OWN)));
        assert!(passes(&bytes(filter(), 1)));
        assert!(passes(&bytes(new_link(), OWN)), "links that we change are events");
        assert!(passes(&bytes(new_link(), 0)));
    }

    #[test]
    fn a_malformed_message_is_a_lost_event() {
        let whole = bytes(filter(), 1);
        assert_eq!(decode(&whole[..whole.len() - 1], OWN), [Event::Lost]);
        let mut cut = bytes(new_link(), 0);
        cut[HEADER + 16] = 3;
        assert_eq!(decode(&cut, OWN), [Event::Lost]);
    }

    proptest! {
        #[test]
        fn no_datagram_makes_the_decoder_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), kind in 16..46_u16) {
            decode(&bytes, OWN);
            let mut message = vec![0; HEADER];
            message.extend(&bytes);
            let length = u32::try_from(message.len()).unwrap();
            message[..4].copy_from_slice(&length.to_ne_bytes());
            message[4..6].copy_from_slice(&kind.to_ne_bytes());
            decode(&message, OWN);
        }
    }
}
