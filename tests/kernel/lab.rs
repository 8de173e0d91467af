//! A lab for one test. The tests run netemctl's command line.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::Duration,
};

use netemctl::{
    lab::{LabDirectory, State},
    topology::NodeName,
};
use serde_json::Value;

use crate::sockets::within;

/// A running lab. Dropping the value runs `lab down`.
pub(crate) struct Lab {
    directory: PathBuf,
}

/// The result of a command.
#[must_use]
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    #[track_caller]
    pub(crate) fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{}\n{}", self.stdout, self.stderr);
        self
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {}{}", self.stdout, self.stderr))
    }
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Self { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }
}

/// The number of attempts to measure on a busy machine, and the pause after each attempt.
const MEASUREMENTS: u32 = 6;
const PAUSE: Duration = Duration::from_secs(5);

/// Runs `verify` until the report has no busy pair. Panics after [`MEASUREMENTS`] attempts.
#[track_caller]
pub(crate) fn retry_while_busy(verify: impl Fn() -> Ran) -> Ran {
    for _ in 0..MEASUREMENTS {
        let ran = verify();
        let is_busy = match serde_json::from_str::<Value>(&ran.stdout) {
            Ok(report) => report["busy"].as_u64() > Some(0),
            Err(_) => ran.stdout.contains(" not judged: a machine is busy ("),
        };
        if !is_busy {
            return ran;
        }
        thread::sleep(PAUSE);
    }
    panic!("this machine is too busy to measure, {MEASUREMENTS} times in a row");
}

/// The path of a file in `topologies/`.
pub(crate) fn shipped(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("topologies").join(name)
}

impl Lab {
    /// Starts a lab with the nodes of a topology file.
    pub(crate) fn up(topology: &Path) -> Self {
        Self::up_with(topology, &[])
    }

