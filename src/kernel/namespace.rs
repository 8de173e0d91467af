//! Makes and enters namespaces (`namespaces(7)`).
//!
//! `namespace_socket` makes namespaces too, in a child process. No other module makes or enters
//! namespaces. Threads of the async runtime never enter a namespace. A separate thread enters the namespace instead.
//! Sockets and child processes of this thread are in the namespace. Other threads are not affected.

use std::{
    fs::{self, File},
    io,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::{fs::symlink, process::CommandExt},
    },
    path::{Path, PathBuf},
    sync::mpsc::{Sender, channel},
    thread,
};

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, setns, unshare},
    unistd::{Gid, Uid, getgid, gettid, getuid},
};

/// A network and a mount namespace that end with this value. [`NodeNamespace::run`] runs code in them.
pub struct NodeNamespace {
    jobs: Sender<Job>,
    network: File,
    thread: i32,
}

type Job = Box<dyn FnOnce() + Send>;

impl NodeNamespace {
    /// Makes the namespaces. Their only interface is a loopback that is down.
    pub fn new() -> io::Result<Self> {
        let (jobs, inbox) = channel::<Job>();
        let (tell, told) = channel();
        thread::Builder::new().name("namespace".to_owned()).stack_size(256 * 1024).spawn(move || {
            let made = isolate(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS)
                .and_then(|()| File::open("/proc/thread-self/ns/net"))
                .map(|network| (network, gettid().as_raw()));
            let failed = made.is_err();
            if tell.send(made).is_ok() && !failed {
                for job in inbox {
                    job();
                }
            }
        })?;
        let (network, thread) = told.recv().map_err(io::Error::other)??;
        Ok(Self { jobs, network, thread })
    }

    /// Runs `work` on the thread in the namespaces. Sockets, mounts and processes of `work` are in the namespaces.
    pub fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
        let (tell, told) = channel();
        let job: Job = Box::new(move || drop(tell.send(work())));
        self.jobs.send(job).map_err(|_| gone())?;
        told.recv().map_err(|_| gone())
    }

    /// The network namespace, as a destination for interfaces.
    pub fn network(&self) -> BorrowedFd<'_> {
        self.network.as_fd()
    }

    /// The id of the thread in the namespaces, for [`Namespaces::of_thread`].
    pub fn thread(&self) -> i32 {
        self.thread
    }
}

fn gone() -> io::Error {
    io::Error::other("the namespace's thread has ended")
}

/// The namespaces of a thread of another process, for running a program in them.
pub struct Namespaces {
    user: Option<File>,
    mount: File,
    network: File,
}

impl Namespaces {
    /// Opens the namespaces of a thread of a process.
    pub fn of_thread(process: i32, thread: i32) -> io::Result<Self> {
        let task = PathBuf::from(format!("/proc/{process}/task/{thread}/ns"));
        // The kernel refuses to enter the current user namespace, so only another user namespace is opened.
        let link = |path: &Path| fs::read_link(path).map_err(|error| with(path, &error));
        let open = |name| {
            let path = task.join(name);
            File::open(&path).map_err(|error| with(&path, &error))
        };
        let elsewhere = link(&task.join("user"))? != link(Path::new("/proc/self/ns/user"))?;
        Ok(Self { user: elsewhere.then(|| open("user")).transpose()?, mount: open("mnt")?, network: open("net")? })
    }

    /// True if this process is in the network namespace of a thread of another process.
    pub fn is_network_of_thread(process: i32, thread: i32) -> bool {
        let there = fs::read_link(format!("/proc/{process}/task/{thread}/ns/net"));
        // A process in another user namespace may not read the link.
        there.is_ok_and(|there| fs::read_link("/proc/self/ns/net").is_ok_and(|here| here == there))
    }

    /// Moves this process into the namespaces.
    ///
    /// The process must have only one thread. Otherwise, `setns(2)` refuses to enter a user namespace.
    #[expect(clippy::disallowed_methods, reason = "this is the module that enters namespaces")]
    pub fn enter(&self) -> io::Result<()> {
        let here = std::env::current_dir();
        if let Some(user) = &self.user {
            setns(user, CloneFlags::CLONE_NEWUSER)?;
        }
        setns(&self.network, CloneFlags::CLONE_NEWNET)?;
        setns(&self.mount, CloneFlags::CLONE_NEWNS)?;
        // setns into a mount namespace changes the current folder to the root of the namespace.
        std::env::set_current_dir(here?)
    }

    /// Replaces this process by a program in the namespaces. Returns only an error.
    pub fn exec(&self, program: &mut std::process::Command) -> io::Error {
        match self.enter() {
            Ok(()) => program.exec(),
            Err(error) => error,
        }
    }
}

