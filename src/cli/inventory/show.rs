//! `netemctl inventory show`: shows the inventory without asking agents.

use std::{collections::BTreeMap, net::IpAddr};

use serde::Serialize;

use super::{Context, Exit, Failure, FileArgument, InventoryOrigin, draw_nodes, render};
use crate::{
    inventory::NodeEntry,
    topology::{NodeName, Problem, ZoneName, hostlist},
};

/// Show the inventory in use, without asking agents
#[derive(Debug, clap::Args)]
pub(super) struct Show {
    #[command(flatten)]
    argument: FileArgument,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "InventoryShow"))]
pub(in crate::cli) struct Shown<'a> {
    inventory: &'a InventoryOrigin,
    nodes: BTreeMap<&'a NodeName, Node<'a>>,
    zones: &'a BTreeMap<ZoneName, Vec<NodeName>>,
    /// Warnings about the file.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    warnings: &'a [Problem],
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "InventoryShowNode"))]
struct Node<'a> {
    agent: String,
    /// The interface's name, if given.
    #[serde(skip_serializing_if = "Option::is_none")]
    interface: Option<String>,
    /// The network that selects the interface.
    #[serde(skip_serializing_if = "Option::is_none")]
    network: Option<String>,
    /// Empty: all addresses of the interface.
    addresses: &'a [IpAddr],
}

impl Show {
    pub(super) fn run(self, context: &Context) -> Result<Exit, Failure> {
        let inventory_in_use = self.argument.inventory_in_use(context)?;
        let file = &inventory_in_use.file;
        let nodes = file.nodes().iter().map(|(name, entry)| (name, node(entry))).collect();
        let warnings = file.warnings().problems();
        let shown = Shown { inventory: &inventory_in_use.from, nodes, zones: file.zones(), warnings };
        context.answer(&shown, || draw(&shown))
    }
}

fn node(entry: &NodeEntry) -> Node<'_> {
    let (interface, network) = match &entry.interface {
        crate::inventory::InterfaceSelector::Named(name) => (Some(name.to_string()), None),
        crate::inventory::InterfaceSelector::InNetwork(network) => (None, Some(network.to_string())),
    };
    Node { agent: entry.agent.to_string(), interface, network, addresses: &entry.addresses }
}

fn draw(shown: &Shown<'_>) -> String {
    let rows = shown.nodes.iter().map(|(name, node)| {
        let network = node.network.as_ref().map(|network| format!("the one in {network}"));
        let addresses = render::addresses(node.addresses);
        let addresses = if addresses.is_empty() { "all".to_owned() } else { addresses };
        let interface = node.interface.clone().or(network).unwrap_or_default();
        (*name, node.agent.as_str(), vec![interface, addresses])
    });
    let mut text = draw_nodes(shown.inventory, &["INTERFACE", "ADDRESSES"], &rows.collect::<Vec<_>>());
    if !shown.zones.is_empty() {
        text += "\n";
    }
    text.extend(shown.zones.iter().map(|(zone, nodes)| format!("zone {zone}: {}\n", hostlist::fold(nodes))));
    text
}
