//! Defines the steps of a change ([`Step`]) and their inverses, which roll the steps back.

use std::{fmt, net::IpAddr};

use serde::{Deserialize, Serialize};

use super::{ClassMinor, Cut, Profile};

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
        /// The chain.
        chain: u32,
        /// The filters of the chain.
        routes: Vec<Route>,
    },
    /// Removes a chain that is no longer active.
    DropChain {
        /// The chain.
        chain: u32,
        /// The filters of the removed chain.
        routes: Vec<Route>,
    },
    /// Makes another chain the active chain. All routes change with this one write.
    Flip {
        /// The old active chain. `None`: no chain was active.
        from: Option<u32>,
        /// The new active chain. `None`: no chain is active.
        to: Option<u32>,
    },
    /// Adds a cut.
    Cut {
        /// The cut.
        cut: Cut,
        /// The filter's handle.
        handle: u32,
    },
    /// Removes a cut.
    Uncut {
        /// The cut.
        cut: Cut,
        /// The filter's handle.
        handle: u32,
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

/// A filter of a chain. The filter assigns packets for an address to a class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Route {
    /// The destination.
    pub address: IpAddr,
    /// The class.
    pub class: ClassMinor,
    /// The filter's handle.
    pub handle: u32,
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
            Self::BuildChain { chain, routes } => Self::DropChain { chain, routes },
            Self::DropChain { chain, routes } => Self::BuildChain { chain, routes },
            Self::Flip { from, to } => Self::Flip { from: to, to: from },
            Self::Cut { cut, handle } => Self::Uncut { cut, handle },
            Self::Uncut { cut, handle } => Self::Cut { cut, handle },
        }
    }
}

impl Step {
    /// True if the step changes the treatment of packets. Other steps add objects before use or remove unused objects.
    pub fn takes_effect(&self) -> bool {
        matches!(self, Self::Cut { .. } | Self::Uncut { .. } | Self::Flip { .. } | Self::ChangeLeaf { .. })
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
            Self::BuildChain { chain, routes } => write!(f, "build chain {chain}: {} addresses", routes.len()),
            Self::DropChain { chain, routes } => write!(f, "drop chain {chain}: {} addresses", routes.len()),
            Self::Flip { from: None, to: Some(to) } => write!(f, "send packets to chain {to}"),
            Self::Flip { from: Some(from), to: Some(to) } => write!(f, "switch from chain {from} to {to}"),
            Self::Flip { to: None, .. } => write!(f, "send packets to no chain"),
            Self::Cut { cut, .. } => write!(f, "cut {cut}"),
            Self::Uncut { cut, .. } => write!(f, "remove cut {cut}"),
        }
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Egress => "egress",
            Self::Ingress => "ingress",
        })
    }
}
