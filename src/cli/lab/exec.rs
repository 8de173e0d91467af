//! `netemctl lab exec` and `lab shell`: run programs inside nodes.

use std::ffi::OsString;

use super::{many, single};
use crate::cli::{Context, Exit, Failure, output::talk};

/// Run a program inside a node, or in several at once
///
/// In one node, the program has the terminal, and the command returns its exit code. In several nodes, the program has
/// no stdin, and each line of its output begins with the node's name. The command then returns the first exit code that
/// is not 0, in the order of the nodes' names. Ctrl-C ends the program in all nodes.
///
/// Exit code 127: no such program. Exit code 126: the program cannot be run. With --json, the document has the exit
/// code and the output. With --timeout, the program and its child processes end when the timeout expires.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  netemctl lab exec n1 -- ping -c 3 n4
  netemctl lab exec 'n[1-5]' -- ip -brief address
  netemctl lab exec Z1,Z2 -- uptime
  netemctl lab exec --detach n1 -- python3 -m http.server")]
pub(super) struct ExecArgs {
    /// Run the program in the background, with a log file for its output
    ///
    /// The log file is in the lab's directory. lab ps shows the program. lab down ends it and removes the log file.
    #[arg(long)]
    detach: bool,
    /// Run in one node for another netemctl; report a failed start to stdin, a socket
    #[arg(long, hide = true, conflicts_with = "detach")]
    child: bool,
    /// A node, a hostlist, zones, `*` for all nodes, or `controller`
    #[arg(value_name = "NODES")]
    nodes: String,
    /// The program and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "PROGRAM")]
    program: Vec<OsString>,
}

/// The document of `lab exec`.
#[cfg(test)]
#[derive(schemars::JsonSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "it is the schema of documents that `single` and `many` write")]
pub(in crate::cli) enum Executed {
    /// In one node.
    Single(single::Ran),
    /// In several nodes.
    Together(many::RanInNodes),
    /// With `--detach`.
    Detached(many::Detached),
}

pub(super) fn exec(context: &Context, asked: &ExecArgs) -> Result<Exit, Failure> {
    let ExecArgs { detach, child, nodes, program } = asked;
    if *child {
        return single::run_for_parent(context, nodes, program);
    }
    let hosts = context.lab()?.hosts(std::slice::from_ref(nodes))?;
    match &hosts[..] {
        hosts if *detach => many::detach(context, hosts, program),
        [node] if context.is_json() || context.is_limited() => single::supervise(context, node, program),
        [node] => single::replace_process(context, node, program),
        hosts => many::run(context, hosts, program),
    }
}

pub(super) fn shell(context: &Context, node: &str) -> Result<Exit, Failure> {
    if context.is_json() || context.is_limited() {
        return Err(Failure::new(Exit::Usage, "lab shell takes neither --json nor --timeout")
            .hint("run a program: netemctl lab exec NODE -- PROGRAM"));
    }
    let shell = std::env::var_os("SHELL").unwrap_or_else(|| "/bin/sh".into());
    let hosts = context.lab()?.hosts(&[node.to_owned()])?;
    let [node] = &hosts[..] else {
        return Err(Failure::new(Exit::Usage, format!("lab shell takes one node; `{node}` means several")));
    };
    talk(&format!("shell in {node}; leave it with exit\n"));
    single::replace_process(context, node, &[shell])
}
