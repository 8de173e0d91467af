//! Reads the TOML of a topology file into a [`Document`]: the first pass.
//!
//! The pass checks the keys, their types and the link parameters. It does not check the names of nodes and zones. The
//! pass continues after a mistake, so one run reports all mistakes.

use std::ops::Range;

use toml::{Spanned, de::DeTable};

use super::{
    diagnostic::Finding,
    key_advice,
    name::ZoneName,
    parameters,
    patch::LinkPatch,
    reader::{Table, TableEntry, Word},
    tables::TableIds,
};

/// The largest number of characters of a topology's name.
pub(super) const MAX_TOPOLOGY_NAME_CHARS: usize = 64;

/// The content of a topology file. Names of zones and nodes are not resolved yet.
pub(super) struct Document<'t> {
    pub(super) name: &'t str,
    /// A group for each zone, and a group for the nodes outside zones. In the file's order.
    pub(super) groups: Vec<Group<'t>>,
    pub(super) links: Links<'t>,
}

/// The nodes of a zone, or the nodes outside zones.
pub(super) struct Group<'t> {
    /// The name of the zone. `None` for nodes outside zones, and for a zone with an invalid name.
    pub(super) zone: Option<ZoneName>,
    pub(super) key: Spanned<&'t str>,
    pub(super) members: Vec<Word<'t>>,
    /// False if `members` lacks some members because of mistakes.
    pub(super) is_complete: bool,
}

impl Group<'_> {
    /// True for the nodes outside zones. Their key is `nodes`, above `[zones]` or by mistake below it.
    fn is_outside(&self) -> bool {
        *self.key.get_ref() == "nodes"
    }
}

/// The `[links]` table.
#[derive(Default)]
pub(super) struct Links<'t> {
    /// The span of the key `links`.
    pub(super) key: Range<usize>,
    pub(super) default: LinkPatch,
    pub(super) intra_zone: LinkPatch,
    pub(super) inter_zone: LinkPatch,
    pub(super) matrix: Option<MatrixReference<'t>>,
    pub(super) overrides: Vec<Override<'t>>,
}

/// The values of `matrix` and `matrix-is`.
pub(super) struct MatrixReference<'t> {
    pub(super) file: Word<'t>,
    /// `None` if the value of `matrix-is` is invalid.
    pub(super) quantity: Option<MatrixQuantity>,
}

/// The quantity in the cells of a matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MatrixQuantity {
    /// Round-trip times. Each direction gets half.
    Rtt,
    /// One-way delays from the row to the column.
    Delay,
}

/// One `[[links.override]]`.
pub(super) struct Override<'t> {
    /// The span of the header or of the inline table.
    pub(super) span: Range<usize>,
    pub(super) from: Vec<Word<'t>>,
    pub(super) to: Vec<Word<'t>>,
    pub(super) both_ways: bool,
    pub(super) patch: LinkPatch,
}

const ADD_LINKS: &str = "add `[links]` and `default = { rtt = \"0ms\" }`";

/// Reads a topology file. `tables` are the distribution tables that the file names.
pub(super) fn read<'t>(
    file: &'t DeTable<'t>,
    text: &str,
    tables: &TableIds<'_>,
    findings: &mut Vec<Finding>,
) -> Document<'t> {
    let mut top = Table::open("a topology", file);
    // The readers of `[zones]` and `[links]` report a misplaced key, so the key is not reported as missing.
    let is_misplaced = |key: &str| {
        let inner = ["zones", "links"].into_iter().filter_map(|table| file.get(table)?.get_ref().as_table());
        inner.into_iter().any(|table| table.contains_key(key))
    };
    let name = match top.take("name") {
        None if is_misplaced("name") => "",
        name => read_name(name, findings),
    };
    let (nodes, zones) = (top.take("nodes"), top.take("zones"));
    if nodes.is_none() && zones.is_none() && !is_misplaced("nodes") {
        Finding::new(0..0, "a topology needs nodes")
            .label("`nodes` and `zones` are missing")
            .help("add `nodes = \"n[1-9]\"`, or `[zones]` and `Z1 = \"n[1-3]\"`")
            .report(findings);
    }
    let zones = zones.map_or_else(|| Some(Vec::new()), |zones| read_zones(zones, findings));
    // The number of zones, including those with an invalid name.
    let zone_count = zones.as_ref().map(|zones| zones.iter().filter(|group| !group.is_outside()).count());
    let mut groups = zones.unwrap_or_default();
    groups.extend(nodes.map(|nodes| read_group(None, nodes, findings)));
    groups.sort_by_key(|group| group.key.span().start);
    let links = match top.take("links") {
        Some(links) => read_links(links, zone_count, tables, findings),
        // `Table::close` reports the misplaced keys of `[links]`, so `links` is not reported as missing.
        None if top.has_any(&key_advice::OF_LINKS_TABLE) => Links::default(),
        None => {
            let end = text.trim_end().len();
            findings
                .push(Finding::new(end..end, "a topology needs links").label("`[links]` is missing").help(ADD_LINKS));
            Links::default()
        }
    };
    // `crate::inventory` reads this table.
    top.take("inventory");
    top.close(findings);
    Document { name, groups, links }
}

