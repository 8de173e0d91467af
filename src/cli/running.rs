//! Runs the work of a command until it is done, or until Ctrl-C, SIGTERM or the end of `--timeout`.
//!
//! [`Context::ask`] is for work that changes nothing: an interrupt drops the work. [`Context::act`] is for work that
//! must clean up: an interrupt cancels the work's token, and the command waits for the work within a time limit.

use std::{process, sync::PoisonError, sync::atomic::Ordering, thread, time::Duration};

use tokio::{
    runtime::{Builder, Runtime},
    signal::unix::{SignalKind, signal},
    time::{sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::{Context, Exit, Failure, OrFail, progress::Progress};

/// The maximum time that interrupted work may take to clean up.
///
/// The longest cleanup is the rollback of a change that all nodes may have confirmed. This rollback waits for agents
/// until another controller's change is confirmed or rolled back.
const CLEANUP_WITHIN: Duration = Duration::from_secs(90);

/// A runtime that runs its tasks on the calling thread.
pub(super) fn runtime() -> Result<Runtime, Failure> {
    Builder::new_current_thread().enable_all().build().or_fail(Exit::Failed, "cannot wait for events")
}

/// A future that completes on SIGTERM or SIGINT.
pub(super) fn interrupted() -> Result<impl Future<Output = ()> + Send + 'static, Failure> {
    let on = |kind| signal(kind).or_fail(Exit::Failed, "cannot wait for signals");
    let (mut terminate, mut interrupt) = (on(SignalKind::terminate())?, on(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

impl Context {
    /// Ends the process at the timeout, unless the process already runs work or prints its answer.
    ///
    /// This timeout is for reads of a file or pipe whose writer never ends. Work has its own timeout. `state` is the
    /// end of the message: the state after the timeout.
    pub(super) fn watch(&self, state: &'static str) {
        let Some(deadline) = self.deadline.clone() else { return };
        let context = self.clone();
        thread::spawn(move || {
            thread::sleep(deadline.left());
            let settled = context.settled.lock().unwrap_or_else(PoisonError::into_inner);
            if !*settled {
                let failure = Failure::new(Exit::TimedOut, format!("{}; {state}", deadline.says()));
                let exit = context.say(&failure);
                process::exit(i32::from(exit.code()));
            }
        });
    }

    /// Runs work that changes nothing.
    ///
    /// An interrupt drops the work. `what` is printed if the work takes over a second.
    pub(super) fn ask<T>(
        &self,
        what: &str,
        work: impl AsyncFnOnce(&Progress) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        self.run(Some(what), async |interrupt, progress| {
            tokio::select! {
                biased;
                () = interrupt.cancelled() => Err(Failure::new(Exit::Interrupted, "interrupted; nothing was changed")),
                done = work(progress) => done,
            }
        })
    }

    /// Runs work that must clean up after an interrupt.
    ///
    /// The interrupt cancels the token of the work. `what` is printed if the work takes over a second, and `cleanup` if
    /// the cleanup takes over a second.
    pub(super) fn act<T>(
        &self,
        what: Option<&str>,
        cleanup: &str,
        work: impl AsyncFnOnce(CancellationToken) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        self.run(what, async |interrupt, progress| {
            let too_late = async {
                interrupt.cancelled().await;
                progress.begin(format!("{}; {cleanup}", self.why_interrupted()));
                sleep(CLEANUP_WITHIN).await;
            };
            tokio::select! {
                biased;
                done = work(interrupt.clone()) => done.map_err(|failure| {
                    if interrupt.is_cancelled() { failure.of_interrupted() } else { failure }
                }),
                () = too_late => Err(Failure::new(
                    Exit::Failed,
                    format!("interrupted; {cleanup} did not end within {} s", CLEANUP_WITHIN.as_secs()),
                )
                .hint("see what is in force: netemctl status")),
            }
        })
    }

    fn run<T>(
        &self,
        what: Option<&str>,
        work: impl AsyncFnOnce(&CancellationToken, &Progress) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let runtime = runtime()?;
        self.settle();
        runtime.block_on(async {
            let interrupt = CancellationToken::new();
            let interrupted = interrupted()?;
            let (cancel, expired, deadline) = (interrupt.clone(), self.timed_out.clone(), self.deadline.clone());
            tokio::spawn(async move {
                let time_is_up = async {
                    match deadline {
                        Some(deadline) => sleep_until(deadline.at.into()).await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    () = interrupted => {}
                    () = time_is_up => expired.store(true, Ordering::Relaxed),
                }
                cancel.cancel();
            });
            // With --json, stderr may be the same terminal as stdout, which must have nothing but the document.
            let progress = Progress::new(what.filter(|_| !self.is_json()));
            Box::pin(progress.during(work(&interrupt, &progress))).await
        })
    }
}
