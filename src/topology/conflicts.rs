//! Rules that make an incoherent link together: [`check`].
//!
//! A jitter of one rule may meet the delay of another on some links, on all, or on none: only the links tell. But
//! there are as many of them as pairs of nodes, so they are looked at only where the values that the rules have could
//! meet badly at all, and then once for all nodes of which the rules speak alike.

use std::collections::BTreeSet;

use super::{
    coherence::incoherences,
    diagnostic::Finding,
    link::{Jitter, Link, Parameter, Reorder},
    members::Members,
    node_set::{NodeId, NodeSet},
    patch::LinkPatch,
    rules::Rules,
    units::Delay,
};

/// Reports each two rules that make an incoherent link, with one such link.
pub(super) fn check(rules: &Rules, members: &Members, findings: &mut Vec<Finding>) {
    if !Extremes::may_meet_badly(rules) {
        return;
    }
    let mut reported = BTreeSet::new();
    for from in rules.classes(members).iter().filter_map(NodeSet::first) {
        let view = rules.view(from, members);
        for stretch in view.outlook() {
            let Some(to) = stretch.nodes.clone().find(|&to| to != from) else { continue };
            for incoherence in incoherences(&stretch.link) {
                let (parameter, other) = incoherence.parameters();
                let Some(place) = view.place_of(to, parameter) else { continue };
                let other_place = view.place_of(to, other);
                if reported.insert((place.clone(), other_place.clone())) {
                    findings.push(incoherence.finding(place, other_place, &example(from, to, members)));
                }
            }
        }
    }
}

fn example(from: NodeId, to: NodeId, members: &Members) -> String {
    let name = |node: NodeId| members.names_in(node..node + 1).first().map(ToString::to_string).unwrap_or_default();
    format!("from {} to {}, for one", name(from), name(to))
}

/// The values that some link may have after some of the rules, each by itself, that meet others worst.
#[derive(Clone, Copy)]
struct Extremes {
    least_delay: Delay,
    most_jitter: Delay,
    /// Whether a link may have no jitter.
    steady: bool,
    /// Whether packets may overtake others undelayed.
    undelayed: bool,
    /// Whether packets may overtake others by their jitter.
    by_jitter: bool,
}

impl Extremes {
    /// Whether there is any need to look at the links. It takes one walk over the rules, and is never wrong when it
    /// says no.
    fn may_meet_badly(rules: &Rules) -> bool {
        // The default is for every link, so that what it says is never what the LAN is.
        let mut so_far = Self::of(&rules.default.over(Link::LAN));
        so_far.is_bad()
            || rules.patches_over_the_default().any(|patch| {
                let here = so_far.under(&patch);
                so_far = so_far.or(here);
                here.is_bad()
            })
    }

    fn of(link: &Link) -> Self {
        Self {
            least_delay: link.delay,
            most_jitter: amount(link.jitter),
            steady: link.jitter.is_none(),
            undelayed: matches!(link.reorder, Some(Reorder::Undelayed(_))),
            by_jitter: link.reorder == Some(Reorder::Jitter),
        }
    }

    /// Of the links that the rule speaks of.
    fn under(self, patch: &LinkPatch) -> Self {
        let said = Self::of(&patch.over(Link::LAN));
        let is_said = |parameter| patch.place_of(parameter).is_some();
        let delay = if is_said(Parameter::Delay) { said } else { self };
        let jitter = if is_said(Parameter::Jitter) { said } else { self };
        let reorder = if is_said(Parameter::Reorder) { said } else { self };
        Self {
            least_delay: delay.least_delay,
            most_jitter: jitter.most_jitter,
            steady: jitter.steady,
            undelayed: reorder.undelayed,
            by_jitter: reorder.by_jitter,
        }
    }

    /// Of the links that are as in one or the other.
    fn or(self, other: Self) -> Self {
        Self {
            least_delay: self.least_delay.min(other.least_delay),
            most_jitter: self.most_jitter.max(other.most_jitter),
            steady: self.steady || other.steady,
            undelayed: self.undelayed || other.undelayed,
            by_jitter: self.by_jitter || other.by_jitter,
        }
    }

    fn is_bad(self) -> bool {
        self.most_jitter > self.least_delay
            || self.undelayed && self.least_delay == Delay::ZERO
            || self.by_jitter && self.steady
    }
}

