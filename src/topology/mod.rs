//! The topology language: what a network should be like, from a TOML file to [`Topology`], which cannot be invalid.
//!
//! ```toml
//! name = "hierarchical-9"
//!
//! [zones]                            # zones of nodes; nodes outside zones go into `nodes = "n[1-9]"` above
//! Z1 = "n[1-3]"                      # a hostlist, or an array of names and hostlists
//! Z2 = ["n4", "n[5-6]"]
//! Z3 = "n[7-9]"
//!
//! [links]
//! default    = { rtt = "0ms" }       # every link; not said at all, a link is as the LAN is
//! intra-zone = { rtt = "20ms" }      # links inside a zone
//! inter-zone = { delay = "75ms" }    # links from one zone to another; `delay` is one way, `rtt` is there and back
//!
//! [[links.override]]                 # later wins; zones, nodes, hostlists, or "*"
//! between = ["Z1", "Z3"]             # both ways
//! rtt = "210ms"
//!
//! [[links.override]]
//! from = "n1"                        # one way
//! to = ["Z2", "n7"]
//! delay = "5ms"
//! jitter = "1ms"                     # the parameters of `tc-netem(8)`; each replaces that of earlier rules as a whole
//! distribution = "normal"
//! loss = "0.1%"
//! ```
//!
//! `docs/links.md` has all parameters.
//!
//! The module is pure: it reads no file and no clock, and what it accepts on one machine it accepts on all. Where the
//! nodes live is the inventory's matter, what the kernel does about links is the plan's.
//!
//! `[links] matrix = "regions.csv"` takes the delays between zones from a file, `distribution = { table = "wan.dist" }`
//! the shape of a jitter; their texts travel with the topology's own, in a [`Source`].
//!
//! A file passes through `raw` (TOML to words), `gather` (words to nodes and zones) and `resolve` (words to rules);
//! each pass reports everything that it finds, and [`Rejected`] shows it all at once. In a file without a fault so far,
//! `conflicts` looks for rules that make an impossible link together. First type to read: [`Topology`].

mod change;
mod coherence;
mod conflicts;
mod csv;
mod diagnostic;
mod elsewhere;
mod files;
mod gather;
pub mod hostlist;
mod kind;
mod link;
mod matrix;
mod members;
mod name;
mod node_set;
mod notation;
mod parameters;
mod patch;
mod raw;
mod reader;
mod render;
mod resolve;
mod rules;
mod scopes;
mod select;
mod source;
mod suggest;
mod tables;
#[cfg(test)]
mod tests;
mod units;
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
    select::UnknownName,
    source::{Origin, Source},
    units::{BitRate, Bytes, BytesError, Delay, Probability, ProbabilityError, RateError, Rtt, TimeError},
};
/// The machinery of the language, which inventories are written in as well.
pub(crate) use self::{
    diagnostic::Finding,
    hostlist::Hostlist,
    kind::FileKind,
    name::NAME_HELP,
    parameters::integer,
    reader::{Table, TableEntry, Word},
    source::Lines,
    suggest::nearest,
    warnings::ranges_without_brackets,
};
use self::{
    files::{Files, References},
    members::Members,
    rules::Rules,
};

/// How many bytes a topology file may have, and each file that it refers to: 4 MiB, several times what the largest
/// topology needs.
pub const MAX_FILE_BYTES: usize = 4 * 1024 * 1024;

/// How many bytes the files that a topology file refers to may have together: with the topology file, the inventory
/// and what JSON makes of them, they fit into what an agent accepts.
pub const MAX_ATTACHED_BYTES: usize = 2 * MAX_FILE_BYTES;

/// How many nodes a topology may have.
pub const MAX_NODES: usize = 65_536;

/// Distribution tables of the user's own: values in units of 1/8192 of the jitter, in the order of their file, which
/// need not ascend (`tc-netem(8)`).
pub type Tables = BTreeMap<TableId, Arc<[i16]>>;

/// What a network should be like: nodes, zones, and the link from any node to any other.
///
/// It is valid by construction. On the wire and in the journal it is its [`Source`], so that there is one language with
/// one parser and one validation.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(try_from = "Source", into = "Source")]
pub struct Topology {
    source: Source,
    name: String,
    members: Members,
    rules: Rules,
    tables: Tables,
    /// What is probably not meant, as far as reading the file has shown.
    warnings: Vec<Finding>,
}

impl Topology {
    /// Reads a topology file's text, with those of all files that it refers to.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with the files; of broken TOML, the first thing.
    pub fn parse(source: Source) -> Result<Self, Rejected> {
        Self::parse_without(source, &BTreeMap::new())
    }

