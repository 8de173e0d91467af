//! Reads probabilities with a correlation: `corrupt`, `duplicate`, `reorder`, and the random model of `loss`.

use super::{
    super::{
        diagnostic::{Finding, Reported},
        link::{Chance, Reorder, Undelayed},
        patch::Setting,
        reader::{Table, TableEntry},
        units::{Correlation, Probability},
    },
    empty, missing, no_effect,
    number::{integer, quantity, quantity_or},
    setting,
};

/// The keys `probability` and `correlation` of a table.
pub(super) struct ChanceKeys<'t> {
    probability: Option<TableEntry<'t>>,
    correlation: Option<TableEntry<'t>>,
}

/// Takes `corrupt` or `duplicate`: `"1%"` or `{ probability = "1%", correlation = "25%" }`.
pub(super) fn take(
    table: &mut Table<'_>,
    key: &'static str,
    findings: &mut Vec<Finding>,
) -> Option<Setting<Option<Chance>>> {
    let entry = table.take(key)?;
    let Some(mut inner) = entry.as_table("a chance") else {
        return Some(setting(entry, uncorrelated(quantity(entry, findings)?)));
    };
    let keys = ChanceKeys::take(&mut inner);
    let chance = keys.read(entry, findings);
    inner.close(findings);
    Some(setting(entry, chance.ok()?))
}

/// Takes `reorder`: a chance with an optional gap, or `"jitter"`.
pub(super) fn take_reorder(table: &mut Table<'_>, findings: &mut Vec<Finding>) -> Option<Setting<Option<Reorder>>> {
    let entry = table.take("reorder")?;
    let undelayed = |chance: Option<Chance>, gap| chance.map(|chance| Reorder::Undelayed(Undelayed { chance, gap }));
    let Some(mut inner) = entry.as_table("a reordering") else {
        let reorder = match quantity_or("jitter", entry, findings).ok()? {
            Some(probability) => undelayed(uncorrelated(probability), 1),
            None => Some(Reorder::Jitter),
        };
        return Some(setting(entry, reorder));
    };
    let (keys, gap) = (ChanceKeys::take(&mut inner), inner.take("gap"));
    let chance = match (gap, keys.first()) {
        (Some(gap), None) => {
            let help = "write `reorder = { probability = \"1%\", gap = 5 }`";
            Err(missing(gap, "`probability`", help).report(findings))
        }
        _ => keys.read(entry, findings),
    };
    if let (Some(gap), Some(probability), Ok(None)) = (gap, keys.probability, chance) {
        no_effect(gap, probability).report(findings);
    }
    let gap = gap.map_or(Some(1), |gap| {
        let help = "one packet of every `gap` packets may overtake; the default 1 allows any packet";
        integer(gap, 1..=u32::MAX, help, findings)
    });
    inner.close(findings);
    Some(setting(entry, undelayed(chance.ok()?, gap?)))
}

/// A chance without correlation. `None` if the probability is zero.
pub(super) fn uncorrelated(probability: Probability) -> Option<Chance> {
    (probability > Probability::ZERO).then_some(Chance { probability, correlation: Probability::ZERO })
}

impl<'t> ChanceKeys<'t> {
    pub(super) fn take(table: &mut Table<'t>) -> Self {
        Self { probability: table.take("probability"), correlation: table.take("correlation") }
    }

    /// The key for messages about the whole chance: `probability`, or else `correlation`.
    pub(super) fn first(&self) -> Option<TableEntry<'t>> {
        self.probability.or(self.correlation)
    }

    /// Reads the chance of the parameter `whole`. `None` if the probability is zero.
    pub(super) fn read(&self, whole: TableEntry<'_>, findings: &mut Vec<Finding>) -> Result<Option<Chance>, Reported> {
        let example = || format!("write `{} = {{ probability = \"1%\", correlation = \"25%\" }}`", whole.key());
        let probability = self.probability.map(|entry| quantity(entry, findings));
        let correlation = self.correlation.map(|entry| quantity(entry, findings));
        findings.extend(match (self.correlation, self.probability) {
            (None, None) => Some(empty(whole, &example())),
            (Some(entry), None) => Some(missing(entry, "`probability`", &example())),
            (Some(entry), Some(zero)) if probability == Some(Some(Probability::ZERO)) => Some(no_effect(entry, zero)),
            _ => None,
        });
        let chance = uncorrelated(probability.flatten().ok_or(Reported)?);
        let Correlation(correlation) = correlation.unwrap_or(Some(Correlation(Probability::ZERO))).ok_or(Reported)?;
        Ok(chance.map(|chance| Chance { correlation, ..chance }))
    }
}
