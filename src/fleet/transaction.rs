//! Changes all nodes or none: prepares on all, commits on all, confirms on all. After a failure, rolls back on all.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::{
    Answers, CALL_TIMEOUT, CallError, Fleet, FleetOnset, Outcome, Phase, Preview, Scope, Timeouts, TransactionError,
    body::Body,
    clocks::{self, Exchange},
    decision::{Next, Stage, heard, next},
    fan_out::{RetryPolicy, Timed},
    outcome::ended,
    snapshot::{Snapshot, agree, is_base, is_of, newest},
    split,
};
use crate::{
    plan::{Delta, EditError, Moment, Stamp, Wanted},
    topology::NodeName,
    wire::{
        CONFIRM_WITHIN, Call, Commit, Confirm, Document, ErrorCode, GetReady, GetStamp, GetWanted, Plan, Prepare,
        Prepared, Ticket,
    },
};

/// All nodes switch at one agreed instant: this time after the expected arrival of the last commit. The commits are
/// expected to arrive within the time of the faster of two earlier requests to all nodes: *stamp*, which has no work but
/// may open connections, and *ready*, which has work.
const LEAD: Duration = Duration::from_millis(50);

/// The longest time from sending the commits to the agreed instant. Agents refuse to wait for more than five seconds.
const LONGEST_LEAD: Duration = Duration::from_secs(2);

/// Retries of all calls up to the commit. A call is repeated after a broken connection, even if the node may have
/// carried out the request. A call is not repeated if nothing listens at the address.
const RETRIES: RetryPolicy = RetryPolicy {
    timeouts: Timeouts::of(CALL_TIMEOUT),
    total: Duration::from_secs(2),
    awaits_agents: false,
    conflict: Duration::ZERO,
    allow_missing: false,
};

/// The time limit of optional calls. Without these calls, nodes take the same step by themselves, but later.
const NOTICE: Duration = Duration::from_secs(2);

/// Retries of the last call, which tells the nodes that all nodes have confirmed.
const FINISH: RetryPolicy = RetryPolicy { timeouts: Timeouts::of(NOTICE), total: NOTICE, ..RETRIES };

/// The options of an edit of the document in force.
#[derive(Clone, Debug, Default)]
pub struct Edit {
    /// The nodes that the edit includes.
    pub scope: Scope,
    /// True if the edit replaces the whole document. Then the nodes need not have the same document before the edit.
    /// Such an edit repairs nodes that disagree, for example after an agent's restart.
    pub replaces: bool,
    /// The seed of the edit's random draws; `None`: the edit draws nothing.
    pub seed: Option<u64>,
}

impl Edit {
    /// An edit that replaces everything, on all nodes.
    pub fn replacing() -> Self {
        Self { replaces: true, ..Self::default() }
    }
}

/// A transaction that is prepared on every node. Ends by [`Transaction::commit`] or [`Transaction::cancel`].
#[must_use = "the nodes wait for a commit or a cancel"]
pub struct Transaction {
    /// The nodes that take part.
    fleet: Fleet,
    pub(crate) ticket: Ticket,
    /// The time until all nodes had answered the *stamp* request.
    asked: Duration,
    /// The nanoseconds by which a node's clock is ahead of this machine's clock. Has only nodes whose clock certainly
    /// differs.
    clocks: BTreeMap<NodeName, i64>,
    /// The time after which a node rolls back unless the controller confirms the change.
    pub(crate) confirm_within: Duration,
    /// The changes that the transaction would make.
    pub preview: Preview,
}

/// An edited document before the nodes have it.
pub(crate) struct Draft {
    /// The nodes that take part.
    fleet: Fleet,
    /// The time until all these nodes had answered the *stamp* request.
    asked: Duration,
    /// The stamp of each node's document.
    stamps: BTreeMap<NodeName, Stamp>,
    /// The edit of the newest document, and the stamp of this document; `None`: that document is clear.
    pub(crate) edit: Option<(Stamp, Delta)>,
    preview: Preview,
}

/// The new document in a request: whole, or as an edit.
pub(crate) struct NewDocument {
    pub(crate) wanted: Option<Wanted>,
    pub(crate) edit: Option<Delta>,
}

