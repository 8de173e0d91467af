//! Clients that send malformed requests, too much data, or nothing. They must not harm the agent or its other clients.

use std::{
    fs,
    io::{self, ErrorKind},
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use netemctl::{
    agent::Limits,
    pki::{Identity, TlsFiles},
};
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::site::{PATIENCE, Site, name};

/// The resident memory of this process in kB (`proc_pid_status(5)`). The agent runs in this process.
pub(super) fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

pub(super) async fn tls(site: &Site) -> TlsStream<TcpStream> {
    let identity = Identity::read(&TlsFiles::in_folder(&site.controller())).unwrap();
    let connector = TlsConnector::from(Arc::new(identity.client(Some(&name("n1"))).unwrap()));
    let stream = TcpStream::connect(site.address).await.unwrap();
    connector.connect(ServerName::try_from("agent").unwrap(), stream).await.unwrap()
}

/// Sends bytes and returns the answer up to the end of the connection. The agent may close the connection before it has
/// read all bytes.
pub(super) async fn send_and_read(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    bytes: &[u8],
    shut_down: bool,
) -> String {
    let mut answer = Vec::new();
    let exchange = async {
        let sent = stream.write_all(bytes).await;
        if shut_down && sent.is_ok() {
            drop(stream.shutdown().await);
        }
        drop(stream.read_to_end(&mut answer).await);
    };
    timeout(PATIENCE, exchange).await.expect("the agent answers or closes the connection");
    String::from_utf8_lossy(&answer).into_owned()
}

fn post(path: &str, headers: &str, body: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nhost: agent\r\nconnection: close\r\n{headers}content-length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// Malformed requests of every kind, each with the expected status. 0: any answer, or none.
fn malformed() -> Vec<(String, u16)> {
    let json = "content-type: application/json\r\n";
    let deep = "[".repeat(10_000);
    let wanted = format!("{{\"ticket\":\"t\",\"base\":{deep}");
    vec![
        (post("/v1/stamp", json, "{"), 400),
        (post("/v1/prepare", json, "[]"), 400),
        (post("/v1/stamp", json, "{\"surplus\":1}"), 400),
        (post("/v1/prepare", json, "{}"), 400),
        (post("/v1/prepare", json, &wanted), 400),
        (post("/v1/commit", json, "{\"ticket\":1}"), 400),
        (post("/v1/commit", json, "{\"ticket\":\"nobody's\"}"), 409),
        (post("/v1/stamp", "content-type: text/plain\r\n", "{}"), 400),
        (post("/v1/stamp", "", ""), 400),
        (post("/v1/nothing", json, "{}"), 404),
        (post("/../etc/passwd", json, "{}"), 404),
        ("GET /v1/status HTTP/1.1\r\nhost: agent\r\nconnection: close\r\n\r\n".to_owned(), 405),
        ("POST /v1/stamp HTTP/1.1\r\nhost: agent\r\ncontent-length: -1\r\n\r\n".to_owned(), 400),
        ("POST /v1/stamp HTTP/1.1\r\nhost: agent\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab".to_owned(), 400),
        ("POST /v1/stamp HTTP/1.1\r\nhost: agent\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n".to_owned(), 400),
        ("POST /v1/stamp HTTP/9.9\r\n\r\n".to_owned(), 400),
        ("\0\u{1}\u{2}\u{3} nonsense\r\n\r\n".to_owned(), 400),
        (format!("POST /{} HTTP/1.1\r\nhost: agent\r\n\r\n", "a".repeat(40_000)), 0),
        (format!("POST / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(1000)), 431),
        (format!("POST / HTTP/1.1\r\na: {}\r\n\r\n", "b".repeat(100_000)), 431),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), 0),
        ("POST /v1/stamp HTTP/1.1\r\nhost: agent\r\ncontent-length: 10\r\n\r\n{".to_owned(), 0),
        ("POST /v1/stamp HTT".to_owned(), 0),
        (String::new(), 0),
    ]
}

/// Sends this number of malformed requests, of all kinds in turn, and checks the answers.
async fn send_malformed(address: SocketAddr, count: usize) {
    let kinds = malformed();
    for (request, status) in kinds.iter().cycle().take(count) {
        let stream = TcpStream::connect(address).await.unwrap();
        let answer = send_and_read(stream, request.as_bytes(), *status == 0).await;
        let expected = format!("HTTP/1.1 {status} ");
        let head: String = request.chars().take(60).collect();
        assert!(*status == 0 || answer.starts_with(&expected), "{head:?}: {status} expected, but: {answer}");
    }
}

#[tokio::test]
async fn ten_thousand_malformed_requests_cost_an_agent_nothing() {
    let site = Site::plain(Limits::default()).await;
    send_malformed(site.address, 500).await;
    let before = resident();
    send_malformed(site.address, 10_000).await;
    let after = resident();
    assert!(after < before + 8 * 1024, "{before} kB before, {after} kB after");
    let answer =
        send_and_read(TcpStream::connect(site.address).await.unwrap(), stamp_request().as_bytes(), false).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

fn stamp_request() -> String {
    post("/v1/stamp", "content-type: application/json\r\n", "{}")
}

#[tokio::test]
async fn malformed_tls_and_malformed_requests_within_tls_affect_no_other_client() {
    let site = Site::up(Limits::default()).await;
    let hello = [0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xfc, 0x03, 0x03];
    let huge = [&[0x16, 0x03, 0x01, 0xff, 0xff][..], &vec![0; 70_000]].concat();
    let nonsense: Vec<u8> = (0..4096_u32).map(|n| u8::try_from(n.wrapping_mul(2_654_435_761) >> 24).unwrap()).collect();
    for round in 0..100 {
        for bytes in [&hello[..], &huge, &nonsense, &[0x16], &[0x16; 5000], b"GET / HTTP/1.0\r\n\r\n", b""] {
            let stream = TcpStream::connect(site.address).await.unwrap();
            let answer = send_and_read(stream, bytes, true).await;
            assert!(!answer.contains("HTTP/1.1 200"), "{answer}");
        }
        if round % 25 == 0 {
            assert!(site.ask().await.is_ok());
        }
    }
    for (request, status) in malformed() {
        let answer = send_and_read(tls(&site).await, request.as_bytes(), status == 0).await;
        assert!(status == 0 || answer.starts_with(&format!("HTTP/1.1 {status} ")), "{status}: {answer}");
    }
    assert!(site.ask().await.is_ok());
}

#[tokio::test]
async fn a_body_of_a_gigabyte_is_refused_without_being_read() {
    const GIGABYTE: u64 = 1 << 30;
    let site = Site::up(Limits::default()).await;
    assert!(site.ask().await.is_ok());
    let before = resident();
    let head = "POST /v1/prepare HTTP/1.1\r\nhost: agent\r\ncontent-type: application/json\r\n";

    // A body with a declared length.
    let mut stream = tls(&site).await;
    let announced = format!("{head}content-length: {GIGABYTE}\r\n\r\n");
    stream.write_all(announced.as_bytes()).await.unwrap();
    let answer = send_and_read(stream, b"{", false).await;
    assert!(answer.starts_with("HTTP/1.1 413 ") && answer.contains("larger than 16 MiB"), "{answer}");

    // A chunked body, whose length is not declared. The client sends until the agent closes the connection.
    let mut stream = tls(&site).await;
    stream.write_all(format!("{head}transfer-encoding: chunked\r\n\r\n").as_bytes()).await.unwrap();
    let chunk = [format!("{:x}\r\n", 1 << 16).into_bytes(), vec![b' '; 1 << 16], b"\r\n".to_vec()].concat();
    let mut sent = 0;
    let send = async {
        while sent < GIGABYTE {
            if stream.write_all(&chunk).await.is_err() {
                break;
            }
            sent += 1 << 16;
        }
    };
    timeout(PATIENCE, send).await.expect("the agent closes the connection");
    assert!(sent < GIGABYTE / 8, "the agent read {sent} bytes");
    assert!(resident() < before + 64 * 1024, "{before} kB before, {} kB after", resident());
    assert!(site.ask().await.is_ok());
}

/// Limits that expire within a test.
fn short_limits() -> Limits {
    Limits {
        connections: 20,
        handshake: Duration::from_secs(2),
        head: Duration::from_secs(2),
        body: Duration::from_secs(2),
        idle: Duration::from_secs(2),
        ..Limits::default()
    }
}

/// Sends `start`, then `piece` every 50 ms until the agent closes the connection. Returns the duration and the answer.
async fn send_slowly(mut stream: impl AsyncRead + AsyncWrite + Unpin, start: &str, piece: &str) -> (Duration, String) {
    let began = Instant::now();
    let mut answer = Vec::new();
    let mut sent = stream.write_all(start.as_bytes()).await;
    loop {
        let mut buffer = [0; 512];
        match timeout(Duration::from_millis(50), stream.read(&mut buffer)).await {
            Ok(Ok(0) | Err(_)) => break,
            Ok(Ok(length)) => answer.extend_from_slice(&buffer[..length]),
            Err(_) if sent.is_ok() => sent = stream.write_all(piece.as_bytes()).await,
            Err(_) => {}
        }
        assert!(began.elapsed() < PATIENCE, "the agent does not close the connection");
    }
    (began.elapsed(), String::from_utf8_lossy(&answer).into_owned())
}

#[tokio::test]
async fn a_slow_client_is_disconnected_and_delays_no_other() {
    let site = Site::up(short_limits()).await;
    let head = "POST /v1/stamp HTTP/1.1\r\nhost: agent\r\ncontent-type: application/json\r\n";
    let with_body = format!("{head}content-length: 100000\r\n\r\n");
    let (in_head, in_body, in_handshake, idle, good) = tokio::join!(
        async { send_slowly(tls(&site).await, head, "a: b\r\n").await },
        async { send_slowly(tls(&site).await, &with_body, " ").await },
        async { send_slowly(TcpStream::connect(site.address).await.unwrap(), "\u{16}\u{3}\u{1}\u{2}", "\u{1}").await },
        async { send_slowly(tls(&site).await, "", "").await },
        async {
            let mut took = Vec::new();
            for _ in 0..20 {
                let start = Instant::now();
                site.ask().await.unwrap();
                took.push(start.elapsed());
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            took.sort();
            took[10]
        },
    );
    for (took, answer) in [&in_head, &in_body, &in_handshake, &idle] {
        assert!((Duration::from_secs(1)..Duration::from_secs(20)).contains(took), "{took:?}: {answer}");
    }
    assert!(in_body.1.starts_with("HTTP/1.1 408 ") && in_body.1.contains("within 2 s"), "{}", in_body.1);
    assert!(good < Duration::from_secs(2), "a good client waited {good:?}");
}

/// The clients are ten times as many as the limit of connections. They send nothing, or the beginning of a message.
#[tokio::test]
async fn silent_clients_make_room_for_one_that_sends() {
    let limits = Limits { handshake: PATIENCE, head: PATIENCE, body: PATIENCE, idle: PATIENCE, ..short_limits() };
    for half in ["", "\u{16}\u{3}\u{1}", "GET"] {
        let site = Site::up(limits.clone()).await;
        let mut clients = Vec::new();
        for number in 0..200 {
            let mut stream = TcpStream::connect(site.address).await.unwrap();
            stream.write_all(half.as_bytes()).await.unwrap();
            clients.push(stream);
            if number % 40 == 39 {
                let start = Instant::now();
                site.ask().await.unwrap();
                assert!(start.elapsed() < Duration::from_secs(5), "the client waited {:?}", start.elapsed());
            }
        }
        // The agent has closed the oldest connections, down to the limit.
        let mut gone = 0;
        for stream in &mut clients {
            let mut byte = [0];
            let read = timeout(Duration::from_millis(5), stream.read(&mut byte)).await;
            gone += usize::from(matches!(read, Ok(Ok(0 | 1) | Err(_))));
        }
        assert!(gone >= 200 - limits.connections, "{half:?}: {gone} connections are closed");
    }
}

/// A valid certificate does not exempt a silent client: a new client takes its place.
#[tokio::test]
async fn silent_clients_with_valid_certificates_make_room_as_well() {
    let limits = Limits { connections: 4, ..short_limits() };
    let site = Site::up(limits).await;
    let mut clients = Vec::new();
    for _ in 0..12 {
        let mut stream = tls(&site).await;
        let sent = stream.write_all(b"POST /v1/stamp HTTP/1.1\r\nhost: agent\r\ncontent-length: 9\r\n\r\n").await;
        assert!(sent.is_ok() || sent.is_err_and(|error| is_disconnected(&error)));
        clients.push(stream);
    }
    site.ask().await.unwrap();
}

fn is_disconnected(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset | ErrorKind::UnexpectedEof)
}
