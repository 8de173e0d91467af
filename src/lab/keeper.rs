//! The keeper: the process that makes a lab's namespaces, links and agents, and holds them until it ends.
//!
//! It never outlives its use and leaves nothing behind: the namespaces exist only through its threads, and every agent
//! reads from a pipe that breaks when the keeper ends, even by `kill -9`, whereupon the agent ends too.

use std::{
    collections::BTreeMap,
    io,
    net::IpAddr,
    path::{Path, PathBuf},
    process::ExitStatus,
    time::Duration,
};

use ipnetwork::IpNetwork;
use thiserror::Error;
use tokio::{
    net::UnixListener,
    signal::unix::{Signal, SignalKind, signal},
};
use tracing::info;

use super::{
    CONTROLLER, LabDirectory, LabError, Layout, Member, State,
    agents::{Agents, READY_WITHIN},
    control::{self, Request},
    dress::Wardrobe,
    layout::{CONTROLLER_NUMBER, DATABASE, MANAGEMENT, certificates, database_mac, management_mac},
};
use crate::{
    kernel::{Cable, KernelError, Links, Mac, NodeNamespace, network_number},
    pki::{CertificateRequest, Role, Validity, store::StoreError},
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
    /// The nodes could not be given the lab's files.
    #[error("cannot mount the lab's files in the nodes: {0}")]
    Dress(#[source] io::Error),
    /// An agent could not be started.
    #[error("cannot start the agent of {node}: {path}: {error}")]
    Start {
        /// Whose.
        node: NodeName,
        /// What the error is about.
        path: PathBuf,
        /// Why.
        #[source]
        error: io::Error,
    },
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
    #[error("the agent of {0} did not become ready within {seconds} s", seconds = READY_WITHIN.as_secs())]
    AgentSilent(NodeName),
    /// Whoever asked for the lab is gone.
    #[error("netemctl lab up ended before the lab was up: {0}")]
    Unwanted(#[source] io::Error),
    /// Waiting for signals failed.
    #[error("cannot wait for signals: {0}")]
    Signals(#[source] io::Error),
}

/// Brings a lab up, calls `ready`, and holds it until SIGTERM or SIGINT. If nobody hears that it is ready, it ends.
pub fn keep(
    directory: &LabDirectory,
    layout: &Layout,
    ready: impl FnOnce() -> io::Result<()>,
) -> Result<(), KeepError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(KeepError::Signals)?;
    // From here on a signal is noted and heeded at the end of the step, so that nothing is half made.
    let signals = runtime.block_on(async { Signals::new() }).map_err(KeepError::Signals)?;
    let _lock = directory.lock()?;
    let wardrobe = Wardrobe::fill(directory.path(), layout)?;

    let switch = NodeNamespace::new().map_err(KeepError::Namespace)?;
    let nodes = namespaces(layout)?;
    let controller = layout.controller.as_ref().map(|_| NodeNamespace::new()).transpose();
    let controller = controller.map_err(KeepError::Namespace)?;
    wire(&switch, &nodes, controller.as_ref(), layout)?;
    for namespace in nodes.values().chain(&controller) {
        wardrobe.dress(namespace).map_err(KeepError::Dress)?;
    }
    if layout.tls {
        issue(directory.path(), layout)?;
    }
    let requests = control::socket(directory.path());
    let requests = runtime
        .block_on(async { UnixListener::bind(&requests) })
        .map_err(|error| KeepError::Lab(LabError::Directory { path: requests.clone(), error }))?;
    let mut agents = Agents::start(directory.path(), &nodes, layout)?;
    directory.publish(&state(&nodes, controller.as_ref(), layout)?)?;
    info!(nodes = nodes.len(), "The lab is up.");
    ready().map_err(KeepError::Unwanted)?;
    runtime.block_on(signals.wait_for_the_end(&requests, &mut agents));
    info!("The lab ends.");
    Ok(())
}

/// What other processes are to know.
fn state(
    nodes: &BTreeMap<NodeName, NodeNamespace>,
    controller: Option<&NodeNamespace>,
    layout: &Layout,
) -> Result<State, KeepError> {
    let keeper = std::process::id().cast_signed();
    let number = |namespace: &NodeNamespace| network_number(keeper, namespace.thread()).map_err(KeepError::Namespace);
    let mut networks = BTreeMap::new();
    for (node, namespace) in nodes {
        networks.insert(node.clone(), number(namespace)?);
    }
    // A constant that is a valid name.
    if let (Some(namespace), Ok(name)) = (controller, CONTROLLER.parse()) {
        networks.insert(name, number(namespace)?);
    }
    Ok(State {
        keeper,
        threads: nodes.iter().map(|(node, namespace)| (node.clone(), namespace.thread())).collect(),
        controller: controller.map(NodeNamespace::thread),
        networks,
        layout: layout.clone(),
    })
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

/// Makes a CA for this lab alone, and certificates for all that are in it.
fn issue(directory: &Path, layout: &Layout) -> Result<(), StoreError> {
    let store = certificates(directory);
    let validity = Validity::days(CERTIFICATES_HOLD_DAYS);
    let wish = |role| CertificateRequest { role, hosts: Vec::new(), validity };
    let nodes = layout.members.iter().map(|member| wish(Role::Agent(member.node.clone())));
    store.init(validity, false)?;
    store.issue(&nodes.chain([wish(Role::Controller)]).collect::<Vec<_>>(), false)?;
    Ok(())
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

    /// Does what is asked meanwhile. A signal that comes during that is heeded after it.
    async fn wait_for_the_end(mut self, requests: &UnixListener, agents: &mut Agents<'_>) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                _ = self.child.recv() => agents.collect(),
                () = control::answer(requests, |Request::Restart(nodes)| {
                    agents.restart(&nodes).map_err(|error| error.to_string())
                }) => {}
            }
        }
    }
}
