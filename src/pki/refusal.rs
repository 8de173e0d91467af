//! Describes errors of TLS connections in messages with remedies.
//!
//! rustls returns an error of its own or the alert of the other end (RFC 8446, section 6.2). In TLS 1.3, a client gets
//! the alert when it reads the answer to its request.

use std::{error::Error, io, iter, sync::Arc};

use rustls::{AlertDescription, CertificateError, Error as TlsError, InvalidMessage, OtherError, PeerIncompatible};

use super::Role;
use crate::{plan::Moment, topology::NodeName};

/// A certificate of a trusted CA has the wrong role.
#[derive(Debug, thiserror::Error)]
#[error("the certificate {}", .0.as_ref().map_or_else(|| "names no role of netemctl".into(), |role| format!("is that of {}", role.describe())))]
pub(super) struct WrongRole(pub(super) Option<Role>);

impl From<WrongRole> for TlsError {
    fn from(error: WrongRole) -> Self {
        Self::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(error))))
    }
}

/// Replaces an error about the extended key usage by [`WrongRole`], because the usage depends on the role.
pub(super) fn role_error(error: TlsError, role: Option<&Role>) -> TlsError {
    match error {
        TlsError::InvalidCertificate(
            CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. },
        ) => WrongRole(role.cloned()).into(),
        error => error,
    }
}

/// The reason why a controller and an agent do not trust each other. Each message has a remedy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Untrusted {
    /// The other end does not speak TLS.
    #[error(
        "it does not speak TLS: give the agent a [tls] section (netemctl agent --help), or correct its address in the \
         inventory"
    )]
    Plain,
    /// Another CA signed the agent's certificate.
    #[error(
        "the agent's CA is not the controller's CA; use the right folder: --tls-dir DIR; or issue the certificate again: \
         netemctl pki issue {0} --force, and copy it to {0}"
    )]
    OtherCa(NodeName),
    /// The agent's certificate has expired.
    #[error("its certificate expired {1}: renew it (netemctl pki issue {0} --force) and copy it to the node")]
    Expired(NodeName, String),
    /// The agent's certificate is not valid yet.
    #[error("its certificate is not valid before {0}: correct the clock of this machine")]
    Early(String),
    /// The agent belongs to another node.
    #[error(
        "it is the agent of {other}, not of {node}: correct the address in the inventory, or the certificate on the node"
    )]
    OtherNode {
        /// The called node.
        node: NodeName,
        /// The agent's node.
        other: NodeName,
    },
    /// The other end's certificate does not belong to an agent.
    #[error("its certificate is not an agent's ({0}): give it one (netemctl pki issue {1})")]
    NoAgent(String, NodeName),
    /// The agent trusts another CA.
    #[error(
        "it refuses our certificate: the agent's CA is not the controller's CA; use the right folder: --tls-dir DIR; or \
         issue the certificate again: netemctl pki issue {0} --force, and copy it to {0}"
    )]
    OurCa(NodeName),
    /// Our certificate does not belong to a controller.
    #[error("it refuses our certificate, which is not a controller's: make one with netemctl pki issue --controller")]
    OurRole,
    /// Our certificate is expired or not yet valid.
    #[error(
        "it refuses our certificate, which is expired or not yet valid by the agent's clock: renew it (netemctl pki issue \
             --controller --force), or correct the clocks"
    )]
    OurValidity,
    /// We presented no certificate.
    #[error("it requires a certificate, and none was shown: name the folder of one with --tls-dir")]
    OurCertificate,
    /// Another error.
    #[error("TLS failed: {0}")]
    Other(String),
}

/// The TLS error of a controller's connection to `node`. `None`: the error is not a TLS error.
pub fn why_untrusted(error: &(dyn Error + 'static), node: &NodeName) -> Option<Untrusted> {
    use CertificateError as Bad;
    let tls = tls_error(error)?;
    Some(match tls {
        TlsError::InvalidMessage(InvalidMessage::InvalidContentType) => Untrusted::Plain,
        TlsError::InvalidCertificate(bad) => match bad {
            Bad::UnknownIssuer | Bad::BadSignature => Untrusted::OtherCa(node.clone()),
            Bad::ExpiredContext { not_after, .. } => Untrusted::Expired(node.clone(), moment(not_after.as_secs())),
            Bad::NotValidYetContext { not_before, .. } => Untrusted::Early(moment(not_before.as_secs())),
            Bad::Other(OtherError(why)) => match why.downcast_ref::<WrongRole>() {
                Some(WrongRole(Some(Role::Agent(other)))) if other != node => {
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

/// The text about a failed TLS connection of a client, for the agent's log.
pub fn why_refused(error: &io::Error) -> String {
    use CertificateError as Bad;
    match tls_error(error) {
        Some(TlsError::NoCertificatesPresented) => "it showed no certificate".to_owned(),
        Some(TlsError::InvalidMessage(InvalidMessage::InvalidContentType)) => {
            "it does not speak TLS (plain HTTP?)".to_owned()
        }
        Some(TlsError::InvalidCertificate(bad)) => match bad {
            Bad::UnknownIssuer | Bad::BadSignature => "its certificate is signed by another CA".to_owned(),
            Bad::ExpiredContext { not_after, .. } => format!("its certificate expired {}", moment(not_after.as_secs())),
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

/// The rustls error in the chain of sources.
fn tls_error<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a TlsError> {
    iter::successors(Some(error), |error| source(*error)).find_map(|error| error.downcast_ref())
}

/// The source of an error. `io::Error::source` skips the inner error itself.
fn source<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    match error.downcast_ref().and_then(io::Error::get_ref) {
        Some(inner) => Some(inner),
        None => error.source(),
    }
}
