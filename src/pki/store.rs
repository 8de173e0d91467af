//! A private CA and all that it has issued, as a folder: [`Store`].
//!
//! ```text
//! ca/cert.pem ca/key.pem                          the CA; whoever has its key is trusted by all
//! controller/{ca,cert,key}.pem                    a folder is one identity, ready to be used or copied as it is
//! viewer/{ca,cert,key}.pem
//! nodes/n7/{ca,cert,key}.pem
//! ```
//!
//! Folders have mode 0700 and keys 0600. A folder appears as a whole or not at all, and takes the place of another only
//! if that is asked for.

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
use crate::topology::{NodeName, hostlist};

const CA: &str = "ca";
const CONTROLLER: &str = "controller";
const VIEWER: &str = "viewer";
const NODES: &str = "nodes";

/// The folder of one private CA.
#[derive(Clone, Debug)]
pub struct Store(PathBuf);

/// What a store has of one identity, or of its CA.
#[derive(Clone, Debug)]
pub struct StoredIdentity {
    /// Its folder.
    pub folder: PathBuf,
    /// What its certificate is for; `None`: it is the CA's.
    pub role: Option<Role>,
    /// How long it holds.
    pub validity: Validity,
    /// Whether it was signed by the CA that the store has now.
    pub is_ours: bool,
}

/// Why a store cannot do what is asked.
#[derive(Debug, Error)]
pub enum StoreError {
    /// There is a CA already.
    #[error("{0} has a CA already")]
    HasCa(PathBuf),
    /// There is none.
    #[error("{0} has no CA")]
    NoCa(PathBuf),
    /// There are certificates already.
    #[error("certificates for {0} exist already")]
    Issued(String),
    /// Others may look into the folder.
    #[error("other users have access to {path} (mode {mode:04o}); run: chmod 700 {path}", path = .0.display(), mode = .1)]
    Open(PathBuf, u32),
    /// A certificate cannot be made.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// The CA's key cannot be read.
    #[error(transparent)]
    Key(#[from] IdentityError),
    /// There is something else in a certificate's place.
    #[error("{0} is not a netemctl certificate")]
    Odd(PathBuf),
    /// A file cannot be read or written.
    #[error("{path}: {0}", path = .1.display())]
    File(#[source] io::Error, PathBuf),
}

impl Store {
    /// The store that is in this folder, or will be.
    pub fn at(folder: impl Into<PathBuf>) -> Self {
        Self(folder.into())
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Where an identity is.
    pub fn folder(&self, role: &Role) -> PathBuf {
        match role {
            Role::Controller => self.0.join(CONTROLLER),
            Role::Viewer => self.0.join(VIEWER),
            Role::Agent(node) => self.0.join(NODES).join(node.as_str()),
        }
    }

    /// Makes a CA. With `force` it takes the place of the one that there is, whose certificates nobody believes then.
    pub fn init(&self, validity: Validity, force: bool) -> Result<(), StoreError> {
        self.make_private(&self.0)?;
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

    /// Makes identities; if one of them is there already and this is not `force`d, none.
    pub fn issue(&self, wishes: &[CertificateRequest], force: bool) -> Result<Vec<PathBuf>, StoreError> {
        let authority = self.authority()?;
        let taken: Vec<&Role> =
            wishes.iter().map(|wish| &wish.role).filter(|role| self.folder(role).exists()).collect();
        if !taken.is_empty() && !force {
            return Err(StoreError::Issued(describe(&taken)));
        }
        self.make_private(&self.0.join(NODES))?;
        // All of them are made before the first one is put in its place.
        let issued: Result<Vec<_>, _> = wishes.iter().map(|wish| authority.issue(wish)).collect();
        let place = |(wish, issued): (&CertificateRequest, super::Issued)| {
            let folder = self.folder(&wish.role);
            let files = [
                (CA_FILE, authority.certificate(), 0o644),
                (CERTIFICATE_FILE, issued.certificate.as_str(), 0o644),
                (KEY_FILE, issued.key.as_str(), 0o600),
            ];
            self.place(&folder, &files, force).map(|()| folder)
        };
        wishes.iter().zip(issued?).map(place).collect()
    }

    /// What there is: the CA first, then the controller, the viewer, and the nodes in their order.
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
        let entries = match fs::read_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.and_then(Iterator::collect::<io::Result<Vec<_>>>),
        };
        let entries = entries.map_err(|error| StoreError::File(error, folder))?;
        // What has no node's name is none of ours.
        Ok(entries.iter().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect())
    }

    fn authority(&self) -> Result<Authority, StoreError> {
        let folder = self.0.join(CA);
        if !folder.exists() {
            return Err(StoreError::NoCa(self.0.clone()));
        }
        self.check_private(&self.0)?;
        let certificate = folder.join(CERTIFICATE_FILE);
        let text = fs::read_to_string(&certificate).map_err(|error| StoreError::File(error, certificate))?;
        let key = identity::secret(&folder.join(KEY_FILE))?;
        Ok(Authority::open(text, String::from_utf8_lossy(&key).into_owned())?)
    }

    fn certificate(&self, folder: &Path) -> Result<CertificateDer<'static>, StoreError> {
        let path = folder.join(CERTIFICATE_FILE);
        let text = fs::read(&path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound if folder == self.0.join(CA) => StoreError::NoCa(self.0.clone()),
            _ => StoreError::File(error, path.clone()),
        })?;
        CertificateDer::from_pem_slice(&text).map_err(|_| StoreError::Odd(path))
    }

