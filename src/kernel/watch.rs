//! What the kernel tells by itself: links that come, go and change, addresses, and what is put on an interface.
//!
//! A socket of the multicast groups of rtnetlink(7), apart from the one that asks, since what comes by itself would be
//! taken for answers. Only what is needed is decoded: which link, and for links its state. An event says that it is time to
//! look, never what there is.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
};

use nix::sys::socket::{setsockopt, sockopt};
use rtnetlink::{
    packet_core::{NetlinkMessage, NetlinkPayload},
    packet_route::RouteNetlinkMessage,
    sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE},
};

use super::host;

// include/uapi/linux/rtnetlink.h
const RTNLGRP_LINK: u32 = 1;
const RTNLGRP_TC: u32 = 4;
const RTNLGRP_IPV4_IFADDR: u32 = 5;
const RTNLGRP_IPV6_IFADDR: u32 = 9;
const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_NEWQDISC: u16 = 36;
const RTM_DELTFILTER: u16 = 45;
const RTM_NEWCHAIN: u16 = 100;
const RTM_DELCHAIN: u16 = 101;

/// `struct nlmsghdr`.
const HEADER: usize = 16;

/// More than the kernel puts in one event.
const DATAGRAM: usize = 64 * 1024;

/// What the kernel may have waiting: a set of 10,000 filters that somebody else writes at once. What does not fit is
/// [`Event::Lost`].
const BUFFER: usize = 4 * 1024 * 1024;

const ENOBUFS: i32 = 105;

/// Something that has happened to a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// It is new, or its state is another one.
    Link {
        /// Its index.
        index: u32,
        /// Its name.
        name: String,
        /// Whether it is set up.
        is_up: bool,
        /// Whether it is connected.
        has_carrier: bool,
    },
    /// It is gone.
    Gone {
        /// Its index.
        index: u32,
    },
    /// Somebody else has changed what is on it: a qdisc, a class, a filter.
    Shaping {
        /// Its index.
        index: u32,
    },
    /// It has an address more or less.
    Address {
        /// Its index.
        index: u32,
    },
    /// There was more to tell than the kernel could keep: anything may have happened.
    Lost,
}

/// A socket that hears of all that happens in its network namespace.
pub(super) struct Watch {
    socket: Socket,
    /// Whose changes are not news: the port of the socket that makes our own.
    own: u32,
}

impl Watch {
    /// Listens in the network namespace of the calling thread. What is asked for by the socket with the port `own` is left
    /// out.
    pub(super) fn open(own: u32) -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        for group in [RTNLGRP_LINK, RTNLGRP_TC, RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV6_IFADDR] {
            socket.add_membership(group)?;
        }
        // Where it is not granted, what there is has to do.
        let _ = setsockopt(&socket, sockopt::RcvBufForce, &BUFFER);
        socket.set_non_blocking(true)?;
        Ok(Self { socket, own })
    }

    /// The same socket, to wait for what it has to tell.
    pub(super) fn news(&self) -> io::Result<OwnedFd> {
        self.socket.as_fd().try_clone_to_owned()
    }

    /// What has happened since the last call.
    pub(super) fn events(&self) -> Vec<Event> {
        let mut events = Vec::new();
        let mut datagram = Vec::with_capacity(DATAGRAM);
        loop {
            datagram.clear();
            match self.socket.recv_from(&mut datagram, 0) {
                // What does not come from the kernel is no news.
                Ok((_, sender)) if sender == SocketAddr::new(0, sender.multicast_groups()) => {
                    events.extend(decode(&datagram, self.own));
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return events,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    events.push(Event::Lost);
                    if error.raw_os_error() != Some(ENOBUFS) {
                        return events;
                    }
                }
            }
        }
    }
}

/// The events of a datagram, apart from what the socket with that port has asked for.
fn decode(mut bytes: &[u8], own: u32) -> Vec<Event> {
    let mut events = Vec::new();
    while let Some(header) = bytes.first_chunk::<HEADER>() {
        let [a, b, c, d, kind @ ..] = *header;
        let length = u32::from_ne_bytes([a, b, c, d]) as usize;
        let [kind_0, kind_1, .., port_0, port_1, port_2, port_3] = kind;
        let kind = u16::from_ne_bytes([kind_0, kind_1]);
        let port = u32::from_ne_bytes([port_0, port_1, port_2, port_3]);
        let Some(message) = bytes.get(..length).filter(|_| length >= HEADER) else {
            events.push(Event::Lost);
            break;
        };
        events.extend(event(kind, port == own, message));
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    events
}

fn event(kind: u16, is_own: bool, message: &[u8]) -> Option<Event> {
    // The index is the second word of struct ifinfomsg, struct ifaddrmsg and struct tcmsg alike.
    let index = message.get(HEADER + 4..)?.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))?;
    match kind {
        RTM_NEWLINK => Some(link(index, message)),
        RTM_DELLINK => Some(Event::Gone { index }),
        RTM_NEWADDR | RTM_DELADDR => Some(Event::Address { index }),
        RTM_NEWQDISC..=RTM_DELTFILTER | RTM_NEWCHAIN | RTM_DELCHAIN if !is_own => Some(Event::Shaping { index }),
        _ => None,
    }
}

fn link(index: u32, message: &[u8]) -> Event {
    match NetlinkMessage::<RouteNetlinkMessage>::deserialize(message).map(|message| message.payload) {
        Ok(NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(message))) => {
            let host::Link { name, is_up, has_carrier, .. } = host::link(&message);
            Event::Link { index, name, is_up, has_carrier }
        }
        // It has something of which the library knows nothing.
        _ => Event::Lost,
    }
}

#[cfg(test)]
mod tests {
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
    fn what_others_do_is_news_and_what_we_do_ourselves_is_not() {
        let both = [bytes(new_link(), 0), bytes(filter(), 1), bytes(filter(), OWN)].concat();
        let link = Event::Link { index: 7, name: "db0".to_owned(), is_up: true, has_carrier: false };
        assert_eq!(decode(&both, OWN), [link, Event::Shaping { index: 7 }]);
    }

    #[test]
    fn what_makes_no_sense_says_that_anything_may_have_happened() {
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
