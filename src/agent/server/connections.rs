//! [`Connections`] counts the connections of one listener and limits their number and times.
//!
//! Each [`Stage`] except `Work` has a time limit. At the limit of the number, a new connection replaces the connection
//! that has been longest in a stage other than `Work`. Many silent clients thus replace each other, and active clients
//! are served. If the agent works on a request of every connection, the new connection is refused.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Semaphore, watch},
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

/// Limits on the clients of one listener.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Number of connections, including unfinished handshakes.
    pub connections: usize,
    /// Time for the TLS handshake.
    pub handshake: Duration,
    /// Time for the header of the first request.
    pub head: Duration,
    /// Time to wait for memory for a body, and again to read the body.
    pub body: Duration,
    /// Time for the client to read a reply and send the next request.
    pub idle: Duration,
    /// Size of a header in bytes.
    pub head_size: usize,
    /// Size of a body in bytes.
    pub body_size: usize,
    /// Size in bytes of all bodies that are in memory at the same time.
    pub bodies_size: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 128,
            handshake: Duration::from_secs(10),
            head: Duration::from_secs(10),
            body: Duration::from_secs(30),
            idle: Duration::from_mins(1),
            head_size: 32 * 1024,
            // A document of 10,000 nodes is about a megabyte.
            body_size: 16 * 1024 * 1024,
            bodies_size: 64 * 1024 * 1024,
        }
    }
}

/// The current stage of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Handshake,
    Head,
    /// The agent waits for memory for the body, and reads the body. [`Client::end`] has no time limit for this stage:
    /// the code that reads the body has the limit, and sends an error reply to a slow client.
    Body,
    /// The agent works on the request. This stage has no time limit.
    Work,
    Idle,
}

/// All connections of one listener.
#[derive(Clone)]
pub(super) struct Connections(Arc<Shared>);

struct Shared {
    limits: Limits,
    open: Mutex<Open>,
    /// Free memory for bodies, in units of [`UNIT`].
    room: Semaphore,
}

/// Bytes per permit of the semaphore. With one byte per permit, a large body could need more permits than one
/// acquisition can take (`u32::MAX`).
const UNIT: usize = 1024;

#[derive(Default)]
struct Open {
    next: u64,
    entries: BTreeMap<u64, Entry>,
}

struct Entry {
    stage: watch::Sender<(Stage, Instant)>,
    end: CancellationToken,
}

/// One connection. The connection counts towards the limit until this value is dropped, or until a new connection
/// replaces the connection.
pub(super) struct Client {
    number: u64,
    all: Connections,
    stage: watch::Receiver<(Stage, Instant)>,
    end: CancellationToken,
}

impl Connections {
    pub(super) fn new(limits: Limits) -> Self {
        let room = Semaphore::new(limits.bodies_size.div_ceil(UNIT));
        Self(Arc::new(Shared { limits, open: Mutex::default(), room }))
    }

    pub(super) fn limits(&self) -> &Limits {
        &self.0.limits
    }

    /// Admits a connection. At the limit, ends the connection that has waited longest for its client. `None`: at the
    /// limit, and the agent works on a request of every connection.
    pub(super) fn admit(&self, stage: Stage) -> Option<Client> {
        let mut open = self.open();
        if open.entries.len() >= self.limits().connections {
            let waited_for = |entry: &Entry| {
                let (stage, since) = *entry.stage.borrow();
                (stage != Stage::Work).then_some(since)
            };
            let waited = open.entries.iter().filter_map(|(number, entry)| Some((waited_for(entry)?, *number)));
            let (_, longest) = waited.min()?;
            if let Some(entry) = open.entries.remove(&longest) {
                entry.end.cancel();
            }
        }
        let number = open.next;
        open.next += 1;
        let end = CancellationToken::new();
        let (sender, receiver) = watch::channel((stage, Instant::now()));
        open.entries.insert(number, Entry { stage: sender, end: end.clone() });
        Some(Client { number, all: self.clone(), stage: receiver, end })
    }

    /// Reserves memory for a body; `None`: too little memory became free within the time limit, or `bytes` is too
    /// large.
    pub(super) async fn room(&self, bytes: usize) -> Option<impl Send + use<'_>> {
        let units = u32::try_from(bytes.div_ceil(UNIT)).ok()?;
        tokio::time::timeout(self.limits().body, self.0.room.acquire_many(units)).await.ok()?.ok()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.open().entries.is_empty()
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.0.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Client {
    /// Sets the stage of the connection.
    pub(super) fn enter(&self, stage: Stage) {
        if let Some(entry) = self.all.open().entries.get(&self.number) {
            entry.stage.send_replace((stage, Instant::now()));
        }
    }

    pub(super) fn connections(&self) -> &Connections {
        &self.all
    }

    /// Waits until the connection must be closed. Returns the reason.
    pub(super) async fn end(&self) -> &'static str {
        let limits = self.all.limits();
        let mut watch = self.stage.clone();
        loop {
            let (stage, since) = *watch.borrow_and_update();
            let (time, why) = match stage {
                Stage::Handshake => (Some(limits.handshake), "its handshake took too long"),
                Stage::Head => (Some(limits.head), "its header took too long"),
                Stage::Body | Stage::Work => (None, ""),
                Stage::Idle => (Some(limits.idle), "it was idle"),
            };
            let late = async {
                match time {
                    Some(time) => sleep_until(since + time).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = late => return why,
                () = self.end.cancelled() => return "too many connections, and the agent has waited for this one longest",
                Ok(()) = watch.changed() => {}
            }
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.all.open().entries.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Time limits of 20 ms for headers, and of an hour for handshakes and idle clients.
    fn of(connections: usize) -> Connections {
        let (head, long) = (Duration::from_millis(20), Duration::from_hours(1));
        Connections::new(Limits { connections, head, handshake: long, idle: long, ..Limits::default() })
    }

    #[test]
    fn a_new_connection_replaces_the_connection_that_has_waited_longest() {
        let all = of(2);
        let pause = || std::thread::sleep(Duration::from_millis(2));
        let first = all.admit(Stage::Head).unwrap();
        pause();
        let second = all.admit(Stage::Head).unwrap();
        pause();
        first.enter(Stage::Idle);
        let third = all.admit(Stage::Head).unwrap();
        assert!(second.end.is_cancelled());
        assert!(!first.end.is_cancelled() && !third.end.is_cancelled());
        drop((first, second, third));
        assert!(all.is_empty());
    }

    #[tokio::test]
    async fn a_request_under_way_is_never_aborted() {
        let all = of(1);
        let first = all.admit(Stage::Head).unwrap();
        first.enter(Stage::Work);
        assert!(all.admit(Stage::Head).is_none());
        let end = tokio::time::timeout(Duration::from_millis(100), first.end()).await;
        assert!(end.is_err(), "a request under way has no time limit");
        first.enter(Stage::Head);
        assert_eq!(first.end().await, "its header took too long");
        first.enter(Stage::Idle);
        assert!(all.admit(Stage::Head).is_some());
        assert!(first.end().await.starts_with("too many connections"));
    }

    #[tokio::test]
    async fn a_body_waits_for_memory_until_an_earlier_body_is_dropped() {
        let limits = Limits { bodies_size: 10 * UNIT, body: Duration::from_millis(20), ..Limits::default() };
        let all = Connections::new(limits);
        let first = all.room(9 * UNIT + 1).await;
        assert!(first.is_some());
        assert!(all.room(1).await.is_none());
        drop(first);
        assert!(all.room(1).await.is_some());
    }
}
