//! Measuring every ordered pair of nodes against what is in force.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    process,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use super::{CALL_TIMEOUT, Fleet, TransactionError, part, transaction::unread};
use crate::{
    plan::{Dice, Wanted},
    probe::{Expectation, Expected, Pair, Report, Tolerance, Verdict, judge, latest_answer, probe_spacing},
    topology::{Link, NodeName},
    wire::{Echoes, Probe, Probed},
};

/// The most echo requests per second over the whole fleet: in a lab, one machine answers them all.
const FLEET_RATE: u64 = 1_000;

/// The least time between two requests to one target.
const MIN_INTERVAL: Duration = Duration::from_millis(50);

/// How much later than its RTT an answer may come before it counts as lost.
const GRACE: Duration = Duration::from_millis(500);

/// How often pairs that are not as wanted are measured again, to be judged by all answers together.
const MORE_ROUNDS: usize = 3;

/// What was measured so far.
#[derive(Default)]
struct Measurements {
    /// Who asked → whom → the answers that came back.
    answers: BTreeMap<NodeName, BTreeMap<IpAddr, Echoes>>,
    /// Who asked → whom → how many requests arrived there.
    arrivals: BTreeMap<NodeName, BTreeMap<IpAddr, u32>>,
}

impl Fleet {
    /// Has every node measure the way to every other, all at once, and judges the result.
    ///
    /// Pairs that are not as wanted are measured again, a few times, and judged by the median of all their answers: a
    /// machine that was busy for a second is then told from a link that is wrong. No answer is ever discarded, and one
    /// that came through a partition stays a leak.
    pub async fn verify(&self, wanted: &Wanted, count: u32, tolerance: Tolerance) -> Result<Report, TransactionError> {
        let mut measurements = Measurements::default();
        // Whoever is not asked, or is answered at once, is to hear those who are cut off from somebody all the same.
        let is_cut = wanted.partitions.iter().any(|partition| !partition.is_partial());
        self.measure(wanted, count, is_cut, |_, _| true, &mut measurements).await?;
        let spacing = self.pace(wanted, count).spacing;
        let mut report = self.judge(wanted, &measurements, tolerance, spacing);
        for _ in 0..MORE_ROUNDS {
            // Where most is lost, silence may be right, and says little.
            let silent = |pair: &Pair| pair.wanted.is_some() && pair.measured.iter().any(|m| m.median.is_none());
            let doubtful = |pair: &Pair| silent(pair) || !matches!(pair.verdict, Verdict::Right | Verdict::Leaks);
            let again: BTreeSet<_> =
                report.pairs.iter().filter(|pair| doubtful(pair)).map(|pair| (&pair.from, &pair.to)).collect();
            if again.is_empty() {
                break;
            }
            self.measure(wanted, count, true, |from, to| again.contains(&(from, to)), &mut measurements).await?;
            report = self.judge(wanted, &measurements, tolerance, spacing);
        }
        Ok(report)
    }

    /// Measures the pairs that `which` picks, and adds what comes back.
    async fn measure(
        &self,
        wanted: &Wanted,
        count: u32,
        listens: bool,
        which: impl Fn(&NodeName, &NodeName) -> bool,
        measurements: &mut Measurements,
    ) -> Result<(), TransactionError> {
        let pace = self.pace(wanted, count);
        let run = draw_run();
        let probe = |from: &NodeName| {
            let targets = self.inventory().nodes.iter().filter(|(to, _)| *to != from && which(from, to));
            Probe {
                run,
                targets: targets.flat_map(|(_, place)| place.addresses.clone()).collect(),
                count,
                interval: pace.interval,
                timeout: pace.timeout,
                listen: if listens { pace.total } else { Duration::ZERO },
            }
        };
        let (answers, failures) = part(self.call(pace.total + CALL_TIMEOUT, probe).await);
        if !failures.is_empty() {
            return Err(unread(failures));
        }
        let places = &self.inventory().nodes;
        let owner = places.iter().flat_map(|(node, place)| place.addresses.iter().map(move |address| (address, node)));
        let owner: BTreeMap<&IpAddr, &NodeName> = owner.collect();
        for (node, Probed { echoes, heard }) in answers {
            // Nobody counts for another what comes from or is for an address that is nobody's.
            for heard in heard.iter().filter(|heard| owner.get(&heard.to) == Some(&&node)) {
                let Some(from) = owner.get(&heard.from) else { continue };
                let arrivals = measurements.arrivals.entry((*from).clone()).or_default();
                *arrivals.entry(heard.to).or_default() += heard.requests;
            }
            let known = measurements.answers.entry(node).or_default();
            for echo in echoes {
                let address = echo.address;
                let sum = known.entry(address).or_insert(Echoes { address, sent: 0, rtts_ns: Vec::new() });
                sum.sent += echo.sent;
                sum.rtts_ns.extend(echo.rtts_ns);
                sum.rtts_ns.sort_unstable();
            }
        }
        Ok(())
    }

