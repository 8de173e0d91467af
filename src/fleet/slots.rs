//! Limits the number of requests that are being sent at the same time.
//!
//! Without a limit, 10,000 TLS handshakes would share the processor, and all of them would end at about the same late
//! time. With the limit, the first handshakes end early, and memory for handshakes and unsent bodies stays small. The
//! limit does not count requests that wait for an answer: the answer to a commit comes only after the agreed instant,
//! and until then all other commits must be sent.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

/// The largest number of requests that are being sent.
const SENDING: usize = 128;

/// The longest time for which a request keeps its slot. Nodes that are switched off do not answer a connection request,
/// and must not delay the requests to other nodes.
const LONGEST: Duration = Duration::from_millis(200);

/// The slots of one fan-out.
#[derive(Clone, Debug)]
pub(super) struct Slots(Arc<Semaphore>);

/// A slot for one request, from the connection to the end of the body. Clones are the same slot.
#[derive(Clone, Debug)]
pub(super) struct Slot(Arc<Mutex<Option<OwnedSemaphorePermit>>>);

impl Slots {
    pub(super) fn new() -> Self {
        Self(Arc::new(Semaphore::new(SENDING)))
    }

    /// Waits for a free slot.
    pub(super) async fn take(&self) -> Slot {
        // Only a closed semaphore returns an error, and this semaphore is never closed.
        Slot(Arc::new(Mutex::new(Arc::clone(&self.0).acquire_owned().await.ok())))
    }
}

impl Slot {
    /// Frees the slot, if it is not free yet.
    pub(super) fn free(&self) {
        drop(self.0.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    /// Waits for the end of a call. Frees the slot at the end of the call, or after [`LONGEST`].
    pub(super) async fn during<T>(self, call: impl Future<Output = T>) -> T {
        let mut call = std::pin::pin!(call);
        let answer = timeout(LONGEST, call.as_mut()).await;
        self.free();
        match answer {
            Ok(answer) => answer,
            Err(_) => call.await,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{future::pending, time::Instant};

    use tokio::task::JoinSet;

    use super::*;

    #[tokio::test]
    async fn calls_without_an_answer_delay_other_calls_only_briefly() {
        let slots = Slots::new();
        let mut silent = JoinSet::new();
        for _ in 0..SENDING {
            silent.spawn(slots.take().await.during(pending::<()>()));
        }
        let began = Instant::now();
        let slot = slots.take().await;
        assert!((LONGEST / 2..LONGEST * 10).contains(&began.elapsed()), "{:?}", began.elapsed());
        assert_eq!(slot.during(async { 7 }).await, 7);
    }

    #[tokio::test]
    async fn a_sent_request_frees_its_slot_once_although_its_call_goes_on() {
        let slots = Slots::new();
        let slot = slots.take().await;
        let mut call = std::pin::pin!(slot.clone().during(pending::<()>()));
        assert!(timeout(Duration::ZERO, call.as_mut()).await.is_err());
        assert_eq!(slots.0.available_permits(), SENDING - 1);
        slot.free();
        slot.free();
        assert_eq!(slots.0.available_permits(), SENDING);
    }
}
