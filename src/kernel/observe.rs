//! Decodes the dumps of an interface to a [`Tree`]: our objects in the planner's types, foreign objects by name.

use std::collections::BTreeMap;

use rtnetlink::packet_route::{
    RouteNetlinkMessage,
    tc::{TcHandle, TcMessage},
};

use super::tc::{
    ROOT_HANDLE,
    filter::{self, Filter},
    foreign, kind, netem, options, qdisc,
};
use crate::plan::{
    ChainFilter, ClassMinor, Counters, Cut, CutFilter, DEFAULT_CLASS, ForeignObject, IfName, Leaf, LeafCount, LeafMark,
    MARK, ND_TYPES, Tally, Tree,
};

/// The qdiscs of one interface.
#[derive(Default)]
pub(super) struct Qdiscs {
    /// Our root.
    root: Option<TcMessage>,
    /// The leaves of our root. The classes have the marks that the profiles of the leaves need.
    leaves: BTreeMap<ClassMinor, UndecodedLeaf>,
    others: Vec<TcMessage>,
}

/// A leaf without its mark.
struct UndecodedLeaf {
    options: Option<Vec<u8>>,
    queued: u32,
    count: LeafCount,
}

impl Qdiscs {
    /// Adds a qdisc of a dump.
    pub(super) fn add(&mut self, qdisc: TcMessage) {
        let TcHandle { major: parent, minor: class } = qdisc.header.parent;
        if is_root(&qdisc) && qdisc.header.handle == ROOT_HANDLE && kind(&qdisc) == "htb" {
            self.root = Some(qdisc);
        } else if parent == MARK && class != DEFAULT_CLASS && is_leaf_of(&qdisc, class) {
            let (queued, count) = (qdisc::queued(&qdisc), qdisc::count(&qdisc));
            self.leaves.insert(class, UndecodedLeaf { options: options(&qdisc), queued, count });
        } else {
            self.others.push(qdisc);
        }
    }

    /// Our root qdisc, identified by its handle and kind.
    pub(super) fn own_root(&self) -> Option<&TcMessage> {
        self.root.as_ref()
    }

    /// True if the interface has a clsact, ours or foreign.
    ///
    /// A clsact cannot carry a mark. A clsact is ours if our root exists, or if the clsact has all our ingress filters.
    pub(super) fn has_hook(&self) -> bool {
        self.others.iter().any(is_hook)
    }
}

/// The classes of our root.
#[derive(Default)]
pub(super) struct Classes {
    marks: BTreeMap<ClassMinor, LeafMark>,
    foreign: Vec<ForeignObject>,
}

impl Classes {
    /// Adds a class of a dump.
    pub(super) fn add(&mut self, class: &TcMessage, interface: &IfName) {
        match qdisc::decode_class(class) {
            Ok(mark) => drop(self.marks.insert(class.header.handle.minor, mark)),
            Err(defect) => self.foreign.push(foreign::class(class, interface, defect)),
        }
    }
}

/// The filters of one interface: a tree without qdiscs and classes.
#[derive(Default)]
pub(super) struct Filters(Tree);

impl Filters {
    /// Adds a filter of a dump or an answer. Ignores other messages.
    pub(super) fn add(&mut self, message: &RouteNetlinkMessage, interface: &IfName) {
        let RouteNetlinkMessage::NewTrafficFilter(filter) = message else { return };
        // The kernel also lists each priority, as a filter without handle and options. These entries are ignored.
        if filter.header.handle == TcHandle::UNSPEC {
            return;
        }
        match Filter::decode(filter) {
            Some(decoded) => add_filter(&mut self.0, decoded, filter),
            None => self.0.foreign.push(foreign::filter(filter, interface)),
        }
    }

    /// Adds the filters of another parent or chain.
    pub(super) fn append(&mut self, other: Self) {
        let Tree { egress, ingress, counters, foreign, .. } = other.0;
        for (own, other) in [(&mut self.0.egress, egress), (&mut self.0.ingress, ingress)] {
            own.passes.extend(other.passes);
            own.active = own.active.or(other.active);
            own.chains.extend(other.chains);
        }
        counters.cuts.into_iter().for_each(|(cut, tally)| count(&mut self.0.counters, cut, tally));
        self.0.foreign.extend(foreign);
    }