fn amount(jitter: Option<Jitter>) -> Delay {
    jitter.map_or(Delay::ZERO, |jitter| jitter.amount)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use toml::de::DeTable;

    use super::*;
    use crate::topology::{
        Source,
        files::{Files, References},
        gather::gather,
        matrix, raw,
        resolve::resolve,
        tables::TableIds,
    };

    /// The rules of a file and its matrix, and whatever has been found so far.
    fn resolved(text: &str, csv: &str) -> (Rules, Members, Vec<Finding>) {
        let mut findings = Vec::new();
        let table = DeTable::parse(text).unwrap();
        let mut source = Source::new("t.toml", text);
        source.files.insert("m.csv".to_owned(), csv.to_owned());
        let (unreadable, references) = (BTreeMap::new(), References::of(table.get_ref()));
        let document = raw::read(table.get_ref(), text, &TableIds::new(), &mut findings);
        let members = gather(&document.groups, &mut findings);
        let files = Files::of(&source, &unreadable, &references, &mut Vec::new());
        let matrix = document.links.matrix.as_ref();
        let matrix = matrix.and_then(|words| matrix::read(words, &files, &members, &mut findings));
        let rules = resolve(&document, matrix, &members, &mut findings);
        (rules, members, findings)
    }

    /// A parameter or two, of the kinds that can contradict each other.
    fn any_rule() -> impl Strategy<Value = String> {
        let delay = prop_oneof![Just(String::new()), (0..9_u8).prop_map(|ms| format!("delay = '{ms}ms'"))];
        let jitter = prop_oneof![3 => Just(String::new()), 1 => (0..5_u8).prop_map(|ms| format!("jitter = '{ms}ms'"))];
        let reorder =
            proptest::sample::select(vec!["", "", "", "reorder = '1%'", "reorder = '0%'", "reorder = 'jitter'"]);
        (delay, jitter, reorder).prop_map(|(delay, jitter, reorder)| {
            let said: Vec<_> = [&delay[..], &jitter, reorder].into_iter().filter(|said| !said.is_empty()).collect();
            if said.is_empty() { "delay = '4ms'".to_owned() } else { said.join(", ") }
        })
    }

    fn any_file() -> impl Strategy<Value = String> {
        let end = proptest::sample::select(vec!["*", "Z1", "Z2", "n1", "n5", "n[2-3]", "n[1,3,6]"]);
        let ends = (end.clone(), end, any::<bool>());
        let overrides = proptest::collection::vec((ends, any_rule()), 0..4);
        (any_rule(), any_rule(), any_rule(), overrides).prop_map(|(default, intra, inter, overrides)| {
            let overrides = overrides.into_iter().map(|((a, b, both_ways), rule)| {
                let ends =
                    if both_ways { format!("between = ['{a}', '{b}']") } else { format!("from = '{a}', to = '{b}'") };
                format!("{{ {ends}, {rule} }}")
            });
            let overrides = overrides.collect::<Vec<_>>().join(", ");
            format!(
                "name = 't'\nnodes = 'n6'\nzones = {{ Z1 = 'n[1-3]', Z2 = 'n4', Z3 = 'n5' }}\n[links]\n\
                 default = {{ {default} }}\nintra-zone = {{ {intra} }}\ninter-zone = {{ {inter} }}\n\
                 override = [{overrides}, {{ from = 'n6', to = 'n1', limit = 5 }}]\n"
            )
            .replace("[, ", "[")
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        #[test]
        fn a_file_is_refused_if_and_only_if_a_link_is_incoherent(
            text in any_file(), cells in proptest::option::of(proptest::collection::vec("|[0-5]", 6)),
        ) {
            let cells = cells.unwrap_or_default();
            let csv = match &cells[..] {
                [a, b, c, d, e, f] => format!("ms,Z2,n6,Z1\nZ1,{a},{b},{c}\nn6,{d},,{e}\nn5,3,2,{f}\n"),
                _ => String::new(),
            };
            let matrix = if csv.is_empty() { "" } else { "[links]\nmatrix = 'm.csv'\nmatrix-is = 'delay'\n" };
            let text = text.replace("[links]\n", if matrix.is_empty() { "[links]\n" } else { matrix });
            let (rules, members, mut findings) = resolved(&text, &csv);
            prop_assume!(findings.is_empty());
            check(&rules, &members, &mut findings);
            let pairs = (0..members.count()).flat_map(|from| (0..members.count()).map(move |to| (from, to)));
            let links = pairs.filter(|(from, to)| from != to).map(|(from, to)| (from, to, rules.link(from, to, &members)));
            let mut expected = BTreeSet::new();
            for (from, to, link) in links {
                for (parameter, other) in incoherences(&link).map(super::super::Incoherence::parameters) {
                    let place = |parameter| rules.place_of(from, to, parameter, &members);
                    expected.insert((place(parameter), place(other)));
                }
            }
            prop_assert_eq!(findings.len(), expected.len(), "{}", text);
        }
    }

    #[test]
    fn nodes_that_no_rule_tells_apart_are_looked_at_once() {
        let text = "name = 't'\nnodes = 'm[1-1000]'\nzones = { Z = 'n[1-1000]' }\n[links]\ndefault.delay = '1ms'\n\
                    [[links.override]]\nfrom = 'm[1,3,5,7-9,500]'\nto = 'Z'\njitter = '2ms'\n";
        let (rules, members, mut findings) = resolved(text, "");
        let firsts: Vec<_> = rules.classes(&members).iter().filter_map(NodeSet::first).collect();
        assert_eq!(firsts, [0, 1, 1_000]);
        check(&rules, &members, &mut findings);
        assert_eq!(findings.len(), 1);
    }
}
