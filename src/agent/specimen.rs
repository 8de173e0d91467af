//! What the running kernel can do, tried out rather than inferred from its version.
//!
//! A specimen of everything that an agent ever installs goes on the loopback of a scratch network namespace, is read
//! back and compared. The namespace ends with the trial, so there is nothing to clean up.

use std::net::IpAddr;

use crate::{
    kernel::{Interface, Kernel, KernelError, Rtnl, execute, in_new_network},
    plan::{Lane, Profile, Shaping, diff},
    topology::Delay,
    wire::{ApiError, ErrorCode},
};

/// Checks that this kernel has the qdiscs, classifiers and actions that shaping needs.
pub(super) fn try_kernel() -> Result<(), ApiError> {
    let tried = in_new_network(|| -> Result<(), Trial> {
        let mut kernel = Rtnl::open().map_err(KernelError::Socket)?;
        let loopback = kernel.interface(&"lo".parse().map_err(|_| Trial::NotReadBack)?)?;
        try_on(&mut kernel, &loopback)
    });
    match tried {
        Ok(Ok(())) => Ok(()),
        Ok(Err(Trial::Kernel(error))) if error.is_unsupported() => Err(ApiError::new(
            ErrorCode::Unsupported,
            format!(
                "this kernel cannot shape: {error}; it needs the modules sch_htb, sch_netem, sch_ingress, cls_flower \
                 and act_gact"
            ),
        )),
        Ok(Err(Trial::Kernel(error))) => Err(super::guard::kernel_error(error)),
        Ok(Err(Trial::NotReadBack)) => Err(ApiError::new(
            ErrorCode::Unsupported,
            "this kernel accepts what netemctl installs but reads back something else",
        )),
        Err(error) => Err(ApiError::new(
            ErrorCode::Permission,
            format!("cannot make a network namespace to try the kernel in: {error}; the agent needs CAP_SYS_ADMIN"),
        )),
    }
}

enum Trial {
    Kernel(KernelError),
    NotReadBack,
}

impl From<KernelError> for Trial {
    fn from(error: KernelError) -> Self {
        Self::Kernel(error)
    }
}

fn try_on<K: Kernel>(kernel: &mut K, interface: &Interface) -> Result<(), Trial> {
    let specimen = specimen();
    let tree = kernel.observe(interface)?;
    let change = diff(Some(&specimen), &tree).map_err(|_| Trial::NotReadBack)?;
    execute(kernel, interface, &change.steps).map_err(|failed| failed.error)?;
    let tree = kernel.observe(interface)?;
    if tree.shaping().as_ref() == Some(&specimen) { Ok(()) } else { Err(Trial::NotReadBack) }
}

fn specimen() -> Shaping {
    let profile = Profile::plain(Delay::from_nanos(1_234_567), crate::plan::MIN_LIMIT);
    let lane = Lane::of(profile, []);
    let v4 = IpAddr::from([192, 0, 2, 1]);
    let v6 = IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1]);
    Shaping { lanes: [(v4, lane), (v6, lane)].into(), cuts: [v4, v6].into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::FakeKernel;

    #[test]
    fn the_specimen_reads_back_from_a_kernel_that_can_do_it() {
        let mut kernel = FakeKernel::new("lo".parse().unwrap());
        let interface = kernel.interface.clone();
        assert!(try_on(&mut kernel, &interface).is_ok());
    }
}
