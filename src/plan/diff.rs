//! Computes the ordered steps that change an interface from its state in the kernel to the wanted state: [`diff()`].
//!
//! The steps have three phases. The preparation adds objects that no packet uses yet: missing qdiscs and pass filters,
//! new classes, spare chains. The switch takes effect on packets: changes in place, changes of single filters, flips.
//! The cleanup removes objects that no packet uses any more.
//!
//! So an address with a delay before and after the change is never without a delay. The agent removes an unused class
//! that still has packets later, when the packets have left. A change that clears the interface does not wait for these
//! packets.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{
    ClassMinor, Cut, DEFAULT_CLASS, Direction, ForeignObject, LeafSpec, MARK, ND_TYPES, Shaping, Step, Tree,
    chain::DIRECTIONS,
    chain_diff::{ChainDiff, drop_chain},
    foreign::{commands, list},
};

/// The steps for one interface.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Change {
    /// The steps in order. An empty list means that the kernel has the wanted state, or that foreign objects prevent it
    /// ([`diff_beside_foreign`]).
    pub steps: Vec<Step>,
    /// Unused classes that may still hold packets. The agent removes these classes when they are empty.
    pub draining: BTreeSet<ClassMinor>,
}

impl Change {
    /// The first steps: they add objects that no packet uses yet.
    pub fn preparation(&self) -> &[Step] {
        self.phases().0
    }

    /// The preparation, the steps that take effect on packets, and the steps that remove unused objects.
    pub fn phases(&self) -> (&[Step], &[Step], &[Step]) {
        // A change that takes no effect has no switch: all its steps are cleanup.
        let Some(first) = self.steps.iter().position(Step::takes_effect) else { return (&[], &[], &self.steps) };
        let (preparation, rest) = self.steps.split_at(first);
        let (switch, cleanup) = rest.split_at(rest.iter().take_while(|step| step.takes_effect()).count());
        (preparation, switch, cleanup)
    }

    /// Removes the lists of filters from the steps. The answer to a prepare is short without them.
    pub fn omit_filters(&mut self) {
        for step in &mut self.steps {
            if let Step::BuildChain { filters, .. } | Step::DropChain { filters, .. } = step {
                *filters = Vec::new();
            }
        }
    }

    /// True if no steps remain except the removal of unused classes.
    pub fn is_settled(&self) -> bool {
        self.steps.iter().all(|step| matches!(step, Step::RemoveClass { .. }))
    }
}

/// The reason why netemctl cannot bring an interface to the wanted state.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Blocked {
    /// The interface has foreign objects.
    #[error("it has objects of other programs: {}; remove them on the node: {}", list(.0), commands(.0))]
    Foreign(Vec<ForeignObject>),
    /// The links of the node need more leaves than the limit of a node.
    #[error("its links need {0} different netem qdiscs; the limit of a node is {MAX_PROFILES}")]
    TooManyProfiles(usize),
    /// Unused classes that still hold packets occupy the class numbers that new classes need.
    #[error("no class number is free: {0} unused classes are not yet removed; retry in a moment")]
    NoClassLeft(usize),
}

/// The maximum number of leaves: half of the class numbers. The other half is for unused classes with packets.
const MAX_PROFILES: usize = (MARK as usize - 2) / 2;

/// The steps from `tree` to `wanted`. If `wanted` is `None`, the steps remove all objects of netemctl.
///
/// Foreign objects (objects of other programs) are an error unless `wanted` is `None`. If there are no steps, the tree
/// has the wanted state. Surplus objects of netemctl then remain only if they hold packets or foreign objects.
pub fn diff(wanted: Option<&Shaping>, tree: &Tree) -> Result<Change, Blocked> {
    if !tree.foreign.is_empty() && wanted.is_some() {
        return Err(Blocked::Foreign(tree.foreign.clone()));
    }
    diff_beside_foreign(wanted, tree)
}

