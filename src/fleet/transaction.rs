//! Changing many nodes: prepare on all, commit on all, read back on all, confirm on all; a failure anywhere leaves all as
//! they were.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    time::{Duration, Instant, SystemTime},
};

use thiserror::Error;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::{
    CALL_TIMEOUT, CallError, Fleet, Leftover, OTHERS_TIMEOUT, Patience, Scope, clocks,
    decision::{Edited, Next, Stage, edited, heard, is_base, is_the_named, newest, next},
    insist::{Effort, may_pass},
    part,
    scope::behind,
};
use crate::{
    plan::{EditError, Moment, Stamp, Wanted},
    topology::NodeName,
    wire::{
        CONFIRM_WITHIN, Commit, Committed, Confirm, Document, ErrorCode, GetStamp, GetWanted, Onset, PartitionEnded,
        Plan, Prepare, Prepared, Ticket,
    },
};

/// How far ahead the instant is at which all nodes change, beyond the time that the slowest of them took to prepare: as
/// long as that may it take again until all have been told and are ready.
const LEAD: Duration = Duration::from_millis(50);

/// How far ahead it is at the most. Agents refuse to wait for longer than five seconds.
const LONGEST_LEAD: Duration = Duration::from_secs(2);

/// What is asked before anything is written, and to write it. An agent that hangs up is asked again, as its answer may
/// have been lost; one that is not there is not waited for.
const ASKED: Effort =
    Effort { patience: CALL_TIMEOUT, lasts: Duration::from_secs(2), awaits_agents: false, outlasts: Duration::ZERO };

/// How long nodes that have prepared a change get to hear that nothing will come of it, if somebody is in a hurry.
const PARTING: Duration = Duration::from_secs(2);

/// How long nodes get to hear that all of them have confirmed a change. Whoever does not hear it has it nonetheless.
const FINISH: Effort = Effort { patience: PARTING, lasts: PARTING, awaits_agents: false, outlasts: Duration::ZERO };

/// Where a transaction failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// While the nodes were asked what is in force.
    Read,
    /// While they checked what is asked of them; nothing was written.
    Prepare,
    /// While they wrote it.
    Commit,
    /// When all of them had it and were told to keep it.
    Confirm,
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
    /// A node's document is not the one that it had named a moment before, or is not confirmed.
    #[error("another controller is changing {0}; try again in a moment")]
    Changing(NodeName),
    /// The kernel gives no random numbers.
    #[error("cannot draw a name for the transaction: {0}")]
    NoTicket(#[source] io::Error),
    /// Some nodes failed.
    #[error("{} of the nodes failed", .failures.len())]
    Nodes {
        /// When.
        phase: Phase,
        /// Who, and why.
        failures: BTreeMap<NodeName, CallError>,
        /// Who did not say that it has nothing of it any more; empty: every node is as it was.
        left: BTreeMap<NodeName, Leftover>,
    },
    /// The command was interrupted, and every node is as it was.
    #[error("interrupted; every node is as it was")]
    Interrupted,
}

impl TransactionError {
    /// Whether every node is as it was, and the same may succeed in a moment: another controller was at it, or somebody
    /// did not answer.
    pub fn may_pass(&self) -> bool {
        let passes = |error: &CallError| match error {
            CallError::Refused(error) => error.code == ErrorCode::Conflict,
            error => may_pass(error),
        };
        match self {
            Self::Disagreement(_) | Self::Changing(_) => true,
            Self::Nodes { failures, left, .. } => left.is_empty() && failures.values().all(passes),
            Self::Edit(_) | Self::NoTicket(_) | Self::Interrupted => false,
        }
    }
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
    /// The nodes that earlier changes had left as they were, and that this one brings in line.
    pub caught_up: BTreeSet<NodeName>,
    /// The nodes that have left the inventory while something was in force on them.
    pub departed: BTreeSet<NodeName>,
}

impl Preview {
    /// Whether there is nothing to do: the documents say it, and the kernels have it.
    pub fn is_empty(&self) -> bool {
        self.said_already && self.nodes.values().all(|node| node.change.is_settled())
    }

