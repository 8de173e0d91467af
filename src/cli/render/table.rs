//! Tables without lines: columns that a person reads and `awk` can split.

use comfy_table::{Attribute, Cell, Table, presets};

/// A table with a header.
pub(in crate::cli) fn table(styled: bool, header: &[&str], rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    if styled {
        table.enforce_styling();
    } else {
        table.force_no_tty();
    }
    table.set_header(header.iter().map(|title| Cell::new(title).add_attribute(Attribute::Bold)));
    table.add_rows(rows);
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.to_string().lines().flat_map(|line| [line.trim_end(), "\n"]).collect()
}
