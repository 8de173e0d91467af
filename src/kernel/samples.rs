//! Samples of packets, which the kernel hands to whoever listens (`net/psample/psample.c`) by generic netlink.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
};

use rtnetlink::{
    packet_core::{DefaultNla, Emitable, NLM_F_REQUEST, NlasIterator},
    sys::{Socket, SocketAddr, protocols::NETLINK_GENERIC},
};

// include/uapi/linux/netlink.h, genetlink.h
const NLMSG_ERROR: u16 = 2;
const GENL_ID_CTRL: u16 = 16;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;
const CTRL_ATTR_MCAST_GROUPS: u16 = 7;
const CTRL_ATTR_MCAST_GRP_NAME: u16 = 1;
const CTRL_ATTR_MCAST_GRP_ID: u16 = 2;

// include/uapi/linux/psample.h
const FAMILY: &[u8] = b"psample\0";
const PACKETS: &[u8] = b"packets\0";
const PSAMPLE_ATTR_OIFINDEX: u16 = 1;
const PSAMPLE_ATTR_SAMPLE_GROUP: u16 = 3;
const PSAMPLE_ATTR_DATA: u16 = 6;

/// `struct nlmsghdr` and `struct genlmsghdr`.
const HEADERS: usize = 16 + 4;

/// More than any sample of ours with its attributes.
const DATAGRAM: usize = 8 * 1024;

const ENOENT: i32 = 2;

/// A socket that gets every sample of its network namespace, whoever takes it.
pub(super) struct Samples {
    socket: Socket,
    family: u16,
}

/// A packet that was sampled.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Sample {
    /// Whose it is.
    pub(super) group: u32,
    /// The index of the interface that it leaves by; the kernel says its lower 16 bits.
    pub(super) leaves_by: u16,
    /// Its beginning, from the link layer's header on.
    pub(super) frame: Vec<u8>,
}

impl Samples {
    /// Listens in the network namespace of the calling thread.
    ///
    /// Fails with `ENOENT` as long as the kernel has not loaded its module, which comes with the first filter that
    /// samples.
    pub(super) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_GENERIC)?;
        socket.bind_auto()?;
        socket.send_to(&request(), &SocketAddr::new(0, 0), 0)?;
        let mut answer = Vec::with_capacity(DATAGRAM);
        socket.recv(&mut answer, 0)?;
        let (family, group) = family(&answer)?;
        socket.add_membership(group)?;
        socket.set_non_blocking(true)?;
        Ok(Self { socket, family })
    }

    /// The next packet, or `None` for what is none; `WouldBlock` if there is nothing.
    pub(super) fn receive(&self) -> io::Result<Option<Sample>> {
        let mut datagram = Vec::with_capacity(DATAGRAM);
        self.socket.recv(&mut datagram, 0)?;
        Ok(sample(&datagram, self.family))
    }
}

