//! Sends and receives on a blocking netlink socket (netlink(7)): consistent dumps, and batches with acknowledgements.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
};

use nix::{
    errno::Errno,
    sys::socket::{NetlinkAddr, getsockname},
};
use rtnetlink::{
    packet_core::{NLM_F_DUMP_INTR, NetlinkMessage, NetlinkPayload},
    packet_route::{
        RouteNetlinkMessage,
        link::{LinkAttribute, LinkMessage},
    },
    sys::{Socket as RawSocket, SocketAddr, protocols::NETLINK_ROUTE},
};
use rustix::net::{RecvFlags, SendFlags, recv, send};

use super::{
    KernelError,
    bytes::{attributes, find, first, u16_at, u32_at},
    tc::Request,
};

/// The maximum number of messages in one send. Their acknowledgements must fit the default receive buffer (208 KiB).
const BATCH: usize = 64;

/// The size of the buffer for a datagram, in bytes. The largest datagram of the kernel has 32 KiB (`netlink_dump`).
const DATAGRAM: usize = 64 * 1024;

/// The maximum number of attempts at a dump. A dump is repeated if the listed objects change during the dump.
const DUMP_ATTEMPTS: usize = 5;

/// The attribute for the text of an extended acknowledgement (`NLMSGERR_ATTR_MSG`).
const ATTR_SENTENCE: u16 = 1;

/// The length of `struct nlmsghdr`.
pub(super) const HEADER: usize = 16;

/// A blocking netlink socket.
pub(super) struct Socket {
    descriptor: OwnedFd,
    sequence: u32,
    /// The last received datagram.
    datagram: Vec<u8>,
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

/// Makes a socket of a descriptor that [`Socket::open`] has opened, in this or another process.
impl From<OwnedFd> for Socket {
    fn from(descriptor: OwnedFd) -> Self {
        Self { descriptor, sequence: 0, datagram: Vec::new() }
    }
}

/// A message that the kernel refused.
#[derive(Debug)]
pub(super) struct Refusal {
    /// The error number.
    pub(super) errno: Errno,
    /// The text of the extended acknowledgement.
    pub(super) sentence: Option<String>,
}

impl Refusal {
    /// The error, with the request in words.
    pub(super) fn because(self, operation: impl Into<String>) -> KernelError {
        KernelError::Refused { operation: operation.into(), errno: self.errno, sentence: self.sentence }
    }
}

impl Socket {
    /// Opens a socket in the network namespace of the calling thread.
    pub(super) fn open() -> io::Result<Self> {
        let mut raw = RawSocket::new(NETLINK_ROUTE)?;
        raw.bind_auto()?;
        raw.connect(&SocketAddr::new(0, 0))?;
        raw.set_ext_ack(true)?;
        raw.set_cap_ack(true)?;
        raw.set_netlink_get_strict_chk(true)?;
        Ok(raw.as_fd().try_clone_to_owned()?.into())
    }

    /// The netlink port of the socket. The kernel's notifications have the port of the socket that made the change.
    pub(super) fn port(&self) -> io::Result<u32> {
        Ok(getsockname::<NetlinkAddr>(self.descriptor.as_raw_fd())?.pid())
    }

    /// Sends all requests and reads their acknowledgements. Returns the refusals in order, with the positions of the
    /// refused requests. Takes one batch after the other, so the requests of a large chain need no memory together.
    ///
    /// Netlink has no transactions: the kernel continues after a refused message.
    pub(super) fn batch(
        &mut self,
        requests: impl IntoIterator<Item = Request>,
    ) -> Result<Vec<(usize, Refusal)>, KernelError> {
        let mut requests = requests.into_iter();
        let (mut done, mut refusals) = (0, Vec::new());
        loop {
            let before = self.sequence;
            let bytes: Vec<u8> =
                requests.by_ref().take(BATCH).flat_map(|request| request.to_bytes(self.next())).collect();
            let count = self.sequence.wrapping_sub(before) as usize;
            if count == 0 {
                return Ok(refusals);
            }
            send(&*self, &bytes, SendFlags::empty()).map_err(io::Error::from)?;
            let mut pending = count;
            while pending > 0 {
                self.receive()?;
                for message in split(&self.datagram) {
                    let message = message?;
                    let position = message.header.sequence_number.wrapping_sub(before) as usize;
                    let ours = (1..=count).contains(&position);
                    if let (true, NetlinkPayload::Error(ack)) = (ours, message.payload) {
                        pending -= 1;
                        let position = done + position - 1;
                        refusals.extend(ack.code.map(|code| (position, refusal(code.get(), &ack.header))));
                    }
                }
            }
            done += count;
        }
    }

