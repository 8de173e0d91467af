//! Computes the status of one node: compares the state in force with the kernel.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use super::{drift::DriftState, enforcer::Enforcer, journal::Held, shared::Shared, watched::Detail};
use crate::{
    agent::Config,
    kernel::{Interface, Kernel, KernelError},
    plan::{
        Blocked, ForeignObject, IfName, Inventory, Leaf, LeafCount, NodeLocation, Overlay, Partition, Tree, Wanted,
        diff, is_link_local,
    },
    topology::NodeName,
    wire::{
        ApiError, Counted, CutCounted, ErrorCode, LinkCounted, NodeStatus, OverlayStatus, PartitionStatus,
        ProfileStatus, Recovered, WatchStatus,
    },
};

/// The interface, compared with the state in force.
pub(super) struct Look {
    pub(super) interface: IfName,
    tree: Arc<Tree>,
    /// The steps that a repair would write.
    steps: Vec<String>,
    /// The repairs that only the user can make.
    by_hand: Vec<String>,
    /// Warnings of conditions that stop all packets but are no drift.
    warnings: Vec<String>,
    foreign: Vec<ForeignObject>,
    draining: usize,
}

impl Look {
    pub(super) fn drift_state(&self) -> DriftState {
        match (self.steps.is_empty(), self.by_hand.is_empty()) {
            (true, true) => DriftState::None,
            (true, false) => DriftState::ByHand,
            (false, _) => DriftState::Repairable,
        }
    }
}

/// Compares the interface with the state in force.
///
/// On a clear node, only the interface's objects can differ. On any other node, the interface also differs if it is
/// gone, is down, or lacks an address of the inventory. An [`unnamed`] address of the interface that is not in
/// `left_out` is a difference too. `detail`: what must be read again even if nobody has changed it.
pub(super) fn look<K: Kernel>(
    enforcer: &mut Enforcer<K>,
    in_force: &Shared,
    left_out: &BTreeSet<IpAddr>,
    detail: Detail,
) -> Result<Look, ApiError> {
    let Config { node, interfaces, .. } = &enforcer.config;
    let place = in_force.inventory.nodes.get(node).filter(|_| !in_force.is_clear());
    let name = in_force.inventory.nodes.get(node).map(|place| &place.interface).or_else(|| interfaces.first());
    let name = &name.cloned().ok_or_else(|| {
        ErrorCode::Refused.error("this agent's config allows no interface, so there is none to shape")
    })?;
    let mut look = Look {
        interface: name.clone(),
        tree: Arc::default(),
        steps: Vec::new(),
        by_hand: Vec::new(),
        warnings: Vec::new(),
        foreign: Vec::new(),
        draining: 0,
    };
    let seen = enforcer.kernel.interface(name);
    let seen = seen.and_then(|interface| Ok((enforcer.observe(&interface, detail)?, interface)));
    let (tree, interface) = match seen {
        Err(KernelError::NoInterface(_)) if place.is_some() => {
            let task = match enforcer.renamed(in_force)? {
                Some(Interface { name: now, .. }) => format!(
                    "interface {name} is now called {now}: rename it to {name}, or run `netemctl clear` and change the \
                     inventory and the agent's config"
                ),
                None => format!("create interface {name} again, with its addresses: it is gone"),
            };
            return Ok(Look { by_hand: vec![task], ..look });
        }
        seen => seen?,
    };
    look.by_hand = place.map_or_else(|| tree.remaining(name), |place| by_hand(&interface, place, left_out));
    look.warnings = place.and_then(|_| no_carrier(&interface)).into_iter().collect();
    match diff(enforcer.shaping(in_force, interface.rate).as_deref(), &tree) {
        Ok(change) if change.is_settled() => look.draining = change.steps.len() + change.draining.len(),
        Ok(change) => {
            look.draining = change.draining.len();
            look.steps = change.steps.iter().map(ToString::to_string).collect();
        }
        Err(blocked) => {
            look.steps = vec![blocked.to_string()];
            if let Blocked::Foreign(foreign) = blocked {
                look.foreign = foreign;
            }
        }
    }
    Ok(Look { tree, ..look })
}

/// The repairs of an interface that only the user can make.
fn by_hand(interface: &Interface, place: &NodeLocation, left_out: &BTreeSet<IpAddr>) -> Vec<String> {
    let name = &interface.name;
    let missing = place.global().filter(|address| !interface.addresses.contains(address));
    let mut by_hand: Vec<String> = missing
        .map(|address| format!("interface {name} lacks {address}; add it: ip address add {address}/PREFIX dev {name}"))
        .collect();
    by_hand.extend(unnamed(interface, place).difference(left_out).map(|address| {
        format!(
            "apply again: address {address} of interface {name} is new, and packets to it are neither delayed nor cut (an \
             inventory that lists addresses must list it; or remove it)"
        )
    }));
    if !interface.is_up {
        by_hand.push(format!("set interface {name} up (ip link set {name} up)"));
    }
    by_hand
}

