//! Collects the results of all slices of a measurement: [`Ledger`]. Results of late machines are kept apart.
//!
//! A slice is a few seconds of a measurement. After each slice, the agents report their results.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use super::filtered::{Filtered, Missing};
use crate::{
    topology::NodeName,
    wire::{Echoes, Mute, Probe, Probed},
};

/// The lateness (90th percentile) from which a machine distorts its measurements.
pub(super) const LATE: Duration = Duration::from_millis(20);

/// The largest plausible RTT.
const OLDEST: Duration = Duration::from_hours(48);

/// The results so far, by sender and address.
#[derive(Debug, Default)]
pub struct Ledger(BTreeMap<NodeName, BTreeMap<IpAddr, Asked>>);

/// The requests of one node to one address, and their answers.
#[derive(Debug, Default)]
struct Asked {
    /// The requests sent while both machines were punctual.
    punctual: Sample,
    /// The requests sent while one of the two machines was late.
    late: Sample,
    /// The requests that arrived.
    arrived: u32,
    /// The setting by which the other node does not answer all requests.
    mute: Option<Mute>,
}

/// The measurement of one address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    /// The requests sent.
    pub sent: u32,
    /// The round-trip times of the answers, in nanoseconds, in ascending order.
    pub rtts_ns: Vec<u64>,
    /// The one-way delays of the requests that arrived, in nanoseconds, in ascending order. Empty if the clocks of the
    /// two nodes may differ.
    pub delays_ns: Vec<i64>,
    /// The further answers to requests that have an answer already.
    pub duplicates: u32,
    /// The answers that arrived after the answer to a later request.
    pub reordered: u32,
    /// The requests that arrived, including the first round's.
    pub arrived: u32,
    /// The lateness of the later machine, in nanoseconds.
    pub late_ns: u64,
    /// The setting by which the other node does not answer all requests.
    pub mute: Option<Mute>,
    /// The packets that the two nodes themselves dropped.
    pub filtered: Filtered,
}

impl Sample {
    fn add(&mut self, other: &Self) {
        self.sent = self.sent.saturating_add(other.sent);
        self.rtts_ns.extend(&other.rtts_ns);
        self.rtts_ns.sort_unstable();
        self.delays_ns.extend(&other.delays_ns);
        self.delays_ns.sort_unstable();
        self.duplicates = self.duplicates.saturating_add(other.duplicates);
        self.reordered = self.reordered.saturating_add(other.reordered);
        self.late_ns = self.late_ns.max(other.late_ns);
        self.filtered.add(other.filtered);
    }
}

impl Ledger {
    /// Adds the results of a slice. True if a machine was late: the next slice should be slower.
    ///
    /// `owners` has the node of each address. `machines` has the machine of each node. Addresses without a node are
    /// ignored.
    pub fn add<M: Ord>(
        &mut self,
        owners: &BTreeMap<IpAddr, NodeName>,
        machines: &BTreeMap<NodeName, M>,
        answers: BTreeMap<NodeName, (Probe, Probed)>,
    ) -> bool {
        let mut late: BTreeMap<&M, Vec<u64>> = BTreeMap::new();
        for (node, (_, probed)) in &answers {
            if let Some(machine) = machines.get(node) {
                late.entry(machine).or_default().push(probed.late_ns);
            }
        }
        for late in late.values_mut() {
            late.sort_unstable();
        }
        // All nodes of a machine report its lateness. The median decides if the machine is late. The largest value is
        // the bound of the error.
        let late_ns = |node: &NodeName| -> Option<(u64, u64)> {
            let late = late.get(machines.get(node)?)?;
            Some((late[late.len() / 2], *late.last()?))
        };
        let mutes: BTreeMap<NodeName, BTreeSet<Mute>> =
            answers.iter().map(|(node, (_, probed))| (node.clone(), probed.mute.clone())).collect();
        let mut is_late = false;
        let missing = Missing::of(owners, &answers);
        let mut delays = delays(owners, machines, &answers);
        for (node, (probe, Probed { echoes, heard, .. })) in answers {
            for heard in heard.iter().filter(|heard| owners.get(&heard.to) == Some(&node)) {
                let Some(from) = owners.get(&heard.from) else { continue };
                let asked = self.0.entry(from.clone()).or_default().entry(heard.to).or_default();
                asked.arrived = asked.arrived.saturating_add(heard.requests).saturating_add(heard.dropped);
            }
            for echoes in echoes {
                let filtered = missing.filtered(&node, &echoes);
                let Echoes { address, sent, rtts_ns, duplicates, reordered, .. } = echoes;
                let ends = [Some(&node), owners.get(&address)];
                let (most, late_ns) = ends.into_iter().flatten().filter_map(late_ns).max().unwrap_or_default();
                let asked = self.0.entry(node.clone()).or_default().entry(address).or_default();
                let mute = owners.get(&address).and_then(|owner| mutes.get(owner)).into_iter().flatten();
                asked.mute = mute.copied().find(|mute| mute.concerns(&address));
                let is_punctual = u128::from(most) < LATE.as_nanos() && sent == probe.count;
                is_late |= !is_punctual;
                let delays_ns = delays.remove(&(node.clone(), address)).unwrap_or_default();
                let sample =
                    Sample { sent, rtts_ns, delays_ns, duplicates, reordered, late_ns, filtered, ..Sample::default() };
                if is_punctual { &mut asked.punctual } else { &mut asked.late }.add(&sample);
            }
        }
        is_late
    }

    /// Drops the answers so far, because the first requests wait for neighbour resolution. Keeps the arrivals.
    pub fn forget_answers(&mut self) {
        for asked in self.0.values_mut().flat_map(BTreeMap::values_mut) {
            (asked.punctual, asked.late) = (Sample::default(), Sample::default());
        }
    }

