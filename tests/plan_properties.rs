//! Properties of the plan on random wishes, over a kernel in memory that has been through random wishes before.
//!
//! Golden plans are in `plan.rs`; this says what holds of every plan.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on stops where it is")]

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use netemctl::{
    kernel::{FakeKernel, Kernel as _, execute},
    plan::{
        AgentAddress, Answer, Blocked, Change, ClassMinor, Cut, DEFAULT_CLASS, Dice, Direction, Division, Draw,
        EditError, ForeignObject, Inventory, Lane, LineRate, Mode, Over, PartitionWish, Place, Port, Profile, Protocol,
        Shape, Shaping, Step, Traffic, Tree, Wanted, Wish, diff,
    },
    topology::{
        Distribution, Jitter, Link, LinkChange, NodeName, Probability, Rate, Reorder, Source, Topology, hostlist,
    },
};
use proptest::prelude::*;

const ADDRESSES: [&str; 8] =
    ["10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6", "fd00::2", "fd00::3", "fd00::4"];

/// Few, so that wishes often share some; two of them differ in the limit only.
const PROFILES: [(&str, u32); 5] =
    [("10ms", 16_666), ("75ms", 100_000), ("75ms", 12_500), ("1us", 1_000), ("60s", 100_000)];

proptest! {
    #[test]
    fn a_change_leads_to_what_is_wanted(mut kernel in kernels(), wish in wishes()) {
        let change = diff(wish.as_ref(), &kernel.tree).unwrap();
        for step in &change.steps {
            let interface = kernel.interface.clone();
            prop_assert!(kernel.perform(&interface, step).is_ok(), "the kernel refused to {}", step);
        }
        prop_assert_eq!(kernel.tree.shaping(), wish.clone());
        if wish.is_none() {
            prop_assert_eq!(kernel.tree, Tree::default());
        }
    }

    #[test]
    fn what_is_in_force_on_a_fresh_interface_needs_no_step(wish in wishes()) {
        let mut kernel = untouched();
        apply(&mut kernel, wish.as_ref());
        prop_assert_eq!(diff(wish.as_ref(), &kernel.tree), Ok(Change::default()));
    }

    #[test]
    fn what_is_in_force_needs_no_step_once_the_queues_are_empty(mut kernel in kernels(), wish in wishes()) {
        let draining = apply(&mut kernel, wish.as_ref()).draining;
        let still = diff(wish.as_ref(), &kernel.tree).unwrap();
        prop_assert!(still.is_settled());
        prop_assert!(still.draining.is_subset(&draining));

        forget_queues(&mut kernel.tree);
        let last = apply(&mut kernel, wish.as_ref());
        prop_assert_eq!(removed(&last), draining);
        prop_assert_eq!(diff(wish.as_ref(), &kernel.tree), Ok(Change::default()));
    }

    #[test]
    fn a_class_that_may_hold_packets_drains_before_it_goes(mut kernel in kernels(), wish in shapings()) {
        let before = kernel.tree.clone();
        let change = apply(&mut kernel, Some(&wish));
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
    fn a_step_that_fails_leaves_the_interface_as_it_was(kernel in kernels(), wish in wishes()) {
        let change = diff(wish.as_ref(), &kernel.tree).unwrap();
        for step in 0..change.steps.len() {
            let mut failing = kernel.clone();
            (failing.fails_at, failing.writes) = (Some(step), 0);
            let failed = execute(&mut failing, &kernel.interface, &change.steps).unwrap_err();
            prop_assert!(failed.undo.is_empty(), "{}", failed);

            let (mut after, mut before) = (failing.tree, kernel.tree.clone());
            // Giving the interface back does not wait: packets go with their class.
            if wish.is_none() {
                forget_queues(&mut after);
                forget_queues(&mut before);
            }
            prop_assert_eq!(after, before);
        }
    }

    #[test]
    fn a_crash_within_any_step_is_recovered_from(kernel in kernels(), wish in wishes(), next in wishes()) {
        let change = diff(wish.as_ref(), &kernel.tree).unwrap();
        for (done, step) in change.steps.iter().enumerate() {
            let mut crashed = kernel.clone();
            execute(&mut crashed, &kernel.interface, &change.steps[..done]).unwrap();
            if let Some(torn) = torn(step) {
                execute(&mut crashed, &kernel.interface, &[torn]).unwrap();
            }
            apply(&mut crashed, next.as_ref());
            prop_assert_eq!(crashed.tree.shaping(), next.clone());
            forget_queues(&mut crashed.tree);
            apply(&mut crashed, next.as_ref());
            prop_assert_eq!(diff(next.as_ref(), &crashed.tree), Ok(Change::default()));
        }
    }

    #[test]
    fn undoing_an_undo_is_doing(kernel in kernels(), wish in wishes()) {
        for step in diff(wish.as_ref(), &kernel.tree).unwrap().steps {
            prop_assert_ne!(step.inverse(), step.clone());
            prop_assert_eq!(step.inverse().inverse(), step);
        }
    }

    #[test]
    fn the_same_input_gives_the_same_steps_here_and_over_the_wire(kernel in kernels(), wish in wishes()) {
        let change = diff(wish.as_ref(), &kernel.tree).unwrap();
        let (tree, there) = (over_the_wire(&kernel.tree), over_the_wire(&wish));
        prop_assert_eq!(diff(there.as_ref(), &tree).unwrap(), change.clone());
        prop_assert_eq!(over_the_wire(&change), change);
    }

    #[test]
    fn at_no_moment_is_a_packet_undelayed_that_is_delayed_before_and_after(
        mut kernel in kernels(),
        wish in shapings(),
    ) {
        let before = kernel.tree.shaping().unwrap_or_default();
        for step in diff(Some(&wish), &kernel.tree).unwrap().steps {
            let interface = kernel.interface.clone();
            kernel.perform(&interface, &step).unwrap();
            let now = kernel.tree.shaping().unwrap_or_default();
            for (address, to) in &wish.lanes {
                if let Some(from) = before.lanes.get(address) {
                    let profile = now.lanes.get(address);
                    prop_assert!(profile == Some(from) || profile == Some(to), "{} at {:?} after: {}", address, profile, step);
                }
            }
        }
    }

    #[test]
    fn at_no_moment_passes_what_is_cut_before_and_after_nor_is_anything_else_cut(
        mut kernel in kernels(),
        wish in shapings(),
    ) {
        let before = kernel.tree.shaping().unwrap_or_default();
        for step in diff(Some(&wish), &kernel.tree).unwrap().steps {
            let interface = kernel.interface.clone();
            kernel.perform(&interface, &step).unwrap();
            let present = &kernel.tree.cuts;
            prop_assert!(before.cuts.intersection(&wish.cuts).all(|cut| present.contains_key(cut)), "after: {}", step);
            prop_assert!(present.keys().all(|cut| before.cuts.contains(cut) || wish.cuts.contains(cut)));
        }
    }

    #[test]
    fn what_a_taken_interface_always_has_is_never_touched_again(mut kernel in kernels(), wish in shapings()) {
        apply(&mut kernel, Some(&Shaping::default()));
        // Adding or removing the hook purges every packet in flight.
        for step in diff(Some(&wish), &kernel.tree).unwrap().steps {
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

    #[test]
    fn what_is_dropped_is_the_union_of_the_cuts_at_both_ends_of_each(wanted in documents()) {
        let mut expected: BTreeMap<&NodeName, BTreeSet<Cut>> = BTreeMap::new();
        for partition in wanted.partitions.iter().filter(|partition| !matches!(partition.mode, Mode::Loss(_))) {
            let ports = partition.ports.iter().flat_map(|port| [Traffic::ToPort(*port), Traffic::FromPort(*port)]);
            let traffic: Vec<Traffic> =
                if partition.ports.is_empty() { vec![Traffic::All] } else { ports.collect() };
            for (from, here) in &wanted.inventory.nodes {
                for (to, there) in wanted.inventory.nodes.iter().filter(|(to, _)| partition.cuts(from, to)) {
                    for traffic in &traffic {
                        let cut = |direction, address: &IpAddr, answer| Cut {
                            direction,
                            address: *address,
                            traffic: *traffic,
                            answer,
                        };
                        let answer = match partition.mode {
                            Mode::Reject => Answer::Refusal,
                            _ => Answer::Silence,
                        };
                        let egress = there.addresses.iter().map(|address| cut(Direction::Egress, address, answer));
                        expected.entry(from).or_default().extend(egress);
                        let silent = |address| cut(Direction::Ingress, address, Answer::Silence);
                        let ingress = here.addresses.iter().map(silent);
                        expected.entry(to).or_default().extend(ingress);
                    }
                }
            }
        }
        for node in wanted.inventory.nodes.keys() {
            let cuts = wanted.shaping(node, LineRate::UNKNOWN).unwrap_or_default().cuts;
            prop_assert_eq!(cuts, expected.remove(node).unwrap_or_default());
        }
    }

    #[test]
    fn a_node_reaches_those_that_all_traffic_to_is_not_dropped_and_always_itself(wanted in documents()) {
        for from in wanted.inventory.nodes.keys() {
            let cuts = wanted.shaping(from, LineRate::UNKNOWN).unwrap_or_default().cuts;
            for (to, place) in &wanted.inventory.nodes {
                let (direction, address, traffic) = (Direction::Egress, place.addresses[0], Traffic::All);
                let is_cut = |answer| cuts.contains(&Cut { direction, address, traffic, answer });
                prop_assert_eq!(is_cut(Answer::Silence) || is_cut(Answer::Refusal), !wanted.reaches(from, to));
            }
            prop_assert!(wanted.reaches(from, from));
        }
    }

    #[test]
    fn who_is_cut_from_whom_is_as_the_shape_says(wanted in documents()) {
        for partition in &wanted.partitions {
            for from in wanted.inventory.nodes.keys() {
                for to in wanted.inventory.nodes.keys() {
                    prop_assert_eq!(partition.cuts(from, to), are_apart(&partition.shape, from, to));
                }
            }
        }
    }

    #[test]
    fn partitions_heal_one_by_one_in_any_order_and_leave_no_filter(wanted in documents(), seed: u64) {
        let mut names: Vec<String> = wanted.partitions.iter().map(|partition| partition.name.clone()).collect();
        Dice::new(seed).shuffle(&mut names);
        let mut healed = wanted.clone();
        for name in names {
            let before = healed.partitions.clone();
            healed = healed.healed(std::slice::from_ref(&name), wanted.inventory.clone()).unwrap();
            let rest: Vec<_> = before.into_iter().filter(|partition| partition.name != name).collect();
            prop_assert_eq!(&healed.partitions, &rest);
        }
        for node in wanted.inventory.nodes.keys() {
            prop_assert!(healed.shaping(node, LineRate::UNKNOWN).is_none_or(|shaping| shaping.cuts.is_empty()));
        }
    }

    #[test]
    fn a_partition_that_is_repeated_changes_nothing_and_another_of_its_name_is_refused(
        wanted in documents(),
        wish in partitions(),
    ) {
        let inventory = wanted.inventory.clone();
        let Ok(cut) = wanted.with_partition(named("again", &wish), inventory.clone()) else { return Ok(()) };
        let later = Wanted { generation: cut.generation + 1, ..cut.clone() };
        let repeated = later.with_partition(named("again", &wish), inventory.clone()).unwrap();
        prop_assert_eq!(&repeated, &later);
        let other = PartitionWish { ports: ["udp/9".parse().unwrap()].into(), mode: Mode::Drop, ..wish };
        let refused = later.with_partition(named("again", &other), inventory).unwrap_err();
        prop_assert!(matches!(refused, EditError::NameTaken(_)), "{}", refused);
    }

    #[test]
    fn every_address_of_a_node_gets_the_profile_of_its_link(wanted in documents(), mbit in 1..100_000_u32) {
        let rate = LineRate::from_mbit(mbit);
        for from in wanted.inventory.nodes.keys() {
            let shaping = wanted.shaping(from, rate);
            let involved = wanted.topology.as_ref().is_some_and(|topology| topology.contains(from));
            let sends = || wanted.overlays.iter().any(|overlay| {
                wanted.inventory.nodes.keys().any(|to| overlay.is_about(from, to))
            });
            prop_assert_eq!(shaping.is_some(), involved || !wanted.partitions.is_empty() || sends());
            let lanes = shaping.unwrap_or_default().lanes;
            for (to, place) in &wanted.inventory.nodes {
                for address in &place.addresses {
                    prop_assert_eq!(lanes.get(address).map(|lane| lane.profile), Profile::of(&wanted.link(from, to), rate));
                }
            }
        }
    }

    #[test]
    fn an_overlay_changes_the_links_that_it_is_about_and_no_other_and_leaves_no_trace(
        wanted in documents(),
        ends in (ends(), ends()),
        both_ways: bool,
        delay in 0..9_u32,
    ) {
        let wish = wish(Some("new"), ends, both_ways, delay, None);
        let (change, inventory) = (wish.change.clone(), wanted.inventory.clone());
        // Both ends may be one node, which is refused, as it should be.
        let Ok(laid) = wanted.with_overlay(wish.clone(), inventory.clone()) else { return Ok(()) };
        let overlay = laid.overlays.last().unwrap();
        for from in inventory.nodes.keys() {
            for to in inventory.nodes.keys() {
                let before = wanted.link(from, to);
                let after = if overlay.is_about(from, to) { change.over(before) } else { before };
                prop_assert_eq!(laid.link(from, to), after);
                prop_assert_eq!(laid.reaches(from, to), wanted.reaches(from, to));
            }
            if !overlay.has_sender(from) {
                prop_assert_eq!(laid.shaping(from, LineRate::UNKNOWN), wanted.shaping(from, LineRate::UNKNOWN));
            }
        }
        let again = laid.with_overlay(wish, inventory.clone()).unwrap();
        prop_assert_eq!(&again, &laid);
        let off = laid.without_overlays(&["new".to_owned()], inventory).unwrap();
        prop_assert!(off.says_the_same(&wanted));
        prop_assert_eq!(off, wanted);
    }

    #[test]
    fn an_overlay_that_is_laid_anew_is_on_top_and_another_one(wanted in documents()) {
        let Some(first) = wanted.overlays.first().cloned() else { return Ok(()) };
        let node = |nodes: &BTreeSet<NodeName>| hostlist::fold(&nodes.iter().cloned().collect::<Vec<_>>());
        let ends = (node(&first.from), node(&first.to));
        let wish = Wish {
            name: Some(first.name.clone()),
            from: ends.0,
            to: ends.1,
            both_ways: first.both_ways,
            change: first.change.clone(),
            lasts: Some(Duration::from_secs(9)),
        };
        let laid = Wanted { generation: 7, ..wanted.clone() }.with_overlay(wish, wanted.inventory.clone()).unwrap();
        let last = laid.overlays.last().unwrap();
        prop_assert_eq!((&last.name, last.since, last.lasts), (&first.name, 8, Some(Duration::from_secs(9))));
        prop_assert_ne!(last.id(), first.id());
        prop_assert_eq!(laid.overlays.len(), wanted.overlays.len());
        prop_assert!(laid.timed().any(|id| id == last.id()));
        prop_assert!(laid.without(&[last.id()].into()).overlays.iter().all(|overlay| overlay.name != first.name));
    }

    #[test]
    fn a_document_is_the_same_after_the_wire_and_has_the_same_stamp(wanted in documents()) {
        let there = over_the_wire(&wanted);
        prop_assert_eq!(there.stamp(), wanted.stamp());
        prop_assert_eq!(there, wanted);
    }

    #[test]
    fn healing_everything_leaves_the_topology_alone(wanted in documents()) {
        let healed = wanted.healed(&[], wanted.inventory.clone()).unwrap();
        prop_assert_eq!(&healed, &Wanted { partitions: Vec::new(), ..wanted.clone() });
        let unset = healed.without_overlays(&[], wanted.inventory.clone()).unwrap();
        prop_assert_eq!(&unset, &Wanted { overlays: Vec::new(), ..healed.clone() });
        let cleared = healed.cleared(wanted.inventory.clone()).unwrap();
        prop_assert!(cleared.is_clear());
        prop_assert!(wanted.inventory.nodes.keys().all(|node| cleared.shaping(node, LineRate::UNKNOWN).is_none()));
    }
}

#[test]
fn a_foreign_object_stops_every_change_of_an_interface_that_we_would_write_to() {
    let foreign = vec![ForeignObject("qdisc fq_codel 8001: parent root".to_owned())];
    let mut tree = Tree { foreign: foreign.clone(), ..Tree::default() };
    let wish = Shaping::default();
    assert_eq!(diff(Some(&wish), &tree), Err(Blocked::Foreign(foreign.clone())));
    // There is nothing of ours to remove.
    assert_eq!(diff(None, &tree), Ok(Change::default()));
    tree.taken = true;
    assert_eq!(diff(Some(&wish), &tree), Err(Blocked::Foreign(foreign.clone())));
    assert_eq!(diff(None, &tree), Err(Blocked::Foreign(foreign)));
}

#[test]
fn traffic_stays_in_its_class_although_an_idle_one_was_made_its_twin() {
    let [near, far] = [("10ms", 16_666), ("75ms", 100_000)].map(|(delay, limit)| {
        let delay = delay.parse().unwrap();
        Profile::plain(delay, limit)
    });
    let [one, other]: [IpAddr; 2] = ["10.0.0.2", "10.0.0.3"].map(|address| address.parse().unwrap());
    let mut kernel = untouched();
    let both = Shaping {
        lanes: BTreeMap::from([(one, Lane::of(near, [])), (other, Lane::of(far, []))]),
        ..Shaping::default()
    };
    apply(&mut kernel, Some(&both));
    let wish = Shaping { lanes: BTreeMap::from([(other, Lane::of(far, []))]), ..Shaping::default() };
    let idle = apply(&mut kernel, Some(&wish)).draining.pop_first().unwrap();

    // As somebody might with `tc qdisc change`.
    kernel.tree.classes.get_mut(&idle).unwrap().profile = Some(far);
    let steps = vec![Step::RemoveClass { class: idle, profile: Some(far) }];
    assert_eq!(diff(Some(&wish), &kernel.tree), Ok(Change { steps, draining: BTreeSet::new() }));
}

fn addresses() -> impl Strategy<Value = IpAddr> {
    prop::sample::select(ADDRESSES.map(|address| address.parse().unwrap()).to_vec())
}

fn profiles() -> impl Strategy<Value = Profile> {
    let plain = PROFILES.map(|(delay, limit)| Profile::plain(delay.parse().unwrap(), limit));
    // Some with memory, and some that the kernel knows a table of.
    let link = Link { delay: plain[0].delay, rate: Some(Rate::plain("1gbit".parse().unwrap())), ..Link::LAN };
    let jitter = |distribution| Some(Jitter { amount: plain[3].delay, correlation: Probability::ZERO, distribution });
    let links = [
        link,
        Link { delay: plain[1].delay, ..link },
        Link { jitter: jitter(Distribution::Normal), rate: None, ..link },
        Link { jitter: jitter(Distribution::Pareto), rate: None, ..link },
        Link { jitter: jitter(Distribution::Pareto), rate: None, reorder: Some(Reorder::Jitter), ..link },
    ];
    let more = links.iter().filter_map(|link| Profile::of(link, LineRate::UNKNOWN));
    prop::sample::select(plain.into_iter().chain(more).collect::<Vec<_>>())
}

fn cuts() -> impl Strategy<Value = Cut> {
    let port = Port { protocol: Protocol::Tcp, number: 26257 };
    let traffics = vec![Traffic::All, Traffic::ToPort(port), Traffic::FromPort(port)];
    let directions = vec![Direction::Egress, Direction::Ingress];
    let answers = vec![Answer::Silence, Answer::Refusal];
    (prop::sample::select(directions), addresses(), prop::sample::select(traffics), prop::sample::select(answers))
        .prop_map(|(direction, address, traffic, answer)| Cut { direction, address, traffic, answer })
}

fn shapings() -> impl Strategy<Value = Shaping> {
    let profiles = prop::collection::btree_map(addresses(), profiles(), 0..ADDRESSES.len());
    let cuts = prop::collection::btree_set(cuts(), 0..4);
    (profiles, cuts).prop_map(|(profiles, cuts)| Shaping { lanes: lanes(&profiles), cuts })
}

/// One lane for all addresses of one profile; of a profile with memory, one for each family.
fn lanes(profiles: &BTreeMap<IpAddr, Profile>) -> BTreeMap<IpAddr, Lane> {
    let lane = |(address, profile): (&IpAddr, &Profile)| {
        let alike = profiles.iter().filter(|(_, other)| *other == profile).map(|(address, _)| address);
        (*address, Lane::of(*profile, alike.filter(|other| other.is_ipv4() == address.is_ipv4())))
    };
    profiles.iter().map(lane).collect()
}

fn wishes() -> impl Strategy<Value = Option<Shaping>> {
    prop::option::weighted(0.9, shapings())
}

/// Kernels that have been through a few wishes, with packets left in some leaves after each.
fn kernels() -> impl Strategy<Value = FakeKernel> {
    let queued = prop::collection::vec(prop_oneof![Just(0), 1..9_u32], 1..5);
    prop::collection::vec((wishes(), queued), 0..4).prop_map(|past| {
        let mut kernel = untouched();
        for (wish, queued) in past {
            forget_queues(&mut kernel.tree);
            apply(&mut kernel, wish.as_ref());
            let leaves = kernel.tree.classes.values_mut().filter(|leaf| leaf.profile.is_some());
            leaves.zip(queued.iter().cycle()).for_each(|(leaf, queued)| leaf.queued = *queued);
        }
        kernel
    })
}

/// Documents about six nodes: a topology of some of them or none, up to three overlays and three partitions of all.
fn documents() -> impl Strategy<Value = Wanted> {
    let zones = prop::collection::vec(0..4_usize, 2..=6);
    let times = (0..3_u32, 0..3_u32, 0..3_u32);
    let partitions = prop::collection::vec(partitions(), 0..4);
    let overlays = prop::collection::vec(((ends(), ends()), any::<bool>(), 0..9_u32, any::<bool>()), 0..4);
    (prop::option::of((zones, times)), overlays, partitions).prop_map(|(topology, overlays, partitions)| {
        let mut wanted = Wanted { inventory: inventory(6), ..Wanted::default() };
        if let Some((zones, times)) = topology {
            wanted = wanted.with_topology(topology_of(&zones, times), inventory(6)).unwrap();
        }
        for (number, (ends, both_ways, delay, is_timed)) in overlays.into_iter().enumerate() {
            let lasts = is_timed.then_some(Duration::from_secs(30));
            let wish = wish(Some(&format!("set:{number}")), ends, both_ways, delay, lasts);
            // One between a node and itself is refused.
            if let Ok(laid) = wanted.with_overlay(wish, inventory(6)) {
                wanted = laid;
            }
        }
        for (number, wish) in partitions.iter().enumerate() {
            // One that cuts nothing is refused, which is right and of no use here.
            if let Ok(cut) = wanted.with_partition(named(&format!("cut-{number}"), wish), inventory(6)) {
                wanted = cut;
            }
        }
        wanted
    })
}

/// One end of an overlay, in words.
fn ends() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["n1", "n2", "n[1-2]", "n[3-5],n1", "n6", "*"]).prop_map(str::to_owned)
}

fn wish(
    name: Option<&str>,
    (from, to): (String, String),
    both_ways: bool,
    delay: u32,
    lasts: Option<Duration>,
) -> Wish {
    let source = Source::new("<set>", format!("delay = '{delay}ms'\nlimit = {}", 100 + delay));
    let change = LinkChange::parse(source, both_ways).unwrap();
    Wish { name: name.map(str::to_owned), from, to, both_ways, change, lasts }
}

/// Partitions of every form. Those of zones are refused where there are none.
fn partitions() -> impl Strategy<Value = PartitionWish> {
    let sides = prop::collection::vec(0..3_usize, 6)
        .prop_map(|sides| members(&sides).into_values().map(|nodes| nodes.join(",")).collect::<Vec<_>>());
    let draws = prop::sample::select(vec![
        Draw::Halves,
        Draw::Minority(2),
        Draw::Isolate(None),
        Draw::Isolate(Some("n2".to_owned())),
        Draw::IsolateEach,
        Draw::Bridge(None),
        Draw::Bridge(Some("n3".to_owned())),
        Draw::Ring,
        Draw::Random,
    ]);
    let over = prop::sample::select(vec![Over::Nodes, Over::Nodes, Over::Zones]);
    let among = prop::sample::select(vec![vec![], vec!["n[1-5]".to_owned()]]);
    let division = prop_oneof![
        sides.clone().prop_map(Division::Sides),
        sides.prop_map(Division::OneWay),
        (draws, over, among, any::<u64>()).prop_map(|(draw, over, among, seed)| Division::Drawn {
            draw,
            over,
            among,
            seed
        }),
    ];
    let ports = vec!["tcp/26257".parse().unwrap(), "udp/4567".parse().unwrap(), "tcp/8080".parse().unwrap()];
    let ports = prop::sample::subsequence(ports, 0..=2);
    let modes = prop::sample::select(vec![Mode::Drop, Mode::Drop, Mode::Loss("30%".parse().unwrap())]);
    (division, ports, modes).prop_map(|(division, ports, mode)| PartitionWish {
        ports: ports.into_iter().collect(),
        mode,
        ..PartitionWish::of(division)
    })
}

fn named(name: &str, wish: &PartitionWish) -> PartitionWish {
    PartitionWish { name: Some(name.to_owned()), ..wish.clone() }
}

/// Whether a shape keeps two nodes apart, said as people would.
fn are_apart(shape: &Shape, from: &NodeName, to: &NodeName) -> bool {
    let places = |sets: &[BTreeSet<NodeName>], node: &NodeName| -> BTreeSet<usize> {
        let places = sets.iter().enumerate().filter(|(_, set)| set.contains(node));
        let places: BTreeSet<usize> = places.map(|(place, _)| place).collect();
        // The rest is one more side.
        if places.is_empty() { [sets.len()].into() } else { places }
    };
    match shape {
        _ if from == to => false,
        Shape::Sides(sides) => places(sides, from).is_disjoint(&places(sides, to)),
        Shape::OneWay { from: silent, to: deaf } => silent.contains(from) && deaf.contains(to),
        Shape::Ring { order, reach } => {
            let (a, b) = (*places(order, from).first().unwrap(), *places(order, to).first().unwrap());
            let round = order.len();
            match (a == round, b == round) {
                (true, true) => false,
                (false, false) => !(0..=*reach).any(|step| (a + step) % round == b || (b + step) % round == a),
                _ => true,
            }
        }
    }
}

/// The topology in which node `n1` is in zone `zones[0]` and so on; those of zone 0 are in none.
fn topology_of(zones: &[usize], (default, intra, inter): (u32, u32, u32)) -> Topology {
    let members = members(zones);
    let outside: Vec<String> =
        (1..).zip(zones).filter(|(_, zone)| **zone == 0).map(|(node, _)| format!("n{node}")).collect();
    let mut text = "name = \"random\"\n".to_owned();
    if !outside.is_empty() {
        text += &format!("nodes = {outside:?}\n");
    }
    if !members.is_empty() {
        text += "[zones]\n";
        text.extend(members.iter().map(|(zone, nodes)| format!("Z{zone} = {nodes:?}\n")));
    }
    text += &format!("[links]\ndefault = {{ rtt = \"{default}0ms\" }}\n");
    if !members.is_empty() {
        text += &format!("intra-zone = {{ delay = \"{intra}0ms\" }}\n");
    }
    if members.len() > 1 {
        text += &format!("inter-zone = {{ delay = \"{inter}5ms\" }}\n");
    }
    text += &format!("[[links.override]]\nfrom = \"n1\"\nto = \"n2\"\ndelay = \"{intra}s\"\n");
    let source = Source::new("random.toml", text);
    Topology::parse(source).unwrap_or_else(|rejected| panic!("{}", rejected.render(false, 100)))
}

/// The nodes of each group but 0, where `groups[0]` is the group of node `n1`.
fn members(groups: &[usize]) -> BTreeMap<usize, Vec<String>> {
    let mut members: BTreeMap<usize, Vec<String>> = BTreeMap::new();
    for (node, group) in (1..).zip(groups).filter(|(_, group)| **group != 0) {
        members.entry(*group).or_default().push(format!("n{node}"));
    }
    members
}

fn inventory(nodes: u8) -> Inventory {
    let place = |node: u8| Place {
        agent: AgentAddress::Unix(format!("/run/n{node}.sock").into()),
        interface: "db0".parse().unwrap(),
        addresses: vec![IpAddr::from([10, 0, 0, node]), format!("fd00::{node}").parse().unwrap()],
    };
    let node = |node: u8| (format!("n{node}").parse::<NodeName>().unwrap(), place(node));
    Inventory { nodes: (1..=nodes).map(node).collect(), ..Inventory::default() }
}

fn untouched() -> FakeKernel {
    FakeKernel::new("db0".parse().unwrap())
}

fn apply(kernel: &mut FakeKernel, wish: Option<&Shaping>) -> Change {
    let change = diff(wish, &kernel.tree).unwrap();
    let interface = kernel.interface.clone();
    execute(kernel, &interface, &change.steps).unwrap();
    change
}

fn removed(change: &Change) -> BTreeSet<ClassMinor> {
    let removed = |step: &Step| match step {
        Step::RemoveClass { class, .. } => Some(*class),
        _ => None,
    };
    change.steps.iter().filter_map(removed).collect()
}

fn forget_queues(tree: &mut Tree) {
    tree.classes.values_mut().for_each(|leaf| leaf.queued = 0);
}

/// What of a step is done when the power fails within it: a batch of messages may be cut anywhere.
fn torn(step: &Step) -> Option<Step> {
    match step.clone() {
        Step::AddClass { class, profile: Some(_) } => Some(Step::AddClass { class, profile: None }),
        Step::BuildChain { chain, mut routes } => {
            routes.truncate(routes.len() / 2);
            Some(Step::BuildChain { chain, routes })
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

fn over_the_wire<T: serde::Serialize + serde::de::DeserializeOwned>(here: &T) -> T {
    serde_json::from_str(&serde_json::to_string(here).unwrap()).unwrap()
}
