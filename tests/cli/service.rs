//! The agent under a service manager: notifications, watchdog, socket and journal.

use std::{
    fs, io,
    os::unix::{
        fs::PermissionsExt,
        net::{UnixDatagram, UnixListener},
    },
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::{Pid, getuid},
};

use super::harness::{Answer, Sandbox, binary};

const SOON: Duration = Duration::from_secs(30);

/// An agent in its own network namespace. The test is its service manager.
struct Service {
    sandbox: Sandbox,
    manager: UnixDatagram,
    agent: Child,
}

impl Service {
    /// Starts an agent. `more` is appended to its config. `environment` can have the watchdog's interval,
    /// `WATCHDOG_USEC`.
    #[expect(clippy::disallowed_methods, reason = "a service manager starts the agent, and does not wait for its end")]
    fn start(more: &str, environment: &[(&str, &str)]) -> Self {
        let sandbox = Sandbox::new();
        let config = "node = 'n1'\ninterfaces = ['lo']\nsocket = 'agent.sock'\njournal = 'n1.json'\n";
        sandbox.write("agent.toml", format!("{config}{more}"));
        let manager = UnixDatagram::bind(sandbox.path().join("notify")).expect("the sandbox can be written");
        manager.set_read_timeout(Some(SOON)).expect("a timeout");
        let flags = if getuid().is_root() { "-n" } else { "-rn" };
        let mut command = Command::new("unshare");
        command.args([flags, binary(), "agent", "--config", "agent.toml"]).current_dir(sandbox.path());
        command.env("NOTIFY_SOCKET", sandbox.path().join("notify")).envs(environment.iter().copied());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let agent = command.spawn().expect("unshare is there");
        Self { sandbox, manager, agent }
    }

    /// The next message to the service manager.
    #[track_caller]
    fn next_message(&self) -> String {
        let mut datagram = [0; 4096];
        let size = self.manager.recv(&mut datagram).expect("the agent sends a message in time");
        String::from_utf8(datagram[..size].to_vec()).expect("UTF-8")
    }

    fn signal(&self, signal: Signal) {
        let agent = i32::try_from(self.agent.id()).expect("a process id");
        kill(Pid::from_raw(agent), signal).expect("the agent is a child of this test");
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // The agent may have ended already.
        drop(self.agent.kill());
        drop(self.agent.wait());
    }
}

#[test]
fn a_service_manager_hears_that_the_agent_is_ready_lives_and_ends() {
    let mut service = Service::start("", &[("WATCHDOG_USEC", "900000")]);
    assert_eq!(service.next_message(), "READY=1\nSTATUS=generation 0: nothing is in force");
    let socket = service.sandbox.path().join("agent.sock");
    let mode = fs::metadata(&socket).expect("a ready agent has its socket").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!([service.next_message(), service.next_message(), service.next_message()], ["WATCHDOG=1"; 3]);

    // A stopped agent sends no keep-alive, like a stuck one.
    service.signal(Signal::SIGSTOP);
    service.manager.set_read_timeout(Some(Duration::from_secs(1))).expect("a timeout");
    let mut datagram = [0; 64];
    let silence = Instant::now();
    while service.manager.recv(&mut datagram).is_ok() {
        assert!(silence.elapsed() < SOON, "a stopped agent still sends keep-alives");
    }
    service.signal(Signal::SIGCONT);
    service.manager.set_read_timeout(Some(SOON)).expect("a timeout");
    assert_eq!(service.next_message(), "WATCHDOG=1");

    service.signal(Signal::SIGTERM);
    let ending = loop {
        let message = service.next_message();
        if message != "WATCHDOG=1" {
            break message;
        }
    };
    assert_eq!(ending, "STOPPING=1\nSTATUS=stopping; the state in the kernel stays");
    assert_eq!(service.agent.wait().expect("the agent ends").code(), Some(0));
    assert!(!socket.exists());
}

#[test]
fn a_watchdog_of_another_process_is_not_fed() {
    let service = Service::start("", &[("WATCHDOG_USEC", "300000"), ("WATCHDOG_PID", "1")]);
    assert!(service.next_message().starts_with("READY=1\n"));
    service.manager.set_read_timeout(Some(Duration::from_secs(2))).expect("a timeout");
    let error = service.manager.recv(&mut [0; 64]).expect_err("the agent sends no keep-alive");
    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
}

/// Runs a shell script in its own network and mount namespaces. `agent` in the script runs an agent for a second.
fn run(sandbox: &Sandbox, script: &str) -> Answer {
    let flags = if getuid().is_root() { "-nm" } else { "-rnm" };
    let begin = "set -e; agent() { sleep 1 | \"$NETEMCTL\" agent --until-stdin-closes --config agent.toml; }; ";
    sandbox.run_other("unshare", [flags, "sh", "-c", &format!("{begin}{script}")])
}

const CONFIG: &str = "node = 'n1'\ninterfaces = ['lo']\nsocket = 'agent.sock'\njournal = 'disk/n1.json'\n";