/// Like [`diff`], but foreign objects are no error and stay. Used for changes that only remove, and for rollbacks.
pub fn diff_beside_foreign(wanted: Option<&Shaping>, tree: &Tree) -> Result<Change, Blocked> {
    let specs = wanted.map(Shaping::distinct_specs).unwrap_or_default();
    if specs.len() > MAX_PROFILES {
        return Err(Blocked::TooManyProfiles(specs.len()));
    }
    Ok(match wanted {
        // Our root is missing, and netemctl adds no root to an interface with foreign objects. Cuts at egress are gone
        // with the root, so only cuts at ingress are left to remove.
        Some(shaping) if !tree.taken && !tree.foreign.is_empty() => {
            let left: Vec<Cut> =
                tree.ingress.in_use().cuts.keys().filter(|cut| shaping.cuts.contains(cut)).copied().collect();
            let diff = chain_diff(Direction::Ingress, &[], &left, tree);
            let steps = diff.preparation.into_iter().chain(diff.switch).chain(diff.removals).chain(diff.cleanup);
            Change { steps: steps.collect(), draining: BTreeSet::new() }
        }
        Some(shaping) => shape(shaping, &specs, tree)?,
        None => Change { steps: remove(tree), draining: BTreeSet::new() },
    })
}

/// The steps to a shaping with these leaves.
fn shape(wanted: &Shaping, specs: &BTreeSet<&LeafSpec>, tree: &Tree) -> Result<Change, Blocked> {
    let Assignment { classes, added, changed } = assign(wanted, specs, tree)?;
    let routes = routes(wanted, &classes);
    let mut steps = frame(tree);
    let [egress, ingress] = DIRECTIONS.map(|direction| {
        let (held, filters) = (tree.held_chains(direction), tree.filters(direction));
        let spares =
            filters.chains.iter().filter(|(chain, _)| filters.active != Some(**chain) && !held.contains(chain));
        steps.extend(spares.map(|(chain, content)| drop_chain(direction, *chain, content)));
        let cuts: Vec<Cut> = wanted.cuts.iter().filter(|cut| cut.direction == direction).copied().collect();
        let routes = if direction == Direction::Egress { &*routes } else { &[] };
        chain_diff(direction, routes, &cuts, tree)
    });
    steps.extend(added);
    steps.extend(egress.preparation.into_iter().chain(ingress.preparation));
    steps.extend(changed);
    steps.extend(egress.switch.into_iter().chain(ingress.switch));
    steps.extend(egress.removals.into_iter().chain(ingress.removals));
    steps.extend(egress.cleanup.into_iter().chain(ingress.cleanup));

    let used: BTreeSet<_> = classes.values().copied().chain([DEFAULT_CLASS]).collect();
    let held = tree.held_classes();
    let unused = tree.classes.keys().copied().filter(|class| !used.contains(class) && !held.contains(class));
    let in_use = tree.classes_in_use();
    let (drained, draining): (BTreeSet<_>, BTreeSet<_>) =
        unused.partition(|class| !in_use.contains(class) && tree.classes[class].queued == 0);
    steps.extend(drained.into_iter().map(|class| remove_class(class, tree)));
    Ok(Change { steps, draining })
}

/// The class of each address, in the order of the addresses.
fn routes(wanted: &Shaping, classes: &BTreeMap<&LeafSpec, ClassMinor>) -> Vec<(IpAddr, ClassMinor)> {
    let mut last: Option<(&Arc<LeafSpec>, ClassMinor)> = None;
    let route = |(address, spec): (&IpAddr, _)| {
        let known = last.filter(|(last, _)| Arc::ptr_eq(last, spec)).map(|(_, class)| class);
        let class = known.unwrap_or_else(|| classes[&**spec]);
        last = Some((spec, class));
        (*address, class)
    };
    wanted.leaf_specs.iter().map(route).collect()
}

