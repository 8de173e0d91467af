//! A link as the language writes it, on one line: `delay = "75ms", loss = "0.1%"`.
//!
//! The opposite of `parameters`, for people to read: what a link has not is not said.

use super::{
    link::{Chance, Distribution, Jitter, Link, Loss, LossModel, Rate, RatePer, Reorder, Slot, Spacing, Undelayed},
    units::Probability,
};

impl Link {
    /// The link's parameters as a topology file would say them; nothing of a link that is as the LAN is.
    pub fn notation(&self) -> String {
        let mut said = Vec::new();
        let mut say = |key: &str, value: String| said.push(format!("{key} = {value}"));
        let Self { delay, jitter, loss, corrupt, duplicate, reorder, rate, rate_per, slot, limit, seed } = *self;
        if delay.as_nanos() > 0 {
            say("delay", quoted(delay));
        }
        if let Some(Jitter { amount, correlation, distribution }) = jitter {
            say("jitter", quoted(amount));
            if correlation > Probability::ZERO {
                say("jitter-correlation", quoted(correlation));
            }
            if distribution != Distribution::Uniform {
                say("distribution", distribution_of(distribution));
            }
        }
        if let Some(loss) = loss {
            say("loss", loss_of(loss));
        }
        if let Some(corrupt) = corrupt {
            say("corrupt", chance_of(corrupt, &[]));
        }
        if let Some(duplicate) = duplicate {
            say("duplicate", chance_of(duplicate, &[]));
        }
        match reorder {
            Some(Reorder::Jitter) => say("reorder", quoted("jitter")),
            Some(Reorder::Undelayed(Undelayed { chance, gap: 1 })) => say("reorder", chance_of(chance, &[])),
            Some(Reorder::Undelayed(Undelayed { chance, gap })) => {
                say("reorder", chance_of(chance, &[format!("gap = {gap}")]));
            }
            None => {}
        }
        if let Some(Rate { bits, packet_overhead, cell_size, cell_overhead }) = rate {
            say("rate", quoted(bits));
            let overheads =
                [("packet-overhead", packet_overhead), ("cell-size", cell_size), ("cell-overhead", cell_overhead)];
            for (key, bytes) in overheads.into_iter().filter(|(_, bytes)| bytes.get() != 0) {
                say(key, quoted(bytes));
            }
            if rate_per == RatePer::Zone {
                say("rate-per", quoted("zone"));
            }
        }
        if let Some(slot) = slot {
            say("slot", slot_of(slot));
        }
        if let Some(limit) = limit {
            say("limit", limit.to_string());
        }
        if let Some(seed) = seed {
            say("seed", seed.to_string());
        }
        said.join(", ")
    }
}

fn quoted(value: impl std::fmt::Display) -> String {
    format!("\"{value}\"")
}

fn table_of(said: &[String]) -> String {
    format!("{{ {} }}", said.join(", "))
}

/// A bare probability, or a table if there is more to say.
fn chance_of(Chance { probability, correlation }: Chance, more: &[String]) -> String {
    let correlation = (correlation > Probability::ZERO).then(|| format!("correlation = {}", quoted(correlation)));
    if correlation.is_none() && more.is_empty() {
        return quoted(probability);
    }
    let said = [format!("probability = {}", quoted(probability))].into_iter().chain(correlation);
    table_of(&said.chain(more.iter().cloned()).collect::<Vec<_>>())
}

fn loss_of(Loss { model, ecn }: Loss) -> String {
    let ecn = if ecn { vec!["ecn = true".to_owned()] } else { Vec::new() };
    let model_of = |name: &str, parameters: &[(&str, Probability)]| {
        let said: Vec<_> = parameters.iter().map(|(key, value)| format!("{key} = {}", quoted(value))).collect();
        let model = format!("{name} = {}", table_of(&said));
        table_of(&std::iter::once(model).chain(ecn.clone()).collect::<Vec<_>>())
    };
    match model {
        LossModel::Random(chance) => chance_of(chance, &ecn),
        LossModel::State { p13, p31, p32, p23, p14 } => {
            model_of("state", &[("p13", p13), ("p31", p31), ("p32", p32), ("p23", p23), ("p14", p14)])
        }
        LossModel::GeModel { p, r, bad, good } => {
            model_of("gemodel", &[("p", p), ("r", r), ("bad", bad), ("good", good)])
        }
    }
}

fn distribution_of(distribution: Distribution) -> String {
    match distribution {
        Distribution::Table(id) => format!("{{ table = {} }}", quoted(id)),
        other => quoted(other),
    }
}

fn slot_of(Slot { spacing, packets, bytes }: Slot) -> String {
    let most = [
        (packets > 0).then(|| format!("packets = {packets}")),
        (bytes.get() > 0).then(|| format!("bytes = {}", quoted(bytes))),
    ];
    let said = match spacing {
        Spacing::Range { min, max } if min == max && most.iter().all(Option::is_none) => return quoted(min),
        Spacing::Range { min, max } => vec![format!("min = {}", quoted(min)), format!("max = {}", quoted(max))],
        Spacing::Distributed { delay, jitter, distribution } => vec![
            format!("delay = {}", quoted(delay)),
            format!("jitter = {}", quoted(jitter)),
            format!("distribution = {}", distribution_of(distribution)),
        ],
    };
    table_of(&said.into_iter().chain(most.into_iter().flatten()).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::Bytes;

    fn chance(probability: &str, correlation: &str) -> Chance {
        Chance { probability: probability.parse().unwrap(), correlation: correlation.parse().unwrap() }
    }

    #[test]
    fn a_link_reads_as_a_file_would_say_it() {
        assert_eq!(Link::LAN.notation(), "");
        let plain = Loss { model: LossModel::Random(chance("0.1%", "0%")), ecn: false };
        let link = Link { delay: "75ms".parse().unwrap(), loss: Some(plain), ..Link::LAN };
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
