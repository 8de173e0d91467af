//! Where the nodes are: which inventory a command works on, and the fleet that it makes with what the agents say.
//!
//! The first one that there is: `--inventory`, `NETEMCTL_INVENTORY`, the topology's own `[inventory]`, the running lab.

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fmt,
    path::{Path, PathBuf},
};

use serde::Serialize;

use super::{Context, Exit, Failure, context::Agents, topology_file};
use crate::{
    fleet::{CallError, Fleet, part},
    inventory::{InventoryFile, Mismatch, Resolved},
    lab::{Lab, LabError},
    pki::TlsFiles,
    topology::{NodeName, Source, Topology, hostlist},
    wire::{GetHost, GetWanted},
};

/// An inventory file that the user names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Given {
    path: PathBuf,
    by_environment: bool,
}

/// Where the nodes are.
#[derive(Debug)]
pub(super) struct Whereabouts {
    pub(super) from: Whence,
    pub(super) file: InventoryFile,
}

/// Who says so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(tag = "from", rename_all = "kebab-case")]
pub(super) enum Whence {
    /// A file on the command line.
    File { file: String },
    /// The file in `NETEMCTL_INVENTORY`.
    Environment { file: String },
    /// The `[inventory]` table of the topology file that the command is about.
    Topology { file: String },
    /// The lab that is up.
    Lab { topology: String },
}

impl Given {
    /// The file of the command line, else that of the environment.
    pub(super) fn new(option: Option<PathBuf>) -> Option<Self> {
        let of_environment = || {
            let path = env::var_os("NETEMCTL_INVENTORY").filter(|path| !path.is_empty())?;
            Some(Self { path: path.into(), by_environment: true })
        };
        option.map(Self::file).or_else(of_environment)
    }

    /// A file of the command line.
    pub(super) fn file(path: PathBuf) -> Self {
        Self { path, by_environment: false }
    }
}

impl Whereabouts {
    pub(super) fn find(
        given: Option<&Given>,
        topology: Option<&Topology>,
        lab: impl FnOnce() -> Result<Result<Lab, LabError>, Failure>,
    ) -> Result<Self, Failure> {
        if let Some(given) = given {
            return Self::of_file(given);
        }
        let own = topology.map(carried_by).transpose()?.flatten();
        if let (Some(file), Some(topology)) = (own, topology) {
            let from = Whence::Topology { file: topology.source().path.clone() };
            return Ok(Self { from, file });
        }
        let lab = match lab()? {
            Err(LabError::Down) => return Err(nowhere()),
            lab => lab?,
        };
        let from = Whence::Lab { topology: lab.state.layout.topology.clone() };
        let file = match lab.controller_identity().filter(|_| lab.is_on_controller()) {
            Some(folder) => InventoryFile::of(&lab.inventory_by_tls(), Some(TlsFiles::in_folder(&folder))),
            None => InventoryFile::of(&lab.inventory(), None),
        };
        Ok(Self { from, file })
    }

    pub(super) fn of_file(Given { path, by_environment }: &Given) -> Result<Self, Failure> {
        let name = path.display().to_string();
        let from = if *by_environment { Whence::Environment { file: name } } else { Whence::File { file: name } };
        Ok(Self { from, file: read(path)? })
    }

    /// The nodes' agents, which can be asked but not told to change anything.
    pub(super) fn agents(&self, context: &Context) -> Result<Fleet, Failure> {
        let agents = self.file.agents().map_err(|error| Failure::new(Exit::File, error))?;
        context.fleet_of(Agents::Unplaced(agents), self.file.tls())
    }

    /// The fleet. Agents are asked where the inventory leaves something open.
    pub(super) fn fleet(&self, context: &Context) -> Result<Fleet, Failure> {
        let open: BTreeSet<&NodeName> = self.file.open_questions().collect();
        let (Resolved { inventory, mismatches }, silent) = if open.is_empty() {
            (self.file.resolve(&BTreeMap::new(), &BTreeMap::new()), BTreeMap::new())
        } else {
            self.ask(context, &open)?
        };
        if mismatches.is_empty() {
            context.fleet_of(Agents::Placed(inventory), self.file.tls())
        } else {
            Err(self.misfit(&mismatches, &silent))
        }
    }

