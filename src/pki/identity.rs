//! Makes the TLS configuration of an agent or a client from its certificate, its key and the trusted CAs: [`Identity`].

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
    refusal::{WrongRole, role_error},
};
use crate::topology::NodeName;

/// A certificate with its key, and the trusted CAs.
#[derive(Clone, Debug)]
pub struct Identity {
    role: Role,
    validity: Validity,
    roots: Arc<RootCertStore>,
    key: Arc<CertifiedKey>,
    provider: Arc<CryptoProvider>,
}

/// The error of reading an identity from its files.
#[derive(Debug, Error)]
pub enum IdentityError {
    /// A file cannot be read.
    #[error("cannot read {path}: {0}", path = .1.display())]
    Unreadable(#[source] io::Error, PathBuf),
    /// Other users may read the key.
    #[error("other users may read the private key {path} (mode {mode:04o}); run chmod 600; if they may have read it, issue a new one",
        path = .0.display(), mode = .1)]
    Exposed(PathBuf, u32),
    /// A file has no valid certificate or no valid key. The values: the file, the expected contents, the error.
    #[error("{path} has no {1}: {2}", path = .0.display())]
    Malformed(PathBuf, &'static str, String),
    /// The certificate and the key do not match.
    #[error("{cert} is not the certificate of the key {key}; take both from one `netemctl pki issue`",
        cert = .0.display(), key = .1.display())]
    Mismatch(PathBuf, PathBuf),
    /// The certificate names no role.
    #[error("{path} is not a netemctl certificate: it names no controller, viewer or agent", path = .0.display())]
    NoRole(PathBuf),
    /// The certificate has the first role, not the second.
    #[error("{path} is the certificate of {is}, not of {wanted}", path = .0.display(), is = .1.describe(), wanted = .2.describe())]
    OtherRole(PathBuf, Role, Role),
}

impl Identity {
    /// Reads an identity. No other user may read the key. All certificates in `ca` are trusted.
    pub fn read(TlsFiles { ca, cert, key }: &TlsFiles) -> Result<Self, IdentityError> {
        let malformed = |path: &Path, what, error: &dyn std::fmt::Display| {
            IdentityError::Malformed(path.into(), what, error.to_string())
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

    /// Fails if the role is not `wanted`. If a controller is wanted, a viewer is accepted too. The error names `cert`.
    pub fn require_role(self, wanted: &Role, cert: &Path) -> Result<Self, IdentityError> {
        let is_client = *wanted == Role::Controller && self.role == Role::Viewer;
        if self.role == *wanted || is_client {
            return Ok(self);
        }
        Err(IdentityError::OtherRole(cert.into(), self.role, wanted.clone()))
    }

    /// The role of the certificate.
    pub fn role(&self) -> &Role {
        &self.role
    }

    /// The validity of the certificate.
    pub fn validity(&self) -> Validity {
        self.validity
    }

    /// The TLS configuration of a controller that accepts only the agent of `node`. `None`: the agent of any node.
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
        // Resumption is off, so each connection authenticates. SNI is off, because it would reveal the host name.
        config.resumption = Resumption::disabled();
        config.enable_sni = false;
        Ok(config)
    }

    /// The TLS configuration of an agent, which accepts only controllers and viewers.
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
    let malformed = |why: String| IdentityError::Malformed(path.into(), "certificate", why);
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let found = found.map_err(|error| malformed(error.to_string()))?;
    if found.is_empty() { Err(malformed("no `BEGIN CERTIFICATE`".to_owned())) } else { Ok(found) }
}

/// Reads a private key. Fails if other users may read the file.
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

/// Accepts only agents of trusted CAs: the agent of one node, or of any node.
#[derive(Debug)]
struct AgentVerifier {
    /// The node. `None`: any node.
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
        chain.map_err(|error| role_error(error, role.as_ref()))?;
        match &role {
            Some(Role::Agent(node)) if self.node.as_ref().is_none_or(|meant| meant == node) => {
                Ok(ServerCertVerified::assertion())
            }
            _ => Err(WrongRole(role).into()),
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

/// Accepts only controllers and viewers of trusted CAs.
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
        let verified = verified.map_err(|error| role_error(error, role.as_ref()))?;
        match role {
            Some(Role::Controller | Role::Viewer) => Ok(verified),
            _ => Err(WrongRole(role).into()),
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
