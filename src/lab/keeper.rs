//! Runs the keeper, the process that makes and holds a lab's namespaces, links and agents: [`keep`].
//!
//! The namespaces exist only through the keeper's threads. Each agent reads from a pipe of the keeper and ends when the
//! pipe closes. So the whole lab ends with the keeper, also after `kill -9`.

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
    control,
    layout::{CONTROLLER_NUMBER, DATABASE, MANAGEMENT, certificates, database_mac, management_mac},
    node_files,
    resolver::Resolver,
};
use crate::{
    kernel::{Cable, KernelError, Links, Mac, NeighbourQuestions, NodeNamespace, expect_no_router, network_number},
    pki::{CertificateRequest, Role, Validity, store::StoreError},
    topology::NodeName,
};

/// The maximum number of nodes that resolve each other by ARP and neighbour discovery.
///
/// All namespaces of a machine share one ARP table and one NDP table. Each table has at most 1,024 resolved entries
/// (`gc_thresh3`). In a larger lab, the [`Resolver`] adds permanent entries, which do not count towards the limit.
const RESOLVED_NODES: usize = 24;

/// The timeout for the links to become operational.
const LINKS_UP_WITHIN: Duration = Duration::from_secs(10);

/// The validity of a lab's certificates, in days.
const CERTIFICATES_VALID_DAYS: u32 = 3650;

