//! Measures every ordered pair of nodes, and compares the results with the document in force.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    process,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use super::{CALL_TIMEOUT, CallError, Fleet, TransactionError, split};
use crate::{
    plan::{Dice, Wanted},
    probe::{Expectation, Expected, Ledger, Report, Tolerance, check, judge, latest_answer, noise_ns, probe_spacing},
    topology::{Link, NodeName},
    wire::Probe,
};

/// The highest rate of echo requests from all nodes of one machine, per second. In a lab, all nodes are on one machine.
const MACHINE_RATE: u64 = 1_000;

/// The largest number of answers in memory, of 8 bytes each: 256 MB.
const MOST_ANSWERS: u64 = 32_000_000;

/// The shortest time between two requests to one target.
const MIN_INTERVAL: Duration = Duration::from_millis(50);

/// The reserve after the latest expected arrival of an answer. An answer that arrives after this reserve counts as
/// lost.
const GRACE: Duration = Duration::from_millis(500);

/// The largest number of repeats for pairs that differ from the document. The answers of the first measurement and of
/// all repeats are judged together.
const MAX_REPEATS: u32 = 3;

/// A slice is a part of the measurement that sends requests for at most this time, or sends one round. After each
/// slice, the agents report how late their machines were (timers, and echoes to themselves).
const SLICE: Duration = Duration::from_secs(4);

/// The largest factor by which a late machine makes the interval between requests longer. If a machine is late even
/// then, the machine is busy with other work, and the measurement ends.
const MAX_SLOWDOWN: u32 = 8;

/// The time limit of an agent's answer after the end of a slice.
const PATIENCE: Duration = CALL_TIMEOUT.saturating_mul(3);

/// The wait before the first echo request, divided by the number of nodes. In this wait, all agents get the
/// controller's call.
const SETTLE_EACH: Duration = Duration::from_millis(20);

/// One slice of a measurement.
struct Slice<'a> {
    /// The number of requests to each address.
    rounds: u32,
    /// The schedule, at the present pace.
    schedule: Schedule,
    /// True if every node records arriving requests for the whole slice; false: only until the node's own measurement
    /// ends.
    listens: bool,
    /// The pairs (from, to) to measure; `None`: all.
    pairs: Option<&'a BTreeSet<(NodeName, NodeName)>>,
}

/// The pace of a measurement.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// The remaining time at the current pace, without late machines and further repeats.
    pub left: Duration,
    /// The factor by which the interval between requests is longer than without late machines. A slice with a late
    /// machine doubles the factor.
    pub slow: u32,
    /// True while pairs that differ from the document are measured again.
    pub is_repeat: bool,
}

impl Fleet {
    /// Measures all pairs at once, and judges them.
    ///
    /// The requests of the first round wait for neighbour resolution (ARP, NDP), so the answers to these requests do
    /// not count. The arrivals of these requests at other nodes count. All further requests are sent in slices. After
    /// each slice, the agents report the lateness of their machines. If a machine was late, the next slice is slower.
    /// If a machine is late at the slowest pace, the measurement ends.
    ///
    /// Pairs that differ from the document, or that may lack answers by chance, are measured again. The median of all
    /// answers decides, so a machine that is busy for a second does not make a link count as wrong. Answers of a late
    /// machine do not count if there are enough other answers. Each request that arrived through a partition counts as
    /// a leak. `tell` is called before each slice.
    pub async fn verify(
        &self,
        wanted: &Wanted,
        count: u32,
        tolerance: Tolerance,
        tell: impl Fn(Pace),
    ) -> Result<Report, TransactionError> {
        let mut ledger = Ledger::default();
        // Except for random loss, a partition may cut an answer although the request arrived. So every node records
        // arriving requests for the whole slice.
        let is_cut = wanted.partitions.iter().any(|partition| !partition.is_partial());
        let schedule = self.schedule(wanted);
        let tell = |left, slow, repeat| {
            tell(Pace { left: self.takes(&schedule, left, slow), slow, is_repeat: repeat > 0 });
        };
        tell(count + 1, 1, 0);
        self.measure(&Slice { rounds: 1, schedule, listens: is_cut, pairs: None }, &mut ledger).await?;
        ledger.forget_answers();
        let (mut slow, mut doubtful, mut repeat) = (1, None, 0);
        loop {
            let mut left = count;
            while left > 0 {
                tell(left, slow, repeat);
                let schedule = Schedule { interval: schedule.interval * slow, ..schedule };
                let rounds = rounds(schedule.interval).min(left);
                let slice = Slice { rounds, schedule, listens: is_cut || repeat > 0, pairs: doubtful.as_ref() };
                let is_late = self.measure(&slice, &mut ledger).await?;
                left -= rounds;
                if is_late && slow == MAX_SLOWDOWN {
                    return Ok(self.judge(wanted, &ledger, count, tolerance, schedule.spacing));
                }
                slow = if is_late { slow * 2 } else { (slow - 1).max(1) };
            }
            let report = self.judge(wanted, &ledger, count, tolerance, schedule.spacing);
            let again = report.doubtful();
            if again.is_empty() || repeat == MAX_REPEATS {
                return Ok(report);
            }
            doubtful = Some(again);
            repeat += 1;
        }
    }

