//! ICMP echo from one node to many, paced, each answer stamped by the kernel as it arrives; and the requests of the
//! others that arrive in the meantime, which are known whether or not the answers get back.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, SocketAddr},
    os::fd::{AsFd, AsRawFd, OwnedFd},
    process,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{
        AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage, recvmsg,
        sendto, setsockopt, socket,
        sockopt::{Ipv6RecvPacketInfo, ReceiveTimestampns},
    },
};

use super::packet::{self, Kind, Mark};
use crate::{
    plan::Dice,
    wire::{Echoes, Heard, Probe, Probed},
};

/// Sends `probe.count` echo requests to each target and collects the answers, and counts the requests of the same run
/// that arrive. Blocks for as long as that takes; what would take more than a day or 4,000,000 requests is
/// `InvalidInput`.
///
/// One request to each goes first, to have the neighbours resolved; what it takes does not count. Each request goes at
/// a random moment of its interval: nodes that measure at once, at a fixed pace, would meet the same others in the same
/// queues in every round, and the median would not help.
pub fn echo(probe: &Probe) -> io::Result<Probed> {
    check(probe)?;
    let end = Instant::now() + probe.listen;
    let mut prober = Prober::new(probe)?;
    prober.round(0, 1)?;
    prober.round(1, probe.count)?;
    prober.receive_until(end)?;
    Ok(prober.finish())
}

/// The most requests of one measurement: they are planned in memory.
const MOST_REQUESTS: u64 = 4_000_000;

/// The longest that a measurement may take.
const LONGEST: Duration = Duration::from_hours(24);

/// Whoever asks for more has miscounted.
fn check(probe: &Probe) -> io::Result<()> {
    let Probe { targets, count, interval, timeout, listen, .. } = probe;
    let requests = (u64::from(*count) + 1).saturating_mul(targets.len() as u64);
    let sending = interval.saturating_mul(count.saturating_add(1));
    if requests <= MOST_REQUESTS && [sending, *timeout, *listen].iter().all(|time| *time <= LONGEST) {
        return Ok(());
    }
    let most =
        format!("a measurement has {MOST_REQUESTS} requests and takes {} hours at most", LONGEST.as_secs() / 3_600);
    Err(io::Error::new(io::ErrorKind::InvalidInput, most))
}

struct Prober<'a> {
    probe: &'a Probe,
    sockets: BTreeMap<bool, OwnedFd>,
    dice: Dice,
    /// When each request under way was sent, on the clock of the kernel's timestamps.
    sent: BTreeMap<u32, Duration>,
    rtts: Vec<Vec<u64>>,
    /// How many requests have arrived, by who sent them and to which address.
    heard: BTreeMap<(IpAddr, IpAddr), u32>,
}

impl<'a> Prober<'a> {
    fn new(probe: &'a Probe) -> io::Result<Self> {
        let mut sockets = BTreeMap::new();
        for is_v4 in [true, false] {
            match open(is_v4) {
                // A host may know one family only.
                Err(error) if error.raw_os_error() == Some(Errno::EAFNOSUPPORT as i32) => {}
                opened => drop(sockets.insert(is_v4, opened?)),
            }
        }
        // Two measurements differ in the process or in the time at which they start.
        let dice = Dice::new(u64::from(process::id()) << 32 ^ u64::from(now().subsec_nanos()));
        let rtts = vec![Vec::new(); probe.targets.len()];
        Ok(Self { probe, sockets, dice, sent: BTreeMap::new(), rtts, heard: BTreeMap::new() })
    }

    /// Sends the requests of some rounds on their time, and waits for the answers of the last.
    fn round(&mut self, first: u32, rounds: u32) -> io::Result<()> {
        let targets = u32::try_from(self.probe.targets.len()).map_err(io::Error::other)?;
        let interval = self.probe.interval;
        let mut requests: Vec<(Duration, u32)> = (0..rounds * targets)
            .map(|turn| (interval * (turn / targets) + interval.mul_f64(self.dice.roll()), first * targets + turn))
            .collect();
        requests.sort_unstable();
        let start = Instant::now();
        for (moment, request) in requests {
            self.receive_until(start + moment)?;
            self.send(request)?;
        }
        let deadline = Instant::now() + self.probe.timeout;
        while !self.sent.is_empty() && Instant::now() < deadline {
            self.receive_until(deadline.min(Instant::now() + Duration::from_millis(20)))?;
        }
        self.sent.clear();
        Ok(())
    }

    fn send(&mut self, request: u32) -> io::Result<()> {
        let target = self.probe.targets[request as usize % self.probe.targets.len()];
        let packet = packet::request(target, Mark { run: self.probe.run, request });
        let address = SockaddrStorage::from(SocketAddr::new(target, 0));
        let Some(socket) = self.sockets.get(&target.is_ipv4()) else { return Ok(()) };
        self.sent.insert(request, now());
        match sendto(socket.as_raw_fd(), &packet, &address, MsgFlags::empty()) {
            Err(Errno::EACCES | Errno::EPERM) => Err(io::ErrorKind::PermissionDenied.into()),
            // Any other error (no route, no neighbour) means that the target is not reached: it stays unanswered.
            _ => Ok(()),
        }
    }

