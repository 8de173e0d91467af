//! Reads `rtt` or `delay`, and `jitter` with `jitter-correlation` and `distribution`.

use super::{
    super::{
        diagnostic::Finding,
        link::{Distribution, Jitter},
        patch::Setting,
        reader::{Table, TableEntry},
        tables::TableIds,
        units::{Correlation, Delay, HalfRtt, OneWayDelay, Probability, ShortTime},
    },
    empty, missing, no_effect,
    number::quantity,
    setting,
};

/// Takes `rtt` or `delay`. `one_way`: as in [`take`](super::take).
pub(super) fn take_delay(
    table: &mut Table<'_>,
    one_way: Option<&str>,
    findings: &mut Vec<Finding>,
) -> Option<Setting<Delay>> {
    match (table.take("rtt"), table.take("delay")) {
        (None, None) => None,
        (Some(rtt), Some(delay)) => {
            let help = "write `rtt = \"150ms\"` (there and back) or `delay = \"75ms\"` (one way)";
            rtt.conflict(delay, "a link has either `rtt` or `delay`", help).refuse(findings)
        }
        (Some(rtt), None) if let Some(one_way) = one_way => {
            Finding::new(rtt.key_span(), format!("`rtt` covers both directions, but {one_way} describes one"))
                .label("use `delay`")
                .help("`delay = \"75ms\"` is one way; `rtt` needs a rule for both directions")
                .refuse(findings)
        }
        (Some(rtt), None) => quantity(rtt, findings).map(|HalfRtt(delay)| setting(rtt, delay)),
        (None, Some(entry)) => quantity(entry, findings).map(|OneWayDelay(delay)| setting(entry, delay)),
    }
}

/// Takes `jitter`, `jitter-correlation` and `distribution`.
///
/// The value `None` stands for a jitter of zero.
pub(super) fn take_jitter(
    table: &mut Table<'_>,
    tables: &TableIds<'_>,
    findings: &mut Vec<Finding>,
) -> Option<Setting<Option<Jitter>>> {
    let entry = table.take("jitter");
    let (correlation, shape) = (table.take("jitter-correlation"), table.take("distribution"));
    let amount = entry.map(|entry| short_time(entry, findings));
    for companion in [correlation, shape].into_iter().flatten() {
        findings.extend(match (entry, amount) {
            (None, _) => Some(missing(companion, "`jitter`", "write `jitter = \"5ms\"` in the same table")),
            (Some(entry), Some(Some(Delay::ZERO))) => Some(no_effect(companion, entry)),
            _ => None,
        });
    }
    let correlation = correlation.map(|entry| quantity(entry, findings));
    let shape = shape.map(|entry| read_distribution(entry, tables, findings));
    let (entry, amount) = (entry?, amount??);
    let Correlation(correlation) = correlation.unwrap_or(Some(Correlation(Probability::ZERO)))?;
    let jitter = Jitter { amount, correlation, distribution: shape.unwrap_or(Some(Distribution::Uniform))? };
    Some(setting(entry, (amount > Delay::ZERO).then_some(jitter)))
}

/// Reads a jitter or the spacing of slots.
pub(super) fn short_time(entry: TableEntry<'_>, findings: &mut Vec<Finding>) -> Option<Delay> {
    quantity(entry, findings).map(|ShortTime(time)| time)
}

/// Reads a `distribution`.
pub(super) fn read_distribution(
    entry: TableEntry<'_>,
    tables: &TableIds<'_>,
    findings: &mut Vec<Finding>,
) -> Option<Distribution> {
    if let Some(inner) = entry.as_table("a distribution") {
        return read_distribution_table(entry, inner, tables, findings);
    }
    let help =
        "write \"uniform\", \"normal\", \"pareto\", \"paretonormal\", or `{ table = \"wan.dist\" }` for your own table";
    entry.choice("a name or a table", &Distribution::NAMED, help, findings)
}

fn read_distribution_table(
    entry: TableEntry<'_>,
    mut inner: Table<'_>,
    tables: &TableIds<'_>,
    findings: &mut Vec<Finding>,
) -> Option<Distribution> {
    if inner.is_empty() {
        return empty(entry, "write `{ table = \"wan.dist\" }`").refuse(findings);
    }
    let name = inner.take("table");
    inner.close(findings);
    let name = name?.string(findings)?;
    let Some(id) = tables.get(name.get_ref()) else {
        return Finding::new(name.span(), format!("there is no distribution table `{}`", name.get_ref()))
            .help("only a topology file can name a table: netemctl apply FILE")
            .refuse(findings);
    };
    // `tables::read` has reported the mistakes in the table.
    id.map(Distribution::Table)
}
