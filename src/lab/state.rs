//! What other processes know of a lab: its directory, whether its keeper lives, where its namespaces are.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
    sys::signal::{Signal, kill},
    unistd::{Pid, geteuid, getuid},
};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{
    CONTROLLER, EndedProgram, Layout, Program,
    control::{self, ControlError},
    layout::{certificates, node_directory},
    programs::{Census, described},
};
use crate::{
    kernel::Namespaces,
    pki::Role,
    plan::Inventory,
    topology::{NodeName, hostlist},
};

/// How long a keeper may take to end.
const END_WITHIN: Duration = Duration::from_secs(10);

/// How long a command waits for another one that is at work on the lab.
const ACCESS_WITHIN: Duration = Duration::from_secs(20);

/// What the longest path below a lab's directory adds to it: `/nodes/<63 bytes>/agent.sock`.
const LONGEST_SUFFIX: usize = 7 + 63 + 11;

/// The longest path of a Unix socket (`sun_path`, less its NUL).
const LONGEST_SOCKET: usize = 107;

/// The folder that one lab lives in.
#[derive(Clone, Debug)]
pub struct LabDirectory(PathBuf);

/// What the keeper writes down once everything is up.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// The keeper.
    pub keeper: i32,
    /// The threads of the keeper that are in the nodes' namespaces.
    pub threads: BTreeMap<NodeName, i32>,
    /// The one that is in those of the controller host, if there is one.
    #[serde(default)]
    pub controller: Option<i32>,
    /// The numbers of the network namespaces of all of them.
    #[serde(default)]
    pub networks: BTreeMap<NodeName, u64>,
    /// What the lab consists of.
    pub layout: Layout,
}

/// What taking a lab down came to.
#[derive(Debug, Default)]
pub struct Ended {
    /// Whether a lab was up.
    pub was_up: bool,
    /// The programs in its nodes that were ended.
    pub programs: Vec<EndedProgram>,
    /// Those that the calling process comes from, which go on without a network.
    pub left: Vec<Program>,
}

/// A lab that is up.
#[derive(Debug)]
pub struct Lab {
    directory: LabDirectory,
    /// What its keeper wrote down.
    pub state: State,
}

