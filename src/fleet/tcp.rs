//! Connects to agents by TCP: [`Https`] with mutual TLS, [`Http`] without TLS to agents of this machine only.

use std::{error::Error, io, sync::Arc};

use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
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
    /// The node whose certificate the agent has to show.
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
        // rustls requires a server name, which is not checked. The certificate's role and node are checked instead.
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
    let stream = TcpStream::connect((address.host.as_str(), address.port)).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}