fn chain_diff(direction: Direction, routes: &[(IpAddr, ClassMinor)], cuts: &[Cut], tree: &Tree) -> ChainDiff {
    ChainDiff::new(direction, routes, cuts, tree.filters(direction), &tree.held_chains(direction))
}

/// Adds the missing objects that every shaped interface needs.
fn frame(tree: &Tree) -> Vec<Step> {
    let mut steps = Vec::new();
    if !tree.taken {
        steps.push(Step::AddRoot);
    }
    if !tree.classes.contains_key(&DEFAULT_CLASS) {
        steps.push(Step::AddClass { class: DEFAULT_CLASS, profile: None });
    }
    steps.extend(pass(Direction::Egress, &tree.egress.passes));
    if !tree.hook {
        steps.push(Step::AddHook);
    }
    steps.extend(pass(Direction::Ingress, &tree.ingress.passes));
    steps
}

fn pass(direction: Direction, present: &BTreeSet<u8>) -> Option<Step> {
    let types: Vec<u8> = ND_TYPES.into_iter().filter(|kind| !present.contains(kind)).collect();
    (!types.is_empty()).then_some(Step::AddPass { direction, types })
}

/// Removes our objects in the order that the kernel allows. Objects that hold foreign objects stay.
fn remove(tree: &Tree) -> Vec<Step> {
    let mut steps = Vec::new();
    let flips = DIRECTIONS.into_iter().filter_map(|direction| {
        let from = tree.filters(direction).active;
        from.map(|_| Step::Flip { direction, from, to: None })
    });
    steps.extend(flips);
    for direction in DIRECTIONS {
        let held = tree.held_chains(direction);
        let chains = tree.filters(direction).chains.iter().filter(|(chain, _)| !held.contains(chain));
        steps.extend(chains.map(|(chain, content)| drop_chain(direction, *chain, content)));
    }
    let unpass = |direction| {
        let types: Vec<u8> = tree.filters(direction).passes.iter().copied().collect();
        (!types.is_empty()).then_some(Step::RemovePass { direction, types })
    };
    steps.extend(unpass(Direction::Ingress));
    if tree.hook && !tree.hook_is_held() {
        steps.push(Step::RemoveHook);
    }
    steps.extend(unpass(Direction::Egress));
    let held = tree.held_classes();
    let classes = tree.classes.keys().filter(|class| !held.contains(class));
    steps.extend(classes.map(|class| remove_class(*class, tree)));
    if tree.taken && !tree.root_is_held() {
        steps.push(Step::RemoveRoot);
    }
    steps
}

fn remove_class(class: ClassMinor, tree: &Tree) -> Step {
    Step::RemoveClass { class, profile: tree.classes[&class].profile }
}

/// The classes of the wanted leaves.
struct Assignment<'w> {
    classes: BTreeMap<&'w LeafSpec, ClassMinor>,
    /// The steps that add new classes.
    added: Vec<Step>,
    /// The steps that change leaves in place.
    changed: Vec<Step>,
}

