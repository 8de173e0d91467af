//! The mistakes in a file: [`Rejected`] for a refused file, [`Warnings`] for an accepted file.
//!
//! The passes over a file create `Finding`s, which have spans in bytes. A [`Problem`] is a finding with its line and
//! column. `render` formats problems for a terminal. First type to read: [`Rejected`].

use std::{collections::BTreeMap, fmt, ops::Range};

use annotate_snippets::normalize_untrusted_str;
use serde::Serialize;

use super::source::{File, Lines, Source, SourceSpan};

/// The mistakes in a refused file and its attached files, sorted by file and span.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected(pub(super) Report);

/// The warnings about an accepted file and its attached files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Warnings(pub(super) Report);

/// The problems of a file and its attached files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Report {
    pub(super) source: Source,
    pub(super) problems: Vec<Problem>,
    /// The number of errors, including those beyond [`Self::MAX_PROBLEMS`].
    errors: usize,
    warnings: usize,
}

impl Report {
    /// The largest number of problems that a report keeps.
    ///
    /// The limit bounds the output for a file that is no topology at all.
    const MAX_PROBLEMS: usize = 1_000;

    fn new(source: Source, mut findings: Vec<Finding>) -> Self {
        let errors = findings.iter().filter(|finding| finding.severity == Severity::Error).count();
        let warnings = findings.len() - errors;
        findings.sort_by(|a, b| a.span.cmp(&b.span));
        findings.truncate(Self::MAX_PROBLEMS);
        let mut files = SourceLines { source: &source, lines: BTreeMap::new() };
        let problems = findings.into_iter().map(|finding| finding.locate(&mut files)).collect();
        Self { source, problems, errors, warnings }
    }

    /// The problems of two reports about the same file.
    fn and(mut self, other: Self) -> Self {
        self.problems.extend(other.problems);
        self.problems.sort_by_key(|problem| SourceSpan { file: problem.file.clone(), span: problem.span.clone() });
        self.errors += other.errors;
        self.warnings += other.warnings;
        self
    }

    /// The counts in one line: `topology.toml: 3 errors, 1 warning`.
    fn summary(&self) -> String {
        let path = normalize_untrusted_str(&self.source.path);
        let count = |count: usize, what: &str| match count {
            0 => None,
            1 => Some(format!("1 {what}")),
            count => Some(format!("{count} {what}s")),
        };
        let counts = [count(self.errors, "error"), count(self.warnings, "warning")];
        let counts = counts.into_iter().flatten().collect::<Vec<_>>().join(", ");
        let shown = self.problems.len();
        let all =
            if shown < self.errors + self.warnings { format!(" (the first {shown} are shown)") } else { String::new() };
        format!("{path}: {counts}{all}")
    }
}

impl Rejected {
    /// The mistakes in a refused file. At least one of `findings` must be an error.
    pub(crate) fn new(source: Source, findings: Vec<Finding>) -> Self {
        Self(Report::new(source, findings))
    }

    /// The mistakes of two passes over the same file.
    #[must_use]
    pub fn and(self, Self(other): Self) -> Self {
        Self(self.0.and(other))
    }

    /// The first 1,000 problems, sorted by file and span. The topology file comes first.
    pub fn problems(&self) -> &[Problem] {
        &self.0.problems
    }

    /// The refused file, with its attached files.
    pub fn source(&self) -> &Source {
        &self.0.source
    }

    /// The counts in one line: `topology.toml: 3 errors`.
    pub fn summary(&self) -> String {
        self.0.summary()
    }
}

impl Warnings {
    /// The warnings about an accepted file. No finding may be an error.
    pub(crate) fn new(source: Source, findings: Vec<Finding>) -> Self {
        Self(Report::new(source, findings))
    }

    /// The warnings of two passes over the same file.
    #[must_use]
    pub fn and(self, Self(other): Self) -> Self {
        Self(self.0.and(other))
    }

    /// The first 1,000 warnings, sorted by file and span.
    pub fn problems(&self) -> &[Problem] {
        &self.0.problems
    }
}

/// One line for each problem: `file:line:column: message`.
impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(report) = self;
        for (number, Problem { severity, message, path, line, column, .. }) in report.problems.iter().enumerate() {
            let line_break = if number == 0 { "" } else { "\n" };
            let warning = if *severity == Severity::Warning { "warning: " } else { "" };
            write!(f, "{line_break}{path}:{line}:{column}: {warning}{message}")?;
        }
        if report.problems.len() < report.errors + report.warnings {
            write!(f, "\n{}", report.summary())?;
        }
        Ok(())
    }
}

impl std::error::Error for Rejected {}

/// The effect of a [`Problem`] on its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// The file is refused.
    Error,
    /// The file is accepted.
    Warning,
}

/// A mistake in a file, with its span.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Problem {
    /// The effect on the file: an error refuses the file.
    pub severity: Severity,
    /// The mistake, as one sentence without a full stop.
    pub message: String,
    /// A short text beside the span; may be empty.
    pub label: String,
    /// The path of the file with the mistake: the topology file, or an attached file.
    pub path: String,
    #[serde(skip)]
    pub(super) file: File,
    /// The span in the file, in bytes.
    pub span: Range<usize>,
    /// The line of the span's start, counted from 1.
    pub line: usize,
    /// The column of the span's start, counted from 1 in characters.
    pub column: usize,
    /// The remedy.
    pub help: Option<String>,
    /// Other spans that explain the mistake.
    pub related: Vec<Related>,
}

