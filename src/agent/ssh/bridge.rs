//! `netemctl agent --stdio`: connects the stdin and stdout of an ssh session to the socket of an agent.
//!
//! The host's configuration names the socket. For a host without a configuration, the bridge writes a configuration in
//! [`KeeperFolder`]. If no agent listens on the socket, the bridge starts a keeper: a temporary agent with the same
//! configuration, which exits when it is not needed.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    net::Shutdown,
    os::{
        fd::AsFd,
        unix::{net::UnixStream, process::CommandExt},
    },
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use ipnetwork::IpNetwork;
use nix::{
    sys::{
        signal::{Signal, kill},
        socket::{getsockopt, sockopt::PeerCredentials},
    },
    unistd::Pid,
};
use thiserror::Error;

use super::KeeperFolder;
use crate::{
    agent::{Config, ConfigError, JournalError, Via, journal},
    files::if_exists,
    kernel::{Kernel, Link},
    plan::IfName,
    topology::NodeName,
    wire::GREETING,
};

/// The time limit for a keeper to start listening, or to exit.
const KEEPER_TIMEOUT: Duration = Duration::from_secs(15);

/// The options of `netemctl agent --stdio`, which the caller gives in its ssh command.
#[derive(Debug, Default)]
pub struct BridgeOptions {
    /// The node's name.
    pub node: Option<NodeName>,
    /// The interfaces that may be shaped. Empty if the caller does not know their names.
    pub interfaces: Vec<IfName>,
    /// True if the caller will make a change. The bridge then replaces a keeper that runs with another configuration,
    /// if the caller gives the node's name.
    pub changes: bool,
    /// A network. If exactly one interface has an address in this network, that interface may also be shaped.
    pub network: Option<IpNetwork>,
    /// The caller's connection, as in `SSH_CONNECTION`: address and port of the client, then of this host.
    pub connection: Option<String>,
}

