//! The agent behind HTTP.
//!
//! Requests that touch the kernel go through one lock, so they are done one after the other; probing goes beside it.
//! Shutdown: on the signal no connection is accepted any more, the requests under way are finished, what nobody has
//! confirmed is taken back, the socket's file goes. What is in force stays in the kernel.

mod connections;
mod credentials;
mod listener;
mod reception;
mod service_manager;
mod throttle;

use std::{
    io,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use axum::{
    Extension, Json, Router,
    extract::{DefaultBodyLimit, Request, State, rejection::JsonRejection},
    http::StatusCode,
    middleware::{Next, from_fn},
    response::{IntoResponse, Response},
    routing::post,
};
use thiserror::Error;
use tokio::{
    net::UnixListener,
    sync::{Notify, Semaphore},
    task::{JoinError, JoinSet},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

pub use self::{connections::Limits, credentials::CredentialsError};
use self::{
    listener::Listener,
    reception::{ReadOnly, receive},
    service_manager::{Heartbeat, ServiceManager},
};
use super::{
    Config, JournalError, Node, Now, Via,
    time::{Alarm, EventWaiter},
};
use crate::{
    kernel::Kernel,
    probe,
    wire::{
        ApiError, Call, ClockReading, Commit, Confirm, ErrorCode, GetCounters, GetHost, GetStamp, GetStatus, GetWanted,
        Plan, Prepare, Prepared, Probe, Rollback,
    },
};

/// How long requests under way may take once the agent is to stop; only a measurement takes so long.
const GRACE: Duration = Duration::from_secs(2);

/// How long what others do to the interface is collected before the agent looks: they may write thousands of filters.
const COLLECTS: Duration = Duration::from_millis(50);

/// The shortest time between two things that the agent does by itself, whatever the document says. The fastest `--flap`
/// with the largest `--spread` has changes 5 ms apart.
const SHORTEST_PAUSE: Duration = Duration::from_millis(5);

/// How long before something changes by itself is computed what has to be written then.
const LOOK_AHEAD: Duration = Duration::from_millis(100);

/// How much of a wait is left to the thread that does the work: timers of the async runtime go by milliseconds.
const LAST_BIT: Duration = Duration::from_millis(3);

/// When that is tried again after it failed.
const TRY_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Why the agent cannot serve.
#[derive(Debug, Error)]
pub enum ServeError {
    /// Somebody listens there already.
    #[error("an agent is listening on {0} already")]
    Taken(PathBuf),
    /// Something else is in its place.
    #[error("{0} is not a socket, so the agent does not remove it")]
    NotASocket(PathBuf),
    /// The socket cannot be made.
    #[error("cannot listen on {0}: {1}")]
    Socket(PathBuf, #[source] io::Error),
    /// What is left of it cannot be removed.
    #[error("cannot remove {0}: {1}")]
    Folder(PathBuf, #[source] io::Error),
    /// The socket cannot be opened to the group that the configuration names.
    #[error("the socket cannot be opened to the group {0} of `socket-group`: {1}")]
    Group(String, #[source] io::Error),
    /// What is in force cannot be written down.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The port cannot be had.
    #[error("cannot listen on {0}: {1}")]
    Port(SocketAddr, #[source] io::Error),
    /// The agent's certificate cannot be used.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// Other agents could not learn that the interface has one.
    #[error("cannot keep other agents from the interface: {0}")]
    Claim(#[source] io::Error),
    /// There is no timer.
    #[error("cannot make a timer: {0}")]
    Timer(#[source] io::Error),
}

type Shared<K> = Arc<Served<K>>;

/// The node, and who wakes whoever tends it.
struct Served<K> {
    node: Mutex<Node<K>>,
    /// A request may have changed what is due next.
    asked: Notify,
}

impl<K> Served<K> {
    fn new(node: Node<K>) -> Shared<K> {
        Arc::new(Self { node: Mutex::new(node), asked: Notify::new() })
    }
}

/// Serves `node` wherever its config says until `shutdown` ends, once it has brought its kernel in line with its journal.
pub async fn serve<K: Kernel + 'static>(
    node: Node<K>,
    config: &Config,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), ServeError> {
    serve_with(Limits::default(), node, config, shutdown).await
}

/// The same with other limits on what clients may do.
pub async fn serve_with<K: Kernel + 'static>(
    limits: Limits,
    mut node: Node<K>,
    config: &Config,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), ServeError> {
    let service_manager = Arc::new(ServiceManager::of_environment());
    let alarm = Alarm::new().map_err(ServeError::Timer)?;
    let listeners = Listener::open(config, &limits).await?;
    // Not before the socket is this agent's, and so the kernel and the journal.
    node.resume(Now::read());
    let pulse = Heartbeat::new(Arc::clone(&service_manager), node.summary());
    let claims = node.claims().collect::<io::Result<Vec<_>>>().map_err(ServeError::Claim)?;
    let node = Served::new(node);
    let router = router(&node, limits.body_size);
    service_manager.ready(pulse.in_force());
    let ticking = tokio::spawn(tick(Arc::clone(&node), pulse, alarm));
    let mut callers = JoinSet::new();
    for claim in claims {
        callers.spawn(hang_up_on(claim));
    }
    let stop = CancellationToken::new();
    let mut receptions = JoinSet::new();
    for listener in listeners {
        info!("The agent is ready on {}.", listener.describe());
        receptions.spawn(receive(listener, router.clone(), stop.clone()));
    }
    shutdown.await;
    service_manager.stopping();
    stop.cancel();
    // Dropped with those that are not finished by then, their sockets with them.
    drop(tokio::time::timeout(GRACE, async { while receptions.join_next().await.is_some() {} }).await);
    ticking.abort();
    if let Err(error) = on_node(&node, Node::end).await {
        warn!(%error, "What nobody has confirmed could not be taken back; it is when an agent is started again.");
    }
    info!("The agent has stopped; what was in force stays in the kernel.");
    Ok(())
}

/// Takes the calls of other agents, which learn by that whose the interface is.
async fn hang_up_on(claim: UnixListener) {
    loop {
        drop(claim.accept().await);
        // Every user of the machine may call.
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Prepares a change, and says what the clock shows before and afterwards.
fn prepare<K: Kernel>(node: &mut Node<K>, request: Prepare, via: Via, now: Now) -> Result<Prepared, ApiError> {
    let prepared = node.prepare_via(request, via, now)?;
    let clock = ClockReading { asked: now.wall, answered: Now::read().wall };
    Ok(Prepared { clock: Some(clock), ..prepared })
}

/// What is answered to whom.
fn router<K: Kernel + 'static>(node: &Shared<K>, body_limit: usize) -> Router {
    Router::new()
        .route(GetHost::PATH, post(locked::<K, GetHost>(|node, _, _, _| node.host())))
        .route(GetStatus::PATH, post(locked::<K, GetStatus>(|node, _, _, now| node.status(now))))
        .route(GetCounters::PATH, post(locked::<K, GetCounters>(|node, _, _, now| node.counted(now))))
        .route(GetStamp::PATH, post(locked::<K, GetStamp>(|node, _, _, _| Ok(node.stamp()))))
        .route(GetWanted::PATH, post(locked::<K, GetWanted>(|node, _, _, now| Ok(node.document(now)))))
        .route(Plan::PATH, post(locked::<K, Plan>(Node::plan)))
        .route(Prepare::PATH, post(locked::<K, Prepare>(prepare)))
        .route(Commit::PATH, post(commit::<K>))
        .route(Confirm::PATH, post(locked::<K, Confirm>(|node, request, _, now| node.confirm(&request, now))))
        .route(Rollback::PATH, post(locked::<K, Rollback>(|node, request, _, now| node.rollback(&request, now))))
        .route(Probe::PATH, post(run_probe::<K>).layer(Extension(Arc::new(Semaphore::new(MEASUREMENTS)))))
        .layer(from_fn(only_reads))
        .layer(DefaultBodyLimit::max(body_limit))
        .with_state(Arc::clone(node))
}

/// How many measurements may be under way at once.
const MEASUREMENTS: usize = 4;

/// What a viewer may ask.
const READS: [&str; 5] = [GetHost::PATH, GetStatus::PATH, GetCounters::PATH, GetStamp::PATH, GetWanted::PATH];

/// What a viewer that asks for more is told.
const READ_ONLY: &str =
    "the certificate is a viewer's, which may only read: use a controller's (netemctl pki issue --controller)";

/// Refuses whatever else a viewer asks.
async fn only_reads(request: Request, next: Next) -> Response {
    let is_viewer = request.extensions().get::<ReadOnly>().is_some();
    if is_viewer && !READS.contains(&request.uri().path()) {
        return answer::<()>(Err(ApiError::new(ErrorCode::ReadOnly, READ_ONLY)));
    }
    next.run(request).await
}

/// Begins and ends what has its time, removes classes that nothing uses any more when they have drained, and looks when
/// others have changed the interface. It sleeps until something of that is due, or a request has changed what is.
async fn tick<K: Kernel + 'static>(node: Shared<K>, mut pulse: Heartbeat, alarm: Alarm) {
    let mut at = Duration::ZERO;
    let mut ear: Option<EventWaiter> = None;
    loop {
        // Before the node looks, so that nothing goes unheard that comes after it.
        if ear.is_none() {
            let news = on_node(&node, |node, _| Ok(node.news())).await;
            ear = news.ok().flatten().and_then(|news| EventWaiter::of(news).ok());
        }
        let ticked = on_node_at(&node, at, |node, now| Ok((now.uptime, node.tick(now), node.summary()))).await;
        let now = Now::read().uptime;
        let next = ticked.and_then(|(begun, ticked, summary)| {
            // Not before the node was had: this is what cannot be said when it is stuck.
            pulse.beat(summary, now);
            Ok(ticked?.map(|next| next.max(begun + SHORTEST_PAUSE)))
        });
        at = match next {
            Ok(Some(next)) if next <= now + LOOK_AHEAD => {
                if let Err(error) = on_node(&node, move |node, _| node.precompute(next)).await {
                    warn!(%error, "What begins or ends in a moment cannot be computed.");
                }
                next
            }
            Ok(next) => {
                let due = next.map(|next| next.saturating_sub(LOOK_AHEAD)).into_iter().chain(pulse.due()).min();
                tokio::select! {
                    () = alarm.at(due) => {}
                    () = node.asked.notified() => {}
                    () = EventWaiter::hear(ear.as_ref()) => {
                        let collected = Now::read().uptime + COLLECTS;
                        alarm.at(due.into_iter().chain([collected]).min()).await;
                    }
                }
                Duration::ZERO
            }
            Err(error) => {
                warn!(%error, "What has begun or is over could not be put in force, or what has drained not be removed; trying again.");
                now + TRY_AGAIN_AFTER
            }
        };
    }
}

/// Commits at the agreed instant. While it waits, the node is free for a rollback, or for whoever asks how it is.
async fn commit<K: Kernel + 'static>(
    State(node): State<Shared<K>>,
    request: Result<Json<Commit>, JsonRejection>,
) -> Response {
    let Json(request) = match request {
        Ok(request) => request,
        Err(rejection) => return answer::<()>(Err(ApiError::new(ErrorCode::BadRequest, rejection.body_text()))),
    };
    // A task of its own: that the controller hangs up while all nodes wait must not stop some of them.
    let committing = tokio::spawn(async move {
        let request = Arc::new(request);
        let waiting = Arc::clone(&request);
        let at = on_node(&node, move |node, now| Ok(now.uptime + node.make_ready(&waiting, now)?)).await?;
        let committed = on_node_at(&node, at, move |node, _| node.commit(&request, &Now::read)).await;
        node.asked.notify_one();
        committed
    });
    answer(committing.await.unwrap_or_else(|error| Err(broken(&error))))
}

type Answer = std::pin::Pin<Box<dyn Future<Output = Response> + Send>>;

/// What a request has done on the node, at the moment at which the node is had.
type Work<K, C> = fn(&mut Node<K>, C, Via, Now) -> Result<<C as Call>::Reply, ApiError>;

/// The connection of a request, which a listener of a network puts into the request's extensions.
type Connection = Option<Extension<Via>>;

/// A handler that does `work` on the node, under its lock and off the async runtime, since netlink blocks.
fn locked<K: Kernel + 'static, C: Call>(
    work: Work<K, C>,
) -> impl Fn(State<Shared<K>>, Connection, Result<Json<C>, JsonRejection>) -> Answer + Clone + Send + Sync + 'static {
    move |State(node), via, request| {
        let via = via.map(|Extension(via)| via).unwrap_or_default();
        Box::pin(async move {
            match request {
                Ok(Json(request)) => answer(asked(&node, move |node, now| work(node, request, via, now)).await),
                Err(rejection) => answer::<()>(Err(ApiError::new(ErrorCode::BadRequest, rejection.body_text()))),
            }
        })
    }
}

/// Does what a request asks of the node, after which something else may be due next.
async fn asked<K: Kernel + 'static, T: Send + 'static>(
    node: &Shared<K>,
    work: impl FnOnce(&mut Node<K>, Now) -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    let done = on_node(node, work).await;
    node.asked.notify_one();
    done
}

async fn on_node<K: Kernel + 'static, T: Send + 'static>(
    node: &Shared<K>,
    work: impl FnOnce(&mut Node<K>, Now) -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    on_node_at(node, Duration::ZERO, work).await
}

/// Does `work` on the node, as soon as possible after an uptime.
async fn on_node_at<K: Kernel + 'static, T: Send + 'static>(
    node: &Shared<K>,
    at: Duration,
    work: impl FnOnce(&mut Node<K>, Now) -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    let wait = at.saturating_sub(Now::read().uptime);
    if let Some(wait) = wait.checked_sub(LAST_BIT) {
        tokio::time::sleep(wait).await;
    }
    let node = Arc::clone(node);
    let done = tokio::task::spawn_blocking(move || {
        thread::sleep(at.saturating_sub(Now::read().uptime));
        // A request that panicked has not left the node half changed: every change is read back or rolled back.
        let mut node = node.node.lock().unwrap_or_else(PoisonError::into_inner);
        // The time at which the node is had, and not the one at which the request came.
        work(&mut node, Now::read())
    });
    done.await.unwrap_or_else(|error| Err(broken(&error)))
}

fn broken(error: &JoinError) -> ApiError {
    ApiError::new(ErrorCode::Broken, format!("the agent failed: {error}"))
}

/// Measures, beside whatever else is done, but not more than a few at once, and only the ways to nodes.
async fn run_probe<K: Kernel + 'static>(
    State(node): State<Shared<K>>,
    Extension(measurements): Extension<Arc<Semaphore>>,
    request: Result<Json<Probe>, JsonRejection>,
) -> Response {
    let Ok(Json(request)) = request else {
        return answer::<()>(Err(ApiError::new(ErrorCode::BadRequest, "not a probe")));
    };
    let Ok(permit) = measurements.try_acquire_owned() else {
        let many = format!("{MEASUREMENTS} measurements are under way already");
        return answer::<()>(Err(ApiError::new(ErrorCode::Conflict, many)));
    };
    let targets = request.targets.clone();
    if let Err(error) = on_node(&node, move |node, now| node.may_measure(&targets, now)).await {
        return answer::<()>(Err(error));
    }
    let measure = move || {
        let echoes = probe::echo(&request);
        // A controller that hangs up does not end a measurement.
        drop(permit);
        echoes
    };
    let echoes = tokio::task::spawn_blocking(measure).await;
    answer(match echoes {
        Ok(Ok(echoes)) => Ok(echoes),
        Ok(Err(error)) if error.kind() == io::ErrorKind::PermissionDenied => {
            Err(ApiError::new(ErrorCode::Permission, "measuring needs CAP_NET_RAW, which the agent lacks"))
        }
        Ok(Err(error)) if error.kind() == io::ErrorKind::InvalidInput => {
            Err(ApiError::new(ErrorCode::BadRequest, error))
        }
        Ok(Err(error)) => Err(ApiError::new(ErrorCode::Failed, format!("measuring failed: {error}"))),
        Err(error) => Err(ApiError::new(ErrorCode::Failed, error)),
    })
}

fn answer<T: serde::Serialize>(result: Result<T, ApiError>) -> Response {
    match result {
        Ok(reply) => Json(reply).into_response(),
        Err(error) => {
            // Whoever asks nonsense is told so, as often as he likes; a log would fill the disk.
            if error.code == ErrorCode::BadRequest {
                debug!(code = ?error.code, "{error}.");
            } else {
                warn!(code = ?error.code, "{error}.");
            }
            let status = StatusCode::from_u16(error.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            (status, Json(error)).into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;

    use super::*;
    use crate::{agent::Config, fake_kernel::FakeKernel};

    /// Whether the service manager hears a sign of life within a time.
    async fn hears(socket: &UnixDatagram, within: Duration) -> bool {
        // What was said before does not count.
        let mut datagram = [0; 64];
        while socket.recv(&mut datagram).is_ok() {}
        for _ in 0..within.as_millis() / 10 {
            tokio::time::sleep(Duration::from_millis(10)).await;
            if socket.recv(&mut datagram).is_ok_and(|size| &datagram[..size] == b"WATCHDOG=1") {
                return true;
            }
        }
        false
    }

    #[tokio::test]
    async fn an_agent_that_cannot_have_its_node_gives_no_sign_of_life() {
        let config = Config::of("n1".parse().unwrap(), vec!["db0".parse().unwrap()]);
        let kernel = FakeKernel::new("db0".parse().unwrap());
        let node = Node::with_sandbox(config, kernel.clone(), kernel, "boot", Now::read()).unwrap();
        let node = Served::new(node);
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let service_manager = Arc::new(ServiceManager::at(theirs, Duration::from_millis(300)));
        let ticking = tokio::spawn(tick(
            Arc::clone(&node),
            Heartbeat::new(service_manager, String::new()),
            Alarm::new().unwrap(),
        ));

        assert!(hears(&ours, Duration::from_secs(10)).await);
        let (stick, stuck) = std::sync::mpsc::channel::<()>();
        let holder = thread::spawn(move || {
            let _held = node.node.lock().unwrap();
            stuck.recv().unwrap_err();
        });
        // One that is under way may still come.
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert!(!hears(&ours, Duration::from_secs(2)).await);
        drop(stick);
        holder.join().unwrap();
        assert!(hears(&ours, Duration::from_secs(10)).await);
        ticking.abort();
    }
}
