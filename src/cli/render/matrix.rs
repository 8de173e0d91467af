//! Draws a matrix of ordered pairs of nodes.
//!
//! With many nodes, the matrix has zones instead, to fit a terminal.

use super::table;
use crate::topology::{NodeName, Topology, hostlist};

/// The maximum number of nodes for which each node has its own row.
const SINGLE_ROWS: usize = 12;

/// The nodes of a row or a column: one node, or all nodes of a zone.
pub(in crate::cli) struct Axis {
    label: String,
    nodes: Vec<NodeName>,
}

impl Axis {
    /// The rows for `nodes`.
    ///
    /// Many nodes are grouped by the zones of `topology`.
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

/// The least and the greatest value in one text; `None`: there are no values.
pub(in crate::cli) fn range<T: Ord + Copy>(values: &[T], text: impl Fn(T) -> String) -> Option<String> {
    let (least, most) = (text(*values.iter().min()?), text(*values.iter().max()?));
    Some(if least == most { least } else { format!("{least}–{most}") })
}

/// Draws the matrix.
///
/// `cell` makes the text of a cell from the ordered pairs of its row and column. `cell` gets at least one pair. A cell
/// without pairs (a node and itself) is empty.
pub(in crate::cli) fn matrix(
    axes: &[Axis],
    cell: impl Fn(&mut dyn Iterator<Item = (&NodeName, &NodeName)>) -> String,
) -> String {
    let labels: Vec<&str> = std::iter::once("").chain(axes.iter().map(|axis| axis.label.as_str())).collect();
    let row = |from: &Axis| {
        let cells = axes.iter().map(|to| {
            let pairs = || from.nodes.iter().flat_map(|a| to.nodes.iter().map(move |b| (a, b))).filter(|(a, b)| a != b);
            if pairs().next().is_none() { String::new() } else { cell(&mut pairs()) }
        });
        std::iter::once(from.label.clone()).chain(cells).collect()
    };
    table(&labels, axes.iter().map(row))
}
