//! Defines the steps of a change ([`Step`]) and their inverses, which roll the steps back.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{ChainFilter, ClassMinor, Profile, Route};

/// A step: one write to the kernel, in one batch of netlink messages.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(tag = "step", rename_all = "kebab-case")]
pub enum Step {
    /// Adds our root qdisc.
    AddRoot,
    /// Removes our root qdisc. The kernel then adds its default qdisc.
    RemoveRoot,
    /// Adds the clsact qdisc.
    AddHook,
    /// Removes the clsact qdisc.
    RemoveHook,
    /// Adds a class. If `profile` is set, adds a netem leaf to the class.
    AddClass {
        /// The class.
        class: ClassMinor,
        /// The parameters of the leaf. `None`: no leaf.
        profile: Option<Profile>,
    },
    /// Removes a class and its leaf.
    RemoveClass {
        /// The class.
        class: ClassMinor,
        /// The parameters of the leaf. `None`: the class has no leaf.
        profile: Option<Profile>,
    },
    /// Changes a leaf in place. Packets that are already in the leaf keep their departure time.
    ChangeLeaf {
        /// The class above the leaf.
        class: ClassMinor,
        /// The old parameters.
        from: Profile,
        /// The new parameters.
        to: Profile,
    },
    /// Adds the filters that let neighbour discovery pass.
    AddPass {
        /// The place of the filters.
        direction: Direction,
        /// The `ICMPv6` types that pass.
        types: Vec<u8>,
    },
    /// Removes the filters that let neighbour discovery pass.
    RemovePass {
        /// The place of the filters.
        direction: Direction,
        /// The `ICMPv6` types of the filters.
        types: Vec<u8>,
    },
    /// Builds a chain, which packets do not use before the flip.
    BuildChain {
        /// The place of the chain.
        direction: Direction,
        /// The chain.
        chain: u32,
        /// The filters of the chain.
        filters: Vec<ChainFilter>,
    },
    /// Removes a chain that is not active.
    DropChain {
        /// The place of the chain.
        direction: Direction,
        /// The chain.
        chain: u32,
        /// The filters of the removed chain.
        filters: Vec<ChainFilter>,
    },
    /// Makes another chain the active chain. All filters of the direction change with this one write.
    Flip {
        /// The place of the chains.
        direction: Direction,
        /// The old active chain. `None`: no chain was active.
        from: Option<u32>,
        /// The new active chain. `None`: no chain is active.
        to: Option<u32>,
    },
    /// Adds a filter to the active chain.
    AddFilter {
        /// The chain.
        chain: u32,
        /// The filter.
        filter: ChainFilter,
    },
    /// Removes a filter of the active chain.
    RemoveFilter {
        /// The chain.
        chain: u32,
        /// The filter.
        filter: ChainFilter,
    },
    /// Replaces a route of the active chain: its address gets another class.
    ChangeRoute {
        /// The chain.
        chain: u32,
        /// The old route.
        from: Route,
        /// The new route, with the same address and handle.
        to: Route,
    },
}

/// The place of a filter: our root qdisc (egress), or the ingress hook of clsact.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// Packets that the node sends, matched by destination.
    Egress,
    /// Packets that the node receives, matched by source.
    Ingress,
}

impl Step {
    /// The step that rolls back this step.
    #[must_use]
    pub fn inverse(&self) -> Self {
        match self.clone() {
            Self::AddRoot => Self::RemoveRoot,
            Self::RemoveRoot => Self::AddRoot,
            Self::AddHook => Self::RemoveHook,
            Self::RemoveHook => Self::AddHook,
            Self::AddClass { class, profile } => Self::RemoveClass { class, profile },
            Self::RemoveClass { class, profile } => Self::AddClass { class, profile },
            Self::ChangeLeaf { class, from, to } => Self::ChangeLeaf { class, from: to, to: from },
            Self::AddPass { direction, types } => Self::RemovePass { direction, types },
            Self::RemovePass { direction, types } => Self::AddPass { direction, types },
            Self::BuildChain { direction, chain, filters } => Self::DropChain { direction, chain, filters },
            Self::DropChain { direction, chain, filters } => Self::BuildChain { direction, chain, filters },
            Self::Flip { direction, from, to } => Self::Flip { direction, from: to, to: from },
            Self::AddFilter { chain, filter } => Self::RemoveFilter { chain, filter },
            Self::RemoveFilter { chain, filter } => Self::AddFilter { chain, filter },
            Self::ChangeRoute { chain, from, to } => Self::ChangeRoute { chain, from: to, to: from },
        }
    }
}

