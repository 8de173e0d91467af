//! Draws the output that `check` and `show` share: the inventory's source, the agents, and a table of the nodes.

use super::{InventoryOrigin, render::table};
use crate::topology::NodeName;

/// A node with its agent and its other columns.
pub(super) type Row<'a> = (&'a NodeName, &'a str, Vec<String>);

/// Draws the nodes.
///
/// The agents have a column if no pattern describes all agents.
pub(super) fn draw_nodes(from: &InventoryOrigin, header: &[&str], nodes: &[Row<'_>]) -> String {
    let agents = in_one_line(nodes);
    let column = |text: &str| agents.is_none().then(|| text.to_owned());
    let rows = nodes.iter().map(|(node, agent, others)| {
        [node.to_string()].into_iter().chain(column(agent)).chain(others.iter().cloned()).collect()
    });
    let header: Vec<&str> =
        ["NODE"].into_iter().chain(agents.is_none().then_some("AGENT")).chain(header.iter().copied()).collect();
    let nodes = table(&header, rows);
    let agents = agents.map(|agents| format!("agents: {agents}\n")).unwrap_or_default();
    format!("inventory: {from}\n{agents}\n{nodes}")
}

/// The pattern of all agents, with `{node}` for the node's name; `None`: the agents have no common pattern.
fn in_one_line(nodes: &[Row<'_>]) -> Option<String> {
    let [(first, agent, _), others @ ..] = nodes else { return None };
    let pattern = agent.replace(first.as_str(), "{node}");
    let is_alike = |(node, agent, _): &Row<'_>| pattern.replace("{node}", node.as_str()) == *agent;
    (!others.is_empty() && others.iter().all(is_alike)).then_some(pattern)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agents_with_a_common_pattern_share_a_line_and_others_have_a_column() {
        let names: Vec<NodeName> = ["n1", "n2"].iter().map(|name| name.parse().unwrap()).collect();
        let drawn = |agents: [&str; 2]| {
            let row = |(name, agent)| (name, agent, vec!["db0".to_owned()]);
            let rows: Vec<_> = names.iter().zip(agents).map(row).collect();
            draw_nodes(&InventoryOrigin::Lab { topology: "two".to_owned() }, &["INTERFACE"], &rows)
        };
        insta::assert_snapshot!(drawn(["ssh://n1.example.org", "ssh://n2.example.org"]), @"
        inventory: the lab two
        agents: ssh://{node}.example.org

        NODE  INTERFACE
        n1    db0
        n2    db0
        ");
        insta::assert_snapshot!(drawn(["ssh://n1.example.org", "ssh://n2"]), @"
        inventory: the lab two

        NODE  AGENT                 INTERFACE
        n1    ssh://n1.example.org  db0
        n2    ssh://n2              db0
        ");
    }
}
