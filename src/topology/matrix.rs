//! A matrix of measured times, from a CSV file to [`Matrix`]: zones or nodes × the same.
//!
//! ```csv
//! # where the figures are from, and of when
//! ms,   paris, oslo, rome
//! paris,     ,   26,
//! oslo,    26,     , 41.5
//! rome,  27ms,     ,
//! ```
//!
//! The first cell is the unit of all numbers, and may be empty if every number has its own. Rows are where packets come
//! from, columns where they go. An empty cell leaves a link to the other rules. A row and a column of one name meet in
//! the link inside that zone; a node has no link to itself.

use std::{
    collections::{HashMap, hash_map::Entry},
    fmt,
    ops::Range,
    str::FromStr,
    sync::Arc,
};

use super::{
    csv,
    diagnostic::Finding,
    files::{Files, Opened},
    members::{Member, Members},
    node_set::NodeId,
    patch::{LinkPatch, Said},
    raw::MatrixWords,
    select::UnknownName,
    source::{File, SourceSpan},
    units::{Delay, Rtt, TimeError},
};

/// What the cells are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MatrixIs {
    /// There and back, the same from either end; half of it is the delay of either direction.
    Rtt,
    /// One way, from the row to the column.
    Delay,
}

/// What people and tools write on the diagonal for nothing.
const DASHES: [&str; 3] = ["-", "–", "—"];

/// How many mistakes of one matrix are looked for.
const MAX_MISTAKES: usize = 100_000;

/// How many times as long one way must take as the other, in an rtt, so that the two are certainly of one way: two
/// measurements of one rtt, or of two delays, can differ by anything less.
const CERTAINLY_ONE_WAY: u64 = 2;

/// One-way delays from some nodes to some nodes, each with its place in the file.
///
/// It takes what the file's cells take, and not more: it is a table of nodes only if the file is.
#[derive(Clone, Debug)]
pub(super) struct Matrix {
    file: Arc<str>,
    ends: Vec<Range<NodeId>>,
    /// In the order of the nodes that the packets come from.
    rows: Vec<Row>,
}

#[derive(Clone, Debug)]
struct Row {
    from: Range<NodeId>,
    /// In the order of the nodes that the packets go to.
    cells: Vec<Cell>,
}

/// What the matrix says of some links.
#[derive(Clone, Debug)]
pub(super) struct Cell {
    pub(super) to: Range<NodeId>,
    pub(super) delay: Delay,
    /// Its bytes in the file, of which there are at most [`MAX_FILE_BYTES`](super::MAX_FILE_BYTES).
    span: Range<u32>,
}

impl Matrix {
    /// What it says of packets from this node.
    pub(super) fn cells_from(&self, from: NodeId) -> &[Cell] {
        let next = self.rows.partition_point(|row| row.from.end <= from);
        self.rows.get(next).filter(|row| row.from.contains(&from)).map(|row| &row.cells[..]).unwrap_or_default()
    }

    /// What it says of packets from one node to another.
    pub(super) fn cell(&self, from: NodeId, to: NodeId) -> Option<&Cell> {
        let cells = self.cells_from(from);
        let next = cells.partition_point(|cell| cell.to.end <= to);
        cells.get(next).filter(|cell| cell.to.contains(&to))
    }

    pub(super) fn place_of(&self, cell: &Cell) -> SourceSpan {
        let span = cell.span.start as usize..cell.span.end as usize;
        SourceSpan { file: self.file(), span }
    }

    /// The place of the cell from one node to another, which may be empty, in the text of the file.
    pub(super) fn place_between(&self, text: &str, from: NodeId, to: NodeId, members: &Members) -> Option<SourceSpan> {
        let is_of = |name: &str, node| members.nodes_called(name).is_some_and(|nodes| nodes.contains(&node));
        let mut rows = csv::rows(text);
        let column = rows.next()?.cells().skip(1).position(|cell| is_of(&cell.text, to))?;
        let row = rows.find(|row| row.cells().next().is_some_and(|cell| is_of(&cell.text, from)))?;
        let span = row.cells().nth(column + 1)?.span;
        Some(SourceSpan { file: self.file(), span })
    }

    pub(super) fn file(&self) -> File {
        File::Attached(Arc::clone(&self.file))
    }