    fn warnings(&self) -> BTreeMap<NodeName, Vec<String>> {
        let nodes = self.nodes.iter().filter(|(_, prepared)| !prepared.warnings.is_empty());
        let nodes = nodes.map(|(node, prepared)| (node.clone(), prepared.warnings.clone()));
        let departed = "it left the inventory, so it was not asked and stays as it is; put it in again to give it back";
        nodes.chain(self.departed.iter().map(|node| (node.clone(), vec![departed.to_owned()]))).collect()
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
    /// The nodes that earlier changes had left as they were, and that have it now.
    pub caught_up: BTreeSet<NodeName>,
    /// True if another controller has changed something on top of it before all nodes had said that they keep it.
    pub superseded: bool,
    /// The partitions that it has ended, and what they had cut on all nodes together.
    pub ended: Vec<PartitionEnded>,
    /// What the change leaves on nodes for somebody to mend, such as an interface that is down.
    pub warnings: BTreeMap<NodeName, Vec<String>>,
}

/// When a change took effect on the nodes: by this machine's clock on those whose clocks are certainly not in step with
/// it, and by each one's own on the others.
#[derive(Debug)]
pub struct FleetOnset {
    /// The agreed instant.
    pub agreed: Moment,
    /// When it took effect on each node on which it did.
    pub nodes: BTreeMap<NodeName, Onset>,
    /// How long after the agreed instant nodes were told of it, if that was too late.
    pub told_late: BTreeMap<NodeName, Duration>,
    /// By how many nanoseconds clocks are ahead that are certainly not in step with this machine's.
    pub clocks: BTreeMap<NodeName, i64>,
}

impl FleetOnset {
    /// From the first effect on any node to the last one on any node; `None`: there was none.
    pub fn spread(&self) -> Option<Duration> {
        let first = self.nodes.values().map(|onset| onset.first).min()?;
        self.nodes.values().map(|onset| onset.last).max()?.since(first)
    }
}

/// Whether a document will do that was read where that stamp had been named.
type WillDo<'a> = &'a dyn Fn(&NodeName, &Document, &Stamp) -> bool;

const IS_THE_NAMED: WillDo<'_> = &|_, document, stamp| is_the_named(document, stamp);

/// An edited document, before any node has heard of it.
struct Draft {
    /// The nodes that take part.
    fleet: Fleet,
    /// The document that each node has.
    stamps: BTreeMap<NodeName, Stamp>,
    /// Without what the nodes answer.
    preview: Preview,
    is_unfinished: bool,
}

/// A transaction that is prepared on every node, and that ends by [`Rehearsal::commit`] or [`Rehearsal::abandon`].
#[must_use = "the nodes wait for it"]
pub struct Rehearsal {
    /// The nodes that take part.
    fleet: Fleet,
    pub(crate) ticket: Ticket,
    /// How long the slowest node took to prepare it.
    slowest: Duration,
    /// By how many nanoseconds clocks are ahead that are certainly not in step with this machine's.
    clocks: BTreeMap<NodeName, i64>,
    /// How long a node has it without being told to keep it.
    pub(crate) confirm_within: Duration,
    /// Whether the document that was edited may still be taken back.
    is_unfinished: bool,
    /// What it would do.
    pub preview: Preview,
}

impl Fleet {
    /// What is in force at this moment of the document, which all nodes must agree on.
    pub async fn wanted(&self) -> Result<Wanted, TransactionError> {
        let (stamps, silent) = self.stamps().await;
        if !silent.is_empty() {
            return Err(unread(silent));
        }
        if agree(&stamps) {
            Ok(self.newest(&stamps, IS_THE_NAMED).await?.in_force())
        } else {
            Err(TransactionError::Disagreement(stamps))
        }
    }

    /// The same without the nodes that do not answer and those that the document leaves out, and the fleet of the others.
    pub async fn wanted_where_it_is(&self) -> Result<(Wanted, Self), TransactionError> {
        let (stamps, silent) = self.stamps().await;
        if stamps.is_empty() {
            return Err(unread(silent));
        }
        let newest = self.newest(&stamps, IS_THE_NAMED).await?;
        let behind = behind(&stamps, &newest.wanted)?;
        let others = self.of(|node| stamps.contains_key(node) && !behind.contains(node));
        Ok((newest.in_force(), others))
    }

