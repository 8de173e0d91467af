//! Helpers: [`Sandbox`] is an isolated folder and environment for netemctl, [`Answer`] is the output of a command, and
//! [`Lab`] is a lab that is stopped at the end of its test.

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

/// The timeout of a command, long enough for the slowest machine.
const PATIENCE: Duration = Duration::from_secs(100);

/// The timeout for events that normally take less than a second.
const SOON: Duration = Duration::from_secs(30);

/// The terminal width in `COLUMNS`, for help texts and tables.
pub(crate) const COLUMNS: &str = "100";

/// A temporary folder with its own lab directory. netemctl runs in it with a minimal environment.
///
/// Dropping it kills the processes that still have the folder in their command line.
pub(crate) struct Sandbox(TempDir);

impl Sandbox {
    pub(crate) fn new() -> Self {
        // TMPDIR is ignored. The path of a Unix socket has 107 bytes at most, and a lab's sockets need 81 of them.
        let folder = tempfile::Builder::new().prefix("n").tempdir_in("/tmp");
        Self(folder.expect("/tmp can be written"))
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// The lab's directory.
    pub(crate) fn lab_directory(&self) -> PathBuf {
        self.path().join("lab")
    }

    /// Writes a file into the folder. Commands run in this folder, so they find the file by its name.
    pub(crate) fn write(&self, name: &str, contents: impl AsRef<[u8]>) {
        fs::write(self.path().join(name), contents).expect("the sandbox can be written");
    }

    /// Copies a shipped topology into the folder. Returns its file name.
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

    /// Runs netemctl with a variable number of arguments.
    pub(crate) fn run_words(&self, arguments: &[&str]) -> Answer {
        self.answer(Command::new(binary()).args(arguments))
    }

    /// Runs netemctl with a text on its stdin.
    pub(crate) fn run_with_stdin<const N: usize>(&self, arguments: [&str; N], stdin: &str) -> Answer {
        self.answer(Command::new(binary()).args(arguments).write_stdin(stdin))
    }

    /// Runs another program. `$NETEMCTL` is the path of the binary.
    pub(crate) fn run_other<const N: usize>(&self, program: &str, arguments: [&str; N]) -> Answer {
        self.answer(Command::new(program).args(arguments))
    }

    /// Runs another program with a variable number of arguments.
    pub(crate) fn run_other_words(&self, program: &str, arguments: &[&str]) -> Answer {
        self.answer(Command::new(program).args(arguments))
    }

    /// Runs the command. Placeholders such as `[TIME]` replace the parts of the output that differ between runs.
    fn answer(&self, command: &mut Command) -> Answer {
        let path = std::env::var_os("PATH").expect("PATH is set");
        let command = command.env_clear().env("PATH", path).env("NO_COLOR", "1").env("COLUMNS", COLUMNS);
        let command = command.env("NETEMCTL_LAB_DIR", self.lab_directory()).env("NETEMCTL", binary());
        let output = command.current_dir(self.path()).timeout(PATIENCE).output().expect("the program starts");
        let text = |bytes: Vec<u8>| {
            let text = String::from_utf8(bytes).expect("the output is UTF-8");
            let text = text.replace(&*self.path().to_string_lossy(), "[DIR]");
            let text = blank(text, "each with an agent, in ", " s\n", "[TIME]");
            let text = blank(text, "\"took_s\": ", "\n", "[TIME]");
            let text = blank(text, "\"digest\": \"", "\"", "[DIGEST]");
            let text =
                blank(text, "; all switched within ", " ms", "[TIME]").replace("; all switched within [TIME] ms", "");
            let text = text.replace(concat!("netemctl ", env!("CARGO_PKG_VERSION")), "netemctl [VERSION]");
            // These lines depend on the machine. A command that takes over a second prints progress lines, which end in
            // "…". `lab up` warns of a kernel that cannot shape.
            let is_of_machine = |line: &&str| {
                line.ends_with(" …\n")
                    || line.starts_with("warning: this kernel cannot shape: ")
                    || line.starts_with("  \"cannot_shape\": ")
            };
            text.split_inclusive('\n').filter(|line| !is_of_machine(line)).collect()
        };
        Answer { stdout: text(output.stdout), stderr: text(output.stderr), status: output.status }
    }

    /// The number of wake-ups of the lab's keeper and agents within a time: their threads' voluntary context switches.
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
        // A thread that has ended is not counted.
        before.iter().filter_map(|(task, before)| Some(after.get(task)? - before)).sum()
    }

