//! Agents behind their sockets, and a controller that changes them all at one instant.

use std::{collections::BTreeMap, time::Instant};

use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{restart::Outliving, *};
use crate::{
    agent::serve,
    fleet::{Access, Fleet, TransactionError, part},
    plan::Timing,
    wire::GetStatus,
};

const SOON: Duration = Duration::from_secs(10);

/// Three nodes and their agents.
struct Site {
    fleet: Fleet,
    kernels: Vec<Outliving>,
    agents: Vec<JoinHandle<()>>,
    _folder: TempDir,
}

impl Site {
    async fn up() -> Self {
        let folder = TempDir::new().unwrap();
        let mut inventory = inventory();
        let (mut kernels, mut agents) = (Vec::new(), Vec::new());
        for (node, place) in &mut inventory.nodes {
            let socket = folder.path().join(node.as_str());
            place.agent = AgentAddress::Unix(socket.clone());
            let mut fake = FakeKernel::new("db0".parse().unwrap());
            fake.interface.addresses.clone_from(&place.addresses);
            let kernel = Outliving::of(fake.clone());
            kernels.push(kernel.clone());
            let journal = Some(folder.path().join(format!("{node}.json")));
            let config = Config { node: node.clone(), socket: Some(socket), journal, ..config(None) };
            let agent = Node::with_bench(config.clone(), kernel, fake, "boot", Now::read()).unwrap();
            agents.push(tokio::spawn(async move {
                Box::pin(serve(agent, &config, std::future::pending())).await.unwrap();
            }));
        }
        let site = Self { fleet: Fleet::new(inventory, Access::default()), kernels, agents, _folder: folder };
        while !part(site.fleet.call(SOON, |_| GetStatus {}).await).1.is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        site
    }

    fn writes(&self) -> Vec<usize> {
        self.kernels.iter().map(|kernel| kernel.fake(|fake| fake.writes)).collect()
    }

    /// Cuts n2 off on top of what is in force.
    fn edit(&self) -> impl FnOnce(&Wanted) -> Result<Wanted, crate::plan::EditError> + use<> {
        let inventory = self.fleet.inventory().clone();
        move |wanted| Ok(Wanted { inventory, ..parted(wanted, "n2", None) })
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.agents.iter().for_each(JoinHandle::abort);
    }
}

#[tokio::test]
async fn all_nodes_write_at_the_agreed_instant_and_not_before() {
    let site = Site::up().await;
    let outcome = site.fleet.edit(false, &CancellationToken::new(), site.edit()).await.unwrap();
    let onset = outcome.onset.unwrap();
    assert_eq!(onset.nodes.len(), 3);
    assert!(onset.nodes.values().all(|node| node.first >= onset.agreed && node.last >= node.first), "{onset:?}");
    assert!(onset.spread().unwrap() < Duration::from_secs(1), "{onset:?}");
    assert_eq!(onset.told_late, BTreeMap::new());
}

#[tokio::test]
async fn a_partition_with_a_time_is_said_to_begin_when_it_does_on_the_nodes() {
    let site = Site::up().await;
    let inventory = site.fleet.inventory().clone();
    let timing = Timing { begins: Now::read().wall, lasts: Some(60 * SECOND), flap: None };
    let edit = |wanted: &Wanted| Ok(Wanted { inventory, ..parted(wanted, "n2", Some(timing)) });
    let outcome = site.fleet.edit(false, &CancellationToken::new(), edit).await.unwrap();
    let said = outcome.wanted.partitions[0].timing.unwrap().begins;
    assert_eq!(said, outcome.onset.unwrap().agreed);
    assert_eq!(site.fleet.wanted().await.unwrap().partitions[0].timing.unwrap().begins, said);
}

#[tokio::test]
async fn nodes_that_wait_answer_and_can_be_told_to_forget_it() {
    let site = Site::up().await;
    let rehearsal = site.fleet.rehearse(false, site.edit()).await.unwrap();
    let ticket = rehearsal.ticket.clone();
    let writes = site.writes();
    let at = Now::read().wall.after(3 * SECOND);
    let asked = Instant::now();
    let commits = site.fleet.call(SOON, |_| Commit { ticket: ticket.clone(), at: Some(at) });
    let others = async {
        // All of them are waiting by then, or have at least been told.
        tokio::time::sleep(SECOND).await;
        let statuses = part(site.fleet.call(SOON, |_| GetStatus {}).await);
        assert_eq!((statuses.0.len(), statuses.1.len()), (3, 0));
        assert!(statuses.0.values().all(|status| status.partitions.is_empty()));
        let undone = part(site.fleet.call(SOON, |_| Undo { ticket: ticket.clone() }).await);
        assert_eq!((undone.0.len(), undone.1.len()), (3, 0));
        assert!(asked.elapsed() < 3 * SECOND, "nobody had to wait for the instant");
    };
    let (commits, ()) = tokio::join!(commits, others);
    let (committed, failures) = part(commits);
    assert_eq!((committed.len(), failures.len()), (0, 3), "{failures:?}");
    assert_eq!(site.writes(), writes);
    drop(site.fleet.edit(false, &CancellationToken::new(), site.edit()).await.unwrap());
}

#[tokio::test]
async fn an_interruption_before_the_instant_leaves_no_trace() {
    let site = Site::up().await;
    let before = site.writes();
    let interrupt = CancellationToken::new();
    let rehearsal = site.fleet.rehearse(false, site.edit()).await.unwrap();
    let interrupts = async {
        tokio::time::sleep(Duration::from_millis(10)).await;
        interrupt.cancel();
    };
    let (outcome, ()) = tokio::join!(rehearsal.commit(&interrupt), interrupts);
    assert!(matches!(outcome, Err(TransactionError::Interrupted)), "{outcome:?}");
    tokio::time::sleep(SECOND / 2).await;
    let trees: Vec<Tree> = site.kernels.iter().map(|kernel| kernel.fake(|fake| fake.tree.clone())).collect();
    assert_eq!(trees, vec![Tree::default(); 3]);
    assert_eq!(site.writes(), before, "the lead is longer than ten milliseconds");
}