/// A warning if the interface has no carrier. A missing carrier is no drift.
fn no_carrier(interface: &Interface) -> Option<String> {
    let Interface { name, is_up, has_carrier, .. } = interface;
    (*is_up && !has_carrier).then(|| format!("interface {name} has no carrier: no packet passes until it is connected"))
}

/// The repairs by the user and the warnings that the status will show when `wanted` is in force.
pub(super) fn warnings(
    node: &NodeName,
    interface: &Interface,
    wanted: &Wanted,
    left_out: &BTreeSet<IpAddr>,
) -> Vec<String> {
    let Some(place) = wanted.inventory.nodes.get(node).filter(|_| !wanted.is_clear()) else { return Vec::new() };
    by_hand(interface, place, left_out).into_iter().chain(no_carrier(interface)).collect()
}

/// The addresses of an interface that the inventory does not name, except link-local and tentative addresses.
pub(super) fn unnamed(interface: &Interface, place: &NodeLocation) -> BTreeSet<IpAddr> {
    let Interface { addresses, tentative, .. } = interface;
    let unnamed = addresses.iter().filter(|address| !place.addresses.contains(address) && !is_link_local(address));
    unnamed.filter(|address| !tentative.contains(address)).copied().collect()
}

/// The status of a node at an uptime. `held`: its document. `look`: the result of the comparison.
pub(super) fn status(
    config: &Config,
    held: &Held,
    uptime: Duration,
    look: Look,
    watch: WatchStatus,
    recovered: Option<Recovered>,
) -> NodeStatus {
    let Held { document, timeline, .. } = held;
    let in_force = document.in_force(&timeline.absent(uptime));
    let Look { interface, tree, steps, by_hand, warnings, foreign, draining } = look;
    let overlay = |overlay: &Overlay| OverlayStatus {
        name: overlay.name.clone(),
        left: timeline.state(&overlay.id(), uptime).left.map(|left| left.as_secs_f64()),
    };
    let partition = |partition: &Partition| {
        let state = timeline.state(&partition.id(), uptime);
        PartitionStatus {
            name: partition.name.clone(),
            is_on: state.is_on,
            left: state.left.map(|left| left.as_secs_f64()),
            next_change: state.until.map(|until| until.saturating_sub(uptime).as_secs_f64()),
            cut: tree.counters.cut(in_force.cuts_of(partition, &config.node)).map(|cut| cut.packets),
        }
    };
    NodeStatus {
        node: config.node.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        stamp: document.stamp(),
        unconfirmed: None,
        missing: document.missing.clone(),
        topology: in_force.topology.as_ref().map(|topology| topology.name().to_owned()),
        overlays: in_force.overlays.iter().map(overlay).collect(),
        partitions: in_force.partitions.iter().map(partition).collect(),
        interface,
        profiles: profiles(&tree, &in_force.inventory),
        cuts: tree.shaping().map(|shaping| shaping.cuts.into_iter().collect()).unwrap_or_default(),
        by_hand: by_hand.len(),
        drift: [by_hand, steps].concat(),
        warnings,
        foreign,
        draining,
        journal: config.journal.clone(),
        keeper: config.is_keeper.then(std::process::id),
        watch,
        recovered,
        routed: None,
    }
}

/// The packet counters of an interface, by link and by cut.
pub(super) fn counted(config: &Config, look: &Look) -> Counted {
    let Tree { classes, counters, .. } = &*look.tree;
    let mut addresses: BTreeMap<u16, BTreeSet<IpAddr>> = BTreeMap::new();
    for (address, slot) in look.tree.active_routes() {
        addresses.entry(slot.class).or_default().insert(*address);
    }
    let link = |(class, addresses): (u16, BTreeSet<IpAddr>)| {
        let profile = classes.get(&class)?.profile?;
        let LeafCount { sent, dropped } = counters.leaves.get(&class).copied()?;
        let overflowed = profile.overflowed(sent.packets, dropped);
        Some(LinkCounted { profile, addresses, sent, dropped, overflowed })
    };
    Counted {
        node: config.node.clone(),
        interface: look.interface.clone(),
        links: addresses.into_iter().filter_map(link).collect(),
        cuts: counters.cuts.iter().map(|(cut, dropped)| CutCounted { cut: *cut, dropped: *dropped }).collect(),
    }
}

fn profiles(tree: &Tree, inventory: &Inventory) -> Vec<ProfileStatus> {
    let routes = tree.active_routes();
    let used = tree.classes_in_use();
    let status = |(class, leaf): (&u16, &Leaf)| {
        let is_sent = |address: &IpAddr| routes.get(address).is_some_and(|target| target.class == *class);
        Some(ProfileStatus {
            profile: leaf.profile.filter(|_| used.contains(class))?,
            addresses: routes.values().filter(|target| target.class == *class).count(),
            nodes: inventory.nodes.values().filter(|location| location.addresses.iter().any(is_sent)).count(),
            queued: leaf.queued,
        })
    };
    tree.classes.iter().filter_map(status).collect()
}
