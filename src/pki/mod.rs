//! Who may talk to whom over TLS: a private certificate authority, and certificates that say what they are for.
//!
//! [`Authority`] makes certificates and [`store`] keeps them in a folder. Each names one [`Role`]: the agent of one node,
//! or a controller. [`Identity`] is one's own certificate, key and trusted CA, from which both ends get their TLS
//! configuration: a controller talks to nobody but the agent of the very node that it means, an agent listens to nobody
//! but a controller. Host names and addresses play no part in that. TLS 1.3 only, by rustls with ring.

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
