//! Tests that the source code has every message that docs/troubleshooting.md explains, and every item that
//! docs/architecture.md names.

use std::{fs, path::Path};

use super::{
    blocks::documents,
    prose::{prose, spans},
};

/// The source code in a folder and its subfolders, except folders with the name `docs`.
fn code(folder: &Path) -> String {
    let entries = fs::read_dir(folder).expect("the folder can be read").flatten().map(|entry| entry.path());
    let text = |path: &Path| fs::read_to_string(path).expect("the file can be read");
    entries
        .filter(|path| !path.ends_with("docs"))
        .map(|path| if path.is_dir() { code(&path) } else { text(&path) })
        .collect()
}

/// The messages in the first column of a table's row.
fn messages(row: &str) -> impl Iterator<Item = &str> {
    let first = row.strip_prefix("| ").and_then(|row| row.split(" | ").next()).unwrap_or_default();
    first.split('`').skip(1).step_by(2)
}

#[test]
fn the_program_prints_every_message_that_the_troubleshooting_guide_explains() {
    let code = code(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    // A backslash at the end of a line continues the string literal on the next line.
    let code: String = code.split("\\\n").map(str::trim_start).collect();
    let document = documents().into_iter().find(|(name, _)| name == "docs/troubleshooting.md").expect("it exists");
    let rows = prose(&document);
    let explained: Vec<(usize, &str)> =
        rows.iter().flat_map(|(line, row)| messages(row).map(move |message| (*line, message))).collect();
    assert!(explained.len() > 40, "{explained:?}");
    let is_printed = |message: &str| message.split('…').all(|part| code.contains(part.trim()));
    let unknown: Vec<_> = explained.iter().filter(|(_, message)| !is_printed(message)).collect();
    assert!(unknown.is_empty(), "{unknown:#?}");
}

#[test]
fn every_item_that_the_architecture_names_exists() {
    let code = code(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    let document = documents().into_iter().find(|(name, _)| name == "docs/architecture.md").expect("it exists");
    let spans = spans(&document);
    let items: Vec<_> = spans.iter().filter_map(|(line, span)| Some((line, span.rsplit_once("::")?.1))).collect();
    assert!(items.len() > 15, "{items:?}");
    let is_item = |item: &str| {
        let name = item.split(|letter: char| !letter.is_alphanumeric() && letter != '_').next().unwrap_or_default();
        ["fn", "struct", "enum", "trait", "mod", "type", "const"]
            .iter()
            .any(|kind| code.contains(&format!("{kind} {name}")))
    };
    let missing: Vec<_> = items.iter().filter(|(_, item)| !is_item(item)).collect();
    assert!(missing.is_empty(), "{missing:#?}");
}
