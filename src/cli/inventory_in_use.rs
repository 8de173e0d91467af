//! The inventory that a command uses.
//!
//! It is the first of `--inventory`, `NETEMCTL_INVENTORY`, the topology's own `[inventory]` and the running lab.

use std::{
    collections::BTreeMap,
    env, fmt, io,
    path::{Path, PathBuf},
};

use serde::Serialize;

use super::{
    Exit, Failure, NodeFailure, exit_of,
    failure::{remedy_of_silence, unread},
    topology_file,
};
use crate::{
    fleet::CallError,
    inventory::{InventoryFile, Mismatch, Resolved},
    lab::{Lab, LabError},
    pki::TlsFiles,
    plan::{EditError, Inventory},
    topology::{NodeName, Source, Topology, hostlist},
};

/// An inventory file of the command line or the environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct InventoryArgument {
    path: PathBuf,
    origin: InventoryOrigin,
}

/// The inventory in use, and its origin.
#[derive(Debug)]
pub(super) struct InventoryInUse {
    pub(super) from: InventoryOrigin,
    pub(super) file: InventoryFile,
}

/// The origin of an inventory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(tag = "from", rename_all = "kebab-case")]
pub(super) enum InventoryOrigin {
    /// A file on the command line.
    File { file: String },
    /// The file in `NETEMCTL_INVENTORY`.
    Environment { file: String },
    /// The `[inventory]` table of the command's topology file.
    Topology { file: String },
    /// The running lab.
    Lab { topology: String },
}

impl InventoryArgument {
    /// The file of the command line, else that of the environment.
    pub(super) fn new(option: Option<PathBuf>) -> Option<Self> {
        let of_environment = || {
            let path = env::var_os("NETEMCTL_INVENTORY").filter(|path| !path.is_empty())?;
            let origin = InventoryOrigin::Environment { file: path.display().to_string() };
            Some(Self { path: path.into(), origin })
        };
        option.map(Self::file).or_else(of_environment)
    }

    /// A file of the command line.
    pub(super) fn file(path: PathBuf) -> Self {
        let origin = InventoryOrigin::File { file: path.display().to_string() };
        Self { path, origin }
    }
}

impl InventoryInUse {
    /// Finds the inventory. `None`: there is no inventory, and no lab is up.
    pub(super) fn find(
        given: Option<&InventoryArgument>,
        topology: Option<&Topology>,
        lab: impl FnOnce() -> Result<Result<Lab, LabError>, Failure>,
    ) -> Result<Option<Self>, Failure> {
        if let Some(given) = given {
            return Self::of_file(given).map(Some);
        }
        let own = topology.map(inventory_of).transpose()?.flatten();
        if let (Some(file), Some(topology)) = (own, topology) {
            let from = InventoryOrigin::Topology { file: topology.source().path.clone() };
            return Ok(Some(Self { from, file }));
        }
        let lab = match lab()? {
            Err(LabError::Down) => return Ok(None),
            lab => lab?,
        };
        let from = InventoryOrigin::Lab { topology: lab.state.layout.topology.clone() };
        let file = match lab.controller_identity().filter(|_| lab.is_on_controller()) {
            Some(folder) => InventoryFile::of(&lab.inventory_by_tls(), Some(TlsFiles::in_folder(&folder))),
            None => InventoryFile::of(&lab.inventory(), None),
        };
        Ok(Some(Self { from, file }))
    }

    pub(super) fn of_file(InventoryArgument { path, origin }: &InventoryArgument) -> Result<Self, Failure> {
        Ok(Self { from: origin.clone(), file: read(path)? })
    }

    /// Fails if the inventory lacks a node of the topology.
    pub(super) fn check_names(&self, topology: &Topology) -> Result<(), Failure> {
        let nodes = self.file.nodes();
        let missing: Vec<_> = topology.nodes().iter().filter(|node| !nodes.contains_key(*node)).cloned().collect();
        if missing.is_empty() {
            return Ok(());
        }
        Err(EditError::UnknownNodes { missing, known: nodes.keys().cloned().collect() }.into())
    }

    /// The locations of a topology's nodes, from the file alone. `None`: the file lacks an interface or addresses.
    pub(super) fn locations_of(&self, topology: &Topology) -> Result<Option<Inventory>, Failure> {
        self.check_names(topology)?;
        let Resolved { inventory, mut mismatches } = self.file.resolve(&BTreeMap::new(), &BTreeMap::new());
        mismatches.retain(|_, mismatch| *mismatch != Mismatch::Silent);
        if !mismatches.is_empty() {
            return Err(self.misfit(&mismatches, &BTreeMap::new(), &[]));
        }
        let is_known = topology.nodes().iter().all(|node| inventory.nodes.contains_key(node));
        Ok(is_known.then_some(inventory))
    }

