//! Reads `slot`: the times at which a link sends.

use super::{
    super::{
        diagnostic::Finding,
        link::{Distribution, Slot, Spacing},
        patch::Setting,
        reader::{Table, TableEntry},
        tables::TableIds,
        units::{Bytes, Delay},
    },
    missing,
    number::{integer, quantity},
    setting,
    time::{read_distribution, short_time},
};

const HELP: &str =
    "write `min = \"8ms\", max = \"12ms\"`, or `delay = \"10ms\", jitter = \"2ms\", distribution = \"normal\"`";

/// Takes `slot`: `"10ms"`, or a table with a spacing and optional `packets` and `bytes`.
///
/// The value `None` stands for a slot of zero.
pub(super) fn take(
    table: &mut Table<'_>,
    tables: &TableIds<'_>,
    findings: &mut Vec<Finding>,
) -> Option<Setting<Option<Slot>>> {
    let entry = table.take("slot")?;
    let Some(mut inner) = entry.as_table("a slot") else {
        let time = short_time(entry, findings)?;
        let spacing = Spacing::Range { min: time, max: time };
        let slot = Slot { spacing, packets: 0, bytes: Bytes::new(0) };
        return Some(setting(entry, (time > Delay::ZERO).then_some(slot)));
    };
    let range = ["min", "max"].map(|key| inner.take(key));
    let distributed = ["delay", "jitter", "distribution"].map(|key| inner.take(key));
    let (packets, bytes) = (inner.take("packets"), inner.take("bytes"));
    let spacing = match (first(&range), first(&distributed)) {
        (None, None) => Finding::new(entry.key_span(), "`slot` has no spacing")
            .label("no `min` and no `delay`")
            .help(HELP)
            .refuse(findings),
        (Some(one), Some(other)) => {
            one.conflict(other, "a slot has either `min` and `max`, or a distribution", HELP).refuse(findings)
        }
        (Some(_), None) => read_range(range, findings),
        (None, Some(_)) => read_distributed(entry, distributed, tables, findings),
    };
    let packets = packets.map_or(Some(0), |packets| integer(packets, 1..=i32::MAX.unsigned_abs(), NO_BOUND, findings));
    let bytes = bytes.map_or(Some(Bytes::new(0)), |bytes| positive(bytes, findings));
    inner.close(findings);
    Some(setting(entry, Some(Slot { spacing: spacing?, packets: packets?, bytes: bytes? })))
}

const NO_BOUND: &str = "for slots of any size, leave it out";

fn first<'t>(entries: &[Option<TableEntry<'t>>]) -> Option<TableEntry<'t>> {
    entries.iter().flatten().copied().min_by_key(|entry| entry.key_span().start)
}

fn read_range([min, max]: [Option<TableEntry<'_>>; 2], findings: &mut Vec<Finding>) -> Option<Spacing> {
    let (least, most) = (min.map(|entry| short_time(entry, findings)), max.map(|entry| short_time(entry, findings)));
    let Some(min) = min else {
        let help = "for slots that may follow at once, write `min = \"0ms\"`";
        return missing(max?, "`min`", help).refuse(findings);
    };
    let least = least??;
    let (max, most) = (max.unwrap_or(min), most.unwrap_or(Some(least))?);
    if least > most {
        let message = format!("`min` ({least}) is greater than `max` ({most})");
        return min.conflict(max, &message, "the time between two slots is from `min` to `max`").refuse(findings);
    }
    not_zero(max, Spacing::Range { min: least, max: most }, most, findings)
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
        return Finding::new(slot.key_span(), "`slot` needs `delay`, `jitter` and `distribution` together")
            .label(format!("no {}", missing.join(" and ")))
            .help(HELP)
            .refuse(findings);
    };
    let (mean, deviation) = (short_time(delay, findings), short_time(jitter, findings));
    let distribution = read_distribution(shape, tables, findings);
    if distribution == Some(Distribution::Uniform) {
        return Finding::new(shape.value().span(), "the uniform distribution of slots is `min` and `max`")
            .help("write `min = \"8ms\", max = \"12ms\"`")
            .refuse(findings);
    }
    let (mean, deviation, distribution) = (mean?, deviation?, distribution?);
    if deviation > mean {
        return Finding::new(
            jitter.key_span(),
            format!("a slot's jitter of {deviation} is greater than its delay of {mean}"),
        )
        .related(delay.key_span(), "the `delay` is here")
        .help("a slot cannot come before the previous one")
        .refuse(findings);
    }
    not_zero(jitter, Spacing::Distributed { delay: mean, jitter: deviation, distribution }, deviation, findings)
}

/// Reports a `decisive` time of zero: the kernel would have no slots (`get_slot`). Otherwise returns the spacing.
fn not_zero(entry: TableEntry<'_>, spacing: Spacing, decisive: Delay, findings: &mut Vec<Finding>) -> Option<Spacing> {
    if decisive > Delay::ZERO {
        return Some(spacing);
    }
    let help = match spacing {
        Spacing::Range { .. } => "for a link without slots, write `slot = \"0ms\"`",
        Spacing::Distributed { .. } => "for slots at equal distances, write `slot = \"10ms\"`",
    };
    Finding::new(entry.value().span(), format!("a slot's `{}` cannot be zero", entry.key()))
        .label("the kernel would have no slots")
        .help(help)
        .refuse(findings)
}

fn positive(entry: TableEntry<'_>, findings: &mut Vec<Finding>) -> Option<Bytes> {
    let bytes: Bytes = quantity(entry, findings)?;
    if bytes.get() <= 0 {
        let message = format!("`{}` must be greater than zero", entry.key());
        return Finding::new(entry.value().span(), message).help(NO_BOUND).refuse(findings);
    }
    Some(bytes)
}
