//! The agent's hand on its interface: what has to be written to the kernel, writing it, and reading it back.

use std::{thread, time::Duration};

use tracing::warn;

use super::guard;
use crate::{
    agent::{
        Config, Now, Via,
        dry_run::{self, DryRun, Sandbox},
    },
    kernel::{Interface, Kernel, execute, execute_with},
    plan::{Blocked, Change, Counters, Shaping, Tree, Wanted, diff, diff_beside_foreign},
    wire::{ApiError, ErrorCode, Onset},
};

/// A kernel, and whose part of a document it is made to do.
pub(super) struct Enforcer<K> {
    pub(super) config: Config,
    pub(super) kernel: K,
    /// Where the kernel is tried out.
    sandbox: Box<dyn Sandbox>,
    /// Whether it has been tried and found able to shape.
    can_shape: bool,
    /// Whether it has been tried and found able to hand over what is to be refused.
    can_refuse: bool,
    /// Whether classes are left that nothing uses any more.
    drains: bool,
}

/// What foreign objects on the interface mean for a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Foreign {
    /// The change is refused.
    Refuses,
    /// They stay where they are: the change asks for no more than there was.
    Stays,
}

impl Foreign {
    /// For a change on a node.
    pub(super) fn to_change(in_force: &Wanted, wanted: &Wanted) -> Self {
        if wanted.only_removes_from(in_force) { Self::Stays } else { Self::Refuses }
    }
}

/// A change that is computed, and only has to be written.
#[derive(Debug)]
pub(super) struct Staged {
    /// What is in force then.
    pub(super) wanted: Wanted,
    interface: Interface,
    before: Tree,
    change: Change,
    foreign: Foreign,
    /// Whether some of what is cut is to be answered with refusals.
    refuses: bool,
}

impl Staged {
    /// The interface that it is for.
    pub(super) fn interface(&self) -> &Interface {
        &self.interface
    }

    /// What the kernel had counted when it was looked at last.
    pub(super) fn counters(&self) -> &Counters {
        &self.before.counters
    }
}

/// What writing a change came to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Written {
    /// How many steps it took.
    pub(super) writes: usize,
    /// When it took effect.
    pub(super) onset: Option<Onset>,
}

impl<K: Kernel> Enforcer<K> {
    pub(super) fn new(config: Config, kernel: K, sandbox: impl Sandbox + 'static) -> Self {
        Self { config, kernel, sandbox: Box::new(sandbox), can_shape: false, can_refuse: false, drains: false }
    }

    /// Whether there is something to [`sweep`](Self::sweep).
    pub(super) fn drains(&self) -> bool {
        self.drains
    }

    /// The interface that `wanted` has for this node, if it may be touched.
    pub(super) fn interface(&mut self, in_force: &Wanted, wanted: &Wanted, via: &Via) -> Result<Interface, ApiError> {
        guard::admit(&self.config, &mut self.kernel, in_force, wanted, via)
    }

    /// The same for what only takes off what was put there, or is no more than what was admitted before.
    pub(super) fn own_interface(&mut self, wanted: &Wanted) -> Result<Interface, ApiError> {
        guard::admit_own(&self.config, &mut self.kernel, wanted, wanted)
    }

    /// The steps from what the kernel has to what `wanted` asks of this node, of which every one is found to be possible
    /// here; and what of ours has to stay. `in_force` says what it has.
    pub(super) fn dry_run(
        &mut self,
        interface: &Interface,
        in_force: &Wanted,
        wanted: &Wanted,
    ) -> Result<(Change, Vec<String>), ApiError> {
        let tree = self.observe(interface)?;
        let shaping = wanted.shaping(&self.config.node, interface.rate);
        let change = way(interface, shaping.as_ref(), &tree, Foreign::to_change(in_force, wanted))?;
        // To take something off needs no trial.
        if shaping.is_some() && !change.steps.is_empty() && !self.can_shape {
            dry_run::try_shaping(&*self.sandbox)?;
            self.can_shape = true;
        }
        if shaping.as_ref().is_some_and(Shaping::has_refusals) && !self.can_refuse {
            dry_run::try_refusals(&*self.sandbox)?;
            self.can_refuse = true;
        }
        let topologies = [in_force, wanted].map(|wanted| wanted.topology.as_ref());
        let candidate = DryRun {
            tree: &tree,
            change: &change,
            shaping: shaping.as_ref(),
            node: &self.config.node,
            wanted,
            tables: topologies.into_iter().flatten().flat_map(|topology| topology.tables().clone()).collect(),
        };
        candidate.check(&*self.sandbox)?;
        let left = if shaping.is_none() { tree.left(&interface.name) } else { Vec::new() };
        Ok((change, left))
    }

    /// The steps from what the kernel has to what `wanted` asks of this node.
    pub(super) fn change(
        &mut self,
        interface: &Interface,
        wanted: &Wanted,
        foreign: Foreign,
    ) -> Result<Change, ApiError> {
        let tree = self.observe(interface)?;
        way(interface, wanted.shaping(&self.config.node, interface.rate).as_ref(), &tree, foreign)
    }