/// The error of a lab that did not start.
#[derive(Debug, Error)]
pub enum KeepError {
    /// The lab's directory cannot be used.
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
    /// The lab's files could not be mounted in the nodes.
    #[error("cannot mount the lab's files in the nodes: {0}")]
    Files(#[source] io::Error),
    /// An agent could not be started.
    #[error("cannot start the agent of {node}: {path}: {error}")]
    Start {
        /// The node.
        node: NodeName,
        /// The file that the error concerns.
        path: PathBuf,
        /// The cause.
        #[source]
        error: io::Error,
    },
    /// An agent ended at once.
    #[error("the agent of {node} ended at once ({status}); its log:\n{log}")]
    AgentEnded {
        /// The node.
        node: NodeName,
        /// Its exit status.
        status: ExitStatus,
        /// Its log.
        log: String,
    },
    /// An agent does not listen.
    #[error("the agent of {0} did not become ready within {seconds} s", seconds = READY_WITHIN.as_secs())]
    AgentSilent(NodeName),
    /// `lab up` ended before the lab was up.
    #[error("netemctl lab up ended before the lab was up: {0}")]
    CallerEnded(#[source] io::Error),
    /// Waiting for signals failed.
    #[error("cannot wait for signals: {0}")]
    Signals(#[source] io::Error),
}

/// Starts a lab, calls `ready`, and holds the lab until SIGTERM or SIGINT. Ends the lab if `ready` fails.
pub fn keep(
    directory: &LabDirectory,
    layout: &Layout,
    ready: impl FnOnce() -> io::Result<()>,
) -> Result<(), KeepError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(KeepError::Signals)?;
    // From here on, SIGTERM and SIGINT take effect only after the lab is up, so that no step is interrupted.
    let signals = runtime.block_on(async { Signals::new() }).map_err(KeepError::Signals)?;
    let _lock = directory.lock()?;
    node_files::write(directory.path(), layout)?;

    let switch = NodeNamespace::new().map_err(KeepError::Namespace)?;
    let nodes = namespaces(layout)?;
    let controller = layout.controller.as_ref().map(|_| NodeNamespace::new()).transpose();
    let controller = controller.map_err(KeepError::Namespace)?;
    wire(&switch, &nodes, controller.as_ref(), layout)?;
    for namespace in nodes.values().chain(&controller) {
        node_files::mount(directory.path(), namespace).map_err(KeepError::Files)?;
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
    ready().map_err(KeepError::CallerEnded)?;
    runtime.block_on(signals.wait_for_the_end(&requests, &mut agents));
    info!("The lab ends.");
    Ok(())
}

/// The state that is published for other processes.
fn state(
    nodes: &BTreeMap<NodeName, NodeNamespace>,
    controller: Option<&NodeNamespace>,
    layout: &Layout,
) -> Result<State, KeepError> {
    let keeper = std::process::id().cast_signed();
    let number = |namespace: &NodeNamespace| network_number(keeper, namespace.thread()).map_err(KeepError::Namespace);
    let nodes_of_lab = nodes.iter().map(|(node, namespace)| (node.clone(), namespace));
    let hosts = nodes_of_lab.chain(CONTROLLER.parse().ok().zip(controller));
    let networks = hosts.map(|(host, namespace)| Ok((host, number(namespace)?)));
    Ok(State {
        keeper,
        threads: nodes.iter().map(|(node, namespace)| (node.clone(), namespace.thread())).collect(),
        controller: controller.map(NodeNamespace::thread),
        networks: networks.collect::<Result<_, KeepError>>()?,
        layout: layout.clone(),
    })
}

fn namespaces(layout: &Layout) -> Result<BTreeMap<NodeName, NodeNamespace>, KeepError> {
    let make = |member: &Member| Ok((member.node.clone(), NodeNamespace::new().map_err(KeepError::Namespace)?));
    layout.members.iter().map(make).collect()
}

/// Makes the links of the lab, and configures the interfaces of the nodes.
///
/// The namespace `switch` gets two bridges. A veth pair connects each node to each bridge, and the controller host to
/// the management bridge.
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
        let configure = move || configure(&[(MANAGEMENT, InterfaceSetup { addresses: own, neighbours })]);
        namespace.run(configure).map_err(KeepError::Namespace)??;
    }
    let mut resolver = Resolver::of(layout);
    for member in &layout.members {
        let management = InterfaceSetup { addresses: member.management.clone(), neighbours: of_controller.clone() };
        let database = InterfaceSetup { addresses: member.database.clone(), neighbours: Vec::new() };
        let namespace = &nodes[&member.node];
        if !known.is_empty() {
            resolver
                .add(namespace.run(NeighbourQuestions::open).and_then(|opened| opened).map_err(KeepError::Namespace)?);
        }
        let are_asked = !known.is_empty();
        let configure = move || {
            configure(&[(MANAGEMENT, management), (DATABASE, database)])?;
            if are_asked { Links::open()?.ask_for_neighbours(DATABASE) } else { Ok(()) }
        };
        namespace.run(configure).map_err(KeepError::Namespace)??;
    }
    resolver.start().map_err(KeepError::Namespace)?;
    Ok(links.wait_until_up(LINKS_UP_WITHIN)?)
}

/// The addresses of an interface, and its permanent ARP and NDP entries.
struct InterfaceSetup {
    addresses: Vec<IpNetwork>,
    neighbours: Vec<(IpAddr, Mac)>,
}

fn configure(interfaces: &[(&str, InterfaceSetup)]) -> Result<(), KernelError> {
    let mut links = Links::open()?;
    links.configure("lo", &[])?;
    for (interface, InterfaceSetup { addresses, neighbours }) in interfaces {
        // A failure costs only time: a host may have no IPv6, or /proc/sys may be read-only.
        drop(expect_no_router(interface));
        links.configure(interface, addresses)?;
        links.add_neighbours(interface, neighbours)?;
    }
    Ok(())
}

/// Makes a CA for this lab, and certificates for its agents and its controller.
fn issue(directory: &Path, layout: &Layout) -> Result<(), StoreError> {
    let store = certificates(directory);
    let validity = Validity::days(CERTIFICATES_VALID_DAYS);
    let request = |role| CertificateRequest { role, hosts: Vec::new(), validity };
    let nodes = layout.members.iter().map(|member| request(Role::Agent(member.node.clone())));
    store.init(validity, false)?;
    store.issue(&nodes.chain([request(Role::Controller)]).collect::<Vec<_>>(), false)?;
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

    /// Handles requests and reaps agents until SIGTERM or SIGINT. A signal during a request takes effect after the
    /// request.
    async fn wait_for_the_end(mut self, requests: &UnixListener, agents: &mut Agents<'_>) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                _ = self.child.recv() => agents.collect(),
                () = control::answer(requests, |nodes| agents.restart(nodes).map_err(|error| error.to_string())) => {}
            }
        }
    }
}
