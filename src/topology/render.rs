//! Formats problems for a terminal, like rustc: each problem with its lines, carets and help.

use std::ops::Range;

use annotate_snippets::{Annotation, AnnotationKind, Group, Level, Origin, Renderer, Snippet};

use super::{
    diagnostic::{FileReport, Problem, Related, Severity},
    source::{File, Source, Text, Texts},
};

/// The largest excerpt of a file in bytes.
///
/// Spans that are farther apart have separate excerpts. A span on a longer line has no excerpt. The renderer reads the
/// whole excerpt. Without this limit, the renderer could read a large file once for each of a thousand problems.
const MAX_EXCERPT: usize = 64 * 1024;

impl FileReport {
    /// All problems with their lines, carets and help.
    ///
    /// The report of a refused file ends with a summary line. The report of a text from the command line does not.
    ///
    /// `width` is the terminal's width in columns. Longer lines are cut around their carets.
    pub fn render(&self, colour: bool, width: usize) -> String {
        let renderer = if colour { Renderer::styled() } else { Renderer::plain() }.term_width(width);
        let texts = self.source().texts();
        let mut rendered: String =
            self.problems().iter().map(|problem| texts.render(problem, &renderer) + "\n\n").collect();
        if self.has_errors() && self.source().path != Source::COMMAND_LINE {
            rendered += &renderer.render(&[Group::with_title(Level::ERROR.primary_title(self.summary()))]);
            rendered += "\n";
        }
        rendered
    }
}

impl Texts<'_> {
    fn render(&self, problem: &Problem, renderer: &Renderer) -> String {
        let level = match problem.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let title = level.primary_title(&problem.message);
        let (near, far) = split_by_distance(problem);
        let window = near.iter().fold(problem.span.clone(), |hull_so_far, related| hull(&hull_so_far, &related.span));
        let mut group = match self.excerpt(&problem.file, &window) {
            Some((snippet, start)) => title.element(
                snippet
                    .annotation(mark(AnnotationKind::Primary, &problem.span, &problem.label, start))
                    .annotations(near.iter().map(|at| mark(AnnotationKind::Context, &at.span, &at.label, start))),
            ),
            None => title
                .element(Origin::path(&problem.path).line(problem.line).char_column(problem.column))
                .elements((!problem.label.is_empty()).then(|| Level::NOTE.message(&problem.label))),
        };
        for related in far {
            let excerpt = self.excerpt(&related.file, &related.span);
            group = group.elements(excerpt.map(|(snippet, start)| {
                snippet.annotation(mark(AnnotationKind::Context, &related.span, &related.label, start))
            }));
        }
        group = group.elements(problem.help.as_ref().map(|help| Level::HELP.message(help)));
        renderer.render(&[group])
    }

    /// The lines of a span, and the position of their first byte. `None` if the excerpt is too large.
    fn excerpt<'a>(&'a self, file: &File, span: &Range<usize>) -> Option<(Snippet<'a, Annotation<'a>>, usize)> {
        let Text { path, lines } = self.of(file);
        let (bytes, first_line) = lines.around(span);
        if bytes.len() > MAX_EXCERPT {
            return None;
        }
        let start = bytes.start;
        Some((Snippet::source(&lines.text[bytes]).line_start(first_line).path(path), start))
    }
}

/// The related spans that fit into the problem's excerpt, and all other related spans.
fn split_by_distance(problem: &Problem) -> (Vec<&Related>, Vec<&Related>) {
    // Half of the limit on each side keeps the whole excerpt within the limit.
    let is_near = |span: &Range<usize>| hull(&problem.span, span).len() <= MAX_EXCERPT / 2;
    problem.related.iter().partition(|related| related.file == problem.file && is_near(&related.span))
}

fn hull(a: &Range<usize>, b: &Range<usize>) -> Range<usize> {
    a.start.min(b.start)..a.end.max(b.end)
}

/// A caret in an excerpt that starts at the byte `start`.
fn mark<'a>(kind: AnnotationKind, span: &Range<usize>, label: &'a str, start: usize) -> Annotation<'a> {
    kind.span(span.start - start..span.end - start).label((!label.is_empty()).then_some(label))
}
