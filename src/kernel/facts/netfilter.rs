//! Reads firewalls and connection tracking of the network namespace of the calling thread.

use std::{collections::BTreeSet, io};

use nix::errno::Errno;
use rtnetlink::sys::protocols::NETLINK_NETFILTER;

use super::{
    if_exists, number,
    raw::{Question, string},
    read, sysctl,
};
use crate::{
    doctor::{Fact, Filtering, FirewallChain},
    kernel::bytes::{attributes, find},
};

// include/uapi/linux/netfilter/nfnetlink.h, nf_tables.h
const NFNL_SUBSYS_NFTABLES: u16 = 10;
const NFT_MSG_GETCHAIN: u16 = 4;
const NFTA_CHAIN_TABLE: u16 = 1;
const NFTA_CHAIN_NAME: u16 = 3;
const NFTA_CHAIN_HOOK: u16 = 4;
const NFTA_CHAIN_POLICY: u16 = 5;
const NF_DROP: u32 = 0;

/// The families of nftables (include/uapi/linux/netfilter.h).
const FAMILIES: [(u8, &str); 6] = [(1, "inet"), (2, "ip"), (3, "arp"), (5, "netdev"), (7, "bridge"), (10, "ip6")];

/// Reads firewalls and connection tracking.
pub fn filtering() -> Filtering {
    let tracking = |name: &str| if_exists(number(&sysctl(&format!("net.netfilter.{name}"))));
    Filtering {
        tracked: tracking("nf_conntrack_count"),
        tracked_limit: tracking("nf_conntrack_max"),
        chains: chains().into(),
        legacy_tables: legacy_tables().into(),
    }
}

fn chains() -> io::Result<Vec<FirewallChain>> {
    let question = Question {
        protocol: NETLINK_NETFILTER,
        kind: NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETCHAIN,
        is_dump: true,
        header: [0; 4],
        attributes: Vec::new(),
    };
    match question.ask() {
        Ok(answer) => Ok(answer.iter().filter_map(|body| chain(body)).collect()),
        // The kernel has no nftables: EINVAL for an unknown subsystem, or no netfilter netlink at all.
        Err(error) if matches!(errno(&error), Some(Errno::EINVAL | Errno::EPROTONOSUPPORT)) => Ok(Vec::new()),
        Err(error) => Err(io::Error::new(error.kind(), format!("nft list chains: {error}"))),
    }
}

fn errno(error: &io::Error) -> Option<Errno> {
    error.raw_os_error().map(Errno::from_raw)
}

/// The base chain in a message. Other chains have no hook.
fn chain(body: &[u8]) -> Option<FirewallChain> {
    let list = attributes(body.get(4..)?);
    find(&list, NFTA_CHAIN_HOOK)?;
    let family = FAMILIES.iter().find(|(number, _)| Some(number) == body.first()).map_or("family", |(_, name)| name);
    let name = |kind| find(&list, kind).map(string).unwrap_or_default();
    // The integers of nftables are big-endian.
    let policy = find(&list, NFTA_CHAIN_POLICY).and_then(|bytes| Some(u32::from_be_bytes(bytes.try_into().ok()?)));
    let name = format!("{family} {} {}", name(NFTA_CHAIN_TABLE), name(NFTA_CHAIN_NAME));
    Some(FirewallChain { name, drops: policy == Some(NF_DROP) })
}

/// The tables of the older interface of iptables. A table exists from its first use.
fn legacy_tables() -> io::Result<BTreeSet<String>> {
    let mut tables = BTreeSet::new();
    for (file, program) in [("/proc/net/ip_tables_names", "iptables"), ("/proc/net/ip6_tables_names", "ip6tables")] {
        match if_exists(read(file)) {
            Some(Fact::Known(names)) => tables.extend(names.lines().map(|name| format!("{program} {name}"))),
            Some(Fact::NotKnown(why)) => return Err(io::Error::other(why)),
            None => {}
        }
    }
    Ok(tables)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::kernel::bytes::nested;

    #[test]
    fn only_base_chains_are_listed_with_their_policy() {
        let message = |attributes: &[(u16, Vec<u8>)]| [&[1, 0, 0, 0][..], &nested(attributes)].concat();
        let name = [(NFTA_CHAIN_TABLE, b"filter\0".to_vec()), (NFTA_CHAIN_NAME, b"input\0".to_vec())];
        assert_eq!(chain(&message(&name)), None);
        let with = |more: Vec<(u16, Vec<u8>)>| chain(&message(&[name.to_vec(), more].concat()));
        let hook = (NFTA_CHAIN_HOOK, Vec::new());
        let named = |drops| Some(FirewallChain { name: "inet filter input".to_owned(), drops });
        assert_eq!(with(vec![hook.clone()]), named(false));
        assert_eq!(with(vec![hook.clone(), (NFTA_CHAIN_POLICY, 1_u32.to_be_bytes().to_vec())]), named(false));
        assert_eq!(with(vec![hook, (NFTA_CHAIN_POLICY, 0_u32.to_be_bytes().to_vec())]), named(true));
    }

    #[test]
    fn the_chains_of_this_kernel_can_be_read_or_the_error_names_the_command() {
        if let Err(error) = chains() {
            assert!(error.to_string().starts_with("nft list chains: "), "{error}");
        }
    }

    proptest! {
        #[test]
        fn no_message_makes_the_decoder_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            drop(chain(&bytes));
        }
    }
}