/// Why there is no lab, or not that one.
#[derive(Debug, Error)]
pub enum LabError {
    /// None is up.
    #[error("no lab is up")]
    Down,
    /// One is up or coming up.
    #[error("a lab is up already, of topology {0}")]
    Up(String),
    /// One is coming up or ending at this moment.
    #[error("another command is using the lab; retry in a moment")]
    Busy,
    /// The keeper does not end.
    #[error("the lab's keeper (process {0}) does not end")]
    Stuck(i32),
    /// The processes of the machine could not be looked at, or not be ended.
    #[error("{0}")]
    Processes(#[source] io::Error),
    /// The way into a node is closed.
    #[error("cannot enter {node}: {error}")]
    Namespaces {
        /// The node.
        node: NodeName,
        /// Why.
        #[source]
        error: io::Error,
    },
    /// Programs run in its nodes.
    #[error("programs run in the lab: {0}; nothing was changed")]
    InUse(String),
    /// Programs of a lab that was killed still run.
    #[error("programs of a lab whose keeper was killed still run: {0}")]
    Orphans(String),
    /// Programs do not end, even if they are killed.
    #[error("programs still run after SIGKILL: {0}")]
    Immortal(String),
    /// The keeper did not do what it was asked.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// A word is no hostlist.
    #[error(transparent)]
    Hostlist(#[from] hostlist::HostlistError),
    /// Its directory is of no use.
    #[error("{path}: {error}")]
    Directory {
        /// The path.
        path: PathBuf,
        /// Why.
        #[source]
        error: io::Error,
    },
    /// The directory has something else in it, which is not ours to remove.
    #[error("{0} is neither empty nor the directory of a lab; nothing was changed")]
    NotALab(PathBuf),
    /// There is something else in its place.
    #[error("{0} is not a directory")]
    NotADirectory(PathBuf),
    /// The directory belongs to somebody else, who could have it lead anywhere.
    #[error("the lab directory {path} belongs to another user ({owner})")]
    NotOurs {
        /// The directory.
        path: PathBuf,
        /// Its owner.
        owner: u32,
    },
    /// Others may change what is in the directory.
    #[error("other users may write to the lab directory {0}; run: chmod go-w {0}")]
    Open(PathBuf),
    /// Sockets in that directory would have paths that are too long.
    #[error("{0} is too long for the path of a socket; choose a shorter one with --lab-dir")]
    TooLong(PathBuf),
    /// It has no controller host.
    #[error("the lab has no controller host")]
    NoController,
    /// No node has the name.
    #[error("the lab has no node `{node}`; its nodes are {known}")]
    NoNode {
        /// What was asked for.
        node: String,
        /// What there is.
        known: String,
    },
}

impl LabDirectory {
    /// The directory of the calling user's lab: `NETEMCTL_LAB_DIR`, or one that a reboot takes away.
    pub fn of_user(chosen: Option<PathBuf>) -> Result<Self, LabError> {
        let default = || {
            let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|path| path.is_absolute());
            match runtime {
                // Not below /run/netemctl: systemd deletes that folder when the agent's service stops.
                _ if getuid().is_root() => PathBuf::from("/run/netemctl-lab"),
                Some(runtime) => runtime.join("netemctl/lab"),
                None => std::env::temp_dir().join(format!("netemctl-{}/lab", getuid())),
            }
        };
        let path = chosen.unwrap_or_else(default);
        let path = std::path::absolute(&path).map_err(|error| LabError::Directory { path, error })?;
        if path.as_os_str().len() + LONGEST_SUFFIX > LONGEST_SOCKET {
            return Err(LabError::TooLong(path));
        }
        Ok(Self(path))
    }

    /// The path.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// What is written by the keeper as it comes up.
    pub fn log(&self) -> PathBuf {
        self.0.join("keeper.log")
    }

    /// Makes the directory, for the user alone, and empties it of what a lab that was killed left there.
    ///
    /// As long as the answer lives, nobody else can do this or [`end`](Self::end) the lab.
    pub fn prepare(&self) -> Result<Flock<File>, LabError> {
        self.create()?;
        let exclusive = self.exclusive()?;
        match self.find() {
            Ok(lab) => return Err(LabError::Up(lab.state.layout.topology)),
            Err(LabError::Down) => {}
            Err(error) => return Err(error),
        }
        if let Some(state) = self.last_state() {
            let orphans = Census::of(&self.0, &state, false).programs()?;
            if !orphans.is_empty() {
                return Err(LabError::Orphans(described(&orphans)));
            }
        }
        self.empty()?;
        Ok(exclusive)
    }

    /// The right to start programs in the nodes. As long as the answer lives, nobody ends the lab or restarts a node.
    pub fn enter(&self) -> Result<Flock<File>, LabError> {
        if !self.check()? {
            return Err(LabError::Down);
        }
        self.access(FlockArg::LockSharedNonblock)
    }

    /// Takes the lock that says that the lab is alive. It is free again when the process ends, however it ends.
    pub fn lock(&self) -> Result<Flock<File>, LabError> {
        let open = OpenOptions::new().write(true).create(true).truncate(false).open(self.lock_file());
        let file = open.map_err(|error| self.failed(error))?;
        Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, _)| LabError::Busy)
    }

    /// The lab that is up, if one is.
    pub fn find(&self) -> Result<Lab, LabError> {
        if !self.check()? || !self.is_locked()? {
            return Err(LabError::Down);
        }
        let state =
            fs::read(self.state_file()).and_then(|text| serde_json::from_slice(&text).map_err(io::Error::other));
        match state {
            Ok(state) => Ok(Lab { directory: self.clone(), state }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(LabError::Busy),
            Err(error) => Err(self.failed(error)),
        }
    }

    /// Writes down what is up; from now on other processes see it.
    pub fn publish(&self, state: &State) -> Result<(), LabError> {
        let write = || -> io::Result<()> {
            let mut file = tempfile::NamedTempFile::new_in(&self.0)?;
            file.write_all(&serde_json::to_vec_pretty(state)?)?;
            file.persist(self.state_file())?;
            Ok(())
        };
        write().map_err(|error| self.failed(error))
    }

    /// Ends the programs in the lab's nodes and the lab, and removes its directory, with what a lab that was killed left
    /// there. If it is to be idle, programs are an error, and nothing is done.
    pub fn end(&self, if_idle: bool) -> Result<Ended, LabError> {
        if !self.0.exists() {
            return Ok(Ended::default());
        }
        let _exclusive = self.exclusive()?;
        let lab = match self.find() {
            Ok(lab) => Some(lab),
            Err(LabError::Down) => None,
            Err(error) => return Err(error),
        };
        let mut ended = Ended { was_up: lab.is_some(), ..Ended::default() };
        let state = lab.as_ref().map(|lab| lab.state.clone()).or_else(|| self.last_state());
        if let Some(state) = state {
            let census = Census::of(&self.0, &state, lab.is_some());
            let running = if if_idle { census.others()? } else { Vec::new() };
            if !running.is_empty() {
                return Err(LabError::InUse(described(&running)));
            }
            ended.programs = census.end_others()?;
            ended.left = census.own()?;
        }
        if let Some(lab) = lab {
            lab.end_keeper()?;
        }
        self.empty()?;
        fs::remove_dir(&self.0).map_err(|error| self.failed(error))?;
        Ok(ended)
    }

    /// What the last keeper wrote down, even if it has been killed since.
    fn last_state(&self) -> Option<State> {
        serde_json::from_slice(&fs::read(self.state_file()).ok()?).ok()
    }

    /// The right to make or end the lab: a lock on the directory itself, which needs no file of its own.
    fn exclusive(&self) -> Result<Flock<File>, LabError> {
        self.check()?;
        // Programs that are just being started hold it for a moment.
        self.access(FlockArg::LockExclusiveNonblock)
    }

    fn access(&self, how: FlockArg) -> Result<Flock<File>, LabError> {
        let deadline = Instant::now() + ACCESS_WITHIN;
        loop {
            let directory = match File::open(&self.0) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(LabError::Down),
                opened => opened.map_err(|error| self.failed(error))?,
            };
            let own = directory.metadata().map_err(|error| self.failed(error))?;
            if let Ok(lock) = Flock::lock(directory, how) {
                // Whoever had the lock before may have removed the directory that was opened.
                match fs::symlink_metadata(&self.0) {
                    Ok(now) if (now.dev(), now.ino()) == (own.dev(), own.ino()) => return Ok(lock),
                    _ => continue,
                }
            }
            if Instant::now() > deadline {
                return Err(LabError::Busy);
            }
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Checks that nobody else says what is in the directory: in a folder that everybody may write to, another user could
    /// have made it first. Answers whether it is there.
    fn check(&self) -> Result<bool, LabError> {
        match fs::symlink_metadata(&self.0) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(self.failed(error)),
            Ok(found) if !found.is_dir() => Err(LabError::NotADirectory(self.0.clone())),
            Ok(found) if found.uid() != geteuid().as_raw() => {
                Err(LabError::NotOurs { path: self.0.clone(), owner: found.uid() })
            }
            Ok(found) if found.mode() & 0o022 != 0 => Err(LabError::Open(self.0.clone())),
            Ok(_) => Ok(true),
        }
    }

    fn create(&self) -> Result<(), LabError> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.0).map_err(|error| self.failed(error))
    }

    /// Empties the directory, if what is in it is a lab's.
    fn empty(&self) -> Result<(), LabError> {
        let entries = fs::read_dir(&self.0).and_then(Iterator::collect::<io::Result<Vec<_>>>);
        let entries = entries.map_err(|error| self.failed(error))?;
        let is_lab = fs::read(self.layout_file()).is_ok_and(|text| serde_json::from_slice::<Layout>(&text).is_ok());
        if !entries.is_empty() && !is_lab {
            return Err(LabError::NotALab(self.0.clone()));
        }
        // The layout goes last, so that a removal that is cut short can be taken up again.
        let layout = self.layout_file();
        for entry in entries.iter().map(fs::DirEntry::path).filter(|path| *path != layout).chain([layout.clone()]) {
            let removed = if entry.is_dir() { fs::remove_dir_all(&entry) } else { fs::remove_file(&entry) };
            match removed {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(self.failed(error)),
                _ => {}
            }
        }
        Ok(())
    }

    /// Writes down what the lab is to be, for the keeper.
    pub fn plan(&self, layout: &Layout) -> Result<(), LabError> {
        let text = serde_json::to_vec_pretty(layout).map_err(|error| self.failed(error.into()))?;
        fs::write(self.layout_file(), text).map_err(|error| self.failed(error))
    }

    /// What the lab is to be.
    pub fn planned(&self) -> Result<Layout, LabError> {
        self.check()?;
        let text = fs::read(self.layout_file()).map_err(|error| self.failed(error))?;
        serde_json::from_slice(&text).map_err(|error| self.failed(error.into()))
    }

    fn layout_file(&self) -> PathBuf {
        self.0.join("layout.json")
    }

    fn is_locked(&self) -> Result<bool, LabError> {
        match File::open(self.lock_file()) {
            Ok(file) => Ok(Flock::lock(file, FlockArg::LockSharedNonblock).is_err()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(self.failed(error)),
        }
    }

    fn lock_file(&self) -> PathBuf {
        self.0.join("lock")
    }

    fn state_file(&self) -> PathBuf {
        self.0.join("lab.json")
    }

    fn failed(&self, error: io::Error) -> LabError {
        if matches!(error.kind(), io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists) {
            return LabError::NotADirectory(self.0.clone());
        }
        LabError::Directory { path: self.0.clone(), error }
    }
}