    /// Measures a slice, and adds the answers to the ledger. True if a machine was late or did not send all requests.
    async fn measure(&self, slice: &Slice<'_>, ledger: &mut Ledger) -> Result<bool, TransactionError> {
        let Slice { rounds, schedule: Schedule { interval, timeout, .. }, listens, pairs } = *slice;
        let (run, settle) = (draw_run(), self.settle());
        let total = interval * rounds + timeout;
        let asks = |from: &NodeName, to: &NodeName| {
            from != to && pairs.is_none_or(|pairs| pairs.contains(&(from.clone(), to.clone())))
        };
        let nodes = &self.inventory().nodes;
        let probe = |from: &NodeName| Probe {
            run,
            targets: nodes.iter().filter(|(to, _)| asks(from, to)).flat_map(|(_, to)| to.global().copied()).collect(),
            count: rounds,
            settle,
            interval,
            timeout,
            listen: if listens { total } else { Duration::ZERO },
        };
        let (answers, mut failures) = split(self.call(settle + total + PATIENCE, probe).await);
        let mut believed = BTreeMap::new();
        for (node, probed) in answers {
            let probe = probe(&node);
            match check(&probe, &probed) {
                Ok(()) => drop(believed.insert(node, (probe, probed))),
                Err(why) => drop(failures.insert(node.clone(), CallError::Unexpected { at: node.to_string(), why })),
            }
        }
        if !failures.is_empty() {
            return Err(TransactionError::unread(failures));
        }
        let owners = nodes.iter().flat_map(|(node, place)| place.global().map(|address| (*address, node.clone())));
        let machines = nodes.iter().map(|(node, place)| (node.clone(), place.agent.host())).collect();
        Ok(ledger.add(&owners.collect(), &machines, believed))
    }

    fn judge(&self, wanted: &Wanted, ledger: &Ledger, count: u32, tolerance: Tolerance, spacing: Duration) -> Report {
        let nodes = &self.inventory().nodes;
        let ways = nodes.keys().flat_map(|from| nodes.iter().map(move |to| (from, to)));
        let ways = ways.filter(|(from, (to, _))| from != to).map(|(from, (to, place))| {
            let sample = |address: &IpAddr| Some((*address, ledger.sample(from, address, count)?));
            let samples: Vec<_> = place.global().filter_map(sample).collect();
            let (there, back) = (wanted.link(from, to), wanted.link(to, from));
            let arrives = wanted.reaches(from, to);
            let expected = Expected {
                echo: (arrives && wanted.reaches(to, from)).then(|| Expectation::of(&there, &back, spacing)),
                request: arrives.then(|| Expectation::of(&there, &Link::default(), spacing)),
            };
            ((from, to), expected, samples)
        });
        let ways: Vec<_> = ways.collect();
        let answered = ways.iter().flat_map(|(_, expected, samples)| {
            expected.echo.into_iter().flat_map(move |echo| samples.iter().map(move |(_, sample)| (echo, sample)))
        });
        let noise_ns = noise_ns(answered);
        let tolerance = tolerance.on_network(noise_ns);
        let judge = |(ends, expected, samples)| judge(ends, expected, samples, tolerance, noise_ns);
        Report::new(ways.into_iter().map(judge).collect(), tolerance, noise_ns)
    }

    /// The expected time of a measurement without late machines and without pairs that are measured again.
    pub fn verify_takes(&self, wanted: &Wanted, count: u32) -> Duration {
        let schedule = self.schedule(wanted);
        self.takes(&schedule, 1, 1) + self.takes(&schedule, count, 1)
    }

    /// The expected time of `count` rounds, with an interval between requests that is `slow` times as long.
    fn takes(&self, schedule: &Schedule, count: u32, slow: u32) -> Duration {
        let (interval, latest) = (schedule.interval * slow, schedule.timeout.saturating_sub(GRACE));
        interval * count + (self.settle() + latest) * count.div_ceil(rounds(interval))
    }

    /// The largest number of requests from each node to each address whose answers fit in memory.
    pub fn most_requests(&self) -> u32 {
        let nodes = &self.inventory().nodes;
        let addresses: usize = nodes.values().map(|place| place.global().count()).sum();
        let ways = (addresses * nodes.len().saturating_sub(1)).max(1) as u64;
        u32::try_from(MOST_ANSWERS / ways).unwrap_or(u32::MAX)
    }

