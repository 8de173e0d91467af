//! Keeps a private CA and its certificates in a folder: [`Store`].
//!
//! ```text
//! ca/cert.pem ca/key.pem                          the CA
//! controller/{ca,cert,key}.pem                    each folder is one identity, ready to use or copy
//! viewer/{ca,cert,key}.pem
//! nodes/n7/{ca,cert,key}.pem
//! ```
//!
//! Folders have mode 0700 and keys 0600. Each folder is written atomically. A folder replaces an existing
//! folder only with `force`.

use std::{
    fs::{self, DirBuilder, File},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use rustls::pki_types::{CertificateDer, pem::PemObject};
use thiserror::Error;
use x509_parser::{certificate::X509Certificate, prelude::FromDer};

use super::{
    Authority, AuthorityError, CA_FILE, CERTIFICATE_FILE, CertificateRequest, IdentityError, KEY_FILE, Role, Validity,
    identity,
};
use crate::{
    files::if_exists,
    topology::{NodeName, hostlist},
};

const CA: &str = "ca";
const CONTROLLER: &str = "controller";
const VIEWER: &str = "viewer";
const NODES: &str = "nodes";

/// The folder of one private CA.
#[derive(Clone, Debug)]
pub struct Store(PathBuf);

/// One identity in a store, or the CA of the store.
#[derive(Clone, Debug)]
pub struct StoredIdentity {
    /// The folder of the identity.
    pub folder: PathBuf,
    /// The role of the certificate. `None`: the CA.
    pub role: Option<Role>,
    /// The validity of the certificate.
    pub validity: Validity,
    /// True if the certificate names the store's current CA as its issuer.
    pub is_ours: bool,
}

/// The error of an operation on a store.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The store has a CA already.
    #[error("{0} has a CA already")]
    HasCa(PathBuf),
    /// The store has no CA.
    #[error("{0} has no CA")]
    NoCa(PathBuf),
    /// The certificates exist already.
    #[error("certificates for {0} exist already")]
    Issued(String),
    /// Other users have access to the folder.
    #[error("other users have access to {path} (mode {mode:04o}); run: chmod 700 {path}", path = .0.display(), mode = .1)]
    Open(PathBuf, u32),
    /// A certificate cannot be made.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// The CA's key cannot be read.
    #[error(transparent)]
    Key(#[from] IdentityError),
    /// The file is not a certificate of netemctl.
    #[error("{0} is not a netemctl certificate")]
    Odd(PathBuf),
    /// A file cannot be read.
    #[error("cannot read {path}: {0}", path = .1.display())]
    Read(#[source] io::Error, PathBuf),
    /// A file or folder cannot be created.
    #[error("cannot create {path}: {0}", path = .1.display())]
    Create(#[source] io::Error, PathBuf),
}

impl Store {
    /// The store in this folder. The folder may be missing.
    pub fn at(folder: impl Into<PathBuf>) -> Self {
        Self(folder.into())
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The folder of an identity.
    pub fn folder(&self, role: &Role) -> PathBuf {
        match role {
            Role::Controller => self.0.join(CONTROLLER),
            Role::Viewer => self.0.join(VIEWER),
            Role::Agent(node) => self.0.join(NODES).join(node.as_str()),
        }
    }

    /// Makes a CA. With `force`, the new CA replaces an existing CA.
    ///
    /// Nodes that trust the new CA reject certificates of the old CA.
    pub fn init(&self, validity: Validity, force: bool) -> Result<(), StoreError> {
        make_private(&self.0)?;
        let folder = self.0.join(CA);
        if folder.exists() && !force {
            return Err(StoreError::HasCa(self.0.clone()));
        }
        let authority = Authority::new(validity)?;
        self.place(
            &folder,
            &[(CERTIFICATE_FILE, authority.certificate(), 0o644), (KEY_FILE, authority.key(), 0o600)],
            force,
        )
    }

    /// Makes identities. With `force`, replaces existing identities.
    ///
    /// Without `force`, an existing identity is an error, and no identity is made.
    pub fn issue(&self, requests: &[CertificateRequest], force: bool) -> Result<Vec<PathBuf>, StoreError> {
        let authority = self.authority()?;
        let taken: Vec<&Role> =
            requests.iter().map(|request| &request.role).filter(|role| self.folder(role).exists()).collect();
        if !taken.is_empty() && !force {
            return Err(StoreError::Issued(describe(&taken)));
        }
        make_private(&self.0.join(NODES))?;
        // All certificates are made before the first folder is replaced.
        let issued: Result<Vec<_>, _> = requests.iter().map(|request| authority.issue(request)).collect();
        let place = |(request, issued): (&CertificateRequest, super::Issued)| {
            let folder = self.folder(&request.role);
            let files = [
                (CA_FILE, authority.certificate(), 0o644),
                (CERTIFICATE_FILE, issued.certificate.as_str(), 0o644),
                (KEY_FILE, issued.key.as_str(), 0o600),
            ];
            self.place(&folder, &files, force).map(|()| folder)
        };
        requests.iter().zip(issued?).map(place).collect()
    }

    /// The CA, the controller, the viewer, and the nodes in order.
    pub fn list(&self) -> Result<Vec<StoredIdentity>, StoreError> {
        let ca = self.certificate(&self.0.join(CA))?;
        let subject = X509Certificate::from_der(&ca).map(|(_, ca)| ca.subject().as_raw().to_vec()).unwrap_or_default();
        let entry = |folder: PathBuf, of_ca: bool| -> Result<StoredIdentity, StoreError> {
            let certificate = self.certificate(&folder)?;
            let role = Role::of(&certificate);
            let parsed = X509Certificate::from_der(&certificate).ok().map(|(_, parsed)| parsed);
            let is_ours = parsed.is_some_and(|parsed| parsed.issuer().as_raw() == subject);
            let odd = || StoreError::Odd(folder.join(CERTIFICATE_FILE));
            let validity = Validity::of(&certificate).ok_or_else(odd)?;
            if role.is_none() && !of_ca {
                return Err(odd());
            }
            Ok(StoredIdentity { folder, role, validity, is_ours })
        };
        let mut nodes = self.nodes()?;
        nodes.sort();
        let clients =
            [CONTROLLER, VIEWER].map(|client| self.0.join(client)).into_iter().filter(|folder| folder.exists());
        let nodes = nodes.into_iter().map(|node| self.folder(&Role::Agent(node)));
        std::iter::once(entry(self.0.join(CA), true))
            .chain(clients.chain(nodes).map(|folder| entry(folder, false)))
            .collect()
    }

    fn nodes(&self) -> Result<Vec<NodeName>, StoreError> {
        let folder = self.0.join(NODES);
        let entries = if_exists(fs::read_dir(&folder));
        let entries: io::Result<Vec<_>> = entries.and_then(|entries| entries.into_iter().flatten().collect());
        let entries = entries.map_err(|error| StoreError::Read(error, folder))?;
        // Other entries of the folder are ignored.
        Ok(entries.iter().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect())
    }

    fn authority(&self) -> Result<Authority, StoreError> {
        let folder = self.0.join(CA);
        if !folder.exists() {
            return Err(StoreError::NoCa(self.0.clone()));
        }
        check_private(&self.0)?;
        let certificate = folder.join(CERTIFICATE_FILE);
        let text = fs::read_to_string(&certificate).map_err(|error| StoreError::Read(error, certificate))?;
        let key = identity::secret(&folder.join(KEY_FILE))?;
        Ok(Authority::open(text, String::from_utf8_lossy(&key).into_owned())?)
    }

    fn certificate(&self, folder: &Path) -> Result<CertificateDer<'static>, StoreError> {
        let path = folder.join(CERTIFICATE_FILE);
        let text = fs::read(&path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound if folder == self.0.join(CA) => StoreError::NoCa(self.0.clone()),
            _ => StoreError::Read(error, path.clone()),
        })?;
        CertificateDer::from_pem_slice(&text).map_err(|_| StoreError::Odd(path))
    }

    /// Writes a folder with these files atomically.
    fn place(&self, target: &Path, files: &[(&str, &str, u32)], force: bool) -> Result<(), StoreError> {
        let failed = |error| StoreError::Create(error, target.into());
        let private = || fs::Permissions::from_mode(0o700);
        let beside = || tempfile::Builder::new().prefix(".new-").permissions(private()).tempdir_in(&self.0);
        let staged = beside().map_err(failed)?;
        for (name, text, mode) in files {
            let write = || -> io::Result<()> {
                let mut options = File::options();
                let mut file = options.write(true).create_new(true).mode(*mode).open(staged.path().join(name))?;
                file.write_all(text.as_bytes())?;
                file.sync_all()
            };
            write().map_err(failed)?;
        }
        if force && target.exists() {
            // The drop of `aside` removes the old folder. After an error, the old folder is restored.
            let aside = beside().map_err(failed)?;
            let old = aside.path().join("old");
            fs::rename(target, &old).map_err(failed)?;
            if let Err(error) = fs::rename(staged.path(), target) {
                fs::rename(&old, target).map_err(failed)?;
                return Err(failed(error));
            }
        } else {
            // rename(2) never replaces a folder that is not empty.
            fs::rename(staged.path(), target).map_err(failed)?;
        }
        // The temporary folder has moved to `target`, so the removal of its old path is turned off.
        let _moved = staged.keep();
        let parent = target.parent().unwrap_or(&self.0);
        File::open(parent).and_then(|parent| parent.sync_all()).map_err(failed)
    }
}

/// Makes a folder with mode 0700. Fails if an existing folder is open to other users.
fn make_private(folder: &Path) -> Result<(), StoreError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.map_err(|error| StoreError::Create(error, folder.into()))?;
    check_private(folder)
}

fn check_private(folder: &Path) -> Result<(), StoreError> {
    let metadata = fs::metadata(folder).map_err(|error| StoreError::Read(error, folder.into()))?;
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(StoreError::Open(folder.into(), mode));
    }
    Ok(())
}

/// The holders of certificates, for a message: `the controller and n[1-3]`.
pub fn describe(roles: &[&Role]) -> String {
    let mut parts = Vec::new();
    let mut nodes = Vec::new();
    for role in roles {
        match role {
            Role::Controller => parts.push("the controller".to_owned()),
            Role::Viewer => parts.push("the viewer".to_owned()),
            Role::Agent(node) => nodes.push(node),
        }
    }
    if !nodes.is_empty() {
        parts.push(hostlist::fold(&nodes));
    }
    parts.join(" and ")
}
