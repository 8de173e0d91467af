//! `netemctl lab exec` and `lab shell`: programs inside nodes.

use std::ffi::OsString;

use serde::Serialize;

use super::{
    many::{self, Detached, Together},
    single::{self, Ran},
};
use crate::{
    cli::{Context, Exit, Failure, output::talk},
    topology::NodeName,
};

/// Run a program inside a node, or in several at once
///
/// In one node it has the terminal, and its exit code is that of the command. In several nodes it has no stdin, and each
/// line that it prints begins with the node's name. The exit code is then that of the first node, in the order of their
/// names, where it is not 0. Ctrl-C ends the program in all nodes.
///
/// Exit code 127 means that there is no such program, 126 that it cannot be run. With --json the document has the exit
/// code and what was printed. With --timeout the program and what it started are ended when the time is over.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  netemctl lab exec n1 -- ping -c 3 n4
  netemctl lab exec 'n[1-5]' -- ip -brief address
  netemctl lab exec Z1,Z2 -- uptime
  netemctl lab exec --detach n1 -- python3 -m http.server")]
pub(super) struct ExecArgs {
    /// Return at once; the program runs on, what it prints goes to a log file in the lab's directory
    ///
    /// The program is ended and the log removed by lab down. lab ps shows the program.
    #[arg(long)]
    detach: bool,
    /// Be what runs in one of several nodes, and say on stdin if it cannot be run
    #[arg(long, hide = true, conflicts_with = "detach")]
    apart: bool,
    /// Where: a node, a hostlist, zones, `*` for all nodes, or `controller`
    #[arg(value_name = "NODES")]
    nodes: String,
    /// The program and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "PROGRAM")]
    program: Vec<OsString>,
}

/// What `lab exec` prints.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(untagged)]
pub(in crate::cli) enum Executed {
    /// In one node.
    Single(Ran),
    /// In several nodes.
    Together(Together),
    /// With `--detach`.
    Detached(Detached),
}

pub(super) fn exec(context: &Context, asked: &ExecArgs) -> Result<Exit, Failure> {
    let ExecArgs { detach, apart, nodes, program } = asked;
    if *apart {
        return single::apart(context, nodes, program);
    }
    let hosts = context.lab()?.hosts(std::slice::from_ref(nodes))?;
    match &hosts[..] {
        hosts if *detach => many::detach(context, hosts, program),
        [node] => one(context, node, program),
        hosts => many::together(context, hosts, program),
    }
}

fn one(context: &Context, node: &NodeName, program: &[OsString]) -> Result<Exit, Failure> {
    if context.is_json() || context.is_limited() {
        single::supervise(context, node, program)
    } else {
        single::become_it(context, node, program)
    }
}

pub(super) fn shell(context: &Context, node: &str) -> Result<Exit, Failure> {
    if context.is_json() || context.is_limited() {
        return Err(Failure::new(Exit::Usage, "a shell is for people, and has neither --json nor --timeout")
            .hint("run a program: netemctl lab exec NODE -- PROGRAM"));
    }
    let shell = std::env::var_os("SHELL").unwrap_or_else(|| "/bin/sh".into());
    let hosts = context.lab()?.hosts(&[node.to_owned()])?;
    let [node] = &hosts[..] else {
        return Err(Failure::new(Exit::Usage, format!("`{node}` is several nodes, and a shell is in one")));
    };
    talk(&format!("a shell in {node}; other nodes are reached by their names; leave it with exit\n"));
    single::become_it(context, node, &[shell])
}
