//! Reads a matrix of delays between zones or nodes from a CSV file: [`Matrix`].
//!
//! ```csv
//! # source and date
//! ms,   paris, oslo, rome
//! paris,     ,   26,
//! oslo,    26,     , 41.5
//! rome,  27ms,     ,
//! ```
//!
//! The first cell is the unit of all numbers without a unit. If every number has a unit, the first cell may be empty.
//! The row is the sender of packets, the column the receiver. An empty cell sets no delay, so the other rules apply. A
//! zone's cell on the diagonal sets the delay inside the zone.

use std::{
    cmp::Reverse,
    collections::{HashMap, hash_map::Entry},
    ops::Range,
    sync::Arc,
};

use super::{
    csv,
    diagnostic::Finding,
    document::{MatrixQuantity, MatrixReference},
    files::{AttachedFile, AttachedFiles},
    members::{Member, Members},
    node_set::NodeId,
    source::{File, SourceSpan},
    units::{Delay, HalfRtt, OneWayDelay, Quantity, QuantityMistake},
    unknown_name::UnknownName,
};

/// Texts that stand for an empty cell on the diagonal.
const DASHES: [&str; 3] = ["-", "–", "—"];

/// The reader stops after this many mistakes.
const MAX_MISTAKES: usize = 100_000;

/// If the two cells of a pair differ by at least this factor, the cells are certainly one-way delays.
///
/// Two measurements of one RTT differ by a smaller factor.
const CERTAINLY_ONE_WAY: u64 = 2;

/// One-way delays between groups of nodes, with their spans in the file.
///
/// The size depends on the file only: a matrix of zones does not grow with the number of nodes.
#[derive(Clone, Debug)]
pub(super) struct Matrix {
    file: Arc<str>,
    groups: Vec<Range<NodeId>>,
    /// Sorted by `from`, then by `to`.
    cells: Vec<Cell>,
}

/// The delay of the links from one group of nodes to another.
#[derive(Clone, Debug)]
pub(super) struct Cell {
    from: Range<NodeId>,
    pub(super) to: Range<NodeId>,
    pub(super) delay: Delay,
    span: Range<usize>,
}

impl Cell {
    /// The first node of the row and of the column. They identify the cell, because no two cells have a link in common.
    fn key(&self) -> (NodeId, NodeId) {
        (self.from.start, self.to.start)
    }
}

impl Matrix {
    /// The cells of the row that contains a node.
    pub(super) fn cells_from(&self, from: NodeId) -> &[Cell] {
        let first = self.cells.partition_point(|cell| cell.from.end <= from);
        let behind = self.cells.partition_point(|cell| cell.from.start <= from);
        self.cells.get(first..behind).unwrap_or_default()
    }

    /// The cell that sets the delay from one node to another.
    pub(super) fn cell(&self, from: NodeId, to: NodeId) -> Option<&Cell> {
        let cells = self.cells_from(from);
        let next = cells.partition_point(|cell| cell.to.end <= to);
        cells.get(next).filter(|cell| cell.to.contains(&to))
    }

    pub(super) fn span_of(&self, cell: &Cell) -> SourceSpan {
        SourceSpan::new(self.file(), &cell.span)
    }

    /// The span of the cell for two nodes in the text of the file, even if the cell is empty.
    pub(super) fn cell_span(&self, text: &str, from: NodeId, to: NodeId, members: &Members) -> Option<SourceSpan> {
        let has = |name: &str, node| members.nodes_called(name).is_some_and(|nodes| nodes.contains(&node));
        let mut rows = csv::rows(text);
        let column = rows.next()?.cells().skip(1).position(|cell| has(&cell.text, to))?;
        let row = rows.find(|row| row.cells().next().is_some_and(|cell| has(&cell.text, from)))?;
        Some(SourceSpan::new(self.file(), &row.cells().nth(column + 1)?.span))
    }

    pub(super) fn file(&self) -> File {
        File::Attached(Arc::clone(&self.file))
    }

    /// The zones and single nodes that have a row or a column.
    pub(super) fn groups(&self) -> impl Iterator<Item = &Range<NodeId>> {
        self.groups.iter()
    }

    pub(super) fn least_delay(&self) -> Option<Delay> {
        self.cells.iter().map(|cell| cell.delay).min()
    }
}

