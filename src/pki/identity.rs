//! One's own side of TLS: [`Identity`], the certificate, its key, and the CA that the other side has to be of.

use std::{
    fs::File,
    io::{self, Read},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    ClientConfig, DigitallySignedStruct, DistinguishedName, Error as TlsError, RootCertStore, ServerConfig,
    SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor,
    },
    crypto::{CryptoProvider, WebPkiSupportedAlgorithms, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
    server::{
        ParsedCertificate, WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::{CertifiedKey, SingleCertAndKey},
    version::TLS13,
};
use thiserror::Error;

use super::{
    Role, TlsFiles, Validity,
    refusal::{Mistaken, mistaken},
};
use crate::topology::NodeName;

/// Who one is, and whose word one takes for who the others are.
#[derive(Clone, Debug)]
pub struct Identity {
    role: Role,
    validity: Validity,
    roots: Arc<RootCertStore>,
    key: Arc<CertifiedKey>,
    provider: Arc<CryptoProvider>,
}

/// Why there is no identity in these files.
#[derive(Debug, Error)]
pub enum IdentityError {
    /// One cannot be read.
    #[error("cannot read {path}: {0}", path = .1.display())]
    Unreadable(#[source] io::Error, PathBuf),
    /// Others may read the key.
    #[error("other users may read the private key {path} (mode {mode:04o}); run chmod 600; if they may have read it, issue a new one",
        path = .0.display(), mode = .1)]
    Exposed(PathBuf, u32),
    /// One has something else in it.
    #[error("{path} has no {what}: {why}", path = .path.display())]
    Malformed {
        /// Which.
        path: PathBuf,
        /// What should be in it.
        what: &'static str,
        /// What is wrong.
        why: String,
    },
    /// The certificate is of another key.
    #[error("{cert} is not the certificate of the key {key}; take both from one `netemctl pki issue`",
        cert = .0.display(), key = .1.display())]
    Mismatch(PathBuf, PathBuf),
    /// The certificate says nothing of what it is for.
    #[error("{path} is not a netemctl certificate: it names no controller, viewer or agent", path = .0.display())]
    NoRole(PathBuf),
    /// It is for something else.
    #[error("{path} is the certificate of {is}, not of {wanted}", path = .path.display(), is = .is.describe(), wanted = .wanted.describe())]
    OtherRole {
        /// The certificate.
        path: PathBuf,
        /// Whose it is.
        is: Role,
        /// Whose it should be.
        wanted: Role,
    },
}

impl Identity {
    /// Reads an identity. The key must not be readable by others; `ca` may have several certificates, all trusted.
    pub fn read(TlsFiles { ca, cert, key }: &TlsFiles) -> Result<Self, IdentityError> {
        let malformed = |path: &Path, what, error: &dyn std::fmt::Display| IdentityError::Malformed {
            path: path.into(),
            what,
            why: error.to_string(),
        };
        let provider = Arc::new(ring::default_provider());
        let mut roots = RootCertStore::empty();
        for root in certificates(ca)? {
            roots.add(root).map_err(|error| malformed(ca, "CA certificate", &error))?;
        }
        let chain = certificates(cert)?;
        let leaf = chain.first().ok_or_else(|| malformed(cert, "certificate", &"it is empty"))?;
        let role = Role::of(leaf).ok_or_else(|| IdentityError::NoRole(cert.into()))?;
        let validity = Validity::of(leaf).ok_or_else(|| malformed(cert, "certificate", &"no dates"))?;
        let secret = PrivateKeyDer::from_pem_slice(&secret(key)?);
        let secret = secret.map_err(|error| malformed(key, "private key", &error))?;
        let certified = CertifiedKey::from_der(chain, secret, &provider).map_err(|error| match error {
            TlsError::InconsistentKeys(_) => IdentityError::Mismatch(cert.into(), key.into()),
            error => malformed(key, "private key", &error),
        })?;
        Ok(Self { role, validity, roots: Arc::new(roots), key: Arc::new(certified), provider })
    }

    /// Reads that of a folder as [`pki issue`](super::store) makes them.
    pub fn in_folder(folder: &Path) -> Result<Self, IdentityError> {
        Self::read(&TlsFiles::in_folder(folder))
    }

