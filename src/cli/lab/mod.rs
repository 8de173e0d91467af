//! `netemctl lab`: the nodes of a topology as network namespaces on this machine.
//!
//! Each verb has a file.

mod down;
mod exec;
mod many;
mod programs;
mod restart;
mod single;
mod status;
mod up;

use crate::cli::{Context, Exit, Failure};

#[cfg(test)]
pub(super) use self::{down::Down, exec::Executed, programs::Programs, restart::Restarted, status::LabStatus, up::Up};

/// Run the nodes of a topology as network namespaces, each with an agent
///
/// The host's network does not change. Each node has two interfaces: db0 for the database and mgmt0 for everything
/// else. In the nodes, the name NODE resolves to the address on db0, and NODE.mgmt to that on mgmt0. Users other than
/// root need a kernel that allows user namespaces.
#[derive(Debug, clap::Args)]
pub(super) struct LabArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Start the nodes of a topology; apply then shapes them
    Up(up::UpArgs),
    /// Show the nodes, their addresses and whether their agents answer
    Status,
    /// Show the programs that run in the nodes
    ///
    /// These are the programs that lab exec started, and their child processes. Agents are not shown.
    Ps {
        /// Only in these nodes: a hostlist, zones, `*`, or `controller`
        #[arg(value_name = "NODES")]
        nodes: Vec<String>,
    },
    Exec(exec::ExecArgs),
    /// Open a shell in a node
    Shell {
        /// The node, or `controller`
        node: String,
    },
    /// Reboot nodes: end their programs, restart their agents
    ///
    /// Programs get SIGTERM, and SIGKILL after 10 s. They are not started again. The agent restarts, also after a
    /// crash, and continues from its journal. Topology, changes, addresses and files stay.
    Restart {
        /// A hostlist, zones, or `*`
        #[arg(required = true, value_name = "NODES")]
        nodes: Vec<String>,
    },
    /// End the programs in the nodes, then the lab; also cleans up after a killed lab
    ///
    /// Programs get SIGTERM, and SIGKILL after 10 s. This includes programs in the background.
    Down {
        /// Refuse, with exit code 5, while programs run in the nodes
        #[arg(long, alias = "keep")]
        if_idle: bool,
    },
    /// Run the keeper of a lab, for lab up
    #[command(hide = true)]
    Keep,
}

impl LabArgs {
    /// True if the command enters other namespaces.
    ///
    /// Only a process with a single thread can enter them.
    pub(super) fn enters_namespaces(&self) -> bool {
        matches!(self.verb, Verb::Exec(_) | Verb::Shell { .. } | Verb::Keep)
    }

    /// True if the command ends programs in the lab.
    pub(super) fn ends_programs(&self) -> bool {
        matches!(self.verb, Verb::Down { .. } | Verb::Restart { .. })
    }

    pub(super) fn run(self, context: &Context) -> Result<Exit, Failure> {
        match self.verb {
            Verb::Up(asked) => up::up(context, &asked),
            Verb::Status => status::status(context),
            Verb::Ps { nodes } => programs::ps(context, &nodes),
            Verb::Exec(asked) => exec::exec(context, &asked),
            Verb::Shell { node } => exec::shell(context, &node),
            Verb::Restart { nodes } => restart::restart(context, &nodes),
            Verb::Down { if_idle } => down::down(context, if_idle),
            Verb::Keep => up::run_keeper(context),
        }
    }
}
