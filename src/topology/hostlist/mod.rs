//! Reads and writes hostlists, a short notation for many names: `ecotype-[1-3,7].site` stands for four names.
//!
//! A hostlist is a list of items, separated by commas. An item is text with any number of brackets. A bracket contains
//! numbers and ranges. An item with several brackets stands for all combinations: `r[1-2]n[1-2]` is `r1n1`, `r1n2`,
//! `r2n1` and `r2n2`. A leading zero gives all numbers of a range the same width: `n[08-10]` is `n08`, `n09` and `n10`.
//! First functions to read: [`expand`] and its inverse, [`fold()`].

mod fold;

pub use fold::fold;

use super::{MAX_NODES, name::MAX_NAME_CHARS};

/// The names of a hostlist in its order, with repetitions.
///
/// The function counts the names before it expands the hostlist, so `n[1-4000000000]` is an error at once. The function
/// does not check the characters of the names.
///
/// # Errors
///
/// The hostlist is malformed, has more than [`MAX_NODES`] names, or has a name of more than [`MAX_NAME_CHARS`]
/// characters.
///
/// ```
/// use netemctl::topology::hostlist;
///
/// assert_eq!(hostlist::expand("n[08-10],gw").unwrap(), ["n08", "n09", "n10", "gw"]);
/// ```
pub fn expand(text: &str) -> Result<Vec<String>, HostlistError> {
    Hostlist::parse(text).map(|list| list.names())
}

/// The hostlist that the user probably means by a name without brackets: `n[1-3]` for `n1-3`, `n1-n3` or `n1..3`.
///
/// `None` for a name that is probably no range.
pub(crate) fn meant_as_range(name: &str) -> Option<String> {
    let split = |text: &str| {
        let stem = text.trim_end_matches(|last: char| last.is_ascii_digit()).len();
        (text[..stem].to_owned(), text[stem..].to_owned())
    };
    let (rest, last) = split(name);
    let ends = ["..", "-"].into_iter().find_map(|separator| {
        let alone = rest.strip_suffix(separator).map(split);
        let repeated = rest.match_indices(separator).find_map(|(at, _)| {
            let (stem, first) = split(&rest[..at]);
            (stem == rest[at + separator.len()..]).then_some((stem, first))
        });
        alone.into_iter().chain(repeated).find(|(stem, first)| {
            let number = |digits: &str| digits.parse::<u64>().ok();
            stem.ends_with(|end: char| end.is_ascii_alphabetic())
                && number(first).zip(number(&last)).is_some_and(|(first, last)| first < last)
        })
    });
    ends.map(|(stem, first)| format!("{stem}[{first}-{last}]"))
}

/// A mistake in a hostlist.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostlistError {
    /// An empty list, or a comma without a name before or after the comma.
    #[error("a name is missing in `{0}`")]
    EmptyItem(String),
    /// `[` without `]`, `]` without `[`, or `[` inside brackets.
    #[error("unmatched bracket in `{0}`")]
    Unbalanced(String),
    /// `[]`.
    #[error("empty brackets in `{0}`")]
    EmptyBracket(String),
    /// Text in brackets that is neither a number nor a range.
    #[error("`{0}` is neither a number nor a range of numbers")]
    NotARange(String),
    /// A range whose last number is less than the first.
    #[error("the range `{0}` is reversed")]
    Reversed(String),
    /// A range with a leading zero whose ends have different numbers of digits.
    #[error("the ends of `{0}` have different numbers of digits")]
    Padding(String),
    /// More than [`MAX_NODES`] names.
    #[error("more than {MAX_NODES} names in `{0}`")]
    TooMany(String),
    /// A name with more characters than the limit, which is [`MAX_NAME_CHARS`] for a node.
    #[error("a name of more than {limit} characters in `{list}`")]
    NameTooLong {
        /// The whole list.
        list: String,
        /// The largest number of characters.
        limit: usize,
    },
}

impl HostlistError {
    /// The remedy.
    pub fn help(&self) -> String {
        match self {
            Self::EmptyItem(_) => "write a name before and after every comma".to_owned(),
            Self::Unbalanced(_) => "brackets are not nested: \"n[1-3]\" is n1, n2 and n3".to_owned(),
            Self::EmptyBracket(_) | Self::NotARange(_) => {
                "brackets hold numbers and ranges, as in \"n[1-3,7]\"".to_owned()
            }
            Self::Reversed(range) => {
                let (first, last) = range.split_once('-').unwrap_or((range, range));
                format!("write `{last}-{first}`")
            }
            Self::Padding(_) => {
                "with a leading zero, both ends have the same number of digits: \"n[01-15]\"".to_owned()
            }
            Self::TooMany(_) => format!("a topology has at most {MAX_NODES} nodes"),
            Self::NameTooLong { .. } => "write a shorter name".to_owned(),
        }
    }
}

