//! The topology language: a TOML file describes nodes, zones and links. First type to read: [`Topology`].
//!
//! ```toml
//! name = "hierarchical-9"
//!
//! [zones]                            # nodes outside zones go into `nodes = "n[1-9]"` above
//! Z1 = "n[1-3]"                      # a hostlist, or an array of names and hostlists
//! Z2 = ["n4", "n[5-6]"]
//! Z3 = "n[7-9]"
//!
//! [links]
//! default    = { rtt = "0ms" }       # every link; without a rule, a link is the LAN
//! intra-zone = { rtt = "20ms" }      # links inside a zone
//! inter-zone = { delay = "75ms" }    # links between zones; `delay` is one way, `rtt` there and back
//!
//! [[links.override]]                 # later wins; zones, nodes, hostlists, or "*"
//! between = ["Z1", "Z3"]             # both ways
//! rtt = "210ms"
//!
//! [[links.override]]
//! from = "n1"                        # one way
//! to = ["Z2", "n7"]
//! delay = "5ms"
//! jitter = "1ms"                     # each parameter replaces that of earlier rules as a whole
//! distribution = "normal"
//! loss = "0.1%"
//! ```
//!
//! `docs/links.md` describes all parameters.
//!
//! The module is pure: it reads no disk and no clock, so it accepts the same files on all machines. The inventory has the
//! hosts of the nodes; the plan computes the kernel's state.
//!
//! `[links] matrix = "regions.csv"` reads delays from a file, and `distribution = { table = "wan.dist" }` the distribution
//! of a jitter. The texts of these files are part of the [`Source`].
//!
//! The passes over a file: `document` reads the TOML, `membership` the nodes and zones, `resolve` the rules. If these find
//! no error, `conflicts` checks the rules against each other. All passes report all mistakes, in one [`Rejected`].

mod change;
mod coherence;
mod conflicts;
mod csv;
mod diagnostic;
mod document;
mod file_kind;
mod files;
pub mod hostlist;
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
use toml::{Spanned, de::DeTable};

pub use self::{
    change::LinkChange,
    coherence::{Incoherence, incoherence},
    diagnostic::{Problem, Rejected, Related, Severity, Warnings},
    link::{
        Chance, Distribution, Jitter, Link, Loss, LossModel, Parameter, Rate, RatePer, Reorder, Slot, Spacing, TableId,
        Undelayed,
    },
    name::{MAX_NAME_CHARS, NameError, NodeName, ZoneName},
    scopes::Scope,
    source::{Origin, Source},
    units::{BitRate, Bytes, Delay, Probability, QuantityError, QuantityMistake, Rtt},
    unknown_name::UnknownName,
};
/// The reader, which inventories use as well.
pub(crate) use self::{
    diagnostic::Finding,
    file_kind::FileKind,
    hostlist::Hostlist,
    name::NAME_HELP,
    parameters::integer,
    reader::{Table, TableEntry, Word},
    source::Lines,
    suggest::nearest,
    warnings::ranges_without_brackets,
};
use self::{
    files::{AttachedFiles, References},
    members::Members,
    rules::Rules,
    source::SourceSpan,
};

/// The largest size in bytes of a topology file, and of each file that it names. The largest topology needs about 1 MiB.
pub const MAX_FILE_BYTES: usize = 4 * 1024 * 1024;

/// The largest size in bytes of all files that a topology file names. With this limit a request to an agent fits into
/// the agent's own limit.
pub const MAX_ATTACHED_BYTES: usize = 2 * MAX_FILE_BYTES;

/// The largest number of nodes of a topology.
pub const MAX_NODES: usize = 65_536;

/// Distribution tables of the user: values in units of 1/8192 of the jitter, in the order of the file (tc-netem(8)).
pub type Tables = BTreeMap<TableId, Arc<[i16]>>;

/// A network: nodes, zones, and the link from any node to any other.
///
/// A topology is valid by construction. The form on the wire and in the journal is the [`Source`], so there is one parser
/// and one validation.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(try_from = "Source", into = "Source")]
pub struct Topology {
    source: Source,
    name: String,
    members: Members,
    rules: Rules,
    tables: Tables,
    /// The warnings of the passes over the file.
    warnings: Vec<Finding>,
}

impl Topology {
    /// Reads a topology file, with all files that it names.
    ///
    /// # Errors
    ///
    /// All mistakes in the files; of invalid TOML, the first one.
    pub fn parse(source: Source) -> Result<Self, Rejected> {
        Self::parse_without(source, &BTreeMap::new())
    }

    /// Reads a topology file. `attach` reads each file that it names: it returns the text or the reason of a failure.
    ///
    /// # Errors
    ///
    /// All mistakes in the files; of invalid TOML, the first one.
    pub fn load(mut source: Source, mut attach: impl FnMut(&str) -> Result<String, String>) -> Result<Self, Rejected> {
        let mut unreadable = BTreeMap::new();
        for name in source.references() {
            match attach(&name) {
                Ok(text) => drop(source.files.insert(name, text)),
                Err(reason) => drop(unreadable.insert(name, reason)),
            }
        }
        Self::parse_without(source, &unreadable)
    }

