//! The first pass over a topology file: from TOML to a [`Document`] of words with their places.
//!
//! It knows the keys of the language, their types and the values that stand for themselves; it does not know which
//! nodes exist. Everything wrong becomes a finding, and the pass goes on with what is left, so that one run shows all.

use std::ops::Range;

use toml::{Spanned, de::DeTable};

use super::{
    diagnostic::Finding,
    elsewhere,
    matrix::MatrixIs,
    name::{NAME_HELP, ZoneName},
    parameters::{self, Direction},
    patch::LinkPatch,
    reader::{Table, TableEntry, Word},
    suggest,
    tables::TableIds,
};

/// How many characters a topology's name may have.
pub(super) const MAX_TITLE_CHARS: usize = 64;

/// A file that has the shape of a topology.
pub(super) struct Document<'t> {
    pub(super) name: &'t str,
    /// The zones and the nodes outside them, in the file's order.
    pub(super) groups: Vec<Group<'t>>,
    /// How many zones the file has, those without a valid name included; none if there is no telling.
    pub(super) zone_count: Option<usize>,
    pub(super) links: Links<'t>,
}

/// The members of a zone, or the nodes outside zones.
pub(super) struct Group<'t> {
    /// None outside zones, and where the zone's name is none.
    pub(super) zone: Option<ZoneName>,
    pub(super) key: Spanned<&'t str>,
    pub(super) members: Vec<Word<'t>>,
    /// Whether these are all members that the file means to say, rather than those that can be read.
    pub(super) complete: bool,
}

impl Group<'_> {
    /// Whether these are nodes outside zones, wherever they are written.
    fn is_outside(&self) -> bool {
        *self.key.get_ref() == "nodes"
    }
}

/// The `[links]` table.
#[derive(Default)]
pub(super) struct Links<'t> {
    pub(super) key: Range<usize>,
    pub(super) default: LinkPatch,
    pub(super) intra_zone: Option<ZoneRule>,
    pub(super) inter_zone: Option<ZoneRule>,
    pub(super) matrix: Option<MatrixWords<'t>>,
    pub(super) overrides: Vec<Override<'t>>,
}

/// `matrix` and `matrix-is`.
pub(super) struct MatrixWords<'t> {
    pub(super) file: Word<'t>,
    /// None if it says what no matrix is.
    pub(super) is: Option<MatrixIs>,
}

/// `intra-zone` or `inter-zone`.
pub(super) struct ZoneRule {
    pub(super) key: Range<usize>,
    pub(super) patch: LinkPatch,
}

/// One `[[links.override]]`.
pub(super) struct Override<'t> {
    /// The header, or the inline table.
    pub(super) span: Range<usize>,
    pub(super) ends: Ends<'t>,
    pub(super) patch: LinkPatch,
}

/// Whom an override is about, in the user's words.
pub(super) enum Ends<'t> {
    /// Both ways.
    Between(Word<'t>, Word<'t>),
    /// One way.
    FromTo { from: Vec<Word<'t>>, to: Vec<Word<'t>> },
}

/// Reads a whole file, whose distribution tables are read already.
pub(super) fn read<'t>(
    file: &'t DeTable<'t>,
    text: &str,
    tables: &TableIds<'_>,
    findings: &mut Vec<Finding>,
) -> Document<'t> {
    let mut top = Table::open("a topology", file);
    // A key belongs to the header above it. Where that is the mistake, it is reported there.
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
        findings.push(
            Finding::new(0..0, "a topology needs nodes")
                .label("`nodes` and `zones` are missing")
                .help("add `nodes = \"n[1-9]\"`, or `[zones]` and `Z1 = \"n[1-3]\"`"),
        );
    }
    let zones = zones.map_or_else(|| Some(Vec::new()), |zones| read_zones(zones, findings));
    let zone_count = zones.as_ref().map(|zones| zones.iter().filter(|group| !group.is_outside()).count());
    let mut groups = zones.unwrap_or_default();
    groups.extend(nodes.map(|nodes| read_group(None, nodes, findings)));
    groups.sort_by_key(|group| group.key.span().start);
    let links = match top.take("links") {
        Some(links) => read_links(links, tables, findings),
        // What was meant to be in `[links]` is reported for where it is.
        None if top.has_any(&elsewhere::OF_LINKS_TABLE) => Links::default(),
        None => no_links(text, findings),
    };
    // Where the nodes are is no matter of the topology: `crate::inventory` reads it.
    top.pass("inventory");
    top.close(findings);
    Document { name, groups, zone_count, links }
}

