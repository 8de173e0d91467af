//! `slot`: when a link sends.

use super::{
    super::{
        diagnostic::Finding,
        link::{Distribution, Slot, Spacing},
        patch::Said,
        reader::{Table, TableEntry},
        tables::TableIds,
        units::{Bytes, Delay},
    },
    distribution, needs,
    quantity::quantity,
    said,
    time::short,
    whole::integer,
};

const HELP: &str =
    "write `min = \"8ms\", max = \"12ms\"`, or `delay = \"10ms\", jitter = \"2ms\", distribution = \"normal\"`";

/// Takes `slot`: `"10ms"`, or a table of one form and perhaps what a slot takes. A slot of no time is none.
pub(super) fn take(
    table: &mut Table<'_>,
    tables: &TableIds<'_>,
    findings: &mut Vec<Finding>,
) -> Option<Said<Option<Slot>>> {
    let entry = table.take("slot")?;
    let Some(mut inner) = entry.as_table("a slot") else {
        let time = short(entry, findings)?;
        let spacing = Spacing::Range { min: time, max: time };
        let slot = Slot { spacing, packets: 0, bytes: Bytes::new(0) };
        return Some(said(entry, (time > Delay::ZERO).then_some(slot)));
    };
    let range = ["min", "max"].map(|key| inner.take(key));
    let distributed = ["delay", "jitter", "distribution"].map(|key| inner.take(key));
    let (packets, bytes) = (inner.take("packets"), inner.take("bytes"));
    let spacing = match (first(&range), first(&distributed)) {
        (None, None) => {
            findings.push(
                Finding::new(entry.key_span(), "`slot` does not say how long it takes")
                    .label("no `min` and no `delay`")
                    .help(HELP),
            );
            None
        }
        (Some(one), Some(other)) => {
            let (first, second) =
                if one.key_span().start < other.key_span().start { (one, other) } else { (other, one) };
            findings.push(
                Finding::new(second.key_span(), "a slot has `min` and `max`, or a distribution, not both")
                    .label(format!("`{}` is of the other form", second.key()))
                    .related(first.key_span(), format!("`{}` is here", first.key()))
                    .help(HELP),
            );
            None
        }
        (Some(_), None) => read_range(range, findings),
        (None, Some(_)) => read_distributed(entry, distributed, tables, findings),
    };
    let packets = packets.map_or(Some(0), |packets| {
        integer(packets, 1..=i32::MAX.unsigned_abs(), "leave it out where a slot takes any number", findings)
    });
    let bytes = bytes.map_or(Some(Bytes::new(0)), |bytes| positive(bytes, findings));
    inner.close(findings);
    Some(said(entry, Some(Slot { spacing: spacing?, packets: packets?, bytes: bytes? })))
}

fn first<'t>(entries: &[Option<TableEntry<'t>>]) -> Option<TableEntry<'t>> {
    entries.iter().flatten().copied().min_by_key(|entry| entry.key_span().start)
}

fn read_range([min, max]: [Option<TableEntry<'_>>; 2], findings: &mut Vec<Finding>) -> Option<Spacing> {
    let (least, most) = (min.map(|entry| short(entry, findings)), max.map(|entry| short(entry, findings)));
    let Some(min) = min else {
        needs(max?, "`min`", "write `min = \"0ms\"` for slots that may follow at once", findings);
        return None;
    };
    let least = least??;
    let Some(max) = max else { return of_some_length(min, Spacing::Range { min: least, max: least }, least, findings) };
    let most = most??;
    if least > most {
        let (first, second) = if min.key_span().start < max.key_span().start { (min, max) } else { (max, min) };
        findings.push(
            Finding::new(second.key_span(), format!("`min` is more than `max`: {least} and {most}"))
                .related(first.key_span(), format!("`{}` is here", first.key()))
                .help("the least time from one slot to the next is `min`, the most is `max`"),
        );
        return None;
    }
    of_some_length(max, Spacing::Range { min: least, max: most }, most, findings)
}

fn read_distributed(
    slot: TableEntry<'_>,
    [delay, jitter, shape]: [Option<TableEntry<'_>>; 3],
    tables: &TableIds<'_>,
    findings: &mut Vec<Finding>,
) -> Option<Spacing> {
    let (Some(delay), Some(jitter), Some(shape)) = (delay, jitter, shape) else {
        let all = [("delay", delay), ("jitter", jitter), ("distribution", shape)];
        let missing: Vec<_> =
            all.iter().filter(|(_, entry)| entry.is_none()).map(|(key, _)| format!("`{key}`")).collect();
        findings.push(
            Finding::new(slot.key_span(), "`slot` needs `delay`, `jitter` and `distribution` together")
                .label(format!("without {}", missing.join(" and ")))
                .help("write `delay = \"10ms\", jitter = \"2ms\", distribution = \"normal\"`, or `min` and `max`"),
        );
        return None;
    };
    let (mean, deviation) = (short(delay, findings), short(jitter, findings));
    let distribution = distribution::read(shape, tables, findings);
    if distribution == Some(Distribution::Uniform) {
        findings.push(
            Finding::new(shape.value().span(), "slots that are evenly distributed are said by `min` and `max`")
                .help("write `min = \"8ms\", max = \"12ms\"`"),
        );
        return None;
    }
    let (mean, deviation, distribution) = (mean?, deviation?, distribution?);
    if deviation > mean {
        findings.push(
            Finding::new(
                jitter.key_span(),
                format!("a slot's jitter of {deviation} is greater than its delay of {mean}"),
            )
            .related(delay.key_span(), "the `delay` is here")
            .help("a slot cannot come before the one in front of it"),
        );
        return None;
    }
    of_some_length(jitter, Spacing::Distributed { delay: mean, jitter: deviation, distribution }, deviation, findings)
}

/// The spacing, unless its `decisive` time is zero: then the kernel has no slots at all (`get_slot`).
fn of_some_length(
    entry: TableEntry<'_>,
    spacing: Spacing,
    decisive: Delay,
    findings: &mut Vec<Finding>,
) -> Option<Spacing> {
    if decisive > Delay::ZERO {
        return Some(spacing);
    }
    let help = match spacing {
        Spacing::Range { .. } => "write `slot = \"0ms\"` for a link without slots",
        Spacing::Distributed { .. } => "write `slot = \"10ms\"` for slots that come evenly",
    };
    findings.push(
        Finding::new(entry.value().span(), format!("a slot's `{}` cannot be zero", entry.key()))
            .label("the kernel would have no slots at all")
            .help(help),
    );
    None
}

fn positive(entry: TableEntry<'_>, findings: &mut Vec<Finding>) -> Option<Bytes> {
    let bytes: Bytes = quantity(entry, findings)?;
    if bytes.get() > 0 {
        return Some(bytes);
    }
    findings.push(
        Finding::new(entry.value().span(), format!("`{}` must be more than zero", entry.key()))
            .help("leave it out where a slot takes any number"),
    );
    None
}
