//! A topology file and the files that it refers to, as text: [`Source`]. Reading them from a disk is the caller's
//! matter; `SourceSpan` says where in which of them something is.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet},
    fmt,
    ops::Range,
    path::Path,
    sync::Arc,
};

use serde::{Deserialize, Serialize};
use toml::de::DeTable;

use super::{MAX_FILE_BYTES, files::References};

/// A topology file's name as the user typed it, its text, and the texts of the files that it refers to: the wire and
/// journal form of a topology.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// The file's name, for messages: on the wire nothing is ever read from it.
    pub path: String,
    /// The file's whole text.
    pub text: String,
    /// The files that it refers to, by the names that it has for them: matrices and distribution tables.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub files: BTreeMap<String, String>,
}

impl Source {
    /// A file that refers to no other.
    pub fn new(path: impl Into<String>, text: impl Into<String>) -> Self {
        Self { path: path.into(), text: text.into(), files: BTreeMap::new() }
    }

    /// The names by which the topology file refers to other files, each once. The file may be wrong in any way; of one
    /// that is not even TOML there are none.
    pub fn references(&self) -> BTreeSet<String> {
        let table =
            Some(&self.text).filter(|text| text.len() <= MAX_FILE_BYTES).and_then(|text| DeTable::parse(text).ok());
        let Some(table) = table else { return BTreeSet::new() };
        References::of(table.get_ref()).names().map(str::to_owned).collect()
    }

    /// Where a file is that the topology file refers to by this name: in the topology file's own folder, unless the
    /// name is absolute.
    pub fn path_of(&self, name: &str) -> String {
        let folder = Path::new(&self.path).parent().unwrap_or_else(|| Path::new(""));
        folder.join(name).display().to_string()
    }

    /// The text of one of its files: none if it does not have the file.
    pub(super) fn text_of(&self, file: &File) -> Option<&str> {
        match file {
            File::Topology => Some(&self.text),
            File::Attached(name) => self.files.get(&**name).map(String::as_str),
        }
    }

    /// The name of one of its files, for messages.
    pub(super) fn name_of(&self, file: &File) -> String {
        match file {
            File::Topology => self.path.clone(),
            File::Attached(name) => self.path_of(name),
        }
    }
}

/// One of the files of a [`Source`].
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum File {
    /// The topology file itself.
    #[default]
    Topology,
    /// The file that it refers to by this name.
    Attached(Arc<str>),
}

/// Some bytes of one of the files. A range of bytes alone is of the topology file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SourceSpan {
    pub(crate) file: File,
    pub(crate) span: Range<usize>,
}

/// The topology file comes first.
impl Ord for SourceSpan {
    fn cmp(&self, other: &Self) -> Ordering {
        let order = |place: &Self| (place.span.start, place.span.end);
        self.file.cmp(&other.file).then_with(|| order(self).cmp(&order(other)))
    }
}

impl PartialOrd for SourceSpan {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl From<Range<usize>> for SourceSpan {
    fn from(span: Range<usize>) -> Self {
        Self { file: File::Topology, span }
    }
}

/// Where something is said: a file's name and a line of it, counted from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The file.
    pub path: String,
    /// The line.
    pub line: usize,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.path, self.line)
    }
}

/// Where the lines of a text begin, to say where in the file a byte is.
pub(crate) struct Lines<'a> {
    text: &'a str,
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    pub(crate) fn of(text: &'a str) -> Self {
        let behind_breaks = text.match_indices('\n').map(|(at, _)| at + 1);
        Self { text, starts: std::iter::once(0).chain(behind_breaks).collect() }
    }

    /// The line and the column of a byte, both counted from 1, the column in characters.
    pub(crate) fn position(&self, offset: usize) -> (usize, usize) {
        let line = self.line_of(offset);
        (line + 1, self.text[self.starts[line]..offset].chars().count() + 1)
    }

    /// The bytes of all lines that a span touches, without the last line's break, and the number of the first one.
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
    fn positions_count_characters() {
        let lines = Lines::of("é = 1\n\nxyz");
        assert_eq!(lines.position(0), (1, 1));
        assert_eq!(lines.position(3), (1, 3));
        assert_eq!(lines.position(7), (2, 1));
        assert_eq!(lines.position(11), (3, 4));
        assert_eq!(lines.around(&(9..10)), (8..11, 3));
        assert_eq!(lines.around(&(0..7)), (0..7, 1));
    }
}
