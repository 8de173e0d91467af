//! One blocking netlink socket: dumps that are whole, batches of which every message is acknowledged.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
};

use nix::sys::socket::{NetlinkAddr, getsockname};
use rtnetlink::{
    packet_core::{NetlinkMessage, NetlinkPayload, NlasIterator},
    packet_route::{
        RouteNetlinkMessage,
        link::{LinkAttribute, LinkMessage},
    },
    sys::{Socket as RawSocket, SocketAddr, protocols::NETLINK_ROUTE},
};
use rustix::net::{RecvFlags, SendFlags, recv, send};

use super::{KernelError, tc::Request};

/// How many messages go in one send. Their acknowledgements must fit the default receive buffer (208 KiB).
const BATCH: usize = 64;

/// More than the kernel ever puts in one datagram (`netlink_dump`: 32 KiB).
const DATAGRAM: usize = 64 * 1024;

/// How often a dump is asked for again that changed while it was read.
const DUMP_TRIES: usize = 5;

/// Set in the header of a dump's messages if it changed while it was read (`NLM_F_DUMP_INTR`).
const DUMP_INTERRUPTED: u16 = 0x10;

/// The attribute of an extended acknowledgement that holds the sentence (`NLMSGERR_ATTR_MSG`).
const ATTR_SENTENCE: u16 = 1;

/// The length of the netlink header that precedes the attributes of an acknowledgement.
const HEADER: usize = 16;

const ENODEV: i32 = 19;

pub(super) struct Socket {
    descriptor: OwnedFd,
    sequence: u32,
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

/// One that [`Socket::open`] has opened, in this process or in another.
impl From<OwnedFd> for Socket {
    fn from(descriptor: OwnedFd) -> Self {
        Self { descriptor, sequence: 0 }
    }
}

/// A message that the kernel refused.
#[derive(Debug)]
pub(super) struct Refusal {
    /// The error number.
    pub(super) errno: io::Error,
    /// The kernel's sentence.
    pub(super) sentence: Option<String>,
}

impl Refusal {
    pub(super) fn because(self, operation: impl Into<String>) -> KernelError {
        KernelError::Refused { operation: operation.into(), errno: self.errno, sentence: self.sentence }
    }
}

impl Socket {
    /// A socket in the network namespace of the calling thread, in which it stays.
    pub(super) fn open() -> io::Result<Self> {
        let mut raw = RawSocket::new(NETLINK_ROUTE)?;
        raw.bind_auto()?;
        raw.connect(&SocketAddr::new(0, 0))?;
        raw.set_ext_ack(true)?;
        raw.set_cap_ack(true)?;
        raw.set_netlink_get_strict_chk(true)?;
        Ok(raw.as_fd().try_clone_to_owned()?.into())
    }

    /// Its address as the kernel knows it, by which others tell its changes from those of anybody else.
    pub(super) fn port(&self) -> io::Result<u32> {
        Ok(getsockname::<NetlinkAddr>(self.descriptor.as_raw_fd())?.pid())
    }

    /// Sends all requests and reads an acknowledgement of each; answers with the refusals, in order, and the places of
    /// the requests that they refuse.
    ///
    /// There is no transaction in netlink: the kernel goes on after a refused message.
    pub(super) fn batch(&mut self, requests: &[Request]) -> Result<Vec<(usize, Refusal)>, KernelError> {
        let mut refusals = Vec::new();
        for (number, batch) in requests.chunks(BATCH).enumerate() {
            let before = self.sequence;
            let bytes: Vec<u8> = batch.iter().flat_map(|request| request.to_bytes(self.next())).collect();
            send(&*self, &bytes, SendFlags::empty()).map_err(io::Error::from)?;
            let mut pending = batch.len();
            while pending > 0 {
                for message in self.receive()? {
                    let place = message.header.sequence_number.wrapping_sub(before) as usize;
                    let ours = (1..=batch.len()).contains(&place);
                    if let (true, NetlinkPayload::Error(ack)) = (ours, message.payload) {
                        pending -= 1;
                        let place = number * BATCH + place - 1;
                        refusals.extend(ack.code.map(|_| (place, refusal(ack.to_io(), &ack.header))));
                    }
                }
            }
        }
        Ok(refusals)
    }

    /// The interface index of a link, if one has the name.
    pub(super) fn link_index(&mut self, name: &str) -> Result<Option<u32>, KernelError> {
        Ok(self.link_by_name(name)?.map(|link| link.header.index))
    }

    /// A link, if one has the name.
    pub(super) fn link_by_name(&mut self, name: &str) -> Result<Option<LinkMessage>, KernelError> {
        let mut link = LinkMessage::default();
        link.attributes.push(LinkAttribute::IfName(name.to_owned()));
        self.link(link, || format!("look up interface {name}"))
    }

    /// Whether there is still a link of that index.
    pub(super) fn has_link(&mut self, index: u32) -> Result<bool, KernelError> {
        Ok(self.link_by_index(index)?.is_some())
    }

    /// A link, if one has the index.
    pub(super) fn link_by_index(&mut self, index: u32) -> Result<Option<LinkMessage>, KernelError> {
        let mut link = LinkMessage::default();
        link.header.index = index;
        self.link(link, || format!("look up interface number {index}"))
    }

    fn link(
        &mut self,
        link: LinkMessage,
        operation: impl FnOnce() -> String,
    ) -> Result<Option<LinkMessage>, KernelError> {
        match self.ask(&Request::get(RouteNetlinkMessage::GetLink(link)))? {
            Ok(answer) => Ok(answer.into_iter().find_map(|message| match message {
                RouteNetlinkMessage::NewLink(link) => Some(link),
                _ => None,
            })),
            Err(refusal) if refusal.errno.raw_os_error() == Some(ENODEV) => Ok(None),
            Err(refusal) => Err(refusal.because(operation())),
        }
    }

