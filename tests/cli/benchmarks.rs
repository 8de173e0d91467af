//! `scripts/bench`: its options, and that docs/benchmarks.md is made from the committed results.

use std::path::Path;

use super::harness::{Answer, Sandbox};

fn bench(arguments: &[&str]) -> Answer {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/bench").display().to_string();
    Sandbox::new().run_other_words("bash", &[&[script.as_str()], arguments].concat())
}

#[test]
fn the_help_names_every_part_that_has_results() {
    let help = bench(&["--help"]).ended(0).stdout;
    let results = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/benchmarks/results.json");
    let results: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(results).unwrap()).unwrap();
    let parts = results["parts"].as_object().expect("parts");
    assert!(!parts.is_empty());
    for part in parts.keys() {
        assert!(help.contains(&format!("\n  {part} ")), "{part} is not in the help:\n{help}");
    }
}

#[test]
fn the_page_of_benchmarks_is_that_of_the_committed_results() {
    let _same = bench(&["--check"]).ended(0);
}

#[test]
fn an_unknown_part_or_option_measures_nothing() {
    assert_eq!(bench(&["fleets"]).ended(2).stderr, "unknown part fleets; --help lists them\n");
    assert_eq!(bench(&["--fast"]).ended(2).stderr, "unknown option --fast; --help lists them\n");
}
