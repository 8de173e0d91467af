//! What is wrong with a topology file: [`Problem`]s with their places, collected into one [`Rejected`], or, if the file
//! is accepted, into [`Warnings`].
//!
//! The passes over a file make `Finding`s, which know bytes; a [`Problem`] is a finding placed in the file's lines.
//! How it looks on a terminal is `render`'s matter. First type to read: [`Rejected`].

use std::{collections::BTreeMap, fmt, ops::Range};

use annotate_snippets::normalize_untrusted_str;
use serde::Serialize;

use super::source::{File, Lines, Source, SourceSpan};

/// Why a file was refused: everything that is wrong with it and the files that it refers to, file by file in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected(Report);

/// What is probably not meant in a file that was accepted, and in the files that it refers to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Warnings(Report);

/// Everything that was found in a file and those that it refers to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Report {
    pub(super) source: Source,
    pub(super) problems: Vec<Problem>,
    /// How many there are, those that are not kept included.
    errors: usize,
    warnings: usize,
}

impl Report {
    /// More than anyone reads, and little enough to send: a megabyte of nonsense is not worth a megabyte of carets.
    const MAX_PROBLEMS: usize = 1_000;

    fn new(source: Source, mut findings: Vec<Finding>) -> Self {
        let errors = findings.iter().filter(|finding| finding.severity == Severity::Error).count();
        let warnings = findings.len() - errors;
        findings.sort_by(|a, b| a.place.cmp(&b.place));
        findings.truncate(Self::MAX_PROBLEMS);
        let mut files = Files { source: &source, lines: BTreeMap::new() };
        let problems = findings.into_iter().map(|finding| finding.located(&mut files)).collect();
        Self { source, problems, errors, warnings }
    }

    /// Both together, of which `other` is about the same file.
    fn and(mut self, other: Self) -> Self {
        self.problems.extend(other.problems);
        self.problems.sort_by_key(|problem| SourceSpan { file: problem.file.clone(), span: problem.span.clone() });
        self.errors += other.errors;
        self.warnings += other.warnings;
        self
    }

    /// `topology.toml: 3 errors, 1 warning`.
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
        let all = if shown < self.errors + self.warnings {
            format!(", the first {shown} of them shown")
        } else {
            String::new()
        };
        format!("{path}: {counts}{all}")
    }
}

impl Rejected {
    /// At least one of `findings` is an error.
    pub(crate) fn new(source: Source, findings: Vec<Finding>) -> Self {
        Self(Report::new(source, findings))
    }

    /// Both together, of which `other` is about the same file.
    #[must_use]
    pub fn and(self, Self(other): Self) -> Self {
        Self(self.0.and(other))
    }

    /// What is wrong, sorted by its place, at least one error: first what is wrong with the topology file, then with
    /// the files that it refers to. After a thousand the rest is only counted.
    pub fn problems(&self) -> &[Problem] {
        &self.0.problems
    }

    /// The file that was refused, with those that it refers to.
    pub fn source(&self) -> &Source {
        &self.0.source
    }

    /// `topology.toml: 3 errors`.
    pub fn summary(&self) -> String {
        self.0.summary()
    }

    pub(super) fn report(&self) -> &Report {
        &self.0
    }
}

impl Warnings {
    /// None of `findings` is an error.
    pub(crate) fn new(source: Source, findings: Vec<Finding>) -> Self {
        Self(Report::new(source, findings))
    }

    /// Both together, of which `other` is about the same file.
    #[must_use]
    pub fn and(self, Self(other): Self) -> Self {
        Self(self.0.and(other))
    }

    /// What is probably not meant, sorted by its place. After a thousand the rest is only counted.
    pub fn problems(&self) -> &[Problem] {
        &self.0.problems
    }

    pub(super) fn report(&self) -> &Report {
        &self.0
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

/// Whether a file with a [`Problem`] is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// The file is refused.
    Error,
    /// The file is accepted.
    Warning,
}

/// One thing that is wrong with a file, and where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Problem {
    /// Whether the file is refused for it.
    pub severity: Severity,
    /// What is wrong, as one sentence without a full stop.
    pub message: String,
    /// A few words for the place itself; may be empty.
    pub label: String,
    /// The name of the file that it is in: the topology file, or one that it refers to.
    pub path: String,
    #[serde(skip)]
    pub(super) file: File,
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
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Related {
    /// The name of the file that it is in, which may be another than the problem's.
    pub path: String,
    #[serde(skip)]
    pub(super) file: File,
    /// The place, in bytes of the file's text.
    pub span: Range<usize>,
    /// What is there.
    pub label: String,
}

/// A [`Problem`] in the making, which knows its bytes but not yet its line.
#[derive(Clone, Debug)]
pub(crate) struct Finding {
    severity: Severity,
    place: SourceSpan,
    message: String,
    label: String,
    help: Option<String>,
    related: Vec<(SourceSpan, String)>,
}

impl Finding {
    pub(crate) fn new(place: impl Into<SourceSpan>, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            place: place.into(),
            message: presentable(&message.into()),
            label: String::new(),
            help: None,
            related: Vec::new(),
        }
    }

    /// Something that may be meant.
    pub(crate) fn warning(place: impl Into<SourceSpan>, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::new(place, message) }
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

    /// The first of several that are alike.
    pub(crate) fn and_more(mut self, more: usize) -> Self {
        self.message = format!("{} (and {more} more like this)", self.message);
        self
    }

    pub(crate) fn related(mut self, place: impl Into<SourceSpan>, label: impl Into<String>) -> Self {
        self.related.push((place.into(), presentable(&label.into())));
        self
    }

    fn located(self, files: &mut Files<'_>) -> Problem {
        let (path, span) = files.locate(&self.place);
        let (line, column) = files.lines(&self.place.file).position(span.start);
        let related = self.related.into_iter().map(|(place, label)| {
            let (path, span) = files.locate(&place);
            Related { path, file: place.file, span, label }
        });
        let related = related.collect();
        let Self { severity, place: SourceSpan { file, .. }, message, label, help, .. } = self;
        Problem { severity, message, label, path, file, span, line, column, help, related }
    }
}

/// The files of a source with their lines, each of which is cut into lines once at most.
struct Files<'s> {
    source: &'s Source,
    lines: BTreeMap<File, Lines<'s>>,
}

impl<'s> Files<'s> {
    fn lines(&mut self, file: &File) -> &Lines<'s> {
        let source = self.source;
        self.lines.entry(file.clone()).or_insert_with(|| Lines::of(source.text_of(file).unwrap_or_default()))
    }

    /// The file's name, fit for a terminal, and the span with its ends on characters.
    fn locate(&self, place: &SourceSpan) -> (String, Range<usize>) {
        let text = self.source.text_of(&place.file).unwrap_or_default();
        (normalize_untrusted_str(&self.source.name_of(&place.file)), on_characters(&place.span, text))
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
    fn a_problem_is_in_a_file_of_its_own() {
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
    fn what_is_not_shown_is_counted() {
        let rejected = rejected((0..1_500).map(|_| Finding::new(0..1, "x")).collect());
        assert_eq!(rejected.problems().len(), 1_000);
        assert_eq!(rejected.summary(), "t.toml: 1500 errors, the first 1000 of them shown");
    }

    #[test]
    fn warnings_are_counted_by_themselves() {
        let rejected = rejected(vec![Finding::new(7..8, "second"), Finding::warning(1..2, "first")]);
        assert_eq!(rejected.to_string(), "t.toml:1:1: warning: first\nt.toml:2:1: second");
        assert_eq!(rejected.summary(), "t.toml: 1 error, 1 warning");
    }
}
