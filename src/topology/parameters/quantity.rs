//! A value with its unit, of any of the quantities: [`quantity`].

use std::{fmt::Display, str::FromStr};

use toml::de::DeValue;

use super::{
    super::{
        diagnostic::Finding,
        reader::TableEntry,
        suggest,
        units::{BytesError, ProbabilityError, RateError, TimeError},
    },
    Reported,
};

/// Why a text is not a quantity, as this module asks of all of them.
pub(super) trait Mistake: Display {
    /// What should have been there, with an example.
    const EXPECTED: &'static str;

    /// What to write instead.
    fn help(&self) -> String;

    /// Whether there is a number and nothing else.
    fn lacks_a_unit(&self) -> bool;
}

macro_rules! mistakes {
    ($($error:ident: $expected:literal),+) => {
        $(impl Mistake for $error {
            const EXPECTED: &'static str = $expected;

            fn help(&self) -> String {
                self.help()
            }

            fn lacks_a_unit(&self) -> bool {
                matches!(self, Self::NoUnit { .. })
            }
        })+
    };
}

mistakes!(
    TimeError: "a time, as in \"75ms\"",
    ProbabilityError: "a percentage, as in \"0.1%\"",
    RateError: "a rate, as in \"100mbit\"",
    BytesError: "a number of bytes, as in \"20B\""
);

/// Reads a value that is a quantity.
pub(super) fn quantity<T: FromStr<Err: Mistake>>(entry: TableEntry<'_>, findings: &mut Vec<Finding>) -> Option<T> {
    read(entry, None, findings).ok().flatten()
}

/// Reads a value that is a quantity or one word: `None` is the word.
pub(super) fn quantity_or<T: FromStr<Err: Mistake>>(
    word: &'static str,
    entry: TableEntry<'_>,
    findings: &mut Vec<Finding>,
) -> Result<Option<T>, Reported> {
    read(entry, Some(word), findings)
}

fn read<T: FromStr<Err: Mistake>>(
    entry: TableEntry<'_>,
    word: Option<&'static str>,
    findings: &mut Vec<Finding>,
) -> Result<Option<T>, Reported> {
    let written = match entry.value().get_ref() {
        DeValue::String(text) if Some(text.as_ref()) == word => return Ok(None),
        DeValue::String(text) => text.to_string(),
        // A bare number is read as if it were quoted, which ends in the advice to write a unit.
        DeValue::Integer(number) => number.to_string(),
        DeValue::Float(number) => number.to_string(),
        _ => {
            let or = word.map(|word| format!(", or \"{word}\"")).unwrap_or_default();
            findings.push(entry.wrong_type(&format!("{}{or}", T::Err::EXPECTED)));
            return Err(Reported);
        }
    };
    let parsed = written.parse::<T>();
    if let Err(error) = &parsed {
        let meant = suggest::nearest(&written, word);
        findings.push(
            Finding::new(entry.value().span(), error.to_string())
                .label(match meant {
                    _ if error.lacks_a_unit() => "a number without a unit".to_owned(),
                    Some(word) => format!("did you mean \"{word}\"?"),
                    None => String::new(),
                })
                .help(error.help()),
        );
    }
    parsed.map(Some).map_err(|_| Reported)
}
