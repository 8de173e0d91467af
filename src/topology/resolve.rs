//! Resolves the rules of a `Document` into [`Rules`]: the third pass.
//!
//! The pass resolves the names in overrides, and checks that each override covers a link.

use std::collections::HashMap;

use super::{
    diagnostic::Finding,
    document::{Document, Override},
    matrix::Matrix,
    members::Members,
    node_set::NodeSet,
    reader::Word,
    rules::{Rule, Rules},
    unknown_name::UnknownName,
};

/// Resolves the rules of the file. Reports rules with mistakes, and omits these rules.
pub(super) fn resolve(
    document: &Document<'_>,
    matrix: Option<Matrix>,
    members: &Members,
    findings: &mut Vec<Finding>,
) -> Rules {
    let links = &document.links;
    let mut resolver = Resolver { members, found: HashMap::new(), known_names: None };
    let overrides = links.overrides.iter().filter_map(|rule| resolver.resolve(rule, findings)).collect();
    Rules {
        span: links.key.clone(),
        default: links.default.clone(),
        intra_zone: links.intra_zone.clone(),
        inter_zone: links.inter_zone.clone(),
        matrix,
        overrides,
    }
}

struct Resolver<'m, 't> {
    members: &'m Members,
    /// The nodes of each word, or the error about the word. A cache, because overrides repeat the same words.
    found: HashMap<&'t str, Result<NodeSet, UnknownName>>,
    /// The text that lists all members, created for the first unknown name.
    known_names: Option<String>,
}

impl<'t> Resolver<'_, 't> {
    fn resolve(&mut self, written: &Override<'t>, findings: &mut Vec<Finding>) -> Option<Rule> {
        let (from, to) = (self.nodes(&written.from, findings), self.nodes(&written.to, findings));
        let rule = Rule { from: from?, to: to?, both_ways: written.both_ways, patch: written.patch.clone() };
        if !rule.covers_a_link() {
            return Finding::new(written.span.clone(), "this override covers no link")
                .label("both ends are the same node")
                .help("a node has no link to itself")
                .refuse(findings);
        }
        Some(rule)
    }

    /// The nodes of all words together. Reports unknown words, and returns `None` for them.
    fn nodes(&mut self, words: &[Word<'t>], findings: &mut Vec<Finding>) -> Option<NodeSet> {
        let before = findings.len();
        let mut ranges = Vec::new();
        for word in words {
            match self.found.entry(word.get_ref()).or_insert_with_key(|text| self.members.find(text)) {
                Ok(nodes) => ranges.extend_from_slice(nodes.ranges()),
                Err(error) => {
                    let known_names = self.known_names.get_or_insert_with(|| self.members.describe());
                    error.finding(word.span(), known_names).report(findings);
                }
            }
        }
        (findings.len() == before && !words.is_empty()).then(|| ranges.into_iter().collect())
    }
}
