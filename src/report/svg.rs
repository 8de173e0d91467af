//! The heat maps and their legends as one picture.

use maud::{Markup, PreEscaped, html};

use super::{
    Document,
    colour::points,
    grid::{Axis, Cell, Fill, Grid, Quantity, begins_zone, zones_along},
};

/// The largest number of rows of a heat map.
const MAX_ROWS: usize = 45;

/// The largest number of rows of heat maps that are side by side.
const SIDE_BY_SIDE: usize = 12;

/// The largest number of characters of a label. Longer labels are cut off.
const MAX_LABEL: usize = 24;

/// Sizes in pixels.
const ROW: usize = 24;
const CHARACTER: usize = 7;
const ZONE_GAP: usize = 4;
const MARGIN: usize = 16;
const TITLE: usize = 26;
const LEGEND: usize = 48;

const STYLE: &str = "text{font:11px system-ui,sans-serif;fill:#1b1f24}.title{font-weight:600;font-size:14px}\
    .wrong{font-weight:700}.page{fill:#fff}.line{stroke:#57606a}.hatch{stroke:#c3cbd3}\
    @media(prefers-color-scheme:dark){.page{fill:#14171a}text{fill:#e6e8eb}.line{stroke:#a3acb5}.hatch{stroke:#343b43}}";

/// The sizes of one heat map.
struct Layout {
    /// The distance of the first cell from the left.
    left: usize,
    /// The distance of the first cell from the top.
    top: usize,
    /// The width of a cell.
    width: usize,
    columns: Vec<usize>,
    rows: Vec<usize>,
    is_tall: bool,
}

impl Layout {
    fn of(grid: &Grid<'_>, chars: usize) -> Self {
        let label = grid.longest_label().min(MAX_LABEL);
        let width = (chars * CHARACTER + 6).max(36);
        let is_tall = label * CHARACTER > width;
        let zones = if zones_along(&grid.columns).is_empty() { 0 } else { 18 };
        let header = if is_tall { label * CHARACTER + 8 } else { 18 };
        let positions = |axes: &[Axis], size: usize| -> Vec<usize> {
            let gaps = (0..axes.len()).scan(0, |gaps, at| {
                *gaps += if begins_zone(axes, at) { ZONE_GAP } else { 0 };
                Some(*gaps)
            });
            gaps.enumerate().map(|(at, gaps)| at * size + gaps).collect()
        };
        Self {
            left: label * CHARACTER + 8,
            top: TITLE + zones + header,
            width,
            columns: positions(&grid.columns, width),
            rows: positions(&grid.rows, ROW),
            is_tall,
        }
    }

    fn size(&self) -> (usize, usize) {
        let end = |positions: &[usize], size: usize| positions.last().map_or(0, |last| last + size);
        // A title and a legend need 340 pixels.
        let width = (self.left + end(&self.columns, self.width)).max(340);
        (width, self.top + end(&self.rows, ROW) + LEGEND)
    }
}

pub(super) fn picture(document: &Document<'_>) -> String {
    let grid = Grid::of_all(document, MAX_ROWS);
    let drawn = Quantity::ALL.map(|quantity| (quantity, grid.drawn(quantity)));
    let texts = drawn.iter().flat_map(|(_, rows)| rows.iter().flatten().map(|cell| cell.text.chars().count()));
    let layout = Layout::of(&grid, texts.max().unwrap_or_default());
    let (width, height) = layout.size();
    let (across, down) = if grid.rows.len() <= SIDE_BY_SIDE { (3, 1) } else { (1, 3) };
    let (whole_width, whole_height) = (across * (width + MARGIN) + MARGIN, down * (height + MARGIN) + MARGIN + 44);
    let about = format!(
        "generation {}, digest {:.16}, {}, netemctl {}",
        document.generation, document.digest, document.date, document.version
    );
    let markup = html! {
        svg xmlns="http://www.w3.org/2000/svg" viewBox={ "0 0 " (whole_width) " " (whole_height) } width=(whole_width) height=(whole_height) role="img" {
            title { (document.title()) }
            style { (PreEscaped(STYLE)) }
            defs {
                pattern id="cut" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)" {
                    path.hatch d="M0 0V6" stroke-width="4" {}
                }
                (gradient(Quantity::Wanted)) (gradient(Quantity::Error))
            }
            rect.page width="100%" height="100%" {}
            text.title x=(MARGIN) y="24" { (document.title()) ": " (document.result()) }
            text x=(MARGIN) y="42" { (about) }
            @for (at, (quantity, rows)) in drawn.iter().enumerate() {
                @let (x, y) = if down == 1 { (at * (width + MARGIN), 0) } else { (0, at * (height + MARGIN)) };
                g transform={ "translate(" (x + MARGIN) " " (y + MARGIN + 44) ")" } { (map(&grid, &layout, *quantity, rows)) }
            }
        }
    };
    markup.into_string() + "\n"
}

