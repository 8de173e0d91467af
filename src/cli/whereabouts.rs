//! Where the nodes are: which inventory a command works on, and the fleet that it makes with what the agents say.
//!
//! The first one that there is: `--inventory`, `NETEMCTL_INVENTORY`, the topology's own `[inventory]`, the running lab.

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fmt,
    path::{Path, PathBuf},
};

use serde::Serialize;

use super::{
    Context, Exit, Failure,
    context::Agents,
    failure::{Saying, exit_of},
    scope::ScopeOptions,
    topology_file,
};
use crate::{
    fleet::{CallError, Fleet, OTHERS_TIMEOUT, Scope, split},
    inventory::{InventoryFile, Mismatch, Resolved},
    lab::{Lab, LabError},
    pki::TlsFiles,
    plan::{EditError, Inventory, NodeLocation, Wanted},
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

/// What was found out about where the nodes are.
struct Found {
    resolved: Resolved,
    /// The nodes that did not answer.
    silent: BTreeMap<NodeName, CallError>,
    /// What is in force on nodes that do not fit the file, as their agents say.
    documents: BTreeMap<NodeName, Wanted>,
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
    /// What says where the nodes are, if anything does.
    pub(super) fn find(
        given: Option<&Given>,
        topology: Option<&Topology>,
        lab: impl FnOnce() -> Result<Result<Lab, LabError>, Failure>,
    ) -> Result<Option<Self>, Failure> {
        if let Some(given) = given {
            return Self::of_file(given).map(Some);
        }
        let own = topology.map(carried_by).transpose()?.flatten();
        if let (Some(file), Some(topology)) = (own, topology) {
            let from = Whence::Topology { file: topology.source().path.clone() };
            return Ok(Some(Self { from, file }));
        }
        let lab = match lab()? {
            Err(LabError::Down) => return Ok(None),
            lab => lab?,
        };
        let from = Whence::Lab { topology: lab.state.layout.topology.clone() };
        let file = match lab.controller_identity().filter(|_| lab.is_on_controller()) {
            Some(folder) => InventoryFile::of(&lab.inventory_by_tls(), Some(TlsFiles::in_folder(&folder))),
            None => InventoryFile::of(&lab.inventory(), None),
        };
        Ok(Some(Self { from, file }))
    }

    pub(super) fn of_file(Given { path, by_environment }: &Given) -> Result<Self, Failure> {
        let name = path.display().to_string();
        let from = if *by_environment { Whence::Environment { file: name } } else { Whence::File { file: name } };
        Ok(Self { from, file: read(path)? })
    }

    /// The nodes' agents, which can be asked but not told to change anything.
    pub(super) fn agents(&self, context: &Context) -> Result<Fleet, Failure> {
        let agents = self.file.agents();
        context.fleet_of(Agents::Unplaced(agents), self.file.tls())
    }

    /// The fleet of all nodes. Agents are asked where the inventory leaves something open.
    pub(super) fn fleet(&self, context: &Context) -> Result<Fleet, Failure> {
        let open = self.file.open_questions().collect();
        let Found { resolved: Resolved { inventory, mismatches }, silent, .. } =
            self.find_nodes(context, &open, |_| true, false)?;
        if mismatches.is_empty() {
            context.fleet_of(Agents::Placed(inventory), self.file.tls())
        } else {
            Err(self.misfit(&mismatches, &silent, &[]))
        }
    }

    /// The fleet of a change, and on which of its nodes the change is made.
    ///
    /// A node whose interface or addresses are not as the inventory says stops no change that only removes: the node is
    /// then where it was when its agent put something in force. A node that has nothing in force is left out. A node of
    /// `topology` is not left out without a place: the other nodes need its addresses.
    pub(super) fn fleet_to_change(
        &self,
        context: &Context,
        options: &ScopeOptions,
        topology: Option<&Topology>,
        only_removes: bool,
    ) -> Result<(Fleet, Scope), Failure> {
        let mut scope = options.scope(self.file.nodes())?;
        let is_meant = |node: &NodeName| scope.only.as_ref().is_none_or(|only| only.contains(node));
        let open = self.file.open_questions().filter(|node| !only_removes || is_meant(node)).collect();
        let Found { resolved, silent, documents } = self.find_nodes(context, &open, is_meant, only_removes)?;
        let Resolved { mut inventory, mut mismatches } = resolved;
        if only_removes {
            let agents = self.file.agents();
            for (node, document) in &documents {
                if let Some(place) = document.inventory.nodes.get(node) {
                    let agent = agents[node].agent.clone();
                    inventory.nodes.insert(node.clone(), NodeLocation { agent, ..place.clone() });
                    mismatches.remove(node);
                }
            }
        }
        let has_nothing = |node: &NodeName| documents.get(node).is_some_and(Wanted::is_clear);
        let is_needed = |node: &NodeName| topology.is_some_and(|topology| topology.contains(node));
        let may_lack = |node: &NodeName| has_nothing(node) || scope.allow_missing || !is_meant(node);
        let needed: Vec<_> = mismatches.keys().filter(|node| is_needed(node)).cloned().collect();
        if inventory.nodes.is_empty() || !needed.is_empty() || !mismatches.keys().all(may_lack) {
            return Err(self.misfit(&mismatches, &silent, &needed));
        }
        inventory.zones.retain(|_, nodes| {
            nodes.retain(|node| inventory.nodes.contains_key(node));
            !nodes.is_empty()
        });
        scope.left_out = mismatches.into_keys().collect();
        Ok((context.fleet_of(Agents::Placed(inventory), self.file.tls())?, scope))
    }

    /// Finds out where the nodes are. The agents of those in `open` are asked, and not waited for long if the node is not
    /// meant. With `with_documents`, agents whose host does not fit the file are also asked for the document that they have.
    fn find_nodes(
        &self,
        context: &Context,
        open: &BTreeSet<&NodeName>,
        is_meant: impl Fn(&NodeName) -> bool,
        with_documents: bool,
    ) -> Result<Found, Failure> {
        let said = self.file.resolve(&BTreeMap::new(), &BTreeMap::new());
        if open.is_empty() {
            return Ok(Found { resolved: said, silent: BTreeMap::new(), documents: BTreeMap::new() });
        }
        let mut agents = self.file.agents();
        agents.retain(|node, _| open.contains(node));
        let is_partial = open.len() < self.file.open_questions().count();
        let fleet = context.fleet_of(Agents::Unplaced(agents), self.file.tls())?;
        context.ask("reading the addresses of the nodes", async |_| {
            let document = async |node: &NodeName| fleet.call_one(context.patience(), node, GetWanted {}).await.ok();
            let (meant, others) = (fleet.of(&is_meant), fleet.of(|node| !is_meant(node)));
            let briefly = context.patience().at_most(OTHERS_TIMEOUT);
            let host = |_: &NodeName| GetHost {};
            let (answers, of_others) = tokio::join!(meant.call(context.patience(), host), others.call(briefly, host));
            let (hosts, silent) = split(answers.into_iter().chain(of_others).collect());
            let remembered = match hosts.keys().next() {
                // Nodes that answer know where the others were when something was put in force.
                Some(node) if is_partial || !silent.is_empty() => document(node).await,
                _ => None,
            };
            let remembered = remembered.map(|document| document.wanted.inventory.nodes).unwrap_or_default();
            let mut resolved = self.file.resolve(&hosts, &remembered);
            // Where the file says everything, only the link-local addresses were asked for. The agent judges the rest.
            resolved.mismatches.retain(|node, mismatch| {
                let place = said.inventory.nodes.get(node).filter(|_| !mismatch.is_about_two_nodes());
                let is_said = place.is_some();
                resolved.inventory.nodes.extend(place.map(|place| (node.clone(), place.clone())));
                !is_said
            });
            let mut documents = BTreeMap::new();
            for (node, mismatch) in &resolved.mismatches {
                // The agent of another node knows nothing of this one.
                let is_its_own = hosts.contains_key(node) && !matches!(mismatch, Mismatch::OtherNode { .. });
                if with_documents
                    && is_its_own
                    && let Some(document) = document(node).await
                {
                    documents.insert(node.clone(), document.wanted);
                }
            }
            Ok(Found { resolved, silent, documents })
        })
    }

    /// Where the nodes of a topology are, as far as the file says. `None`: it does not say the interface or the addresses
    /// of one of them.
    pub(super) fn said_of(&self, topology: &Topology) -> Result<Option<Inventory>, Failure> {
        let nodes = self.file.nodes();
        let missing: Vec<_> = topology.nodes().iter().filter(|node| !nodes.contains_key(*node)).cloned().collect();
        if !missing.is_empty() {
            return Err(EditError::UnknownNodes { missing, known: nodes.keys().cloned().collect() }.into());
        }
        let Resolved { inventory, mut mismatches } = self.file.resolve(&BTreeMap::new(), &BTreeMap::new());
        mismatches.retain(|_, mismatch| *mismatch != Mismatch::Silent);
        if !mismatches.is_empty() {
            return Err(self.misfit(&mismatches, &BTreeMap::new(), &[]));
        }
        let is_known = topology.nodes().iter().all(|node| inventory.nodes.contains_key(node));
        Ok(is_known.then_some(inventory))
    }

    /// Why there is no fleet. The nodes `needed` cannot be left out.
    fn misfit(
        &self,
        mismatches: &BTreeMap<NodeName, Mismatch>,
        silent: &BTreeMap<NodeName, CallError>,
        needed: &[NodeName],
    ) -> Failure {
        let names = hostlist::fold(&mismatches.keys().cloned().collect::<Vec<_>>());
        let is_silent = mismatches.values().all(|mismatch| *mismatch == Mismatch::Silent);
        let mut failure = if is_silent {
            let exit = Exit::of_many(silent.values().map(exit_of)).unwrap_or(Exit::Unreachable);
            Failure::new(exit, format!("{names} did not answer, and the inventory is incomplete; nothing was changed"))
        } else {
            Failure::new(Exit::Refused, format!("the inventory does not match {names}; nothing was changed"))
        };
        failure.nodes =
            mismatches.iter().map(|(node, mismatch)| (node.clone(), self.said(node, mismatch, silent))).collect();
        if is_silent {
            failure = failure.hint("see which agents answer: netemctl status");
            failure = match needed {
                [] => failure.hint_at("allow-missing", "leave out nodes that do not answer: --allow-missing"),
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

    /// What is wrong with a node, with the line of the file.
    pub(super) fn said(&self, node: &NodeName, mismatch: &Mismatch, silent: &BTreeMap<NodeName, CallError>) -> Saying {
        let Saying { text, reason } = match (mismatch, silent.get(node)) {
            (Mismatch::Silent, Some(error)) => error.into(),
            _ => Saying::of(mismatch.to_string()),
        };
        let origin = self.file.nodes().get(node).and_then(|entry| entry.origin.as_ref());
        let text = origin.map_or_else(|| text.clone(), |origin| format!("{text} ({origin})"));
        Saying { text, reason }
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
pub(super) fn nowhere() -> Failure {
    Failure::new(Exit::Unreachable, "no inventory is given, and no lab is up")
        .hint("give an inventory: --inventory FILE, or NETEMCTL_INVENTORY=FILE")
        .hint("or start a lab on this machine: netemctl lab up TOPOLOGY")
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
