//! One node's state and the transaction on it: prepare, commit, read back, undo; and the end of what lasts for a time.
//!
//! No clock is read here: whoever calls says what time it is.

use std::time::{Duration, Instant};

use tracing::{info, warn};

use super::{
    Config,
    deadlines::Deadlines,
    guard,
    specimen::{self, Bench, ScratchNamespace},
    trial::Candidate,
};
use crate::{
    kernel::{Failed, Interface, Kernel, execute},
    plan::{Blocked, Change, Overlay, OverlayId, Shaping, Stamp, Tree, Wanted, diff},
    wire::{
        ApiError, Commit, Committed, Document, ErrorCode, NodeStatus, OverlayStatus, Prepare, Prepared, ProfileStatus,
        Ticket, Undo, Undone,
    },
};

/// How long a prepared change keeps other controllers out if its own never comes back.
const PREPARED_FOR: Duration = Duration::from_secs(30);

/// A node: its configuration, its kernel and what is in force. All requests go through one of these, one at a time.
pub struct Node<K> {
    config: Config,
    kernel: K,
    /// Where the kernel is tried out.
    bench: Box<dyn Bench>,
    /// Whether it has been tried and found able to shape.
    tried: bool,
    /// What all nodes have.
    document: Wanted,
    /// When parts of it end.
    deadlines: Deadlines<OverlayId>,
    /// What of it is in force here: the document without what has ended.
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
    document: Wanted,
    deadlines: Deadlines<OverlayId>,
}

impl<K: Kernel> Node<K> {
    /// A node on which nothing is in force.
    pub fn new(config: Config, kernel: K) -> Self {
        Self {
            config,
            kernel,
            bench: Box::new(ScratchNamespace),
            tried: false,
            document: Wanted::default(),
            deadlines: Deadlines::default(),
            in_force: Wanted::default(),
            pending: None,
            last: None,
            drains: false,
        }
    }

    /// A node whose kernel is tried out elsewhere.
    #[cfg(test)]
    pub(super) fn with_bench(config: Config, kernel: K, bench: impl Bench + 'static) -> Self {
        Self { bench: Box::new(bench), ..Self::new(config, kernel) }
    }

    /// Its kernel, for the tests to look at and to disturb.
    #[cfg(test)]
    pub(super) fn kernel(&mut self) -> &mut K {
        &mut self.kernel
    }

    /// Names the document that this node has.
    pub fn stamp(&self) -> Stamp {
        self.document.stamp()
    }

    /// The document that this node has, and what of it has ended by `now`.
    pub fn document(&self, now: Instant) -> Document {
        Document { wanted: self.document.clone(), ended: self.deadlines.over(now) }
    }

    /// Checks everything and computes the change; writes nothing.
    pub fn prepare(&mut self, request: Prepare, now: Instant) -> Result<Prepared, ApiError> {
        let conflict = |message: String| Err(ApiError::new(ErrorCode::Conflict, message));
        if let Some(pending) = self.pending.as_ref().filter(|pending| pending.ticket != request.ticket)
            && now.saturating_duration_since(pending.since) < PREPARED_FOR
        {
            return conflict("another controller is changing this node; try again in a moment".to_owned());
        }
        let stamp = self.stamp();
        if request.base != stamp {
            return conflict(format!("{stamp} is in force here, not {}: another controller was faster", request.base));
        }
        // What has ended here stays so, if the controller did not know it yet.
        let wanted = request.wanted.without(&self.deadlines.over(now));
        let interface = guard::admit(&self.config, &mut self.kernel, &self.in_force, &wanted)?;
        guard::check_links(&self.config, &wanted)?;
        let tree = self.kernel.observe(&interface).map_err(guard::kernel_error)?;
        let shaping = wanted.shaping(&self.config.node, interface.rate);
        let change = way(&interface, shaping.as_ref(), &tree)?;
        if !change.steps.is_empty() && !self.tried {
            specimen::try_kernel(&*self.bench)?;
            self.tried = true;
        }
        let topologies = [&self.in_force, &wanted].map(|wanted| wanted.topology.as_ref());
        let candidate = Candidate {
            tree: &tree,
            change: &change,
            shaping: shaping.as_ref(),
            node: &self.config.node,
            wanted: &wanted,
            tables: topologies.into_iter().flatten().flat_map(|topology| topology.tables().clone()).collect(),
        };
        candidate.check(&*self.bench)?;
        self.pending = Some(Pending { ticket: request.ticket, wanted: request.wanted, since: now });
        Ok(Prepared { interface: interface.name, change })
    }

    /// Does what was prepared, reads it back, and answers only if the kernel now has what is wanted.
    ///
    /// What lasts for a time begins now, unless it has begun before.
    pub fn commit(&mut self, request: &Commit, now: Instant) -> Result<Committed, ApiError> {
        let Some(pending) = self.pending.take_if(|pending| pending.ticket == request.ticket) else {
            return Err(ApiError::new(ErrorCode::Conflict, "that change is no longer prepared here; start again"));
        };
        let deadlines = self.deadlines.renewed(pending.wanted.timed(), now);
        let in_force = pending.wanted.without(&deadlines.over(now));
        let interface = guard::admit(&self.config, &mut self.kernel, &self.in_force, &in_force)?;
        let writes = self.enforce(&interface, &in_force)?;
        self.in_force = in_force;
        self.last = Some(Last {
            ticket: pending.ticket,
            document: std::mem::replace(&mut self.document, pending.wanted),
            deadlines: std::mem::replace(&mut self.deadlines, deadlines),
        });
        let stamp = self.stamp();
        info!(node = %self.config.node, writes, "{stamp} is in force.");
        Ok(Committed { stamp, writes })
    }