impl Lab {
    /// The fleet that the lab is.
    pub fn inventory(&self) -> Inventory {
        self.state.layout.inventory(self.directory.path())
    }

    /// The same for whoever is on its management network.
    pub fn inventory_by_tls(&self) -> Inventory {
        self.state.layout.inventory_by_tls()
    }

    /// The folder of the certificate by which its agents take somebody for a controller, if they ask for one.
    pub fn controller_identity(&self) -> Option<PathBuf> {
        let store = certificates(self.directory.path());
        self.state.layout.tls.then(|| store.folder(&Role::Controller))
    }

    /// Whether this process is on the controller host.
    pub fn is_on_controller(&self) -> bool {
        let here = |thread| Namespaces::is_network_of_thread(self.state.keeper, thread);
        self.state.controller.is_some_and(here)
    }

    /// The nodes that words mean: names, hostlists and zones, `*` for all nodes; or the controller host.
    pub fn hosts(&self, words: &[String]) -> Result<Vec<NodeName>, LabError> {
        let mut hosts = BTreeSet::new();
        for name in words.iter().map(|word| hostlist::expand(word)).collect::<Result<Vec<_>, _>>()?.concat() {
            match self.state.layout.named(&name) {
                Some(nodes) => hosts.extend(nodes),
                None if name == CONTROLLER && self.state.controller.is_none() => return Err(LabError::NoController),
                None => return Err(LabError::NoNode { node: name, known: self.state.layout.names() }),
            }
        }
        Ok(hosts.into_iter().collect())
    }

