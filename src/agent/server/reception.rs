//! Serves the connections of a listener: TLS, HTTP, and their limits of time and size.

use std::{convert::Infallible, io, net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    body::{Body, Bytes},
    http::{Extensions, HeaderMap, Request, StatusCode, header},
    response::{IntoResponse, Response},
};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::{
    body::{Body as _, Incoming},
    server::conn::http1,
    service::{Service, service_fn},
};
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::{
    compression::{Compression, decompressed, stated_size},
    connections::{Client, Stage},
    listener::{Accepted, Listener},
    throttle::Throttle,
};
use crate::{
    agent::Via,
    pki::{Role, why_refused},
    wire::{ErrorCode, SERVER},
};

/// Longest time to send a refused client the reason and to wait until the client closes the connection.
const LAST_REPLY_TIME: Duration = Duration::from_secs(1);

/// The first byte of a TLS handshake (RFC 8446, section 5.1).
const TLS_HANDSHAKE: u8 = 22;

/// An extension of a request over TLS. The client's certificate is not a controller's, so the client may only read.
#[derive(Clone, Copy)]
pub(super) struct ReadOnly;

/// Accepts and serves connections until `stop`, then waits until all connections are closed.
pub(super) async fn receive(listener: Listener, router: Router, stop: CancellationToken) {
    let refusals = Arc::new(Throttle::new());
    loop {
        let arrival = tokio::select! {
            arrival = listener.accept() => arrival,
            () = stop.cancelled() => break,
        };
        let Some(client) = listener.connections.admit(arrival.first_stage()) else {
            debug!("Refused a connection: all connections have requests under way.");
            continue;
        };
        let (router, stop, refusals) = (router.clone(), stop.clone(), Arc::clone(&refusals));
        tokio::spawn(async move {
            let session = Session { client, router, stop };
            match arrival {
                Accepted::Unix(stream) => session.serve(stream, Extensions::new(), false).await,
                Accepted::Tcp { stream, peer, tls } => session.serve_tcp(stream, peer, tls, &refusals).await,
            }
        });
    }
    // The agent finishes the requests under way. The caller limits the time of this wait.
    while !listener.connections.is_empty() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

impl Accepted {
    fn first_stage(&self) -> Stage {
        if matches!(self, Self::Tcp { tls: Some(_), .. }) { Stage::Handshake } else { Stage::Head }
    }
}

/// One connection.
struct Session {
    client: Client,
    router: Router,
    stop: CancellationToken,
}

impl Session {
    async fn serve_tcp(self, stream: TcpStream, peer: SocketAddr, tls: Option<TlsAcceptor>, refusals: &Throttle) {
        let Ok(local) = stream.local_addr() else { return };
        // The option only makes small replies faster, so an error does not matter.
        drop(stream.set_nodelay(true));
        let mut origin = Extensions::new();
        origin.insert(Via { local: Some(local), peer: Some(peer) });
        let Some(tls) = tls else { return self.serve(stream, origin, true).await };
        let handshake = tokio::select! {
            handshake = shake_hands(stream, &tls) => handshake,
            why = self.client.end() => Err(Some(Refusal { why: why.to_owned(), last_reply: None })),
            () = self.stop.cancelled() => return,
        };
        match handshake {
            Ok(stream) => {
                self.client.enter(Stage::Head);
                let certificates = stream.get_ref().1.peer_certificates();
                if certificates.and_then(|chain| Role::of(chain.first()?)) != Some(Role::Controller) {
                    origin.insert(ReadOnly);
                }
                self.serve(*stream, origin, false).await;
            }
            Err(None) => debug!(%peer, "A client closed its connection without a handshake."),
            Err(Some(Refusal { why, last_reply })) => {
                if let Some(suppressed) = refusals.pass() {
                    let more = (suppressed > 0).then_some(suppressed);
                    warn!(%peer, more, "Refused a connection: {why}.");
                }
                if let Some((stream, reply)) = last_reply {
                    tokio::select! {
                        () = reply_and_close(stream, &reply) => {}
                        _ = self.client.end() => {}
                    }
                }
            }
        }
    }

    /// Serves requests. Each request gets the extensions `origin`. `checks_host`: refuses requests that may come from a
    /// web page in a local browser.
    async fn serve<S>(self, stream: S, origin: Extensions, checks_host: bool)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Self { client, router, stop } = self;
        let limits = client.connections().limits();
        let service = TowerToHyperService::new(router);
        let answer = service_fn(async |request: Request<Incoming>| {
            let response = if checks_host && !is_for_loopback(request.headers()) {
                let why = "without TLS the agent answers only programs on this machine: the Host header must be a loopback \
                           address";
                refuse(StatusCode::FORBIDDEN, ErrorCode::Refused, why)
            } else {
                let response = answered(&client, &service, request, &origin).await;
                ([(header::SERVER, SERVER)], response).into_response()
            };
            client.enter(Stage::Idle);
            Ok::<_, Infallible>(response)
        });
        let mut http = http1::Builder::new();
        let connection = http.max_buf_size(limits.head_size).serve_connection(TokioIo::new(stream), answer);
        tokio::pin!(connection);
        let mut stopping = false;
        loop {
            tokio::select! {
                ended = &mut connection => {
                    if let Err(error) = ended {
                        debug!(%error, "A connection failed.");
                    }
                    return;
                }
                why = client.end() => return debug!("A connection was closed: {why}."),
                () = stop.cancelled(), if !stopping => {
                    stopping = true;
                    connection.as_mut().graceful_shutdown();
                }
            }
        }
    }
}

/// The reason why a handshake failed, and the last reply if the connection is still open.
struct Refusal {
    why: String,
    last_reply: Option<(TcpStream, String)>,
}

