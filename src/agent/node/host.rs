//! Lists the interfaces of the agent's machine, for inventories, and marks those that the agent may shape.

use crate::{
    agent::Config,
    kernel::{HostNetwork, Kernel, Link, Mac, release},
    wire::{ApiError, Host, HostInterface},
};

/// Reads the machine's interfaces from the kernel.
pub(super) fn host<K: Kernel>(config: &Config, kernel: &mut K) -> Result<Host, ApiError> {
    let network = kernel.host()?;
    let links = network.links.iter().filter(|link| !link.is_loopback);
    Ok(Host {
        node: config.node.clone(),
        is_configured: !config.is_keeper,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        kernel: release(),
        interfaces: links.filter_map(|link| interface(config, &network, link)).collect(),
    })
}

fn interface(config: &Config, network: &HostNetwork, link: &Link) -> Option<HostInterface> {
    let name = link.name.parse().ok()?;
    let has_default_route = |above: &&Link| network.default_routes.iter().any(|route| route.link == Some(above.index));
    Some(HostInterface {
        is_allowed: config.interfaces.contains(&name),
        name,
        mac: link.mac.map(mac_text),
        addresses: link.addresses.clone(),
        is_up: link.is_up && link.has_carrier,
        mtu: link.mtu,
        gateways: network.gateways_by(link.index),
        forwards: network.forwards_to(link.index),
        speed_mbit: link.speed_mbit(),
        has_xdp: link.has_xdp,
        carries_default_route: network.carried_by(link.index).iter().any(has_default_route),
    })
}

fn mac_text(mac: Mac) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}
