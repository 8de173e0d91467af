//! Finds the nodes of a command: reads the inventory in use, and completes it with the answers of the agents.

use std::collections::{BTreeMap, BTreeSet};

use super::{Context, Exit, Failure, context::Agents, inventory_in_use::InventoryInUse, scope::ScopeOptions};
use crate::{
    fleet::{CallError, Fleet, Scope, split},
    inventory::{Mismatch, Resolved},
    lab::LabDirectory,
    plan::{NodeLocation, Wanted},
    topology::{NodeName, Topology},
    wire::{GetHost, GetWanted, Host},
};

/// The result of a lookup.
struct Found {
    resolved: Resolved,
    /// The nodes that did not answer.
    silent: BTreeMap<NodeName, CallError>,
    /// The documents of agents whose node does not match the file.
    documents: BTreeMap<NodeName, Wanted>,
}

impl Context {
    /// The inventory in use. Its warnings are printed.
    pub(super) fn inventory_in_use(&self, topology: Option<&Topology>) -> Result<InventoryInUse, Failure> {
        self.inventory_if_any(topology)?.ok_or_else(|| no_inventory(self.lab_directory().ok().as_ref()))
    }

    /// Like [`Self::inventory_in_use`]; `None`: there is no inventory, and no lab is up.
    pub(super) fn inventory_if_any(&self, topology: Option<&Topology>) -> Result<Option<InventoryInUse>, Failure> {
        let found = self.find_inventory(topology)?;
        if let Some(inventory_in_use) = &found {
            self.mention(inventory_in_use.file.warnings());
        }
        Ok(found)
    }

    /// Like [`Self::inventory_if_any`], but prints no warnings.
    pub(super) fn find_inventory(&self, topology: Option<&Topology>) -> Result<Option<InventoryInUse>, Failure> {
        InventoryInUse::find(self.inventory.as_ref(), topology, || Ok(self.lab_directory()?.find()))
    }

    /// The fleet of the inventory in use.
    pub(super) fn fleet(&self) -> Result<Fleet, Failure> {
        self.inventory_in_use(None)?.fleet(self)
    }
}

impl InventoryInUse {
    /// The nodes' agents, for reads only: the interfaces and addresses of the nodes are unknown.
    pub(super) fn agents(&self, context: &Context) -> Result<Fleet, Failure> {
        let agents = self.file.agents();
        context.fleet_of(Agents::Unplaced(agents), self.file.tls())
    }

    /// The fleet of all nodes. The agents supply the interfaces and addresses that the inventory lacks.
    pub(super) fn fleet(&self, context: &Context) -> Result<Fleet, Failure> {
        let Found { resolved: Resolved { inventory, mismatches }, silent, .. } =
            self.find_nodes(context, &Scope::default(), false)?;
        if mismatches.is_empty() {
            context.fleet_of(Agents::Placed(inventory), self.file.tls())
        } else {
            Err(self.misfit(&mismatches, &silent, &[]))
        }
    }

    /// The fleet and the scope of a change.
    ///
    /// A change that only removes also includes nodes that answer but do not match the inventory. The location of such
    /// a node comes from its own document in force. If this document is clear and has no location, the change leaves out
    /// the node. A node of `topology` without a location is an error, because the other nodes need its addresses.
    pub(super) fn fleet_to_change(
        &self,
        context: &Context,
        options: &ScopeOptions,
        topology: Option<&Topology>,
        only_removes: bool,
    ) -> Result<(Fleet, Scope), Failure> {
        let mut scope = options.scope(self.file.nodes())?;
        let Found { resolved, silent, documents } = self.find_nodes(context, &scope, only_removes)?;
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
        let may_lack = |node: &NodeName| has_nothing(node) || scope.allow_missing || !scope.includes(node);
        let needed: Vec<_> = mismatches.keys().filter(|node| is_needed(node)).cloned().collect();
        if inventory.nodes.is_empty() || !needed.is_empty() || !mismatches.keys().all(may_lack) {
            return Err(self.misfit(&mismatches, &silent, &needed));
        }
        inventory.zones.retain(|_, nodes| {
            nodes.retain(|node| inventory.nodes.contains_key(node));
            !nodes.is_empty()
        });
        scope.left_out = mismatches.into_keys().collect();
        let answers = |node: &NodeName| scope.includes(node) && !silent.contains_key(node);
        if scope.allow_missing && inventory.nodes.keys().any(answers) {
            scope.silent = silent.into_keys().collect();
        }
        Ok((context.fleet_of(Agents::Placed(inventory), self.file.tls())?, scope))
    }

