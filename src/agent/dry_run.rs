//! Dry runs: tries in a scratch network namespace whether the running kernel supports a change.
//!
//! The version of a kernel does not show which objects the kernel supports. A trial therefore installs a sample of the
//! agent's qdiscs, classes and filters on the loopback of the namespace, reads them back and compares them. The
//! namespace ends with the trial, so there is nothing to clean up.
//!
//! The samples have only delays and cuts (filters of a partition). [`DryRun`] tries the other netem parameters of each
//! change.

mod links;

use std::{fmt, io, net::IpAddr, sync::Arc};

use thiserror::Error;

pub(super) use self::links::{DryRun, Tried};
use crate::{
    kernel::{Interface, Kernel, KernelError, Rtnl, execute, in_new_network},
    plan::{Answer, Cut, Direction, LeafSpec, Port, Profile, Protocol, Shaping, Step, Traffic, diff},
    topology::Delay,
    wire::{ApiError, ErrorCode},
};

/// A place for trials: a kernel like the node's, and an interface without traffic.
pub trait Sandbox: Send {
    /// Runs a trial on an interface that exists only for the trial.
    fn run(&self, trial: &Trial<'_>) -> Result<(), TrialError>;
}

/// Steps on the interface, and a check of the result.
pub type Trial<'t> = dyn Fn(&mut dyn Kernel, &Interface) -> Result<(), TrialError> + Sync + 't;

/// The failure of a trial.
#[derive(Debug, Error)]
pub enum TrialError {
    /// The kernel refused a step.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The kernel accepted all steps, but the objects read back differ from those installed.
    #[error("it accepts them and reads back something else")]
    NotReadBack,
    /// The agent cannot create a network namespace.
    #[error("{0}")]
    NoNamespace(io::Error),
}

/// The sandbox of an agent: the loopback of a new network namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ScratchNamespace {
    /// The agent itself creates the namespace. Needs `CAP_SYS_ADMIN`.
    Direct,
    /// A child process creates the namespace in a user namespace.
    InUserNamespace,
}

impl ScratchNamespace {
    /// The kind of namespace that this agent can create. Prefers [`Self::Direct`].
    ///
    /// A new interface in the node's own network namespace is no alternative. Other programs would see the interface,
    /// and an agent killed by `kill -9` would not remove it.
    pub(super) fn find() -> Result<Self, io::Error> {
        let add_root = |kernel: &mut dyn Kernel, loopback: &Interface| Ok(kernel.perform(loopback, &Step::AddRoot)?);
        match in_new_network(|| ()) {
            Ok(()) => Ok(Self::Direct),
            // A security module may permit a user namespace and deny all work in it, so one step is tried.
            Err(_) => match Self::InUserNamespace.run(&add_root) {
                Err(TrialError::NoNamespace(error)) => Err(error),
                Err(TrialError::Kernel(error)) if error.is_permission() => Err(io::Error::other(error)),
                _ => Ok(Self::InUserNamespace),
            },
        }
    }
}

impl Sandbox for ScratchNamespace {
    fn run(&self, trial: &Trial<'_>) -> Result<(), TrialError> {
        let try_in = |kernel: io::Result<Rtnl>| {
            let mut kernel = kernel.map_err(KernelError::Socket)?;
            let loopback = kernel.interface(&"lo".parse().map_err(|_| TrialError::NotReadBack)?)?;
            trial(&mut kernel, &loopback)
        };
        match self {
            Self::Direct => in_new_network(|| try_in(Rtnl::open())).map_err(TrialError::NoNamespace)?,
            Self::InUserNamespace => try_in(Ok(Rtnl::open_in_new_namespace().map_err(TrialError::NoNamespace)?)),
        }
    }
}

impl fmt::Display for ScratchNamespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Direct => "a network namespace",
            Self::InUserNamespace => "a network namespace of a user namespace",
        })
    }
}