impl Step {
    /// True if the step changes the treatment of packets. Other steps add objects before use or remove unused objects.
    ///
    /// Such a step is one netlink message ([`is_one_message`](Self::is_one_message)).
    pub fn takes_effect(&self) -> bool {
        matches!(
            self,
            Self::Flip { .. }
                | Self::ChangeLeaf { .. }
                | Self::AddFilter { .. }
                | Self::RemoveFilter { .. }
                | Self::ChangeRoute { .. }
        )
    }

    /// True if the step is always one netlink message. The kernel performs one message completely or not at all.
    ///
    /// [`AddRoot`](Self::AddRoot) and [`RemoveRoot`](Self::RemoveRoot) may have a second message, which sets the
    /// `txqueuelen` of an interface that has the length 0.
    pub fn is_one_message(&self) -> bool {
        !matches!(
            self,
            Self::AddRoot
                | Self::RemoveRoot
                | Self::AddClass { profile: Some(_), .. }
                | Self::AddPass { .. }
                | Self::RemovePass { .. }
                | Self::BuildChain { .. }
        )
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AddRoot => write!(f, "add root qdisc htb"),
            Self::RemoveRoot => write!(f, "remove root qdisc htb"),
            Self::AddHook => write!(f, "add the ingress hook (clsact)"),
            Self::RemoveHook => write!(f, "remove the ingress hook (clsact)"),
            Self::AddClass { class, profile: None } => write!(f, "add class {class:x}, undelayed"),
            Self::RemoveClass { class, profile: None } => write!(f, "remove class {class:x}"),
            Self::AddClass { class, profile: Some(profile) } => write!(f, "add class {class:x}: {profile}"),
            Self::RemoveClass { class, profile: Some(profile) } => write!(f, "remove class {class:x}: {profile}"),
            Self::ChangeLeaf { class, from, to } => write!(f, "change class {class:x} in place: {from} → {to}"),
            Self::AddPass { direction, .. } => write!(f, "add pass filters for neighbour discovery at {direction}"),
            Self::RemovePass { direction, .. } => {
                write!(f, "remove pass filters for neighbour discovery at {direction}")
            }
            Self::BuildChain { direction, chain, filters } => {
                write!(f, "build chain {chain} at {direction}: {}", content(filters))
            }
            Self::DropChain { direction, chain, filters } => {
                write!(f, "drop chain {chain} at {direction}: {}", content(filters))
            }
            Self::Flip { direction, from: None, to: Some(to) } => {
                write!(f, "send packets at {direction} to chain {to}")
            }
            Self::Flip { direction, from: Some(from), to: Some(to) } => {
                write!(f, "switch from chain {from} to {to} at {direction}")
            }
            Self::Flip { direction, to: None, .. } => write!(f, "send packets at {direction} to no chain"),
            Self::AddFilter { filter: ChainFilter::Cut(filter), .. } => write!(f, "cut {}", filter.cut),
            Self::RemoveFilter { filter: ChainFilter::Cut(filter), .. } => write!(f, "remove cut {}", filter.cut),
            Self::AddFilter { filter: ChainFilter::Route(Route { address, class, .. }), .. } => {
                write!(f, "send packets for {address} to class {class:x}")
            }
            Self::RemoveFilter { filter: ChainFilter::Route(Route { address, class, .. }), .. } => {
                write!(f, "send packets for {address} no more to class {class:x}")
            }
            Self::ChangeRoute { from, to, .. } => {
                write!(f, "send packets for {} to class {:x} instead of {:x}", to.address, to.class, from.class)
            }
        }
    }
}

/// The number of filters of each kind.
fn content(filters: &[ChainFilter]) -> String {
    let cuts = filters.iter().filter(|filter| matches!(filter, ChainFilter::Cut(_))).count();
    let some = |count: usize, noun: &str| {
        let plural = if count == 1 { "" } else { "s" };
        (count > 0).then(|| format!("{count} {noun}{plural}"))
    };
    let parts = [some(filters.len() - cuts, "route"), some(cuts, "cut")];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Egress => "egress",
            Self::Ingress => "ingress",
        })
    }
}
