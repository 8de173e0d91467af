//! Whether a node keeps what it committed: it is confirmed, undone, or taken back by the node itself when its time is up.
//!
//! A change that is committed holds for a while only, until its controller, which knows that all nodes have it, confirms
//! it. So whatever becomes of the controller, or of the way to it, a node does not stay alone with a change; and the
//! journal calls a change done when it is confirmed, so an agent that is killed before that goes back as well.

use std::time::Duration;

use tracing::{info, warn};

use super::{Node, PREPARED_FOR, Pending, Unconfirmed, gone, writing::unwritable};
use crate::{
    agent::{Now, journal::Transaction},
    kernel::Kernel,
    wire::{ApiError, Committed, Confirm, Confirmed, ErrorCode, Ticket, Undo, Undone},
};

impl<K: Kernel> Node<K> {
    /// Keeps what was committed, for good. Confirming it twice is confirming it once.
    pub fn confirm(&mut self, request: &Confirm, now: Now) -> Result<Confirmed, ApiError> {
        // One that comes when the time is up may be that of a controller that has given up long ago.
        self.expire(now)?;
        let last = self.last.as_mut().filter(|last| last.ticket == request.ticket).ok_or_else(taken_back)?;
        if let Some(unconfirmed) = &self.unconfirmed {
            if unconfirmed.committed.is_none() {
                self.take_back(now)?;
                return Err(taken_back());
            }
            last.is_done = true;
            if let Err(error) = self.write_down() {
                let code = if self.take_back(now).is_ok() { ErrorCode::Failed } else { ErrorCode::Broken };
                return Err(ApiError { code, ..unwritable(&error) });
            }
            self.unconfirmed = None;
            info!(node = %self.enforcer.config.node, "{} is confirmed.", self.stamp());
        }
        Ok(Confirmed { stamp: self.stamp() })
    }

    /// Forgets a prepared change, or goes back to what was in force before a committed one; what would have ended in
    /// the meantime has.
    pub fn undo(&mut self, request: &Undo, now: Now) -> Result<Undone, ApiError> {
        if self.pending.as_ref().is_some_and(|pending| pending.ticket == request.ticket) {
            self.forget_pending(now);
        }
        if self.last.as_ref().is_some_and(|last| last.ticket == request.ticket) {
            self.take_back(now)?;
        }
        // A change that could be neither done nor undone as it was committed.
        self.settle(now).map_err(|error| ApiError { code: ErrorCode::Broken, ..error })?;
        Ok(Undone { stamp: self.stamp() })
    }

    /// Forgets what has been prepared for too long, and takes back what has been unconfirmed for too long.
    pub(super) fn expire(&mut self, now: Now) -> Result<(), ApiError> {
        let is_old = |pending: &Pending| now.uptime.saturating_sub(pending.since.uptime) >= PREPARED_FOR;
        if self.pending.as_ref().is_some_and(is_old) {
            warn!(node = %self.enforcer.config.node, "Nobody came back for what was prepared; it is forgotten.");
            self.forget_pending(now);
        }
        if self.unconfirmed.as_ref().is_some_and(|unconfirmed| unconfirmed.until <= now.uptime) {
            warn!(node = %self.enforcer.config.node, "{} was not confirmed in time.", self.stamp());
            self.take_back(now)?;
        }
        Ok(())
    }

    /// As the agent ends: leaves nothing behind that nobody would come back for.
    pub fn end(&mut self, now: Now) -> Result<(), ApiError> {
        self.forget_pending(now);
        if self.unconfirmed.is_some() { self.take_back(now) } else { Ok(()) }
    }

    /// How long the node still has what nobody has confirmed; `None`: there is no such thing.
    pub(super) fn unconfirmed_for(&self, now: Now) -> Option<Duration> {
        self.unconfirmed.as_ref().map(|unconfirmed| unconfirmed.until.saturating_sub(now.uptime))
    }

    /// What was answered to the commit of a transaction that still is unconfirmed.
    pub(super) fn answered(&self, ticket: &Ticket) -> Option<&Committed> {
        self.last.as_ref().filter(|last| last.ticket == *ticket)?;
        self.unconfirmed.as_ref()?.committed.as_ref()
    }

    fn forget_pending(&mut self, now: Now) {
        if let Some(Pending { ready: Some(ready), .. }) = self.pending.take() {
            self.enforcer.forget(&ready.staged);
            self.correct_journal(now);
        }
    }

    /// Goes back to what was in force before the last transaction. If that fails, it is tried again by and by.
    fn take_back(&mut self, now: Now) -> Result<(), ApiError> {
        let Some(mut last) = self.last.take() else { return Ok(()) };
        let went = self.go_back(&last, now);
        if let Err(error) = went {
            last.is_done = false;
            self.last = Some(last);
            self.unconfirmed = Some(Unconfirmed { until: now.uptime, committed: None });
            return Err(ApiError { code: ErrorCode::Broken, ..error });
        }
        self.unconfirmed = None;
        self.held = last.before;
        self.note(self.held.timeline.absent(now.uptime));
        // Until this is written, the journal says that the change is not done, which comes to the same.
        self.correct_journal(now);
        warn!(node = %self.enforcer.config.node, "Went back to {}.", self.stamp());
        Ok(())
    }

    fn go_back(&mut self, last: &Transaction, now: Now) -> Result<(), ApiError> {
        let Transaction { ticket, before, .. } = last;
        let undoing = Transaction { ticket: ticket.clone(), before: before.clone(), is_done: false };
        if let Err(error) = self.write_entry(&self.held, Some(undoing)) {
            // All other nodes go back, so this one does as well: a disk that is full must not part it from them.
            warn!(%error, "The journal does not say that the change is undone.");
        }
        let in_force = before.document.in_force(&before.timeline.absent(now.uptime));
        self.ahead = None;
        if self.is_displaced()? {
            return Ok(());
        }
        let interface = self.enforcer.own_interface(&self.in_force)?;
        let staged = self.enforcer.stage(interface, in_force)?;
        self.enforcer.strike(&staged, &|| now)?;
        self.watch_over(staged.interface(), &staged.wanted);
        Ok(())
    }
}

fn taken_back() -> ApiError {
    let gone = gone();
    ApiError { message: "that change is not in force here any more, or never was; start again".to_owned(), ..gone }
}
