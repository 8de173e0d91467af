//! HTTP calls to agents, over connections that stay open for the next call.
//!
//! A new connection takes longer than most calls, above all over a lossy network. `hyper-util`'s pool does not fit:
//! `hyper-util` counts no open files and hides the `hyper::Error`. Only the `hyper::Error` tells if the connection
//! closed before the request was sent, or if an answer may have been lost.

use std::{
    collections::BTreeMap,
    io,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use http_body_util::{BodyExt, Limited};
use hyper::{
    Request,
    client::conn::http1::{self, SendRequest},
    header::{self, HeaderValue},
};
use hyper_util::rt::TokioIo;
use nix::errno::Errno;
use tokio::{task::JoinHandle, time::timeout};

use super::{
    CallError, Timeouts,
    body::{Body, SentBody},
    files::{FilePermit, Files},
    slots::Slot,
    transport::Transport,
};
use crate::{
    topology::NodeName,
    wire::{ApiError, Call, ErrorCode, SERVER},
};

/// The size limit of an answer, in bytes. A document of 10,000 nodes is about 1 MB.
const BODY_LIMIT: usize = 16 * 1024 * 1024;

/// The size of a connection's buffer for reading, in bytes. The usual answer fits. A large fleet has thousands of
/// connections.
const READ_SIZE: usize = 2 * 1024;

/// The idle connections to each node's agent.
#[derive(Debug)]
pub(super) struct Pool {
    idle: Mutex<BTreeMap<NodeName, Vec<Connection>>>,
    files: Files,
}

impl Pool {
    pub(super) fn new() -> Self {
        Self { idle: Mutex::default(), files: Files::of_process() }
    }

    /// Makes one call to a node's agent.
    pub(super) async fn call<C: Call>(
        &self,
        node: &NodeName,
        transport: &impl Transport,
        body: (Body, Slot),
        Timeouts { answer, deadline }: Timeouts,
    ) -> Result<C::Reply, CallError> {
        let limit = deadline.map_or(Duration::MAX, |deadline| deadline.saturating_duration_since(Instant::now()));
        let call = Box::pin(self.call_within::<C, _>(node, transport, body, answer));
        let called = within(transport, limit, call).await;
        // In TLS 1.3, the agent's rejection of the controller's certificate may arrive after the controller's
        // handshake, as a closed connection (RFC 8446, section 4.4.2.4 and appendix E.1.2).
        called.map_err(|error| match error {
            CallError::HungUp { at, error } => match transport.distrust(&error) {
                Some(why) => CallError::Untrusted { at, why },
                None => CallError::HungUp { at, error },
            },
            error => error,
        })
    }

    async fn call_within<C: Call, T: Transport>(
        &self,
        node: &NodeName,
        transport: &T,
        body: (Body, Slot),
        answer: Duration,
    ) -> Result<C::Reply, CallError> {
        let at = transport.address();
        while let Some(idle) = self.take(node).await {
            match within(transport, answer, self.exchange::<C, T>(node, idle, &at, body.clone())).await {
                // The agent closed the idle connection before the request was sent: try the next idle connection, or
                // else a new one.
                Err(CallError::HungUp { error, .. }) if error.is_canceled() => {}
                result => return result,
            }
        }
        // The wait for free file descriptors does not count towards the agent's time to answer.
        let permit = self.files.take(T::FILES).await;
        if T::IS_LOGIN {
            let connection = open(transport, permit).await?;
            return within(transport, answer, self.exchange::<C, T>(node, connection, &at, body)).await;
        }
        let called = async { self.exchange::<C, T>(node, open(transport, permit).await?, &at, body).await };
        within(transport, answer, called).await
    }

    /// Takes an idle connection that the agent has not closed; `None`: the node has none.
    async fn take(&self, node: &NodeName) -> Option<Connection> {
        loop {
            let mut connection = self.idle().get_mut(node)?.pop()?;
            if !connection.driver.is_finished() && connection.sender.ready().await.is_ok() {
                return Some(connection);
            }
        }
    }

    /// Makes one call on a connection. Keeps the connection after a valid answer, if the transport allows it and enough
    /// files are left for other calls. Otherwise, closes the connection.
    async fn exchange<C: Call, T: Transport>(
        &self,
        node: &NodeName,
        mut connection: Connection,
        at: &str,
        body: (Body, Slot),
    ) -> Result<C::Reply, CallError> {
        let answer = connection.exchange::<C>(at, body).await;
        if T::IS_KEPT && matches!(answer, Ok(_) | Err(CallError::Refused(_))) && self.files.has_spare() {
            self.idle().entry(node.clone()).or_default().push(connection);
        }
        answer
    }

    fn idle(&self) -> MutexGuard<'_, BTreeMap<NodeName, Vec<Connection>>> {
        // The map is intact even if a thread panicked while holding the lock.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The result of a call, or [`CallError::TimedOut`] after the limit.
async fn within<T>(
    transport: &impl Transport,
    limit: Duration,
    called: impl Future<Output = Result<T, CallError>>,
) -> Result<T, CallError> {
    let timed_out = |_| Err(CallError::TimedOut { at: transport.address(), after: limit });
    timeout(limit, called).await.unwrap_or_else(timed_out)
}

/// Opens a connection. The connection holds the permit, its share of the open files, until the connection is dropped.
async fn open<T: Transport>(transport: &T, permit: FilePermit) -> Result<Connection, CallError> {
    let at = || transport.address();
    let stream = transport.connect().await.map_err(|error| match transport.distrust(&error) {
        Some(why) => CallError::Untrusted { at: at(), why },
        None if lacks_files(&error) => CallError::NoFiles { at: at() },
        None => CallError::Unreachable { at: at(), error },
    })?;
    let mut http = http1::Builder::new();
    let opened = http.read_buf_exact_size(Some(READ_SIZE)).handshake(TokioIo::new(stream)).await;
    let (sender, connection) = opened.map_err(|error| CallError::HungUp { at: at(), error })?;
    Ok(Connection { sender, driver: tokio::spawn(connection), _permit: permit })
}

/// True if this process or this machine cannot open more files. The agent is then not the cause.
fn lacks_files(error: &io::Error) -> bool {
    matches!(error.raw_os_error().map(Errno::from_raw), Some(Errno::EMFILE | Errno::ENFILE))
}

/// An HTTP connection to an agent, for one call at a time. Closes when dropped.
#[derive(Debug)]
struct Connection {
    sender: SendRequest<SentBody>,
    /// The task that reads from and writes to the stream.
    driver: JoinHandle<hyper::Result<()>>,
    _permit: FilePermit,
}

impl Connection {
    /// Makes one call to the agent at `at`.
    async fn exchange<C: Call>(&mut self, at: &str, (body, slot): (Body, Slot)) -> Result<C::Reply, CallError> {
        let unexpected = |why: String| CallError::Unexpected { at: at.to_owned(), why };
        let request =
            Request::post(C::PATH).header(header::HOST, "agent").header(header::CONTENT_TYPE, "application/json");
        let request = match body.encoding() {
            Some(encoding) => request.header(header::CONTENT_ENCODING, encoding),
            None => request,
        };
        let request = request.body(body.sent_in(slot)).map_err(|error| unexpected(error.to_string()))?;
        let broken = |error: hyper::Error| CallError::HungUp { at: at.to_owned(), error };
        let response = self.sender.send_request(request).await.map_err(broken)?;
        let status = response.status();
        let version = response.headers().get(header::SERVER).and_then(other_version).unwrap_or_default();
        let body = Limited::new(response.into_body(), BODY_LIMIT).collect().await;
        let body = body.map_err(|error| match error.downcast::<hyper::Error>() {
            Ok(error) => broken(*error),
            Err(error) => unexpected(error.to_string()),
        })?;
        let body = body.to_bytes();
        if status.is_success() {
            return serde_json::from_slice(&body).map_err(|error| unexpected(format!("{error}{version}")));
        }
        let Some(mut error) = ApiError::read(status.as_u16(), &body) else {
            return Err(unexpected(format!("status {status}")));
        };
        if error.code == ErrorCode::BadRequest {
            error.message += &version;
        }
        Err(CallError::Refused(error))
    }
}

/// A hint if the agent's `server` header names another version. Requests or answers may differ between versions.
fn other_version(server: &HeaderValue) -> Option<String> {
    let version = server.to_str().ok().filter(|server| *server != SERVER)?.strip_prefix("netemctl/")?;
    Some(format!(
        "; the agent runs netemctl {version}, and this command is netemctl {}: install the same version on both",
        env!("CARGO_PKG_VERSION")
    ))
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}
