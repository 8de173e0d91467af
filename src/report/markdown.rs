//! The report as tables in GitHub's Markdown.

use super::{
    Document,
    figures::{self, Distribution, HEADER},
    grid::{Grid, Quantity},
};

/// The largest number of columns of a matrix.
const MAX_COLUMNS: usize = 16;

pub(super) fn page(document: &Document<'_>) -> String {
    let mut text = format!("# {}\n\n", escaped(&document.title()));
    let facts = document.facts().into_iter().map(|(label, fact)| vec![label.to_owned(), fact]);
    text += &table(&["", ""], facts);
    text += &format!("\n{}", block(&document.command));
    let grid = Grid::of_all(document, MAX_COLUMNS);
    for quantity in Quantity::ALL {
        text += &format!("\n## {}\n\n{}", quantity.title(), matrix(&grid, quantity));
    }
    text += "\nRows send, columns answer. `!` wrong, `?` not judged, `*` some of the pairs are cut.\n";
    if let Some(Distribution { summary, bins }) = Distribution::of(&document.report.pairs) {
        let bins = bins.into_iter().map(|(label, count)| vec![label, figures::grouped(count)]);
        text += &format!(
            "\n## Distribution of errors\n\n{}\n\n{}",
            escaped(&summary),
            table(&["Error in ms", "Pairs"], bins)
        );
    }
    let rows = figures::rows(document).into_iter().map(|(_, row)| row.to_vec());
    text += &format!("\n## Largest errors\n\nTimes in ms.\n\n{}", table(&HEADER, rows));
    if !document.warnings.is_empty() {
        text += "\n## Warnings\n\n";
        for warning in &document.warnings {
            text += &format!("- {}\n", escaped(warning));
        }
    }
    if !document.unjudged.is_empty() {
        text += &format!("\n## Not judged\n\n{}", block(document.unjudged.trim()));
    }
    text
}

fn matrix(grid: &Grid<'_>, quantity: Quantity) -> String {
    let header: Vec<&str> = std::iter::once("").chain(grid.columns.iter().map(|axis| axis.label.as_str())).collect();
    let rows = std::iter::zip(&grid.rows, grid.drawn(quantity)).map(|(axis, cells)| {
        std::iter::once(axis.label.clone()).chain(cells.into_iter().map(|cell| cell.text)).collect()
    });
    table(&header, rows)
}

fn table(header: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let cells: Vec<String> = cells.map(escaped).collect();
        format!("| {} |\n", cells.join(" | "))
    };
    let rule = "|---".repeat(header.len()) + "|\n";
    let rows: String = rows.map(|row| line(&mut row.iter().map(String::as_str))).collect();
    line(&mut header.iter().copied()) + &rule + &rows
}

/// A block whose text Markdown does not interpret: indented lines.
fn block(text: &str) -> String {
    text.lines().fold(String::new(), |block, line| format!("{block}    {line}\n"))
}

/// A text on one line, without characters that Markdown interprets.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' => escaped += "<br>",
            '\\' | '`' | '*' | '_' | '[' | ']' | '<' | '>' | '|' | '~' | '&' | '#' | '$' | '@' => {
                escaped.extend(['\\', c]);
            }
            c => escaped.push(c),
        }
    }
    escaped
}
