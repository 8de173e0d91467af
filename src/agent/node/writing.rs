//! Writes the journal of a node, and retries a write that fails.

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

/// Interval of retries after a failed journal write.
const WRITE_AGAIN: Duration = Duration::from_secs(1);

impl<K: Kernel> Node<K> {
    /// Writes the journal before a transaction writes `held` to the kernel.
    pub(super) fn write_journal_before(&self, held: &Held, ticket: &Ticket) -> Result<(), ApiError> {
        self.write(self.transactions.leading_to(held.clone(), ticket)).map_err(|error| unwritable(&error))
    }

    /// Writes the journal with the node's document and the change under way.
    pub(super) fn write_journal(&self) -> Result<(), JournalError> {
        self.write(self.transactions.record())
    }

    /// As [`write_journal`](Self::write_journal), for a state that is already in force.
    ///
    /// [`Node::tick`] retries a failed write.
    pub(super) fn update_journal(&mut self, now: Now) {
        let was_behind = self.journal_error.take().is_some();
        match self.write_journal() {
            Ok(()) if was_behind => info!("The journal is up to date again."),
            Ok(()) => {}
            Err(error) => {
                if !was_behind {
                    warn!(%error, "The journal is behind; retrying.");
                }
                self.journal_error = Some((error.to_string(), now.uptime + WRITE_AGAIN));
            }
        }
    }

    fn write(&self, record: Record<Held>) -> Result<(), JournalError> {
        let Some(path) = &self.enforcer.config.journal else { return Ok(()) };
        journal::write(path, &JournalRecord::new(self.name().clone(), self.boot.clone(), record))
    }
}

pub(super) fn unwritable(error: &JournalError) -> ApiError {
    ErrorCode::Failed.error(format!("{error}; {}", error.hint()))
}
