//! Connections that are kept from one call to the next: to make one takes longer than most calls, and far longer where
//! packets get lost.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Request,
    body::Bytes,
    client::conn::http1::{self, SendRequest},
    header::{self, HeaderValue},
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    task::JoinHandle,
};

use super::{CallError, files::Files};
use crate::wire::{ApiError, Call, ErrorCode, SERVER};

/// The largest answer: a document of 10,000 nodes is about a megabyte.
const BODY_LIMIT: usize = 16 * 1024 * 1024;

/// HTTP with an agent, one call after the other. It ends when this is dropped, and `C` that carries it.
#[derive(Debug)]
pub(super) struct Connection<C = ()> {
    sender: SendRequest<Full<Bytes>>,
    driver: JoinHandle<hyper::Result<()>>,
    _carrier: C,
}

impl<C> Connection<C> {
    pub(super) async fn over<S>(stream: S, carrier: C) -> hyper::Result<Self>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        Ok(Self { sender, driver: tokio::spawn(connection), _carrier: carrier })
    }

    /// This, if a call can be made on it.
    async fn if_alive(mut self) -> Option<Self> {
        let is_alive = !self.driver.is_finished() && self.sender.ready().await.is_ok();
        is_alive.then_some(self)
    }

    /// Makes one call to the agent at `at`.
    pub(super) async fn exchange<Q: Call>(&mut self, at: &str, body: Bytes) -> Result<Q::Reply, CallError> {
        let garbled = |why: String| CallError::Garbled { at: at.to_owned(), why };
        let request = Request::post(Q::PATH)
            .header(header::HOST, "agent")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(|error| garbled(error.to_string()))?;
        let broken = |error: hyper::Error| CallError::HungUp { at: at.to_owned(), error };
        let response = self.sender.send_request(request).await.map_err(broken)?;
        let status = response.status();
        let other = response.headers().get(header::SERVER).and_then(another_version);
        let body = Limited::new(response.into_body(), BODY_LIMIT).collect().await;
        let body = body.map_err(|error| match error.downcast::<hyper::Error>() {
            Ok(error) => broken(*error),
            Err(error) => garbled(error.to_string()),
        })?;
        let body = body.to_bytes();
        if status.is_success() {
            let reply = serde_json::from_slice(&body);
            return reply.map_err(|error| garbled(format!("{error}{}", other.unwrap_or_default())));
        }
        match ApiError::read(status.as_u16(), &body) {
            Some(ApiError { code: code @ ErrorCode::BadRequest, message }) => {
                let message = format!("{message}{}", other.unwrap_or_default());
                Err(CallError::Refused(ApiError { code, message }))
            }
            Some(error) => Err(CallError::Refused(error)),
            None => Err(garbled(format!("status {status}"))),
        }
    }
}

/// That the agent is of another version, if it says so: its words may mean nothing here, or ours nothing there.
fn another_version(server: &HeaderValue) -> Option<String> {
    let server = server.to_str().ok().filter(|server| *server != SERVER)?;
    let version = server.strip_prefix("netemctl/")?;
    Some(format!("; the agent is netemctl {version}, and this is {}: use one version", env!("CARGO_PKG_VERSION")))
}

impl<C> Drop for Connection<C> {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// The connections that no call is made on at the moment, by whom they lead to.
#[derive(Debug)]
pub(super) struct Idle<T, C = ()> {
    connections: Mutex<BTreeMap<T, Vec<Connection<C>>>>,
    /// Those of the process.
    pub(super) files: Files,
}

impl<T: Clone + Ord, C> Idle<T, C> {
    pub(super) fn new(files: Files) -> Self {
        Self { connections: Mutex::default(), files }
    }

    /// A connection that is kept and still there.
    pub(super) async fn take(&self, to: &T) -> Option<Connection<C>> {
        loop {
            let connection = self.all().get_mut(to)?.pop()?;
            if let Some(connection) = connection.if_alive().await {
                return Some(connection);
            }
        }
    }

    /// Makes one call to the agent at `at`, and keeps the connection, if there are files for others. What was not answered to the end, or not waited
    /// for, leaves it in the middle of something: then it is closed.
    pub(super) async fn exchange<Q: Call>(
        &self,
        to: &T,
        mut connection: Connection<C>,
        at: &str,
        body: Bytes,
    ) -> Result<Q::Reply, CallError> {
        let answer = connection.exchange::<Q>(at, body).await;
        if matches!(answer, Ok(_) | Err(CallError::Refused(_))) && self.files.has_spare() {
            self.all().entry(to.clone()).or_default().push(connection);
        }
        answer
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<T, Vec<Connection<C>>>> {
        // A map of what is idle is whole at any time.
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
