//! `netemctl inventory check`: what the inventory says, compared with what every agent says.

use std::{collections::BTreeMap, io, net::IpAddr};

use serde::Serialize;

use super::{
    Context, Exit, Failure, Whence, Which,
    failure::Saying,
    render::{addresses, escape::on_one_line, folded, table},
    routed,
};
use crate::{
    fleet::part,
    inventory::Resolved,
    plan::{IfName, Place},
    topology::{NodeName, hostlist},
    wire::{GetHost, Host, Routed},
};

/// Ask every agent and show the interface and the addresses that commands would use
///
/// Ends with exit code 5 if a node is not as the inventory has it, and 6 if an agent does not answer.
#[derive(Debug, clap::Args)]
pub(super) struct Check {
    #[command(flatten)]
    which: Which,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "InventoryCheck"))]
pub(in crate::cli) struct Checked {
    /// Whether every agent answers, and every node is as the inventory has it.
    ok: bool,
    inventory: Whence,
    nodes: BTreeMap<NodeName, Node>,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "InventoryCheckNode"))]
struct Node {
    state: State,
    agent: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    interface: Option<IfName>,
    addresses: Vec<IpAddr>,
    /// The interface's speed, where it knows it.
    #[serde(skip_serializing_if = "Option::is_none")]
    speed_mbit: Option<u32>,
    /// What is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "Option<String>"))]
    error: Option<Saying>,
    /// What will be in the way, although the inventory is right.
    warnings: Vec<String>,
    /// What the node sends to networks behind other nodes.
    #[serde(skip_serializing_if = "Option::is_none")]
    routed: Option<Routed>,
    /// What the agent said.
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<Host>,
}

#[derive(Clone, Copy, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "InventoryCheckState"))]
#[serde(rename_all = "kebab-case")]
enum State {
    Ok,
    Misfit,
    Unreachable,
}

impl Check {
    pub(super) fn run(self, context: &Context) -> Result<Exit, Failure> {
        let whereabouts = self.which.whereabouts(context)?;
        let fleet = whereabouts.agents(context)?;
        let answers =
            context.ask("asking the nodes", async |_| Ok(fleet.call(context.patience(), |_| GetHost {}).await))?;
        let (mut hosts, silent) = part(answers);
        let Resolved { inventory, mismatches } = whereabouts.file.resolve(&hosts, &BTreeMap::new());
        let node = |(name, entry): (&NodeName, &crate::inventory::Entry)| {
            let host = hosts.remove(name);
            let place = inventory.nodes.get(name).filter(|_| host.is_some());
            let (state, error) = match (silent.get(name), mismatches.get(name)) {
                (Some(error), _) => (State::Unreachable, Some(error.into())),
                (None, Some(mismatch)) => (State::Misfit, Some(whereabouts.said(name, mismatch, &silent))),
                (None, None) => (State::Ok, None),
            };
            let (speed_mbit, warnings) =
                place.zip(host.as_ref()).map(|(place, host)| look(place, host)).unwrap_or_default();
            let checked = Node {
                state,
                agent: entry.agent.clone(),
                interface: place.map(|place| place.interface.clone()),
                addresses: place.map(|place| place.addresses.clone()).unwrap_or_default(),
                speed_mbit,
                error,
                warnings,
                routed: host.as_ref().and_then(|host| host.routed(&inventory)),
                host,
            };
            (name.clone(), checked)
        };
        let nodes: BTreeMap<_, _> = whereabouts.file.nodes().iter().map(node).collect();
        let is_any = |state| nodes.values().any(|node| node.state == state);
        let exit = match (is_any(State::Unreachable), is_any(State::Misfit)) {
            (true, _) => Exit::Unreachable,
            (false, true) => Exit::Refused,
            (false, false) => Exit::Ok,
        };
        let checked = Checked { ok: exit == Exit::Ok, inventory: whereabouts.from, nodes };
        context.answer(&checked, || draw(&checked))?;
        Ok(exit)
    }
}

/// The speed of a node's interface, and what is to be said of it.
fn look(place: &Place, host: &Host) -> (Option<u32>, Vec<String>) {
    let Some(interface) = host.interfaces.iter().find(|interface| interface.name == place.interface) else {
        return (None, Vec::new());
    };
    let name = &interface.name;
    let default_route = format!("interface {name} carries a default route, so its agent will refuse to shape it");
    let down = format!("interface {name} does not carry packets at this moment");
    let xdp = format!(
        "interface {name} has an XDP program: packets that it takes or redirects reach neither netemctl's ingress filters \
         nor the host"
    );
    let left_out = interface.reachable().filter(|address| !place.addresses.contains(address)).map(|address| {
        format!("{address} of interface {name} is not in the inventory: packets to it are neither delayed nor cut")
    });
    let warnings = [
        interface.carries_default_route.then_some(default_route),
        (!interface.is_up).then_some(down),
        interface.has_xdp.then_some(xdp),
    ];
    (interface.speed_mbit, warnings.into_iter().flatten().chain(left_out).collect())
}

fn draw(checked: &Checked) -> String {
    let error = |(name, node): (_, &Node)| node.error.clone().map(|error| (name, error));
    let warnings = |(name, node): (_, &Node)| {
        let warnings: Vec<_> = node.warnings.iter().map(|warning| format!("warning: {warning}")).collect();
        warnings.into_iter().map(move |warning| (name, Saying::of(warning)))
    };
    let said = checked.nodes.iter().filter_map(error).chain(checked.nodes.iter().flat_map(warnings));
    let folded =
        folded(said).into_iter().map(|(said, nodes)| format!("{}: {}\n", hostlist::fold(&nodes), on_one_line(&said)));
    let mut details: String = folded.collect();
    let rows = checked.nodes.iter().map(|(name, node)| {
        let or_dash = |text: String| if text.is_empty() { "-".to_owned() } else { text };
        let state = match node.state {
            State::Ok => "ok",
            State::Misfit => "misfit",
            State::Unreachable => "unreachable",
        };
        vec![
            name.to_string(),
            node.agent.clone(),
            or_dash(node.interface.as_ref().map(ToString::to_string).unwrap_or_default()),
            or_dash(addresses(&node.addresses)),
            or_dash(node.speed_mbit.map(|mbit| format!("{mbit} Mbit/s")).unwrap_or_default()),
            state.to_owned(),
        ]
    });
    let header = ["NODE", "AGENT", "INTERFACE", "ADDRESSES", "SPEED", "STATE"];
    let table = table(Context::is_styled(&io::stdout()), &header, rows.collect());
    let routed = checked.nodes.iter().filter_map(|(name, node)| Some((name, node.routed.as_ref()?)));
    details.extend(routed::warning(routed));
    let line_break = if details.is_empty() { "" } else { "\n" };
    format!("inventory: {}\n\n{table}{line_break}{details}", checked.inventory)
}
