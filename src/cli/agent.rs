//! `netemctl agent`: runs the agent of a node.

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use caps::CapSet;
use ipnetwork::IpNetwork;
use nix::net::if_::{if_nameindex, if_nametoindex};
use serde::Serialize;

use super::{
    Context, Exit, Failure, OrFail, log,
    running::{interrupted, runtime},
};
use crate::{
    agent::{
        BridgeError, BridgeOptions, Config, ConfigError, JournalError, KeeperFolder, Limits, Node, Now, ServeError,
        bridge, keep, serve,
    },
    kernel::{Rtnl, facts::NEEDED_CAPABILITIES},
    plan::IfName,
    topology::NodeName,
};

/// Run the agent of a node
///
/// The agent shapes only the interfaces in its config. SIGTERM and SIGINT end it and leave the kernel as it is. When
/// the agent starts again, it restores the state in its journal and ends changes whose time is over.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
The config file:
  node = \"n1\"                            # the name of this node
  interfaces = [\"eno2\"]                  # the interfaces to shape
  socket = \"/run/netemctl/agent.sock\"    # local API; mode 0600
  socket-group = \"netemctl\"              # group with access; mode 0660
  listen = \"10.0.0.7:20094\"              # API for controllers, by TLS
  journal = \"/var/lib/netemctl/n1.json\"  # the state for restarts
  allow = []                             # or some of default-route,
                                         # controller, bridge, gateway
  after-reboot = \"restore\"               # or clear
  on-drift = \"report\"                    # or repair
  [tls]                                  # made by netemctl pki issue
  ca = \"/etc/netemctl/tls/ca.pem\"        # CA of the controllers
  cert = \"/etc/netemctl/tls/cert.pem\"    # read again when replaced
  key = \"/etc/netemctl/tls/key.pem\"      # mode 0600

Give at least one of socket and listen.
Without [tls], listen must be a loopback address.

The agent needs CAP_NET_ADMIN to shape, and CAP_NET_RAW to measure and to reject.
The dry run needs user namespaces or CAP_SYS_ADMIN.

Over ssh, netemctl runs --stdio on hosts without a daemon. It starts a process that keeps the state
and ends when nothing is in force or scheduled. The config in /etc/netemctl/agent.toml, if there is
one, takes precedence over the options.

RUST_LOG sets the log level on stderr: error, warn, info (default), debug.")]
#[expect(clippy::struct_excessive_bools, reason = "each is an option of the command line")]
pub(super) struct Agent {
    /// Config file of the agent
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Check the config and exit
    #[arg(long, requires = "config")]
    check: bool,

    /// Connect stdin and stdout to this host's agent
    ///
    /// Starts an agent if there is none.
    #[arg(long, conflicts_with = "config")]
    stdio: bool,

    /// Node name for a host without a config
    #[arg(long, requires = "stdio")]
    node: Option<NodeName>,

    /// Interface for a host without a config
    #[arg(long, value_name = "INTERFACE", requires = "stdio")]
    interface: Vec<IfName>,

    /// Shape the interface with an address in NETWORK
    #[arg(long, value_name = "NETWORK", requires = "stdio", conflicts_with = "interface")]
    network: Option<IpNetwork>,

    /// Replace a keeper that cannot make changes
    #[arg(long, requires = "stdio", hide = true)]
    change: bool,

    /// The caller's connection, as sshd has it in `SSH_CONNECTION`
    #[arg(long, value_name = "CONNECTION", requires = "stdio", hide = true)]
    from: Option<String>,

    /// Run as the keeper that --stdio starts, with its state in this folder
    #[arg(long, value_name = "FOLDER", hide = true)]
    keeper: Option<PathBuf>,

    /// End when stdin is closed
    #[arg(long, hide = true)]
    until_stdin_closes: bool,

    /// Log to this file of bounded size instead of stderr
    #[arg(long, value_name = "FILE", hide = true)]
    log: Option<PathBuf>,
}

/// The host's own config file.
///
/// Its settings take precedence over the options of a caller.
pub(super) const HOST_CONFIG: &str = "/etc/netemctl/agent.toml";

impl Agent {
    pub(super) fn run(self, context: &Context) -> Result<Exit, Failure> {
        let config = match self.config {
            Some(config) => config,
            None if self.stdio => return self.run_stdio(),
            None => return Err(Failure::new(Exit::Usage, "give --config FILE or --stdio")),
        };
        if self.check {
            return check(context, &config);
        }
        // Without a new name, ps(1) and top(1) show "exe" for a process that was started as /proc/self/exe.
        let _cosmetic = nix::sys::prctl::set_name(c"netemctl");
        // A session of its own lets the keeper outlive the session of its caller.
        let keeper = self.keeper.map(KeeperFolder::at);
        if keeper.is_some() {
            let _already = nix::unistd::setsid();
        }
        match &self.log {
            Some(file) => log::to_file(file).or_fail(Exit::Failed, file.display())?,
            None => log::to_stderr(),
        }
        let config = Config { is_keeper: keeper.is_some(), ..Config::read(&config)? };
        for interface in absent(&config) {
            tracing::warn!("the config names interface {interface}, which does not exist; {}", existing());
        }
        check_capabilities("run it as root, or as packaging/systemd does")?;
        let kernel = open_kernel()?;
        // A previous keeper may still be exiting. Its journal is complete only after the exit.
        let sole = keeper.as_ref().map(KeeperFolder::sole).transpose();
        let _sole = sole.or_fail(Exit::Failed, "cannot lock the keeper's folder")?;
        let runtime = runtime()?;
        let served = runtime.block_on(async {
            let end = end(self.until_stdin_closes)?;
            let node = Node::open(config.clone(), kernel, Now::read())?;
            let served = match keeper {
                Some(folder) => Box::pin(keep(node, &config, folder, end)).await,
                None => Box::pin(serve(Limits::default(), node, &config, end)).await,
            };
            served.map_err(Failure::from)
        });
        // A thread that still reads stdin must not keep the process alive.
        runtime.shutdown_background();
        served.map(|()| Exit::Ok)
    }

    /// Runs `agent --stdio`, which ssh starts on a host: connects stdin and stdout to the host's agent.
    fn run_stdio(self) -> Result<Exit, Failure> {
        let Self { node, interface: interfaces, network, change: changes, from: connection, .. } = self;
        let caller = BridgeOptions { node, interfaces, changes, network, connection };
        let as_root = "let netemctl run the agent by --ssh-sudo, or log in as root";
        let denied = |error: io::Error| Failure::new(Exit::Permission, error).hint(as_root);
        let folder = KeeperFolder::of_this_network().map_err(denied)?;
        bridge(&folder, Path::new(HOST_CONFIG), caller, &mut open_kernel()?, || check_capabilities(as_root))?;
        Ok(Exit::Ok)
    }
}

/// The document of `agent --check`: the settings of a valid config.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "AgentCheck"))]
pub(super) struct Checked<'a> {
    file: String,
    node: &'a NodeName,
    interfaces: &'a [IfName],
    /// The interfaces of the config that do not exist on this machine now.
    absent: Vec<&'a IfName>,
    socket: Option<&'a Path>,
    listen: Option<SocketAddr>,
    journal: Option<&'a Path>,
}

