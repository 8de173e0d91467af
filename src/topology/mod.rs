//! The topology language: a TOML file describes nodes, zones and links. First type to read: [`Topology`].
//!
//! ```toml
//! name = "hierarchical-9"
//!
//! [zones]                            # a node outside all zones: `nodes = "gw"` above this line
//! Z1 = "n[1-3]"                      # a hostlist, or an array of node names and hostlists
//! Z2 = ["n4", "n[5-6]"]
//! Z3 = "n[7-9]"
//!
//! [links]
//! default    = { rtt = "0ms" }       # all links; netem does not shape a link without a rule
//! intra-zone = { rtt = "20ms" }      # links inside a zone
//! inter-zone = { delay = "75ms" }    # links between zones; `delay` is one way, `rtt` there and back
//!
//! [[links.override]]                 # ends: zones, nodes, hostlists or "*"; later overrides win
//! between = ["Z1", "Z3"]             # both ways
//! rtt = "210ms"
//!
//! [[links.override]]
//! from = "n1"                        # one way
//! to = ["Z2", "n7"]
//! delay = "5ms"
//! jitter = "1ms"                     # replaces jitter, correlation and distribution of earlier rules
//! distribution = "normal"
//! loss = "0.1%"
//! ```
//!
//! `docs/links.md` describes all parameters.
//!
//! The module reads no disk and no clock, so all machines accept the same files. `inventory` maps nodes to hosts.
//! `plan` computes the state of the kernel from a topology.
//!
//! A topology file can name other files: its attached files. `[links] matrix = "regions.csv"` names a matrix of delays.
//! `distribution = { table = "wan.dist" }` names a distribution table. The [`Source`] has the texts of all files.
//!
//! Three passes read a topology file: `document` reads the TOML, `membership` the nodes and zones, `resolve` the rules.
//! If the passes find no error, `conflicts` checks the rules against each other. Each pass continues after a mistake,
//! so one [`FileReport`] reports the mistakes of all passes.

mod change;
mod coherence;
mod conflicts;
mod csv;
mod diagnostic;
mod document;
mod file_kind;
mod files;
mod groups;
pub mod hostlist;
mod json_text;
mod key_advice;
mod link;
mod matrix;
mod members;
mod membership;
mod name;
mod node_set;
mod notation;
mod parameters;
mod patch;
mod reader;
mod render;
mod resolve;
mod rules;
mod scopes;
mod source;
mod suggest;
mod tables;
#[cfg(test)]
mod tests;
mod units;
mod unknown_name;
mod warnings;

use std::{collections::BTreeMap, sync::Arc};

use serde::{Deserialize, Serialize};

pub use self::{
    change::LinkChange,
    coherence::{Incoherence, incoherence},
    diagnostic::{FileReport, Problem, Related, Severity},
    groups::NodeGroups,
    link::{
        Chance, Distribution, Jitter, Link, Loss, LossModel, Parameter, Rate, RatePer, Reorder, Slot, Spacing, TableId,
        Undelayed,
    },
    name::{MAX_NAME_CHARS, NameError, NodeName, ZoneName},
    scopes::LinkScope,
    source::{Origin, Source},
    units::{BitRate, Bytes, Delay, Probability, QuantityError, QuantityMistake, Rtt},
    unknown_name::UnknownName,
};
/// Items for other modules, most of which read TOML files: `inventory`, `pki`, and the agent's configuration.
pub(crate) use self::{
    diagnostic::{Finding, Reported},
    file_kind::{FileKind, parse_toml},
    hostlist::Hostlist,
    json_text::json_text,
    name::NAME_HELP,
    parameters::integer,
    reader::{Table, TableEntry, Word},
    source::Lines,
    warnings::ranges_without_brackets,
};
use self::{
    files::{AttachedFiles, References},
    members::Members,
    rules::Rules,
    source::SourceSpan,
};

/// The largest size in bytes of a topology file, and of each attached file.
///
/// The largest topology needs about 1 MiB.
pub const MAX_FILE_BYTES: usize = 4 * 1024 * 1024;

/// The largest total size in bytes of the attached files of a topology.
///
/// The limit keeps a request to an agent below the largest request that the agent accepts.
pub const MAX_ATTACHED_BYTES: usize = 2 * MAX_FILE_BYTES;

