//! `rtt` or `delay`, and `jitter` with what goes with it.

use super::{
    super::{
        diagnostic::Finding,
        link::{Distribution, Jitter},
        patch::Said,
        reader::{Table, TableEntry},
        tables::TableIds,
        units::{Delay, Probability, Rtt},
    },
    Direction, chance, distribution, is_of_none, needs,
    quantity::quantity,
    said,
};

const HELP: &str = "write `rtt = \"150ms\"` (there and back) or `delay = \"75ms\"` (one way)";

/// Takes `rtt` or `delay`.
pub(super) fn take_delay(
    table: &mut Table<'_>,
    direction: Direction,
    findings: &mut Vec<Finding>,
) -> Option<Said<Delay>> {
    match (table.take("rtt"), table.take("delay")) {
        (None, None) => None,
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
        (Some(rtt), None) => half_of(rtt, findings).map(|delay| said(rtt, delay)),
        (None, Some(entry)) => one_way(entry, findings).map(|delay| said(entry, delay)),
    }
}

/// Takes `jitter`, `jitter-correlation` and `distribution`. A jitter of zero is none.
pub(super) fn take_jitter(
    table: &mut Table<'_>,
    tables: &TableIds<'_>,
    findings: &mut Vec<Finding>,
) -> Option<Said<Option<Jitter>>> {
    let entry = table.take("jitter");
    let (correlation, shape) = (table.take("jitter-correlation"), table.take("distribution"));
    let amount = entry.map(|entry| short(entry, findings));
    for companion in [correlation, shape].into_iter().flatten() {
        match (entry, amount) {
            (None, _) => needs(companion, "`jitter`", "write `jitter = \"5ms\"` in the same table", findings),
            (Some(entry), Some(Some(Delay::ZERO))) => is_of_none(companion, entry, findings),
            _ => {}
        }
    }
    let correlation = correlation.map(|entry| chance::correlation(entry, findings));
    let shape = shape.map(|entry| distribution::read(entry, tables, findings));
    let (entry, amount) = (entry?, amount??);
    let jitter = Jitter {
        amount,
        correlation: correlation.unwrap_or(Some(Probability::ZERO))?,
        distribution: shape.unwrap_or(Some(Distribution::Uniform))?,
    };
    Some(said(entry, (amount > Delay::ZERO).then_some(jitter)))
}

/// A time that the kernel keeps in 31 bits of nanoseconds, and may silently cut to that (`netem_change`).
pub(super) fn short(entry: TableEntry<'_>, findings: &mut Vec<Finding>) -> Option<Delay> {
    let time: Delay = quantity(entry, findings)?;
    if time > Jitter::MAX {
        findings.push(
            Finding::new(entry.value().span(), format!("`{}` is at most {}", entry.key(), Jitter::MAX))
                .label("more than the kernel can count")
                .help("the kernel has 31 bits for its nanoseconds"),
        );
        return None;
    }
    Some(time)
}

fn in_order<'t>(a: TableEntry<'t>, b: TableEntry<'t>) -> (TableEntry<'t>, TableEntry<'t>) {
    if a.key_span().start < b.key_span().start { (a, b) } else { (b, a) }
}

fn one_way(entry: TableEntry<'_>, findings: &mut Vec<Finding>) -> Option<Delay> {
    let delay: Delay = quantity(entry, findings)?;
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

fn half_of(entry: TableEntry<'_>, findings: &mut Vec<Finding>) -> Option<Delay> {
    let rtt: Rtt = quantity(entry, findings)?;
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
