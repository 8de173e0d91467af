//! Ends a committed change: confirms the change, or rolls it back when the controller asks for that or when its lease
//! expires.
//!
//! A node keeps a committed change only if its controller confirms the change in time. A controller confirms only after
//! all nodes have committed the change. If the controller fails before its first confirmation, all nodes roll back.
//!
//! The journal marks a change as done at the confirmation. If an agent is killed before the confirmation, the next
//! agent with the same journal rolls back.

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

/// Time for a controller to finish a confirmed change or to roll it back. In this time, the node refuses changes that
/// leave out nodes of the confirmed change.
const FINISHED_WITHIN: Duration = Duration::from_mins(1);

impl<K: Kernel> Node<K> {
    /// Confirms or finishes a committed change. The controller may repeat the request.
    pub fn confirm(&mut self, request: &Confirm, now: Now) -> Result<Confirmed, ApiError> {
        // If the lease has expired, the controller may have given up.
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
                info!(node = %self.name(), "{} is confirmed.", self.stamp());
            }
            effect @ Effect::RollBack(_) => {
                self.carry_out(effect, now)?;
                return Err(self.refused(Refusal::NotInForce, now));
            }
            _ => {}
        }
        Ok(Confirmed { stamp: self.stamp() })
    }

    /// Cancels a prepared change, or rolls back a committed change. Timed changes that have ended do not start again.
    pub fn rollback(&mut self, request: &Rollback, now: Now) -> Result<RolledBack, ApiError> {
        let effect = self.step(Event::Rollback(request.ticket.clone()), now)?;
        if matches!(effect, Effect::Covered) {
            // If the change on top is rolled back, the node then rolls this change back too, without a further request.
            self.update_journal(now);
            return Err(self.refused(Refusal::Covered, now));
        }
        let kept = matches!(effect, Effect::Kept);
        self.carry_out(effect, now)?;
        // If the commit failed and its immediate rollback failed too, the kernel may still have parts of the change.
        self.reconcile(now).map_err(|error| ApiError { code: ErrorCode::Broken, ..error })?;
        Ok(RolledBack { stamp: self.stamp(), kept })
    }

    /// Cancels or rolls back the change under way if its lease has expired.
    pub(super) fn expire(&mut self, now: Now) -> Result<(), ApiError> {
        if self.transactions.lease().is_some_and(|until| until <= now.uptime) {
            warn!(node = %self.name(), "The lease of the change under way has expired.");
            self.end(now)?;
        }
        Ok(())
    }

    /// Cancels or rolls back the change under way, because its lease has expired or the agent ends.
    pub fn end(&mut self, now: Now) -> Result<(), ApiError> {
        let effect = self.step(Event::LeaseExpired, now)?;
        self.carry_out(effect, now)
    }

    /// The time until the unconfirmed change is rolled back; `None`: there is no such change.
    pub(super) fn unconfirmed_for(&self, now: Now) -> Option<Duration> {
        self.transactions.rolls_back_at().map(|until| until.saturating_sub(now.uptime))
    }

    /// Does what the effect requires: discards the computed change, rolls back, or both.
    fn carry_out(&mut self, effect: Effect<NodePayload>, now: Now) -> Result<(), ApiError> {
        let (discarded, rolls_back) = match effect {
            Effect::Discard(discarded) => (discarded, false),
            Effect::RollBack(discarded) => (discarded, true),
            _ => return Ok(()),
        };
        if let Some(ready) = discarded {
            self.discard(ready.staged);
            self.update_journal(now);
        }
        if rolls_back { self.roll_back(now) } else { Ok(()) }
    }

    /// Rolls back the last transaction, then each transaction below it that must also be rolled back.
    ///
    /// [`Node::tick`] retries a rollback that fails.
    fn roll_back(&mut self, now: Now) -> Result<(), ApiError> {
        loop {
            self.restore(now).map_err(|error| ApiError { code: ErrorCode::Broken, ..error })?;
            let effect = self.step(Event::RolledBack, now)?;
            self.set_absent(self.held().timeline.absent(now.uptime));
            // If the agent is killed before this write, the next agent rolls back again.
            self.update_journal(now);
            warn!(node = %self.name(), "Rolled back to {}.", self.stamp());
            if !matches!(effect, Effect::RollBack(_)) {
                return Ok(());
            }
        }
    }

    /// Writes the document from before the change to the kernel. Does not write to the kernel if the interface was
    /// deleted or replaced.
    fn restore(&mut self, now: Now) -> Result<(), ApiError> {
        let Some(before) = self.transactions.rollback_target() else { return Ok(()) };
        let in_force = before.document.in_force(&before.timeline.absent(now.uptime));
        if let Err(error) = self.write_journal() {
            // All other nodes roll back, so a full disk must not stop the rollback on this node.
            warn!(%error, "The journal does not record the rollback.");
        }
        self.precomputed = None;
        if self.is_interface_replaced()? {
            return Ok(());
        }
        let interface = self.enforcer.own_interface(&self.in_force)?;
        let staged = self.enforcer.stage(interface, in_force, Foreign::Keep)?;
        self.enforcer.write(&staged, &|| now, Duration::ZERO)?;
        self.reset_drift_watch(&staged.interface, &staged.wanted);
        Ok(())
    }
}