fn read_name<'t>(entry: Option<TableEntry<'t>>, findings: &mut Vec<Finding>) -> &'t str {
    let Some(entry) = entry else {
        findings.push(
            Finding::new(0..0, "a topology needs a name").label("`name` is missing").help("add `name = \"my-wan\"`"),
        );
        return "";
    };
    let Some(name) = entry.string(findings) else { return "" };
    let name_span = name.span();
    let name = name.into_inner();
    let mistake = match name.chars().count() {
        0 => Some("the name is empty".to_owned()),
        1..=MAX_TITLE_CHARS => name
            .chars()
            .find(|character| character.is_control())
            .map(|character| format!("the name contains the control character {character:?}")),
        _ => Some(format!("the name has more than {MAX_TITLE_CHARS} characters")),
    };
    if let Some(mistake) = mistake {
        let help = format!("a topology's name has 1 to {MAX_TITLE_CHARS} printable characters");
        findings.push(Finding::new(name_span, mistake).help(help));
    }
    name
}

fn read_group<'t>(zone: Option<ZoneName>, entry: TableEntry<'t>, findings: &mut Vec<Finding>) -> Group<'t> {
    let before = findings.len();
    let members = entry.words(findings).unwrap_or_default();
    if entry.value().get_ref().as_array().is_some_and(|array| array.is_empty()) {
        let (message, help) = match &zone {
            Some(zone) => (format!("the zone `{zone}` is empty"), "give the zone a node, or leave it out"),
            None => ("there are no nodes in `nodes`".to_owned(), "leave `nodes` out when all nodes are in zones"),
        };
        findings.push(Finding::new(entry.key_span(), message).label("no member").help(help));
    }
    let complete = findings.len() == before;
    Group { zone, key: Spanned::new(entry.key_span(), entry.key()), members, complete }
}

fn read_zones<'t>(entry: TableEntry<'t>, findings: &mut Vec<Finding>) -> Option<Vec<Group<'t>>> {
    let mut table = entry.table("the zones", findings)?;
    let zones = table.take_rest();
    if zones.is_empty() {
        findings.push(
            Finding::new(entry.key_span(), "there are no zones in `zones`")
                .label("no zone")
                .help("add `Z1 = \"n[1-3]\"`, or leave `zones` out"),
        );
    }
    let groups = zones.into_iter().filter_map(|zone| {
        if let Some(key) = ["name", "nodes"].into_iter().find(|key| *key == zone.key()) {
            findings.push(
                Finding::new(zone.key_span(), format!("`{key}` in `zones` would be a zone of that name"))
                    .label("a key belongs to the header above it")
                    .help(format!("write `{key}` above `[zones]`; a zone needs another name")),
            );
            return (key == "nodes").then(|| read_group(None, zone, findings));
        }
        let name = zone.key().parse::<ZoneName>();
        if let Err(error) = &name {
            findings.push(
                Finding::new(zone.key_span(), format!("`{}` is not a zone's name", zone.key()))
                    .label(error.to_string())
                    .help(NAME_HELP),
            );
        }
        Some(read_group(name.ok(), zone, findings))
    });
    Some(groups.collect())
}

fn read_links<'t>(entry: TableEntry<'t>, tables: &TableIds<'_>, findings: &mut Vec<Finding>) -> Links<'t> {
    let Some(mut table) = entry.table("`links`", findings) else { return Links::default() };
    if table.is_empty() {
        findings.push(
            Finding::new(entry.key_span(), "the topology does not say what its links are like")
                .label("nothing is said here")
                .help("add `default = { rtt = \"0ms\" }`"),
        );
    }
    let default = table.take("default").map(|rule| read_rule(rule, tables, findings)).unwrap_or_default();
    let mut zone_rule = |key| {
        let rule: TableEntry<'_> = table.take(key)?;
        Some(ZoneRule { key: rule.key_span(), patch: read_rule(rule, tables, findings) })
    };
    let (intra_zone, inter_zone) = (zone_rule("intra-zone"), zone_rule("inter-zone"));
    let matrix = read_matrix(table.take("matrix"), table.take("matrix-is"), findings);
    let overrides =
        table.take("override").map(|overrides| read_overrides(overrides, tables, findings)).unwrap_or_default();
    table.close(findings);
    Links { key: entry.key_span(), default, intra_zone, inter_zone, matrix, overrides }
}

fn read_matrix<'t>(
    matrix: Option<TableEntry<'t>>,
    is: Option<TableEntry<'t>>,
    findings: &mut Vec<Finding>,
) -> Option<MatrixWords<'t>> {
    if let (None, Some(is)) = (&matrix, &is) {
        findings.push(
            Finding::new(is.key_span(), "`matrix-is` needs `matrix`")
                .label("there is no matrix")
                .help("add `matrix = \"regions.csv\"`, or leave `matrix-is` out"),
        );
    }
    let is = is.map_or(Some(MatrixIs::Rtt), |is| read_matrix_is(is, findings));
    let file = matrix?.string(findings)?;
    Some(MatrixWords { file, is })
}

fn read_matrix_is(entry: TableEntry<'_>, findings: &mut Vec<Finding>) -> Option<MatrixIs> {
    let word = entry.string(findings)?;
    match *word.get_ref() {
        "rtt" => Some(MatrixIs::Rtt),
        "delay" => Some(MatrixIs::Delay),
        other => {
            let near = suggest::nearest(other, ["rtt", "delay"]).map(|word| format!("did you mean `{word}`?"));
            findings.push(
                Finding::new(word.span(), format!("a matrix is of `rtt` or `delay`, not `{other}`"))
                    .label(near.unwrap_or_default())
                    .help("an `rtt` is there and back and the same both ways, a `delay` is from the row to the column"),
            );
            None
        }
    }
}

