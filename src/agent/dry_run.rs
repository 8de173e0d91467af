//! What the running kernel can do, tried out rather than inferred from its version.
//!
//! A specimen of what an agent installs goes on the loopback of a scratch network namespace, is read back and
//! compared. The namespace ends with the trial, so there is nothing to clean up. What links of more than a
//! delay need is tried for each change, by [`links`].

mod links;

use std::{fmt, io, net::IpAddr};

pub(super) use self::links::Candidate;

use crate::{
    kernel::{Interface, Kernel, KernelError, Rtnl, execute, in_new_network},
    plan::{Answer, Cut, Direction, LeafSpec, Port, Profile, Protocol, Shaping, Step, Traffic, diff},
    topology::Delay,
    wire::{ApiError, ErrorCode},
};

/// Where a kernel like the node's is tried out.
pub(super) trait Bench: Send {
    /// Runs a trial on an interface that carries nothing, and that is gone afterwards.
    fn try_out(&self, trial: &Trial<'_>) -> Result<(), Obstacle>;
}

/// What is done to the interface, and whether it came to what it should.
pub(super) type Trial<'t> = dyn Fn(&mut dyn Kernel, &Interface) -> Result<(), Obstacle> + Sync + 't;

/// Why a trial failed.
#[derive(Debug)]
pub(super) enum Obstacle {
    /// The kernel refused a step.
    Kernel(KernelError),
    /// It took all steps, and reads back something else.
    NotReadBack,
    /// There is no interface to try on.
    NoBench(io::Error),
}

impl From<KernelError> for Obstacle {
    fn from(error: KernelError) -> Self {
        Self::Kernel(error)
    }
}

/// The node's own kernel, by the loopback of a new network namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ScratchNamespace {
    /// That the agent makes, which takes `CAP_SYS_ADMIN`.
    Own,
    /// That a child process makes in a user namespace.
    Lent,
}

impl ScratchNamespace {
    /// The kind that the agent can have.
    ///
    /// Never an interface in the node's own network instead: others would see it come and go, and a `kill -9` leave it
    /// there.
    pub(super) fn find() -> Result<Self, io::Error> {
        match in_new_network(|| ()) {
            Ok(()) => Ok(Self::Own),
            // A security module may let everybody have a user namespace, and nobody do anything there.
            Err(_) => match Self::Lent.try_out(&|kernel, loopback| Ok(kernel.perform(loopback, &Step::AddRoot)?)) {
                Err(Obstacle::NoBench(error)) => Err(error),
                Err(Obstacle::Kernel(error)) if error.is_permission() => Err(io::Error::other(error)),
                _ => Ok(Self::Lent),
            },
        }
    }
}

impl Bench for ScratchNamespace {
    fn try_out(&self, trial: &Trial<'_>) -> Result<(), Obstacle> {
        let try_in = |kernel: io::Result<Rtnl>| {
            let mut kernel = kernel.map_err(KernelError::Socket)?;
            let loopback = kernel.interface(&"lo".parse().map_err(|_| Obstacle::NotReadBack)?)?;
            trial(&mut kernel, &loopback)
        };
        match self {
            Self::Own => in_new_network(|| try_in(Rtnl::open())).map_err(Obstacle::NoBench)?,
            Self::Lent => try_in(Ok(Rtnl::open_in_new_namespace().map_err(Obstacle::NoBench)?)),
        }
    }
}

impl fmt::Display for ScratchNamespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Own => "a network namespace",
            Self::Lent => "a network namespace of a user namespace",
        })
    }
}

/// Checks that this kernel has the qdiscs, classifiers and actions that shaping and silent cuts need.
pub(super) fn try_shaping(bench: &dyn Bench) -> Result<(), ApiError> {
    let modules = "sch_htb, sch_netem, sch_ingress, cls_flower and act_gact";
    try_specimen(bench, &specimen(Answer::Silence), "shape", modules)
}

