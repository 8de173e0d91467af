//! `netemctl lab status`: shows the nodes, their addresses and their agents.

use std::{collections::BTreeMap, path::PathBuf};

use serde::Serialize;

use crate::{
    cli::{
        Context, Exit, Failure,
        context::Agents,
        render::{lines_of_nodes, table},
    },
    fleet::{CallError, split},
    lab::Member,
    plan::is_link_local,
    topology::NodeName,
    wire::GetStatus,
};

/// The state of an agent that answers.
const UP: &str = "up";

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(in crate::cli) struct LabStatus {
    ok: bool,
    topology: String,
    directory: PathBuf,
    nodes: BTreeMap<NodeName, MemberStatus>,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct MemberStatus {
    database: Vec<String>,
    management: Vec<String>,
    /// `up`, or the error of the call to the agent.
    agent: String,
}

pub(super) fn status(context: &Context) -> Result<Exit, Failure> {
    let lab = context.lab()?;
    let fleet = context.fleet_of(Agents::Placed(lab.inventory()), None)?;
    let (_, down) =
        context.ask("asking the nodes", async |_| Ok(split(fleet.call(context.timeouts(), |_| GetStatus {}).await)))?;
    let texts = |networks: &[ipnetwork::IpNetwork]| {
        let global = networks.iter().map(ipnetwork::IpNetwork::ip).filter(|address| !is_link_local(address));
        global.map(|address| address.to_string()).collect()
    };
    let layout = &lab.state.layout;
    let member = |member: &Member| {
        let agent = down.get(&member.node).map_or_else(|| UP.to_owned(), ToString::to_string);
        let status = MemberStatus { database: texts(&member.database), management: texts(&member.management), agent };
        (member.node.clone(), status)
    };
    let directory = context.lab_directory()?.path().to_owned();
    let ok = down.is_empty();
    let status = LabStatus {
        ok,
        topology: layout.topology.clone(),
        directory,
        nodes: layout.members.iter().map(member).collect(),
    };
    context.answer(&status, || {
        let rows = status.nodes.iter().map(|(node, member)| {
            let agent = match down.get(node) {
                None => UP,
                Some(CallError::Refused(_)) => "broken",
                Some(_) => "dead",
            };
            vec![node.to_string(), member.database.join(" "), member.management.join(" "), agent.to_owned()]
        });
        let header = ["NODE", "DATABASE (db0)", "MANAGEMENT (mgmt0)", "AGENT"];
        let nodes = table(&header, rows);
        let details = lines_of_nodes(down.iter().map(|(node, error)| (node, error.into())));
        let is_broken = |error: &&CallError| matches!(error, CallError::Refused(_));
        let broken = down.values().filter(is_broken).count();
        let mut note = String::new();
        if broken < down.len() {
            note += "the rules of a dead agent stay in force; restart the agent: netemctl lab restart NODE\n";
        }
        if broken > 0 {
            note += "recreate the lab: netemctl lab down && netemctl lab up FILE\n";
        }
        format!("lab {}\n\n{nodes}{}", status.topology, if ok { String::new() } else { format!("\n{details}{note}") })
    })?;
    Ok(if ok { Exit::Ok } else { Exit::Unreachable })
}
