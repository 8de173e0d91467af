//! Finds the processes of network namespaces, and ends them by pidfds.
//!
//! A daemon changes its parent, session and process group, but not its network namespace. A process id may be reused. A
//! pidfd (`pidfd_open(2)`) always refers to the same process.

use std::{
    collections::BTreeSet,
    fs, io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::{
    param::clock_ticks_per_second,
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};

use super::namespace::about;

/// A process.
#[derive(Debug)]
pub struct Process {
    /// The process id.
    pub pid: i32,
    /// The process id of the parent.
    pub parent: i32,
    /// The number of the network namespace ([`network_number`]).
    pub network: u64,
    /// The time since the start.
    pub age: Duration,
    /// The program and its arguments.
    pub command: Vec<String>,
    /// The start in clock ticks since boot. The start and the process id identify a process.
    pub started: u64,
    has_terminal: bool,
    handle: OwnedFd,
}

/// The number of the network namespace of a thread.
pub fn network_number(process: i32, thread: i32) -> io::Result<u64> {
    number(&PathBuf::from(format!("/proc/{process}/task/{thread}")))
}

/// The number of the network namespace of a task: the inode of its file (`namespaces(7)`).
fn number(task: &Path) -> io::Result<u64> {
    Ok(fs::metadata(task.join("ns/net"))?.ino())
}

impl Process {
    /// The processes in the wanted network namespaces, sorted by process id.
    pub fn in_networks(wanted: impl Fn(u64) -> bool) -> io::Result<Vec<Self>> {
        let uptime = uptime()?;
        let mut found = Vec::new();
        for pid in numbers(Path::new("/proc"))? {
            let wanted_network = || network_of(pid).filter(|network| wanted(*network));
            if wanted_network().is_none() {
                continue;
            }
            let handle = match Pid::from_raw(pid).map(|pid| pidfd_open(pid, PidfdFlags::empty())) {
                Some(Ok(handle)) => handle,
                Some(Err(rustix::io::Errno::SRCH)) | None => continue,
                Some(Err(error)) => return Err(about(&format!("cannot look at process {pid}"), &error.into())),
            };
            // The namespace is checked again, because the process id may have been reused before pidfd_open.
            if let Some(network) = wanted_network()
                && let Some(stat) = Stat::of(pid)
            {
                let started = Duration::from_secs_f64(stat.started as f64 / clock_ticks_per_second() as f64);
                found.push(Self {
                    pid,
                    parent: stat.parent,
                    network,
                    age: uptime.saturating_sub(started),
                    command: command(pid),
                    started: stat.started,
                    has_terminal: stat.has_terminal,
                    handle,
                });
            }
        }
        Ok(found)
    }

    /// The name of the program without its folder.
    pub fn name(&self) -> &str {
        let program = self.command.first().map_or("", String::as_str);
        // The name of a login shell begins with a dash.
        program.rsplit('/').next().unwrap_or_default().trim_start_matches('-')
    }

    /// True if the process sees `file` at the path `place`.
    pub fn sees(&self, file: &Path, place: &str) -> bool {
        let identity = |path: &Path| fs::metadata(path).map(|found| (found.dev(), found.ino()));
        let there = identity(&PathBuf::from(format!("/proc/{}/root{place}", self.pid)));
        there.is_ok_and(|there| identity(file).is_ok_and(|here| here == there))
    }

    /// Sends the signals of a shutdown: SIGTERM, SIGHUP for shells with a terminal, and SIGCONT for stopped processes.
    pub fn ask_to_end(&self) -> io::Result<()> {
        self.send(Signal::TERM)?;
        if self.has_terminal {
            self.send(Signal::HUP)?;
        }
        self.send(Signal::CONT)
    }

    /// Sends SIGKILL.
    pub fn kill(&self) -> io::Result<()> {
        self.send(Signal::KILL)
    }

    fn send(&self, signal: Signal) -> io::Result<()> {
        match pidfd_send_signal(&self.handle, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits until all processes have ended, or until the deadline. True if all have ended.
    pub fn wait_for_all(processes: &[Self], deadline: Instant) -> io::Result<bool> {
        for process in processes {
            loop {
                let left = deadline.saturating_duration_since(Instant::now());
                let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
                // A pidfd is readable after the end of its process.
                match poll(&mut [PollFd::new(process.handle.as_fd(), PollFlags::POLLIN)], timeout) {
                    Ok(0) if left.is_zero() => return Ok(false),
                    Ok(0) | Err(nix::errno::Errno::EINTR) => {}
                    Ok(_) => break,
                    Err(errno) => return Err(about("cannot wait for processes to end", &errno.into())),
                }
            }
        }
        Ok(true)
    }
}

/// The process ids of this process and of its ancestors.
pub fn ancestors() -> BTreeSet<i32> {
    let mut ancestors = BTreeSet::new();
    let mut next = Some(std::process::id().cast_signed());
    while let Some(pid) = next.filter(|pid| *pid > 0 && ancestors.insert(*pid)) {
        next = Stat::of(pid).map(|stat| stat.parent);
    }
    ancestors
}

/// The number of the network namespace of a process. If the first thread has ended, another thread is read.
fn network_of(pid: i32) -> Option<u64> {
    let process = PathBuf::from(format!("/proc/{pid}"));
    match number(&process) {
        Ok(network) => Some(network),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => None,
        Err(_) => {
            let tasks = process.join("task");
            numbers(&tasks).ok()?.iter().find_map(|task| number(&tasks.join(task.to_string())).ok())
        }
    }
}

/// The entries of a folder that are numbers, in ascending order.
fn numbers(folder: &Path) -> io::Result<Vec<i32>> {
    let named = |error| about(&folder.display().to_string(), &error);
    let mut numbers = Vec::new();
    for entry in fs::read_dir(folder).map_err(named)? {
        numbers.extend(entry.map_err(named)?.file_name().to_str().and_then(|name| name.parse::<i32>().ok()));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

fn command(pid: i32) -> Vec<String> {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let line = String::from_utf8_lossy(&line);
    let line = line.strip_suffix('\0').unwrap_or(&line);
    if line.is_empty() {
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        return vec![name.trim_end().to_owned()];
    }
    line.split('\0').map(str::to_owned).collect()
}

fn uptime() -> io::Result<Duration> {
    let file = "/proc/uptime";
    let text = fs::read_to_string(file).map_err(|error| about(file, &error))?;
    let seconds = text.split_whitespace().next().and_then(|seconds| seconds.parse().ok());
    Ok(Duration::try_from_secs_f64(seconds.unwrap_or_default()).unwrap_or_default())
}

/// The needed fields of `/proc/PID/stat` (`proc_pid_stat(5)`).
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    parent: i32,
    has_terminal: bool,
    started: u64,
}

impl Stat {
    fn of(pid: i32) -> Option<Self> {
        Self::parse(&String::from_utf8_lossy(&fs::read(format!("/proc/{pid}/stat")).ok()?))
    }

    /// Parses the fields. The second field, the program's name, may have brackets and spaces.
    fn parse(text: &str) -> Option<Self> {
        let (_, fields) = text.rsplit_once(')')?;
        let fields: Vec<&str> = fields.split_whitespace().collect();
        let field = |number: usize| fields.get(number - 3).copied();
        Some(Self {
            parent: field(4)?.parse().ok()?,
            has_terminal: field(7)? != "0",
            started: field(22)?.parse().ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_parsed_after_a_name_with_brackets_and_spaces() {
        let text = "42 (a) b (c) S 7 42 42 34816 42 4194304 90 0 0 0 1 2 0 0 20 0 1 0 123456 2 3";
        assert_eq!(Stat::parse(text), Some(Stat { parent: 7, has_terminal: true, started: 123_456 }));
        assert_eq!(Stat::parse("42 (a"), None);
        assert_eq!(Stat::parse("42 (a) S 7"), None);
    }

    #[test]
    fn this_process_is_found_in_its_network_with_its_parent() {
        let own = std::process::id().cast_signed();
        let network = network_of(own).unwrap();
        let found = Process::in_networks(|other| other == network).unwrap();
        let this = found.iter().find(|process| process.pid == own).unwrap();
        assert!(!this.name().is_empty() && !this.name().contains('/'), "{this:?}");
        assert!(ancestors().contains(&own) && ancestors().contains(&this.parent));
        assert!(!Process::wait_for_all(&found, Instant::now()).unwrap());
    }
}