    /// Asks the agents about their hosts, if the file lacks interfaces or addresses. Asks nodes outside the scope only for
    /// a change that needs their addresses, and only if the documents of the asked nodes lack them.
    ///
    /// With `only_removes`, agents whose host does not match the file are also asked for their document.
    fn find_nodes(&self, context: &Context, scope: &Scope, only_removes: bool) -> Result<Found, Failure> {
        let said = self.file.resolve(&BTreeMap::new(), &BTreeMap::new());
        let open: BTreeSet<&NodeName> = self.file.nodes_to_ask().collect();
        if open.is_empty() {
            return Ok(Found { resolved: said, silent: BTreeMap::new(), documents: BTreeMap::new() });
        }
        let mut agents = self.file.agents();
        agents.retain(|node, _| open.contains(node));
        let fleet = context.fleet_of(Agents::Unplaced(agents), self.file.tls())?;
        context.ask("reading the addresses of the nodes", async |_| {
            let document = async |node: &NodeName| fleet.call_one(context.timeouts(), node, GetWanted {}).await.ok();
            let hosts_of = async |fleet: Fleet, allow_missing| {
                split(fleet.call_within(allow_missing, context.timeouts(), |_| GetHost {}).await)
            };
            let (mut hosts, mut silent) = hosts_of(fleet.of(|node| scope.includes(node)), scope.allow_missing).await;
            let remembered = match hosts.keys().next() {
                // The document of a node that answers has the locations of the other nodes.
                Some(node) if hosts.len() < open.len() => document(node).await,
                _ => None,
            };
            let remembered = remembered.map(|document| document.wanted.inventory).unwrap_or_default();
            let resolve = |hosts: &BTreeMap<NodeName, Host>| {
                let mut resolved = self.file.resolve(hosts, &remembered.nodes);
                // A node with a complete entry was asked only for link-local addresses. Its other mismatches do not
                // count, because its agent checks the change.
                resolved.mismatches.retain(|node, mismatch| {
                    let place = said.inventory.nodes.get(node).filter(|_| !mismatch.is_about_two_nodes());
                    let is_said = place.is_some();
                    resolved.inventory.nodes.extend(place.map(|place| (node.clone(), place.clone())));
                    !is_said
                });
                resolved
            };
            let mut resolved = resolve(&hosts);
            let is_unknown = |node: &NodeName| !scope.includes(node) && resolved.mismatches.contains_key(node);
            if !only_removes && open.iter().any(|node| is_unknown(node)) {
                let (others, silent_others) = hosts_of(fleet.of(is_unknown), true).await;
                hosts.extend(others);
                silent.extend(silent_others);
                resolved = resolve(&hosts);
            }
            let mut documents = BTreeMap::new();
            for (node, mismatch) in &resolved.mismatches {
                // The agent of another node has no document of this node.
                let is_its_own = hosts.contains_key(node) && !matches!(mismatch, Mismatch::OtherNode { .. });
                if only_removes
                    && is_its_own
                    && let Some(document) = document(node).await
                {
                    documents.insert(node.clone(), document.wanted);
                }
            }
            Ok(Found { resolved, silent, documents })
        })
    }
}

/// The failure without an inventory and a lab. `lab`: the directory of the lab, if known.
pub(super) fn no_inventory(lab: Option<&LabDirectory>) -> Failure {
    let directory = lab.map(|lab| format!(" (looked in {})", lab.path().display())).unwrap_or_default();
    let message = format!("no inventory is given, and no lab of this user is up{directory}");
    let failure = Failure::new(Exit::Unreachable, message)
        .hint("give an inventory: --inventory FILE, or NETEMCTL_INVENTORY=FILE");
    if lab.is_some_and(LabDirectory::has_orphans) {
        failure.hint("or clean up the lab whose keeper was killed: netemctl lab down")
    } else {
        failure.hint("or start a lab on this machine: netemctl lab up TOPOLOGY")
    }
}
