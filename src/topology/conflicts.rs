//! Finds rules that together give a link contradictory parameters: [`check`].
//!
//! Two rules may contradict each other on some links only: one rule sets the jitter, the other rule a smaller delay. So
//! [`check`] looks at the links. To save time, [`check`] looks at one node of each class of [`Rules::classes`]. If no
//! conflict is possible, [`check`] returns at once.

use std::collections::BTreeSet;

use super::{
    coherence::incoherences,
    diagnostic::Finding,
    link::Link,
    matrix::Matrix,
    members::Members,
    node_set::{NodeId, NodeSet},
    patch::LinkPatch,
    rules::Rules,
    units::Delay,
};

/// Reports each pair of rules that contradict each other, with one link as an example.
pub(super) fn check(rules: &Rules, members: &Members, findings: &mut Vec<Finding>) {
    if !is_conflict_possible(rules) {
        return;
    }
    let mut reported = BTreeSet::new();
    for from in rules.classes(members).iter().filter_map(NodeSet::first) {
        let of_node = rules.of_node(from, members);
        for range in of_node.link_ranges() {
            let Some(to) = range.nodes.clone().find(|&to| to != from) else { continue };
            for incoherence in incoherences(&range.link) {
                let (parameter, other) = incoherence.parameters();
                let Some(span) = of_node.span_of(to, parameter) else { continue };
                let other_span = of_node.span_of(to, other);
                if reported.insert((span.clone(), other_span.clone())) {
                    incoherence.finding(span, other_span, &example(from, to, members)).report(findings);
                }
            }
        }
    }
}

fn example(from: NodeId, to: NodeId, members: &Members) -> String {
    let name = |node: NodeId| members.names_in(node..node + 1).first().map(ToString::to_string).unwrap_or_default();
    format!("for example from {} to {}", name(from), name(to))
}

/// False only if no rules can contradict each other.
///
/// The function looks at the rules and not at the links, so the result may be true even if there is no conflict.
fn is_conflict_possible(rules: &Rules) -> bool {
    let set_delays = rules.patches().filter_map(LinkPatch::delay);
    let default_delay = rules.default.over(Link::default()).delay;
    let matrix = rules.matrix.iter().filter_map(Matrix::least_delay);
    let least_delay = set_delays.chain(matrix).fold(default_delay, Delay::min);
    rules
        .patches()
        .map(|patch| patch.over(Link::default()))
        .any(|link| link.reorder.is_some() || link.jitter.is_some_and(|jitter| jitter.amount > least_delay))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use toml::de::DeTable;

    use super::*;
    use crate::topology::{
        Source, document,
        files::{AttachedFiles, References},
        matrix, membership,
        resolve::resolve,
        tables::TableIds,
    };

    /// Runs the passes before [`check`] over a topology file and its matrix.
    fn resolved(text: &str, csv: &str) -> (Rules, Members, Vec<Finding>) {
        let mut findings = Vec::new();
        let table = DeTable::parse(text).unwrap();
        let mut source = Source::new("t.toml", text);
        source.files.insert("m.csv".to_owned(), csv.to_owned());
        let (unreadable, references) = (BTreeMap::new(), References::of(table.get_ref()));
        let document = document::read(table.get_ref(), text, &TableIds::new(), &mut findings);
        let members = membership::read(&document.groups, &mut findings);
        let files = AttachedFiles::of(&source, &unreadable, &references, &mut Vec::new());
        let matrix = document.links.matrix.as_ref();
        let matrix = matrix.and_then(|words| matrix::read(words, &files, &members, &mut findings));
        let rules = resolve(&document, matrix, &members, &mut findings);
        (rules, members, findings)
    }

    /// A rule with one to three of the parameters that can contradict each other.
    fn any_rule() -> impl Strategy<Value = String> {
        let delay = prop_oneof![Just(String::new()), (0..9_u8).prop_map(|ms| format!("delay = '{ms}ms'"))];
        let jitter = prop_oneof![3 => Just(String::new()), 1 => (0..5_u8).prop_map(|ms| format!("jitter = '{ms}ms'"))];
        let reorder =
            proptest::sample::select(vec!["", "", "", "reorder = '1%'", "reorder = '0%'", "reorder = 'jitter'"]);
        (delay, jitter, reorder).prop_map(|(delay, jitter, reorder)| {
            let keys: Vec<_> = [&delay[..], &jitter, reorder].into_iter().filter(|key| !key.is_empty()).collect();
            if keys.is_empty() { "delay = '4ms'".to_owned() } else { keys.join(", ") }
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
        fn each_contradiction_on_a_link_is_one_finding(
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
            let links = pairs.filter(|(from, to)| from != to).map(|(from, to)| (from, to, rules.of_node(from, &members).link(to)));
            let mut expected = BTreeSet::new();
            for (from, to, link) in links {
                for (parameter, other) in incoherences(&link).map(crate::topology::Incoherence::parameters) {
                    let span = |parameter| rules.of_node(from, &members).span_of(to, parameter);
                    expected.insert((span(parameter), span(other)));
                }
            }
            prop_assert_eq!(findings.len(), expected.len(), "{}", text);
        }
    }

    #[test]
    fn one_node_of_each_class_is_checked() {
        let text = "name = 't'\nnodes = 'm[1-1000]'\nzones = { Z = 'n[1-1000]' }\n[links]\ndefault.delay = '1ms'\n\
                    [[links.override]]\nfrom = 'm[1,3,5,7-9,500]'\nto = 'Z'\njitter = '2ms'\n";
        let (rules, members, mut findings) = resolved(text, "");
        let firsts: Vec<_> = rules.classes(&members).iter().filter_map(NodeSet::first).collect();
        assert_eq!(firsts, [0, 1, 1_000]);
        check(&rules, &members, &mut findings);
        assert_eq!(findings.len(), 1);
    }
}
