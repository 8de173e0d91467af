//! Answers cut packets with refusals, as a router next to the node would: [`Refuser`].
//!
//! A filter at the root of the sender's interface samples each cut packet and drops it. The refuser reads the samples
//! and sends the answers to its own node by loopback. The kernel accepts the answers as if the interface had received
//! them. So nothing is sent on the network, and other packets have no overhead. Without a refuser, cut packets get no
//! answer.

pub(super) mod packet;

use std::{
    io,
    net::{IpAddr, SocketAddr},
    os::fd::{AsFd, AsRawFd, OwnedFd},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage, sendto, socket},
    unistd::pipe,
};
use tracing::{info, warn};

use super::samples::{Sample, Samples};
use crate::plan::SAMPLE_GROUP;

/// The maximum number of answers per second, and in one burst. Further packets get no answer, as from a router.
///
/// The limit bounds the CPU time if an application retries without a pause.
const RATE: u32 = 5_000;

/// The minimum interval between two warnings about unanswered packets.
const WARNING_INTERVAL: Duration = Duration::from_secs(10);

/// Answers cut packets until this value is dropped.
pub(super) struct Refuser {
    /// The write end of a pipe. The thread ends when this end is closed.
    end: Option<OwnedFd>,
    thread: Option<JoinHandle<()>>,
    interface: u32,
}

impl Refuser {
    /// Starts a thread that answers the samples of an interface, in the network namespace of the calling thread.
    pub(super) fn start(interface: u32) -> io::Result<Self> {
        let answering = Answering {
            samples: Samples::open()?,
            v4: raw(AddressFamily::Inet)?,
            // The kernel may have no IPv6.
            v6: raw(AddressFamily::Inet6).ok(),
            interface,
        };
        let (ended, end) = pipe()?;
        let thread = thread::Builder::new().name("refuse".to_owned()).spawn(move || match answering.run(&ended) {
            Ok(answered) => info!(answered, "Cut packets are no longer refused."),
            Err(error) => warn!(%error, "Cut packets can no longer be refused; they are dropped in silence."),
        })?;
        info!("Cut packets are refused.");
        Ok(Self { end: Some(end), thread: Some(thread), interface })
    }

    /// True if the refuser answers the samples of this interface.
    pub(super) fn is_at(&self, interface: u32) -> bool {
        let runs = self.thread.as_ref().is_some_and(|thread| !thread.is_finished());
        runs && self.interface == interface
    }
}

impl Drop for Refuser {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            // A panicked thread has ended too.
            drop(thread.join());
        }
    }
}

/// The state of the thread that answers.
struct Answering {
    samples: Samples,
    v4: OwnedFd,
    v6: Option<OwnedFd>,
    interface: u32,
}

impl Answering {
    /// Answers until the other end of `ended` is closed. Returns the number of answers.
    fn run(&self, ended: &OwnedFd) -> io::Result<u64> {
        let mut allowance = Allowance::new(Instant::now());
        let (mut answered, mut unanswered, mut warned) = (0, 0_u64, None::<Instant>);
        loop {
            let mut fds = [self.samples.as_fd(), ended.as_fd()].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
            match poll(&mut fds, PollTimeout::NONE) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
            if fds[1].any().unwrap_or(true) {
                return Ok(answered);
            }
            let now = Instant::now();
            while let Some(sample) = self.next()? {
                if !allowance.take(now) {
                    unanswered += 1;
                } else if self.answer(&sample) {
                    answered += 1;
                }
            }
            if unanswered > 0 && warned.is_none_or(|before| now.saturating_duration_since(before) >= WARNING_INTERVAL) {
                warn!(unanswered, "More than {RATE} packets per second were cut; the others got no answer.");
                (unanswered, warned) = (0, Some(now));
            }
        }
    }

    /// The next sample of the interface, if any.
    fn next(&self) -> io::Result<Option<Sample>> {
        loop {
            match self.samples.receive() {
                Ok(Some(sample)) if self.is_ours(&sample) => return Ok(Some(sample)),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // The receive buffer was full: some samples are lost.
                Err(error) if error.raw_os_error().map(Errno::from_raw) == Some(Errno::ENOBUFS) => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn is_ours(&self, sample: &Sample) -> bool {
        sample.group == SAMPLE_GROUP && u32::from(sample.leaves_by) == self.interface & u32::from(u16::MAX)
    }

    /// Answers a sample. True if an answer was sent.
    fn answer(&self, sample: &Sample) -> bool {
        let Some(refusal) = packet::refuse(&sample.frame) else { return false };
        let socket = match refusal.to {
            IpAddr::V4(_) => &self.v4,
            IpAddr::V6(_) => match &self.v6 {
                Some(socket) => socket,
                None => return false,
            },
        };
        let to = SockaddrStorage::from(SocketAddr::new(refusal.to, 0));
        // Without a route to the sender, or with a full queue, the packet gets no answer.
        sendto(socket.as_raw_fd(), &refusal.packet, &to, MsgFlags::empty()).is_ok()
    }
}

/// A socket that sends packets with IP headers (raw(7), ipv6(7)).
fn raw(family: AddressFamily) -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    Ok(socket(family, SockType::Raw, flags, SockProtocol::Raw)?)
}

/// A token bucket. It gets [`RATE`] tokens per second and holds at most [`RATE`] tokens.
struct Allowance {
    left: u32,
    since: Instant,
}

impl Allowance {
    fn new(now: Instant) -> Self {
        Self { left: RATE, since: now }
    }

    fn take(&mut self, now: Instant) -> bool {
        let elapsed = now.saturating_duration_since(self.since);
        let earned = u32::try_from(elapsed.as_micros() * u128::from(RATE) / 1_000_000).unwrap_or(RATE).min(RATE);
        if earned > 0 {
            self.left = (self.left + earned).min(RATE);
            // Keep the fraction of a token.
            self.since = if earned == RATE { now } else { self.since + Duration::from_secs(1) * earned / RATE };
        }
        let has_token = self.left > 0;
        self.left -= u32::from(has_token);
        has_token
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_limited_per_second() {
        let start = Instant::now();
        let mut allowance = Allowance::new(start);
        let mut taken = |from: Duration, step: Duration, times: u32| {
            (0..times).filter(|number| allowance.take(start + from + step * *number)).count()
        };
        assert_eq!(taken(Duration::ZERO, Duration::ZERO, 2 * RATE), RATE as usize, "one burst");
        // Ten times the allowed rate, for half a second.
        let step = Duration::from_secs(1) / (10 * RATE);
        let half = taken(step, step, 5 * RATE);
        assert!(half.abs_diff(RATE as usize / 2) <= 1, "{half}");
        assert_eq!(taken(Duration::from_mins(1), Duration::ZERO, 2 * RATE), RATE as usize, "the bucket is bounded");
    }
}
