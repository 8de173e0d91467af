//! Finds and ends the programs in a lab's nodes: the programs that `lab exec` started, and their child processes.
//!
//! The network namespace of a program determines its node, so daemons are found too. Agents, their child processes and
//! the keeper are not counted.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::Path,
    time::{Duration, Instant},
};

use serde::Serialize;

use super::{LabError, State, layout::node_directory};
use crate::{
    kernel::{Process, ancestors},
    topology::{NodeName, hostlist},
};

/// The time from SIGTERM to SIGKILL.
const GRACE: Duration = Duration::from_secs(10);

/// The timeout for programs to end after SIGKILL.
const KILLED_WITHIN: Duration = Duration::from_secs(10);

/// The maximum interval between two scans. Each scan also finds new processes.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// A program that runs in a node.
#[derive(Debug)]
pub struct Program {
    /// The node, or the controller host.
    pub node: NodeName,
    /// The process.
    pub process: Process,
}

/// A program that was ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct EndedProgram {
    /// The node, or the controller host.
    pub node: NodeName,
    /// The process id.
    pub pid: i32,
    /// The name of the program file.
    pub program: String,
    /// True if SIGTERM did not end the program, so that SIGKILL was sent.
    pub killed: bool,
}

/// A scan of the machine's processes for programs in a lab's nodes.
pub(super) struct ProgramScan<'a> {
    directory: &'a Path,
    /// The nodes by the inode numbers of their network namespaces.
    networks: BTreeMap<u64, &'a NodeName>,
    is_keeper_alive: bool,
}

impl<'a> ProgramScan<'a> {
    /// A scan for the programs of all nodes. `is_keeper_alive` is false if the keeper has ended.
    ///
    /// After the keeper's end, the kernel may reuse the inode numbers.
    pub(super) fn of(directory: &'a Path, state: &'a State, is_keeper_alive: bool) -> Self {
        let networks = state.networks.iter().map(|(node, number)| (*number, node)).collect();
        Self { directory, networks, is_keeper_alive }
    }

    /// Restricts the scan to these nodes.
    pub(super) fn only(mut self, nodes: &[NodeName]) -> Self {
        self.networks.retain(|_, node| nodes.contains(node));
        self
    }

    /// All programs, sorted by node and process id.
    pub(super) fn programs(&self) -> Result<Vec<Program>, LabError> {
        let found = Process::in_networks(|number| self.networks.contains_key(&number)).map_err(LabError::Processes)?;
        let config = |process: &Process| {
            let folder = node_directory(self.directory, self.networks.get(&process.network)?);
            Some(folder.join("agent.toml").to_string_lossy().into_owned())
        };
        let is_agent = |process: &Process| config(process).is_some_and(|config| process.command.contains(&config));
        let agents: BTreeSet<i32> =
            found.iter().filter(|process| is_agent(process)).map(|process| process.pid).collect();
        let hosts = self.directory.join("hosts");
        let mut programs: Vec<Program> = found
            .into_iter()
            .filter(|process| !agents.contains(&process.pid) && !agents.contains(&process.parent))
            // After the keeper's end, another namespace may have the same number. Only programs of the lab see the
            // lab's hosts file.
            .filter(|process| self.is_keeper_alive || process.sees(&hosts, "/etc/hosts"))
            .filter_map(|process| Some(Program { node: (*self.networks.get(&process.network)?).clone(), process }))
            .collect();
        programs.sort_by(|one, other| (&one.node, one.process.pid).cmp(&(&other.node, other.process.pid)));
        Ok(programs)
    }

    /// All programs except the calling process and its ancestors, such as the shell that runs the command.
    pub(super) fn others(&self) -> Result<Vec<Program>, LabError> {
        let own = ancestors();
        Ok(self.programs()?.into_iter().filter(|program| !own.contains(&program.process.pid)).collect())
    }

    /// The programs that are ancestors of the calling process.
    pub(super) fn own(&self) -> Result<Vec<Program>, LabError> {
        let mut own = ancestors();
        let _itself = own.remove(&std::process::id().cast_signed());
        Ok(self.programs()?.into_iter().filter(|program| own.contains(&program.process.pid)).collect())
    }

    /// Ends all [`others`](Self::others): SIGTERM, and SIGKILL after [`GRACE`]. Scans until no program is left.
    pub(super) fn end_others(&self) -> Result<Vec<EndedProgram>, LabError> {
        let start = Instant::now();
        let mut ended: BTreeMap<(i32, u64), EndedProgram> = BTreeMap::new();
        let mut empty = 0;
        // A single scan can miss a process whose parent ends during the scan.
        while empty < 2 {
            let programs = self.others()?;
            let patience_is_over = start.elapsed() >= GRACE;
            if patience_is_over && start.elapsed() >= GRACE + KILLED_WITHIN && !programs.is_empty() {
                return Err(LabError::Immortal(described(&programs)));
            }
            for Program { node, process } in &programs {
                let entry = ended.entry((process.pid, process.started));
                let is_new = matches!(entry, std::collections::btree_map::Entry::Vacant(_));
                let program = entry.or_insert_with(|| EndedProgram {
                    node: node.clone(),
                    pid: process.pid,
                    program: process.name().to_owned(),
                    killed: false,
                });
                let told = if patience_is_over {
                    program.killed = true;
                    process.kill()
                } else if is_new {
                    process.ask_to_end()
                } else {
                    Ok(())
                };
                told.map_err(|error| about(node, process, &error))?;
            }
            empty = if programs.is_empty() { empty + 1 } else { 0 };
            let processes: Vec<Process> = programs.into_iter().map(|program| program.process).collect();
            let _all = Process::wait_for_all(&processes, Instant::now() + LOOK_AGAIN).map_err(LabError::Processes)?;
        }
        let mut ended: Vec<_> = ended.into_values().collect();
        ended.sort_by(|one, other| (&one.node, one.pid).cmp(&(&other.node, other.pid)));
        Ok(ended)
    }
}

fn about(node: &NodeName, process: &Process, error: &io::Error) -> LabError {
    let text = format!("cannot end {} (process {}) in {node}: {error}", process.name(), process.pid);
    LabError::Processes(io::Error::new(error.kind(), text))
}

/// The programs with their nodes, for a message: `etcd in n[1-3], sleep in n2`.
pub(super) fn described(programs: &[Program]) -> String {
    by_name(programs.iter().map(|program| (program.process.name(), &program.node)))
}

/// The names of programs with their nodes, for a message: `etcd in n[1-3], sleep in n2`.
pub fn by_name<'a>(programs: impl IntoIterator<Item = (&'a str, &'a NodeName)>) -> String {
    let mut nodes: BTreeMap<&str, BTreeSet<&NodeName>> = BTreeMap::new();
    for (name, node) in programs {
        let _known = nodes.entry(name).or_default().insert(node);
    }
    let folded = |nodes: &BTreeSet<&NodeName>| hostlist::fold(nodes);
    nodes.iter().map(|(name, nodes)| format!("{name} in {}", folded(nodes))).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_named_once_with_their_nodes_folded() {
        let nodes: Vec<NodeName> = ["n1", "n2", "n10"].map(|name| name.parse().unwrap()).to_vec();
        let programs = [("etcd", &nodes[2]), ("etcd", &nodes[0]), ("sh", &nodes[1]), ("etcd", &nodes[1])];
        assert_eq!(by_name(programs), "etcd in n[1-2,10], sh in n2");
        assert_eq!(by_name([]), "");
    }
}