impl Draft {
    /// Sends the new document to the nodes: the edit to nodes that have the edited document, and the whole document to
    /// the other nodes and to nodes that ask for it. Nodes with the same stamp share one body.
    pub(crate) async fn send<C: Call<Reply = Prepared>>(
        &self,
        request: impl Fn(Stamp, NewDocument) -> C,
    ) -> Timed<Prepared> {
        let bodies = Mutex::new(BTreeMap::new());
        let body = |node: &NodeName, edit: Option<&(Stamp, Delta)>| {
            let stamp = &self.stamps[node];
            let edit = edit.filter(|(base, _)| base == stamp).map(|(_, edit)| edit);
            let mut bodies = bodies.lock().unwrap_or_else(PoisonError::into_inner);
            let make = || {
                let wanted = if edit.is_some() { None } else { Some(self.preview.wanted.clone()) };
                Body::of(&request(stamp.clone(), NewDocument { wanted, edit: edit.cloned() }))
            };
            bodies.entry((stamp.clone(), edit.is_some())).or_insert_with(make).clone()
        };
        let sent = self.fleet.send::<C>(RETRIES, |node| body(node, self.edit.as_ref())).await;
        let (mut answers, mut exchanges) = sent;
        let needs_document =
            |error: &CallError| matches!(error, CallError::Refused(error) if error.code == ErrorCode::NeedsDocument);
        let asking = self.fleet.of(|node| answers[node].as_ref().is_err_and(needs_document));
        let (again, timed) = asking.send::<C>(RETRIES, |node| body(node, None)).await;
        answers.extend(again);
        exchanges.extend(timed);
        (answers, exchanges)
    }
}

impl Fleet {
    /// The nodes' document. An error if a node does not answer, or if the nodes have different documents.
    pub async fn document(&self) -> Result<Document, TransactionError> {
        let (stamps, silent) = split(self.stamps(false).await.0);
        if !silent.is_empty() {
            return Err(TransactionError::unread(silent));
        }
        if !agree(&stamps) {
            return Err(TransactionError::Disagreement(stamps));
        }
        Ok(self.snapshot(stamps, is_of).await?.document)
    }

    /// The newest document, and the fleet of the nodes that answer and have this document. An error if a node differs
    /// although no earlier change left the node out.
    pub async fn document_with_holders(&self) -> Result<(Document, Self), TransactionError> {
        let (stamps, silent) = split(self.stamps(false).await.0);
        if stamps.is_empty() {
            return Err(TransactionError::unread(silent));
        }
        let snapshot = self.snapshot(stamps, is_of).await?;
        let behind = snapshot.behind()?;
        let others = self.of(|node| snapshot.stamps.contains_key(node) && !behind.contains(node));
        Ok((snapshot.document, others))
    }

    /// Computes the changes that an edit would make on each node. Takes no lease, so other controllers can make
    /// changes.
    pub async fn dry_run(
        &self,
        terms: &Edit,
        interrupt: &CancellationToken,
        edit: impl FnOnce(&Wanted) -> Result<Wanted, EditError>,
    ) -> Result<Preview, TransactionError> {
        let draft = interrupt.run_until_cancelled(self.draft(terms, edit)).await;
        let draft = draft.ok_or(TransactionError::Interrupted)??;
        let answers = interrupt
            .run_until_cancelled(draft.send(|base, NewDocument { wanted, edit }| Plan { base, wanted, edit }))
            .await;
        let (nodes, failures) = split(answers.ok_or(TransactionError::Interrupted)?.0);
        let preview = draft.preview;
        if failures.is_empty() {
            return Ok(Preview { nodes, ..preview });
        }
        Err(TransactionError::Nodes { phase: Phase::Prepare, failures, left: BTreeMap::new() })
    }

    /// Prepares an edit on every node. Cancels on a failure or an interrupt.
    pub async fn prepare(
        &self,
        terms: &Edit,
        interrupt: &CancellationToken,
        edit: impl FnOnce(&Wanted) -> Result<Wanted, EditError>,
    ) -> Result<Transaction, TransactionError> {
        let draft = interrupt.run_until_cancelled(self.draft(terms, edit)).await;
        let draft = draft.ok_or(TransactionError::Interrupted)??;
        let ticket = draw_ticket()?;
        let prepare = |base, NewDocument { wanted, edit }| Prepare { ticket: ticket.clone(), base, wanted, edit };
        let answers = interrupt.run_until_cancelled(draft.send(prepare)).await;
        let Draft { fleet, asked, preview, .. } = draft;
        let Some((answers, exchanges)) = answers else {
            // Nothing was written. Agents cancel a prepared change by themselves if no commit arrives.
            drop(timeout(NOTICE, fleet.cancel(&ticket)).await);
            return Err(TransactionError::Interrupted);
        };
        let clocks = clocks::ahead(&answers, &exchanges, |prepared| prepared.clock);
        let next = next(&Stage::Prepare, &heard(&answers, |_| false));
        let (nodes, failures) = split(answers);
        if next != Next::Ask(Stage::Ready) {
            drop(fleet.cancel(&ticket).await);
            return Err(TransactionError::Nodes { phase: Phase::Prepare, failures, left: BTreeMap::new() });
        }
        let preview = Preview { nodes, ..preview };
        Ok(Transaction { fleet, ticket, asked, clocks, confirm_within: CONFIRM_WITHIN, preview })
    }