/// Checks a config file and prints its settings.
fn check(context: &Context, path: &Path) -> Result<Exit, Failure> {
    let config = Config::read(path)?;
    let checked = Checked {
        file: path.display().to_string(),
        node: &config.node,
        interfaces: &config.interfaces,
        absent: absent(&config),
        socket: config.socket.as_deref(),
        listen: config.listen,
        journal: config.journal.as_deref(),
    };
    context.answer(&checked, || {
        let Checked { file, node, interfaces, absent, socket, listen, journal } = &checked;
        let names = |names: &[IfName]| names.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let socket = socket.map(|path| format!("socket {}", path.display()));
        let places = [socket, listen.map(|listen| format!("port {listen}"))].into_iter().flatten().collect::<Vec<_>>();
        let journal = journal.map_or_else(|| "none".to_owned(), |path| path.display().to_string());
        let mut text = format!("{file}: ok\n  node: {node}\n  shapes: {}\n", names(interfaces));
        text += &format!("  listens on: {}\n  journal: {journal}\n", places.join(", "));
        for interface in absent {
            text += &format!("warning: interface {interface} does not exist; {}\n", existing());
        }
        text
    })
}

/// The interfaces of a config that do not exist on this machine now.
fn absent(config: &Config) -> Vec<&IfName> {
    config.interfaces.iter().filter(|interface| if_nametoindex(interface.as_str()).is_err()).collect()
}

/// A clause for warnings, with the names of this machine's interfaces.
fn existing() -> String {
    let all = if_nameindex().ok();
    let names: Vec<_> = all.iter().flatten().map(|interface| interface.name().to_string_lossy().into_owned()).collect();
    format!("this machine has {}", names.join(", "))
}