    /// The same, if it is that of `wanted`, or of a viewer where a controller is wanted; `cert` is for the error.
    pub fn only_of(self, wanted: &Role, cert: &Path) -> Result<Self, IdentityError> {
        let is_client = *wanted == Role::Controller && self.role == Role::Viewer;
        if self.role == *wanted || is_client {
            return Ok(self);
        }
        Err(IdentityError::OtherRole { path: cert.into(), is: self.role, wanted: wanted.clone() })
    }

    /// What its certificate is for.
    pub fn role(&self) -> &Role {
        &self.role
    }

    /// How long its certificate holds.
    pub fn validity(&self) -> Validity {
        self.validity
    }

    /// The TLS of a controller that means to talk to the agent of `node`, wherever that may be; `None`: to that of any
    /// node, to learn which one it is.
    pub fn client(&self, node: Option<&NodeName>) -> Result<ClientConfig, TlsError> {
        let verifier = AgentVerifier {
            node: node.cloned(),
            roots: Arc::clone(&self.roots),
            algorithms: self.provider.signature_verification_algorithms,
        };
        let config = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let mut config = config.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(&self.key))));
        // Each connection proves anew who is there; and where it goes is nobody else's business.
        config.resumption = Resumption::disabled();
        config.enable_sni = false;
        Ok(config)
    }

    /// The TLS of an agent, which listens to nobody but controllers and viewers.
    pub fn server(&self) -> Result<ServerConfig, TlsError> {
        let chain = WebPkiClientVerifier::builder_with_provider(Arc::clone(&self.roots), Arc::clone(&self.provider));
        let chain = chain.build().map_err(|error| TlsError::General(error.to_string()))?;
        let mut config = ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&TLS13])?
            .with_client_cert_verifier(Arc::new(ClientVerifier { chain }))
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(&self.key))));
        config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(config)
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
    let text = std::fs::read(path).map_err(|error| IdentityError::Unreadable(error, path.into()))?;
    let malformed = |why: String| IdentityError::Malformed { path: path.into(), what: "certificate", why };
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let found = found.map_err(|error| malformed(error.to_string()))?;
    if found.is_empty() { Err(malformed("no `BEGIN CERTIFICATE`".to_owned())) } else { Ok(found) }
}

/// A private key, if nobody else may read it.
pub(super) fn secret(path: &Path) -> Result<Vec<u8>, IdentityError> {
    let unreadable = |error| IdentityError::Unreadable(error, path.into());
    let mut file = File::open(path).map_err(unreadable)?;
    let mode = file.metadata().map_err(unreadable)?.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(IdentityError::Exposed(path.into(), mode));
    }
    let mut text = Vec::new();
    file.read_to_end(&mut text).map_err(unreadable)?;
    Ok(text)
}

/// Takes the agent of one node for it, and nobody else.
#[derive(Debug)]
struct AgentVerifier {
    /// The node; `None`: any.
    node: Option<NodeName>,
    roots: Arc<RootCertStore>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for AgentVerifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        let parsed = ParsedCertificate::try_from(certificate)?;
        let chain =
            verify_server_cert_signed_by_trust_anchor(&parsed, &self.roots, intermediates, now, self.algorithms.all);
        let role = Role::of(certificate);
        chain.map_err(|error| mistaken(error, role.as_ref()))?;
        match &role {
            Some(Role::Agent(node)) if self.node.as_ref().is_none_or(|meant| meant == node) => {
                Ok(ServerCertVerified::assertion())
            }
            _ => Err(Mistaken(role).into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Takes controllers and viewers of the right CA for what they are, and nobody else.
#[derive(Debug)]
struct ClientVerifier {
    chain: Arc<dyn ClientCertVerifier>,
}

impl ClientCertVerifier for ClientVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chain.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, TlsError> {
        let role = Role::of(certificate);
        let verified = self.chain.verify_client_cert(certificate, intermediates, now);
        let verified = verified.map_err(|error| mistaken(error, role.as_ref()))?;
        match role {
            Some(Role::Controller | Role::Viewer) => Ok(verified),
            _ => Err(Mistaken(role).into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        self.chain.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        self.chain.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}
