//! Reads values with units: [`quantity`].

use toml::de::DeValue;

use super::super::{
    diagnostic::{Finding, Reported},
    reader::TableEntry,
    suggest,
    units::{Quantity, QuantityMistake},
};

/// Reads a quantity.
pub(super) fn quantity<T: Quantity>(entry: TableEntry<'_>, findings: &mut Vec<Finding>) -> Option<T> {
    read(entry, None, findings).ok().flatten()
}

/// Reads a quantity, or `word`, which stands for `None`.
pub(super) fn quantity_or<T: Quantity>(
    word: &'static str,
    entry: TableEntry<'_>,
    findings: &mut Vec<Finding>,
) -> Result<Option<T>, Reported> {
    read(entry, Some(word), findings)
}

fn read<T: Quantity>(
    entry: TableEntry<'_>,
    word: Option<&'static str>,
    findings: &mut Vec<Finding>,
) -> Result<Option<T>, Reported> {
    let text = match entry.value().get_ref() {
        DeValue::String(text) if Some(text.as_ref()) == word => return Ok(None),
        DeValue::String(text) => text.to_string(),
        // A bare number is an error: it has no unit.
        DeValue::Integer(number) => number.to_string(),
        DeValue::Float(number) => number.to_string(),
        _ => {
            let or = word.map(|word| format!(", or \"{word}\"")).unwrap_or_default();
            let expected = format!("{}, as in \"{}\"{or}", T::NOTATION.name, T::NOTATION.example);
            return Err(entry.wrong_type(&expected).report(findings));
        }
    };
    T::parse(&text).map(Some).map_err(|error| {
        let label = match error.mistake() {
            QuantityMistake::NoUnit => "a number without a unit".to_owned(),
            _ => suggest::did_you_mean(&text, word),
        };
        Finding::new(entry.value().span(), error.to_string()).label(label).help(error.help()).report(findings)
    })
}