    /// Whose rows and columns it has: zones and single nodes.
    pub(super) fn ends(&self) -> impl Iterator<Item = &Range<NodeId>> {
        self.ends.iter()
    }

    /// The rule that it would be if every cell had the least delay of all.
    pub(super) fn least_delay(&self) -> Option<LinkPatch> {
        let least = self.rows.iter().flat_map(|row| &row.cells).min_by_key(|cell| cell.delay)?;
        let delay = Some(Said { value: least.delay, place: self.place_of(least).span });
        Some(LinkPatch { delay, ..LinkPatch::default() })
    }
}

/// Reads the matrix that a topology file names. What is wrong is reported.
pub(super) fn read(
    words: &MatrixWords<'_>,
    files: &Files<'_>,
    members: &Members,
    findings: &mut Vec<Finding>,
) -> Option<Matrix> {
    let file = files.open(&words.file, findings)?;
    let mut reader = Reader { file: &file, members, ends: HashMap::new(), choice: None, mistakes: Mistakes::default() };
    let says = match words.is? {
        MatrixIs::Rtt => reader.read::<Rtt>(),
        MatrixIs::Delay => reader.read::<Delay>(),
    };
    let Reader { ends, mistakes, .. } = reader;
    let is_right = mistakes.count == 0;
    findings.extend(mistakes.folded());
    let mut ends: Vec<_> = ends.into_values().map(|end| end.nodes).collect();
    ends.sort_unstable_by_key(|nodes| nodes.start);
    is_right.then(|| Matrix { file: file.name, ends, rows: in_rows(says) })
}

/// What one cell says, in the making.
struct Saying<T> {
    from: Range<NodeId>,
    to: Range<NodeId>,
    value: T,
    span: Range<usize>,
}

impl<T> Saying<T> {
    /// No two sayings are of the same links, so that the first nodes are enough.
    fn key(&self) -> (NodeId, NodeId) {
        (self.from.start, self.to.start)
    }
}

fn in_rows(mut says: Vec<Saying<Delay>>) -> Vec<Row> {
    let bytes = |bytes| u32::try_from(bytes).unwrap_or(u32::MAX);
    says.sort_unstable_by_key(Saying::key);
    let rows = says.chunk_by(|a, b| a.from == b.from).map(|row| {
        let cells = row.iter().map(|says| Cell {
            to: says.to.clone(),
            delay: says.value,
            span: bytes(says.span.start)..bytes(says.span.end),
        });
        Row { from: row[0].from.clone(), cells: cells.collect() }
    });
    rows.collect()
}

/// What a matrix can be of: times of one kind, and how they become delays of one direction.
trait Time: Copy + Ord + fmt::Display + FromStr<Err = TimeError> {
    const WHAT: &'static str;
    const ZERO: Self;
    const MAX: Self;

    /// The delay one way, if there is one.
    fn one_way(self) -> Option<Delay>;

    /// Fills in what follows from what is said, and reports what contradicts itself.
    fn complete(says: Vec<Saying<Self>>, file: &Opened<'_>, mistakes: &mut Mistakes) -> Vec<Saying<Self>>;
}

impl Time for Delay {
    const WHAT: &'static str = "a delay";
    const ZERO: Self = Self::ZERO;
    const MAX: Self = Self::MAX;

    fn one_way(self) -> Option<Delay> {
        Some(self)
    }

    fn complete(says: Vec<Saying<Self>>, _: &Opened<'_>, _: &mut Mistakes) -> Vec<Saying<Self>> {
        says
    }
}

impl Time for Rtt {
    const WHAT: &'static str = "an rtt";
    const ZERO: Self = Self::ZERO;
    const MAX: Self = Self::MAX;

    fn one_way(self) -> Option<Delay> {
        let half = Self::one_way(self);
        // Rounding would give the user another rtt than the one that the file says.
        (half + half == self).then_some(half)
    }

