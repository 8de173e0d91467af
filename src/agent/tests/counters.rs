//! Tests of the packet counters that the agent reports.

use super::{address, commit, confirm, count_cuts, n1, now, parted, prepare, put, uniform};
use crate::{
    plan::{LeafCount, Tally, Wanted},
    wire::{PartitionEnded, Routed},
};

#[test]
fn a_change_that_ends_a_partition_returns_the_packets_cut_until_then() {
    let mut node = n1();
    let partition = parted(&Wanted::default(), "n2", None);
    put(&mut node, "a", &partition);
    let healed = Wanted { generation: 2, partitions: Vec::new(), ..partition.clone() };
    let ended = |cut| PartitionEnded { name: "n2".to_owned(), ports: [].into(), cut };

    node.prepare(prepare("b", &partition, &healed), now()).unwrap();
    node.make_ready(&commit("b"), now()).unwrap();
    // Both filters cut their first packet after `make_ready` has read the counters.
    count_cuts(&mut node, 1);
    let committed = node.commit(&commit("b"), &|| now()).unwrap();
    assert_eq!(committed.ended, [ended(2)], "one packet by each of the two filters");
    node.confirm(&confirm("b"), now()).unwrap();

    let again = parted(&healed, "n2", None);
    put(&mut node, "c", &again);
    let another = parted(&again, "n3", None);
    node.prepare(prepare("d", &again, &another), now()).unwrap();
    assert_eq!(node.commit(&commit("d"), &|| now()).unwrap().ended, [], "the first partition continues");
}

#[test]
fn counters_have_the_packets_cut_by_a_partition_and_sent_by_a_link() {
    let mut node = n1();
    let document = parted(&uniform(&Wanted::default(), "100ms"), "n2", None);
    put(&mut node, "a", &document);
    count_cuts(&mut node, 7);
    let class = *node.kernel().tree.classes_in_use().first().unwrap();
    let sent = Tally { packets: 90, bytes: 9_000 };
    node.kernel().tree.counters.leaves.insert(class, LeafCount { sent, dropped: 10 });

    assert_eq!(node.status(now()).unwrap().partitions[0].cut, Some(14));
    let counted = node.counted(now()).unwrap();
    assert_eq!(counted.cuts.len(), 2);
    let [link] = &counted.links[..] else { panic!("{:?}", counted.links) };
    assert_eq!((link.sent, link.dropped, link.overflowed), (sent, 10, Some(10)), "all drops are overflow");
    assert_eq!(link.addresses.len(), 2);
}

#[test]
fn a_route_through_another_node_is_reported_unless_the_node_is_clear() {
    let mut node = n1();
    let index = node.kernel().interface.index;
    node.kernel().gateways = [(index, address(2))].into();
    assert_eq!(node.status(now()).unwrap().routed, None);
    put(&mut node, "a", &uniform(&Wanted::default(), "100ms"));
    let routed = Routed { through: ["n2".parse().unwrap()].into(), forwards: false };
    assert_eq!(node.status(now()).unwrap().routed, Some(routed));
}
