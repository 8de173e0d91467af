//! Changing many nodes: prepare on all, commit on all, read back on all; a failure anywhere leaves all as they were.

use std::{
    collections::BTreeMap,
    process,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use thiserror::Error;
use tokio_util::sync::CancellationToken;

use super::{CALL_TIMEOUT, CallError, Fleet, part};
use crate::{
    plan::{Absent, EditError, Moment, Stamp, Wanted},
    topology::NodeName,
    wire::{Commit, Committed, Document, GetStamp, GetWanted, Onset, Prepare, Prepared, Ticket, Undo},
};

/// How far ahead the instant is at which all nodes change, beyond the time that the slowest of them took to prepare: as
/// long as that may it take again until all have been told and are ready.
const LEAD: Duration = Duration::from_millis(50);

/// How far ahead it is at the most. Agents refuse to wait for longer than five seconds.
const LONGEST_LEAD: Duration = Duration::from_secs(2);

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
    /// Whether the document is another one than before, in what it says.
    pub says_otherwise: bool,
    /// When it took effect; `None`: nothing was committed.
    pub onset: Option<FleetOnset>,
}

/// When a change took effect on the nodes, each by its own clock.
#[derive(Debug)]
pub struct FleetOnset {
    /// The agreed instant.
    pub agreed: Moment,
    /// When it took effect on each node on which it did.
    pub nodes: BTreeMap<NodeName, Onset>,
    /// How long after the agreed instant nodes were told, by their own clock, whose clocks differ from this machine's.
    pub told_late: BTreeMap<NodeName, Duration>,
}

impl FleetOnset {
    /// From the first effect on any node to the last one on any node; `None`: there was none.
    pub fn spread(&self) -> Option<Duration> {
        let first = self.nodes.values().map(|onset| onset.first).min()?;
        self.nodes.values().map(|onset| onset.last).max()?.since(first)
    }
}

/// A transaction that is prepared on every node, and that ends by [`Rehearsal::commit`] or [`Rehearsal::abandon`].
#[must_use = "the nodes wait for it"]
pub struct Rehearsal<'a> {
    fleet: &'a Fleet,
    pub(crate) ticket: Ticket,
    /// How long the slowest node took to prepare it.
    slowest: Duration,
    /// What it would do.
    pub preview: Preview,
}

impl Fleet {
    /// What is in force at this moment of the document, which all nodes must agree on.
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
        let lasting = newest.lasting();
        let mut wanted = edit(&lasting)?;
        let said_already = agreed && lasting.says_the_same(&wanted);
        // A document that no longer has what has ended is another one, although it says the same.
        wanted.generation = lasting.generation + u64::from(!said_already || !newest.absent.ended.is_empty());

        let ticket = draw_ticket();
        let prepare =
            |node: &NodeName| Prepare { ticket: ticket.clone(), base: stamps[node].clone(), wanted: wanted.clone() };
        let asked = Instant::now();
        let (nodes, failures) = part(self.call(CALL_TIMEOUT, prepare).await);
        let slowest = asked.elapsed();
        if !failures.is_empty() {
            // A node that cannot be reached to forget what it prepared forgets it by itself.
            drop(self.undo(&ticket).await);
            return Err(TransactionError::Nodes { phase: Phase::Prepare, failures, stuck: BTreeMap::new() });
        }
        let preview = Preview { wanted, nodes, said_already, generation: lasting.generation };
        Ok(Rehearsal { fleet: self, ticket, slowest, preview })
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
            let wanted = Wanted { generation, ..wanted };
            return Ok(Outcome { wanted, writes, says_otherwise: false, onset: None });
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
            return Ok(Document { wanted: Wanted::default(), absent: Absent::default(), begins: Vec::new() });
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
    /// Does it on every node at one agreed instant; on any failure, or if it is interrupted, takes it back on every node.
    pub async fn commit(self, interrupt: &CancellationToken) -> Result<Outcome, TransactionError> {
        let Self { fleet, ticket, slowest, preview } = self;
        let agreed = Moment::from(SystemTime::now()).after((slowest + LEAD).min(LONGEST_LEAD));
        let commit = fleet.call(CALL_TIMEOUT, |_| Commit { ticket: ticket.clone(), at: Some(agreed) });
        // Agents that still wait for the instant forget the change, and those that do not take it back. One that is
        // told to commit after it was told to undo knows nothing of it any more.
        let answers = tokio::select! {
            biased;
            () = interrupt.cancelled() => None,
            answers = commit => Some(answers),
        };
        let Some((committed, failures)) = answers.map(part) else {
            let stuck = fleet.undo(&ticket).await;
            if stuck.is_empty() {
                return Err(TransactionError::Interrupted);
            }
            return Err(TransactionError::Nodes { phase: Phase::Commit, failures: BTreeMap::new(), stuck });
        };
        if !failures.is_empty() {
            let stuck = fleet.undo(&ticket).await;
            return Err(TransactionError::Nodes { phase: Phase::Commit, failures, stuck });
        }
        Ok(Outcome {
            wanted: preview.wanted.committed(agreed),
            says_otherwise: !preview.said_already,
            onset: Some(onset(agreed, &committed)),
            writes: committed.into_iter().map(|(node, committed)| (node, committed.writes)).collect(),
        })
    }

    /// Forgets it on every node.
    pub async fn abandon(self) -> Preview {
        // A node that does not hear this forgets by itself.
        drop(self.fleet.undo(&self.ticket).await);
        self.preview
    }
}

fn onset(agreed: Moment, committed: &BTreeMap<NodeName, Committed>) -> FleetOnset {
    let nodes = committed.iter().filter_map(|(node, committed)| Some((node.clone(), committed.onset?)));
    let told_late = committed.iter().filter_map(|(node, committed)| Some((node.clone(), committed.told_late?)));
    FleetOnset { agreed, nodes: nodes.collect(), told_late: told_late.collect() }
}

fn agree(stamps: &BTreeMap<NodeName, Stamp>) -> bool {
    let mut all = stamps.values();
    let first = all.next();
    first.is_none_or(|first| all.all(|stamp| stamp.agrees_with(first)))
}

pub(super) fn unread(failures: BTreeMap<NodeName, CallError>) -> TransactionError {
    TransactionError::Nodes { phase: Phase::Read, failures, stuck: BTreeMap::new() }
}

/// A name that no other transaction has: this process at this moment.
fn draw_ticket() -> Ticket {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Ticket(format!("{:x}-{:x}", process::id(), now.as_nanos()))
}
