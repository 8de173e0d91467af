//! Writes a link in the notation of a topology file, on one line: `delay = "75ms", loss = "0.1%"`.
//!
//! The module is the inverse of `parameters`. It omits parameters that the link does not have. It writes the identity of
//! a distribution table, because a link does not have the name of the file.

use std::fmt::Display;

use super::{
    link::{Chance, Distribution, Link, Loss, LossModel, Rate, RatePer, Reorder, Slot, Spacing, Undelayed},
    units::{Bytes, Delay, Probability},
};

/// A key with its value. `None`: the notation omits the key.
type Key = (&'static str, Option<String>);

impl Link {
    /// The parameters in the notation of a topology file. Empty for [`Link::default()`].
    pub fn notation(&self) -> String {
        let Self { delay, jitter, loss, corrupt, duplicate, reorder, rate, rate_per, slot, limit, seed } = *self;
        let bytes = |of: fn(Rate) -> Bytes| quoted_unless(Bytes::new(0), rate.map(of));
        keys([
            ("delay", quoted_unless(Delay::ZERO, Some(delay))),
            ("jitter", jitter.map(|jitter| quoted(jitter.amount))),
            ("jitter-correlation", quoted_unless(Probability::ZERO, jitter.map(|jitter| jitter.correlation))),
            ("distribution", jitter.and_then(|jitter| distribution_of(jitter.distribution))),
            ("loss", loss.map(loss_of)),
            ("corrupt", corrupt.map(|chance| chance_of(chance, NONE))),
            ("duplicate", duplicate.map(|chance| chance_of(chance, NONE))),
            ("reorder", reorder.map(reorder_of)),
            ("rate", rate.map(|rate| quoted(rate.bits))),
            ("packet-overhead", bytes(|rate| rate.packet_overhead)),
            ("cell-size", bytes(|rate| rate.cell_size)),
            ("cell-overhead", bytes(|rate| rate.cell_overhead)),
            ("rate-per", rate.filter(|_| rate_per == RatePer::Zone).map(|_| quoted("zone"))),
            ("slot", slot.map(slot_of)),
            ("limit", limit.map(|limit| limit.to_string())),
            ("seed", seed.map(|seed| seed.to_string())),
        ])
    }
}

const NONE: Key = ("", None);

fn quoted(value: impl Display) -> String {
    format!("\"{value}\"")
}

fn quoted_unless<T: Copy + Display + PartialEq>(default: T, value: Option<T>) -> Option<String> {
    value.filter(|value| *value != default).map(quoted)
}

fn keys<const N: usize>(keys: [Key; N]) -> String {
    let keys = keys.into_iter().filter_map(|(key, value)| Some(format!("{key} = {}", value?)));
    keys.collect::<Vec<_>>().join(", ")
}

fn table<const N: usize>(inner: [Key; N]) -> String {
    format!("{{ {} }}", keys(inner))
}

/// A probability, or a table if there is a correlation or the key `more`.
fn chance_of(Chance { probability, correlation }: Chance, more: Key) -> String {
    let correlation = quoted_unless(Probability::ZERO, Some(correlation));
    if correlation.is_none() && more.1.is_none() {
        return quoted(probability);
    }
    table([("probability", Some(quoted(probability))), ("correlation", correlation), more])
}

fn loss_of(Loss { model, ecn }: Loss) -> String {
    let ecn = ("ecn", ecn.then(|| "true".to_owned()));
    let key = |(key, value): (&'static str, Probability)| (key, Some(quoted(value)));
    match model {
        LossModel::Random(chance) => chance_of(chance, ecn),
        LossModel::State { p13, p31, p32, p23, p14 } => {
            let state = [("p13", p13), ("p31", p31), ("p32", p32), ("p23", p23), ("p14", p14)];
            table([("state", Some(table(state.map(key)))), ecn])
        }
        LossModel::GeModel { p, r, bad, good } => {
            let gemodel = [("p", p), ("r", r), ("bad", bad), ("good", good)];
            table([("gemodel", Some(table(gemodel.map(key)))), ecn])
        }
    }
}

fn reorder_of(reorder: Reorder) -> String {
    match reorder {
        Reorder::Jitter => quoted("jitter"),
        Reorder::Undelayed(Undelayed { chance, gap }) => {
            chance_of(chance, ("gap", (gap != 1).then(|| gap.to_string())))
        }
    }
}

/// `None` for the uniform distribution, which is the default.
fn distribution_of(distribution: Distribution) -> Option<String> {
    match distribution {
        Distribution::Uniform => None,
        Distribution::Table(id) => Some(table([("table", Some(quoted(id)))])),
        named => Some(quoted(named)),
    }
}

fn slot_of(Slot { spacing, packets, bytes }: Slot) -> String {
    let packets = ("packets", (packets > 0).then(|| packets.to_string()));
    let bytes = ("bytes", quoted_unless(Bytes::new(0), Some(bytes)));
    match spacing {
        Spacing::Range { min, max } if min == max && packets.1.is_none() && bytes.1.is_none() => quoted(min),
        Spacing::Range { min, max } => table([("min", Some(quoted(min))), ("max", Some(quoted(max))), packets, bytes]),
        Spacing::Distributed { delay, jitter, distribution } => table([
            ("delay", Some(quoted(delay))),
            ("jitter", Some(quoted(jitter))),
            ("distribution", distribution_of(distribution)),
            packets,
            bytes,
        ]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::Jitter;

    fn chance(probability: &str, correlation: &str) -> Chance {
        Chance { probability: probability.parse().unwrap(), correlation: correlation.parse().unwrap() }
    }

    #[test]
    fn a_link_is_written_in_the_notation_of_a_topology_file() {
        assert_eq!(Link::default().notation(), "");
        let plain = Loss { model: LossModel::Random(chance("0.1%", "0%")), ecn: false };
        let link = Link { delay: "75ms".parse().unwrap(), loss: Some(plain), ..Link::default() };
        assert_eq!(link.notation(), r#"delay = "75ms", loss = "0.1%""#);
        let jitter = Jitter {
            amount: "5ms".parse().unwrap(),
            correlation: "25%".parse().unwrap(),
            distribution: Distribution::Normal,
        };
        let rate = Rate { packet_overhead: "20B".parse().unwrap(), ..Rate::plain("1gbit".parse().unwrap()) };
        let range = Spacing::Range { min: "10ms".parse().unwrap(), max: "10ms".parse().unwrap() };
        let bad = |text: &str| text.parse().unwrap();
        let model = LossModel::GeModel { p: bad("1%"), r: bad("10%"), bad: bad("70%"), good: bad("0.1%") };
        let all = Link {
            jitter: Some(jitter),
            loss: Some(Loss { model, ecn: true }),
            corrupt: Some(chance("1%", "0%")),
            duplicate: Some(chance("2%", "50%")),
            reorder: Some(Reorder::Undelayed(Undelayed { chance: chance("1%", "0%"), gap: 5 })),
            rate: Some(rate),
            rate_per: RatePer::Zone,
            slot: Some(Slot { spacing: range, packets: 3, bytes: Bytes::new(0) }),
            limit: Some(5_000),
            seed: Some(42),
            ..link
        };
        assert_eq!(
            all.notation(),
            concat!(
                r#"delay = "75ms", jitter = "5ms", jitter-correlation = "25%", distribution = "normal", "#,
                r#"loss = { gemodel = { p = "1%", r = "10%", bad = "70%", good = "0.1%" }, ecn = true }, "#,
                r#"corrupt = "1%", duplicate = { probability = "2%", correlation = "50%" }, "#,
                r#"reorder = { probability = "1%", gap = 5 }, rate = "1gbit", packet-overhead = "20B", "#,
                r#"rate-per = "zone", slot = { min = "10ms", max = "10ms", packets = 3 }, limit = 5000, seed = 42"#,
            )
        );
    }
}