/// A hostlist that is parsed and counted, but not expanded.
pub(crate) struct Hostlist<'a> {
    items: Vec<Item<'a>>,
    count: usize,
}

type Item<'a> = Vec<Part<'a>>;

enum Part<'a> {
    Text(&'a str),
    Bracket(Vec<Range>),
}

/// `first..=last`, written with at least `width` digits.
struct Range {
    first: u64,
    last: u64,
    width: usize,
}

impl<'a> Hostlist<'a> {
    /// Parses a list of nodes or zones.
    pub(crate) fn parse(list: &'a str) -> Result<Self, HostlistError> {
        Self::parse_up_to(list, MAX_NAME_CHARS)
    }

    /// Parses a list of names, each with at most `limit` characters.
    pub(crate) fn parse_up_to(list: &'a str, limit: usize) -> Result<Self, HostlistError> {
        let items = split_outside_brackets(list)?
            .into_iter()
            .map(|item| parse_item(item.trim(), list))
            .collect::<Result<Vec<_>, _>>()?;
        if items.iter().any(|item| longest_name(item) > limit) {
            return Err(HostlistError::NameTooLong { list: list.to_owned(), limit });
        }
        let count = items.iter().map(count_names).fold(0, u64::saturating_add);
        match usize::try_from(count) {
            Ok(count) if count <= MAX_NODES => Ok(Self { items, count }),
            _ => Err(HostlistError::TooMany(list.to_owned())),
        }
    }

    /// The number of names: 1 to [`MAX_NODES`].
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.items.iter().flat_map(item_names).collect()
    }
}

/// True if the text is a hostlist, false if it is a plain name.
pub(crate) fn is_list(text: &str) -> bool {
    text.contains(['[', ']', ','])
}

/// Splits at the commas outside brackets.
fn split_outside_brackets(list: &str) -> Result<Vec<&str>, HostlistError> {
    let (mut is_inside, mut is_balanced) = (false, true);
    let items = list.split(|character| {
        if matches!(character, '[' | ']') {
            is_balanced &= is_inside == (character == ']');
            is_inside = character == '[';
        }
        character == ',' && !is_inside
    });
    let items = items.collect();
    if is_balanced && !is_inside { Ok(items) } else { Err(HostlistError::Unbalanced(list.to_owned())) }
}

fn parse_item<'a>(item: &'a str, list: &str) -> Result<Item<'a>, HostlistError> {
    if item.is_empty() {
        return Err(HostlistError::EmptyItem(list.to_owned()));
    }
    let mut parts = Vec::new();
    let mut rest = item;
    while let Some((text, behind)) = rest.split_once('[') {
        let Some((bracket, behind)) = behind.split_once(']') else {
            return Err(HostlistError::Unbalanced(list.to_owned()));
        };
        if bracket.trim().is_empty() {
            return Err(HostlistError::EmptyBracket(list.to_owned()));
        }
        let ranges = bracket.split(',').map(|range| parse_range(range.trim())).collect::<Result<_, _>>()?;
        parts.extend([Part::Text(text), Part::Bracket(ranges)]);
        rest = behind;
    }
    parts.push(Part::Text(rest));
    Ok(parts)
}

fn parse_range(range: &str) -> Result<Range, HostlistError> {
    let number = |digits: &str| {
        let all_digits = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        digits.parse::<u64>().ok().filter(|_| all_digits).ok_or_else(|| HostlistError::NotARange(range.to_owned()))
    };
    let padded = |digits: &str| digits.len() > 1 && digits.starts_with('0');

    let (first_digits, last_digits) = range.split_once('-').unwrap_or((range, range));
    let (first, last) = (number(first_digits)?, number(last_digits)?);
    if last < first {
        return Err(HostlistError::Reversed(range.to_owned()));
    }
    if (padded(first_digits) || padded(last_digits)) && first_digits.len() != last_digits.len() {
        return Err(HostlistError::Padding(range.to_owned()));
    }
    Ok(Range { first, last, width: if padded(first_digits) { first_digits.len() } else { 1 } })
}

/// The number of names of an item. Saturates: the product of a few brackets exceeds 64 bits.
fn count_names(item: &Item<'_>) -> u64 {
    item.iter().fold(1, |count: u64, part| match part {
        Part::Text(_) => count,
        Part::Bracket(ranges) => {
            let numbers = ranges.iter().map(|range| (range.last - range.first).saturating_add(1));
            count.saturating_mul(numbers.fold(0, u64::saturating_add))
        }
    })
}

