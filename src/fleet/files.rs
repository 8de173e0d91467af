//! How many connections to agents there are at once: as many as this process may have open files.

use std::sync::Arc;

use nix::sys::resource::{Resource, getrlimit};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How many files this process opens beside connections: its own, those of name services, and those that a program needs as
/// it is started.
const OTHERS: usize = 64;

/// The files that connections may have.
#[derive(Clone, Debug)]
pub(super) struct Files {
    free: Arc<Semaphore>,
    all: usize,
}

/// Files of one connection, which are free again when this is dropped.
#[derive(Debug)]
pub(super) struct Share {
    _permit: Option<OwnedSemaphorePermit>,
}

impl Files {
    /// As many as the limit of this process leaves.
    pub(super) fn of_process() -> Self {
        let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(1_024, |(soft, _)| soft);
        let limit = usize::try_from(limit).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        Self::of(limit.saturating_sub(OTHERS).max(limit / 2))
    }

    fn of(all: usize) -> Self {
        // The largest share has to fit, or nobody would ever be called.
        let all = all.max(4);
        Self { free: Arc::new(Semaphore::new(all)), all }
    }

    /// Waits until so many files are free.
    pub(super) async fn take(&self, files: u32) -> Share {
        // It is never closed.
        Share { _permit: Arc::clone(&self.free).acquire_many_owned(files).await.ok() }
    }

    /// Whether a connection may be kept that no call is made on: one half of the files is for those that wait.
    pub(super) fn has_spare(&self) -> bool {
        self.free.available_permits() * 2 >= self.all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_kept_leaves_room_for_those_that_wait() {
        let files = Files::of(8);
        let mut kept = Vec::new();
        for _ in 0..100 {
            let share = files.take(1).await;
            if files.has_spare() {
                kept.push(share);
            }
        }
        assert_eq!(kept.len(), 4);
        let calls = [files.take(3).await, files.take(1).await];
        assert!(!files.has_spare());
        let waits = tokio::time::timeout(std::time::Duration::from_millis(20), files.take(1)).await;
        assert!(waits.is_err());
        drop(calls);
        let _call = files.take(4).await;
    }
}
