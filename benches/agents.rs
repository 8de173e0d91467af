//! `agents COUNT PKI PORT [--agree]`: the agents of n1 to nCOUNT in one process, for the part `controller` of
//! `scripts/bench`.
//!
//! Agent nK listens by HTTPS on 127.64.x.y (K is 256 x + y), with the certificate in PKI/nodes/nK. The agents are real,
//! with a kernel in memory. With `--agree`, the agents agree to everything at once and share one document, which n1
//! reads. Then the process needs little memory and CPU time.
//!
//! Prints `READY`. For each line on stdin, prints the CPU time since the last line, and with `--agree` the connections
//! and the requests with their sizes, as JSON. Ends with stdin.

#![expect(clippy::print_stdout, reason = "scripts/bench reads stdout")]

use std::{
    collections::BTreeMap,
    convert::Infallible,
    error::Error,
    io::Read,
    mem::take,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use flate2::read::GzDecoder;
use http_body_util::{BodyExt, Full};
use hyper::{
    HeaderMap, Request, Response,
    body::{Bytes, Incoming},
    header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use netemctl::{
    agent::{Config, Limits, Node, Now, serve},
    pki::{Identity, TlsFiles},
    plan::{Stamp, Wanted},
    topology::NodeName,
    wire::{Call, Commit, Committed, Document, Prepare},
};
use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage, setrlimit};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, BufReader, stdin},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::TlsAcceptor;

#[path = "../tests/fake_kernel/mod.rs"]
mod fake_kernel;

use fake_kernel::FakeKernel;

type Failure = Box<dyn Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let (count, pki, port, agree) = match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        // `cargo bench` runs every benchmark without arguments.
        [] => return Ok(()),
        [count, pki, port] => (count.parse()?, Path::new(pki), port.parse()?, false),
        [count, pki, port, "--agree"] => (count.parse()?, Path::new(pki), port.parse()?, true),
        _ => return Err("usage: agents COUNT PKI PORT [--agree]".into()),
    };
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
    // At the commit time, each real agent uses a thread.
    let threads = usize::from(count).max(512);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(threads).build()?;
    runtime.block_on(run(count, pki, port, agree))?;
    std::process::exit(0);
}

/// Starts the agents, and reports until the end of stdin.
async fn run(count: u16, pki: &Path, port: u16, agree: bool) -> Result<(), Failure> {
    let fleet = Arc::new(Fleet::new());
    for number in 1..=count {
        let node: NodeName = format!("n{number}").parse()?;
        let [high, low] = number.to_be_bytes();
        let at = SocketAddr::from(([127, 64, high, low], port));
        let files = TlsFiles::in_folder(&pki.join("nodes").join(node.as_str()));
        if agree {
            let tls = TlsAcceptor::from(Arc::new(Identity::read(&files)?.server()?));
            tokio::spawn(receive(TcpListener::bind(at).await?, tls, node, Arc::clone(&fleet)));
        } else {
            tokio::spawn(real(number, Config { listen: Some(at), tls: Some(files), ..Config::of(node, Vec::new()) }));
            while TcpStream::connect(at).await.is_err() {
                tokio::task::yield_now().await;
            }
        }
    }
    println!("READY");
    let mut before = cpu_time()?;
    let mut lines = BufReader::new(stdin()).lines();
    while lines.next_line().await?.is_some() {
        let now = cpu_time()?;
        let Shared { connections, requests, .. } = &mut *fleet.lock();
        println!("{}", json!({ "connections": take(connections), "requests": take(requests), "cpu": now - before }));
        before = now;
    }
    Ok(())
}

/// The CPU time of this process in seconds.
fn cpu_time() -> Result<f64, Failure> {
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    let seconds = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    Ok(seconds(usage.user_time()) + seconds(usage.system_time()))
}

/// Runs a real agent. The addresses are those of `peers.py`.
async fn real(number: u16, config: Config) {
    let interface: netemctl::plan::IfName = "db0".parse().expect("a name");
    let mut kernel = FakeKernel::new(interface.clone());
    let v4 = Ipv4Addr::from_bits(Ipv4Addr::new(10, 64, 0, 0).to_bits() + u32::from(number));
    let v6 = Ipv6Addr::new(0xfd0a, 0, 0, 0, 0, 0, number >> 12, number & 0xfff);
    kernel.interface.addresses = vec![IpAddr::V4(v4), IpAddr::V6(v6)];
    let config = Config { interfaces: vec![interface], ..config };
    let node = Node::with_sandbox(config.clone(), kernel.clone(), kernel, "boot", Now::read());
    let node = node.expect("there is no journal");
    Box::pin(serve(Limits::default(), node, &config, std::future::pending())).await.expect("the agent runs");
}

/// The state that all agreeing agents share.
struct Fleet(Mutex<Shared>);

struct Shared {
    /// The document in force and its stamp.
    held: (Wanted, Stamp),
    /// The prepared document and its stamp.
    next: Option<(Wanted, Stamp)>,
    connections: u64,
    /// By path: the number, the bytes of the requests, and the bytes of the answers.
    requests: BTreeMap<String, [usize; 3]>,
}

