//! The parameters of a link, read from a table into a `LinkPatch`. A new parameter begins here.
//!
//! One file reads one group of keys that belong together. Each value is checked by itself and against its neighbours in
//! the table; which links a rule is for is `rules`' matter, what several rules make of a link together `conflicts`'.

mod chance;
mod distribution;
mod loss;
mod quantity;
mod rate;
mod slot;
mod time;
mod whole;

pub(crate) use whole::integer;

use std::ops::Range;

use super::{
    coherence,
    diagnostic::Finding,
    patch::{LinkPatch, Said},
    reader::{Table, TableEntry},
    tables::TableIds,
};

/// Which way the table speaks of.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    /// There and back: a round trip can be halved.
    Both,
    /// From one end to the other only.
    One,
}

/// What a link can say, for those who said nothing.
const PARAMETERS: &str = "a link says one or more of `rtt` or `delay`, `jitter`, `loss`, `corrupt`, `duplicate`, \
                          `reorder`, `rate`, `slot`, `limit` and `seed`, as in `rtt = \"150ms\"`";

/// Takes the link's parameters from a table whose place is `span`. `tables` are the distribution tables that it can
/// name.
///
/// What is wrong is reported, and then missing from the patch: a file with findings is never resolved into links.
pub(super) fn take(
    table: &mut Table<'_>,
    span: Range<usize>,
    direction: Direction,
    tables: &TableIds<'_>,
    findings: &mut Vec<Finding>,
) -> LinkPatch {
    let before = table.len();
    let patch = LinkPatch {
        delay: time::take_delay(table, direction, findings),
        jitter: time::take_jitter(table, tables, findings),
        loss: loss::take(table, findings),
        corrupt: chance::take(table, "corrupt", findings),
        duplicate: chance::take(table, "duplicate", findings),
        reorder: chance::take_reorder(table, findings),
        rate: rate::take(table, findings),
        slot: slot::take(table, tables, findings),
        limit: whole::take_limit(table, findings),
        seed: whole::take_seed(table, findings),
    };
    // A key that is no parameter was probably meant to be one, and is reported by itself.
    if table.len() == before && table.is_empty() {
        findings.push(Finding::new(span, "this link says nothing").label("no parameter").help(PARAMETERS));
    }
    coherence::check_rule(&patch, findings);
    patch
}

/// Why there is no value: what is wrong with it is among the findings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Reported;

/// A value as said under a key.
fn said<T>(entry: TableEntry<'_>, value: T) -> Said<T> {
    Said { value, place: entry.key_span() }
}

/// Reports a key that means something only next to another, which is missing.
fn needs(entry: TableEntry<'_>, what: &str, help: &str, findings: &mut Vec<Finding>) {
    findings.push(
        Finding::new(entry.key_span(), format!("`{}` needs {what}", entry.key()))
            .label("there is none here")
            .help(help),
    );
}

/// Reports a key that says more of something of which another says that there is none.
fn is_of_none(entry: TableEntry<'_>, none: TableEntry<'_>, findings: &mut Vec<Finding>) {
    findings.push(
        Finding::new(entry.key_span(), format!("`{}` says how, and `{}` says none", entry.key(), none.key()))
            .related(none.key_span(), "this is none")
            .help("leave one of them out"),
    );
}

/// Reports an inner table that has none of its keys.
fn says_nothing(entry: TableEntry<'_>, help: &str, findings: &mut Vec<Finding>) {
    findings.push(
        Finding::new(entry.key_span(), format!("`{}` says nothing", entry.key()))
            .label("nothing is said here")
            .help(help),
    );
}
