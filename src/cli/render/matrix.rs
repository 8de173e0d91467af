//! A matrix of ordered pairs that fits on a terminal: by node while there are few, by zone beyond.

use super::table;
use crate::topology::{NodeName, Topology, hostlist};

/// Up to how many nodes each has a row of its own.
const SINGLE_ROWS: usize = 12;

/// What a row and a column stand for: one node, or all nodes of a zone.
pub(in crate::cli) struct Axis {
    label: String,
    nodes: Vec<NodeName>,
}

impl Axis {
    /// The rows for `nodes`, grouped by the zones of `topology` where they are many.
    pub(in crate::cli) fn of(nodes: &[NodeName], topology: Option<&Topology>) -> Vec<Self> {
        if nodes.len() <= SINGLE_ROWS {
            return nodes.iter().map(|node| Self { label: node.to_string(), nodes: vec![node.clone()] }).collect();
        }
        let mut rest = nodes.to_vec();
        let mut axes = Vec::new();
        for (zone, members) in topology.into_iter().flat_map(Topology::zones) {
            rest.retain(|node| !members.contains(node));
            axes.push(Self { label: zone.to_string(), nodes: members.to_vec() });
        }
        if !rest.is_empty() {
            axes.push(Self { label: hostlist::fold(&rest), nodes: rest });
        }
        axes
    }
}

/// Draws what `cell` makes of the ordered pairs of each row and column.
///
/// `cell` gets at least one pair; where there is none (a node and itself) the matrix has a dash.
pub(in crate::cli) fn matrix(
    styled: bool,
    axes: &[Axis],
    cell: impl Fn(&mut dyn Iterator<Item = (&NodeName, &NodeName)>) -> String,
) -> String {
    let labels: Vec<&str> = std::iter::once("").chain(axes.iter().map(|axis| axis.label.as_str())).collect();
    let row = |from: &Axis| {
        let cells = axes.iter().map(|to| {
            let pairs = || from.nodes.iter().flat_map(|a| to.nodes.iter().map(move |b| (a, b))).filter(|(a, b)| a != b);
            if pairs().next().is_none() { "-".to_owned() } else { cell(&mut pairs()) }
        });
        std::iter::once(from.label.clone()).chain(cells).collect()
    };
    table(styled, &labels, axes.iter().map(row).collect())
}
