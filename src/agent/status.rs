//! What is in force on one node, compared with its kernel at this moment.

use std::time::Duration;

use super::{Config, enforcer::Enforcer, guard, journal::Held, timeline::Timeline};
use crate::{
    kernel::Kernel,
    plan::{Blocked, Leaf, Overlay, Partition, Tree, Wanted, diff},
    wire::{ApiError, ErrorCode, NodeStatus, OverlayStatus, PartitionStatus, ProfileStatus},
};

/// The status of a node that has `held`, at an uptime.
pub(super) fn status<K: Kernel>(
    enforcer: &mut Enforcer<K>,
    held: &Held,
    uptime: Duration,
) -> Result<NodeStatus, ApiError> {
    let Held { document, timeline } = held;
    let in_force = document.in_force(&timeline.absent(uptime));
    let Enforcer { config, kernel, .. } = enforcer;
    let Config { node, interfaces, journal, is_keeper, .. } = config;
    let place = in_force.inventory.nodes.get(node).map(|place| place.interface.clone());
    let name = place.or_else(|| interfaces.first().cloned()).ok_or_else(|| {
        ApiError::new(ErrorCode::Refused, "this agent's config allows no interface, so there is none to shape")
    })?;
    let interface = kernel.interface(&name).map_err(guard::kernel_error)?;
    let tree = kernel.observe(&interface).map_err(guard::kernel_error)?;
    let shaping = in_force.shaping(node, interface.rate);
    let (drift, foreign, draining) = match diff(shaping.as_ref(), &tree) {
        Ok(change) if change.is_settled() => (Vec::new(), Vec::new(), change.steps.len() + change.draining.len()),
        Ok(change) => (change.steps.iter().map(ToString::to_string).collect(), Vec::new(), change.draining.len()),
        Err(blocked) => {
            let why = vec![blocked.to_string()];
            let foreign = match blocked {
                Blocked::Foreign(foreign) => foreign,
                Blocked::TooManyProfiles(_) => Vec::new(),
            };
            (why, foreign, 0)
        }
    };
    Ok(NodeStatus {
        node: node.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        stamp: document.stamp(),
        unconfirmed: None,
        missing: document.missing.clone(),
        topology: in_force.topology.as_ref().map(|topology| topology.name().to_owned()),
        overlays: overlays(&in_force, timeline, uptime),
        partitions: partitions(&in_force, timeline, uptime),
        interface: name,
        profiles: profiles(&tree),
        cuts: tree.shaping().map(|shaping| shaping.cuts.into_iter().collect()).unwrap_or_default(),
        drift,
        foreign,
        draining,
        journal: journal.clone(),
        keeper: is_keeper.then(std::process::id),
    })
}

fn overlays(in_force: &Wanted, timeline: &Timeline, uptime: Duration) -> Vec<OverlayStatus> {
    let status = |overlay: &Overlay| OverlayStatus {
        name: overlay.name.clone(),
        left: timeline.standing(&overlay.id(), uptime).left.map(|left| left.as_secs_f64()),
    };
    in_force.overlays.iter().map(status).collect()
}

fn partitions(in_force: &Wanted, timeline: &Timeline, uptime: Duration) -> Vec<PartitionStatus> {
    let status = |partition: &Partition| {
        let standing = timeline.standing(&partition.id(), uptime);
        PartitionStatus {
            name: partition.name.clone(),
            is_on: standing.is_on,
            left: standing.left.map(|left| left.as_secs_f64()),
            next_change: standing.until.map(|until| until.saturating_sub(uptime).as_secs_f64()),
        }
    };
    in_force.partitions.iter().map(status).collect()
}

fn profiles(tree: &Tree) -> Vec<ProfileStatus> {
    let routes = tree.active_routes();
    let used = tree.classes_in_use();
    let status = |(class, leaf): (&u16, &Leaf)| {
        Some(ProfileStatus {
            profile: leaf.profile.filter(|_| used.contains(class))?,
            addresses: routes.values().filter(|slot| slot.class == *class).count(),
            queued: leaf.queued,
        })
    };
    tree.classes.iter().filter_map(status).collect()
}
