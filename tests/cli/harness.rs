//! A hermetic place to run netemctl in, [`Sandbox`], what it answered, [`Answer`], and a [`Lab`] that ends with its test.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, fs,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::ExitStatus,
    thread,
    time::{Duration, Instant},
};

use assert_cmd::Command;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;

/// Long enough for the slowest machine, and shorter than what a person would wait for a hung test.
const PATIENCE: Duration = Duration::from_secs(100);

/// How long something may take that should take a moment.
const SOON: Duration = Duration::from_secs(30);

/// The terminal that help is wrapped for and that drawings have to fit.
pub(crate) const COLUMNS: &str = "100";

/// A folder of the test's own, in which netemctl runs with an environment of its own and a lab directory of its own.
///
/// Whatever still runs in it when this is dropped is killed.
pub(crate) struct Sandbox(TempDir);

impl Sandbox {
    pub(crate) fn new() -> Self {
        // In /tmp whatever TMPDIR says, as the path of a Unix socket has 107 bytes and a lab's sockets need 81 of them.
        let folder = tempfile::Builder::new().prefix("n").tempdir_in("/tmp");
        Self(folder.expect("/tmp can be written"))
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Where the lab's files are.
    pub(crate) fn lab_directory(&self) -> PathBuf {
        self.path().join("lab")
    }

    /// Writes a file, which commands find under its bare name, as they run in this folder.
    pub(crate) fn write(&self, name: &str, contents: impl AsRef<[u8]>) {
        fs::write(self.path().join(name), contents).expect("the sandbox can be written");
    }

    /// Brings one of the project's own topologies here; answers its file's name.
    pub(crate) fn topology(&self, name: &str) -> String {
        let file = format!("{name}.toml");
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("topologies").join(&file);
        self.write(&file, fs::read(shipped).expect("the topology is shipped"));
        file
    }

    /// Runs netemctl.
    pub(crate) fn run<const N: usize>(&self, arguments: [&str; N]) -> Answer {
        self.answer(Command::new(binary()).args(arguments))
    }

    /// Runs netemctl with arguments whose number is not known beforehand.
    pub(crate) fn run_words(&self, arguments: &[&str]) -> Answer {
        self.answer(Command::new(binary()).args(arguments))
    }

    /// Runs netemctl with something on its stdin.
    pub(crate) fn run_with_stdin<const N: usize>(&self, arguments: [&str; N], stdin: &str) -> Answer {
        self.answer(Command::new(binary()).args(arguments).write_stdin(stdin))
    }

    /// Runs another program, for which `$NETEMCTL` is the binary.
    pub(crate) fn run_other<const N: usize>(&self, program: &str, arguments: [&str; N]) -> Answer {
        self.answer(Command::new(program).args(arguments))
    }

    /// The same with arguments whose number is not known beforehand.
    pub(crate) fn run_other_words(&self, program: &str, arguments: &[&str]) -> Answer {
        self.answer(Command::new(program).args(arguments))
    }

    /// What differs from run to run becomes `[TIME]` and the like; everything else has to be the same.
    fn answer(&self, command: &mut Command) -> Answer {
        let path = std::env::var_os("PATH").expect("there is a PATH");
        let command = command.env_clear().env("PATH", path).env("NO_COLOR", "1").env("COLUMNS", COLUMNS);
        let command = command.env("NETEMCTL_LAB_DIR", self.lab_directory()).env("NETEMCTL", binary());
        let output = command.current_dir(self.path()).timeout(PATIENCE).output().expect("the program starts");
        let text = |bytes: Vec<u8>| {
            let text = String::from_utf8(bytes).expect("what is printed is UTF-8");
            let text = text.replace(&*self.path().to_string_lossy(), "[DIR]");
            let text = blank(text, "each with an agent, in ", " s\n", "[TIME]");
            let text = blank(text, "\"took_s\": ", "\n", "[TIME]");
            let text = blank(text, "\"digest\": \"", "\"", "[DIGEST]");
            let text = blank(text, ", all within ", " ms", "[TIME]").replace(", all within [TIME] ms", "");
            text.replace(concat!("netemctl ", env!("CARGO_PKG_VERSION")), "netemctl [VERSION]")
        };
        // What takes over a second says "... …", so on a slow machine it is there and on a fast one it is not.
        let stderr = text(output.stderr).split_inclusive('\n').filter(|line| !line.ends_with(" …\n")).collect();
        Answer { stdout: text(output.stdout), stderr, status: output.status }
    }

    /// How often the agents of this folder's lab woke up within a time: their threads' voluntary context switches.
    pub(crate) fn wake_ups(&self, within: Duration) -> u64 {
        let count = || {
            let tasks = self.processes().into_iter().filter_map(|pid| fs::read_dir(format!("/proc/{pid}/task")).ok());
            let switches = tasks.flatten().flatten().filter_map(|task| {
                let status = fs::read_to_string(task.path().join("status")).ok()?;
                let switches = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?;
                Some((task.file_name(), switches.trim().parse().expect("a number")))
            });
            switches.collect::<BTreeMap<_, u64>>()
        };
        let before = count();
        thread::sleep(within);
        let after = count();
        // A thread that ends takes its count along.
        before.iter().filter_map(|(task, before)| Some(after.get(task)? - before)).sum()
    }

    /// The processes that have this folder in their command line: a lab's keeper and its agents.
    pub(crate) fn processes(&self) -> BTreeSet<i32> {
        self.processes_with(&self.path().to_string_lossy())
    }

    /// Waits until all of them have ended: of a keeper that is told to end, the lock goes before the process does.
    #[track_caller]
    pub(crate) fn wait_until_empty(&self) {
        wait_until("no process of the lab is left", || self.processes().is_empty());
    }

    /// The agent of a node of the lab.
    pub(crate) fn agent(&self, node: &str) -> i32 {
        let config = self.lab_directory().join("nodes").join(node).join("agent.toml");
        let agents = self.processes_with(&config.to_string_lossy());
        assert_eq!(agents.len(), 1, "{node} has one agent");
        agents.into_iter().next().expect("one")
    }

    /// A dead process that nobody has collected has no command line, so it does not count.
    fn processes_with(&self, text: &str) -> BTreeSet<i32> {
        assert!(text.starts_with(&*self.path().to_string_lossy()), "no process but those of the test");
        let processes = fs::read_dir("/proc").expect("there is a /proc").flatten();
        let pid = |entry: fs::DirEntry| entry.file_name().to_string_lossy().parse().ok();
        let has_text = |pid: &i32| {
            let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&command).contains(text)
        };
        processes.filter_map(pid).filter(has_text).collect()
    }

