//! The page in headless Chromium: no request, no error on the console, and columns that line up.

use std::{fs, time::Duration};

use assert_cmd::Command;
use netemctl::report::{Document, Format};
use serde_json::Value;

use super::fixture::{document, measured, nine_nodes};

/// Opens the page in frames of several widths, and writes what it finds into the document.
const WRAPPER: &str = r#"<!doctype html><meta charset="utf-8"><body><script>
const page = PAGE;
const near = (a, b) => Math.abs(a - b) < 1;
function look(frame) {
  const inner = frame.contentDocument;
  const width = frame.contentWindow.innerWidth;
  const crooked = [];
  for (const table of inner.querySelectorAll("table")) {
    const rows = [...table.rows].filter(row => [...row.cells].every(cell => cell.colSpan == 1));
    const edges = row => [...row.cells].map(cell => cell.getBoundingClientRect());
    const first = edges(rows[0]);
    for (const row of rows) {
      const own = edges(row);
      const same = own.length == first.length && own.every((cell, at) => near(cell.left, first[at].left) && near(cell.right, first[at].right));
      if (!same) crooked.push(row.textContent);
    }
    for (const cell of table.querySelectorAll("td")) {
      if (cell.scrollWidth > cell.clientWidth + 1) crooked.push("text wider than its cell: " + cell.textContent);
    }
  }
  return {
    width,
    tables: inner.querySelectorAll("table").length,
    crooked,
    overflow: inner.documentElement.scrollWidth - inner.documentElement.clientWidth,
    smallest: Math.min(...[...inner.querySelectorAll("td,th,p,dd")].map(node => parseFloat(getComputedStyle(node).fontSize))),
    requests: frame.contentWindow.performance.getEntriesByType("resource").map(entry => entry.name),
  };
}
const frames = [360, 1600].map(width => {
  const frame = document.createElement("iframe");
  frame.style = `width:${width}px;height:900px;border:0`;
  frame.srcdoc = page;
  document.body.append(frame);
  return new Promise(done => frame.onload = () => done(look(frame)));
});
Promise.all(frames).then(found => {
  const result = document.createElement("pre");
  result.id = "found";
  result.textContent = JSON.stringify(found);
  document.body.replaceChildren(result);
});
</script>"#;

/// What the wrapper found, for each width.
fn opened(document: &Document<'_>) -> Vec<Value> {
    let folder = tempfile::tempdir().unwrap();
    let page = serde_json::to_string(&document.render(Format::Html)).unwrap().replace("</", "<\\/");
    let file = folder.path().join("wrapper.html");
    fs::write(&file, WRAPPER.replacen("PAGE", &page, 1)).unwrap();
    let mut chromium = Command::new("chromium");
    // Chromium refuses to run as root with its sandbox. It opens only this page.
    chromium.args(["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr"]);
    chromium.args(["--host-resolver-rules=MAP * ~NOTFOUND", "--virtual-time-budget=10000", "--dump-dom"]);
    chromium.arg(format!("--user-data-dir={}", folder.path().join("profile").display()));
    chromium.arg(format!("file://{}", file.display())).timeout(Duration::from_secs(100));
    let output = chromium.output().expect("chromium runs; scripts/prepare installs it");
    let (dom, log) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let messages: Vec<&str> = log.lines().filter(|line| line.contains(":CONSOLE")).collect();
    assert!(messages.is_empty(), "messages on the console: {messages:#?}");
    let found = dom.split_once("<pre id=\"found\">").and_then(|(_, rest)| rest.split_once("</pre>"));
    let (found, _) = found.unwrap_or_else(|| panic!("the page did not open:\n{log}\n{dom:.2000}"));
    serde_json::from_str(&found.replace("&amp;", "&").replace("&lt;", "<").replace("&gt;", ">")).unwrap()
}

#[test]
fn the_page_sends_no_request_and_its_columns_line_up_on_a_phone_and_on_a_wide_screen() {
    for (nodes, zone_size) in [(9, 3), (60, 20)] {
        let report = if nodes == 9 { nine_nodes() } else { measured(nodes, zone_size) };
        let found = opened(&document(&report, zone_size));
        assert_eq!(found.len(), 2);
        for (page, width) in found.iter().zip([360, 1600]) {
            assert_eq!(page["width"], width);
            assert!(page["tables"].as_u64() >= Some(5), "{page}");
            assert_eq!(page["crooked"], Value::Array(Vec::new()), "{nodes} nodes, {width} px");
            assert_eq!(page["overflow"], 0, "the page itself does not scroll sideways at {width} px");
            assert_eq!(page["requests"], Value::Array(Vec::new()));
            assert!(page["smallest"].as_f64() >= Some(10.0), "{page}");
        }
    }
}
