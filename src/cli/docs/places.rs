//! Tests that every link in a document has a target, and that every path of this project in a document exists.

use std::path::{Path, PathBuf};

use super::{
    blocks::documents,
    prose::{prose, spans},
};

fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The anchor that GitHub makes for a heading.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().to_lowercase();
    let kept = kept.chars().filter(|letter| letter.is_alphanumeric() || matches!(letter, ' ' | '-' | '_'));
    kept.map(|letter| if letter == ' ' { '-' } else { letter }).collect()
}

/// The targets of the links in a text: `[text](target)`.
fn targets(text: &str) -> impl Iterator<Item = &str> {
    text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target)
}

#[test]
fn every_link_of_a_document_has_a_target() {
    let documents = documents();
    let mut dead = Vec::new();
    for document in &documents {
        let folder = Path::new(&document.0).parent().unwrap_or_else(|| Path::new(""));
        for (line, text) in prose(document) {
            for target in targets(&text).filter(|target| !target.contains("://")) {
                let (path, name) = target.split_once('#').unwrap_or((target, ""));
                let path = if path.is_empty() { PathBuf::from(&document.0) } else { folder.join(path) };
                let has_heading = || {
                    let linked = project().join(&path).canonicalize().ok();
                    let of = documents.iter().find(|(name, _)| project().join(name).canonicalize().ok() == linked);
                    of.is_some_and(|document| {
                        prose(document)
                            .iter()
                            .any(|(_, text)| text.starts_with('#') && anchor(text.trim_start_matches('#')) == name)
                    })
                };
                if !project().join(&path).exists() || !(name.is_empty() || has_heading()) {
                    dead.push(format!("{}:{line}: {target}", document.0));
                }
            }
        }
    }
    assert!(dead.is_empty(), "{}", dead.join("\n"));
}

#[test]
fn every_path_that_a_document_names_exists() {
    let folders = ["src/", "tests/", "scripts/", "docs/", "topologies/", "packaging/", "fuzz/"];
    let mut missing = Vec::new();
    for document in documents() {
        for (line, span) in spans(&document) {
            let word = span.split(' ').next().unwrap_or_default();
            let is_path = folders.iter().any(|folder| word.starts_with(folder)) && !word.contains(['{', '*']);
            if is_path && !project().join(word).exists() {
                missing.push(format!("{}:{line}: {word}", document.0));
            }
        }
    }
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}