fn read_name<'t>(entry: Option<TableEntry<'t>>, findings: &mut Vec<Finding>) -> &'t str {
    let Some(entry) = entry else {
        Finding::new(0..0, "a topology needs a name")
            .label("`name` is missing")
            .help("add `name = \"my-wan\"`")
            .report(findings);
        return "";
    };
    let Some(name) = entry.string(findings) else { return "" };
    let control = name.get_ref().chars().find(|character| character.is_control());
    let mistake = match (name.get_ref().chars().count(), control) {
        (0, _) => Some("the name is empty".to_owned()),
        (1..=MAX_TOPOLOGY_NAME_CHARS, None) => None,
        (1..=MAX_TOPOLOGY_NAME_CHARS, Some(control)) => {
            Some(format!("the name contains the control character {control:?}"))
        }
        _ => Some(format!("the name has more than {MAX_TOPOLOGY_NAME_CHARS} characters")),
    };
    findings.extend(mistake.map(|mistake| {
        let help = format!("a topology's name has 1 to {MAX_TOPOLOGY_NAME_CHARS} printable characters");
        Finding::new(name.span(), mistake).help(help)
    }));
    name.into_inner()
}

fn read_group<'t>(zone: Option<ZoneName>, entry: TableEntry<'t>, findings: &mut Vec<Finding>) -> Group<'t> {
    let before = findings.len();
    let members = entry.words(findings).unwrap_or_default();
    if entry.value().get_ref().as_array().is_some_and(|array| array.is_empty()) {
        let (message, help) = match &zone {
            Some(zone) => (format!("the zone `{zone}` is empty"), "add a node, or remove the zone"),
            None => ("`nodes` is empty".to_owned(), "if all nodes are in zones, remove `nodes`"),
        };
        Finding::new(entry.key_span(), message).label("no nodes").help(help).report(findings);
    }
    let is_complete = findings.len() == before;
    Group { zone, key: Spanned::new(entry.key_span(), entry.key()), members, is_complete }
}

fn read_zones<'t>(entry: TableEntry<'t>, findings: &mut Vec<Finding>) -> Option<Vec<Group<'t>>> {
    let mut table = entry.table("the zones", findings)?;
    let zones = table.take_rest();
    if zones.is_empty() {
        Finding::new(entry.key_span(), "`zones` is empty")
            .label("no zones")
            .help("add `Z1 = \"n[1-3]\"`, or remove `zones`")
            .report(findings);
    }
    let groups = zones.into_iter().filter_map(|zone| {
        if let Some(key) = ["name", "nodes"].into_iter().find(|key| *key == zone.key()) {
            Finding::new(zone.key_span(), format!("`{key}` in `[zones]` would be a zone"))
                .label("a key belongs to the header above it")
                .help(format!("move `{key}` above `[zones]`, or rename the zone"))
                .report(findings);
            return (key == "nodes").then(|| read_group(None, zone, findings));
        }
        let name = zone.key().parse::<ZoneName>();
        findings.extend(name.as_ref().err().map(|error| error.finding(zone.key_span(), zone.key(), "a zone's name")));
        Some(read_group(name.ok(), zone, findings))
    });
    Some(groups.collect())
}

/// Reads `[links]`. `zone_count` is `None` if `zones` is not a table.
fn read_links<'t>(
    entry: TableEntry<'t>,
    zone_count: Option<usize>,
    tables: &TableIds<'_>,
    findings: &mut Vec<Finding>,
) -> Links<'t> {
    let Some(mut table) = entry.table("`links`", findings) else { return Links::default() };
    if table.is_empty() {
        Finding::new(entry.key_span(), "`[links]` is empty")
            .label("no rule")
            .help("add `default = { rtt = \"0ms\" }`")
            .report(findings);
    }
    let default = table.take("default").map(|rule| read_rule(rule, tables, findings)).unwrap_or_default();
    let mut zone_rule = |key, least_zones, message| {
        let Some(rule) = table.take(key) else { return LinkPatch::default() };
        let patch = read_rule(rule, tables, findings);
        if let Some(zones) = zone_count.filter(|zones| *zones < least_zones) {
            Finding::new(rule.key_span(), message)
                .label(if zones == 0 { "there are no zones" } else { "there is only one zone" })
                .help("write `default` for all links, or add a zone to `[zones]`")
                .report(findings);
        }
        patch
    };
    let intra_zone = zone_rule("intra-zone", 1, "`intra-zone` needs a zone");
    let inter_zone = zone_rule("inter-zone", 2, "`inter-zone` needs two zones");
    let matrix = read_matrix(table.take("matrix"), table.take("matrix-is"), findings);
    let overrides =
        table.take("override").map(|overrides| read_overrides(overrides, tables, findings)).unwrap_or_default();
    table.close(findings);
    Links { key: entry.key_span(), default, intra_zone, inter_zone, matrix, overrides }
}

