//! Tests of a controller with three agents that listen on Unix sockets.

use std::{
    collections::{BTreeMap, BTreeSet},
    thread,
    time::Instant,
};

use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
};
use tokio_util::sync::CancellationToken;

use super::{restart::SharedKernel, *};
use crate::{
    agent::{Limits, serve},
    fleet::{Access, Answers, CallError, Edit, Fleet, Phase, Scope, Transaction, TransactionError, split},
    plan::{EditError, Stamp, Timing},
    wire::{GetStamp, GetStatus},
};

/// The time limit of one call.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// Three nodes and their agents.
pub(super) struct Site {
    pub(super) fleet: Fleet,
    kernels: BTreeMap<NodeName, SharedKernel>,
    agents: BTreeMap<NodeName, Agent>,
    pub(super) folder: TempDir,
}

/// An agent with its own runtime, so that all its tasks end when it is killed.
struct Agent {
    killed: CancellationToken,
    thread: Option<thread::JoinHandle<()>>,
}

impl Agent {
    fn start(config: Config, kernel: SharedKernel) -> Self {
        let killed = CancellationToken::new();
        let until = killed.clone();
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let sandbox = kernel.fake(|fake| fake.clone());
            let node = Node::with_sandbox(config.clone(), kernel, sandbox, "boot", Now::read()).unwrap();
            runtime.block_on(async {
                tokio::select! {
                    () = until.cancelled() => {}
                    served = Box::pin(serve(Limits::default(), node, &config, std::future::pending())) => served.unwrap(),
                }
            });
        });
        Self { killed, thread: Some(thread) }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.killed.cancel();
        // A second panic would hide the first.
        drop(self.thread.take().map(thread::JoinHandle::join));
    }
}

fn name(number: u8) -> NodeName {
    format!("n{number}").parse().unwrap()
}

impl Site {
    pub(super) async fn up() -> Self {
        let folder = TempDir::new().unwrap();
        let mut inventory = inventory();
        let mut kernels = BTreeMap::new();
        for (node, place) in &mut inventory.nodes {
            place.agent = AgentAddress::Unix(folder.path().join(node.as_str()));
            let mut fake = FakeKernel::new("db0".parse().unwrap());
            fake.interface.addresses.clone_from(&place.addresses);
            kernels.insert(node.clone(), SharedKernel::of(fake));
        }
        let fleet = Fleet::new(inventory, Access::default());
        let mut site = Self { fleet, kernels, agents: BTreeMap::new(), folder };
        for number in 1..=3 {
            site.start(number).await;
        }
        site
    }

