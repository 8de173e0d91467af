//! Calls to agents, over connections that stay open for the next call.
//!
//! A new connection takes longer than most calls, above all over a lossy network.

use std::{
    collections::BTreeMap,
    io,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use nix::errno::Errno;
use tokio::time::timeout;

use super::{
    CallError, Timeouts,
    body::Body,
    files::{FilePermit, Files},
    http::{Answer, ExchangeError, Stream, exchange, is_open},
    slots::Slot,
    transport::Transport,
};
use crate::{
    topology::NodeName,
    wire::{ApiError, Call, ErrorCode, SERVER},
};

/// The idle connections to each node's agent.
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
        if let Some(idle) = self.take(node).await {
            return within(transport, answer, self.exchange::<C, T>(node, idle, &at, body)).await;
        }
        // The wait for free file descriptors does not count towards the agent's time to answer.
        let permit = self.files.take(T::FILES).await;
        if T::IS_LOGIN {
            let connection = Box::pin(open(transport, permit)).await?;
            return within(transport, answer, self.exchange::<C, T>(node, connection, &at, body)).await;
        }
        // The box frees the memory of the handshake before the wait for the answer.
        let called = async {
            let connection = Box::pin(open(transport, permit)).await?;
            self.exchange::<C, T>(node, connection, &at, body).await
        };
        within(transport, answer, called).await
    }

    /// Takes an idle connection that the agent has not closed; `None`: the node has none.
    async fn take(&self, node: &NodeName) -> Option<Connection> {
        loop {
            let mut connection = self.idle().get_mut(node)?.pop()?;
            if is_open(&mut connection.stream).await {
                return Some(connection);
            }
        }
    }

    /// Makes one call on a connection. Keeps the connection after an answer, if the transport and the agent allow it and
    /// enough files are left for other calls. Otherwise, closes the connection.
    async fn exchange<C: Call, T: Transport>(
        &self,
        node: &NodeName,
        mut connection: Connection,
        at: &str,
        body: (Body, Slot),
    ) -> Result<C::Reply, CallError> {
        let (body, slot) = body;
        let unexpected = |why: String| CallError::Unexpected { at: at.to_owned(), why };
        let Answer { status, server, is_kept, body } =
            exchange(&mut connection.stream, C::PATH, body, slot).await.map_err(|error| match error {
                ExchangeError::Broken(error) => CallError::HungUp { at: at.to_owned(), error },
                ExchangeError::Unexpected(why) => unexpected(why.to_owned()),
            })?;
        if T::IS_KEPT && is_kept && self.files.has_spare() {
            self.idle().entry(node.clone()).or_default().push(connection);
        }
        let version = server.as_deref().and_then(other_version).unwrap_or_default();
        if (200..300).contains(&status) {
            return serde_json::from_slice(&body).map_err(|error| unexpected(format!("{error}{version}")));
        }
        let mut error = ApiError::read(status, &body).ok_or_else(|| unexpected(format!("status {status}")))?;
        if error.code == ErrorCode::BadRequest {
            error.message += &version;
        }
        Err(CallError::Refused(error))
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
    Ok(Connection { stream: Box::new(stream), _permit: permit })
}

/// True if this process or this machine cannot open more files. The agent is then not the cause.
fn lacks_files(error: &io::Error) -> bool {
    matches!(error.raw_os_error().map(Errno::from_raw), Some(Errno::EMFILE | Errno::ENFILE))
}

/// A connection to an agent, for one call at a time. Closes when dropped.
struct Connection {
    stream: Box<dyn Stream>,
    _permit: FilePermit,
}

/// A hint if the agent's `server` header names another version. Requests or answers may differ between versions.
fn other_version(server: &str) -> Option<String> {
    let version = Some(server).filter(|server| *server != SERVER)?.strip_prefix("netemctl/")?;
    Some(format!(
        "; the agent runs netemctl {version}, and this command is netemctl {}: install the same version on both",
        env!("CARGO_PKG_VERSION")
    ))
}
