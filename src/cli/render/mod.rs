//! Drawing for people: matrices of pairs, tables, times.

pub(super) mod escape;
mod matrix;
mod table;

pub(super) use matrix::{Axis, matrix};
pub(super) use table::table;

use std::{collections::BTreeMap, net::IpAddr};

use crate::{
    plan::is_link_local,
    topology::{NodeName, Rtt},
};

/// An RTT in milliseconds with one decimal, as all measured times are shown.
pub(super) fn millis(rtt: Rtt) -> String {
    format!("{:.1}", rtt.as_nanos() as f64 / 1e6)
}

/// What nodes say, each thing once with the nodes that say it; in the order of the nodes.
pub(super) fn by_saying<'a>(
    said: impl IntoIterator<Item = (&'a NodeName, impl Into<String>)>,
) -> Vec<(String, Vec<NodeName>)> {
    let mut sayings: BTreeMap<String, Vec<NodeName>> = BTreeMap::new();
    for (node, said) in said {
        sayings.entry(said.into()).or_default().push(node.clone());
    }
    let mut sayings: Vec<_> = sayings.into_iter().collect();
    sayings.sort_by(|(_, one), (_, other)| one.cmp(other));
    sayings
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
