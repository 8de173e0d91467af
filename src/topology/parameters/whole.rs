//! Whole numbers without a unit: `limit` and `seed`, and the counts inside other parameters.

use std::{fmt::Display, ops::RangeInclusive};

use toml::de::DeValue;

use super::{
    super::{
        diagnostic::Finding,
        patch::Said,
        reader::{Table, TableEntry},
        suggest,
    },
    Reported, said,
};

/// Takes `limit`: a number of packets, or `"auto"`.
pub(super) fn take_limit(table: &mut Table<'_>, findings: &mut Vec<Finding>) -> Option<Said<Option<u32>>> {
    let entry = table.take("limit")?;
    let help = "so many packets may be under way at once; \"auto\" is as many as the rate and the delay need";
    integer_or("auto", entry, 1..=u32::MAX, help, findings).ok().map(|limit| said(entry, limit))
}

/// Takes `seed`: a number, or `"random"`.
pub(super) fn take_seed(table: &mut Table<'_>, findings: &mut Vec<Finding>) -> Option<Said<Option<u64>>> {
    let entry = table.take("seed")?;
    // TOML's integers have 63 bits and a sign.
    let range = 0..=i64::MAX.unsigned_abs();
    let help = "what the dice start from; \"random\" is another start each time";
    integer_or("random", entry, range, help, findings).ok().map(|seed| said(entry, seed))
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
        findings.push(entry.wrong_type("an integer").help(help));
        return None;
    };
    let (least, most) = (*range.start(), *range.end());
    let number = i128::from_str_radix(written.as_str(), written.radix()).ok();
    let number = number.filter(|number| (least.into()..=most.into()).contains(number));
    if number.is_none() {
        let message = format!("`{}` is between {least} and {most}", entry.key());
        findings.push(Finding::new(entry.value().span(), message).help(help));
    }
    T::try_from(number?).ok()
}

/// Reads a whole number in a range, or one word: `None` is the word.
fn integer_or<T>(
    word: &'static str,
    entry: TableEntry<'_>,
    range: RangeInclusive<T>,
    help: &str,
    findings: &mut Vec<Finding>,
) -> Result<Option<T>, Reported>
where
    T: Copy + Display + TryFrom<i128> + Into<i128>,
{
    match entry.value().get_ref() {
        DeValue::Integer(_) => integer(entry, range, help, findings).map(Some).ok_or(Reported),
        DeValue::String(text) if text == word => Ok(None),
        DeValue::String(text) => {
            let label = if text.parse::<u64>().is_ok() {
                "write it without quotes".to_owned()
            } else {
                suggest::nearest(text, [word]).map(|word| format!("did you mean \"{word}\"?")).unwrap_or_default()
            };
            let message = format!("`{}` must be an integer or \"{word}\"", entry.key());
            findings.push(Finding::new(entry.value().span(), message).label(label).help(help));
            Err(Reported)
        }
        _ => {
            findings.push(entry.wrong_type(&format!("an integer or \"{word}\"")).help(help));
            Err(Reported)
        }
    }
}
