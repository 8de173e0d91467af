//! Reads TOML tables and reports unknown keys: [`Table`].
//!
//! The caller takes each key that it knows. [`Table::close`] reports all other keys, so no part of a file is ignored.
//! The module does not use serde, because serde stops at the first error and loses the spans of optional values.

use std::ops::Range;

use toml::{
    Spanned,
    de::{DeArray, DeString, DeTable, DeValue},
};

use super::{diagnostic::Finding, key_advice, suggest};

/// A string of the file with its span, which includes the quotes.
pub(crate) type Word<'t> = Spanned<&'t str>;

/// A table with the entries that are not taken yet.
pub(crate) struct Table<'t> {
    /// The name of the table in messages: "a link".
    what: &'static str,
    /// The entries that are not taken yet, in the file's order.
    rest: Vec<TableEntry<'t>>,
    /// The keys that the caller has asked for.
    known: Vec<&'static str>,
}

/// A key and its value.
#[derive(Clone, Copy)]
pub(crate) struct TableEntry<'t> {
    key: &'t Spanned<DeString<'t>>,
    value: &'t Spanned<DeValue<'t>>,
}

impl<'t> Table<'t> {
    pub(crate) fn open(what: &'static str, table: &'t DeTable<'t>) -> Self {
        let mut rest: Vec<_> = table.iter().map(|(key, value)| TableEntry { key, value }).collect();
        rest.sort_by_key(|entry| entry.key.span().start);
        Self { what, rest, known: Vec::new() }
    }

    /// Takes the entry with this key.
    pub(crate) fn take(&mut self, key: &'static str) -> Option<TableEntry<'t>> {
        self.known.push(key);
        let position = self.rest.iter().position(|entry| entry.key() == key)?;
        Some(self.rest.remove(position))
    }

    /// Takes the remaining entries whose values are tables.
    pub(crate) fn take_tables(&mut self) -> Vec<TableEntry<'t>> {
        let (tables, rest) = self.rest.iter().partition(|entry| entry.value.get_ref().is_table());
        self.rest = rest;
        tables
    }

    /// Takes the remaining entries, for a table whose keys are names.
    pub(crate) fn take_rest(&mut self) -> Vec<TableEntry<'t>> {
        std::mem::take(&mut self.rest)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// True if a remaining entry has one of these keys.
    pub(crate) fn has_any(&self, keys: &[&str]) -> bool {
        self.rest.iter().any(|entry| keys.contains(&entry.key()))
    }

    /// The number of remaining entries.
    pub(crate) fn len(&self) -> usize {
        self.rest.len()
    }

    /// Reports the remaining entries as unknown keys.
    pub(crate) fn close(self, findings: &mut Vec<Finding>) {
        let keys = || self.known.iter().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(", ");
        for entry in &self.rest {
            let value = entry.value.get_ref().as_str();
            let (label, help) = if let Some(advice) = key_advice::advice(self.what, entry.key(), value) {
                ("no such key here".to_owned(), advice)
            } else {
                let near = suggest::nearest(entry.key(), self.known.iter().copied());
                let label = near.map_or_else(|| "no such key".to_owned(), |key| format!("did you mean `{key}`?"));
                (label, format!("the keys of {} are {}", self.what, keys()))
            };
            let message = format!("unknown key `{}` in {}", entry.key(), self.what);
            Finding::new(entry.key_span(), message).label(label).help(help).report(findings);
        }
    }
}

