//! `verify --report`: the files, and the errors before the measurement.

use std::fs;

use super::harness::{Lab, Sandbox};

#[test]
fn a_report_that_cannot_be_written_is_refused_before_the_measurement() {
    let sandbox = Sandbox::new();
    insta::assert_snapshot!(sandbox.run(["verify", "--report", "wan.pdf"]), @"
    --- stdout
    --- stderr
    error: invalid value 'wan.pdf' for '--report <FILE>': the name must end in .html, .svg, .md, .csv or .json

    For more information, try '--help'.
    --- exit status: 2
    ");
    insta::assert_snapshot!(sandbox.run(["verify", "--report", "wan.csv", "--report", "no-such/wan.html"]), @"
    --- stdout
    --- stderr
    error: cannot write no-such/wan.html: no such folder
    hint: choose a file in a folder that you can write to
    --- exit status: 2
    ");
    fs::create_dir(sandbox.path().join("wan.md")).unwrap();
    let folder = sandbox.run(["verify", "--report", "wan.md"]).ended(2);
    assert!(folder.stderr.contains("cannot write wan.md: it is a folder"), "{folder}");
    assert!(!sandbox.path().join("wan.csv").exists());
}

#[test]
fn verify_writes_a_report_in_each_format() {
    let lab = Lab::up("uniform-3-rtt0");
    let files = ["<b>.html", "r.svg", "r.md", "r.csv", "r.json"];
    let options = files.iter().flat_map(|file| ["--report", *file]);
    let command: Vec<&str> =
        ["verify", "--json", "--count", "2", "--tolerance", "100"].into_iter().chain(options).collect();
    let answer = lab.sandbox.run_words(&command).ended(0);
    let [html, svg, markdown, csv, json] = files.map(|file| fs::read_to_string(lab.sandbox.path().join(file)).unwrap());
    assert!(
        html.contains("verify --json --count 2 --tolerance 100 --report '&lt;b&gt;.html' --report r.svg"),
        "{html}"
    );
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    assert!(html.contains(&format!("{} (n[1-3])", kernel.trim())), "{html}");
    assert!(svg.starts_with("<svg ") && markdown.starts_with("# Measured network"), "{svg}\n{markdown}");
    assert!(csv.lines().count() > 6, "a header, and a line for each pair and address\n{csv}");
    assert_eq!(serde_json::from_str::<serde_json::Value>(&json).unwrap(), answer.json());
    let left = fs::read_dir(lab.sandbox.path())
        .unwrap()
        .filter(|file| file.as_ref().unwrap().file_name().to_string_lossy().starts_with(".netemctl"));
    assert_eq!(left.count(), 0, "no file beside a report is left");
}