impl Fleet {
    fn new() -> Self {
        let held = (Wanted::default(), Wanted::default().stamp());
        Self(Mutex::new(Shared { held, next: None, connections: 0, requests: BTreeMap::new() }))
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn receive(listener: TcpListener, tls: TlsAcceptor, node: NodeName, fleet: Arc<Fleet>) {
    while let Ok((stream, _)) = listener.accept().await {
        let (tls, node, fleet) = (tls.clone(), node.clone(), Arc::clone(&fleet));
        tokio::spawn(async move {
            stream.set_nodelay(true)?;
            let stream = tls.accept(stream).await?;
            fleet.lock().connections += 1;
            let answer = service_fn(async |request: Request<Incoming>| {
                let (head, body) = request.into_parts();
                let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
                let size = head.method.as_str().len() + head.uri.path().len() + 14 + size(&head.headers) + body.len();
                let is_compressed = head.headers.contains_key(CONTENT_ENCODING);
                let path = head.uri.path();
                let at = (path == Commit::PATH).then(|| serde_json::from_slice::<Commit>(&body).ok()?.at).flatten();
                // A real agent answers a commit after its commit time, too.
                tokio::time::sleep(at.and_then(|at| at.since(SystemTime::now().into())).unwrap_or_default()).await;
                let (status, reply) = fleet.lock().answer(&node, path, &body, is_compressed);
                let reply = reply.to_string();
                let response = Response::builder().status(status).header(CONTENT_TYPE, "application/json");
                let response = response.header(CONTENT_LENGTH, reply.len());
                fleet.lock().count(
                    path,
                    size,
                    19 + response.headers_ref().map(self::size).unwrap_or_default() + reply.len(),
                );
                Ok::<_, Infallible>(response.body(Full::<Bytes>::from(reply)).expect("a valid answer"))
            });
            http1::Builder::new().auto_date_header(false).serve_connection(TokioIo::new(stream), answer).await?;
            Ok::<(), Failure>(())
        });
    }
}

/// The bytes of all headers.
fn size(headers: &HeaderMap) -> usize {
    headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum()
}

impl Shared {
    fn count(&mut self, path: &str, request: usize, answer: usize) {
        let [count, sent, received] = self.requests.entry(path.to_owned()).or_default();
        (*count, *sent, *received) = (*count + 1, *sent + request, *received + answer);
    }

    /// The status and the body of an answer.
    fn answer(&mut self, node: &NodeName, path: &str, body: &[u8], is_compressed: bool) -> (u16, Value) {
        let is_first = node.as_str() == "n1";
        match path {
            "/v1/stamp" | "/v1/ready" => return (200, json!(self.held.1)),
            "/v1/status" => return (200, self.status(node)),
            "/v1/wanted" => {
                return (200, json!(Document { wanted: self.held.0.clone(), ..Document::default() }));
            }
            "/v1/prepare" => {
                if is_first {
                    let mut text = body.to_vec();
                    if is_compressed {
                        text.clear();
                        drop(GzDecoder::new(body).read_to_end(&mut text));
                    }
                    let request: Option<Prepare> = serde_json::from_slice(&text).ok();
                    let next = request.and_then(|Prepare { wanted, edit, .. }| match (wanted, edit) {
                        (Some(wanted), None) => Some(wanted),
                        (_, edit) => edit?.applied_to(&self.held.0).ok(),
                    });
                    let Some(next) = next else {
                        return (422, json!({ "code": "needs-document", "message": "send the document" }));
                    };
                    let stamp = next.stamp();
                    self.next = Some((next, stamp));
                }
                return (200, json!({ "interface": "db0", "change": { "steps": [], "draining": [] } }));
            }
            "/v1/commit" => {
                let stamp = self.next.as_ref().unwrap_or(&self.held).1.clone();
                let committed = Committed { stamp, writes: 1, onset: None, told_late: None, ended: Vec::new() };
                return (200, json!(committed));
            }
            "/v1/confirm" if is_first => {
                if let Some(next) = self.next.take() {
                    self.held = next;
                }
            }
            "/v1/rollback" if is_first => self.next = None,
            _ => {}
        }
        (200, json!({ "stamp": self.held.1 }))
    }

    fn status(&self, node: &NodeName) -> Value {
        json!({
            "node": node, "version": env!("CARGO_PKG_VERSION"), "stamp": self.held.1, "interface": "db0",
            "topology": "bench", "by_hand": 0, "cuts": [], "draining": 0, "drift": [], "foreign": [], "journal": null,
            "missing": [], "overlays": [], "partitions": [], "recovered": null, "unconfirmed_s": null,
            "profiles": [{ "addresses": 2, "delay_ms": 50.0, "limit": 244_032, "nodes": 2, "queued": 0 }],
            "watch": { "incidents": [], "journal_behind": null, "next_try_s": null, "obstacle": null,
                       "on_drift": "report", "repairs": 0, "since": null },
        })
    }
}
