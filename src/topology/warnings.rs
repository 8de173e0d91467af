//! What is probably not meant in a file that is right: [`find`].
//!
//! Warnings that follow from one word alone are made where the word is read; these are of the names or the rules together.
//! Those of the rules are only for people: an agent never asks.

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
    rules::{Rules, View},
    scopes::{self, Distinct},
};

/// How many places of links one warning names.
const MAX_SCOPES: usize = 4;

/// How many names are looked at that may be meant as ranges: each is compared with all nodes.
const MAX_DOUBTS: usize = 100;

/// Names such as `eu1-3`, which are right and probably meant as ranges, unless there are others like them.
pub(crate) fn ranges_without_brackets<'f>(
    words: impl Iterator<Item = &'f Word<'f>>,
    nodes: &(impl Iterator<Item = &'f NodeName> + Clone),
) -> Vec<Finding> {
    let ranges = words.filter_map(|word| Some((word, hostlist::meant_as_range(word.get_ref())?)));
    let doubt = |(word, meant): (&Word<'_>, String)| {
        let name = *word.get_ref();
        let stem = name.trim_end_matches(|last: char| last.is_ascii_digit());
        let is_like_it = |node: &NodeName| node.as_str() != name && node.as_str().starts_with(stem);
        let finding = Finding::warning(word.span(), format!("`{name}` is the name of one node"))
            .label(format!("did you mean \"{meant}\"?"))
            .help("a range of numbers is in brackets");
        (!nodes.clone().any(is_like_it)).then_some(finding)
    };
    ranges.take(MAX_DOUBTS).filter_map(doubt).collect()
}

/// Looks for everything that is probably not meant.
pub(super) fn find(topology: &Topology, findings: &mut Vec<Finding>) {
    findings.extend(links_without_a_rule(topology));
    findings.extend(losses_of_next_to_nothing(topology));
}

/// Losses of which the kernel makes less than the file seems to say, each once.
fn losses_of_next_to_nothing(topology: &Topology) -> Vec<Finding> {
    let Topology { members, rules, .. } = topology;
    let distinct = scopes::distinct(rules, members, |from, others| {
        let outlook = rules.outlook(from, members);
        let loss = |to: NodeId| {
            let stretch = outlook.get(outlook.partition_point(|stretch| stretch.nodes.end <= to))?;
            Some(stretch.link.loss.map(|loss| loss.model))
        };
        others.iter().map(|to| loss((*to)?)).collect()
    });
    let finding = |Distinct { what, example: (from, to), .. }: Distinct<Option<LossModel>>| {
        let doubt = what?.doubt()?;
        let place = rules.place_of(from, to, Parameter::Loss, members)?;
        Some(Finding::warning(place, format!("fewer packets are lost than this seems to say: {doubt}")).help(
            "for losses in bursts: `loss.gemodel = { p = \"1%\", r = \"25%\" }`; for single ones: `loss = \"1%\"`",
        ))
    };
    distinct.into_iter().filter_map(finding).collect()
}

/// Links of which no rule speaks: probably one was forgotten.
fn links_without_a_rule(topology: &Topology) -> Option<Finding> {
    let Topology { source, members, rules, .. } = topology;
    let distinct = scopes::distinct(rules, members, |from, others| {
        let view = rules.view(from, members);
        others.iter().map(|to| to.map(|to| is_forgotten(rules, members, &view, from, to))).collect()
    });
    let Distinct { scopes, example: (from, to), .. } = distinct.into_iter().find(|links| links.what)?;
    let mut places: Vec<_> = scopes.iter().take(MAX_SCOPES).map(ToString::to_string).collect();
    if let Some(more @ 1..) = scopes.len().checked_sub(MAX_SCOPES) {
        places.push(format!("and in {more} more places"));
    }
    let cell = rules.matrix.as_ref().and_then(|matrix| {
        let text = source.text_of(&matrix.file())?;
        matrix.place_between(text, from, to, members).or_else(|| matrix.place_between(text, to, from, members))
    });
    let label = if cell.is_some() { "this cell is empty" } else { "no rule here speaks of them" };
    let message = format!("no rule covers the links {}: they are as the LAN", places.join(", "));
    Some(
        Finding::warning(cell.unwrap_or_else(|| rules.place.clone().into()), message)
            .label(label)
            .help("if they are meant to be as the LAN, say so: `default = { rtt = \"0ms\" }` in `[links]`"),
    )
}

/// Whether nothing is said of a link and it is probably meant to be more than the LAN: one from zone to zone, or one that a
/// matrix should have. Inside a zone, and where there are neither zones nor a matrix, the LAN is what one expects.
fn is_forgotten(rules: &Rules, members: &Members, view: &View<'_>, from: NodeId, to: NodeId) -> bool {
    let is_in_matrix = |node: NodeId| {
        let mut ends = rules.matrix.iter().flat_map(Matrix::ends);
        ends.any(|nodes| *nodes == (node..node + 1))
    };
    let is_to_be_said = match (members.zone_of(from), members.zone_of(to)) {
        (Some(one), Some(other)) if one.nodes == other.nodes => is_in_matrix(from) && is_in_matrix(to),
        (None, None) => rules.matrix.is_some(),
        _ => true,
    };
    is_to_be_said && !view.covers(to)
}
