//! The names of nodes and zones: [`NodeName`] and [`ZoneName`].
//!
//! A name is an identifier, not a host name: the inventory has the hosts.

use std::{cmp::Ordering, fmt, ops::Range, str::FromStr, sync::Arc};

use super::{diagnostic::Finding, json_text};

/// The largest number of characters of a name.
///
/// A DNS label has the same limit, so a node can have the name of its host.
pub const MAX_NAME_CHARS: usize = 63;

/// The mistake in a text that is not a valid name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The text is empty.
    #[error("a name cannot be empty")]
    Empty,
    /// The text has more than [`MAX_NAME_CHARS`] characters.
    #[error("a name has at most {MAX_NAME_CHARS} characters")]
    TooLong,
    /// The first character is neither a letter nor a digit.
    #[error("a name cannot start with {0:?}")]
    Start(char),
    /// The text has a character that is not allowed in a name.
    #[error("a name cannot contain {0:?}")]
    Character(char),
}

/// The remedy for an invalid name.
pub(crate) const NAME_HELP: &str =
    "a name is made of ASCII letters, digits, `-`, `.` and `_`, and starts with a letter or a digit";

impl NameError {
    /// The finding about an invalid name. `what` describes a valid name: "a node's name".
    pub(crate) fn finding(&self, span: Range<usize>, name: &str, what: &str) -> Finding {
        Finding::new(span, format!("`{name}` is not {what}")).label(self.to_string()).help(NAME_HELP)
    }
}

fn check(text: &str) -> Result<(), NameError> {
    let first = text.chars().next().ok_or(NameError::Empty)?;
    if let Some(odd) = text.chars().find(|c| !c.is_ascii_alphanumeric() && !matches!(c, '-' | '.' | '_')) {
        return Err(NameError::Character(odd));
    }
    if !first.is_ascii_alphanumeric() {
        return Err(NameError::Start(first));
    }
    // All characters are ASCII, so the number of bytes is the number of characters.
    if text.len() > MAX_NAME_CHARS {
        return Err(NameError::TooLong);
    }
    Ok(())
}

/// Compares numbers by their values and other text by its bytes: `n2` comes before `n10`.
///
/// Names that differ only in leading zeros (`n1`, `n01`) are compared by their bytes. So only the same names are equal
/// in this order.
fn natural_order(left: &str, right: &str) -> Ordering {
    if left == right {
        return Ordering::Equal;
    }
    let (mut a, mut b) = (left.as_bytes(), right.as_bytes());
    loop {
        let order = match (a.first(), b.first()) {
            (Some(x), Some(y)) if x.is_ascii_digit() && y.is_ascii_digit() => {
                let (number_a, number_b);
                (number_a, a) = split_number(a);
                (number_b, b) = split_number(b);
                number_a.len().cmp(&number_b.len()).then_with(|| number_a.cmp(number_b))
            }
            (Some(x), Some(y)) => {
                (a, b) = (&a[1..], &b[1..]);
                x.cmp(y)
            }
            (None, None) => return left.cmp(right),
            (x, y) => x.cmp(&y),
        };
        if order.is_ne() {
            return order;
        }
    }
}

/// Splits off the digits at the start of a text, and removes their leading zeros.
///
/// Without leading zeros, the longer of two numbers is the larger number.
fn split_number(text: &[u8]) -> (&[u8], &[u8]) {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let zeros = text[..digits].iter().take_while(|&&byte| byte == b'0').count();
    (&text[zeros..digits], &text[digits..])
}

/// The first bytes of a text's sort key. A text with a lower head comes first in [`natural_order`].
///
/// The sort key has a number as `0`, the number of its digits and the digits, so that keys can be compared byte by byte.
fn head(text: &str) -> u64 {
    let (mut key, mut rest) = ([0; size_of::<u64>()], text.as_bytes());
    let mut places = key.iter_mut();
    let mut push = |byte| places.next().map(|place| *place = byte).is_some();
    while let Some((byte, others)) = rest.split_first() {
        let is_pushed = if byte.is_ascii_digit() {
            let number;
            (number, rest) = split_number(rest);
            push(b'0') && u8::try_from(number.len()).is_ok_and(&mut push) && number.iter().copied().all(&mut push)
        } else {
            rest = others;
            push(*byte)
        };
        if !is_pushed {
            break;
        }
    }
    u64::from_be_bytes(key)
}

