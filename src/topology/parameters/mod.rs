//! The parameters of a link, read from a TOML table into a `LinkPatch`. To add a parameter, start here.
//!
//! Each file reads one group of keys that belong together. A value is checked by itself and against the other keys of the
//! table. `conflicts` checks the rules of a file against each other.

mod chance;
mod distribution;
mod integer;
mod loss;
mod quantity;
mod rate;
mod slot;
mod time;

pub(crate) use integer::integer;

use std::ops::Range;

use super::{
    coherence,
    diagnostic::Finding,
    patch::{LinkPatch, Setting},
    reader::{Table, TableEntry},
    tables::TableIds,
};

const PARAMETERS: &str = "a link has one or more of `rtt` or `delay`, `jitter`, `loss`, `corrupt`, `duplicate`, \
                          `reorder`, `rate`, `slot`, `limit` and `seed`, as in `rtt = \"150ms\"`";

/// Takes the parameters of a link from a table at `span`. `tables` are the distribution tables of the file.
///
/// `both_ways`: the table describes both directions, so an `rtt` can be halved. A parameter with a mistake is reported
/// and left out: a file with errors is never applied.
pub(super) fn take(
    table: &mut Table<'_>,
    span: Range<usize>,
    both_ways: bool,
    tables: &TableIds<'_>,
    findings: &mut Vec<Finding>,
) -> LinkPatch {
    let before = table.len();
    let patch = LinkPatch {
        delay: time::take_delay(table, both_ways, findings),
        jitter: time::take_jitter(table, tables, findings),
        loss: loss::take(table, findings),
        corrupt: chance::take(table, "corrupt", findings),
        duplicate: chance::take(table, "duplicate", findings),
        reorder: chance::take_reorder(table, findings),
        rate: rate::take(table, findings),
        slot: slot::take(table, tables, findings),
        limit: integer::take_limit(table, findings),
        seed: integer::take_seed(table, findings),
    };
    // An unknown key is probably a misspelled parameter, and is reported as such.
    if table.len() == before && table.is_empty() {
        findings.push(Finding::new(span, "this link has no parameters").label("no parameter").help(PARAMETERS));
    }
    coherence::check_rule(&patch, findings);
    patch
}

/// A value is missing because of a mistake that is among the findings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Reported;

fn setting<T>(entry: TableEntry<'_>, value: T) -> Setting<T> {
    Setting { value, span: entry.key_span() }
}

/// Reports a key that requires another one, which is missing.
fn report_missing(entry: TableEntry<'_>, required: &str, help: &str, findings: &mut Vec<Finding>) {
    let message = format!("`{}` needs {required}", entry.key());
    findings.push(Finding::new(entry.key_span(), message).label("missing here").help(help));
}

/// Reports a key that refines a parameter that `zero` removes.
fn report_refined_zero(entry: TableEntry<'_>, zero: TableEntry<'_>, findings: &mut Vec<Finding>) {
    findings.push(
        Finding::new(entry.key_span(), format!("`{}` has no effect: `{}` is none", entry.key(), zero.key()))
            .related(zero.key_span(), "none")
            .help("leave one of them out"),
    );
}

/// Reports an inner table without any of its keys.
fn report_empty(entry: TableEntry<'_>, help: &str, findings: &mut Vec<Finding>) {
    findings.push(Finding::new(entry.key_span(), format!("`{}` is empty", entry.key())).label("no value").help(help));
}
