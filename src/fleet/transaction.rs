//! Changing many nodes: prepare on all, commit on all, read back on all; a failure anywhere leaves all as they were.

use std::{
    collections::{BTreeMap, BTreeSet},
    process,
    time::{SystemTime, UNIX_EPOCH},
};

use thiserror::Error;
use tokio_util::sync::CancellationToken;

use super::{CALL_TIMEOUT, CallError, Fleet, part};
use crate::{
    plan::{EditError, Stamp, Wanted},
    topology::NodeName,
    wire::{Commit, Document, GetStamp, GetWanted, Prepare, Prepared, Ticket, Undo},
};

/// Where a transaction failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// While the nodes were asked what is in force.
    Read,
    /// While they checked what is asked of them; nothing was written.
    Prepare,
    /// While they wrote it.
    Commit,
}

/// Why nothing changed, or, in the worst case, what did.
#[derive(Debug, Error)]
pub enum TransactionError {
    /// The edit itself is impossible.
    #[error(transparent)]
    Edit(#[from] EditError),
    /// The nodes have different documents, so an edit of "the" document means nothing.
    #[error("the nodes do not agree on what is in force: {}", disagreement(.0))]
    Disagreement(BTreeMap<NodeName, Stamp>),
    /// Some nodes failed.
    #[error("{} of the nodes failed", .failures.len())]
    Nodes {
        /// When.
        phase: Phase,
        /// Who, and why.
        failures: BTreeMap<NodeName, CallError>,
        /// Who could not go back to what it had; empty: every node is as it was.
        stuck: BTreeMap<NodeName, CallError>,
    },
    /// The command was interrupted, and every node is as it was.
    #[error("interrupted; every node is as it was")]
    Interrupted,
}

fn disagreement(stamps: &BTreeMap<NodeName, Stamp>) -> String {
    let mut groups: BTreeMap<String, Vec<NodeName>> = BTreeMap::new();
    for (node, stamp) in stamps {
        groups.entry(stamp.to_string()).or_default().push(node.clone());
    }
    let group =
        |(stamp, nodes): (&String, &Vec<NodeName>)| format!("{} at {stamp}", crate::topology::hostlist::fold(nodes));
    groups.iter().map(group).collect::<Vec<_>>().join(", ")
}

/// What would change on each node.
#[derive(Debug)]
pub struct Preview {
    /// The document that would be in force.
    pub wanted: Wanted,
    /// Each node's change.
    pub nodes: BTreeMap<NodeName, Prepared>,
    /// Whether all nodes have a document that says this already.
    pub said_already: bool,
    /// The generation that is in force now.
    pub generation: u64,
}

impl Preview {
    /// Whether there is nothing to do: the documents say it, and the kernels have it.
    pub fn is_empty(&self) -> bool {
        self.said_already && self.nodes.values().all(|node| node.change.is_settled())
    }
}

/// What an edit came to.
#[derive(Debug)]
pub struct Outcome {
    /// The document in force.
    pub wanted: Wanted,
    /// How many steps each node's kernel took; all zero: everything was in force already.
    pub writes: BTreeMap<NodeName, usize>,
}

/// A transaction that is prepared on every node, and that ends by [`Rehearsal::commit`] or [`Rehearsal::abandon`].
#[must_use = "the nodes wait for it"]
pub struct Rehearsal<'a> {
    fleet: &'a Fleet,
    ticket: Ticket,
    /// What it would do.
    pub preview: Preview,
}

impl Fleet {
    /// The document in force, which all nodes must agree on, without what has ended.
    pub async fn wanted(&self) -> Result<Wanted, TransactionError> {
        let stamps = self.stamps().await?;
        if agree(&stamps) {
            Ok(self.newest(&stamps).await?.in_force())
        } else {
            Err(TransactionError::Disagreement(stamps))
        }
    }

    /// Edits the document in force and prepares the result on every node.
    ///
    /// An edit that `replaces` everything needs no agreement on what it replaces: it is how nodes that disagree, after
    /// an agent's restart for one, are brought in line again.
    pub async fn rehearse(
        &self,
        replaces: bool,
        edit: impl FnOnce(&Wanted) -> Result<Wanted, EditError>,
    ) -> Result<Rehearsal<'_>, TransactionError> {
        let stamps = self.stamps().await?;
        let agreed = agree(&stamps);
        if !replaces && !agreed {
            return Err(TransactionError::Disagreement(stamps));
        }
        let newest = self.newest(&stamps).await?;
        let in_force = newest.in_force();
        let mut wanted = edit(&in_force)?;
        let said_already = agreed && in_force.says_the_same(&wanted);
        // A document that no longer has what has ended is another one, although it says the same.
        wanted.generation = in_force.generation + u64::from(!said_already || !newest.ended.is_empty());

