//! Reads facts about the machine from /proc, /sys and netlink, for `netemctl doctor`. Writes nothing.
//!
//! Each fact is read by itself. A fact that cannot be read has the reason ([`Fact::NotKnown`]).

mod cpu;
mod modules;
mod netfilter;
mod raw;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    str::FromStr,
};

pub use cpu::time_facts;
pub use modules::{distribution, modules};
pub use netfilter::filtering;

use caps::{CapSet, Capability};
use nix::unistd::gettid;
use rtnetlink::packet_route::{
    AddressFamily, RouteNetlinkMessage,
    neighbour_table::{NeighbourTableAttribute, NeighbourTableMessage},
};

use super::{KernelError, Process, namespace::about, network_number, socket::Socket, tc::Request};
use crate::doctor::{Fact, NeighbourTable, Rights, TcpFacts, is_network_program};

/// The capabilities that an agent needs: `CAP_NET_ADMIN` to shape, and `CAP_NET_RAW` to measure and to reject.
pub const NEEDED_CAPABILITIES: [Capability; 2] = [Capability::CAP_NET_ADMIN, Capability::CAP_NET_RAW];

/// The sysctls that limit user namespaces: of every kernel, of Debian's kernels, and of `AppArmor`.
const USER_NAMESPACES: [&str; 3] =
    ["user.max_user_namespaces", "kernel.unprivileged_userns_clone", "kernel.apparmor_restrict_unprivileged_userns"];

/// The programs that synchronise a clock. The kernel cuts the names of programs after 15 bytes.
const SYNCHRONISERS: [&str; 6] = ["chronyd", "ntpd", "ntp-daemon", "systemd-timesyn", "ptp4l", "phc2sys"];

/// Reads a file. The error names the file.
fn read(path: &str) -> io::Result<String> {
    fs::read_to_string(path).map_err(|error| about(path, &error))
}

/// Reads a file that has only a number.
fn number<T: FromStr>(path: &str) -> io::Result<T> {
    read(path)?.trim().parse().map_err(|_| malformed(path))
}

fn malformed(path: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{path}: unknown format"))
}

/// The path of a sysctl.
fn sysctl(name: &str) -> String {
    format!("/proc/sys/{}", name.replace('.', "/"))
}

/// The value of a fact whose file may not exist. `None`: the file does not exist.
fn if_exists<T>(read: io::Result<T>) -> Option<Fact<T>> {
    match read {
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        read => Some(read.into()),
    }
}

/// The rights of this process.
pub fn rights() -> Rights {
    let lacks =
        |capability: Capability| Ok((!caps::has_cap(None, CapSet::Effective, capability)?).then_some(capability));
    let missing: Result<Vec<_>, caps::errors::CapsError> = NEEDED_CAPABILITIES.into_iter().map(lacks).collect();
    let missing =
        missing.map(|missing| missing.into_iter().flatten().map(|capability| capability.to_string()).collect());
    let limits = USER_NAMESPACES.into_iter();
    let limits = limits.filter_map(|name| Some((name.to_owned(), if_exists(number(&sysctl(name)))?)));
    Rights { missing_capabilities: missing.into(), user_namespaces: limits.collect() }
}

/// The sysctls of TCP in the network namespace of the calling thread, and the receive queues of the machine.
pub fn tcp_facts() -> TcpFacts {
    let three = |name: &str| -> io::Result<[u64; 3]> {
        let path = sysctl(name);
        let numbers: Result<Vec<u64>, _> = read(&path)?.split_whitespace().map(str::parse).collect();
        numbers.ok().and_then(|numbers| numbers.try_into().ok()).ok_or_else(|| malformed(&path))
    };
    TcpFacts {
        rmem: three("net.ipv4.tcp_rmem").into(),
        wmem: three("net.ipv4.tcp_wmem").into(),
        limit_output_bytes: number(&sysctl("net.ipv4.tcp_limit_output_bytes")).into(),
        backlog: number(&sysctl("net.core.netdev_max_backlog")).into(),
        backlog_drops: read("/proc/net/softnet_stat").and_then(|text| backlog_drops(&text)).into(),
    }
}

/// The sum of the second column: the packets that each CPU dropped (`softnet_seq_show`).
fn backlog_drops(text: &str) -> io::Result<u64> {
    let dropped = |line: &str| u64::from_str_radix(line.split_whitespace().nth(1)?, 16).ok();
    text.lines().map(dropped).sum::<Option<u64>>().ok_or_else(|| malformed("/proc/net/softnet_stat"))
}