fn read_matrix<'t>(
    matrix: Option<TableEntry<'t>>,
    quantity: Option<TableEntry<'t>>,
    findings: &mut Vec<Finding>,
) -> Option<MatrixReference<'t>> {
    if let (None, Some(quantity)) = (&matrix, &quantity) {
        Finding::new(quantity.key_span(), "`matrix-is` needs `matrix`")
            .label("there is no matrix")
            .help("add `matrix = \"regions.csv\"`, or remove `matrix-is`")
            .report(findings);
    }
    let quantity = quantity.map_or(Some(MatrixQuantity::Rtt), |entry| {
        let help = "write \"rtt\" for round-trip times, \"delay\" for delays from the row to the column";
        entry.choice("a string", &[("rtt", MatrixQuantity::Rtt), ("delay", MatrixQuantity::Delay)], help, findings)
    });
    Some(MatrixReference { file: matrix?.string(findings)?, quantity })
}

fn read_rule(entry: TableEntry<'_>, tables: &TableIds<'_>, findings: &mut Vec<Finding>) -> LinkPatch {
    let Some(mut table) = entry.table("a link", findings) else { return LinkPatch::default() };
    let patch = parameters::take(&mut table, entry.key_span(), None, tables, findings);
    table.close(findings);
    patch
}

fn read_overrides<'t>(entry: TableEntry<'t>, tables: &TableIds<'_>, findings: &mut Vec<Finding>) -> Vec<Override<'t>> {
    if entry.value().get_ref().is_table() {
        entry.wrong_type("an array of tables").help("write two brackets: `[[links.override]]`").report(findings);
        return Vec::new();
    }
    if entry.value().get_ref().as_array().is_some_and(|array| array.is_empty()) {
        Finding::new(entry.key_span(), "`override` is empty").help("remove it").report(findings);
    }
    let overrides = entry.tables("an override", findings);
    overrides.into_iter().filter_map(|(span, table)| read_override(span, table, tables, findings)).collect()
}

const ENDS: &str = "for both ways write `between = [\"Z1\", \"Z2\"]`, for one way `from = \"Z1\"` and `to = \"Z2\"`";

fn read_override<'t>(
    span: Range<usize>,
    mut table: Table<'t>,
    tables: &TableIds<'_>,
    findings: &mut Vec<Finding>,
) -> Option<Override<'t>> {
    let (between, from, to) = (table.take("between"), table.take("from"), table.take("to"));
    let both_ways = between.is_some() || (from.is_none() && to.is_none());
    let ends = match (between, from, to) {
        (Some(between), None, None) => read_between(between, findings),
        (None, Some(from), Some(to)) => read_from_to(from, to, findings),
        (Some(between), Some(other), _) | (Some(between), None, Some(other)) => {
            let message = format!("`between` and `{}` exclude each other", other.key());
            between.conflict(other, &message, ENDS).refuse(findings)
        }
        (None, Some(half), None) | (None, None, Some(half)) => {
            let missing = if half.key() == "from" { "to" } else { "from" };
            let message = format!("`{}` needs `{missing}`", half.key());
            Finding::new(half.key_span(), message).help(ENDS).refuse(findings)
        }
        (None, None, None) => Finding::new(span.clone(), "this override has no ends")
            .label("no `between`, `from` or `to`")
            .help(ENDS)
            .refuse(findings),
    };
    let patch = parameters::take(&mut table, span.clone(), (!both_ways).then_some("from/to"), tables, findings);
    table.close(findings);
    let (from, to) = ends?;
    Some(Override { span, from, to, both_ways, patch })
}

/// The words for the two ends of an override.
type Ends<'t> = (Vec<Word<'t>>, Vec<Word<'t>>);

fn read_between<'t>(entry: TableEntry<'t>, findings: &mut Vec<Finding>) -> Option<Ends<'t>> {
    const HELP: &str = "`between` has two ends, as in `between = [\"Z1\", \"Z2\"]`";
    let Some(array) = entry.value().get_ref().as_array() else {
        return entry.wrong_type("an array of two strings").help(HELP).refuse(findings);
    };
    let words = entry.words(findings)?;
    match &words[..] {
        [one, other] if array.len() == 2 => Some((vec![one.clone()], vec![other.clone()])),
        // `words` has reported the elements of a wrong type.
        _ if array.len() != words.len() => None,
        _ => {
            let label = format!("{} here", array.len());
            Finding::new(entry.key_span(), "`between` needs two ends").label(label).help(HELP).refuse(findings)
        }
    }
}

fn read_from_to<'t>(from: TableEntry<'t>, to: TableEntry<'t>, findings: &mut Vec<Finding>) -> Option<Ends<'t>> {
    let mut end = |entry: TableEntry<'t>| {
        let words = entry.words(findings)?;
        if words.is_empty() && entry.value().get_ref().as_array().is_some_and(|array| array.is_empty()) {
            Finding::new(entry.key_span(), format!("`{}` is empty", entry.key()))
                .help("write a zone, a node, a hostlist, or \"*\" for all nodes")
                .report(findings);
        }
        Some(words)
    };
    let (from, to) = (end(from), end(to));
    Some((from?, to?))
}
