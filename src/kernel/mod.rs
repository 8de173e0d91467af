//! Reads and changes the network configuration of the Linux kernel, by netlink.
//!
//! No other module uses netlink or enters a namespace. [`Kernel`] is the trait, and [`Rtnl`] implements it for Linux.
//! Tests use an implementation in memory (`tests/fake_kernel`). [`execute()`] performs a change, and rolls the change
//! back if a step fails. `tc/` encodes and decodes traffic-control messages.

mod bytes;
mod execute;
pub mod facts;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod host;
mod links;
mod namespace;
mod namespace_socket;
mod neighbours;
mod observe;
mod processes;
mod readable;
mod refuse;
mod rtnl;
mod samples;
mod socket;
mod tc;
mod watch;

use std::{collections::BTreeSet, fs, io, net::IpAddr, os::fd::OwnedFd};

use nix::errno::Errno;
use thiserror::Error;

pub use execute::{ChangeFailure, execute, execute_with};
pub use host::{DefaultRoute, HostNetwork, Link};
pub use links::{Bridge, Cable, Links, Mac};
pub use namespace::{
    Namespaces, NodeNamespace, add_files, as_root_of_user_namespace, expect_no_router, in_new_network, mount_over,
    mount_sysfs,
};
pub use namespace_socket::send_namespace_socket;
pub use neighbours::NeighbourQuestions;
pub use processes::{Process, ancestors, network_number};
pub(crate) use readable::readable;
pub use rtnl::Rtnl;
pub use watch::Event;

use crate::{
    plan::{IfName, LineRate, Stale, Step, Tree},
    topology::{TableId, Tables},
};

/// The release of the running kernel, as `uname -r` prints it.
pub fn release() -> String {
    fs::read_to_string("/proc/sys/kernel/osrelease")
        .map_or_else(|_| "unknown".to_owned(), |text| text.trim().to_owned())
}

/// The kernel operations that the agent needs. Calls block. One object serves one network namespace.
pub trait Kernel: Send {
    /// Looks an interface up by its name.
    fn interface(&mut self, name: &IfName) -> Result<Interface, KernelError>;

    /// Reads the links, addresses and routes of the host.
    fn host(&mut self) -> Result<HostNetwork, KernelError>;

    /// The index of the outgoing link for packets to an address. `None`: no route leads to the address.
    ///
    /// `from` is the source address of the packets, if known.
    fn route_to(&mut self, address: IpAddr, from: Option<IpAddr>) -> Result<Option<u32>, KernelError>;

    /// The events of the host's links since the last call. The first call starts the recording.
    ///
    /// This object's own changes of qdiscs, classes and filters are not events.
    fn events(&mut self) -> Result<Vec<Event>, KernelError>;

    /// A descriptor that is readable when there are new [`events`](Kernel::events). `None`: there is no descriptor.
    fn event_descriptor(&mut self) -> Option<OwnedFd> {
        None
    }

    /// Reads the qdiscs, classes and filters of an interface: netemctl's own objects and foreign objects.
    ///
    /// Fails if the interface no longer exists.
    fn observe(&mut self, interface: &Interface) -> Result<Tree, KernelError>;

    /// Reads an interface again whose filters are known to be those of `_tree`, except the filters in `_stale`. Reads its
    /// qdiscs, its classes and the stale filters, and with `_counts` the counters of the cuts.
    ///
    /// The result may share nothing with `_tree`: an implementation may read everything.
    fn observe_again(
        &mut self,
        interface: &Interface,
        _tree: Tree,
        _stale: &Stale,
        _counts: bool,
    ) -> Result<Tree, KernelError> {
        self.observe(interface)
    }

    /// Adds custom distribution tables. Later steps refer to a table by its [`TableId`].
    fn add_tables(&mut self, tables: &Tables);

    /// Performs one step. The kernel acknowledges each of its messages.
    fn perform(&mut self, interface: &Interface, step: &Step) -> Result<(), KernelError>;

