//! The agent and the service manager that starts it.

use std::{
    fs, io,
    os::unix::{fs::PermissionsExt, net::UnixDatagram},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::{Pid, getuid},
};

use super::harness::{Sandbox, binary};

const SOON: Duration = Duration::from_secs(30);

/// An agent in a network namespace of its own, and the service manager, which is the test.
struct Service {
    sandbox: Sandbox,
    manager: UnixDatagram,
    agent: Child,
}

impl Service {
    /// Starts an agent that is told how long it may be silent, in microseconds.
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

    /// The next thing that the service manager is told.
    #[track_caller]
    fn told(&self) -> String {
        let mut datagram = [0; 4096];
        let size = self.manager.recv(&mut datagram).expect("the agent says something soon");
        String::from_utf8(datagram[..size].to_vec()).expect("UTF-8")
    }

    fn signal(&self, signal: Signal) {
        let agent = i32::try_from(self.agent.id()).expect("a process id");
        kill(Pid::from_raw(agent), signal).expect("the agent is the test's own");
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.agent.kill());
        drop(self.agent.wait());
    }
}

#[test]
fn a_service_manager_hears_that_the_agent_is_ready_lives_and_ends() {
    let mut service = Service::start("", &[("WATCHDOG_USEC", "900000")]);
    assert_eq!(service.told(), "READY=1\nSTATUS=generation 0: nothing is in force");
    let socket = service.sandbox.path().join("agent.sock");
    let mode = fs::metadata(&socket).expect("what is ready listens").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!([service.told(), service.told(), service.told()], ["WATCHDOG=1"; 3]);

    // What is stopped is as silent as what is stuck.
    service.signal(Signal::SIGSTOP);
    service.manager.set_read_timeout(Some(Duration::from_secs(1))).expect("a timeout");
    let mut datagram = [0; 64];
    let silence = Instant::now();
    while service.manager.recv(&mut datagram).is_ok() {
        assert!(silence.elapsed() < SOON, "it goes on though it is stopped");
    }
    service.signal(Signal::SIGCONT);
    service.manager.set_read_timeout(Some(SOON)).expect("a timeout");
    assert_eq!(service.told(), "WATCHDOG=1");

    service.signal(Signal::SIGTERM);
    let ending = loop {
        let told = service.told();
        if told != "WATCHDOG=1" {
            break told;
        }
    };
    assert_eq!(ending, "STOPPING=1\nSTATUS=ending; what is in force stays in the kernel");
    assert_eq!(service.agent.wait().expect("it ends").code(), Some(0));
    assert!(!socket.exists());
}

#[test]
fn a_watchdog_of_another_process_is_not_fed() {
    let service = Service::start("", &[("WATCHDOG_USEC", "300000"), ("WATCHDOG_PID", "1")]);
    assert!(service.told().starts_with("READY=1\n"));
    service.manager.set_read_timeout(Some(Duration::from_secs(2))).expect("a timeout");
    let error = service.manager.recv(&mut [0; 64]).expect_err("nothing more is said");
    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
}

#[test]
fn the_socket_is_opened_to_a_group_that_the_config_names() {
    // The test's own group, which is the only one that whoever runs it may surely give a file to.
    let group = nix::unistd::Group::from_gid(nix::unistd::getgid()).expect("groups can be looked up");
    let group = group.expect("whoever runs the tests has a group").name;
    let service = Service::start(&format!("socket-group = '{group}'\n"), &[]);
    assert!(service.told().starts_with("READY=1\n"));
    let mode = fs::metadata(service.sandbox.path().join("agent.sock")).expect("it listens").permissions().mode();
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
    assert!(!sandbox.path().join("agent.sock").exists(), "no socket that nobody listens on is left");
}
