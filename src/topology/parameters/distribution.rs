//! How a time is distributed, by name: [`read`].

use super::super::{diagnostic::Finding, link::Distribution, reader::Entry, suggest};

/// The distributions that have names.
const NAMED: [(&str, Distribution); 4] = [
    ("uniform", Distribution::Uniform),
    ("normal", Distribution::Normal),
    ("pareto", Distribution::Pareto),
    ("paretonormal", Distribution::ParetoNormal),
];

/// Reads a `distribution`.
pub(super) fn read(entry: Entry<'_>, findings: &mut Vec<Finding>) -> Option<Distribution> {
    let name = entry.string(findings)?;
    let named = NAMED.iter().find(|(known, _)| known == name.get_ref());
    if named.is_none() {
        let meant = suggest::nearest(name.get_ref(), NAMED.iter().map(|(known, _)| *known));
        findings.push(
            Finding::new(name.span(), format!("there is no distribution `{}`", name.get_ref()))
                .label(meant.map(|known| format!("did you mean \"{known}\"?")).unwrap_or_default())
                .help("the distributions are \"uniform\", \"normal\", \"pareto\" and \"paretonormal\""),
        );
    }
    named.map(|&(_, distribution)| distribution)
}
