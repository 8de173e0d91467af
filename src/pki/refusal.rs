//! Why a TLS connection did not come about, in sentences that say what to do.
//!
//! rustls knows the reason as an error of its own or, where the other end has refused, as the alert that it sent
//! (RFC 8446, section 6.2). In TLS 1.3 a client learns of the latter only when it reads the answer to its request.

use std::{error::Error, fmt, io, sync::Arc};

use rustls::{AlertDescription, CertificateError, Error as TlsError, InvalidMessage, OtherError, PeerIncompatible};

use super::Role;
use crate::{plan::Moment, topology::NodeName};

/// A certificate of a CA that is trusted, for something else than what it is shown for.
#[derive(Debug)]
pub(super) struct Mistaken(pub(super) Option<Role>);

impl fmt::Display for Mistaken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(role) => write!(f, "the certificate is that of {}", role.describe()),
            None => f.write_str("the certificate names no role of netemctl"),
        }
    }
}

impl Error for Mistaken {}

impl From<Mistaken> for TlsError {
    fn from(mistaken: Mistaken) -> Self {
        Self::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(mistaken))))
    }
}

/// The error of a chain, where a wrong extended key usage is nothing but a wrong role.
pub(super) fn mistaken(error: TlsError, role: Option<&Role>) -> TlsError {
    match error {
        TlsError::InvalidCertificate(
            CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. },
        ) => Mistaken(role.cloned()).into(),
        error => error,
    }
}

/// Why a controller and an agent do not trust each other; each says what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Untrusted {
    /// What answers is no TLS.
    #[error(
        "it does not speak TLS: give the agent a [tls] section (netemctl agent --help), or correct its address in the \
         inventory"
    )]
    Plain,
    /// The agent is of another CA.
    #[error(
        "its certificate is signed by another CA than ours: issue it one of ours (netemctl pki issue {0}), or use the \
             other CA's controller certificate"
    )]
    OtherCa(NodeName),
    /// Its certificate is over.
    #[error("its certificate expired {1}: renew it (netemctl pki issue {0} --force) and copy it to the node")]
    Expired(NodeName, String),
    /// Its certificate does not hold yet.
    #[error("its certificate is not valid before {0}: correct the clock of this machine")]
    Early(String),
    /// It is the agent of another node.
    #[error(
        "it is the agent of {other}, not of {node}: correct the address in the inventory, or the certificate on the node"
    )]
    OtherNode {
        /// Who was meant.
        node: NodeName,
        /// Who is there.
        other: NodeName,
    },
    /// It is no agent.
    #[error("its certificate is not an agent's ({0}): give it one (netemctl pki issue {1})")]
    NoAgent(String, NodeName),
    /// The agent trusts another CA.
    #[error(
        "it refuses our certificate, which is signed by another CA than it trusts: use the controller certificate of \
             its CA (--tls-dir), or give it one of ours (netemctl pki issue {0})"
    )]
    OurCa(NodeName),
    /// Our certificate is no controller's.
    #[error("it refuses our certificate, which is not a controller's: make one with netemctl pki issue --controller")]
    OurRole,
    /// Our certificate does not hold now.
    #[error(
        "it refuses our certificate, which is expired or not yet valid by the agent's clock: renew it (netemctl pki issue \
             --controller --force), or correct the clocks"
    )]
    OurValidity,
    /// We have shown none.
    #[error("it requires a certificate, and none was shown: name the folder of one with --tls-dir")]
    OurCertificate,
    /// Anything else.
    #[error("TLS failed: {0}")]
    Other(String),
}

/// Why a controller that meant to talk to `node` could not, if that is a matter of TLS.
pub fn why_untrusted(error: &(dyn Error + 'static), node: &NodeName) -> Option<Untrusted> {
    use CertificateError as Bad;
    let tls = tls_error(error)?;
    Some(match tls {
        TlsError::InvalidMessage(InvalidMessage::InvalidContentType) => Untrusted::Plain,
        TlsError::InvalidCertificate(bad) => match bad {
            Bad::UnknownIssuer | Bad::BadSignature => Untrusted::OtherCa(node.clone()),
            Bad::Expired => Untrusted::Expired(node.clone(), "by now".to_owned()),
            Bad::ExpiredContext { not_after, .. } => Untrusted::Expired(node.clone(), moment(not_after.as_secs())),
            Bad::NotValidYet => Untrusted::Early("later".to_owned()),
            Bad::NotValidYetContext { not_before, .. } => Untrusted::Early(moment(not_before.as_secs())),
            Bad::Other(OtherError(why)) => match why.downcast_ref::<Mistaken>() {
                Some(Mistaken(Some(Role::Agent(other)))) if other != node => {
                    Untrusted::OtherNode { node: node.clone(), other: other.clone() }
                }
                _ => Untrusted::NoAgent(why.to_string(), node.clone()),
            },
            bad => Untrusted::Other(bad.to_string()),
        },
        TlsError::AlertReceived(alert) => match alert {
            AlertDescription::UnknownCA | AlertDescription::DecryptError => Untrusted::OurCa(node.clone()),
            AlertDescription::CertificateExpired => Untrusted::OurValidity,
            AlertDescription::CertificateUnknown
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::AccessDenied => Untrusted::OurRole,
            AlertDescription::CertificateRequired => Untrusted::OurCertificate,
            alert => Untrusted::Other(format!("the other end says {alert:?}")),
        },
        error => Untrusted::Other(error.to_string()),
    })
}

/// Why an agent did not take a client for a controller, for its log.
pub fn why_refused(error: &io::Error) -> String {
    use CertificateError as Bad;
    match tls_error(error) {
        Some(TlsError::NoCertificatesPresented) => "it showed no certificate".to_owned(),
        Some(TlsError::InvalidMessage(InvalidMessage::InvalidContentType)) => {
            "it does not speak TLS (plain HTTP?)".to_owned()
        }
        Some(TlsError::InvalidCertificate(bad)) => match bad {
            Bad::UnknownIssuer | Bad::BadSignature => "its certificate is signed by another CA".to_owned(),
            Bad::Expired => "its certificate has expired".to_owned(),
            Bad::ExpiredContext { not_after, .. } => format!("its certificate expired {}", moment(not_after.as_secs())),
            Bad::NotValidYet => "its certificate is not valid yet".to_owned(),
            Bad::NotValidYetContext { not_before, .. } => {
                format!("its certificate is not valid before {}", moment(not_before.as_secs()))
            }
            Bad::Other(OtherError(why)) => format!("{why}, not of a controller"),
            bad => format!("its certificate is bad: {bad}"),
        },
        Some(TlsError::PeerIncompatible(PeerIncompatible::SupportedVersionsExtensionRequired)) => {
            "it does not speak TLS 1.3".to_owned()
        }
        Some(TlsError::AlertReceived(alert)) => format!("it refused this agent's certificate ({alert:?})"),
        Some(error) => error.to_string(),
        None => error.to_string(),
    }
}

fn moment(seconds: u64) -> String {
    Moment::from_nanos(seconds.saturating_mul(1_000_000_000)).to_string()
}

/// The error of rustls that this one comes from, however deep it is wrapped.
fn tls_error<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a TlsError> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(tls) = error.downcast_ref() {
            return Some(tls);
        }
        // An I/O error shows its inner error's source as its own, and not that error.
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        next = match inner {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    None
}
