//! A lab whose nodes run real sshds ([`Hosts`]). The controller host reaches the nodes only by ssh.
//!
//! Each sshd has its own mount namespace. So each node has its own `/run`, `/etc` and home of root, and its own installed
//! netemctl, or none. The sshds listen on the lab's management network only. The files of ssh and sshd are in a temporary
//! folder.

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

/// The timeout of [`wait_until`] and [`Hosts::wait_until_clean`].
const TIMEOUT: Duration = Duration::from_secs(40);

/// The script that sets up a node's mount namespace and runs its sshd. The arguments are the folder, the node, and the
/// path of netemctl. An empty path installs nothing.
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
# Other users may have no access to the folders of the file, so the file is mounted here.
[ -z "$3" ] || { : >/usr/local/bin/netemctl; mount --bind "$3" /usr/local/bin/netemctl; }
rm -rf /run/mount # mount(8) creates it
exec /usr/sbin/sshd -D -f "$1/$2.sshd" -E "$1/$2.log"
"#;

/// The sudoers file: the operator may run only the agent of netemctl as root.
const SUDOERS: &str = "\
Defaults env_reset
Defaults secure_path = /usr/local/bin:/usr/bin:/bin
operator ALL = (root) NOPASSWD: /usr/local/bin/netemctl agent --stdio *
";

/// The home of root on a node.
pub(crate) const HOME: &str = "/run/test/home";

/// A lab whose controller host reaches the nodes by ssh.
pub(crate) struct Hosts {
    pub(crate) lab: Lab,
    folder: TempDir,
    sshds: BTreeMap<String, Child>,
}

