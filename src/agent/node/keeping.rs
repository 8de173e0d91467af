//! Whether a node keeps what it committed: it is confirmed, rolled back, or taken back by the node itself when its time is up.
//!
//! A change that is committed holds for a while only, until its controller, which knows that all nodes have it, confirms
//! it. So whatever becomes of the controller, or of the way to it, a node does not stay alone with a change; and the
//! journal calls a change done when it is confirmed, so an agent that is killed before that goes back as well.

use std::time::Duration;

use tracing::{info, warn};

use super::{
    Node, NodePayload,
    enforcer::Foreign,
    transactions::{Effect, Event, Refusal},
    writing::unwritable,
};
use crate::{
    agent::Now,
    kernel::Kernel,
    wire::{ApiError, Confirm, Confirmed, ErrorCode, Rollback, RolledBack},
};

/// How long after a change is confirmed its controller may still be at it: it confirms it and rolls it back for less.
const FINISHED_WITHIN: Duration = Duration::from_mins(1);

impl<K: Kernel> Node<K> {
    /// Keeps what was committed, until its controller rolls it back. Confirming it twice is confirming it once. What all nodes
    /// have confirmed is kept for good.
    pub fn confirm(&mut self, request: &Confirm, now: Now) -> Result<Confirmed, ApiError> {
        // One that comes when the time is up may be that of a controller that has given up long ago.
        self.expire(now)?;
        let Confirm { ticket, by_all } = request;
        let until = now.uptime.saturating_add(FINISHED_WITHIN);
        let event = if *by_all { Event::Finish(ticket.clone()) } else { Event::Confirm(ticket.clone(), until) };
        match self.step(event, now)? {
            Effect::WriteJournal => {
                if let Err(error) = self.write_journal() {
                    let rollback = Rollback { ticket: ticket.clone() };
                    let code =
                        if self.rollback(&rollback, now).is_ok() { ErrorCode::Failed } else { ErrorCode::Broken };
                    return Err(ApiError { code, ..unwritable(&error) });
                }
                info!(node = %self.enforcer.config.node, "{} is confirmed.", self.stamp());
            }
            effect @ Effect::RollBack(_) => {
                self.carry_out(effect, now)?;
                return Err(self.refused(Refusal::NotInForce, now));
            }
            _ => {}
        }
        Ok(Confirmed { stamp: self.stamp() })
    }

    /// Forgets a prepared change, or goes back to what was in force before a committed one; what would have ended in
    /// the meantime has.
    pub fn rollback(&mut self, request: &Rollback, now: Now) -> Result<RolledBack, ApiError> {
        let effect = self.step(Event::Rollback(request.ticket.clone()), now)?;
        if matches!(effect, Effect::Covered) {
            // It goes back with what lies on top, even if nobody asks for it again.
            self.update_journal(now);
            return Err(self.refused(Refusal::Covered, now));
        }
        let kept = matches!(effect, Effect::Kept);
        self.carry_out(effect, now)?;
        // A change that could be neither done nor rolled back as it was committed.
        self.reconcile(now).map_err(|error| ApiError { code: ErrorCode::Broken, ..error })?;
        Ok(RolledBack { stamp: self.stamp(), kept })
    }

    /// Forgets what has been prepared for too long, and takes back what has been unconfirmed for too long.
    pub(super) fn expire(&mut self, now: Now) -> Result<(), ApiError> {
        if self.transactions.lease().is_some_and(|until| until <= now.uptime) {
            warn!(node = %self.enforcer.config.node, "Nobody came back in time for the change that is under way.");
            self.end(now)?;
        }
        Ok(())
    }

    /// As the agent ends: leaves nothing behind that nobody would come back for.
    pub fn end(&mut self, now: Now) -> Result<(), ApiError> {
        let effect = self.step(Event::LeaseExpired, now)?;
        self.carry_out(effect, now)
    }

    /// How long the node still has what nobody has confirmed; `None`: there is no such thing.
    pub(super) fn unconfirmed_for(&self, now: Now) -> Option<Duration> {
        self.transactions.rolls_back_at().map(|until| until.saturating_sub(now.uptime))
    }

    /// Forgets what was computed, and goes back, if that is what there is to do.
    fn carry_out(&mut self, effect: Effect<NodePayload>, now: Now) -> Result<(), ApiError> {
        let (dropped, goes_back) = match effect {
            Effect::Discard(dropped) => (dropped, false),
            Effect::RollBack(dropped) => (dropped, true),
            _ => return Ok(()),
        };
        if let Some(ready) = dropped {
            self.enforcer.forget(&ready.staged);
            self.update_journal(now);
        }
        if goes_back { self.take_back(now) } else { Ok(()) }
    }

    /// Goes back to what was in force before the last transaction. If that fails, it is tried again by and by.
    fn take_back(&mut self, now: Now) -> Result<(), ApiError> {
        loop {
            self.go_back(now).map_err(|error| ApiError { code: ErrorCode::Broken, ..error })?;
            let effect = self.step(Event::RolledBack, now)?;
            self.note(self.held().timeline.absent(now.uptime));
            // Until this is written, the journal says that the change is not done, which comes to the same.
            self.update_journal(now);
            warn!(node = %self.enforcer.config.node, "Went back to {}.", self.stamp());
            // So was the one below to be rolled back.
            if !matches!(effect, Effect::RollBack(_)) {
                return Ok(());
            }
        }
    }

    fn go_back(&mut self, now: Now) -> Result<(), ApiError> {
        let Some(before) = self.transactions.rollback_target() else { return Ok(()) };
        let in_force = before.document.in_force(&before.timeline.absent(now.uptime));
        if let Err(error) = self.write_journal() {
            // All other nodes go back, so this one does as well: a disk that is full must not part it from them.
            warn!(%error, "The journal does not say that the change is rolled back.");
        }
        self.ahead = None;
        if self.is_interface_replaced()? {
            return Ok(());
        }
        let interface = self.enforcer.own_interface(&self.in_force)?;
        let staged = self.enforcer.stage(interface, in_force, Foreign::Stays)?;
        self.enforcer.strike(&staged, &|| now)?;
        self.reset_drift_watch(staged.interface(), &staged.wanted);
        Ok(())
    }
}