/// Runs `work` in a new network namespace. The namespace ends with `work`.
pub fn in_new_network<T: Send>(work: impl FnOnce() -> T + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let worker = scope.spawn(|| isolate(CloneFlags::CLONE_NEWNET).map(|()| work()));
        worker.join().map_err(|_| io::Error::other("the work in the namespace panicked"))?
    })
}

/// Moves the calling thread into new namespaces. Mounts of the thread do not appear on the host.
#[expect(clippy::disallowed_methods, reason = "this is the module that makes namespaces")]
fn isolate(namespaces: CloneFlags) -> io::Result<()> {
    unshare(namespaces)?;
    if namespaces.contains(CloneFlags::CLONE_NEWNS) {
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
    }
    Ok(())
}

/// Bind-mounts `file` over `target`, in the mount namespace of the calling thread.
pub fn mount_over(file: &Path, target: &Path) -> io::Result<()> {
    let mounted = mount(Some(file), target, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>);
    mounted.map_err(|errno| about(&format!("cannot mount {} on {}", file.display(), target.display()), &errno.into()))
}

/// Adds empty files to a folder, in the mount namespace of the calling thread only.
///
/// A copy of the folder with the additional files is mounted over the folder. The host's folder does not change.
/// `staging` is an empty folder for temporary use.
///
/// Each entry has its own bind mount. One bind mount of the whole folder would be a second path to the folder. Programs
/// could remove the host's files by this path.
pub fn add_files(folder: &Path, names: &[&str], staging: &Path) -> io::Result<()> {
    mount(Some("tmpfs"), staging, Some("tmpfs"), MsFlags::empty(), Some("mode=0755"))
        .map_err(|errno| about(&format!("cannot mount a tmpfs on {}", staging.display()), &errno.into()))?;
    for entry in fs::read_dir(folder).map_err(|error| with(folder, &error))? {
        let entry = entry.map_err(|error| with(folder, &error))?;
        let (from, to) = (entry.path(), staging.join(entry.file_name()));
        let kind = entry.file_type().map_err(|error| with(&from, &error))?;
        if names.iter().any(|name| entry.file_name() == *name) {
            // The caller names only files that do not exist, so this entry is a dangling symbolic link. The empty file
            // below replaces the link.
        } else if kind.is_symlink() {
            fs::read_link(&from).and_then(|target| symlink(target, &to)).map_err(|error| with(&from, &error))?;
        } else {
            let made = if kind.is_dir() { fs::create_dir(&to) } else { File::create(&to).map(drop) };
            made.map_err(|error| with(&to, &error))?;
            mount_over(&from, &to)?;
        }
    }
    for path in names.iter().map(|name| staging.join(name)) {
        drop(File::create(&path).map_err(|error| with(&path, &error))?);
    }
    mount(Some(staging), folder, None::<&str>, MsFlags::MS_MOVE, None::<&str>)
        .map_err(|errno| about(&format!("cannot mount {} on {}", staging.display(), folder.display()), &errno.into()))
}

/// Mounts a sysfs for the network namespace of the calling thread.
pub fn mount_sysfs() -> io::Result<()> {
    let mounted = mount(Some("sysfs"), "/sys", Some("sysfs"), MsFlags::empty(), None::<&str>);
    mounted.map_err(|errno| about("cannot mount a sysfs on /sys", &errno.into()))
}

/// Turns off router solicitations of an interface in the network namespace of the calling thread.
///
/// A lab has no router. A bridge sends each solicitation to all nodes, so the solicitations of all nodes are as many as
/// the square of the number of nodes.
pub fn expect_no_router(interface: &str) -> io::Result<()> {
    fs::write(format!("/proc/sys/net/ipv6/conf/{interface}/router_solicitations"), "0")
}

/// Adds a path to an error.
fn with(path: &Path, error: &io::Error) -> io::Error {
    about(&path.display().to_string(), error)
}

/// Adds the subject to an error.
pub(super) fn about(what: &str, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{what}: {error}"))
}

/// Makes an unprivileged user root of a new user namespace. For root, has no effect and returns false.
///
/// The process must have only one thread, and must execute a program next. Until the process executes a program, the
/// user may not access the namespaces of the process (`ptrace(2)`, "dumpable").
#[expect(clippy::disallowed_methods, reason = "this is the module that makes namespaces")]
pub fn as_root_of_user_namespace() -> io::Result<bool> {
    let (user, group): (Uid, Gid) = (getuid(), getgid());
    if user.is_root() {
        return Ok(false);
    }
    unshare(CloneFlags::CLONE_NEWUSER)?;
    for (file, text) in
        [("setgroups", "deny".to_owned()), ("uid_map", format!("0 {user} 1")), ("gid_map", format!("0 {group} 1"))]
    {
        let path = Path::new("/proc/self").join(file);
        fs::write(&path, text).map_err(|error| with(&path, &error))?;
    }
    Ok(true)
}
