//! Judges the memory and queues of the network stack against the topology's bandwidth-delay products and its size.

use super::{Check, Demand, Fact, Facts, Finding, Needs, NeighbourTable};
use crate::plan::{IfName, LineRate};

/// The least `tcp_limit_output_bytes` that has no effect: one full packet of TCP.
///
/// netem takes each delayed packet off the sender's account (`skb_orphan_partial` in `netem_enqueue`), so TCP Small
/// Queues do not limit a delayed link. Measured at 75 ms on Linux 6.1: 3.0 to 3.3 Gbit/s at 65,536, 262,144 and 1,048,576
/// bytes.
const LEAST_OUTPUT: u64 = 65_536;

/// The kernel's default of `netdev_max_backlog` (`net/core/hotdata.c`).
const DEFAULT_BACKLOG: u64 = 1_000;

/// The share of the receive buffer that becomes the window: `tcp_adv_win_scale` is 1. From Linux 6.6 on, the share
/// begins at this value (`TCP_DEFAULT_SCALING_RATIO`) and follows the packets.
const WINDOW_SHARE: u64 = 2;

/// The largest buffer that a remedy names: sysctls of TCP are 32-bit integers, and a window has 1 GiB at most (RFC 7323).
const LARGEST_BUFFER: u64 = 2_047 << 20;

pub(super) fn judge(facts: &Facts, interface: Option<&IfName>, needs: Option<&Needs>) -> Vec<Finding> {
    let tcp = &facts.tcp;
    let speed = facts.interfaces.iter().filter(|(name, _)| interface.is_none_or(|only| only == *name));
    let speed = speed.filter_map(|(_, fact)| fact.known()?.speed_mbit.known().copied()).max();
    let line = speed.map_or(LineRate::UNKNOWN, LineRate::from_mbit).mbit() * 1_000_000;
    let mut findings = vec![
        buffer(Check::TcpRmem, "tcp_rmem", &tcp.rmem, WINDOW_SHARE, needs.map(|needs| (needs, needs.received)), line),
        // Data in flight stay in the send buffer until they are acknowledged.
        buffer(Check::TcpWmem, "tcp_wmem", &tcp.wmem, 1, needs.map(|needs| (needs, needs.sent)), line),
        output(&tcp.limit_output_bytes),
        backlog(&tcp.backlog, &tcp.backlog_drops),
    ];
    match &facts.neighbours {
        Fact::Known(tables) => findings.extend(tables.iter().map(|table| neighbours(table, needs))),
        Fact::NotKnown(why) => findings.push(Check::Neighbours.not_known("the neighbour tables", why)),
    }
    findings
}

/// Judges the largest buffer of a connection: one connection has at most one window in flight, so its rate is at most
/// the window divided by the RTT.
fn buffer(
    check: Check,
    name: &str,
    fact: &Fact<[u64; 3]>,
    share: u64,
    needs: Option<(&Needs, Option<Demand>)>,
    line: u64,
) -> Finding {
    check.of(&format!("net.ipv4.{name}"), fact, |[least, usual, most]| {
        let window = most / share;
        let ceiling =
            |rtt: u64| u64::try_from(u128::from(window) * 8_000_000_000 / u128::from(rtt.max(1))).unwrap_or(u64::MAX);
        let remedy = |demand: Demand| {
            // The next multiple of 1 MiB, so that nodes with similar links have the same command.
            let bytes = demand.product().saturating_mul(share).clamp(1, LARGEST_BUFFER).next_multiple_of(1 << 20);
            format!("sysctl -w net.ipv4.{name}='{least} {usual} {}'", bytes.max(*most))
        };
        let text = |demand: Demand| {
            format!("{name} limits one TCP connection to {} at {} RTT", rate(ceiling(demand.rtt)), millis(demand.rtt))
        };
        let Some((needs, rated)) = needs else {
            return check.ok(format!("{name} is at most {most} bytes; give --topology FILE to compare it"));
        };
        if let Some(demand) = rated.filter(|demand| demand.product() > window) {
            return check
                .problem(format!("{}; the link has {}", text(demand), rate(demand.rate)))
                .effect("one connection does not fill the link, so the experiment measures the buffer")
                .remedy(remedy(demand));
        }
        let open = needs.longest_rtt.map(|rtt| Demand { rate: line, rtt });
        match open.filter(|demand| demand.product() > window) {
            Some(demand) => check
                .note(text(demand))
                .effect(format!(
                    "one connection does not fill the interface ({}), the only limit of a link without a rate",
                    rate(line)
                ))
                .remedy(remedy(demand)),
            None => check.ok(format!("{name} is large enough for one connection on every link")),
        }
    })
}

