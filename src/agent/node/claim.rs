//! [`Claim`]: the locks that keep a second agent from the same journal and the same interface.
//!
//! The lock of a journal is a flock(2) on another file beside the journal. A lock on the journal's own file would be
//! lost, because each write replaces this file.
//!
//! An abstract Unix socket (unix(7)) claims an interface. The socket's name belongs to a network namespace, as an
//! interface does. The kernel frees the name when the process ends. Any local user can bind such a name, so a bound
//! name does not prove that an agent runs. Each agent therefore binds a random name for its interface and checks the
//! owners of the other sockets for the same interface. An owner counts as an agent if the process runs as root, runs as
//! the same user as this agent, or has `CAP_NET_ADMIN` in the same user namespace.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::{
        fd::AsRawFd,
        linux::net::SocketAddrExt,
        unix::{
            fs::OpenOptionsExt,
            net::{SocketAddr, UnixListener},
        },
    },
    path::Path,
};

use caps::{CapSet, Capability};
use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
    sys::socket::{
        AddressFamily, SockFlag, SockType, UnixAddr, UnixCredentials, connect, getsockopt, socket,
        sockopt::PeerCredentials,
    },
    unistd::geteuid,
};
use tracing::warn;

use super::{JournalError, journal};
use crate::{agent::Config, plan::IfName};

/// The list of all Unix sockets in the network namespace.
const SOCKETS: &str = "/proc/thread-self/net/unix";

/// The locks of one agent.
#[derive(Debug, Default)]
pub(super) struct Claim {
    _journal: Option<Flock<File>>,
    interfaces: Vec<UnixListener>,
}

impl Claim {
    /// Claims the journal, if the config names one.
    pub(super) fn of_journal(config: &Config) -> Result<Self, JournalError> {
        let journal = config.journal.as_deref().map(lock).transpose()?;
        Ok(Self { _journal: journal, ..Self::default() })
    }

    /// Also claims the interfaces, in the network namespace of this process.
    pub(super) fn and_interfaces(self, config: &Config) -> Result<Self, JournalError> {
        let interfaces = config.interfaces.iter().map(claim).collect::<Result<_, _>>()?;
        Ok(Self { interfaces, ..self })
    }

    /// The sockets that claim the interfaces.
    ///
    /// The agent must accept and close their connections. If the queue is full, another agent cannot look up the owner.
    pub(super) fn sockets(&self) -> impl Iterator<Item = io::Result<UnixListener>> {
        self.interfaces.iter().map(UnixListener::try_clone)
    }
}

fn lock(path: &Path) -> Result<Flock<File>, JournalError> {
    let beside = journal::beside(path, "lock");
    let unwritable = |error| JournalError::Unwritable(path.into(), error);
    let made = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&beside);
    let file = match made {
        // flock(2) needs no write access, so an existing lock file also works on a read-only file system.
        Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => File::open(&beside).map_err(|_| error),
        made => made,
    };
    Flock::lock(file.map_err(unwritable)?, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
        Errno::EWOULDBLOCK => JournalError::InUse(path.into()),
        errno => unwritable(errno.into()),
    })
}

fn claim(interface: &IfName) -> Result<UnixListener, JournalError> {
    let unclaimed = |error| JournalError::Unclaimed(interface.clone(), error);
    let prefix = format!("netemctl-agent/{interface}/");
    let random = fs::read_to_string("/proc/sys/kernel/random/uuid").map_err(unclaimed)?;
    let own = format!("{prefix}{}", random.trim());
    let listener = SocketAddr::from_abstract_name(&own).and_then(|own| UnixListener::bind_addr(&own));
    let listener = listener.map_err(unclaimed)?;
    listener.set_nonblocking(true).map_err(unclaimed)?;
    // The agent binds before it reads the list, so that of two agents that start together at least one sees the other.
    let sockets = fs::read(SOCKETS).map_err(unclaimed)?;
    let sockets = String::from_utf8_lossy(&sockets);
    let names = sockets.lines().filter_map(|line| line.split_once(" @")).map(|(_, name)| name);
    for name in names.filter(|name| name.starts_with(&prefix) && *name != own) {
        match holder(name) {
            Ok(holder) if is_agent(&holder) => return Err(JournalError::InterfaceInUse(interface.clone())),
            Ok(holder) => warn!(
                "User {} has bound the name of an agent of {interface} without the right to shape; ignored.",
                holder.uid()
            ),
            Err(Errno::ECONNREFUSED) => {}
            Err(errno) => warn!("Cannot look up the owner of a claim on {interface}: {errno}."),
        }
    }
    Ok(listener)
}

/// The owner of an abstract socket.
fn holder(name: &str) -> nix::Result<UnixCredentials> {
    // Non-blocking, because the queue may be full.
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let socket = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    connect(socket.as_raw_fd(), &UnixAddr::new_abstract(name.as_bytes())?)?;
    getsockopt(&socket, PeerCredentials)
}

/// True if the owner of a claim counts as an agent: root, the same user, or a process with `CAP_NET_ADMIN`.
///
/// `CAP_NET_ADMIN` in a user namespace with another `uid_map` does not count.
fn is_agent(holder: &UnixCredentials) -> bool {
    let users = |process: &str| fs::read_to_string(format!("/proc/{process}/uid_map")).ok();
    holder.uid() == 0
        || holder.uid() == geteuid().as_raw()
        || users("self").is_some_and(|own| users(&holder.pid().to_string()) == Some(own))
            && caps::has_cap(Some(holder.pid()), CapSet::Effective, Capability::CAP_NET_ADMIN).unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(journal: Option<&Path>, interface: &str) -> Config {
        let journal = journal.map(|path| format!("journal = '{}'", path.display())).unwrap_or_default();
        let text = format!("node = 'n1'\nsocket = '/run/x'\ninterfaces = ['{interface}']\n{journal}");
        Config::parse(crate::topology::Source::new("agent.toml", text)).unwrap()
    }

    #[test]
    fn a_second_agent_cannot_claim_the_same_journal() {
        let folder = tempfile::tempdir().unwrap();
        let (ours, other) = (folder.path().join("n1.json"), folder.path().join("n2.json"));
        let first = Claim::of_journal(&config(Some(&ours), "db0")).unwrap();
        let second = Claim::of_journal(&config(Some(&ours), "db0"));
        assert!(matches!(second, Err(JournalError::InUse(path)) if path == ours));
        let _other = Claim::of_journal(&config(Some(&other), "db0")).unwrap();
        drop(first);
        let _next = Claim::of_journal(&config(Some(&ours), "db0")).unwrap();
    }

    #[test]
    fn a_second_agent_cannot_claim_the_same_interface() {
        // No interface has this name, and no other process uses it.
        let name = format!("t{}", std::process::id());
        let claim = |name: &str| Claim::default().and_interfaces(&config(None, name));
        let first = claim(&name).unwrap();
        assert!(matches!(claim(&name), Err(JournalError::InterfaceInUse(_))));
        let _other = claim(&format!("{name}x")).unwrap();
        drop(first);
        let _next = claim(&name).unwrap();
    }
}