/// A second span that explains a [`Problem`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Related {
    /// The path of the file with this span. The [`Problem`] may be in another file.
    pub path: String,
    #[serde(skip)]
    pub(super) file: File,
    /// The span in the file, in bytes.
    pub span: Range<usize>,
    /// The explanation.
    pub label: String,
}

/// A [`Problem`] without its line and column.
#[derive(Clone, Debug)]
pub(crate) struct Finding {
    severity: Severity,
    span: SourceSpan,
    message: String,
    label: String,
    help: Option<String>,
    related: Vec<(SourceSpan, String)>,
}

impl Finding {
    pub(crate) fn new(span: impl Into<SourceSpan>, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            span: span.into(),
            message: presentable(&message.into()),
            label: String::new(),
            help: None,
            related: Vec::new(),
        }
    }

    /// A finding that does not refuse the file.
    pub(crate) fn warning(span: impl Into<SourceSpan>, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::new(span, message) }
    }

    pub(crate) fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }

    pub(crate) fn label(mut self, label: impl Into<String>) -> Self {
        self.label = presentable(&label.into());
        self
    }

    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(presentable(&help.into()));
        self
    }

    /// Adds the number of further findings of the same kind to the end of the message.
    pub(crate) fn and_more(mut self, more: usize) -> Self {
        self.message = format!("{} (and {more} more like this)", self.message);
        self
    }

    pub(crate) fn related(mut self, span: impl Into<SourceSpan>, label: impl Into<String>) -> Self {
        self.related.push((span.into(), presentable(&label.into())));
        self
    }

    fn locate(self, files: &mut SourceLines<'_>) -> Problem {
        let (path, span) = files.locate(&self.span);
        let (line, column) = files.lines(&self.span.file).position(span.start);
        let related = self.related.into_iter().map(|(at, label)| {
            let (path, span) = files.locate(&at);
            Related { path, file: at.file, span, label }
        });
        let related = related.collect();
        let Self { severity, span: SourceSpan { file, .. }, message, label, help, .. } = self;
        Problem { severity, message, label, path, file, span, line, column, help, related }
    }
}

/// The files of a [`Source`] and their lines. Each file is split into lines at most once.
struct SourceLines<'s> {
    source: &'s Source,
    lines: BTreeMap<File, Lines<'s>>,
}

impl<'s> SourceLines<'s> {
    fn lines(&mut self, file: &File) -> &Lines<'s> {
        let source = self.source;
        self.lines.entry(file.clone()).or_insert_with(|| Lines::of(source.text_of(file).unwrap_or_default()))
    }

    /// The path of a span's file, and the span in bytes.
    ///
    /// The path has no control characters. The ends of the span are on character boundaries.
    fn locate(&self, span: &SourceSpan) -> (String, Range<usize>) {
        let text = self.source.text_of(&span.file).unwrap_or_default();
        (normalize_untrusted_str(&self.source.name_of(&span.file)), on_characters(&span.span, text))
    }
}

/// Removes control characters from a text, and cuts off the end of a long text.
///
/// Messages, labels and helps can quote any text of the file.
fn presentable(text: &str) -> String {
    const SHOWN_CHARS: usize = 320;
    let mut text = normalize_untrusted_str(text);
    if let Some((end, _)) = text.char_indices().nth(SHOWN_CHARS) {
        text.truncate(end);
        text.push('…');
    }
    text
}

/// Moves the ends of a span to character boundaries. The span of a TOML syntax error can end inside a character.
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
    fn a_span_beyond_the_end_of_the_file_is_moved_to_the_end() {
        assert_eq!(rejected(vec![Finding::new(70..80, "late")]).problems()[0].span, 13..13);
    }

    #[test]
    fn a_problem_names_the_file_with_the_mistake() {
        let mut source = Source::new("a/t.toml", "b = 2\n");
        source.files.insert("m.csv".to_owned(), "ms\nx,y\n".to_owned());
        let csv = |span| SourceSpan { file: File::Attached("m.csv".into()), span };
        let findings = vec![
            Finding::new(csv(5..6), "of the matrix").related(0..1, "the key"),
            Finding::new(4..5, "of the topology").related(csv(0..2), "the unit"),
        ];
        let rejected = Rejected::new(source, findings);
        assert_eq!(rejected.to_string(), "a/t.toml:1:5: of the topology\na/m.csv:2:3: of the matrix");
        let problem = &rejected.problems()[0];
        assert_eq!((&*problem.path, &*problem.related[0].path), ("a/t.toml", "a/m.csv"));
    }

    #[test]
    fn a_report_keeps_a_thousand_problems_and_counts_all() {
        let rejected = rejected((0..1_500).map(|_| Finding::new(0..1, "x")).collect());
        assert_eq!(rejected.problems().len(), 1_000);
        assert_eq!(rejected.summary(), "t.toml: 1500 errors (the first 1000 are shown)");
    }

    #[test]
    fn errors_and_warnings_are_counted_separately() {
        let rejected = rejected(vec![Finding::new(7..8, "second"), Finding::warning(1..2, "first")]);
        assert_eq!(rejected.to_string(), "t.toml:1:1: warning: first\nt.toml:2:1: second");
        assert_eq!(rejected.summary(), "t.toml: 1 error, 1 warning");
    }
}
