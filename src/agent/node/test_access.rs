//! Functions of [`Node`] that only tests need.

use super::Node;
use crate::{
    agent::{Now, Via},
    kernel::Kernel,
    plan::Tree,
    wire::{ApiError, Prepare, Prepared},
};

impl<K: Kernel> Node<K> {
    /// Prepares a change for a controller on this machine.
    pub(crate) fn prepare(&mut self, request: Prepare, now: Now) -> Result<Prepared, ApiError> {
        self.prepare_via(request, Via::default(), now)
    }

    /// The node's kernel, to read or change it as another program does. The node forgets the tree that it knows, so a
    /// change needs no event.
    pub(in crate::agent) fn kernel(&mut self) -> &mut K {
        self.enforcer.kernel.forget();
        self.enforcer.kernel.kernel()
    }

    /// The node's kernel. The node still knows its tree.
    pub(in crate::agent) fn watched_kernel(&mut self) -> &mut K {
        self.enforcer.kernel.kernel()
    }

    /// The tree that the node knows.
    pub(in crate::agent) fn known_tree(&self) -> Option<Tree> {
        self.enforcer.kernel.known_tree()
    }

    /// True if unused classes remain in the kernel.
    pub(in crate::agent) fn drains(&self) -> bool {
        self.enforcer.drains()
    }
}
