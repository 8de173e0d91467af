//! Draws answers for people: matrices, tables, times, and errors of nodes.

pub(super) mod escape;
mod fit;
mod matrix;
mod table;

pub(super) use fit::{columns, fitted};
pub(super) use matrix::{Axis, grid, matrix};
pub(super) use table::table;

use std::{collections::BTreeMap, io::IsTerminal, net::IpAddr};

use super::NodeFailure;
use crate::{
    plan::{Profile, is_link_local},
    topology::{NodeName, Rtt, hostlist},
};

/// True if the stream is a terminal with colours, and the user has not disabled them (`NO_COLOR`: no-color.org).
pub(super) fn is_styled(stream: &impl IsTerminal) -> bool {
    let is_dumb = std::env::var_os("TERM").is_some_and(|terminal| terminal == "dumb");
    stream.is_terminal() && !is_dumb && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// An RTT in milliseconds with one decimal.
///
/// All measured times have this format.
pub(super) fn millis(rtt: Rtt) -> String {
    format!("{:.1}", rtt.as_nanos() as f64 / 1e6)
}

/// Groups nodes by their text: each text once, with its nodes, in the order of the nodes.
pub(super) fn by_text<'a>(
    said: impl IntoIterator<Item = (&'a NodeName, impl Into<String>)>,
) -> Vec<(String, Vec<NodeName>)> {
    let mut groups: BTreeMap<String, Vec<NodeName>> = BTreeMap::new();
    for (node, said) in said {
        groups.entry(said.into()).or_default().push(node.clone());
    }
    let mut groups: Vec<_> = groups.into_iter().collect();
    groups.sort_by(|(_, one), (_, other)| one.cmp(other));
    groups
}

/// Groups nodes by the reason of their error.
///
/// If only one node has a reason, the text is that node's whole error.
fn folded<'a>(said: impl IntoIterator<Item = (&'a NodeName, NodeFailure)>) -> Vec<(String, Vec<NodeName>)> {
    let said: Vec<_> = said.into_iter().collect();
    let text = |reason: &str, node: &NodeName| {
        let own = said.iter().find(|(other, said)| *other == node && said.reason == reason);
        own.map(|(_, said)| said.text.clone())
    };
    let groups = by_text(said.iter().map(|(node, said)| (*node, said.reason.clone())));
    let alone = |(reason, nodes): (String, Vec<NodeName>)| match nodes.as_slice() {
        [node] => (text(&reason, node).unwrap_or(reason), nodes),
        _ => (reason, nodes),
    };
    groups.into_iter().map(alone).collect()
}

/// Lines with the errors of nodes, each line once, with the names of its nodes.
pub(super) fn lines_of_nodes<'a>(said: impl IntoIterator<Item = (&'a NodeName, NodeFailure)>) -> String {
    folded(said).into_iter().map(|(said, nodes)| line_of_nodes(&said, &nodes) + "\n").collect()
}

/// A line with the names of nodes and their text.
pub(super) fn line_of_nodes(said: &str, nodes: &[NodeName]) -> String {
    format!("{}: {}", hostlist::fold(nodes), escape::on_one_line(said))
}

/// A number with its noun: `1 node`, `2 nodes`, `2 addresses`.
pub(super) fn count(number: usize, noun: &str) -> String {
    let plural = if noun.ends_with('s') { "es" } else { "s" };
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}{plural}") }
}

/// A node's addresses for people, without link-local addresses.
pub(super) fn addresses(all: &[IpAddr]) -> String {
    let global = all.iter().filter(|address| !is_link_local(address));
    global.map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

/// The parameters of a link in short: `75ms±5ms, 0.5% loss, 1gbit`.
pub(super) fn described(profile: &Profile) -> String {
    let jitter = profile.jitter.map(|jitter| format!("±{}", jitter.amount)).unwrap_or_default();
    let others = [
        profile.loss.map(|loss| format!("{}% loss", (loss.model.mean() * 1e6).round() / 1e4)),
        profile.corrupt.map(|chance| format!("{} corrupt", chance.probability)),
        profile.duplicate.map(|chance| format!("{} duplicate", chance.probability)),
        profile.reorder.map(|_| "reorder".to_owned()),
        profile.rate.filter(|_| !profile.is_ordered_by_rate()).map(|rate| rate.bits.to_string()),
        profile.slot.map(|_| "slot".to_owned()),
    ];
    let others = others.into_iter().flatten();
    others.fold(format!("{}{jitter}", profile.delay), |text, other| format!("{text}, {other}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_common_reason_is_shown_once_and_the_error_of_one_node_in_full() {
        let dead = |number: u32| {
            let reason = "no agent: Connection refused".to_owned();
            let text = format!("no agent at /run/n{number}.sock: Connection refused");
            (format!("n{number}").parse::<NodeName>().unwrap(), NodeFailure { text, reason })
        };
        let said: Vec<_> = (1..=20).map(dead).collect();
        let lines = |said: &[(NodeName, NodeFailure)]| folded(said.iter().map(|(node, said)| (node, said.clone())));
        let all = lines(&said);
        assert_eq!(all.len(), 1);
        assert_eq!(all[0].0, "no agent: Connection refused");
        assert_eq!(hostlist::fold(&all[0].1), "n[1-20]");
        assert_eq!(lines(&said[..1])[0].0, "no agent at /run/n1.sock: Connection refused");
    }
}
