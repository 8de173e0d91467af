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
        let zones = topology.into_iter().flat_map(Topology::zones);
        let mut axes: Vec<Self> =
            zones.map(|(zone, nodes)| Self { label: zone.to_string(), nodes: nodes.to_vec() }).collect();
        let is_outside = |node: &&NodeName| topology.is_none_or(|topology| topology.zone_of(node).is_none());
        let rest: Vec<NodeName> = nodes.iter().filter(is_outside).cloned().collect();
        if !rest.is_empty() {
            axes.push(Self { label: hostlist::fold(&rest), nodes: rest });
        }
        axes
    }

    /// The nodes: one, or all of a zone, or all outside zones.
    pub(in crate::cli) fn nodes(&self) -> &[NodeName] {
        &self.nodes
    }
}

/// Draws the matrix.
///
/// `cell` makes the text of a cell from the ordered pairs of its row and column. `cell` gets at least one pair. A cell
/// without pairs (a node and itself) is empty.
pub(in crate::cli) fn matrix(
    axes: &[Axis],
    cell: impl Fn(&mut dyn Iterator<Item = (&NodeName, &NodeName)>) -> String,
) -> String {
    grid(axes, |from, to| {
        let pairs = || from.nodes.iter().flat_map(|a| to.nodes.iter().map(move |b| (a, b))).filter(|(a, b)| a != b);
        if pairs().next().is_none() { String::new() } else { cell(&mut pairs()) }
    })
}

/// Draws a matrix whose cells have these texts.
pub(in crate::cli) fn grid(axes: &[Axis], cell: impl Fn(&Axis, &Axis) -> String) -> String {
    let labels: Vec<&str> = std::iter::once("").chain(axes.iter().map(|axis| axis.label.as_str())).collect();
    let row = |from: &Axis| std::iter::once(from.label.clone()).chain(axes.iter().map(|to| cell(from, to))).collect();
    table(&labels, axes.iter().map(row))
}
