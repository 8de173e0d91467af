//! Limits the number of open connections by the open-file limit of this process.
//!
//! A file here is an open file descriptor.

use std::sync::Arc;

use nix::sys::resource::{Resource, getrlimit};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The files that are left free for other uses: files of netemctl, name look-ups, pipes to programs that netemctl
/// starts.
const OTHERS: usize = 64;

/// The files that connections may use.
#[derive(Clone, Debug)]
pub(super) struct Files {
    free: Arc<Semaphore>,
    all: usize,
}

/// The files of one connection. Dropping the permit frees these files.
#[derive(Debug)]
pub(super) struct FilePermit {
    _permit: Option<OwnedSemaphorePermit>,
}

impl Files {
    /// The open-file limit of this process minus `OTHERS`, but at least half of the limit.
    pub(super) fn of_process() -> Self {
        let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(1_024, |(soft, _)| soft);
        let limit = usize::try_from(limit).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        Self::of(limit.saturating_sub(OTHERS).max(limit / 2))
    }

    fn of(all: usize) -> Self {
        // The largest permit is 3 files, and has to fit. Otherwise `take` would wait forever.
        let all = all.max(4);
        Self { free: Arc::new(Semaphore::new(all)), all }
    }

    /// Waits until `files` files are free.
    pub(super) async fn take(&self, files: u32) -> FilePermit {
        // Only a closed semaphore returns an error, and this semaphore is never closed.
        FilePermit { _permit: Arc::clone(&self.free).acquire_many_owned(files).await.ok() }
    }

    /// True if an idle connection may stay open. Half of the files are kept for waiting calls.
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