/// Gives each wanted leaf a class.
///
/// The first possible choice wins:
///
/// 1. the class that already has the leaf
/// 2. the class of the same addresses in the active chain, changed in place
/// 3. an idle class: a class to which the active chain sends no packets, changed in place
/// 4. a new class
fn assign<'w>(wanted: &'w Shaping, specs: &BTreeSet<&'w LeafSpec>, tree: &Tree) -> Result<Assignment<'w>, Blocked> {
    let (leaf_specs, in_use) = (tree.leaf_specs(), tree.classes_in_use());
    let mut classes: BTreeMap<&LeafSpec, ClassMinor> = BTreeMap::new();
    let mut free: BTreeSet<ClassMinor> = leaf_specs.keys().copied().collect();
    // Prefer classes to which the active chain sends packets. The other classes are due for removal.
    for class in in_use.iter().chain(leaf_specs.keys()) {
        if let Some(spec) = leaf_specs.get(class)
            && let Some(spec) = specs.get(&**spec)
            && !classes.contains_key(spec)
            && free.remove(class)
        {
            classes.insert(spec, *class);
        }
    }
    let (mut carrying, mut idle): (BTreeSet<_>, BTreeSet<_>) =
        free.into_iter().partition(|class| in_use.contains(class));
    // The leaves without a class. Their addresses are only needed beside classes without a leaf that packets use.
    let is_left = |spec: &LeafSpec| classes.len() < specs.len() && !classes.contains_key(spec);
    let left = if carrying.is_empty() {
        specs.iter().filter(|spec| is_left(spec)).map(|spec| (*spec, Vec::new())).collect()
    } else {
        let left = wanted.leaf_specs.iter().filter(|(_, spec)| is_left(spec));
        group(left.map(|(address, spec)| (&**spec, *address)))
    };
    let of_carrying = tree.active_routes().iter().filter(|(_, route)| carrying.contains(&route.class));
    let groups = group(of_carrying.map(|(address, route)| (route.class, *address)));
    let held = tree.held_classes();
    let mut new = (DEFAULT_CLASS + 1..MARK).filter(|class| !tree.classes.contains_key(class) && !held.contains(class));
    let (mut added, mut changed) = (Vec::new(), Vec::new());
    for (spec, addresses) in &left {
        // A change in place keeps the distribution tables, and the class above records whether the seed is configured.
        // The mark stands for both, so another mark needs a new class.
        let fits = |class: &ClassMinor| leaf_specs[class].profile.mark() == spec.profile.mark();
        let carrier = addresses.first().and_then(|address| tree.active_routes().get(address)).map(|route| route.class);
        let same =
            carrier.filter(|class| groups.get(class) == Some(addresses) && carrying.contains(class) && fits(class));
        let class = if let Some(class) = same.or_else(|| idle.iter().copied().find(fits)) {
            carrying.remove(&class);
            idle.remove(&class);
            let from = leaf_specs[&class].profile;
            // An idle leaf of another address group may already have this profile. No step is then necessary.
            changed.extend((from != spec.profile).then_some(Step::ChangeLeaf { class, from, to: spec.profile }));
            class
        } else {
            // A number is always free unless many unused classes still hold packets (see `MAX_PROFILES`).
            let class = new.next().ok_or(Blocked::NoClassLeft(idle.len()))?;
            added.push(Step::AddClass { class, profile: Some(spec.profile) });
            class
        };
        classes.insert(spec, class);
    }
    Ok(Assignment { classes, added, changed })
}

/// The addresses of each key, in the order of the pairs.
fn group<K: Ord>(pairs: impl Iterator<Item = (K, IpAddr)>) -> BTreeMap<K, Vec<IpAddr>> {
    let mut groups: BTreeMap<K, Vec<IpAddr>> = BTreeMap::new();
    for (key, address) in pairs {
        groups.entry(key).or_default().push(address);
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Leaf, Profile};

    #[test]
    fn no_free_class_number_is_an_error() {
        let plain = Profile::plain("10ms".parse().unwrap(), 1_000);
        // Draining classes occupy all numbers. Their seed gives them another mark, which prevents in-place changes.
        let draining = Leaf { profile: Some(Profile { seed: Some(1), ..plain }), queued: 1 };
        let classes = (DEFAULT_CLASS + 1..MARK).map(|class| (class, draining.clone()));
        let mut tree = Tree { taken: true, classes: classes.collect(), ..Tree::default() };
        let address = IpAddr::from([10, 0, 0, 2]);
        let wanted = Shaping { leaf_specs: [(address, LeafSpec::of(plain, [&address]))].into(), ..Shaping::default() };
        assert_eq!(diff(Some(&wanted), &tree), Err(Blocked::NoClassLeft(usize::from(MARK - DEFAULT_CLASS - 1))));
        tree.classes.remove(&7);
        let change = diff(Some(&wanted), &tree).unwrap();
        assert!(change.steps.contains(&Step::AddClass { class: 7, profile: Some(plain) }));
    }
}