impl AsFd for Samples {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Asks for the family's number and those of its groups.
fn request() -> Vec<u8> {
    let name = [DefaultNla::new(CTRL_ATTR_FAMILY_NAME, FAMILY.to_vec())];
    let mut attributes = vec![0; name.as_slice().buffer_len()];
    name.as_slice().emit(&mut attributes);
    let length = u32::try_from(HEADERS + attributes.len()).unwrap_or(u32::MAX);
    let mut message = length.to_ne_bytes().to_vec();
    message.extend(GENL_ID_CTRL.to_ne_bytes());
    message.extend(NLM_F_REQUEST.to_ne_bytes());
    // The sequence number and the port; then the command, its version, nothing.
    message.extend([0; 8]);
    message.extend([CTRL_CMD_GETFAMILY, 1, 0, 0]);
    message.extend(attributes);
    message
}

/// The family's number, and that of its group of packets.
pub(super) fn family(answer: &[u8]) -> io::Result<(u16, u32)> {
    if kind(answer) == Some(NLMSG_ERROR) {
        let errno =
            word(answer.get(16..).unwrap_or_default()).map_or(ENOENT, |errno| errno.cast_signed().wrapping_neg());
        return Err(io::Error::from_raw_os_error(errno));
    }
    let attributes = attributes(answer.get(HEADERS..).unwrap_or_default());
    let family = find(&attributes, CTRL_ATTR_FAMILY_ID).and_then(half);
    let groups = find(&attributes, CTRL_ATTR_MCAST_GROUPS).map(self::attributes).unwrap_or_default();
    let group = groups.iter().map(|(_, group)| self::attributes(group)).find_map(|group| {
        let is_packets = find(&group, CTRL_ATTR_MCAST_GRP_NAME) == Some(PACKETS);
        find(&group, CTRL_ATTR_MCAST_GRP_ID).filter(|_| is_packets).and_then(word)
    });
    family.zip(group).ok_or_else(|| io::Error::from_raw_os_error(ENOENT))
}

pub(super) fn sample(datagram: &[u8], family: u16) -> Option<Sample> {
    let attributes = attributes(datagram.get(HEADERS..).filter(|_| kind(datagram) == Some(family))?);
    Some(Sample {
        group: find(&attributes, PSAMPLE_ATTR_SAMPLE_GROUP).and_then(word)?,
        leaves_by: find(&attributes, PSAMPLE_ATTR_OIFINDEX).and_then(half)?,
        frame: find(&attributes, PSAMPLE_ATTR_DATA)?.to_vec(),
    })
}

/// A message's type, from its header.
fn kind(message: &[u8]) -> Option<u16> {
    half(message.get(4..)?)
}

fn attributes(bytes: &[u8]) -> Vec<(u16, Vec<u8>)> {
    // What makes no sense ends the list.
    let nlas = NlasIterator::new(bytes).map_while(Result::ok);
    nlas.map(|nla| (nla.kind(), nla.value().to_vec())).collect()
}

fn find(attributes: &[(u16, Vec<u8>)], kind: u16) -> Option<&[u8]> {
    attributes.iter().find(|(other, _)| *other == kind).map(|(_, value)| value.as_slice())
}

fn half(bytes: &[u8]) -> Option<u16> {
    bytes.first_chunk().map(|bytes| u16::from_ne_bytes(*bytes))
}

fn word(bytes: &[u8]) -> Option<u32> {
    bytes.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NUMBER: u16 = 28;

    fn nested(attributes: &[(u16, Vec<u8>)]) -> Vec<u8> {
        let attributes: Vec<_> = attributes.iter().map(|(kind, value)| DefaultNla::new(*kind, value.clone())).collect();
        let mut bytes = vec![0; attributes.as_slice().buffer_len()];
        attributes.as_slice().emit(&mut bytes);
        bytes
    }

    fn message(kind: u16, attributes: &[(u16, Vec<u8>)]) -> Vec<u8> {
        let body = nested(attributes);
        let length = u32::try_from(HEADERS + body.len()).unwrap();
        [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), &[0; 14], &body].concat()
    }

    #[test]
    fn the_family_is_asked_for_by_its_name() {
        let mut expected = vec![32, 0, 0, 0, 16, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3, 1, 0, 0, 12, 0, 2, 0];
        expected.extend(b"psample\0");
        assert_eq!(request(), expected);
    }

    #[test]
    fn of_the_familys_groups_the_one_of_packets_is_taken() {
        let group = |number: u16, name: &[u8], id: u32| {
            let group =
                [(CTRL_ATTR_MCAST_GRP_ID, id.to_ne_bytes().to_vec()), (CTRL_ATTR_MCAST_GRP_NAME, name.to_vec())];
            (number, nested(&group))
        };
        let groups = nested(&[group(1, b"config\0", 3), group(2, PACKETS, 4)]);
        let family_id = (CTRL_ATTR_FAMILY_ID, NUMBER.to_ne_bytes().to_vec());
        let answer = message(GENL_ID_CTRL, &[family_id, (CTRL_ATTR_MCAST_GROUPS, groups)]);
        assert_eq!(family(&answer).unwrap(), (NUMBER, 4));

        let refused = message(NLMSG_ERROR, &[]);
        let refused = [&refused[..16], &(-2_i32).to_ne_bytes()].concat();
        assert_eq!(family(&refused).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_sample_is_a_message_of_the_family_with_a_packet_of_one_group() {
        let attributes = [
            (PSAMPLE_ATTR_OIFINDEX, 3_u16.to_ne_bytes().to_vec()),
            (PSAMPLE_ATTR_SAMPLE_GROUP, 20_094_u32.to_ne_bytes().to_vec()),
            (PSAMPLE_ATTR_DATA, b"a packet".to_vec()),
        ];
        let expected = Sample { group: 20_094, leaves_by: 3, frame: b"a packet".to_vec() };
        assert_eq!(sample(&message(NUMBER, &attributes), NUMBER), Some(expected));
        assert_eq!(sample(&message(NUMBER + 1, &attributes), NUMBER), None);
        assert_eq!(sample(&message(NUMBER, &attributes[..2]), NUMBER), None);
    }

    proptest! {
        #[test]
        fn no_datagram_makes_the_decoders_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            drop(family(&bytes));
            sample(&bytes, NUMBER);
            sample(&[&message(NUMBER, &[])[..], &bytes].concat(), NUMBER);
        }
    }
}
