//! Measures every ordered pair of nodes, and compares the results with the document in force.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    process,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use super::{CALL_TIMEOUT, CallError, Fleet, TransactionError, split};
use crate::{
    plan::{Dice, Wanted},
    probe::{
        Expectation, Expected, Ledger, Pairs, Report, Tolerance, check, judge, latest_answer, noise_ns,
        one_way_noise_ns, probe_spacing,
    },
    topology::{Link, NodeName},
    wire::{GetStamp, Probe},
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

/// The shortest wait before the first echo request of a slice. In this wait, all agents get the controller's call.
const LEAST_SETTLE: Duration = Duration::from_millis(100);

/// The wait before the first echo request, as a multiple of the time in which all agents answered an earlier call.
const SETTLE_CALLS: u32 = 4;

/// The choice of a measurement.
#[derive(Clone, Debug)]
pub struct Terms {
    /// The pairs to measure.
    pub pairs: Pairs,
    /// The number of requests to each address of a pair.
    pub count: u32,
    /// The least time between two requests to one address; `None`: 50 ms. Links with jitter or a low rate may need more.
    pub interval: Option<Duration>,
    /// The tolerance of medians.
    pub tolerance: Tolerance,
}

/// The plan of a measurement.
#[derive(Clone, Debug)]
pub struct Survey {
    terms: Terms,
    schedule: Schedule,
}

/// One slice of a measurement.
struct Slice<'a> {
    /// The number of requests to each address.
    rounds: u32,
    /// The schedule, at the present pace.
    schedule: Schedule,
    /// True if every node records arriving requests for the whole slice; false: only until the node's own measurement
    /// ends.
    listens: bool,
    /// The pairs to measure.
    pairs: &'a Pairs,
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
    /// Measures the pairs of a survey at once, and judges them.
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
        survey: &Survey,
        tell: impl Fn(Pace),
    ) -> Result<Report, TransactionError> {
        let Survey { terms: Terms { count, pairs, .. }, schedule } = survey;
        let mut ledger = Ledger::default();
        // Except for random loss, a partition may cut an answer although the request arrived. So every node records
        // arriving requests for the whole slice.
        let is_cut = wanted.partitions.iter().any(|partition| !partition.is_partial());
        // A node that sends no requests, or few, would otherwise stop listening before the others have sent theirs.
        let nodes = self.inventory().nodes.len();
        let listens = is_cut || pairs.len() < nodes * nodes.saturating_sub(1);
        let tell = |left, slow, repeat| {
            tell(Pace { left: schedule.takes(left, slow), slow, is_repeat: repeat > 0 });
        };
        tell(count + 1, 1, 0);
        self.measure(&Slice { rounds: 1, schedule: *schedule, listens, pairs }, &mut ledger).await?;
        ledger.forget_answers();
        let (mut slow, mut doubtful, mut repeat) = (1, None, 0);
        loop {
            let mut left = *count;
            while left > 0 {
                tell(left, slow, repeat);
                let schedule = Schedule { interval: schedule.interval * slow, ..*schedule };
                let rounds = schedule.rounds().min(left);
                let pairs = doubtful.as_ref().unwrap_or(pairs);
                let slice = Slice { rounds, schedule, listens: listens || repeat > 0, pairs };
                let is_late = self.measure(&slice, &mut ledger).await?;
                left -= rounds;
                if is_late && slow == MAX_SLOWDOWN {
                    return Ok(self.judge(wanted, &ledger, survey));
                }
                slow = if is_late { slow * 2 } else { (slow - 1).max(1) };
            }
            let report = self.judge(wanted, &ledger, survey);
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
        let Slice { rounds, schedule: Schedule { interval, timeout, settle, .. }, listens, pairs } = *slice;
        let run = draw_run();
        let total = interval * rounds + timeout;
        let nodes = &self.inventory().nodes;
        let probe = |from: &NodeName| Probe {
            run,
            targets: pairs.from(from).filter_map(|to| nodes.get(to)).flat_map(|to| to.global().copied()).collect(),
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

    fn judge(&self, wanted: &Wanted, ledger: &Ledger, survey: &Survey) -> Report {
        let Survey { terms: Terms { pairs, count, tolerance, .. }, schedule: Schedule { spacing, .. } } = survey;
        let nodes = &self.inventory().nodes;
        let ways = pairs.iter().filter_map(|(from, to)| {
            let place = nodes.get(to)?;
            let sample = |address: &IpAddr| Some((*address, ledger.sample(from, address, *count)?));
            let samples: Vec<_> = place.global().filter_map(sample).collect();
            let (there, back) = (wanted.link(from, to), wanted.link(to, from));
            let arrives = wanted.reaches(from, to);
            let expected = Expected {
                echo: (arrives && wanted.reaches(to, from)).then(|| Expectation::of(&there, &back, *spacing)),
                request: arrives.then(|| Expectation::of(&there, &Link::default(), *spacing)),
            };
            Some(((from, to), expected, samples))
        });
        let ways: Vec<_> = ways.collect();
        let measured = |expectation: fn(&Expected) -> Option<Expectation>| {
            ways.iter().flat_map(move |(_, expected, samples)| {
                let expectation = expectation(expected).into_iter();
                expectation.flat_map(move |expected| samples.iter().map(move |(_, sample)| (expected, sample)))
            })
        };
        let noise_ns = noise_ns(measured(|expected| expected.echo));
        let one_way = tolerance.on_network(one_way_noise_ns(measured(|expected| expected.request)));
        let tolerance = tolerance.on_network(noise_ns);
        let judge = |(ends, expected, samples)| judge(ends, expected, samples, [tolerance, one_way], noise_ns);
        Report::new(ways.into_iter().map(judge).collect(), tolerance, noise_ns)
    }

    /// Plans a measurement. Calls every agent once, because the time of this call shows how early the agents have to be
    /// asked.
    pub async fn survey(&self, wanted: &Wanted, terms: Terms) -> Result<Survey, TransactionError> {
        let began = Instant::now();
        let (_, silent) = split(self.call(CALL_TIMEOUT, |_| GetStamp {}).await);
        if !silent.is_empty() {
            return Err(TransactionError::unread(silent));
        }
        let settle = (began.elapsed() * SETTLE_CALLS).max(LEAST_SETTLE);
        let schedule = self.schedule(wanted, &terms, settle);
        Ok(Survey { terms, schedule })
    }

    /// The largest number of requests to each address of a pair whose answers fit in memory.
    pub fn most_requests(&self, pairs: usize) -> u32 {
        let nodes = &self.inventory().nodes;
        let addresses: usize = nodes.values().map(|place| place.global().count()).sum();
        let ways = (addresses * pairs / nodes.len().max(1)).max(1) as u64;
        u32::try_from(MOST_ANSWERS / ways).unwrap_or(u32::MAX)
    }

    fn schedule(&self, wanted: &Wanted, Terms { pairs, interval, .. }: &Terms, settle: Duration) -> Schedule {
        let nodes = &self.inventory().nodes;
        let addresses_of = |node: &NodeName| nodes.get(node).map_or(0, |place| place.global().count()) as u64;
        let mut requests: BTreeMap<Option<&str>, u64> = BTreeMap::new();
        for (from, to) in pairs.iter() {
            let machine = nodes.get(from).and_then(|place| place.agent.host());
            *requests.entry(machine).or_default() += addresses_of(to);
        }
        let at_machine_rate =
            Duration::from_millis(requests.into_values().max().unwrap_or_default() * 1_000 / MACHINE_RATE);
        // In one interval, a node sends to another node one request for each address of the other node, and one answer
        // for each address of its own. The average number of addresses stands for both.
        let addresses: u64 = nodes.keys().map(addresses_of).sum();
        let addresses_each = addresses.div_ceil(nodes.len().max(1) as u64);
        let packets = u32::try_from(addresses_each).unwrap_or(u32::MAX).saturating_mul(2).max(1);
        let (mut spacing, mut latest) = (Duration::ZERO, Duration::ZERO);
        for (from, to) in pairs.iter() {
            let (there, back) = (wanted.link(from, to), wanted.link(to, from));
            (spacing, latest) = (spacing.max(probe_spacing(&there, &back)), latest.max(latest_answer(&there, &back)));
        }
        let chosen = interval.unwrap_or(MIN_INTERVAL).max(MIN_INTERVAL);
        let interval = at_machine_rate.max(chosen).max(spacing.saturating_mul(packets));
        Schedule { interval, spacing: interval / packets, timeout: latest + GRACE, settle }
    }
}

impl Survey {
    /// The expected time of the measurement without late machines and without pairs that are measured again.
    pub fn takes(&self) -> Duration {
        self.schedule.takes(1, 1) + self.schedule.takes(self.terms.count, 1)
    }
}

/// The times of a measurement.
#[derive(Clone, Copy, Debug)]
struct Schedule {
    /// The time between two requests to one target.
    interval: Duration,
    /// The average time between two packets from one node to another.
    spacing: Duration,
    timeout: Duration,
    /// The wait before the first request of a slice.
    settle: Duration,
}

impl Schedule {
    /// The number of rounds in a slice, at least one. A slice is at least twice as long as the wait before it.
    fn rounds(&self) -> u32 {
        let slice = SLICE.max(self.settle * 2);
        u32::try_from(slice.as_nanos() / self.interval.as_nanos().max(1)).unwrap_or(u32::MAX).max(1)
    }

    /// The expected time of `count` rounds, with an interval between requests that is `slow` times as long.
    fn takes(&self, count: u32, slow: u32) -> Duration {
        let slowed = Self { interval: self.interval * slow, ..*self };
        let latest = self.timeout.saturating_sub(GRACE);
        slowed.interval * count + (self.settle + latest) * count.div_ceil(slowed.rounds())
    }
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

    fn takes(fleet: &Fleet, pairs: Pairs) -> Duration {
        let terms = Terms { pairs, count: 10, interval: None, tolerance: Tolerance::default() };
        let schedule = fleet.schedule(&Wanted::default(), &terms, Duration::from_secs(4));
        Survey { terms, schedule }.takes()
    }

    /// Regression test: the measurement of 1,000 machines took hours, because all nodes counted as one machine.
    #[test]
    fn all_pairs_of_a_thousand_nodes_take_a_minute_on_as_many_machines_and_hours_on_one_machine() {
        let machines = fleet(|number| format!("https://host-{number}:7433"));
        let all = || Pairs::all(&machines.inventory().nodes);
        let time = takes(&machines, all());
        assert!((10..60).contains(&time.as_secs()), "{time:?}");
        assert!(machines.most_requests(all().len()) >= 10);
        let lab = fleet(|number| format!("unix:/run/n{number}"));
        let time = takes(&lab, all());
        assert!((3 * 3_600..4 * 3_600).contains(&time.as_secs()), "{time:?}");
        let nodes: Vec<NodeName> = lab.inventory().nodes.keys().cloned().collect();
        let time = takes(&lab, Pairs::sample(nodes.chunks(50), 1));
        assert!(time.as_secs() < 60, "a sample: {time:?}");
    }

    #[test]
    fn the_remaining_time_follows_the_pace() {
        let second = Duration::from_secs(1);
        let schedule = Schedule { interval: second, spacing: second, timeout: GRACE + second, settle: 20 * second };
        // A slice takes 40 s, and before each slice, 20 s pass until all nodes have the request.
        assert_eq!(schedule.takes(10, 1), (10 + 20 + 1) * second);
        assert_eq!(schedule.takes(10, 5), (50 + 2 * (20 + 1)) * second);
    }
}
