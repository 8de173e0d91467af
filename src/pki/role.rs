//! Reads and writes the role of a certificate's holder: [`Role`].

use std::{fmt, str::FromStr};

use rustls::pki_types::CertificateDer;

use crate::topology::NodeName;

/// The scheme of role URIs, in the certificate's subject alternative names.
const SCHEME: &str = "netemctl:";

/// The role of a certificate's holder: `netemctl:controller`, `netemctl:viewer` or `netemctl:agent/n7`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// May change the nodes' networks.
    Controller,
    /// May read the rules in force, but may not change or measure anything.
    Viewer,
    /// The agent of this node.
    Agent(NodeName),
}

impl Role {
    /// The role in a certificate, without a check of its signature. `None`: the certificate has no role, several roles,
    /// or an unknown role.
    pub fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        let certificate = webpki::EndEntityCert::try_from(certificate).ok()?;
        let mut roles = certificate.valid_uri_names().filter(|uri| uri.starts_with(SCHEME));
        let role = roles.next()?.parse().ok()?;
        roles.next().is_none().then_some(role)
    }

    /// The role in words, for a message: `the agent of n7`.
    pub fn describe(&self) -> String {
        match self {
            Self::Controller => "a controller".to_owned(),
            Self::Viewer => "a viewer".to_owned(),
            Self::Agent(node) => format!("the agent of {node}"),
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Controller => write!(f, "{SCHEME}controller"),
            Self::Viewer => write!(f, "{SCHEME}viewer"),
            Self::Agent(node) => write!(f, "{SCHEME}agent/{node}"),
        }
    }
}

impl FromStr for Role {
    type Err = ();

    fn from_str(uri: &str) -> Result<Self, ()> {
        match uri.strip_prefix(SCHEME) {
            Some("controller") => Ok(Self::Controller),
            Some("viewer") => Ok(Self::Viewer),
            Some(role) => {
                let node = role.strip_prefix("agent/").and_then(|node| node.parse().ok());
                node.map(Self::Agent).ok_or(())
            }
            None => Err(()),
        }
    }
}
