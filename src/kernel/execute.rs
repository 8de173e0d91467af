//! Running a change: every step in order, and back again if one fails.

use thiserror::Error;
use tracing::{debug, warn};

use super::{Interface, Kernel, KernelError};
use crate::plan::Step;

/// A change that could not be made.
#[derive(Debug, Error)]
#[error("{error}{}", rollback(.undo))]
pub struct Failed {
    /// The step that failed, and why.
    #[source]
    pub error: KernelError,
    /// What went wrong while the steps before it were undone; empty: the interface is as it was.
    pub undo: Vec<KernelError>,
}

fn rollback(undo: &[KernelError]) -> String {
    if undo.is_empty() {
        return String::new();
    }
    let errors: Vec<String> = undo.iter().map(ToString::to_string).collect();
    format!("; and undoing what was done failed as well: {}", errors.join("; "))
}

/// Performs `steps` in order. If one fails, those before it are undone, last first, and so is what may have been done of
/// it. (Undoing what was not done at all could remove what somebody else has put there in the meantime.)
///
/// Undoing never stops at its first error; all of them are reported.
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
    for (done, step) in steps.iter().enumerate() {
        debug!(interface = %interface.name, "{step}");
        if let Err(error) = kernel.perform(interface, step) {
            warn!(interface = %interface.name, %error, "A step failed; undoing the change.");
            let begun = if step.is_one_message() { &steps[..done] } else { &steps[..=done] };
            let undo = begun.iter().rev().filter_map(|step| kernel.undo(interface, step).err()).collect();
            return Err(Failed { error, undo });
        }
        acknowledged(step);
    }
    Ok(())
}
