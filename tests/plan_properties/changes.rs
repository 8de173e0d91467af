//! Properties of the diff: the steps of a change on one node's kernel.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use netemctl::{
    kernel::{Kernel as _, execute},
    plan::{
        Answer, Blocked, Change, ClassMinor, Cut, DEFAULT_CLASS, Direction, ForeignObject, LeafSpec, Profile, Shaping,
        Stale, Step, Traffic, Tree, Within, diff, diff_beside_foreign,
    },
};
use proptest::prelude::*;

use super::drawn::{apply, forget_queues, kernels, shapings, untouched, wanted_shapings};
use super::fake_kernel::FakeKernel;
use super::over_the_wire;

proptest! {
    #[test]
    fn a_change_leads_to_what_is_wanted(mut kernel in kernels(), wanted in wanted_shapings()) {
        let change = diff(wanted.as_ref(), &kernel.tree).unwrap();
        for step in &change.steps {
            let interface = kernel.interface.clone();
            prop_assert!(kernel.perform(&interface, step).is_ok(), "the kernel refused to {}", step);
        }
        prop_assert_eq!(kernel.tree.shaping(), wanted.clone());
        if wanted.is_none() {
            prop_assert_eq!(kernel.tree, Tree::default());
        }
    }

    #[test]
    fn what_is_in_force_on_a_fresh_interface_needs_no_step(wanted in wanted_shapings()) {
        let mut kernel = untouched();
        apply(&mut kernel, wanted.as_ref());
        prop_assert_eq!(diff(wanted.as_ref(), &kernel.tree), Ok(Change::default()));
    }

    #[test]
    fn what_is_in_force_needs_no_step_once_the_queues_are_empty(mut kernel in kernels(), wanted in wanted_shapings()) {
        let draining = apply(&mut kernel, wanted.as_ref()).draining;
        let still = diff(wanted.as_ref(), &kernel.tree).unwrap();
        prop_assert!(still.is_settled());
        prop_assert!(still.draining.is_subset(&draining));

        forget_queues(&mut kernel.tree);
        let last = apply(&mut kernel, wanted.as_ref());
        prop_assert_eq!(removed(&last), draining);
        prop_assert_eq!(diff(wanted.as_ref(), &kernel.tree), Ok(Change::default()));
    }

    #[test]
    fn a_class_that_may_hold_packets_drains_before_it_goes(mut kernel in kernels(), wanted in shapings()) {
        let before = kernel.tree.clone();
        let change = apply(&mut kernel, Some(&wanted));
        let carried = before.classes_in_use();
        for class in removed(&change) {
            prop_assert!(before.classes[&class].queued == 0 && !carried.contains(&class), "class {} had packets", class);
        }
        let mut accounted = kernel.tree.classes_in_use();
        prop_assert!(change.draining.is_disjoint(&accounted));
        accounted.extend(&change.draining);
        accounted.insert(DEFAULT_CLASS);
        prop_assert_eq!(kernel.tree.classes.keys().copied().collect::<BTreeSet<_>>(), accounted);
    }

    #[test]
    fn a_step_that_fails_leaves_the_interface_as_it_was(kernel in kernels(), wanted in wanted_shapings()) {
        let change = diff(wanted.as_ref(), &kernel.tree).unwrap();
        for step in 0..change.steps.len() {
            let mut failing = kernel.clone();
            (failing.fails_at, failing.writes) = (Some(step), 0);
            let failed = execute(&mut failing, &kernel.interface, &change.steps).unwrap_err();
            prop_assert!(failed.rollback.is_empty(), "{}", failed);

            let (mut after, mut before) = (failing.tree, kernel.tree.clone());
            // Clearing an interface drops queued packets, so rollback cannot restore the queues.
            if wanted.is_none() {
                forget_queues(&mut after);
                forget_queues(&mut before);
            }
            prop_assert_eq!(after, before);
        }
    }

    #[test]
    fn a_known_tree_follows_a_change_by_its_stale_filters(mut kernel in kernels(), wanted in shapings()) {
        let (known, interface) = (kernel.tree.clone(), kernel.interface.clone());
        let steps = apply(&mut kernel, Some(&wanted)).steps;
        let mut stale = Stale::default();
        if steps.iter().all(|step| stale.add(step)) {
            let dumps = kernel.dumps;
            prop_assert_eq!(&kernel.observe_again(&interface, known, &stale, true).unwrap(), &kernel.tree);
            prop_assert_eq!(kernel.dumps, dumps);
        }
    }

    #[test]
    fn a_crash_within_any_step_is_recovered_from(
        kernel in kernels(),
        wanted in wanted_shapings(),
        next in wanted_shapings(),
    ) {
        let change = diff(wanted.as_ref(), &kernel.tree).unwrap();
        for (done, step) in change.steps.iter().enumerate() {
            let mut crashed = kernel.clone();
            execute(&mut crashed, &kernel.interface, &change.steps[..done]).unwrap();
            if let Some(partial) = partial(step) {
                execute(&mut crashed, &kernel.interface, &[partial]).unwrap();
            }
            apply(&mut crashed, next.as_ref());
            prop_assert_eq!(crashed.tree.shaping(), next.clone());
            forget_queues(&mut crashed.tree);
            apply(&mut crashed, next.as_ref());
            prop_assert_eq!(diff(next.as_ref(), &crashed.tree), Ok(Change::default()));
        }
    }

    #[test]
    fn the_inverse_of_an_inverse_is_the_step(kernel in kernels(), wanted in wanted_shapings()) {
        for step in diff(wanted.as_ref(), &kernel.tree).unwrap().steps {
            prop_assert_ne!(step.inverse(), step.clone());
            prop_assert_eq!(step.inverse().inverse(), step);
        }
    }

    #[test]
    fn a_change_is_the_same_over_the_wire(kernel in kernels(), wanted in wanted_shapings()) {
        let change = diff(wanted.as_ref(), &kernel.tree).unwrap();
        prop_assert_eq!(over_the_wire(&change), change);
    }

    #[test]
    fn during_a_change_each_address_has_its_old_or_its_new_profile(
        kernel in kernels(),
        wanted in shapings(),
    ) {
        let before = kernel.tree.shaping().unwrap_or_default();
        for (step, tree) in steps_with_trees(kernel, &wanted) {
            let now = tree.shaping().unwrap_or_default();
            for (address, to) in &wanted.leaf_specs {
                if let Some(from) = before.leaf_specs.get(address) {
                    let profile = now.leaf_specs.get(address).map(|spec| spec.profile);
                    let expected = [from, to].map(|spec| Some(spec.profile));
                    prop_assert!(expected.contains(&profile), "{} at {:?} after: {}", address, profile, step);
                }
            }
        }
    }

    #[test]
    fn during_a_change_cuts_of_both_states_stay_and_no_other_cut_appears(
        kernel in kernels(),
        wanted in shapings(),
    ) {
        let before = kernel.tree.shaping().unwrap_or_default();
        for (step, tree) in steps_with_trees(kernel, &wanted) {
            let present: BTreeSet<Cut> = tree.cuts().copied().collect();
            prop_assert!(before.cuts.intersection(&wanted.cuts).all(|cut| present.contains(cut)), "after: {}", step);
            prop_assert!(present.iter().all(|cut| before.cuts.contains(cut) || wanted.cuts.contains(cut)));
        }
    }

    #[test]
    fn a_cut_that_stays_keeps_its_counter(mut kernel in kernels(), wanted in shapings()) {
        let before = kernel.tree.shaping().unwrap_or_default();
        for counted in kernel.tree.counters.cuts.values_mut() {
            counted.packets = 5;
        }
        apply(&mut kernel, Some(&wanted));
        for cut in before.cuts.intersection(&wanted.cuts) {
            prop_assert_eq!(kernel.tree.counters.cuts[cut].packets, 5);
        }
    }

    #[test]
    fn a_change_has_few_steps_that_take_effect_and_they_are_consecutive(kernel in kernels(), wanted in shapings()) {
        let change = diff(Some(&wanted), &kernel.tree).unwrap();
        let (preparation, switch, cleanup) = change.phases();
        let filters = switch.iter().filter(|step| !matches!(step, Step::ChangeLeaf { .. })).count();
        prop_assert!(filters <= 32, "{} writes of filters take effect", filters);
        prop_assert!(!preparation.iter().chain(cleanup).any(Step::takes_effect));
    }

    #[test]
    fn a_change_never_touches_the_permanent_objects_of_a_shaped_interface(
        mut kernel in kernels(),
        wanted in shapings(),
    ) {
        apply(&mut kernel, Some(&Shaping::default()));
        // Adding or removing the ingress hook would drop packets in flight.
        for step in diff(Some(&wanted), &kernel.tree).unwrap().steps {
            prop_assert!(
                !matches!(
                    step,
                    Step::AddRoot
                        | Step::RemoveRoot
                        | Step::AddHook
                        | Step::RemoveHook
                        | Step::AddPass { .. }
                        | Step::RemovePass { .. }
                        | Step::RemoveClass { class: DEFAULT_CLASS, .. }
                ),
                "{}",
                step
            );
        }
    }
}

