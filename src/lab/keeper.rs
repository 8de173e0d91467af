//! The keeper: the process that makes a lab's namespaces, links and agents, and holds them until it ends.
//!
//! It never outlives its use and leaves nothing behind: the namespaces exist only through its threads, and every agent
//! reads from a pipe that breaks when the keeper ends, even by `kill -9`, whereupon the agent ends too.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    net::IpAddr,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use ipnetwork::IpNetwork;
use thiserror::Error;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{info, warn};

use super::{
    LabDirectory, LabError, Layout, Member, State,
    layout::{
        CONTROLLER_NUMBER, DATABASE, MANAGEMENT, agent_port, agent_socket, certificates, database_mac, management_mac,
        node_directory,
    },
};
use crate::{
    kernel::{Cable, KernelError, Links, Mac, NodeNamespace, mount_over, mount_sysfs},
    pki::{CA_FILE, CERTIFICATE_FILE, KEY_FILE, Role, Validity, Wish, store::StoreError},
    topology::NodeName,
};

/// Up to how many nodes resolve each other by ARP and neighbour discovery.
///
/// All namespaces of a machine share the kernel's tables of 1,024 resolved neighbours each (`gc_thresh3`). Beyond this
/// many nodes a lab writes them down for good, which those tables do not count.
const RESOLVED_NODES: usize = 24;

/// How long the links may take until they carry packets.
const LINKS_UP_WITHIN: Duration = Duration::from_secs(10);

/// How long the certificates of a lab hold.
const CERTIFICATES_HOLD_DAYS: u32 = 3650;

/// How long an agent may take to listen.
const AGENT_READY_WITHIN: Duration = Duration::from_secs(30);

/// How long agents may take to end before they are killed.
const AGENT_END_WITHIN: Duration = Duration::from_secs(5);

