//! `netemctl inventory check`: compares the inventory with the agents' answers.

use std::{collections::BTreeMap, net::IpAddr};

use serde::Serialize;
use tokio::time::timeout_at;
use tokio_util::sync::CancellationToken;

use super::{
    Context, Exit, Failure, FileArgument, InventoryOrigin, NodeFailure,
    context::Agents,
    draw_nodes, exit_of,
    render::{addresses, escape::on_one_line, lines_of_nodes},
    routed,
};
use crate::{
    fleet::{CallError, Edit, Fleet, TransactionError, split},
    inventory::Resolved,
    plan::{IfName, Inventory, NodeLocation, Wanted},
    topology::{NodeName, Problem, Source, Topology},
    wire::{ErrorCode, GetHost, Host, Routed},
};

/// Ask every agent, and show the interfaces and addresses that commands use
///
/// Each agent also makes a dry run of a change, against its config and its kernel.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Exit codes:
  5  a node does not fit the inventory, or refuses
  6  an agent does not answer
  7  a kernel cannot shape")]
pub(super) struct Check {
    #[command(flatten)]
    argument: FileArgument,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "InventoryCheck"))]
pub(in crate::cli) struct Checked {
    /// True if all agents answer, all nodes fit the inventory, and no node refuses the dry run.
    ok: bool,
    /// The reason why some nodes made no dry run.
    #[serde(skip_serializing_if = "Option::is_none")]
    untried: Option<String>,
    inventory: InventoryOrigin,
    nodes: BTreeMap<NodeName, Node>,
    /// Warnings about the file.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<Problem>,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "InventoryCheckNode"))]
struct Node {
    state: State,
    agent: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    interface: Option<IfName>,
    addresses: Vec<IpAddr>,
    /// The interface's speed, if known.
    #[serde(skip_serializing_if = "Option::is_none")]
    speed_mbit: Option<u32>,
    /// The reason for a state other than `ok`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "Option<String>"))]
    error: Option<NodeFailure>,
    /// Warnings about the interface and its addresses.
    warnings: Vec<String>,
    /// The node's routes to networks behind other nodes.
    #[serde(skip_serializing_if = "Option::is_none")]
    routed: Option<Routed>,
    /// The agent's answer about its host.
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<Host>,
}

#[derive(Clone, Copy, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "InventoryCheckState"))]
#[serde(rename_all = "kebab-case")]
enum State {
    Ok,
    Misfit,
    Refuses,
    Unreachable,
}

impl Check {
    pub(super) fn run(self, context: &Context) -> Result<Exit, Failure> {
        let inventory_in_use = self.argument.inventory_in_use(context)?;
        let fleet = inventory_in_use.agents(context)?;
        let answers =
            context.ask("asking the nodes", async |_| Ok(fleet.call(context.timeouts(), |_| GetHost {}).await))?;
        let (mut hosts, silent) = split(answers);
        let Resolved { inventory, mismatches } = inventory_in_use.file.resolve(&hosts, &BTreeMap::new());
        let mut answering = inventory.clone();
        answering.nodes.retain(|node, _| hosts.contains_key(node));
        // Zones may contain nodes that do not answer. The dry run does not need zones.
        answering.zones.clear();
        let fleet = context.fleet_of(Agents::Placed(answering), inventory_in_use.file.tls())?;
        let Tried { refusals, untried } = context.ask("making a dry run", async |_| {
            let tried = try_out(&fleet);
            let Some(until) = context.timeouts().deadline else { return Ok(tried.await) };
            Ok(timeout_at(until.into(), tried).await.unwrap_or_else(|_| Tried::not(&"the timeout expired")))
        })?;
        let failing = silent.values().chain(refusals.values()).map(exit_of);
        let misfits = mismatches.keys().filter(|node| !silent.contains_key(node)).map(|_| Exit::Refused);
        let exit = Exit::of_many(failing.chain(misfits)).unwrap_or(Exit::Ok);
        let node = |(name, entry): (&NodeName, &crate::inventory::NodeEntry)| {
            let host = hosts.remove(name);
            let place = inventory.nodes.get(name).filter(|_| host.is_some());
            let (state, error) = match (silent.get(name), mismatches.get(name), refusals.get(name)) {
                (Some(error), ..) => (State::Unreachable, Some(error.into())),
                (None, Some(mismatch), _) => {
                    (State::Misfit, Some(inventory_in_use.node_failure(name, mismatch, &silent)))
                }
                (None, None, Some(error)) if exit_of(error) == Exit::Unreachable => {
                    (State::Unreachable, Some(error.into()))
                }
                (None, None, Some(refusal)) => (State::Refuses, Some(refusal.into())),
                (None, None, None) => (State::Ok, None),
            };
            // The dry run shows whether the agent refuses an interface with a default route.
            let is_route_judged = match (state, &error) {
                (State::Ok, _) => untried.is_none(),
                (State::Refuses, Some(error)) => error.text.contains("default route"),
                _ => false,
            };
            let looked = place.zip(host.as_ref()).map(|(place, host)| look(place, host, is_route_judged));
            let (speed_mbit, warnings) = looked.unwrap_or_default();
            let checked = Node {
                state,
                agent: entry.agent.to_string(),
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
        let nodes: BTreeMap<_, _> = inventory_in_use.file.nodes().iter().map(node).collect();
        let warnings = inventory_in_use.file.warnings().problems().to_vec();
        let checked = Checked { ok: exit == Exit::Ok, untried, inventory: inventory_in_use.from, nodes, warnings };
        context.answer(&checked, || draw(&checked))?;
        Ok(exit)
    }
}

/// The result of a dry run.
#[derive(Default)]
struct Tried {
    refusals: BTreeMap<NodeName, CallError>,
    /// The reason why some nodes made no dry run.
    untried: Option<String>,
}

impl Tried {
    fn not(why: &impl ToString) -> Self {
        Self { refusals: BTreeMap::new(), untried: Some(why.to_string()) }
    }
}

/// Makes a dry run on every node, as `plan` does.
///
/// The dry run applies the state in force, or a topology with delays if nothing is in force.
async fn try_out(fleet: &Fleet) -> Tried {
    let inventory = fleet.inventory();
    match inventory.nodes.len() {
        0 => return Tried::default(),
        1 => return Tried::not(&"a link needs two nodes that answer and fit the inventory"),
        _ => (),
    }
    let edit = |wanted: &Wanted| match (wanted.is_clear(), delays(inventory)) {
        (true, Some(topology)) => wanted.with_topology(topology, inventory.clone()),
        _ => wanted.on(inventory.clone()),
    };
    match fleet.dry_run(&Edit::replacing(), &CancellationToken::new(), edit).await {
        Ok(_) => Tried::default(),
        Err(TransactionError::Nodes { failures, .. }) => {
            let (viewers, refusals): (BTreeMap<_, _>, _) = failures.into_iter().partition(
                |(_, error)| matches!(error, CallError::Refused(error) if error.code == ErrorCode::ReadOnly),
            );
            Tried { refusals, untried: viewers.values().next().map(ToString::to_string) }
        }
        Err(error) => Tried::not(&error),
    }
}

/// A topology with a delay between all nodes.
fn delays(inventory: &Inventory) -> Option<Topology> {
    let nodes = serde_json::to_string(&inventory.nodes.keys().collect::<Vec<_>>()).ok()?;
    let text = format!("name = 'inventory-check'\nnodes = {nodes}\n[links]\ndefault = {{ rtt = '2ms' }}\n");
    Topology::parse(Source::new("inventory check", text)).ok()
}

/// The speed of a node's interface, and warnings about the interface.
///
/// `is_route_judged`: the agent has allowed or refused the default route, so there is no warning about the route.
fn look(place: &NodeLocation, host: &Host, is_route_judged: bool) -> (Option<u32>, Vec<String>) {
    let Some(interface) = host.interfaces.iter().find(|interface| interface.name == place.interface) else {
        return (None, Vec::new());
    };
    let name = &interface.name;
    let default_route = format!("interface {name} carries a default route, so its agent refuses to shape it");
    let down = format!("interface {name} is down");
    let xdp = format!(
        "interface {name} has an XDP program: packets that it takes or redirects reach neither netemctl's ingress filters \
         nor the host"
    );
    let left_out = interface.reachable().filter(|address| !place.addresses.contains(address)).map(|address| {
        format!("{address} of interface {name} is not in the inventory: packets to it are neither delayed nor cut")
    });
    let warnings = [
        (interface.carries_default_route && !is_route_judged).then_some(default_route),
        (!interface.is_up).then_some(down),
        interface.has_xdp.then_some(xdp),
    ];
    (interface.speed_mbit, warnings.into_iter().flatten().chain(left_out).collect())
}

fn draw(checked: &Checked) -> String {
    let error = |(name, node): (_, &Node)| node.error.clone().map(|error| (name, error));
    let warnings = |(name, node): (_, &Node)| {
        let warnings: Vec<_> = node.warnings.iter().map(|warning| format!("warning: {warning}")).collect();
        warnings.into_iter().map(move |warning| (name, NodeFailure::of(warning)))
    };
    let said = checked.nodes.iter().filter_map(error).chain(checked.nodes.iter().flat_map(warnings));
    let mut details = lines_of_nodes(said);
    let rows = checked.nodes.iter().map(|(name, node)| {
        let state = match node.state {
            State::Ok => "ok",
            State::Misfit => "misfit",
            State::Refuses => "refuses",
            State::Unreachable => "unreachable",
        };
        let figures = vec![
            node.interface.as_ref().map(ToString::to_string).unwrap_or_default(),
            addresses(&node.addresses),
            node.speed_mbit.map(|mbit| format!("{mbit} Mbit/s")).unwrap_or_default(),
            state.to_owned(),
        ];
        (name, node.agent.as_str(), figures)
    });
    let nodes =
        draw_nodes(&checked.inventory, &["INTERFACE", "ADDRESSES", "SPEED", "STATE"], &rows.collect::<Vec<_>>());
    let routed = checked.nodes.iter().filter_map(|(name, node)| Some((name, node.routed.as_ref()?)));
    details.extend(routed::warning(routed));
    details.extend(checked.untried.iter().map(|why| format!("no dry run: {}\n", on_one_line(why))));
    let line_break = if details.is_empty() { "" } else { "\n" };
    format!("{nodes}{line_break}{details}")
}