    fn observe(&mut self, interface: &Interface) -> Result<Tree, ApiError> {
        Ok(self.kernel.observe(interface)?)
    }

    /// Computes what has to be written for the kernel to do what `wanted` asks; writes nothing.
    pub(super) fn stage(&mut self, interface: Interface, wanted: Wanted, foreign: Foreign) -> Result<Staged, ApiError> {
        if let Some(topology) = &wanted.topology {
            self.kernel.add_tables(topology.tables());
        }
        let before = self.observe(&interface)?;
        let shaping = wanted.shaping(&self.config.node, interface.rate);
        let change = way(&interface, shaping.as_ref(), &before, foreign)?;
        let refuses = shaping.is_some_and(|shaping| shaping.has_refusals());
        if refuses {
            // Before the first packet is cut, so that none goes without an answer. Too early where the kernel's module
            // comes with the first filter only; then it is made up for when that is written.
            drop(self.kernel.set_refusals(&interface, true));
        }
        Ok(Staged { wanted, interface, before, change, foreign, refuses })
    }

    /// Reads once more what the kernel has counted, if it can be read.
    pub(super) fn count_again(&mut self, staged: &mut Staged) {
        if let Ok(Tree { counters, .. }) = self.observe(&staged.interface) {
            staged.before.counters = counters;
        }
    }

    /// Ends what staging has begun of a change that is not to be after all.
    pub(super) fn forget(&mut self, staged: &Staged) {
        let refuses = staged.before.shaping().is_some_and(|shaping| shaping.has_refusals());
        if let Err(error) = self.kernel.set_refusals(&staged.interface, refuses) {
            warn!(%error, "What is cut may go without its refusals.");
        }
    }

    /// Writes what is staged, reads it back, and answers what it refuses. On any failure, what was written is rolled back.
    pub(super) fn strike(&mut self, staged: &Staged, clock: &dyn Fn() -> Now) -> Result<Written, ApiError> {
        self.strike_with_others(staged, clock, Duration::ZERO)
    }

    /// The same where other nodes write at the same instant, some of them perhaps on this very machine: it is `pause`
    /// before anything is read back, so that their writes need not wait for that.
    pub(super) fn strike_with_others(
        &mut self,
        staged: &Staged,
        clock: &dyn Fn() -> Now,
        pause: Duration,
    ) -> Result<Written, ApiError> {
        let Staged { wanted, interface, before, change, foreign, refuses } = staged;
        let mut onset: Option<Onset> = None;
        let written = execute_with(&mut self.kernel, interface, &change.steps, |step| {
            if step.takes_effect() {
                let last = clock().wall;
                onset = Some(Onset { first: onset.map_or(last, |onset| onset.first), last });
            }
        });
        written?;
        if onset.is_some() {
            thread::sleep(pause);
        }
        let why = match self.change(interface, wanted, *foreign) {
            Ok(left) if left.is_settled() => match self.kernel.set_refusals(interface, *refuses) {
                Ok(()) => {
                    self.drains = !(left.steps.is_empty() && left.draining.is_empty());
                    return Ok(Written { writes: change.steps.len(), onset });
                }
                Err(error) => error.to_string(),
            },
            Ok(left) => left.steps.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "),
            Err(error) => error.message,
        };
        // What was read back is not what was written, so the way back is computed anew from what there is.
        let code = match self.restore(interface, before) {
            Ok(()) => ErrorCode::Failed,
            Err(_) => ErrorCode::Broken,
        };
        Err(ApiError::new(code, format!("the kernel took every step but does not have what is wanted: {why}")))
    }

    /// Whoever answers refusals by now may go on: where there are none, it has nothing to do.
    fn restore(&mut self, interface: &Interface, before: &Tree) -> Result<(), ApiError> {
        let tree = self.observe(interface)?;
        let change = diff_beside_foreign(before.shaping().as_ref(), &tree)
            .map_err(|error| ApiError::new(ErrorCode::Broken, error))?;
        Ok(execute(&mut self.kernel, interface, &change.steps)?)
    }

    /// Removes the classes that nothing uses any more and that have drained.
    pub(super) fn sweep(&mut self, in_force: &Wanted) -> Result<(), ApiError> {
        let interface = self.own_interface(in_force)?;
        let change = self.change(&interface, in_force, Foreign::Stays)?;
        if change.is_settled() {
            execute(&mut self.kernel, &interface, &change.steps)?;
        }
        self.drains = !change.draining.is_empty();
        Ok(())
    }
}

/// The steps from what an interface has to what is wanted of it.
fn way(interface: &Interface, wanted: Option<&Shaping>, tree: &Tree, foreign: Foreign) -> Result<Change, ApiError> {
    let change = match foreign {
        Foreign::Refuses => diff(wanted, tree),
        Foreign::Stays => diff_beside_foreign(wanted, tree),
    };
    change.map_err(|blocked| {
        let name = &interface.name;
        let hint = match &blocked {
            Blocked::Foreign(_) => ", or use another interface",
            Blocked::TooManyProfiles(_) | Blocked::NoClassLeft(_) => "",
        };
        ApiError::new(ErrorCode::Refused, format!("interface {name}: {blocked}{hint}"))
    })
}
