//! Distribution tables of the user's own: [`read`].
//!
//! The format is iproute2's (`get_distribution` in its `tc/q_netem.c`; `netem/maketable.c` writes it): whole numbers
//! with spaces or line breaks between them, in units of 1/8192 of the jitter, and comments from `#` to the line's end.
//! tc wraps a number that is too large, takes one with a leading 0 for an octal one, and skips what is no number with
//! the rest of its line; here these are errors.

use std::{collections::BTreeMap, sync::Arc};

use sha2::{Digest, Sha256};

use super::{
    Tables,
    diagnostic::Finding,
    files::{Files, Opened},
    link::TableId,
    reader::Word,
};

/// How many values a table may have (`NETEM_DIST_MAX` of `sch_netem.c`).
const MAX_VALUES: usize = 16_384;

/// How many mistakes of one table are shown: a file that is no table has one in every word.
const MAX_MISTAKES: usize = 20;

/// What the tables are called, by the names that a topology file has for them; none of a table that is broken, which
/// is reported by then.
pub(super) type TableIds<'t> = BTreeMap<&'t str, Option<TableId>>;

/// The tables that a topology file refers to.
#[derive(Default)]
pub(super) struct NamedTables<'t> {
    pub(super) ids: TableIds<'t>,
    /// What is in them.
    pub(super) tables: Tables,
}

/// Reads every table that is referred to, each once. What is wrong is reported at the first of its names.
pub(super) fn read<'t>(references: &[Word<'t>], files: &Files<'_>, findings: &mut Vec<Finding>) -> NamedTables<'t> {
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
            findings.push(
                Finding::new(word.span(), format!("this table has the identity {id} of another one"))
                    .help("add a value to it: two tables in 16 million are alike in that"),
            );
            None
        });
        named.ids.insert(word.get_ref(), id);
    }
    named
}

/// What is in a table decides what it is called.
fn identity(values: &[i16]) -> TableId {
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    let hash = Sha256::digest(bytes);
    TableId::new(u32::from_be_bytes([0, hash[0], hash[1], hash[2]]))
}

fn values(file: &Opened<'_>, findings: &mut Vec<Finding>) -> Option<Arc<[i16]>> {
    let before = findings.len();
    let mut values = Vec::new();
    for (start, word) in words(file.text) {
        let place = file.place(start..start + word.len());
        if values.len() == MAX_VALUES {
            findings.push(
                Finding::new(place, format!("a distribution table has at most {MAX_VALUES} values"))
                    .label("one too many"),
            );
            break;
        }
        match value(word) {
            Ok(value) => values.push(value),
            Err(mistake) => findings.push(Finding::new(place, mistake.message(word)).help(mistake.help())),
        }
        if findings.len() - before == MAX_MISTAKES {
            break;
        }
    }
    if values.is_empty() && findings.len() == before {
        findings.push(
            Finding::new(file.place(0..0), "there are no values in this distribution table")
                .help("write whole numbers from -32768 to 32767, in units of 1/8192 of the jitter"),
        );
    }
    (findings.len() == before).then(|| values.into())
}

/// What is neither space nor comment, each with its first byte.
fn words(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let place = |part: &str| part.as_ptr().addr() - text.as_ptr().addr();
    text.trim_start_matches('\u{feff}')
        .lines()
        .map(|line| line.split_once('#').map_or(line, |(values, _)| values))
        .flat_map(str::split_whitespace)
        .map(move |word| (place(word), word))
}

/// Why a word is not a value.
enum Mistake {
    NotANumber,
    LeadingZero,
    OutOfRange,
}

fn value(word: &str) -> Result<i16, Mistake> {
    let digits = word.strip_prefix(['-', '+']).unwrap_or(word);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Mistake::NotANumber);
    }
    if digits.len() > 1 && digits.starts_with('0') {
        return Err(Mistake::LeadingZero);
    }
    word.parse().map_err(|_| Mistake::OutOfRange)
}

impl Mistake {
    fn message(&self, word: &str) -> String {
        match self {
            Self::NotANumber => format!("`{word}` is not a whole number"),
            Self::LeadingZero => format!("a number with a leading zero: `{word}`"),
            Self::OutOfRange => format!("`{word}` is out of range"),
        }
    }

    fn help(&self) -> &'static str {
        match self {
            Self::NotANumber => "a distribution table has whole numbers only, and comments behind `#`",
            Self::LeadingZero => "tc would read it as an octal one: write it without the zero",
            Self::OutOfRange => "the values of a distribution table are from -32768 to 32767",
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn table(text: &str) -> Result<Arc<[i16]>, Vec<Finding>> {
        let mut findings = Vec::new();
        let file = Opened { name: "wan.dist".into(), text };
        values(&file, &mut findings).ok_or(findings)
    }

    #[test]
    fn a_table_is_what_iproute2_takes_for_one() {
        let text = "# a comment\n-32768 -1  0\t1 # four\r\n\n   32767\n+7";
        assert_eq!(table(text).unwrap().as_ref(), [-32768, -1, 0, 1, 32767, 7]);
    }

    #[test]
    fn mistakes_have_their_places() {
        assert_eq!(words("\u{feff}# x\n 12 é#3\n 4").collect::<Vec<_>>(), [(8, "12"), (11, "é"), (17, "4")]);
        let mistakes = |text| table(text).expect_err(text).len();
        assert_eq!(mistakes("1 32768 2.5 x 010 --1 -"), 6);
        assert_eq!(mistakes("# nothing\n"), 1);
        assert_eq!(mistakes(&"x ".repeat(1_000)), MAX_MISTAKES);
    }

    #[test]
    fn the_kernel_takes_16384_values() {
        assert_eq!(table(&"1 ".repeat(MAX_VALUES)).unwrap().len(), MAX_VALUES);
        assert_eq!(table(&"1 ".repeat(MAX_VALUES + 2)).unwrap_err().len(), 1);
    }

    #[test]
    fn the_identity_is_that_of_the_values() {
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
        fn no_text_is_too_strange(text in "[-+0-9# \r\n\u{feff}é]{0,40}|\\PC{0,40}") {
            prop_assert!(words(&text).all(|(start, word)| text[start..].starts_with(word)));
            drop(table(&text));
        }
    }
}