impl<'t> TableEntry<'t> {
    pub(crate) fn key(&self) -> &'t str {
        self.key.get_ref()
    }

    pub(crate) fn key_span(&self) -> Range<usize> {
        self.key.span()
    }

    pub(crate) fn value(&self) -> &'t Spanned<DeValue<'t>> {
        self.value
    }

    pub(crate) fn string(&self, findings: &mut Vec<Finding>) -> Option<Word<'t>> {
        self.expect("a string", self.value.get_ref().as_str(), findings)
            .map(|text| Spanned::new(self.value.span(), text))
    }

    /// The name of a file.
    pub(crate) fn file_name(&self, findings: &mut Vec<Finding>) -> Option<Word<'t>> {
        let word = self.string(findings)?;
        if word.get_ref().is_empty() {
            return Finding::new(word.span(), "the file's name is empty").refuse(findings);
        }
        Some(word)
    }

    /// Reads one of the names in `choices`. Returns the value of the name.
    ///
    /// `expected` describes the valid types, for the message about a value of another type.
    pub(super) fn choice<T: Copy>(
        &self,
        expected: &str,
        choices: &[(&str, T)],
        help: &str,
        findings: &mut Vec<Finding>,
    ) -> Option<T> {
        let Some(word) = self.value.get_ref().as_str() else {
            return self.wrong_type(expected).help(help).refuse(findings);
        };
        self.choice_of(&Spanned::new(self.value.span(), word), choices, help, findings)
    }

    /// Finds a word of this entry among the names in `choices`. Returns the value of the name.
    pub(crate) fn choice_of<T: Copy>(
        &self,
        word: &Word<'_>,
        choices: &[(&str, T)],
        help: &str,
        findings: &mut Vec<Finding>,
    ) -> Option<T> {
        let found = choices.iter().find(|(name, _)| name == word.get_ref());
        if found.is_none() {
            let message = format!("`{}` is not a value of `{}`", word.get_ref(), self.key());
            let label = suggest::did_you_mean(word.get_ref(), choices.iter().map(|(name, _)| *name));
            Finding::new(word.span(), message).label(label).help(help).report(findings);
        }
        found.map(|&(_, value)| value)
    }

    pub(crate) fn boolean(&self, findings: &mut Vec<Finding>) -> Option<bool> {
        self.expect("true or false", self.value.get_ref().as_bool(), findings)
    }

    /// The value as a table. `None` for a value of another type: the caller accepts other types as well.
    pub(crate) fn as_table(&self, what: &'static str) -> Option<Table<'t>> {
        self.value.get_ref().as_table().map(|table| Table::open(what, table))
    }

    pub(crate) fn table(&self, what: &'static str, findings: &mut Vec<Finding>) -> Option<Table<'t>> {
        self.expect("a table", self.value.get_ref().as_table(), findings).map(|table| Table::open(what, table))
    }

    /// The tables of a `[[header]]`, each with its span.
    pub(crate) fn tables(&self, what: &'static str, findings: &mut Vec<Finding>) -> Vec<(Range<usize>, Table<'t>)> {
        let Some(array) = self.expect("an array of tables", self.value.get_ref().as_array(), findings) else {
            return Vec::new();
        };
        let tables = self.elements(array, "a table", DeValue::as_table, findings);
        tables.map(|table| (table.span(), Table::open(what, table.into_inner()))).collect()
    }

    /// A string, or the strings of an array. Reports elements of the array that are no strings.
    pub(crate) fn words(&self, findings: &mut Vec<Finding>) -> Option<Vec<Word<'t>>> {
        let array = match self.value.get_ref() {
            DeValue::String(text) => return Some(vec![Spanned::new(self.value.span(), text.as_ref())]),
            DeValue::Array(array) => Some(array),
            _ => None,
        };
        let array = self.expect("a string or an array of strings", array, findings)?;
        Some(self.elements(array, "a string", DeValue::as_str, findings).collect())
    }

    /// The elements of an array, with their spans. Reports elements of another type.
    fn elements<T>(
        &self,
        array: &'t DeArray<'t>,
        expected: &str,
        read: impl Fn(&'t DeValue<'t>) -> Option<T>,
        findings: &mut Vec<Finding>,
    ) -> impl Iterator<Item = Spanned<T>> {
        array.iter().filter_map(move |element| {
            let Some(value) = read(element.get_ref()) else {
                return Finding::new(element.span(), format!("every element of `{}` must be {expected}", self.key()))
                    .label(format!("this is {}", describe(element.get_ref())))
                    .refuse(findings);
            };
            Some(Spanned::new(element.span(), value))
        })
    }

    fn expect<T>(&self, expected: &str, found: Option<T>, findings: &mut Vec<Finding>) -> Option<T> {
        if found.is_none() {
            self.wrong_type(expected).report(findings);
        }
        found
    }

    pub(crate) fn wrong_type(&self, expected: &str) -> Finding {
        let value = self.value.get_ref();
        // The text of a table or an array can be long, so the span is the key.
        let span = if value.is_table() || value.is_array() { self.key_span() } else { self.value.span() };
        Finding::new(span, format!("`{}` must be {expected}", self.key())).label(format!("this is {}", describe(value)))
    }

    /// A finding about two keys that contradict each other, at the later key.
    pub(super) fn conflict(self, other: Self, message: &str, help: &str) -> Finding {
        let is_in_order = self.key_span().start <= other.key_span().start;
        let (first, second) = if is_in_order { (self, other) } else { (other, self) };
        Finding::new(second.key_span(), message)
            .label(format!("`{}` is here", second.key()))
            .related(first.key_span(), format!("`{}` is here", first.key()))
            .help(help)
    }
}

fn describe(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}
