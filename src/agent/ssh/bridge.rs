//! `netemctl agent --stdio`: stdin and stdout, which ssh brought here, joined to the socket of this host's agent, or else
//! of a keeper, which is started if none is there.

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

use super::keeper::{FolderLock, KeeperFolder};
use crate::{
    agent::{Config, ConfigError, JournalError, Via, journal},
    kernel::{Kernel, Link},
    plan::IfName,
    topology::NodeName,
    wire::GREETING,
};

/// How long a keeper may take to listen, or to end.
const PATIENCE: Duration = Duration::from_secs(15);

/// What the options asks this host to be.
#[derive(Debug, Default)]
pub struct BridgeOptions {
    /// Which node.
    pub node: Option<NodeName>,
    /// What may be shaped; no other interface is ever touched. None, if the options does not know it.
    pub interfaces: Vec<IfName>,
    /// Whether something is to be changed. A keeper that cannot make the change is replaced; a question replaces none.
    pub changes: bool,
    /// The same by the network that the interface has an address in, if there is one such interface.
    pub network: Option<IpNetwork>,
    /// The connection that the options came by, as sshd has it in `SSH_CONNECTION`: address and port of the client, then
    /// of this host.
    pub connection: Option<String>,
}

/// Why stdin and stdout lead nowhere.
#[derive(Debug, Error)]
pub enum BridgeError {
    /// The host has no configuration, and the options does not say what it needs.
    #[error("this host has no {0}, so --node must say which node it is")]
    Unconfigured(PathBuf),
    /// The host's configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// An agent that listens for TLS only.
    #[error("this host's agent has no `socket` in {0}; add one, or reach it by https")]
    NoSocket(PathBuf),
    /// Another name.
    #[error("this host is node {own} by {by}, not {asked}")]
    AnotherNode {
        /// What it is.
        own: NodeName,
        /// What it was to be.
        asked: NodeName,
        /// What says so.
        by: String,
    },
    /// A keeper that speaks otherwise.
    #[error("the keeper there is of a netemctl with which this one cannot talk; a change by this one replaces it")]
    AnotherWire,
    /// The guard.
    #[error(
        "interface {0} has the address that this ssh session came in by; shaping it would slow down or cut the session; \
         give the database an interface of its own"
    )]
    OwnConnection(IfName),
    /// The folder.
    #[error("cannot use {0}: {1}")]
    Folder(PathBuf, #[source] io::Error),
    /// What is in force.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// It cannot be started.
    #[error("cannot start the keeper: {0}")]
    Start(#[source] io::Error),
    /// It ended at once.
    #[error("the keeper ended at once ({status})")]
    Ended {
        /// How.
        status: ExitStatus,
        /// What it said.
        log: String,
    },
    /// It does not listen, or does not end.
    #[error("the keeper (process {0}) does not {1}")]
    Stuck(u32, &'static str),
    /// Stdin, stdout or the socket.
    #[error("the connection failed: {0}")]
    Broken(#[source] io::Error),
}

/// Which agent there is to be.
struct Agent {
    /// Where it listens.
    socket: PathBuf,
    /// The configuration to start a keeper with.
    config: PathBuf,
    /// That configuration, if it is the keeper's own and not the host's.
    text: Option<String>,
}

/// Joins stdin and stdout to the agent, until one of them ends. `config` is the host's own configuration, if there is
/// one. Before a keeper is started, `may_start` says whether it could do anything.
pub fn bridge<E: From<BridgeError>>(
    folder: &KeeperFolder,
    config: &Path,
    mut options: BridgeOptions,
    kernel: &mut impl Kernel,
    may_start: impl FnOnce() -> Result<(), E>,
) -> Result<(), E> {
    options.interfaces.extend(options.network.and_then(|network| the_one_in(network, kernel)));
    check_connection(&options, kernel)?;
    let agent = find(folder, config, &options)?;
    let unusable = |error| BridgeError::Folder(folder.path().to_owned(), error);
    // Held to the end.
    let _presence: FolderLock = folder.enter().map_err(unusable)?;
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

/// The interface that has an address in a network. Whether there is one, and only one, is the controller's to say, who
/// asks for all of them.
fn the_one_in(network: IpNetwork, kernel: &mut impl Kernel) -> Option<IfName> {
    let host = kernel.host().ok()?;
    let is_in = |link: &&Link| link.addresses.iter().any(|own| network.contains(own.ip()));
    let mut fitting = host.links.iter().filter(is_in);
    fitting.next().filter(|_| fitting.next().is_none())?.name.parse().ok()
}

/// Never the interface that the options's connection came in by, be it by what lies on it.
fn check_connection(options: &BridgeOptions, kernel: &mut impl Kernel) -> Result<(), BridgeError> {
    let via = options.connection.as_deref().and_then(Via::of_ssh_connection);
    let Some(own) = via.and_then(|via| via.local_address()) else { return Ok(()) };
    // A host that cannot be looked at shapes nothing either.
    let Ok(host) = kernel.host() else { return Ok(()) };
    let carries = |link: &Link| host.carried_by(link.index).iter().any(|above| above.has(own));
    let link = |name: &&IfName| host.links.iter().find(|link| link.name == name.as_str());
    match options.interfaces.iter().find(|name| link(name).is_some_and(carries)) {
        Some(name) => Err(BridgeError::OwnConnection(name.clone())),
        None => Ok(()),
    }
}

/// The agent that the host's configuration has, or a keeper for the options.
fn find(folder: &KeeperFolder, config: &Path, options: &BridgeOptions) -> Result<Agent, BridgeError> {
    if config.exists() {
        let Config { node: own, socket, .. } = Config::read(config)?;
        if let Some(asked) = options.node.clone().filter(|asked| *asked != own) {
            return Err(BridgeError::AnotherNode { own, asked, by: format!("its {}", config.display()) });
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
    // The first line tells a netemctl with which the keeper cannot talk; builds that speak alike share it.
    let text = format!(
        "# {GREETING}: that of the agent that ssh started. It goes when nothing is in force any more.\n\
         node = {}\ninterfaces = [{}]\nsocket = {}\njournal = {}\n",
        quoted(node.as_str()),
        interfaces.join(", "),
        quoted(&folder.socket().to_string_lossy()),
        quoted(&folder.journal().to_string_lossy()),
    );
    Ok(Agent { socket: folder.socket(), config: folder.config(), text: Some(text) })
}

/// What a host calls itself, for those who ask before it has a name as a node.
fn host_name() -> Option<NodeName> {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    name.trim().split('.').next()?.parse().ok()
}

/// Sees to it that the configuration of a keeper is this one, and that one with another (another interface, another way to
/// talk) has ended: the next one goes on from its journal. Who only asks has what is there answer, if it can.
fn replace(folder: &KeeperFolder, options: &BridgeOptions, text: &str) -> Result<(), BridgeError> {
    let unusable = |error| BridgeError::Folder(folder.path().to_owned(), error);
    let before = match fs::read_to_string(folder.config()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        before => Some(before.map_err(unusable)?),
    };
    if before.as_deref() == Some(text) {
        return Ok(());
    }
    let running = UnixStream::connect(folder.socket()).ok();
    // Before anything ends that knows when something is over.
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
        let by = if is_clear {
            "its keeper, which ends when nobody has asked for 10 s"
        } else {
            "what is in force (netemctl clear by that name ends that)"
        };
        return Err(BridgeError::AnotherNode { own: own.clone(), asked: asked.clone(), by: by.to_owned() });
    }
    if stays {
        return Ok(());
    }
    if let Some(running) = running {
        end(folder, &running)?;
    }
    if other.is_some() {
        // It has the other name, and says nothing.
        match fs::remove_file(folder.journal()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(unusable(error)),
            _ => {}
        }
    }
    // Whole at any time, as this process may be killed.
    let new = folder.path().join("agent.toml.new");
    fs::write(&new, text).and_then(|()| fs::rename(&new, folder.config())).map_err(unusable)
}

/// Ends the keeper at the other end of the connection.
fn end(folder: &KeeperFolder, running: &UnixStream) -> Result<(), BridgeError> {
    let pid = getsockopt(running, PeerCredentials).map_err(|errno| BridgeError::Broken(errno.into()))?.pid();
    // It may have ended at this very moment.
    let _gone = kill(Pid::from_raw(pid), Signal::SIGTERM);
    let deadline = Instant::now() + PATIENCE;
    while folder.is_kept() {
        if Instant::now() > deadline {
            return Err(BridgeError::Stuck(pid.cast_unsigned(), "end"));
        }
        thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// Starts a keeper that has nothing of this session: neither its stdin and stdout, which ssh waits for, nor its
/// environment, its folder or, as it sees to itself, its session.
#[expect(clippy::disallowed_methods, reason = "the keeper is a process of its own, which outlives this one")]
fn start(folder: &KeeperFolder, agent: &Agent) -> Result<UnixStream, BridgeError> {
    let path = folder.log();
    let log = File::create(&path).map_err(|error| BridgeError::Folder(path, error))?;
    let spawn = || -> io::Result<std::process::Child> {
        Command::new("/proc/self/exe")
            .arg0("netemctl")
            .args(["agent", "--config"])
            .arg(&agent.config)
            .arg("--keeper")
            .arg(folder.path())
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
    };
    let mut keeper = spawn().map_err(BridgeError::Start)?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Ok(stream) = UnixStream::connect(&agent.socket) {
            return Ok(stream);
        }
        if let Ok(Some(status)) = keeper.try_wait() {
            let log = fs::read_to_string(folder.log()).unwrap_or_default();
            return Err(BridgeError::Ended { status, log });
        }
        if Instant::now() > deadline {
            // Nobody would know of it.
            drop(keeper.kill());
            return Err(BridgeError::Stuck(keeper.id(), "listen"));
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// Carries bytes both ways until one way ends: then the session is over, as nobody is left to ask or to answer.
fn join(stream: &UnixStream) -> io::Result<()> {
    let stdin = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    let mut stdout = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    writeln!(stdout, "{GREETING}{}", env!("CARGO_PKG_VERSION"))?;
    let (tell, told) = mpsc::channel();
    let (requests, answers) = (stream.try_clone()?, stream.try_clone()?);
    let tell_too = tell.clone();
    thread::spawn(move || drop(tell.send(carry(stdin, requests))));
    thread::spawn(move || drop(tell_too.send(carry(answers, stdout))));
    let ended = told.recv().unwrap_or(Ok(()));
    drop(stream.shutdown(Shutdown::Both));
    ended
}

/// Carries what there is at once: `io::copy` may wait for more.
fn carry(mut from: impl Read, mut to: impl Write) -> io::Result<()> {
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
