//! Calling one agent: JSON over HTTP over whatever carries bytes.

use std::{error::Error, io, path::PathBuf, time::Duration};

use hyper::body::Bytes;
use nix::errno::Errno;
use thiserror::Error;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::UnixStream,
    time::timeout,
};

use super::{
    connection::{Connection, Idle},
    files::{Files, Share},
};
use crate::{
    pki::Untrusted,
    wire::{ApiError, Call},
};

/// A way to an agent.
pub trait Transport: Sync {
    /// What it connects with.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// Connects.
    fn connect(&self) -> impl Future<Output = io::Result<Self::Stream>> + Send;

    /// How a person would name the other end.
    fn describe(&self) -> String;

    /// Why both ends do not trust each other, if that is what an error is about.
    fn distrust(&self, _error: &(dyn Error + 'static)) -> Option<Untrusted> {
        None
    }
}

/// By a Unix socket of this machine.
pub struct Unix {
    /// Its path.
    pub socket: PathBuf,
}

impl Transport for Unix {
    type Stream = UnixStream;

    async fn connect(&self) -> io::Result<UnixStream> {
        UnixStream::connect(&self.socket).await
    }

    fn describe(&self) -> String {
        self.socket.display().to_string()
    }
}

/// Why a call was not answered as it should be.
#[derive(Debug, Error)]
pub enum CallError {
    /// The agent answered, with an error.
    #[error(transparent)]
    Refused(#[from] ApiError),
    /// It is not who it should be, or does not take us for who we should be.
    #[error("the agent at {at}: {why}")]
    Untrusted {
        /// Where it should be.
        at: String,
        /// Why not.
        why: Untrusted,
    },
    /// There is nothing to prove with who we are.
    #[error(
        "the agent at {at} is reached by TLS, for which there is no certificate here: name the folder of a controller's with \
             --tls-dir, or make one: netemctl pki issue --controller"
    )]
    NoIdentity {
        /// Where it is.
        at: String,
    },
    /// This process has too many open files.
    #[error("the agent at {at} was not asked, as this process may open no more files; raise the limit: ulimit -n")]
    NoFiles {
        /// Where it is.
        at: String,
    },
    /// Nobody is there.
    #[error("no agent at {at}: {error}")]
    Unreachable {
        /// Where it should be.
        at: String,
        /// Why not.
        #[source]
        error: io::Error,
    },
    /// Nobody gets to an agent there until somebody changes something.
    #[error("no agent at {at}: {why}")]
    Barred {
        /// Where it should be.
        at: String,
        /// Why not, with what to do.
        why: String,
    },
    /// It was there, and went away while it was asked.
    #[error("the agent at {at} hung up: {error}")]
    HungUp {
        /// Where it was.
        at: String,
        /// In which way.
        #[source]
        error: hyper::Error,
    },
    /// It took too long.
    #[error("the agent at {at} did not answer within {} s", (.after.as_secs_f64() * 10.0).round() / 10.0)]
    TimedOut {
        /// Where it is.
        at: String,
        /// How long it was given.
        after: Duration,
    },
    /// Something answered that is not an agent, or not one of this version.
    #[error("what answers at {at} makes no sense: {why}")]
    Garbled {
        /// Where it is.
        at: String,
        /// In which way.
        why: String,
    },
}

impl CallError {
    /// The same without the agent's address: what many nodes may have in common.
    pub fn reason(&self) -> String {
        match self {
            Self::Refused(error) => error.to_string(),
            Self::Untrusted { why, .. } => why.to_string(),
            Self::NoIdentity { .. } => {
                "reached by TLS, for which there is no certificate here (--tls-dir; netemctl pki issue --controller)"
                    .to_owned()
            }
            Self::NoFiles { .. } => {
                "not asked, as this process may open no more files; raise the limit: ulimit -n".to_owned()
            }
            Self::Unreachable { error, .. } => format!("no agent: {error}"),
            Self::Barred { why, .. } => format!("no agent: {why}"),
            Self::HungUp { error, .. } => format!("the agent hung up: {error}"),
            Self::TimedOut { after, .. } => {
                format!("no answer within {} s", (after.as_secs_f64() * 10.0).round() / 10.0)
            }
            Self::Garbled { why, .. } => format!("what answers makes no sense: {why}"),
        }
    }
}

/// A request as it is sent. Requests are plain structs, which JSON can always write.
pub(super) fn body<C: Call>(request: &C) -> Vec<u8> {
    serde_json::to_vec(request).unwrap_or_default()
}

/// How many files a connection takes, a look-up of its name included.
const FILES: u32 = 2;

/// Connects.
async fn open<T: Transport>(transport: &T, share: Share) -> Result<Connection<Share>, CallError> {
    let stream = transport.connect().await.map_err(|error| match transport.distrust(&error) {
        Some(why) => CallError::Untrusted { at: transport.describe(), why },
        None if lacks_files(&error) => CallError::NoFiles { at: transport.describe() },
        None if error.kind() == io::ErrorKind::PermissionDenied => {
            CallError::Barred { at: transport.describe(), why: error.to_string() }
        }
        None => CallError::Unreachable { at: transport.describe(), error },
    })?;
    let made = Connection::over(stream, share).await;
    made.map_err(|error| CallError::HungUp { at: transport.describe(), error })
}

/// Whether this process, or this machine, may open no more files: what has failed says nothing about the other end.
fn lacks_files(error: &io::Error) -> bool {
    matches!(error.raw_os_error().map(Errno::from_raw), Some(Errno::EMFILE | Errno::ENFILE))
}

/// Makes one call, on a connection of its own.
pub(super) async fn call<Q: Call>(
    transport: &impl Transport,
    files: &Files,
    body: Vec<u8>,
    after: Duration,
) -> Result<Q::Reply, CallError> {
    let share = files.take(FILES).await;
    let made = async { open(transport, share).await?.exchange::<Q>(&transport.describe(), body.into()).await };
    in_time(transport, after, made).await
}

/// Makes one call, on a connection that is kept for the next one.
pub(super) async fn call_kept<Q: Call, T: Clone + Ord>(
    transport: &impl Transport,
    idle: &Idle<T, Share>,
    to: &T,
    body: Vec<u8>,
    after: Duration,
) -> Result<Q::Reply, CallError> {
    let (at, body) = (transport.describe(), Bytes::from(body));
    while let Some(kept) = idle.take(to).await {
        match in_time(transport, after, idle.exchange::<Q>(to, kept, &at, body.clone())).await {
            // The agent closed it at this very moment, and nothing was sent.
            Err(CallError::HungUp { error, .. }) if error.is_canceled() => {}
            answer => return answer,
        }
    }
    // To wait for other calls to end takes nothing of the agent's time.
    let share = idle.files.take(FILES).await;
    let made = async { idle.exchange::<Q>(to, open(transport, share).await?, &at, body).await };
    in_time(transport, after, made).await
}

/// Waits so long for an answer. That the agent refuses its certificate, a client hears only when it is connected, and the
/// agent hangs up (RFC 8446, section 4.4.2.4 and appendix E.1.2).
async fn in_time<T>(
    transport: &impl Transport,
    after: Duration,
    made: impl Future<Output = Result<T, CallError>>,
) -> Result<T, CallError> {
    let answer = timeout(after, made).await;
    let answer = answer.unwrap_or_else(|_| Err(CallError::TimedOut { at: transport.describe(), after }));
    answer.map_err(|error| match error {
        CallError::HungUp { at, error } => match transport.distrust(&error) {
            Some(why) => CallError::Untrusted { at, why },
            None => CallError::HungUp { at, error },
        },
        error => error,
    })
}
