//! The files that a topology file refers to: which they are ([`References`]), and opening them ([`Files`]).
//!
//! Nothing is read from a disk here: whoever has the topology file brings the texts along, in a [`Source`].

use std::{collections::BTreeMap, sync::Arc};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    MAX_ATTACHED_BYTES, MAX_FILE_BYTES,
    diagnostic::Finding,
    reader::Word,
    source::{File, Source, SourceSpan},
};

/// The names by which a topology file refers to others, where the language has such names.
///
/// The rest of the file may be wrong in any way.
#[derive(Debug, Default)]
pub(super) struct References<'t> {
    /// `[links] matrix`.
    pub(super) matrix: Option<Word<'t>>,
    /// Every `distribution = { table = ... }`.
    pub(super) tables: Vec<Word<'t>>,
}

impl<'t> References<'t> {
    pub(super) fn of(file: &'t DeTable<'t>) -> Self {
        let mut references = Self::default();
        let Some(links) = file.get("links").and_then(|links| links.get_ref().as_table()) else { return references };
        references.matrix = string(links, "matrix");
        references.add_tables_of(links);
        references.tables.sort_by_key(|word| word.span().start);
        references
    }

    fn add_tables_of(&mut self, table: &'t DeTable<'t>) {
        for (key, value) in table {
            match value.get_ref() {
                DeValue::Table(distribution) if key.get_ref() == "distribution" => {
                    self.tables.extend(string(distribution, "table"));
                }
                DeValue::Table(table) => self.add_tables_of(table),
                DeValue::Array(array) => {
                    let tables = array.iter().filter_map(|element| element.get_ref().as_table());
                    tables.for_each(|table| self.add_tables_of(table));
                }
                _ => {}
            }
        }
    }

    /// All names, some of them perhaps several times.
    pub(super) fn names(&self) -> impl Iterator<Item = &'t str> {
        self.matrix.iter().chain(&self.tables).map(|word| *word.get_ref())
    }
}

fn string<'t>(table: &'t DeTable<'t>, key: &str) -> Option<Word<'t>> {
    let value = table.get(key)?;
    Some(Spanned::new(value.span(), value.get_ref().as_str()?))
}

/// The files of a source, to be opened where the topology file names them.
pub(super) struct Files<'s> {
    source: &'s Source,
    /// Why there is no text of a file, where the one who was to read it has said so.
    unreadable: &'s BTreeMap<String, String>,
}

/// A file with its text.
pub(super) struct Opened<'s> {
    pub(super) name: Arc<str>,
    pub(super) text: &'s str,
}

impl Opened<'_> {
    /// Some bytes of this file.
    pub(super) fn place(&self, span: std::ops::Range<usize>) -> SourceSpan {
        SourceSpan { file: File::Attached(Arc::clone(&self.name)), span }
    }
}

impl<'s> Files<'s> {
    /// The files that belong to a topology. Reports it if they are too many, or others than it refers to.
    pub(super) fn of(
        source: &'s Source,
        unreadable: &'s BTreeMap<String, String>,
        references: &References<'_>,
        findings: &mut Vec<Finding>,
    ) -> Self {
        if source.files.values().map(String::len).sum::<usize>() > MAX_ATTACHED_BYTES {
            let mib = MAX_ATTACHED_BYTES / (1024 * 1024);
            findings.push(Finding::new(0..0, format!("the files that this one refers to are larger than {mib} MiB")));
        }
        let is_stray = |name: &&String| !references.names().any(|known| known == name.as_str());
        findings.extend(
            source.files.keys().find(is_stray).map(|name| {
                Finding::new(0..0, format!("nothing here refers to the file that is attached as `{name}`"))
            }),
        );
        Self { source, unreadable }
    }

    /// The file of this name. Reports it if there is none.
    pub(super) fn open(&self, word: &Word<'_>, findings: &mut Vec<Finding>) -> Option<Opened<'s>> {
        let name = *word.get_ref();
        let text = self.source.files.get(name).map(String::as_str);
        let why = match (text, self.unreadable.get(name)) {
            _ if name.is_empty() => {
                findings.push(Finding::new(word.span(), "the file's name is empty"));
                return None;
            }
            (Some(text), _) if text.len() > MAX_FILE_BYTES => {
                format!("it is larger than {} MiB", MAX_FILE_BYTES / (1024 * 1024))
            }
            (Some(text), _) => return Some(Opened { name: name.into(), text }),
            (None, Some(why)) => why.clone(),
            (None, None) => {
                findings.push(
                    Finding::new(word.span(), format!("the file `{name}` is not attached to the topology"))
                        .help("a topology travels with the files that it refers to"),
                );
                return None;
            }
        };
        findings.push(
            Finding::new(word.span(), format!("cannot read `{name}`: {why}"))
                .label(format!("this is {}", self.source.path_of(name)))
                .help("a file's name is relative to the folder of the topology file"),
        );
        None
    }
}
