//! Tables without lines: columns that a person reads and `awk` can split.

use comfy_table::{Table, presets};

use super::escape::{BOLD, escaped};

/// A table with a header, which is marked to be bold if the table is `styled`.
pub(in crate::cli) fn table(styled: bool, header: &[&str], rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.force_no_tty();
    table.set_header(header);
    table.add_rows(rows.into_iter().map(|row| row.into_iter().map(|cell| escaped(&cell))));
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let text: String = table.to_string().lines().flat_map(|line| [line.trim_end(), "\n"]).collect();
    if styled { format!("{BOLD}{text}") } else { text }
}