/// The reason why the bridge cannot connect.
#[derive(Debug, Error)]
pub enum BridgeError {
    /// The host has no configuration, the caller gave no node, and the host name is not a valid node name.
    #[error("this host has no {0}, so --node must say which node it is")]
    Unconfigured(PathBuf),
    /// The host's configuration is invalid.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The host's agent has no Unix socket.
    #[error("this host's agent has no `socket` in {0}; add one, or reach it by https")]
    NoSocket(PathBuf),
    /// The host is another node.
    #[error("this host is node {own}, not {asked}: {why}")]
    AnotherNode {
        /// The host's node.
        own: NodeName,
        /// The requested node.
        asked: NodeName,
        /// Where `own` comes from, or why the host keeps this name.
        why: String,
    },
    /// The keeper speaks another version of the protocol.
    #[error("the keeper on this host has an incompatible version; any change by this netemctl replaces it")]
    AnotherWire,
    /// The interface carries the ssh session itself.
    #[error(
        "interface {0} has the address that this ssh session came in by; shaping it would slow down or cut the session; \
         give the database an interface of its own"
    )]
    OwnConnection(IfName),
    /// The keeper's folder is unusable.
    #[error("cannot use {0}: {1}")]
    Folder(PathBuf, #[source] io::Error),
    /// The keeper's journal is unusable.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The keeper cannot be started.
    #[error("cannot start the keeper: {0}")]
    Start(#[source] io::Error),
    /// The keeper exited before it listened.
    #[error("the keeper exited at once ({status})")]
    Ended {
        /// The exit status.
        status: ExitStatus,
        /// The keeper's log.
        log: String,
    },
    /// The keeper does not listen, or does not exit, in time.
    #[error("the keeper (process {0}) does not {1}")]
    Stuck(u32, &'static str),
    /// Stdin, stdout or the socket failed.
    #[error("the connection failed: {0}")]
    Broken(#[source] io::Error),
}

/// The agent to connect to.
struct Agent {
    socket: PathBuf,
    /// The path of the configuration for a new process of this agent.
    config: PathBuf,
    /// The text that the file `config` must have; `None`: `config` is the host's own configuration.
    text: Option<String>,
}

/// Connects stdin and stdout to the agent until one side closes the connection.
///
/// `config`: the path of the host's configuration. `may_start`: checks the capabilities before the bridge starts a
/// keeper.
pub fn bridge<E: From<BridgeError>>(
    folder: &KeeperFolder,
    config: &Path,
    mut options: BridgeOptions,
    kernel: &mut impl Kernel,
    may_start: impl FnOnce() -> Result<(), E>,
) -> Result<(), E> {
    options.interfaces.extend(options.network.and_then(|network| only_interface_in(network, kernel)));
    check_connection(&options, kernel)?;
    let agent = find(folder, config, &options)?;
    let unusable = |error| BridgeError::Folder(folder.path().to_owned(), error);
    let _presence = folder.enter().map_err(unusable)?;
    let starting = folder.starting().map_err(unusable)?;
    if let Some(text) = &agent.text {
        replace(folder, &options, text)?;
    }
    let stream = if let Ok(stream) = UnixStream::connect(&agent.socket) {
        stream
    } else {
        may_start()?;
        start(folder, &agent)?
    };
    drop(starting);
    Ok(join(&stream).map_err(BridgeError::Broken)?)
}

/// The only interface with an address in a network; `None`: none or several have one, or the links cannot be read.
///
/// `None` is not an error here. The controller looks for the interface too, and reports the error.
fn only_interface_in(network: IpNetwork, kernel: &mut impl Kernel) -> Option<IfName> {
    let host = kernel.host().ok()?;
    let is_in = |link: &&Link| link.addresses.iter().any(|own| network.contains(own.ip()));
    let mut fitting = host.links.iter().filter(is_in);
    fitting.next().filter(|_| fitting.next().is_none())?.name.parse().ok()
}

/// Refuses an interface if the caller's connection uses it, or uses a VLAN, bridge or bond on top of it.
fn check_connection(options: &BridgeOptions, kernel: &mut impl Kernel) -> Result<(), BridgeError> {
    let via = options.connection.as_deref().and_then(Via::of_ssh_connection);
    let Some(own) = via.and_then(|via| via.local_address()) else { return Ok(()) };
    // If the links cannot be read, the agent cannot shape this host either.
    let Ok(host) = kernel.host() else { return Ok(()) };
    let carries = |link: &Link| host.carried_by(link.index).iter().any(|above| above.has(own));
    let link = |name: &&IfName| host.links.iter().find(|link| link.name == name.as_str());
    match options.interfaces.iter().find(|name| link(name).is_some_and(carries)) {
        Some(name) => Err(BridgeError::OwnConnection(name.clone())),
        None => Ok(()),
    }
}

/// Finds the agent to connect to: the agent of the host's configuration, or a keeper.
fn find(folder: &KeeperFolder, config: &Path, options: &BridgeOptions) -> Result<Agent, BridgeError> {
    if config.exists() {
        let Config { node: own, socket, .. } = Config::read(config)?;
        if let Some(asked) = options.node.clone().filter(|asked| *asked != own) {
            return Err(BridgeError::AnotherNode { own, asked, why: format!("see {}", config.display()) });
        }
        let socket = socket.ok_or_else(|| BridgeError::NoSocket(config.to_owned()))?;
        return Ok(Agent { socket, config: config.to_owned(), text: None });
    }
    let node = match &options.node {
        Some(node) => node.clone(),
        None => host_name().ok_or_else(|| BridgeError::Unconfigured(config.to_owned()))?,
    };
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let interfaces: Vec<_> = options.interfaces.iter().map(|interface| quoted(interface.as_str())).collect();
    // The first line has the version of the protocol, not of netemctl, so compatible builds write the same text.
    let text = format!(
        "# {GREETING}: config of the agent that ssh started. It is removed when the node is clear.\n\
         node = {}\ninterfaces = [{}]\nsocket = {}\njournal = {}\n",
        quoted(node.as_str()),
        interfaces.join(", "),
        quoted(&folder.socket().to_string_lossy()),
        quoted(&folder.journal().to_string_lossy()),
    );
    Ok(Agent { socket: folder.socket(), config: folder.config(), text: Some(text) })
}

/// The first label of the host name, which is the node's name if the caller gives no name.
pub(in crate::agent) fn host_name() -> Option<NodeName> {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    name.trim().split('.').next()?.parse().ok()
}

/// Writes `text` as the keeper's configuration, and ends a keeper that runs with another configuration.
///
/// Configurations differ if, for example, the interface or the protocol differs. The next keeper continues from the
/// journal of the keeper that ends. For a caller that makes no change, or gives no node, a running keeper with a
/// configuration stays. If its protocol or its node does not fit, the caller gets an error.
fn replace(folder: &KeeperFolder, options: &BridgeOptions, text: &str) -> Result<(), BridgeError> {
    let unusable = |error| BridgeError::Folder(folder.path().to_owned(), error);
    let before = if_exists(fs::read_to_string(folder.config())).map_err(unusable)?;
    if before.as_deref() == Some(text) {
        return Ok(());
    }
    let running = UnixStream::connect(folder.socket()).ok();
    // The journal is read before the keeper is ended. If the journal is unreadable, the keeper must stay: no other
    // process can end its timed changes.
    let entry = journal::read(&folder.journal())?;
    let is_clear = entry.is_none_or(|entry| entry.is_clear());
    let only_asks = !options.changes || options.node.is_none();
    let stays = before.is_some() && only_asks && (running.is_some() || options.node.is_none());
    let head = |text: &str| text.lines().next().map(ToOwned::to_owned);
    if stays && running.is_some() && before.as_deref().and_then(head) != head(text) {
        return Err(BridgeError::AnotherWire);
    }
    let own = before.map(|_| Config::read(&folder.config())).transpose()?.map(|config| config.node);
    let other = own.filter(|own| options.node.as_ref().is_some_and(|asked| asked != own));
    if let (Some(own), Some(asked)) = (&other, &options.node)
        && (stays || !is_clear)
    {
        let why = if is_clear {
            "its keeper has this name, and exits after 10 s without a request"
        } else {
            "rules are in force under this name; run netemctl clear with this name first"
        };
        return Err(BridgeError::AnotherNode { own: own.clone(), asked: asked.clone(), why: why.to_owned() });
    }
    if stays {
        return Ok(());
    }
    if let Some(running) = running {
        end(folder, &running)?;
    }
    if other.is_some() {
        // The journal is clear and belongs to the other node.
        if_exists(fs::remove_file(folder.journal())).map_err(unusable)?;
    }
    // The write is atomic, because this process may be killed during the write.
    let new = folder.path().join("agent.toml.new");
    fs::write(&new, text).and_then(|()| fs::rename(&new, folder.config())).map_err(unusable)
}

/// Ends the keeper and waits for its exit.
fn end(folder: &KeeperFolder, running: &UnixStream) -> Result<(), BridgeError> {
    let pid = getsockopt(running, PeerCredentials).map_err(|errno| BridgeError::Broken(errno.into()))?.pid();
    // The keeper may have exited already.
    let _gone = kill(Pid::from_raw(pid), Signal::SIGTERM);
    let deadline = Instant::now() + KEEPER_TIMEOUT;
    while folder.is_kept() {
        if Instant::now() > deadline {
            return Err(BridgeError::Stuck(pid.cast_unsigned(), "exit"));
        }
        thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// Starts a keeper without the stdin, stdout, environment and working folder of the session.
///
/// Otherwise ssh would wait for the keeper's exit, because the keeper would hold the session's stdin and stdout.
#[expect(clippy::disallowed_methods, reason = "the keeper outlives this process")]
fn start(folder: &KeeperFolder, agent: &Agent) -> Result<UnixStream, BridgeError> {
    let path = folder.log();
    let log = File::create(&path).map_err(|error| BridgeError::Folder(path, error))?;
    let mut command = Command::new("/proc/self/exe");
    command.arg0("netemctl").args(["agent", "--config"]).arg(&agent.config).arg("--keeper").arg(folder.path());
    command.env_clear().current_dir("/").stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    let mut keeper = command.spawn().map_err(BridgeError::Start)?;
    let deadline = Instant::now() + KEEPER_TIMEOUT;
    loop {
        if let Ok(stream) = UnixStream::connect(&agent.socket) {
            return Ok(stream);
        }
        if let Ok(Some(status)) = keeper.try_wait() {
            let log = fs::read_to_string(folder.log()).unwrap_or_default();
            return Err(BridgeError::Ended { status, log });
        }
        if Instant::now() > deadline {
            // No bridge can use a keeper that does not listen.
            drop(keeper.kill());
            return Err(BridgeError::Stuck(keeper.id(), "listen"));
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// Copies bytes in both directions until one direction ends.
fn join(stream: &UnixStream) -> io::Result<()> {
    let stdin = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    let mut stdout = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    writeln!(stdout, "{GREETING}{}", env!("CARGO_PKG_VERSION"))?;
    let (tell, told) = mpsc::channel();
    let (requests, answers) = (stream.try_clone()?, stream.try_clone()?);
    let tell_too = tell.clone();
    thread::spawn(move || drop(tell.send(copy(stdin, requests))));
    thread::spawn(move || drop(tell_too.send(copy(answers, stdout))));
    let ended = told.recv().unwrap_or(Ok(()));
    drop(stream.shutdown(Shutdown::Both));
    ended
}

/// Copies bytes as soon as they are read. `io::copy` may wait for more bytes.
fn copy(mut from: impl Read, mut to: impl Write) -> io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(read) => to.write_all(&buffer[..read])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
