//! Running what a command waits for: the one place that races it against Ctrl-C, SIGTERM and the end of `--timeout`.
//!
//! There are two ways to wait. [`Context::ask`] is for what changes nothing: an interruption drops it. [`Context::act`] is
//! for what has something to put in order: an interruption tells it so, and it is waited for, within a bound.

use std::{io, process, sync::PoisonError, sync::atomic::Ordering, thread, time::Duration};

use tokio::{
    signal::unix::{SignalKind, signal},
    time::{sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::{Context, Exit, Failure, progress::Progress};

/// How long work that was interrupted may take to put things in order. A change that all nodes may have been told to keep
/// takes the longest to roll back: agents are waited for until another controller's change is confirmed or rolled back.
const ORDER_WITHIN: Duration = Duration::from_secs(90);

impl Context {
    /// Ends the process when its time is up, unless by then it runs something that ends in good order, or prints its
    /// answer: that is for files and pipes that somebody else never finishes to write. `fate` says what has become of
    /// everything then.
    pub(super) fn watch(&self, fate: &'static str) {
        let Some(deadline) = self.deadline.clone() else { return };
        let context = self.clone();
        thread::spawn(move || {
            thread::sleep(deadline.left());
            let settled = context.settled.lock().unwrap_or_else(PoisonError::into_inner);
            if !*settled {
                let failure = Failure::new(Exit::TimedOut, format!("{}; {fate}", deadline.says()));
                let exit = context.say(&failure);
                process::exit(i32::from(exit.code()));
            }
        });
    }

    /// Runs work that changes nothing, and drops it when the command is interrupted. `what` is said if it takes over a
    /// second.
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

    /// Runs work that has something to put in order when the command is interrupted. The token that it gets is cancelled
    /// then. `what` is said if the work takes over a second, and `order` if that takes over a second.
    pub(super) fn act<T>(
        &self,
        what: Option<&str>,
        order: &str,
        work: impl AsyncFnOnce(CancellationToken) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        self.run(what, async |interrupt, progress| {
            let too_late = async {
                interrupt.cancelled().await;
                progress.says(format!("{}; {order}", self.why_interrupted()));
                sleep(ORDER_WITHIN).await;
            };
            tokio::select! {
                biased;
                done = work(interrupt.clone()) => done.map_err(|failure| {
                    if interrupt.is_cancelled() { failure.of_interrupted() } else { failure }
                }),
                () = too_late => Err(Failure::new(
                    Exit::Failed,
                    format!("interrupted; {order} did not end within {} s", ORDER_WITHIN.as_secs()),
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
        let cannot = |what: &str, error: io::Error| Failure::new(Exit::Failed, format!("cannot {what}: {error}"));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| cannot("wait for events", error))?;
        self.settle();
        runtime.block_on(async {
            let interrupt = CancellationToken::new();
            let on = |kind| signal(kind).map_err(|error| cannot("wait for signals", error));
            let (mut terminate, mut pressed) = (on(SignalKind::terminate())?, on(SignalKind::interrupt())?);
            let (cancel, expired, deadline) = (interrupt.clone(), self.timed_out.clone(), self.deadline.clone());
            tokio::spawn(async move {
                let time_is_up = async {
                    match deadline {
                        Some(deadline) => sleep_until(deadline.at.into()).await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    _ = pressed.recv() => {}
                    _ = terminate.recv() => {}
                    () = time_is_up => expired.store(true, Ordering::Relaxed),
                }
                cancel.cancel();
            });
            // For a program, stderr may be the same terminal as stdout, and the document is all that it is to get.
            let progress = Progress::new(what.filter(|_| !self.is_json()));
            Box::pin(progress.during(work(&interrupt, &progress))).await
        })
    }
}