    /// The namespaces of a node, or of the controller host.
    pub fn namespaces(&self, host: &NodeName) -> Result<Namespaces, LabError> {
        let controller = if host.as_str() == CONTROLLER { self.state.controller } else { None };
        let thread = self.state.threads.get(host).copied().or(controller);
        let unknown = || LabError::NoNode { node: host.to_string(), known: self.state.layout.names() };
        let thread = thread.ok_or_else(unknown)?;
        Namespaces::of_thread(self.state.keeper, thread)
            .map_err(|error| LabError::Namespaces { node: host.clone(), error })
    }

    /// The programs that run in these hosts.
    pub fn programs(&self, hosts: &[NodeName]) -> Result<Vec<Program>, LabError> {
        Census::of(self.directory.path(), &self.state, true).only(hosts).programs()
    }

    /// Ends the programs in these nodes and starts their agents anew.
    pub fn restart(&self, nodes: &[NodeName]) -> Result<Vec<EndedProgram>, LabError> {
        let _exclusive = self.directory.exclusive()?;
        let ended = Census::of(self.directory.path(), &self.state, true).only(nodes).end_others()?;
        let agents = nodes.iter().filter(|node| self.state.threads.contains_key(node));
        control::ask(self.directory.path(), &control::Request::Restart(agents.cloned().collect()))?;
        Ok(ended)
    }

    /// The folder of a node's files.
    pub fn folder(&self, node: &NodeName) -> PathBuf {
        node_directory(self.directory.path(), node)
    }

    /// Asks the keeper to end, and sees to it that it does.
    fn end_keeper(&self) -> Result<(), LabError> {
        let keeper = Pid::from_raw(self.state.keeper);
        for signal in [Signal::SIGTERM, Signal::SIGKILL] {
            // Its lock is held, so the process of that number is still the keeper.
            match kill(keeper, signal) {
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(errno) => return Err(self.directory.failed(errno.into())),
            }
            let deadline = Instant::now() + END_WITHIN;
            while Instant::now() < deadline {
                if !self.directory.is_locked()? {
                    return Ok(());
                }
                thread::sleep(Duration::from_millis(10));
            }
        }
        Err(LabError::Stuck(self.state.keeper))
    }
}