/// Checks that it can hand over what is to be refused as well.
pub(super) fn try_refusals(bench: &dyn Bench) -> Result<(), ApiError> {
    try_specimen(bench, &specimen(Answer::Refusal), "hand over what is to be rejected", "act_sample and psample")
}

fn try_specimen(bench: &dyn Bench, specimen: &Shaping, purpose: &str, modules: &str) -> Result<(), ApiError> {
    let tried = bench.try_out(&|kernel, interface| try_on(kernel, interface, specimen));
    tried.map_err(|obstacle| match obstacle {
        Obstacle::Kernel(error) if error.is_unsupported() => ApiError::new(
            ErrorCode::Unsupported,
            format!("this kernel cannot {purpose}: {error}; it needs the modules {modules}"),
        ),
        Obstacle::Kernel(error) => error.into(),
        Obstacle::NotReadBack => ApiError::new(
            ErrorCode::Unsupported,
            "this kernel accepts what netemctl installs but reads back something else",
        ),
        Obstacle::NoBench(error) => no_bench(&error),
    })
}

pub(super) fn no_bench(error: &io::Error) -> ApiError {
    ApiError::new(
        ErrorCode::Permission,
        format!(
            "cannot make a network namespace to try the kernel in: {error}; the agent needs user namespaces (sysctls \
             user.max_user_namespaces, kernel.unprivileged_userns_clone, kernel.apparmor_restrict_unprivileged_userns) \
             or CAP_SYS_ADMIN"
        ),
    )
}

fn try_on(kernel: &mut dyn Kernel, interface: &Interface, specimen: &Shaping) -> Result<(), Obstacle> {
    let tree = kernel.observe(interface)?;
    let change = diff(Some(specimen), &tree).map_err(|_| Obstacle::NotReadBack)?;
    execute(kernel, interface, &change.steps).map_err(|failed| failed.error)?;
    let tree = kernel.observe(interface)?;
    if tree.shaping().as_ref() == Some(specimen) { Ok(()) } else { Err(Obstacle::NotReadBack) }
}

fn cuts(addresses: impl IntoIterator<Item = IpAddr>, answer: Answer) -> impl Iterator<Item = Cut> {
    let port = Port { protocol: Protocol::Tcp, number: 1 };
    let traffics = [Traffic::All, Traffic::ToPort(port), Traffic::FromPort(port), Traffic::FragmentsOf(port.protocol)];
    addresses.into_iter().flat_map(move |address| {
        [Direction::Egress, Direction::Ingress]
            .into_iter()
            .flat_map(move |direction| traffics.map(|traffic| Cut { direction, address, traffic, answer }))
    })
}

fn specimen(answer: Answer) -> Shaping {
    let profile = Profile::plain(Delay::from_nanos(1_234_567), 1_000);
    let spec = LeafSpec::of(profile, []);
    let v4 = IpAddr::from([192, 0, 2, 1]);
    let v6 = IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1]);
    Shaping { leaf_specs: [(v4, spec), (v6, spec)].into(), cuts: cuts([v4, v6], answer).collect() }
}

/// A bench for the tests: another kernel in memory, with the same abilities.
#[cfg(test)]
impl Bench for crate::fake_kernel::FakeKernel {
    fn try_out(&self, trial: &Trial<'_>) -> Result<(), Obstacle> {
        let mut kernel = Self { tree: crate::plan::Tree::default(), fails_at: None, ..self.clone() };
        let interface = kernel.interface.clone();
        trial(&mut kernel, &interface)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake_kernel::FakeKernel;

    #[test]
    fn every_specimen_reads_back_from_a_kernel_that_can_do_it() {
        let mut kernel = FakeKernel::new("lo".parse().unwrap());
        assert!(try_shaping(&kernel).is_ok());
        assert!(try_refusals(&kernel).is_ok());
        kernel.fails_at = Some(0);
        let interface = kernel.interface.clone();
        let tried = try_on(&mut kernel, &interface, &specimen(Answer::Silence));
        assert!(matches!(tried, Err(Obstacle::Kernel(_))));
    }
}