#[test]
fn a_foreign_object_stops_whatever_adds_to_an_interface() {
    let foreign = vec![foreign("qdisc fq_codel 8001: parent root", None)];
    let mut tree = Tree { foreign: foreign.clone(), ..Tree::default() };
    let wanted = Shaping::default();
    assert_eq!(diff(Some(&wanted), &tree), Err(Blocked::Foreign(foreign.clone())));
    // The tree has no object of netemctl to remove.
    assert_eq!(diff(None, &tree), Ok(Change::default()));
    tree.taken = true;
    assert_eq!(diff(Some(&wanted), &tree), Err(Blocked::Foreign(foreign.clone())));
}

fn foreign(what: &str, within: Option<Within>) -> ForeignObject {
    ForeignObject { what: what.to_owned(), remove: "tc qdisc del".to_owned(), within }
}

#[test]
fn a_cut_keeps_its_counter_when_its_chain_is_built_again() {
    let cut = |last: u8| {
        let address = [10, 0, 0, last].into();
        Cut { direction: Direction::Ingress, address, traffic: Traffic::All, answer: Answer::Silence }
    };
    let mut kernel = untouched();
    apply(&mut kernel, Some(&Shaping { cuts: [cut(1)].into(), ..Shaping::default() }));
    kernel.tree.counters.cuts.get_mut(&cut(1)).unwrap().packets = 5;
    let change = apply(&mut kernel, Some(&Shaping { cuts: (1..=100).map(cut).collect(), ..Shaping::default() }));
    assert_eq!(change.phases().1.len(), 1, "one flip");
    assert_eq!(kernel.tree.counters.cuts[&cut(1)].packets, 5);
}

