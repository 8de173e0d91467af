//! Reads `loss`, which has one of three models.

use super::{
    super::{
        diagnostic::{Finding, Reported},
        link::{Loss, LossModel},
        patch::Setting,
        reader::{Table, TableEntry},
        units::Probability,
    },
    chance::{self, ChanceKeys},
    empty, missing, no_effect,
    number::quantity,
    setting,
};

const HELP: &str =
    "write `probability = \"0.1%\"`, `gemodel = { p = \"1%\", r = \"10%\" }` or `state = { p13 = \"1%\" }`";

/// Takes `loss`: `"0.1%"`, or a table of one model and optionally `ecn`.
///
/// The value `None` stands for a loss of zero.
pub(super) fn take(table: &mut Table<'_>, findings: &mut Vec<Finding>) -> Option<Setting<Option<Loss>>> {
    let entry = table.take("loss")?;
    let Some(mut inner) = entry.as_table("a loss") else {
        let chance = chance::uncorrelated(quantity(entry, findings)?);
        return Some(setting(entry, chance.map(|chance| Loss { model: LossModel::Random(chance), ecn: false })));
    };
    let random = ChanceKeys::take(&mut inner);
    let (state, gemodel, ecn) = (inner.take("state"), inner.take("gemodel"), inner.take("ecn"));
    let mut models: Vec<_> = [
        random.first().map(|key| (key, random.read(entry, findings).map(|chance| chance.map(LossModel::Random)))),
        state.map(|key| (key, read_state(key, findings))),
        gemodel.map(|key| (key, read_gemodel(key, findings))),
    ]
    .into_iter()
    .flatten()
    .collect();
    models.sort_by_key(|(key, _)| key.key_span().start);
    let model = match &models[..] {
        [(_, model)] => *model,
        [(first, _), (second, _), ..] => Err(first.conflict(*second, "a loss has one model", HELP).report(findings)),
        [] => {
            let finding = ecn.map_or_else(|| empty(entry, HELP), |ecn| missing(ecn, "a loss", HELP));
            Err(finding.report(findings))
        }
    };
    if let (Some(ecn), Ok(None), Some((none, _))) = (ecn, model, models.first()) {
        no_effect(ecn, *none).report(findings);
    }
    let ecn = ecn.map_or(Some(false), |ecn| ecn.boolean(findings));
    inner.close(findings);
    let (model, ecn) = (model.ok()?, ecn?);
    Some(setting(entry, model.map(|model| Loss { model, ecn })))
}

/// Reads the four-state model, with the defaults of tc-netem(8).
fn read_state(entry: TableEntry<'_>, findings: &mut Vec<Finding>) -> Result<Option<LossModel>, Reported> {
    let mut inner = entry.table("the four-state model", findings).ok_or(Reported)?;
    let mut transition = |key, default| Transition::take(key, default, &mut inner, findings);
    let mut p13 = transition("p13", None);
    let mut p31 = transition("p31", p13.value.map(Probability::complement));
    let p32 = transition("p32", Some(Probability::ZERO));
    let p23 = transition("p23", Some(Probability::ONE));
    let p14 = transition("p14", Some(Probability::ZERO));
    inner.close(findings);
    p13.require(entry, "the probability of a burst", findings);
    p13.limit_sum_with(&p14, "both are exits of state 1", findings);
    p31.limit_sum_with(&p32, "both are exits of state 3; the default of `p31` is 100% - `p13`", findings);
    let (p13, p31, p32, p23, p14) = (p13.value()?, p31.value()?, p32.value()?, p23.value()?, p14.value()?);
    let loses = p13 > Probability::ZERO || p14 > Probability::ZERO;
    Ok(loses.then_some(LossModel::State { p13, p31, p32, p23, p14 }))
}

/// Reads the Gilbert-Elliott model, with the defaults of tc-netem(8).
fn read_gemodel(entry: TableEntry<'_>, findings: &mut Vec<Finding>) -> Result<Option<LossModel>, Reported> {
    let mut inner = entry.table("the Gilbert-Elliott model", findings).ok_or(Reported)?;
    let mut transition = |key, default| Transition::take(key, default, &mut inner, findings);
    let p = transition("p", None);
    let r = transition("r", p.value.map(Probability::complement));
    let bad = transition("bad", Some(Probability::ONE));
    let good = transition("good", Some(Probability::ZERO));
    inner.close(findings);
    p.require(entry, "the probability of the bad state", findings);
    let (p, r, bad, good) = (p.value()?, r.value()?, bad.value()?, good.value()?);
    let loses = good > Probability::ZERO || p > Probability::ZERO && bad > Probability::ZERO;
    Ok(loses.then_some(LossModel::GeModel { p, r, bad, good }))
}

/// A key of a loss model with its probability.
struct Transition<'t> {
    key: &'static str,
    entry: Option<TableEntry<'t>>,
    /// The probability, or the default. `None` if there is no default, or if a mistake is reported.
    value: Option<Probability>,
}

impl<'t> Transition<'t> {
    fn take(
        key: &'static str,
        default: Option<Probability>,
        table: &mut Table<'t>,
        findings: &mut Vec<Finding>,
    ) -> Self {
        let entry = table.take(key);
        Self { key, entry, value: entry.map_or(default, |entry| quantity(entry, findings)) }
    }

    fn require(&self, model: TableEntry<'_>, meaning: &str, findings: &mut Vec<Finding>) {
        if self.entry.is_none() {
            let (model_key, key) = (model.key(), self.key);
            Finding::new(model.key_span(), format!("`{model_key}` needs `{key}`"))
                .label(meaning)
                .help(format!("write `{model_key} = {{ {key} = \"1%\" }}`"))
                .report(findings);
        }
    }

    /// Reports two exits of one state whose sum is more than 100 %.
    ///
    /// The kernel (`loss_4state` of `sch_netem.c`) adds the two probabilities in 32 bits, which must not overflow. Two
    /// probabilities of 50 % are both rounded up, so their sum is one part too large. In this case `self` gets one part
    /// less.
    fn limit_sum_with(&mut self, other: &Self, help: &str, findings: &mut Vec<Finding>) {
        let (Some(one), Some(two)) = (self.value, other.value) else { return };
        let excess = (u64::from(one.parts()) + u64::from(two.parts())).saturating_sub(u64::from(u32::MAX));
        if excess <= 1 {
            let parts = one.parts().saturating_sub(u32::from(excess == 1));
            self.value = Some(Probability::from_parts(parts));
            return;
        }
        let message = format!("`{}` and `{}` are more than 100% together", self.key, other.key);
        let finding = match (self.entry, other.entry) {
            (Some(one), Some(two)) => Some(one.conflict(two, &message, help)),
            (Some(only), None) | (None, Some(only)) => Some(Finding::new(only.key_span(), message).help(help)),
            (None, None) => None,
        };
        findings.extend(finding.map(|finding| finding.label(format!("{one} and {two}"))));
        self.value = None;
    }

    fn value(&self) -> Result<Probability, Reported> {
        self.value.ok_or(Reported)
    }
}
