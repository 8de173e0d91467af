//! The agent's own certificate, read again when its files have changed: [`Credentials`].

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use thiserror::Error;
use tokio_rustls::TlsAcceptor;
use tracing::{info, warn};

use crate::{
    pki::{Identity, IdentityError, Role, TlsFiles},
    topology::NodeName,
};

/// How long before its certificate ends an agent that starts says so as a warning.
const SOON: Duration = Duration::from_hours(14 * 24);

/// Why the agent has no identity.
#[derive(Debug, Error)]
pub enum CredentialsError {
    /// The files.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The library.
    #[error("TLS cannot be set up: {0}")]
    Tls(#[from] rustls::Error),
}

/// An identity that follows its files, so that a certificate is renewed by replacing them.
pub(super) struct Credentials {
    files: TlsFiles,
    role: Role,
    read: Mutex<(Marks, TlsAcceptor)>,
}

/// What tells that a file is not the one that was read: its inode, its size, and the time of its last change (ctime, which
/// `chown` and `chmod` set too: a file that could not be read is then tried again).
type Marks = [Option<(u64, u64, i64, i64)>; 3];

impl Credentials {
    /// Reads the identity of the agent of `node`.
    pub(super) fn read(files: TlsFiles, node: &NodeName) -> Result<Self, CredentialsError> {
        let role = Role::Agent(node.clone());
        let marks = files.marks();
        let acceptor = files.acceptor(&role)?;
        Ok(Self { files, role, read: Mutex::new((marks, acceptor)) })
    }

    /// What the next connection is to be accepted with. Files that are of no use change nothing.
    pub(super) fn acceptor(&self) -> TlsAcceptor {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let marks = self.files.marks();
        if marks != read.0 {
            read.0 = marks;
            match self.files.acceptor(&self.role) {
                Ok(acceptor) => read.1 = acceptor,
                Err(error) => warn!(%error, "The agent's new certificate is of no use; it goes on with the old one."),
            }
        }
        read.1.clone()
    }
}

impl TlsFiles {
    fn marks(&self) -> Marks {
        let mark = |path: &PathBuf| {
            let metadata = fs::metadata(path).ok()?;
            Some((metadata.ino(), metadata.size(), metadata.ctime(), metadata.ctime_nsec()))
        };
        [mark(&self.ca), mark(&self.cert), mark(&self.key)]
    }

    fn acceptor(&self, role: &Role) -> Result<TlsAcceptor, CredentialsError> {
        let identity = Identity::read(self)?.only_of(role, &self.cert)?;
        let until = identity.validity().until;
        match identity.validity().left() {
            None => warn!(%until, "The agent's certificate has expired: no controller will talk to it."),
            Some(left) if left < SOON => warn!(%until, "The agent's certificate ends soon."),
            Some(_) => info!(%until, "The agent has a certificate."),
        }
        Ok(TlsAcceptor::from(Arc::new(identity.server()?)))
    }
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::PermissionsExt, thread};

    use super::*;

    #[test]
    fn a_key_that_could_not_be_read_is_read_once_its_mode_or_owner_is_right() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["ca.pem", "cert.pem", "key.pem"] {
            fs::write(folder.path().join(name), name).unwrap();
        }
        let files = TlsFiles::in_folder(folder.path());
        let before = files.marks();
        // The clock of files may stand still for some milliseconds.
        let is_told = (0..1_000).any(|_| {
            fs::set_permissions(&files.key, fs::Permissions::from_mode(0o600)).unwrap();
            thread::sleep(Duration::from_millis(1));
            files.marks() != before
        });
        assert!(is_told);
        assert_eq!(files.marks()[..2], before[..2]);
    }
}
