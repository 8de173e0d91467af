//! Finds the prose of a document, which is outside the blocks, and the code spans in the prose.

use super::blocks::{Document, blocks};

/// The lines of a document that are in no block, each with its number.
pub(super) fn prose(document: &Document) -> Vec<(usize, String)> {
    let blocks = blocks(document);
    let is_in_block =
        |line: usize| blocks.iter().any(|block| (block.line..block.line + block.lines.len()).contains(&line));
    let lines = document.1.lines().zip(1..).filter(|(_, line)| !is_in_block(*line));
    lines.filter(|(text, _)| !text.starts_with("```")).map(|(text, line)| (line, text.to_owned())).collect()
}

/// The code spans of a document, which are between backquotes, each with the number of its first line.
pub(super) fn spans(document: &Document) -> Vec<(usize, String)> {
    let mut spans = Vec::new();
    let mut open: Option<(usize, String)> = None;
    for (line, text) in prose(document) {
        for (number, part) in text.split('`').enumerate() {
            if number > 0 {
                match open.take() {
                    Some(span) => spans.push(span),
                    None => open = Some((line, String::new())),
                }
            }
            if let Some((_, span)) = &mut open {
                if number == 0 {
                    span.push(' ');
                }
                span.push_str(part);
            }
        }
        // A code span cannot continue after its paragraph.
        if text.is_empty() {
            open = None;
        }
    }
    spans
}
