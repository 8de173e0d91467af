//! [`Enforcer`] computes the steps of a change to the interface, writes them to the kernel, and reads the result back.

use std::{sync::Arc, thread, time::Duration};

use tracing::warn;

use super::watched::{Detail, Watched};
use crate::{
    agent::{
        Config, Now,
        dry_run::{self, DryRun, Sandbox},
    },
    kernel::{Interface, Kernel, execute, execute_with},
    plan::{Blocked, Change, Counters, Shaping, Tree, Wanted, diff, diff_beside_foreign},
    wire::{ApiError, ErrorCode, Onset},
};

/// The kernel of one node, the agent's config, and the sandbox for dry runs.
pub(super) struct Enforcer<K> {
    pub(super) config: Config,
    pub(super) kernel: Watched<K>,
    sandbox: Box<dyn Sandbox>,
    /// True once a dry run of shaping has succeeded.
    can_shape: bool,
    /// True once a dry run of rejections has succeeded.
    can_refuse: bool,
    /// True if unused classes remain.
    drains: bool,
}

/// The treatment of objects on the interface that other programs have installed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Foreign {
    /// Refuse the change.
    Refuse,
    /// Keep the foreign objects. For changes that only remove, and for rollbacks.
    Keep,
}

impl Foreign {
    pub(super) fn to_change(in_force: &Wanted, wanted: &Wanted) -> Self {
        if wanted.only_removes_from(in_force) { Self::Keep } else { Self::Refuse }
    }
}

/// A computed change.
#[derive(Debug)]
pub(super) struct Staged {
    /// The document in force after the change.
    pub(super) wanted: Wanted,
    pub(super) interface: Interface,
    before: Arc<Tree>,
    change: Change,
    foreign: Foreign,
    /// True if the new state rejects packets. The agent then answers these packets.
    rejects: bool,
}

impl Staged {
    /// The kernel's counters before the change.
    pub(super) fn counters(&self) -> &Counters {
        &self.before.counters
    }
}

/// The result of a write.
#[derive(Debug, Clone, Copy)]
pub(super) struct Written {
    /// The number of steps.
    pub(super) writes: usize,
    /// The times of the first and the last step that changed the treatment of packets; `None`: there was no such step.
    pub(super) onset: Option<Onset>,
}

impl<K: Kernel> Enforcer<K> {
    pub(super) fn new(config: Config, kernel: K, sandbox: impl Sandbox + 'static) -> Self {
        let kernel = Watched::new(kernel);
        Self { config, kernel, sandbox: Box::new(sandbox), can_shape: false, can_refuse: false, drains: false }
    }

    /// True if [`sweep`](Self::sweep) has work to do.
    pub(super) fn drains(&self) -> bool {
        self.drains
    }

    /// The steps to `wanted`, checked by a dry run. If `wanted` has no shaping, also a warning for each object of
    /// netemctl that the steps leave on the interface.
    pub(super) fn dry_run(
        &mut self,
        interface: &Interface,
        in_force: &Wanted,
        wanted: &Wanted,
    ) -> Result<(Change, Vec<String>), ApiError> {
        let tree = self.kernel.tree(interface, Detail::Structure)?;
        let shaping = wanted.shaping(&self.config.node, interface.rate);
        let change = steps_to(interface, shaping.as_ref(), &tree, Foreign::to_change(in_force, wanted))?;
        // The removal of all shaping adds no object, so the kernel's support for shaping need not be tried.
        if shaping.is_some() && !change.steps.is_empty() && !self.can_shape {
            dry_run::try_shaping(&*self.sandbox)?;
            self.can_shape = true;
        }
        if shaping.as_ref().is_some_and(Shaping::has_refusals) && !self.can_refuse {
            dry_run::try_refusals(&*self.sandbox)?;
            self.can_refuse = true;
        }
        let topologies = [in_force, wanted].map(|wanted| wanted.topology.as_ref());
        let dry_run = DryRun {
            tree: &tree,
            change: &change,
            shaping: shaping.as_ref(),
            node: &self.config.node,
            wanted,
            tables: topologies.into_iter().flatten().flat_map(|topology| topology.tables().clone()).collect(),
        };
        dry_run.check(&*self.sandbox)?;
        let left = if shaping.is_none() { tree.remaining(&interface.name) } else { Vec::new() };
        Ok((change, left))
    }

    /// The steps from the kernel's state to `wanted`.
    pub(super) fn change(
        &mut self,
        interface: &Interface,
        wanted: &Wanted,
        foreign: Foreign,
    ) -> Result<Change, ApiError> {
        let tree = self.kernel.tree(interface, Detail::Structure)?;
        steps_to(interface, wanted.shaping(&self.config.node, interface.rate).as_ref(), &tree, foreign)
    }

