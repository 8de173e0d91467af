//! Reads `distribution`: a name, or the user's own table.

use super::{
    super::{
        diagnostic::Finding,
        link::Distribution,
        reader::{Table, TableEntry},
        tables::TableIds,
    },
    empty,
};

const HELP: &str =
    "write \"uniform\", \"normal\", \"pareto\", \"paretonormal\", or `{ table = \"wan.dist\" }` for your own table";

/// Reads a `distribution`.
pub(super) fn read(entry: TableEntry<'_>, tables: &TableIds<'_>, findings: &mut Vec<Finding>) -> Option<Distribution> {
    if let Some(inner) = entry.as_table("a distribution") {
        return read_table(entry, inner, tables, findings);
    }
    entry.choice("a name or a table", &Distribution::NAMED, HELP, findings)
}

fn read_table(
    entry: TableEntry<'_>,
    mut inner: Table<'_>,
    tables: &TableIds<'_>,
    findings: &mut Vec<Finding>,
) -> Option<Distribution> {
    if inner.is_empty() {
        return empty(entry, "write `{ table = \"wan.dist\" }`").refuse(findings);
    }
    let name = inner.take("table");
    inner.close(findings);
    let name = name?.string(findings)?;
    let Some(id) = tables.get(name.get_ref()) else {
        return Finding::new(name.span(), format!("there is no distribution table `{}`", name.get_ref()))
            .help("only a topology file can name a table: netemctl apply FILE")
            .refuse(findings);
    };
    // `tables::read` has reported the mistakes in the table.
    id.map(Distribution::Table)
}