/// An upper bound of the length of the item's names.
fn longest_name(item: &Item<'_>) -> usize {
    item.iter()
        .map(|part| match part {
            Part::Text(text) => text.len(),
            Part::Bracket(ranges) => {
                let digits = |range: &Range| range.last.checked_ilog10().map_or(1, |log| log as usize + 1);
                ranges.iter().map(|range| range.width.max(digits(range))).max().unwrap_or(0)
            }
        })
        .sum()
}

fn item_names(item: &Item<'_>) -> Vec<String> {
    item.iter().fold(vec![String::new()], |mut stems, part| match part {
        Part::Text(text) => {
            for stem in &mut stems {
                stem.push_str(text);
            }
            stems
        }
        Part::Bracket(ranges) => stems
            .iter()
            .flat_map(|stem| {
                ranges.iter().flat_map(move |&Range { first, last, width }| {
                    (first..=last).map(move |number| format!("{stem}{number:0width$}"))
                })
            })
            .collect(),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_probable_range_without_brackets_is_recognised() {
        for name in ["n1-3", "n1-n3", "n1..3", "n1..n3"] {
            assert_eq!(meant_as_range(name).as_deref(), Some("n[1-3]"), "{name}");
        }
        assert_eq!(meant_as_range("eu-west1-eu-west9").as_deref(), Some("eu-west[1-9]"));
        for name in ["n1", "n3-1", "ip-10-0-0-5", "10-20", "n-3", "us-east1-b2", "n[1-3]", "a-b", "", "n1-m3"] {
            assert_eq!(meant_as_range(name), None, "{name}");
        }
    }

    #[test]
    fn brackets_expand_to_their_numbers() {
        let expands = |list: &str, names: &[&str]| assert_eq!(expand(list).unwrap(), names, "{list}");
        expands("n1", &["n1"]);
        expands("ecotype-[1-3,7].site", &["ecotype-1.site", "ecotype-2.site", "ecotype-3.site", "ecotype-7.site"]);
        expands("n[08-10]", &["n08", "n09", "n10"]);
        expands("n[9-10]", &["n9", "n10"]);
        expands("n[0-1]", &["n0", "n1"]);
        expands("n1, n[3-4] ,gw", &["n1", "n3", "n4", "gw"]);
        expands("r[1-2]n[1-2]", &["r1n1", "r1n2", "r2n1", "r2n2"]);
        expands("[1-2][5]", &["15", "25"]);
        expands("n[2,1,1]", &["n2", "n1", "n1"]);
    }

    #[test]
    fn each_mistake_in_a_hostlist_has_its_own_error() {
        let fails = |list: &str, text: &str| assert_eq!(expand(list).expect_err(list).to_string(), text);
        fails("", "a name is missing in ``");
        fails("n1,,n2", "a name is missing in `n1,,n2`");
        fails("n1,", "a name is missing in `n1,`");
        fails("n[1-3", "unmatched bracket in `n[1-3`");
        fails("n1-3]", "unmatched bracket in `n1-3]`");
        fails("n[[1]]", "unmatched bracket in `n[[1]]`");
        fails("n[]", "empty brackets in `n[]`");
        fails("n[a]", "`a` is neither a number nor a range of numbers");
        fails("n[1-]", "`1-` is neither a number nor a range of numbers");
        fails("n[1-2-3]", "`1-2-3` is neither a number nor a range of numbers");
        fails("n[+1]", "`+1` is neither a number nor a range of numbers");
        fails("n[1,,2]", "`` is neither a number nor a range of numbers");
        fails("n[3-1]", "the range `3-1` is reversed");
        fails("n[1-015]", "the ends of `1-015` have different numbers of digits");
        fails("n[08-100]", "the ends of `08-100` have different numbers of digits");
        fails(&"x".repeat(64), &format!("a name of more than 63 characters in `{}`", "x".repeat(64)));
    }

    #[test]
    fn a_list_that_is_too_long_is_refused_before_it_is_expanded() {
        let error = |list: &str| expand(list).expect_err(list);
        assert!(matches!(error("n[1-4000000000]"), HostlistError::TooMany(_)));
        assert!(matches!(error("n[0-18446744073709551615]"), HostlistError::TooMany(_)));
        assert!(matches!(error("[1-9999][1-9999][1-9999][1-9999][1-9999]"), HostlistError::TooMany(_)));
        assert!(matches!(error("n[1-131072],n0"), HostlistError::TooMany(_)));
        assert_eq!(expand("n[1-131072]").unwrap().len(), MAX_NODES);
    }

    proptest! {
        #[test]
        fn no_text_makes_the_hostlist_parser_panic(list in "[n0-9,\\[\\] -]{0,24}|\\PC{0,12}") {
            if let Ok(parsed) = Hostlist::parse(&list) {
                prop_assert_eq!(parsed.names().len(), parsed.count());
            }
        }
    }
}
