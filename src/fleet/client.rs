//! Calling one agent: JSON over HTTP over whatever carries bytes.

use std::{error::Error, io, path::PathBuf, time::Duration};

use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Request,
    body::Bytes,
    client::conn::http1::{self, SendRequest},
    header,
};
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::UnixStream,
    time::timeout,
};

use crate::{
    pki::Untrusted,
    wire::{ApiError, Call},
};

/// The largest answer: a document of 10,000 nodes is about a megabyte.
const BODY_LIMIT: usize = 16 * 1024 * 1024;

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
    /// Nobody is there.
    #[error("no agent at {at}: {error}")]
    Unreachable {
        /// Where it should be.
        at: String,
        /// Why not.
        #[source]
        error: io::Error,
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

/// A request as it is sent. Requests are plain structs, which JSON can always write.
pub(super) fn body<C: Call>(request: &C) -> Vec<u8> {
    serde_json::to_vec(request).unwrap_or_default()
}

/// Makes one call, on a connection of its own.
pub(super) async fn call<C: Call>(
    transport: &impl Transport,
    body: Vec<u8>,
    after: Duration,
) -> Result<C::Reply, CallError> {
    let at = transport.describe();
    let untrusted = |why| CallError::Untrusted { at: at.clone(), why };
    let made = async {
        let stream = transport.connect().await.map_err(|error| match transport.distrust(&error) {
            Some(why) => untrusted(why),
            None => CallError::Unreachable { at: at.clone(), error },
        })?;
        let broken = |error: hyper::Error| match transport.distrust(&error) {
            Some(why) => untrusted(why),
            None => CallError::HungUp { at: at.clone(), error },
        };
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        let connection = tokio::spawn(connection);
        let answer = exchange::<C>(&mut sender, &at, body).await;
        connection.abort();
        answer.map_err(|error| match error {
            CallError::HungUp { error, .. } => broken(error),
            error => error,
        })
    };
    timeout(after, made).await.unwrap_or_else(|_| Err(CallError::TimedOut { at: at.clone(), after }))
}

/// Makes one call on a connection that is there.
pub(super) async fn exchange<C: Call>(
    sender: &mut SendRequest<Full<Bytes>>,
    at: &str,
    body: Vec<u8>,
) -> Result<C::Reply, CallError> {
    let garbled = |why: String| CallError::Garbled { at: at.to_owned(), why };
    let request = Request::post(C::PATH)
        .header(header::HOST, "agent")
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(body)))
        .map_err(|error| garbled(error.to_string()))?;
    let broken = |error: hyper::Error| CallError::HungUp { at: at.to_owned(), error };
    let response = sender.send_request(request).await.map_err(broken)?;
    let status = response.status();
    let body = Limited::new(response.into_body(), BODY_LIMIT).collect().await;
    let body = body.map_err(|error| garbled(error.to_string()))?.to_bytes();
    if status.is_success() {
        return serde_json::from_slice(&body).map_err(|error| garbled(error.to_string()));
    }
    match serde_json::from_slice::<ApiError>(&body) {
        Ok(error) => Err(CallError::Refused(error)),
        Err(_) => Err(garbled(format!("status {status}"))),
    }
}