        let ticket = draw_ticket();
        let prepare =
            |node: &NodeName| Prepare { ticket: ticket.clone(), base: stamps[node].clone(), wanted: wanted.clone() };
        let (nodes, failures) = part(self.call(CALL_TIMEOUT, prepare).await);
        if !failures.is_empty() {
            // A node that cannot be reached to forget what it prepared forgets it by itself.
            drop(self.undo(&ticket).await);
            return Err(TransactionError::Nodes { phase: Phase::Prepare, failures, stuck: BTreeMap::new() });
        }
        let preview = Preview { wanted, nodes, said_already, generation: in_force.generation };
        Ok(Rehearsal { fleet: self, ticket, preview })
    }

    /// Edits the document in force on every node, or on none. Ends early, everything undone, if it is interrupted.
    pub async fn edit(
        &self,
        replaces: bool,
        interrupt: &CancellationToken,
        edit: impl FnOnce(&Wanted) -> Result<Wanted, EditError>,
    ) -> Result<Outcome, TransactionError> {
        let rehearsal = self.rehearse(replaces, edit).await?;
        if rehearsal.preview.is_empty() {
            let Preview { wanted, nodes, generation, .. } = rehearsal.abandon().await;
            let writes = nodes.into_keys().map(|node| (node, 0)).collect();
            return Ok(Outcome { wanted: Wanted { generation, ..wanted }, writes });
        }
        rehearsal.commit(interrupt).await
    }

    async fn stamps(&self) -> Result<BTreeMap<NodeName, Stamp>, TransactionError> {
        let (stamps, failures) = part(self.call(CALL_TIMEOUT, |_| GetStamp {}).await);
        if failures.is_empty() { Ok(stamps) } else { Err(unread(failures)) }
    }

    /// The document of the highest generation, from the first node that has it: the others' are the same bytes.
    async fn newest(&self, stamps: &BTreeMap<NodeName, Stamp>) -> Result<Document, TransactionError> {
        let Some((node, _)) = stamps.iter().rev().max_by_key(|(_, stamp)| stamp.generation) else {
            return Ok(Document { wanted: Wanted::default(), ended: BTreeSet::new() });
        };
        let answer = self.call_one(CALL_TIMEOUT, node, GetWanted {}).await;
        answer.map_err(|error| unread([(node.clone(), error)].into()))
    }

    /// Has every node forget or take back the transaction; answers who could not.
    async fn undo(&self, ticket: &Ticket) -> BTreeMap<NodeName, CallError> {
        part(self.call(CALL_TIMEOUT, |_| Undo { ticket: ticket.clone() }).await).1
    }
}

impl Rehearsal<'_> {
    /// Does it on every node; on any failure, or if it is interrupted, takes it back on every node.
    pub async fn commit(self, interrupt: &CancellationToken) -> Result<Outcome, TransactionError> {
        let Self { fleet, ticket, preview } = self;
        // An interruption waits for the answers: a node must not commit after it was told to undo.
        let answers = if interrupt.is_cancelled() {
            BTreeMap::new()
        } else {
            fleet.call(CALL_TIMEOUT, |_| Commit { ticket: ticket.clone() }).await
        };
        let (committed, failures) = part(answers);
        if failures.is_empty() && !interrupt.is_cancelled() {
            let writes = committed.into_iter().map(|(node, committed)| (node, committed.writes)).collect();
            return Ok(Outcome { wanted: preview.wanted, writes });
        }
        let stuck = fleet.undo(&ticket).await;
        if failures.is_empty() && stuck.is_empty() {
            return Err(TransactionError::Interrupted);
        }
        Err(TransactionError::Nodes { phase: Phase::Commit, failures, stuck })
    }

    /// Forgets it on every node.
    pub async fn abandon(self) -> Preview {
        // A node that does not hear this forgets by itself.
        drop(self.fleet.undo(&self.ticket).await);
        self.preview
    }
}

fn agree(stamps: &BTreeMap<NodeName, Stamp>) -> bool {
    let mut all = stamps.values();
    let first = all.next();
    all.all(|stamp| Some(stamp) == first)
}

pub(super) fn unread(failures: BTreeMap<NodeName, CallError>) -> TransactionError {
    TransactionError::Nodes { phase: Phase::Read, failures, stuck: BTreeMap::new() }
}

/// A name that no other transaction has: this process at this moment.
fn draw_ticket() -> Ticket {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Ticket(format!("{:x}-{:x}", process::id(), now.as_nanos()))
}