    /// Makes an edit on every node, or on none. Rolls back on a failure, and on an interrupt before all nodes have
    /// committed.
    pub async fn edit(
        &self,
        terms: &Edit,
        interrupt: &CancellationToken,
        edit: impl FnOnce(&Wanted) -> Result<Wanted, EditError>,
    ) -> Result<Outcome, TransactionError> {
        let transaction = self.prepare(terms, interrupt, edit).await?;
        if !transaction.preview.is_empty() || transaction.preview.is_unfinished {
            return transaction.commit(interrupt).await;
        }
        let preview = transaction.cancel().await;
        Ok(Outcome {
            warnings: preview.warnings(),
            wanted: Wanted { generation: preview.generation, ..preview.wanted },
            writes: preview.nodes.into_keys().map(|node| (node, 0)).collect(),
            ..Outcome::default()
        })
    }

    /// The edited document, and the nodes that take part.
    pub(crate) async fn draft(
        &self,
        Edit { scope, replaces, .. }: &Edit,
        edit: impl FnOnce(&Wanted) -> Result<Wanted, EditError>,
    ) -> Result<Draft, TransactionError> {
        let (answers, asked) = self.of(|node| scope.includes(node)).stamps(scope.allow_missing).await;
        let (stamps, silent) = split(answers);
        if !silent.is_empty() && (!scope.allow_missing || stamps.is_empty()) {
            return Err(TransactionError::unread(silent));
        }
        let fleet = self.of(|node| stamps.contains_key(node));
        let snapshot = fleet.snapshot(stamps, is_base).await?;
        let takes_part = |node: &NodeName| fleet.inventory.nodes.contains_key(node);
        let missing = self.inventory.nodes.keys().filter(|node| !takes_part(node)).chain(&scope.left_out).cloned();
        let preview = snapshot.edited(takes_part, missing.collect(), *replaces, edit)?;
        let edit = Delta::between(&snapshot.document.wanted, &preview.wanted).map(|edit| (snapshot.stamp(), edit));
        Ok(Draft { fleet, asked, stamps: snapshot.stamps, edit, preview })
    }

    /// Reads the stamp (generation and digest) of each node's document. Also returns the time until the last of the
    /// answers. `allow_missing`: nodes may stay silent.
    async fn stamps(&self, allow_missing: bool) -> (Answers<Stamp>, Duration) {
        let began = Moment::from(SystemTime::now());
        let body = Body::of(&GetStamp {});
        let policy = RetryPolicy { allow_missing, ..RETRIES };
        let (answers, exchanges) = self.send::<GetStamp>(policy, |_| body.clone()).await;
        let took =
            |(node, exchange): (_, &Exchange)| answers[node].as_ref().ok().and_then(|_| exchange.received.since(began));
        let last = exchanges.iter().filter_map(took).max();
        (answers, last.unwrap_or_default())
    }

    /// Reads the newest document. The document has to satisfy `is_usable` for the stamp that its node returned before.
    async fn snapshot(
        &self,
        stamps: BTreeMap<NodeName, Stamp>,
        is_usable: impl Fn(&Document, &Stamp) -> bool,
    ) -> Result<Snapshot, TransactionError> {
        let Some(newest) = newest(&stamps) else { return Ok(Snapshot::default()) };
        let answers = self.of(|node| node == newest).retry(RETRIES, |_: &NodeName| GetWanted {}).await;
        let (mut documents, failures) = split(answers);
        let document = documents.remove(newest).ok_or_else(|| TransactionError::unread(failures))?;
        if is_usable(&document, &stamps[newest]) {
            Ok(Snapshot { stamps, document })
        } else {
            Err(TransactionError::Changing(newest.clone()))
        }
    }

