//! Computes the ordered steps that change an interface from its state in the kernel to the wanted state: [`diff()`].
//!
//! The order is make-before-break: missing qdiscs and pass filters, new cuts, removal of inactive chains, new classes
//! and in-place changes, a new chain, the switch to this chain, then the removal of other unused objects. So an address
//! with a delay before and after the change is never without a delay. The agent removes an unused class that still has
//! packets later, when the packets have left. A change that clears the interface does not wait for these packets.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{
    ClassMinor, Cut, DEFAULT_CLASS, Direction, ForeignObject, LeafSpec, MARK, ND_TYPES, Route, Shaping, Step, Tree,
    foreign::{commands, list},
    tc_numbers::CHAINS,
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
    let leaf_specs: BTreeSet<_> = wanted.into_iter().flat_map(|shaping| shaping.leaf_specs.values()).collect();
    if leaf_specs.len() > MAX_PROFILES {
        return Err(Blocked::TooManyProfiles(leaf_specs.len()));
    }
    Ok(match wanted {
        // Our root is missing, and netemctl adds no root to an interface with foreign objects. Cuts at egress are gone
        // with the root, so only cuts at ingress are left to remove.
        Some(shaping) if !tree.taken && !tree.foreign.is_empty() => {
            Change { steps: uncuts(&shaping.cuts, tree), draining: BTreeSet::new() }
        }
        Some(shaping) => shape(shaping, tree)?,
        None => Change { steps: remove(tree), draining: BTreeSet::new() },
    })
}

fn shape(wanted: &Shaping, tree: &Tree) -> Result<Change, Blocked> {
    let mut steps = frame(tree);
    steps.extend(cuts(&wanted.cuts, tree));

    let (classes, preparation) = assign(wanted, tree)?;
    let route = |((address, spec), handle): ((&IpAddr, &LeafSpec), u32)| Route {
        address: *address,
        class: classes[spec],
        handle,
    };
    let routes: Vec<Route> = wanted.leaf_specs.iter().zip(1..).map(route).collect();
    let held_chains = tree.held_chains();
    let spares = tree.chains.iter().filter(|(chain, _)| tree.active != Some(**chain) && !held_chains.contains(chain));
    steps.extend(spares.map(|(chain, routes)| drop_chain(*chain, routes)));
    steps.extend(preparation);
    let used: BTreeSet<_> = classes.values().copied().chain([DEFAULT_CLASS]).collect();
    let held = tree.held_classes();
    let unused = tree.classes.keys().copied().filter(|class| !used.contains(class) && !held.contains(class));
    if !leads_to(tree.active_routes(), &routes) || tree.active.is_some() == routes.is_empty() {
        let to = (!routes.is_empty()).then(|| CHAINS.into_iter().find(|chain| tree.active != Some(*chain))).flatten();
        steps.extend(to.map(|chain| Step::BuildChain { chain, routes }));
        steps.push(Step::Flip { from: tree.active, to });
        let spare = tree.active.filter(|chain| !held_chains.contains(chain));
        steps.extend(spare.map(|chain| drop_chain(chain, tree.active_routes())));
    }
    steps.extend(uncuts(&wanted.cuts, tree));

    let in_use = tree.classes_in_use();
    let (drained, draining): (BTreeSet<_>, BTreeSet<_>) =
        unused.partition(|class| !in_use.contains(class) && tree.classes[class].queued == 0);
    steps.extend(drained.into_iter().map(|class| remove_class(class, tree)));
    Ok(Change { steps, draining })
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
    steps.extend(pass(Direction::Egress, &tree.egress_passes));
    if !tree.hook {
        steps.push(Step::AddHook);
    }
    steps.extend(pass(Direction::Ingress, &tree.ingress_passes));
    steps
}

fn pass(direction: Direction, present: &BTreeSet<u8>) -> Option<Step> {
    let types: Vec<u8> = ND_TYPES.into_iter().filter(|kind| !present.contains(kind)).collect();
    (!types.is_empty()).then_some(Step::AddPass { direction, types })
}

/// Removes our objects in the order that the kernel allows. Objects that hold foreign objects stay.
fn remove(tree: &Tree) -> Vec<Step> {
    let mut steps = Vec::new();
    if tree.active.is_some() {
        steps.push(Step::Flip { from: tree.active, to: None });
    }
    let held_chains = tree.held_chains();
    let chains = tree.chains.iter().filter(|(chain, _)| !held_chains.contains(chain));
    steps.extend(chains.map(|(chain, routes)| drop_chain(*chain, routes)));
    steps.extend(uncuts(&BTreeSet::new(), tree));
    let unpass = |direction, types: &BTreeSet<u8>| {
        (!types.is_empty()).then(|| Step::RemovePass { direction, types: types.iter().copied().collect() })
    };
    steps.extend(unpass(Direction::Ingress, &tree.ingress_passes));
    if tree.hook && !tree.hook_is_held() {
        steps.push(Step::RemoveHook);
    }
    steps.extend(unpass(Direction::Egress, &tree.egress_passes));
    let held = tree.held_classes();
    let classes = tree.classes.keys().filter(|class| !held.contains(class));
    steps.extend(classes.map(|class| remove_class(*class, tree)));
    if tree.taken && !tree.root_is_held() {
        steps.push(Step::RemoveRoot);
    }
    steps
}

