//! The overlays in force, as `status` shows them: nodes, parameters, the link under the overlay, and the time left.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::render::table;
use crate::{
    plan::{Overlay, Wanted},
    topology::{Link, NodeName, hostlist},
    wire::NodeStatus,
};

/// The maximum number of pairs whose links are compared, to find the common link under an overlay.
const MAX_COMPARED: usize = 10_000;

/// One overlay in force.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct Laid {
    name: String,
    from: BTreeSet<NodeName>,
    to: BTreeSet<NodeName>,
    both_ways: bool,
    /// The parameters of the overlay, as in a topology file.
    says: String,
    /// The link under the overlay, empty for the bare LAN; `None`: the pairs of nodes have different links.
    over: Option<String>,
    /// The seconds until the last node ends the overlay; `None`: no time limit.
    #[serde(rename = "left_s")]
    left: Option<f64>,
    #[serde(skip)]
    links: String,
}

/// The overlays of the document in force, with the time left that the nodes report.
pub(super) fn laid(wanted: &Wanted, nodes: &BTreeMap<NodeName, NodeStatus>) -> Vec<Laid> {
    let laid = |(position, overlay): (usize, &Overlay)| {
        let at_nodes = nodes.values().flat_map(|status| &status.overlays).filter(|other| other.name == overlay.name);
        let arrow = if overlay.both_ways { "↔" } else { "→" };
        Laid {
            name: overlay.name.clone(),
            from: overlay.from.clone(),
            to: overlay.to.clone(),
            both_ways: overlay.both_ways,
            says: overlay.change.source().text.lines().collect::<Vec<_>>().join(", "),
            over: link_under(wanted, position, overlay).map(|link| link.notation()),
            left: at_nodes.filter_map(|status| status.left).max_by(f64::total_cmp),
            links: format!("{} {arrow} {}", word_for(wanted, &overlay.from), word_for(wanted, &overlay.to)),
        }
    };
    wanted.overlays.iter().enumerate().map(laid).collect()
}

/// The link under an overlay; `None`: the pairs have different links, or there are too many pairs to compare.
fn link_under(wanted: &Wanted, position: usize, overlay: &Overlay) -> Option<Link> {
    let senders = wanted.inventory.nodes.keys();
    let mut pairs = senders.flat_map(|from| overlay.receivers(from).map(move |to| (from, to)));
    let (from, to) = pairs.next()?;
    let link = wanted.link_under(from, to, position);
    let is_same = |(from, to): (&NodeName, &NodeName)| wanted.link_under(from, to, position) == link;
    let compared = pairs.by_ref().take(MAX_COMPARED).all(is_same);
    (compared && pairs.next().is_none()).then_some(link)
}

/// The shortest name for a set of nodes: a zone, `*` for all nodes, or a hostlist.
pub(super) fn word_for(wanted: &Wanted, nodes: &BTreeSet<NodeName>) -> String {
    let is_all = |zone: &&[NodeName]| zone.len() == nodes.len() && zone.iter().all(|node| nodes.contains(node));
    let zone = wanted.zones().into_iter().find(|(_, members)| is_all(members));
    match zone {
        Some((zone, _)) => zone.to_string(),
        None if nodes.len() == wanted.inventory.nodes.len() => "*".to_owned(),
        None => hostlist::fold(nodes),
    }
}

/// Draws a table with a line for each overlay.
pub(super) fn draw(overlays: &[Laid]) -> String {
    let header = ["CHANGE", "LINKS", "PARAMETERS", "REPLACES", "TIME LEFT"];
    let row = |laid: &Laid| {
        let over = match laid.over.as_deref() {
            None => "different links",
            Some("") => "the LAN",
            Some(link) => link,
        };
        let left = laid.left.map(time).unwrap_or_default();
        vec![laid.name.clone(), laid.links.clone(), laid.says.clone(), over.to_owned(), left]
    };
    table(&header, overlays.iter().map(row))
}

/// A time in units that suit its length: `8.2 s`, `29 s`, `4 m 10 s`, `2 h 5 m`.
pub(super) fn time(seconds: f64) -> String {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a time that is left is at most a year"
    )]
    let whole = seconds.round() as u64;
    match whole {
        0..10 => format!("{seconds:.1} s"),
        10..120 => format!("{whole} s"),
        120..7_200 => format!("{} m {} s", whole / 60, whole % 60),
        _ => format!("{} h {} m", whole / 3_600, whole % 3_600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_units_that_suit_its_length() {
        assert_eq!([0.04, 8.23, 29.4, 250.0, 7_500.0].map(time), ["0.0 s", "8.2 s", "29 s", "4 m 10 s", "2 h 5 m"]);
    }
}