fn output(fact: &Fact<u64>) -> Finding {
    Check::TcpOutput.of("net.ipv4.tcp_limit_output_bytes", fact, |bytes| {
        if *bytes >= LEAST_OUTPUT {
            return Check::TcpOutput.ok("tcp_limit_output_bytes does not limit delayed links");
        }
        Check::TcpOutput
            .note(format!("tcp_limit_output_bytes is {bytes}, less than one full packet of TCP"))
            .effect("TCP sends smaller packets, so the CPU limits the throughput earlier")
            .remedy("sysctl -w net.ipv4.tcp_limit_output_bytes=1048576")
    })
}

/// Judges the receive queues by the packets that they dropped. netem sends packets one by one, each at its time, so the
/// bandwidth-delay product does not fill these queues; bursts at the speed of the interface do.
fn backlog(limit: &Fact<u64>, drops: &Fact<u64>) -> Finding {
    let remedy = |limit: u64| format!("sysctl -w net.core.netdev_max_backlog={limit}");
    let lost = "losses that the topology does not have";
    match (drops, limit) {
        (Fact::Known(1..), _) => Check::Backlog
            .note("packets were dropped since boot because the receive queue of a CPU was full")
            .effect(lost)
            .remedy(remedy(limit.known().map_or(10 * DEFAULT_BACKLOG, |limit| limit.saturating_mul(10)))),
        (_, Fact::Known(limit)) if *limit < DEFAULT_BACKLOG => Check::Backlog
            .note(format!("netdev_max_backlog is {limit}, below the kernel's default"))
            .effect(lost)
            .remedy(remedy(DEFAULT_BACKLOG)),
        (Fact::NotKnown(why), _) => Check::Backlog.not_known("the drops of the receive queues", why),
        _ => Check::Backlog.ok("no receive queue of a CPU dropped a packet since boot"),
    }
}

/// Judges a neighbour table (`neigh/default/gc_thresh2` and `gc_thresh3` of Documentation/networking/ip-sysctl.rst). All
/// network namespaces of a machine share a table.
fn neighbours(table: &NeighbourTable, needs: Option<&Needs>) -> Finding {
    let (protocol, family) = if table.is_v4 { ("ARP", "ipv4") } else { ("NDP", "ipv6") };
    let needed = needs.map_or(0, |needs| needs.neighbours[usize::from(!table.is_v4)]);
    let (soft, hard) = (table.soft_limit as usize, table.hard_limit as usize);
    // Twice the nodes, because the host has other neighbours, too.
    let room = (2 * needed).next_power_of_two().max(1_024);
    let sysctl = |name: &str, value: usize| format!("net.{family}.neigh.default.{name}={value}");
    let remedy = format!("sysctl -w {} {}", sysctl("gc_thresh3", room), sysctl("gc_thresh2", room / 2));
    if needed > hard {
        return Check::Neighbours
            .problem(format!("the {protocol} table has room for {hard} neighbours; the node has {needed}"))
            .effect("packets to the other nodes are lost, unless their entries are permanent")
            .remedy(remedy);
    }
    if needed > soft {
        return Check::Neighbours
            .note(format!("the {protocol} table keeps {soft} neighbours; the node has {needed}"))
            .effect("entries older than 5 s are removed and asked for again, which delays packets")
            .remedy(remedy);
    }
    Check::Neighbours.ok(format!("the {protocol} table has room for {hard} neighbours"))
}

/// A rate with three digits at most.
fn rate(bits: u64) -> String {
    let in_unit = |unit: f64, name: &str| {
        let value = bits as f64 / unit;
        let decimals = if value < 10.0 { 2 } else { usize::from(value < 100.0) };
        let text = format!("{value:.decimals$}");
        let text = if decimals > 0 { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text };
        format!("{text} {name}")
    };
    match bits {
        0..1_000_000 => in_unit(1e3, "kbit/s"),
        1_000_000..1_000_000_000 => in_unit(1e6, "Mbit/s"),
        _ => in_unit(1e9, "Gbit/s"),
    }
}

fn millis(nanos: u64) -> String {
    format!("{} ms", (nanos as f64 / 1e4).round() / 1e2)
}
