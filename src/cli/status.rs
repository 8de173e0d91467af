//! `netemctl status`: shows the state in force on each node, and compares it with the node's kernel.

mod draw;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::SystemTime,
};

use serde::Serialize;

use self::draw::draw;
use super::{
    Context, Exit, Failure, NodeFailure, exit_of,
    inventory_in_use::InventoryOrigin,
    overlays::{Laid, laid},
    partitions::{Parted, parted},
};
use crate::{
    fleet::{CallError, split},
    topology::NodeName,
    wire::{Counted, GetCounters, GetStatus, GetWanted, NodeStatus},
};

/// Show what is in force on each node
///
/// Every agent compares its kernel with the configuration now. Exit code 4: a kernel differs, or the nodes do not
/// agree. Exit code 6: an agent does not answer.
#[derive(Debug, clap::Args)]
pub(super) struct Status {
    /// Show kernel counters: packets sent, lost, cut
    #[arg(long)]
    counters: bool,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct Fleetwide {
    /// True if every agent answers, all agents have the same document, and every kernel matches the document.
    ok: bool,
    /// The source of the inventory.
    inventory: InventoryOrigin,
    /// The nodes that `--only` or `--allow-missing` left out of the last change, and that got no other change since.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    missing: BTreeSet<NodeName>,
    /// The overlays in force, as one of the nodes has them.
    ///
    /// Later overlays take precedence.
    overlays: Vec<Laid>,
    /// The partitions in force, as one of the nodes has them.
    partitions: Vec<Parted>,
    nodes: BTreeMap<NodeName, Node>,
    /// The counters of the kernels.
    ///
    /// Absent without `--counters`.
    #[serde(skip_serializing_if = "Option::is_none")]
    counters: Option<BTreeMap<NodeName, Counted>>,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(Clone, schemars::JsonSchema))]
struct Node {
    state: NodeState,
    #[serde(flatten)]
    status: Option<NodeStatus>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "Option<String>"))]
    error: Option<NodeFailure>,
    /// True if the agent did not answer at all.
    #[serde(skip)]
    is_silent: bool,
    /// True if the agent answered with an error.
    #[serde(skip)]
    is_broken: bool,
}

#[derive(Clone, Copy, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
enum NodeState {
    Ok,
    Drifts,
    /// The node was left out of a change, and has an older document.
    Behind,
    Unreachable,
}

impl Node {
    fn up(status: NodeStatus, is_behind: bool) -> Self {
        let state = match (status.drift.is_empty(), is_behind) {
            (false, _) => NodeState::Drifts,
            (true, true) => NodeState::Behind,
            (true, false) => NodeState::Ok,
        };
        Self { state, status: Some(status), error: None, is_silent: false, is_broken: false }
    }

    fn down(error: &CallError) -> Self {
        Self {
            state: NodeState::Unreachable,
            status: None,
            error: Some(error.into()),
            is_silent: exit_of(error) == Exit::Unreachable,
            is_broken: matches!(error, CallError::Refused(_)),
        }
    }
}

