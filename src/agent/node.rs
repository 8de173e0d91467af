//! One node's state and the transaction on it: prepare, commit, read back, undo.

use std::time::{Duration, Instant};

use tracing::{info, warn};

use super::{Config, guard, specimen};
use crate::{
    kernel::{Failed, Interface, Kernel, execute},
    plan::{Blocked, Change, Tree, Wanted, diff},
    wire::{
        ApiError, Commit, Committed, ErrorCode, NodeStatus, Prepare, Prepared, ProfileStatus, Ticket, Undo, Undone,
    },
};

/// How long a prepared change keeps other controllers out if its own never comes back.
const PREPARED_FOR: Duration = Duration::from_secs(30);

/// A node: its configuration, its kernel and what is in force. All requests go through one of these, one at a time.
pub struct Node<K> {
    config: Config,
    kernel: K,
    /// Whether the kernel has been tried and found able.
    tried: bool,
    in_force: Wanted,
    pending: Option<Pending>,
    last: Option<Last>,
    drains: bool,
}

/// A change that is prepared.
struct Pending {
    ticket: Ticket,
    wanted: Wanted,
    since: Instant,
}

/// The transaction that was committed last, to go back from.
struct Last {
    ticket: Ticket,
    before: Wanted,
}

impl<K: Kernel> Node<K> {
    /// A node on which nothing is in force.
    pub fn new(config: Config, kernel: K) -> Self {
        Self { config, kernel, tried: false, in_force: Wanted::default(), pending: None, last: None, drains: false }
    }

    /// A node whose kernel needs no trial.
    #[cfg(test)]
    pub(super) fn with_able_kernel(config: Config, kernel: K) -> Self {
        Self { tried: true, ..Self::new(config, kernel) }
    }

    /// Its kernel, for the tests to look at and to disturb.
    #[cfg(test)]
    pub(super) fn kernel(&mut self) -> &mut K {
        &mut self.kernel
    }

    /// The document in force.
    pub fn wanted(&self) -> &Wanted {
        &self.in_force
    }

    /// Checks everything and computes the change; writes nothing.
    pub fn prepare(&mut self, request: Prepare) -> Result<Prepared, ApiError> {
        let conflict = |message: String| Err(ApiError::new(ErrorCode::Conflict, message));
        if let Some(pending) = self.pending.as_ref().filter(|pending| pending.ticket != request.ticket)
            && pending.since.elapsed() < PREPARED_FOR
        {
            return conflict("another controller is changing this node; try again in a moment".to_owned());
        }
        let stamp = self.in_force.stamp();
        if request.base != stamp {
            return conflict(format!("{stamp} is in force here, not {}: another controller was faster", request.base));
        }
        let interface = guard::admit(&self.config, &mut self.kernel, &self.in_force, &request.wanted)?;
        let change = self.change(&interface, &request.wanted)?;
        if !change.steps.is_empty() && !self.tried {
            specimen::try_kernel()?;
            self.tried = true;
        }
        self.pending = Some(Pending { ticket: request.ticket, wanted: request.wanted, since: Instant::now() });
        Ok(Prepared { interface: interface.name, change })
    }

    /// Does what was prepared, reads it back, and answers only if the kernel now has what is wanted.
    pub fn commit(&mut self, request: &Commit) -> Result<Committed, ApiError> {
        let Some(pending) = self.pending.take_if(|pending| pending.ticket == request.ticket) else {
            return Err(ApiError::new(ErrorCode::Conflict, "that change is no longer prepared here; start again"));
        };
        let interface = guard::admit(&self.config, &mut self.kernel, &self.in_force, &pending.wanted)?;
        let writes = self.enforce(&interface, &pending.wanted)?;
        let before = std::mem::replace(&mut self.in_force, pending.wanted);
        self.last = Some(Last { ticket: pending.ticket, before });
        let stamp = self.in_force.stamp();
        info!(node = %self.config.node, writes, "{stamp} is in force.");
        Ok(Committed { stamp, writes })
    }

    /// Forgets a prepared change, or goes back to what was in force before a committed one.
    pub fn undo(&mut self, request: &Undo) -> Result<Undone, ApiError> {
        self.pending.take_if(|pending| pending.ticket == request.ticket);
        if let Some(last) = self.last.take_if(|last| last.ticket == request.ticket) {
            let interface = self.own_interface()?;
            let undone = self.enforce(&interface, &last.before);
            undone.map_err(|error| ApiError { code: ErrorCode::Broken, ..error })?;
            self.in_force = last.before;
            warn!(node = %self.config.node, "Went back to {}.", self.in_force.stamp());
        }
        Ok(Undone { stamp: self.in_force.stamp() })
    }

    /// Whether classes are left that nothing uses any more.
    pub fn drains(&self) -> bool {
        self.drains
    }

    /// Removes those of them that have drained.
    pub fn sweep(&mut self) -> Result<(), ApiError> {
        let wanted = self.in_force.clone();
        let interface = self.own_interface()?;
        let change = self.change(&interface, &wanted)?;
        if change.is_settled() {
            execute(&mut self.kernel, &interface, &change.steps).map_err(failed)?;
        }
        self.drains = !change.draining.is_empty();
        Ok(())
    }

