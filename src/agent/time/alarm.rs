//! The wake-ups of an idle agent: a deadline ([`Alarm`]) or an event from the kernel ([`EventWaiter`]).

use std::{io, os::fd::OwnedFd, time::Duration};

use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime};
use tokio::io::{Interest, unix::AsyncFd};

/// A timer of `CLOCK_BOOTTIME` (`timerfd_create(2)`), which counts during suspend. The timers of the async runtime do not.
pub(crate) struct Alarm(AsyncFd<OwnedFd>);

impl Alarm {
    pub(crate) fn new() -> io::Result<Self> {
        let timer = timerfd_create(TimerfdClockId::Boottime, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        readable(timer).map(Self)
    }

    /// Waits until an uptime; `None`: forever.
    pub(crate) async fn at(&self, uptime: Option<Duration>) {
        let Some(uptime) = uptime else { return std::future::pending().await };
        // Zero would disarm the timer.
        let at = uptime.max(Duration::from_nanos(1)).try_into();
        // An uptime beyond the range of the clock never comes.
        let Ok(at) = at else { return std::future::pending().await };
        let time = Itimerspec { it_interval: Duration::ZERO.try_into().unwrap_or(at), it_value: at };
        if timerfd_settime(&self.0, TimerfdTimerFlags::ABSTIME, &time).is_err() {
            return;
        }
        // The value read is the number of expirations.
        let read = |timer: &OwnedFd| Ok(rustix::io::read(timer, &mut [0; 8])?);
        drop(self.0.async_io(Interest::READABLE, read).await);
    }
}

/// Waits for events from the kernel.
pub(crate) struct EventWaiter(AsyncFd<OwnedFd>);

impl EventWaiter {
    /// `news`: the descriptor that becomes readable. The caller reads all events after each wait.
    pub(crate) fn of(news: OwnedFd) -> io::Result<Self> {
        readable(news).map(Self)
    }

    /// Waits for an event; `None`: forever.
    pub(crate) async fn wait(events: Option<&Self>) {
        match events {
            Some(Self(news)) => match news.readable().await {
                Ok(mut ready) => ready.clear_ready(),
                // The runtime shuts down.
                Err(_) => std::future::pending().await,
            },
            None => std::future::pending().await,
        }
    }
}

#[expect(deprecated, reason = "its successor is unsafe, for what does not own its descriptor")]
fn readable(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(descriptor, Interest::READABLE)
}

#[cfg(test)]
mod tests {
    use std::{os::unix::net::UnixDatagram, time::Instant};

    use tokio::time::timeout;

    use super::*;
    use crate::agent::Now;

    const MOMENT: Duration = Duration::from_millis(50);

    #[tokio::test]
    async fn an_alarm_goes_off_at_its_time_again_and_again_and_never_without_one() {
        let alarm = Alarm::new().unwrap();
        for _ in 0..3 {
            let at = Now::read().uptime + MOMENT;
            // An alarm that is dropped right after it was set does not end the next one.
            tokio::select! {
                biased;
                () = alarm.at(Some(at.saturating_sub(MOMENT / 2))) => {}
                () = std::future::ready(()) => {}
            }
            alarm.at(Some(at)).await;
            assert!(Now::read().uptime >= at);
        }
        alarm.at(Some(Duration::ZERO)).await;
        for never in [None, Some(Duration::MAX), Some(Duration::from_secs(u64::MAX / 4))] {
            assert!(timeout(MOMENT, alarm.at(never)).await.is_err());
        }
    }

    #[tokio::test]
    async fn what_was_read_is_not_heard_again_and_what_comes_then_is() {
        let (kernel, news) = UnixDatagram::pair().unwrap();
        news.set_nonblocking(true).unwrap();
        let ear = EventWaiter::of(news.try_clone().unwrap().into()).unwrap();
        let begin = Instant::now();
        for _ in 0..2 {
            assert!(timeout(MOMENT, EventWaiter::wait(Some(&ear))).await.is_err());
            kernel.send(b"link").unwrap();
            EventWaiter::wait(Some(&ear)).await;
            assert_eq!(news.recv(&mut [0; 8]).unwrap(), 4);
        }
        assert!(timeout(MOMENT, EventWaiter::wait(None)).await.is_err());
        assert!(begin.elapsed() >= 3 * MOMENT);
    }
}
