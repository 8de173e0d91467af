//! Sends an agent's ICMP echo requests, and measures the answers with kernel timestamps.
//!
//! Also records the requests of other nodes, and the lateness of this machine.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    process, thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use super::{
    discards,
    packet::{self, Kind, Mark},
    socket::Socket,
    tap::{self, Tap},
};
use crate::{
    plan::Dice,
    wire::{Discards, Echoes, Heard, Mute, Probe, Probed},
};

/// Sends `probe.count` echo requests to each target, collects the answers, and counts arriving requests of the same
/// measurement. Blocks until the end. The error is of kind `InvalidInput` if the measurement takes more than a day, has
/// more than 4,000,000 requests, or sends more than 2,000 requests per second.
///
/// Each request is sent at a random moment of its interval. At a fixed pace, requests of the same nodes would meet in
/// the same queues in every round. The median does not remove a delay that is the same in every round.
///
/// The prober reduces the load of a late machine: a late request delays all later requests. Sending stops if the
/// average lateness exceeds `GIVE_UP` or the time is over. [`Echoes::sent`] has the number of requests sent.
pub fn echo(probe: &Probe) -> io::Result<Probed> {
    check(probe)?;
    let start = Instant::now() + probe.settle;
    let mut prober = Prober::new(probe)?;
    prober.send_all(start)?;
    prober.wait_until(start + probe.listen)?;
    prober.finish()
}

/// The largest number of requests in a measurement. The plan of all requests is in memory.
const MOST_REQUESTS: u64 = 4_000_000;

/// The highest rate of requests of a node, per second.
const MOST_RATE: f64 = 2_000.0;

/// The longest measurement.
const LONGEST: Duration = Duration::from_hours(24);

/// The longest sleep. An arrival does not wake the prober, because the kernel records the time of the arrival.
const TICK: Duration = Duration::from_millis(250);

/// The average lateness at which the prober stops sending.
const GIVE_UP: Duration = Duration::from_millis(100);

/// The lateness of a request up to which later requests are not delayed.
const CATCHES_UP: Duration = Duration::from_millis(50);

/// The time after the planned end in which a late prober still sends.
const OVERTIME: Duration = Duration::from_millis(500);

/// The weight of a new value in the moving average of the lateness.
const WEIGHT: f64 = 1.0 / 8.0;

/// The largest change of the difference between the two clocks that does not count as a clock step.
const STEP: Duration = Duration::from_millis(1);

/// The longest time in which a packet gets from an interface to a socket.
const TO_SOCKET: Duration = Duration::from_millis(5);

/// The bit in the numbers of requests to the prober's own machine.
const OWN: u32 = 1 << 31;

/// Checks the limits of a measurement.
fn check(probe: &Probe) -> io::Result<()> {
    let Probe { targets, count, interval, timeout, listen, settle, .. } = probe;
    let requests = u64::from(*count).saturating_mul(targets.len() as u64);
    let sending = interval.saturating_mul(*count);
    let rate = targets.len() as f64 / interval.as_secs_f64();
    if !targets.is_empty() && rate > MOST_RATE {
        let most = format!("a measurement sends {MOST_RATE} requests a second at most");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, most));
    }
    if requests <= MOST_REQUESTS && [sending, *timeout, *listen, *settle].iter().all(|time| *time <= LONGEST) {
        return Ok(());
    }
    let most =
        format!("a measurement has {MOST_REQUESTS} requests and takes {} hours at most", LONGEST.as_secs() / 3_600);
    Err(io::Error::new(io::ErrorKind::InvalidInput, most))
}

/// The state of a measurement.
struct Prober<'a> {
    probe: &'a Probe,
    sockets: Vec<Socket>,
    taps: Vec<Tap>,
    dice: Dice,
    clock: Clock,
    /// The requests without an answer so far.
    under_way: BTreeMap<u32, Sent>,
    /// The answers of each target.
    echoes: Vec<Echoes>,
    /// The requests that have an answer.
    answered: Vec<bool>,
    /// The last request of each target that has an answer. Requests are numbered in the order of sending.
    last_answered: Vec<u32>,
    /// The requests that arrived at a socket, by source and destination.
    heard: BTreeMap<(IpAddr, IpAddr), Arrivals>,
    /// The number of requests that arrived at an interface, before the firewall, by source and destination.
    tapped: BTreeMap<(IpAddr, IpAddr), u32>,
    /// The kernel's counters of dropped packets at the start.
    discarded: Discards,
    lateness: Lateness,
    /// The number of requests to the own machine.
    own_sent: u32,
}