/// Defines a type for names. Nodes and zones have different types, so code cannot mix them.
///
/// The types do not implement `Borrow<str>`: `Borrow` requires the order of strings, but names have another order.
macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash)]
        #[cfg_attr(test, derive(schemars::JsonSchema), schemars(with = "String"))]
        pub struct $name {
            /// The [`head`] of the text: maps of 10,000 names compare little else.
            head: u64,
            /// An `Arc`, because many places store the same name.
            text: Arc<str>,
        }

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.text
            }

            /// The shared text, for the keys of an index.
            pub(super) fn shared(&self) -> Arc<str> {
                Arc::clone(&self.text)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.text)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.text, f)
            }
        }

        impl Ord for $name {
            fn cmp(&self, other: &Self) -> Ordering {
                self.head.cmp(&other.head).then_with(|| natural_order(&self.text, &other.text))
            }
        }

        impl PartialOrd for $name {
            fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
                Some(self.cmp(other))
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                check(text)?;
                Ok(Self { head: head(text), text: text.into() })
            }
        }

        json_text!($name);

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.text
            }
        }
    };
}

name! {
    /// The name of a node: 1 to [`MAX_NAME_CHARS`] ASCII letters, digits, `-`, `.` and `_`.
    ///
    /// The first character is a letter or a digit.
    NodeName
}

name! {
    /// The name of a zone, with the characters of a [`NodeName`].
    ZoneName
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn node(text: &str) -> NodeName {
        text.parse().unwrap()
    }

    #[test]
    fn names_of_cluster_nodes_are_valid() {
        for text in ["n1", "1", "ecotype-1.nantes.grid5000.fr", "A_b", &"x".repeat(63)] {
            assert_eq!(node(text).to_string(), text);
        }
    }

    #[test]
    fn the_error_about_a_name_has_the_invalid_character() {
        let error = |text: &str| text.parse::<NodeName>().expect_err(text);
        assert_eq!(error(""), NameError::Empty);
        assert_eq!(error("-n1"), NameError::Start('-'));
        assert_eq!(error(".n1"), NameError::Start('.'));
        assert_eq!(error("n 1"), NameError::Character(' '));
        assert_eq!(error("*"), NameError::Character('*'));
        assert_eq!(error("é"), NameError::Character('é'));
        assert_eq!(error(&"x".repeat(64)), NameError::TooLong);
        assert_eq!(error("n\u{1b}").to_string(), r"a name cannot contain '\u{1b}'");
    }

    #[test]
    fn numbers_in_names_are_ordered_by_value() {
        let mut names = ["n10", "n2", "n", "n1", "n01", "n1-b", "a9", "n1.b", "N1", "n2a10", "n2a9"].map(node);
        names.sort();
        assert_eq!(
            names.map(|name| name.to_string()),
            ["N1", "a9", "n", "n01", "n1", "n1-b", "n1.b", "n2", "n2a9", "n2a10", "n10"]
        );
    }

    proptest! {
        #[test]
        fn the_order_of_names_is_total_and_agrees_with_equality(
            a in "[n01.]{1,5}", b in "[n01.]{1,5}", c in "[n01.]{1,5}",
        ) {
            prop_assert_eq!(natural_order(&a, &b), natural_order(&b, &a).reverse());
            prop_assert_eq!(natural_order(&a, &b).is_eq(), a == b);
            if natural_order(&a, &b).is_le() && natural_order(&b, &c).is_le() {
                prop_assert!(natural_order(&a, &c).is_le());
            }
        }

        #[test]
        fn a_lower_head_comes_first(a in "[n0-29.-]{1,9}", b in "[n0-29.-]{1,9}") {
            prop_assert!(head(&a) == head(&b) || head(&a).cmp(&head(&b)) == natural_order(&a, &b), "{} {}", head(&a), head(&b));
        }
    }
}