    /// The link with this name.
    pub(super) fn link_by_name(&mut self, name: &str) -> Result<Option<LinkMessage>, KernelError> {
        let mut link = LinkMessage::default();
        link.attributes.push(LinkAttribute::IfName(name.to_owned()));
        self.link(link, || format!("look up interface {name}"))
    }

    /// The link with this index.
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
        match self.ask(&Request::existing(RouteNetlinkMessage::GetLink(link)))? {
            Ok(answer) => Ok(first!(answer, RouteNetlinkMessage::NewLink(link) => link.clone())),
            Err(Refusal { errno: Errno::ENODEV, .. }) => Ok(None),
            Err(refusal) => Err(refusal.because(operation())),
        }
    }

    /// Sends a dump or a get request, and returns the answer.
    pub(super) fn ask(&mut self, request: &Request) -> Result<Result<Vec<RouteNetlinkMessage>, Refusal>, KernelError> {
        self.fold(request, Vec::new, Vec::push)
    }

    /// Sends a dump or a get request, and adds each message of the answer to a result as the message arrives. So only
    /// one datagram of a long dump is in memory.
    ///
    /// A dump is repeated if the listed objects change during the dump, so that the result is consistent. Each attempt
    /// begins with a new `empty` result.
    pub(super) fn fold<T>(
        &mut self,
        request: &Request,
        empty: impl Fn() -> T,
        mut add: impl FnMut(&mut T, RouteNetlinkMessage),
    ) -> Result<Result<T, Refusal>, KernelError> {
        for _ in 0..DUMP_ATTEMPTS {
            let sequence = self.next();
            send(&*self, &request.to_bytes(sequence), SendFlags::empty()).map_err(io::Error::from)?;
            let mut result = empty();
            let (end, is_interrupted) = self.collect(sequence, |message| add(&mut result, message))?;
            if !is_interrupted {
                return Ok(end.map(|()| result));
            }
        }
        Err(KernelError::Malformed("the dump changed at every attempt".to_owned()))
    }

    /// Reads an answer to its end. Returns its result, and true if the dump was interrupted.
    ///
    /// An unreadable message is an error, but the answer is still read to its end: the kernel refuses a new dump during
    /// a dump.
    fn collect(
        &mut self,
        sequence: u32,
        mut add: impl FnMut(RouteNetlinkMessage),
    ) -> Result<(Result<(), Refusal>, bool), KernelError> {
        let (mut is_interrupted, mut unreadable) = (false, Ok(()));
        loop {
            self.receive()?;
            for message in split(&self.datagram) {
                let message = match message {
                    Ok(message) if message.header.sequence_number == sequence => message,
                    Ok(_) => continue,
                    Err(error) => {
                        unreadable = unreadable.and(Err(error));
                        continue;
                    }
                };
                is_interrupted |= message.header.flags & NLM_F_DUMP_INTR != 0;
                match message.payload {
                    NetlinkPayload::InnerMessage(inner) => add(inner),
                    payload => {
                        if let Some(result) = end(&payload) {
                            let is_interrupted = is_interrupted && result.is_ok();
                            return unreadable.map(|()| (result, is_interrupted));
                        }
                    }
                }
            }
        }
    }

    /// Receives one datagram.
    fn receive(&mut self) -> Result<(), KernelError> {
        self.datagram.clear();
        self.datagram.reserve(DATAGRAM);
        let buffer = rustix::buffer::spare_capacity(&mut self.datagram);
        recv(self.descriptor.as_fd(), buffer, RecvFlags::empty()).map_err(io::Error::from)?;
        Ok(())
    }