    /// Has the agents of some nodes say what the file leaves open.
    fn ask(
        &self,
        context: &Context,
        open: &BTreeSet<&NodeName>,
    ) -> Result<(Resolved, BTreeMap<NodeName, CallError>), Failure> {
        let mut agents = self.file.agents().map_err(|error| Failure::new(Exit::File, error))?;
        agents.retain(|node, _| open.contains(node));
        let fleet = context.fleet_of(Agents::Unplaced(agents), self.file.tls())?;
        context.block_on(async |interrupt| {
            let asking = async {
                let (hosts, silent) = part(fleet.call(context.patience(), |_| GetHost {}).await);
                let remembered = match (hosts.keys().next(), silent.is_empty()) {
                    // Nodes that are there know where the others were when something was put in force.
                    (Some(node), false) => fleet.call_one(context.patience(), node, GetWanted {}).await.ok(),
                    _ => None,
                };
                let remembered = remembered.map(|document| document.wanted.inventory.nodes).unwrap_or_default();
                (self.file.resolve(&hosts, &remembered), silent)
            };
            tokio::select! {
                answers = Context::meanwhile("asking the nodes where they are", asking) => Ok(answers),
                () = interrupt.cancelled() => Err(Failure::new(Exit::Interrupted, "interrupted; nothing was changed")),
            }
        })
    }

    /// Why there is no fleet.
    fn misfit(&self, mismatches: &BTreeMap<NodeName, Mismatch>, silent: &BTreeMap<NodeName, CallError>) -> Failure {
        let names = hostlist::fold(&mismatches.keys().cloned().collect::<Vec<_>>());
        let is_silent = mismatches.values().all(|mismatch| *mismatch == Mismatch::Silent);
        let mut failure = if is_silent {
            Failure::new(
                Exit::Unreachable,
                format!("{names} could not be asked for what the inventory leaves open; nothing was changed"),
            )
        } else {
            Failure::new(Exit::Refused, format!("the inventory is not right for {names}; nothing was changed"))
        };
        failure.nodes =
            mismatches.iter().map(|(node, mismatch)| (node.clone(), self.said(node, mismatch, silent))).collect();
        match self.from.file() {
            Some(file) => failure.hint(format!("see what every node is: netemctl inventory check {file}")),
            None => failure,
        }
    }

    /// What is wrong with a node, with the line of the file.
    pub(super) fn said(&self, node: &NodeName, mismatch: &Mismatch, silent: &BTreeMap<NodeName, CallError>) -> String {
        let why = match (mismatch, silent.get(node)) {
            (Mismatch::Silent, Some(error)) => error.to_string(),
            _ => mismatch.to_string(),
        };
        let origin = self.file.nodes().get(node).and_then(|entry| entry.origin.as_ref());
        origin.map_or_else(|| why.clone(), |origin| format!("{why} ({origin})"))
    }
}

/// The inventory that a topology carries.
fn carried_by(topology: &Topology) -> Result<Option<InventoryFile>, Failure> {
    let inventory = InventoryFile::of_topology(topology.source())?;
    Ok(inventory.map(|inventory| inventory.with_zones_of(topology)))
}

/// Reads an inventory file, or the `[inventory]` table of a topology file, which is then to be right as a whole.
fn read(path: &Path) -> Result<InventoryFile, Failure> {
    let name = path.display().to_string();
    let text = topology_file::open(path)
        .map_err(|error| Failure::new(Exit::File, format!("cannot read the inventory {name}: {}", error.why)))?;
    if !InventoryFile::is_in_topology(&text) {
        return Ok(InventoryFile::parse(Source::new(name, text))?);
    }
    let topology = topology_file::read(path)?;
    carried_by(&topology)?.ok_or_else(|| Failure::new(Exit::File, format!("{name} has no [inventory] table any more")))
}

/// That nothing says where the nodes are.
fn nowhere() -> Failure {
    Failure::new(Exit::Unreachable, "nothing says where the nodes are, and no lab is up")
        .hint("give an inventory file: --inventory FILE, or NETEMCTL_INVENTORY=FILE")
        .hint("or apply a topology with an [inventory] table; other commands take that file as --inventory FILE, too")
        .hint("or bring a lab up on this machine: netemctl lab up TOPOLOGY")
}

impl Whence {
    /// The file that says it.
    fn file(&self) -> Option<&str> {
        match self {
            Self::File { file } | Self::Environment { file } | Self::Topology { file } => Some(file),
            Self::Lab { .. } => None,
        }
    }
}

impl fmt::Display for Whence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { file } => write!(f, "{file}"),
            Self::Environment { file } => write!(f, "{file} (NETEMCTL_INVENTORY)"),
            Self::Topology { file } => write!(f, "[inventory] of {file}"),
            Self::Lab { topology } => write!(f, "the lab {topology}"),
        }
    }
}
