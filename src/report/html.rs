//! The report as one page, without scripts and without links to other files.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::{
    Document,
    colour::points,
    figures::{self, Distribution, HEADER},
    grid::{Axis, Cell, Fill, Grid, Quantity, begins_zone, zones_along},
};
use crate::probe::Verdict;

/// The largest number of rows of a heat map.
const MAX_ROWS: usize = 45;

/// The largest number of cells of single nodes. More cells would make the page slow.
const MAX_CELLS: usize = 20_000;

const STYLE: &str = include_str!("style.css");

/// Forbids every request.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'";

pub(super) fn page(document: &Document<'_>) -> String {
    let grid = Grid::of_all(document, MAX_ROWS);
    let markup = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width";
                meta http-equiv="Content-Security-Policy" content=(POLICY);
                title { (document.title()) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                h1 { (document.title()) }
                p.result.bad[!document.report.is_right()] { (document.result()) }
                dl { @for (label, fact) in document.facts().into_iter().skip(1) { dt { (label) } dd { (fact) } } }
                p.soft { "Repeat the measurement:" }
                pre { (document.command) }
                h2 { "Pairs" }
                (how_to_read(&grid))
                div.maps { @for figure in maps(&grid, &Quantity::ALL) { (figure) } }
                (single_nodes(document, &grid))
                (distribution(document))
                h2 { "Largest errors" }
                (pairs(document))
                @if !document.warnings.is_empty() {
                    h2 { "Warnings" }
                    ul { @for warning in &document.warnings { li { (warning) } } }
                }
                @if !document.unjudged.is_empty() {
                    h2 { "Not judged" }
                    pre { (document.unjudged.trim()) }
                }
                @if let Some(source) = &document.source {
                    h2 { "Topology file" }
                    details { summary { "Show" } pre { (source) } }
                }
            }
        }
    };
    markup.into_string() + "\n"
}

fn how_to_read(grid: &Grid<'_>) -> Markup {
    html! {
        p.soft {
            "The node of the row sends echo requests, and the node of the column answers. "
            @if grid.is_grouped() {
                "A cell has all pairs of two groups of nodes: the range of wanted RTTs, the median of measured RTTs, the \
                 error of the worst pair. "
            }
            "! wrong, ? not judged, * some of the pairs are cut. Hatched: cut. Blank: not measured. Errors have their full colour at the largest \
             allowed error."
        }
    }
}

/// A heat map for each quantity. All have columns of the same width.
fn maps(grid: &Grid<'_>, quantities: &[Quantity]) -> Vec<Markup> {
    let drawn: Vec<_> = quantities.iter().map(|quantity| (*quantity, grid.drawn(*quantity))).collect();
    let texts = drawn.iter().flat_map(|(_, rows)| rows.iter().flatten().map(|cell| cell.text.chars().count()));
    let chars = texts.max().unwrap_or_default();
    let style = format!("--columns:{};--chars:{chars}", grid.columns.len());
    let figure = |(quantity, rows): (Quantity, Vec<Vec<Cell>>)| {
        html! {
            figure {
                figcaption { b { (quantity.title()) } (legend(grid, quantity)) }
                div.scroll tabindex="0" role="region" aria-label=(quantity.title()) {
                    table.map.tall[grid.longest_label() > 6] style=(style) {
                        thead { (header(&grid.columns)) }
                        tbody {
                            @for (at, cells) in rows.iter().enumerate() {
                                tr.top[begins_zone(&grid.rows, at)] {
                                    th scope="row" { (grid.rows[at].label) }
                                    @for (at, cell) in cells.iter().enumerate() {
                                        (drawn_cell(cell, begins_zone(&grid.columns, at)))
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
    };
    drawn.into_iter().map(figure).collect()
}

fn header(columns: &[Axis]) -> Markup {
    let zones = zones_along(columns);
    html! {
        @if !zones.is_empty() {
            tr { td {} @for (at, (zone, nodes)) in zones.iter().enumerate() {
                th.zone.first[at > 0] colspan=(nodes) scope="colgroup" { (zone) }
            } }
        }
        tr { td {} @for (at, axis) in columns.iter().enumerate() {
            th.first[begins_zone(columns, at)] scope="col" { span.node { (axis.label) } }
        } }
    }
}

fn drawn_cell(cell: &Cell, is_first: bool) -> Markup {
    let style = match cell.fill {
        Fill::Coloured(colour) => Some(format!("background:{colour};color:{}", colour.ink())),
        _ => None,
    };
    let classes = [
        (is_first, "first"),
        (cell.fill == Fill::Hatched, "cut"),
        (cell.fill == Fill::Plain, "none"),
        (cell.is_wrong, "wrong"),
    ];
    let classes: Vec<&str> = classes.into_iter().filter(|(is, _)| *is).map(|(_, class)| class).collect();
    let classes = (!classes.is_empty()).then(|| classes.join(" "));
    html! { td class=[classes] style=[style] title=[&cell.tip] { (cell.text) } }
}

fn legend(grid: &Grid<'_>, quantity: Quantity) -> Markup {
    let is_error = quantity == Quantity::Error;
    let points: Vec<String> = points(is_error).iter().map(ToString::to_string).collect();
    let (low, high) = grid.ends(quantity);
    html! {
        (low) span.scale style={ "background:linear-gradient(90deg," (points.join(",")) ")" } {} (high)
    }
}

/// The errors of single nodes, folded; empty if the heat maps have them or if there are too many.
fn single_nodes(document: &Document<'_>, grid: &Grid<'_>) -> Markup {
    let columns: Vec<Axis> = document.zones.iter().flat_map(Axis::of_nodes).collect();
    html! {
        @if grid.is_grouped() && columns.len() * columns.len() <= MAX_CELLS {
            @for axis in &grid.rows {
                details {
                    summary { "Errors of the nodes of " (axis.label) }
                    (maps(&Grid::new(axis.split(), columns.clone(), document), &[Quantity::Error])[0])
                }
            }
        }
    }
}

fn distribution(document: &Document<'_>) -> Markup {
    let distribution = Distribution::of(&document.report.pairs);
    html! {
        @if let Some(Distribution { summary, bins }) = distribution {
            h2 { "Distribution of errors" }
            p { (summary) }
            @let most = bins.iter().map(|(_, count)| *count).max().unwrap_or(1).max(1);
            table.bars { @for (label, count) in bins {
                tr {
                    th scope="row" { (label) " ms" }
                    td { i style=(format!("width:{:.1}%", 85.0 * count as f64 / most as f64)) {} (figures::grouped(count)) }
                }
            } }
        }
    }
}

fn pairs(document: &Document<'_>) -> Markup {
    let rows = figures::rows(document);
    html! {
        p.soft { (rows.len()) " of " (figures::grouped(document.report.pairs.len())) " pairs, the worst first. Times in ms." }
        div.scroll tabindex="0" role="region" aria-label="Largest errors" {
            table.list {
                thead { tr { @for (at, title) in HEADER.iter().enumerate() {
                    th.number[at >= 4] scope="col" { (title) }
                } } }
                tbody { @for (verdict, row) in rows {
                    tr { @for (at, text) in row.iter().enumerate() {
                        td.number[at >= 4].bad[at == 3 && verdict > Verdict::Busy] { (text) }
                    } }
                } }
            }
        }
    }
}
