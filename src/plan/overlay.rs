//! Defines overlays ([`Overlay`]): changes of link parameters by the command `set`, with or without a topology.

use std::{collections::BTreeSet, time::Duration};

use serde::{Deserialize, Serialize};
use thiserror::Error;

#[cfg(test)]
use super::node_set::NodeSet;
use super::{
    TimedId, TimedKind,
    name::{MAX_NAME_CHARS, is_name},
    node_set,
};
use crate::topology::{Link, LinkChange, NodeName};

/// A live change: new parameters for the links between two sets of nodes.
///
/// If several overlays set the same parameter of a link, the latest overlay wins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Overlay {
    /// The name, as an argument of `unset`.
    pub name: String,
    /// The senders of the packets.
    #[serde(with = "node_set")]
    #[cfg_attr(test, schemars(with = "NodeSet"))]
    pub from: BTreeSet<NodeName>,
    /// The receivers of the packets. A node has no link to itself.
    #[serde(with = "node_set")]
    #[cfg_attr(test, schemars(with = "NodeSet"))]
    pub to: BTreeSet<NodeName>,
    /// True if the overlay also applies to packets from `to` to `from`.
    pub both_ways: bool,
    /// The new parameters.
    pub change: LinkChange,
    /// The generation of the document that added the overlay.
    pub since: u64,
    /// The duration, counted from the commit on each node. `None`: until `unset`.
    #[serde(rename = "lasts_ns", with = "super::nanos::option", default)]
    #[cfg_attr(test, schemars(with = "Option<u64>"))]
    pub lasts: Option<Duration>,
}

/// A request of the command `set` for an overlay.
#[derive(Clone, Debug)]
pub struct OverlayRequest {
    /// The name. `None`: a name is made from the selectors and the parameters.
    pub name: Option<String>,
    /// The selector of the senders: zones, nodes, hostlists or `*`, separated by commas.
    pub from: String,
    /// The selector of the receivers.
    pub to: String,
    /// True if the request also applies to packets in the other direction.
    pub both_ways: bool,
    /// The new parameters.
    pub change: LinkChange,
    /// The duration. `None`: until `unset`.
    pub lasts: Option<Duration>,
}

impl OverlayRequest {
    /// The requested name, or a name made from selectors and parameters: `Z1:Z3:jitter,loss`, `Z1:Z3:loss:one-way`.
    pub(super) fn name(&self) -> String {
        self.name.clone().unwrap_or_else(|| {
            let parameters: Vec<_> = self.change.parameters().map(|parameter| parameter.to_string()).collect();
            let one_way = if self.both_ways { "" } else { ":one-way" };
            format!("{}:{}:{}{one_way}", self.from, self.to, parameters.join(","))
        })
    }
}

impl Overlay {
    /// The requested overlay between these nodes.
    pub(super) fn new(
        request: OverlayRequest,
        from: BTreeSet<NodeName>,
        to: BTreeSet<NodeName>,
        since: u64,
    ) -> Result<Self, OverlayError> {
        let name = request.name();
        let OverlayRequest { both_ways, change, lasts, .. } = request;
        let overlay = Self { name, from, to, both_ways, change, since, lasts };
        overlay.check().map(|()| overlay)
    }

    /// Checks that the overlay has a valid name and at least one link.
    pub(super) fn check(&self) -> Result<(), OverlayError> {
        if !is_name(&self.name) {
            return Err(OverlayError::Name(self.name.clone()));
        }
        if !self.from.iter().any(|node| self.has_sender(node)) {
            return Err(OverlayError::NoLink(self.from.iter().cloned().collect()));
        }
        Ok(())
    }

    /// The identity of the overlay. A later overlay of the same name has another identity.
    pub fn id(&self) -> TimedId {
        TimedId { kind: TimedKind::Overlay, name: self.name.clone(), since: self.since }
    }

    /// True if the overlay applies to packets from one node to another.
    pub fn is_about(&self, from: &NodeName, to: &NodeName) -> bool {
        let there = || self.from.contains(from) && self.to.contains(to);
        let back = || self.both_ways && self.to.contains(from) && self.from.contains(to);
        from != to && (there() || back())
    }

    /// True if the overlay applies to packets that a node sends.
    pub fn has_sender(&self, node: &NodeName) -> bool {
        self.receivers(node).next().is_some()
    }

    /// The receivers of the links from `node` that the overlay changes. A receiver may occur twice.
    pub fn receivers<'a>(&'a self, node: &'a NodeName) -> impl Iterator<Item = &'a NodeName> {
        let there = self.from.contains(node).then_some(&self.to);
        let back = (self.both_ways && self.to.contains(node)).then_some(&self.from);
        there.into_iter().chain(back).flatten().filter(move |other| *other != node)
    }

    /// The link after this overlay has changed its parameters.
    pub(super) fn over(&self, link: Link) -> Link {
        self.change.over(link)
    }

