//! The number of connections that are open at once, limited by the open files of this process.

use std::sync::Arc;

use nix::sys::resource::{Resource, getrlimit};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The files of this process that are not connections: its own, those of name services, those for starting a program.
const OTHERS: usize = 64;

/// The files for connections.
#[derive(Clone, Debug)]
pub(super) struct Files {
    free: Arc<Semaphore>,
    all: usize,
}

/// The files of one connection. Dropping the share frees them.
#[derive(Debug)]
pub(super) struct Share {
    _permit: Option<OwnedSemaphorePermit>,
}

impl Files {
    /// The files that the limit of this process leaves.
    pub(super) fn of_process() -> Self {
        let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(1_024, |(soft, _)| soft);
        let limit = usize::try_from(limit).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        Self::of(limit.saturating_sub(OTHERS).max(limit / 2))
    }

    fn of(all: usize) -> Self {
        // The largest share has to fit, or no call would ever be made.
        let all = all.max(4);
        Self { free: Arc::new(Semaphore::new(all)), all }
    }

    /// Waits until `files` files are free.
    pub(super) async fn take(&self, files: u32) -> Share {
        // The semaphore is never closed.
        Share { _permit: Arc::clone(&self.free).acquire_many_owned(files).await.ok() }
    }

    /// True if an idle connection may be kept: half of the files are for calls that wait.
    pub(super) fn has_spare(&self) -> bool {
        self.free.available_permits() * 2 >= self.all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn idle_connections_leave_files_for_calls_that_wait() {
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