/// Checks that the kernel has the qdiscs, classifiers and actions for shaping, and for cuts that drop packets silently.
pub(super) fn try_shaping(sandbox: &dyn Sandbox) -> Result<(), ApiError> {
    let modules = "sch_htb, sch_netem, sch_ingress, cls_flower and act_gact";
    try_sample(sandbox, Answer::Silence, "shape", modules)
}

/// Checks that the kernel can also pass rejected packets to the agent, which answers them.
pub(super) fn try_refusals(sandbox: &dyn Sandbox) -> Result<(), ApiError> {
    try_sample(sandbox, Answer::Refusal, "pass rejected packets to the agent", "act_sample and psample")
}

fn try_sample(sandbox: &dyn Sandbox, answer: Answer, purpose: &str, modules: &str) -> Result<(), ApiError> {
    let tried = sandbox.run(&|kernel, interface| try_on(kernel, interface, &sample(answer)));
    tried.map_err(|error| match error {
        TrialError::Kernel(error) if error.is_unsupported() => ErrorCode::Unsupported
            .error(format!("this kernel cannot {purpose}: {error}; it needs the modules {modules}")),
        TrialError::Kernel(error) => error.into(),
        TrialError::NotReadBack => ErrorCode::Unsupported
            .error("this kernel accepts the objects that netemctl installs but reads back something else"),
        TrialError::NoNamespace(error) => no_namespace(&error),
    })
}

pub(super) fn no_namespace(error: &io::Error) -> ApiError {
    ErrorCode::Permission.error(format!(
        "cannot create a network namespace to try the kernel in: {error}; the agent needs user namespaces (sysctls \
             user.max_user_namespaces, kernel.unprivileged_userns_clone, kernel.apparmor_restrict_unprivileged_userns) \
             or CAP_SYS_ADMIN"
    ))
}

fn try_on(kernel: &mut dyn Kernel, interface: &Interface, sample: &Shaping) -> Result<(), TrialError> {
    let tree = kernel.observe(interface)?;
    let change = diff(Some(sample), &tree).map_err(|_| TrialError::NotReadBack)?;
    execute(kernel, interface, &change.steps).map_err(|failed| failed.error)?;
    let tree = kernel.observe(interface)?;
    if tree.shaping().as_ref() == Some(sample) { Ok(()) } else { Err(TrialError::NotReadBack) }
}

/// A sample with one address of each family. Each address has a delay, and cuts with `answer` in both directions for
/// each kind of traffic.
fn sample(answer: Answer) -> Shaping {
    let spec = LeafSpec::of(Profile::plain(Delay::from_nanos(1_234_567), 1_000), []);
    let addresses = [IpAddr::from([192, 0, 2, 1]), IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1])];
    let port = Port { protocol: Protocol::Tcp, number: 1 };
    let traffics = [
        Traffic::All,
        Traffic::ToPort { port },
        Traffic::FromPort { port },
        Traffic::FragmentsOf { protocol: port.protocol },
    ];
    let mut cuts = Vec::new();
    for address in addresses {
        for direction in [Direction::Egress, Direction::Ingress] {
            cuts.extend(traffics.map(|traffic| Cut { direction, address, traffic, answer }));
        }
    }
    Shaping {
        leaf_specs: addresses.map(|address| (address, Arc::clone(&spec))).into(),
        cuts: cuts.into_iter().collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake_kernel::FakeKernel;

    #[test]
    fn a_kernel_with_all_modules_reads_back_both_samples() {
        let mut kernel = FakeKernel::new("lo".parse().unwrap());
        assert!(try_shaping(&kernel).is_ok());
        assert!(try_refusals(&kernel).is_ok());
        kernel.fails_at = Some(0);
        let interface = kernel.interface.clone();
        let tried = try_on(&mut kernel, &interface, &sample(Answer::Silence));
        assert!(matches!(tried, Err(TrialError::Kernel(_))));
    }
}
