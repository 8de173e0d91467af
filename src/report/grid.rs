//! A heat map: its rows and columns, and the text and colour of each cell.

use std::collections::HashMap;

use super::{
    Document, Zone,
    colour::Rgb,
    figures::{allowed_ns, ms, range, signed_ms, wanted, wanted_ms},
};
use crate::{
    probe::{Pair, Verdict, percentile},
    topology::{NodeName, hostlist},
};

/// The quantities of the heat maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Quantity {
    Wanted,
    Measured,
    Error,
}

impl Quantity {
    pub(super) const ALL: [Self; 3] = [Self::Wanted, Self::Measured, Self::Error];

    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Wanted => "Wanted RTT in ms",
            Self::Measured => "Measured RTT in ms",
            Self::Error => "Error in ms",
        }
    }
}

/// A row or a column: one node, the nodes of a zone, or the nodes of several zones.
#[derive(Clone, Debug)]
pub(super) struct Axis {
    pub(super) label: String,
    /// The zone of a single node.
    pub(super) zone: Option<String>,
    pub(super) nodes: Vec<NodeName>,
}

impl Axis {
    /// One axis for each node. With more than `most` nodes, one for each zone; with more than `most` zones, neighbours
    /// share an axis. Without zones, neighbouring nodes share an axis.
    pub(super) fn all(zones: &[Zone], most: usize) -> Vec<Self> {
        let single: Vec<Self> = zones.iter().flat_map(Self::of_nodes).collect();
        if single.len() <= most {
            return single;
        }
        let groups = if zones.iter().any(|zone| zone.name.is_some()) {
            zones.iter().map(Self::of_zone).collect()
        } else {
            single
        };
        let shared = |axes: &[Self]| Self {
            label: hostlist::fold(axes.iter().map(|axis| &axis.label)),
            zone: None,
            nodes: axes.iter().flat_map(|axis| axis.nodes.iter().cloned()).collect(),
        };
        groups.chunks(groups.len().div_ceil(most).max(1)).map(shared).collect()
    }

    /// One axis for each node of a zone.
    pub(super) fn of_nodes(zone: &Zone) -> Vec<Self> {
        let axis =
            |node: &NodeName| Self { label: node.to_string(), zone: zone.name.clone(), nodes: vec![node.clone()] };
        zone.nodes.iter().map(axis).collect()
    }

    /// One axis for each node of this axis.
    pub(super) fn split(&self) -> Vec<Self> {
        Self::of_nodes(&Zone { name: self.zone.clone(), nodes: self.nodes.clone() })
    }

    fn of_zone(zone: &Zone) -> Self {
        let label = zone.name.clone().unwrap_or_else(|| hostlist::fold(&zone.nodes));
        Self { label, zone: None, nodes: zone.nodes.clone() }
    }
}

/// The zones along an axis: each with the number of its rows or columns, in their order. Empty: an axis is no node.
pub(super) fn zones_along(axes: &[Axis]) -> Vec<(&str, usize)> {
    if axes.iter().all(|axis| axis.zone.is_none()) {
        return Vec::new();
    }
    let runs = axes.chunk_by(|one, other| one.zone == other.zone);
    runs.map(|run| (run[0].zone.as_deref().unwrap_or_default(), run.len())).collect()
}

/// True if the position is the first of a zone.
pub(super) fn begins_zone(axes: &[Axis], position: usize) -> bool {
    position > 0 && axes[position].zone != axes[position - 1].zone
}

/// The background of a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fill {
    /// A cell without pairs: a node and itself, or nodes that were not measured.
    Blank,
    /// Requests or answers are expected to be cut.
    Hatched,
    /// No value.
    Plain,
    Coloured(Rgb),
}

/// A cell as it is drawn.
#[derive(Clone, Debug)]
pub(super) struct Cell {
    pub(super) text: String,
    pub(super) fill: Fill,
    /// True if a pair is wrong.
    pub(super) is_wrong: bool,
    /// More about the cell; `None`: the text has everything.
    pub(super) tip: Option<String>,
}

/// The pairs of each row and column, the worst pair first.
pub(super) struct Grid<'a> {
    pub(super) rows: Vec<Axis>,
    pub(super) columns: Vec<Axis>,
    cells: Vec<Vec<&'a Pair>>,
    /// The RTT of the brightest colour, in nanoseconds.
    pub(super) scale_ns: u64,
}

impl<'a> Grid<'a> {
    pub(super) fn new(rows: Vec<Axis>, columns: Vec<Axis>, document: &Document<'a>) -> Self {
        let positions = |axes: &[Axis]| -> HashMap<NodeName, usize> {
            let numbered = axes.iter().enumerate();
            numbered.flat_map(|(at, axis)| axis.nodes.iter().map(move |node| (node.clone(), at))).collect()
        };
        let (row_of, column_of) = (positions(&rows), positions(&columns));
        let mut cells = vec![Vec::new(); rows.len() * columns.len()];
        let pairs = &document.report.pairs;
        for pair in pairs {
            if let (Some(row), Some(column)) = (row_of.get(&pair.from), column_of.get(&pair.to)) {
                cells[row * columns.len() + column].push(pair);
            }
        }
        let greatest_wanted = pairs.iter().filter_map(|pair| pair.wanted).max();
        let greatest = greatest_wanted.filter(|rtt| rtt.as_nanos() > 0);
        let greatest = greatest.or_else(|| pairs.iter().filter_map(|pair| pair.worst()?.median).max());
        Self { rows, columns, cells, scale_ns: greatest.map_or(1, |rtt| rtt.as_nanos().max(1)) }
    }

    /// The heat map of all nodes with at most `most` rows.
    pub(super) fn of_all(document: &Document<'a>, most: usize) -> Self {
        let axes = Axis::all(&document.zones, most);
        Self::new(axes.clone(), axes, document)
    }

