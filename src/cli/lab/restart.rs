//! `netemctl lab restart`: nodes as after a restart of their machines.

use serde::Serialize;

use super::down::{Gone, ending};
use crate::{
    cli::{Context, Exit, Failure},
    lab::CONTROLLER,
    topology::{NodeName, hostlist},
};

/// Nodes that were restarted.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(in crate::cli) struct Restarted {
    nodes: Vec<NodeName>,
    /// The programs that were ended.
    ended: Vec<Gone>,
}

pub(super) fn restart(context: &Context, words: &[String]) -> Result<Exit, Failure> {
    let lab = context.lab()?;
    let nodes = lab.hosts(words)?;
    if nodes.iter().any(|node| node.as_str() == CONTROLLER && lab.state.controller.is_some()) {
        return Err(Failure::new(Exit::Usage, "the controller host has no agent to restart"));
    }
    let names = hostlist::fold(&nodes);
    let ended = ending(context, &format!("restarting {names}"), {
        let nodes = nodes.clone();
        move || lab.restart(&nodes)
    })?;
    let restarted = Restarted { nodes, ended: ended.into_iter().map(Gone::from).collect() };
    context.answer(&restarted, || {
        format!("{}restarted {names}; the topology and all changes stay in force", Gone::said(&restarted.ended))
    })?;
    Ok(Exit::Ok)
}
