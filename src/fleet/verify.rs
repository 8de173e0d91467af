//! Measuring every ordered pair of nodes against what is in force.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use super::{CALL_TIMEOUT, Fleet, TransactionError, part, transaction::unread};
use crate::{
    plan::Wanted,
    probe::{Pair, Report, Tolerance, judge},
    topology::NodeName,
    wire::{Echoes, Probe},
};

/// The most echo requests per second over the whole fleet: in a lab, one machine answers them all.
const FLEET_RATE: u64 = 1_000;

/// The least time between two requests to one target.
const MIN_INTERVAL: Duration = Duration::from_millis(50);

/// How much later than its RTT an answer may come before it counts as lost.
const GRACE: Duration = Duration::from_millis(500);

impl Fleet {
    /// Has every node measure the way to every other, all at once, and judges the result.
    pub async fn verify(&self, wanted: &Wanted, count: u32, tolerance: Tolerance) -> Result<Report, TransactionError> {
        let pace = self.pace(wanted, count);
        let probe = |node: &NodeName| Probe {
            targets: self.targets(node),
            count,
            interval: pace.interval,
            timeout: pace.timeout,
        };
        let (answers, failures) = part(self.call(pace.total + CALL_TIMEOUT, probe).await);
        if !failures.is_empty() {
            return Err(unread(failures));
        }
        let pairs =
            answers.into_iter().flat_map(|(from, echoes)| self.pairs(wanted, &from, echoes, tolerance)).collect();
        Ok(Report::new(pairs, tolerance))
    }

    /// How long a measurement takes.
    pub fn verify_takes(&self, wanted: &Wanted, count: u32) -> Duration {
        self.pace(wanted, count).total
    }

    fn pace(&self, wanted: &Wanted, count: u32) -> Pace {
        let nodes = &self.inventory().nodes;
        let addresses: usize = nodes.values().map(|place| place.addresses.len()).sum();
        let targets = (addresses * nodes.len().saturating_sub(1)) as u64;
        let interval = Duration::from_millis(targets * 1_000 / FLEET_RATE).max(MIN_INTERVAL);
        let slowest = nodes.keys().flat_map(|a| nodes.keys().map(move |b| (a, b)));
        let slowest = slowest.map(|(a, b)| wanted.link(a, b).delay + wanted.link(b, a).delay).max();
        let timeout = slowest.map_or(Duration::ZERO, Duration::from) + GRACE;
        Pace { interval, timeout, total: interval * (count + 1) + 2 * timeout }
    }

    fn targets(&self, node: &NodeName) -> Vec<IpAddr> {
        let others = self.inventory().nodes.iter().filter(|(other, _)| *other != node);
        others.flat_map(|(_, place)| place.addresses.clone()).collect()
    }

    fn pairs(&self, wanted: &Wanted, from: &NodeName, echoes: Vec<Echoes>, tolerance: Tolerance) -> Vec<Pair> {
        let mut by_address: BTreeMap<IpAddr, Echoes> = echoes.into_iter().map(|echo| (echo.address, echo)).collect();
        let others = self.inventory().nodes.iter().filter(|(other, _)| *other != from);
        others
            .map(|(to, place)| {
                let echoes = place.addresses.iter().filter_map(|address| by_address.remove(address)).collect();
                judge(wanted, from, to, echoes, tolerance)
            })
            .collect()
    }
}

struct Pace {
    interval: Duration,
    timeout: Duration,
    total: Duration,
}
