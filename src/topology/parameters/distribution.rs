//! How a time is distributed, by name or by a table of the user's own: [`read`].

use super::{
    super::{
        diagnostic::Finding,
        link::Distribution,
        reader::{Table, TableEntry},
        suggest,
        tables::TableIds,
    },
    says_nothing,
};

/// The distributions that have names.
const NAMED: [(&str, Distribution); 4] = [
    ("uniform", Distribution::Uniform),
    ("normal", Distribution::Normal),
    ("pareto", Distribution::Pareto),
    ("paretonormal", Distribution::ParetoNormal),
];

/// Reads a `distribution`.
pub(super) fn read(entry: TableEntry<'_>, tables: &TableIds<'_>, findings: &mut Vec<Finding>) -> Option<Distribution> {
    if let Some(inner) = entry.as_table("a distribution") {
        return read_table(entry, inner, tables, findings);
    }
    let Some(name) = entry.value().get_ref().as_str() else {
        findings.push(entry.wrong_type("a name or a table").help("write \"normal\", or `{ table = \"wan.dist\" }`"));
        return None;
    };
    let named = NAMED.iter().find(|(known, _)| *known == name);
    if named.is_none() {
        let meant = suggest::nearest(name, NAMED.iter().map(|(known, _)| *known));
        findings.push(
            Finding::new(entry.value().span(), format!("there is no distribution `{name}`"))
                .label(meant.map(|known| format!("did you mean \"{known}\"?")).unwrap_or_default())
                .help(
                    "write \"uniform\", \"normal\", \"pareto\", \"paretonormal\", or `{ table = \"wan.dist\" }` for a \
                     distribution of your own",
                ),
        );
    }
    named.map(|&(_, distribution)| distribution)
}

fn read_table(
    entry: TableEntry<'_>,
    mut inner: Table<'_>,
    tables: &TableIds<'_>,
    findings: &mut Vec<Finding>,
) -> Option<Distribution> {
    if inner.is_empty() {
        says_nothing(entry, "write `{ table = \"wan.dist\" }`", findings);
        return None;
    }
    let name = inner.take("table");
    inner.close(findings);
    let name = name?.string(findings)?;
    let Some(id) = tables.get(name.get_ref()) else {
        findings.push(
            Finding::new(name.span(), format!("there is no distribution table `{}`", name.get_ref()))
                .help("a table can be named in a topology file only, which brings it along"),
        );
        return None;
    };
    // What is wrong with the table itself is reported already.
    id.map(Distribution::Table)
}