    /// The filters of a tree.
    pub(super) fn of(tree: Tree) -> Self {
        Self(Tree { foreign: Vec::new(), ..tree })
    }

    /// True if at least one filter is a cut.
    pub(super) fn has_cuts(&self) -> bool {
        !self.0.counters.cuts.is_empty()
    }

    /// Sets the counters of the cuts of `filters`. False: these filters have other cuts than `filters`.
    pub(super) fn count(self, filters: &mut Self) -> bool {
        let (cuts, known) = (self.0.counters.cuts, &mut filters.0.counters.cuts);
        let is_same = cuts.keys().eq(known.keys());
        if is_same {
            *known = cuts;
        }
        is_same
    }

    /// True if the clsact has all our ingress filters for neighbour discovery.
    ///
    /// Another program may have deleted our root and left our clsact.
    fn has_left_over_hook(&self) -> bool {
        self.0.ingress.passes.len() == ND_TYPES.len()
    }
}

/// The tree of one interface.
pub(super) fn tree(qdiscs: Qdiscs, classes: Classes, filters: Filters, interface: &IfName) -> Tree {
    let taken = qdiscs.own_root().is_some();
    let hook = qdiscs.has_hook() && (taken || filters.has_left_over_hook());
    let Filters(filters) = if taken || hook { filters } else { Filters::default() };
    let counters = Counters { leaves: BTreeMap::new(), ..filters.counters };
    let mut tree = Tree { taken, hook, classes: BTreeMap::new(), counters, foreign: classes.foreign, ..filters };
    tree.classes.extend(classes.marks.keys().map(|minor| (*minor, Leaf::default())));
    if taken {
        for (class, UndecodedLeaf { options, queued, count }) in qdiscs.leaves {
            let mark = classes.marks.get(&class);
            let profile = mark.zip(options).and_then(|(mark, options)| netem::decode_netem(&options, *mark));
            tree.classes.insert(class, Leaf { profile, queued });
            tree.counters.leaves.insert(class, count);
        }
    }
    let is_ours = |qdisc: &TcMessage| taken && is_root(qdisc) || hook && is_hook(qdisc);
    for qdisc in qdiscs.others.iter().filter(|qdisc| !is_ours(qdisc)) {
        let is_default = qdisc.header.handle == TcHandle::UNSPEC;
        if !is_default && (taken || is_root(qdisc) || qdisc.header.parent == TcHandle::CLSACT) {
            tree.foreign.push(foreign::qdisc(qdisc, interface, taken));
        }
        // The remaining qdiscs are the kernel's defaults (handle 0:) and the children of a foreign root.
    }
    tree.foreign.extend(filters.foreign);
    tree
}

fn is_root(qdisc: &TcMessage) -> bool {
    qdisc.header.parent == TcHandle::ROOT
}

fn is_hook(qdisc: &TcMessage) -> bool {
    qdisc.header.parent == TcHandle::CLSACT && kind(qdisc) == "clsact"
}

fn is_leaf_of(message: &TcMessage, class: u16) -> bool {
    kind(message) == "netem" && message.header.handle == (TcHandle { major: class, minor: 0 })
}

fn add_filter(tree: &mut Tree, filter: Filter, message: &TcMessage) {
    match filter {
        Filter::Pass { direction, icmp_type } => drop(tree.filters_mut(direction).passes.insert(icmp_type)),
        Filter::Gate { direction, chain } => tree.filters_mut(direction).active = Some(chain),
        Filter::InChain { chain, filter } => {
            tree.filters_mut(filter.direction()).chains.entry(chain).or_default().insert(filter);
            if let ChainFilter::Cut(CutFilter { cut, .. }) = filter {
                count(&mut tree.counters, cut, filter::tally(message));
            }
        }
    }
}

/// Adds the counter of one filter of a cut.
fn count(counters: &mut Counters, cut: Cut, tally: Tally) {
    // A chain that is not active may have the same cut, with a counter at 0.
    let counted = counters.cuts.entry(cut).or_default();
    *counted = if tally.packets > counted.packets { tally } else { *counted };
}