    fn parse_without(source: Source, unreadable: &BTreeMap<String, String>) -> Result<Self, Rejected> {
        let mut findings = Vec::new();
        match read(&source, unreadable, &mut findings) {
            Some((name, members, rules, tables)) => {
                Ok(Self { source, name, members, rules, tables, warnings: findings })
            }
            None => Err(Rejected::new(source, findings)),
        }
    }

    /// The value of `name` in the file.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file of the topology.
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

    /// The zone of a node. `None` outside zones, and for an unknown node.
    pub fn zone_of(&self, node: &NodeName) -> Option<&ZoneName> {
        self.members.zone_of(self.members.id_of(node)?).map(|zone| &zone.name)
    }

    /// True if the topology has this node.
    pub fn contains(&self, node: &NodeName) -> bool {
        self.members.id_of(node).is_some()
    }

    /// The link from one node to another. `None` if a node is unknown, or both are the same.
    ///
    /// Takes time in proportion to the number of overrides. For all links of a node use
    /// [`links_from`](Self::links_from).
    pub fn link(&self, from: &NodeName, to: &NodeName) -> Option<Link> {
        let (from, to) = (self.members.id_of(from)?, self.members.id_of(to)?);
        (from != to).then(|| self.rules.link(from, to, &self.members))
    }

    /// The line that sets a parameter of a link. `None` if no rule sets it.
    pub fn origin(&self, from: &NodeName, to: &NodeName, parameter: Parameter) -> Option<Origin> {
        let (from, to) = (self.members.id_of(from)?, self.members.id_of(to)?);
        let SourceSpan { file, span } = self.rules.of_node(from, &self.members).span_of(to, parameter)?;
        let (line, _) = Lines::of(self.source.text_of(&file)?).position(span.start);
        Some(Origin { path: self.source.name_of(&file), line })
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

    /// Every distinct link with a description of the pairs of nodes that have it.
    ///
    /// Takes time in proportion to the square of the number of zones.
    pub fn distinct_links(&self) -> Vec<(Link, Vec<Scope>)> {
        scopes::distinct_links(&self.rules, &self.members)
    }

    /// The warnings about the file: probable mistakes in a valid file.
    ///
    /// Takes time in proportion to the square of the number of zones.
    pub fn warnings(&self) -> Warnings {
        let mut findings = self.warnings.clone();
        warnings::find(self, &mut findings);
        Warnings::new(self.source.clone(), findings)
    }

    /// The sum of the delays of two nodes' links. `None` if a node is unknown, or both are the same.
    pub fn rtt(&self, a: &NodeName, b: &NodeName) -> Option<Rtt> {
        Some(self.link(a, b)?.delay + self.link(b, a)?.delay)
    }

    /// The nodes of a word: a zone, a node, a hostlist of zones and nodes, or `*` for all nodes.
    ///
    /// Each node is there once, in the file's order.
    ///
    /// # Errors
    ///
    /// An unknown name, with the nearest known name; a malformed hostlist.
    pub fn select(&self, word: &str) -> Result<Vec<NodeName>, UnknownName> {
        let nodes = self.members.find(word)?;
        Ok(nodes.ranges().iter().flat_map(|range| self.members.names_in(range.clone())).cloned().collect())
    }
}

/// The source determines the topology.
impl PartialEq for Topology {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

impl Eq for Topology {}

impl TryFrom<Source> for Topology {
    type Error = Rejected;

    fn try_from(source: Source) -> Result<Self, Rejected> {
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
    let table = parse_toml(text).map_err(|errors| findings.extend(errors)).ok()?;
    if let Some(other_kind) = FileKind::Topology.reject_other_kind(table.get_ref()) {
        findings.push(other_kind);
        return None;
    }
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

/// Parses the TOML of a file.
pub(crate) fn parse_toml(text: &str) -> Result<Spanned<DeTable<'_>>, Vec<Finding>> {
    if text.len() > MAX_FILE_BYTES {
        let message = format!("the file is larger than {} MiB", MAX_FILE_BYTES / (1024 * 1024));
        return Err(vec![Finding::new(0..0, message).help("use hostlists such as \"n[1-9]\", and zones")]);
    }
    DeTable::parse(text).map_err(|error| {
        if csv::is_probable(text) {
            let help = "name the matrix in a topology: `matrix = \"FILE.csv\"` in `[links]`";
            return vec![Finding::new(0..0, "this is a CSV file, not a TOML file").help(help)];
        }
        let end = text.trim_end().len();
        vec![Finding::new(error.span().unwrap_or(end..end), format!("not valid TOML: {}", error.message()))]
    })
}