fn no_links<'t>(text: &str, findings: &mut Vec<Finding>) -> Links<'t> {
    let end = text.trim_end().len();
    findings.push(
        Finding::new(end..end, "the topology does not say what its links are like")
            .label("`[links]` is missing")
            .help("add `[links]` and `default = { rtt = \"0ms\" }`"),
    );
    Links::default()
}

fn read_rule(entry: TableEntry<'_>, tables: &TableIds<'_>, findings: &mut Vec<Finding>) -> LinkPatch {
    let Some(mut table) = entry.table("a link", findings) else { return LinkPatch::default() };
    let patch = parameters::take(&mut table, entry.key_span(), Direction::Both, tables, findings);
    table.close(findings);
    patch
}

fn read_overrides<'t>(entry: TableEntry<'t>, tables: &TableIds<'_>, findings: &mut Vec<Finding>) -> Vec<Override<'t>> {
    if entry.value().get_ref().is_table() {
        findings.push(entry.wrong_type("an array of tables").help("write `[[links.override]]` with two brackets"));
        return Vec::new();
    }
    if entry.value().get_ref().as_array().is_some_and(|array| array.is_empty()) {
        findings.push(Finding::new(entry.key_span(), "there is no override in `override`").help("leave it out"));
    }
    let overrides = entry.tables("an override", findings);
    overrides.into_iter().filter_map(|(span, table)| read_override(span, table, tables, findings)).collect()
}

fn read_override<'t>(
    span: Range<usize>,
    mut table: Table<'t>,
    tables: &TableIds<'_>,
    findings: &mut Vec<Finding>,
) -> Option<Override<'t>> {
    let (between, from, to) = (table.take("between"), table.take("from"), table.take("to"));
    let one_way = between.is_none() && (from.is_some() || to.is_some());
    let direction = if one_way { Direction::One } else { Direction::Both };
    let ends = match (between, from, to) {
        (Some(between), None, None) => read_between(between, findings),
        (None, Some(from), Some(to)) => read_from_to(from, to, findings),
        (Some(between), Some(other), _) | (Some(between), None, Some(other)) => {
            findings.push(
                Finding::new(other.key_span(), format!("`between` and `{}` exclude each other", other.key()))
                    .label("this is one way")
                    .related(between.key_span(), "this is both ways")
                    .help("write `between` alone, or `from` and `to`"),
            );
            None
        }
        (None, Some(half), None) | (None, None, Some(half)) => {
            let missing = if half.key() == "from" { "to" } else { "from" };
            findings.push(
                Finding::new(half.key_span(), format!("`{}` needs `{missing}`", half.key()))
                    .help("write `from` and `to` for one way, or `between` for both ways"),
            );
            None
        }
        (None, None, None) => {
            findings.push(
                Finding::new(span.clone(), "this override does not say which links it is about")
                    .label("no `between`, `from` or `to`")
                    .help("write `between = [\"Z1\", \"Z2\"]` for both ways, or `from` and `to` for one way"),
            );
            None
        }
    };
    let patch = parameters::take(&mut table, span.clone(), direction, tables, findings);
    table.close(findings);
    Some(Override { span, ends: ends?, patch })
}

fn read_between<'t>(entry: TableEntry<'t>, findings: &mut Vec<Finding>) -> Option<Ends<'t>> {
    const HELP: &str = "`between` has two ends, as in `between = [\"Z1\", \"Z2\"]`";
    let Some(array) = entry.value().get_ref().as_array() else {
        findings.push(entry.wrong_type("an array of two strings").help(HELP));
        return None;
    };
    let words = entry.words(findings)?;
    match &words[..] {
        [one, other] if array.len() == 2 => Some(Ends::Between(one.clone(), other.clone())),
        // The wrong elements are reported already.
        _ if array.len() != words.len() => None,
        _ => {
            let found = format!("{} here", array.len());
            findings.push(Finding::new(entry.key_span(), "`between` takes exactly two ends").label(found).help(HELP));
            None
        }
    }
}

fn read_from_to<'t>(from: TableEntry<'t>, to: TableEntry<'t>, findings: &mut Vec<Finding>) -> Option<Ends<'t>> {
    let mut end = |entry: TableEntry<'t>| {
        let words = entry.words(findings)?;
        if words.is_empty() && entry.value().get_ref().as_array().is_some_and(|array| array.is_empty()) {
            findings.push(
                Finding::new(entry.key_span(), format!("there is nobody in `{}`", entry.key()))
                    .help("write a zone, a node, a hostlist, or \"*\" for every node"),
            );
        }
        Some(words)
    };
    let (from, to) = (end(from), end(to));
    Some(Ends::FromTo { from: from?, to: to? })
}