/// The neighbour tables. Other network namespaces than the first do not show their limits in /proc/sys.
pub fn neighbour_tables() -> Fact<Vec<NeighbourTable>> {
    let tables = || -> Result<Vec<NeighbourTable>, KernelError> {
        let mut socket = Socket::open()?;
        let request = RouteNetlinkMessage::GetNeighbourTable(NeighbourTableMessage::default());
        let answer = socket.ask(&Request::dump(request))?;
        let answer = answer.map_err(|refusal| refusal.because("list the neighbour tables"))?;
        Ok(answer.iter().filter_map(neighbour_table).collect())
    };
    tables().into()
}

fn neighbour_table(message: &RouteNetlinkMessage) -> Option<NeighbourTable> {
    let RouteNetlinkMessage::NewNeighbourTable(message) = message else { return None };
    let is_v4 = match message.header.family {
        AddressFamily::Inet => true,
        AddressFamily::Inet6 => false,
        _ => return None,
    };
    let (mut soft, mut hard, mut entries) = (None, None, None);
    for attribute in &message.attributes {
        match attribute {
            NeighbourTableAttribute::Threshold2(limit) => soft = Some(*limit),
            NeighbourTableAttribute::Threshold3(limit) => hard = Some(*limit),
            NeighbourTableAttribute::Config(config) => entries = Some(config.entries),
            _ => {}
        }
    }
    // Further messages of a table have the parameters of one interface.
    Some(NeighbourTable { is_v4, soft_limit: soft?, hard_limit: hard?, entries: entries? })
}

/// The programs in the network namespace of the calling thread that change interfaces, qdiscs or sysctls.
pub fn programs() -> Fact<BTreeSet<String>> {
    let names = || {
        let own = network_number(std::process::id().cast_signed(), gettid().as_raw())?;
        let processes = Process::in_networks(|network| network == own)?;
        Ok::<_, io::Error>(
            processes.iter().map(Process::name).filter(|name| is_network_program(name)).map(str::to_owned).collect(),
        )
    };
    names().into()
}

/// The programs of this machine that synchronise its clock.
pub fn synchronisers() -> Fact<BTreeSet<String>> {
    let names = || {
        let mut found = BTreeSet::new();
        for entry in fs::read_dir("/proc").map_err(|error| about("/proc", &error))? {
            // A process may end during the search.
            let name = fs::read_to_string(entry?.path().join("comm")).unwrap_or_default();
            found.extend(SYNCHRONISERS.into_iter().filter(|known| *known == name.trim_end()).map(str::to_owned));
        }
        Ok::<_, io::Error>(found)
    };
    names().into()
}

/// The device of an interface.
pub struct Device {
    /// The driver of hardware.
    pub driver: Fact<String>,
    /// The number of transmit queues.
    pub tx_queues: Fact<usize>,
    /// The active features, as `ethtool -k` names them.
    pub features: Fact<BTreeSet<String>>,
}

/// Reads the device of an interface.
pub fn device(name: &str) -> Device {
    let folder = format!("/sys/class/net/{name}");
    let driver = || {
        let path = format!("{folder}/device/driver");
        let driver = fs::read_link(&path).map_err(|error| about(&path, &error))?;
        driver.file_name().map(|name| name.to_string_lossy().into_owned()).ok_or_else(|| malformed(&path))
    };
    let queues = || {
        let path = format!("{folder}/queues");
        let mut count = 0;
        for entry in fs::read_dir(&path).map_err(|error| about(&path, &error))? {
            count += usize::from(entry?.file_name().to_string_lossy().starts_with("tx-"));
        }
        Ok::<_, io::Error>(count)
    };
    Device { driver: driver().into(), tx_queues: queues().into(), features: raw::features(name).into() }
}

/// The lines `KEY=VALUE` of a file, without quotes.
fn assignments(text: &str) -> BTreeMap<&str, &str> {
    let pairs = text.lines().filter_map(|line| line.trim().split_once('='));
    pairs.map(|(key, value)| (key, value.trim_matches(['"', '\'']))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_drops_of_all_cpus_are_added() {
        assert_eq!(backlog_drops("0018008a 00000000 1\n00168fd7 0000001f 1\n").unwrap(), 31);
        assert!(backlog_drops("0018008a\n").is_err());
    }

    #[test]
    fn this_machine_has_neighbour_tables_and_sysctls_of_tcp() {
        let tables = neighbour_tables();
        assert!(tables.known().is_some_and(|tables| tables.iter().any(|table| table.is_v4)), "{tables:?}");
        let tcp = tcp_facts();
        assert!(tcp.rmem.known().is_some_and(|rmem| rmem[2] >= rmem[0]), "{tcp:?}");
        assert!(programs().known().is_some());
    }

    #[test]
    fn a_fact_that_cannot_be_read_has_its_reason_and_its_file() {
        let missing: Fact<u64> = number("/proc/sys/net/no-such-file").into();
        assert!(
            matches!(&missing, Fact::NotKnown(why) if why.starts_with("/proc/sys/net/no-such-file: ")),
            "{missing:?}"
        );
    }
}
