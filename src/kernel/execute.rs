//! Performs a change step by step, and rolls the change back if a step fails.

use thiserror::Error;
use tracing::{debug, warn};

use super::{Interface, Kernel, KernelError, PartialFailure};
use crate::plan::Step;

/// A failed change.
#[derive(Debug, Error)]
#[error("{error}{}", failed_rollback(.rollback))]
pub struct ChangeFailure {
    /// The error of the failed step.
    #[source]
    pub error: KernelError,
    /// The errors of the rollback. Empty: the interface has its old state again.
    pub rollback: Vec<KernelError>,
}

fn failed_rollback(rollback: &[KernelError]) -> String {
    if rollback.is_empty() {
        return String::new();
    }
    let errors: Vec<String> = rollback.iter().map(ToString::to_string).collect();
    format!("; the rollback failed too: {}", errors.join("; "))
}

/// Performs `steps` in order. If a step fails, rolls back the done steps, also a partly done step, in reverse order.
///
/// Steps that were not done are not rolled back, because their rollback could remove foreign objects. The rollback
/// continues after errors and reports all errors.
pub fn execute<K: Kernel + ?Sized>(kernel: &mut K, interface: &Interface, steps: &[Step]) -> Result<(), ChangeFailure> {
    execute_with(kernel, interface, steps, |_| {})
}

/// Like [`execute`], and calls `acknowledged` for each step after the kernel has acknowledged the step.
pub fn execute_with<K: Kernel + ?Sized>(
    kernel: &mut K,
    interface: &Interface,
    steps: &[Step],
    mut acknowledged: impl FnMut(&Step),
) -> Result<(), ChangeFailure> {
    let mut rest = steps;
    while let Some(step) = rest.first() {
        // The number of consecutive steps that take effect, which the kernel performs as one batch.
        let batch = rest.iter().take_while(|step| step.takes_effect()).count();
        let (now, later) = rest.split_at(batch.max(1));
        for step in now {
            debug!(interface = %interface.name, "{step}");
        }
        let performed = if batch > 0 {
            kernel.perform_all(interface, now)
        } else {
            let partial = |error| PartialFailure { error, done: vec![!step.is_one_message()] };
            kernel.perform(interface, step).map_err(partial)
        };
        if let Err(PartialFailure { error, done }) = performed {
            warn!(interface = %interface.name, %error, "A step failed; rolling back the change.");
            let before = &steps[..steps.len() - rest.len()];
            let begun = now.iter().zip(done).filter_map(|(step, done)| done.then_some(step));
            let begun: Vec<&Step> = before.iter().chain(begun).collect();
            let rollback = begun.into_iter().rev().filter_map(|step| kernel.rollback(interface, step).err()).collect();
            return Err(ChangeFailure { error, rollback });
        }
        now.iter().for_each(&mut acknowledged);
        rest = later;
    }
    Ok(())
}
