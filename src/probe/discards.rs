//! Reads the kernel's counters of dropped outgoing packets.

use std::fs;

use crate::wire::Discards;

/// The outgoing packets that this network namespace has dropped so far: by a firewall at output or postrouting, or by a
/// full queue (`OutDiscards`, RFC 4293). Zero if there is no counter, as on a kernel without IPv6.
pub(super) fn read() -> Discards {
    // Each thread may be in another network namespace.
    let text = |name| fs::read_to_string(format!("/proc/thread-self/net/{name}")).unwrap_or_default();
    Discards { ipv4: of_snmp(&text("snmp")).unwrap_or_default(), ipv6: of_snmp6(&text("snmp6")).unwrap_or_default() }
}

/// `snmp` has a line of names and a line of values.
fn of_snmp(text: &str) -> Option<u64> {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("Ip: ")).map(str::split_whitespace);
    let position = lines.next()?.position(|name| name == "OutDiscards")?;
    lines.next()?.nth(position)?.parse().ok()
}

/// `snmp6` has a name and a value in each line.
fn of_snmp6(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("Ip6OutDiscards"))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counters_are_found_by_name() {
        let snmp = "Ip: Forwarding InReceives OutDiscards OutNoRoutes\nIp: 2 123 45 0\nIcmp: InMsgs\nIcmp: 7\n";
        assert_eq!(of_snmp(snmp), Some(45));
        assert_eq!(of_snmp6("Ip6InReceives   \t12\nIp6OutDiscards                  \t9\n"), Some(9));
        assert_eq!((of_snmp("Ip: A\n"), of_snmp6("")), (None, None));
    }
}
