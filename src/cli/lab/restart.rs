//! `netemctl lab restart`: restarts nodes, as if their machines restarted.

use serde::Serialize;

use super::down::{draw_ended, ending};
use crate::{
    cli::{Context, Exit, Failure},
    lab::{CONTROLLER, EndedProgram},
    topology::{NodeName, hostlist},
};

/// The document of `lab restart`.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(in crate::cli) struct Restarted {
    nodes: Vec<NodeName>,
    /// The programs that were ended in these nodes.
    ended: Vec<EndedProgram>,
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
    let restarted = Restarted { nodes, ended };
    context.answer(&restarted, || {
        let journals = match &restarted.nodes[..] {
            [_] => "its agent continues from its journal",
            _ => "their agents continue from their journals",
        };
        format!("{}restarted {names}; {journals}", draw_ended(&restarted.ended))
    })
}