    /// What an edit of the document in force would change on each node. Takes no lease: other controllers' changes go on
    /// meanwhile.
    pub async fn plan(
        &self,
        replaces: bool,
        interrupt: &CancellationToken,
        edit: impl FnOnce(&Wanted) -> Result<Wanted, EditError>,
    ) -> Result<Preview, TransactionError> {
        let Draft { fleet, stamps, preview, .. } = self.draft(&Scope::default(), replaces, interrupt, edit).await?;
        let plan = |node: &NodeName| Plan { base: stamps[node].clone(), wanted: preview.wanted.clone() };
        let (nodes, failures) = part(unless(interrupt, fleet.insist(ASKED, &plan)).await?);
        if failures.is_empty() {
            return Ok(Preview { nodes, ..preview });
        }
        Err(TransactionError::Nodes { phase: Phase::Prepare, failures, left: BTreeMap::new() })
    }

    /// Edits the document in force and prepares the result on every node.
    ///
    /// An edit that `replaces` everything needs no agreement on what it replaces: it is how nodes that disagree, after
    /// an agent's restart for one, are brought in line again. Others need it, apart from nodes that were left out. Ends
    /// early, everything forgotten, if it is interrupted.
    pub async fn rehearse(
        &self,
        replaces: bool,
        interrupt: &CancellationToken,
        edit: impl FnOnce(&Wanted) -> Result<Wanted, EditError>,
    ) -> Result<Rehearsal, TransactionError> {
        self.rehearse_within(&Scope::default(), replaces, interrupt, edit).await
    }

    /// The same on some nodes only.
    pub async fn rehearse_within(
        &self,
        scope: &Scope,
        replaces: bool,
        interrupt: &CancellationToken,
        edit: impl FnOnce(&Wanted) -> Result<Wanted, EditError>,
    ) -> Result<Rehearsal, TransactionError> {
        let Draft { fleet, stamps, preview, is_unfinished } = self.draft(scope, replaces, interrupt, edit).await?;
        let wanted = &preview.wanted;
        let ticket = draw_ticket()?;
        let prepare =
            |node: &NodeName| Prepare { ticket: ticket.clone(), base: stamps[node].clone(), wanted: wanted.clone() };
        let asked = Instant::now();
        let answers = unless(interrupt, fleet.insist_timed(ASKED, &prepare)).await;
        let slowest = asked.elapsed();
        let (answers, exchanges) = match answers {
            Ok(answers) => answers,
            Err(interrupted) => {
                // Nothing was written, and a node that does not hear this forgets what it prepared by itself.
                drop(timeout(PARTING, fleet.forget(&ticket)).await);
                return Err(interrupted);
            }
        };
        let clocks = clocks::ahead(&answers, &exchanges);
        let next = next(&Stage::Prepare, &heard(&answers, |_| false));
        let (nodes, failures) = part(answers);
        if next != Next::Ask(Stage::Commit) {
            // A node that cannot be reached to forget what it prepared forgets it by itself.
            drop(fleet.forget(&ticket).await);
            return Err(TransactionError::Nodes { phase: Phase::Prepare, failures, left: BTreeMap::new() });
        }
        let preview = Preview { nodes, ..preview };
        Ok(Rehearsal { fleet, ticket, slowest, clocks, confirm_within: CONFIRM_WITHIN, is_unfinished, preview })
    }

    /// Edits the document in force; asks nobody for it yet.
    async fn draft(
        &self,
        scope: &Scope,
        replaces: bool,
        interrupt: &CancellationToken,
        edit: impl FnOnce(&Wanted) -> Result<Wanted, EditError>,
    ) -> Result<Draft, TransactionError> {
        let (stamps, silent) = unless(interrupt, self.stamps_within(scope)).await?;
        let fleet = scope.participants(self, &stamps, silent)?;
        let takes_part = |node: &NodeName| fleet.inventory().nodes.contains_key(node);
        let will_do = |node: &NodeName, document: &Document, stamp: &Stamp| is_base(document, stamp, takes_part(node));
        let newest = unless(interrupt, self.newest(&stamps, &will_do)).await??;
        let mut missing: BTreeSet<_> =
            self.inventory().nodes.keys().filter(|node| !takes_part(node)).cloned().collect();
        missing.extend(scope.left_out.iter().cloned());
        let edited = edited(&stamps, &newest, takes_part, missing, replaces, edit)?;
        let Edited { wanted, said_already, is_unfinished, generation, caught_up } = edited;
        let is_known = |node: &NodeName| self.inventory().nodes.contains_key(node) || scope.left_out.contains(node);
        let departed = newest.wanted.inventory.nodes.keys().filter(|node| !newest.wanted.is_clear() && !is_known(node));
        let departed = departed.cloned().collect();
        let preview = Preview { wanted, nodes: BTreeMap::new(), said_already, generation, caught_up, departed };
        Ok(Draft { fleet, stamps, preview, is_unfinished })
    }

