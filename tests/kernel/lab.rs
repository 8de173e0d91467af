//! A lab of the test's own, driven as a user would.

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

/// A lab that is up until this value is dropped.
pub(crate) struct Lab {
    directory: PathBuf,
}

/// What a command came to.
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

/// How often a machine that is too busy to measure is asked again, and how long it has time to get its work done before.
const MEASUREMENTS: u32 = 6;
const PAUSE: Duration = Duration::from_secs(5);

/// Measures until no machine is too busy to tell, a few times.
#[track_caller]
pub(crate) fn unless_busy(verify: impl Fn() -> Ran) -> Ran {
    for _ in 0..MEASUREMENTS {
        let ran = verify();
        let is_busy = match serde_json::from_str::<Value>(&ran.stdout) {
            Ok(report) => report["busy"].as_u64() > Some(0),
            Err(_) => ran.stdout.starts_with("too busy to measure"),
        };
        if !is_busy {
            return ran;
        }
        thread::sleep(PAUSE);
    }
    panic!("this machine is too busy to measure, {MEASUREMENTS} times in a row");
}

/// A topology that the project ships.
pub(crate) fn shipped(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("topologies").join(name)
}

impl Lab {
    /// Brings up the nodes of a topology file.
    pub(crate) fn up(topology: &Path) -> Self {
        Self::up_with(topology, &[])
    }

    /// The same with more options of `lab up`.
    pub(crate) fn up_with(topology: &Path, options: &[&str]) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let lab = Self { directory: PathBuf::from(format!("/run/netemctl-test-{}/{number}", std::process::id())) };
        let options = options.iter().map(Path::new);
        drop(lab.run(["lab", "up"].map(Path::new).into_iter().chain([topology]).chain(options)).expect(0));
        lab
    }

    /// The nine nodes of the study.
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
        #[expect(clippy::disallowed_methods, reason = "the command line is what is tested")]
        let mut command = Command::new(env!("CARGO_BIN_EXE_netemctl"));
        command.env("NETEMCTL_LAB_DIR", &self.directory).stdin(Stdio::null()).args(arguments);
        command
    }

    /// Runs `--json verify` with these options, again while a machine is too busy to tell.
    #[track_caller]
    pub(crate) fn verify(&self, options: &str) -> Ran {
        unless_busy(|| self.netemctl(&format!("--json verify {options}")))
    }

    /// Puts a topology in force; it must succeed.
    #[track_caller]
    pub(crate) fn apply(&self, topology: &Path) -> Value {
        let ran = self.run([Path::new("--json"), Path::new("apply"), topology]);
        ran.expect(0).json()
    }

    /// Writes a topology of this test's own.
    pub(crate) fn topology(&self, text: &str) -> PathBuf {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let file = self.directory.join(format!("test-{number}.toml"));
        fs::write(&file, text).unwrap();
        file
    }

    /// Runs a program in a node; it must succeed.
    #[track_caller]
    pub(crate) fn exec(&self, node: &str, line: &str) -> String {
        self.netemctl(&format!("lab exec {node} -- {line}")).expect(0).stdout
    }

    /// Everything that tc shows of all nodes' interfaces, counters and the numbers of actions aside.
    pub(crate) fn tc(&self) -> String {
        let show = "qdisc show\nclass show dev db0\nfilter show dev db0\nfilter show dev db0 ingress\n";
        let batch = self.directory.join("test-tc");
        fs::write(&batch, show).unwrap();
        // By one process a node, since this is asked for all the time.
        #[expect(clippy::disallowed_methods, reason = "what somebody else sees is what counts")]
        let tc = || Ran::from(Command::new("tc").arg("-batch").arg(&batch).output().unwrap());
        let nodes = self.state().threads;
        let shown = nodes.keys().map(|node| {
            let shown = within(self, node.as_str(), tc).expect(0).stdout;
            // The kernel numbers actions as they come, so one that is made again has another number.
            let lines = shown.lines().filter(|line| !line.starts_with("\t index ")).collect::<Vec<_>>().join("\n");
            format!("{node}\n{lines}\n")
        });
        shown.collect()
    }

    /// Everything about the nodes' management interfaces, counters aside: nothing of ours may ever touch it.
    pub(crate) fn management(&self) -> String {
        let show = "ip -o link show dev mgmt0; ip -o address show dev mgmt0; tc qdisc show dev mgmt0; ip route; ip -6 route show dev mgmt0";
        let nodes = self.state().threads;
        let shown = nodes.keys().map(|node| {
            let shown = self.run(["lab", "exec", node.as_str(), "--", "sh", "-c", show]).expect(0).stdout;
            // Which of its routes the database's interface has, it may itself have lost.
            let lines = shown.lines().filter(|line| !line.contains("dev db0")).collect::<Vec<_>>().join("\n");
            // For a moment after the lab has come up, the kernel looks for others that have its own address.
            format!("{node}\n{}\n", lines.replace(" tentative", ""))
        });
        shown.collect()
    }

    /// How often the lab's keeper and its agents woke up within a time: their threads' voluntary context switches.
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
        // A thread that ends takes its count along.
        before.iter().filter_map(|(task, before)| Some(after.get(task)? - before)).sum()
    }

    pub(crate) fn state(&self) -> State {
        LabDirectory::of_user(Some(self.directory.clone())).unwrap().find().unwrap().state
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Sets a port of the lab's bridges, such as `d2` of the second node's db0, `up` or `down`.
    #[track_caller]
    pub(crate) fn set_port(&self, port: &str, state: &str) {
        // The bridges are in the namespace of a thread of the keeper that no file names.
        let threads = format!("/proc/{}/task/*", self.state().keeper);
        let set = format!("nsenter --net=$thread/ns/net ip link set {port} {state}");
        let script = format!("for thread in {threads}; do {set} 2>/dev/null && exit; done; exit 1");
        #[expect(clippy::disallowed_methods, reason = "the cable is pulled at its other end")]
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