    /// True if a row has more than one node.
    pub(super) fn is_grouped(&self) -> bool {
        self.rows.iter().any(|axis| axis.nodes.len() > 1)
    }

    /// The length of the longest label.
    pub(super) fn longest_label(&self) -> usize {
        self.rows.iter().chain(&self.columns).map(|axis| axis.label.chars().count()).max().unwrap_or_default()
    }

    /// The rows of cells.
    pub(super) fn drawn(&self, quantity: Quantity) -> Vec<Vec<Cell>> {
        let row = |cells: &[Vec<&Pair>]| cells.iter().map(|pairs| self.cell(quantity, pairs)).collect();
        self.cells.chunks(self.columns.len().max(1)).map(row).collect()
    }

    /// The texts at both ends of a quantity's colour scale.
    pub(super) fn ends(&self, quantity: Quantity) -> (String, String) {
        match quantity {
            Quantity::Wanted => ("0".to_owned(), format!("{} ms", ms(self.scale_ns))),
            Quantity::Measured => ("0".to_owned(), format!("{} ms and more", ms(self.scale_ns))),
            Quantity::Error => ("\u{2212}allowed".to_owned(), "+allowed error".to_owned()),
        }
    }

    fn cell(&self, quantity: Quantity, pairs: &[&Pair]) -> Cell {
        let Some(worst) = pairs.first() else {
            return Cell { text: String::new(), fill: Fill::Blank, is_wrong: false, tip: None };
        };
        let is_measured = quantity != Quantity::Wanted;
        let is_wrong = is_measured && worst.verdict > Verdict::Busy;
        let is_unjudged = is_measured && !is_wrong && worst.verdict != Verdict::Right;
        let cut = pairs.iter().filter(|pair| pair.wanted.is_none()).count();
        let (mut text, fill) = if cut == pairs.len() {
            let leaks = is_measured && worst.verdict == Verdict::Leaks;
            let arrive = pairs.iter().any(|pair| pair.arrives);
            let text = if leaks {
                "leak"
            } else if arrive {
                "heard"
            } else {
                "cut"
            };
            (text.to_owned(), Fill::Hatched)
        } else {
            match quantity {
                Quantity::Wanted => self.wanted(pairs),
                Quantity::Measured => self.measured(pairs),
                Quantity::Error => pairs.iter().find_map(|pair| error(pair)),
            }
            .unwrap_or_else(|| ("none".to_owned(), Fill::Plain))
        };
        if cut > 0 && cut < pairs.len() {
            text.push('*');
        }
        if is_wrong || is_unjudged {
            text.push(if is_wrong { '!' } else { '?' });
        }
        let tip = if pairs.len() > 1 {
            Some(about_group(pairs, cut))
        } else {
            (is_wrong || is_unjudged).then(|| about(worst))
        };
        Cell { text, fill, is_wrong, tip }
    }

    fn wanted(&self, pairs: &[&Pair]) -> Option<(String, Fill)> {
        let wanted = || pairs.iter().filter_map(|pair| pair.wanted);
        let text = range(wanted(), wanted_ms)?;
        Some((text, self.magnitude(wanted().max()?.as_nanos())))
    }

    /// The median of the medians.
    fn measured(&self, pairs: &[&Pair]) -> Option<(String, Fill)> {
        let median = percentile(&medians(pairs), 50)?;
        Some((ms(median), self.magnitude(median)))
    }

    fn magnitude(&self, nanos: u64) -> Fill {
        Fill::Coloured(Rgb::of_magnitude(nanos as f64 / self.scale_ns as f64))
    }
}

/// The error of a pair. The colour is the error as a share of the allowed error.
fn error(pair: &Pair) -> Option<(String, Fill)> {
    let measured = pair.worst()?;
    let error = measured.error_ns?;
    let share = match allowed_ns(measured, error)? {
        0 => error.signum() as f64,
        allowed => error as f64 / allowed as f64,
    };
    Some((signed_ms(error), Fill::Coloured(Rgb::of_error(share.clamp(-1.0, 1.0)))))
}

/// The sorted medians of pairs, in nanoseconds.
fn medians(pairs: &[&Pair]) -> Vec<u64> {
    let mut medians: Vec<u64> = pairs.iter().filter_map(|pair| Some(pair.worst()?.median?.as_nanos())).collect();
    medians.sort_unstable();
    medians
}

fn about(pair: &Pair) -> String {
    let measured = pair.worst().and_then(|measured| measured.median);
    let measured =
        measured.map_or_else(|| "no answer".to_owned(), |median| format!("measured {} ms", ms(median.as_nanos())));
    let one_way = pair.worst().and_then(|measured| measured.one_way_error_ns);
    let one_way = one_way.map_or(String::new(), |error| format!(", one-way error {} ms", signed_ms(error)));
    format!("{} to {}: {}; wanted {}, {measured}{one_way}", pair.from, pair.to, pair.verdict, wanted(pair))
}

fn about_group(pairs: &[&Pair], cut: usize) -> String {
    let wrong = pairs.iter().filter(|pair| pair.verdict > Verdict::Busy).count();
    let unjudged = pairs.iter().filter(|pair| pair.verdict != Verdict::Right).count() - wrong;
    let numbers = [(wrong, "wrong"), (unjudged, "not judged"), (cut, "cut")];
    let numbers = numbers.iter().filter(|(number, _)| *number > 0);
    let numbers = numbers.fold(String::new(), |text, (number, word)| format!("{text}, {number} {word}"));
    let medians = range(medians(pairs).into_iter(), ms).map_or(String::new(), |range| format!("; medians {range} ms"));
    format!("{} pairs{numbers}{medians}", pairs.len())
}
