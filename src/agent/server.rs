//! Serves the agent's API over HTTP, and does the node's timed work (ticks).
//!
//! One lock serialises the requests to the node. Measurements run without the lock. At shutdown the agent accepts no
//! further connection, waits at most `GRACE` for the requests under way, rolls back an unconfirmed change, and removes
//! its socket. The state in the kernel stays.

mod compression;
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
    extract::{DefaultBodyLimit, FromRequest, Request, State},
    http::StatusCode,
    middleware::{Next, from_fn},
    response::{IntoResponse, Response},
    routing::{MethodRouter, post},
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
    plan::Stamp,
    probe,
    wire::{
        ApiError, Call, ClockReading, Commit, Committed, Confirm, ErrorCode, GetCounters, GetFacts, GetHost, GetReady,
        GetStamp, GetStatus, GetWanted, HostFacts, Plan, Prepare, Prepared, Probe, Probed, Rollback,
    },
};

/// Longest wait for the requests under way at shutdown. The agent drops a longer request, such as a measurement.
const GRACE: Duration = Duration::from_secs(2);

/// Longest time to collect events before one check of the interface for drift. Another program may write thousands of
/// filters at once, and each filter causes an event.
const COLLECT: Duration = Duration::from_millis(50);

/// Shortest time from a tick to the next deadline. The fastest `--flap` with the largest `--spread` changes every 5 ms.
const SHORTEST_PAUSE: Duration = Duration::from_millis(5);

/// Time before a timed change at which the agent computes the change and writes its preparation. In a lab, the agents of
/// all nodes do this at the same time.
const PRECOMPUTE: Duration = Duration::from_millis(500);

/// The last part of a wait, spent in a worker thread: timers of the async runtime have a resolution of only 1 ms.
const PRECISE_WAIT: Duration = Duration::from_millis(3);

/// Interval of retries after a failed tick.
const RETRY: Duration = Duration::from_secs(1);

