//! Connects to agents by TCP: [`Https`] with mutual TLS, [`Http`] without TLS to agents of this machine only.

use std::{error::Error, io, sync::Arc};

use rustls::pki_types::ServerName;
use tokio::net::{TcpStream, lookup_host};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::transport::Transport;
use crate::{
    pki::{Identity, Untrusted, why_untrusted},
    plan::HostPort,
    topology::NodeName,
};

/// HTTPS with mutual TLS.
pub(super) struct Https {
    pub(super) address: HostPort,
    /// The node whose certificate the agent has to show, if `is_named` is true.
    pub(super) node: NodeName,
    /// True if the node's name is known. Otherwise, the certificate of any node is accepted.
    pub(super) is_named: bool,
    /// The controller's certificate.
    pub(super) identity: Arc<Identity>,
}

impl Transport for Https {
    type Stream = TlsStream<TcpStream>;

    async fn connect(&self) -> io::Result<Self::Stream> {
        let config = self.identity.client(Some(&self.node).filter(|_| self.is_named)).map_err(io::Error::other)?;
        // rustls requires a server name, which is not checked. The certificate's role and, if `is_named`, the node are
        // checked instead.
        let name = ServerName::try_from("agent").map_err(io::Error::other)?;
        let stream = connect(&self.address).await?;
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    }

    fn address(&self) -> String {
        format!("https://{}", self.address)
    }

    fn distrust(&self, error: &(dyn Error + 'static)) -> Option<Untrusted> {
        why_untrusted(error, &self.node)
    }
}

/// HTTP without TLS, to an agent of this machine.
pub(super) struct Http(pub(super) HostPort);

impl Transport for Http {
    type Stream = TcpStream;

    async fn connect(&self) -> io::Result<TcpStream> {
        connect(&self.0).await
    }

    fn address(&self) -> String {
        format!("http://{}", self.0)
    }
}

async fn connect(address: &HostPort) -> io::Result<TcpStream> {
    let addresses: Vec<_> = lookup_host((address.host.as_str(), address.port))
        .await
        .map_err(|error| {
            let why = error.to_string();
            let why = why.strip_prefix("failed to lookup address information: ").unwrap_or(&why);
            io::Error::new(error.kind(), format!("cannot resolve host {}: {why}", address.host))
        })?
        .collect();
    let stream = TcpStream::connect(&addresses[..]).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_host_that_does_not_resolve_is_named() {
        // An empty label is invalid, so no name server is asked.
        let address = HostPort { host: "n1..invalid".to_owned(), port: 1 };
        let error = connect(&address).await.unwrap_err().to_string();
        assert!(error.starts_with("cannot resolve host n1..invalid: "), "{error}");
        assert!(!error.contains("failed to lookup"), "{error}");
    }
}
