//! `loss`, in each of its models.

use super::{
    super::{
        diagnostic::Finding,
        link::{Loss, LossModel},
        patch::Said,
        reader::{Table, TableEntry},
        units::Probability,
    },
    Reported,
    chance::{self, Keys},
    is_of_none, needs,
    quantity::quantity,
    said, says_nothing,
};

const HELP: &str =
    "write `probability = \"0.1%\"`, `gemodel = { p = \"1%\", r = \"10%\" }` or `state = { p13 = \"1%\" }`";

/// Takes `loss`: `"0.1%"`, or a table of one model and perhaps `ecn`. A loss of nothing is none.
pub(super) fn take(table: &mut Table<'_>, findings: &mut Vec<Finding>) -> Option<Said<Option<Loss>>> {
    let entry = table.take("loss")?;
    let Some(mut inner) = entry.as_table("a loss") else {
        let chance = chance::plain(quantity(entry, findings)?);
        return Some(said(entry, chance.map(|chance| Loss { model: LossModel::Random(chance), ecn: false })));
    };
    let random = Keys::take(&mut inner);
    let (state, gemodel, ecn) = (inner.take("state"), inner.take("gemodel"), inner.take("ecn"));
    let mut models: Vec<_> = [
        random.main().map(|key| (key, random.read(entry, findings).map(|chance| chance.map(LossModel::Random)))),
        state.map(|key| (key, read_state(key, findings))),
        gemodel.map(|key| (key, read_gemodel(key, findings))),
    ]
    .into_iter()
    .flatten()
    .collect();
    models.sort_by_key(|(key, _)| key.key_span().start);
    let model = match &models[..] {
        [(_, model)] => *model,
        [(first, _), (second, _), ..] => {
            findings.push(
                Finding::new(second.key_span(), "a loss has one model")
                    .label(format!("`{}` is another one", second.key()))
                    .related(first.key_span(), format!("`{}` is here", first.key()))
                    .help(HELP),
            );
            Err(Reported)
        }
        [] => {
            match ecn {
                Some(ecn) => needs(ecn, "a loss", HELP, findings),
                None => says_nothing(entry, HELP, findings),
            }
            Err(Reported)
        }
    };
    if let (Some(ecn), Ok(None), Some((none, _))) = (ecn, model, models.first()) {
        is_of_none(ecn, *none, findings);
    }
    let ecn = ecn.map_or(Some(false), |ecn| ecn.boolean(findings));
    inner.close(findings);
    let (model, ecn) = (model.ok()?, ecn?);
    Some(said(entry, model.map(|model| Loss { model, ecn })))
}

/// Reads the four-state model, with the defaults of `tc`.
fn read_state(entry: TableEntry<'_>, findings: &mut Vec<Finding>) -> Result<Option<LossModel>, Reported> {
    let mut inner = entry.table("the four-state model", findings).ok_or(Reported)?;
    let [mut p13, mut p31, mut p32, mut p23, mut p14] =
        ["p13", "p31", "p32", "p23", "p14"].map(|key| Transition::take(key, &mut inner, findings));
    inner.close(findings);
    p13.is_required_by(entry, "how likely is a burst of losses?", findings);
    p31.is_else(p13.value.map(Probability::complement));
    p32.is_else(Some(Probability::ZERO));
    p23.is_else(Some(Probability::ONE));
    p14.is_else(Some(Probability::ZERO));
    p13.share_with(&p14, "both lead out of state 1", findings);
    p31.share_with(&p32, "both lead out of state 3, and `p31` is 100% less `p13` unless it is written", findings);
    let (p13, p31, p32, p23, p14) = (p13.value()?, p31.value()?, p32.value()?, p23.value()?, p14.value()?);
    let loses = p13 > Probability::ZERO || p14 > Probability::ZERO;
    Ok(loses.then_some(LossModel::State { p13, p31, p32, p23, p14 }))
}

/// Reads the model of Gilbert and Elliott, with the defaults of `tc`.
fn read_gemodel(entry: TableEntry<'_>, findings: &mut Vec<Finding>) -> Result<Option<LossModel>, Reported> {
    let mut inner = entry.table("the Gilbert-Elliott model", findings).ok_or(Reported)?;
    let [p, mut r, mut bad, mut good] =
        ["p", "r", "bad", "good"].map(|key| Transition::take(key, &mut inner, findings));
    inner.close(findings);
    p.is_required_by(entry, "how likely does it go bad?", findings);
    r.is_else(p.value.map(Probability::complement));
    bad.is_else(Some(Probability::ONE));
    good.is_else(Some(Probability::ZERO));
    let (p, r, bad, good) = (p.value()?, r.value()?, bad.value()?, good.value()?);
    let loses = good > Probability::ZERO || p > Probability::ZERO && bad > Probability::ZERO;
    Ok(loses.then_some(LossModel::GeModel { p, r, bad, good }))
}

/// One probability of a Markov chain.
struct Transition<'t> {
    key: &'static str,
    entry: Option<TableEntry<'t>>,
    /// None where it is missing, or wrong and reported.
    value: Option<Probability>,
}

impl<'t> Transition<'t> {
    fn take(key: &'static str, table: &mut Table<'t>, findings: &mut Vec<Finding>) -> Self {
        let entry = table.take(key);
        Self { key, entry, value: entry.and_then(|entry| quantity(entry, findings)) }
    }

    fn is_required_by(&self, model: TableEntry<'_>, question: &str, findings: &mut Vec<Finding>) {
        if self.entry.is_none() {
            let (model_key, key) = (model.key(), self.key);
            findings.push(
                Finding::new(model.key_span(), format!("`{model_key}` needs `{key}`"))
                    .label(question)
                    .help(format!("write `{model_key} = {{ {key} = \"1%\" }}`")),
            );
        }
    }

    fn is_else(&mut self, default: Option<Probability>) {
        if self.entry.is_none() {
            self.value = default;
        }
    }

    /// Sees to it that two ways out of one state are not more than 100 % together.
    ///
    /// `loss_4state` of `sch_netem.c` adds them in 32 bits, and their sum must not wrap. Where only their rounding
    /// does that (50 % and 50 % are both rounded up), this one loses the part in four billion that is too much.
    fn share_with(&mut self, other: &Self, help: &str, findings: &mut Vec<Finding>) {
        let (Some(one), Some(two)) = (self.value, other.value) else { return };
        let excess = (u64::from(one.parts()) + u64::from(two.parts())).saturating_sub(u64::from(u32::MAX));
        if excess <= 1 {
            let parts = one.parts().saturating_sub(u32::from(excess == 1));
            self.value = Some(Probability::from_parts(parts));
            return;
        }
        let mut written: Vec<_> = [self.entry, other.entry].into_iter().flatten().collect();
        written.sort_by_key(|entry| entry.key_span().start);
        if let Some(last) = written.pop() {
            let message = format!("`{}` and `{}` are more than 100% together", self.key, other.key);
            let finding = Finding::new(last.key_span(), message).label(format!("{one} and {two}")).help(help);
            findings.push(match written.pop() {
                Some(first) => finding.related(first.key_span(), format!("`{}` is here", first.key())),
                None => finding,
            });
        }
        self.value = None;
    }

    fn value(&self) -> Result<Probability, Reported> {
        self.value.ok_or(Reported)
    }
}
