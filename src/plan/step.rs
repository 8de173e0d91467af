//! The steps of a change. Each step has an inverse.

use std::{fmt, net::IpAddr};

use serde::{Deserialize, Serialize};

use super::{ClassMinor, Cut, Profile};

/// One write to the kernel: one batch of netlink messages.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(tag = "step", rename_all = "kebab-case")]
pub enum Step {
    /// Adds our root qdisc.
    AddRoot,
    /// Removes our root qdisc. The kernel adds its default.
    RemoveRoot,
    /// Adds the clsact qdisc.
    AddHook,
    /// Removes the clsact qdisc.
    RemoveHook,
    /// Adds a class, with a netem leaf if there is a profile.
    AddClass {
        /// The class.
        class: ClassMinor,
        /// The parameters of the leaf.
        profile: Option<Profile>,
    },
    /// Removes a class and its leaf.
    RemoveClass {
        /// The class.
        class: ClassMinor,
        /// The parameters of the leaf.
        profile: Option<Profile>,
    },
    /// Changes a leaf in place. Packets in flight keep their departure time.
    ChangeLeaf {
        /// The class above the leaf.
        class: ClassMinor,
        /// The old parameters.
        from: Profile,
        /// The new parameters.
        to: Profile,
    },
    /// Adds the filters for neighbour discovery.
    AddPass {
        /// The hook.
        direction: Direction,
        /// The `ICMPv6` types.
        types: Vec<u8>,
    },
    /// Removes the filters for neighbour discovery.
    RemovePass {
        /// The hook.
        direction: Direction,
        /// The `ICMPv6` types.
        types: Vec<u8>,
    },
    /// Builds an unused chain.
    BuildChain {
        /// The chain.
        chain: u32,
        /// The filters.
        routes: Vec<Route>,
    },
    /// Removes a chain that is no longer active.
    DropChain {
        /// The chain.
        chain: u32,
        /// The filters.
        routes: Vec<Route>,
    },
    /// Sends all packets to another chain. All routes change at this write.
    Flip {
        /// The active chain.
        from: Option<u32>,
        /// The next active chain.
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

/// The hook of an interface: the filters of our root, or of clsact's ingress.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// Packets that the node sends, matched by destination.
    Egress,
    /// Packets that the node receives, matched by source.
    Ingress,
}

/// A filter of a chain.
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
    /// True if this step changes the effect on packets. Other steps prepare for these or remove unused objects.
    pub fn takes_effect(&self) -> bool {
        matches!(self, Self::Cut { .. } | Self::Uncut { .. } | Self::Flip { .. } | Self::ChangeLeaf { .. })
    }

    /// True if the step is one message, which the kernel performs completely or not at all. The steps of the root may also
    /// set the queue length.
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
