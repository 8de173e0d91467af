//! A refused file on a terminal, as rustc would show it: every problem with its lines, carets and help.

use std::ops::Range;

use annotate_snippets::{Annotation, AnnotationKind, Group, Level, Origin, Renderer, Snippet};

use super::{
    diagnostic::{Problem, Rejected, Related},
    source::Lines,
};

/// How many bytes of the file are shown at once. Places that are farther apart have excerpts of their own, and a place
/// on a longer line is named instead of shown.
///
/// The renderer walks over the whole excerpt that it is given; without a bound, a thousand problems of a large file
/// would be a thousand walks over the file.
const MAX_EXCERPT: usize = 64 * 1024;

impl Rejected {
    /// Every problem with its lines, carets and help, and a summary line at the end.
    ///
    /// `width` is the terminal's, in columns; longer lines are cut around their carets.
    pub fn render(&self, colour: bool, width: usize) -> String {
        let renderer = if colour { Renderer::styled() } else { Renderer::plain() }.term_width(width);
        let lines = Lines::of(&self.source().text);
        let mut text = String::new();
        for problem in self.problems() {
            text.push_str(&self.render_problem(problem, &lines, &renderer));
            text.push_str("\n\n");
        }
        text.push_str(&renderer.render(&[Group::with_title(Level::ERROR.primary_title(self.summary()))]));
        text.push('\n');
        text
    }

    fn render_problem(&self, problem: &Problem, lines: &Lines<'_>, renderer: &Renderer) -> String {
        let title = Level::ERROR.primary_title(&problem.message);
        let (near, far) = split_by_distance(problem);
        let places = near.iter().fold(problem.span.clone(), |window, related| hull(&window, &related.span));
        let mut group = match self.excerpt(lines, &places) {
            Some((snippet, start)) => title.element(
                snippet
                    .annotation(mark(AnnotationKind::Primary, &problem.span, &problem.label, start))
                    .annotations(near.iter().map(|at| mark(AnnotationKind::Context, &at.span, &at.label, start))),
            ),
            None => title
                .element(Origin::path(self.path()).line(problem.line).char_column(problem.column))
                .elements((!problem.label.is_empty()).then(|| Level::NOTE.message(&problem.label))),
        };
        for related in far {
            let excerpt = self.excerpt(lines, &related.span);
            group = group.elements(excerpt.map(|(snippet, start)| {
                snippet.annotation(mark(AnnotationKind::Context, &related.span, &related.label, start))
            }));
        }
        group = group.elements(problem.help.as_ref().map(|help| Level::HELP.message(help)));
        renderer.render(&[group])
    }

    /// The lines around a span, and the byte at which they begin. Nothing if that is too much to show.
    fn excerpt<'a>(&'a self, lines: &Lines<'_>, span: &Range<usize>) -> Option<(Snippet<'a, Annotation<'a>>, usize)> {
        let (bytes, first_line) = lines.around(span);
        if bytes.len() > MAX_EXCERPT {
            return None;
        }
        let start = bytes.start;
        Some((Snippet::source(&self.source().text[bytes]).line_start(first_line).path(self.path()), start))
    }
}

/// The related places that fit into one excerpt with the problem's own, and those that do not.
fn split_by_distance(problem: &Problem) -> (Vec<&Related>, Vec<&Related>) {
    // Half the bound on either side keeps the whole within it.
    problem.related.iter().partition(|related| hull(&problem.span, &related.span).len() <= MAX_EXCERPT / 2)
}

fn hull(a: &Range<usize>, b: &Range<usize>) -> Range<usize> {
    a.start.min(b.start)..a.end.max(b.end)
}

/// A caret in an excerpt that begins at the byte `start`.
fn mark<'a>(kind: AnnotationKind, span: &Range<usize>, label: &'a str, start: usize) -> Annotation<'a> {
    kind.span(span.start - start..span.end - start).label((!label.is_empty()).then_some(label))
}
