//! What is laid over the links, for `status`: between whom, what it says, over what, and for how long still.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::render::table;
use crate::{
    plan::{Overlay, Wanted},
    topology::{Link, NodeName, hostlist},
    wire::NodeStatus,
};

/// Of how many pairs the links are compared, to say over what a change is laid.
const COMPARED: usize = 10_000;

/// One overlay in force.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct Laid {
    name: String,
    from: BTreeSet<NodeName>,
    to: BTreeSet<NodeName>,
    both_ways: bool,
    /// What it says, as the language writes it.
    says: String,
    /// The link that it is laid over, where that is one and the same for all pairs: empty for the bare LAN.
    over: Option<String>,
    /// In how many seconds the last node takes it off; `None`: not by itself.
    #[serde(rename = "left_s")]
    left: Option<f64>,
    #[serde(skip)]
    ends: String,
}

/// The overlays of the document in force, with the time that the nodes give them.
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
            ends: format!("{} {arrow} {}", word_for(wanted, &overlay.from), word_for(wanted, &overlay.to)),
        }
    };
    wanted.overlays.iter().enumerate().map(laid).collect()
}

/// The link under an overlay, if all pairs that it is about have the same one.
fn link_under(wanted: &Wanted, position: usize, overlay: &Overlay) -> Option<Link> {
    let there = overlay.from.iter().flat_map(|from| overlay.to.iter().map(move |to| (from, to)));
    let back = overlay.to.iter().flat_map(|from| overlay.from.iter().map(move |to| (from, to)));
    let back = overlay.both_ways.then_some(back).into_iter().flatten();
    let mut pairs = there.chain(back).filter(|(from, to)| from != to);
    let (from, to) = pairs.next()?;
    let link = wanted.link_under(from, to, position);
    let is_same = |(from, to): (&NodeName, &NodeName)| wanted.link_under(from, to, position) == link;
    let compared = pairs.by_ref().take(COMPARED).all(is_same);
    (compared && pairs.next().is_none()).then_some(link)
}

/// The shortest name that the nodes have together: a zone's, or a hostlist.
pub(super) fn word_for(wanted: &Wanted, nodes: &BTreeSet<NodeName>) -> String {
    let is_all = |zone: &&[NodeName]| zone.len() == nodes.len() && zone.iter().all(|node| nodes.contains(node));
    let zone = wanted.zones().into_iter().find(|(_, members)| is_all(members));
    match zone {
        Some((zone, _)) => zone.to_string(),
        None if nodes.len() == wanted.inventory.nodes.len() => "*".to_owned(),
        None => hostlist::fold(&nodes.iter().cloned().collect::<Vec<_>>()),
    }
}

/// A line for each.
pub(super) fn draw(styled: bool, overlays: &[Laid]) -> String {
    let header = ["CHANGE", "LINKS", "SAYS", "OVER", "TIME LEFT"];
    let row = |laid: &Laid| {
        let over = match laid.over.as_deref() {
            None => "different links",
            Some("") => "the LAN",
            Some(link) => link,
        };
        let left = laid.left.map_or_else(|| "-".to_owned(), time);
        vec![laid.name.clone(), laid.ends.clone(), laid.says.clone(), over.to_owned(), left]
    };
    table(styled, &header, overlays.iter().map(row).collect())
}

/// A time as people say it: `8.2 s`, `29 s`, `4 m 10 s`, `2 h 5 m`.
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
    fn a_time_is_said_in_the_units_that_matter() {
        assert_eq!([0.04, 8.23, 29.4, 250.0, 7_500.0].map(time), ["0.0 s", "8.2 s", "29 s", "4 m 10 s", "2 h 5 m"]);
    }
}