fn gradient(quantity: Quantity) -> Markup {
    let points = points(quantity == Quantity::Error);
    html! {
        linearGradient id=(gradient_of(quantity)) {
            @for (at, colour) in points.iter().enumerate() {
                stop offset=(format!("{:.3}", at as f64 / (points.len() - 1) as f64)) stop-color=(colour) {}
            }
        }
    }
}

fn gradient_of(quantity: Quantity) -> &'static str {
    if quantity == Quantity::Error { "error" } else { "magnitude" }
}

fn map(grid: &Grid<'_>, layout: &Layout, quantity: Quantity, rows: &[Vec<Cell>]) -> Markup {
    let Layout { left, top, width, is_tall, .. } = *layout;
    let mut first = 0;
    let zones = zones_along(&grid.columns).into_iter().map(|(zone, nodes)| {
        let from = layout.columns[first] + left;
        first += nodes;
        (zone, from, layout.columns[first - 1] + left + width)
    });
    let bottom = layout.size().1 - LEGEND;
    let (low, high) = grid.ends(quantity);
    let low_width = low.chars().count() * CHARACTER;
    html! {
        text.title y="14" { (quantity.title()) }
        @for (zone, from, to) in zones {
            text.title x=(from) y=(TITLE + 11) { (zone) }
            path.line d={ "M" (from) " " (TITLE + 16) "H" (to) } {}
        }
        @for (axis, x) in grid.columns.iter().zip(&layout.columns) {
            @let (x, y) = (left + x + width / 2, top - 6);
            @if is_tall {
                text transform={ "translate(" (x + 4) " " (y) ") rotate(-90)" } { (short(&axis.label)) }
            } @else {
                text x=(x) y=(y) text-anchor="middle" { (short(&axis.label)) }
            }
        }
        @for ((axis, y), cells) in grid.rows.iter().zip(&layout.rows).zip(rows) {
            text x=(left - 6) y=(top + y + 16) text-anchor="end" { (short(&axis.label)) }
            @for (cell, x) in cells.iter().zip(&layout.columns) { (drawn_cell(cell, left + x, top + y, width)) }
        }
        text x=(left) y=(bottom + 22) { (low) }
        rect.line x=(left + low_width + 6) y=(bottom + 12) width="110" height="12" fill={ "url(#" (gradient_of(quantity)) ")" } {}
        text x=(left + low_width + 122) y=(bottom + 22) { (high) }
        @if quantity != Quantity::Wanted {
            text x=(left) y=(bottom + 40) { "! wrong \u{b7} ? not judged \u{b7} * some of the pairs are cut \u{b7} hatched: cut" }
        }
    }
}

fn drawn_cell(cell: &Cell, x: usize, y: usize, width: usize) -> Markup {
    let (fill, ink) = match cell.fill {
        Fill::Blank => return html! {},
        Fill::Hatched => ("url(#cut)".to_owned(), None),
        Fill::Plain => ("none".to_owned(), None),
        Fill::Coloured(colour) => (colour.to_string(), Some(format!("fill:{}", colour.ink()))),
    };
    html! {
        rect x=(x) y=(y) width=(width - 1) height=(ROW - 1) fill=(fill) { @if let Some(tip) = &cell.tip { title { (tip) } } }
        @if cell.is_wrong {
            rect.line x=(x + 2) y=(y + 2) width=(width - 5) height=(ROW - 5) fill="none" stroke-width="2"
                style=[ink.as_ref().map(|ink| ink.replace("fill", "stroke"))] {}
        }
        text.wrong[cell.is_wrong] x=(x + width / 2) y=(y + 16) text-anchor="middle" style=[&ink] { (cell.text) }
    }
}

/// The label, cut off if it is too long.
fn short(label: &str) -> String {
    match label.char_indices().nth(MAX_LABEL) {
        Some(_) => label.chars().take(MAX_LABEL - 1).chain(['…']).collect(),
        None => label.to_owned(),
    }
}