    /// Kills a process of this sandbox as the out-of-memory killer would, and waits until it is gone.
    pub(crate) fn kill(&self, process: i32) {
        assert!(self.processes().contains(&process), "the process is the test's own");
        kill(Pid::from_raw(process), Signal::SIGKILL).expect("one's own process can be killed");
        wait_until("the process is gone", || has_ended(process));
    }
}

/// Whether a process has let go of everything, its locks as well: it loses its command line before.
fn has_ended(process: i32) -> bool {
    // proc_pid_stat(5): the state is behind the name, which may have anything in it but ends with a bracket.
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    // The first thread may have ended before the others, which still hold the files.
    let threads = fs::read_dir(format!("/proc/{process}/task")).map_or(0, Iterator::count);
    let has_ended = stat
        .rsplit(')')
        .next()
        .is_none_or(|fields| fields.is_empty() || fields.starts_with(" Z") || fields.starts_with(" X"));
    has_ended && threads <= 1
}

impl Drop for Sandbox {
    /// Ends what a failed test left running; they can only be the test's own, as their command line has its folder.
    fn drop(&mut self) {
        for process in self.processes() {
            // It may have ended at this very moment.
            let _ended = kill(Pid::from_raw(process), Signal::SIGKILL);
        }
    }
}

/// The binary under test.
pub(crate) fn binary() -> &'static str {
    env!("CARGO_BIN_EXE_netemctl")
}

/// Polls, since what other processes do has no event to wait for.
#[track_caller]
pub(crate) fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + SOON;
    while !condition() {
        assert!(Instant::now() < deadline, "in vain until {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// Replaces whatever stands between `before` and `after` on one line.
fn blank(text: String, before: &str, after: &str, placeholder: &str) -> String {
    let mut rest = text.as_str();
    let mut blanked = String::new();
    while let Some((head, tail)) = rest.split_once(before) {
        let Some(end) = tail.find(after).filter(|end| !tail[..*end].contains('\n')) else { break };
        blanked += &format!("{head}{before}{placeholder}");
        rest = &tail[end..];
    }
    if blanked.is_empty() { text } else { blanked + rest }
}

/// What a command printed and how it ended, with placeholders for what differs from run to run.
#[must_use = "what a command answers is what is tested"]
pub(crate) struct Answer {
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) status: ExitStatus,
}

impl Answer {
    /// The exit code; a command that was killed has none, which is always a failure.
    pub(crate) fn code(&self) -> i32 {
        self.status.code().unwrap_or_else(|| panic!("killed by signal {:?}\n{self}", self.status.signal()))
    }

    /// This answer, if it has that exit code.
    #[track_caller]
    pub(crate) fn ended(self, code: i32) -> Self {
        assert_eq!(self.code(), code, "{self}");
        self
    }

    /// The JSON document that stdout has to be.
    #[track_caller]
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout.replace("[TIME]", "0.0"))
            .unwrap_or_else(|error| panic!("not one JSON document: {error}\n{self}"))
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "--- stdout\n{}--- stderr\n{}--- {}", self.stdout, self.stderr, self.status)
    }
}

/// A lab that is up, and that goes down when this is dropped, which is a test of its own.
pub(crate) struct Lab {
    pub(crate) sandbox: Sandbox,
}

impl Lab {
    /// Brings up a lab of one of the project's own topologies.
    #[track_caller]
    pub(crate) fn up(topology: &str) -> Self {
        let lab = Self { sandbox: Sandbox::new() };
        let file = lab.sandbox.topology(topology);
        let _up = lab.sandbox.run(["lab", "up", &file]).ended(0);
        lab
    }

    /// Runs netemctl.
    pub(crate) fn run<const N: usize>(&self, arguments: [&str; N]) -> Answer {
        self.sandbox.run(arguments)
    }

    /// What is in force, as a program sees it.
    pub(crate) fn in_force(&self) -> serde_json::Value {
        self.run(["status", "--json"]).ended(0).json()
    }

    /// The keeper, as the lab's own files have it.
    pub(crate) fn keeper(&self) -> i32 {
        let state = fs::read(self.sandbox.lab_directory().join("lab.json")).expect("a lab that is up has a state");
        let state: serde_json::Value = serde_json::from_slice(&state).expect("the state is JSON");
        i32::try_from(state["keeper"].as_i64().expect("the keeper is a number")).expect("of a process")
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let down = self.run(["lab", "down"]);
        // A second panic would hide the first.
        if !thread::panicking() {
            assert_eq!(down.code(), 0, "{down}");
            self.sandbox.wait_until_empty();
        }
    }
}
