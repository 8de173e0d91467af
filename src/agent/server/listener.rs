//! Opens the listeners of an agent: a Unix socket, a TCP port with mutual TLS, or a loopback port without TLS.

use std::{
    fs::{self, Permissions},
    io,
    net::SocketAddr,
    os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown},
    path::{Path, PathBuf},
    time::Duration,
};

use nix::{
    sys::stat::{Mode, umask},
    unistd::Group,
};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use super::{
    ServeError,
    connections::{Connections, Limits},
    credentials::Credentials,
};
use crate::agent::Config;

/// Pause after an accept that failed, for example because no file descriptor was free.
const PAUSE: Duration = Duration::from_millis(200);

/// One listener. Each listener counts its own connections.
pub(super) struct Listener {
    socket: Socket,
    pub(super) connections: Connections,
}

enum Socket {
    Unix {
        listener: UnixListener,
        path: PathBuf,
        /// The inode of the agent's socket file. If the path has another inode, another process has replaced the file.
        inode: u64,
    },
    Tcp {
        listener: TcpListener,
        credentials: Option<Box<Credentials>>,
    },
}

/// An accepted connection.
pub(super) enum Accepted {
    Unix(UnixStream),
    /// `tls` is `None` only for a port on the loopback.
    Tcp {
        stream: TcpStream,
        peer: SocketAddr,
        tls: Option<tokio_rustls::TlsAcceptor>,
    },
}

impl Listener {
    /// Opens all listeners of a config. The Unix socket is last, so that an unusable port leaves no socket file behind.
    pub(super) async fn open(config: &Config, limits: &Limits) -> Result<Vec<Self>, ServeError> {
        let mut sockets = Vec::new();
        if let Some(address) = config.listen {
            let files = config.tls.clone();
            let credentials = files.map(|files| Credentials::read(files, &config.node)).transpose()?.map(Box::new);
            let listener = TcpListener::bind(address).await.map_err(|error| ServeError::Port(address, error))?;
            sockets.push(Socket::Tcp { listener, credentials });
        }
        if let Some(path) = &config.socket {
            let listener = open_unix(path).await?;
            if let Some(group) = &config.socket_group
                && let Err(error) = open_to(group, path)
            {
                drop(fs::remove_file(path));
                return Err(ServeError::Group(group.clone(), error));
            }
            let metadata = fs::metadata(path).map_err(|error| ServeError::Socket(path.clone(), error))?;
            sockets.push(Socket::Unix { listener, path: path.clone(), inode: metadata.ino() });
        }
        let listener = |socket| Self { socket, connections: Connections::new(limits.clone()) };
        Ok(sockets.into_iter().map(listener).collect())
    }

    /// The listener's URL, for the log.
    pub(super) fn describe(&self) -> String {
        match &self.socket {
            Socket::Unix { path, .. } => format!("unix:{}", path.display()),
            Socket::Tcp { listener, credentials } => {
                let scheme = if credentials.is_some() { "https" } else { "http" };
                listener.local_addr().map_or_else(|error| error.to_string(), |at| format!("{scheme}://{at}"))
            }
        }
    }

    /// Accepts the next connection.
    pub(super) async fn accept(&self) -> Accepted {
        loop {
            let arrival = match &self.socket {
                Socket::Unix { listener, .. } => listener.accept().await.map(|(stream, _)| Accepted::Unix(stream)),
                Socket::Tcp { listener, credentials } => listener.accept().await.map(|(stream, peer)| {
                    let tls = credentials.as_ref().map(|credentials| credentials.acceptor());
                    Accepted::Tcp { stream, peer, tls }
                }),
            };
            match arrival {
                Ok(arrival) => return arrival,
                Err(error) => {
                    tracing::debug!(%error, "Cannot accept a connection; retrying.");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Socket::Unix { path, inode, .. } = &self.socket
            // Another agent may have replaced the file by its own socket.
            && fs::metadata(path).is_ok_and(|now| now.ino() == *inode)
        {
            drop(fs::remove_file(path));
        }
    }
}

async fn open_unix(socket: &Path) -> Result<UnixListener, ServeError> {
    let failed = |error| ServeError::Socket(socket.into(), error);
    match UnixStream::connect(socket).await.map_err(|error| (error.kind(), error)) {
        Err((io::ErrorKind::NotFound, _)) => {}
        // The file is a socket that a killed agent has left, or is no socket.
        Err((io::ErrorKind::ConnectionRefused, _)) => {
            if !fs::symlink_metadata(socket).map_err(failed)?.file_type().is_socket() {
                return Err(ServeError::NotASocket(socket.into()));
            }
            fs::remove_file(socket).map_err(failed)?;
        }
        // `WouldBlock`: the queue of connections is full, so a process listens.
        Ok(_) | Err((io::ErrorKind::WouldBlock, _)) => return Err(ServeError::Taken(socket.into())),
        Err((_, error)) => return Err(failed(error)),
    }
    // With this umask, `bind` creates the socket with mode 0600. If the agent called chmod after `bind` instead, other
    // users could connect before the chmod.
    let before = umask(Mode::S_IXUSR | Mode::S_IRWXG | Mode::S_IRWXO);
    let listener = UnixListener::bind(socket).map_err(failed);
    umask(before);
    listener
}

/// Gives a group access to the socket.
fn open_to(group: &str, socket: &Path) -> io::Result<()> {
    let known = Group::from_name(group)?.ok_or_else(|| io::Error::other("there is no such group"))?;
    // The agent may lack the right to call chown, and needs no chown if the socket already belongs to the group.
    if fs::metadata(socket)?.gid() != known.gid.as_raw() {
        chown(socket, None, Some(known.gid.as_raw()))?;
    }
    fs::set_permissions(socket, Permissions::from_mode(0o660))
}
