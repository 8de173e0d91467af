//! The third pass over a file: what is said of links, from the words of a `Document` to [`Rules`].
//!
//! Here the words meet the members: whom an override is about, and whether it is about anyone.

use std::{collections::HashMap, ops::Range};

use super::{
    diagnostic::Finding,
    matrix::Matrix,
    members::Members,
    node_set::NodeSet,
    raw::{Document, Ends, Override, ZoneRule},
    reader::Word,
    rules::{Rule, Rules},
    select::UnknownName,
};

/// Resolves every rule of the file. What is wrong is reported and left out.
pub(super) fn resolve(
    document: &Document<'_>,
    matrix: Option<Matrix>,
    members: &Members,
    findings: &mut Vec<Finding>,
) -> Rules {
    let links = &document.links;
    check_zone_rules(document, findings);
    let mut resolver = Resolver { members, meanings: HashMap::new(), choice: None };
    let overrides = links.overrides.iter().filter_map(|rule| resolver.resolve(rule, findings)).collect();
    let patch = |rule: &Option<ZoneRule>| rule.as_ref().map(|rule| rule.patch.clone()).unwrap_or_default();
    Rules {
        place: links.key.clone(),
        default: links.default.clone(),
        intra_zone: patch(&links.intra_zone),
        inter_zone: patch(&links.inter_zone),
        matrix,
        overrides,
    }
}

/// A rule about zones that cannot apply to any link is a mistake, not a harmless line.
fn check_zone_rules(document: &Document<'_>, findings: &mut Vec<Finding>) {
    let links = &document.links;
    let Some(zones) = document.zone_count else { return };
    if let (Some(rule), 0) = (&links.intra_zone, zones) {
        findings.push(
            Finding::new(rule.key.clone(), "`intra-zone` needs a zone")
                .label("there are no zones")
                .help("write `default` for all links, or add `[zones]`"),
        );
    }
    if let (Some(rule), 0..2) = (&links.inter_zone, zones) {
        findings.push(
            Finding::new(rule.key.clone(), "`inter-zone` needs two zones")
                .label(if zones == 0 { "there are no zones" } else { "there is only one zone" })
                .help("write `default` for all links, or add a zone"),
        );
    }
}

struct Resolver<'m, 't> {
    members: &'m Members,
    /// Of each word so far: overrides that spell out a matrix of zones say the same few words again and again.
    meanings: HashMap<&'t str, Result<NodeSet, UnknownName>>,
    /// What there is to choose from, once someone has missed it.
    choice: Option<String>,
}

impl<'t> Resolver<'_, 't> {
    fn resolve(&mut self, written: &Override<'t>, findings: &mut Vec<Finding>) -> Option<Rule> {
        let (from, to, both_ways) = match &written.ends {
            Ends::Between(one, other) => (
                self.nodes(std::slice::from_ref(one), findings),
                self.nodes(std::slice::from_ref(other), findings),
                true,
            ),
            Ends::FromTo { from, to } => (self.nodes(from, findings), self.nodes(to, findings), false),
        };
        let rule = Rule { from: from?, to: to?, both_ways, patch: written.patch.clone() };
        if !rule.is_about_a_link() {
            findings.push(nobody(written.span.clone()));
            return None;
        }
        Some(rule)
    }

    /// The nodes that the words mean together. Nothing if one of them means none, which is then reported.
    fn nodes(&mut self, words: &[Word<'t>], findings: &mut Vec<Finding>) -> Option<NodeSet> {
        let before = findings.len();
        let mut ranges = Vec::new();
        for word in words {
            match self.meanings.entry(word.get_ref()).or_insert_with_key(|text| self.members.find(text)) {
                Ok(nodes) => ranges.extend_from_slice(nodes.ranges()),
                Err(error) => {
                    let choice = self.choice.get_or_insert_with(|| self.members.describe());
                    findings.push(unknown(word.span(), error, choice));
                }
            }
        }
        (findings.len() == before && !words.is_empty()).then(|| ranges.into_iter().collect())
    }
}

fn unknown(span: Range<usize>, error: &UnknownName, choice: &str) -> Finding {
    let label = error.suggestion.as_ref().map(|name| format!("did you mean `{name}`?"));
    Finding::new(span, error.message())
        .label(label.unwrap_or_default())
        .help(error.hostlist_help().unwrap_or_else(|| choice.to_owned()))
}

fn nobody(span: Range<usize>) -> Finding {
    Finding::new(span, "this override is about no link")
        .label("both ends are the same single node")
        .help("a node has no link to itself")
}
