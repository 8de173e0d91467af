//! Makes keys and certificates in memory, as a private certificate authority: [`Authority`].

use std::{
    net::IpAddr,
    time::{Duration, UNIX_EPOCH},
};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use sha2::{Digest, Sha256};
use thiserror::Error;
use x509_parser::{certificate::X509Certificate, prelude::FromDer};

use super::{Role, Validity};
use crate::plan::Moment;

/// A certificate authority with its key.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
    key: String,
    validity: Validity,
}

/// The contents of a new certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateRequest {
    /// The role of the certificate's holder.
    pub role: Role,
    /// Host names and addresses to add, for other HTTP clients. netemctl ignores them.
    pub hosts: Vec<String>,
    /// The validity of the certificate.
    pub validity: Validity,
}

/// A new certificate with its key, both as PEM.
pub struct Issued {
    /// The certificate.
    pub certificate: String,
    /// The private key, PKCS #8.
    pub key: String,
}

/// The error of making a certificate.
#[derive(Debug, Error)]
pub enum AuthorityError {
    /// The certificate or the key of the CA is malformed, or they do not match.
    #[error("the certificate or the key of the CA cannot be used: {0}")]
    Unusable(String),
    /// The certificate would outlive the CA.
    #[error("the CA expires earlier, {0}; use fewer --days, or make a new CA")]
    Outlives(Moment),
    /// The text is neither a host name nor an address.
    #[error("`{0}` is neither a host name nor an address")]
    Host(String),
    /// `rcgen` failed.
    #[error("cannot make a certificate: {0}")]
    Failed(#[from] rcgen::Error),
}

impl Authority {
    /// Makes a new CA with a new key.
    pub fn new(validity: Validity) -> Result<Self, AuthorityError> {
        let key = KeyPair::generate()?;
        // The name is unique, so a certificate's issuer identifies its CA.
        let digest = Sha256::digest(key.public_key_raw());
        let mark = digest.iter().take(4).fold(0_u32, |mark, byte| mark << 8 | u32::from(*byte));
        let mut params = params(&format!("netemctl CA {mark:08x}"), validity);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key)?.pem();
        let pem = key.serialize_pem();
        Ok(Self { issuer: Issuer::new(params, key), certificate, key: pem, validity })
    }

    /// Opens a CA from its certificate and key, both PEM.
    pub fn open(certificate: String, key: String) -> Result<Self, AuthorityError> {
        let unusable = |error: &dyn std::fmt::Display| AuthorityError::Unusable(error.to_string());
        let pair = KeyPair::from_pem(&key).map_err(|error| unusable(&error))?;
        let der = CertificateDer::from_pem_slice(certificate.as_bytes()).map_err(|error| unusable(&error))?;
        let (_, parsed) = X509Certificate::from_der(&der).map_err(|error| unusable(&error))?;
        if parsed.public_key().subject_public_key.data != pair.public_key_raw() {
            return Err(unusable(&"the certificate belongs to another key"));
        }
        let validity = Validity::of(&der).ok_or_else(|| unusable(&"no dates"))?;
        let issuer = Issuer::from_ca_cert_der(&der, pair).map_err(|error| unusable(&error))?;
        Ok(Self { issuer, certificate, key, validity })
    }

    /// The certificate that agents and controllers trust, as PEM.
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// The private key, as PEM.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Makes a certificate with a new key (ECDSA on P-256).
    pub fn issue(&self, request: &CertificateRequest) -> Result<Issued, AuthorityError> {
        if request.validity.until > self.validity.until {
            return Err(AuthorityError::Outlives(self.validity.until));
        }
        let key = KeyPair::generate()?;
        let (name, usage) = match &request.role {
            Role::Controller => ("netemctl controller".to_owned(), ExtendedKeyUsagePurpose::ClientAuth),
            Role::Viewer => ("netemctl viewer".to_owned(), ExtendedKeyUsagePurpose::ClientAuth),
            Role::Agent(node) => (format!("netemctl agent {node}"), ExtendedKeyUsagePurpose::ServerAuth),
        };
        let mut params = params(&name, request.validity);
        params.extended_key_usages = vec![usage];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        params.subject_alt_names = alternative_names(request)?;
        let certificate = params.signed_by(&key, &self.issuer)?.pem();
        Ok(Issued { certificate, key: key.serialize_pem() })
    }
}

fn params(name: &str, validity: Validity) -> CertificateParams {
    let time = |moment: Moment| UNIX_EPOCH + Duration::from_nanos(moment.as_nanos());
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    // A common name has at most 64 characters (RFC 5280, ub-common-name). The URI of the role contains the whole name.
    params.distinguished_name.push(DnType::CommonName, name.chars().take(64).collect::<String>());
    params.not_before = time(validity.from).into();
    params.not_after = time(validity.until).into();
    params
}

fn alternative_names(request: &CertificateRequest) -> Result<Vec<SanType>, AuthorityError> {
    let role = SanType::URI(request.role.to_string().try_into()?);
    let own = match &request.role {
        Role::Agent(node) => Some(node.as_str()).filter(|name| is_host_name(name)),
        Role::Controller | Role::Viewer => None,
    };
    let hosts = request.hosts.iter().map(|host| match host.parse::<IpAddr>() {
        Ok(address) => Ok(SanType::IpAddress(address)),
        Err(_) if is_host_name(host) => Ok(SanType::DnsName(host.as_str().try_into()?)),
        Err(_) => Err(AuthorityError::Host(host.clone())),
    });
    std::iter::once(Ok(role)).chain(own.map(|own| Ok(SanType::DnsName(own.try_into()?)))).chain(hosts).collect()
}

/// True if each label has 1 to 63 letters, digits and hyphens, without a hyphen at either end (RFC 1123, section 2.1).
fn is_host_name(name: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    name.len() <= 253 && name.split('.').all(is_label)
}