    /// Computes the change to `wanted`, and prepares answers to rejected packets. Writes no filter, class or qdisc.
    pub(super) fn stage(&mut self, interface: Interface, wanted: Wanted, foreign: Foreign) -> Result<Staged, ApiError> {
        if let Some(topology) = &wanted.topology {
            self.kernel.add_tables(topology.tables());
        }
        let shaping = wanted.shaping(&self.config.node, interface.rate);
        let mut before = self.kernel.tree(&interface, Detail::Structure)?;
        // The answer of a commit has the counters of the cuts that the change ends.
        let stays = |cut| shaping.as_ref().is_some_and(|shaping| shaping.cuts.contains(cut));
        if !before.counters.cuts.keys().all(stays) {
            drop(before);
            before = self.kernel.tree(&interface, Detail::Counters)?;
        }
        let change = steps_to(&interface, shaping.as_ref(), &before, foreign)?;
        let rejects = shaping.is_some_and(|shaping| shaping.has_refusals());
        if rejects {
            // If possible, the answers start before the first packet is cut, so that each packet gets an answer. The
            // call fails while the kernel module for the answers is not loaded. The first filter loads the module, and
            // `write` repeats the call.
            drop(self.kernel.set_refusals(&interface, true));
        }
        Ok(Staged { wanted, interface, before, change, foreign, rejects })
    }

    /// Reads the counters again, if possible.
    pub(super) fn count_again(&mut self, staged: &mut Staged) {
        if let Ok(tree) = self.kernel.tree(&staged.interface, Detail::Counters) {
            Arc::make_mut(&mut staged.before).counters = tree.counters.clone();
        }
    }

    /// Discards a computed change: stops the answers to rejected packets, unless the state before the change rejects
    /// packets too. Distribution tables stay.
    pub(super) fn discard(&mut self, staged: &Staged) {
        let rejects = staged.before.shaping().is_some_and(|shaping| shaping.has_refusals());
        if let Err(error) = self.kernel.set_refusals(&staged.interface, rejects) {
            warn!(%error, "Rejected packets may get no answer.");
        }
    }

    /// Writes a computed change, and reads the result back after `pause`. Rolls back on any failure.
    ///
    /// Other nodes on this machine write at the same time. Without the pause, the reading would delay their writes.
    pub(super) fn write(
        &mut self,
        staged: &Staged,
        clock: &dyn Fn() -> Now,
        pause: Duration,
    ) -> Result<Written, ApiError> {
        let Staged { wanted, interface, before, change, foreign, rejects } = staged;
        let mut onset: Option<Onset> = None;
        let written = execute_with(&mut self.kernel, interface, &change.steps, |step| {
            if step.takes_effect() {
                let last = clock().wall;
                onset = Some(Onset { first: onset.map_or(last, |onset| onset.first), last });
            }
        });
        // After an error, `execute_with` has rolled back the steps.
        written?;
        if onset.is_some() {
            thread::sleep(pause);
        }
        // After a write, everything is read back.
        if !change.steps.is_empty() {
            self.kernel.forget();
        }
        let why = match self.change(interface, wanted, *foreign) {
            Ok(left) if left.is_settled() => match self.kernel.set_refusals(interface, *rejects) {
                Ok(()) => {
                    self.drains = !(left.steps.is_empty() && left.draining.is_empty());
                    return Ok(Written { writes: change.steps.len(), onset });
                }
                Err(error) => error.to_string(),
            },
            Ok(left) => left.steps.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "),
            Err(error) => error.message,
        };
        // The kernel may not have the written state, so the rollback first reads the kernel's state.
        let code = match self.restore(interface, before) {
            Ok(()) => ErrorCode::Failed,
            Err(_) => ErrorCode::Broken,
        };
        Err(code.error(format!("the kernel accepted every step but reads back something else: {why}")))
    }

    /// Writes the tree `before` again.
    ///
    /// Does not stop the answers to rejected packets. They do no harm, because without filters no packet is rejected.
    fn restore(&mut self, interface: &Interface, before: &Tree) -> Result<(), ApiError> {
        let tree = self.kernel.read(interface)?;
        let change =
            diff_beside_foreign(before.shaping().as_ref(), &tree).map_err(|error| ErrorCode::Broken.error(error))?;
        Ok(execute(&mut self.kernel, interface, &change.steps)?)
    }

    /// Removes unused classes that no longer hold packets. Removes nothing while the interface differs from `in_force`.
    pub(super) fn sweep(&mut self, in_force: &Wanted) -> Result<(), ApiError> {
        let interface = self.own_interface(in_force)?;
        let change = self.change(&interface, in_force, Foreign::Keep)?;
        if change.is_settled() {
            execute(&mut self.kernel, &interface, &change.steps)?;
        }
        self.drains = !change.draining.is_empty();
        Ok(())
    }
}

/// The steps from an interface's tree to the wanted shaping.
fn steps_to(
    interface: &Interface,
    wanted: Option<&Shaping>,
    tree: &Tree,
    foreign: Foreign,
) -> Result<Change, ApiError> {
    let change = match foreign {
        Foreign::Refuse => diff(wanted, tree),
        Foreign::Keep => diff_beside_foreign(wanted, tree),
    };
    change.map_err(|blocked| {
        let name = &interface.name;
        let hint = match &blocked {
            Blocked::Foreign(_) => ", or use another interface",
            Blocked::TooManyProfiles(_) | Blocked::NoClassLeft(_) => "",
        };
        ErrorCode::Refused.error(format!("interface {name}: {blocked}{hint}"))
    })
}