    /// Edits the document in force on every node, or on none. Ends early, everything rolled back, if it is interrupted.
    pub async fn edit(
        &self,
        replaces: bool,
        interrupt: &CancellationToken,
        edit: impl FnOnce(&Wanted) -> Result<Wanted, EditError>,
    ) -> Result<Outcome, TransactionError> {
        self.edit_within(&Scope::default(), replaces, interrupt, edit).await
    }

    /// The same on some nodes only.
    pub async fn edit_within(
        &self,
        scope: &Scope,
        replaces: bool,
        interrupt: &CancellationToken,
        edit: impl FnOnce(&Wanted) -> Result<Wanted, EditError>,
    ) -> Result<Outcome, TransactionError> {
        let rehearsal = self.rehearse_within(scope, replaces, interrupt, edit).await?;
        if rehearsal.preview.is_empty() && !rehearsal.is_unfinished {
            let preview = rehearsal.abandon().await;
            let warnings = preview.warnings();
            let Preview { wanted, nodes, generation, .. } = preview;
            let writes = nodes.into_keys().map(|node| (node, 0)).collect();
            let wanted = Wanted { generation, ..wanted };
            return Ok(Outcome {
                wanted,
                writes,
                says_otherwise: false,
                onset: None,
                caught_up: BTreeSet::new(),
                superseded: false,
                ended: Vec::new(),
                warnings,
            });
        }
        rehearsal.commit(interrupt).await
    }

    /// Which document each node has, and who does not say so.
    async fn stamps(&self) -> (BTreeMap<NodeName, Stamp>, BTreeMap<NodeName, CallError>) {
        part(self.insist(ASKED, |_: &NodeName| GetStamp {}).await)
    }

    /// The same for a change on some nodes. The others are asked as well, as one of them may have a newer document. The change
    /// does not wait long for them.
    async fn stamps_within(&self, scope: &Scope) -> (BTreeMap<NodeName, Stamp>, BTreeMap<NodeName, CallError>) {
        let Some(only) = &scope.only else { return self.stamps().await };
        let (meant, others) = (self.of(|node| only.contains(node)), self.of(|node| !only.contains(node)));
        let ask = |_: &NodeName| GetStamp {};
        let briefly = Patience::from(CALL_TIMEOUT).at_most(OTHERS_TIMEOUT);
        let (answers, of_others) = tokio::join!(meant.insist(ASKED, ask), others.call(briefly, ask));
        part(answers.into_iter().chain(of_others).collect())
    }

    /// The document of the highest generation, from the first node that has it: the others' are the same bytes.
    async fn newest(
        &self,
        stamps: &BTreeMap<NodeName, Stamp>,
        will_do: WillDo<'_>,
    ) -> Result<Document, TransactionError> {
        let Some(newest) = newest(stamps) else { return Ok(Document::default()) };
        let answers = self.of(|node| node == newest).insist(ASKED, |_: &NodeName| GetWanted {}).await;
        let (mut documents, failures) = part(answers);
        let document = documents.remove(newest).ok_or_else(|| unread(failures))?;
        if will_do(newest, &document, &stamps[newest]) {
            Ok(document)
        } else {
            Err(TransactionError::Changing(newest.clone()))
        }
    }
}

impl Rehearsal {
    /// Does it on every node at one agreed instant, and has all nodes keep it when all have it; on any failure, or if it
    /// is interrupted, takes it back on every node.
    pub async fn commit(self, interrupt: &CancellationToken) -> Result<Outcome, TransactionError> {
        let Self { fleet, ticket, slowest, clocks, confirm_within, is_unfinished: _, preview } = self;
        let agreed = Moment::from(SystemTime::now()).after((slowest + LEAD).min(LONGEST_LEAD));
        let commit = |node: &NodeName| {
            let clock_ahead_ns = clocks.get(node).copied().unwrap_or_default();
            Commit { ticket: ticket.clone(), at: Some(agreed), clock_ahead_ns, confirm_within }
        };
        // Agents that still wait for the instant forget the change, and those that do not take it back. One that is
        // told to commit after it was told to roll back knows nothing of it any more.
        let answers = unless(interrupt, fleet.insist(ASKED, &commit)).await;
        let Ok(answers) = answers else {
            let left = fleet.forget(&ticket).await;
            if left.is_empty() {
                return Err(TransactionError::Interrupted);
            }
            return Err(TransactionError::Nodes { phase: Phase::Commit, failures: BTreeMap::new(), left });
        };
        let next = next(&Stage::Commit, &heard(&answers, |_| false));
        let (committed, failures) = part(answers);
        if next != Next::Ask(Stage::Confirm) {
            let left = fleet.forget(&ticket).await;
            return Err(TransactionError::Nodes { phase: Phase::Commit, failures, left });
        }
        let superseded = fleet.confirm(&ticket, confirm_within).await?;
        Ok(Outcome {
            warnings: preview.warnings(),
            wanted: preview.wanted.committed(agreed),
            says_otherwise: !preview.said_already,
            onset: Some(onset(agreed, clocks, &committed)),
            ended: ended(&committed),
            writes: committed.into_iter().map(|(node, committed)| (node, committed.writes)).collect(),
            caught_up: preview.caught_up,
            superseded,
        })
    }

