//! What a node writes down in its journal, and what it does where that fails.

use std::time::Duration;

use tracing::{info, warn};

use super::Node;
use crate::{
    agent::{
        Now,
        journal::{self, Entry, Held, JournalError, Transaction},
    },
    kernel::Kernel,
    wire::{ApiError, ErrorCode, Ticket},
};

/// How long after the journal could not be written it is tried again.
const WRITE_AGAIN: Duration = Duration::from_secs(1);

impl<K: Kernel> Node<K> {
    /// Writes down that a transaction is about to lead to `held`.
    pub(super) fn write_down_before(&self, held: &Held, ticket: &Ticket) -> Result<(), ApiError> {
        self.write_entry(held, Some(self.leading_there(ticket))).map_err(|error| unwritable(&error))
    }

    /// Finds out whether that can be written down, and writes down nothing.
    pub(super) fn try_to_write_down(&self, held: &Held, ticket: &Ticket) -> Result<(), ApiError> {
        let Some(path) = &self.enforcer.config.journal else { return Ok(()) };
        let entry = self.entry(held, Some(self.leading_there(ticket)));
        journal::try_out(path, &entry).map_err(|error| unwritable(&error))
    }

    /// A transaction that is under way.
    fn leading_there(&self, ticket: &Ticket) -> Transaction {
        Transaction { ticket: ticket.clone(), before: self.held.clone(), is_done: false }
    }

    /// Writes down what the node has.
    pub(super) fn write_down(&self) -> Result<(), JournalError> {
        self.write_entry(&self.held, self.last.clone())
    }

    /// The same where it is done already, so that it is tried again until the journal says so.
    pub(super) fn correct_journal(&mut self, now: Now) {
        let was_behind = self.behind.take().is_some();
        match self.write_down() {
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

    pub(super) fn write_entry(&self, held: &Held, transaction: Option<Transaction>) -> Result<(), JournalError> {
        let Some(path) = &self.enforcer.config.journal else { return Ok(()) };
        journal::write(path, &self.entry(held, transaction))
    }

    fn entry(&self, held: &Held, transaction: Option<Transaction>) -> Entry {
        let node = self.enforcer.config.node.clone();
        Entry { node, boot: self.boot.clone(), held: held.clone(), transaction }
    }
}

pub(super) fn unwritable(error: &JournalError) -> ApiError {
    let hint = error.hint();
    ApiError::new(ErrorCode::Failed, format!("{error}; {hint}"))
}
