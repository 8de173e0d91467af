//! The agent behind HTTP on a Unix socket.
//!
//! Requests that touch the kernel go through one lock, so they are done one after the other; probing goes beside it.
//! Shutdown: on the signal no connection is accepted any more, the requests under way are finished, the socket's file
//! goes. What is in force stays in the kernel.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, State, rejection::JsonRejection},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::post,
};
use nix::sys::stat::{Mode, umask};
use thiserror::Error;
use tokio::net::{UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::Node;
use crate::{
    kernel::Kernel,
    probe,
    wire::{ApiError, Call, Commit, ErrorCode, GetStamp, GetStatus, GetWanted, Prepare, Probe, Undo},
};

/// The largest request: a document of 10,000 nodes is about a megabyte.
const BODY_LIMIT: usize = 16 * 1024 * 1024;

/// How long requests under way may take once the agent is to stop; only a measurement takes so long.
const GRACE: Duration = Duration::from_secs(2);

/// How often is looked for what is over or has drained, at the least.
const TEND_EVERY: Duration = Duration::from_millis(200);

/// When that is tried again after it failed.
const TRY_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Why the agent cannot serve.
#[derive(Debug, Error)]
pub enum ServeError {
    /// Somebody listens there already.
    #[error("an agent is listening on {0} already")]
    Taken(PathBuf),
    /// The socket cannot be made.
    #[error("cannot listen on {0}: {1}")]
    Socket(PathBuf, #[source] io::Error),
    /// The server failed.
    #[error("the server failed: {0}")]
    Server(#[source] io::Error),
}

type Shared<K> = Arc<Mutex<Node<K>>>;

/// Serves `node` on the Unix socket until `shutdown` ends.
pub async fn serve<K: Kernel + 'static>(
    node: Node<K>,
    socket: PathBuf,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), ServeError> {
    let listener = listen(&socket).await?;
    let own = fs::metadata(&socket).map_err(|error| ServeError::Socket(socket.clone(), error))?;
    let node: Shared<K> = Arc::new(Mutex::new(node));
    let router = Router::new()
        .route(GetStatus::PATH, post(locked::<K, GetStatus>(|node, _, now| node.status(now))))
        .route(GetStamp::PATH, post(locked::<K, GetStamp>(|node, _, _| Ok(node.stamp()))))
        .route(GetWanted::PATH, post(locked::<K, GetWanted>(|node, _, now| Ok(node.document(now)))))
        .route(Prepare::PATH, post(locked::<K, Prepare>(Node::prepare)))
        .route(Commit::PATH, post(locked::<K, Commit>(|node, request, now| node.commit(&request, now))))
        .route(Undo::PATH, post(locked::<K, Undo>(|node, request, now| node.undo(&request, now))))
        .route(Probe::PATH, post(run_probe))
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .with_state(Arc::clone(&node));
    let tending = tokio::spawn(tend(node));
    info!(socket = %socket.display(), "The agent is ready.");
    let stop = CancellationToken::new();
    let server = axum::serve(listener, router).with_graceful_shutdown(stop.clone().cancelled_owned());
    let served = tokio::select! {
        served = async { server.await } => served,
        () = async { shutdown.await; stop.cancel(); tokio::time::sleep(GRACE).await } => Ok(()),
    };
    tending.abort();
    // Another agent may have taken the place in the meantime.
    if fs::metadata(&socket).is_ok_and(|now| now.ino() == own.ino()) {
        drop(fs::remove_file(&socket));
    }
    info!("The agent has stopped; what was in force stays in the kernel.");
    served.map_err(ServeError::Server)
}

async fn listen(socket: &PathBuf) -> Result<UnixListener, ServeError> {
    if UnixStream::connect(socket).await.is_ok() {
        return Err(ServeError::Taken(socket.clone()));
    }
    let failed = |error| ServeError::Socket(socket.clone(), error);
    // A file that nobody listens on is left over from an agent that was killed.
    match fs::remove_file(socket) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    // Made with mode 0600 at once: changed afterwards, it would be open to others for a moment.
    let before = umask(Mode::S_IXUSR | Mode::S_IRWXG | Mode::S_IRWXO);
    let listener = UnixListener::bind(socket).map_err(failed);
    umask(before);
    listener
}

/// Ends what lasts for a time when it is over, and removes classes that nothing uses any more when they have drained.
async fn tend<K: Kernel + 'static>(node: Shared<K>) {
    loop {
        let tended = on_node(&node, Node::tend).await;
        let pause = match tended {
            // A change may come in the meantime, so the next deadline is not slept for in one go.
            Ok(next) => next.map_or(TEND_EVERY, |next| next.saturating_duration_since(Instant::now()).min(TEND_EVERY)),
            Err(error) => {
                warn!(%error, "What is over could not be ended, or what has drained not be removed; trying again.");
                TRY_AGAIN_AFTER
            }
        };
        tokio::time::sleep(pause).await;
    }
}

type Answer = std::pin::Pin<Box<dyn Future<Output = Response> + Send>>;

/// What a request has done on the node, at the moment at which the node is had.
type Work<K, C> = fn(&mut Node<K>, C, Instant) -> Result<<C as Call>::Reply, ApiError>;

/// A handler that does `work` on the node, under its lock and off the async runtime, since netlink blocks.
fn locked<K: Kernel + 'static, C: Call>(
    work: Work<K, C>,
) -> impl Fn(State<Shared<K>>, Result<Json<C>, JsonRejection>) -> Answer + Clone + Send + Sync + 'static {
    move |State(node), request| {
        Box::pin(async move {
            match request {
                Ok(Json(request)) => answer(on_node(&node, move |node, now| work(node, request, now)).await),
                Err(rejection) => answer::<()>(Err(ApiError::new(ErrorCode::BadRequest, rejection.body_text()))),
            }
        })
    }
}

async fn on_node<K: Kernel + 'static, T: Send + 'static>(
    node: &Shared<K>,
    work: impl FnOnce(&mut Node<K>, Instant) -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    let node = Arc::clone(node);
    let done = tokio::task::spawn_blocking(move || {
        // A request that panicked has not left the node half changed: every change is read back or undone.
        let mut node = node.lock().unwrap_or_else(PoisonError::into_inner);
        // The time at which the node is had, and not the one at which the request came.
        work(&mut node, Instant::now())
    });
    done.await.unwrap_or_else(|error| Err(ApiError::new(ErrorCode::Broken, format!("the agent failed: {error}"))))
}

async fn run_probe(request: Result<Json<Probe>, JsonRejection>) -> Response {
    let Ok(Json(request)) = request else {
        return answer::<()>(Err(ApiError::new(ErrorCode::BadRequest, "not a probe")));
    };
    let echoes = tokio::task::spawn_blocking(move || probe::echo(&request)).await;
    answer(match echoes {
        Ok(Ok(echoes)) => Ok(echoes),
        Ok(Err(error)) if error.kind() == io::ErrorKind::PermissionDenied => {
            Err(ApiError::new(ErrorCode::Permission, "measuring needs CAP_NET_RAW, which the agent lacks"))
        }
        Ok(Err(error)) => Err(ApiError::new(ErrorCode::Failed, format!("measuring failed: {error}"))),
        Err(error) => Err(ApiError::new(ErrorCode::Failed, error)),
    })
}

fn answer<T: serde::Serialize>(result: Result<T, ApiError>) -> Response {
    match result {
        Ok(reply) => Json(reply).into_response(),
        Err(error) => {
            warn!(code = ?error.code, "{error}.");
            let status = StatusCode::from_u16(error.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            (status, Json(error)).into_response()
        }
    }
}
