//! Compares the nodes of a fleet with each other.

use std::collections::{BTreeMap, BTreeSet};

use super::{Check, Fact, Facts, Finding, InterfaceFacts};
use crate::{plan::IfName, topology::NodeName};

/// The difference between two clocks that is noted, in nanoseconds: 1 ms, the usual error of NTP on a LAN.
const CLOCKS_APART_NS: u64 = 1_000_000;

/// Compares the nodes with each other. `interfaces`: the interface of each node, if it is known. `ahead`: the nanoseconds
/// by which the clock of a node is certainly ahead of the controller's.
pub fn compare(
    nodes: &BTreeMap<NodeName, Facts>,
    interfaces: &BTreeMap<NodeName, IfName>,
    ahead: &BTreeMap<NodeName, i64>,
) -> Vec<(NodeName, Finding)> {
    let interface = |node: &NodeName, facts: &Facts| {
        let chosen = interfaces.get(node).or_else(|| facts.interfaces.keys().next())?;
        facts.interfaces.get(chosen)?.known().cloned()
    };
    let mtu = |node: &NodeName, facts: &Facts| interface(node, facts).map(|InterfaceFacts { mtu, .. }| mtu);
    let mtus = common(nodes.iter().filter_map(|(node, facts)| Some((node, mtu(node, facts)?))));
    let releases = common(nodes.iter().map(|(node, facts)| (node, facts.kernel.release.clone())));
    let mut findings = Vec::new();
    findings.extend(mtus.into_iter().flat_map(|Common { usual, others }| {
        let text = move |other| format!("the interface has MTU {other}; most nodes have {usual}");
        let problem = move |other| {
            Check::Mtu
                .problem(text(other))
                .effect("large packets between these nodes are lost")
                .remedy(format!("ip link set INTERFACE mtu {usual}"))
        };
        others.into_iter().map(move |(node, other)| (node, problem(other)))
    }));
    findings.extend(releases.into_iter().flat_map(|Common { usual, others }| {
        let note = move |other| {
            Check::Kernels
                .note(format!("the kernel is {other}; most nodes have {usual}"))
                .effect("netem and TCP differ between kernels, so the nodes are not alike")
        };
        others.into_iter().map(move |(node, other)| (node, note(other)))
    }));
    findings.extend(clocks(nodes, ahead));
    findings
}

/// The value of most nodes, and the nodes with another value.
struct Common<T> {
    usual: T,
    others: Vec<(NodeName, T)>,
}

/// Finds the common value. `None`: all nodes have the same value.
fn common<'a, T: Ord + Clone>(values: impl Iterator<Item = (&'a NodeName, T)>) -> Option<Common<T>> {
    let values: Vec<_> = values.collect();
    let mut counts: BTreeMap<&T, usize> = BTreeMap::new();
    for (_, value) in &values {
        *counts.entry(value).or_default() += 1;
    }
    if counts.len() < 2 {
        return None;
    }
    let usual = counts.into_iter().max_by_key(|(_, count)| *count).map(|(value, _)| value.clone())?;
    let others = values.into_iter().filter(|(_, value)| *value != usual);
    let others = others.map(|(node, value)| (node.clone(), value)).collect();
    Some(Common { usual, others })
}

/// Judges the clocks of several machines. The nodes of one machine have one clock.
fn clocks(nodes: &BTreeMap<NodeName, Facts>, ahead: &BTreeMap<NodeName, i64>) -> Vec<(NodeName, Finding)> {
    let machines: BTreeSet<&str> = nodes.values().map(|facts| facts.boot.as_str()).collect();
    let effect = "nodes switch at the controller's time, but timestamps in their logs do not agree";
    let judge = |(node, facts): (&NodeName, &Facts)| {
        let off = ahead.get(node).map_or(0, |ahead| ahead.unsigned_abs());
        let finding = if off > CLOCKS_APART_NS {
            // A power of ten, so that nodes with similar clocks have the same text.
            let least = 10_u64.pow((off / CLOCKS_APART_NS).ilog10());
            Check::Clock
                .note(format!("the clock differs from the controller's by more than {least} ms"))
                .effect(effect)
                .remedy("synchronise it: systemctl enable --now chrony, or chronyd")
        } else if machines.len() < 2 {
            Check::Clock.ok("all nodes have one clock, of one machine")
        } else {
            match &facts.synchronisers {
                Fact::NotKnown(why) => Check::Clock.not_known("the program that synchronises the clock", why),
                Fact::Known(programs) if programs.is_empty() => Check::Clock
                    .note("no program synchronises the clock (chronyd, ntpd, timesyncd, ptp4l)")
                    .effect(effect)
                    .remedy("systemctl enable --now chrony, or chronyd"),
                Fact::Known(programs) => Check::Clock.ok(format!(
                    "{} synchronises the clock; it agrees with the controller's",
                    programs.iter().map(String::as_str).collect::<Vec<_>>().join(", ")
                )),
            }
        };
        (node.clone(), finding)
    };
    nodes.iter().map(judge).collect()
}