    /// Makes a folder for the user alone, or checks that it is.
    fn make_private(&self, folder: &Path) -> Result<(), StoreError> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
        made.map_err(|error| StoreError::File(error, folder.into()))?;
        self.check_private(folder)
    }

    #[expect(clippy::unused_self, reason = "it is a rule of stores")]
    fn check_private(&self, folder: &Path) -> Result<(), StoreError> {
        let metadata = fs::metadata(folder).map_err(|error| StoreError::File(error, folder.into()))?;
        let mode = metadata.permissions().mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(StoreError::Open(folder.into(), mode));
        }
        Ok(())
    }

    /// Puts a folder with these files in its place, as a whole.
    fn place(&self, target: &Path, files: &[(&str, &str, u32)], force: bool) -> Result<(), StoreError> {
        let failed = |error| StoreError::File(error, target.into());
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
            // What was there goes with its folder, or comes back.
            let aside = beside().map_err(failed)?;
            let old = aside.path().join("old");
            fs::rename(target, &old).map_err(failed)?;
            if let Err(error) = fs::rename(staged.path(), target) {
                fs::rename(&old, target).map_err(failed)?;
                return Err(failed(error));
            }
        } else {
            // A folder that is not empty is never replaced by this (rename(2)).
            fs::rename(staged.path(), target).map_err(failed)?;
        }
        // It is somewhere else by now, and not to be removed.
        let _moved = staged.keep();
        let parent = target.parent().unwrap_or(&self.0);
        File::open(parent).and_then(|parent| parent.sync_all()).map_err(failed)
    }
}

/// Whose certificates they are: `the controller and n[1-3]`.
pub fn describe(roles: &[&Role]) -> String {
    let nodes: Vec<NodeName> = roles
        .iter()
        .filter_map(|role| match role {
            Role::Agent(node) => Some(node.clone()),
            Role::Controller | Role::Viewer => None,
        })
        .collect();
    let clients = [(Role::Controller, "the controller"), (Role::Viewer, "the viewer")];
    let clients = clients.into_iter().filter(|(role, _)| roles.contains(&role)).map(|(_, name)| name.to_owned());
    let nodes = Some(hostlist::fold(&nodes)).filter(|_| !nodes.is_empty());
    clients.chain(nodes).collect::<Vec<_>>().join(" and ")
}
