//! A live change of links: what is laid over the topology in force, or over the bare LAN, and for how long.

use std::{collections::BTreeSet, time::Duration};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{
    TimedId, TimedKind,
    name::{MAX_NAME_CHARS, is_name},
};
use crate::topology::{Link, LinkChange, NodeName};

/// Parameters laid over the links between two sets of nodes. Of two that speak of one link, the later wins, parameter
/// by parameter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Overlay {
    /// What `unset` calls it.
    pub name: String,
    /// Whose packets meet it.
    pub from: BTreeSet<NodeName>,
    /// On their way to whom. There is no link from a node to itself.
    pub to: BTreeSet<NodeName>,
    /// Whether packets from `to` to `from` meet it as well.
    pub both_ways: bool,
    /// What it says of these links.
    pub change: LinkChange,
    /// The generation of the document in which it was laid.
    pub since: u64,
    /// How long it lasts, from the moment at which a node commits it; `None`: until it is taken off.
    #[serde(rename = "lasts_ns", with = "super::nanos::option", default)]
    #[cfg_attr(test, schemars(with = "Option<u64>"))]
    pub lasts: Option<Duration>,
}

/// What `set` asks for, in its user's words.
#[derive(Clone, Debug)]
pub struct OverlayRequest {
    /// What to call it; `None`: after its ends and its parameters.
    pub name: Option<String>,
    /// Whose packets: zones, nodes, hostlists or `*`, separated by commas.
    pub from: String,
    /// To whom, said in the same way.
    pub to: String,
    /// Whether packets in the other direction are meant as well.
    pub both_ways: bool,
    /// What to lay over these links.
    pub change: LinkChange,
    /// For how long.
    pub lasts: Option<Duration>,
}

impl OverlayRequest {
    /// Its own name, or one after its ends and its parameters: `Z1:Z3:jitter,loss`, `Z1:Z3:loss:one-way`.
    pub(super) fn name(&self) -> String {
        self.name.clone().unwrap_or_else(|| {
            let parameters: Vec<_> = self.change.parameters().map(|parameter| parameter.to_string()).collect();
            let one_way = if self.both_ways { "" } else { ":one-way" };
            format!("{}:{}:{}{one_way}", self.from, self.to, parameters.join(","))
        })
    }
}

impl Overlay {
    /// The overlay that `wish` asks for, between these nodes.
    pub(super) fn new(
        wish: OverlayRequest,
        from: BTreeSet<NodeName>,
        to: BTreeSet<NodeName>,
        since: u64,
    ) -> Result<Self, OverlayError> {
        let name = wish.name();
        if !is_name(&name) {
            return Err(OverlayError::Name(name));
        }
        let overlay = Self { name, from, to, both_ways: wish.both_ways, change: wish.change, since, lasts: wish.lasts };
        if overlay.from.iter().any(|node| overlay.receivers(node).next().is_some()) {
            Ok(overlay)
        } else {
            Err(OverlayError::NoLink(overlay.from.into_iter().collect()))
        }
    }

    /// Which laying of it this is.
    pub fn id(&self) -> TimedId {
        TimedId { kind: TimedKind::Overlay, name: self.name.clone(), since: self.since }
    }

    /// Whether packets from one node to the other meet it.
    pub fn is_about(&self, from: &NodeName, to: &NodeName) -> bool {
        let there = || self.from.contains(from) && self.to.contains(to);
        let back = || self.both_ways && self.to.contains(from) && self.from.contains(to);
        from != to && (there() || back())
    }

    /// Whether a node sends packets that meet it, so that it has something to do.
    pub fn has_sender(&self, node: &NodeName) -> bool {
        self.receivers(node).next().is_some()
    }

    /// To whom the packets from a node meet it; some of them may come twice.
    fn receivers<'a>(&'a self, node: &'a NodeName) -> impl Iterator<Item = &'a NodeName> {
        let there = self.from.contains(node).then_some(&self.to);
        let back = (self.both_ways && self.to.contains(node)).then_some(&self.from);
        there.into_iter().chain(back).flatten().filter(move |other| *other != node)
    }

