//! `netemctl doctor`: examines the hosts before anything is applied.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::Serialize;

use super::{
    Context, Exit, Failure, NodeFailure,
    agent::HOST_CONFIG,
    exit_of,
    inventory_in_use::{InventoryInUse, InventoryOrigin},
    render::{
        count,
        escape::{BOLD, on_one_line},
        is_styled, lines_of_nodes,
    },
    topology_file,
};
use crate::{
    agent::{FactsError, facts_here},
    doctor::{AllNeeds, Check, Facts, Finding, Level, Needs, compare, judge},
    fleet::{CallError, split},
    inventory::Resolved,
    plan::{IfName, Inventory, Wanted},
    topology::{NodeName, Topology, hostlist},
    wire::{GetHost, GetWanted},
};

/// Examine hosts: kernel, rights, interface, TCP, timers, firewalls
///
/// Every agent reads facts about its host, and changes nothing. Each finding has its effect on the experiment and the
/// command that mends it. Without an inventory and a lab, this host is examined, without an agent.
///
/// With a topology, doctor compares the host with its rates, delays and number of nodes. Without --topology, it takes
/// what is in force.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Exit codes:
  4  a problem, such as an interface that is down or TCP buffers that are too small
  6  an agent does not answer
  7  a kernel cannot shape
  8  an agent lacks a right")]
pub(super) struct Doctor {
    /// Compare with this topology; - for stdin
    #[arg(long, value_name = "FILE")]
    topology: Option<PathBuf>,

    /// Examine this host and this interface
    ///
    /// Uses no agent.
    #[arg(long, value_name = "INTERFACE")]
    interface: Option<IfName>,

    /// Also show what is OK; with --json, also the facts
    #[arg(long)]
    all: bool,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct Diagnosis<'a> {
    /// True if all agents answer and no finding is a problem.
    ok: bool,
    /// The source of the inventory; absent: this host was examined, without an agent.
    #[serde(skip_serializing_if = "Option::is_none")]
    inventory: Option<InventoryOrigin>,
    /// The topology that the hosts were compared with.
    #[serde(skip_serializing_if = "Option::is_none")]
    topology: Option<&'a str>,
    /// The number of problems. A problem of many nodes counts once.
    problems: usize,
    /// The number of notes. A note of many nodes counts once.
    notes: usize,
    nodes: BTreeMap<NodeName, Examined>,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "DiagnosisNode"))]
struct Examined {
    findings: Vec<Finding>,
    /// The facts; only with `--all`.
    #[serde(skip_serializing_if = "Option::is_none")]
    facts: Option<Facts>,
    /// The reason why the node was not examined.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "Option<String>"))]
    error: Option<NodeFailure>,
}

/// The hosts that were examined.
#[derive(Default)]
struct Hosts {
    facts: BTreeMap<NodeName, Facts>,
    silent: BTreeMap<NodeName, CallError>,
    /// The nanoseconds by which a clock is ahead of this machine's.
    ahead: BTreeMap<NodeName, i64>,
    /// The locations of the nodes, as far as they are known.
    inventory: Inventory,
    /// The nodes that do not match the inventory.
    mismatches: BTreeMap<NodeName, NodeFailure>,
    /// The document in force on one of the nodes.
    in_force: Option<Wanted>,
}

