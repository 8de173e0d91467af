//! Finds drift on a node and repairs it: reads the kernel's events, compares the interface, and writes the state again.

use std::time::Duration;

use super::{
    Node,
    drift::{DriftState, Seen},
    enforcer::Foreign,
    status::{self, Look},
    watched::Detail,
};
use crate::{
    agent::{Now, Via},
    kernel::{Interface, Kernel, KernelError},
    plan::{IfName, Wanted},
    wire::ApiError,
};

impl<K: Kernel> Node<K> {
    /// Reads the kernel's events, compares the interface if an event requires it or a comparison is due, and repairs
    /// drift if configured.
    pub(super) fn watch_drift(&mut self, now: Now) {
        // A comparison without an event reads everything. It has time: no controller waits for this node.
        let is_outdated = self.transactions.lease().is_none() && self.enforcer.kernel.is_outdated(now.uptime);
        if is_outdated || self.drift_watch.is_due(now) {
            self.enforcer.kernel.forget();
        }
        let must_look = self.read_events(now) || is_outdated && self.drift_watch.ours().is_some();
        if !must_look || self.unreconciled.is_some() {
            return;
        }
        let left_out = &self.transactions.held().left_out;
        match status::look(&mut self.enforcer, &self.in_force, left_out, Detail::Structure) {
            Ok(look) if self.drift_watch.found(look.drift_state(), now) => self.repair(now),
            Ok(_) => {}
            Err(error) => self.drift_watch.refused(error.message, now),
        }
    }

    /// Reads the kernel's events. True if the interface must be compared.
    fn read_events(&mut self, now: Now) -> bool {
        let events = match self.enforcer.kernel.events() {
            Ok(events) => events,
            Err(error) => {
                // While events cannot be read, the interface is compared at intervals.
                let is_due = self.drift_watch.is_due(now);
                self.drift_watch.refused(error.to_string(), now);
                return is_due;
            }
        };
        let name = self.interface_name().cloned();
        name.is_some_and(|name| self.drift_watch.receive(&events, &name, now))
    }

    /// Writes the state in force to the interface again.
    fn repair(&mut self, now: Now) {
        if self.transactions.is_ready() {
            // The waiting change is computed from the present interface, so a repair would make the change outdated.
            return self.drift_watch.compare_soon(now);
        }
        let interface = self.enforcer.interface(&self.in_force, &self.in_force, &Via::default());
        let in_force = self.in_force.clone();
        let staged = match interface.and_then(|interface| self.enforcer.stage(interface, in_force, Foreign::Refuse)) {
            Ok(staged) => staged,
            Err(error) => return self.drift_watch.refused(error.message, now),
        };
        self.precomputed = None;
        self.drift_watch.tried(now);
        match self.enforcer.write(&staged, &|| now, Duration::ZERO) {
            Ok(written) => self.drift_watch.repaired(written.writes, staged.interface.index, now),
            Err(error) => self.drift_watch.failed(error.message, now),
        }
    }

    /// Compares the interface now. If the config requires repairs and there is drift, schedules a comparison in
    /// [`Node::tick`], which repairs the drift.
    pub(super) fn look(&mut self, now: Now) -> Result<Look, ApiError> {
        let is_due = self.read_events(now);
        let held = self.transactions.held();
        let in_force = held.document.in_force(&held.timeline.absent(now.uptime));
        let look = status::look(&mut self.enforcer, &in_force, &held.left_out, Detail::Counters)?;
        if self.unreconciled.is_none()
            && (is_due || look.drift_state() != DriftState::None || self.drift_watch.differs())
        {
            self.drift_watch.found(look.drift_state(), now);
            self.drift_watch.compare_soon(now);
        }
        Ok(look)
    }

    /// Starts to watch the interface, or stops if `in_force` is clear.
    pub(super) fn reset_drift_watch(&mut self, interface: &Interface, in_force: &Wanted) {
        let Interface { index, is_up, has_carrier, .. } = *interface;
        self.drift_watch.begin((!in_force.is_clear()).then_some(Seen { index, is_up, has_carrier }));
    }

    /// The node's interface in the document in force; `None`: the document does not name this node.
    pub(super) fn interface_name(&self) -> Option<&IfName> {
        self.in_force.inventory.nodes.get(self.name()).map(|place| &place.interface)
    }

    /// True if the interface that is watched for drift was deleted, or another interface has its name. False if none is
    /// watched.
    pub(super) fn is_interface_replaced(&mut self) -> Result<bool, ApiError> {
        let Some((ours, name)) = self.drift_watch.ours().zip(self.interface_name().cloned()) else { return Ok(false) };
        match self.enforcer.kernel.interface(&name) {
            Ok(interface) => Ok(interface.index != ours),
            // An interface that was only renamed still has the state.
            Err(KernelError::NoInterface(_)) => Ok(self.enforcer.kernel.host()?.link(ours).is_none()),
            Err(error) => Err(error.into()),
        }
    }
}
