//! What a node does about what others do to its interface: hears of it, looks, and mends it if it is to be mended.

use super::{
    Node,
    drift::DriftState,
    enforcer::Foreign,
    status::{self, Look},
};
use crate::{
    agent::{Now, Via},
    kernel::{Interface, Kernel, KernelError},
    plan::{IfName, Wanted},
    wire::ApiError,
};

impl<K: Kernel> Node<K> {
    /// Hears of what others do to the interface, looks at it if there was something, and mends it if it is to be mended.
    pub(super) fn watch_drift(&mut self, now: Now) {
        if !self.hear(now) || self.unreconciled.is_some() {
            return;
        }
        match status::look(&mut self.enforcer, &self.in_force, &self.transactions.held().left_out) {
            Ok(look) if self.drift_watch.see(look.sight(), now) => self.repair(now),
            Ok(_) => {}
            Err(error) => self.drift_watch.could_not_look(error.message, now),
        }
    }

    /// Answers whether it is time to look at the interface.
    fn hear(&mut self, now: Now) -> bool {
        let events = match self.enforcer.kernel.events() {
            Ok(events) => events,
            Err(error) => {
                // Nobody tells, so it is looked at now and then.
                let is_due = self.drift_watch.is_due(now);
                self.drift_watch.could_not_look(error.to_string(), now);
                return is_due;
            }
        };
        let name = self.interface_name().cloned();
        name.is_some_and(|name| self.drift_watch.hear(&events, &name, now))
    }

    /// Brings the interface in line with what is in force, whatever somebody else has made of it.
    fn repair(&mut self, now: Now) {
        if self.transactions.is_ready() {
            // What it will write is computed from what there is at this moment.
            return self.drift_watch.look_again(now);
        }
        let admitted = self.enforcer.interface(&self.in_force, &self.in_force, &Via::default());
        let staged = match admitted
            .and_then(|interface| self.enforcer.stage(interface, self.in_force.clone(), Foreign::Refuses))
        {
            Ok(staged) => staged,
            Err(error) => return self.drift_watch.refused(error.message, now),
        };
        self.ahead = None;
        self.drift_watch.tried(now);
        match self.enforcer.strike(&staged, &|| now) {
            Ok(written) => self.drift_watch.repaired(written.writes, staged.interface().index, now),
            Err(error) => self.drift_watch.failed(error.message, now),
        }
    }

    /// Looks at the interface at this moment. What others have done until now is mended when the node is tended next.
    pub(super) fn look(&mut self, now: Now) -> Result<Look, ApiError> {
        let is_due = self.hear(now);
        let held = self.transactions.held();
        let in_force = held.document.in_force(&held.timeline.absent(now.uptime));
        let look = status::look(&mut self.enforcer, &in_force, &held.left_out)?;
        if self.unreconciled.is_none() && (is_due || look.sight() != DriftState::AsWanted || self.drift_watch.differs())
        {
            self.drift_watch.see(look.sight(), now);
            self.drift_watch.look_again(now);
        }
        Ok(look)
    }

    /// Keeps an eye on the interface from now on, if something is in force there.
    pub(super) fn reset_drift_watch(&mut self, interface: &Interface, in_force: &Wanted) {
        let Interface { index, is_up, has_carrier, .. } = *interface;
        self.drift_watch.begin((!in_force.is_clear()).then_some((index, is_up, has_carrier)));
    }

    /// The name of the interface that the document in force has for this node.
    pub(super) fn interface_name(&self) -> Option<&IfName> {
        self.in_force.inventory.nodes.get(&self.enforcer.config.node).map(|place| &place.interface)
    }

    /// Whether the interface that has what is in force is gone, or another one has its name.
    pub(super) fn is_interface_replaced(&mut self) -> Result<bool, ApiError> {
        let Some((ours, name)) = self.drift_watch.ours().zip(self.interface_name().cloned()) else { return Ok(false) };
        match self.enforcer.kernel.interface(&name) {
            Ok(interface) => Ok(interface.index != ours),
            // Under another name it still has what was put there.
            Err(KernelError::NoInterface(_)) => Ok(self.enforcer.kernel.host()?.link(ours).is_none()),
            Err(error) => Err(error.into()),
        }
    }
}
