//! [`Enforcer`] computes the steps of a change to the interface, writes them to the kernel, and reads the result back.

use std::{sync::Arc, thread, time::Duration};

use tracing::warn;

use super::{
    shared::Shared,
    watched::{Detail, Watched},
};
use crate::{
    agent::{
        Config, Now, Via,
        dry_run::{self, DryRun, Sandbox, Tried},
        facts::OwnFacts,
    },
    kernel::{Interface, Kernel, KernelError, execute, execute_with},
    plan::{Blocked, Change, Counters, LineRate, Shaping, Tree, Wanted, diff, diff_beside_foreign},
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
    /// The preparation that is in the kernel; `None`: there is none.
    built: Option<Built>,
    /// The trials of leaves that have succeeded.
    tried: Tried,
    /// The last computed shaping, with its document and line rate.
    shaping: Option<(Shared, LineRate, Option<Arc<Shaping>>)>,
}

/// The preparation of a computed change, written to the kernel. No packet uses these objects yet.
struct Built {
    interface: Interface,
    change: Arc<Change>,
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
    pub(super) wanted: Shared,
    pub(super) interface: Interface,
    before: Arc<Tree>,
    change: Arc<Change>,
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
        Self {
            config,
            kernel,
            sandbox: Box::new(sandbox),
            can_shape: false,
            can_refuse: false,
            drains: false,
            built: None,
            tried: Tried::default(),
            shaping: None,
        }
    }

    /// The facts about the host that need the kernel and the sandbox.
    pub(super) fn facts(&mut self, via: Via) -> OwnFacts {
        let trials = [self.try_shaping(), self.try_refusals()];
        OwnFacts::read(&self.config, &mut self.kernel, trials, via)
    }

    /// True if [`sweep`](Self::sweep) has work to do.
    pub(super) fn drains(&self) -> bool {
        self.drains
    }

    /// The shaping of the node. Computed once for all steps of a change.
    pub(super) fn shaping(&mut self, wanted: &Shared, rate: LineRate) -> Option<Arc<Shaping>> {
        if let Some((document, known_rate, shaping)) = &self.shaping
            && document.is(wanted)
            && *known_rate == rate
        {
            return shaping.clone();
        }
        let shaping = wanted.shaping(&self.config.node, rate).map(Arc::new);
        self.shaping = Some((wanted.clone(), rate, shaping.clone()));
        shaping
    }

    /// Frees what only a change under way needs.
    pub(super) fn rest(&mut self) {
        self.shaping = None;
    }

    /// The steps to `wanted`, checked by a dry run. If `wanted` has no shaping, also a warning for each object of
    /// netemctl that the steps leave on the interface.
    pub(super) fn dry_run(
        &mut self,
        interface: &Interface,
        in_force: &Wanted,
        wanted: &Shared,
    ) -> Result<(Change, Vec<String>), ApiError> {
        let tree = self.observe(interface, Detail::Structure)?;
        let shaping = self.shaping(wanted, interface.rate);
        let shaping = shaping.as_deref();
        let change = steps_to(interface, shaping, &tree, Foreign::to_change(in_force, wanted))?;
        // The removal of all shaping adds no object, so the kernel's support for shaping need not be tried.
        if shaping.is_some() && !change.steps.is_empty() {
            self.try_shaping()?;
        }
        if shaping.is_some_and(Shaping::has_refusals) {
            self.try_refusals()?;
        }
        let topologies = [in_force, wanted].map(|wanted| wanted.topology.as_ref());
        let dry_run = DryRun {
            tree: &tree,
            change: &change,
            shaping,
            node: &self.config.node,
            wanted,
            tables: topologies.into_iter().flatten().flat_map(|topology| topology.tables().clone()).collect(),
        };
        dry_run.check(&*self.sandbox, &mut self.tried)?;
        let left = if shaping.is_none() { tree.remaining(&interface.name) } else { Vec::new() };
        Ok((change, left))
    }

    /// Tries once whether the kernel can shape.
    fn try_shaping(&mut self) -> Result<(), ApiError> {
        if !self.can_shape {
            dry_run::try_shaping(&*self.sandbox)?;
            self.can_shape = true;
        }
        Ok(())
    }

    /// Tries once whether the kernel can pass rejected packets to the agent.
    fn try_refusals(&mut self) -> Result<(), ApiError> {
        if !self.can_refuse {
            dry_run::try_refusals(&*self.sandbox)?;
            self.can_refuse = true;
        }
        Ok(())
    }

    /// The state of an interface, without the preparation of a computed change.
    pub(super) fn observe(&mut self, interface: &Interface, detail: Detail) -> Result<Arc<Tree>, KernelError> {
        let tree = self.kernel.tree(interface, detail)?;
        Ok(match &self.built {
            Some(built) if built.interface.index == interface.index => {
                Arc::new(Arc::unwrap_or_clone(tree).before(built.change.preparation()))
            }
            _ => tree,
        })
    }

    /// The steps from the kernel's state to `wanted`.
    pub(super) fn change(
        &mut self,
        interface: &Interface,
        wanted: &Shared,
        foreign: Foreign,
    ) -> Result<Change, ApiError> {
        let tree = self.observe(interface, Detail::Structure)?;
        steps_to(interface, self.shaping(wanted, interface.rate).as_deref(), &tree, foreign)
    }

    /// Computes the change to `wanted`, and prepares answers to rejected packets. Writes no filter, class or qdisc, and
    /// removes the preparation of an earlier change.
    pub(super) fn stage(&mut self, interface: Interface, wanted: Shared, foreign: Foreign) -> Result<Staged, ApiError> {
        if let Some(topology) = &wanted.topology {
            self.kernel.add_tables(topology.tables());
        }
        self.remove_preparation();
        let shaping = self.shaping(&wanted, interface.rate);
        let mut before = self.kernel.tree(&interface, Detail::Structure)?;
        // The answer of a commit has the counters of the cuts that the change ends.
        let stays = |cut| shaping.as_ref().is_some_and(|shaping| shaping.cuts.contains(cut));
        if !before.counters.cuts.keys().all(stays) {
            drop(before);
            before = self.kernel.tree(&interface, Detail::Counters)?;
        }
        let change = steps_to(&interface, shaping.as_deref(), &before, foreign)?;
        let rejects = shaping.is_some_and(|shaping| shaping.has_refusals());
        if rejects {
            // If possible, the answers start before the first packet is cut, so that each packet gets an answer. The
            // call fails while the kernel module for the answers is not loaded. The first filter loads the module, and
            // `write` repeats the call.
            drop(self.kernel.set_refusals(&interface, true));
        }
        Ok(Staged { wanted, interface, before, change: Arc::new(change), foreign, rejects })
    }

    /// Writes the preparation of a computed change. Only the switch and the cleanup remain for [`write`](Self::write).
    pub(super) fn write_preparation(&mut self, staged: &Staged) -> Result<(), ApiError> {
        self.remove_preparation();
        let Staged { interface, change, .. } = staged;
        execute(&mut self.kernel, interface, change.preparation())?;
        self.built = Some(Built { interface: interface.clone(), change: Arc::clone(change) });
        Ok(())
    }

    /// Removes the preparation of a computed change, if any. Returns the errors.
    pub(super) fn remove_preparation(&mut self) -> Vec<KernelError> {
        let Some(Built { interface, change }) = self.built.take() else { return Vec::new() };
        change.preparation().iter().rev().filter_map(|step| self.kernel.rollback(&interface, step).err()).collect()
    }

    fn is_prepared(&self, staged: &Staged) -> bool {
        self.built.as_ref().is_some_and(|built| Arc::ptr_eq(&built.change, &staged.change))
    }

    /// Reads the counters again, if possible.
    pub(super) fn count_again(&mut self, staged: &mut Staged) {
        if let Ok(tree) = self.observe(&staged.interface, Detail::Counters) {
            Arc::make_mut(&mut staged.before).counters = tree.counters.clone();
        }
    }

    /// Discards a computed change: removes its preparation, and stops the answers to rejected packets, unless the state
    /// before the change rejects packets too. Distribution tables stay.
    ///
    /// False if a part of the preparation is still in the kernel.
    pub(super) fn discard(&mut self, staged: &Staged) -> bool {
        let errors = if self.is_prepared(staged) { self.remove_preparation() } else { Vec::new() };
        for error in &errors {
            warn!(%error, "A part of a cancelled change is still on the interface, without effect.");
        }
        let rejects = staged.before.shaping().is_some_and(|shaping| shaping.has_refusals());
        if let Err(error) = self.kernel.set_refusals(&staged.interface, rejects) {
            warn!(%error, "Rejected packets may get no answer.");
        }
        errors.is_empty()
    }

    /// Writes a computed change, and reads the result back. Rolls back on any failure.
    ///
    /// Pauses after the steps that take effect. Other nodes on this machine write at the same time. Without the pause,
    /// the cleanup and the reading would delay their writes.
    pub(super) fn write(
        &mut self,
        staged: &Staged,
        clock: &dyn Fn() -> Now,
        pause: Duration,
    ) -> Result<Written, ApiError> {
        let Staged { wanted, interface, before, change, foreign, rejects } = staged;
        let mut onset: Option<Onset> = None;
        if !self.is_prepared(staged) {
            self.write_preparation(staged)?;
        }
        let (preparation, switch, _) = change.phases();
        let steps = &change.steps[preparation.len()..];
        let mut left = switch.len();
        let written = execute_with(&mut self.kernel, interface, steps, |step| {
            if step.takes_effect() {
                let last = clock().wall;
                onset = Some(Onset { first: onset.map_or(last, |onset| onset.first), last });
                left -= 1;
                if left == 0 {
                    thread::sleep(pause);
                }
            }
        });
        if let Err(mut failure) = written {
            // `execute_with` has rolled back its own steps.
            failure.rollback.extend(self.remove_preparation());
            return Err(failure.into());
        }
        self.built = None;
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
    pub(super) fn sweep(&mut self, in_force: &Shared) -> Result<(), ApiError> {
        self.remove_preparation();
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
