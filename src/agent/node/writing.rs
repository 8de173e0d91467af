//! What a node writes down in its journal, and what it does where that fails.

use std::time::Duration;

use tracing::{info, warn};

use super::{
    Node,
    journal::{self, Held, JournalError, JournalRecord},
    transactions::Record,
};
use crate::{
    agent::Now,
    kernel::Kernel,
    wire::{ApiError, ErrorCode, Ticket},
};

/// How long after the journal could not be written it is tried again.
const WRITE_AGAIN: Duration = Duration::from_secs(1);

impl<K: Kernel> Node<K> {
    /// Writes down that a transaction is about to lead to `held`.
    pub(super) fn write_journal_before(&self, held: &Held, ticket: &Ticket) -> Result<(), ApiError> {
        self.write(self.transactions.leading_to(held.clone(), ticket)).map_err(|error| unwritable(&error))
    }

    /// Finds out whether that can be written down, and writes down nothing.
    pub(super) fn check_journal(&self, held: &Held, ticket: &Ticket) -> Result<(), ApiError> {
        let Some(path) = &self.enforcer.config.journal else { return Ok(()) };
        let entry = self.entry(self.transactions.leading_to(held.clone(), ticket));
        journal::try_out(path, &entry).map_err(|error| unwritable(&error))
    }

    /// Writes down what the node has, and which change of it is under way.
    pub(super) fn write_journal(&self) -> Result<(), JournalError> {
        self.write(self.transactions.record())
    }

    /// The same where it is done already, so that it is tried again until the journal says so.
    pub(super) fn update_journal(&mut self, now: Now) {
        let was_behind = self.behind.take().is_some();
        match self.write_journal() {
            Ok(()) if was_behind => info!("The journal says what is in force again."),
            Ok(()) => {}
            Err(error) => {
                if !was_behind {
                    warn!(%error, "The journal is behind; trying again.");
                }
                self.behind = Some((error.to_string(), now.uptime + WRITE_AGAIN));
            }
        }
    }

    fn write(&self, record: Record<Held>) -> Result<(), JournalError> {
        let Some(path) = &self.enforcer.config.journal else { return Ok(()) };
        journal::write(path, &self.entry(record))
    }

    fn entry(&self, record: Record<Held>) -> JournalRecord {
        JournalRecord::new(self.enforcer.config.node.clone(), self.boot.clone(), record)
    }
}

pub(super) fn unwritable(error: &JournalError) -> ApiError {
    let hint = error.hint();
    ApiError::new(ErrorCode::Failed, format!("{error}; {hint}"))
}
