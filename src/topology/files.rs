//! Finds the attached files of a topology file: [`References`] finds the names, [`AttachedFiles`] the texts.
//!
//! A topology file names its attached files. The module reads no disk: the texts are in the [`Source`].

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    sync::Arc,
};

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

impl Source {
    /// The names of the attached files in the topology file, each once.
    ///
    /// Empty if the TOML is invalid or too large. Other mistakes in the topology file have no effect.
    pub fn references(&self) -> BTreeSet<String> {
        let text = Some(&self.text).filter(|text| text.len() <= MAX_FILE_BYTES);
        let Some(table) = text.and_then(|text| DeTable::parse(text).ok()) else { return BTreeSet::new() };
        References::of(table.get_ref()).names().map(str::to_owned).collect()
    }
}

/// The names of the attached files in a topology file, even if the topology file has mistakes.
#[derive(Debug, Default)]
pub(super) struct References<'t> {
    /// The value of `matrix` in `[links]`.
    pub(super) matrix: Option<Word<'t>>,
    /// The value of `table` in every `distribution = { table = ... }`.
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

    /// All names, with repetitions.
    pub(super) fn names(&self) -> impl Iterator<Item = &'t str> {
        self.matrix.iter().chain(&self.tables).map(|word| *word.get_ref())
    }
}

fn string<'t>(table: &'t DeTable<'t>, key: &str) -> Option<Word<'t>> {
    let value = table.get(key)?;
    Some(Spanned::new(value.span(), value.get_ref().as_str()?))
}

/// The attached files of a [`Source`], and the reasons why some files are missing.
pub(super) struct AttachedFiles<'s> {
    source: &'s Source,
    /// The reasons why the caller could not read files, by the names of the files.
    unreadable: &'s BTreeMap<String, String>,
}

/// A file that a topology names.
pub(super) struct AttachedFile<'s> {
    pub(super) name: Arc<str>,
    pub(super) text: &'s str,
}

impl AttachedFile<'_> {
    /// A span of this file.
    pub(super) fn span(&self, span: &Range<usize>) -> SourceSpan {
        SourceSpan::new(File::Attached(Arc::clone(&self.name)), span)
    }
}

impl<'s> AttachedFiles<'s> {
    /// The attached files of a topology.
    ///
    /// Reports attached files that are too large in total, and an attached file that the topology does not name.
    pub(super) fn of(
        source: &'s Source,
        unreadable: &'s BTreeMap<String, String>,
        references: &References<'_>,
        findings: &mut Vec<Finding>,
    ) -> Self {
        if source.files.values().map(String::len).sum::<usize>() > MAX_ATTACHED_BYTES {
            let mib = MAX_ATTACHED_BYTES / (1024 * 1024);
            Finding::new(0..0, format!("the files of this topology are larger than {mib} MiB together"))
                .report(findings);
        }
        let stray = source.files.keys().find(|name| !references.names().any(|known| known == name.as_str()));
        findings.extend(
            stray.map(|name| Finding::new(0..0, format!("the topology does not name the attached file `{name}`"))),
        );
        Self { source, unreadable }
    }

    /// The attached file with this name. Reports a file that is missing or too large.
    pub(super) fn open(&self, word: &Word<'_>, findings: &mut Vec<Finding>) -> Option<AttachedFile<'s>> {
        let name = *word.get_ref();
        let reason = match (self.source.files.get(name), self.unreadable.get(name)) {
            (Some(text), _) if text.len() <= MAX_FILE_BYTES => {
                return Some(AttachedFile { name: name.into(), text });
            }
            (Some(_), _) => format!("it is larger than {} MiB", MAX_FILE_BYTES / (1024 * 1024)),
            (None, Some(reason)) => reason.clone(),
            (None, None) => "it is not attached to the topology".to_owned(),
        };
        findings.push(if name.is_empty() {
            Finding::new(word.span(), "the file's name is empty")
        } else {
            Finding::new(word.span(), format!("cannot read `{name}`: {reason}"))
                .label(format!("path: {}", self.source.path_of(name)))
                .help("a file's name is relative to the folder of the topology file")
        });
        None
    }
}