/// Why a lab did not come up.
#[derive(Debug, Error)]
pub enum KeepError {
    /// The directory.
    #[error(transparent)]
    Lab(#[from] LabError),
    /// A namespace could not be made.
    #[error("cannot make a network namespace: {0}; run as root, or allow user namespaces")]
    Namespace(#[source] io::Error),
    /// The certificates could not be made.
    #[error("cannot make the lab's certificates: {0}")]
    Certificates(#[from] StoreError),
    /// A link could not be made.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// An agent could not be started.
    #[error("cannot start the agent of {0}: {1}")]
    Start(NodeName, #[source] io::Error),
    /// An agent ended at once.
    #[error("the agent of {node} ended at once ({status}); its log:\n{log}")]
    AgentEnded {
        /// Whose.
        node: NodeName,
        /// How.
        status: ExitStatus,
        /// The end of what it wrote.
        log: String,
    },
    /// An agent does not listen.
    #[error("the agent of {0} did not become ready within {seconds} s", seconds = AGENT_READY_WITHIN.as_secs())]
    AgentSilent(NodeName),
    /// Whoever asked for the lab is gone.
    #[error("nobody waits for the lab any more: {0}")]
    Unwanted(#[source] io::Error),
    /// Waiting for signals failed.
    #[error("cannot wait for signals: {0}")]
    Signals(#[source] io::Error),
}

/// Brings a lab up, calls `ready`, and holds it until SIGTERM or SIGINT. If nobody hears that it is ready, it ends.
pub fn keep(directory: &LabDirectory, layout: Layout, ready: impl FnOnce() -> io::Result<()>) -> Result<(), KeepError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(KeepError::Signals)?;
    // From here on a signal is noted and heeded at the end of the step, so that nothing is half made.
    let signals = runtime.block_on(async { Signals::new() }).map_err(KeepError::Signals)?;
    let _lock = directory.lock()?;
    let hosts = directory.path().join("hosts");
    fs::write(&hosts, layout.hosts_file()).map_err(|error| LabError::Directory { path: hosts.clone(), error })?;

    let switch = NodeNamespace::new().map_err(KeepError::Namespace)?;
    let nodes = namespaces(&layout)?;
    let controller = layout.controller.as_ref().map(|_| NodeNamespace::new()).transpose();
    let controller = controller.map_err(KeepError::Namespace)?;
    wire(&switch, &nodes, controller.as_ref(), &layout)?;
    if let Some(namespace) = &controller {
        let hosts = hosts.clone();
        let dressed = namespace.run(move || dress(&hosts)).and_then(|dressed| dressed);
        dressed.map_err(KeepError::Namespace)?;
    }
    if layout.tls {
        issue(directory.path(), &layout)?;
    }
    let mut agents = Agents::default();
    for member in &layout.members {
        let child = start(directory.path(), &nodes[&member.node], member, layout.tls, hosts.clone())?;
        agents.children.insert(member.node.clone(), child);
    }
    agents.wait_until_ready(directory.path())?;
    let threads = nodes.iter().map(|(node, namespace)| (node.clone(), namespace.thread())).collect();
    let controller = controller.as_ref().map(NodeNamespace::thread);
    directory.publish(&State { keeper: std::process::id().cast_signed(), threads, controller, layout })?;
    info!(nodes = nodes.len(), "The lab is up.");
    ready().map_err(KeepError::Unwanted)?;
    runtime.block_on(signals.wait_for_the_end(&mut agents));
    info!("The lab ends.");
    Ok(())
}

fn namespaces(layout: &Layout) -> Result<BTreeMap<NodeName, NodeNamespace>, KeepError> {
    let make = |member: &Member| Ok((member.node.clone(), NodeNamespace::new().map_err(KeepError::Namespace)?));
    layout.members.iter().map(make).collect()
}

/// Two bridges in the lab's own namespace, a cable from each to every node, addresses at the nodes' ends; a cable to the
/// controller host from that for management.
fn wire(
    switch: &NodeNamespace,
    nodes: &BTreeMap<NodeName, NodeNamespace>,
    controller: Option<&NodeNamespace>,
    layout: &Layout,
) -> Result<(), KeepError> {
    let mut links = switch.run(Links::open).and_then(|links| links).map_err(KeepError::Namespace)?;
    let (management, database) = (links.add_bridge("mgmt")?, links.add_bridge("db")?);
    let numbered = || layout.members.iter().zip(1..);
    let cables = |bridge, prefix: &str, interface, mac: fn(u16) -> Mac| -> Vec<Cable<'_>> {
        let cable = |(member, number): (&Member, u16)| Cable {
            bridge,
            port: format!("{prefix}{number}"),
            namespace: nodes[&member.node].network(),
            interface,
            mac: mac(number),
        };
        numbered().map(cable).collect()
    };
    links.add_cables(&cables(management, "m", MANAGEMENT, management_mac))?;
    links.add_cables(&cables(database, "d", DATABASE, database_mac))?;
    let known = if layout.members.len() > RESOLVED_NODES { layout.members.as_slice() } else { &[] };
    let at = |networks: &[IpNetwork], mac: Mac| -> Vec<(IpAddr, Mac)> {
        networks.iter().map(|network| (network.ip(), mac)).collect()
    };
    let mut of_controller = Vec::new();
    if let (Some(namespace), Some(own)) = (controller, layout.controller.clone()) {
        let mac = management_mac(CONTROLLER_NUMBER);
        let port = format!("m{CONTROLLER_NUMBER}");
        let cable = Cable { bridge: management, port, namespace: namespace.network(), interface: MANAGEMENT, mac };
        links.add_cables(&[cable])?;
        let neighbours =
            known.iter().zip(1..).flat_map(|(member, number)| at(&member.management, management_mac(number)));
        let neighbours = neighbours.collect();
        of_controller = if known.is_empty() { Vec::new() } else { at(&own, mac) };
        let configure = move || configure(&[(MANAGEMENT, Ends { addresses: own, neighbours })]);
        namespace.run(configure).map_err(KeepError::Namespace)??;
    }
    for member in &layout.members {
        let others = known.iter().zip(1..).filter(|(other, _)| *other != member);
        let neighbours = others.flat_map(|(other, number)| at(&other.database, database_mac(number))).collect();
        let management = Ends { addresses: member.management.clone(), neighbours: of_controller.clone() };
        let database = Ends { addresses: member.database.clone(), neighbours };
        let configure = move || configure(&[(MANAGEMENT, management), (DATABASE, database)]);
        nodes[&member.node].run(configure).map_err(KeepError::Namespace)??;
    }
    Ok(links.wait_until_up(LINKS_UP_WITHIN)?)
}

/// An interface's addresses, and the neighbours that it need not ask for.
struct Ends {
    addresses: Vec<IpNetwork>,
    neighbours: Vec<(IpAddr, Mac)>,
}

fn configure(interfaces: &[(&str, Ends)]) -> Result<(), KernelError> {
    let mut links = Links::open()?;
    links.configure("lo", &[])?;
    for (interface, Ends { addresses, neighbours }) in interfaces {
        links.configure(interface, addresses)?;
        links.add_neighbours(interface, neighbours)?;
    }
    Ok(())
}

/// Gives the calling thread's namespaces the hosts file of the lab and a sysfs of their own.
fn dress(hosts: &Path) -> io::Result<()> {
    mount_over(hosts, Path::new("/etc/hosts"))?;
    // Only the speed of the interface is read there; without it, a speed is assumed.
    if let Err(error) = mount_sysfs() {
        warn!(%error, "The node has no sysfs of its own.");
    }
    Ok(())
}

/// Makes a CA for this lab alone, and certificates for all that are in it.
fn issue(directory: &Path, layout: &Layout) -> Result<(), StoreError> {
    let store = certificates(directory);
    let validity = Validity::days(CERTIFICATES_HOLD_DAYS);
    let wish = |role| Wish { role, hosts: Vec::new(), validity };
    let nodes = layout.members.iter().map(|member| wish(Role::Agent(member.node.clone())));
    store.init(validity, false)?;
    store.issue(&nodes.chain([wish(Role::Controller)]).collect::<Vec<_>>(), false)?;
    Ok(())
}

/// Starts the agent of a node inside its namespaces, in which the hosts file and sysfs are the node's.
#[expect(clippy::disallowed_methods, reason = "the keeper is the parent of the agents")]
fn start(
    directory: &Path,
    namespace: &NodeNamespace,
    member: &Member,
    tls: bool,
    hosts: PathBuf,
) -> Result<Child, KeepError> {
    let node = &member.node;
    let home = node_directory(directory, node);
    let socket = agent_socket(directory, node);
    let prepare = || -> io::Result<Command> {
        fs::create_dir_all(&home)?;
        let config = home.join("agent.toml");
        let quoted = |text: &str| serde_json::Value::from(text).to_string();
        let mut text = format!(
            "node = {}\ninterfaces = [{}]\nsocket = {}\njournal = {}\n",
            quoted(node.as_str()),
            quoted(DATABASE),
            quoted(&socket.to_string_lossy()),
            quoted(&home.join("journal.json").to_string_lossy())
        );
        if let Some(address) = agent_port(member).filter(|_| tls) {
            let folder = certificates(directory).folder(&Role::Agent(node.clone()));
            text += &format!("listen = {}\n[tls]\n", quoted(&address.to_string()));
            for (key, file) in [("ca", CA_FILE), ("cert", CERTIFICATE_FILE), ("key", KEY_FILE)] {
                text += &format!("{key} = {}\n", quoted(&folder.join(file).to_string_lossy()));
            }
        }
        fs::write(&config, text)?;
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["agent", "--until-stdin-closes", "--config"]).arg(config);
        // What the lab's own service manager wants to hear is not for the agents to say.
        command.env_remove("NOTIFY_SOCKET");
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(File::create(home.join("agent.log"))?);
        Ok(command)
    };
    let started = prepare().and_then(|mut command| {
        namespace.run(move || -> io::Result<Child> {
            dress(&hosts)?;
            command.spawn()
        })?
    });
    started.map_err(|error| KeepError::Start(node.clone(), error))
}

/// The agents, each ended when this is dropped.
#[derive(Default)]
struct Agents {
    children: BTreeMap<NodeName, Child>,
}

impl Agents {
    fn wait_until_ready(&mut self, directory: &Path) -> Result<(), KeepError> {
        let deadline = Instant::now() + AGENT_READY_WITHIN;
        for (node, child) in &mut self.children {
            while UnixStream::connect(agent_socket(directory, node)).is_err() {
                if let Ok(Some(status)) = child.try_wait() {
                    let log = fs::read_to_string(node_directory(directory, node).join("agent.log"));
                    return Err(KeepError::AgentEnded { node: node.clone(), status, log: log.unwrap_or_default() });
                }
                if Instant::now() > deadline {
                    return Err(KeepError::AgentSilent(node.clone()));
                }
                thread::sleep(Duration::from_millis(5));
            }
        }
        Ok(())
    }

    /// Collects agents that have ended; the kernel keeps what was in force in their namespaces.
    fn collect(&mut self) {
        self.children.retain(|node, child| match child.try_wait() {
            Ok(Some(status)) => {
                warn!(%node, %status, "An agent has ended.");
                false
            }
            _ => true,
        });
    }
}

impl Drop for Agents {
    fn drop(&mut self) {
        for child in self.children.values_mut() {
            // Its end of the pipe closes, which asks it to end.
            drop(child.stdin.take());
        }
        let deadline = Instant::now() + AGENT_END_WITHIN;
        while !self.children.is_empty() && Instant::now() < deadline {
            self.children.retain(|_, child| !matches!(child.try_wait(), Ok(Some(_))));
            thread::sleep(Duration::from_millis(5));
        }
        for child in self.children.values_mut() {
            // It may have ended at this very moment.
            drop(child.kill());
            drop(child.wait());
        }
    }
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    child: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            child: signal(SignalKind::child())?,
        })
    }

    async fn wait_for_the_end(mut self, agents: &mut Agents) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                _ = self.child.recv() => agents.collect(),
            }
        }
    }
}