/// The requests that arrived at a socket.
#[derive(Default)]
struct Arrivals {
    requests: u32,
    /// The times from sending to arrival, in nanoseconds. Without requests during which a clock was stepped.
    delays_ns: Vec<i64>,
}

/// A request without an answer so far.
struct Sent {
    /// The time of sending, by the clock of the kernel's timestamps.
    at: Duration,
    /// True if `at` is the kernel's timestamp. Every qdisc on the path stamps a packet. The first timestamp counts.
    is_stamped: bool,
    /// The time of sending, by the monotonic clock.
    since: Instant,
    /// The difference of the two clocks at the time of sending.
    ahead: Duration,
    /// True if the answer arrived at an interface, before the firewall.
    is_tapped: bool,
}

impl Sent {
    /// The RTT of an answer; `None`: the clock was stepped between the request and the answer.
    fn rtt(&self, answered: Duration, ahead: Duration) -> Option<Duration> {
        let rtt = answered.checked_sub(self.at)?;
        // Two opposite clock steps leave the difference of the clocks unchanged. So the RTT is checked too.
        let is_stepped = ahead.abs_diff(self.ahead) > STEP || rtt > self.since.elapsed() + STEP;
        (!is_stepped).then_some(rtt)
    }
}

impl<'a> Prober<'a> {
    fn new(probe: &'a Probe) -> io::Result<Self> {
        let (mut sockets, mut taps) = (Vec::new(), Vec::new());
        for is_v4 in [true, false] {
            sockets.extend(Socket::open(is_v4)?);
            taps.extend(Tap::open(is_v4, probe.run)?);
        }
        // Two measurements differ in the process id or in the time, so their seeds differ.
        let dice = Dice::new(u64::from(process::id()) << 32 ^ u64::from(now().subsec_nanos()));
        Ok(Self {
            probe,
            sockets,
            taps,
            dice,
            clock: Clock { start: Instant::now(), last: None, stepped: None },
            under_way: BTreeMap::new(),
            echoes: probe.targets.iter().copied().map(Echoes::of).collect(),
            answered: vec![false; probe.targets.len() * probe.count as usize],
            last_answered: vec![0; probe.targets.len()],
            heard: BTreeMap::new(),
            tapped: BTreeMap::new(),
            discarded: discards::read(),
            lateness: Lateness::default(),
            own_sent: 0,
        })
    }

    /// Sends all requests at their times, and waits for the answers.
    fn send_all(&mut self, start: Instant) -> io::Result<()> {
        let targets = u32::try_from(self.probe.targets.len()).map_err(io::Error::other)?;
        let Probe { count, interval, timeout, .. } = *self.probe;
        let mut requests: Vec<(Duration, u32)> = (0..count * targets)
            .map(|request| (interval * (request / targets) + interval.mul_f64(self.dice.roll()), request))
            .collect();
        requests.sort_unstable();
        thread::sleep(start.saturating_duration_since(Instant::now()));
        let end = start + interval * count + OVERTIME;
        let mut late = Duration::ZERO;
        for (moment, request) in requests {
            let due = start + moment + late;
            self.wait_until(due)?;
            late += due.elapsed().checked_sub(CATCHES_UP).unwrap_or_default();
            if self.lateness.average > GIVE_UP || Instant::now() > end {
                break;
            }
            self.send(request);
        }
        if targets > 0 {
            // After the last request, the machine is idle. Its lateness then says nothing about the measurement.
            self.lateness.is_over = true;
        }
        let deadline = Instant::now() + timeout;
        while self.under_way.range(..OWN).next().is_some() && Instant::now() < deadline {
            self.wait_until(deadline.min(Instant::now() + Duration::from_millis(50)))?;
        }
        Ok(())
    }

    fn send(&mut self, request: u32) {
        let target = request as usize % self.probe.targets.len();
        self.echoes[target].sent += 1;
        if !self.send_to(self.probe.targets[target], request) {
            self.echoes[target].refused += 1;
        }
    }