    /// The failure for nodes that do not match the inventory. The nodes `needed` cannot be left out.
    pub(super) fn misfit(
        &self,
        mismatches: &BTreeMap<NodeName, Mismatch>,
        silent: &BTreeMap<NodeName, CallError>,
        needed: &[NodeName],
    ) -> Failure {
        let names = hostlist::fold(mismatches.keys());
        let is_silent = mismatches.values().all(|mismatch| *mismatch == Mismatch::Silent);
        let mut failure = if is_silent {
            let exit = Exit::of_many(silent.values().map(exit_of)).unwrap_or(Exit::Unreachable);
            let errors = mismatches.keys().filter_map(|node| silent.get(node));
            let what = unread(&names, errors);
            Failure::new(exit, format!("{what}, and the inventory is incomplete; nothing was changed"))
        } else {
            Failure::new(Exit::Refused, format!("the inventory does not match {names}; nothing was changed"))
        };
        failure.nodes = mismatches
            .iter()
            .map(|(node, mismatch)| (node.clone(), self.node_failure(node, mismatch, silent)))
            .collect();
        // The failure is a rejected certificate, for example. The error of each node has the remedy.
        if is_silent && failure.exit != Exit::Unreachable {
            return failure;
        }
        if is_silent {
            failure = failure.hint(remedy_of_silence(silent));
            failure = match needed {
                [] => failure.hint_option("allow-missing", "leave out nodes that do not answer: --allow-missing"),
                needed => failure.hint(format!(
                    "for --allow-missing, give `interface` and `addresses` of {0} in the inventory: the topology has {0}",
                    hostlist::fold(needed)
                )),
            };
        }
        match self.from.file() {
            Some(file) => failure.hint(format!("check every node: netemctl inventory check {file}")),
            None => failure,
        }
    }

    /// The mismatch of a node, with the line of the file.
    pub(super) fn node_failure(
        &self,
        node: &NodeName,
        mismatch: &Mismatch,
        silent: &BTreeMap<NodeName, CallError>,
    ) -> NodeFailure {
        let NodeFailure { text, reason } = match (mismatch, silent.get(node)) {
            (Mismatch::Silent, Some(error)) => error.into(),
            _ => NodeFailure::of(mismatch.to_string()),
        };
        let origin = self.file.nodes().get(node).and_then(|entry| entry.origin.as_ref());
        let text = origin.map_or_else(|| text.clone(), |origin| format!("{text} ({origin})"));
        NodeFailure { text, reason }
    }
}

/// The `[inventory]` table of a topology; `None`: the topology has no such table.
fn inventory_of(topology: &Topology) -> Result<Option<InventoryFile>, Failure> {
    let inventory = InventoryFile::of_topology(topology.source())?;
    Ok(inventory.map(|inventory| inventory.with_zones_of(topology)))
}

/// Reads an inventory file, or the `[inventory]` table of a topology file. Such a topology must be valid as a whole.
fn read(path: &Path) -> Result<InventoryFile, Failure> {
    let name = path.display().to_string();
    let text = topology_file::open(path).map_err(|error| {
        let failure = Failure::new(Exit::File, format!("cannot read the inventory {name}: {error}"));
        match error.kind() {
            io::ErrorKind::NotFound => {
                failure.hint(format!("write an inventory: netemctl inventory init HOST... --output {name}"))
            }
            _ => failure,
        }
    })?;
    if let Some(inventory) = InventoryFile::parse_own_file(Source::new(name.clone(), text))? {
        return Ok(inventory);
    }
    let topology = topology_file::read(path)?;
    inventory_of(&topology)?
        .ok_or_else(|| Failure::new(Exit::File, format!("{name} has no [inventory] table any more")))
}

impl InventoryOrigin {
    /// The file, if the origin is one.
    fn file(&self) -> Option<&str> {
        match self {
            Self::File { file } | Self::Environment { file } | Self::Topology { file } => Some(file),
            Self::Lab { .. } => None,
        }
    }
}

impl fmt::Display for InventoryOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { file } => write!(f, "{file}"),
            Self::Environment { file } => write!(f, "{file} (NETEMCTL_INVENTORY)"),
            Self::Topology { file } => write!(f, "[inventory] of {file}"),
            Self::Lab { topology } => write!(f, "the lab {topology}"),
        }
    }
}
