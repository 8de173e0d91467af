//! Decodes the dumps of an interface to a [`Tree`]: our objects in the planner's types, foreign objects by name.

use std::collections::BTreeMap;

use rtnetlink::packet_route::{
    RouteNetlinkMessage,
    tc::{TcHandle, TcMessage},
};

use super::tc::{
    ROOT_HANDLE,
    filter::{self, Filter},
    foreign, kind, netem, qdisc,
};
use crate::plan::{ClassMinor, DEFAULT_CLASS, Direction, IfName, Leaf, LeafMark, MARK, ND_TYPES, Tree};

/// The dumps of one interface.
#[derive(Default)]
pub(super) struct Dumps {
    pub(super) qdiscs: Vec<TcMessage>,
    pub(super) classes: Vec<TcMessage>,
    pub(super) filters: Vec<TcMessage>,
}

impl Extend<RouteNetlinkMessage> for Dumps {
    fn extend<I: IntoIterator<Item = RouteNetlinkMessage>>(&mut self, messages: I) {
        for message in messages {
            match message {
                RouteNetlinkMessage::NewQueueDiscipline(message) => self.qdiscs.push(message),
                RouteNetlinkMessage::NewTrafficClass(message) => self.classes.push(message),
                RouteNetlinkMessage::NewTrafficFilter(message) => self.filters.push(message),
                _ => {}
            }
        }
    }
}

/// Our root qdisc, identified by its handle and kind.
pub(super) fn own_root(dumps: &Dumps) -> Option<&TcMessage> {
    dumps.qdiscs.iter().find(|qdisc| is_root(qdisc) && qdisc.header.handle == ROOT_HANDLE && kind(qdisc) == "htb")
}

/// True if the interface has a clsact, ours or foreign.
///
/// A clsact cannot carry a mark. A clsact is ours if our root exists, or if the clsact has all our ingress filters.
pub(super) fn has_hook(dumps: &Dumps) -> bool {
    dumps.qdiscs.iter().any(is_hook)
}

fn is_hook(qdisc: &TcMessage) -> bool {
    qdisc.header.parent == TcHandle::CLSACT && kind(qdisc) == "clsact"
}

/// True if the clsact has all our ingress filters for neighbour discovery.
///
/// Another program may have deleted our root and left our clsact.
fn is_left_over(filters: &[TcMessage]) -> bool {
    let passes = |filter: &&TcMessage| {
        matches!(Filter::decode(filter), Some(Filter::Pass { direction: Direction::Ingress, .. }))
    };
    filters.iter().filter(passes).count() == ND_TYPES.len()
}

/// Decodes the dumps of one interface.
pub(super) fn decode(dumps: &Dumps, interface: &IfName) -> Tree {
    let taken = own_root(dumps).is_some();
    let hook = has_hook(dumps) && (taken || is_left_over(&dumps.filters));
    let mut tree = Tree { taken, hook, ..Tree::default() };
    let mut marks = BTreeMap::new();
    for class in &dumps.classes {
        let minor = class.header.handle.minor;
        match qdisc::decode_class(class) {
            Ok(mark) => {
                tree.classes.insert(minor, Leaf::default());
                marks.insert(minor, mark);
            }
            Err(defect) => tree.foreign.push(foreign::class(class, interface, defect)),
        }
    }
    for qdisc in &dumps.qdiscs {
        add_qdisc(&mut tree, qdisc, &marks, interface);
    }
    // The kernel also lists each priority, as a filter without handle and options. These entries are ignored.
    let filters = if taken || hook { dumps.filters.as_slice() } else { &[] };
    for filter in filters.iter().filter(|filter| filter.header.handle != TcHandle::UNSPEC) {
        match Filter::decode(filter) {
            Some(decoded) => add_filter(&mut tree, decoded, filter),
            None => tree.foreign.push(foreign::filter(filter, interface)),
        }
    }
    tree
}

fn is_root(qdisc: &TcMessage) -> bool {
    qdisc.header.parent == TcHandle::ROOT
}

/// Adds a qdisc to the tree. `marks` are the marks of the classes.
fn add_qdisc(tree: &mut Tree, message: &TcMessage, marks: &BTreeMap<ClassMinor, LeafMark>, interface: &IfName) {
    let TcHandle { major: parent, minor: class } = message.header.parent;
    let is_default = message.header.handle == TcHandle::UNSPEC;
    if tree.taken && is_root(message) || tree.hook && is_hook(message) {
        // The flags `taken` and `hook` of the tree stand for these qdiscs.
    } else if tree.taken && parent == MARK && class != DEFAULT_CLASS && is_leaf_of(message, class) {
        let leaf = tree.classes.entry(class).or_default();
        leaf.profile = marks.get(&class).and_then(|mark| netem::decode_netem(message, *mark));
        leaf.queued = qdisc::queued(message);
        tree.counters.leaves.insert(class, qdisc::count(message));
    } else if !is_default && (tree.taken || is_root(message) || message.header.parent == TcHandle::CLSACT) {
        tree.foreign.push(foreign::qdisc(message, interface, tree.taken));
    }
    // The remaining qdiscs are the kernel's defaults (handle 0:) and the children of a foreign root.
}

fn is_leaf_of(message: &TcMessage, class: u16) -> bool {
    kind(message) == "netem" && message.header.handle == (TcHandle { major: class, minor: 0 })
}

fn add_filter(tree: &mut Tree, filter: Filter, message: &TcMessage) {
    match filter {
        Filter::Pass { direction: Direction::Egress, icmp_type } => drop(tree.egress_passes.insert(icmp_type)),
        Filter::Pass { direction: Direction::Ingress, icmp_type } => drop(tree.ingress_passes.insert(icmp_type)),
        Filter::Cut { cut, handle } => {
            tree.cuts.insert(cut, handle);
            tree.counters.cuts.insert(cut, filter::tally(message));
        }
        Filter::Gate { chain } => tree.active = Some(chain),
        Filter::Route { chain, route } => drop(tree.chains.entry(chain).or_default().insert(route.address, route)),
    }
}