impl Doctor {
    pub(super) fn run(self, context: &Context) -> Result<Exit, Failure> {
        let topology = self.topology.as_deref().map(topology_file::read).transpose()?;
        let inventory_in_use = match self.interface {
            Some(_) => None,
            None => context.inventory_if_any(topology.as_ref())?,
        };
        if let (Some(inventory_in_use), Some(topology)) = (&inventory_in_use, &topology) {
            inventory_in_use.check_names(topology)?;
        }
        let hosts = match &inventory_in_use {
            Some(inventory_in_use) => Hosts::of_fleet(context, inventory_in_use)?,
            None => Hosts::this(self.interface.clone())?,
        };
        let wanted = hosts.wanted(topology);
        let mut findings: BTreeMap<NodeName, Vec<Finding>> = BTreeMap::new();
        let topology = wanted.as_ref().and_then(|wanted| wanted.topology.as_ref());
        let all_needs = wanted.as_ref().map(AllNeeds::of);
        let places = &hosts.inventory.nodes;
        let interfaces = places.iter().map(|(node, place)| (node.clone(), place.interface.clone())).collect();
        for (node, facts) in &hosts.facts {
            let interface = places.get(node).map(|place| &place.interface).or(self.interface.as_ref());
            let needs = all_needs.as_ref().map(|all| needs(all, topology, node, facts, interface));
            findings.insert(node.clone(), judge(facts, interface, needs.as_ref()));
        }
        for (node, NodeFailure { text, .. }) in hosts.mismatches {
            findings.entry(node).or_default().push(mismatch(text));
        }
        for (node, finding) in compare(&hosts.facts, &interfaces, &hosts.ahead) {
            findings.entry(node).or_default().push(finding);
        }
        let exit = exit(&findings, &hosts.silent);
        // A finding of many nodes counts once, as it is shown once.
        let distinct: BTreeSet<&Finding> = findings.values().flatten().collect();
        let number = |level| distinct.iter().filter(|finding| finding.level == level).count();
        let (problems, notes) = (number(Level::Problem), number(Level::Note));
        let mut facts = hosts.facts;
        let examined = findings.into_iter().map(|(node, mut findings)| {
            findings.retain(|finding| self.all || finding.level != Level::Ok);
            findings.sort();
            let facts = facts.remove(&node).filter(|_| self.all);
            (node, Examined { findings, facts, error: None })
        });
        let unexamined = hosts.silent.iter().map(|(node, error)| {
            (node.clone(), Examined { findings: Vec::new(), facts: None, error: Some(error.into()) })
        });
        let diagnosis = Diagnosis {
            ok: exit == Exit::Ok,
            inventory: inventory_in_use.map(|inventory_in_use| inventory_in_use.from),
            topology: topology.map(Topology::name),
            problems,
            notes,
            nodes: examined.chain(unexamined).collect(),
        };
        context.answer(&diagnosis, || draw(&diagnosis))?;
        Ok(exit)
    }
}

impl Hosts {
    /// Asks the agents.
    fn of_fleet(context: &Context, inventory_in_use: &InventoryInUse) -> Result<Self, Failure> {
        let fleet = inventory_in_use.agents(context)?;
        let (facts, ahead, known, in_force) = context.ask("examining the nodes", async |_| {
            let (facts, ahead) = fleet.facts(context.timeouts()).await;
            let answering = fleet.of(|node| facts.get(node).is_some_and(Result::is_ok));
            let known = split(answering.call(context.timeouts(), |_| GetHost {}).await).0;
            let in_force = match known.keys().next() {
                Some(node) => fleet.call_one(context.timeouts(), node, GetWanted {}).await.ok(),
                None => None,
            };
            Ok((facts, ahead, known, in_force))
        })?;
        let (facts, silent) = split(facts);
        let Resolved { inventory, mut mismatches } = inventory_in_use.file.resolve(&known, &BTreeMap::new());
        mismatches.retain(|node, _| facts.contains_key(node));
        let failure =
            |(node, mismatch)| (NodeName::clone(node), inventory_in_use.node_failure(node, mismatch, &silent));
        let mismatches = mismatches.iter().map(failure).collect();
        Ok(Self {
            mismatches,
            facts: facts.into_iter().map(|(node, answer)| (node, answer.facts)).collect(),
            silent,
            ahead,
            inventory,
            in_force: in_force.map(|document| document.in_force()),
        })
    }

    /// Examines this host.
    fn this(interface: Option<IfName>) -> Result<Self, Failure> {
        let (node, facts) = facts_here(Path::new(HOST_CONFIG), interface)?;
        Ok(Self { facts: BTreeMap::from([(node, facts)]), ..Self::default() })
    }

