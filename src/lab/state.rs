//! Finds, prepares and ends a lab, by its directory, its keeper's lock and its published state.

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
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use thiserror::Error;

use super::{
    CONTROLLER, EndedProgram, Layout, Program,
    control::{self, ControlError},
    layout::{certificates, node_directory},
    programs::{ProgramScan, described},
};
use crate::{
    files::if_exists,
    kernel::Namespaces,
    pki::Role,
    plan::Inventory,
    topology::{NodeName, hostlist},
};

/// The timeout for the keeper to end after a signal.
const END_WITHIN: Duration = Duration::from_secs(10);

/// The timeout for the lock of another command.
const ACCESS_WITHIN: Duration = Duration::from_secs(20);

/// The length of the longest path below a lab's directory: `/nodes/<63 bytes>/agent.sock`.
const LONGEST_SUFFIX: usize = 7 + 63 + 11;

/// The longest path of a Unix socket: `sun_path` in unix(7), without its NUL.
const LONGEST_SOCKET: usize = 107;

const LAYOUT_FILE: &str = "layout.json";
const LOCK_FILE: &str = "lock";
const STATE_FILE: &str = "lab.json";

/// The directory of one lab.
#[derive(Clone, Debug)]
pub struct LabDirectory(PathBuf);

/// The state that the keeper publishes when the lab is up.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// The process id of the keeper.
    pub keeper: i32,
    /// The keeper's threads in the nodes' namespaces.
    pub threads: BTreeMap<NodeName, i32>,
    /// The keeper's thread in the namespaces of the controller host.
    #[serde(default)]
    pub controller: Option<i32>,
    /// The inode numbers of the network namespaces of all nodes and of the controller host.
    #[serde(default)]
    pub networks: BTreeMap<NodeName, u64>,
    /// The nodes, their addresses and the options of the lab.
    pub layout: Layout,
}

/// The result of [`LabDirectory::end`].
#[derive(Debug, Default)]
pub struct Ended {
    /// True if a lab was up.
    pub was_up: bool,
    /// The programs in the lab's nodes that were ended.
    pub programs: Vec<EndedProgram>,
    /// The programs that were not ended: ancestors of the calling process. They continue without a network.
    pub left: Vec<Program>,
}

/// A lab that is up.
#[derive(Debug)]
pub struct Lab {
    directory: LabDirectory,
    /// The state that the keeper published.
    pub state: State,
}