fn open_kernel() -> Result<Rtnl, Failure> {
    Rtnl::open().or_fail(Exit::Failed, "netlink")
}

/// Fails if the agent lacks a capability that it needs.
///
/// `hint` tells the user how to grant the capability. Without this check, the agent would start, and its first request
/// would fail.
fn check_capabilities(hint: &str) -> Result<(), Failure> {
    let missing: Vec<String> = NEEDED_CAPABILITIES
        .into_iter()
        // If the capabilities cannot be read, a later call fails in the kernel.
        .filter(|capability| !caps::has_cap(None, CapSet::Effective, *capability).unwrap_or(true))
        .map(|capability| capability.to_string())
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(Failure::new(Exit::Permission, format!("the agent lacks {}", missing.join(", "))).hint(hint))
}

/// A future that completes on SIGTERM or SIGINT; if `with_stdin` is set, also when stdin closes.
fn end(with_stdin: bool) -> Result<impl Future<Output = ()> + Send + 'static, Failure> {
    let interrupted = interrupted()?;
    let stdin_closes = async move {
        if with_stdin {
            // A read error counts as the end of stdin.
            drop(tokio::io::copy(&mut tokio::io::stdin(), &mut tokio::io::sink()).await);
        } else {
            std::future::pending::<()>().await;
        }
    };
    Ok(async move {
        tokio::select! {
            () = interrupted => {}
            () = stdin_closes => {}
        }
    })
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        match error {
            ConfigError::Malformed(rejected) => (*rejected).into(),
            ConfigError::Unreadable(..) => Self::new(Exit::File, error).hint("see the format: netemctl agent --help"),
        }
    }
}

impl From<ServeError> for Failure {
    fn from(error: ServeError) -> Self {
        let (exit, hint) = match error {
            ServeError::Journal(error) => return error.into(),
            ServeError::Group(..) => (Exit::File, Some("the agent must be a member of that group, or root")),
            ServeError::NotASocket(_) => (Exit::File, Some("give `socket` a path of its own, or remove the file")),
            ServeError::Credentials(_) => {
                (Exit::File, Some("netemctl pki issue makes what [tls] needs, in one folder a node"))
            }
            ServeError::Taken(_) => (Exit::Conflict, None),
            ServeError::Port(_, ref cause) if cause.kind() == io::ErrorKind::AddrInUse => (Exit::Conflict, None),
            ServeError::Socket(_, ref cause) | ServeError::Port(_, ref cause) => (Exit::of_io(cause), None),
            ServeError::Folder(..) | ServeError::Claim(_) | ServeError::Timer(_) => (Exit::Failed, None),
        };
        hint.into_iter().fold(Self::new(exit, error), Self::hint)
    }
}

impl From<JournalError> for Failure {
    fn from(error: JournalError) -> Self {
        let exit = match &error {
            JournalError::InUse(_) | JournalError::InterfaceInUse(_) => Exit::Conflict,
            JournalError::Unclaimed(..) => Exit::Failed,
            // `Exit::Failed` lets systemd restart the agent. By then, the disk may have space or may be mounted.
            JournalError::Unreadable(_, cause) | JournalError::Unwritable(_, cause) => match cause.kind() {
                io::ErrorKind::IsADirectory | io::ErrorKind::NotADirectory => Exit::File,
                _ => Exit::of_io(cause),
            },
            JournalError::Malformed(..)
            | JournalError::Older(..)
            | JournalError::Newer(..)
            | JournalError::Another(..) => Exit::File,
        };
        Self::new(exit, &error).hint(error.hint())
    }
}

impl From<BridgeError> for Failure {
    fn from(error: BridgeError) -> Self {
        let exit = match error {
            BridgeError::Config(error) => return error.into(),
            BridgeError::Journal(error) => return error.into(),
            BridgeError::Ended { status, ref log } => return Self::from_log(Exit::of_netemctl(status), log, &error),
            BridgeError::Unconfigured(_) => Exit::Usage,
            BridgeError::AnotherWire => Exit::Conflict,
            BridgeError::NoSocket(_) | BridgeError::AnotherNode { .. } | BridgeError::OwnConnection(_) => Exit::Refused,
            BridgeError::Folder(_, ref cause) => Exit::of_io(cause),
            BridgeError::Start(_) | BridgeError::Stuck(..) | BridgeError::Broken(_) => Exit::Failed,
        };
        Self::new(exit, error)
    }
}
