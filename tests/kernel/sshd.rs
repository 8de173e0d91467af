//! Hosts that are reached by ssh alone: the nodes of a lab, each with a real sshd, and its controller host.
//!
//! Each sshd is in a mount namespace of its own, so that each node is a machine with its own `/run`, `/etc` and
//! root's home, and its own netemctl, or none. It listens on the lab's management network only. What ssh and sshd need lies in
//! a folder that goes with this value.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;

use crate::lab::{Lab, Ran};

/// How long anything may take that takes a moment.
const SOON: Duration = Duration::from_secs(40);

/// What makes a node's mount namespace a machine of its own. Arguments: the folder, the node, and netemctl, if it is
/// installed there.
const HOST: &str = r#"
mount --make-rprivate /
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -m 755 /run/sshd /run/test /run/test/etc /run/test/lower
mkdir -m 700 /run/test/home
mount --rbind /etc /run/test/lower
ln -s /run/test/lower/* /run/test/etc
rm -f /run/test/etc/passwd /run/test/etc/shadow /run/test/etc/sudoers /run/test/etc/netemctl
cp -p "$1/passwd" "$1/shadow" "$1/sudoers" /run/test/etc
mkdir /run/test/etc/netemctl
mount --bind /run/test/etc /etc
mount -t tmpfs -o mode=755 tmpfs /usr/local/bin
# The folders that the file is in may be closed to other users.
[ -z "$3" ] || { : >/usr/local/bin/netemctl; mount --bind "$3" /usr/local/bin/netemctl; }
rm -rf /run/mount # of mount(8)
exec /usr/sbin/sshd -D -f "$1/$2.sshd" -E "$1/$2.log"
"#;

/// What the operator may do as root.
const SUDOERS: &str = "\
Defaults env_reset
Defaults secure_path = /usr/local/bin:/usr/bin:/bin
operator ALL = (root) NOPASSWD: /usr/local/bin/netemctl agent --stdio *
";

/// Where root is at home on a node.
pub(crate) const HOME: &str = "/run/test/home";

/// A lab whose nodes are reached by ssh from its controller host.
pub(crate) struct Hosts {
    pub(crate) lab: Lab,
    folder: TempDir,
    sshds: BTreeMap<String, Child>,
}

impl Hosts {
    /// The nodes of a topology, with netemctl installed on them, or not.
    pub(crate) fn up(topology: &Path, are_equipped: bool) -> Self {
        let lab = Lab::up_with(topology, &["--controller"]);
        // In /tmp, since each node has a /run of its own.
        let folder = tempfile::Builder::new().prefix("netemctl-ssh-").tempdir_in("/tmp").unwrap();
        // sshd looks for a user's keys as that user.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o711)).unwrap();
        let mut hosts = Self { lab, folder, sshds: BTreeMap::new() };
        hosts.make_keys();
        hosts.make_accounts();
        let nodes: Vec<String> = hosts.lab.state().threads.keys().map(ToString::to_string).collect();
        hosts.write_config(&nodes);
        for node in &nodes {
            let sshd = hosts.start_sshd(node, are_equipped);
            hosts.sshds.insert(node.clone(), sshd);
            // What the lab brings along is not what is tested here.
            hosts.end_agent_of_lab(node);
        }
        hosts
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn make_keys(&self) {
        for name in ["host", "user", "stranger"] {
            let file = self.path(name);
            run("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-C", name, "-f", &file.to_string_lossy()]);
        }
        fs::copy(self.path("user.pub"), self.path("authorized")).unwrap();
    }

    /// Root's home is in the node's own `/run`; and root may log in by key, whatever this machine says, as may somebody
    /// who is nobody else but may run netemctl's agent by sudo.
    fn make_accounts(&self) {
        let with = |file: &str, accounts: [&str; 2]| {
            let others = fs::read_to_string(file).unwrap();
            let others: Vec<&str> = others.lines().filter(|line| !line.starts_with("root:")).collect();
            format!("{}\n{}\n", accounts.join("\n"), others.join("\n"))
        };
        let passwd = ["root:x:0:0:root:/run/test/home:/bin/sh", "operator:x:4711:4711:operator:/:/bin/sh"];
        let shadow = ["root:*:19000:0:99999:7:::", "operator:*:19000:0:99999:7:::"];
        for (name, text, mode) in [
            ("passwd", with("/etc/passwd", passwd), 0o644),
            ("shadow", with("/etc/shadow", shadow), 0o600),
            ("sudoers", SUDOERS.to_owned(), 0o440),
        ] {
            fs::write(self.path(name), text).unwrap();
            fs::set_permissions(self.path(name), fs::Permissions::from_mode(mode)).unwrap();
        }
    }

    fn write_config(&self, nodes: &[String]) {
        let folder = self.folder.path().display();
        let host_key = fs::read_to_string(self.path("host.pub")).unwrap();
        let mut config = format!(
            "Host *\n IdentityFile {folder}/user\n IdentitiesOnly yes\n UserKnownHostsFile {folder}/known\n \
             GlobalKnownHostsFile /dev/null\n StrictHostKeyChecking yes\n User root\n"
        );
        let (mut known, mut inventory) =
            (String::new(), "[defaults]\ntransport = \"ssh\"\ninterface = \"db0\"\n".to_owned());
        for (node, number) in nodes.iter().zip(1..) {
            let address = format!("10.77.0.{number}");
            fs::write(
                self.path(&format!("{node}.sshd")),
                format!(
                    "ListenAddress {address}\nHostKey {folder}/host\nAuthorizedKeysFile {folder}/authorized\n\
                     StrictModes no\nUsePAM no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n\
                     PermitRootLogin prohibit-password\nPidFile none\nPrintMotd no\nLogLevel VERBOSE\n"
                ),
            )
            .unwrap();
            config += &format!("Host host-of-{node}\n HostName {address}\n");
            known += &format!("{address} {host_key}");
            inventory += &format!(
                "[nodes.{node}]\nhost = \"host-of-{node}\"\naddresses = [\"10.78.0.{number}\", \"fd78::{number}\"]\n"
            );
        }
        fs::write(self.path("config"), config).unwrap();
        fs::write(self.path("known"), known).unwrap();
        fs::write(self.path("inventory.toml"), inventory).unwrap();
    }

    fn start_sshd(&self, node: &str, is_equipped: bool) -> Child {
        let binary = if is_equipped { env!("CARGO_BIN_EXE_netemctl") } else { "" };
        let folder = self.folder.path().to_string_lossy().into_owned();
        let arguments = ["lab", "exec", node, "--", "unshare", "-m", "sh", "-ec", HOST, "host", &folder, node, binary];
        let sshd = self.lab.command(arguments).stdout(Stdio::null()).spawn().unwrap();
        let log = self.path(&format!("{node}.log"));
        let listens = || fs::read_to_string(&log).is_ok_and(|log| log.contains("Server listening"));
        wait_until(&format!("the sshd of {node} listens"), listens);
        sshd
    }

    /// Gives a node a config of its own.
    pub(crate) fn configure(&self, node: &str, text: &str) {
        fs::write(self.on(node, "/etc/netemctl/agent.toml"), text).unwrap();
    }

    fn end_agent_of_lab(&self, node: &str) {
        let agents = self.processes(node);
        assert_eq!(agents.len(), 1, "one agent: {agents:?}");
        for pid in agents.keys() {
            end(*pid);
        }
        wait_until("the lab's agent is gone", || self.processes(node).is_empty());
    }

    /// netemctl on the controller host, by ssh.
    pub(crate) fn run<A: AsRef<std::ffi::OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Ran {
        self.command(arguments).output().unwrap().into()
    }

    /// The same with arguments that are separated by spaces.
    pub(crate) fn netemctl(&self, line: &str) -> Ran {
        self.run(line.split_whitespace())
    }

    pub(crate) fn command<A: AsRef<std::ffi::OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Command {
        let mut command = self.lab.command(["lab", "exec", "controller", "--", env!("CARGO_BIN_EXE_netemctl")]);
        command.env("NETEMCTL_SSH", format!("ssh -F {}", self.path("config").display()));
        command.env("NETEMCTL_INVENTORY", self.path("inventory.toml")).args(arguments);
        command
    }

    /// A file of ssh's or sshd's, to be replaced.
    pub(crate) fn rewrite(&self, name: &str, change: impl FnOnce(String) -> String) {
        let text = fs::read_to_string(self.path(name)).unwrap_or_default();
        fs::write(self.path(name), change(text)).unwrap();
    }

    /// The processes in the network of a node, apart from sshd's: number and command line.
    pub(crate) fn processes(&self, node: &str) -> BTreeMap<i32, String> {
        let network = self.lab.network(node).metadata().unwrap().ino();
        in_network(network)
            .into_iter()
            .filter(|(_, line)| !line.contains("sshd") && !line.contains("lab keep"))
            .collect()
    }

    /// The keepers of a node.
    pub(crate) fn keepers(&self, node: &str) -> Vec<i32> {
        self.processes(node).into_iter().filter(|(_, line)| line.contains("--keeper")).map(|(pid, _)| pid).collect()
    }

    /// A path on a node.
    pub(crate) fn on(&self, node: &str, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{path}", self.sshds[node].id()))
    }

    /// The ssh processes on the controller host.
    pub(crate) fn ssh_processes(&self) -> BTreeMap<i32, String> {
        let config = self.path("config");
        let state = self.lab.state();
        let task = format!("/proc/{}/task/{}/ns/net", state.keeper, state.controller.unwrap());
        let network = fs::metadata(task).unwrap().ino();
        in_network(network).into_iter().filter(|(_, line)| line.contains(&*config.to_string_lossy())).collect()
    }

    /// The files below a folder of a node.
    pub(crate) fn files_below(&self, node: &str, path: &str) -> Vec<String> {
        let mut files = Vec::new();
        for entry in fs::read_dir(self.on(node, path)).unwrap().flatten() {
            let path = format!("{path}/{}", entry.file_name().display());
            if entry.file_type().unwrap().is_dir() {
                files.extend(self.files_below(node, &path));
            } else {
                files.push(path);
            }
        }
        files
    }

    /// What is there of files in the places where netemctl could leave something.
    pub(crate) fn left_on(&self, node: &str) -> Vec<String> {
        let entries = fs::read_dir(self.on(node, "/run")).unwrap().flatten();
        let mut left: Vec<_> = entries.map(|entry| entry.file_name().display().to_string()).collect();
        left.retain(|name| name != "sshd" && name != "test");
        left.extend(self.files_below(node, HOME));
        left
    }

    /// Waits until a node has nothing of netemctl any more but what is installed.
    #[track_caller]
    pub(crate) fn wait_until_clean(&self, node: &str) {
        let deadline = Instant::now() + SOON;
        while !(self.processes(node).is_empty() && self.left_on(node).is_empty()) {
            assert!(Instant::now() < deadline, "{:?} {:?} on {node}", self.processes(node), self.left_on(node));
            thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        for sshd in self.sshds.values_mut() {
            drop(sshd.kill());
            drop(sshd.wait());
        }
        // What a test that failed has left there.
        for node in self.sshds.keys() {
            self.processes(node).into_keys().for_each(end);
        }
    }
}

/// Ends a process of the test's own lab.
pub(crate) fn end(pid: i32) {
    // It may have ended at this very moment.
    let _gone = kill(Pid::from_raw(pid), Signal::SIGKILL);
}

fn in_network(network: u64) -> BTreeMap<i32, String> {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let one = |entry: fs::DirEntry| {
        let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
        let own = fs::metadata(entry.path().join("ns/net")).ok()?.ino();
        let line = fs::read(entry.path().join("cmdline")).ok()?;
        // One that is dead and not collected has no command line.
        (own == network && !line.is_empty()).then(|| (pid, String::from_utf8_lossy(&line).replace('\0', " ")))
    };
    processes.filter_map(one).collect()
}

#[track_caller]
pub(crate) fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + SOON;
    while !condition() {
        assert!(Instant::now() < deadline, "in vain until {what}");
        thread::sleep(Duration::from_millis(50));
    }
}

/// Makes a small copy of a program.
pub(crate) fn strip(program: &str, copy: &Path) {
    run("strip", &["-o", &copy.to_string_lossy(), program]);
}

fn run(program: &str, arguments: &[&str]) {
    #[expect(clippy::disallowed_methods, reason = "the keys are ssh's own")]
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
}
