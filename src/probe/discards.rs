//! The packets that the node's own kernel kept from leaving, as the kernel counts them.

use std::fs;

use crate::wire::Discards;

/// How many outgoing packets this network namespace has discarded so far, of both families: those that a firewall dropped
/// at output or postrouting, those that a queue refused (`OutDiscards` of RFC 4293). What cannot be read is 0: a kernel
/// without IPv6.
pub(super) fn read() -> Discards {
    // The namespace is that of the thread.
    let text = |name| fs::read_to_string(format!("/proc/thread-self/net/{name}")).unwrap_or_default();
    Discards { ipv4: of_snmp(&text("snmp")).unwrap_or_default(), ipv6: of_snmp6(&text("snmp6")).unwrap_or_default() }
}

/// In `snmp`, a line has the names and the next one the values.
fn of_snmp(text: &str) -> Option<u64> {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("Ip: ")).map(str::split_whitespace);
    let position = lines.next()?.position(|name| name == "OutDiscards")?;
    lines.next()?.nth(position)?.parse().ok()
}

/// In `snmp6`, a line has a name and its value.
fn of_snmp6(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("Ip6OutDiscards"))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_counters_are_found_by_their_names() {
        let snmp = "Ip: Forwarding InReceives OutDiscards OutNoRoutes\nIp: 2 123 45 0\nIcmp: InMsgs\nIcmp: 7\n";
        assert_eq!(of_snmp(snmp), Some(45));
        assert_eq!(of_snmp6("Ip6InReceives   \t12\nIp6OutDiscards                  \t9\n"), Some(9));
        assert_eq!((of_snmp("Ip: A\n"), of_snmp6("")), (None, None));
    }
}