    /// Starts a lab with more options of `lab up`.
    pub(crate) fn up_with(topology: &Path, options: &[&str]) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let lab = Self { directory: PathBuf::from(format!("/run/netemctl-test-{}/{number}", std::process::id())) };
        let options = options.iter().map(Path::new);
        drop(lab.run(["lab", "up"].map(Path::new).into_iter().chain([topology]).chain(options)).expect(0));
        lab
    }

    /// Starts a lab with nine nodes in three zones.
    pub(crate) fn hierarchical() -> Self {
        Self::up(&shipped("hierarchical-9.toml"))
    }

    /// Runs netemctl with these arguments.
    pub(crate) fn run<A: AsRef<std::ffi::OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Ran {
        self.command(arguments).output().unwrap().into()
    }

    /// Runs netemctl with arguments that are separated by spaces.
    pub(crate) fn netemctl(&self, line: &str) -> Ran {
        self.run(line.split_whitespace())
    }

    pub(crate) fn command<A: AsRef<std::ffi::OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Command {
        #[expect(clippy::disallowed_methods, reason = "the tests run the command line")]
        let mut command = Command::new(env!("CARGO_BIN_EXE_netemctl"));
        command.env("NETEMCTL_LAB_DIR", &self.directory).stdin(Stdio::null()).args(arguments);
        command
    }

    /// Runs `--json verify` with these options. Repeats the command while the machine is too busy to measure.
    #[track_caller]
    pub(crate) fn verify(&self, options: &str) -> Ran {
        retry_while_busy(|| self.netemctl(&format!("--json verify {options}")))
    }

    /// Applies a topology and returns the JSON output. Panics if the command fails.
    #[track_caller]
    pub(crate) fn apply(&self, topology: &Path) -> Value {
        let ran = self.run([Path::new("--json"), Path::new("apply"), topology]);
        ran.expect(0).json()
    }

    /// Writes a file for this test and returns its path.
    pub(crate) fn topology(&self, text: &str) -> PathBuf {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let file = self.directory.join(format!("test-{number}.toml"));
        fs::write(&file, text).unwrap();
        file
    }

    /// Runs a program in a node and returns its standard output. Panics if the program fails.
    #[track_caller]
    pub(crate) fn exec(&self, node: &str, line: &str) -> String {
        self.netemctl(&format!("lab exec {node} -- {line}")).expect(0).stdout
    }

    /// The qdiscs, classes and filters of all nodes as tc shows them, without counters and the indexes of actions.
    pub(crate) fn tc(&self) -> String {
        let show = "qdisc show\nclass show dev db0\nfilter show dev db0\nfilter show dev db0 ingress\n";
        let batch = self.directory.join("test-tc");
        fs::write(&batch, show).unwrap();
        // One tc process per node shows everything, because tests call this method often.
        #[expect(clippy::disallowed_methods, reason = "the tests compare the output of tc")]
        let tc = || Ran::from(Command::new("tc").arg("-batch").arg(&batch).output().unwrap());
        let nodes = self.state().threads;
        let shown = nodes.keys().map(|node| {
            let shown = within(self, node.as_str(), tc).expect(0).stdout;
            // The kernel gives a new index to an action that is added again.
            let lines = shown.lines().filter(|line| !line.starts_with("\t index ")).collect::<Vec<_>>().join("\n");
            format!("{node}\n{lines}\n")
        });
        shown.collect()
    }

    /// The links, addresses, qdiscs and routes of the nodes' management interfaces. netemctl must never change them.
    pub(crate) fn management(&self) -> String {
        let show = "ip -o link show dev mgmt0; ip -o address show dev mgmt0; tc qdisc show dev mgmt0; ip route; ip -6 route show dev mgmt0";
        let nodes = self.state().threads;
        let shown = nodes.keys().map(|node| {
            let shown = self.run(["lab", "exec", node.as_str(), "--", "sh", "-c", show]).expect(0).stdout;
            // `ip route` also shows the routes of db0, which some tests remove.
            let lines = shown.lines().filter(|line| !line.contains("dev db0")).collect::<Vec<_>>().join("\n");
            // Addresses are tentative until duplicate address detection ends, shortly after `lab up`.
            format!("{node}\n{}\n", lines.replace(" tentative", ""))
        });
        shown.collect()
    }

    /// Counts the wake-ups of the lab's keeper and agents in a period: the voluntary context switches of their threads.
    pub(crate) fn wake_ups(&self, within: Duration) -> u64 {
        let read = |path: PathBuf| fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        let is_ours = |process: &PathBuf| {
            read(process.join("cmdline")).is_ok_and(|command| command.contains(&*self.directory.to_string_lossy()))
        };
        let count = || {
            let processes = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path()).filter(is_ours);
            let tasks = processes.filter_map(|process| fs::read_dir(process.join("task")).ok()).flatten().flatten();
            let switches = tasks.filter_map(|task| {
                let status = read(task.path().join("status")).ok()?;
                let switches = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?;
                Some((task.file_name(), switches.trim().parse().unwrap()))
            });
            switches.collect::<BTreeMap<_, u64>>()
        };
        let before = count();
        thread::sleep(within);
        let after = count();
        // The count does not include threads that end during the period.
        before.iter().filter_map(|(task, before)| Some(after.get(task)? - before)).sum()
    }

    pub(crate) fn state(&self) -> State {
        LabDirectory::of_user(Some(self.directory.clone())).unwrap().find().unwrap().state
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Sets a port of the lab's bridges `up` or `down`. For example, `d2` is the bridge's end of the second node's db0.
    #[track_caller]
    pub(crate) fn set_port(&self, port: &str, state: &str) {
        // The bridges are in the network namespace of a keeper's thread. No file has the id of the thread, so the script
        // tries all threads.
        let threads = format!("/proc/{}/task/*", self.state().keeper);
        let set = format!("nsenter --net=$thread/ns/net ip link set {port} {state}");
        let script = format!("for thread in {threads}; do {set} 2>/dev/null && exit; done; exit 1");
        #[expect(clippy::disallowed_methods, reason = "the test sets the bridge's end of a link")]
        let set = Command::new("sh").args(["-c", &script]).output().unwrap();
        drop(Ran::from(set).expect(0));
    }

    /// The network namespace of a node.
    pub(crate) fn network(&self, node: &str) -> fs::File {
        let state = self.state();
        let thread = state.threads[&node.parse::<NodeName>().unwrap()];
        fs::File::open(format!("/proc/{}/task/{thread}/ns/net", state.keeper)).unwrap()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let down = self.netemctl("lab down");
        if !thread::panicking() {
            drop(down.expect(0));
        }
    }
}