    /// What is in force, compared with the kernel at this moment.
    pub fn status(&mut self) -> Result<NodeStatus, ApiError> {
        let node = self.config.node.clone();
        let place = self.in_force.inventory.nodes.get(&node).map(|place| place.interface.clone());
        let name = place.or_else(|| self.config.interfaces.first().cloned()).ok_or_else(|| {
            ApiError::new(ErrorCode::Refused, "this agent's config allows no interface, so there is none to shape")
        })?;
        let interface = self.kernel.interface(&name).map_err(guard::kernel_error)?;
        let tree = self.kernel.observe(&interface).map_err(guard::kernel_error)?;
        let shaping = self.in_force.shaping(&node, interface.rate);
        let (drift, foreign, draining) = match diff(shaping.as_ref(), &tree) {
            Ok(change) if change.is_settled() => (Vec::new(), Vec::new(), change.steps.len() + change.draining.len()),
            Ok(change) => (change.steps.iter().map(ToString::to_string).collect(), Vec::new(), change.draining.len()),
            Err(blocked) => {
                let why = vec![blocked.to_string()];
                let foreign = match blocked {
                    Blocked::Foreign(foreign) => foreign,
                    Blocked::TooManyProfiles(_) => Vec::new(),
                };
                (why, foreign, 0)
            }
        };
        Ok(NodeStatus {
            node,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            stamp: self.in_force.stamp(),
            topology: self.in_force.topology.as_ref().map(|topology| topology.name().to_owned()),
            partitions: self.in_force.partitions.iter().map(|partition| partition.name.clone()).collect(),
            interface: name,
            profiles: profiles(&tree),
            cuts: tree.shaping().map(|shaping| shaping.cuts.into_iter().collect()).unwrap_or_default(),
            drift,
            foreign,
            draining,
        })
    }

    /// The steps from what the kernel has to what `wanted` asks of this node.
    fn change(&mut self, interface: &Interface, wanted: &Wanted) -> Result<Change, ApiError> {
        let tree = self.kernel.observe(interface).map_err(guard::kernel_error)?;
        let shaping = wanted.shaping(&self.config.node, interface.rate);
        diff(shaping.as_ref(), &tree).map_err(|blocked| {
            let name = &interface.name;
            let hint = match &blocked {
                Blocked::Foreign(_) => format!("; remove it (`tc qdisc show dev {name}`), or use another interface"),
                Blocked::TooManyProfiles(_) => String::new(),
            };
            ApiError::new(ErrorCode::Refused, format!("interface {name}: {blocked}{hint}"))
        })
    }

    /// The interface that the document in force names.
    fn own_interface(&mut self) -> Result<Interface, ApiError> {
        guard::admit(&self.config, &mut self.kernel, &self.in_force, &self.in_force)
    }

    /// Makes the kernel do what `wanted` asks and reads it back. Answers how many steps were written.
    fn enforce(&mut self, interface: &Interface, wanted: &Wanted) -> Result<usize, ApiError> {
        if let Some(topology) = &wanted.topology {
            self.kernel.learn(topology.tables());
        }
        let before = self.kernel.observe(interface).map_err(guard::kernel_error)?;
        let change = self.change(interface, wanted)?;
        execute(&mut self.kernel, interface, &change.steps).map_err(failed)?;
        let why = match self.change(interface, wanted) {
            Ok(left) if left.is_settled() => {
                self.drains = !(left.steps.is_empty() && left.draining.is_empty());
                return Ok(change.steps.len());
            }
            Ok(left) => left.steps.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "),
            Err(error) => error.message,
        };
        // What was read back is not what was written, so the way back is computed anew from what there is.
        let code = match self.restore(interface, &before) {
            Ok(()) => ErrorCode::Failed,
            Err(_) => ErrorCode::Broken,
        };
        Err(ApiError::new(code, format!("the kernel took every step but does not have what is wanted: {why}")))
    }

    fn restore(&mut self, interface: &Interface, before: &Tree) -> Result<(), ApiError> {
        let tree = self.kernel.observe(interface).map_err(guard::kernel_error)?;
        let change = diff(before.shaping().as_ref(), &tree).map_err(|error| ApiError::new(ErrorCode::Broken, error))?;
        execute(&mut self.kernel, interface, &change.steps).map_err(failed)
    }
}

fn profiles(tree: &Tree) -> Vec<ProfileStatus> {
    let routes = tree.active_routes();
    let used = tree.classes_in_use();
    let status = |(class, leaf): (&u16, &crate::plan::Leaf)| {
        Some(ProfileStatus {
            profile: leaf.profile.filter(|_| used.contains(class))?,
            addresses: routes.values().filter(|slot| slot.class == *class).count(),
            queued: leaf.queued,
        })
    };
    tree.classes.iter().filter_map(status).collect()
}

fn failed(failed: Failed) -> ApiError {
    if failed.error.is_permission() {
        return ApiError::new(ErrorCode::Permission, format!("{failed}; the agent needs CAP_NET_ADMIN"));
    }
    let code = if failed.undo.is_empty() { ErrorCode::Failed } else { ErrorCode::Broken };
    ApiError::new(code, failed)
}
