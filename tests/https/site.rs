//! [`Site`]: an agent in this process that listens on a loopback port.

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, SystemTime},
};

use netemctl::{
    agent::{Config, Limits, Node, Now, ServeError, serve},
    fleet::{Access, CallError, Fleet},
    pki::{Authority, CA_FILE, CERTIFICATE_FILE, CertificateRequest, Identity, KEY_FILE, Role, TlsFiles, Validity},
    plan::{AgentAddress, HostPort, IfName, Inventory, NodeLocation, Stamp},
    topology::NodeName,
    wire::GetStamp,
};
use tempfile::TempDir;
use tokio::{net::TcpStream, task::JoinHandle};

use crate::fake_kernel::FakeKernel;

/// The timeout for every wait, long enough for the slowest machine.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// One day: the unit of validities in these tests.
pub(crate) const DAY: Duration = Duration::from_hours(24);

/// A validity that includes the present.
pub(crate) fn valid() -> Validity {
    let now = SystemTime::now();
    Validity { from: (now - DAY).into(), until: (now + DAY).into() }
}

/// A CA with a longer validity than all its certificates in these tests.
pub(crate) fn authority() -> Authority {
    let now = SystemTime::now();
    Authority::new(Validity { from: (now - 9 * DAY).into(), until: (now + 9 * DAY).into() }).expect("a CA can be made")
}

pub(crate) fn agent_of(node: &str) -> Role {
    Role::Agent(name(node))
}

pub(crate) fn name(node: &str) -> NodeName {
    node.parse().expect("a node's name")
}

/// Issues a certificate and writes CA, certificate and key into a folder. Overwrites files in place, as `scp` does.
pub(crate) fn write_identity(folder: &Path, trusted: &Authority, issuer: &Authority, role: Role, validity: Validity) {
    let issued =
        issuer.issue(&CertificateRequest { role, hosts: Vec::new(), validity }).expect("the certificate can be issued");
    std::fs::create_dir_all(folder).expect("a folder can be made");
    let write = |file: &str, text: &str| {
        let path = folder.join(file);
        std::fs::write(&path, text).expect("the file can be written");
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("an own file");
    };
    write(CA_FILE, trusted.certificate());
    write(CERTIFICATE_FILE, &issued.certificate);
    write(KEY_FILE, &issued.key);
}

/// An agent that listens until this value is dropped, and a folder with its and the controller's certificates.
pub(crate) struct Site {
    pub(crate) folder: TempDir,
    pub(crate) address: SocketAddr,
    pub(crate) authority: Authority,
    agent: JoinHandle<Result<(), ServeError>>,
}

impl Drop for Site {
    fn drop(&mut self) {
        self.agent.abort();
    }
}

impl Site {
    /// Starts the agent of n1 with TLS. Agent and controller have valid certificates.
    pub(crate) async fn up(limits: Limits) -> Self {
        Self::with(limits, true, authority(), |folder, authority| {
            write_identity(folder, authority, authority, agent_of("n1"), valid());
        })
        .await
    }

    /// Starts the agent of n1 without TLS.
    pub(crate) async fn plain(limits: Limits) -> Self {
        Self::with(limits, false, authority(), |_, _| {}).await
    }

    /// Starts the agent of n1. `write` puts the agent's certificate into the given folder.
    pub(crate) async fn with(
        limits: Limits,
        tls: bool,
        authority: Authority,
        write: impl FnOnce(&Path, &Authority),
    ) -> Self {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let own = folder.path().join("agent");
        write(&own, &authority);
        write_identity(&folder.path().join("controller"), &authority, &authority, Role::Controller, valid());
        // Another process may take the free port before the agent does. Then the next port is tried.
        for _ in 0..20 {
            let free = std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
            let address = free.expect("the loopback has ports");
            let config = Config {
                listen: Some(address),
                tls: tls.then(|| files(&own)),
                ..Config::of(name("n1"), vec![interface()])
            };
            let agent = spawn(limits.clone(), config);
            for _ in 0..1000 {
                if agent.is_finished() {
                    break;
                }
                if TcpStream::connect(address).await.is_ok() {
                    return Self { folder, address, authority, agent };
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        panic!("the agent does not listen");
    }

    /// A fleet with the single node n1. The controller uses the certificate in the folder `identity`.
    pub(crate) fn fleet(&self, identity: Option<&Path>) -> Fleet {
        self.fleet_of("n1", identity)
    }

    pub(crate) fn fleet_of(&self, node: &str, identity: Option<&Path>) -> Fleet {
        let tls = identity.map(|folder| Arc::new(Identity::read(&TlsFiles::in_folder(folder)).expect("an identity")));
        let address = HostPort { host: self.address.ip().to_string(), port: self.address.port() };
        let agent = AgentAddress::Https(address);
        Fleet::new(inventory(node, agent), Access { tls, ..Access::default() })
    }

    /// The folder of the controller's valid certificate.
    pub(crate) fn controller(&self) -> PathBuf {
        self.folder.path().join("controller")
    }

    /// Calls the agent as a controller with a valid certificate.
    pub(crate) async fn ask(&self) -> Result<Stamp, CallError> {
        let fleet = self.fleet(Some(&self.controller()));
        fleet.call_one(PATIENCE, &name("n1"), GetStamp {}).await
    }
}

pub(crate) fn files(folder: &Path) -> TlsFiles {
    TlsFiles { ca: folder.join(CA_FILE), cert: folder.join(CERTIFICATE_FILE), key: folder.join(KEY_FILE) }
}

pub(crate) fn spawn(limits: Limits, config: Config) -> JoinHandle<Result<(), ServeError>> {
    let kernel = FakeKernel::new("db0".parse().expect("an interface"));
    let node = Node::open(config.clone(), kernel, Now::read()).expect("there is no journal");
    tokio::spawn(async move { Box::pin(serve(limits, node, &config, std::future::pending())).await })
}

pub(crate) fn inventory(node: &str, agent: AgentAddress) -> Inventory {
    let location =
        NodeLocation { agent, interface: "db0".parse().expect("an interface"), addresses: vec![[10, 0, 0, 1].into()] };
    Inventory { nodes: BTreeMap::from([(name(node), location)]), ..Inventory::default() }
}

/// Collects the log of this thread until it is dropped.
pub(crate) struct Log {
    text: Arc<Mutex<Vec<u8>>>,
    _guard: tracing::subscriber::DefaultGuard,
}

impl Log {
    pub(crate) fn start() -> Self {
        let text = Arc::<Mutex<Vec<u8>>>::default();
        let sink = Arc::clone(&text);
        let writer = move || Sink(Arc::clone(&sink));
        let subscriber = tracing_subscriber::fmt().with_writer(writer).with_ansi(false).finish();
        Self { text, _guard: tracing::subscriber::set_default(subscriber) }
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.text.lock().expect("nobody panicked")).into_owned()
    }

    /// The reasons of all refused connections in the log so far.
    pub(crate) fn refusals(&self) -> Vec<String> {
        let text = self.text();
        let reasons =
            text.lines().filter_map(|line| line.split_once("Refused a connection: ")?.1.split_once(". peer="));
        reasons.map(|(reason, _)| reason.to_owned()).collect()
    }
}

struct Sink(Arc<Mutex<Vec<u8>>>);

impl io::Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("nobody panicked").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A new interface name for each agent, because an interface can have only one agent.
fn interface() -> IfName {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("t{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed)).parse().expect("an interface")
}