impl Status {
    pub(super) fn run(&self, context: &Context) -> Result<Exit, Failure> {
        let inventory_in_use = context.inventory_in_use(None)?;
        let fleet = inventory_in_use.agents(context)?;
        let (up, down, wanted, counters) = context.ask("reading the nodes", async |_| {
            let (up, down) = split(fleet.call(context.timeouts(), |_| GetStatus {}).await);
            let has_more =
                |status: &NodeStatus| self.counters || !(status.overlays.is_empty() && status.partitions.is_empty());
            let wanted = match up.iter().find(|(_, status)| has_more(status)) {
                // If the node stops answering now, its document is missing, but its status has the names.
                Some((node, _)) => fleet.call_one(context.timeouts(), node, GetWanted {}).await.ok(),
                None => None,
            };
            let wanted = wanted.map(|document| document.lasting()).unwrap_or_default();
            let counters = if self.counters {
                Some(split(fleet.call(context.timeouts(), |_| GetCounters {}).await).0)
            } else {
                None
            };
            Ok((up, down, wanted, counters))
        })?;
        let overlays = laid(&wanted, &up);
        let partitions = parted(&wanted, SystemTime::now().into()).into_iter();
        let partitions = partitions.map(|partition| partition.counted(up.values())).collect();
        let newest = up.values().max_by_key(|status| status.stamp.generation);
        let missing = newest.map(|status| status.missing.clone()).unwrap_or_default();
        let newest = newest.map(|status| status.stamp.clone());
        let is_older = |status: &NodeStatus| newest.as_ref().is_some_and(|newest| !status.stamp.agrees_with(newest));
        let is_behind = |node: &NodeName, status: &NodeStatus| {
            Some(&status.stamp) != newest.as_ref() && missing.is_behind(node, &status.stamp)
        };
        let differ = up.iter().any(|(node, status)| is_older(status) && !is_behind(node, status));
        let drifts = up.values().any(|status| !status.drift.is_empty());
        let any_is_behind = up.iter().any(|(node, status)| is_behind(node, status));
        let exit = match (down.is_empty(), drifts || differ || any_is_behind) {
            (true, false) => Exit::Ok,
            (true, true) => Exit::Differs,
            (false, _) => Exit::Unreachable,
        };
        let lags = |node: &NodeName| up.get(node).is_none_or(|status| is_behind(node, status));
        let missing_nodes = missing.nodes().into_iter().filter(lags).collect();
        let up = up.into_iter().map(|(node, status)| {
            let is_behind = is_behind(&node, &status);
            (node, Node::up(status, is_behind))
        });
        let down = down.into_iter().map(|(node, error)| (node, Node::down(&error)));
        let nodes = up.chain(down).collect();
        let fleetwide = Fleetwide {
            ok: exit == Exit::Ok,
            inventory: inventory_in_use.from,
            missing: missing_nodes,
            overlays,
            partitions,
            nodes,
            counters,
        };
        context.answer(&fleetwide, || draw(&fleetwide, &wanted.inventory, differ))?;
        Ok(exit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::CallError;

    /// A node with two profiles and a partition, as its agent reports it.
    pub(super) fn node(name: &NodeName) -> Node {
        let profile = |delay: f64| serde_json::json!({ "delay_ms": delay, "limit": 1_000, "addresses": 9, "nodes": 3, "queued": 0 });
        let status = serde_json::json!({
            "node": name, "version": "0.1.0", "stamp": { "generation": 3, "digest": "00" }, "unconfirmed_s": null,
            "missing": [], "topology": "hierarchical-9", "overlays": [],
            "partitions": [{ "name": "Z3", "is_on": true, "left_s": null, "next_change_s": null }],
            "interface": "db0", "profiles": [profile(10.0), profile(75.0)], "cuts": [], "drift": [], "foreign": [],
            "draining": 0, "journal": "/var/lib/n", "recovered": null,
            "watch": { "on_drift": "report", "since": null, "incidents": [], "repairs": 0, "obstacle": null, "next_try_s": null,
                "journal_behind": null },
        });
        Node::up(serde_json::from_value(status).unwrap(), false)
    }

    pub(super) fn unreachable(name: &NodeName) -> Node {
        let error = std::io::Error::from_raw_os_error(111);
        Node::down(&CallError::Unreachable { at: format!("/run/{name}.sock"), error })
    }

    pub(super) fn fleetwide(nodes: BTreeMap<NodeName, Node>) -> Fleetwide {
        let inventory = InventoryOrigin::Lab { topology: "hierarchical-9".to_owned() };
        let (overlays, partitions) = (Vec::new(), Vec::new());
        Fleetwide { ok: true, inventory, missing: BTreeSet::new(), overlays, partitions, nodes, counters: None }
    }
}
