//! Reports of `verify`: golden files, escaping, and the page in a browser.
//!
//! `NETEMCTL_BLESS=1 cargo test --test report` writes the current files into `tests/report/goldens`. Read the difference
//! before you commit it, and look at the page and the picture.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod browser;
mod escaping;
mod fixture;

use std::{env, fs, path::Path};

use netemctl::report::Format;

use fixture::{document, nine_nodes};

#[test]
fn reports_are_the_golden_files() {
    let bless = env::var_os("NETEMCTL_BLESS").is_some();
    let report = nine_nodes();
    let document = document(&report, 3);
    let mut differing = Vec::new();
    for ending in ["html", "svg", "md", "csv"] {
        // An element on each line, so that differences can be read.
        let text = document.render(Format::of_ending(ending).unwrap()).replace("><", ">\n<");
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/report/goldens/nine-nodes.{ending}"));
        if bless {
            fs::write(&golden, &text).unwrap();
        }
        if fs::read_to_string(&golden).unwrap_or_default() != text {
            differing.push(ending);
        }
    }
    assert!(differing.is_empty(), "{differing:?} differ; NETEMCTL_BLESS=1 accepts the present files");
}

#[test]
fn the_json_report_is_the_answer_of_verify() {
    let report = nine_nodes();
    assert_eq!(document(&report, 3).render(Format::Json), "{}\n");
}

#[test]
fn a_report_of_many_nodes_has_a_row_for_each_zone() {
    let report = fixture::measured(60, 20);
    let html = document(&report, 20).render(Format::Html);
    let (maps, folded) = html.split_once("<details>").unwrap();
    assert_eq!(maps.matches("<th scope=\"row\">Z").count(), 3 * 3, "three heat maps of three zones");
    assert_eq!(folded.matches("<th scope=\"row\">n").count(), 60, "the errors of all nodes are folded");
    assert!(document(&report, 20).render(Format::Csv).lines().count() == 60 * 59 + 1);
}
