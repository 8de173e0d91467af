//! The pairs that `verify` does not judge, with the reasons and remedies.

use std::collections::{BTreeMap, BTreeSet};

use super::render::count;
use crate::{
    probe::{Measured, Pair, Report, Verdict},
    topology::{NodeName, hostlist},
};

/// A notice that a machine was too busy to measure; `None`: no machine was too busy.
///
/// The notice comes before the figures, because they may be wrong.
pub(super) fn too_busy(report: &Report) -> Option<String> {
    (report.busy > 0).then(|| {
        format!(
            "{} of {} not judged: a machine is busy (timers up to {:.1} ms late)\n\
             Stop other work on the machines, then run netemctl verify again.\n",
            report.busy,
            count(report.pairs.len(), "pair"),
            report.late_ns as f64 / 1e6
        )
    })
}

/// The other reasons, each in its own paragraph.
pub(super) fn unjudged(report: &Report) -> String {
    let mut text = mute(report) + &filtered(report);
    if report.not_judged > 0 {
        text += &format!(
            "\n{} not judged: their delay is below the {:.2} ms of the network itself\n",
            count(report.not_judged, "pair"),
            report.noise_ns as f64 / 1e6
        );
    }
    let unknown: Vec<u64> = report.pairs.iter().filter_map(|pair| pair.requests_to_tell_loss).collect();
    if let Some(most) = unknown.iter().max() {
        let pairs = count(unknown.len(), "pair");
        text += &format!("\nloss not judged on {pairs}: too few requests; use --count {most}\n");
    }
    text
}

/// The measurements of all pairs with this verdict: one measurement for each address.
fn measured(report: &Report, verdict: Verdict) -> impl Iterator<Item = (&Pair, &Measured)> {
    let pairs = report.pairs.iter().filter(move |pair| pair.verdict == verdict);
    pairs.flat_map(|pair| pair.measured.iter().map(move |measured| (pair, measured)))
}

/// A paragraph about kernel settings that make nodes ignore echo requests.
fn mute(report: &Report) -> String {
    let mut nodes: BTreeMap<_, BTreeSet<NodeName>> = BTreeMap::new();
    for (pair, measured) in measured(report, Verdict::Mute) {
        if let Some(mute) = measured.mute {
            nodes.entry(mute).or_default().insert(pair.to.clone());
        }
    }
    if nodes.is_empty() {
        return String::new();
    }
    let mut text = format!("\n{} not judged: nodes ignore echo requests\n", count(report.mute, "pair"));
    for (mute, nodes) in nodes {
        let nodes = hostlist::fold(nodes);
        text += &format!("  {nodes}: {mute} is set; to measure, run sysctl -w {}\n", mute.remedy());
    }
    text
}

/// The places where a firewall drops packets: the packets, and the chain of the firewall.
const HOOKS: [(&str, &str); 4] = [
    ("echo requests that leave", "output"),
    ("echo requests that arrive", "input"),
    ("echo replies that leave", "output"),
    ("echo replies that arrive", "input"),
];

/// A paragraph about firewalls that drop echo requests or replies.
fn filtered(report: &Report) -> String {
    // For each hook: its nodes, the number of dropped packets, the number of all packets.
    let mut hooks: [(BTreeSet<&NodeName>, u64, u64); 4] = Default::default();
    for (Pair { from, to, .. }, measured) in measured(report, Verdict::Filtered) {
        let dropped = &measured.filtered;
        let sent = u64::from(measured.sent).saturating_sub(dropped.requests_out);
        let answered = sent.saturating_sub(dropped.requests_in);
        let at_hooks = [
            (from, dropped.requests_out, u64::from(measured.sent)),
            (to, dropped.requests_in, sent),
            (to, dropped.answers_out, answered),
            (from, dropped.answers_in, answered.saturating_sub(dropped.answers_out)),
        ];
        for ((nodes, all_dropped, of_all), (node, dropped, of)) in hooks.iter_mut().zip(at_hooks) {
            if dropped > 0 {
                nodes.insert(node);
                *all_dropped += dropped;
                *of_all += of;
            }
        }
    }
    if hooks.iter().all(|(nodes, ..)| nodes.is_empty()) {
        return String::new();
    }
    let pairs = count(report.filtered, "pair");
    let mut text = format!("\n{pairs} not judged: a firewall drops echo requests or replies\n");
    for ((packets, chain), (nodes, dropped, of)) in HOOKS.into_iter().zip(hooks) {
        if nodes.is_empty() {
            continue;
        }
        let nodes = hostlist::fold(nodes);
        let (share, limit) = if dropped < of {
            (format!("{dropped} of {of}"), "; look for a rate limit")
        } else {
            ("all".to_owned(), "")
        };
        text += &format!("  {nodes}: the {chain} rules drop {share} {packets}{limit}\n");
    }
    text + "  Accept ICMP echo on the interfaces. See the rules: nft list ruleset, iptables-save\n"
}
