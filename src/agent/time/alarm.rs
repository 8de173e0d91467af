//! Wakes an idle agent at a deadline ([`Alarm`]) or after an event from the kernel ([`EventWaiter`]).

use std::{io, os::fd::OwnedFd, time::Duration};

use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime};
use tokio::io::{Interest, unix::AsyncFd};

use crate::kernel::readable;

/// A timer of `CLOCK_BOOTTIME` (`timerfd_create(2)`), which also counts during suspend.
///
/// The timers of the async runtime do not count during suspend.
pub(crate) struct Alarm(AsyncFd<OwnedFd>);

impl Alarm {
    pub(crate) fn new() -> io::Result<Self> {
        let timer = timerfd_create(TimerfdClockId::Boottime, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        readable(timer).map(Self)
    }

    /// Waits until an uptime; `None`: forever. Returns at once if the timer cannot be set.
    pub(crate) async fn at(&self, uptime: Option<Duration>) {
        let Some(uptime) = uptime else { return std::future::pending().await };
        // An expiration of zero would disarm the timer.
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
    /// Waits on `news`, a descriptor that becomes readable at an event. After each wait, the caller must read all
    /// events, because the next wait ends only at a new event.
    pub(crate) fn of(news: OwnedFd) -> io::Result<Self> {
        readable(news).map(Self)
    }

    /// Waits for an event of `events`; `None`: waits forever.
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

#[cfg(test)]
mod tests {
    use std::{os::unix::net::UnixDatagram, time::Instant};

    use tokio::time::timeout;

    use super::*;
    use crate::agent::Now;

    const MOMENT: Duration = Duration::from_millis(50);

    #[tokio::test]
    async fn an_alarm_can_be_set_repeatedly_and_without_a_time_it_never_expires() {
        let alarm = Alarm::new().unwrap();
        for _ in 0..3 {
            let at = Now::read().uptime + MOMENT;
            // The first wait sets the timer and is cancelled. The second wait must not end at the time of the first.
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
    async fn each_event_ends_exactly_one_wait() {
        let (kernel, news) = UnixDatagram::pair().unwrap();
        news.set_nonblocking(true).unwrap();
        let waiter = EventWaiter::of(news.try_clone().unwrap().into()).unwrap();
        let begin = Instant::now();
        for _ in 0..2 {
            assert!(timeout(MOMENT, EventWaiter::wait(Some(&waiter))).await.is_err());
            kernel.send(b"link").unwrap();
            EventWaiter::wait(Some(&waiter)).await;
            assert_eq!(news.recv(&mut [0; 8]).unwrap(), 4);
        }
        assert!(timeout(MOMENT, EventWaiter::wait(None)).await.is_err());
        assert!(begin.elapsed() >= 3 * MOMENT);
    }
}
