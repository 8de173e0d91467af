//! The report as CSV (RFC 4180): a line for each ordered pair and address. docs/verify.md lists the columns.

use std::collections::HashMap;

use super::{Document, figures::lost};
use crate::{
    probe::{Measured, Pair},
    topology::{NodeName, Rtt},
};

const COLUMNS: [&str; 26] = [
    "from",
    "to",
    "from_zone",
    "to_zone",
    "address",
    "verdict",
    "wanted_rtt_ms",
    "median_rtt_ms",
    "p1_rtt_ms",
    "p99_rtt_ms",
    "error_ms",
    "allowed_early_ms",
    "allowed_late_ms",
    "deviation_ms",
    "wanted_deviation_ms",
    "one_way_ms",
    "wanted_one_way_ms",
    "one_way_error_ms",
    "requests_sent",
    "requests_arrived",
    "requests_lost",
    "loss_low_percent",
    "loss_high_percent",
    "wanted_loss_percent",
    "duplicates",
    "reordered",
];

pub(super) fn table(document: &Document<'_>) -> String {
    let zones: HashMap<&NodeName, &str> = (document.zones.iter())
        .flat_map(|zone| zone.nodes.iter().map(|node| (node, zone.name.as_deref().unwrap_or_default())))
        .collect();
    let mut text = COLUMNS.join(",") + "\r\n";
    for pair in &document.report.pairs {
        for measured in &pair.measured {
            let cells = row(pair, measured, &zones).map(|cell| quoted(&cell));
            text += &(cells.join(",") + "\r\n");
        }
    }
    text
}

fn row(pair: &Pair, measured: &Measured, zones: &HashMap<&NodeName, &str>) -> [String; COLUMNS.len()] {
    let zone = |node: &NodeName| zones.get(node).copied().unwrap_or_default().to_owned();
    let ms = |nanos: Option<f64>| nanos.map(|nanos| format!("{}", nanos / 1e6)).unwrap_or_default();
    let percent = |share: f64| format!("{}", (share * 1e6).round() / 1e4);
    let [low, high] = measured.loss_interval;
    let rtt = |nanos: Option<u64>| ms(nanos.map(|nanos| nanos as f64));
    [
        pair.from.to_string(),
        pair.to.to_string(),
        zone(&pair.from),
        zone(&pair.to),
        measured.address.to_string(),
        pair.verdict.to_string(),
        rtt(pair.wanted.map(Rtt::as_nanos)),
        rtt(measured.median.map(Rtt::as_nanos)),
        rtt(measured.p1.map(Rtt::as_nanos)),
        rtt(measured.p99.map(Rtt::as_nanos)),
        ms(measured.error_ns.map(|error| error as f64)),
        rtt(measured.allowed_early_ns),
        rtt(measured.allowed_error_ns),
        rtt(measured.deviation_ns),
        rtt(pair.wanted.map(|_| pair.wanted_deviation_ns)),
        ms(measured.one_way_ns.map(|delay| delay as f64)),
        rtt(pair.wanted_one_way.map(Rtt::as_nanos)),
        ms(measured.one_way_error_ns.map(|error| error as f64)),
        measured.sent.to_string(),
        measured.arrived.to_string(),
        lost(measured).to_string(),
        percent(low),
        percent(high),
        percent(pair.wanted_loss),
        measured.duplicates.to_string(),
        measured.reordered.to_string(),
    ]
}

/// A cell in quotation marks, if it has a character with a meaning in CSV.
fn quoted(cell: &str) -> String {
    if cell.contains([',', '"', '\r', '\n']) { format!("\"{}\"", cell.replace('"', "\"\"")) } else { cell.to_owned() }
}
