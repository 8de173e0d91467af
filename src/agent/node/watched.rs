//! A kernel that does not read filters again while nobody changes them: [`Watched`].
//!
//! The number of filters grows with the number of destinations, so their dump is the slow part of a look at an
//! interface. The last read tree stays known. A later look reads the qdiscs and classes again, and the filters that this
//! object has written since the last look ([`Stale`]): single filters one by one, new and removed chains as a whole. The
//! known tree gets what the kernel answers, not what was written.
//!
//! An event that can stand for a change of a filter by another program ends the knowledge. So does an error, a new or
//! removed root or clsact, or another interface. The next look then reads everything. A tree with objects of other
//! programs never stays known.
//!
//! # Why events are enough
//!
//! The kernel sends a notification after each change of a qdisc, class, filter or action. A program that deletes many
//! filters at once has a notification before the deletion, but holds the lock that a dump needs (`rtnl_mutex`) until the
//! deletion is done. The events are taken before a dump begins. So the dump shows each change whose event was taken, and
//! the event of each later change is still to come: the next look takes it before it uses the known tree. If the socket
//! was full, [`Event::Lost`] comes.
//!
//! A notification has the netlink port of the socket that requested the change. So our own changes are no events, and
//! changes of other programs during our writes are events. A chain that the kernel adds with its first filter, or removes
//! with its last one, is no event: the filter has its own notification.
//!
//! - A filter of another link may share an action with one of ours. So an event of any link ends the knowledge, and
//!   an event of an action too.
//! - Nobody can change a filter's class silently: the kernel reports the deletion of the class.
//! - The kernel sends no notification of an object whose description is longer than a page, and none if it has no
//!   memory. So the node forgets a tree that is used for longer than [`TRUSTED`], and reads it in the background.
//! - Programs attached by `bpf(2)` (tcx) are not in a dump either.

use std::{net::IpAddr, os::fd::OwnedFd, slice, sync::Arc, time::Duration};

use crate::{
    kernel::{Event, HostNetwork, Interface, Kernel, KernelError, PartialFailure},
    plan::{IfName, Stale, Step, Tree},
    topology::Tables,
};

/// Time after which a known tree that is still used is read again.
const TRUSTED: Duration = Duration::from_mins(1);

/// A kernel, its events that nobody has taken yet, and the tree that it is known to have.
pub(super) struct Watched<K> {
    kernel: K,
    events: Vec<Event>,
    known: Option<Known>,
}

/// A tree that was read completely, and followed own writes since.
struct Known {
    /// The index of the interface.
    index: u32,
    tree: Arc<Tree>,
    /// The filters that were written since the last look.
    stale: Stale,
    /// The uptime at the first [`Watched::is_outdated`] after the read.
    since: Option<Duration>,
    /// True if the tree was used without a complete read.
    is_used: bool,
}

/// What a look at an interface must have read again, besides the qdiscs and classes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Detail {
    /// Nothing. The counters of the cuts may be old.
    Structure,
    /// The counters of the cuts.
    Counters,
}

impl<K: Kernel> Watched<K> {
    pub(super) fn new(kernel: K) -> Self {
        Self { kernel, events: Vec::new(), known: None }
    }

    /// The tree of an interface. Reads only the filters that may have changed.
    pub(super) fn tree(&mut self, interface: &Interface, detail: Detail) -> Result<Arc<Tree>, KernelError> {
        let is_watched = self.take_events().is_ok();
        match self.known.take().filter(|known| is_watched && known.index == interface.index) {
            Some(Known { index, tree, stale, since, .. }) => {
                let counts = detail == Detail::Counters;
                let tree = self.kernel.observe_again(interface, Arc::unwrap_or_clone(tree), &stale, counts)?;
                let known = Known { index, tree: Arc::new(tree), stale: Stale::default(), since, is_used: true };
                Ok(self.keep(known))
            }
            None => self.read(interface),
        }
    }

    /// Reads the whole tree of an interface.
    pub(super) fn read(&mut self, interface: &Interface) -> Result<Arc<Tree>, KernelError> {
        self.known = None;
        // The events come before the dump. See the module's documentation.
        let is_watched = self.take_events().is_ok();
        let tree = Arc::new(self.kernel.observe(interface)?);
        if !is_watched {
            return Ok(tree);
        }
        Ok(self.keep(Known { index: interface.index, tree, stale: Stale::default(), since: None, is_used: false }))
    }