/// Reads the matrix that a topology file names. Reports all mistakes.
pub(super) fn read(
    reference: &MatrixReference<'_>,
    files: &AttachedFiles<'_>,
    members: &Members,
    findings: &mut Vec<Finding>,
) -> Option<Matrix> {
    let file = files.open(&reference.file, findings)?;
    let (headings, mistakes) = (HashMap::new(), Mistakes::default());
    let mut reader =
        Reader { file: &file, members, quantity: reference.quantity?, headings, known_names: None, mistakes };
    let mut cells = reader.read();
    let Reader { headings, mistakes, .. } = reader;
    let is_right = mistakes.count == 0;
    findings.extend(mistakes.into_findings());
    let mut groups: Vec<_> = headings.into_values().map(|heading| heading.nodes).collect();
    groups.sort_unstable_by_key(|nodes| nodes.start);
    cells.sort_unstable_by_key(Cell::key);
    is_right.then_some(Matrix { file: file.name, groups, cells })
}

/// The heading of a row or a column.
#[derive(Clone)]
struct Heading {
    nodes: Range<NodeId>,
    is_node: bool,
    span: Range<usize>,
}

struct Reader<'r> {
    file: &'r AttachedFile<'r>,
    members: &'r Members,
    quantity: MatrixQuantity,
    /// The headings by name, each with its first span.
    headings: HashMap<String, Heading>,
    /// The text that lists all members, created for the first unknown name.
    known_names: Option<String>,
    mistakes: Mistakes,
}

/// The mistakes in a matrix, by kind.
///
/// One finding reports all mistakes of a kind: it shows the first mistake and the number of the others.
#[derive(Default)]
struct Mistakes {
    /// The first mistake of each kind, with the number of further mistakes of this kind.
    found: Vec<(Finding, usize)>,
    /// The index in `found` of each kind.
    kinds: HashMap<String, usize>,
    count: usize,
}

impl Mistakes {
    /// Adds a mistake. If a mistake of the same kind is known, only counts the new mistake.
    fn report(&mut self, kind: &str, finding: Finding) {
        self.count += 1;
        match self.kinds.entry(kind.to_owned()) {
            Entry::Occupied(known) => self.found[*known.get()].1 += 1,
            Entry::Vacant(kind) => {
                kind.insert(self.found.len());
                self.found.push((finding, 0));
            }
        }
    }

    fn into_findings(self) -> impl Iterator<Item = Finding> {
        self.found.into_iter().map(|(finding, more)| if more == 0 { finding } else { finding.and_more(more) })
    }
}

