//! Which machine the agent runs on, for an inventory: its interfaces, and which of them the agent may touch.

use super::{Config, guard};
use crate::{
    kernel::{Kernel, Mac, Port, release},
    wire::{ApiError, Host, HostInterface},
};

/// The machine of an agent with that config and kernel. Nothing is written.
pub(super) fn host<K: Kernel>(config: &Config, kernel: &mut K) -> Result<Host, ApiError> {
    let interface = |port: Port| HostInterface {
        is_allowed: config.interfaces.contains(&port.name),
        name: port.name,
        mac: port.mac.map(written),
        addresses: port.addresses,
        is_up: port.is_up,
        mtu: port.mtu,
        speed_mbit: port.speed_mbit,
        carries_default_route: port.carries_default_route,
    };
    Ok(Host {
        node: config.node.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        kernel: release(),
        interfaces: kernel.ports().map_err(guard::kernel_error)?.into_iter().map(interface).collect(),
    })
}

fn written(mac: Mac) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}