    /// Sends a request. False if this machine's firewall refuses it.
    fn send_to(&mut self, target: IpAddr, request: u32) -> bool {
        let Some(socket) = self.sockets.iter().find(|socket| socket.is_v4() == target.is_ipv4()) else { return true };
        let (since, ahead, at) = (Instant::now(), self.clock.ahead(), now());
        self.under_way.insert(request, Sent { at, is_stamped: false, since, ahead, is_tapped: false });
        let sent_ns = u64::try_from(at.as_nanos()).unwrap_or(u64::MAX);
        let packet = packet::request(target, Mark { run: self.probe.run, request, sent_ns });
        let leaves = socket.send(&packet, target);
        if !leaves {
            self.under_way.remove(&request);
        }
        leaves
    }

    /// Sends an echo to the own machine, at most once per [`TICK`]. No link delays this echo.
    fn send_to_itself(&mut self) {
        let due = TICK * self.own_sent;
        if self.clock.start.elapsed() < due {
            return;
        }
        let own = if self.sockets.iter().any(Socket::is_v4) {
            IpAddr::from(Ipv4Addr::LOCALHOST)
        } else {
            IpAddr::from(Ipv6Addr::LOCALHOST)
        };
        self.own_sent += 1;
        self.send_to(own, OWN + self.own_sent);
    }

    /// Sleeps until `until`, and reads arrivals meanwhile.
    fn wait_until(&mut self, until: Instant) -> io::Result<()> {
        loop {
            let due = until.min(Instant::now() + TICK);
            thread::sleep(due.saturating_duration_since(Instant::now()));
            self.lateness.add(due.elapsed());
            self.receive()?;
            self.send_to_itself();
            if Instant::now() >= until {
                return Ok(());
            }
        }
    }

    /// Reads arrivals at the interfaces, and then arrivals at the sockets. A packet that arrives at an interface but at
    /// no socket was dropped by the firewall.
    fn receive(&mut self) -> io::Result<()> {
        for tap in &self.taps {
            while let Some(arrived) = tap.next()? {
                let request = arrived.mark.request;
                match arrived.kind {
                    Kind::Request if request < OWN => *self.tapped.entry(arrived.ends).or_default() += 1,
                    Kind::Reply => {
                        self.under_way.entry(request).and_modify(|sent| sent.is_tapped = true);
                    }
                    Kind::Request => {}
                }
            }
        }
        self.read_sockets()
    }