/// Does the TLS handshake. `Err(None)`: the connection ended before its first byte.
async fn shake_hands(
    stream: TcpStream,
    tls: &TlsAcceptor,
) -> Result<Box<tokio_rustls::server::TlsStream<TcpStream>>, Option<Refusal>> {
    let mut first = [0];
    match stream.peek(&mut first).await {
        Ok(1) if first[0] == TLS_HANDSHAKE => {}
        Ok(1) => {
            let why = "it does not speak TLS (plain HTTP?)".to_owned();
            return Err(Some(Refusal { why, last_reply: Some((stream, https_only())) }));
        }
        Ok(_) | Err(_) => return Err(None),
    }
    // The TLS library has already sent an alert with the reason, so the last reply is empty.
    let refused =
        |(error, stream)| Some(Refusal { why: why_refused(&error), last_reply: Some((stream, String::new())) });
    tls.accept(stream).into_fallible().await.map(Box::new).map_err(refused)
}

/// The reply to plain HTTP on a TLS port.
fn https_only() -> String {
    let error = ErrorCode::BadRequest.error("this port speaks HTTPS only: write https:// in the address");
    let text = serde_json::to_string(&error).unwrap_or_default();
    let head = "HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\nconnection: close";
    format!("{head}\r\ncontent-length: {}\r\n\r\n{text}", text.len())
}

/// Sends a last reply and waits for the client to close the connection.
///
/// If the agent closed a connection with unread data, the kernel would reset the connection, and the reply could be
/// lost.
async fn reply_and_close(mut stream: TcpStream, reply: &str) {
    let close = async {
        stream.write_all(reply.as_bytes()).await?;
        stream.shutdown().await?;
        let mut unread = [0; 4096];
        while stream.read(&mut unread).await? > 0 {}
        io::Result::Ok(())
    };
    drop(timeout(LAST_REPLY_TIME, close).await);
}

async fn answered(
    client: &Client,
    service: &TowerToHyperService<Router>,
    request: Request<Incoming>,
    origin: &Extensions,
) -> Response {
    client.enter(Stage::Body);
    let limits = client.connections().limits();
    let (mut parts, body) = request.into_parts();
    let Some(compression) = Compression::of(&parts.headers) else {
        let why = "the agent reads bodies without compression and with gzip (Content-Encoding)";
        return refuse(StatusCode::UNSUPPORTED_MEDIA_TYPE, ErrorCode::BadRequest, why);
    };
    // The size of a chunked body is unknown, so the agent reserves memory for the largest body.
    let size = body.size_hint().upper().map_or(limits.body_size, |size| usize::try_from(size).unwrap_or(usize::MAX));
    let too_large = || {
        let why = format!("the body is larger than {} MiB", limits.body_size >> 20);
        refuse(StatusCode::PAYLOAD_TOO_LARGE, ErrorCode::BadRequest, &why)
    };
    if size > limits.body_size {
        return too_large();
    }
    let no_room = || {
        let why = "the agent has no memory left for a request of this size; try again";
        refuse(StatusCode::SERVICE_UNAVAILABLE, ErrorCode::Failed, why)
    };
    let Some(_room) = client.connections().room(size).await else { return no_room() };
    let bytes = match timeout(limits.body, Limited::new(body, limits.body_size).collect()).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(error)) if error.is::<LengthLimitError>() => return too_large(),
        Ok(Err(error)) => {
            let why = format!("the body cannot be read: {error}");
            return refuse(StatusCode::BAD_REQUEST, ErrorCode::BadRequest, &why);
        }
        Err(_) => {
            let why = format!("the body did not arrive within {} s", limits.body.as_secs());
            return refuse(StatusCode::REQUEST_TIMEOUT, ErrorCode::BadRequest, &why);
        }
    };
    let (bytes, _room_for_content) = match compression {
        Compression::None => (bytes, None),
        Compression::Gzip => {
            let content_size = stated_size(&bytes).unwrap_or_default();
            if content_size > limits.body_size {
                return too_large();
            }
            let Some(room) = client.connections().room(content_size).await else { return no_room() };
            parts.headers.remove(header::CONTENT_ENCODING);
            parts.headers.remove(header::CONTENT_LENGTH);
            match decompressed(&bytes, content_size) {
                Ok(content) => (content.into(), Some(room)),
                Err(error) => {
                    let why = format!("the body is not valid gzip: {error}");
                    return refuse(StatusCode::BAD_REQUEST, ErrorCode::BadRequest, &why);
                }
            }
        }
    };
    client.enter(Stage::Work);
    parts.extensions.extend(origin.clone());
    let request: Request<Full<Bytes>> = Request::from_parts(parts, Full::new(bytes));
    let Ok(response) = service.call(request).await;
    response
}

/// An error reply that closes the connection, because the agent does not read the rest of the request.
fn refuse(status: StatusCode, code: ErrorCode, why: &str) -> Response<Body> {
    (status, [(header::CONNECTION, "close")], Json(code.error(why))).into_response()
}

/// True if the headers of a request without TLS show a program on this machine, not a web page in a local browser.
///
/// A web page can also reach the loopback. But the browser then sends the page's `Host`, or adds an `Origin`. netemctl
/// sends the host `agent`.
fn is_for_loopback(headers: &HeaderMap) -> bool {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let name = host.rsplit_once(':').filter(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit()));
    let name = name.map_or(host, |(name, _)| name).trim_start_matches('[').trim_end_matches(']');
    let is_local = ["agent", "localhost"].contains(&name)
        || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
    is_local && !headers.contains_key(header::ORIGIN)
}