/// Shapes an interface, adds a foreign object and clears the interface. Returns the tree and the messages about what
/// remains.
fn cleared_beside(object: ForeignObject) -> (Tree, Vec<String>) {
    let address: IpAddr = "10.0.0.2".parse().unwrap();
    let spec = LeafSpec::of(Profile::plain("10ms".parse().unwrap(), 1_000), []);
    let cut = Cut { direction: Direction::Ingress, address, traffic: Traffic::All, answer: Answer::Silence };
    let mut kernel = untouched();
    apply(&mut kernel, Some(&Shaping { leaf_specs: [(address, spec)].into(), cuts: [cut].into() }));
    kernel.tree.foreign.push(object);
    let change = diff(None, &kernel.tree).unwrap();
    let interface = kernel.interface.clone();
    execute(&mut kernel, &interface, &change.steps).unwrap();
    assert_eq!(diff(None, &kernel.tree), Ok(Change::default()), "a second clear changes nothing");
    let tree = kernel.tree;
    assert!(tree.egress.active.is_none() && tree.ingress.active.is_none() && tree.egress.passes.is_empty());
    (tree.clone(), tree.remaining(&"db0".parse().unwrap()))
}

#[test]
fn clear_beside_a_foreign_object_keeps_only_the_parents_of_this_object() {
    let (tree, left) = cleared_beside(foreign("filter pref 7", Some(Within::Hook { chain: None })));
    assert!(!tree.taken && tree.hook && tree.classes.is_empty() && tree.ingress.passes.is_empty());
    assert!(
        left[0].contains("filter pref 7 of other programs; to remove both: tc qdisc del dev db0 clsact"),
        "{left:?}"
    );
    let (tree, left) = cleared_beside(foreign("filter pref 7", Some(Within::Root { class: None, chain: None })));
    assert!(tree.taken && !tree.hook && tree.egress.chains.is_empty());
    assert_eq!(tree.classes.keys().copied().collect::<Vec<_>>(), [DEFAULT_CLASS]);
    assert!(
        left[0].contains("filter pref 7 of other programs; remove that (tc qdisc del), then run netemctl clear"),
        "{left:?}"
    );
    let (tree, _) = cleared_beside(foreign("qdisc pfifo 8001:", Some(Within::Root { class: Some(2), chain: None })));
    assert_eq!(tree.classes.keys().copied().collect::<Vec<_>>(), [DEFAULT_CLASS, 2]);
    // Filters of a chain are removed together. So the chain stays, and so does the class that our filter points to.
    let (tree, _) = cleared_beside(foreign("filter chain 10", Some(Within::Root { class: None, chain: Some(10) })));
    assert_eq!(tree.egress.chains.keys().copied().collect::<Vec<_>>(), [10]);
    assert_eq!(tree.classes.keys().copied().collect::<Vec<_>>(), [DEFAULT_CLASS, 2]);
    let (tree, left) = cleared_beside(foreign("qdisc fq 8001: parent root", None));
    assert_eq!((tree.taken, tree.hook, left.len()), (false, false, 0));
}

