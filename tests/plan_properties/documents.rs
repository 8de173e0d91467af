//! Properties of the wanted state: its edits, and each node's shaping.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use netemctl::{
    plan::{
        Answer, Cut, Dice, Direction, EditError, LineRate, Mode, OverlayRequest, PartitionRequest, Profile, Shape,
        Traffic, Wanted,
    },
    topology::{NodeName, hostlist},
};
use proptest::prelude::*;

use super::drawn::{documents, ends, named, overlay_request, partitions};
use super::over_the_wire;

proptest! {
    #[test]
    fn the_cuts_of_a_node_are_those_of_all_partitions_at_both_ends(wanted in documents()) {
        let mut expected: BTreeMap<&NodeName, BTreeSet<Cut>> = BTreeMap::new();
        for partition in wanted.partitions.iter().filter(|partition| !matches!(partition.mode, Mode::Loss { .. })) {
            let ports = partition.ports.iter().flat_map(|port| [Traffic::ToPort { port: *port }, Traffic::FromPort { port: *port }]);
            let fragments = partition.ports.iter().map(|port| Traffic::FragmentsOf { protocol: port.protocol });
            let traffic: Vec<Traffic> =
                if partition.ports.is_empty() { vec![Traffic::All] } else { ports.chain(fragments).collect() };
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
    fn a_node_reaches_itself_and_each_node_to_which_not_all_traffic_is_cut(wanted in documents()) {
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
    fn a_partition_cuts_the_pairs_that_its_shape_describes(wanted in documents()) {
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
            healed = healed.healed(std::slice::from_ref(&name), wanted.inventory.as_ref().clone()).unwrap();
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
        request in partitions(),
    ) {
        let inventory = wanted.inventory.as_ref().clone();
        let Ok(cut) = wanted.with_partition(named("again", &request), inventory.clone()) else { return Ok(()) };
        let later = Wanted { generation: cut.generation + 1, ..cut.clone() };
        let repeated = later.with_partition(named("again", &request), inventory.clone()).unwrap();
        prop_assert_eq!(&repeated, &later);
        let other = PartitionRequest { ports: ["udp/9".parse().unwrap()].into(), mode: Mode::Drop, ..request };
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
            let leaf_specs = shaping.unwrap_or_default().leaf_specs;
            for (to, place) in &wanted.inventory.nodes {
                for address in &place.addresses {
                    prop_assert_eq!(leaf_specs.get(address).map(|spec| spec.profile), Profile::of(&wanted.link(from, to), rate));
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
        let request = overlay_request(Some("new"), ends, both_ways, delay, None);
        let (change, inventory) = (request.change.clone(), wanted.inventory.as_ref().clone());
        // Both ends may be the same node. Such an overlay is rejected.
        let Ok(laid) = wanted.with_overlay(request.clone(), inventory.clone()) else { return Ok(()) };
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
        let again = laid.with_overlay(request, inventory.clone()).unwrap();
        prop_assert_eq!(&again, &laid);
        let off = laid.without_overlays(&["new".to_owned()], inventory).unwrap();
        prop_assert!(off.is_equivalent_to(&wanted));
        prop_assert_eq!(off, wanted);
    }

    #[test]
    fn an_overlay_that_is_set_again_moves_to_the_top_and_gets_a_new_id(wanted in documents()) {
        let Some(first) = wanted.overlays.first().cloned() else { return Ok(()) };
        let node = |nodes: &BTreeSet<NodeName>| hostlist::fold(nodes);
        let ends = (node(&first.from), node(&first.to));
        let request = OverlayRequest {
            name: Some(first.name.clone()),
            from: ends.0,
            to: ends.1,
            both_ways: first.both_ways,
            change: first.change.clone(),
            lasts: Some(Duration::from_secs(9)),
        };
        let laid = Wanted { generation: 7, ..wanted.clone() }.with_overlay(request, wanted.inventory.as_ref().clone()).unwrap();
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
        let healed = wanted.healed(&[], wanted.inventory.as_ref().clone()).unwrap();
        prop_assert_eq!(&healed, &Wanted { partitions: Vec::new(), ..wanted.clone() });
        let unset = healed.without_overlays(&[], wanted.inventory.as_ref().clone()).unwrap();
        prop_assert_eq!(&unset, &Wanted { overlays: Vec::new(), ..healed.clone() });
        let cleared = healed.cleared(wanted.inventory.as_ref().clone()).unwrap();
        prop_assert!(cleared.is_clear());
        prop_assert!(wanted.inventory.nodes.keys().all(|node| cleared.shaping(node, LineRate::UNKNOWN).is_none()));
    }
}

/// True if a shape cuts packets between two nodes. Written independently of `Partition::cuts`.
fn are_apart(shape: &Shape, from: &NodeName, to: &NodeName) -> bool {
    let places = |sets: &[BTreeSet<NodeName>], node: &NodeName| -> BTreeSet<usize> {
        let places = sets.iter().enumerate().filter(|(_, set)| set.contains(node));
        let places: BTreeSet<usize> = places.map(|(place, _)| place).collect();
        // Nodes on no side form one more side.
        if places.is_empty() { [sets.len()].into() } else { places }
    };
    match shape {
        _ if from == to => false,
        Shape::Sides { sides } => places(sides, from).is_disjoint(&places(sides, to)),
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
