//! One agent at a time: [`Claim`] keeps a second one from the same journal and from the same interface.
//!
//! The journal is replaced as a whole, so what is locked (flock(2)) is a file beside it that stays. An interface is claimed
//! by an abstract Unix socket (unix(7)): such names belong to a network namespace, as interfaces do, and whoever has one
//! loses it as it ends, however it ends.

use std::{
    fs::{File, OpenOptions},
    io,
    os::{
        linux::net::SocketAddrExt,
        unix::{
            fs::OpenOptionsExt,
            net::{SocketAddr, UnixListener},
        },
    },
    path::Path,
};

use nix::fcntl::{Flock, FlockArg};

use super::{Config, JournalError, journal};
use crate::plan::IfName;

/// What no other agent has while this value lives.
#[derive(Debug, Default)]
pub(super) struct Claim {
    _journal: Option<Flock<File>>,
    _interfaces: Vec<UnixListener>,
}

impl Claim {
    /// Claims the journal of an agent, if it keeps one.
    pub(super) fn of_journal(config: &Config) -> Result<Self, JournalError> {
        let journal = config.journal.as_deref().map(lock).transpose()?;
        Ok(Self { _journal: journal, ..Self::default() })
    }

    /// Claims its interfaces as well, in the network namespace of the calling process.
    pub(super) fn and_interfaces(self, config: &Config) -> Result<Self, JournalError> {
        let interfaces = config.interfaces.iter().map(claim).collect::<Result<_, _>>()?;
        Ok(Self { _interfaces: interfaces, ..self })
    }
}

fn lock(path: &Path) -> Result<Flock<File>, JournalError> {
    let beside = journal::beside(path, "lock");
    let unwritable = |error| JournalError::Unwritable(path.into(), error);
    let options = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(beside);
    Flock::lock(options.map_err(unwritable)?, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
        nix::errno::Errno::EWOULDBLOCK => JournalError::InUse(path.into()),
        errno => unwritable(errno.into()),
    })
}

fn claim(interface: &IfName) -> Result<UnixListener, JournalError> {
    let name = format!("netemctl-agent/{interface}");
    let address = SocketAddr::from_abstract_name(&name);
    address.and_then(|address| UnixListener::bind_addr(&address)).map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => JournalError::InterfaceInUse(interface.clone()),
        _ => JournalError::Unclaimed(interface.clone(), error),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(journal: Option<&Path>, interface: &str) -> Config {
        let journal = journal.map(|path| format!("journal = '{}'", path.display())).unwrap_or_default();
        let text = format!("node = 'n1'\nsocket = '/run/x'\ninterfaces = ['{interface}']\n{journal}");
        toml::from_str(&text).unwrap()
    }

    #[test]
    fn a_journal_has_one_agent_until_it_is_gone() {
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
    fn an_interface_has_one_agent_until_it_is_gone() {
        // The name is that of no interface of any host, and of this process alone.
        let name = format!("t{}", std::process::id());
        let claim = |name: &str| Claim::default().and_interfaces(&config(None, name));
        let first = claim(&name).unwrap();
        assert!(matches!(claim(&name), Err(JournalError::InterfaceInUse(_))));
        let _other = claim(&format!("{name}x")).unwrap();
        drop(first);
        let _next = claim(&name).unwrap();
    }
}
