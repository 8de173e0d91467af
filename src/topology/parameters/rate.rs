//! `rate`, with the overheads that count against it and what it belongs to.

use std::ops::RangeInclusive;

use super::{
    super::{
        diagnostic::Finding,
        link::{Rate, RatePer},
        patch::Said,
        reader::{Table, TableEntry},
        suggest,
        units::{BitRate, Bytes},
    },
    is_of_none, needs,
    quantity::{quantity, quantity_or},
    said,
};

/// What a packet can be relieved of: more than a frame's Ethernet and IPv4 headers would make the smallest packets
/// less than nothing, which the kernel takes for a very long one (`packet_time_ns`).
const LEAST_OVERHEAD: i32 = -34;

/// No link has larger cells or overheads: the size of the largest packet.
const MOST_BYTES: i32 = 65_535;

/// Takes `rate` and its companions.
pub(super) fn take(table: &mut Table<'_>, findings: &mut Vec<Finding>) -> Option<Said<(Option<Rate>, RatePer)>> {
    let entry = table.take("rate");
    let companions = ["packet-overhead", "cell-size", "cell-overhead", "rate-per"].map(|key| table.take(key));
    let bits = entry.map(|entry| quantity_or::<BitRate>("unlimited", entry, findings));
    for companion in companions.into_iter().flatten() {
        match (entry, bits) {
            (None, _) => needs(companion, "`rate`", "write `rate = \"1gbit\"` in the same table", findings),
            (Some(entry), Some(Ok(None))) => is_of_none(companion, entry, findings),
            _ => {}
        }
    }
    let [packet_overhead, cell_size, cell_overhead, per] = companions;
    if let (Some(overhead), None) = (cell_overhead, cell_size) {
        needs(
            overhead,
            "`cell-size`",
            "cells of ATM, for one, are `cell-size = \"48B\"`, `cell-overhead = \"5B\"`",
            findings,
        );
    }
    let packet_overhead = or_none(packet_overhead, LEAST_OVERHEAD..=MOST_BYTES, findings);
    let cell_size_value = or_none(cell_size, 1..=MOST_BYTES, findings);
    let least = cell_size_value.map_or(-MOST_BYTES, |size| 1 - size.get());
    let cell_overhead = or_none(cell_overhead, least..=MOST_BYTES, findings);
    let per = per.map_or(Some(RatePer::Node), |entry| read_per(entry, findings));
    let (entry, bits) = (entry?, bits?.ok()?);
    let (packet_overhead, cell_size, cell_overhead) = (packet_overhead?, cell_size_value?, cell_overhead?);
    let rate = bits.map(|bits| Rate { bits, packet_overhead, cell_size, cell_overhead });
    Some(said(entry, (rate, per?)))
}

fn or_none(entry: Option<TableEntry<'_>>, range: RangeInclusive<i32>, findings: &mut Vec<Finding>) -> Option<Bytes> {
    let Some(entry) = entry else { return Some(Bytes::new(0)) };
    let bytes: Bytes = quantity(entry, findings)?;
    if range.contains(&bytes.get()) {
        return Some(bytes);
    }
    let (least, most) = range.into_inner();
    let message = format!("`{}` is between {least}B and {most}B", entry.key());
    findings.push(Finding::new(entry.value().span(), message).help(match entry.key() {
        "packet-overhead" => "the smallest packet, an Ethernet and an IPv4 header, has 34 bytes",
        "cell-size" => "leave it out where there are no cells",
        _ => "a cell takes at least one byte, its overhead included",
    }));
    None
}

fn read_per(entry: TableEntry<'_>, findings: &mut Vec<Finding>) -> Option<RatePer> {
    let word = entry.string(findings)?;
    match *word.get_ref() {
        "node" => Some(RatePer::Node),
        "zone" => Some(RatePer::Zone),
        other => {
            let meant = suggest::nearest(other, ["node", "zone"]);
            findings.push(
                Finding::new(word.span(), format!("a rate is not per `{other}`"))
                    .label(meant.map(|word| format!("did you mean \"{word}\"?")).unwrap_or_default())
                    .help("write \"node\" (each pair of nodes has its own) or \"zone\" (a node's links to one zone share it)"),
            );
            None
        }
    }
}
