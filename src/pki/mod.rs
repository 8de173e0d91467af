//! Authenticates controllers, viewers and agents over TLS, with certificates of a private certificate authority.
//!
//! [`Authority`] makes certificates and [`store`] keeps them in a folder. Each certificate names one [`Role`]: the
//! agent of one node, a controller or a viewer. [`Identity`] is a certificate with its key and the trusted CAs, and
//! makes the TLS configuration of a controller or an agent. A controller accepts only the agent of the node that it
//! calls. An agent accepts only controllers and viewers. Host names and addresses in certificates are ignored. Only TLS
//! 1.3 is used, by rustls with ring.

mod authority;
mod files;
mod identity;
mod refusal;
mod role;
pub mod store;
#[cfg(test)]
mod tests;
mod validity;

pub use authority::{Authority, AuthorityError, CertificateRequest, Issued};
pub(crate) use files::TlsTable;
pub use files::{CA_FILE, CERTIFICATE_FILE, KEY_FILE, TlsFiles};
pub use identity::{Identity, IdentityError};
pub use refusal::{Untrusted, why_refused, why_untrusted};
pub use role::Role;
pub use validity::Validity;
