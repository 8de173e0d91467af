//! Draws tables without ruling lines.
//!
//! People can read their columns, and `awk` can split them.

use std::io;

use comfy_table::{Table, presets};

use super::{
    escape::{BOLD, escaped},
    is_styled,
};

/// A table with a header for stdout.
///
/// An empty cell has a dash, so `awk` counts the columns. If stdout has colours, the header begins with [`BOLD`].
pub(in crate::cli) fn table(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.force_no_tty();
    table.set_header(header);
    let shown = |cell: String| if cell.is_empty() { "-".to_owned() } else { escaped(&cell) };
    table.add_rows(rows.into_iter().map(|row| row.into_iter().map(shown)));
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let text: String = table.to_string().lines().flat_map(|line| [line.trim_end(), "\n"]).collect();
    if is_styled(&io::stdout()) { format!("{BOLD}{text}") } else { text }
}