    /// What the link is with this overlay.
    pub(super) fn over(&self, link: Link) -> Link {
        self.change.over(link)
    }

    /// Whether it is what `unset` calls so: by its name, or by the beginning of its name up to a colon.
    pub(super) fn is_called(&self, name: &str) -> bool {
        self.name.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with(':'))
    }

    /// Whether both say the same of the same links, without an end, whenever they were laid.
    pub(super) fn repeats(&self, other: &Self) -> bool {
        self.lasts.is_none() && Self { since: other.since, ..self.clone() } == *other
    }
}

/// Why a change of links cannot be.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum OverlayError {
    /// Not something that `unset` could be given.
    #[error(
        "`{0}` is no name for a change; choose one of 1 to {MAX_NAME_CHARS} characters without white space, with --name"
    )]
    Name(String),
    /// A node that is in no inventory.
    #[error("there is no node {0}, and a change in force is about it; take it off with netemctl unset")]
    Unknown(NodeName),
    /// A node has no link to itself.
    #[error("both ends are {}, and a node has no link to itself", crate::topology::hostlist::fold(.0))]
    NoLink(Vec<NodeName>),
    /// Nothing to take off under that name.
    #[error("no change is called `{name}`; in force: {}", if .known.is_empty() { "none".to_owned() } else { .known.join(", ") })]
    NoSuchOverlay {
        /// What was asked for.
        name: String,
        /// What there is.
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

    fn wish(from: &str, to: &str, both_ways: bool) -> OverlayRequest {
        let change = LinkChange::parse(Source::new("<set>", "delay = '5ms'"), both_ways).unwrap();
        OverlayRequest { name: None, from: from.into(), to: to.into(), both_ways, change, lasts: None }
    }

    #[test]
    fn one_way_and_both_ways_are_about_other_links() {
        let both = Overlay::new(wish("A", "B", true), set(&["n1", "n2"]), set(&["n2", "n3"]), 1).unwrap();
        let one = Overlay::new(wish("A", "B", false), set(&["n1", "n2"]), set(&["n2", "n3"]), 1).unwrap();
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
    fn a_change_between_a_node_and_itself_is_refused() {
        for both_ways in [true, false] {
            let alone = Overlay::new(wish("n1", "n1", both_ways), set(&["n1"]), set(&["n1"]), 1);
            assert_eq!(alone, Err(OverlayError::NoLink(vec![node("n1")])));
        }
        assert!(Overlay::new(wish("Z1", "Z1", true), set(&["n1", "n2"]), set(&["n1", "n2"]), 1).is_ok());
        assert!(Overlay::new(wish("n1", "Z1", false), set(&["n1"]), set(&["n1", "n2"]), 1).is_ok());
    }

    #[test]
    fn a_change_is_called_by_its_ends_and_its_parameters() {
        let overlay = Overlay::new(wish("Z1", "n[7-9]", true), set(&["n1"]), set(&["n7"]), 1).unwrap();
        assert_eq!(overlay.name, "Z1:n[7-9]:delay");
        for name in ["Z1:n[7-9]:delay", "Z1:n[7-9]", "Z1"] {
            assert!(overlay.is_called(name), "{name}");
        }
        for name in ["", "Z", "Z1:", "Z1:n", "Z1:n[7-9]:delay:one-way", "delay"] {
            assert!(!overlay.is_called(name), "{name}");
        }
        assert_eq!(wish("Z1", "Z3", false).name(), "Z1:Z3:delay:one-way");
        let named = OverlayRequest { name: Some("no good".into()), ..wish("Z1", "Z3", true) };
        assert_eq!(Overlay::new(named, set(&["n1"]), set(&["n2"]), 1), Err(OverlayError::Name("no good".into())));
    }
}