    /// The measurement from a node to an address. Requests of late machines count only if there are fewer than `count`
    /// punctual requests.
    pub fn sample(&self, from: &NodeName, to: &IpAddr, count: u32) -> Option<Sample> {
        let Asked { punctual, late, arrived, mute } = self.0.get(from)?.get(to)?;
        let mut sample = Sample { arrived: *arrived, mute: *mute, ..punctual.clone() };
        if punctual.sent < count {
            sample.add(late);
        }
        Some(sample)
    }
}

/// The one-way delays between nodes of one machine, which have one clock: by sender and address, in ascending order.
fn delays<M: Ord>(
    owners: &BTreeMap<IpAddr, NodeName>,
    machines: &BTreeMap<NodeName, M>,
    answers: &BTreeMap<NodeName, (Probe, Probed)>,
) -> BTreeMap<(NodeName, IpAddr), Vec<i64>> {
    let mut delays: BTreeMap<_, Vec<i64>> = BTreeMap::new();
    for (node, (_, probed)) in answers {
        for heard in probed.heard.iter().filter(|heard| owners.get(&heard.to) == Some(node)) {
            let Some(from) = owners.get(&heard.from) else { continue };
            if machines.get(from).is_some_and(|machine| machines.get(node) == Some(machine)) {
                delays.entry((from.clone(), heard.to)).or_default().extend(&heard.delays_ns);
            }
        }
    }
    for delays in delays.values_mut() {
        delays.sort_unstable();
    }
    delays
}

/// Checks an agent's measurement. The error is the reason why the measurement is invalid.
pub fn check(probe: &Probe, probed: &Probed) -> Result<(), String> {
    let targets: BTreeSet<&IpAddr> = probe.targets.iter().collect();
    let mut seen = BTreeSet::new();
    for Echoes { address, sent, refused, dropped, rtts_ns, .. } in &probed.echoes {
        let why = if !targets.contains(address) {
            "it was not asked for"
        } else if !seen.insert(address) {
            "it is there twice"
        } else if *sent > probe.count {
            "more requests than asked for"
        } else if rtts_ns.len() as u64 + u64::from(*refused) + u64::from(*dropped) > u64::from(*sent) {
            "more answers than requests"
        } else if rtts_ns.iter().any(|rtt| u128::from(*rtt) > OLDEST.as_nanos()) {
            "an answer that is older than the measurement"
        } else {
            continue;
        };
        return Err(format!("measured to {address}: {why}"));
    }
    if seen.len() < targets.len() {
        return Err(format!("{} of {} addresses are measured", seen.len(), targets.len()));
    }
    Ok(())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::probe) fn address(number: u8) -> IpAddr {
        [192, 0, 2, number].into()
    }

    pub(in crate::probe) fn node(number: u8) -> NodeName {
        format!("n{number}").parse().unwrap()
    }

    fn probe() -> Probe {
        let second = Duration::from_secs(1);
        let targets = vec![address(2)];
        Probe { run: 1, targets, count: 2, settle: second, interval: second, timeout: second, listen: second }
    }

    fn probed(sent: u32, rtts_ns: &[u64], late_ns: u64) -> Probed {
        let echoes = vec![Echoes { sent, rtts_ns: rtts_ns.to_vec(), ..Echoes::of(address(2)) }];
        Probed { echoes, late_ns, ..Probed::default() }
    }

    #[test]
    fn an_invalid_measurement_is_refused_without_overflow() {
        let why = |probed| check(&probe(), &probed).err();
        assert_eq!(why(probed(2, &[1, 2], 0)), None);
        let more = why(probed(1, &[1, 2], 0));
        assert_eq!(more.as_deref(), Some("measured to 192.0.2.2: more answers than requests"));
        assert!(why(probed(3, &[], 0)).is_some());
        assert!(why(probed(1, &[1 << 63], 0)).is_some());
        assert!(why(Probed::default()).is_some(), "a measurement without results is invalid");
        let mut twice = probed(1, &[], 0);
        twice.echoes.extend(twice.echoes.clone());
        assert!(why(twice).is_some());
        let mut other = probed(1, &[], 0);
        other.echoes[0].address = address(3);
        assert!(why(other).is_some());
    }

    #[test]
    fn results_of_a_late_machine_count_only_without_enough_punctual_results() {
        let owners = [(address(1), node(1)), (address(2), node(2))].into();
        let machines = [(node(1), 1), (node(2), 2)].into();
        let mut ledger = Ledger::default();
        let mut add = |mine: Probed, late_ns| {
            let other = Probed { late_ns, ..Probed::default() };
            let nobody = Probe { targets: Vec::new(), ..probe() };
            ledger.add(&owners, &machines, [(node(1), (probe(), mine)), (node(2), (nobody, other))].into())
        };
        let late = 30_000_000;
        assert!(add(probed(2, &[7, 8], late), 0), "the sender is late");
        assert!(add(probed(2, &[7, 9], 0), late), "the answering node is late");
        assert!(add(probed(1, &[1], 0), 0), "the sender was too late to send all requests");
        assert!(!add(probed(2, &[1, 2], 3), 4));
        let sample = |count| ledger.sample(&node(1), &address(2), count).unwrap();
        assert_eq!(sample(2), Sample { sent: 2, rtts_ns: vec![1, 2], late_ns: 4, ..Sample::default() });
        assert_eq!(
            sample(3),
            Sample { sent: 7, rtts_ns: vec![1, 1, 2, 7, 7, 8, 9], late_ns: late, ..Sample::default() }
        );
        assert_eq!(ledger.sample(&node(2), &address(2), 1), None);
    }
}