    /// Forgets it on every node.
    pub async fn abandon(self) -> Preview {
        // A node that does not hear this forgets by itself.
        drop(self.fleet.forget(&self.ticket).await);
        self.preview
    }
}

impl Fleet {
    /// Has every node keep what all of them have. Not to be interrupted: some may have been told already. Answers whether
    /// another controller has changed something on top of it since.
    async fn confirm(&self, ticket: &Ticket, within: Duration) -> Result<bool, TransactionError> {
        let confirm = |_: &NodeName| Confirm { ticket: ticket.clone(), by_all: false };
        // So that none can have gone back by then, however long the slowest took to commit.
        let effort = Effort { patience: within / 6, lasts: within / 6, ..ASKED };
        let answers = self.insist(effort, &confirm).await;
        let Next::Ask(Stage::Rollback { told }) = next(&Stage::Confirm, &heard(&answers, |_| false)) else {
            drop(self.insist(FINISH, |_: &NodeName| Confirm { ticket: ticket.clone(), by_all: true }).await);
            return Ok(false);
        };
        let (_, failures) = part(answers);
        match self.retract(ticket, told, within).await {
            None => Ok(true),
            Some(left) => Err(TransactionError::Nodes { phase: Phase::Confirm, failures, left }),
        }
    }
}

/// Waits for `work`, unless the command is interrupted before.
async fn unless<T>(interrupt: &CancellationToken, work: impl Future<Output = T>) -> Result<T, TransactionError> {
    tokio::select! {
        biased;
        () = interrupt.cancelled() => Err(TransactionError::Interrupted),
        done = work => Ok(done),
    }
}

fn onset(agreed: Moment, clocks: BTreeMap<NodeName, i64>, committed: &BTreeMap<NodeName, Committed>) -> FleetOnset {
    let nodes = committed.iter().filter_map(|(node, committed)| Some((node.clone(), committed.onset?)));
    let told_late = committed.iter().filter_map(|(node, committed)| Some((node.clone(), committed.told_late?)));
    FleetOnset { agreed, nodes: nodes.collect(), told_late: told_late.collect(), clocks }
}

fn ended(committed: &BTreeMap<NodeName, Committed>) -> Vec<PartitionEnded> {
    let mut all: BTreeMap<&str, PartitionEnded> = BTreeMap::new();
    for ended in committed.values().flat_map(|committed| &committed.ended) {
        let of_none = || PartitionEnded { cut: 0, ..ended.clone() };
        all.entry(&ended.name).or_insert_with(of_none).cut += ended.cut;
    }
    all.into_values().collect()
}

fn agree(stamps: &BTreeMap<NodeName, Stamp>) -> bool {
    let mut all = stamps.values();
    let first = all.next();
    first.is_none_or(|first| all.all(|stamp| stamp.agrees_with(first)))
}

pub(super) fn unread(failures: BTreeMap<NodeName, CallError>) -> TransactionError {
    TransactionError::Nodes { phase: Phase::Read, failures, left: BTreeMap::new() }
}

/// A name that no other transaction has, and that nobody can guess: 128 random bits.
fn draw_ticket() -> Result<Ticket, TransactionError> {
    let mut bits = [0; 16];
    let drawn = rustix::rand::getrandom(&mut bits, rustix::rand::GetRandomFlags::empty());
    drawn.map_err(|error| TransactionError::NoTicket(error.into()))?;
    Ok(Ticket(format!("{:032x}", u128::from_ne_bytes(bits))))
}