#[test]
fn a_file_that_is_no_socket_is_not_removed_for_the_agents_own() {
    let sandbox = Sandbox::new();
    sandbox.write("agent.toml", CONFIG);
    fs::create_dir(sandbox.path().join("disk")).expect("the sandbox can be written");
    sandbox.write("agent.sock", "a file of somebody's own");
    let answer = run(&sandbox, "agent").ended(3);
    assert!(answer.stderr.contains("agent.sock is not a socket, so the agent does not remove it"), "{answer}");
    let kept = fs::read_to_string(sandbox.path().join("agent.sock")).expect("the path exists");
    assert_eq!(kept, "a file of somebody's own");
    // The agent replaces a socket without a listener, which a killed agent left behind.
    fs::remove_file(sandbox.path().join("agent.sock")).expect("the path exists");
    drop(UnixListener::bind(sandbox.path().join("agent.sock")).expect("the sandbox can be written"));
    let _started = run(&sandbox, "agent").ended(0);
}

/// systemd does not restart the agent after permanent failures, such as a bad config. A full disk is none of them.
#[test]
fn a_disk_that_cannot_be_written_is_no_permanent_failure() {
    let sandbox = Sandbox::new();
    sandbox.write("agent.toml", CONFIG);
    fs::create_dir(sandbox.path().join("disk")).expect("the sandbox can be written");
    let full = "mount -t tmpfs -o size=64k tmpfs disk; dd if=/dev/zero of=disk/fill bs=1k 2>/dev/null || true; agent";
    let answer = run(&sandbox, full).ended(0);
    assert!(answer.stderr.contains("No space left on device") && answer.stderr.contains("is ready on"), "{answer}");
    // The agent manages the state in force and refuses changes.
    let read_only = "mount -t tmpfs tmpfs disk; agent; mount -o remount,ro disk; agent";
    let answer = run(&sandbox, read_only).ended(0);
    assert_eq!(answer.stderr.matches("is ready on").count(), 2, "{answer}");
    // Without a lock file the agent cannot exclude that another agent uses this journal.
    let answer = run(&sandbox, "mount -t tmpfs -o ro tmpfs disk; agent").ended(1);
    assert!(answer.stderr.contains("Read-only file system"), "{answer}");
}

#[test]
fn a_user_cannot_block_an_interface_by_binding_the_sockets_of_its_agent() {
    if !getuid().is_root() {
        // Without root, the user namespace has no second user.
        return;
    }
    let sandbox = Sandbox::new();
    sandbox.write("agent.toml", CONFIG);
    fs::create_dir(sandbox.path().join("disk")).expect("the sandbox can be written");
    let squat = r"
import os, socket, sys
os.setuid(65534)
sockets = [socket.socket(socket.AF_UNIX) for _ in range(3)]
for taken, name in zip(sockets, ['netemctl-agent/lo', 'netemctl-agent/lo/1', 'netemctl-agent/lo/2']):
    taken.bind('\0' + name)
for taken in sockets[:2]:
    taken.listen()
print('taken', flush=True)
sys.stdin.read()
";
    sandbox.write("squat.py", squat);
    let script =
        "mkfifo end taken; python3 squat.py <end >taken & exec 3>end; read taken <taken; agent; exec 3>&-; wait";
    let answer = run(&sandbox, script).ended(0);
    assert!(
        answer.stderr.contains("User 65534 has bound the name of an agent of lo without the right to shape; ignored"),
        "{answer}"
    );
    assert!(answer.stderr.contains("is ready on"), "{answer}");
    // Another agent does block the interface, even if it has other files.
    sandbox.write("other.toml", CONFIG.replace("agent.sock", "other.sock").replace("disk/", ""));
    let script = "mkfifo first; \"$NETEMCTL\" agent --until-stdin-closes --config other.toml <first & exec 4>first; \
                  while ! [ -S other.sock ]; do sleep 0.1; done; code=0; agent || code=$?; exec 4>&-; wait; exit $code";
    let answer = run(&sandbox, script).ended(9);
    assert!(answer.stderr.contains("another agent uses interface lo"), "{answer}");
}

#[test]
fn the_socket_is_opened_to_a_group_that_the_config_names() {
    // An ordinary user can give a file only to a group that the user is in.
    let group = nix::unistd::Group::from_gid(nix::unistd::getgid()).expect("groups can be looked up");
    let group = group.expect("the current group exists").name;
    let service = Service::start(&format!("socket-group = '{group}'\n"), &[]);
    assert!(service.next_message().starts_with("READY=1\n"));
    let mode =
        fs::metadata(service.sandbox.path().join("agent.sock")).expect("the agent has its socket").permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
}

#[test]
fn a_group_that_does_not_exist_is_named_and_the_agent_does_not_start() {
    let sandbox = Sandbox::new();
    let config = "node = 'n1'\ninterfaces = []\nsocket = 'agent.sock'\nsocket-group = 'no-such-group'\n";
    sandbox.write("agent.toml", config);
    let flags = if getuid().is_root() { "-n" } else { "-rn" };
    let answer = sandbox.run_other("unshare", [flags, binary(), "agent", "--config", "agent.toml"]).ended(3);
    assert!(answer.stderr.contains("group no-such-group of `socket-group`: there is no such group"), "{answer}");
    assert!(!sandbox.path().join("agent.sock").exists(), "no stale socket is left");
}
