//! The ways to an agent: [`Transport`] opens a stream of bytes, over which the agent's HTTP runs.

use std::{error::Error, io, path::PathBuf};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::UnixStream,
};

use crate::pki::Untrusted;

/// A way to an agent. `Pool` does the rest for all transports: HTTP, idle connections, time limits, open files.
pub(super) trait Transport: Sync {
    /// The stream of bytes.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// The number of files that a connection takes, including a look-up of the host's name.
    const FILES: u32 = 2;

    /// True if connecting is a login with time limits of its own, so the agent's time to answer starts after it.
    const IS_LOGIN: bool = false;

    /// True if connections stay open for the next call.
    const IS_KEPT: bool = true;

    /// Connects. An error of kind `PermissionDenied` lasts until somebody changes a setting; others may be temporary.
    fn connect(&self) -> impl Future<Output = io::Result<Self::Stream>> + Send;

    /// The agent's address, as messages show it.
    fn address(&self) -> String;

    /// The reason, if `error` says that one end does not trust the other.
    fn distrust(&self, _error: &(dyn Error + 'static)) -> Option<Untrusted> {
        None
    }
}

/// A Unix socket of this machine.
pub(super) struct Unix(pub(super) PathBuf);

impl Transport for Unix {
    type Stream = UnixStream;

    // A new connection costs nothing, and shows whether the agent is gone. An open one to a dead agent only breaks.
    const IS_KEPT: bool = false;

    async fn connect(&self) -> io::Result<UnixStream> {
        UnixStream::connect(&self.0).await
    }

    fn address(&self) -> String {
        self.0.display().to_string()
    }
}