    /// The wait before the first echo request. In this wait, all agents get the controller's call.
    fn settle(&self) -> Duration {
        SETTLE_EACH * u32::try_from(self.inventory().nodes.len()).unwrap_or(u32::MAX)
    }

    fn schedule(&self, wanted: &Wanted) -> Schedule {
        let nodes = &self.inventory().nodes;
        let addresses: usize = nodes.values().map(|place| place.global().count()).sum();
        let mut requests: BTreeMap<Option<&str>, u64> = BTreeMap::new();
        for place in nodes.values() {
            *requests.entry(place.agent.host()).or_default() += (addresses - place.global().count()) as u64;
        }
        let at_machine_rate =
            Duration::from_millis(requests.into_values().max().unwrap_or_default() * 1_000 / MACHINE_RATE);
        let links = || {
            let pairs = nodes.keys().flat_map(|a| nodes.keys().map(move |b| (a, b))).filter(|(a, b)| a < b);
            pairs.map(|(a, b)| (wanted.link(a, b), wanted.link(b, a)))
        };
        // In one interval, a node sends to another node one request for each address of the other node, and one answer
        // for each address of its own. The average number of addresses stands for both.
        let addresses_each = u32::try_from(addresses.div_ceil(nodes.len().max(1))).unwrap_or(u32::MAX);
        let packets = addresses_each.saturating_mul(2).max(1);
        let spacing = links().map(|(there, back)| probe_spacing(&there, &back)).max().unwrap_or_default();
        let interval = at_machine_rate.max(MIN_INTERVAL).max(spacing.saturating_mul(packets));
        let timeout = links().map(|(there, back)| latest_answer(&there, &back)).max().unwrap_or_default() + GRACE;
        Schedule { interval, spacing: interval / packets, timeout }
    }
}

/// The times of a measurement.
#[derive(Clone, Copy)]
struct Schedule {
    /// The time between two requests to one target.
    interval: Duration,
    /// The average time between two packets from one node to another.
    spacing: Duration,
    timeout: Duration,
}

/// The number of rounds that fit in a slice, at least one.
fn rounds(interval: Duration) -> u32 {
    u32::try_from(SLICE.as_nanos() / interval.as_nanos().max(1)).unwrap_or(u32::MAX).max(1)
}

/// A number that almost certainly no other slice or measurement has, drawn from the process id and the time.
fn draw_run() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Dice::new(u64::from(process::id()) << 32 ^ now.as_secs() << 30 ^ u64::from(now.subsec_nanos())).throw()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        fleet::Access,
        plan::{Inventory, NodeLocation},
    };

    /// 1,000 nodes with one address each, and their agents.
    fn fleet(agent: impl Fn(u16) -> String) -> Fleet {
        let node = |number: u16| {
            let [high, low] = number.to_be_bytes();
            let place = NodeLocation {
                agent: agent(number).try_into().unwrap(),
                interface: "eno2".parse().unwrap(),
                addresses: vec![[10, 0, high, low].into()],
            };
            (format!("n{number}").parse().unwrap(), place)
        };
        Fleet::new(Inventory { nodes: (1..=1_000).map(node).collect(), ..Inventory::default() }, Access::default())
    }

    /// Regression test: the measurement of 1,000 machines took hours, because all nodes counted as one machine.
    #[test]
    fn a_thousand_machines_take_at_most_two_minutes_and_a_thousand_nodes_of_one_machine_take_hours() {
        let machines = fleet(|number| format!("https://host-{number}:7433"));
        let takes = machines.verify_takes(&Wanted::default(), 10);
        assert!((60..120).contains(&takes.as_secs()), "{takes:?}");
        assert!(machines.most_requests() >= 10);
        let lab = fleet(|number| format!("unix:/run/n{number}"));
        let takes = lab.verify_takes(&Wanted::default(), 10);
        assert!((3 * 3_600..4 * 3_600).contains(&takes.as_secs()), "{takes:?}");
    }

    #[test]
    fn the_remaining_time_follows_the_pace() {
        let lab = fleet(|number| format!("unix:/run/n{number}"));
        let schedule = Schedule {
            interval: Duration::from_secs(1),
            spacing: Duration::from_secs(1),
            timeout: GRACE + Duration::from_secs(1),
        };
        // Before each slice of 4 s, 20 s pass until all 1,000 nodes have the request.
        assert_eq!(lab.takes(&schedule, 10, 1), Duration::from_secs(10 + 3 * (20 + 1)));
        assert_eq!(lab.takes(&schedule, 10, 4), Duration::from_secs(40 + 10 * (20 + 1)));
    }
}