#[test]
fn a_foreign_object_does_not_stop_a_change_that_only_removes() {
    let address: IpAddr = "10.0.0.2".parse().unwrap();
    let cut = Cut { direction: Direction::Ingress, address, traffic: Traffic::All, answer: Answer::Silence };
    let mut kernel = untouched();
    apply(&mut kernel, Some(&Shaping { cuts: [cut].into(), ..Shaping::default() }));
    let mut tree = kernel.tree;
    tree.foreign.push(foreign("filter pref 7", Some(Within::Root { class: None, chain: None })));
    let filters = tree.ingress.in_use().filters().collect();
    let direction = Direction::Ingress;
    let uncut =
        vec![Step::Flip { direction, from: Some(10), to: None }, Step::DropChain { direction, chain: 10, filters }];
    let whole = Shaping::default();
    assert!(matches!(diff(Some(&whole), &tree), Err(Blocked::Foreign(_))));
    assert_eq!(diff_beside_foreign(Some(&whole), &tree).unwrap().steps, uncut);
    // If another program replaced our root qdisc, only the cuts at the ingress hook are left.
    let replaced = Tree { taken: false, foreign: vec![foreign("qdisc fq", None)], ..tree };
    assert_eq!(diff_beside_foreign(Some(&whole), &replaced).unwrap().steps, uncut);
}

#[test]
fn traffic_stays_in_its_class_if_a_draining_class_gets_the_same_profile() {
    let [near, far] = [("10ms", 16_666), ("75ms", 100_000)].map(|(delay, limit)| {
        let delay = delay.parse().unwrap();
        Profile::plain(delay, limit)
    });
    let [one, other]: [IpAddr; 2] = ["10.0.0.2", "10.0.0.3"].map(|address| address.parse().unwrap());
    let mut kernel = untouched();
    let both = Shaping {
        leaf_specs: BTreeMap::from([(one, LeafSpec::of(near, [])), (other, LeafSpec::of(far, []))]),
        ..Shaping::default()
    };
    apply(&mut kernel, Some(&both));
    let wanted = Shaping { leaf_specs: BTreeMap::from([(other, LeafSpec::of(far, []))]), ..Shaping::default() };
    let idle = apply(&mut kernel, Some(&wanted)).draining.pop_first().unwrap();

    // An operator could do this with `tc qdisc change`.
    kernel.tree.classes.get_mut(&idle).unwrap().profile = Some(far);
    let steps = vec![Step::RemoveClass { class: idle, profile: Some(far) }];
    assert_eq!(diff(Some(&wanted), &kernel.tree), Ok(Change { steps, draining: BTreeSet::new() }));
}

/// The steps of a change, each with the tree after it.
fn steps_with_trees(mut kernel: FakeKernel, wanted: &Shaping) -> Vec<(Step, Tree)> {
    let interface = kernel.interface.clone();
    let steps = diff(Some(wanted), &kernel.tree).unwrap().steps;
    let perform = |step: Step| {
        kernel.perform(&interface, &step).unwrap();
        (step, kernel.tree.clone())
    };
    steps.into_iter().map(perform).collect()
}

fn removed(change: &Change) -> BTreeSet<ClassMinor> {
    let removed = |step: &Step| match step {
        Step::RemoveClass { class, .. } => Some(*class),
        _ => None,
    };
    change.steps.iter().filter_map(removed).collect()
}

/// The part of a step that the kernel has done if the power fails during the step. None: a step of one message.
fn partial(step: &Step) -> Option<Step> {
    match step.clone() {
        Step::AddClass { class, profile: Some(_) } => Some(Step::AddClass { class, profile: None }),
        Step::BuildChain { direction, chain, mut filters } => {
            filters.truncate(filters.len() / 2);
            Some(Step::BuildChain { direction, chain, filters })
        }
        Step::AddPass { direction, mut types } => {
            types.truncate(2);
            Some(Step::AddPass { direction, types })
        }
        Step::RemovePass { direction, mut types } => {
            types.truncate(2);
            Some(Step::RemovePass { direction, types })
        }
        _ => None,
    }
}