    /// The document to compare the hosts with: a topology, or what is in force.
    fn wanted(&self, topology: Option<Topology>) -> Option<Wanted> {
        let inventory = Arc::new(self.inventory.clone());
        match topology {
            Some(_) => Some(Wanted { topology, inventory, ..Wanted::default() }),
            None => self.in_force.clone().filter(|wanted| !wanted.is_clear()),
        }
    }
}

/// What the document needs of a host. A host that is no node of the topology must satisfy the needs of every node.
fn needs(
    all: &AllNeeds<'_>,
    topology: Option<&Topology>,
    node: &NodeName,
    facts: &Facts,
    interface: Option<&IfName>,
) -> Needs {
    let examined = facts.interfaces.iter().filter(|(name, _)| interface.is_none_or(|only| only == *name));
    let networks: Vec<_> =
        examined.filter_map(|(_, fact)| fact.known()).flat_map(|fact| fact.addresses.clone()).collect();
    match topology {
        Some(topology) if !all.knows(node) => all.of_nodes(topology.nodes(), &networks),
        _ => all.of_nodes([node], &networks),
    }
}

/// The finding on a node that does not match the inventory.
fn mismatch(text: String) -> Finding {
    Finding {
        level: Level::Problem,
        check: Check::Interface,
        text,
        effect: Some("every change that needs this node is refused".to_owned()),
        remedy: Some("correct the inventory; check it: netemctl inventory check".to_owned()),
    }
}

/// The exit code: of the agents that do not answer, and of the problems.
fn exit(findings: &BTreeMap<NodeName, Vec<Finding>>, silent: &BTreeMap<NodeName, CallError>) -> Exit {
    let problems = findings.values().flatten().filter(|finding| finding.level == Level::Problem);
    let of_problem = |finding: &Finding| match finding.check {
        Check::Shaping => Exit::Unsupported,
        Check::Capabilities | Check::Namespaces => Exit::Permission,
        _ => Exit::Differs,
    };
    Exit::of_many(silent.values().map(exit_of).chain(problems.map(of_problem))).unwrap_or(Exit::Ok)
}

/// The findings, each with its nodes, the worst first, and a summary.
fn draw(diagnosis: &Diagnosis<'_>) -> String {
    let errors = diagnosis.nodes.iter().filter_map(|(node, examined)| Some((node, examined.error.clone()?)));
    let mut text = lines_of_nodes(errors);
    let is_styled = is_styled(&io::stdout());
    let mut groups: BTreeMap<&Finding, BTreeSet<&NodeName>> = BTreeMap::new();
    for (node, examined) in &diagnosis.nodes {
        for finding in &examined.findings {
            groups.entry(finding).or_default().insert(node);
        }
    }
    for (Finding { level, text: fact, effect, remedy, .. }, nodes) in groups {
        let (mark, level) = match level {
            Level::Problem if is_styled => (BOLD.to_string(), "problem"),
            Level::Problem => (String::new(), "problem"),
            Level::Note => (String::new(), "note"),
            Level::Ok => (String::new(), "ok"),
        };
        text += &format!("{mark}{level} {}: {}\n", hostlist::fold(nodes), on_one_line(fact));
        text.extend(effect.iter().map(|effect| format!("  effect: {effect}\n")));
        text.extend(remedy.iter().map(|remedy| format!("  fix: {}\n", on_one_line(remedy))));
    }
    let examined = diagnosis.nodes.values().filter(|examined| examined.error.is_none()).count();
    let compared = diagnosis.topology.map(|name| format!(", compared with topology {name}")).unwrap_or_default();
    let (problems, notes) = (count(diagnosis.problems, "problem"), count(diagnosis.notes, "note"));
    text + &format!("{problems}, {notes} on {}{compared}\n", count(examined, "node"))
}

impl From<FactsError> for Failure {
    fn from(error: FactsError) -> Self {
        match error {
            FactsError::Config(error) => error.into(),
            FactsError::Netlink(_) => Self::new(Exit::Failed, error),
        }
    }
}
