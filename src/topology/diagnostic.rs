//! The mistakes in a file and the warnings about a file: [`FileReport`].
//!
//! The passes over a file create `Finding`s, which have spans in bytes. A [`Problem`] is a finding with its line and
//! column. `render` formats problems for a terminal. First type to read: [`FileReport`].

use std::{collections::HashMap, fmt, ops::Range};

use annotate_snippets::normalize_untrusted_str;
use serde::Serialize;

use super::source::{File, Source, SourceSpan, Texts};

/// The problems of a file and its attached files. The report of an accepted file has only warnings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileReport {
    source: Source,
    problems: Vec<Problem>,
    /// The number of errors, including those beyond [`Self::MAX_PROBLEMS`].
    errors: usize,
    warnings: usize,
}

impl FileReport {
    /// The largest number of problems that a report keeps. A report that [`Self::and`] extends can have more.
    ///
    /// The limit bounds the output for a file that is no topology at all.
    const MAX_PROBLEMS: usize = 1_000;

    /// The largest number of problems with the same message. A mistake in every line of a file has the same remedy.
    const MAX_OF_A_KIND: usize = 10;

    pub(crate) fn new(source: Source, mut findings: Vec<Finding>) -> Self {
        let errors = findings.iter().filter(|finding| finding.is_error()).count();
        let warnings = findings.len() - errors;
        findings.sort_by(|a, b| a.span.cmp(&b.span));
        let mut shown: HashMap<String, usize> = HashMap::new();
        findings.retain(|finding| {
            let of_a_kind = shown.entry(finding.message.clone()).or_default();
            *of_a_kind += 1;
            *of_a_kind <= Self::MAX_OF_A_KIND
        });
        findings.truncate(Self::MAX_PROBLEMS);
        let texts = source.texts();
        let problems = findings.into_iter().map(|finding| finding.locate(&texts)).collect();
        Self { source, problems, errors, warnings }
    }

    /// The problems of two reports about the same file, such as those of a topology and of its `[inventory]` table.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.problems.extend(other.problems);
        self.problems.sort_by_key(|problem| SourceSpan::new(problem.file.clone(), &problem.span));
        self.errors += other.errors;
        self.warnings += other.warnings;
        self
    }

    /// True if the file is refused.
    pub(super) fn has_errors(&self) -> bool {
        self.errors > 0
    }

    /// The problems, sorted by file and span. The topology file comes first.
    ///
    /// At most 1,000 problems of each report that [`Self::and`] joins, and at most ten of them with the same message.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// The file, with its attached files.
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// The counts in one line: `topology.toml: 3 errors, 1 warning`.
    pub fn summary(&self) -> String {
        let path = normalize_untrusted_str(&self.source.path);
        let count = |count: usize, what: &str| match count {
            0 => None,
            1 => Some(format!("1 {what}")),
            count => Some(format!("{count} {what}s")),
        };
        let counts = [count(self.errors, "error"), count(self.warnings, "warning")];
        let counts = counts.into_iter().flatten().collect::<Vec<_>>().join(", ");
        let shown = self.problems.len();
        let all = if shown < self.errors + self.warnings { format!(" ({shown} are shown)") } else { String::new() };
        format!("{path}: {counts}{all}")
    }
}

/// One line for each problem: `file:line:column: message`.
impl fmt::Display for FileReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, Problem { severity, message, path, line, column, .. }) in self.problems.iter().enumerate() {
            let line_break = if number == 0 { "" } else { "\n" };
            let warning = if *severity == Severity::Warning { "warning: " } else { "" };
            write!(f, "{line_break}{path}:{line}:{column}: {warning}{message}")?;
        }
        if self.problems.len() < self.errors + self.warnings {
            write!(f, "\n{}", self.summary())?;
        }
        Ok(())
    }
}

impl std::error::Error for FileReport {}

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

/// A mistake in a file, or a warning about a file, with its span.
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

/// An error about a value: the findings already contain the mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reported;

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

    pub(crate) fn report(self, findings: &mut Vec<Self>) -> Reported {
        findings.push(self);
        Reported
    }

    /// Reports the finding. Returns `None` in place of the value with the mistake.
    pub(crate) fn refuse<T>(self, findings: &mut Vec<Self>) -> Option<T> {
        findings.push(self);
        None
    }

    fn locate(self, texts: &Texts<'_>) -> Problem {
        let Self { severity, span, message, label, help, related } = self;
        let (path, bytes) = texts.locate(&span);
        let (line, column) = texts.of(&span.file).lines.position(bytes.start);
        let related = related.into_iter().map(|(at, label)| {
            let (path, span) = texts.locate(&at);
            Related { path, file: at.file, span, label }
        });
        let related = related.collect();
        Problem { severity, message, label, path, file: span.file, span: bytes, line, column, help, related }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn rejected(findings: Vec<Finding>) -> FileReport {
        FileReport::new(Source::new("t.toml", "é = 1\nb = 2\n"), findings)
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
        let csv = |span| SourceSpan::new(File::Attached("m.csv".into()), &span);
        let findings = vec![
            Finding::new(csv(5..6), "of the matrix").related(0..1, "the key"),
            Finding::new(4..5, "of the topology").related(csv(0..2), "the unit"),
        ];
        let rejected = FileReport::new(source, findings);
        assert_eq!(rejected.to_string(), "a/t.toml:1:5: of the topology\na/m.csv:2:3: of the matrix");
        let problem = &rejected.problems()[0];
        assert_eq!((&*problem.path, &*problem.related[0].path), ("a/t.toml", "a/m.csv"));
    }

    #[test]
    fn a_report_keeps_a_thousand_problems_and_counts_all() {
        let rejected = rejected((0..1_500).map(|number| Finding::new(0..1, format!("x{number}"))).collect());
        assert_eq!(rejected.problems().len(), 1_000);
        assert_eq!(rejected.summary(), "t.toml: 1500 errors (1000 are shown)");
    }

    /// Regression test: a wrong key in each of 10,000 nodes filled the terminal with 1,000 equal errors.
    #[test]
    fn a_report_keeps_ten_problems_with_the_same_message_and_counts_all() {
        let rejected = rejected((0..20).map(|_| Finding::new(0..1, "x")).chain([Finding::new(1..2, "y")]).collect());
        assert_eq!(rejected.problems().len(), 11);
        assert_eq!(rejected.summary(), "t.toml: 21 errors (11 are shown)");
    }

    #[test]
    fn errors_and_warnings_are_counted_separately() {
        let rejected = rejected(vec![Finding::new(7..8, "second"), Finding::warning(1..2, "first")]);
        assert_eq!(rejected.to_string(), "t.toml:1:1: warning: first\nt.toml:2:1: second");
        assert_eq!(rejected.summary(), "t.toml: 1 error, 1 warning");
    }
}
