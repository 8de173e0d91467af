//! Reads numbers: quantities with a unit, and whole numbers without a unit, such as `limit` and `seed`.

use std::{fmt::Display, ops::RangeInclusive};

use toml::de::DeValue;

use super::{
    super::{
        diagnostic::{Finding, Reported},
        patch::Setting,
        reader::{Table, TableEntry},
        suggest,
        units::{Quantity, QuantityMistake},
    },
    setting,
};

/// Takes `limit`: a number of packets, or `"auto"`.
pub(super) fn take_limit(table: &mut Table<'_>, findings: &mut Vec<Finding>) -> Option<Setting<Option<u32>>> {
    let help = "the number of packets in flight and in the queue; \"auto\" computes it from rate and delay";
    take_or("auto", table.take("limit")?, 1..=u32::MAX, help, findings)
}

/// Takes `seed`: a number, or `"random"`.
pub(super) fn take_seed(table: &mut Table<'_>, findings: &mut Vec<Finding>) -> Option<Setting<Option<u64>>> {
    let help = "the seed of the random numbers; \"random\" is a new seed each time";
    // TOML integers have 63 bits and a sign.
    take_or("random", table.take("seed")?, 0..=i64::MAX.unsigned_abs(), help, findings)
}

/// Reads a whole number in a range.
pub(crate) fn integer<T>(
    entry: TableEntry<'_>,
    range: RangeInclusive<T>,
    help: &str,
    findings: &mut Vec<Finding>,
) -> Option<T>
where
    T: Copy + Display + TryFrom<i128> + Into<i128>,
{
    let DeValue::Integer(written) = entry.value().get_ref() else {
        return entry.wrong_type("an integer").help(help).refuse(findings);
    };
    let (least, most) = (*range.start(), *range.end());
    let number = i128::from_str_radix(written.as_str(), written.radix()).ok();
    let number = number.filter(|number| (least.into()..=most.into()).contains(number));
    if number.is_none() {
        let message = format!("`{}` is between {least} and {most}", entry.key());
        Finding::new(entry.value().span(), message).help(help).report(findings);
    }
    T::try_from(number?).ok()
}

/// Reads a whole number in a range, or `word`, which stands for `None`.
fn take_or<T>(
    word: &'static str,
    entry: TableEntry<'_>,
    range: RangeInclusive<T>,
    help: &str,
    findings: &mut Vec<Finding>,
) -> Option<Setting<Option<T>>>
where
    T: Copy + Display + TryFrom<i128> + Into<i128>,
{
    let expected = format!("an integer or \"{word}\"");
    let wrong = match entry.value().get_ref() {
        DeValue::Integer(_) => return Some(setting(entry, Some(integer(entry, range, help, findings)?))),
        DeValue::String(text) if text == word => return Some(setting(entry, None)),
        DeValue::String(text) if text.parse::<u64>().is_ok() => entry.wrong_type(&expected).label("remove the quotes"),
        DeValue::String(text) => entry.wrong_type(&expected).label(suggest::did_you_mean(text, [word])),
        _ => entry.wrong_type(&expected),
    };
    wrong.help(help).refuse(findings)
}

/// Reads a quantity.
pub(super) fn quantity<T: Quantity>(entry: TableEntry<'_>, findings: &mut Vec<Finding>) -> Option<T> {
    read_quantity(entry, None, findings).ok().flatten()
}

/// Reads a quantity, or `word`, which stands for `None`.
pub(super) fn quantity_or<T: Quantity>(
    word: &'static str,
    entry: TableEntry<'_>,
    findings: &mut Vec<Finding>,
) -> Result<Option<T>, Reported> {
    read_quantity(entry, Some(word), findings)
}

fn read_quantity<T: Quantity>(
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
