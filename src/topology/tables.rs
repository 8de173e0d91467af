//! Reads the distribution tables of the user: [`read`].
//!
//! A table has the format of iproute2 (`get_distribution` in `tc/q_netem.c`). It contains whole numbers in units of
//! 1/8192 of the jitter, separated by white space. A comment reaches from `#` to the end of the line. tc wraps a number
//! that is too large, reads a leading 0 as octal, and skips the rest of a line after an invalid word. This module
//! reports all three as errors.

use std::{collections::BTreeMap, sync::Arc};

use sha2::{Digest, Sha256};

use super::{
    Tables,
    diagnostic::Finding,
    files::{AttachedFile, AttachedFiles},
    link::TableId,
    reader::Word,
};

/// The largest number of values (`NETEM_DIST_MAX` of `sch_netem.c`).
const MAX_VALUES: usize = 16_384;

/// The largest number of mistakes to report for one table.
const MAX_MISTAKES: usize = 20;

/// The identities of the tables, by their names in the topology file. `None`: the table has mistakes.
pub(super) type TableIds<'t> = BTreeMap<&'t str, Option<TableId>>;

/// The tables that a topology file names.
#[derive(Default)]
pub(super) struct NamedTables<'t> {
    pub(super) ids: TableIds<'t>,
    /// The values of each table, by its identity.
    pub(super) tables: Tables,
}

/// Reads each table once, even if several rules name the same table.
pub(super) fn read<'t>(
    references: &[Word<'t>],
    files: &AttachedFiles<'_>,
    findings: &mut Vec<Finding>,
) -> NamedTables<'t> {
    let mut named = NamedTables::default();
    for word in references {
        if named.ids.contains_key(word.get_ref()) {
            continue;
        }
        let values = files.open(word, findings).and_then(|file| values(&file, findings));
        let id = values.and_then(|values| {
            let id = identity(&values);
            let known = named.tables.entry(id).or_insert_with(|| values.clone());
            if *known == values {
                return Some(id);
            }
            Finding::new(word.span(), format!("this table has the identity {id} of another table"))
                .help("add a value to it: identities have 24 bits")
                .refuse(findings)
        });
        named.ids.insert(word.get_ref(), id);
    }
    named
}

/// The identity of a table: 24 bits of the SHA-256 of its values.
fn identity(values: &[i16]) -> TableId {
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    let hash = Sha256::digest(bytes);
    TableId::new(u32::from_be_bytes([0, hash[0], hash[1], hash[2]]))
}

/// The values of one table. `None` if the table has mistakes, which are reported.
fn values(file: &AttachedFile<'_>, findings: &mut Vec<Finding>) -> Option<Arc<[i16]>> {
    let before = findings.len();
    let mut values = Vec::new();
    for (start, word) in words(file.text) {
        let span = file.span(&(start..start + word.len()));
        if values.len() == MAX_VALUES {
            Finding::new(span, format!("a distribution table has at most {MAX_VALUES} values"))
                .label("too many from here on")
                .report(findings);
            break;
        }
        match value(word) {
            Ok(value) => values.push(value),
            Err((message, help)) => findings.push(Finding::new(span, message).help(help)),
        }
        if findings.len() - before == MAX_MISTAKES {
            break;
        }
    }
    if values.is_empty() && findings.len() == before {
        Finding::new(file.span(&(0..0)), "this distribution table is empty")
            .help("write whole numbers from -32768 to 32767, in units of 1/8192 of the jitter")
            .report(findings);
    }
    (findings.len() == before).then(|| values.into())
}

/// The words outside comments, each with the position of its first byte.
fn words(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let offset = |part: &str| part.as_ptr().addr() - text.as_ptr().addr();
    text.trim_start_matches('\u{feff}')
        .lines()
        .map(|line| line.split_once('#').map_or(line, |(values, _)| values))
        .flat_map(str::split_whitespace)
        .map(move |word| (offset(word), word))
}

/// The value of a word. For a mistake, the message and the help.
fn value(word: &str) -> Result<i16, (String, &'static str)> {
    let digits = word.strip_prefix(['-', '+']).unwrap_or(word);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        let help = "a distribution table has whole numbers, and comments after `#`";
        return Err((format!("`{word}` is not a whole number"), help));
    }
    if digits.len() > 1 && digits.starts_with('0') {
        return Err((format!("`{word}` has a leading zero"), "remove the zero: tc would read an octal number"));
    }
    word.parse().map_err(|_| (format!("`{word}` is not between -32768 and 32767"), "write a 16-bit number"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn table(text: &str) -> Result<Arc<[i16]>, Vec<Finding>> {
        let mut findings = Vec::new();
        let file = AttachedFile { name: "wan.dist".into(), text };
        values(&file, &mut findings).ok_or(findings)
    }

    #[test]
    fn a_table_has_the_format_of_iproute2() {
        let text = "# a comment\n-32768 -1  0\t1 # four\r\n\n   32767\n+7";
        assert_eq!(table(text).unwrap().as_ref(), [-32768, -1, 0, 1, 32767, 7]);
    }

    #[test]
    fn words_have_positions_and_each_mistake_is_reported() {
        assert_eq!(words("\u{feff}# x\n 12 é#3\n 4").collect::<Vec<_>>(), [(8, "12"), (11, "é"), (17, "4")]);
        let mistakes = |text| table(text).expect_err(text).len();
        assert_eq!(mistakes("1 32768 2.5 x 010 --1 -"), 6);
        assert_eq!(mistakes("# nothing\n"), 1);
        assert_eq!(mistakes(&"x ".repeat(1_000)), MAX_MISTAKES);
    }

    #[test]
    fn a_table_has_at_most_16384_values() {
        assert_eq!(table(&"1 ".repeat(MAX_VALUES)).unwrap().len(), MAX_VALUES);
        assert_eq!(table(&"1 ".repeat(MAX_VALUES + 2)).unwrap_err().len(), 1);
    }

    #[test]
    fn the_identity_is_a_hash_of_the_values() {
        // printf '\x01\x00\xff\xff' | sha256sum
        assert_eq!(identity(&[1, -1]).to_string(), "16b8cb");
        assert_ne!(identity(&[1, -1]), identity(&[-1, 1]));
    }

    proptest! {
        #[test]
        fn every_table_is_read_back(values in proptest::collection::vec(any::<i16>(), 1..50)) {
            let text = values.iter().map(i16::to_string).collect::<Vec<_>>().join(" \n");
            prop_assert_eq!(table(&text).unwrap().to_vec(), values);
        }

        #[test]
        fn no_text_makes_the_table_reader_panic(text in "[-+0-9# \r\n\u{feff}é]{0,40}|\\PC{0,40}") {
            prop_assert!(words(&text).all(|(start, word)| text[start..].starts_with(word)));
            drop(table(&text));
        }
    }
}
