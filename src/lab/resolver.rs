//! Resolves the nodes of a large lab for each other, without ARP and neighbour discovery: [`Resolver`].

use std::{collections::HashMap, io, net::IpAddr, sync::Arc, thread};

use tokio::runtime::Builder;
use tracing::warn;

use super::{Layout, layout::database_mac};
use crate::kernel::{Mac, NeighbourQuestions, readable};

/// Answers the nodes' questions for the hardware addresses of other nodes.
pub(super) struct Resolver {
    /// The hardware address of each node's database interface, by the addresses of this interface.
    known: HashMap<IpAddr, Mac>,
    questions: Vec<NeighbourQuestions>,
}

impl Resolver {
    pub(super) fn of(layout: &Layout) -> Self {
        let members = layout.members.iter().zip(1..);
        let known = members.flat_map(|(member, number)| {
            member.database.iter().map(move |network| (network.ip(), database_mac(number)))
        });
        Self { known: known.collect(), questions: Vec::new() }
    }

    /// Adds the questions of a node.
    pub(super) fn add(&mut self, questions: NeighbourQuestions) {
        self.questions.push(questions);
    }

    /// Answers on a thread of its own until the process ends. So a keeper that is busy with agents delays no packet.
    pub(super) fn start(self) -> io::Result<()> {
        if self.questions.is_empty() {
            return Ok(());
        }
        let runtime = Builder::new_current_thread().enable_io().build()?;
        let known = Arc::new(self.known);
        let all = async move {
            let tasks = self.questions.into_iter().map(|questions| tokio::spawn(answer(questions, Arc::clone(&known))));
            for task in tasks.collect::<Vec<_>>() {
                if let Ok(Err(error)) = task.await {
                    warn!(%error, "A node's questions for its neighbours are not answered.");
                }
            }
        };
        let thread = thread::Builder::new().name("neighbours".to_owned()).stack_size(256 * 1024);
        thread.spawn(move || runtime.block_on(all)).map(drop)
    }
}

/// Answers the questions of one node. Returns only an error.
async fn answer(questions: NeighbourQuestions, known: Arc<HashMap<IpAddr, Mac>>) -> io::Result<()> {
    let descriptor = readable(questions.descriptor()?)?;
    loop {
        let mut ready = descriptor.readable().await?;
        // A question that comes after this reading makes the descriptor ready again.
        ready.clear_ready();
        questions.answer(|address| known.get(address).copied());
    }
}
