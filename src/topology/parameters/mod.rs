//! Reads the parameters of a link from a TOML table into a `LinkPatch`.
//!
//! Each submodule reads one group of keys. It checks each value alone, and against the other keys of the table.
//! `conflicts` checks the rules of a file against each other.

mod chance;
mod loss;
mod number;
mod rate;
mod slot;
mod time;

pub(crate) use number::integer;

use std::ops::Range;

use super::{
    coherence,
    diagnostic::Finding,
    link::Parameter,
    patch::{LinkPatch, Setting},
    reader::{Table, TableEntry},
    tables::TableIds,
};

const PARAMETERS: &str = "a link has one or more of `rtt` or `delay`, `jitter`, `loss`, `corrupt`, `duplicate`, \
                          `reorder`, `rate`, `slot`, `limit` and `seed`, as in `rtt = \"150ms\"`";

/// Takes the parameters of a link from a table at `span`. `tables` are the distribution tables of the file.
///
/// `one_way` is the key or option that limits the table to one direction, for the message about an `rtt`. `None`: the
/// table describes both directions, so it may have an `rtt`.
///
/// A parameter with a mistake is reported and omitted. The omission does no harm, because a file with errors is
/// refused.
pub(super) fn take(
    table: &mut Table<'_>,
    span: Range<usize>,
    one_way: Option<&str>,
    tables: &TableIds<'_>,
    findings: &mut Vec<Finding>,
) -> LinkPatch {
    let before = table.len();
    let mut patch = LinkPatch::default();
    patch.set(Parameter::Delay, time::take_delay(table, one_way, findings), |link, delay| link.delay = delay);
    patch.set(Parameter::Jitter, time::take_jitter(table, tables, findings), |link, jitter| link.jitter = jitter);
    patch.set(Parameter::Loss, loss::take(table, findings), |link, loss| link.loss = loss);
    patch.set(Parameter::Corrupt, chance::take(table, "corrupt", findings), |link, chance| link.corrupt = chance);
    patch.set(Parameter::Duplicate, chance::take(table, "duplicate", findings), |link, chance| link.duplicate = chance);
    patch.set(Parameter::Reorder, chance::take_reorder(table, findings), |link, reorder| link.reorder = reorder);
    patch.set(Parameter::Rate, rate::take(table, findings), |link, (rate, per)| {
        link.rate = rate;
        link.rate_per = per;
    });
    patch.set(Parameter::Slot, slot::take(table, tables, findings), |link, slot| link.slot = slot);
    patch.set(Parameter::Limit, number::take_limit(table, findings), |link, limit| link.limit = limit);
    patch.set(Parameter::Seed, number::take_seed(table, findings), |link, seed| link.seed = seed);
    // A table with an unknown key is not reported as empty: the key is probably a misspelled parameter.
    if table.len() == before && table.is_empty() {
        Finding::new(span, "this link has no parameters").label("no parameter").help(PARAMETERS).report(findings);
    }
    coherence::check_rule(&patch, findings);
    patch
}

fn setting<T>(entry: TableEntry<'_>, value: T) -> Setting<T> {
    Setting { value, span: entry.key_span() }
}

/// The finding about a key that needs another key, which is missing.
fn missing(entry: TableEntry<'_>, required: &str, help: &str) -> Finding {
    Finding::new(entry.key_span(), format!("`{}` needs {required}", entry.key())).label("missing here").help(help)
}

/// The finding about a key without effect: the value of the key `zero` is zero.
fn no_effect(entry: TableEntry<'_>, zero: TableEntry<'_>) -> Finding {
    Finding::new(entry.key_span(), format!("`{}` has no effect: `{}` is none", entry.key(), zero.key()))
        .related(zero.key_span(), "none")
        .help("leave one of them out")
}

/// The finding about an inner table that has none of the known keys.
fn empty(entry: TableEntry<'_>, help: &str) -> Finding {
    Finding::new(entry.key_span(), format!("`{}` is empty", entry.key())).label("no value").help(help)
}
