//! The programs in a lab's nodes: all that `lab exec` has started, and what these programs have started in turn.
//!
//! A program belongs to a node by its network namespace, so one that daemonised is found as well. The agents and the
//! keeper are not programs of the lab.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::Path,
    time::{Duration, Instant},
};

use super::{LabError, State, layout::node_directory};
use crate::{
    kernel::{Process, ancestors},
    topology::{NodeName, hostlist},
};

/// How long programs may take to end before they are killed.
const GRACE: Duration = Duration::from_secs(10);

/// How long a program that is killed may take.
const KILLED_WITHIN: Duration = Duration::from_secs(10);

/// After this time a new look finds the processes that were started meanwhile.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// A program that runs in a node.
#[derive(Debug)]
pub struct Program {
    /// The node, or the controller host.
    pub node: NodeName,
    /// Its process.
    pub process: Process,
}

/// A program that was ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndedProgram {
    /// Where it ran.
    pub node: NodeName,
    /// The number that its process had.
    pub pid: i32,
    /// Its name.
    pub name: String,
    /// Whether it had to be killed.
    pub killed: bool,
}

/// Who is asked for.
pub(super) struct Census<'a> {
    directory: &'a Path,
    /// The nodes by the numbers of their network namespaces.
    networks: BTreeMap<u64, &'a NodeName>,
    is_alive: bool,
}

impl<'a> Census<'a> {
    /// The programs of a lab. If its keeper has ended, the kernel may give the numbers of its namespaces to others.
    pub(super) fn of(directory: &'a Path, state: &'a State, is_alive: bool) -> Self {
        let networks = state.networks.iter().map(|(node, number)| (*number, node)).collect();
        Self { directory, networks, is_alive }
    }

    /// Only those in these nodes.
    pub(super) fn only(mut self, nodes: &[NodeName]) -> Self {
        self.networks.retain(|_, node| nodes.contains(node));
        self
    }

    /// The programs, by node.
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
            // The lab's own hosts file tells its programs from those of a later namespace with the same number.
            .filter(|process| self.is_alive || process.sees(&hosts, "/etc/hosts"))
            .filter_map(|process| Some(Program { node: (*self.networks.get(&process.network)?).clone(), process }))
            .collect();
        programs.sort_by(|one, other| (&one.node, one.process.pid).cmp(&(&other.node, other.process.pid)));
        Ok(programs)
    }

    /// The same without the calling process and those that it comes from: the shell in a node that it was typed in.
    pub(super) fn others(&self) -> Result<Vec<Program>, LabError> {
        let own = ancestors();
        Ok(self.programs()?.into_iter().filter(|program| !own.contains(&program.process.pid)).collect())
    }

    /// Those of them that the calling process comes from.
    pub(super) fn own(&self) -> Result<Vec<Program>, LabError> {
        let mut own = ancestors();
        let _itself = own.remove(&std::process::id().cast_signed());
        Ok(self.programs()?.into_iter().filter(|program| own.contains(&program.process.pid)).collect())
    }

    /// Ends all others: SIGTERM, and SIGKILL after [`GRACE`]. It looks again until there is none.
    pub(super) fn end_others(&self) -> Result<Vec<EndedProgram>, LabError> {
        let start = Instant::now();
        let mut ended: BTreeMap<(i32, u64), EndedProgram> = BTreeMap::new();
        let mut empty = 0;
        // A single look can miss a process whose parent ends just then.
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
                    name: process.name().to_owned(),
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

/// `etcd in n[1-3], sleep in n2`.
pub(super) fn described(programs: &[Program]) -> String {
    by_name(programs.iter().map(|program| (program.process.name(), &program.node)))
}

/// Names of programs with the nodes that they are in: `etcd in n[1-3], sleep in n2`.
pub fn by_name<'a>(programs: impl IntoIterator<Item = (&'a str, &'a NodeName)>) -> String {
    let mut nodes: BTreeMap<&str, BTreeSet<&NodeName>> = BTreeMap::new();
    for (name, node) in programs {
        let _known = nodes.entry(name).or_default().insert(node);
    }
    let folded = |nodes: &BTreeSet<&NodeName>| hostlist::fold(&nodes.iter().copied().collect::<Vec<_>>());
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
