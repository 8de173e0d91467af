//! Agents with the rights of `packaging/systemd`: an unprivileged user with two capabilities.

use std::{
    fs,
    os::unix::{fs::chown, net::UnixStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use netemctl::{
    fleet::{Access, Edit, Fleet, TransactionError, split},
    plan::{AgentAddress, EditError, Inventory, NodeLocation, Wanted},
    topology::{NodeName, Source, Topology},
    wire::{ErrorCode, GetStatus},
};
use tokio_util::sync::CancellationToken;

use crate::lab::Ran;

/// The user of the agents: nobody.
const USER: u32 = 65534;

/// The timeout for the start of an agent and for its answers.
const TIMEOUT: Duration = Duration::from_secs(20);

const NODES: [&str; 2] = ["n1", "n2"];

const USER_NAMESPACES: &str = "/proc/sys/user/max_user_namespaces";

/// Two nodes, each with a network namespace and an agent of [`USER`].
struct Site {
    folder: PathBuf,
    agents: [Child; 2],
}

impl Site {
    fn up(name: &str) -> Self {
        let folder = PathBuf::from(format!("/run/netemctl-service-{}-{name}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        chown(&folder, Some(USER), Some(USER)).unwrap();
        // Other users may have no access to the build folder.
        drop(run("cp", &[env!("CARGO_BIN_EXE_netemctl"), &folder.join("netemctl").to_string_lossy()]).expect(0));
        for node in NODES {
            let at = |file: &str| folder.join(format!("{node}{file}")).display().to_string();
            let config = format!(
                "node = '{node}'\ninterfaces = ['db0']\nsocket = '{}'\nsocket-group = 'nogroup'\njournal = '{}'\n",
                at(".sock"),
                at(".json")
            );
            fs::write(at(".toml"), config).unwrap();
        }
        let agents = NODES.map(|node| {
            let link = "ip link add db0 type veth peer name wire0 && ip link set wire0 up && ip link set db0 up";
            let address = address(node);
            let script = format!("{link} && ip addr add {address}/24 dev db0 && {}", agent(node));
            start(&folder, node, &["unshare", "--net", "sh", "-ec", &script])
        });
        let site = Self { folder, agents };
        for node in NODES {
            site.wait_for(node);
        }
        site
    }

    fn pid(&self, node: &str) -> u32 {
        self.agents[index(node)].id()
    }

    fn wait_for(&self, node: &str) {
        let deadline = Instant::now() + TIMEOUT;
        while UnixStream::connect(self.folder.join(format!("{node}.sock"))).is_err() {
            assert!(Instant::now() < deadline, "{}", self.log(node));
            thread::sleep(Duration::from_millis(10));
        }
    }

    fn log(&self, node: &str) -> String {
        fs::read_to_string(self.folder.join(format!("{node}.log"))).unwrap()
    }

    /// Kills an agent and starts it again in the same network namespace, which an open file keeps.
    fn start_again(&mut self, node: &str) {
        let network = fs::File::open(format!("/proc/{}/ns/net", self.pid(node))).unwrap();
        let agent_process = &mut self.agents[index(node)];
        agent_process.kill().unwrap();
        agent_process.wait().unwrap();
        let held = format!("--net=/proc/{}/fd/{}", std::process::id(), std::os::fd::AsRawFd::as_raw_fd(&network));
        self.agents[index(node)] = start(&self.folder, node, &["nsenter", &held, "sh", "-ec", &agent(node)]);
        self.wait_for(node);
    }

    fn exec(&self, node: &str, command: &[&str]) -> String {
        let network = format!("--net=/proc/{}/ns/net", self.pid(node));
        run("nsenter", &[&[network.as_str()], command].concat()).expect(0).stdout
    }

    fn tc(&self, node: &str) -> String {
        self.exec(node, &["tc", "qdisc", "show"])
    }

    fn inventory(&self) -> Inventory {
        let location = |node: &str| NodeLocation {
            agent: AgentAddress::Unix(self.folder.join(format!("{node}.sock"))),
            interface: "db0".parse().unwrap(),
            addresses: vec![address(node).parse().unwrap()],
        };
        let nodes = NODES.into_iter().map(|node| (node.parse::<NodeName>().unwrap(), location(node)));
        Inventory { nodes: nodes.collect(), ..Inventory::default() }
    }

    fn edit(
        &self,
        edit: impl FnOnce(&Wanted, Inventory) -> Result<Wanted, EditError>,
    ) -> Result<(), (ErrorCode, String)> {
        let fleet = Fleet::new(self.inventory(), Access::default());
        let interrupt = CancellationToken::new();
        let edited =
            runtime().block_on(fleet.edit(&Edit::replacing(), &interrupt, |wanted| edit(wanted, self.inventory())));
        match edited {
            Ok(_) => Ok(()),
            Err(TransactionError::Nodes { failures, left, .. }) if left.is_empty() => {
                match failures.into_values().next() {
                    Some(netemctl::fleet::CallError::Refused(error)) => Err((error.code, error.message)),
                    other => panic!("{other:?}"),
                }
            }
            Err(error) => panic!("{error}"),
        }
    }

    /// Checks that no agent reports drift.
    fn assert_no_drift(&self) {
        let fleet = Fleet::new(self.inventory(), Access::default());
        let (up, down) = split(runtime().block_on(fleet.call(TIMEOUT, |_| GetStatus {})));
        assert!(down.is_empty(), "{down:?}");
        for (node, status) in up {
            assert_eq!(status.drift, Vec::<String>::new(), "{node}");
        }
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        for agent in &mut self.agents {
            // The agent may have exited.
            drop(agent.kill());
            drop(agent.wait());
        }
        drop(fs::remove_dir_all(&self.folder));
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn index(node: &str) -> usize {
    NODES.iter().position(|other| *other == node).unwrap()
}

fn address(node: &str) -> String {
    format!("10.79.0.{}", index(node) + 1)
}

/// The shell command that starts an agent with the rights of the systemd unit.
fn agent(node: &str) -> String {
    format!(
        "exec setpriv --reuid={USER} --regid={USER} --clear-groups --no-new-privs --bounding-set=-all,+net_admin,+net_raw \
         --inh-caps=-all,+net_admin,+net_raw --ambient-caps=-all,+net_admin,+net_raw \
         ./netemctl agent --config {node}.toml"
    )
}

#[expect(clippy::disallowed_methods, reason = "the test starts the agents")]
fn start(folder: &Path, node: &str, command: &[&str]) -> Child {
    let log = fs::File::create(folder.join(format!("{node}.log"))).unwrap();
    let mut program = Command::new(command[0]);
    program.args(&command[1..]).current_dir(folder).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    program.spawn().unwrap()
}

#[expect(clippy::disallowed_methods, reason = "the test reads the kernel's state with the tools of an operator")]
fn run(program: &str, arguments: &[&str]) -> Ran {
    Command::new(program).args(arguments).output().unwrap().into()
}

/// Applies a topology with a delay and a loss. The agents test the loss in a dry run.
fn distant(wanted: &Wanted, inventory: Inventory) -> Result<Wanted, EditError> {
    let text = "name = 'distant'\nnodes = 'n[1-2]'\n[links]\ndefault = { rtt = '20ms', loss = '1%' }\n";
    wanted.with_topology(Topology::parse(Source::new("distant.toml", text)).unwrap(), inventory)
}

/// A field of `/proc/PID/status`.
fn status_field(pid: u32, key: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':')).unwrap();
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn two_capabilities_and_another_user_than_root_are_enough() {
    let site = Site::up("capable");
    let pid = site.pid("n1");
    // CAP_NET_ADMIN is bit 12, CAP_NET_RAW is bit 13.
    assert_eq!(["CapEff", "CapPrm", "CapBnd"].map(|set| status_field(pid, set)), ["0000000000003000"; 3]);
    assert_eq!([status_field(pid, "Uid"), status_field(pid, "NoNewPrivs")], ["65534 65534 65534 65534", "1"]);
    let log = site.log("n1");
    assert!(log.contains("Dry runs use a network namespace of a user namespace."), "{log}");

    let (before, sockets_before) = (site.tc("n1"), sockets(pid));
    site.edit(distant).unwrap();
    let shaped = site.tc("n1");
    assert!(shaped.contains("qdisc htb 4e7e: dev db0 root"), "{shaped}");
    assert!(shaped.contains("delay 10ms loss 1%"), "{shaped}");
    site.assert_no_drift();

    // The dry run leaves no process and no socket, which would keep its namespace.
    assert_eq!(children(pid), Vec::<String>::new());
    assert_eq!(sockets(pid), sockets_before);
    site.edit(Wanted::cleared).unwrap();
    assert_eq!(site.tc("n1"), before);
}

/// The `/proc/PID/status` files of the child processes of a process.
fn children(pid: u32) -> Vec<String> {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let status = processes.filter_map(|process| fs::read_to_string(process.path().join("status")).ok());
    status.filter(|status| status.lines().any(|line| line == format!("PPid:\t{pid}"))).collect()
}

/// The sockets of a process without Unix sockets, whose number varies with the connections.
fn sockets(pid: u32) -> Vec<String> {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
    let links = descriptors.filter_map(|descriptor| fs::read_link(descriptor.path()).ok());
    let inode = |link: PathBuf| Some(link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned());
    let unix = fs::read_to_string(format!("/proc/{pid}/net/unix")).unwrap();
    let is_unix = |inode: &str| unix.lines().any(|line| line.split_whitespace().nth(6) == Some(inode));
    links.filter_map(inode).filter(|inode| !is_unix(inode)).collect()
}

#[test]
fn without_user_namespaces_an_agent_refuses_a_new_topology_but_accepts_clear() {
    let mut site = Site::up("refused");
    let before = site.tc("n1");
    site.edit(distant).unwrap();
    let shaped = site.tc("n1");
    let allowed = fs::read_to_string(USER_NAMESPACES).unwrap();
    fs::write(USER_NAMESPACES, "0").unwrap();
    let restore = Restore { allowed };

    site.start_again("n1");
    let log = site.log("n1");
    assert!(log.contains("WARN") && log.contains("cannot create a network namespace"), "{log}");
    site.assert_no_drift();
    assert_eq!(site.tc("n1"), shaped);
    let farther = |wanted: &Wanted, inventory: Inventory| {
        let text = "name = 'farther'\nnodes = 'n[1-2]'\n[links]\ndefault = { rtt = '40ms', loss = '1%' }\n";
        wanted.with_topology(Topology::parse(Source::new("farther.toml", text)).unwrap(), inventory)
    };
    let (code, message) = site.edit(farther).unwrap_err();
    assert_eq!(code, ErrorCode::Permission);
    assert!(message.contains("user.max_user_namespaces") && message.contains("CAP_SYS_ADMIN"), "{message}");
    assert_eq!(site.tc("n1"), shaped);
    site.edit(Wanted::cleared).unwrap();
    assert_eq!(site.tc("n1"), before);
    drop(restore);
}

/// Restores the kernel's limit of user namespaces, even if the test fails.
struct Restore {
    allowed: String,
}

impl Drop for Restore {
    fn drop(&mut self) {
        drop(fs::write(USER_NAMESPACES, self.allowed.trim()));
    }
}
