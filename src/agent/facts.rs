//! Reads the facts about this host for `netemctl doctor`: by a running agent, or without an agent. Writes nothing.

use std::{io, path::Path};

use super::{
    Config, ConfigError, Via,
    dry_run::{self, ScratchNamespace},
    ssh::host_name,
    time,
};
use crate::{
    doctor::{Fact, Facts, InterfaceFacts, KernelFacts, Trial},
    kernel::{self, HostNetwork, Kernel, Rtnl},
    plan::{ForeignObject, IfName},
    topology::NodeName,
    wire::{ApiError, ErrorCode},
};

/// The facts that need the kernel of the node: the interfaces, and the dry runs.
pub(super) struct OwnFacts {
    config: Config,
    host: Result<HostNetwork, String>,
    via: Via,
    foreign: Vec<(IfName, Result<Vec<ForeignObject>, String>)>,
    shaping: Trial,
    rejecting: Trial,
}

impl OwnFacts {
    /// Reads the links of a kernel. `trials`: the dry runs of shaping and of rejections.
    pub(super) fn read(config: &Config, kernel: &mut impl Kernel, trials: [Result<(), ApiError>; 2], via: Via) -> Self {
        let [shaping, rejecting] = trials.map(trial);
        let mut foreign_on = |name: &IfName| {
            let interface = kernel.interface(name)?;
            kernel.observe(&interface).map(|tree| tree.foreign)
        };
        let foreign = config.interfaces.iter();
        let foreign = foreign.map(|name| (name.clone(), foreign_on(name).map_err(|error| error.to_string())));
        Self {
            foreign: foreign.collect(),
            host: kernel.host().map_err(|error| error.to_string()),
            shaping,
            rejecting,
            config: config.clone(),
            via,
        }
    }

    /// Adds the facts about the machine. Needs no access to the node.
    pub(super) fn complete(self) -> Facts {
        let Self { config, host, via, foreign, shaping, rejecting } = self;
        let interfaces = foreign.into_iter().map(|(name, foreign)| {
            let facts = match &host {
                Ok(host) => interface(&name, host, &via, foreign.into()),
                Err(why) => Fact::NotKnown(why.clone()),
            };
            (name, facts)
        });
        let carries_route = |host: &HostNetwork, index| !routes_by(host, index).is_empty();
        let unrouted = host.iter().flat_map(|host| {
            let links = host.links.iter().filter(|link| !link.is_loopback && !carries_route(host, link.index));
            links.map(|link| link.name.clone())
        });
        Facts {
            boot: time::boot(),
            kernel: KernelFacts {
                release: kernel::release(),
                distribution: kernel::facts::distribution(),
                shaping,
                rejecting,
                modules: kernel::facts::modules(),
            },
            rights: kernel::facts::rights(),
            interfaces: interfaces.collect(),
            unrouted: unrouted.collect(),
            allow: config.allow.iter().map(ToString::to_string).collect(),
            tcp: kernel::facts::tcp_facts(),
            neighbours: kernel::facts::neighbour_tables(),
            time: kernel::facts::time_facts(),
            filtering: kernel::facts::filtering(),
            programs: kernel::facts::programs(),
            synchronisers: kernel::facts::synchronisers(),
        }
    }
}

/// Reads the facts about this host without an agent. Uses the host's config of an agent, if there is one.
///
/// `interface`: the only interface to examine.
pub fn facts_here(config: &Path, interface: Option<IfName>) -> Result<(NodeName, Facts), FactsError> {
    let config = if config.exists() { Some(Config::read(config)?) } else { None };
    let unnamed = || host_name().unwrap_or_else(|| THIS_HOST.parse().unwrap_or_else(|_| unreachable!("a valid name")));
    let config = config.unwrap_or_else(|| Config::of(unnamed(), Vec::new()));
    let config = Config { interfaces: interface.map_or(config.interfaces, |only| vec![only]), ..config };
    let mut kernel = Rtnl::open().map_err(FactsError::Netlink)?;
    let sandbox = sandbox();
    let trials = [dry_run::try_shaping(&sandbox), dry_run::try_refusals(&sandbox)];
    let facts = OwnFacts::read(&config, &mut kernel, trials, Via::default()).complete();
    Ok((config.node, facts))
}

/// The reason why the kernel cannot shape; `None`: it can, or this process may not try it.
pub fn lacks_shaping() -> Option<String> {
    let error = dry_run::try_shaping(&sandbox()).err()?;
    (error.code == ErrorCode::Unsupported).then(|| error.to_string())
}

fn sandbox() -> ScratchNamespace {
    ScratchNamespace::find().unwrap_or(ScratchNamespace::InUserNamespace)
}

/// The name of a host whose own name is not valid for a node.
const THIS_HOST: &str = "this-host";

/// The reason why the facts about this host cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum FactsError {
    /// The host's config of an agent is unusable.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// No netlink socket can be opened.
    #[error("netlink: {0}")]
    Netlink(#[source] io::Error),
}

fn trial(result: Result<(), ApiError>) -> Trial {
    match result {
        Ok(()) => Trial::Works,
        Err(error) => match error.code {
            ErrorCode::Unsupported => Trial::Unsupported(error.to_string()),
            ErrorCode::Permission => Trial::Denied(error.to_string()),
            _ => Trial::Failed(error.to_string()),
        },
    }
}

/// The names of the links whose packets pass the link `index`, and that have a default route.
fn routes_by(host: &HostNetwork, index: u32) -> Vec<String> {
    let has_route = |above: u32| host.default_routes.iter().any(|route| route.link == Some(above));
    let carried = host.carried_by(index).into_iter().filter(|link| has_route(link.index));
    carried.map(|link| link.name.clone()).collect()
}

fn interface(name: &IfName, host: &HostNetwork, via: &Via, foreign: Fact<Vec<ForeignObject>>) -> Fact<InterfaceFacts> {
    let Some(link) = host.links.iter().find(|link| link.name == name.as_str()) else {
        return Fact::NotKnown(format!("interface {name} does not exist"));
    };
    let carried = host.carried_by(link.index);
    let above = carried.iter().filter(|above| above.index != link.index && Some(above.index) != link.master);
    let controller = via.local_address().and_then(|address| host.owner(address)).map(|owner| owner.index);
    let kernel::facts::Device { driver, tx_queues, features } = kernel::facts::device(name.as_str());
    let no_speed = || format!("/sys/class/net/{name}/speed has none");
    Fact::Known(InterfaceFacts {
        is_up: link.is_up,
        has_carrier: link.has_carrier,
        kind: link.kind.clone(),
        addresses: link.addresses.clone(),
        mtu: link.mtu,
        speed_mbit: link.speed_mbit().ok_or_else(no_speed).into(),
        driver,
        tx_queues,
        features,
        foreign,
        default_routes: routes_by(host, link.index).into_iter().collect(),
        above: above.map(|above| above.name.clone()).collect(),
        master: link.master.and_then(|master| host.link(master)).map(|master| master.name.clone()),
        carries_controller: carried.iter().any(|carried| controller == Some(carried.index)),
        forwards: host.forwards_to(link.index),
        has_xdp: link.has_xdp,
    })
}
