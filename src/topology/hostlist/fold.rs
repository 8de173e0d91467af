//! Writes names as a hostlist: [`fold`], the inverse of [`expand`](super::expand).

use std::fmt::{self, Write as _};

/// Writes names as a hostlist, such as `n[1-9]`.
///
/// The hostlist expands to the same names in the same order. Only adjacent names are folded, so sorted names give the
/// shortest text.
pub fn fold<N: AsRef<str>>(names: impl IntoIterator<Item = N>) -> String {
    let names: Vec<N> = names.into_iter().collect();
    let mut text = String::new();
    let mut rest = &names[..];
    while !rest.is_empty() {
        let family = Family::at_start_of(rest);
        if !text.is_empty() {
            text.push(',');
        }
        // Writing to a String cannot fail.
        let _ = write!(text, "{family}");
        rest = &rest[family.numbers.len()..];
    }
    text
}

/// Adjacent names that differ in one number: `prefix[numbers]suffix`.
struct Family<'a> {
    prefix: &'a str,
    suffix: &'a str,
    /// The digits of each name, as written. If the family has one name, the whole name.
    numbers: Vec<&'a str>,
}

impl<'a> Family<'a> {
    /// The longest family at the start of `names`. `names` must not be empty.
    fn at_start_of<N: AsRef<str>>(names: &'a [N]) -> Self {
        let first = names[0].as_ref();
        let Some((prefix, suffix)) = names.get(1).and_then(|second| frame(first, second.as_ref())) else {
            return Self { prefix: "", suffix: "", numbers: vec![first] };
        };
        let number = |name: &'a N| {
            let number = name.as_ref().strip_prefix(prefix)?.strip_suffix(suffix)?;
            value(number).map(|_| number)
        };
        Self { prefix, suffix, numbers: names.iter().map_while(number).collect() }
    }
}

impl fmt::Display for Family<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let [single] = self.numbers[..] {
            return write!(f, "{}{single}{}", self.prefix, self.suffix);
        }
        write!(f, "{}[", self.prefix)?;
        let mut rest = &self.numbers[..];
        while let [first, ..] = *rest {
            let length = run_length(rest);
            match length {
                1 => f.write_str(first)?,
                _ => write!(f, "{first}-{}", rest[length - 1])?,
            }
            rest = &rest[length..];
            if !rest.is_empty() {
                f.write_char(',')?;
            }
        }
        write!(f, "]{}", self.suffix)
    }
}

/// The text before and after the only number in which two names differ. `None` if the names differ elsewhere.
fn frame<'a>(a: &'a str, b: &str) -> Option<(&'a str, &'a str)> {
    let is_digit = |byte: &u8| byte.is_ascii_digit();
    let same = a.bytes().zip(b.bytes()).take_while(|(x, y)| x == y).count();
    // The whole number belongs to the difference, even if the first digits are the same.
    let start = same - a.as_bytes()[..same].iter().rev().take_while(|byte| is_digit(byte)).count();
    let number_in = |name: &str| name.as_bytes()[start..].iter().take_while(|byte| is_digit(byte)).count();
    let (prefix, suffix) = (&a[..start], &a[start + number_in(a)..]);
    let (number_a, number_b) = (&a[start..start + number_in(a)], &b[start..start + number_in(b)]);
    let alike = b[start + number_in(b)..] == *suffix && value(number_a).is_some() && value(number_b).is_some();
    alike.then_some((prefix, suffix))
}

/// The value of decimal digits. `None` for other text, and for a number of more than 64 bits.
fn value(digits: &str) -> Option<u64> {
    let all_digits = digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|_| all_digits)
}

/// The count of numbers at the start that one range can replace: at least 1.
///
/// The range expands to the same numbers with the same leading zeros.
fn run_length(numbers: &[&str]) -> usize {
    let is_padded = |digits: &str| digits.len() > 1 && digits.starts_with('0');
    let first = numbers[0];
    let continues = |pair: &&[&str]| {
        let successor = value(pair[0]).and_then(|number| number.checked_add(1));
        let same_width = pair[1].len() == first.len();
        successor.is_some() && successor == value(pair[1]) && (same_width || !is_padded(first) && !is_padded(pair[1]))
    };
    1 + numbers.windows(2).take_while(continues).count()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::topology::NodeName;
    use crate::topology::hostlist::expand;

    fn folded(names: &[&str]) -> String {
        let names: Vec<NodeName> = names.iter().map(|name| name.parse().unwrap()).collect();
        fold(&names)
    }

    #[test]
    fn adjacent_names_fold_into_ranges() {
        assert_eq!(folded(&[]), "");
        assert_eq!(folded(&["n1"]), "n1");
        assert_eq!(folded(&["n1", "n2", "n3", "n7"]), "n[1-3,7]");
        assert_eq!(folded(&["n9", "n10", "n11"]), "n[9-11]");
        assert_eq!(folded(&["n09", "n10", "n99", "n100"]), "n[09-10,99-100]");
        assert_eq!(folded(&["n098", "n099", "n100"]), "n[098-100]");
        assert_eq!(folded(&["n98", "n99", "n100"]), "n[98-100]");
        assert_eq!(folded(&["n08", "n09", "n10"]), "n[08-10]");
        assert_eq!(folded(&["n0", "n1", "n01"]), "n[0-1,01]");
        assert_eq!(folded(&["a", "b1", "b2", "c"]), "a,b[1-2],c");
        assert_eq!(folded(&["e-1.site", "e-2.site", "e-1.town"]), "e-[1-2].site,e-1.town");
        assert_eq!(folded(&["n1-eth0", "n2-eth0"]), "n[1-2]-eth0");
        assert_eq!(folded(&["n19", "n11"]), "n[19,11]");
        assert_eq!(folded(&["n1", "n1"]), "n[1,1]");
    }

    proptest! {
        #[test]
        fn expand_is_the_inverse_of_fold(
            names in proptest::collection::vec("[a0-9][a0-2.]{0,3}|n[0-9]{1,3}|9{19,21}", 1..40),
        ) {
            let nodes: Vec<NodeName> = names.iter().map(|name| name.parse().unwrap()).collect();
            prop_assert_eq!(expand(&fold(&nodes)).unwrap(), names);
        }

        #[test]
        fn a_range_keeps_the_padding_of_its_names(first in 0_u32..120, more in 1_u32..120, padding in 1_usize..5) {
            let names: Vec<String> = (first..first + more).map(|number| format!("n{number:0padding$}")).collect();
            let nodes: Vec<NodeName> = names.iter().map(|name| name.parse().unwrap()).collect();
            prop_assert_eq!(expand(&fold(&nodes)).unwrap(), names);
        }

        #[test]
        fn fold_is_the_inverse_of_expand(first in 0_u32..120, more in 1_u32..120, padding in 1_usize..5) {
            let last = first + more;
            let same_width = format!("{first:0padding$}").len() == format!("{last:0padding$}").len();
            let padding = if same_width { padding } else { 1 };
            let list = format!("n[{first:0padding$}-{last:0padding$}].site");
            let nodes: Vec<NodeName> = expand(&list).unwrap().iter().map(|name| name.parse().unwrap()).collect();
            prop_assert_eq!(fold(&nodes), list);
        }
    }
}
