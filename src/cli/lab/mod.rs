//! `netemctl lab`: the nodes of a topology as network namespaces on this machine. One file a verb.

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

/// Run the nodes of a topology as network namespaces on this machine, an agent in each
///
/// Nothing of it appears on the host's network. Each node has an interface for the database, db0, and one for everything
/// else, mgmt0; inside, the name of a node is its database address, and NODE.mgmt the other. Ordinary users can do this
/// where the kernel allows them user namespaces.
#[derive(Debug, clap::Args)]
pub(super) struct LabArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Bring the nodes of a topology up; the links between them are a plain LAN until you apply it
    Up(up::UpArgs),
    /// Show the nodes, their addresses and whether their agents answer
    Status,
    /// Show the programs that run in the nodes
    ///
    /// That is all that lab exec has started, and what these programs have started. Agents are not shown.
    Ps {
        /// Only in these: a hostlist, zones, `*`, or `controller`
        #[arg(value_name = "NODES")]
        nodes: Vec<String>,
    },
    Exec(exec::ExecArgs),
    /// Open a shell inside a node
    Shell {
        /// The node, or `controller`
        node: String,
    },
    /// End the programs in nodes and start their agents anew, as when a machine restarts
    ///
    /// The programs are ended as by lab down: SIGTERM, and SIGKILL after 10 s. Then the agent is started anew and goes on
    /// from its journal; an agent that has died comes back. What is in force stays in force all the time, and so do the
    /// node's addresses and files. Nothing starts the programs again but you.
    Restart {
        /// Which nodes: a hostlist, zones, or `*`
        #[arg(required = true, value_name = "NODES")]
        nodes: Vec<String>,
    },
    /// Take everything down, the programs in the nodes first; also what a lab that was killed left behind
    ///
    /// Programs have 10 s to end after SIGTERM, and are killed then. Those that run in the background are ended as well.
    Down {
        /// Refuse, with exit code 5, while programs run in the nodes
        #[arg(long, alias = "keep")]
        if_idle: bool,
    },
    /// Hold a lab open (what `up` starts)
    #[command(hide = true)]
    Keep,
}

impl LabArgs {
    /// Whether it moves the process into other namespaces, which only one that has a single thread can.
    pub(super) fn enters_namespaces(&self) -> bool {
        matches!(self.verb, Verb::Exec(_) | Verb::Shell { .. } | Verb::Keep)
    }

    /// Whether it ends what runs in the lab.
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
            Verb::Keep => up::hold(context),
        }
    }
}