    /// True if `name` is the name of the overlay, or the part of the name before one of its colons.
    pub(super) fn is_called(&self, name: &str) -> bool {
        self.name.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with(':'))
    }

    /// True if both overlays are equal and have no end. Ignores [`since`](Self::since).
    pub(super) fn repeats(&self, other: &Self) -> bool {
        self.lasts.is_none() && Self { since: other.since, ..self.clone() } == *other
    }
}

/// An error in an overlay. Messages call an overlay a change.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum OverlayError {
    /// The name is empty, is too long, or has a character that is not allowed.
    #[error("invalid name \"{0}\": --name takes 1 to {MAX_NAME_CHARS} characters without white space")]
    Name(String),
    /// A node of the overlay is not in the inventory.
    #[error("there is no node {0}, but a change in force applies to it; remove the change with netemctl unset")]
    Unknown(NodeName),
    /// The senders and the receivers are the same single node, or one of the two sets is empty.
    #[error("both ends are {}, and a node has no link to itself", crate::topology::hostlist::fold(.0))]
    NoLink(Vec<NodeName>),
    /// No overlay has the requested name, or a name that begins with the requested name and a colon.
    #[error("no change is called `{name}`; in force: {}", if .known.is_empty() { "none".to_owned() } else { .known.join(", ") })]
    NoSuchOverlay {
        /// The requested name.
        name: String,
        /// The names of the existing overlays.
        known: Vec<String>,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::Source;

    fn set(names: &[&str]) -> BTreeSet<NodeName> {
        names.iter().map(|name| name.parse().unwrap()).collect()
    }

    fn node(name: &str) -> NodeName {
        name.parse().unwrap()
    }

    fn request(from: &str, to: &str, both_ways: bool) -> OverlayRequest {
        let change = LinkChange::parse(Source::new(Source::COMMAND_LINE, "delay = '5ms'"), both_ways).unwrap();
        OverlayRequest { name: None, from: from.into(), to: to.into(), both_ways, change, lasts: None }
    }

    #[test]
    fn a_two_way_overlay_also_applies_to_the_links_back() {
        let both = Overlay::new(request("A", "B", true), set(&["n1", "n2"]), set(&["n2", "n3"]), 1).unwrap();
        let one = Overlay::new(request("A", "B", false), set(&["n1", "n2"]), set(&["n2", "n3"]), 1).unwrap();
        let pairs = |overlay: &Overlay| -> Vec<String> {
            let nodes = ["n1", "n2", "n3", "n4"].map(node);
            let pairs = nodes.iter().flat_map(|a| nodes.iter().map(move |b| (a, b)));
            pairs.filter(|(a, b)| overlay.is_about(a, b)).map(|(a, b)| format!("{a}{b}")).collect()
        };
        assert_eq!(pairs(&one), ["n1n2", "n1n3", "n2n3"]);
        assert_eq!(pairs(&both), ["n1n2", "n1n3", "n2n1", "n2n3", "n3n1", "n3n2"]);
        let senders = |overlay: &Overlay| ["n1", "n2", "n3", "n4"].map(|name| overlay.has_sender(&node(name)));
        assert_eq!(senders(&one), [true, true, false, false]);
        assert_eq!(senders(&both), [true, true, true, false]);
    }

    #[test]
    fn an_overlay_between_a_node_and_itself_is_refused() {
        for both_ways in [true, false] {
            let alone = Overlay::new(request("n1", "n1", both_ways), set(&["n1"]), set(&["n1"]), 1);
            assert_eq!(alone, Err(OverlayError::NoLink(vec![node("n1")])));
        }
        assert!(Overlay::new(request("Z1", "Z1", true), set(&["n1", "n2"]), set(&["n1", "n2"]), 1).is_ok());
        assert!(Overlay::new(request("n1", "Z1", false), set(&["n1"]), set(&["n1", "n2"]), 1).is_ok());
    }

    #[test]
    fn the_default_name_of_an_overlay_has_the_selectors_and_the_parameters() {
        let overlay = Overlay::new(request("Z1", "n[7-9]", true), set(&["n1"]), set(&["n7"]), 1).unwrap();
        assert_eq!(overlay.name, "Z1:n[7-9]:delay");
        for name in ["Z1:n[7-9]:delay", "Z1:n[7-9]", "Z1"] {
            assert!(overlay.is_called(name), "{name}");
        }
        for name in ["", "Z", "Z1:", "Z1:n", "Z1:n[7-9]:delay:one-way", "delay"] {
            assert!(!overlay.is_called(name), "{name}");
        }
        assert_eq!(request("Z1", "Z3", false).name(), "Z1:Z3:delay:one-way");
        let named = OverlayRequest { name: Some("no good".into()), ..request("Z1", "Z3", true) };
        assert_eq!(Overlay::new(named, set(&["n1"]), set(&["n2"]), 1), Err(OverlayError::Name("no good".into())));
    }
}