    /// Starts an agent with the journal and the kernel that an earlier agent may have left.
    async fn start(&mut self, number: u8) {
        let node = name(number);
        let path = self.folder.path();
        let journal = Some(path.join(format!("{node}.json")));
        let config = Config { node: node.clone(), socket: Some(path.join(node.as_str())), journal, ..config(None) };
        self.agents.insert(node.clone(), Agent::start(config, self.kernels[&node].clone()));
        while self.fleet.call_one(CALL_TIMEOUT, &node, GetStatus {}).await.is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn kill(&mut self, number: u8) {
        self.agents.remove(&name(number)).expect("the agent runs");
    }

    async fn stamps(&self) -> Answers<Stamp> {
        self.fleet.call(CALL_TIMEOUT, |_| GetStamp {}).await
    }

    /// The generation of each node. Nodes of the same generation must have the same document.
    async fn generations(&self) -> Vec<u64> {
        let (stamps, silent) = split(self.stamps().await);
        assert!(silent.is_empty(), "{silent:?}");
        for (one, other) in stamps.values().zip(stamps.values().skip(1)) {
            assert!(one == other || one.generation != other.generation, "{stamps:?}");
        }
        stamps.values().map(|stamp| stamp.generation).collect()
    }

    /// True for each node whose interface has objects of netemctl.
    fn taken(&self) -> Vec<bool> {
        self.kernels.values().map(|kernel| kernel.fake(|fake| fake.tree.taken)).collect()
    }

    /// Waits until the nodes have these generations.
    async fn wait_for(&self, generations: &[u64], within: Duration) {
        let deadline = Instant::now() + within;
        while self.generations().await != generations {
            assert!(Instant::now() < deadline, "{:?} and not {generations:?}", self.generations().await);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn prepare(&self) -> Transaction {
        self.fleet.prepare(&Edit::default(), &CancellationToken::new(), self.edit()).await.unwrap()
    }

    async fn edit_within(&self, scope: &Scope) -> Result<crate::fleet::Outcome, TransactionError> {
        let terms = Edit { scope: scope.clone(), ..Edit::default() };
        self.fleet.edit(&terms, &CancellationToken::new(), self.edit()).await
    }

    /// The fleet with a last node that never replies, like an agent that was stopped by SIGSTOP, and its listener.
    pub(super) fn with_a_silent_node(&self) -> (Fleet, std::os::unix::net::UnixListener) {
        let mut inventory = self.fleet.inventory().clone();
        let silent = self.folder.path().join("silent");
        let listener = std::os::unix::net::UnixListener::bind(&silent).unwrap();
        inventory.nodes.values_mut().last().unwrap().agent = AgentAddress::Unix(silent);
        (Fleet::new(inventory, Access::default()), listener)
    }

    fn trees(&self) -> Vec<Tree> {
        self.kernels.values().map(|kernel| kernel.fake(|fake| fake.tree.clone())).collect()
    }

    /// An edit that adds a partition around n2 to the document in force.
    fn edit(&self) -> impl FnOnce(&Wanted) -> Result<Wanted, EditError> + use<> {
        let inventory = self.fleet.inventory().clone();
        move |wanted| Ok(Wanted { inventory: inventory.into(), ..parted(wanted, "n2", None) })
    }
}

#[tokio::test]
async fn all_nodes_write_at_the_commit_time_and_not_before() {
    let site = Site::up().await;
    let outcome = site.fleet.edit(&Edit::default(), &CancellationToken::new(), site.edit()).await.unwrap();
    let onset = outcome.onset.unwrap();
    assert_eq!(onset.nodes.len(), 3);
    assert!(onset.nodes.values().all(|node| node.first >= onset.agreed && node.last >= node.first), "{onset:?}");
    assert!(onset.spread().unwrap() < Duration::from_secs(1), "{onset:?}");
    assert_eq!(onset.told_late, BTreeMap::new());
}

#[tokio::test]
async fn a_timed_partition_begins_at_the_commit_time_on_all_nodes() {
    let site = Site::up().await;
    let inventory = site.fleet.inventory().clone();
    let timing = Timing { begins: Now::read().wall, lasts: Some(60 * SECOND), flap: None };
    let edit = |wanted: &Wanted| Ok(Wanted { inventory: inventory.into(), ..parted(wanted, "n2", Some(timing)) });
    let outcome = site.fleet.edit(&Edit::default(), &CancellationToken::new(), edit).await.unwrap();
    let begins = outcome.wanted.partitions[0].timing.unwrap().begins;
    assert_eq!(begins, outcome.onset.unwrap().agreed);
    assert_eq!(site.fleet.document().await.unwrap().in_force().partitions[0].timing.unwrap().begins, begins);
}

/// The document in force has the real start of the partition, so it differs from the document of the first edit.
#[tokio::test]
async fn the_document_in_force_can_be_planned_and_applied_again_during_a_timed_partition() {
    let site = Site::up().await;
    let never = CancellationToken::new();
    let inventory = site.fleet.inventory().clone();
    let timing = Timing { begins: Now::read().wall, lasts: Some(60 * SECOND), flap: None };
    let edit = |wanted: &Wanted| Ok(Wanted { inventory: inventory.into(), ..parted(wanted, "n2", Some(timing)) });
    drop(site.fleet.edit(&Edit::default(), &never, edit).await.unwrap());
    let again = |wanted: &Wanted| Ok(wanted.clone());
    assert!(site.fleet.dry_run(&Edit::default(), &never, again).await.unwrap().is_empty());
    let outcome = site.fleet.edit(&Edit::default(), &never, again).await.unwrap();
    assert!(outcome.onset.is_none() && outcome.writes.values().all(|writes| *writes == 0), "{outcome:?}");
    assert_eq!(site.generations().await, [1, 1, 1]);
}

#[tokio::test]
async fn nodes_that_wait_for_the_commit_time_answer_and_can_cancel() {
    let site = Site::up().await;
    let transaction = site.fleet.prepare(&Edit::default(), &CancellationToken::new(), site.edit()).await.unwrap();
    let ticket = transaction.ticket.clone();
    let trees = site.trees();
    let at = Now::read().wall.after(3 * SECOND);
    let asked = Instant::now();
    let commits = site.fleet.call(CALL_TIMEOUT, |_| Commit {
        ticket: ticket.clone(),
        at: Some(at),
        clock_ahead_ns: 0,
        confirm_within: CONFIRM_WITHIN,
    });
    let others = async {
        // By then all nodes have received the request.
        tokio::time::sleep(SECOND).await;
        let statuses = split(site.fleet.call(CALL_TIMEOUT, |_| GetStatus {}).await);
        assert_eq!((statuses.0.len(), statuses.1.len()), (3, 0));
        assert!(statuses.0.values().all(|status| status.partitions.is_empty()));
        let rolled_back = split(site.fleet.call(CALL_TIMEOUT, |_| Rollback { ticket: ticket.clone() }).await);
        assert_eq!((rolled_back.0.len(), rolled_back.1.len()), (3, 0));
        assert!(asked.elapsed() < 3 * SECOND, "no reply waited for the commit time");
    };
    let (commits, ()) = tokio::join!(commits, others);
    let (committed, failures) = split(commits);
    assert_eq!((committed.len(), failures.len()), (0, 3), "{failures:?}");
    assert_eq!(site.trees(), trees);
    drop(site.fleet.edit(&Edit::default(), &CancellationToken::new(), site.edit()).await.unwrap());
}

/// A plan is no transaction: a prepared change does not stop a plan, and a plan does not block a change.
#[tokio::test]
async fn a_plan_neither_waits_for_a_change_nor_keeps_one_out() {
    let site = Site::up().await;
    let never = CancellationToken::new();
    let transaction = site.prepare().await;
    let plan = site.fleet.dry_run(&Edit::replacing(), &never, site.edit()).await.unwrap();
    assert_eq!((plan.nodes.len(), plan.is_empty()), (3, false));
    let (fleet, ticket) = (&site.fleet, transaction.ticket.clone());
    drop(transaction.commit(&never).await.unwrap());
    let confirmed = fleet.call(CALL_TIMEOUT, |_| Confirm { ticket: ticket.clone(), by_all: false }).await;
    assert!(split(confirmed).1.is_empty(), "the plan did not affect the transaction");

    let ticket = fleet
        .prepare(&Edit::replacing(), &never, |wanted| Ok(Wanted { partitions: Vec::new(), ..wanted.clone() }))
        .await;
    let ticket = ticket.unwrap().ticket;
    let commit =
        |_: &NodeName| Commit { ticket: ticket.clone(), at: None, clock_ahead_ns: 0, confirm_within: CONFIRM_WITHIN };
    assert!(split(fleet.call(CALL_TIMEOUT, commit).await).1.is_empty());
    let refused = fleet.dry_run(&Edit::replacing(), &never, site.edit()).await.unwrap_err();
    assert!(refused.may_pass(), "a plan on an unconfirmed document is refused: {refused}");
    assert!(split(fleet.call(CALL_TIMEOUT, |_| Rollback { ticket: ticket.clone() }).await).1.is_empty());

    drop(fleet.dry_run(&Edit::replacing(), &never, site.edit()).await.unwrap());
    drop(site.edit_within(&Scope::default()).await.unwrap());
}

#[tokio::test]
async fn an_interruption_before_the_commit_time_changes_no_node() {
    let site = Site::up().await;
    let interrupt = CancellationToken::new();
    let transaction = site.fleet.prepare(&Edit::default(), &CancellationToken::new(), site.edit()).await.unwrap();
    let interrupts = async {
        tokio::time::sleep(Duration::from_millis(10)).await;
        interrupt.cancel();
    };
    let (outcome, ()) = tokio::join!(transaction.commit(&interrupt), interrupts);
    assert!(matches!(outcome, Err(TransactionError::Interrupted)), "{outcome:?}");
    tokio::time::sleep(SECOND / 2).await;
    assert_eq!(site.trees(), vec![Tree::default(); 3]);
}

/// The controller has committed on 0, 1, 2 or 3 nodes, and then sends no further request.
#[tokio::test]
async fn a_controller_that_dies_before_confirm_leaves_every_node_as_before() {
    let site = Site::up().await;
    let within = SECOND;
    for committed in 0..=3_u8 {
        let ticket = site.prepare().await.ticket;
        for number in 1..=committed {
            let commit = Commit { ticket: ticket.clone(), at: None, clock_ahead_ns: 0, confirm_within: within };
            site.fleet.call_one(CALL_TIMEOUT, &name(number), commit).await.unwrap();
        }
        let generations: Vec<u64> = (1..=3).map(|number| u64::from(number <= committed)).collect();
        assert_eq!(site.generations().await, generations, "{committed} nodes have committed");
        site.wait_for(&[0, 0, 0], within + 5 * SECOND).await;
        assert_eq!(site.taken(), [false; 3]);
        // Nodes that have only prepared would cancel after 15 s.
        split(site.fleet.call(CALL_TIMEOUT, |_| Rollback { ticket: ticket.clone() }).await);
    }
    drop(site.edit_within(&Scope::default()).await.unwrap());
    assert_eq!(site.generations().await, [1, 1, 1]);
}

#[tokio::test]
async fn nodes_differ_after_a_controller_has_died_during_confirm_until_the_next_apply() {
    let site = Site::up().await;
    let ticket = site.prepare().await.ticket;
    let commit = |_: &NodeName| Commit { ticket: ticket.clone(), at: None, clock_ahead_ns: 0, confirm_within: SECOND };
    assert!(split(site.fleet.call(CALL_TIMEOUT, commit).await).1.is_empty());
    site.fleet.call_one(CALL_TIMEOUT, &name(1), Confirm { ticket: ticket.clone(), by_all: false }).await.unwrap();
    site.wait_for(&[1, 0, 0], 6 * SECOND).await;
    let refused = site.edit_within(&Scope::default()).await.unwrap_err();
    assert!(matches!(refused, TransactionError::Disagreement(_)), "{refused}");
    drop(site.fleet.edit(&Edit::replacing(), &CancellationToken::new(), site.edit()).await.unwrap());
    assert_eq!(site.generations().await, [2, 2, 2]);
}

#[tokio::test]
async fn an_agent_that_dies_after_prepare_lets_no_node_change() {
    let mut site = Site::up().await;
    let transaction = site.prepare().await;
    site.kill(2);
    let asked = Instant::now();
    let failed = transaction.commit(&CancellationToken::new()).await.unwrap_err();
    assert!(asked.elapsed() < 5 * SECOND, "the controller does not wait for a dead agent");
    let TransactionError::Nodes { phase: Phase::Prepare, failures, left } = failed else { panic!("{failed:?}") };
    assert_eq!(failures.keys().collect::<Vec<_>>(), [&name(2)]);
    assert!(matches!(failures[&name(2)], CallError::Unreachable { .. }), "{failures:?}");
    assert_eq!((left.len(), site.taken()), (0, vec![false; 3]));
    site.start(2).await;
    assert_eq!(site.generations().await, [0, 0, 0]);
    drop(site.edit_within(&Scope::default()).await.unwrap());
}

#[tokio::test]
async fn an_agent_that_dies_after_its_commit_rolls_back_at_its_start_as_the_others_did() {
    let mut site = Site::up().await;
    let ticket = site.prepare().await.ticket;
    let commit =
        |_: &NodeName| Commit { ticket: ticket.clone(), at: None, clock_ahead_ns: 0, confirm_within: CONFIRM_WITHIN };
    assert!(split(site.fleet.call(CALL_TIMEOUT, commit).await).1.is_empty());
    site.kill(2);
    assert_eq!(site.taken(), [true; 3]);
    split(site.fleet.call(CALL_TIMEOUT, |_| Rollback { ticket: ticket.clone() }).await);
    assert_eq!(site.taken(), [false, true, false]);
    site.start(2).await;
    assert_eq!((site.generations().await, site.taken()), (vec![0, 0, 0], vec![false; 3]));
}

/// Regression test: `--allow-missing` asked a silent node twice, and waited for it a second each time.
#[tokio::test]
async fn a_node_that_was_silent_before_is_left_out_without_a_question() {
    let site = Site::up().await;
    let scope = Scope { allow_missing: true, silent: [name(3)].into(), ..Scope::default() };
    let outcome = site.edit_within(&scope).await.unwrap();
    assert_eq!(outcome.wanted.missing.nodes(), [name(3)].into());
    assert_eq!(site.generations().await, [1, 1, 0]);
}

#[tokio::test]
async fn a_node_that_was_left_out_gets_the_document_of_the_next_change() {
    let mut site = Site::up().await;
    site.kill(3);
    let refused = site.edit_within(&Scope::default()).await.unwrap_err();
    assert!(matches!(refused, TransactionError::Nodes { phase: Phase::Read, .. }) && refused.may_pass(), "{refused}");
    let without = Scope { allow_missing: true, ..Scope::default() };
    let outcome = site.edit_within(&without).await.unwrap();
    assert_eq!(outcome.wanted.missing.nodes(), [name(3)].into());
    assert_eq!(outcome.writes.keys().collect::<Vec<_>>(), [&name(1), &name(2)]);
    site.start(3).await;
    assert_eq!((site.generations().await, site.taken()), (vec![1, 1, 0], vec![true, true, false]));
    assert!(matches!(site.fleet.document().await, Err(TransactionError::Disagreement(_))));
    let (document, others) = site.fleet.document_with_holders().await.unwrap();
    assert_eq!((document.in_force().partitions.len(), others.inventory().nodes.len()), (1, 2));

    let outcome = site.edit_within(&Scope::default()).await.unwrap();
    assert_eq!((outcome.wanted.missing.is_empty(), outcome.caught_up), (true, [name(3)].into()));
    assert_eq!((site.generations().await, site.taken()), (vec![2, 2, 2], vec![true; 3]));
    assert_eq!(site.fleet.document().await.unwrap().in_force().partitions.len(), 2);
}

#[tokio::test]
async fn changes_of_one_node_after_the_other_build_on_the_document_of_this_node_alone() {
    let mut site = Site::up().await;
    let only = |number: u8| Scope { only: Some([name(number)].into()), ..Scope::default() };
    // A change of one node asks no other node.
    site.kill(3);
    let outcome = site.edit_within(&only(1)).await.unwrap();
    assert_eq!(outcome.wanted.missing.nodes(), [name(2), name(3)].into());
    site.start(3).await;
    assert_eq!((site.generations().await, site.taken()), (vec![1, 0, 0], vec![true, false, false]));
    drop(site.edit_within(&only(2)).await.unwrap());
    let outcome = site.edit_within(&only(2)).await.unwrap();
    assert_eq!((outcome.wanted.partitions.len(), outcome.caught_up.len()), (2, 0));
    // Regression test: n1 counted as behind because its generation is lower. The next change dropped its partition.
    assert_eq!((site.generations().await, site.taken()), (vec![1, 2, 0], vec![true, true, false]));
    let refused = site.edit_within(&Scope::default()).await.unwrap_err();
    assert!(matches!(refused, TransactionError::Disagreement(_)), "{refused}");
    drop(site.fleet.edit(&Edit::replacing(), &CancellationToken::new(), site.edit()).await.unwrap());
    assert_eq!((site.generations().await, site.taken()), (vec![3, 3, 3], vec![true; 3]));
}

#[tokio::test]
async fn a_node_that_was_left_out_and_got_another_change_is_a_conflict() {
    let mut site = Site::up().await;
    let only = |numbers: &[u8]| Scope {
        only: Some(numbers.iter().map(|number| name(*number)).collect::<BTreeSet<_>>()),
        allow_missing: true,
        ..Scope::default()
    };
    drop(site.edit_within(&only(&[1, 2])).await.unwrap());
    site.kill(1);
    site.kill(2);
    drop(site.edit_within(&Scope { allow_missing: true, ..Scope::default() }).await.unwrap());
    site.start(1).await;
    site.start(2).await;
    let refused = site.edit_within(&Scope::default()).await.unwrap_err();
    assert!(matches!(refused, TransactionError::Disagreement(_)), "{refused}");
    drop(site.fleet.edit(&Edit::replacing(), &CancellationToken::new(), site.edit()).await.unwrap());
    assert_eq!(site.generations().await, [2, 2, 2]);
}

/// Each edit changes all nodes or none, so the generation is the number of successful edits.
#[tokio::test]
async fn competing_controllers_change_all_nodes_or_none() {
    let site = Site::up().await;
    let begin = Instant::now();
    let controller = async || {
        let (mut made, mut refused) = (0, 0);
        while begin.elapsed() < 4 * SECOND {
            match site.edit_within(&Scope::default()).await {
                Ok(_) => made += 1,
                Err(error) => {
                    assert!(error.may_pass(), "{error}: {error:?}");
                    refused += 1;
                }
            }
        }
        (made, refused)
    };
    let others = async || {
        let mut seen = 0;
        while begin.elapsed() < 4 * SECOND {
            let status = site.fleet.call(CALL_TIMEOUT, |_| GetStatus {}).await;
            let (status, silent) = split(status);
            assert!(silent.is_empty());
            // The status shows an unconfirmed change.
            if status.values().all(|status| status.unconfirmed.is_none()) {
                let oldest = status.values().map(|status| status.stamp.generation).min();
                seen = seen.max(oldest.unwrap());
            }
        }
        seen
    };
    let (one, two, three, seen) = tokio::join!(controller(), controller(), controller(), others());
    let made: u64 = one.0 + two.0 + three.0;
    assert!(made > 0 && one.1 + two.1 + three.1 > 0, "{one:?} {two:?} {three:?}");
    assert_eq!(site.generations().await, [made; 3]);
    assert!(seen <= made);
    assert_eq!(site.fleet.document().await.unwrap().in_force().partitions.len() as u64, made);
}

#[tokio::test]
async fn an_interruption_while_a_node_is_silent_cancels_on_the_other_nodes_at_once() {
    let site = Site::up().await;
    let (fleet, _listener) = site.with_a_silent_node();
    let interrupt = CancellationToken::new();
    let began = Instant::now();
    let interrupts = async {
        tokio::time::sleep(SECOND).await;
        interrupt.cancel();
    };
    let terms = Edit::default();
    let (outcome, ()) = tokio::join!(fleet.edit(&terms, &interrupt, site.edit()), interrupts);
    assert!(matches!(outcome, Err(TransactionError::Interrupted)), "{outcome:?}");
    assert!(began.elapsed() < 8 * SECOND, "the interruption does not wait for the timeout of the call");
    // A change that was still prepared would be a conflict.
    drop(site.fleet.edit(&Edit::default(), &CancellationToken::new(), site.edit()).await.unwrap());
}

/// A proxy of an agent's socket. It loses the first reply to a confirm and all later calls until `is_back`.
async fn lose_after_confirm(at: std::path::PathBuf, agent: std::path::PathBuf, is_back: CancellationToken) {
    let listener = UnixListener::bind(at).unwrap();
    let is_lost = CancellationToken::new();
    loop {
        let (mut client, _) = listener.accept().await.unwrap();
        let (agent, is_back, is_lost) = (agent.clone(), is_back.clone(), is_lost.clone());
        tokio::spawn(async move {
            let mut request = vec![0; 1 << 20];
            let size = client.read(&mut request).await.unwrap();
            if is_lost.is_cancelled() && !is_back.is_cancelled() {
                return is_back.cancelled().await;
            }
            let mut server = UnixStream::connect(agent).await.unwrap();
            server.write_all(&request[..size]).await.unwrap();
            // One read returns the whole reply.
            let mut reply = vec![0; 1 << 20];
            let size = server.read(&mut reply).await.unwrap();
            if request.starts_with(b"POST /v1/confirm") && !is_lost.is_cancelled() {
                is_lost.cancel();
                is_back.cancelled().await;
            } else {
                drop(client.write_all(&reply[..size]).await);
            }
        });
    }
}

/// The last confirmation of a controller is lost, and another controller makes a change on top.
#[tokio::test]
async fn a_covered_change_that_all_nodes_keep_is_not_reported_as_rolled_back() {
    let site = Site::up().await;
    let mut inventory = site.fleet.inventory().clone();
    let proxy = site.folder.path().join("proxy");
    let is_back = CancellationToken::new();
    let passes = lose_after_confirm(proxy.clone(), site.folder.path().join("n3"), is_back.clone());
    let passes = tokio::spawn(passes);
    inventory.nodes.values_mut().last().unwrap().agent = AgentAddress::Unix(proxy);
    let fleet = Fleet::new(inventory, Access::default());
    let first = async {
        let mut transaction = fleet.prepare(&Edit::default(), &CancellationToken::new(), site.edit()).await.unwrap();
        transaction.confirm_within = 3 * SECOND;
        transaction.commit(&CancellationToken::new()).await
    };
    let second = async {
        site.wait_for(&[1; 3], 10 * SECOND).await;
        let outcome = loop {
            tokio::time::sleep(SECOND / 20).await;
            match site.edit_within(&Scope::default()).await {
                Ok(outcome) => break outcome,
                Err(error) => assert!(error.may_pass(), "{error}"),
            }
        };
        // By then the first controller has given up its confirmation.
        tokio::time::sleep(SECOND).await;
        is_back.cancel();
        outcome
    };
    let (first, second) = tokio::join!(first, second);
    assert!(first.unwrap().superseded);
    assert!(!second.superseded);
    assert_eq!(site.generations().await, [2; 3]);
    passes.abort();
}

/// Makes a change that all nodes confirm and that the controller does not finish.
async fn confirmed_on_all(site: &Site) -> Ticket {
    let ticket = site.prepare().await.ticket;
    let commit =
        |_: &NodeName| Commit { ticket: ticket.clone(), at: None, clock_ahead_ns: 0, confirm_within: CONFIRM_WITHIN };
    assert!(split(site.fleet.call(CALL_TIMEOUT, commit).await).1.is_empty());
    assert!(
        split(site.fleet.call(CALL_TIMEOUT, |_| Confirm { ticket: ticket.clone(), by_all: false }).await).1.is_empty()
    );
    ticket
}

#[tokio::test]
async fn a_change_prepared_on_a_document_that_was_rolled_back_is_not_committed() {
    let site = Site::up().await;
    let ticket = confirmed_on_all(&site).await;
    let prepared = site.prepare().await;
    let rollback = |_: &NodeName| Rollback { ticket: ticket.clone() };
    assert!(split(site.fleet.call(CALL_TIMEOUT, rollback).await).1.is_empty());
    let failed = prepared.commit(&CancellationToken::new()).await.unwrap_err();
    assert!(failed.may_pass(), "{failed}: {failed:?}");
    assert_eq!((site.generations().await, site.taken()), (vec![0; 3], vec![false; 3]));
    drop(site.edit_within(&Scope::default()).await.unwrap());
}

#[tokio::test]
async fn an_unconfirmed_document_is_not_edited() {
    let site = Site::up().await;
    let ticket = site.prepare().await.ticket;
    let commit = Commit { ticket: ticket.clone(), at: None, clock_ahead_ns: 0, confirm_within: CONFIRM_WITHIN };
    site.fleet.call_one(CALL_TIMEOUT, &name(1), commit).await.unwrap();
    let only = Scope { only: Some([name(1)].into()), ..Scope::default() };
    let refused = site
        .fleet
        .edit(&Edit { scope: only.clone(), ..Edit::replacing() }, &CancellationToken::new(), site.edit())
        .await
        .unwrap_err();
    assert!(matches!(refused, TransactionError::Changing(_)) && refused.may_pass(), "{refused}");
    split(site.fleet.call(CALL_TIMEOUT, |_| Rollback { ticket: ticket.clone() }).await);
    drop(site.edit_within(&only).await.unwrap());
}

#[tokio::test]
async fn an_unfinished_document_is_not_edited_on_some_nodes_and_not_reported_as_in_force() {
    let site = Site::up().await;
    let ticket = confirmed_on_all(&site).await;
    let only = |number| Scope { only: Some([name(number)].into()), ..Scope::default() };
    let refused = site.edit_within(&only(1)).await.unwrap_err();
    assert!(matches!(refused, TransactionError::Nodes { .. }) && refused.may_pass(), "{refused}");
    let repeats = |wanted: &Wanted| Ok(wanted.clone());
    let repeated = site.fleet.edit(&Edit::replacing(), &CancellationToken::new(), repeats).await.unwrap();
    assert!(!repeated.document_changed && repeated.writes.values().all(|writes| *writes == 0), "{repeated:?}");
    let rolled_back = split(site.fleet.call(CALL_TIMEOUT, |_| Rollback { ticket: ticket.clone() }).await).0;
    assert!(rolled_back.len() == 3 && rolled_back.values().all(|rolled_back| rolled_back.kept), "{rolled_back:?}");
    assert_eq!(site.generations().await, [1; 3]);
    drop(site.edit_within(&only(2)).await.unwrap());
    assert_eq!(site.generations().await, [1, 2, 1]);
}