    /// The processes with this folder in their command line: the lab's keeper and its agents.
    pub(crate) fn processes(&self) -> BTreeSet<i32> {
        self.processes_with(&self.path().to_string_lossy())
    }

    /// Waits until all processes of the lab have ended. A keeper releases its lock before its process ends.
    #[track_caller]
    pub(crate) fn wait_until_empty(&self) {
        wait_until("no process of the lab is left", || self.processes().is_empty());
    }

    /// The process id of a node's agent in the lab.
    pub(crate) fn agent(&self, node: &str) -> i32 {
        let config = self.lab_directory().join("nodes").join(node).join("agent.toml");
        let agents = self.processes_with(&config.to_string_lossy());
        assert_eq!(agents.len(), 1, "{node} has one agent");
        agents.into_iter().next().expect("one")
    }

    /// The processes with this text in their command line. A zombie has no command line, so it is not included.
    fn processes_with(&self, text: &str) -> BTreeSet<i32> {
        assert!(text.starts_with(&*self.path().to_string_lossy()), "the text has the path of the sandbox");
        let processes = fs::read_dir("/proc").expect("/proc can be read").flatten();
        let pid = |entry: fs::DirEntry| entry.file_name().to_string_lossy().parse().ok();
        let has_text = |pid: &i32| {
            let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&command).contains(text)
        };
        processes.filter_map(pid).filter(has_text).collect()
    }

    /// Sends SIGKILL to a process of this sandbox and waits until the process has ended.
    pub(crate) fn kill(&self, process: i32) {
        assert!(self.processes().contains(&process), "the process belongs to this test");
        kill(Pid::from_raw(process), Signal::SIGKILL).expect("an own process can be killed");
        wait_until("the process has ended", || has_ended(process));
    }
}

/// True if a process has released its files and locks. The command line disappears earlier.
fn has_ended(process: i32) -> bool {
    // proc_pid_stat(5): the state follows the name. The name may contain any character and ends with a bracket.
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    // The main thread may have ended while other threads still hold the files.
    let threads = fs::read_dir(format!("/proc/{process}/task")).map_or(0, Iterator::count);
    let has_ended = stat
        .rsplit(')')
        .next()
        .is_none_or(|fields| fields.is_empty() || fields.starts_with(" Z") || fields.starts_with(" X"));
    has_ended && threads <= 1
}

impl Drop for Sandbox {
    /// Kills processes that a failed test left behind. Their command line has the sandbox's folder.
    fn drop(&mut self) {
        for process in self.processes() {
            // The process may have ended meanwhile.
            let _ended = kill(Pid::from_raw(process), Signal::SIGKILL);
        }
    }
}

/// The binary under test.
pub(crate) fn binary() -> &'static str {
    env!("CARGO_BIN_EXE_netemctl")
}

/// Polls a condition until it is true. `what` names the condition for the failure message.
#[track_caller]
pub(crate) fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + SOON;
    while !condition() {
        assert!(Instant::now() < deadline, "timeout; expected: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// Replaces each text between `before` and `after` on the same line with a placeholder.
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

/// The output and the exit status of a command, with placeholders for parts that differ between runs.
#[must_use = "a test has to check the answer"]
pub(crate) struct Answer {
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) status: ExitStatus,
}

impl Answer {
    /// The exit code. Panics if a signal killed the command.
    pub(crate) fn code(&self) -> i32 {
        self.status.code().unwrap_or_else(|| panic!("killed by signal {:?}\n{self}", self.status.signal()))
    }

    /// Checks the exit code and returns the answer.
    #[track_caller]
    pub(crate) fn ended(self, code: i32) -> Self {
        assert_eq!(self.code(), code, "{self}");
        self
    }

    /// Parses stdout as one JSON document.
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

/// A running lab. Dropping it runs `lab down` and checks that the lab ends.
pub(crate) struct Lab {
    pub(crate) sandbox: Sandbox,
}

impl Lab {
    /// Starts a lab with a shipped topology.
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

    /// The output of `status --json`.
    pub(crate) fn in_force(&self) -> serde_json::Value {
        self.run(["status", "--json"]).ended(0).json()
    }

    /// The process id of the keeper, from the lab's state file.
    pub(crate) fn keeper(&self) -> i32 {
        let state = fs::read(self.sandbox.lab_directory().join("lab.json")).expect("a running lab has a state file");
        let state: serde_json::Value = serde_json::from_slice(&state).expect("the state is JSON");
        i32::try_from(state["keeper"].as_i64().expect("the keeper is a number")).expect("a process id")
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
