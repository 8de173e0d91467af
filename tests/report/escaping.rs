//! No text of a report is read as HTML, as XML, as Markdown or as CSV.

use netemctl::report::{Document, Format, Zone};
use proptest::prelude::*;

use super::fixture::{document, nine_nodes};

/// A document in which all texts are `text`.
fn hostile<'a>(document: &Document<'a>, text: &str) -> Document<'a> {
    let texts = vec![text.to_owned()];
    let zone = |zone: &Zone| Zone { name: Some(text.to_owned()), nodes: zone.nodes.clone() };
    Document {
        date: text.to_owned(),
        command: text.to_owned(),
        topology: Some(text.to_owned()),
        source: Some(text.to_owned()),
        digest: text.to_owned(),
        overlays: texts.clone(),
        partitions: texts.clone(),
        kernels: vec![(text.to_owned(), text.to_owned())],
        zones: document.zones.iter().map(zone).collect(),
        warnings: texts,
        unjudged: text.to_owned(),
        ..document.clone()
    }
}

/// The tags of a page, without their texts and their attributes' values.
fn tags(markup: &str) -> Vec<String> {
    let mut tags = Vec::new();
    let mut rest = markup;
    while let Some((_, tag)) = rest.split_once('<') {
        let mut is_quoted = false;
        let end = tag.find(|c| {
            is_quoted ^= c == '"';
            c == '>' && !is_quoted
        });
        let (tag, after) = tag.split_at(end.unwrap());
        tags.push(tag.split('"').step_by(2).collect());
        rest = after;
    }
    tags
}

/// The number of column separators in each line of the Markdown, without the indented blocks, which are literal.
fn separators(document: &Document<'_>) -> Vec<usize> {
    let text = document.render(Format::Markdown);
    let lines = text.lines().filter(|line| !line.starts_with("    "));
    lines.map(|line| line.replace("\\\\", "").replace("\\|", "").matches('|').count()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_text_adds_no_element_no_table_cell_and_no_line(
        text in r#"[<>&"'|,;:*_`#~!\\\[\]()@$ a-zé]{1,24}"#,
    ) {
        let report = nine_nodes();
        let plain = document(&report, 3);
        let plain = hostile(&plain, "x");
        let hostile = hostile(&plain, &text);
        for format in [Format::Html, Format::Svg] {
            prop_assert_eq!(tags(&hostile.render(format)), tags(&plain.render(format)));
        }
        prop_assert_eq!(separators(&hostile), separators(&plain));
        let (csv, plain_csv) = (hostile.render(Format::Csv), plain.render(Format::Csv));
        prop_assert_eq!(csv.lines().count(), plain_csv.lines().count());
        let quoted = if text.contains([',', '"']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text };
        let zones = format!(",{quoted},{quoted},192.");
        prop_assert!(csv.lines().skip(1).all(|line| line.contains(&zones)));
    }
}
