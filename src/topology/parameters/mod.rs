//! Reads the parameters of a link from a TOML table into a `LinkPatch`.
//!
//! Each submodule reads one group of keys. It checks each value alone, and against the other keys of the table.
//! `conflicts` checks the rules of a file against each other.

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
/// `both_ways`: the table describes both directions, so the table may have an `rtt`. A parameter with a mistake is
/// reported and omitted. The omission does no harm, because a file with errors is refused.
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
    // A table with an unknown key is not reported as empty: the key is probably a misspelled parameter.
    if table.len() == before && table.is_empty() {
        findings.push(Finding::new(span, "this link has no parameters").label("no parameter").help(PARAMETERS));
    }
    coherence::check_rule(&patch, findings);
    patch
}

/// An error about a value: the findings already contain the mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Reported;

fn setting<T>(entry: TableEntry<'_>, value: T) -> Setting<T> {
    Setting { value, span: entry.key_span() }
}

/// Reports a key that needs another key, if the other key is missing.
fn report_missing(entry: TableEntry<'_>, required: &str, help: &str, findings: &mut Vec<Finding>) {
    let message = format!("`{}` needs {required}", entry.key());
    findings.push(Finding::new(entry.key_span(), message).label("missing here").help(help));
}

/// Reports a key without effect: the value of the key `zero` is zero.
fn report_refined_zero(entry: TableEntry<'_>, zero: TableEntry<'_>, findings: &mut Vec<Finding>) {
    findings.push(
        Finding::new(entry.key_span(), format!("`{}` has no effect: `{}` is none", entry.key(), zero.key()))
            .related(zero.key_span(), "none")
            .help("leave one of them out"),
    );
}

/// Reports an inner table that has none of the known keys.
fn report_empty(entry: TableEntry<'_>, help: &str, findings: &mut Vec<Finding>) {
    findings.push(Finding::new(entry.key_span(), format!("`{}` is empty", entry.key())).label("no value").help(help));
}
