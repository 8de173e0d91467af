//! The texts of a topology file and its attached files: [`Source`].
//!
//! The caller reads these texts from the disk.

use std::{collections::BTreeMap, fmt, iter, ops::Range, path::Path, sync::Arc};

use annotate_snippets::normalize_untrusted_str;
use serde::{Deserialize, Serialize};

/// A topology file with its path and its attached files.
///
/// A topology has this form on the wire and in the journal.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// The path that the user typed, for messages. An agent does not open this path.
    pub path: String,
    /// The text of the file.
    pub text: String,
    /// The texts of the attached files: matrices and distribution tables, by their names in the topology file.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub files: BTreeMap<String, String>,
}

impl Source {
    /// The path of a text from the command line, for messages.
    pub const COMMAND_LINE: &str = "command line";

    /// A topology file without attached files.
    pub fn new(path: impl Into<String>, text: impl Into<String>) -> Self {
        Self { path: path.into(), text: text.into(), files: BTreeMap::new() }
    }

    /// The path of an attached file. `name` is relative to the folder of the topology file.
    pub fn path_of(&self, name: &str) -> String {
        let folder = Path::new(&self.path).parent().unwrap_or_else(|| Path::new(""));
        folder.join(name).display().to_string()
    }

    /// The text of one of the files.
    pub(super) fn text_of(&self, file: &File) -> Option<&str> {
        match file {
            File::Topology => Some(&self.text),
            File::Attached(name) => self.files.get(&**name).map(String::as_str),
        }
    }

    /// The path of one of the files, for messages.
    pub(super) fn file_path(&self, file: &File) -> String {
        match file {
            File::Topology => self.path.clone(),
            File::Attached(name) => self.path_of(name),
        }
    }

    /// The texts of all files, split into lines.
    pub(super) fn texts(&self) -> Texts<'_> {
        let attached = self.files.iter().map(|(name, text)| (File::Attached(name.as_str().into()), text));
        let texts = iter::once((File::Topology, &self.text)).chain(attached).map(|(file, text)| {
            let path = normalize_untrusted_str(&self.file_path(&file));
            (file, Text { path, lines: Lines::of(text) })
        });
        Texts(texts.collect())
    }
}

/// One of the files of a [`Source`].
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum File {
    /// The topology file.
    #[default]
    Topology,
    /// The attached file with this name in the topology file.
    Attached(Arc<str>),
}

/// A range of bytes in one of the files. A `Range<usize>` becomes a range in the topology file.
///
/// Spans are ordered by file, then by position. The topology file comes first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SourceSpan {
    pub(super) file: File,
    pub(super) start: usize,
    pub(super) end: usize,
}

impl SourceSpan {
    pub(super) fn new(file: File, &Range { start, end }: &Range<usize>) -> Self {
        Self { file, start, end }
    }
}

impl From<Range<usize>> for SourceSpan {
    fn from(span: Range<usize>) -> Self {
        Self::new(File::Topology, &span)
    }
}

/// The texts of all files of a [`Source`].
pub(super) struct Texts<'s>(BTreeMap<File, Text<'s>>);

/// The text of a file, and the path without control characters.
pub(super) struct Text<'s> {
    pub(super) path: String,
    pub(super) lines: Lines<'s>,
}

impl<'s> Texts<'s> {
    pub(super) fn of(&self, file: &File) -> &Text<'s> {
        &self.0[file]
    }

    /// The path of a span's file, and the span in bytes.
    ///
    /// The ends of the result are on character boundaries. The span of a TOML syntax error can end inside a character.
    pub(super) fn locate(&self, span: &SourceSpan) -> (String, Range<usize>) {
        let Text { path, lines } = self.of(&span.file);
        let start = lines.text.floor_char_boundary(span.start);
        (path.clone(), start..lines.text.ceil_char_boundary(span.end.max(start)))
    }
}

/// A line of a file: the line that sets a parameter, or the line of a node's entry in an inventory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The path of the file.
    pub path: String,
    /// The line, counted from 1.
    pub line: usize,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.path, self.line)
    }
}

/// The start of each line of a text, to convert byte positions to lines and columns.
pub(crate) struct Lines<'a> {
    pub(super) text: &'a str,
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    pub(crate) fn of(text: &'a str) -> Self {
        let behind_breaks = text.match_indices('\n').map(|(at, _)| at + 1);
        Self { text, starts: iter::once(0).chain(behind_breaks).collect() }
    }

    /// The line and the column of a byte, counted from 1. Columns count characters.
    pub(crate) fn position(&self, offset: usize) -> (usize, usize) {
        let line = self.line_of(offset);
        (line + 1, self.text[self.starts[line]..offset].chars().count() + 1)
    }

    /// The bytes of the lines of a span, without the last line break, and the number of the first line.
    pub(crate) fn around(&self, span: &Range<usize>) -> (Range<usize>, usize) {
        let (first, last) = (self.line_of(span.start), self.line_of(span.end));
        let end = self.starts.get(last + 1).map_or(self.text.len(), |next| next - 1);
        (self.starts[first]..end, first + 1)
    }

    fn line_of(&self, offset: usize) -> usize {
        self.starts.partition_point(|&start| start <= offset) - 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_count_characters() {
        let lines = Lines::of("é = 1\n\nxyz");
        assert_eq!(lines.position(0), (1, 1));
        assert_eq!(lines.position(3), (1, 3));
        assert_eq!(lines.position(7), (2, 1));
        assert_eq!(lines.position(11), (3, 4));
        assert_eq!(lines.around(&(9..10)), (8..11, 3));
        assert_eq!(lines.around(&(0..7)), (0..7, 1));
    }
}