    fn judge(&self, wanted: &Wanted, measurements: &Measurements, tolerance: Tolerance, spacing: Duration) -> Report {
        let places = &self.inventory().nodes;
        let pairs = measurements.answers.iter().flat_map(|(from, answers)| {
            let others = places.iter().filter(move |(to, _)| *to != from);
            others.map(move |(to, place)| {
                let arrived = |address| measurements.arrivals.get(from)?.get(address).copied();
                let measured = place
                    .addresses
                    .iter()
                    .filter_map(|address| Some((answers.get(address).cloned()?, arrived(address).unwrap_or(0))));
                let (there, back) = (wanted.link(from, to), wanted.link(to, from));
                let arrives = wanted.reaches(from, to);
                let expected = Expected {
                    echo: (arrives && wanted.reaches(to, from)).then(|| Expectation::of(&there, &back, spacing)),
                    request: arrives.then(|| Expectation::of(&there, &Link::LAN, spacing)),
                };
                judge((from, to), expected, measured.collect(), tolerance)
            })
        });
        Report::new(pairs.collect(), tolerance)
    }

    /// How long a measurement takes, if all pairs are as wanted.
    pub fn verify_takes(&self, wanted: &Wanted, count: u32) -> Duration {
        self.pace(wanted, count).total
    }

    fn pace(&self, wanted: &Wanted, count: u32) -> Pace {
        let nodes = &self.inventory().nodes;
        let addresses: usize = nodes.values().map(|place| place.addresses.len()).sum();
        let targets = (addresses * nodes.len().saturating_sub(1)) as u64;
        let links = || {
            let pairs = nodes.keys().flat_map(|a| nodes.keys().map(move |b| (a, b))).filter(|(a, b)| a < b);
            pairs.map(|(a, b)| (wanted.link(a, b), wanted.link(b, a)))
        };
        // Each of a pair sends a request and an answer to each address of the other in one interval.
        let addresses_each = u32::try_from(addresses.div_ceil(nodes.len().max(1))).unwrap_or(u32::MAX);
        let packets = addresses_each.saturating_mul(2).max(1);
        let at_fleet_rate = Duration::from_millis(targets * 1_000 / FLEET_RATE);
        let spacing = links().map(|(there, back)| probe_spacing(&there, &back)).max().unwrap_or_default();
        let interval = at_fleet_rate.max(MIN_INTERVAL).max(spacing.saturating_mul(packets));
        let timeout = links().map(|(there, back)| latest_answer(&there, &back)).max().unwrap_or_default() + GRACE;
        Pace { interval, spacing: interval / packets, timeout, total: interval * (count + 1) + 2 * timeout }
    }
}

struct Pace {
    /// Between two requests to one target.
    interval: Duration,
    /// Between two packets from one node to another.
    spacing: Duration,
    timeout: Duration,
    total: Duration,
}

/// A name that no other measurement has: this process at this moment.
fn draw_run() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Dice::new(u64::from(process::id()) << 32 ^ now.as_secs() << 30 ^ u64::from(now.subsec_nanos())).throw()
}
