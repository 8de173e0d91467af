//! The controller's side: all agents of an inventory, asked in parallel, changed all together or not at all.
//!
//! The controller keeps nothing between two commands: what is in force is what the agents say. [`Fleet::edit`] is the
//! one way by which anything changes, [`Fleet::verify`] the one by which it is measured.

mod client;
mod clocks;
mod connection;
pub(crate) mod decision;
mod files;
mod insist;
mod patience;
mod retract;
mod scope;
pub mod ssh;
pub mod tls;
mod transaction;
mod verify;

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

pub use client::{CallError, Transport, Unix};
use clocks::Exchange;
use connection::Idle;
use files::{Files, Share};
pub use patience::Patience;
pub use retract::Leftover;
pub use scope::Scope;
use tls::{Http, Https, Identity};
use tokio::{task::JoinSet, time::timeout_at};
pub use transaction::{FleetOnset, Outcome, Phase, Preview, Rehearsal, TransactionError};
pub use verify::Pace;

use crate::{
    inventory::{Contact, Which},
    plan::{AgentAddress, HostPort, Inventory},
    topology::NodeName,
    wire::Call,
};

/// How long an agent may take to answer anything but a measurement.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// How long nodes that `--only` does not name may take to answer, a login by ssh included.
pub const OTHERS_TIMEOUT: Duration = Duration::from_secs(3);

/// How agents are reached that are not of this machine.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// The controller's certificate, for those by HTTPS.
    pub tls: Option<Arc<Identity>>,
    /// Those by ssh.
    pub ssh: ssh::Options,
}

/// All agents of an inventory.
#[derive(Clone)]
pub struct Fleet {
    inventory: Inventory,
    /// The agents of nodes that are not in the inventory, as their interfaces and addresses are not known yet.
    unplaced: BTreeMap<NodeName, Contact>,
    ways: Arc<Ways>,
}

/// The ways to agents, with the connections that are kept.
struct Ways {
    tls: Option<Arc<Identity>>,
    https: Idle<(NodeName, HostPort), Share>,
    files: Files,
    ssh: ssh::Hosts,
}

/// What each node answered.
pub type Answers<T> = BTreeMap<NodeName, Result<T, CallError>>;

impl Fleet {
    /// The fleet of an inventory; nobody is called yet.
    pub fn new(inventory: Inventory, access: Access) -> Self {
        Self { inventory, unplaced: BTreeMap::new(), ways: Arc::new(Ways::new(access)) }
    }

    /// Agents that can be asked, for an inventory to be made of what they answer, and nothing else.
    pub fn of_agents(agents: BTreeMap<NodeName, Contact>, access: Access) -> Self {
        Self { inventory: Inventory::default(), unplaced: agents, ways: Arc::new(Ways::new(access)) }
    }

    /// Where the nodes are.
    pub fn inventory(&self) -> &Inventory {
        &self.inventory
    }

    /// Asks every node in parallel.
    pub async fn call<C: Call>(
        &self,
        patience: impl Into<Patience>,
        request: impl Fn(&NodeName) -> C,
    ) -> Answers<C::Reply> {
        self.call_timed(patience.into(), request).await.0
    }

    /// The same, with when each call was made and answered.
    async fn call_timed<C: Call>(
        &self,
        patience: Patience,
        request: impl Fn(&NodeName) -> C,
    ) -> (Answers<C::Reply>, BTreeMap<NodeName, Exchange>) {
        let mut calls = JoinSet::new();
        for node in self.inventory.nodes.keys().chain(self.unplaced.keys()) {
            let (target, body) = (self.target(node), client::body(&request(node)));
            let ways = Arc::clone(&self.ways);
            calls.spawn(async move {
                let sent = SystemTime::now().into();
                let answer = ways.ask::<C>(&target, body, patience).await;
                let exchange = Exchange { sent, received: SystemTime::now().into() };
                (target.node, answer, exchange)
            });
        }
        let (mut answers, mut exchanges) = (BTreeMap::new(), BTreeMap::new());
        while let Some(call) = calls.join_next().await {
            // A call neither panics nor is aborted.
            if let Ok((node, answer, exchange)) = call {
                exchanges.insert(node.clone(), exchange);
                answers.insert(node, answer);
            }
        }
        (answers, exchanges)
    }

    /// Asks one node.
    pub async fn call_one<C: Call>(
        &self,
        patience: impl Into<Patience>,
        node: &NodeName,
        request: C,
    ) -> Result<C::Reply, CallError> {
        self.ways.ask::<C>(&self.target(node), client::body(&request), patience.into()).await
    }

    fn target(&self, node: &NodeName) -> Target {
        let (agent, interface) = match self.inventory.nodes.get(node) {
            Some(place) => (place.agent.clone(), Some(Which::Named(place.interface.clone()))),
            None => (self.unplaced[node].agent.clone(), self.unplaced[node].interface.clone()),
        };
        Target { node: node.clone(), agent, interface }
    }
}

/// Whom to ask.
struct Target {
    node: NodeName,
    agent: AgentAddress,
    /// The interface that it may shape, if that is known.
    interface: Option<Which>,
}

impl Ways {
    fn new(access: Access) -> Self {
        let files = Files::of_process();
        Self {
            tls: access.tls,
            https: Idle::new(files.clone()),
            ssh: ssh::Hosts::new(access.ssh, files.clone()),
            files,
        }
    }

    /// Makes one call. One deadline covers all that it waits for.
    async fn ask<C: Call>(&self, target: &Target, body: Vec<u8>, patience: Patience) -> Result<C::Reply, CallError> {
        let Patience { answer, until } = patience;
        let made = self.ask_of::<C>(target, body, answer);
        let Some(until) = until else { return made.await };
        let after = until.saturating_duration_since(Instant::now());
        let timed_out = |_| Err(CallError::TimedOut { at: target.agent.to_string(), after });
        timeout_at(until.into(), made).await.unwrap_or_else(timed_out)
    }

    async fn ask_of<C: Call>(&self, target: &Target, body: Vec<u8>, timeout: Duration) -> Result<C::Reply, CallError> {
        let Target { node, agent, interface } = target;
        match agent.clone() {
            AgentAddress::Unix(socket) => client::call::<C>(&Unix { socket }, &self.files, body, timeout).await,
            AgentAddress::Http(address) => client::call::<C>(&Http { address }, &self.files, body, timeout).await,
            AgentAddress::Https(address) => match self.tls.clone() {
                Some(identity) => {
                    // Of whom nothing is known is called something until it has said who it is.
                    let to = (node.clone(), address.clone());
                    let https = Https { address, node: node.clone(), is_named: interface.is_some(), identity };
                    client::call_kept::<C, _>(&https, &self.https, &to, body, timeout).await
                }
                None => Err(CallError::NoIdentity { at: format!("https://{address}") }),
            },
            AgentAddress::Ssh(address) => {
                let target = ssh::Target { address, node: node.clone(), interface: interface.clone() };
                self.ssh.call::<C>(&target, body, timeout).await
            }
        }
    }
}

/// Parts the answers from the failures.
pub fn part<T>(answers: Answers<T>) -> (BTreeMap<NodeName, T>, BTreeMap<NodeName, CallError>) {
    let (mut good, mut bad) = (BTreeMap::new(), BTreeMap::new());
    for (node, answer) in answers {
        match answer {
            Ok(answer) => drop(good.insert(node, answer)),
            Err(error) => drop(bad.insert(node, error)),
        }
    }
    (good, bad)
}
