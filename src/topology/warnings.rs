//! Finds probable mistakes in a valid topology: [`find`].
//!
//! The passes over a file add the warnings about single words. [`find`] adds the warnings about the rules. Commands
//! call [`find`]; agents do not.

use super::{
    Topology,
    diagnostic::Finding,
    hostlist,
    link::{LossModel, Parameter},
    matrix::Matrix,
    members::Members,
    name::NodeName,
    node_set::NodeId,
    reader::Word,
    rules::{LinkRange, NodeRules, Rules},
    scopes::{self, LinkGroup},
};

/// The largest number of scopes that one warning names.
const MAX_SCOPES: usize = 4;

/// The largest number of names to check for a range without brackets.
///
/// The check compares each of these names with all nodes.
const MAX_RANGE_CHECKS: usize = 100;

/// The warnings about names such as `eu1-3`, which are probably ranges.
///
/// There is no warning if the name of another node has the same start, such as `eu1-4`.
pub(crate) fn ranges_without_brackets<'f>(
    words: impl Iterator<Item = &'f Word<'f>>,
    nodes: &(impl Iterator<Item = &'f NodeName> + Clone),
) -> Vec<Finding> {
    let ranges = words.filter_map(|word| Some((word, hostlist::meant_as_range(word.get_ref())?)));
    let warning = |(word, range): (&Word<'_>, String)| {
        let name = *word.get_ref();
        let stem = name.trim_end_matches(|last: char| last.is_ascii_digit());
        let is_similar = |node: &NodeName| node.as_str() != name && node.as_str().starts_with(stem);
        let finding = Finding::warning(word.span(), format!("`{name}` is the name of one node"))
            .label(format!("did you mean \"{range}\"?"))
            .help("a range needs brackets");
        (!nodes.clone().any(is_similar)).then_some(finding)
    };
    ranges.take(MAX_RANGE_CHECKS).filter_map(warning).collect()
}

/// Adds the warnings about the rules.
pub(super) fn find(topology: &Topology, findings: &mut Vec<Finding>) {
    findings.extend(uncovered_links(topology));
    findings.extend(ineffective_losses(topology));
}

/// The warnings about loss models that lose fewer packets than configured, one for each model.
fn ineffective_losses(topology: &Topology) -> Vec<Finding> {
    let Topology { members, rules, .. } = topology;
    if !rules.patches().any(|patch| patch.span_of(Parameter::Loss).is_some()) {
        return Vec::new();
    }
    let groups = scopes::group_links(rules, members, |from, others| {
        let ranges = from.link_ranges();
        others.iter().map(|to| Some(LinkRange::find(&ranges, (*to)?)?.loss.map(|loss| loss.model))).collect()
    });
    let finding =
        |LinkGroup { value, example: (from, to), .. }: LinkGroup<Option<LossModel>>| {
            let reason = value?.shortfall_reason()?;
            let span = rules.of_node(from, members).span_of(to, Parameter::Loss)?;
            Some(Finding::warning(span, format!("this link loses fewer packets than configured: {reason}")).help(
                "for bursts write `loss.gemodel = { p = \"1%\", r = \"25%\" }`; for single losses `loss = \"1%\"`",
            ))
        };
    groups.into_iter().filter_map(finding).collect()
}

/// The warning about links that no rule covers: the file may lack a rule.
fn uncovered_links(topology: &Topology) -> Option<Finding> {
    let Topology { source, members, rules, .. } = topology;
    if rules.cover_all(members) {
        return None;
    }
    let groups = scopes::group_links(rules, members, |from, others| {
        others.iter().map(|to| to.map(|to| is_rule_missing(rules, members, from, to))).collect()
    });
    let LinkGroup { scopes, example: (from, to), .. } = groups.into_iter().find(|group| group.value)?;
    let mut names: Vec<_> = scopes.iter().take(MAX_SCOPES).map(ToString::to_string).collect();
    if let Some(more @ 1..) = scopes.len().checked_sub(MAX_SCOPES) {
        names.push(format!("and {more} more"));
    }
    let cell = rules.matrix.as_ref().and_then(|matrix| {
        let text = source.text_of(&matrix.file())?;
        matrix.cell_span(text, from, to, members).or_else(|| matrix.cell_span(text, to, from, members))
    });
    let label = if cell.is_some() { "this cell is empty" } else { "no rule for them" };
    let message = format!("the links {} have no rule and no delay", names.join(", "));
    Some(
        Finding::warning(cell.unwrap_or_else(|| rules.span.clone().into()), message)
            .label(label)
            .help("if this is intended, add `default = { rtt = \"0ms\" }` to `[links]`"),
    )
}

/// True if no rule covers a link that should have a rule.
///
/// A link inside a zone needs a rule only if the matrix has headings for both nodes. A link between two nodes outside
/// zones needs a rule only if there is a matrix. All other links need a rule.
fn is_rule_missing(rules: &Rules, members: &Members, from: &NodeRules<'_>, to: NodeId) -> bool {
    let is_in_matrix = |node: NodeId| {
        let mut groups = rules.matrix.iter().flat_map(Matrix::groups);
        groups.any(|nodes| *nodes == (node..node + 1))
    };
    let node = from.node();
    let needs_rule = match (members.zone_of(node), members.zone_of(to)) {
        (Some(one), Some(other)) if one.nodes == other.nodes => is_in_matrix(node) && is_in_matrix(to),
        (None, None) => rules.matrix.is_some(),
        _ => true,
    };
    needs_rule && !from.covers(to)
}
