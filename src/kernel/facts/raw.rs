//! Asks families of netlink that have no types of their own here: ethtool by generic netlink, and nftables.

use std::{collections::BTreeSet, io};

use nix::errno::Errno;
use rtnetlink::{
    packet_core::{NLM_F_DUMP, NLM_F_REQUEST},
    sys::{Socket, SocketAddr, protocols::NETLINK_GENERIC},
};

use crate::kernel::{
    bytes::{Attribute, attributes, find, nested, u16_at, u32_at},
    socket::{HEADER, messages},
};

// include/uapi/linux/netlink.h, genetlink.h
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const GENL_ID_CTRL: u16 = 16;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;

// include/uapi/linux/ethtool_netlink.h
const ETHTOOL_MSG_FEATURES_GET: u8 = 11;
const ETHTOOL_A_FEATURES_HEADER: u16 = 1;
const ETHTOOL_A_FEATURES_ACTIVE: u16 = 4;
const ETHTOOL_A_HEADER_DEV_NAME: u16 = 2;
const ETHTOOL_A_BITSET_BITS: u16 = 3;
const ETHTOOL_A_BITSET_BITS_BIT: u16 = 1;
const ETHTOOL_A_BITSET_BIT_NAME: u16 = 2;

/// Marks an attribute with attributes inside it.
const NLA_F_NESTED: u16 = 1 << 15;

/// The size of the buffer for a datagram, in bytes. The largest datagram of a dump has 32 KiB.
const DATAGRAM: usize = 64 * 1024;

/// A request of a family of netlink.
pub(super) struct Question {
    pub(super) protocol: isize,
    pub(super) kind: u16,
    pub(super) is_dump: bool,
    /// The family's own header.
    pub(super) header: [u8; 4],
    pub(super) attributes: Vec<Attribute>,
}

impl Question {
    fn bytes(&self) -> Vec<u8> {
        let body = nested(&self.attributes);
        let length = u32::try_from(HEADER + self.header.len() + body.len()).unwrap_or(u32::MAX);
        let flags = NLM_F_REQUEST | if self.is_dump { NLM_F_DUMP } else { 0 };
        let mut message = length.to_ne_bytes().to_vec();
        message.extend(self.kind.to_ne_bytes());
        message.extend(flags.to_ne_bytes());
        // The sequence number and the port.
        message.extend([0; 8]);
        message.extend(self.header);
        message.extend(body);
        message
    }

    /// The bodies of the answer's messages, with the family's header.
    pub(super) fn ask(&self) -> io::Result<Vec<Vec<u8>>> {
        let mut socket = Socket::new(self.protocol)?;
        socket.bind_auto()?;
        socket.send_to(&self.bytes(), &SocketAddr::new(0, 0), 0)?;
        let mut bodies = Vec::new();
        loop {
            let mut datagram = Vec::with_capacity(DATAGRAM);
            socket.recv(&mut datagram, 0)?;
            for message in messages(&datagram) {
                let message = message.ok_or_else(|| io::Error::other("netlink: a message is cut short"))?;
                let code = u32_at(message.bytes, HEADER).map_or(0, u32::cast_signed);
                match message.kind {
                    NLMSG_ERROR | NLMSG_DONE if code < 0 => return Err(Errno::from_raw(-code).into()),
                    NLMSG_ERROR | NLMSG_DONE => return Ok(bodies),
                    _ => bodies.push(message.bytes[HEADER..].to_vec()),
                }
            }
            if !self.is_dump {
                return Ok(bodies);
            }
        }
    }
}

/// The active features of an interface, as `ethtool -k` names them.
pub(super) fn features(interface: &str) -> io::Result<BTreeSet<String>> {
    let text = |text: &str| [text.as_bytes(), &[0]].concat();
    let ask = |kind, command, attributes| {
        let header = [command, 1, 0, 0];
        Question { protocol: NETLINK_GENERIC, kind, is_dump: false, header, attributes }.ask()
    };
    let answer = ask(GENL_ID_CTRL, CTRL_CMD_GETFAMILY, vec![(CTRL_ATTR_FAMILY_NAME, text("ethtool"))])
        .map_err(|error| io::Error::new(error.kind(), format!("ethtool netlink: {error}")))?;
    let family = answer.first().and_then(|body| u16_at(find(&attributes(body.get(4..)?), CTRL_ATTR_FAMILY_ID)?, 0));
    let family = family.ok_or_else(|| io::Error::other("ethtool netlink: unreadable answer"))?;
    let header = nested(&[(ETHTOOL_A_HEADER_DEV_NAME, text(interface))]);
    let answer = ask(family, ETHTOOL_MSG_FEATURES_GET, vec![(ETHTOOL_A_FEATURES_HEADER | NLA_F_NESTED, header)])
        .map_err(|error| io::Error::new(error.kind(), format!("ethtool -k {interface}: {error}")))?;
    Ok(answer.first().map(|body| active(body)).unwrap_or_default())
}

/// The names of the active features in an answer.
fn active(body: &[u8]) -> BTreeSet<String> {
    let inside = |list: &[Attribute], kind| find(list, kind).map(attributes).unwrap_or_default();
    let answer = attributes(body.get(4..).unwrap_or_default());
    let bits = inside(&inside(&answer, ETHTOOL_A_FEATURES_ACTIVE), ETHTOOL_A_BITSET_BITS);
    let bits = bits.iter().filter(|(kind, _)| *kind == ETHTOOL_A_BITSET_BITS_BIT).map(|(_, bit)| attributes(bit));
    bits.filter_map(|bit| Some(string(find(&bit, ETHTOOL_A_BITSET_BIT_NAME)?))).collect()
}

/// The text of a string attribute, which ends with a zero.
pub(super) fn string(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes.split(|byte| *byte == 0).next().unwrap_or_default()).into_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_names_of_active_features_are_read() {
        let bit = |name: &[u8]| {
            (ETHTOOL_A_BITSET_BITS_BIT | NLA_F_NESTED, nested(&[(ETHTOOL_A_BITSET_BIT_NAME, name.to_vec())]))
        };
        let bits = nested(&[bit(b"tx-tcp-segmentation\0"), bit(b"rx-gro\0")]);
        let set = nested(&[(ETHTOOL_A_BITSET_BITS | NLA_F_NESTED, bits)]);
        let body = [&[0; 4][..], &nested(&[(ETHTOOL_A_FEATURES_ACTIVE | NLA_F_NESTED, set)])].concat();
        assert_eq!(active(&body), BTreeSet::from(["rx-gro", "tx-tcp-segmentation"].map(str::to_owned)));
    }

    #[test]
    fn the_features_of_the_loopback_can_be_read_or_the_error_names_ethtool() {
        match features("lo") {
            Ok(features) => assert!(features.contains("loopback"), "{features:?}"),
            Err(error) => assert!(error.to_string().starts_with("ethtool"), "{error}"),
        }
    }

    proptest! {
        #[test]
        fn no_answer_makes_the_decoder_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            active(&bytes);
        }
    }
}
