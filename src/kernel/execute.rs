//! Running a change: every step in order, and back again if one fails.

use thiserror::Error;
use tracing::{debug, warn};

use super::{Interface, Kernel, KernelError, Partly};
use crate::plan::Step;

/// A change that could not be made.
#[derive(Debug, Error)]
#[error("{error}{}", failed_rollback(.rollback))]
pub struct Failed {
    /// The step that failed, and why.
    #[source]
    pub error: KernelError,
    /// What went wrong while the steps before it were rolled back; empty: the interface is as it was.
    pub rollback: Vec<KernelError>,
}

fn failed_rollback(rollback: &[KernelError]) -> String {
    if rollback.is_empty() {
        return String::new();
    }
    let errors: Vec<String> = rollback.iter().map(ToString::to_string).collect();
    format!("; and rolling back what was done failed as well: {}", errors.join("; "))
}

/// Performs `steps` in order. If one fails, those before it are rolled back, last first, and so is what may have been done of
/// it. (Rolling back what was not done at all could remove what somebody else has put there in the meantime.)
///
/// Rolling back never stops at its first error; all of them are reported.
pub fn execute<K: Kernel + ?Sized>(kernel: &mut K, interface: &Interface, steps: &[Step]) -> Result<(), Failed> {
    execute_and_tell(kernel, interface, steps, |_| {})
}

/// The same; `acknowledged` hears of every step as soon as the kernel has done it.
pub fn execute_and_tell<K: Kernel + ?Sized>(
    kernel: &mut K,
    interface: &Interface,
    steps: &[Step],
    mut acknowledged: impl FnMut(&Step),
) -> Result<(), Failed> {
    let mut rest = steps;
    while let Some(step) = rest.first() {
        let run = rest.iter().take_while(|step| matches!(step, Step::Cut { .. } | Step::Uncut { .. })).count();
        let (now, later) = rest.split_at(run.max(1));
        for step in now {
            debug!(interface = %interface.name, "{step}");
        }
        let performed = if run > 0 {
            kernel.perform_all(interface, now)
        } else {
            let partly = |error| Partly { error, done: vec![!step.is_one_message()] };
            kernel.perform(interface, step).map_err(partly)
        };
        if let Err(Partly { error, done }) = performed {
            warn!(interface = %interface.name, %error, "A step failed; rolling back the change.");
            let before = &steps[..steps.len() - rest.len()];
            let begun = now.iter().zip(done).filter_map(|(step, done)| done.then_some(step));
            let begun: Vec<&Step> = before.iter().chain(begun).collect();
            let rollback = begun.into_iter().rev().filter_map(|step| kernel.rollback(interface, step).err()).collect();
            return Err(Failed { error, rollback });
        }
        now.iter().for_each(&mut acknowledged);
        rest = later;
    }
    Ok(())
}