    /// Forgets the known tree. The next look reads everything.
    pub(super) fn forget(&mut self) {
        self.known = None;
    }

    /// True if the known tree has been used for longer than [`TRUSTED`].
    pub(super) fn is_outdated(&mut self, uptime: Duration) -> bool {
        self.known.as_mut().is_some_and(|known| {
            let since = *known.since.get_or_insert(uptime);
            known.is_used && uptime.saturating_sub(since) > TRUSTED
        })
    }

    /// True if [`Kernel::events`] returns events that the kernel's descriptor does not show any more.
    pub(super) fn has_events(&self) -> bool {
        !self.events.is_empty()
    }

    /// The kernel itself, for tests.
    #[cfg(test)]
    pub(super) fn kernel(&mut self) -> &mut K {
        &mut self.kernel
    }

    /// The known tree, for tests.
    #[cfg(test)]
    pub(super) fn known_tree(&self) -> Option<Tree> {
        self.known.as_ref().map(|known| Tree::clone(&known.tree))
    }

    fn keep(&mut self, known: Known) -> Arc<Tree> {
        let tree = Arc::clone(&known.tree);
        self.known = Some(known).filter(|known| known.tree.foreign.is_empty());
        tree
    }

    /// Writes steps, and notes what they may change in the known tree.
    fn write<E>(
        &mut self,
        interface: &Interface,
        steps: &[Step],
        write: impl FnOnce(&mut K) -> Result<(), E>,
    ) -> Result<(), E> {
        self.known.take_if(|known| known.index != interface.index || !steps.iter().all(|step| known.stale.add(step)));
        write(&mut self.kernel).inspect_err(|_| self.known = None)
    }

    /// Takes the kernel's events, and forgets the known tree if an event may stand for a change of it.
    fn take_events(&mut self) -> Result<(), KernelError> {
        let events = self.kernel.events().inspect_err(|_| self.known = None)?;
        if let Some(known) = &self.known
            && events.iter().any(|event| may_change(event, known.index))
        {
            self.known = None;
        }
        self.events.extend(events);
        Ok(())
    }
}

/// True if an event may stand for a change of a filter of the link.
fn may_change(event: &Event, link: u32) -> bool {
    match event {
        Event::Link { index, .. } | Event::Gone { index } => *index == link,
        // A filter of another link may share an action with a filter of this link.
        Event::Shaping { .. } | Event::Actions | Event::Lost => true,
        Event::Address { .. } => false,
    }
}

impl<K: Kernel> Kernel for Watched<K> {
    fn interface(&mut self, name: &IfName) -> Result<Interface, KernelError> {
        self.kernel.interface(name)
    }

    fn host(&mut self) -> Result<HostNetwork, KernelError> {
        self.kernel.host()
    }

    fn route_to(&mut self, address: IpAddr, from: Option<IpAddr>) -> Result<Option<u32>, KernelError> {
        self.kernel.route_to(address, from)
    }

    fn events(&mut self) -> Result<Vec<Event>, KernelError> {
        self.take_events()?;
        Ok(std::mem::take(&mut self.events))
    }

    fn event_descriptor(&mut self) -> Option<OwnedFd> {
        self.kernel.event_descriptor()
    }

    fn observe(&mut self, interface: &Interface) -> Result<Tree, KernelError> {
        self.read(interface).map(Arc::unwrap_or_clone)
    }

    fn add_tables(&mut self, tables: &Tables) {
        self.kernel.add_tables(tables);
    }

    fn perform(&mut self, interface: &Interface, step: &Step) -> Result<(), KernelError> {
        self.write(interface, slice::from_ref(step), |kernel| kernel.perform(interface, step))
    }

    fn perform_all(&mut self, interface: &Interface, steps: &[Step]) -> Result<(), PartialFailure> {
        self.write(interface, steps, |kernel| kernel.perform_all(interface, steps))
    }

    fn set_refusals(&mut self, interface: &Interface, wanted: bool) -> Result<(), KernelError> {
        self.kernel.set_refusals(interface, wanted)
    }

    fn rollback(&mut self, interface: &Interface, step: &Step) -> Result<(), KernelError> {
        self.write(interface, slice::from_ref(step), |kernel| kernel.rollback(interface, step))
    }
}
