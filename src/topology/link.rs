//! What a packet meets on its way from one node to another: [`Link`], and the pieces that rules lay over it.
//!
//! This says nothing of which rule speaks of which nodes: that is `rules`.

use serde::{Deserialize, Serialize};

use super::units::Delay;

/// What a packet from one node to another meets, on top of the LAN itself. One direction; the way back is its own link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Link {
    /// How long the packet is held back, one way.
    pub delay: Delay,
}

impl Link {
    /// The LAN as it is, to which nothing is added.
    pub const LAN: Self = Self { delay: Delay::ZERO };

    /// Whether nothing is added to the LAN.
    pub fn is_lan(&self) -> bool {
        *self == Self::LAN
    }
}

/// What one rule says of a link: the parameters that it names, and silence about the others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct LinkPatch {
    pub(super) delay: Option<Delay>,
}

impl LinkPatch {
    /// Lays what the rule says over what earlier rules said, parameter by parameter.
    pub(super) fn over(self, link: Link) -> Link {
        Link { delay: self.delay.unwrap_or(link.delay) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_patch_changes_nothing() {
        let link = Link { delay: Delay::from_nanos(5) };
        assert_eq!(LinkPatch::default().over(link), link);
        assert_eq!(LinkPatch { delay: Some(Delay::ZERO) }.over(link), Link::LAN);
        assert!(Link::LAN.is_lan() && !link.is_lan());
    }
}
