//! Kernel steps: what a change consists of, in order, each with its inverse.

use std::{fmt, net::IpAddr};

use serde::{Deserialize, Serialize};

use super::{ClassMinor, Cut, Profile};

/// One write to the kernel that either happens or not (one batch of netlink messages).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(tag = "step", rename_all = "kebab-case")]
pub enum Step {
    /// Puts our root qdisc on the interface.
    AddRoot,
    /// Takes it off; the kernel puts its default back.
    RemoveRoot,
    /// Adds the clsact qdisc.
    AddHook,
    /// Removes it.
    RemoveHook,
    /// Adds a class, with a netem leaf where there is a profile.
    AddClass {
        /// The class.
        class: ClassMinor,
        /// Its leaf's parameters.
        profile: Option<Profile>,
    },
    /// Removes a class and its leaf.
    RemoveClass {
        /// The class.
        class: ClassMinor,
        /// What its leaf's parameters were.
        profile: Option<Profile>,
    },
    /// Changes a leaf in place; packets in flight keep their time of departure.
    ChangeLeaf {
        /// The class above the leaf.
        class: ClassMinor,
        /// What the parameters are.
        from: Profile,
        /// What they become.
        to: Profile,
    },
    /// Lets neighbour discovery pass before everything else.
    AddPass {
        /// At which hook.
        direction: Direction,
        /// Which `ICMPv6` types.
        types: Vec<u8>,
    },
    /// Removes those filters.
    RemovePass {
        /// At which hook.
        direction: Direction,
        /// Which `ICMPv6` types.
        types: Vec<u8>,
    },
    /// Fills a spare chain.
    BuildChain {
        /// The chain, not in use.
        chain: u32,
        /// Its filters.
        routes: Vec<Route>,
    },
    /// Empties a chain that is no longer in use.
    DropChain {
        /// The chain.
        chain: u32,
        /// The filters that it has.
        routes: Vec<Route>,
    },
    /// Sends all packets to another chain: the one write at which the whole set changes.
    Flip {
        /// The chain in use.
        from: Option<u32>,
        /// The chain to use.
        to: Option<u32>,
    },
    /// Drops some packets.
    Cut {
        /// Which.
        cut: Cut,
        /// The filter's handle.
        handle: u32,
    },
    /// Removes that filter.
    Uncut {
        /// Which packets it drops.
        cut: Cut,
        /// The filter's handle.
        handle: u32,
    },
}

/// Which hook of the interface: our root's filter list, or clsact's ingress.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// Packets that the node sends, matched by destination.
    Egress,
    /// Packets that the node receives, matched by source.
    Ingress,
}

/// One filter of a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Route {
    /// The destination.
    pub address: IpAddr,
    /// The class that delays it.
    pub class: ClassMinor,
    /// The filter's handle.
    pub handle: u32,
}

impl Step {
    /// The step that rolls this back one.
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
    /// Whether packets fare otherwise from this very write on. All others prepare for such a write or tidy up after it.
    pub fn takes_effect(&self) -> bool {
        matches!(self, Self::Cut { .. } | Self::Uncut { .. } | Self::Flip { .. } | Self::ChangeLeaf { .. })
    }

    /// Whether it is a single message, which the kernel does whole or not at all. With the root, the length of the
    /// interface's queue may change.
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
            Self::AddRoot => write!(f, "take the interface: root htb"),
            Self::RemoveRoot => write!(f, "give the interface back: remove root htb"),
            Self::AddHook => write!(f, "add the ingress hook (clsact)"),
            Self::RemoveHook => write!(f, "remove the ingress hook (clsact)"),
            Self::AddClass { class, profile: None } => write!(f, "add class {class:x}, undelayed"),
            Self::RemoveClass { class, profile: None } => write!(f, "remove class {class:x}"),
            Self::AddClass { class, profile: Some(profile) } => write!(f, "add class {class:x}: {profile}"),
            Self::RemoveClass { class, profile: Some(profile) } => write!(f, "remove class {class:x}: {profile}"),
            Self::ChangeLeaf { class, from, to } => write!(f, "change class {class:x} in place: {from} → {to}"),
            Self::AddPass { direction, .. } => write!(f, "never touch neighbour discovery at {direction}"),
            Self::RemovePass { direction, .. } => write!(f, "remove the neighbour-discovery filters at {direction}"),
            Self::BuildChain { chain, routes } => write!(f, "build chain {chain}: {} addresses", routes.len()),
            Self::DropChain { chain, routes } => write!(f, "drop chain {chain}: {} addresses", routes.len()),
            Self::Flip { from: None, to: Some(to) } => write!(f, "send packets to chain {to}"),
            Self::Flip { from: Some(from), to: Some(to) } => write!(f, "flip packets from chain {from} to {to}"),
            Self::Flip { to: None, .. } => write!(f, "send packets to no chain"),
            Self::Cut { cut, .. } => write!(f, "cut {cut}"),
            Self::Uncut { cut, .. } => write!(f, "uncut {cut}"),
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