/// Adds the missing cuts. Each new cut gets a handle that no other cut has.
fn cuts(wanted: &BTreeSet<Cut>, tree: &Tree) -> Vec<Step> {
    let taken: BTreeSet<u32> = tree.cuts.values().copied().collect();
    let free = (1..).filter(|handle| !taken.contains(handle));
    let missing = wanted.iter().filter(|cut| !tree.cuts.contains_key(cut));
    missing.zip(free).map(|(cut, handle)| Step::Cut { cut: *cut, handle }).collect()
}

/// Removes the cuts that are not wanted.
fn uncuts(wanted: &BTreeSet<Cut>, tree: &Tree) -> Vec<Step> {
    let surplus = tree.cuts.iter().rev().filter(|(cut, _)| !wanted.contains(cut));
    surplus.map(|(cut, handle)| Step::Uncut { cut: *cut, handle: *handle }).collect()
}

fn drop_chain(chain: u32, routes: &BTreeMap<IpAddr, Route>) -> Step {
    Step::DropChain { chain, routes: routes.values().copied().collect() }
}

fn remove_class(class: ClassMinor, tree: &Tree) -> Step {
    Step::RemoveClass { class, profile: tree.classes[&class].profile }
}

/// Gives each wanted leaf a class. Returns the classes, and the steps that prepare them.
///
/// The first possible choice wins:
///
/// 1. the class that already has the leaf
/// 2. the class of the same addresses in the active chain, changed in place
/// 3. an idle class: a class to which the active chain sends no packets, changed in place
/// 4. a new class
fn assign(wanted: &Shaping, tree: &Tree) -> Result<(BTreeMap<LeafSpec, ClassMinor>, Vec<Step>), Blocked> {
    let wanted_groups = group(wanted.leaf_specs.iter().map(|(address, spec)| (*spec, *address)));
    let groups = group(tree.active_routes().iter().map(|(address, route)| (route.class, *address)));
    let leaf_specs = tree.leaf_specs();

    let mut classes: BTreeMap<LeafSpec, ClassMinor> = BTreeMap::new();
    let mut free: BTreeSet<ClassMinor> = leaf_specs.keys().copied().collect();
    // Prefer classes to which the active chain sends packets. The other classes are due for removal.
    for class in groups.keys().chain(leaf_specs.keys()) {
        if let Some(spec) = leaf_specs.get(class)
            && wanted_groups.contains_key(spec)
            && !classes.contains_key(spec)
            && free.remove(class)
        {
            classes.insert(*spec, *class);
        }
    }
    let (mut carrying, mut idle): (BTreeSet<_>, BTreeSet<_>) =
        free.into_iter().partition(|class| groups.contains_key(class));
    let held = tree.held_classes();
    let mut new = (DEFAULT_CLASS + 1..MARK).filter(|class| !tree.classes.contains_key(class) && !held.contains(class));
    let mut steps = Vec::new();
    for (spec, addresses) in &wanted_groups {
        if classes.contains_key(spec) {
            continue;
        }
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
            steps.extend((from != spec.profile).then_some(Step::ChangeLeaf { class, from, to: spec.profile }));
            class
        } else {
            // A number is always free unless many unused classes still hold packets (see `MAX_PROFILES`).
            let class = new.next().ok_or(Blocked::NoClassLeft(idle.len()))?;
            steps.push(Step::AddClass { class, profile: Some(spec.profile) });
            class
        };
        classes.insert(*spec, class);
    }
    Ok((classes, steps))
}

fn group<K: Ord>(pairs: impl Iterator<Item = (K, IpAddr)>) -> BTreeMap<K, BTreeSet<IpAddr>> {
    let mut groups: BTreeMap<K, BTreeSet<IpAddr>> = BTreeMap::new();
    for (key, address) in pairs {
        groups.entry(key).or_default().insert(address);
    }
    groups
}

/// True if both lists lead the same addresses to the same classes. Ignores the handles.
fn leads_to(active: &BTreeMap<IpAddr, Route>, routes: &[Route]) -> bool {
    active
        .values()
        .map(|route| (route.address, route.class))
        .eq(routes.iter().map(|route| (route.address, route.class)))
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
