//! Receives samples of packets from the kernel, by generic netlink (`net/psample/psample.c`).

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
};

use nix::errno::Errno;
use rtnetlink::{
    packet_core::NLM_F_REQUEST,
    sys::{Socket, SocketAddr, protocols::NETLINK_GENERIC},
};

use super::{
    bytes::{attributes, find, nested, u16_at, u32_at},
    socket::HEADER,
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

/// The total length of `struct nlmsghdr` and `struct genlmsghdr`.
const HEADERS: usize = HEADER + 4;

/// The size of the buffer for a datagram, in bytes. Our samples are shorter.
const DATAGRAM: usize = 8 * 1024;

/// A socket for all samples of its network namespace, including the samples for other programs.
pub(super) struct Samples {
    socket: Socket,
    family: u16,
}

/// A sampled packet.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Sample {
    /// The sample group.
    pub(super) group: u32,
    /// The lower 16 bits of the index of the outgoing interface.
    pub(super) leaves_by: u16,
    /// The beginning of the packet, link-layer header first.
    pub(super) frame: Vec<u8>,
}

impl Samples {
    /// Opens a socket in the network namespace of the calling thread.
    ///
    /// Fails with `ENOENT` until the kernel has loaded the psample module. The first filter with a sample loads the
    /// module.
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

    /// The next sample. `None`: another message. `WouldBlock`: no message.
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

/// The request for the numbers of the psample family and of its multicast groups.
fn request() -> Vec<u8> {
    let attributes = nested(&[(CTRL_ATTR_FAMILY_NAME, FAMILY.to_vec())]);
    let length = u32::try_from(HEADERS + attributes.len()).unwrap_or(u32::MAX);
    let mut message = length.to_ne_bytes().to_vec();
    message.extend(GENL_ID_CTRL.to_ne_bytes());
    message.extend(NLM_F_REQUEST.to_ne_bytes());
    // The sequence number and the port, then the command, its version and two reserved bytes.
    message.extend([0; 8]);
    message.extend([CTRL_CMD_GETFAMILY, 1, 0, 0]);
    message.extend(attributes);
    message
}

/// The numbers of the psample family and of its multicast group for packets.
pub(super) fn family(answer: &[u8]) -> io::Result<(u16, u32)> {
    if kind(answer) == Some(NLMSG_ERROR) {
        let code = u32_at(answer, HEADER).map(u32::cast_signed);
        return Err(code.map_or(Errno::ENOENT, |code| Errno::from_raw(code.wrapping_neg())).into());
    }
    let answer = attributes(answer.get(HEADERS..).unwrap_or_default());
    let family = find(&answer, CTRL_ATTR_FAMILY_ID).and_then(|number| u16_at(number, 0));
    let groups = attributes(find(&answer, CTRL_ATTR_MCAST_GROUPS).unwrap_or_default());
    let group = groups.iter().map(|(_, group)| attributes(group)).find_map(|group| {
        let is_packets = find(&group, CTRL_ATTR_MCAST_GRP_NAME) == Some(PACKETS);
        u32_at(find(&group, CTRL_ATTR_MCAST_GRP_ID).filter(|_| is_packets)?, 0)
    });
    family.zip(group).ok_or_else(|| Errno::ENOENT.into())
}

/// The sample in a datagram of the psample family.
pub(super) fn sample(datagram: &[u8], family: u16) -> Option<Sample> {
    let attributes = attributes(datagram.get(HEADERS..).filter(|_| kind(datagram) == Some(family))?);
    Some(Sample {
        group: u32_at(find(&attributes, PSAMPLE_ATTR_SAMPLE_GROUP)?, 0)?,
        leaves_by: u16_at(find(&attributes, PSAMPLE_ATTR_OIFINDEX)?, 0)?,
        frame: find(&attributes, PSAMPLE_ATTR_DATA)?.to_vec(),
    })
}

/// The type of a message.
fn kind(message: &[u8]) -> Option<u16> {
    u16_at(message, 4)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NUMBER: u16 = 28;

    fn message(kind: u16, attributes: &[(u16, Vec<u8>)]) -> Vec<u8> {
        let body = nested(attributes);
        let length = u32::try_from(HEADERS + body.len()).unwrap();
        [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), &[0; 14], &body].concat()
    }

    #[test]
    fn the_request_has_the_name_of_the_family() {
        let mut expected = vec![32, 0, 0, 0, 16, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3, 1, 0, 0, 12, 0, 2, 0];
        expected.extend(b"psample\0");
        assert_eq!(request(), expected);
    }

    #[test]
    fn the_multicast_group_for_packets_is_found() {
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
    fn a_sample_has_a_group_an_interface_and_a_packet() {
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