impl Hosts {
    /// Starts the nodes of a topology, each with an sshd. With `have_netemctl`, netemctl is installed on the nodes.
    pub(crate) fn up(topology: &Path, have_netemctl: bool) -> Self {
        let lab = Lab::up_with(topology, &["--controller"]);
        // The folder is in /tmp, because each node has its own /run.
        let folder = tempfile::Builder::new().prefix("netemctl-ssh-").tempdir_in("/tmp").unwrap();
        // sshd reads the keys of a user with the rights of this user.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o711)).unwrap();
        let mut hosts = Self { lab, folder, sshds: BTreeMap::new() };
        hosts.make_keys();
        hosts.make_accounts();
        let nodes: Vec<String> = hosts.lab.state().threads.keys().map(ToString::to_string).collect();
        hosts.write_config(&nodes);
        for node in &nodes {
            let sshd = hosts.start_sshd(node, have_netemctl);
            hosts.sshds.insert(node.clone(), sshd);
            // The tests use keepers and not the agents of the lab.
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

    /// Writes passwd, shadow and sudoers for the nodes. The users root and operator can log in with a key. The home of root
    /// is in the node's own `/run`. The operator may run the agent of netemctl by sudo.
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

    fn start_sshd(&self, node: &str, has_netemctl: bool) -> Child {
        let binary = if has_netemctl { env!("CARGO_BIN_EXE_netemctl") } else { "" };
        let folder = self.folder.path().to_string_lossy().into_owned();
        let arguments = ["lab", "exec", node, "--", "unshare", "-m", "sh", "-ec", HOST, "host", &folder, node, binary];
        let sshd = self.lab.command(arguments).stdout(Stdio::null()).spawn().unwrap();
        let log = self.path(&format!("{node}.log"));
        let listens = || fs::read_to_string(&log).is_ok_and(|log| log.contains("Server listening"));
        wait_until(&format!("the sshd of {node} listens"), listens);
        sshd
    }

    /// Writes the config of the agent on a node.
    pub(crate) fn configure(&self, node: &str, text: &str) {
        fs::write(self.on(node, "/etc/netemctl/agent.toml"), text).unwrap();
    }

    fn end_agent_of_lab(&self, node: &str) {
        let agents = self.processes(node);
        assert_eq!(agents.len(), 1, "one agent: {agents:?}");
        for pid in agents.keys() {
            kill_process(*pid);
        }
        wait_until("the lab's agent is gone", || self.processes(node).is_empty());
    }

    /// Runs netemctl on the controller host with an inventory of ssh hosts.
    pub(crate) fn run<A: AsRef<std::ffi::OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Ran {
        self.command(arguments).output().unwrap().into()
    }

    /// Runs netemctl like [`Hosts::run`], with arguments that are separated by spaces.
    pub(crate) fn netemctl(&self, line: &str) -> Ran {
        self.run(line.split_whitespace())
    }

    pub(crate) fn command<A: AsRef<std::ffi::OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Command {
        let mut command = self.lab.command(["lab", "exec", "controller", "--", env!("CARGO_BIN_EXE_netemctl")]);
        command.env("NETEMCTL_SSH", format!("ssh -F {}", self.path("config").display()));
        command.env("NETEMCTL_INVENTORY", self.path("inventory.toml")).args(arguments);
        command
    }

    /// Changes the text of a file in the folder of ssh and sshd. A missing file counts as empty.
    pub(crate) fn rewrite(&self, name: &str, change: impl FnOnce(String) -> String) {
        let text = fs::read_to_string(self.path(name)).unwrap_or_default();
        fs::write(self.path(name), change(text)).unwrap();
    }

    /// The command lines of the processes in a node's network namespace, by pid. Excludes sshd and the keeper of the lab.
    pub(crate) fn processes(&self, node: &str) -> BTreeMap<i32, String> {
        let network = self.lab.network(node).metadata().unwrap().ino();
        in_network(network)
            .into_iter()
            .filter(|(_, line)| !line.contains("sshd") && !line.contains("lab keep"))
            .collect()
    }

    /// The pids of the keepers on a node.
    pub(crate) fn keepers(&self, node: &str) -> Vec<i32> {
        self.processes(node).into_iter().filter(|(_, line)| line.contains("--keeper")).map(|(pid, _)| pid).collect()
    }

    /// The path of a node's file, as seen from the test.
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

    /// The files in the folders of a node where netemctl writes files.
    pub(crate) fn left_on(&self, node: &str) -> Vec<String> {
        let entries = fs::read_dir(self.on(node, "/run")).unwrap().flatten();
        let mut left: Vec<_> = entries.map(|entry| entry.file_name().display().to_string()).collect();
        left.retain(|name| name != "sshd" && name != "test");
        left.extend(self.files_below(node, HOME));
        left
    }

    /// Waits until a node has no process and no file of netemctl, except the installed program.
    #[track_caller]
    pub(crate) fn wait_until_clean(&self, node: &str) {
        let deadline = Instant::now() + TIMEOUT;
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
        // A failed test may leave processes on the nodes.
        for node in self.sshds.keys() {
            self.processes(node).into_keys().for_each(kill_process);
        }
    }
}

/// Kills a process of this test's lab.
pub(crate) fn kill_process(pid: i32) {
    // The process may have ended just before.
    let _gone = kill(Pid::from_raw(pid), Signal::SIGKILL);
}

/// The command lines of the processes in a network namespace, by pid.
fn in_network(network: u64) -> BTreeMap<i32, String> {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let process = |entry: fs::DirEntry| {
        let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
        let own = fs::metadata(entry.path().join("ns/net")).ok()?.ino();
        let line = fs::read(entry.path().join("cmdline")).ok()?;
        // A zombie process has no command line.
        (own == network && !line.is_empty()).then(|| (pid, String::from_utf8_lossy(&line).replace('\0', " ")))
    };
    processes.filter_map(process).collect()
}

#[track_caller]
pub(crate) fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + TIMEOUT;
    while !condition() {
        assert!(Instant::now() < deadline, "timeout while waiting until {what}");
        thread::sleep(Duration::from_millis(50));
    }
}

/// Copies a program without its symbols, which makes the copy small.
pub(crate) fn strip(program: &str, copy: &Path) {
    run("strip", &["-o", &copy.to_string_lossy(), program]);
}

fn run(program: &str, arguments: &[&str]) {
    #[expect(clippy::disallowed_methods, reason = "the tests use ssh-keygen and strip")]
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
}