    fn read_sockets(&mut self) -> io::Result<()> {
        let ahead = self.clock.ahead();
        let is_stepped = self.clock.is_stepped(ahead, self.probe.timeout);
        for socket in &self.sockets {
            while let Some(sent) = socket.sent()? {
                let mark = packet::mark_of_sent(&sent.packet).filter(|mark| mark.run == self.probe.run);
                let under_way = mark.and_then(|mark| self.under_way.get_mut(&mark.request));
                if let (Some(request), Some(at)) = (under_way.filter(|request| !request.is_stamped), sent.at) {
                    (request.at, request.is_stamped) = (at, true);
                }
            }
            while let Some(received) = socket.receive()? {
                let echo = packet::echo(&received.packet, socket.is_v4());
                match (echo.filter(|(_, mark)| mark.run == self.probe.run), received.ends) {
                    (Some((Kind::Request, mark)), Some(ends)) if mark.request < OWN => {
                        let arrivals = self.heard.entry(ends).or_default();
                        arrivals.requests += 1;
                        let arrived = i64::try_from(received.at.unwrap_or_else(now).as_nanos()).unwrap_or(i64::MAX);
                        let delay = i64::try_from(mark.sent_ns).ok().and_then(|sent| arrived.checked_sub(sent));
                        arrivals.delays_ns.extend(delay.filter(|_| !is_stepped));
                    }
                    (Some((Kind::Reply, mark)), _) => {
                        let request = mark.request as usize;
                        let Some(sent) = self.under_way.remove(&mark.request) else {
                            if self.answered.get(request) == Some(&true) {
                                self.echoes[request % self.probe.targets.len()].duplicates += 1;
                            }
                            continue;
                        };
                        let rtt = sent.rtt(received.at.unwrap_or_else(now), ahead);
                        if mark.request >= OWN {
                            if let Some(rtt) = rtt {
                                self.lateness.add(rtt);
                            }
                            continue;
                        }
                        let target = request % self.echoes.len();
                        let echoes = &mut self.echoes[target];
                        self.answered[request] = true;
                        echoes.reordered += u32::from(mark.request < self.last_answered[target]);
                        self.last_answered[target] = self.last_answered[target].max(mark.request);
                        match rtt {
                            Some(rtt) => echoes.rtts_ns.push(u64::try_from(rtt.as_nanos()).unwrap_or(u64::MAX)),
                            // The clock was stepped, so the request counts as not sent.
                            None => echoes.sent -= 1,
                        }
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }

    fn finish(mut self) -> io::Result<Probed> {
        self.receive()?;
        thread::sleep(TO_SOCKET);
        self.read_sockets()?;
        for (request, _) in self.under_way.range(..OWN).filter(|(_, sent)| sent.is_tapped) {
            let targets = self.echoes.len();
            self.echoes[*request as usize % targets].dropped += 1;
        }
        let refused = |is_v4: bool| {
            let echoes = self.echoes.iter().filter(|echoes| echoes.address.is_ipv4() == is_v4);
            echoes.map(|echoes| u64::from(echoes.refused)).sum::<u64>()
        };
        let now = discards::read();
        // The counters include the prober's own refused requests, which are reported as `refused`.
        let discards = Discards {
            ipv4: now.ipv4.saturating_sub(self.discarded.ipv4).saturating_sub(refused(true)),
            ipv6: now.ipv6.saturating_sub(self.discarded.ipv6).saturating_sub(refused(false)),
        };
        for echoes in &mut self.echoes {
            echoes.rtts_ns.sort_unstable();
        }
        let mut heard = self.heard;
        for ends in self.tapped.keys() {
            heard.entry(*ends).or_default();
        }
        let heard = heard.into_iter().map(|((from, to), Arrivals { requests, mut delays_ns })| {
            delays_ns.sort_unstable();
            let dropped = self.tapped.get(&(from, to)).copied().unwrap_or_default().saturating_sub(requests);
            // If the address was removed, the packets were not dropped by a firewall.
            let dropped = if dropped > 0 && tap::is_own(to) { dropped } else { 0 };
            Heard { from, to, requests, dropped, delays_ns }
        });
        Ok(Probed {
            echoes: self.echoes,
            heard: heard.collect(),
            mute: mute(),
            discards,
            late_ns: self.lateness.late_ns(),
        })
    }
}

/// The lateness of this machine's timers and echoes to itself.
#[derive(Default)]
struct Lateness {
    late: Vec<Duration>,
    /// The moving average of the lateness.
    average: Duration,
    /// True if new values no longer count.
    is_over: bool,
}

impl Lateness {
    fn add(&mut self, late: Duration) {
        if !self.is_over {
            self.late.push(late);
            self.average = self.average.mul_f64(1.0 - WEIGHT) + late.mul_f64(WEIGHT);
        }
    }

    /// The 90th percentile, in nanoseconds.
    fn late_ns(mut self) -> u64 {
        self.late.sort_unstable();
        let percentile = self.late.get(self.late.len() * 9 / 10).copied().unwrap_or_default();
        u64::try_from(percentile.as_nanos()).unwrap_or(u64::MAX)
    }
}

/// The clock of the kernel's timestamps, compared with the monotonic clock.
struct Clock {
    start: Instant,
    /// The last known difference of the two clocks.
    last: Option<Duration>,
    /// The last time at which a step of the clock was seen.
    stepped: Option<Instant>,
}

impl Clock {
    /// True if the clock may have been stepped between the sending and the arrival of a request that arrived just now.
    /// `ahead`: the present difference of the two clocks. `longest`: the longest time from sending to arrival.
    fn is_stepped(&mut self, ahead: Duration, longest: Duration) -> bool {
        if self.last.replace(ahead).is_some_and(|last| ahead.abs_diff(last) > STEP) {
            self.stepped = Some(Instant::now());
        }
        self.stepped.is_some_and(|stepped| stepped.elapsed() < longest)
    }

    /// The difference of the two clocks. Reads both again if more than 200 µs passed between the two readings.
    fn ahead(&self) -> Duration {
        const CLOSE: Duration = Duration::from_micros(200);
        let read = || {
            let before = self.start.elapsed();
            let ahead = now().saturating_sub(before);
            (self.start.elapsed().saturating_sub(before), ahead)
        };
        let mut best = read();
        for _ in 0..3 {
            if best.0 <= CLOSE {
                break;
            }
            best = best.min(read());
        }
        best.1
    }
}

/// The settings of this network namespace by which the node does not answer all echo requests. If a file is missing,
/// the kernel has no IPv6.
fn mute() -> BTreeSet<Mute> {
    let read = |name| fs::read_to_string(format!("/proc/sys/net/{name}")).ok();
    let is_set = |name, mask| {
        let value = read(name).and_then(|text| text.trim().parse::<u64>().ok());
        value.is_some_and(|value| value & mask != 0)
    };
    let settings = [
        (Mute::IgnoresIpv4, is_set("ipv4/icmp_echo_ignore_all", !0)),
        (Mute::IgnoresIpv6, is_set("ipv6/icmp/echo_ignore_all", !0)),
        // The type of an echo reply is 0, so its bit is the lowest.
        (Mute::LimitsIpv4, is_set("ipv4/icmp_ratemask", 1)),
        (Mute::LimitsIpv6, read("ipv6/icmp/ratemask").is_some_and(|text| has_bit(&text, ECHO_REPLY_V6))),
    ];
    settings.into_iter().filter_map(|(mute, is_set)| is_set.then_some(mute)).collect()
}

/// The type of an `ICMPv6` echo reply.
const ECHO_REPLY_V6: u8 = 129;

/// True if a bitmap in the kernel's format, such as `0-1,3-127`, has the bit.
fn has_bit(text: &str, bit: u8) -> bool {
    let number = |text: &str| text.trim().parse::<u8>().ok();
    text.split(',').any(|part| match part.split_once('-') {
        Some((first, last)) => number(first).zip(number(last)).is_some_and(|(a, b)| (a..=b).contains(&bit)),
        None => number(part) == Some(bit),
    })
}

/// The time by the clock of the kernel's timestamps.
fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probe() -> Probe {
        let short = Duration::from_millis(1);
        let targets = vec![IpAddr::from([192, 0, 2, 1])];
        Probe { run: 1, targets, count: 10, interval: short, timeout: short, listen: short, settle: short }
    }

    #[test]
    fn a_measurement_that_is_too_long_too_fast_or_too_large_is_refused() {
        assert!(check(&probe()).is_ok());
        let too_much = [
            Probe { count: u32::MAX, ..probe() },
            Probe { interval: Duration::MAX, ..probe() },
            Probe { interval: Duration::ZERO, ..probe() },
            Probe { interval: Duration::from_micros(400), ..probe() },
            Probe { timeout: Duration::MAX, ..probe() },
            Probe { listen: Duration::MAX, ..probe() },
            Probe { settle: Duration::MAX, ..probe() },
            Probe { interval: Duration::from_hours(3), ..probe() },
            Probe { targets: vec![[192, 0, 2, 1].into(); 500_000], ..probe() },
        ];
        for probe in too_much {
            let error = echo(&probe).expect_err("the measurement is refused before a request is sent");
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        }
    }

    #[test]
    fn a_kernel_bitmap_has_ranges_and_single_bits() {
        assert!(!has_bit("0-1,3-127\n", 129));
        assert!(has_bit("0-1,3-127,129\n", 129) && has_bit("128-255", 129) && has_bit("129", 129));
        assert!(!has_bit("", 129));
    }

    #[test]
    fn the_lateness_of_a_machine_is_the_90th_percentile() {
        let mut lateness = Lateness::default();
        for late in 0..100 {
            lateness.add(Duration::from_millis(late));
        }
        assert!(lateness.average > Duration::from_millis(80), "the latest values have the largest weight");
        lateness.is_over = true;
        lateness.add(Duration::from_secs(9));
        assert_eq!(lateness.late_ns(), 90_000_000);
    }
}