    /// Everything that a dump or a get answers with.
    ///
    /// A dump during which the kernel's tables changed is asked for again: half a table is never taken for a whole.
    pub(super) fn ask(&mut self, request: &Request) -> Result<Result<Vec<RouteNetlinkMessage>, Refusal>, KernelError> {
        for _ in 0..DUMP_TRIES {
            let sequence = self.next();
            send(&*self, &request.to_bytes(sequence), SendFlags::empty()).map_err(io::Error::from)?;
            let (answer, interrupted) = self.collect(sequence)?;
            if !interrupted {
                return Ok(answer);
            }
        }
        Err(KernelError::Garbled("the tables kept changing while they were read".to_owned()))
    }

    fn collect(&mut self, sequence: u32) -> Result<(Result<Vec<RouteNetlinkMessage>, Refusal>, bool), KernelError> {
        let (mut answer, mut interrupted) = (Vec::new(), false);
        loop {
            for message in self.receive()? {
                if message.header.sequence_number != sequence {
                    continue;
                }
                interrupted |= message.header.flags & DUMP_INTERRUPTED != 0;
                match message.payload {
                    NetlinkPayload::InnerMessage(inner) => answer.push(inner),
                    payload => match end(&payload) {
                        Some(Ok(())) => return Ok((Ok(answer), interrupted)),
                        Some(Err(refusal)) => return Ok((Err(refusal), false)),
                        None => {}
                    },
                }
            }
        }
    }

    /// The messages of one datagram.
    fn receive(&self) -> Result<Vec<NetlinkMessage<RouteNetlinkMessage>>, KernelError> {
        let mut datagram = Vec::with_capacity(DATAGRAM);
        let buffer = rustix::buffer::spare_capacity(&mut datagram);
        recv(self, buffer, RecvFlags::empty()).map_err(io::Error::from)?;
        split(&datagram)
    }

    fn next(&mut self) -> u32 {
        self.sequence = self.sequence.wrapping_add(1);
        self.sequence
    }
}

/// Splits a datagram into its messages; each says its own length.
pub(super) fn split(mut bytes: &[u8]) -> Result<Vec<NetlinkMessage<RouteNetlinkMessage>>, KernelError> {
    let garbled = |why: &str| KernelError::Garbled(why.to_owned());
    let mut messages = Vec::new();
    while !bytes.is_empty() {
        let length = bytes.first_chunk::<4>().map(|length| u32::from_ne_bytes(*length) as usize);
        let length = length
            .filter(|length| (HEADER..=bytes.len()).contains(length))
            .ok_or_else(|| garbled("a message is cut short"))?;
        let message = NetlinkMessage::deserialize(&bytes[..length]).map_err(|error| garbled(&error.to_string()))?;
        messages.push(message);
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(messages)
}

/// Whether an answer ends with this payload, and how: a dump may fail after it has begun, which its last message says.
fn end(payload: &NetlinkPayload<RouteNetlinkMessage>) -> Option<Result<(), Refusal>> {
    match payload {
        NetlinkPayload::Done(done) if done.code < 0 => {
            Some(Err(said(io::Error::from_raw_os_error(done.code.saturating_neg()), &done.extended_ack)))
        }
        NetlinkPayload::Error(ack) if ack.code.is_some() => Some(Err(refusal(ack.to_io(), &ack.header))),
        NetlinkPayload::Done(_) | NetlinkPayload::Error(_) => Some(Ok(())),
        _ => None,
    }
}

pub(super) fn refusal(errno: io::Error, acknowledgement: &[u8]) -> Refusal {
    said(errno, acknowledgement.get(HEADER..).unwrap_or_default())
}

/// An error with the sentence that is among the attributes of an acknowledgement.
fn said(errno: io::Error, attributes: &[u8]) -> Refusal {
    let sentence = NlasIterator::new(attributes).flatten().find(|nla| nla.kind() == ATTR_SENTENCE).map(|nla| {
        let text = nla.value().split(|byte| *byte == 0).next().unwrap_or_default();
        String::from_utf8_lossy(text).into_owned()
    });
    Refusal { errno, sentence }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_kernels_own_sentence_is_read_from_the_acknowledgement() {
        let mut acknowledgement = vec![0; HEADER];
        acknowledgement.extend([12, 0, 1, 0]);
        acknowledgement.extend(b"in use\0\0");
        let refusal = refusal(io::Error::from_raw_os_error(16), &acknowledgement);
        assert_eq!(refusal.sentence.as_deref(), Some("in use"));
    }

    #[test]
    fn a_dump_that_ends_with_an_error_is_an_error_and_no_empty_dump() {
        // NLMSG_DONE (3) with a code, as `netlink_dump_done` writes it.
        let ended = |code: i32| {
            let mut bytes = [20_u32, 3, 1, 0].map(u32::to_ne_bytes).concat();
            bytes.extend(code.to_ne_bytes());
            end(&split(&bytes).unwrap()[0].payload).unwrap().map_err(|refusal| refusal.errno.raw_os_error())
        };
        assert_eq!(ended(0), Ok(()));
        assert_eq!(ended(-105), Err(Some(105)));
    }

    proptest! {
        #[test]
        fn no_datagram_and_no_acknowledgement_makes_the_decoders_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            drop(split(&bytes));
            drop(refusal(io::Error::from_raw_os_error(1), &bytes));
        }
    }
}