/// The largest number of nodes of a topology.
///
/// The wanted state has about 110 bytes for each node. So it fits into the largest request that an agent accepts.
pub const MAX_NODES: usize = 131_072;

/// Distribution tables of the user: values in units of 1/8192 of the jitter, in the order of the file (tc-netem(8)).
pub type Tables = BTreeMap<TableId, Arc<[i16]>>;

/// A network: nodes, zones, and the link from any node to any other.
///
/// Only the parser creates a topology, so every topology is valid. On the wire and in the journal, a topology has the
/// form of its [`Source`]. The receiver parses the [`Source`] again.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(try_from = "Source", into = "Source")]
pub struct Topology {
    source: Source,
    name: String,
    members: Arc<Members>,
    rules: Arc<Rules>,
    tables: Tables,
    /// The warnings of the passes over the file.
    warnings: Vec<Finding>,
}

impl Topology {
    /// Reads a topology file and its attached files.
    ///
    /// # Errors
    ///
    /// All mistakes in the files. If the TOML is invalid, only its first mistake.
    pub fn parse(source: Source) -> Result<Self, FileReport> {
        Self::parse_with(source, &BTreeMap::new())
    }

    /// Reads a topology file, and its attached files with `attach`.
    ///
    /// `attach` takes the name of an attached file. It returns the text of the file, or the reason of a failure.
    ///
    /// # Errors
    ///
    /// All mistakes in the files. If the TOML is invalid, only its first mistake.
    pub fn load(
        mut source: Source,
        mut attach: impl FnMut(&str) -> Result<String, String>,
    ) -> Result<Self, FileReport> {
        let mut unreadable = BTreeMap::new();
        for name in source.references() {
            match attach(&name) {
                Ok(text) => drop(source.files.insert(name, text)),
                Err(reason) => drop(unreadable.insert(name, reason)),
            }
        }
        Self::parse_with(source, &unreadable)
    }

    /// Reads a topology file. `unreadable` has the reasons why attached files cannot be read, by their names.
    fn parse_with(source: Source, unreadable: &BTreeMap<String, String>) -> Result<Self, FileReport> {
        let mut findings = Vec::new();
        match read(&source, unreadable, &mut findings) {
            Some((name, members, rules, tables)) => {
                let (members, rules) = (Arc::new(members), Arc::new(rules));
                Ok(Self { source, name, members, rules, tables, warnings: findings })
            }
            None => Err(FileReport::new(source, findings)),
        }
    }

    /// The value of `name` in the file.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The topology file with its attached files.
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// All nodes in the file's order, at least two.
    pub fn nodes(&self) -> &[NodeName] {
        self.members.nodes()
    }

    /// The zones with their nodes, in the file's order. A node can be outside all zones.
    pub fn zones(&self) -> impl Iterator<Item = (&ZoneName, &[NodeName])> {
        self.members.zones().iter().map(|zone| (&zone.name, self.members.names_in(zone.nodes.clone())))
    }

    /// The zone of a node. `None` if the node is in no zone, or unknown.
    pub fn zone_of(&self, node: &NodeName) -> Option<&ZoneName> {
        self.members.zone_of(self.members.id_of(node)?).map(|zone| &zone.name)
    }

    /// True if the topology has this node.
    pub fn contains(&self, node: &NodeName) -> bool {
        self.members.id_of(node).is_some()
    }

    /// The link from one node to another. `None` if a node is unknown, or if both nodes are the same.
    ///
    /// Takes time in proportion to the number of overrides. For all links of a node use
    /// [`links_from`](Self::links_from).
    pub fn link(&self, from: &NodeName, to: &NodeName) -> Option<Link> {
        let (from, to) = (self.members.id_of(from)?, self.members.id_of(to)?);
        (from != to).then(|| self.rules.of_node(from, &self.members).link(to))
    }

    /// The line that sets a parameter of a link. `None` if no rule sets the parameter.
    pub fn origin(&self, from: &NodeName, to: &NodeName, parameter: Parameter) -> Option<Origin> {
        let (from, to) = (self.members.id_of(from)?, self.members.id_of(to)?);
        let SourceSpan { file, start, .. } = self.rules.of_node(from, &self.members).span_of(to, parameter)?;
        let (line, _) = Lines::of(self.source.text_of(&file)?).position(start);
        Some(Origin { path: self.source.file_path(&file), line })
    }

