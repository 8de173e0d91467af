//! [`Credentials`] reads the agent's certificate, key and CA, and reads them again after their files have changed.

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

/// Remaining validity of the certificate below which the agent logs a warning.
const SOON: Duration = Duration::from_hours(14 * 24);

/// The reason why the agent cannot use its certificate.
#[derive(Debug, Error)]
pub enum CredentialsError {
    /// A file is unreadable or invalid.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The TLS library refuses the identity.
    #[error("TLS cannot be set up: {0}")]
    Tls(#[from] rustls::Error),
}

/// The agent's certificate, key and CA. The agent uses new files without a restart.
pub(super) struct Credentials {
    files: TlsFiles,
    role: Role,
    read: Mutex<(Marks, TlsAcceptor)>,
}

/// Inode, size and ctime of each file; `None`: unknown. `chown` and `chmod` also set the ctime, so a file that becomes
/// readable is read again.
type Marks = [Option<(u64, u64, i64, i64)>; 3];

impl Credentials {
    /// Reads the files, and checks that the certificate is for the agent of `node`.
    pub(super) fn read(files: TlsFiles, node: &NodeName) -> Result<Self, CredentialsError> {
        let role = Role::Agent(node.clone());
        let marks = files.marks();
        let acceptor = files.acceptor(&role)?;
        Ok(Self { files, role, read: Mutex::new((marks, acceptor)) })
    }

    /// The TLS acceptor for the next connection. If changed files are unusable, the old certificate stays in use.
    pub(super) fn acceptor(&self) -> TlsAcceptor {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let marks = self.files.marks();
        if marks != read.0 {
            read.0 = marks;
            match self.files.acceptor(&self.role) {
                Ok(acceptor) => read.1 = acceptor,
                Err(error) => warn!(%error, "The new certificate is unusable; the agent keeps the old one."),
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
        let identity = Identity::read(self)?.require_role(role, &self.cert)?;
        let until = identity.validity().until;
        match identity.validity().left() {
            None => warn!(%until, "The agent's certificate has expired; controllers reject it."),
            Some(left) if left < SOON => warn!(%until, "The agent's certificate expires soon."),
            Some(_) => info!(%until, "The agent's certificate is valid."),
        }
        Ok(TlsAcceptor::from(Arc::new(identity.server()?)))
    }
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::PermissionsExt, thread};

    use super::*;

    #[test]
    fn a_key_is_read_again_after_chmod() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["ca.pem", "cert.pem", "key.pem"] {
            fs::write(folder.path().join(name), name).unwrap();
        }
        let files = TlsFiles::in_folder(folder.path());
        let before = files.marks();
        // File timestamps advance in steps of some milliseconds.
        let is_told = (0..1_000).any(|_| {
            fs::set_permissions(&files.key, fs::Permissions::from_mode(0o600)).unwrap();
            thread::sleep(Duration::from_millis(1));
            files.marks() != before
        });
        assert!(is_told);
        assert_eq!(files.marks()[..2], before[..2]);
    }
}
