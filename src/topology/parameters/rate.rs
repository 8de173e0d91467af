//! Reads `rate`, the overheads that count against the rate, and `rate-per`.

use std::ops::RangeInclusive;

use super::{
    super::{
        diagnostic::Finding,
        link::{Rate, RatePer},
        patch::Setting,
        reader::{Table, TableEntry},
        units::{BitRate, Bytes},
    },
    missing, no_effect,
    number::{quantity, quantity_or},
    setting,
};

/// The smallest packet overhead. The smallest packet has 34 bytes: an Ethernet header and an IPv4 header.
///
/// A smaller overhead would make packet sizes negative. The kernel reads a negative size as a very large size
/// (`packet_time_ns`).
const LEAST_OVERHEAD: i32 = -34;

/// The largest cell size and the largest overhead: the size of the largest packet.
const MOST_BYTES: i32 = 65_535;

/// Takes `rate`, `packet-overhead`, `cell-size`, `cell-overhead` and `rate-per`.
pub(super) fn take(table: &mut Table<'_>, findings: &mut Vec<Finding>) -> Option<Setting<(Option<Rate>, RatePer)>> {
    let entry = table.take("rate");
    let companions = ["packet-overhead", "cell-size", "cell-overhead", "rate-per"].map(|key| table.take(key));
    let bits = entry.map(|entry| quantity_or::<BitRate>("unlimited", entry, findings));
    for companion in companions.into_iter().flatten() {
        findings.extend(match (entry, bits) {
            (None, _) => Some(missing(companion, "`rate`", "write `rate = \"1gbit\"` in the same table")),
            (Some(entry), Some(Ok(None))) => Some(no_effect(companion, entry)),
            _ => None,
        });
    }
    let [packet_overhead, cell_size, cell_overhead, per] = companions;
    if let (Some(overhead), None) = (cell_overhead, cell_size) {
        let help = "cells of ATM, for example, are `cell-size = \"48B\"`, `cell-overhead = \"5B\"`";
        missing(overhead, "`cell-size`", help).report(findings);
    }
    let packet_overhead = bytes(packet_overhead, LEAST_OVERHEAD..=MOST_BYTES, findings);
    let cell_size = bytes(cell_size, 1..=MOST_BYTES, findings);
    let least = cell_size.map_or(-MOST_BYTES, |size| 1 - size.get());
    let cell_overhead = bytes(cell_overhead, least..=MOST_BYTES, findings);
    let per = per.map_or(Some(RatePer::Node), |entry| {
        let help = "\"node\": each pair of nodes has its own rate; \"zone\": a node's links to one zone share it";
        entry.choice("a string", &[("node", RatePer::Node), ("zone", RatePer::Zone)], help, findings)
    });
    let (entry, bits) = (entry?, bits?.ok()?);
    let (packet_overhead, cell_size, cell_overhead) = (packet_overhead?, cell_size?, cell_overhead?);
    let rate = bits.map(|bits| Rate { bits, packet_overhead, cell_size, cell_overhead });
    Some(setting(entry, (rate, per?)))
}

/// Reads a number of bytes in a range; 0 if the key is missing.
fn bytes(entry: Option<TableEntry<'_>>, range: RangeInclusive<i32>, findings: &mut Vec<Finding>) -> Option<Bytes> {
    let Some(entry) = entry else { return Some(Bytes::new(0)) };
    let bytes: Bytes = quantity(entry, findings)?;
    if range.contains(&bytes.get()) {
        return Some(bytes);
    }
    let (least, most) = range.into_inner();
    let message = format!("`{}` is between {least}B and {most}B", entry.key());
    Finding::new(entry.value().span(), message)
        .help(match entry.key() {
            "packet-overhead" => "the smallest packet, with an Ethernet and an IPv4 header, has 34 bytes",
            "cell-size" => "leave it out if the link has no cells",
            _ => "a cell takes at least one byte, with its overhead",
        })
        .refuse(findings)
}
