//! Ways to agents by TCP: [`Https`] with mutual TLS, [`Http`] without, for this machine.

use std::{error::Error, io, sync::Arc};

use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::Transport;
pub use crate::pki::Identity;
use crate::{
    pki::{Untrusted, why_untrusted},
    plan::HostPort,
    topology::NodeName,
};

/// By HTTPS to the agent of one node.
pub struct Https {
    /// Where it is. What is believed is its certificate alone.
    pub address: HostPort,
    /// Whose agent it has to be.
    pub node: NodeName,
    /// Whether it has to be; otherwise any node's agent will do, and is only called so until it has said who it is.
    pub is_named: bool,
    /// Who asks.
    pub identity: Arc<Identity>,
}

impl Transport for Https {
    type Stream = TlsStream<TcpStream>;

    async fn connect(&self) -> io::Result<Self::Stream> {
        let config = self.identity.client(Some(&self.node).filter(|_| self.is_named)).map_err(io::Error::other)?;
        // Never looked at, since what counts is the role; but TLS libraries want one.
        let name = ServerName::try_from("agent").map_err(io::Error::other)?;
        let stream = connect(&self.address).await?;
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    }

    fn describe(&self) -> String {
        format!("https://{}", self.address)
    }

    fn distrust(&self, error: &(dyn Error + 'static)) -> Option<Untrusted> {
        why_untrusted(error, &self.node)
    }
}

/// By HTTP without TLS.
pub struct Http {
    /// Where it is.
    pub address: HostPort,
}

impl Transport for Http {
    type Stream = TcpStream;

    async fn connect(&self) -> io::Result<TcpStream> {
        connect(&self.address).await
    }

    fn describe(&self) -> String {
        format!("http://{}", self.address)
    }
}

async fn connect(address: &HostPort) -> io::Result<TcpStream> {
    let stream = TcpStream::connect((address.host.as_str(), address.port)).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}