    /// An rtt is the same both ways, so that one cell of two is enough.
    fn complete(mut says: Vec<Saying<Self>>, file: &Opened<'_>, mistakes: &mut Mistakes) -> Vec<Saying<Self>> {
        says.sort_unstable_by_key(Saying::key);
        let (mut ways_back, mut differing) = (Vec::new(), Vec::new());
        for there in says.iter().filter(|there| there.from != there.to) {
            let Ok(back) = says.binary_search_by_key(&(there.to.start, there.from.start), Saying::key) else {
                let Saying { from, to, value, span } = there;
                ways_back.push(Saying { from: to.clone(), to: from.clone(), value: *value, span: span.clone() });
                continue;
            };
            let (first, second) = (there, &says[back]);
            if first.span.start < second.span.start && first.value != second.value {
                differing.push((first, second));
            }
        }
        let is_one_way = differing.iter().any(|(first, second)| {
            let (least, most) = (first.value.min(second.value).as_nanos(), first.value.max(second.value).as_nanos());
            most >= least.saturating_mul(CERTAINLY_ONE_WAY)
        });
        // Whoever follows the advice about delays and is wrong has twice every rtt.
        let help = if is_one_way {
            "leave one of them empty, or write `matrix-is = \"delay\"` if these are delays of one way"
        } else {
            "two measurements of one rtt differ: leave one of them empty, or write their mean in both"
        };
        for (first, second) in differing {
            mistakes.find("asymmetric", || {
                Finding::new(file.place(second.span.clone()), "an rtt is the same both ways, and these two are not")
                    .label(format!("{} one way round", second.value))
                    .related(file.place(first.span.clone()), format!("{} the other way round", first.value))
                    .help(help)
            });
        }
        says.append(&mut ways_back);
        says
    }
}

/// A row or a column: whose it is, and where its name is.
#[derive(Clone)]
struct End {
    nodes: Range<NodeId>,
    is_node: bool,
    span: Range<usize>,
}

struct Reader<'r> {
    file: &'r Opened<'r>,
    members: &'r Members,
    /// Every name of a row or a column so far, with the first place of it.
    ends: HashMap<String, End>,
    /// What there is to choose from, once someone has missed it.
    choice: Option<String>,
    mistakes: Mistakes,
}

/// What is wrong with a matrix: of mistakes that are alike the first one, and how many there are.
#[derive(Default)]
struct Mistakes {
    /// In the order in which they were found, each with the number of those that are like it.
    found: Vec<(Finding, usize)>,
    /// The places of the kinds in `found`.
    kinds: HashMap<String, usize>,
    count: usize,
}

impl Mistakes {
    /// Reports a mistake, unless there is one that is alike.
    fn find(&mut self, alike: &str, finding: impl FnOnce() -> Finding) {
        self.count += 1;
        if let Some(known) = self.kinds.get(alike) {
            self.found[*known].1 += 1;
            return;
        }
        self.kinds.insert(alike.to_owned(), self.found.len());
        self.found.push((finding(), 0));
    }

    fn folded(self) -> impl Iterator<Item = Finding> {
        self.found.into_iter().map(|(finding, more)| if more == 0 { finding } else { finding.and_more(more) })
    }
}