    /// The distribution tables of the user.
    pub fn tables(&self) -> &Tables {
        &self.tables
    }

    /// The links from a node to all others, in the file's order. Empty for an unknown node.
    pub fn links_from<'t>(&'t self, from: &NodeName) -> impl Iterator<Item = (&'t NodeName, Link)> + use<'t> {
        let from = self.members.id_of(from);
        let ranges = from.map(|from| self.rules.of_node(from, &self.members).link_ranges());
        let links = ranges.into_iter().flatten().flat_map(|range| {
            let nodes = range.nodes.clone().zip(self.members.names_in(range.nodes));
            nodes.map(move |(id, node)| (id, node, range.link))
        });
        links.filter(move |&(id, ..)| Some(id) != from).map(|(_, node, link)| (node, link))
    }

    /// Every distinct link, with a description of the pairs of nodes that have this link.
    ///
    /// Takes time in proportion to the square of the number of classes. The same rules cover all nodes of a class.
    pub fn distinct_links(&self) -> Vec<(Link, Vec<LinkScope>)> {
        scopes::distinct_links(&self.rules, &self.members)
    }

    /// The nodes in groups with equal links.
    pub fn groups(&self) -> NodeGroups<'_> {
        NodeGroups::of(&self.rules, &self.members)
    }

    /// The warnings about the file: probable mistakes in a valid file.
    ///
    /// Takes as much time as [`distinct_links`](Self::distinct_links).
    pub fn warnings(&self) -> FileReport {
        let mut findings = self.warnings.clone();
        warnings::find(self, &mut findings);
        FileReport::new(self.source.clone(), findings)
    }

    /// The round-trip time between two nodes: the sum of the delays of both directions.
    ///
    /// `None` if a node is unknown, or if both nodes are the same.
    pub fn rtt(&self, a: &NodeName, b: &NodeName) -> Option<Rtt> {
        Some(self.link(a, b)?.delay + self.link(b, a)?.delay)
    }

    /// The nodes that a word names: a zone, a node, a hostlist of zones and nodes, or `*` for all nodes.
    ///
    /// The result has each node once, in the file's order.
    ///
    /// # Errors
    ///
    /// The word has an unknown name, or is a malformed hostlist. The error about an unknown name suggests a known name.
    pub fn select(&self, word: &str) -> Result<Vec<NodeName>, UnknownName> {
        let nodes = self.members.find(word)?;
        Ok(nodes.ranges().iter().flat_map(|range| self.members.names_in(range.clone())).cloned().collect())
    }
}

/// Two topologies are equal if their sources are equal.
impl PartialEq for Topology {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

impl Eq for Topology {}

impl TryFrom<Source> for Topology {
    type Error = FileReport;

    fn try_from(source: Source) -> Result<Self, FileReport> {
        Self::parse(source)
    }
}

impl From<Topology> for Source {
    fn from(topology: Topology) -> Self {
        topology.source
    }
}

/// Runs all passes over a file. `None` if the findings contain an error.
fn read(
    source: &Source,
    unreadable: &BTreeMap<String, String>,
    findings: &mut Vec<Finding>,
) -> Option<(String, Members, Rules, Tables)> {
    let text = &source.text;
    let table = FileKind::Topology.parse(text).map_err(|errors| findings.extend(errors)).ok()?;
    let references = References::of(table.get_ref());
    let files = AttachedFiles::of(source, unreadable, &references, findings);
    let named = tables::read(&references.tables, &files, findings);
    let document = document::read(table.get_ref(), text, &named.ids, findings);
    let members = membership::read(&document.groups, findings);
    let matrix = document.links.matrix.as_ref().and_then(|matrix| matrix::read(matrix, &files, &members, findings));
    let rules = resolve::resolve(&document, matrix, &members, findings);
    if !findings.iter().any(Finding::is_error) {
        conflicts::check(&rules, &members, findings);
    }
    let is_right = !findings.iter().any(Finding::is_error);
    is_right.then(|| (document.name.to_owned(), members, rules, named.tables))
}
