//! The controller: asks the agents of all nodes in parallel, and changes all nodes or none.
//!
//! The controller stores nothing between two commands. Each agent stores a copy of the document: the wanted topology,
//! overlays and partitions of all nodes. [`Fleet::edit`] makes every change. [`Fleet::verify`] makes every measurement.

mod body;
pub(crate) mod clocks;
pub(crate) mod decision;
mod error;
mod facts;
mod fan_out;
mod files;
mod outcome;
mod pool;
mod rollback;
mod slots;
pub(crate) mod snapshot;
pub mod ssh;
mod tcp;
mod timeouts;
pub(crate) mod transaction;
mod transport;
mod verify;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use body::Body;
pub use error::{CallError, Leftover, Phase, RollbackState, TransactionError};
pub use outcome::{FleetOnset, Outcome, Preview};
use pool::Pool;
use slots::{Slot, Slots};
pub use snapshot::Scope;
use ssh::Ssh;
use tcp::{Http, Https};
pub use timeouts::Timeouts;
pub use transaction::{Edit, Transaction};
use transport::Unix;
pub use verify::{Pace, Survey, Terms};

use crate::{
    inventory::{Contact, InterfaceSelector},
    pki::Identity,
    plan::{AgentAddress, Inventory},
    topology::NodeName,
    wire::Call,
};

/// The usual time limit of an agent's answer. Measurements and some calls of a transaction have other limits.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// The settings for access to agents on other machines.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// The controller's certificate, for HTTPS; `None`: calls to agents by HTTPS fail.
    pub tls: Option<Arc<Identity>>,
    /// The options of ssh.
    pub ssh: ssh::Options,
}

/// The agents of an inventory.
#[derive(Clone)]
pub struct Fleet {
    inventory: Inventory,
    /// The agents of nodes that are not in `inventory`, because their interfaces or addresses are not known yet.
    unplaced: BTreeMap<NodeName, Contact>,
    network: Arc<Network>,
}

/// The connections to agents.
struct Network {
    tls: Option<Arc<Identity>>,
    ssh: ssh::Hosts,
    pool: Pool,
}

/// Each node's answer.
pub type Answers<T> = BTreeMap<NodeName, Result<T, CallError>>;

impl Fleet {
    /// Creates the fleet of an inventory. Makes no call.
    pub fn new(inventory: Inventory, access: Access) -> Self {
        let Access { tls, ssh } = access;
        let network = Network { tls, ssh: ssh::Hosts::new(ssh), pool: Pool::new() };
        Self { inventory, unplaced: BTreeMap::new(), network: Arc::new(network) }
    }

    /// Creates a fleet of agents without an inventory. Their answers are used to make an inventory.
    pub fn of_agents(agents: BTreeMap<NodeName, Contact>, access: Access) -> Self {
        Self { unplaced: agents, ..Self::new(Inventory::default(), access) }
    }

    /// The inventory.
    pub fn inventory(&self) -> &Inventory {
        &self.inventory
    }

    /// The fleet of only the nodes for which `is_meant` is true.
    pub(crate) fn of(&self, is_meant: impl Fn(&NodeName) -> bool) -> Self {
        let mut part = self.clone();
        part.inventory.nodes.retain(|node, _| is_meant(node));
        part.unplaced.retain(|node, _| is_meant(node));
        part
    }

    /// Calls one node.
    pub async fn call_one<C: Call>(
        &self,
        timeouts: impl Into<Timeouts>,
        node: &NodeName,
        request: C,
    ) -> Result<C::Reply, CallError> {
        let (agent, interface) = self.agent(node);
        let slot = Slots::new().take().await;
        self.network.call::<C>(node, agent, interface, Body::of(&request), slot, timeouts.into()).await
    }

    /// The address of a node's agent, and the interface that the agent may shape. `None`: the interface is not known
    /// yet.
    fn agent(&self, node: &NodeName) -> (AgentAddress, Option<InterfaceSelector>) {
        match self.inventory.nodes.get(node) {
            Some(place) => (place.agent.clone(), Some(InterfaceSelector::Named(place.interface.clone()))),
            None => (self.unplaced[node].agent.clone(), self.unplaced[node].interface.clone()),
        }
    }
}

impl Network {
    /// Makes one call, by the transport of the agent's address.
    async fn call<C: Call>(
        &self,
        node: &NodeName,
        agent: AgentAddress,
        interface: Option<InterfaceSelector>,
        body: Body,
        slot: Slot,
        timeouts: Timeouts,
    ) -> Result<C::Reply, CallError> {
        let pool = &self.pool;
        match agent {
            AgentAddress::Unix(socket) => pool.call::<C>(node, &Unix(socket), (body, slot), timeouts).await,
            AgentAddress::Http(address) => pool.call::<C>(node, &Http(address), (body, slot), timeouts).await,
            AgentAddress::Https(address) => {
                let Some(identity) = self.tls.clone() else {
                    return Err(CallError::NoIdentity { at: format!("https://{address}") });
                };
                let https = Https { address, node: node.clone(), is_named: interface.is_some(), identity };
                pool.call::<C>(node, &https, (body, slot), timeouts).await
            }
            AgentAddress::Ssh(address) => {
                let ssh = Ssh { hosts: &self.ssh, target: ssh::Target { address, node: node.clone(), interface } };
                pool.call::<C>(node, &ssh, (body, slot), timeouts).await
            }
        }
    }
}

/// Splits answers into replies and errors.
pub fn split<T>(answers: Answers<T>) -> (BTreeMap<NodeName, T>, BTreeMap<NodeName, CallError>) {
    let (mut replies, mut errors) = (BTreeMap::new(), BTreeMap::new());
    for (node, answer) in answers {
        match answer {
            Ok(reply) => drop(replies.insert(node, reply)),
            Err(error) => drop(errors.insert(node, error)),
        }
    }
    (replies, errors)
}
