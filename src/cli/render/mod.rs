//! Drawing for people: matrices of pairs, tables, times.

mod matrix;
mod table;

pub(super) use matrix::{Axis, matrix};
pub(super) use table::table;

use std::net::IpAddr;

use crate::{plan::is_link_local, topology::Rtt};

/// An RTT in milliseconds with one decimal, as all measured times are shown.
pub(super) fn millis(rtt: Rtt) -> String {
    format!("{:.1}", rtt.as_nanos() as f64 / 1e6)
}

/// `1 node`, `2 nodes`, `2 addresses`.
pub(super) fn count(number: usize, noun: &str) -> String {
    let plural = if noun.ends_with('s') { "es" } else { "s" };
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}{plural}") }
}

/// A node's addresses for people, who do not use link-local ones.
pub(super) fn addresses(all: &[IpAddr]) -> String {
    let global = all.iter().filter(|address| !is_link_local(address));
    global.map(ToString::to_string).collect::<Vec<_>>().join(" ")
}