/// The reason why the agent cannot serve.
#[derive(Debug, Error)]
pub enum ServeError {
    /// Another process listens on the socket.
    #[error("an agent is listening on {0} already")]
    Taken(PathBuf),
    /// The file at the socket's path is no socket.
    #[error("{0} is not a socket, so the agent does not remove it")]
    NotASocket(PathBuf),
    /// The socket cannot be created.
    #[error("cannot listen on {0}: {1}")]
    Socket(PathBuf, #[source] io::Error),
    /// A file or folder of a keeper (an agent that ssh started) cannot be removed.
    #[error("cannot remove {0}: {1}")]
    Folder(PathBuf, #[source] io::Error),
    /// The agent cannot give the group access to the socket.
    #[error("cannot give the socket to the group {0} of `socket-group`: {1}")]
    Group(String, #[source] io::Error),
    /// The journal is unusable.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The agent cannot listen on the port.
    #[error("cannot listen on {0}: {1}")]
    Port(SocketAddr, #[source] io::Error),
    /// The certificate, its key or the CA is unusable.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// The interface cannot be claimed.
    #[error("cannot claim the interface: {0}")]
    Claim(#[source] io::Error),
    /// No timer is available.
    #[error("cannot create a timer: {0}")]
    Timer(#[source] io::Error),
}

type Shared<K> = Arc<Served<K>>;

/// The state that all requests share.
struct Served<K> {
    node: Mutex<Node<K>>,
    /// Starts a tick after a request, because the request may have changed the next deadline.
    requested: Notify,
    measurements: Arc<Semaphore>,
}

impl<K> Served<K> {
    fn new(node: Node<K>) -> Shared<K> {
        let measurements = Arc::new(Semaphore::new(MEASUREMENTS));
        Arc::new(Self { node: Mutex::new(node), requested: Notify::new(), measurements })
    }
}

/// Reconciles the kernel with the journal, then serves `node` until `shutdown`.
pub async fn serve<K: Kernel + 'static>(
    limits: Limits,
    mut node: Node<K>,
    config: &Config,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), ServeError> {
    let service_manager = Arc::new(ServiceManager::of_environment());
    let alarm = Alarm::new().map_err(ServeError::Timer)?;
    let listeners = Listener::open(config, &limits).await?;
    // The listeners are open, so no other agent uses this socket. Before this point, the agent writes neither to the
    // kernel nor to the journal.
    node.resume(Now::read());
    let heartbeat = Heartbeat::new(Arc::clone(&service_manager), node.summary());
    let claims = node.claims().collect::<io::Result<Vec<_>>>().map_err(ServeError::Claim)?;
    let node = Served::new(node);
    let router = router(&node, limits.body_size);
    service_manager.ready(heartbeat.in_force());
    let ticking = tokio::spawn(tick(Arc::clone(&node), heartbeat, alarm));
    let mut claimed = JoinSet::new();
    for claim in claims {
        claimed.spawn(accept_and_close(claim));
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
    // The agent waits at most `GRACE` for unfinished requests.
    drop(tokio::time::timeout(GRACE, async { while receptions.join_next().await.is_some() {} }).await);
    ticking.abort();
    if let Err(error) = on_node(&node, Node::end).await {
        warn!(%error, "The unconfirmed change could not be rolled back; the agent rolls it back at its next start.");
    }
    info!("The agent has stopped; the state in the kernel stays.");
    Ok(())
}

/// Accepts connections of other agents and closes them at once.
///
/// The socket shows that this agent has claimed an interface. Another agent that connects learns this agent's process
/// from the peer credentials, so the connection carries no data.
async fn accept_and_close(claim: UnixListener) {
    loop {
        drop(claim.accept().await);
        // Any local user may connect, so a pause limits the load.
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Prepares a change. The reply has the wall-clock time before and after the work.
fn prepare<K: Kernel>(node: &mut Node<K>, request: Prepare, via: Via, now: Now) -> Result<Prepared, ApiError> {
    let prepared = node.prepare_via(request, via, now)?;
    let clock = ClockReading { asked: now.wall, answered: Now::read().wall };
    Ok(Prepared { clock: Some(clock), ..prepared })
}

/// The paths of the API.
fn router<K: Kernel + 'static>(node: &Shared<K>, body_limit: usize) -> Router {
    Router::new()
        .route(GetHost::PATH, locked::<K, GetHost>(|node, _, _, _| node.host()))
        .route(GetFacts::PATH, post(read_facts::<K>))
        .route(GetStatus::PATH, locked::<K, GetStatus>(|node, _, _, now| node.status(now)))
        .route(GetCounters::PATH, locked::<K, GetCounters>(|node, _, _, now| node.counted(now)))
        .route(GetStamp::PATH, locked::<K, GetStamp>(|node, _, _, _| Ok(node.stamp())))
        .route(GetWanted::PATH, locked::<K, GetWanted>(|node, _, _, now| Ok(node.document(now))))
        .route(Plan::PATH, locked::<K, Plan>(Node::plan))
        .route(Prepare::PATH, locked::<K, Prepare>(prepare))
        .route(GetReady::PATH, post(get_ready::<K>))
        .route(Commit::PATH, post(commit::<K>))
        .route(Confirm::PATH, locked::<K, Confirm>(|node, request, _, now| node.confirm(&request, now)))
        .route(Rollback::PATH, locked::<K, Rollback>(|node, request, _, now| node.rollback(&request, now)))
        .route(Probe::PATH, post(run_probe::<K>))
        .layer(from_fn(only_reads))
        .layer(DefaultBodyLimit::max(body_limit))
        .with_state(Arc::clone(node))
}

/// Largest number of measurements at the same time.
const MEASUREMENTS: usize = 4;

/// The paths of the calls that a viewer (a client with a read-only certificate) may make.
const READS: [&str; 5] = [GetHost::PATH, GetStatus::PATH, GetCounters::PATH, GetStamp::PATH, GetWanted::PATH];

/// The error for a viewer's call that is not in [`READS`].
const READ_ONLY: &str = "a viewer's certificate is read-only; use a controller's: --tls-dir DIR";

/// Refuses a viewer's call that is not in [`READS`].
async fn only_reads(request: Request, next: Next) -> Result<Response, ApiError> {
    let is_viewer = request.extensions().get::<ReadOnly>().is_some();
    if is_viewer && !READS.contains(&request.uri().path()) {
        return Err(ErrorCode::ReadOnly.error(READ_ONLY));
    }
    Ok(next.run(request).await)
}

/// Runs [`Node::tick`] at each deadline of the node, when a watchdog message is due, and after requests and events from
/// the kernel.
async fn tick<K: Kernel + 'static>(node: Shared<K>, mut heartbeat: Heartbeat, alarm: Alarm) {
    let mut at = Duration::ZERO;
    let mut events: Option<EventWaiter> = None;
    loop {
        // The descriptor for kernel events is opened before the tick, so that no event during or after the tick is
        // lost.
        if events.is_none() {
            let news = on_node(&node, |node, _| Ok(node.news())).await;
            events = news.ok().flatten().and_then(|news| EventWaiter::of(news).ok());
        }
        let ticked = on_node_at(&node, at, |node, now| Ok((now.uptime, node.tick(now), node.summary()))).await;
        let now = Now::read().uptime;
        let next = ticked.and_then(|(begun, ticked, summary)| {
            // The tick has had the node's lock. If another task never releases the lock, no watchdog message is sent.
            heartbeat.beat(summary, now);
            Ok(ticked?.map(|next| next.max(begun + SHORTEST_PAUSE)))
        });
        at = match next {
            Ok(Some(next)) if next <= now + PRECOMPUTE => {
                if let Err(error) = on_node(&node, move |node, _| node.precompute(next)).await {
                    warn!(%error, "The next timed change cannot be computed.");
                }
                tokio::select! {
                    () = alarm.at(next.checked_sub(PRECISE_WAIT)) => next,
                    () = node.requested.notified() => Duration::ZERO,
                }
            }
            Ok(next) => {
                let due = next.map(|next| next.saturating_sub(PRECOMPUTE)).into_iter().chain(heartbeat.due()).min();
                tokio::select! {
                    () = alarm.at(due) => {}
                    () = node.requested.notified() => {}
                    () = EventWaiter::wait(events.as_ref()) => {
                        let collected = Now::read().uptime + COLLECT;
                        alarm.at(due.into_iter().chain([collected]).min()).await;
                    }
                }
                Duration::ZERO
            }
            Err(error) => {
                warn!(%error, "A timed change, a rollback or the removal of unused classes failed; retrying.");
                now + RETRY
            }
        };
    }
}

/// The body of a request.
struct Asked<C>(C);

impl<C: Call, S: Send + Sync> FromRequest<S> for Asked<C> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        match Json::from_request(request, state).await {
            Ok(Json(request)) => Ok(Self(request)),
            Err(rejection) => Err(ErrorCode::BadRequest.error(rejection.body_text())),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        // Clients can cause many bad requests, whose log messages must not fill the disk.
        if self.code == ErrorCode::BadRequest {
            debug!(code = ?self.code, "{self}.");
        } else {
            warn!(code = ?self.code, "{self}.");
        }
        let status = StatusCode::from_u16(self.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (status, Json(self)).into_response()
    }
}

/// Writes the part of a change that affects no packet. Starts no tick, which would delay the commits of other nodes on
/// this machine.
async fn get_ready<K: Kernel + 'static>(
    State(node): State<Shared<K>>,
    Asked(request): Asked<GetReady>,
) -> Result<Json<Stamp>, ApiError> {
    on_node(&node, move |node, now| node.get_ready(&request, now)).await.map(Json)
}

/// Waits for the commit time, then commits. During the wait, the agent serves other requests, such as a rollback.
async fn commit<K: Kernel + 'static>(
    State(node): State<Shared<K>>,
    Asked(request): Asked<Commit>,
) -> Result<Json<Committed>, ApiError> {
    // A commit has its own task, so that it continues if the controller closes the connection.
    let committing = tokio::spawn(async move {
        let request = Arc::new(request);
        let waiting = Arc::clone(&request);
        let at = on_node(&node, move |node, now| Ok(now.uptime + node.make_ready(&waiting, now)?)).await?;
        let committed = on_node_at(&node, at, move |node, _| node.commit(&request, &Now::read)).await;
        node.requested.notify_one();
        committed
    });
    committing.await.unwrap_or_else(|error| Err(broken(&error))).map(Json)
}

/// The work of a request. `Now` is the time at which the request got the node's lock.
type Work<K, C> = fn(&mut Node<K>, C, Via, Now) -> Result<<C as Call>::Reply, ApiError>;

/// A handler that does `work` on the locked node, then starts a tick.
fn locked<K: Kernel + 'static, C: Call>(work: Work<K, C>) -> MethodRouter<Shared<K>> {
    // The TCP listener puts the network connection into the request's extensions.
    post(move |State(node): State<Shared<K>>, via: Option<Extension<Via>>, Asked(request): Asked<C>| async move {
        let via = via.map(|Extension(via)| via).unwrap_or_default();
        let done = on_node(&node, move |node, now| work(node, request, via, now)).await;
        node.requested.notify_one();
        done.map(Json)
    })
}

/// Reads the facts about the host. Only the interfaces and the dry runs need the node's lock.
async fn read_facts<K: Kernel + 'static>(
    State(node): State<Shared<K>>,
    via: Option<Extension<Via>>,
    Asked(GetFacts {}): Asked<GetFacts>,
) -> Result<Json<HostFacts>, ApiError> {
    let asked = Now::read().wall;
    let via = via.map(|Extension(via)| via).unwrap_or_default();
    let own = on_node(&node, move |node, _| Ok(node.own_facts(via))).await?;
    let facts = tokio::task::spawn_blocking(|| own.complete()).await.map_err(|error| broken(&error))?;
    Ok(Json(HostFacts { clock: ClockReading { asked, answered: Now::read().wall }, facts }))
}

async fn on_node<K: Kernel + 'static, T: Send + 'static>(
    node: &Shared<K>,
    work: impl FnOnce(&mut Node<K>, Now) -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    on_node_at(node, Duration::ZERO, work).await
}

/// Does `work` on the locked node at an uptime, or as soon as possible after this uptime. Uses a worker thread, because
/// netlink calls block.
async fn on_node_at<K: Kernel + 'static, T: Send + 'static>(
    node: &Shared<K>,
    at: Duration,
    work: impl FnOnce(&mut Node<K>, Now) -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    let wait = at.saturating_sub(Now::read().uptime);
    if let Some(wait) = wait.checked_sub(PRECISE_WAIT) {
        tokio::time::sleep(wait).await;
    }
    let node = Arc::clone(node);
    let done = tokio::task::spawn_blocking(move || {
        thread::sleep(at.saturating_sub(Now::read().uptime));
        // An earlier panic with the lock held is not fatal. A later tick rolls back an unconfirmed change at the end of
        // its lease (the time limit for the confirmation), or compares a confirmed change with the kernel.
        let mut node = node.node.lock().unwrap_or_else(PoisonError::into_inner);
        // The clocks are read after the wait for the lock, which may be long.
        work(&mut node, Now::read())
    });
    done.await.unwrap_or_else(|error| Err(broken(&error)))
}

fn broken(error: &JoinError) -> ApiError {
    ErrorCode::Broken.error(format!("the agent failed: {error}"))
}

/// Measures without the node's lock, so that other requests go on. Limits the number of simultaneous measurements, and
/// checks the targets.
async fn run_probe<K: Kernel + 'static>(
    State(node): State<Shared<K>>,
    Asked(request): Asked<Probe>,
) -> Result<Json<Probed>, ApiError> {
    let permit = Arc::clone(&node.measurements).try_acquire_owned().map_err(|_| {
        ErrorCode::Conflict.error(format!("{MEASUREMENTS} measurements are already running; try again"))
    })?;
    let targets = request.targets.clone();
    on_node(&node, move |node, now| node.may_measure(&targets, now)).await?;
    let measure = move || {
        let echoes = probe::echo(&request);
        // The permit lasts as long as the measurement, which continues if the controller closes the connection.
        drop(permit);
        echoes
    };
    let measured = tokio::task::spawn_blocking(measure).await;
    let echoes = measured.map_err(|error| ErrorCode::Failed.error(error))?;
    echoes.map(Json).map_err(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => {
            ErrorCode::Permission.error("measuring needs CAP_NET_RAW, which the agent lacks")
        }
        io::ErrorKind::InvalidInput => ErrorCode::BadRequest.error(error),
        _ => ErrorCode::Failed.error(format!("measuring failed: {error}")),
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;

    use super::*;
    use crate::{agent::Config, fake_kernel::FakeKernel};

    /// True if a watchdog message arrives within the time `within`.
    async fn hears(socket: &UnixDatagram, within: Duration) -> bool {
        // Earlier messages do not count.
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
    async fn an_agent_whose_node_is_locked_sends_no_watchdog_message() {
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
        // A message that was sent before the lock may still arrive.
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert!(!hears(&ours, Duration::from_secs(2)).await);
        drop(stick);
        holder.join().unwrap();
        assert!(hears(&ours, Duration::from_secs(10)).await);
        ticking.abort();
    }
}
