//! The parameters of a link, read from a table into a `LinkPatch`. A new parameter begins here.
//!
//! This checks each value by itself; which packets it is for is `rules`' matter.

use std::{ops::Range, str::FromStr};

use toml::de::DeValue;

use super::{
    diagnostic::Finding,
    patch::{LinkPatch, Said},
    reader::{Entry, Table},
    units::{Delay, Rtt, TimeError},
};

/// Which way the table speaks of.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    /// There and back: a round trip can be halved.
    Both,
    /// From one end to the other only.
    One,
}

/// Takes the link's parameters from a table whose place is `span`.
///
/// What is wrong is reported, and then missing from the patch: a file with findings is never resolved into links.
pub(super) fn take(
    table: &mut Table<'_>,
    span: Range<usize>,
    direction: Direction,
    findings: &mut Vec<Finding>,
) -> LinkPatch {
    let delay = match (table.take("rtt"), table.take("delay")) {
        (None, None) => {
            findings.push(Finding::new(span, "this link says nothing").label("no `rtt` and no `delay`").help(HELP));
            None
        }
        (Some(rtt), Some(delay)) => {
            let (first, second) = in_order(rtt, delay);
            findings.push(
                Finding::new(second.key_span(), "a link has `rtt` or `delay`, not both")
                    .label(format!("`{}` again says how long it takes", second.key()))
                    .related(first.key_span(), format!("`{}` is here", first.key()))
                    .help(HELP),
            );
            None
        }
        (Some(rtt), None) if direction == Direction::One => {
            findings.push(
                Finding::new(rtt.key_span(), "an rtt is of both directions, and this is one")
                    .label("write `delay` here")
                    .help("`from` and `to` go with `delay = \"75ms\"` (one way); `between` goes with `rtt` as well"),
            );
            None
        }
        (Some(rtt), None) => half_of(rtt, findings).map(|value| Said { value, place: rtt.key_span() }),
        (None, Some(delay)) => one_way(delay, findings).map(|value| Said { value, place: delay.key_span() }),
    };
    LinkPatch { delay, ..LinkPatch::default() }
}

const HELP: &str = "write `rtt = \"150ms\"` (there and back) or `delay = \"75ms\"` (one way)";

fn in_order<'t>(a: Entry<'t>, b: Entry<'t>) -> (Entry<'t>, Entry<'t>) {
    if a.key_span().start < b.key_span().start { (a, b) } else { (b, a) }
}

fn one_way(entry: Entry<'_>, findings: &mut Vec<Finding>) -> Option<Delay> {
    let delay: Delay = time(entry, findings)?;
    if delay > Delay::MAX {
        findings.push(
            Finding::new(entry.value().span(), format!("a delay of {delay} is absurd"))
                .label(format!("more than {}", Delay::MAX))
                .help(format!("a link takes at most {} one way", Delay::MAX)),
        );
        return None;
    }
    Some(delay)
}

fn half_of(entry: Entry<'_>, findings: &mut Vec<Finding>) -> Option<Delay> {
    let rtt: Rtt = time(entry, findings)?;
    if rtt > Rtt::MAX {
        findings.push(
            Finding::new(entry.value().span(), format!("an rtt of {rtt} is absurd"))
                .label(format!("more than {}", Rtt::MAX))
                .help(format!("a link takes at most {} one way, {} there and back", Delay::MAX, Rtt::MAX)),
        );
        return None;
    }
    // Rounding would give the user another rtt than the one that the file says.
    if rtt.one_way() + rtt.one_way() != rtt {
        findings.push(
            Finding::new(entry.value().span(), format!("half of {rtt} is not a whole nanosecond"))
                .label("an odd number of nanoseconds")
                .help("an rtt is half for each direction, and the resolution of a delay is 1ns"),
        );
        return None;
    }
    Some(rtt.one_way())
}

fn time<T: FromStr<Err = TimeError>>(entry: Entry<'_>, findings: &mut Vec<Finding>) -> Option<T> {
    let written = match entry.value().get_ref() {
        DeValue::String(text) => text.to_string(),
        // A bare number is read as if it were quoted, which ends in the advice to write a unit.
        DeValue::Integer(number) => number.to_string(),
        DeValue::Float(number) => number.to_string(),
        _ => {
            findings.push(entry.wrong_type("a time, as in \"75ms\""));
            return None;
        }
    };
    let parsed = written.parse::<T>();
    if let Err(error) = &parsed {
        let finding = Finding::new(entry.value().span(), error.to_string()).help(error.help());
        findings.push(match error {
            TimeError::NoUnit { .. } => finding.label("a number without a unit"),
            _ => finding,
        });
    }
    parsed.ok()
}