    /// Reads a topology file's text, and by `attach` those of the files that it refers to: `attach` gets each name once,
    /// as the file has it, and answers with the text or with why there is none.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with the files; of broken TOML, the first thing.
    pub fn load(mut source: Source, mut attach: impl FnMut(&str) -> Result<String, String>) -> Result<Self, Rejected> {
        let mut unreadable = BTreeMap::new();
        for name in source.references() {
            match attach(&name) {
                Ok(text) => drop(source.files.insert(name, text)),
                Err(why) => drop(unreadable.insert(name, why)),
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

    /// The topology's name, which is the `name` of the file and not the file's.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file that says all this.
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// All nodes, at least two, in the file's order.
    pub fn nodes(&self) -> &[NodeName] {
        self.members.nodes()
    }

    /// The zones with their nodes, in the file's order. A node may be in none.
    pub fn zones(&self) -> impl Iterator<Item = (&ZoneName, &[NodeName])> {
        self.members.zones().iter().map(|zone| (&zone.name, self.members.names_in(zone.nodes.clone())))
    }

    /// The zone that a node is in; none too if the topology does not have the node.
    pub fn zone_of(&self, node: &NodeName) -> Option<&ZoneName> {
        self.members.zone_of(self.members.id_of(node)?).map(|zone| &zone.name)
    }

    /// Whether the topology has this node.
    pub fn contains(&self, node: &NodeName) -> bool {
        self.members.id_of(node).is_some()
    }

    /// What a packet meets from one node to another. None if one of them is not in the topology, or they are the same.
    ///
    /// Takes time in proportion to the number of overrides: for all links of a node see
    /// [`links_from`](Self::links_from).
    pub fn link(&self, from: &NodeName, to: &NodeName) -> Option<Link> {
        let (from, to) = (self.members.id_of(from)?, self.members.id_of(to)?);
        (from != to).then(|| self.rules.link(from, to, &self.members))
    }

    /// Where it is said what this parameter of a link is. None if nothing is said of it.
    pub fn origin(&self, from: &NodeName, to: &NodeName, parameter: Parameter) -> Option<Origin> {
        let (from, to) = (self.members.id_of(from)?, self.members.id_of(to)?);
        let place = self.rules.place_of(from, to, parameter, &self.members)?;
        let text = self.source.text_of(&place.file)?;
        let (line, _) = Lines::of(text).position(place.span.start);
        Some(Origin { path: self.source.name_of(&place.file), line })
    }

    /// The distribution tables of its own that its links have.
    pub fn tables(&self) -> &Tables {
        &self.tables
    }

    /// The links from a node to every other one, in the file's order. None at all from a node that is not in the
    /// topology.
    pub fn links_from<'t>(&'t self, from: &NodeName) -> impl Iterator<Item = (&'t NodeName, Link)> + use<'t> {
        let from = self.members.id_of(from);
        let stretches = from.map(|from| self.rules.outlook(from, &self.members)).unwrap_or_default();
        let links = stretches.into_iter().flat_map(|stretch| {
            let nodes = stretch.nodes.clone().zip(self.members.names_in(stretch.nodes));
            nodes.map(move |(id, node)| (id, node, stretch.link))
        });
        links.filter(move |&(id, ..)| Some(id) != from).map(|(_, node, link)| (node, link))
    }

    /// Every distinct link with the pairs of nodes that have it, for people to read.
    ///
    /// Takes time in proportion to the square of the number of zones.
    pub fn distinct_links(&self) -> Vec<(Link, Vec<Scope>)> {
        scopes::distinct_links(&self.rules, &self.members)
    }

    /// What is probably not meant in the file, although the file is right.
    ///
    /// Takes time in proportion to the square of the number of zones.
    pub fn warnings(&self) -> Warnings {
        let mut findings = self.warnings.clone();
        warnings::find(self, &mut findings);
        Warnings::new(self.source.clone(), findings)
    }

    /// The round trip that the links of two nodes add up to. None if one of them is not in the topology, or they are
    /// the same.
    pub fn rtt(&self, a: &NodeName, b: &NodeName) -> Option<Rtt> {
        Some(self.link(a, b)?.delay + self.link(b, a)?.delay)
    }

    /// The nodes that a word means: a zone's name, a node's name, a hostlist of such names, or `*` for every node.
    ///
    /// They come in the file's order, each once.
    ///
    /// # Errors
    ///
    /// When a name is nobody's, with the name that was probably meant; or when a hostlist is broken.
    pub fn select(&self, word: &str) -> Result<Vec<NodeName>, UnknownName> {
        let nodes = self.members.find(word)?;
        Ok(nodes.ranges().iter().flat_map(|range| self.members.names_in(range.clone())).cloned().collect())
    }
}

/// Everything in a topology follows from its source.
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

/// Takes a text through all passes. What they find is reported; with an error among it there is no topology.
fn read(
    source: &Source,
    unreadable: &BTreeMap<String, String>,
    findings: &mut Vec<Finding>,
) -> Option<(String, Members, Rules, Tables)> {
    let text = &source.text;
    let table = parse_toml(text).map_err(|errors| findings.extend(errors)).ok()?;
    if let Some(mistaken) = FileKind::Topology.mistaken(table.get_ref()) {
        findings.push(mistaken);
        return None;
    }
    let references = References::of(table.get_ref());
    let files = Files::of(source, unreadable, &references, findings);
    let named = tables::read(&references.tables, &files, findings);
    let document = raw::read(table.get_ref(), text, &named.ids, findings);
    let members = gather::gather(&document.groups, findings);
    let matrix = document.links.matrix.as_ref().and_then(|words| matrix::read(words, &files, &members, findings));
    let rules = resolve::resolve(&document, matrix, &members, findings);
    if !findings.iter().any(Finding::is_error) {
        conflicts::check(&rules, &members, findings);
    }
    let is_right = !findings.iter().any(Finding::is_error);
    is_right.then(|| (document.name.to_owned(), members, rules, named.tables))
}

/// The table that a file's text is.
pub(crate) fn parse_toml(text: &str) -> Result<Spanned<DeTable<'_>>, Vec<Finding>> {
    if text.len() > MAX_FILE_BYTES {
        let message = format!("the file is larger than {} MiB", MAX_FILE_BYTES / (1024 * 1024));
        return Err(vec![Finding::new(0..0, message).help("write hostlists such as \"n[1-9]\" and zones")]);
    }
    DeTable::parse(text).map_err(|error| {
        if csv::is_probable(text) {
            let help = "a matrix is named by a topology: write `matrix = \"FILE.csv\"` in its `[links]`";
            return vec![Finding::new(0..0, "this is a table (CSV), not a TOML file").help(help)];
        }
        let end = text.trim_end().len();
        vec![Finding::new(error.span().unwrap_or(end..end), format!("not valid TOML: {}", error.message()))]
    })
}