    /// Performs steps of one message each ([`Step::is_one_message`]) in order, as fast as possible.
    ///
    /// After a refused step, an implementation may perform the later steps too.
    fn perform_all(&mut self, interface: &Interface, steps: &[Step]) -> Result<(), PartialFailure> {
        for (position, step) in steps.iter().enumerate() {
            if let Err(error) = self.perform(interface, step) {
                return Err(PartialFailure { error, done: (0..steps.len()).map(|other| other < position).collect() });
            }
        }
        Ok(())
    }

    /// Starts or stops the answers to packets that the cuts with [`Answer::Refusal`](crate::plan::Answer) drop.
    ///
    /// Has no effect if the refusals are in the wanted state already.
    fn set_refusals(&mut self, interface: &Interface, wanted: bool) -> Result<(), KernelError>;

    /// Rolls back one step. Missing and existing objects are no errors, because the step may have been done in part.
    fn rollback(&mut self, interface: &Interface, step: &Step) -> Result<(), KernelError>;
}

/// A failure of [`Kernel::perform_all`], with the steps that were done.
#[derive(Debug)]
pub struct PartialFailure {
    /// The first error.
    pub error: KernelError,
    /// True for each step that was done, or may have been done.
    pub done: Vec<bool>,
}

/// A network interface (`RTM_NEWLINK` and `RTM_NEWADDR`, rtnetlink(7)).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// The index. A re-created interface of the same name has another index.
    pub index: u32,
    /// The name.
    pub name: IfName,
    /// The current speed, or else the last known speed, or else the assumed speed.
    pub rate: LineRate,
    /// The addresses.
    pub addresses: Vec<IpAddr>,
    /// The addresses that the kernel does not use: IPv6 duplicate address detection is running or has failed.
    pub tentative: BTreeSet<IpAddr>,
    /// `IFF_UP`.
    pub is_up: bool,
    /// `IFF_LOWER_UP`.
    pub has_carrier: bool,
}

/// An error of the kernel or of the connection to it.
#[derive(Debug, Error)]
pub enum KernelError {
    /// No interface has the name.
    #[error("interface {0} does not exist")]
    NoInterface(IfName),
    /// The name is an alternative name of an interface.
    #[error(
        "{asked} is an alternative name of interface {name}; write {name} in the inventory and in the agent's config"
    )]
    AlternativeName {
        /// The alternative name.
        asked: IfName,
        /// The name of the interface.
        name: String,
    },
    /// The kernel refused a message.
    #[error("the kernel refused \"{operation}\": {}", .sentence.as_deref().unwrap_or_else(|| .errno.desc()))]
    Refused {
        /// The request in words.
        operation: String,
        /// The error number.
        errno: Errno,
        /// The text of the extended acknowledgement, if any.
        sentence: Option<String>,
    },
    /// The distribution table of a leaf is unknown.
    #[error("the agent does not have the distribution table {0}; apply the topology with this table again")]
    UnknownTable(TableId),
    /// The tables of a leaf have more values than a netlink message holds.
    #[error("the distribution tables of one link have {0} values, the limit is 32,000; use shorter tables")]
    TablesTooLong(usize),
    /// The refusals of cut packets could not be started.
    #[error("cut packets cannot be refused: {0}")]
    Answering(#[source] io::Error),
    /// The netlink socket failed.
    #[error("netlink: {0}")]
    Socket(#[from] io::Error),
    /// An answer of the kernel could not be read.
    #[error("netlink: unreadable answer: {0}")]
    Malformed(String),
}

impl KernelError {
    /// True if the kernel does not have the requested qdisc, classifier or action, built in or as a module.
    pub fn is_unsupported(&self) -> bool {
        // sch_api.c and cls_api.c return ENOENT for an unknown kind. rtnetlink.c returns EOPNOTSUPP for a message type
        // without a handler.
        !matches!(self, Self::Socket(_)) && matches!(self.errno(), Some(Errno::ENOENT | Errno::EOPNOTSUPP))
    }

    /// True if the process lacks a capability.
    pub fn is_permission(&self) -> bool {
        matches!(self.errno(), Some(Errno::EPERM | Errno::EACCES))
    }

    fn errno(&self) -> Option<Errno> {
        match self {
            Self::Refused { errno, .. } => Some(*errno),
            Self::Answering(error) | Self::Socket(error) => error.raw_os_error().map(Errno::from_raw),
            _ => None,
        }
    }
}