    fn receive_until(&mut self, until: Instant) -> io::Result<()> {
        loop {
            let left = until.saturating_duration_since(Instant::now());
            // poll(2) counts in milliseconds; rounding down and coming back keeps the pace exact enough.
            let timeout = PollTimeout::try_from(left.as_millis()).unwrap_or(PollTimeout::MAX);
            let mut fds: Vec<PollFd<'_>> =
                self.sockets.values().map(|socket| PollFd::new(socket.as_fd(), PollFlags::POLLIN)).collect();
            match poll(&mut fds, timeout) {
                Ok(0) | Err(Errno::EINTR) => {}
                Ok(_) => self.receive()?,
                Err(errno) => return Err(errno.into()),
            }
            if Instant::now() >= until {
                return Ok(());
            }
        }
    }

    /// Reads whatever has arrived.
    fn receive(&mut self) -> io::Result<()> {
        let targets = self.probe.targets.len();
        for (is_v4, socket) in &self.sockets {
            while let Some(received) = read(socket, *is_v4)? {
                let echo = packet::echo(&received.packet, *is_v4).filter(|(_, mark)| mark.run == self.probe.run);
                match (echo, received.ends) {
                    (Some((Kind::Request, _)), Some(ends)) => *self.heard.entry(ends).or_default() += 1,
                    (Some((Kind::Reply, mark)), _) => {
                        let Some(sent) = self.sent.remove(&mark.request) else { continue };
                        if mark.request as usize >= targets {
                            let rtt = received.at.saturating_sub(sent).as_nanos();
                            self.rtts[mark.request as usize % targets].push(u64::try_from(rtt).unwrap_or(u64::MAX));
                        }
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }

    fn finish(self) -> Probed {
        let echoes = |(address, mut rtts_ns): (&IpAddr, Vec<u64>)| {
            rtts_ns.sort_unstable();
            Echoes { address: *address, sent: self.probe.count, rtts_ns }
        };
        let heard = |((from, to), requests): ((IpAddr, IpAddr), u32)| Heard { from, to, requests };
        Probed {
            echoes: self.probe.targets.iter().zip(self.rtts).map(echoes).collect(),
            heard: self.heard.into_iter().map(heard).collect(),
        }
    }
}

fn open(is_v4: bool) -> io::Result<OwnedFd> {
    let (family, protocol) =
        if is_v4 { (AddressFamily::Inet, SockProtocol::Icmp) } else { (AddressFamily::Inet6, SockProtocol::IcmpV6) };
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let socket = socket(family, SockType::Raw, flags, protocol)?;
    setsockopt(&socket, ReceiveTimestampns, &true)?;
    if !is_v4 {
        setsockopt(&socket, Ipv6RecvPacketInfo, &true)?;
    }
    Ok(socket)
}

/// One packet.
struct Received {
    packet: Vec<u8>,
    /// When the kernel received it.
    at: Duration,
    /// Whence and whither, if that is known.
    ends: Option<(IpAddr, IpAddr)>,
}

/// A packet that has arrived, if one has.
fn read(socket: &OwnedFd, is_v4: bool) -> io::Result<Option<Received>> {
    let mut buffer = vec![0; 256];
    let mut control = nix::cmsg_space!(nix::sys::time::TimeSpec, nix::libc::in6_pktinfo);
    let mut slices = [io::IoSliceMut::new(&mut buffer)];
    let message =
        match recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut slices, Some(&mut control), MsgFlags::empty()) {
            Ok(message) => message,
            Err(Errno::EAGAIN) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        };
    let (mut at, mut to) = (None, None);
    for control in message.cmsgs()? {
        match control {
            ControlMessageOwned::ScmTimestampns(stamp) => at = Some(Duration::from(stamp)),
            ControlMessageOwned::Ipv6PacketInfo(info) => to = Some(IpAddr::from(info.ipi6_addr.s6_addr)),
            _ => {}
        }
    }
    let from = message.address.and_then(|address| Some(IpAddr::from(address.as_sockaddr_in6()?.ip())));
    let length = message.bytes;
    buffer.truncate(length);
    let ends = if is_v4 { packet::ends(&buffer) } else { from.zip(to) };
    Ok(Some(Received { packet: buffer, at: at.unwrap_or_else(now), ends }))
}

/// The time on the clock that the kernel stamps packets with.
fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probe() -> Probe {
        let short = Duration::from_millis(1);
        let targets = vec![IpAddr::from([192, 0, 2, 1])];
        Probe { run: 1, targets, count: 10, interval: short, timeout: short, listen: short }
    }

    #[test]
    fn what_would_never_end_or_take_all_memory_is_refused() {
        assert!(check(&probe()).is_ok());
        let too_much = [
            Probe { count: u32::MAX, ..probe() },
            Probe { interval: Duration::MAX, ..probe() },
            Probe { timeout: Duration::MAX, ..probe() },
            Probe { listen: Duration::MAX, ..probe() },
            Probe { interval: Duration::from_hours(3), ..probe() },
            Probe { targets: vec![[192, 0, 2, 1].into(); 500_000], ..probe() },
        ];
        for probe in too_much {
            let error = echo(&probe).expect_err("it is refused before anything is sent");
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        }
    }
}