/// The error of finding, starting or ending a lab.
#[derive(Debug, Error)]
pub enum LabError {
    /// No lab is up.
    #[error("no lab is up")]
    Down,
    /// A lab is up already.
    #[error("a lab is up already, of topology {0}")]
    Up(String),
    /// A lab is starting, or another command holds the lab's lock.
    #[error("another command is using the lab; retry in a moment")]
    Busy,
    /// The keeper does not end after SIGKILL.
    #[error("the lab's keeper (process {0}) does not end")]
    Stuck(i32),
    /// Processes could not be listed or signalled.
    #[error("{0}")]
    Processes(#[source] io::Error),
    /// The namespaces of a node cannot be opened.
    #[error("cannot enter {node}: {error}")]
    Namespaces {
        /// The node.
        node: NodeName,
        /// The cause.
        #[source]
        error: io::Error,
    },
    /// Programs run in the nodes, and `--if-idle` is given.
    #[error("programs run in the lab: {0}; nothing was changed")]
    InUse(String),
    /// Programs of a killed lab still run.
    #[error("programs of a lab whose keeper was killed still run: {0}")]
    Orphans(String),
    /// Programs do not end after SIGKILL.
    #[error("programs still run after SIGKILL: {0}")]
    Immortal(String),
    /// A request to the keeper failed.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// An argument is not a hostlist.
    #[error(transparent)]
    Hostlist(#[from] hostlist::HostlistError),
    /// A file of the lab cannot be read or written.
    #[error("cannot use {path}: {error}")]
    Directory {
        /// The path.
        path: PathBuf,
        /// The cause.
        #[source]
        error: io::Error,
    },
    /// The directory has other files than those of a lab. The directory is not emptied.
    #[error("{0} is neither empty nor the directory of a lab; nothing was changed")]
    NotALab(PathBuf),
    /// The path is not a directory.
    #[error("{0} is not a directory")]
    NotADirectory(PathBuf),
    /// The directory belongs to another user, who could replace its sockets.
    #[error("the lab directory {path} belongs to another user ({owner})")]
    NotOurs {
        /// The directory.
        path: PathBuf,
        /// Its owner.
        owner: u32,
    },
    /// Other users may write to the directory.
    #[error("other users may write to the lab directory {0}; run: chmod go-w {0}")]
    Open(PathBuf),
    /// The paths of sockets in the directory are too long for unix(7).
    #[error("{0} is too long for the path of a socket; choose a shorter one with --lab-dir")]
    TooLong(PathBuf),
    /// The lab has no controller host.
    #[error("the lab has no controller host")]
    NoController,
    /// No node or zone has the name.
    #[error("no zone or node is called {node}; {known}")]
    NoNode {
        /// The unknown name.
        node: String,
        /// The known names.
        known: String,
    },
}

impl LabDirectory {
    /// The chosen directory, or the default directory of the calling user. A reboot removes the default directory.
    pub fn of_user(chosen: Option<PathBuf>) -> Result<Self, LabError> {
        let default = || {
            let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|path| path.is_absolute());
            match runtime {
                // systemd deletes /run/netemctl when the agent's service stops.
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

    /// The keeper's log.
    pub fn log(&self) -> PathBuf {
        self.0.join("keeper.log")
    }

    /// Creates the directory with mode 0700, or removes the files of a killed lab.
    ///
    /// The returned lock excludes other commands that start, enter, restart or end the lab.
    pub fn prepare(&self) -> Result<Flock<File>, LabError> {
        self.with_path(fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.0))?;
        let exclusive = self.exclusive()?;
        if let Some(lab) = self.find_if_up()? {
            return Err(LabError::Up(lab.state.layout.topology));
        }
        if let Some(state) = self.last_state() {
            let orphans = ProgramScan::of(&self.0, &state, false).programs()?;
            if !orphans.is_empty() {
                return Err(LabError::Orphans(described(&orphans)));
            }
        }
        self.empty()?;
        Ok(exclusive)
    }

    /// A shared lock for starting programs in the nodes. While the lock is held, the lab does not end and no
    /// node restarts.
    pub fn enter(&self) -> Result<Flock<File>, LabError> {
        if !self.check()? {
            return Err(LabError::Down);
        }
        self.access(FlockArg::LockSharedNonblock)
    }

    /// Takes the keeper's lock, which shows that the lab is up. The kernel releases the lock when the process ends.
    pub fn lock(&self) -> Result<Flock<File>, LabError> {
        let open = OpenOptions::new().write(true).create(true).truncate(false).open(self.0.join(LOCK_FILE));
        let file = self.with_path(open)?;
        Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, _)| LabError::Busy)
    }

    /// The lab that is up.
    pub fn find(&self) -> Result<Lab, LabError> {
        if !self.check()? || !self.is_locked()? {
            return Err(LabError::Down);
        }
        let state = self.with_path(if_exists(self.read(STATE_FILE)))?.ok_or(LabError::Busy)?;
        Ok(Lab { directory: self.clone(), state })
    }

    /// True if programs of a lab whose keeper was killed still run.
    pub fn has_orphans(&self) -> bool {
        let is_there = self.check().is_ok_and(|is_there| is_there);
        let state = self.last_state().filter(|_| is_there);
        let programs = state.and_then(|state| ProgramScan::of(&self.0, &state, false).programs().ok());
        programs.is_some_and(|programs| !programs.is_empty())
    }

    fn find_if_up(&self) -> Result<Option<Lab>, LabError> {
        match self.find() {
            Err(LabError::Down) => Ok(None),
            found => found.map(Some),
        }
    }

    /// Publishes the state. From now on, other processes find the lab.
    pub fn publish(&self, state: &State) -> Result<(), LabError> {
        self.write(STATE_FILE, state)
    }

    /// Ends the lab and the programs in its nodes, and removes the directory. Also cleans up after a killed keeper.
    ///
    /// With `if_idle`, running programs are an error and nothing changes.
    pub fn end(&self, if_idle: bool) -> Result<Ended, LabError> {
        if !self.0.exists() {
            return Ok(Ended::default());
        }
        let _exclusive = self.exclusive()?;
        let lab = self.find_if_up()?;
        let mut ended = Ended { was_up: lab.is_some(), ..Ended::default() };
        let state = lab.as_ref().map(|lab| lab.state.clone()).or_else(|| self.last_state());
        if let Some(state) = state {
            let scan = ProgramScan::of(&self.0, &state, lab.is_some());
            let running = if if_idle { scan.others()? } else { Vec::new() };
            if !running.is_empty() {
                return Err(LabError::InUse(described(&running)));
            }
            ended.programs = scan.end_others()?;
            ended.left = scan.own()?;
        }
        if let Some(lab) = lab {
            lab.end_keeper()?;
        }
        self.empty()?;
        self.with_path(fs::remove_dir(&self.0))?;
        Ok(ended)
    }

    /// The state that the last keeper published, even if the keeper has been killed since.
    fn last_state(&self) -> Option<State> {
        self.read(STATE_FILE).ok()
    }

    /// An exclusive lock on the directory itself, for starting and ending the lab, and for restarting nodes.
    fn exclusive(&self) -> Result<Flock<File>, LabError> {
        self.check()?;
        self.access(FlockArg::LockExclusiveNonblock)
    }

    fn access(&self, how: FlockArg) -> Result<Flock<File>, LabError> {
        let deadline = Instant::now() + ACCESS_WITHIN;
        loop {
            let directory = self.with_path(if_exists(File::open(&self.0)))?.ok_or(LabError::Down)?;
            let own = self.with_path(directory.metadata())?;
            if let Ok(lock) = Flock::lock(directory, how) {
                // The previous holder of the lock may have removed the opened directory.
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

    /// True if the directory exists. Fails if another user owns the directory or may write to it.
    ///
    /// In a folder like /tmp, another user could create the directory first.
    fn check(&self) -> Result<bool, LabError> {
        match self.with_path(if_exists(fs::symlink_metadata(&self.0)))? {
            None => Ok(false),
            Some(found) if !found.is_dir() => Err(LabError::NotADirectory(self.0.clone())),
            Some(found) if found.uid() != geteuid().as_raw() => {
                Err(LabError::NotOurs { path: self.0.clone(), owner: found.uid() })
            }
            Some(found) if found.mode() & 0o022 != 0 => Err(LabError::Open(self.0.clone())),
            Some(_) => Ok(true),
        }
    }

    /// Empties the directory if it belongs to a lab.
    fn empty(&self) -> Result<(), LabError> {
        let entries = self.with_path(fs::read_dir(&self.0).and_then(Iterator::collect::<io::Result<Vec<_>>>))?;
        if !entries.is_empty() && self.read::<Layout>(LAYOUT_FILE).is_err() {
            return Err(LabError::NotALab(self.0.clone()));
        }
        // The layout is removed last, so a second call can finish an interrupted removal.
        let layout = self.0.join(LAYOUT_FILE);
        for entry in entries.iter().map(fs::DirEntry::path).filter(|path| *path != layout).chain([layout.clone()]) {
            let removed = if entry.is_dir() { fs::remove_dir_all(&entry) } else { fs::remove_file(&entry) };
            self.with_path(if_exists(removed))?;
        }
        Ok(())
    }

    /// Writes the layout for the keeper.
    pub fn plan(&self, layout: &Layout) -> Result<(), LabError> {
        self.write(LAYOUT_FILE, layout)
    }

    /// Reads the layout that [`plan`](Self::plan) wrote.
    pub fn planned(&self) -> Result<Layout, LabError> {
        self.check()?;
        self.with_path(self.read(LAYOUT_FILE))
    }

    fn read<T: DeserializeOwned>(&self, file: &str) -> io::Result<T> {
        Ok(serde_json::from_slice(&fs::read(self.0.join(file))?)?)
    }

    /// Writes a file atomically.
    fn write(&self, file: &str, value: &impl Serialize) -> Result<(), LabError> {
        let write = || -> io::Result<()> {
            let mut temporary = tempfile::NamedTempFile::new_in(&self.0)?;
            temporary.write_all(&serde_json::to_vec_pretty(value)?)?;
            temporary.persist(self.0.join(file))?;
            Ok(())
        };
        self.with_path(write())
    }

    fn is_locked(&self) -> Result<bool, LabError> {
        let file = self.with_path(if_exists(File::open(self.0.join(LOCK_FILE))))?;
        Ok(file.is_some_and(|file| Flock::lock(file, FlockArg::LockSharedNonblock).is_err()))
    }

    /// Adds the directory's path to the error of an operation on the directory or its files.
    fn with_path<T>(&self, result: io::Result<T>) -> Result<T, LabError> {
        result.map_err(|error| match error.kind() {
            io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => LabError::NotADirectory(self.0.clone()),
            _ => LabError::Directory { path: self.0.clone(), error },
        })
    }
}

impl Lab {
    /// The inventory of the lab, with Unix sockets as agents.
    pub fn inventory(&self) -> Inventory {
        self.state.layout.inventory(self.directory.path())
    }

    /// The inventory of the lab, with HTTPS addresses on the management network as agents.
    pub fn inventory_by_tls(&self) -> Inventory {
        self.state.layout.inventory_by_tls()
    }

    /// The folder of the controller's certificate, in a lab with TLS.
    pub fn controller_identity(&self) -> Option<PathBuf> {
        let store = certificates(self.directory.path());
        self.state.layout.tls.then(|| store.folder(&Role::Controller))
    }

    /// True if this process is on the controller host.
    pub fn is_on_controller(&self) -> bool {
        let here = |thread| Namespaces::is_network_of_thread(self.state.keeper, thread);
        self.state.controller.is_some_and(here)
    }

    /// The hosts that the words stand for: hostlists of nodes, zones, `*` for all nodes, and `controller`.
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

    /// The programs in these hosts.
    pub fn programs(&self, hosts: &[NodeName]) -> Result<Vec<Program>, LabError> {
        ProgramScan::of(self.directory.path(), &self.state, true).only(hosts).programs()
    }

    /// Ends the programs in these nodes and restarts their agents.
    pub fn restart(&self, nodes: &[NodeName]) -> Result<Vec<EndedProgram>, LabError> {
        let _exclusive = self.directory.exclusive()?;
        let ended = ProgramScan::of(self.directory.path(), &self.state, true).only(nodes).end_others()?;
        let agents: Vec<_> = nodes.iter().filter(|node| self.state.threads.contains_key(node)).cloned().collect();
        control::restart(self.directory.path(), &agents)?;
        Ok(ended)
    }

    /// The folder of a node's files.
    pub fn folder(&self, node: &NodeName) -> PathBuf {
        node_directory(self.directory.path(), node)
    }

    /// Ends the keeper: SIGTERM, and SIGKILL after [`END_WITHIN`].
    fn end_keeper(&self) -> Result<(), LabError> {
        let keeper = Pid::from_raw(self.state.keeper);
        for signal in [Signal::SIGTERM, Signal::SIGKILL] {
            // The keeper's lock is held, so the process id still belongs to the keeper.
            match kill(keeper, signal) {
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(errno) => return self.directory.with_path(Err(errno.into())),
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
