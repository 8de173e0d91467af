//! From the kernel's dumps to a [`Tree`]: the same types as wanted, and everything else by name as foreign.

use std::collections::BTreeMap;

use rtnetlink::packet_route::tc::{TcHandle, TcMessage};

use super::tc::{
    ROOT_HANDLE,
    filter::{self, Filter},
    hex, kind, netem, qdisc,
};
use crate::plan::{ClassMinor, DEFAULT_CLASS, Direction, ForeignObject, Leaf, LeafMark, MARK, Slot, Tree};

/// What is read of one interface, in the kernel's own terms.
#[derive(Default)]
pub(super) struct Dumps {
    pub(super) qdiscs: Vec<TcMessage>,
    pub(super) classes: Vec<TcMessage>,
    pub(super) filters: Vec<TcMessage>,
}

/// Whether the root qdisc is ours, by its handle and kind. Only then are there classes and filters to read.
pub(super) fn is_taken(qdiscs: &[TcMessage]) -> bool {
    qdiscs.iter().any(|qdisc| is_root(qdisc) && qdisc.header.handle == ROOT_HANDLE && kind(qdisc) == "htb")
}

/// Decodes the dumps of one interface.
pub(super) fn decode(dumps: &Dumps) -> Tree {
    let mut tree = Tree { taken: is_taken(&dumps.qdiscs), ..Tree::default() };
    let mut marks = BTreeMap::new();
    for class in &dumps.classes {
        let minor = class.header.handle.minor;
        match qdisc::decode_class(class) {
            Ok(mark) => {
                tree.classes.insert(minor, Leaf::default());
                marks.insert(minor, mark);
            }
            Err(defect) => tree.foreign.push(ForeignObject(defect)),
        }
    }
    for qdisc in &dumps.qdiscs {
        place_qdisc(&mut tree, qdisc, &marks);
    }
    // The kernel shows each priority once more as a filter without handle and without options.
    for filter in dumps.filters.iter().filter(|filter| filter.header.handle != TcHandle::UNSPEC) {
        match Filter::decode(filter) {
            Some(decoded) => place_filter(&mut tree, decoded),
            None => tree.foreign.push(ForeignObject(filter::describe(filter))),
        }
    }
    tree
}

fn is_root(qdisc: &TcMessage) -> bool {
    qdisc.header.parent == TcHandle::ROOT
}

/// Places a qdisc; the marks are those of the classes.
fn place_qdisc(tree: &mut Tree, message: &TcMessage, marks: &BTreeMap<ClassMinor, LeafMark>) {
    let TcHandle { major: parent, minor: class } = message.header.parent;
    let is_default = message.header.handle == TcHandle::UNSPEC;
    if tree.taken && is_root(message) {
        // Ours.
    } else if message.header.parent == TcHandle::CLSACT && kind(message) == "clsact" && tree.taken {
        tree.hook = true;
    } else if tree.taken && parent == MARK && class != DEFAULT_CLASS && is_leaf_of(message, class) {
        let leaf = tree.classes.entry(class).or_default();
        leaf.profile = marks.get(&class).and_then(|mark| netem::decode_netem(message, *mark));
        leaf.queued = qdisc::queued(message);
    } else if !is_default && (tree.taken || is_root(message) || message.header.parent == TcHandle::CLSACT) {
        let (handle, parent) = (hex(message.header.handle), hex(message.header.parent));
        tree.foreign.push(ForeignObject(format!("qdisc {} {handle} parent {parent}", kind(message))));
    }
    // What is left are the kernel's own defaults (handle 0:) and, below a foreign root, its children.
}

fn is_leaf_of(message: &TcMessage, class: u16) -> bool {
    kind(message) == "netem" && message.header.handle == (TcHandle { major: class, minor: 0 })
}

fn place_filter(tree: &mut Tree, filter: Filter) {
    match filter {
        Filter::Pass { direction: Direction::Egress, icmp_type } => drop(tree.egress_passes.insert(icmp_type)),
        Filter::Pass { direction: Direction::Ingress, icmp_type } => drop(tree.ingress_passes.insert(icmp_type)),
        Filter::Cut { cut, handle } => drop(tree.cuts.insert(cut, handle)),
        Filter::Gate { chain } => tree.active = Some(chain),
        Filter::Route { chain, address, class, handle } => {
            tree.chains.entry(chain).or_default().insert(address, Slot { class, handle });
        }
    }
}
