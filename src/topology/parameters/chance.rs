//! How likely something happens to a packet: `corrupt`, `duplicate` and `reorder`, and the parts of `loss` that are
//! like them.

use super::{
    super::{
        diagnostic::Finding,
        link::{Chance, Reorder, Undelayed},
        patch::Said,
        reader::{Table, TableEntry},
        units::Probability,
    },
    Reported, is_of_none, needs,
    quantity::{quantity, quantity_or},
    said, says_nothing,
    whole::integer,
};

/// The keys of a table that says how likely something is.
pub(super) struct Keys<'t> {
    probability: Option<TableEntry<'t>>,
    correlation: Option<TableEntry<'t>>,
}

/// Takes `corrupt` or `duplicate`: `"1%"` or `{ probability = "1%", correlation = "25%" }`.
pub(super) fn take(
    table: &mut Table<'_>,
    key: &'static str,
    findings: &mut Vec<Finding>,
) -> Option<Said<Option<Chance>>> {
    let entry = table.take(key)?;
    let Some(mut inner) = entry.as_table("a chance") else {
        return Some(said(entry, plain(quantity(entry, findings)?)));
    };
    let keys = Keys::take(&mut inner);
    let chance = keys.read(entry, findings);
    inner.close(findings);
    Some(said(entry, chance.ok()?))
}

/// Takes `reorder`: a chance that may have a gap, or `"jitter"`.
pub(super) fn take_reorder(table: &mut Table<'_>, findings: &mut Vec<Finding>) -> Option<Said<Option<Reorder>>> {
    let entry = table.take("reorder")?;
    let undelayed = |chance: Option<Chance>, gap| chance.map(|chance| Reorder::Undelayed(Undelayed { chance, gap }));
    let Some(mut inner) = entry.as_table("a reordering") else {
        let reorder = match quantity_or("jitter", entry, findings).ok()? {
            Some(probability) => undelayed(plain(probability), 1),
            None => Some(Reorder::Jitter),
        };
        return Some(said(entry, reorder));
    };
    let (keys, gap) = (Keys::take(&mut inner), inner.take("gap"));
    let chance = match (gap, keys.is_silent()) {
        (Some(gap), true) => {
            needs(gap, "`probability`", "write `reorder = { probability = \"1%\", gap = 5 }`", findings);
            Err(Reported)
        }
        _ => keys.read(entry, findings),
    };
    if let (Some(gap), Some(probability), Ok(None)) = (gap, keys.probability, chance) {
        is_of_none(gap, probability, findings);
    }
    let gap = gap.map_or(Some(1), |gap| {
        let help = "of every so many packets one may overtake; 1, which is the default: any";
        integer(gap, 1..=u32::MAX, help, findings)
    });
    inner.close(findings);
    Some(said(entry, undelayed(chance.ok()?, gap?)))
}

/// Reads a correlation, which is less than 100 %.
pub(super) fn correlation(entry: TableEntry<'_>, findings: &mut Vec<Finding>) -> Option<Probability> {
    let correlation = quantity(entry, findings)?;
    if correlation == Probability::ONE {
        findings.push(
            Finding::new(entry.value().span(), "a correlation of 100% draws once and never again")
                .label("all packets would fare as the first one")
                .help("write less than 100%"),
        );
        return None;
    }
    Some(correlation)
}

/// A chance without correlation, which is none if it is zero.
pub(super) fn plain(probability: Probability) -> Option<Chance> {
    (probability > Probability::ZERO).then_some(Chance { probability, correlation: Probability::ZERO })
}

impl<'t> Keys<'t> {
    pub(super) fn take(table: &mut Table<'t>) -> Self {
        Self { probability: table.take("probability"), correlation: table.take("correlation") }
    }

    pub(super) fn is_silent(&self) -> bool {
        self.main().is_none()
    }

    /// The key that stands for all of them.
    pub(super) fn main(&self) -> Option<TableEntry<'t>> {
        self.probability.or(self.correlation)
    }

    /// Reads the chance that is said under the key of `whole`. A probability of zero is none.
    pub(super) fn read(&self, whole: TableEntry<'_>, findings: &mut Vec<Finding>) -> Result<Option<Chance>, Reported> {
        let example = || format!("write `{} = {{ probability = \"1%\", correlation = \"25%\" }}`", whole.key());
        let probability = self.probability.map(|entry| quantity(entry, findings));
        let correlated = self.correlation.map(|entry| correlation(entry, findings));
        match (self.correlation, self.probability) {
            (None, None) => says_nothing(whole, &example(), findings),
            (Some(entry), None) => needs(entry, "`probability`", &example(), findings),
            (Some(entry), Some(none)) if probability == Some(Some(Probability::ZERO)) => {
                is_of_none(entry, none, findings);
            }
            _ => {}
        }
        let chance = plain(probability.flatten().ok_or(Reported)?);
        let correlation = correlated.unwrap_or(Some(Probability::ZERO)).ok_or(Reported)?;
        Ok(chance.map(|chance| Chance { correlation, ..chance }))
    }
}