impl Reader<'_> {
    /// The delays that the file says, those that follow from others included.
    fn read<T: Time>(&mut self) -> Vec<Saying<Delay>> {
        let mut rows = csv::rows(self.file.text);
        let Some(header) = rows.next() else {
            self.find("empty", 0..0, "the matrix is empty", |finding| {
                finding.help("write a header row such as `ms,Z1,Z2`, and then a row such as `Z1,,150` for each zone")
            });
            return Vec::new();
        };
        let mut cells = header.cells();
        let unit = cells.next().and_then(|cell| self.unit(&cell));
        let columns = self.columns(cells);
        if columns.is_empty() {
            self.no_columns(&header);
            return Vec::new();
        }

        let mut says = Vec::new();
        let mut names = HashMap::new();
        for row in rows {
            self.row::<T>(&row, unit.as_deref(), &columns, &mut names, &mut says);
            if self.mistakes.count >= MAX_MISTAKES {
                return Vec::new();
            }
        }
        let overlap = self.overlaps();
        if says.is_empty() && !overlap && self.mistakes.count == 0 {
            self.find("empty", header.span(), "the matrix says nothing of any link", |finding| {
                finding.help("write a row such as `Z1,,150` for each zone")
            });
        }
        let says = if overlap { says } else { T::complete(says, self.file, &mut self.mistakes) };
        let one_way =
            |Saying { from, to, value, span }: Saying<T>| Some(Saying { from, to, value: value.one_way()?, span });
        says.into_iter().filter_map(one_way).collect()
    }

    /// Reports a mistake; of those that are `alike` the first.
    fn find(
        &mut self,
        alike: &str,
        span: Range<usize>,
        message: impl Into<String>,
        more: impl FnOnce(Finding) -> Finding,
    ) {
        let place = self.file.place(span);
        self.mistakes.find(alike, || more(Finding::new(place, message)));
    }

    /// The text of a cell, unless its quotes are wrong.
    fn text<'c>(&mut self, cell: &'c csv::Cell<'_>) -> Option<&'c str> {
        if let Some(mistake) = cell.mistake {
            self.find(mistake, cell.span.clone(), mistake, |finding| {
                finding.help("a quote inside quotes is written twice, and a cell is on one line")
            });
            return None;
        }
        Some(&cell.text)
    }

    /// The unit of all numbers that have none of their own.
    fn unit(&mut self, cell: &csv::Cell<'_>) -> Option<String> {
        let text = self.text(cell)?;
        if text.is_empty() {
            return None;
        }
        let is_unit = text.starts_with(char::is_alphabetic) && format!("1{text}").parse::<Delay>().is_ok();
        if !is_unit {
            self.find("unit", cell.span.clone(), format!("`{text}` is not a unit of time"), |finding| {
                finding
                    .help("the first cell is the unit of all numbers: ns, us, ms or s; it is empty if each has its own")
            });
        }
        is_unit.then(|| text.to_owned())
    }

    /// The columns in order; none for one whose name is wrong.
    fn columns<'c>(&mut self, cells: impl Iterator<Item = csv::Cell<'c>>) -> Vec<Option<End>> {
        let mut names = HashMap::new();
        let mut columns = Vec::new();
        for cell in cells {
            columns.push(self.end("column", &cell, &mut names));
            if self.mistakes.count >= MAX_MISTAKES {
                break;
            }
        }
        columns
    }

    fn no_columns(&mut self, header: &csv::Row<'_>) {
        let separator = [(';', "semicolons"), ('\t', "tabs")]
            .into_iter()
            .find(|&(separator, _)| self.file.text[header.span()].contains(separator));
        self.find("empty", header.span(), "the matrix has no columns", |finding| match separator {
            Some((_, separators)) => finding.help(format!("separate the cells by commas rather than {separators}")),
            None => finding.help("write a header row such as `ms,Z1,Z2`"),
        });
    }

    /// Whose row or column it is. `names` are those of the rows or columns before.
    fn end(&mut self, what: &str, cell: &csv::Cell<'_>, names: &mut HashMap<String, Range<usize>>) -> Option<End> {
        let name = self.text(cell)?;
        let span = cell.span.clone();
        if name.is_empty() {
            self.find(what, span, format!("this {what} has no name"), |finding| {
                finding.help(format!("every {what} begins with the name of a zone or a node"))
            });
            return None;
        }
        let (Some(nodes), Some(member)) = (self.members.nodes_called(name), self.members.named(name)) else {
            let error = UnknownName::new(name, self.members.names());
            let label = error.suggestion.as_ref().map(|name| format!("did you mean `{name}`?")).unwrap_or_default();
            let choice = self.choice.get_or_insert_with(|| self.members.describe()).clone();
            let message = error.message();
            self.find(&message, span, message.as_str(), |finding| finding.label(label).help(choice));
            return None;
        };
        let first = match names.entry(name.to_owned()) {
            Entry::Occupied(first) => first.get().clone(),
            Entry::Vacant(place) => {
                place.insert(span.clone());
                let end = End { nodes, is_node: matches!(member, Member::Node(_)), span };
                self.ends.entry(name.to_owned()).or_insert_with(|| end.clone());
                return Some(end);
            }
        };
        let first = self.file.place(first);
        self.find("twice", span, format!("there are two {what}s of `{name}`"), |finding| {
            finding.label("again here").related(first, "the first one").help("leave one of them out")
        });
        None
    }

    fn row<T: Time>(
        &mut self,
        row: &csv::Row<'_>,
        unit: Option<&str>,
        columns: &[Option<End>],
        names: &mut HashMap<String, Range<usize>>,
        says: &mut Vec<Saying<T>>,
    ) {
        let mut cells = row.cells();
        let Some(from) = cells.next().map(|cell| self.end("row", &cell, names)) else { return };
        let mut found = 0;
        for cell in cells {
            found += 1;
            let Some(column) = columns.get(found - 1) else { continue };
            let is_itself = |from: &End, to: &End| from.is_node && from.nodes == to.nodes;
            let is_diagonal = from.as_ref().zip(column.as_ref()).is_some_and(|(from, to)| from.nodes == to.nodes);
            if is_diagonal && DASHES.contains(&&*cell.text) {
                continue;
            }
            let value = self.time::<T>(&cell, unit);
            let (Some(from), Some(to), Some(value)) = (&from, column, value) else { continue };
            if is_itself(from, to) {
                // As most tools print it.
                if value != T::ZERO {
                    self.find("itself", cell.span, "a node has no link to itself", |finding| {
                        finding.help("leave the cell empty, or write 0: only a zone has links inside")
                    });
                }
                continue;
            }
            // A zone whose members could not be read has none.
            if from.nodes.is_empty() || to.nodes.is_empty() {
                continue;
            }
            says.push(Saying { from: from.nodes.clone(), to: to.nodes.clone(), value, span: cell.span });
        }
        if found != columns.len() {
            let count = |count| if count == 1 { "1 cell".to_owned() } else { format!("{count} cells") };
            let message = format!("{} behind the name, and {} in the header row", count(found), count(columns.len()));
            self.find("cells", row.span(), message, |finding| {
                finding.help("a cell of which nothing is known is empty, but it is there: `Z1,,150,`")
            });
        }
    }

    /// What a cell says; nothing of an empty one, and of one that is wrong, which is then reported.
    fn time<T: Time>(&mut self, cell: &csv::Cell<'_>, unit: Option<&str>) -> Option<T> {
        let text = self.text(cell)?;
        if text.is_empty() {
            return None;
        }
        let has_unit = !text.ends_with(|last: char| last.is_ascii_digit());
        let parsed = match unit {
            Some(unit) if !has_unit => format!("{text}{unit}").parse::<T>(),
            _ => text.parse(),
        };
        let span = cell.span.clone();
        match parsed {
            Err(error) => {
                let help = match &error {
                    TimeError::NoUnit { .. } => {
                        "write the unit of all numbers into the first cell of the header row".to_owned()
                    }
                    TimeError::NotATime { .. } => "leave a cell empty to leave the link to the other rules".to_owned(),
                    error => error.help(),
                };
                let alike = match &error {
                    TimeError::UnknownUnit { unit, .. } => unit,
                    TimeError::NotATime { .. } => text,
                    TimeError::NoUnit { .. } => "no unit",
                    TimeError::Negative => "negative",
                    TimeError::TooFine { .. } => "too fine",
                    TimeError::TooLong { .. } => "too long",
                };
                self.find(alike, span, error.to_string(), |finding| finding.help(help));
                None
            }
            Ok(time) if time > T::MAX => {
                self.find("absurd", span, format!("{} of {time} is absurd", T::WHAT), |finding| {
                    finding.label(format!("more than {}", T::MAX)).help(format!(
                        "a link takes at most {} one way, {} there and back",
                        Delay::MAX,
                        Rtt::MAX
                    ))
                });
                None
            }
            Ok(time) if time.one_way().is_none() => {
                self.find("half", span, format!("half of {time} is not a whole nanosecond"), |finding| {
                    finding.help("an rtt is half for each direction, and the resolution of a delay is 1ns")
                });
                None
            }
            Ok(time) => Some(time),
        }
    }

    /// Reports nodes that are there by themselves and with their zones: they would have two cells for one link.
    fn overlaps(&mut self) -> bool {
        let mut ends: Vec<_> = self.ends.iter().collect();
        ends.sort_by_key(|(_, end)| (end.nodes.start, std::cmp::Reverse(end.nodes.end), end.is_node));
        let before = self.mistakes.count;
        let mut zone: Option<(&String, &End)> = None;
        for (name, end) in ends {
            match zone {
                Some((zone, around)) if end.nodes.start < around.nodes.end => self.mistakes.find("overlap", || {
                    let message = format!("the matrix has the node `{name}` and its zone `{zone}`");
                    Finding::new(self.file.place(end.span.clone()), message)
                        .label("the node")
                        .related(self.file.place(around.span.clone()), "the zone")
                        .help("both could mean one link: leave one of them out, and write the other one as an override")
                }),
                _ => zone = Some((name, end)),
            }
        }
        self.mistakes.count > before
    }
}
