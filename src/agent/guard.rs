//! What the agent refuses, whatever the controller says. Each refusal says why and how to allow it.

use std::collections::BTreeSet;

use super::Config;
use crate::{
    kernel::{Interface, Kernel, KernelError},
    plan::{Place, Wanted},
    wire::{ApiError, ErrorCode},
};

/// Finds the interface that `wanted` has for this node, and checks that it may be touched.
pub(super) fn admit<K: Kernel + ?Sized>(
    config: &Config,
    kernel: &mut K,
    in_force: &Wanted,
    wanted: &Wanted,
) -> Result<Interface, ApiError> {
    let node = &config.node;
    wanted.inventory.check().map_err(|error| ApiError::new(ErrorCode::BadRequest, error))?;
    let place = wanted.inventory.nodes.get(node).ok_or_else(|| {
        ApiError::new(ErrorCode::BadRequest, format!("the inventory has no node {node}, which is what this agent is"))
    })?;
    if !config.interfaces.contains(&place.interface) {
        let allowed = config.interfaces.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        return Err(refused(format!(
            "interface {} is not one that this agent may touch (its config allows {allowed}); \
             add it to `interfaces` there if it is dedicated to the database",
            place.interface
        )));
    }
    let other = in_force.inventory.nodes.get(node).filter(|place_now| place_now.interface != place.interface);
    if let (Some(other), false) = (other, in_force.is_clear()) {
        return Err(refused(format!(
            "interface {} is in use; run `netemctl clear` before you move node {node} to interface {}",
            other.interface, place.interface
        )));
    }
    let interface = kernel.interface(&place.interface).map_err(kernel_error)?;
    check(&interface, place)?;
    Ok(interface)
}

/// Checks that every link of this node can be, now and when all that ends by itself has ended.
pub(super) fn check_links(config: &Config, wanted: &Wanted) -> Result<(), ApiError> {
    let timed: BTreeSet<_> = wanted.timed().collect();
    if let Some(link) = wanted.incoherent_link(&config.node) {
        return Err(refused(link.to_string()));
    }
    if let Some(loss) = wanted.loss_that_does_not_add_up(&config.node) {
        return Err(refused(loss.to_string()));
    }
    if let Some(link) = wanted.without(&timed).incoherent_link(&config.node) {
        return Err(refused(format!("when what ends by itself has ended, {link}")));
    }
    Ok(())
}

fn check(interface: &Interface, place: &Place) -> Result<(), ApiError> {
    let name = &interface.name;
    if interface.carries_default_route {
        return Err(refused(format!(
            "interface {name} carries a default route, so more than the database's traffic leaves by it; \
             use an interface dedicated to the database"
        )));
    }
    let own: BTreeSet<_> = interface.addresses.iter().collect();
    match place.addresses.iter().find(|address| !own.contains(address)) {
        Some(address) => Err(refused(format!(
            "interface {name} does not have the address {address} that the inventory gives it; correct the inventory"
        ))),
        None => Ok(()),
    }
}

/// A kernel error in the terms of the API.
pub(super) fn kernel_error(error: KernelError) -> ApiError {
    let code = match &error {
        KernelError::NoInterface(_) => ErrorCode::Refused,
        error if error.is_permission() => ErrorCode::Permission,
        _ => ErrorCode::Failed,
    };
    match code {
        ErrorCode::Permission => ApiError::new(code, format!("{error}; the agent needs CAP_NET_ADMIN")),
        _ => ApiError::new(code, error),
    }
}

fn refused(message: String) -> ApiError {
    ApiError::new(ErrorCode::Refused, message)
}