    /// Tells every node to keep the change. Cannot be interrupted, because some nodes may have been told already.
    ///
    /// False if all nodes have confirmed. True if some have not, but all nodes keep the change, because another
    /// controller has committed a second change on top.
    async fn confirm(&self, ticket: &Ticket, within: Duration) -> Result<bool, TransactionError> {
        let confirm = |by_all: bool| move |_: &NodeName| Confirm { ticket: ticket.clone(), by_all };
        // The last attempt starts within a sixth of `within`, and takes at most another sixth. So no node rolls back by
        // itself during the attempts, even if the nodes committed two thirds of `within` ago.
        let policy = RetryPolicy { timeouts: (within / 6).into(), total: within / 6, ..RETRIES };
        let answers = self.retry(policy, confirm(false)).await;
        let Next::Ask(Stage::Rollback { told }) = next(&Stage::Confirm, &heard(&answers, |_| false)) else {
            drop(self.retry(FINISH, confirm(true)).await);
            return Ok(false);
        };
        match self.roll_back(ticket, told, within).await {
            None => Ok(true),
            Some(left) => Err(TransactionError::Nodes { phase: Phase::Confirm, failures: split(answers).1, left }),
        }
    }
}

impl Transaction {
    /// Commits on every node at one agreed instant, and confirms when all have committed. A failure rolls back on every
    /// node, and so does an interrupt before all nodes have committed.
    pub async fn commit(self, interrupt: &CancellationToken) -> Result<Outcome, TransactionError> {
        let began = Instant::now();
        let get_ready = |_: &NodeName| GetReady { ticket: self.ticket.clone() };
        self.ask((Stage::Ready, Phase::Prepare), get_ready, interrupt).await?;
        let reach = began.elapsed().min(self.asked);
        let agreed = Moment::from(SystemTime::now()).after((reach + LEAD).min(LONGEST_LEAD));
        let commit = |node: &NodeName| {
            let clock_ahead_ns = self.clocks.get(node).copied().unwrap_or_default();
            let (ticket, confirm_within) = (self.ticket.clone(), self.confirm_within);
            Commit { ticket, at: Some(agreed), clock_ahead_ns, confirm_within }
        };
        let committed = self.ask((Stage::Commit, Phase::Commit), commit, interrupt).await?;
        let Self { fleet, ticket, clocks, confirm_within, preview, .. } = self;
        let superseded = fleet.confirm(&ticket, confirm_within).await?;
        Ok(Outcome {
            warnings: preview.warnings(),
            wanted: preview.wanted.committed(agreed),
            document_changed: !preview.is_unchanged,
            onset: Some(FleetOnset::new(agreed, clocks, &committed)),
            ended: ended(&committed),
            writes: committed.into_iter().map(|(node, committed)| (node, committed.writes)).collect(),
            caught_up: preview.caught_up,
            superseded,
        })
    }

    /// Sends a request before *confirm* to all nodes. Rolls back on a failure, and on an interrupt.
    ///
    /// A rollback also cancels the change on agents that wait for the agreed instant. If a commit arrives after the
    /// rollback, the agent refuses it.
    async fn ask<C: Call>(
        &self,
        (stage, phase): (Stage<NodeName>, Phase),
        request: impl Fn(&NodeName) -> C,
        interrupt: &CancellationToken,
    ) -> Result<BTreeMap<NodeName, C::Reply>, TransactionError> {
        let answers = interrupt.run_until_cancelled(self.fleet.retry(RETRIES, request)).await;
        let is_interrupted = answers.is_none();
        let answers = answers.unwrap_or_default();
        if !is_interrupted && !matches!(next(&stage, &heard(&answers, |_| false)), Next::Ask(Stage::Rollback { .. })) {
            return Ok(split(answers).0);
        }
        let left = self.fleet.cancel(&self.ticket).await;
        // Before *commit*, the change is in force nowhere, and agents cancel it by themselves.
        let left = if phase == Phase::Prepare { BTreeMap::new() } else { left };
        if is_interrupted && left.is_empty() {
            return Err(TransactionError::Interrupted);
        }
        Err(TransactionError::Nodes { phase, failures: split(answers).1, left })
    }

    /// Cancels on every node. An agent that the call does not reach cancels by itself.
    pub async fn cancel(self) -> Preview {
        drop(self.fleet.cancel(&self.ticket).await);
        self.preview
    }
}

/// The identifier of a new transaction: 128 random bits, so the identifier is unique and cannot be guessed.
fn draw_ticket() -> Result<Ticket, TransactionError> {
    let mut bits = [0; 16];
    let drawn = rustix::rand::getrandom(&mut bits, rustix::rand::GetRandomFlags::empty());
    drawn.map_err(|error| TransactionError::NoTicket(error.into()))?;
    Ok(Ticket(format!("{:032x}", u128::from_ne_bytes(bits))))
}