impl Reader<'_> {
    /// The values of all cells. An RTT gives two values: one for each direction.
    fn read(&mut self) -> Vec<Cell> {
        let mut rows = csv::rows(self.file.text);
        let Some(header) = rows.next() else {
            let help = "write a header row such as `ms,Z1,Z2`, and a row such as `Z1,,150` for each zone";
            self.report("empty", 0..0, "the matrix is empty", help);
            return Vec::new();
        };
        let mut cells = header.cells();
        let unit = cells.next().and_then(|cell| self.unit(&cell));
        let mut names = HashMap::new();
        let mut columns = Vec::new();
        for cell in cells {
            columns.push(self.heading("column", &cell, &mut names));
            if self.mistakes.count >= MAX_MISTAKES {
                return Vec::new();
            }
        }
        if columns.is_empty() {
            self.report_no_columns(&header);
            return Vec::new();
        }

        let mut values = Vec::new();
        let mut names = HashMap::new();
        for row in rows {
            self.row(&row, unit.as_deref(), &columns, &mut names, &mut values);
            if self.mistakes.count >= MAX_MISTAKES {
                return Vec::new();
            }
        }
        let has_overlap = self.report_overlaps();
        if values.is_empty() && self.mistakes.count == 0 {
            let help = "write a row such as `Z1,,150` for each zone";
            self.report("empty", header.span(), "all cells of the matrix are empty", help);
        }
        if self.quantity == MatrixQuantity::Rtt && !has_overlap {
            self.complete_rtts(&mut values);
        }
        values
    }

    fn report(&mut self, kind: &str, span: Range<usize>, message: &str, help: &str) {
        self.mistakes.report(kind, Finding::new(self.file.span(&span), message).help(help));
    }

    /// The text of a cell. Reports a cell with wrong quotes.
    fn text<'c>(&mut self, cell: &'c csv::Cell<'_>) -> Option<&'c str> {
        if let Some(mistake) = cell.mistake {
            let help = "inside quotes, write a quote twice; a cell is on one line";
            self.report(mistake, cell.span.clone(), mistake, help);
            return None;
        }
        Some(&cell.text)
    }

    /// The unit in the first cell, for numbers without a unit.
    fn unit(&mut self, cell: &csv::Cell<'_>) -> Option<String> {
        let text = self.text(cell)?;
        if text.is_empty() {
            return None;
        }
        let is_unit = text.starts_with(char::is_alphabetic) && format!("1{text}").parse::<Delay>().is_ok();
        if !is_unit {
            let help = "the first cell is ns, us, ms or s; it is empty if every number has a unit";
            self.report("unit", cell.span.clone(), &format!("`{text}` is not a unit of time"), help);
        }
        is_unit.then(|| text.to_owned())
    }

    fn report_no_columns(&mut self, header: &csv::Row<'_>) {
        let text = &self.file.text[header.span()];
        let help = match text.find([';', '\t']) {
            Some(_) => "separate the cells by commas instead of semicolons or tabs",
            None => "write a header row such as `ms,Z1,Z2`",
        };
        self.report("empty", header.span(), "the matrix has no columns", help);
    }

    /// Reads the heading of a row or a column.
    ///
    /// `axis` is `row` or `column`. `names` are the headings of the previous rows or columns.
    fn heading(
        &mut self,
        axis: &str,
        cell: &csv::Cell<'_>,
        names: &mut HashMap<String, Range<usize>>,
    ) -> Option<Heading> {
        let name = self.text(cell)?;
        let span = cell.span.clone();
        if name.is_empty() {
            let help = format!("every {axis} begins with the name of a zone or a node");
            self.report(axis, span, &format!("this {axis} has no name"), &help);
            return None;
        }
        let (Some(nodes), Some(member)) = (self.members.nodes_called(name), self.members.named(name)) else {
            let error = UnknownName::new(name, self.members.names());
            let known_names = self.known_names.get_or_insert_with(|| self.members.describe());
            self.mistakes.report(&error.message(), error.finding(self.file.span(&span), known_names));
            return None;
        };
        match names.entry(name.to_owned()) {
            Entry::Occupied(first) => {
                let finding = Finding::new(self.file.span(&span), format!("there are two {axis}s of `{name}`"))
                    .label("again here")
                    .related(self.file.span(first.get()), "the first one")
                    .help("remove one of them");
                self.mistakes.report("twice", finding);
                None
            }
            Entry::Vacant(entry) => {
                entry.insert(span.clone());
                let heading = Heading { nodes, is_node: matches!(member, Member::Node(_)), span };
                self.headings.entry(name.to_owned()).or_insert_with(|| heading.clone());
                Some(heading)
            }
        }
    }

    fn row(
        &mut self,
        row: &csv::Row<'_>,
        unit: Option<&str>,
        columns: &[Option<Heading>],
        names: &mut HashMap<String, Range<usize>>,
        values: &mut Vec<Cell>,
    ) {
        let mut cells = row.cells();
        let Some(from) = cells.next().map(|cell| self.heading("row", &cell, names)) else { return };
        let mut count = 0;
        for cell in cells {
            count += 1;
            let Some(to) = columns.get(count - 1) else { continue };
            let is_diagonal = from.as_ref().zip(to.as_ref()).is_some_and(|(from, to)| from.nodes == to.nodes);
            if is_diagonal && DASHES.contains(&&*cell.text) {
                continue;
            }
            let delay = self.delay(&cell, unit);
            let (Some(from), Some(to), Some(delay)) = (&from, to, delay) else { continue };
            if is_diagonal && from.is_node {
                // Most tools write 0 on the diagonal.
                if delay != Delay::ZERO {
                    let help = "leave the cell empty or write 0: only zones have links inside";
                    self.report("itself", cell.span, "a node has no link to itself", help);
                }
                continue;
            }
            // A zone whose members all have mistakes has no nodes.
            if from.nodes.is_empty() || to.nodes.is_empty() {
                continue;
            }
            values.push(Cell { from: from.nodes.clone(), to: to.nodes.clone(), delay, span: cell.span });
        }
        if count != columns.len() {
            let cells = if count == 1 { "cell" } else { "cells" };
            let message = format!("this row has {count} {cells}, the header has {}", columns.len());
            self.report("cells", row.span(), &message, "write a separator for an empty cell, too: `Z1,,150,`");
        }
    }

    /// The one-way delay of a cell. `None` if the cell is empty, or has a mistake, which is reported.
    fn delay(&mut self, cell: &csv::Cell<'_>, unit: Option<&str>) -> Option<Delay> {
        let text = self.text(cell)?;
        if text.is_empty() {
            return None;
        }
        let lacks_unit = text.ends_with(|last: char| last.is_ascii_digit());
        let time = format!("{text}{}", unit.filter(|_| lacks_unit).unwrap_or_default());
        let delay = match self.quantity {
            MatrixQuantity::Rtt => HalfRtt::parse(&time).map(|HalfRtt(delay)| delay),
            MatrixQuantity::Delay => OneWayDelay::parse(&time).map(|OneWayDelay(delay)| delay),
        };
        let error = match delay {
            Ok(delay) => return Some(delay),
            Err(error) => error,
        };
        let message = error.to_string();
        let (kind, help) = match error.mistake() {
            QuantityMistake::NoUnit => ("no unit", "write the unit of all numbers into the first cell of the header"),
            QuantityMistake::Malformed => (text, "to leave the link to the other rules, leave the cell empty"),
            // The message has the unit but no number, so all uses of a wrong unit are one kind of mistake.
            QuantityMistake::UnknownUnit => (&*message, error.help()),
            QuantityMistake::OutOfRange => ("range", error.help()),
            QuantityMistake::TooPrecise => ("precision", error.help()),
        };
        self.report(kind, cell.span.clone(), &message, help);
        None
    }

    /// Adds the opposite direction of each RTT. Reports pairs with two different RTTs.
    fn complete_rtts(&mut self, values: &mut Vec<Cell>) {
        values.sort_unstable_by_key(Cell::key);
        let (mut opposites, mut differing) = (Vec::new(), Vec::new());
        for value in values.iter().filter(|value| value.from != value.to) {
            match values.binary_search_by_key(&(value.to.start, value.from.start), Cell::key) {
                Err(_) => {
                    let Cell { from, to, delay, span } = value;
                    let opposite = Cell { from: to.clone(), to: from.clone(), delay: *delay, span: span.clone() };
                    opposites.push(opposite);
                }
                Ok(index) if value.span.start < values[index].span.start && value.delay != values[index].delay => {
                    differing.push((value, &values[index]));
                }
                Ok(_) => {}
            }
        }
        let are_one_way = differing.iter().any(|(first, second)| {
            let (a, b) = (first.delay.as_nanos(), second.delay.as_nanos());
            a.max(b) >= a.min(b).saturating_mul(CERTAINLY_ONE_WAY)
        });
        // A user who declares RTTs as one-way delays gets twice the RTT on every link. So the help suggests
        // `matrix-is = "delay"` only if the cells are certainly one-way delays.
        let help = if are_one_way {
            "leave one of them empty, or write `matrix-is = \"delay\"` if these are one-way delays"
        } else {
            "two measurements of one RTT differ: leave one of them empty, or write their mean in both"
        };
        for (first, second) in differing {
            let finding = Finding::new(self.file.span(&second.span), "the two directions have different RTTs")
                .label((second.delay + second.delay).to_string())
                .related(self.file.span(&first.span), (first.delay + first.delay).to_string())
                .help(help);
            self.mistakes.report("asymmetric", finding);
        }
        values.append(&mut opposites);
    }

    /// Reports nodes with a heading if their zones have a heading, too: two cells would set one link.
    ///
    /// True if there are such nodes.
    fn report_overlaps(&mut self) -> bool {
        let mut headings: Vec<_> = self.headings.iter().collect();
        headings.sort_by_key(|(_, heading)| (heading.nodes.start, Reverse(heading.nodes.end), heading.is_node));
        let before = self.mistakes.count;
        let mut zone: Option<(&String, &Heading)> = None;
        for (name, heading) in headings {
            match zone {
                Some((zone, around)) if heading.nodes.start < around.nodes.end => {
                    let message = format!("the matrix has the node `{name}` and its zone `{zone}`");
                    let finding = Finding::new(self.file.span(&heading.span), message)
                        .label("the node")
                        .related(self.file.span(&around.span), "the zone")
                        .help("remove one of them; an override can describe the node's links");
                    self.mistakes.report("overlap", finding);
                }
                _ => zone = Some((name, heading)),
            }
        }
        self.mistakes.count > before
    }
}
