//! `netemctl agent`: the daemon on a node.

use std::{io, path::PathBuf};

use caps::{CapSet, Capability};
use tokio::{
    io::AsyncReadExt,
    signal::unix::{SignalKind, signal},
};
use tracing_subscriber::EnvFilter;

use super::{Exit, Failure};
use crate::{
    agent::{Config, ConfigError, JournalError, Node, Now, ServeError, serve},
    kernel::Rtnl,
};

/// Run a node's agent: the privileged daemon that owns its network shaping
///
/// It touches no interface but those that its config allows. SIGTERM and SIGINT end it; what is in force stays in force.
/// Started again, it goes on from its journal, however it ended: what should be in force at that moment is, and what is
/// over by then is not.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The config file:
  node = \"n1\"                            # which node this is
  interfaces = [\"eno2\"]                  # all that may be shaped
  socket = \"/run/netemctl/agent.sock\"    # where to listen on this machine; mode 0600
  listen = \"10.0.0.7:7946\"              # where to listen for controllers, by TLS
  journal = \"/var/lib/netemctl/n1.json\"  # where to keep what is in force
  [tls]                                  # as netemctl pki issue makes them
  ca = \"/etc/netemctl/tls/ca.pem\"       # whose controllers may change this node
  cert = \"/etc/netemctl/tls/cert.pem\"   # read again when it is replaced
  key = \"/etc/netemctl/tls/key.pem\"     # mode 0600

One of socket and listen is needed; without [tls], listen takes addresses of the loopback only.
It needs CAP_NET_ADMIN to shape, CAP_NET_RAW to measure and to answer what is rejected,
and CAP_SYS_ADMIN to try the kernel in a namespace of its own.
RUST_LOG sets how much it logs on stderr: error, warn, info (the default), debug.")]
pub(super) struct Agent {
    /// The agent's config file
    #[arg(long, value_name = "FILE")]
    config: PathBuf,

    /// End when stdin is closed: for whoever starts the agent and must not leave it behind
    #[arg(long, hide = true)]
    until_stdin_closes: bool,
}

/// To shape, to measure, and to try the kernel in a namespace of its own.
const NEEDED: [Capability; 3] = [Capability::CAP_NET_ADMIN, Capability::CAP_NET_RAW, Capability::CAP_SYS_ADMIN];

impl Agent {
    pub(super) fn run(&self) -> Result<Exit, Failure> {
        start_log();
        let config = Config::read(&self.config)?;
        check_capabilities()?;
        let kernel = Rtnl::open().map_err(|error| Failure::new(Exit::Failed, format!("netlink: {error}")))?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| Failure::new(Exit::Failed, error))?;
        let served = runtime.block_on(async {
            let end = end(self.until_stdin_closes).map_err(|error| Failure::new(Exit::Failed, error))?;
            let node = Node::open(config.clone(), kernel, Now::read())?;
            Box::pin(serve(node, &config, end)).await.map_err(Failure::from)
        });
        // A thread that still reads stdin must not keep the process alive.
        runtime.shutdown_background();
        served.map(|()| Exit::Ok)
    }
}

/// Fails at once, rather than at the first request, if a right is missing that the agent cannot do without.
fn check_capabilities() -> Result<(), Failure> {
    let missing: Vec<String> = NEEDED
        .into_iter()
        // An answer that cannot be had is left to the kernel to give.
        .filter(|capability| !caps::has_cap(None, CapSet::Effective, *capability).unwrap_or(true))
        .map(|capability| capability.to_string())
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(Failure::new(Exit::Permission, format!("the agent lacks {}", missing.join(", "))).hint("run it as root"))
}

/// Ends when the process is to end.
fn end(with_stdin: bool) -> io::Result<impl Future<Output = ()> + Send + 'static> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        let stdin_closes = async {
            if with_stdin {
                // An error is an end as well.
                drop(tokio::io::stdin().read_to_end(&mut Vec::new()).await);
            } else {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            () = stdin_closes => {}
        }
    })
}

/// Logs to stderr, by default what an operator wants to know.
pub(super) fn start_log() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(false);
    // A second call in one process changes nothing.
    drop(log.try_init());
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::new(Exit::File, error).hint("netemctl agent --help shows what the file looks like")
    }
}

impl From<ServeError> for Failure {
    fn from(error: ServeError) -> Self {
        match error {
            ServeError::Journal(error) => error.into(),
            ServeError::Taken(_) => Self::new(Exit::Conflict, error),
            ServeError::Socket(_, ref cause) if cause.kind() == io::ErrorKind::PermissionDenied => {
                Self::new(Exit::Permission, error)
            }
            ServeError::Port(_, ref cause) if cause.kind() == io::ErrorKind::PermissionDenied => {
                Self::new(Exit::Permission, error)
            }
            ServeError::Port(_, ref cause) if cause.kind() == io::ErrorKind::AddrInUse => {
                Self::new(Exit::Conflict, error)
            }
            ServeError::Socket(..) | ServeError::Port(..) => Self::new(Exit::Failed, error),
            ServeError::Credentials(_) => {
                Self::new(Exit::File, error).hint("netemctl pki issue makes what [tls] needs, in one folder a node")
            }
            ServeError::Nowhere => {
                Self::new(Exit::File, error).hint("say `socket = \"/path\"` or `listen = \"ADDRESS:PORT\"`")
            }
        }
    }
}

impl From<JournalError> for Failure {
    fn from(error: JournalError) -> Self {
        let hint = error.hint();
        Self::new(Exit::File, error).hint(hint)
    }
}
