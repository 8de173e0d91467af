//! The kernel: the only rooms of the house that speak netlink or enter a namespace.
//!
//! [`Kernel`] is the seam: [`Rtnl`] is the real one, [`FakeKernel`] models the state of one for the tests of the pure
//! logic. [`execute()`] runs a change on either and rolls it back if a step fails. Bytes are in `tc/`, nowhere else.

mod execute;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod host;
mod links;
mod loan;
mod namespace;
mod observe;
mod processes;
mod refuse;
mod rtnl;
mod samples;
mod socket;
mod tc;
mod watch;

use std::{collections::BTreeSet, fs, io, net::IpAddr, os::fd::OwnedFd};

use thiserror::Error;

pub use execute::{Failed, execute, execute_and_tell};
pub use host::{DefaultRoute, HostNetwork, Link};
pub use links::{Bridge, Cable, Links, Mac};
pub use loan::{LEND_COMMAND, lend};
pub use namespace::{
    Namespaces, NodeNamespace, add_files, as_root_of_user_namespace, in_new_network, mount_over, mount_sysfs,
};
pub use processes::{Process, network_number, own_line};
pub use rtnl::Rtnl;
pub use watch::Event;

use crate::{
    plan::{IfName, LineRate, Step, Tree},
    topology::{TableId, Tables},
};

/// The running kernel's release, as `uname -r` prints it.
pub fn release() -> String {
    fs::read_to_string("/proc/sys/kernel/osrelease")
        .map_or_else(|_| "unknown".to_owned(), |text| text.trim().to_owned())
}

/// What the agent needs of a kernel. Calls block; one object serves one network namespace.
pub trait Kernel: Send {
    /// Looks an interface up by its name.
    fn interface(&mut self, name: &IfName) -> Result<Interface, KernelError>;

    /// Looks at the host's links, addresses and default routes.
    fn host(&mut self) -> Result<HostNetwork, KernelError>;

    /// The index of the link by which packets leave from an address of this host, or any, to another one; `None`: no
    /// route leads there.
    fn way_to(&mut self, address: IpAddr, from: Option<IpAddr>) -> Result<Option<u32>, KernelError>;

    /// What has happened to the host's links since the last call, other than by [`Kernel::perform`] and its kin. The first
    /// call begins to watch.
    fn events(&mut self) -> Result<Vec<Event>, KernelError>;

    /// What becomes readable when there are more [`events`](Kernel::events); `None`: the kernel cannot be watched.
    fn news(&mut self) -> Option<OwnedFd> {
        None
    }

    /// Reads what is on an interface: our tree and whatever is not ours. An interface that is no longer there is an error,
    /// and not one that has nothing.
    fn observe(&mut self, interface: &Interface) -> Result<Tree, KernelError>;

    /// Remembers distribution tables of the user's own, which later steps name by what is in them.
    fn learn(&mut self, tables: &Tables);

    /// Does one step, every message of it acknowledged.
    fn perform(&mut self, interface: &Interface, step: &Step) -> Result<(), KernelError>;

    /// Does several steps of one message each ([`Step::is_one_message`]), in order and as fast as it can: a set of cuts is
    /// to come at once. The kernel goes on after one that it refuses.
    fn perform_all(&mut self, interface: &Interface, steps: &[Step]) -> Result<(), Partly> {
        for (place, step) in steps.iter().enumerate() {
            if let Err(error) = self.perform(interface, step) {
                return Err(Partly { error, done: (0..steps.len()).map(|other| other < place).collect() });
            }
        }
        Ok(())
    }

    /// Answers with refusals, from now on or no longer, what the interface's cuts with
    /// [`Answer::Refusal`](crate::plan::Answer) drop.
    ///
    /// To ask for what is so already does nothing.
    fn answer(&mut self, interface: &Interface, wanted: bool) -> Result<(), KernelError>;

    /// Rolls back one step that may have been done in part only: what is gone already, or there again, is no error.
    fn rollback(&mut self, interface: &Interface, step: &Step) -> Result<(), KernelError>;
}

/// Of several steps, not all were done.
#[derive(Debug)]
pub struct Partly {
    /// Why the first one was not that was not.
    pub error: KernelError,
    /// Which of them were, or may have been.
    pub done: Vec<bool>,
}

/// One interface, as the kernel describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its index, which a re-created interface of the same name does not share.
    pub index: u32,
    /// Its name.
    pub name: IfName,
    /// Its speed, the last one that was known, or the assumed one.
    pub rate: LineRate,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Those of them that the kernel does not use: another host may have them (IPv6 duplicate address detection).
    pub tentative: BTreeSet<IpAddr>,
    /// Whether it is set up (`IFF_UP`).
    pub is_up: bool,
    /// Whether it is connected (`IFF_LOWER_UP`).
    pub has_carrier: bool,
}

/// Why the kernel did not do what it was asked.
#[derive(Debug, Error)]
pub enum KernelError {
    /// No interface has the name.
    #[error("there is no interface {0}")]
    NoInterface(IfName),
    /// An interface has the name besides its own.
    #[error(
        "{asked} is an alternative name of interface {name}; write {name} in the inventory and in the agent's config"
    )]
    AlternativeName {
        /// The name that was asked for.
        asked: IfName,
        /// The interface's own name.
        name: String,
    },
    /// The kernel refused a message.
    #[error("the kernel refused \"{operation}\": {}", .sentence.clone().unwrap_or_else(|| .errno.to_string()))]
    Refused {
        /// What was asked, in words.
        operation: String,
        /// The error number.
        errno: io::Error,
        /// The kernel's own sentence (extended acknowledgement), where it sent one.
        sentence: Option<String>,
    },
    /// A leaf's distribution is a table that was never learnt.
    #[error("the distribution table {0} is not known here; apply the topology that has it once more")]
    UnknownTable(TableId),
    /// A leaf's tables have more values than a netlink message holds.
    #[error(
        "the distribution tables of one link have {0} values together, and the kernel takes 32,000; use shorter ones"
    )]
    TablesTooLong(usize),
    /// What is cut cannot be answered.
    #[error("what is cut cannot be answered with refusals: {0}")]
    Answering(#[source] io::Error),
    /// The netlink socket failed.
    #[error("netlink: {0}")]
    Socket(#[from] io::Error),
    /// The kernel's answer could not be read.
    #[error("netlink: the kernel's answer makes no sense: {0}")]
    Garbled(String),
}

impl KernelError {
    /// Whether the kernel has no such qdisc, classifier or action, neither built in nor as a module.
    pub fn is_unsupported(&self) -> bool {
        // sch_api.c and cls_api.c say ENOENT for an unknown kind; some families EOPNOTSUPP.
        const ENOENT: i32 = 2;
        const EOPNOTSUPP: i32 = 95;
        match self {
            Self::Refused { errno, .. } | Self::Answering(errno) => {
                matches!(errno.raw_os_error(), Some(ENOENT | EOPNOTSUPP))
            }
            _ => false,
        }
    }

    /// Whether the process lacks the right to do this.
    pub fn is_permission(&self) -> bool {
        match self {
            Self::Refused { errno, .. } | Self::Answering(errno) | Self::Socket(errno) => {
                errno.kind() == io::ErrorKind::PermissionDenied
            }
            _ => false,
        }
    }
}
