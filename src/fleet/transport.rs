//! Connects to agents: a [`Transport`] opens a stream of bytes for the agent's HTTP. [`Unix`] is the local transport.

use std::{error::Error, io, path::PathBuf};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::UnixStream,
};

use crate::pki::Untrusted;

/// A transport to an agent. `Pool` does the rest for all transports: HTTP, idle connections, time limits, open files.
pub(super) trait Transport: Sync {
    /// The stream of bytes.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// The number of file descriptors that a connection takes, including the look-up of the host's name.
    const FILES: u32 = 2;

    /// True if connecting is a login with its own time limits. Then the time limit of the answer starts after the
    /// login.
    const IS_LOGIN: bool = false;

    /// True if a connection may stay open for the next call.
    const IS_KEPT: bool = true;

    /// Connects. An error of kind `PermissionDenied` lasts until somebody changes a setting. Other errors may be
    /// temporary.
    fn connect(&self) -> impl Future<Output = io::Result<Self::Stream>> + Send;

    /// The agent's address, as messages show it.
    fn address(&self) -> String;

    /// The reason, if `error` is the rejection of a certificate by the controller or the agent; `None`: another error.
    fn distrust(&self, _error: &(dyn Error + 'static)) -> Option<Untrusted> {
        None
    }
}

/// A Unix socket of this machine.
pub(super) struct Unix(pub(super) PathBuf);

impl Transport for Unix {
    type Stream = UnixStream;

    // A new connection to a Unix socket is cheap. If the agent has ended, connecting fails, so the request was
    // certainly not carried out. A break of an open connection does not tell if the request was carried out.
    const IS_KEPT: bool = false;

    async fn connect(&self) -> io::Result<UnixStream> {
        UnixStream::connect(&self.0).await
    }

    fn address(&self) -> String {
        self.0.display().to_string()
    }
}
