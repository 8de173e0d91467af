//! Reads comma-separated values (CSV), with the span of each cell: [`rows`].
//!
//! The format is RFC 4180 with these extensions: spaces around a cell, LF as a line end, a byte order mark, empty
//! lines, and comment lines that begin with `#`. Unlike in RFC 4180, a cell cannot contain a line break.

use std::{borrow::Cow, ops::Range};

/// A line of cells.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row<'t> {
    start: usize,
    text: &'t str,
}

/// The text between two commas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cell<'t> {
    /// The text without surrounding spaces and quotes. A doubled quote inside quotes becomes one quote.
    pub(super) text: Cow<'t, str>,
    /// The bytes of the cell in the file, with the quotes.
    pub(super) span: Range<usize>,
    /// The mistake in the quotes of the cell.
    pub(super) mistake: Option<&'static str>,
}

/// The rows of a file, in order.
pub(super) fn rows(text: &str) -> impl Iterator<Item = Row<'_>> {
    let mut next = text.len() - text.trim_start_matches('\u{feff}').len();
    let lines = text[next..].split_inclusive('\n').map(move |line| {
        let start = next;
        next += line.len();
        Row { start, text: line.trim_end() }
    });
    lines.filter(|row| !row.text.is_empty() && !row.text.trim_start().starts_with('#'))
}

/// True if a text is probably CSV: all lines have the same number of separators, and no line contains `=`.
pub(super) fn is_probable(text: &str) -> bool {
    let lines: Vec<&str> = rows(text).map(|row| row.text).collect();
    let is_separator = |separator: char| {
        let mut counts = lines.iter().map(|line| line.matches(separator).count());
        counts.next().is_some_and(|first| first > 0 && counts.all(|count| count == first))
    };
    lines.len() > 1 && !lines.iter().any(|line| line.contains('=')) && [',', ';', '\t'].into_iter().any(is_separator)
}

impl<'t> Row<'t> {
    /// The whole row.
    pub(super) fn span(&self) -> Range<usize> {
        self.start..self.start + self.text.len()
    }

    /// The cells, at least one.
    pub(super) fn cells(&self) -> impl Iterator<Item = Cell<'t>> + use<'t> {
        let Self { start, text } = *self;
        let mut rest = Some(0);
        std::iter::from_fn(move || {
            let begin = rest?;
            let end = begin + end_of_cell(&text[begin..]);
            rest = (end < text.len()).then_some(end + 1);
            Some(cell(start + begin, &text[begin..end]))
        })
    }
}

/// The position of the first comma outside quotes, or the end of the text.
fn end_of_cell(text: &str) -> usize {
    let mut is_quoted = false;
    let opens = text.trim_start().starts_with('"');
    let mut is_separator = |c: char| {
        is_quoted ^= opens && c == '"';
        c == ',' && !is_quoted
    };
    text.find(&mut is_separator).unwrap_or(text.len())
}

fn cell(start: usize, text: &str) -> Cell<'_> {
    let start = start + text.len() - text.trim_start().len();
    let text = text.trim();
    let span = start..start + text.len();
    let Some(quoted) = text.strip_prefix('"') else { return Cell { text: text.into(), span, mistake: None } };
    let (inner, mistake) = match quoted.strip_suffix('"') {
        Some(inner) if inner.replace("\"\"", "").contains('"') => (inner, Some("there is text after the quotes")),
        Some(inner) => (inner, None),
        None if quoted.replace("\"\"", "").contains('"') => (quoted, Some("there is text after the quotes")),
        None => (quoted, Some("the quotes do not end on this line")),
    };
    let text = if inner.contains("\"\"") { inner.replace("\"\"", "\"").into() } else { inner.into() };
    Cell { text, span, mistake }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn texts(text: &str) -> Vec<Vec<String>> {
        rows(text).map(|row| row.cells().map(|cell| cell.text.into_owned()).collect()).collect()
    }

    #[test]
    fn commas_separate_cells() {
        assert_eq!(texts("ms, a ,b\na,,1.5\n"), [["ms", "a", "b"], ["a", "", "1.5"]]);
        assert_eq!(texts(",\n,,"), [vec!["", ""], vec!["", "", ""]]);
    }

    #[test]
    fn line_ends_comments_and_empty_lines_are_not_cells() {
        let expected = [["ms", "a"], ["a", "1"]];
        for text in ["ms,a\r\na,1\r\n", "\u{feff}ms,a\na,1", "# source\n  # date\n\nms,a\n \t\na,1\n\n"] {
            assert_eq!(texts(text), expected, "{text:?}");
        }
        assert_eq!(texts(""), Vec::<Vec<String>>::new());
    }

    #[test]
    fn a_csv_file_is_recognised() {
        for table in ["ms,a,b\na,,1\nb,1,", "# from a spreadsheet\nms;a\na;", "ms\ta\na\t1\n"] {
            assert!(is_probable(table), "{table:?}");
        }
        for other in ["", "This is a text, my topology.\n", "a = [1, 2]\nb = [1, 2", "[nodes\nn1 = {}", "ms,a\na,1,2\n"]
        {
            assert!(!is_probable(other), "{other:?}");
        }
    }

    #[test]
    fn a_quoted_cell_can_contain_commas_and_quotes() {
        assert_eq!(texts(" \"a,b\" ,\"say \"\"so\"\"\",\"\"\n"), [["a,b", "say \"so\"", ""]]);
        assert_eq!(texts("a\"b\",c"), [["a\"b\"", "c"]]);
    }

    #[test]
    fn misplaced_quotes_are_reported() {
        let mistakes = |text| rows(text).flat_map(|row| row.cells().map(|cell| cell.mistake)).collect::<Vec<_>>();
        assert_eq!(mistakes("\"a\",b"), [None, None]);
        assert_eq!(mistakes("\"a,b"), [Some("the quotes do not end on this line")]);
        assert_eq!(mistakes("\""), [Some("the quotes do not end on this line")]);
        assert_eq!(mistakes("\"a\"b,c"), [Some("there is text after the quotes"), None]);
        assert_eq!(mistakes("\"a\"b\""), [Some("there is text after the quotes")]);
    }

    #[test]
    fn spans_are_bytes_of_the_file() {
        let text = "\u{feff}# é\r\nms , \"a\"\r\n";
        let row = rows(text).next().expect("a row");
        assert_eq!(&text[row.span()], "ms , \"a\"");
        let cells: Vec<_> = row.cells().map(|cell| &text[cell.span]).collect();
        assert_eq!(cells, ["ms", "\"a\""]);
    }

    proptest! {
        #[test]
        fn no_text_makes_the_csv_reader_panic(text in "[a1,\"# \r\n\t\u{feff}é]{0,40}|\\PC{0,40}") {
            for row in rows(&text) {
                let cells: Vec<_> = row.cells().collect();
                prop_assert!(!cells.is_empty());
                prop_assert!(cells.iter().all(|cell| text.get(cell.span.clone()).is_some()));
                prop_assert!(cells.windows(2).all(|pair| pair[0].span.end < pair[1].span.start));
            }
        }

        #[test]
        fn quoted_cells_are_read_back(cells in proptest::collection::vec("[a1,\"# é]{0,6}", 1..6)) {
            let quoted: Vec<_> = cells.iter().map(|cell| format!("\"{}\"", cell.replace('"', "\"\""))).collect();
            let read = texts(&quoted.join(","));
            // Spaces inside quotes belong to the cell.
            prop_assert_eq!(read, vec![cells]);
        }
    }
}
