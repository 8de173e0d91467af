//! What is wrong with a topology file: [`Problem`]s with their places, collected into one [`Rejected`].
//!
//! The passes over a file make `Finding`s, which know bytes; a [`Problem`] is a finding placed in the file's lines.
//! How it looks on a terminal is `render`'s matter. First type to read: [`Rejected`].

use std::{fmt, ops::Range};

use annotate_snippets::normalize_untrusted_str;
use serde::Serialize;

use super::source::{Lines, Source};

/// Why a file was refused: everything that is wrong with it, in the file's order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    source: Source,
    problems: Vec<Problem>,
    /// How many more there are than the ones that are kept.
    omitted: usize,
}

impl Rejected {
    /// More than anyone reads, and little enough to send: a megabyte of nonsense is not worth a megabyte of carets.
    const MAX_PROBLEMS: usize = 1_000;

    /// `findings` is not empty.
    pub(super) fn new(source: Source, mut findings: Vec<Finding>) -> Self {
        findings.sort_by_key(|finding| (finding.span.start, finding.span.end));
        let omitted = findings.len().saturating_sub(Self::MAX_PROBLEMS);
        findings.truncate(Self::MAX_PROBLEMS);
        let lines = Lines::of(&source.text);
        let problems = findings.into_iter().map(|finding| finding.place(&lines, &source.text)).collect();
        Self { source, problems, omitted }
    }

    /// What is wrong, sorted by its place in the file, at least one thing. After a thousand the rest is only counted.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// The file that was refused.
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// The file's name, fit for a terminal.
    pub(super) fn path(&self) -> String {
        normalize_untrusted_str(&self.source.path)
    }

    /// `topology.toml: 3 errors`.
    pub fn summary(&self) -> String {
        let path = self.path();
        match (self.problems.len(), self.omitted) {
            (1, 0) => format!("{path}: 1 error"),
            (shown, 0) => format!("{path}: {shown} errors"),
            (shown, omitted) => format!("{path}: {} errors, the first {shown} of them shown", shown + omitted),
        }
    }
}

/// One line for each problem: `file:line:column: message`.
impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path();
        for (number, Problem { message, line, column, .. }) in self.problems.iter().enumerate() {
            let line_break = if number == 0 { "" } else { "\n" };
            write!(f, "{line_break}{path}:{line}:{column}: {message}")?;
        }
        if self.omitted > 0 {
            write!(f, "\n{}", self.summary())?;
        }
        Ok(())
    }
}

impl std::error::Error for Rejected {}

/// One thing that is wrong with a file, and where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// What is wrong, as one sentence without a full stop.
    pub message: String,
    /// A few words for the place itself; may be empty.
    pub label: String,
    /// The place, in bytes of the file's text.
    pub span: Range<usize>,
    /// The line in which the place begins, counted from 1.
    pub line: usize,
    /// The column at which the place begins, counted from 1 in characters.
    pub column: usize,
    /// What would be right.
    pub help: Option<String>,
    /// Other places that have to do with it.
    pub related: Vec<Related>,
}

/// A second place that explains a [`Problem`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Related {
    /// The place, in bytes of the file's text.
    pub span: Range<usize>,
    /// What is there.
    pub label: String,
}

/// A [`Problem`] in the making, which knows its bytes but not yet its line.
#[derive(Debug)]
pub(super) struct Finding {
    span: Range<usize>,
    message: String,
    label: String,
    help: Option<String>,
    related: Vec<Related>,
}

impl Finding {
    pub(super) fn new(span: Range<usize>, message: impl Into<String>) -> Self {
        Self { span, message: presentable(&message.into()), label: String::new(), help: None, related: Vec::new() }
    }

    pub(super) fn label(mut self, label: impl Into<String>) -> Self {
        self.label = presentable(&label.into());
        self
    }

    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(presentable(&help.into()));
        self
    }

    pub(super) fn related(mut self, span: Range<usize>, label: impl Into<String>) -> Self {
        self.related.push(Related { span, label: presentable(&label.into()) });
        self
    }

    fn place(self, lines: &Lines<'_>, text: &str) -> Problem {
        let span = on_characters(&self.span, text);
        let (line, column) = lines.position(span.start);
        let related = self.related.into_iter();
        let related = related.map(|Related { span, label }| Related { span: on_characters(&span, text), label });
        Problem {
            message: self.message,
            label: self.label,
            span,
            line,
            column,
            help: self.help,
            related: related.collect(),
        }
    }
}

/// Makes a text that quotes the file fit for a terminal: no control characters, and no whole pages.
///
/// Messages end with what they quote, so that it is the quotation that is cut.
fn presentable(text: &str) -> String {
    const SHOWN_CHARS: usize = 320;
    let mut text = normalize_untrusted_str(text);
    if let Some((end, _)) = text.char_indices().nth(SHOWN_CHARS) {
        text.truncate(end);
        text.push('…');
    }
    text
}

/// The span with its ends on characters of the text: a TOML syntax error may point behind the end or into a character.
fn on_characters(span: &Range<usize>, text: &str) -> Range<usize> {
    let start = text.floor_char_boundary(span.start);
    start..text.ceil_char_boundary(span.end.max(start))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rejected(findings: Vec<Finding>) -> Rejected {
        Rejected::new(Source::new("t.toml", "é = 1\nb = 2\n"), findings)
    }

    #[test]
    fn problems_are_in_the_order_of_the_file() {
        let rejected = rejected(vec![Finding::new(7..8, "second"), Finding::new(1..2, "first")]);
        assert_eq!(rejected.to_string(), "t.toml:1:1: first\nt.toml:2:1: second");
        assert_eq!(rejected.summary(), "t.toml: 2 errors");
        assert_eq!(rejected.problems()[0].span, 0..2);
    }

    #[test]
    fn a_span_behind_the_end_is_the_end() {
        assert_eq!(rejected(vec![Finding::new(70..80, "late")]).problems()[0].span, 13..13);
    }

    #[test]
    fn what_is_not_shown_is_counted() {
        let rejected = rejected((0..1_500).map(|_| Finding::new(0..1, "x")).collect());
        assert_eq!(rejected.problems().len(), 1_000);
        assert_eq!(rejected.summary(), "t.toml: 1500 errors, the first 1000 of them shown");
    }
}