    fn next(&mut self) -> u32 {
        self.sequence = self.sequence.wrapping_add(1);
        self.sequence
    }
}

/// The type, the port and the bytes of a netlink message.
pub(super) struct RawMessage<'a> {
    pub(super) kind: u16,
    pub(super) port: u32,
    pub(super) bytes: &'a [u8],
}

/// The messages of a datagram. Each message begins with its length. The last item of a malformed datagram is `None`.
pub(super) fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Option<RawMessage<'_>>> {
    std::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        let length = u32_at(bytes, 0).map(|length| length as usize).filter(|length| *length >= HEADER);
        let message = length.and_then(|length| bytes.get(..length));
        bytes = message.and_then(|message| bytes.get(message.len().next_multiple_of(4)..)).unwrap_or_default();
        Some(message.and_then(|bytes| Some(RawMessage { kind: u16_at(bytes, 4)?, port: u32_at(bytes, 12)?, bytes })))
    })
}

/// The route messages of a datagram.
pub(super) fn split(bytes: &[u8]) -> impl Iterator<Item = Result<NetlinkMessage<RouteNetlinkMessage>, KernelError>> {
    let message = |message: Option<RawMessage<'_>>| {
        let message = message.ok_or_else(|| KernelError::Malformed("a message is cut short".to_owned()))?;
        NetlinkMessage::deserialize(message.bytes).map_err(|error| KernelError::Malformed(error.to_string()))
    };
    messages(bytes).map(message)
}

/// The result of an answer. `None`: this payload does not end the answer.
///
/// A dump may fail after some messages. The last message of the dump then has the error.
fn end(payload: &NetlinkPayload<RouteNetlinkMessage>) -> Option<Result<(), Refusal>> {
    match payload {
        NetlinkPayload::Done(done) if done.code < 0 => Some(Err(extended(done.code, &done.extended_ack))),
        NetlinkPayload::Error(ack) => Some(ack.code.map_or(Ok(()), |code| Err(refusal(code.get(), &ack.header)))),
        NetlinkPayload::Done(_) => Some(Ok(())),
        _ => None,
    }
}

/// The refusal in an acknowledgement. `code` is the negative error number.
pub(super) fn refusal(code: i32, acknowledgement: &[u8]) -> Refusal {
    extended(code, acknowledgement.get(HEADER..).unwrap_or_default())
}

/// The refusal with the text from the attributes of an extended acknowledgement.
fn extended(code: i32, acknowledgement: &[u8]) -> Refusal {
    let sentence = find(&attributes(acknowledgement), ATTR_SENTENCE).map(|text| {
        let text = text.split(|byte| *byte == 0).next().unwrap_or_default();
        String::from_utf8_lossy(text).into_owned()
    });
    Refusal { errno: Errno::from_raw(code.saturating_neg()), sentence }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_text_of_an_extended_acknowledgement_is_read() {
        let mut acknowledgement = vec![0; HEADER];
        acknowledgement.extend([12, 0, 1, 0]);
        acknowledgement.extend(b"in use\0\0");
        let refusal = refusal(-16, &acknowledgement);
        assert_eq!(refusal.sentence.as_deref(), Some("in use"));
    }

    #[test]
    fn a_dump_that_ends_with_an_error_is_not_an_empty_dump() {
        // NLMSG_DONE (3) with a code, as `netlink_dump_done` writes it.
        let ended = |code: i32| {
            let mut bytes = [20_u32, 3, 1, 0].map(u32::to_ne_bytes).concat();
            bytes.extend(code.to_ne_bytes());
            end(&split(&bytes).next().unwrap().unwrap().payload).unwrap().map_err(|refusal| refusal.errno)
        };
        assert_eq!(ended(0), Ok(()));
        assert_eq!(ended(-105), Err(Errno::ENOBUFS));
    }

    proptest! {
        #[test]
        fn no_datagram_makes_the_decoders_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            split(&bytes).for_each(drop);
            drop(refusal(-1, &bytes));
        }
    }
}
