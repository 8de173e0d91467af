//! Answering what is cut with a refusal, as the router next to the node would: [`Refuser`].
//!
//! The filter that drops such a packet at the root of the sender's own interface hands a sample of it to whoever
//! listens. This listens, and sends the answer to the packet's sender: to this very node, by its loopback, where the
//! kernel takes it for what came by the interface. So nothing goes out on the network, what is not cut costs nothing,
//! and what is cut stays so without a listener: it is silent then.

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

/// How many packets are answered in a second, and at once. What is beyond is cut in silence, as a router does it: an
/// application that tries again without a pause is not to take all of the processor.
const RATE: u32 = 5_000;

/// How often is said that there were more than that.
const WARN_EVERY: Duration = Duration::from_secs(10);

/// Answers until it is dropped.
pub(super) struct Refuser {
    /// The other end of what the thread waits for; closing it ends the thread.
    end: Option<OwnedFd>,
    thread: Option<JoinHandle<()>>,
    interface: u32,
}

impl Refuser {
    /// Answers what is sampled at the interface of this index, in the network namespace of the calling thread.
    pub(super) fn start(interface: u32) -> io::Result<Self> {
        let answering = Answering {
            samples: Samples::open()?,
            v4: raw(AddressFamily::Inet)?,
            // A kernel may be without IPv6.
            v6: raw(AddressFamily::Inet6).ok(),
            interface,
        };
        let (ended, end) = pipe()?;
        let thread = thread::Builder::new().name("refuse".to_owned()).spawn(move || match answering.run(&ended) {
            Ok(answered) => info!(answered, "What is cut is no longer answered with refusals."),
            Err(error) => warn!(%error, "What is cut can no longer be answered with refusals; it is silent."),
        })?;
        info!("What is cut is answered with refusals.");
        Ok(Self { end: Some(end), thread: Some(thread), interface })
    }

    /// Whether it answers what is sampled at this interface.
    pub(super) fn is_at(&self, interface: u32) -> bool {
        let runs = self.thread.as_ref().is_some_and(|thread| !thread.is_finished());
        runs && self.interface == interface
    }
}

impl Drop for Refuser {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            // One that panicked has ended as well.
            drop(thread.join());
        }
    }
}

/// The thread's own.
struct Answering {
    samples: Samples,
    v4: OwnedFd,
    v6: Option<OwnedFd>,
    interface: u32,
}

impl Answering {
    /// Answers until the other end of `ended` is closed; how many packets.
    fn run(&self, ended: &OwnedFd) -> io::Result<u64> {
        let mut allowance = Allowance::new(Instant::now());
        let (mut answered, mut passed_over, mut warned) = (0, 0_u64, None::<Instant>);
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
                    passed_over += 1;
                } else if self.answer(&sample) {
                    answered += 1;
                }
            }
            if passed_over > 0 && warned.is_none_or(|before| now.saturating_duration_since(before) >= WARN_EVERY) {
                warn!(passed_over, "More than {RATE} packets a second were cut; the others got no answer.");
                (passed_over, warned) = (0, Some(now));
            }
        }
    }

    /// The next sample that is ours, if there is one by now.
    fn next(&self) -> io::Result<Option<Sample>> {
        loop {
            match self.samples.receive() {
                Ok(Some(sample)) if self.is_ours(&sample) => return Ok(Some(sample)),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // The kernel had more samples than there was room for: those are lost, and others come.
                Err(error) if error.raw_os_error() == Some(Errno::ENOBUFS as i32) => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn is_ours(&self, sample: &Sample) -> bool {
        sample.group == SAMPLE_GROUP && u32::from(sample.leaves_by) == self.interface & u32::from(u16::MAX)
    }

    /// Whether the packet has an answer that could be sent.
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
        // A sender that cannot be reached any more, or a full queue, leaves it silent.
        sendto(socket.as_raw_fd(), &refusal.packet, &to, MsgFlags::empty()).is_ok()
    }
}

/// A socket that sends packets with their IP headers (raw(7), ipv6(7)) and receives none.
fn raw(family: AddressFamily) -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    Ok(socket(family, SockType::Raw, flags, SockProtocol::Raw)?)
}

/// A token bucket of [`RATE`] a second that holds those of one second.
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
            // What is not a whole one counts on.
            self.since = if earned == RATE { now } else { self.since + Duration::from_secs(1) * earned / RATE };
        }
        let has_one = self.left > 0;
        self.left -= u32::from(has_one);
        has_one
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_has_its_allowance_and_no_more() {
        let start = Instant::now();
        let mut allowance = Allowance::new(start);
        let mut taken = |from: Duration, step: Duration, times: u32| {
            (0..times).filter(|number| allowance.take(start + from + step * *number)).count()
        };
        assert_eq!(taken(Duration::ZERO, Duration::ZERO, 2 * RATE), RATE as usize, "at once");
        // Ten times as many as are allowed, for half a second.
        let step = Duration::from_secs(1) / (10 * RATE);
        let half = taken(step, step, 5 * RATE);
        assert!(half.abs_diff(RATE as usize / 2) <= 1, "{half}");
        assert_eq!(taken(Duration::from_mins(1), Duration::ZERO, 2 * RATE), RATE as usize, "it does not grow for ever");
    }
}