    /// Forgets a prepared change, or goes back to what was in force before a committed one; what would have ended in
    /// the meantime has.
    pub fn undo(&mut self, request: &Undo, now: Instant) -> Result<Undone, ApiError> {
        self.pending.take_if(|pending| pending.ticket == request.ticket);
        if let Some(last) = self.last.take_if(|last| last.ticket == request.ticket) {
            let interface = self.own_interface()?;
            let in_force = last.document.without(&last.deadlines.over(now));
            let undone = self.enforce(&interface, &in_force);
            undone.map_err(|error| ApiError { code: ErrorCode::Broken, ..error })?;
            self.in_force = in_force;
            (self.document, self.deadlines) = (last.document, last.deadlines);
            warn!(node = %self.config.node, "Went back to {}.", self.stamp());
        }
        Ok(Undone { stamp: self.stamp() })
    }

    /// Does what is to be done without being asked: ends what is over, removes classes that have drained.
    ///
    /// Answers when something ends next. After an error everything is tried again at the next call.
    pub fn tend(&mut self, now: Instant) -> Result<Option<Instant>, ApiError> {
        self.end_what_is_over(now)?;
        if self.drains {
            self.sweep()?;
        }
        Ok(self.deadlines.next(now))
    }

    /// Takes off the overlays whose time is over. The document stays: it is the same on all nodes.
    fn end_what_is_over(&mut self, now: Instant) -> Result<(), ApiError> {
        let over = self.deadlines.over(now);
        let ending: Vec<_> = self.in_force.overlays.iter().map(Overlay::id).filter(|id| over.contains(id)).collect();
        if ending.is_empty() {
            return Ok(());
        }
        let in_force = self.document.without(&over);
        let interface = self.own_interface()?;
        let writes = self.enforce(&interface, &in_force)?;
        self.in_force = in_force;
        for OverlayId { name, .. } in ending {
            info!(node = %self.config.node, writes, "{name} has ended.");
        }
        Ok(())
    }

    /// Whether classes are left that nothing uses any more.
    #[cfg(test)]
    pub(super) fn drains(&self) -> bool {
        self.drains
    }

    /// Removes the classes that nothing uses any more and that have drained.
    fn sweep(&mut self) -> Result<(), ApiError> {
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
    pub fn status(&mut self, now: Instant) -> Result<NodeStatus, ApiError> {
        // A moment's lag is no drift; what cannot be ended is.
        if let Err(error) = self.end_what_is_over(now) {
            warn!(%error, "What is over could not be ended.");
        }
        let in_force = self.document.without(&self.deadlines.over(now));
        let node = self.config.node.clone();
        let place = in_force.inventory.nodes.get(&node).map(|place| place.interface.clone());
        let name = place.or_else(|| self.config.interfaces.first().cloned()).ok_or_else(|| {
            ApiError::new(ErrorCode::Refused, "this agent's config allows no interface, so there is none to shape")
        })?;
        let interface = self.kernel.interface(&name).map_err(guard::kernel_error)?;
        let tree = self.kernel.observe(&interface).map_err(guard::kernel_error)?;
        let shaping = in_force.shaping(&node, interface.rate);
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
            stamp: self.stamp(),
            topology: in_force.topology.as_ref().map(|topology| topology.name().to_owned()),
            overlays: self.overlays(&in_force, now),
            partitions: in_force.partitions.iter().map(|partition| partition.name.clone()).collect(),
            interface: name,
            profiles: profiles(&tree),
            cuts: tree.shaping().map(|shaping| shaping.cuts.into_iter().collect()).unwrap_or_default(),
            drift,
            foreign,
            draining,
        })
    }

    fn overlays(&self, in_force: &Wanted, now: Instant) -> Vec<OverlayStatus> {
        let status = |overlay: &Overlay| OverlayStatus {
            name: overlay.name.clone(),
            left: self.deadlines.left(&overlay.id(), now).map(|left| left.as_secs_f64()),
        };
        in_force.overlays.iter().map(status).collect()
    }

    /// The steps from what the kernel has to what `wanted` asks of this node.
    fn change(&mut self, interface: &Interface, wanted: &Wanted) -> Result<Change, ApiError> {
        let tree = self.kernel.observe(interface).map_err(guard::kernel_error)?;
        way(interface, wanted.shaping(&self.config.node, interface.rate).as_ref(), &tree)
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

/// The steps from what an interface has to what is wanted of it.
fn way(interface: &Interface, wanted: Option<&Shaping>, tree: &Tree) -> Result<Change, ApiError> {
    diff(wanted, tree).map_err(|blocked| {
        let name = &interface.name;
        let hint = match &blocked {
            Blocked::Foreign(_) => format!("; remove it (`tc qdisc show dev {name}`), or use another interface"),
            Blocked::TooManyProfiles(_) => String::new(),
        };
        ApiError::new(ErrorCode::Refused, format!("interface {name}: {blocked}{hint}"))
    })
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
