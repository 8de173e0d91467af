//! What a document must be for an agent to take it: whatever no command of netemctl writes, no other client may.
//!
//! The types see to most of it as they are read. The rest is here: what parts of a document have to do with each other.

use std::{collections::BTreeSet, ops::RangeInclusive, time::Duration};

use thiserror::Error;

use super::{
    Flap, InventoryError, Overlay, OverlayError, Partition, PartitionError, Shape, Stamp, Timing, Wanted, name::is_name,
};
use crate::topology::{LinkChange, NodeName, hostlist};

/// The time that something can last.
pub const TIMES: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_hours(365 * 24);

/// The shortest turn of a [`Flap`]. A filter is written in less, and all of a large partition may take as long.
pub const SHORTEST_TURN: Duration = Duration::from_millis(10);

/// The largest spread of a [`Flap`], in percent.
const LARGEST_SPREAD: u8 = 50;

/// How far a generation may be ahead of the one before. A client that skips as many at each change needs 2^32 changes
/// until no generation is left; one that may skip all needs one.
const LONGEST_SKIP: u64 = 1 << 32;

/// Why no agent takes a document.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum Unfit {
    /// The inventory cannot be.
    #[error(transparent)]
    Inventory(#[from] InventoryError),
    /// A partition cannot be.
    #[error("partition {0}: {1}")]
    Partition(String, PartitionError),
    /// A change of links cannot be.
    #[error("change {0}: {1}")]
    Overlay(String, OverlayError),
    /// A change has parameters that links of one direction do not have.
    #[error("change {0} is of one direction, and has parameters of both")]
    OneWay(String),
    /// Two partitions, or two changes, of one name.
    #[error("two partitions or two changes are called `{0}`")]
    Twice(String),
    /// A set of nodes that is empty.
    #[error("`{0}` has a side without a node")]
    EmptySide(String),
    /// A time that is too short or too long.
    #[error("`{0}` lasts {1:?}; a time is between 1 ms and 365 days")]
    Lasts(String, Duration),
    /// Turns that are too short or too long, or that may come at any time.
    #[error("`{0}` has turns of {down:?} and {up:?} with a spread of {spread} %; they take 10 ms to 365 days, and spread by 50 % at most", down = .1.down, up = .1.up, spread = .1.spread)]
    Turns(String, Flap),
    /// Something of a later document.
    #[error("`{name}` is of generation {since}, and the document of generation {generation}")]
    FromTheFuture {
        /// Its name.
        name: String,
        /// When it came.
        since: u64,
        /// The document's.
        generation: u64,
    },
    /// Nodes that the document leaves out, and that are to have it.
    #[error("the document leaves out {}", hostlist::fold(.0))]
    LeftOut(Vec<NodeName>),
    /// Nodes that are in no inventory.
    #[error("the inventory does not have {}", hostlist::fold(.0))]
    Homeless(Vec<NodeName>),
    /// A generation that cannot follow.
    #[error("generation {next} cannot follow generation {generation}")]
    Generation {
        /// The document's.
        next: u64,
        /// The one before.
        generation: u64,
    },
}

impl Wanted {
    /// Checks what the types do not: that a command of netemctl could have written it.
    pub fn check(&self) -> Result<(), Unfit> {
        self.inventory.check()?;
        let everyone: BTreeSet<&NodeName> = self.inventory.nodes.keys().collect();
        let of_zones = self.inventory.zones.values().flatten();
        let named = self.topology.iter().flat_map(crate::topology::Topology::nodes).chain(of_zones);
        let homeless: BTreeSet<_> = named.filter(|node| !everyone.contains(node)).cloned().collect();
        if !homeless.is_empty() {
            return Err(Unfit::Homeless(homeless.into_iter().collect()));
        }
        // Nodes that nobody knows the place of can be left out, so these need not be in the inventory.
        if !self.missing.is_empty() && everyone.iter().all(|node| self.missing.contains(*node)) {
            return Err(Unfit::LeftOut(self.missing.iter().cloned().collect()));
        }
        let mut names = BTreeSet::new();
        for overlay in &self.overlays {
            self.check_overlay(overlay)?;
            if !names.insert(&overlay.name) {
                return Err(Unfit::Twice(overlay.name.clone()));
            }
        }
        let mut names = BTreeSet::new();
        for partition in &self.partitions {
            self.check_partition(partition)?;
            if !names.insert(&partition.name) {
                return Err(Unfit::Twice(partition.name.clone()));
            }
        }
        Ok(())
    }

    /// Checks that a node can have the document.
    pub fn check_for(&self, node: &NodeName) -> Result<(), Unfit> {
        if self.missing.contains(node) { Err(Unfit::LeftOut(vec![node.clone()])) } else { Ok(()) }
    }

    /// Checks that the document can follow the one with that stamp.
    pub fn check_after(&self, before: &Stamp) -> Result<(), Unfit> {
        let same = || self.stamp().digest == before.digest;
        match self.generation.checked_sub(before.generation) {
            Some(1..=LONGEST_SKIP) => Ok(()),
            Some(0) if same() => Ok(()),
            _ => Err(Unfit::Generation { next: self.generation, generation: before.generation }),
        }
    }

    fn check_overlay(&self, overlay: &Overlay) -> Result<(), Unfit> {
        let Overlay { name, from, to, both_ways, change, since, lasts } = overlay;
        let unfit = |why: OverlayError| Err(Unfit::Overlay(name.clone(), why));
        if !is_name(name) {
            return unfit(OverlayError::Name(name.clone()));
        }
        if let Some(unknown) = from.iter().chain(to).find(|node| !self.inventory.nodes.contains_key(*node)) {
            return unfit(OverlayError::Unknown(unknown.clone()));
        }
        if !from.iter().any(|node| overlay.has_sender(node)) {
            return unfit(OverlayError::NoLink(from.iter().cloned().collect()));
        }
        if !both_ways && LinkChange::parse(change.source().clone(), false).is_err() {
            return Err(Unfit::OneWay(name.clone()));
        }
        check_time(name, *lasts)?;
        self.check_since(name, *since)
    }

    fn check_partition(&self, partition: &Partition) -> Result<(), Unfit> {
        let Partition { name, shape, ports: _, mode: _, timing, since } = partition;
        partition.check_alone().map_err(|why| Unfit::Partition(name.clone(), why))?;
        if let Some(unknown) = shape.nodes().find(|node| !self.inventory.nodes.contains_key(*node)) {
            return Err(Unfit::Partition(name.clone(), PartitionError::Unknown(unknown.clone())));
        }
        let is_empty = match shape {
            Shape::Sides(sets) | Shape::Ring { order: sets, .. } => {
                sets.is_empty() || sets.iter().any(BTreeSet::is_empty)
            }
            Shape::OneWay { from, to } => from.is_empty() || to.is_empty(),
        };
        if is_empty {
            return Err(Unfit::EmptySide(name.clone()));
        }
        if let Some(Timing { begins: _, lasts, flap }) = timing {
            check_time(name, *lasts)?;
            if let Some(flap) = flap {
                let turns = SHORTEST_TURN..=*TIMES.end();
                if !turns.contains(&flap.down) || !turns.contains(&flap.up) || flap.spread > LARGEST_SPREAD {
                    return Err(Unfit::Turns(name.clone(), *flap));
                }
            }
        }
        self.check_since(name, *since)
    }

    fn check_since(&self, name: &str, since: u64) -> Result<(), Unfit> {
        let generation = self.generation;
        if since > generation { Err(Unfit::FromTheFuture { name: name.to_owned(), since, generation }) } else { Ok(()) }
    }
}

fn check_time(name: &str, lasts: Option<Duration>) -> Result<(), Unfit> {
    match lasts {
        Some(time) if !TIMES.contains(&time) => Err(Unfit::Lasts(name.to_owned(), time)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        plan::{AgentAddress, Inventory, Mode, Moment, NodeLocation, OverlayRequest},
        topology::Source,
    };

    fn inventory() -> Inventory {
        let place = |number: u8| NodeLocation {
            agent: AgentAddress::Unix(format!("/run/n{number}.sock").into()),
            interface: "db0".parse().unwrap(),
            addresses: vec![[10, 0, 0, number].into()],
        };
        let nodes = (1..=3).map(|number| (format!("n{number}").parse().unwrap(), place(number))).collect();
        Inventory { nodes, ..Inventory::default() }
    }

    fn side(node: &str) -> BTreeSet<NodeName> {
        [node.parse().unwrap()].into()
    }

    /// A document as commands write it, with everything that can be in one.
    fn document() -> Wanted {
        let change = LinkChange::parse(Source::new("<set>", "rtt = '10ms'"), true).unwrap();
        let wish =
            OverlayRequest { name: None, from: "n1".into(), to: "n2".into(), both_ways: true, change, lasts: None };
        let mut wanted = Wanted::default().with_overlay(wish, inventory()).unwrap();
        let flap = Flap { down: SHORTEST_TURN, up: SHORTEST_TURN, spread: 50, seed: 1 };
        let timing = Timing { begins: Moment::from_nanos(0), lasts: Some(*TIMES.end()), flap: Some(flap) };
        wanted.generation = 1;
        wanted.partitions.push(Partition {
            name: "p".into(),
            shape: Shape::Sides(vec![side("n1")]),
            ports: BTreeSet::new(),
            mode: Mode::Drop,
            timing: Some(timing),
            since: 1,
        });
        wanted
    }

    /// Why a document is refused that is as it should be but for one thing.
    fn refused(spoil: impl FnOnce(&mut Wanted)) -> String {
        let mut wanted = document();
        assert_eq!(wanted.check(), Ok(()));
        spoil(&mut wanted);
        wanted.check().unwrap_err().to_string()
    }

    fn spoilt_flap(spoil: impl FnOnce(&mut Flap)) -> String {
        refused(|wanted| spoil(wanted.partitions[0].timing.as_mut().unwrap().flap.as_mut().unwrap()))
    }

    #[test]
    fn what_no_command_writes_is_refused_part_by_part() {
        let of_sides =
            |sides: Vec<BTreeSet<NodeName>>| refused(|wanted| wanted.partitions[0].shape = Shape::Sides(sides));
        assert_eq!(of_sides(vec![side("n9")]), "partition p: there is no node n9");
        assert_eq!(of_sides(vec![]), "`p` has a side without a node");
        assert_eq!(of_sides(vec![side("n1"), [].into()]), "`p` has a side without a node");
        let one_way = Shape::OneWay { from: side("n1"), to: side("n1") };
        assert_eq!(refused(|wanted| wanted.partitions[0].shape = one_way), "partition p: node n1 is on two sides");
        let ring = Shape::Ring { order: vec![side("n1"), side("n2")], reach: usize::MAX };
        let ring = refused(|wanted| wanted.partitions[0].shape = ring);
        assert!(ring.contains("cuts nothing"), "{ring}");
        let twice = refused(|wanted| wanted.partitions.push(wanted.partitions[0].clone()));
        assert_eq!(twice, "two partitions or two changes are called `p`");
        let twice = refused(|wanted| wanted.overlays.push(wanted.overlays[0].clone()));
        assert_eq!(twice, "two partitions or two changes are called `n1:n2:delay`");
        for name in ["", "a b"] {
            assert!(refused(|wanted| wanted.partitions[0].name = name.into()).contains("is no name for a partition"));
            assert!(refused(|wanted| wanted.overlays[0].name = name.into()).contains("is no name for a change"));
        }
        let unknown = refused(|wanted| wanted.overlays[0].to = side("n9"));
        assert!(unknown.contains("there is no node n9"), "{unknown}");
        let alone = refused(|wanted| wanted.overlays[0].to = side("n1"));
        assert!(alone.contains("no link to itself"), "{alone}");
        assert!(refused(|wanted| wanted.overlays[0].from = [].into()).contains("no link to itself"));
        assert!(refused(|wanted| wanted.overlays[0].both_ways = false).contains("of one direction"));
        for time in [Duration::ZERO, Duration::MAX] {
            assert!(refused(|wanted| wanted.overlays[0].lasts = Some(time)).contains("between 1 ms and 365 days"));
            let lasts = refused(|wanted| wanted.partitions[0].timing.as_mut().unwrap().lasts = Some(time));
            assert!(lasts.contains("between 1 ms and 365 days"));
            assert!(spoilt_flap(|flap| flap.down = time).contains("they take 10 ms to 365 days"));
            assert!(spoilt_flap(|flap| flap.up = time).contains("they take 10 ms to 365 days"));
        }
        assert!(spoilt_flap(|flap| flap.spread = 51).contains("spread by 50 % at most"));
        assert!(refused(|wanted| wanted.partitions[0].since = 2).contains("generation 2"));
        assert!(refused(|wanted| wanted.overlays[0].since = u64::MAX).contains("of generation"));
        let n3: NodeName = "n3".parse().unwrap();
        let shared =
            refused(|wanted| wanted.inventory.nodes.get_mut(&n3).unwrap().addresses = vec![[10, 0, 0, 1].into()]);
        assert!(shared.contains("10.0.0.1 is the address of both"), "{shared}");
        let zone = "Z".parse().unwrap();
        let zones = refused(|wanted| drop(wanted.inventory.zones.insert(zone, vec!["n9".parse().unwrap()])));
        assert_eq!(zones, "the inventory does not have n9");
        let everyone = refused(|wanted| wanted.missing = wanted.inventory.nodes.keys().cloned().collect());
        assert_eq!(everyone, "the document leaves out n[1-3]");
    }

    #[test]
    fn a_node_that_a_document_leaves_out_does_not_take_it() {
        let missing = ["n2".parse().unwrap(), "nobody-knows-where".parse().unwrap()].into();
        let document = Wanted { missing, ..document() };
        assert_eq!(document.check(), Ok(()));
        assert_eq!(document.check_for(&"n1".parse().unwrap()), Ok(()));
        let n2: NodeName = "n2".parse().unwrap();
        assert_eq!(document.check_for(&n2), Err(Unfit::LeftOut(vec![n2])));
    }

    #[test]
    fn a_document_is_on_all_nodes_of_another_one_if_it_leaves_none_of_those_out() {
        let leaving_out = |nodes: &[&str]| {
            let missing = nodes.iter().map(|node| node.parse().unwrap()).collect();
            Wanted { missing, ..document() }
        };
        let (all, two, one) = (leaving_out(&[]), leaving_out(&["n3"]), leaving_out(&["n2", "n3"]));
        assert_eq!([&all, &two, &one].map(|document| document.is_on_all_of(&two)), [true, true, false]);
        let mut smaller = document();
        smaller.inventory.nodes.retain(|node, _| node.as_str() == "n1");
        assert_eq!([&two, &one].map(|document| smaller.is_on_all_of(document)), [false, true]);
    }

    #[test]
    fn a_node_that_left_the_inventory_stops_no_edit_and_stays_where_it_was_while_something_names_it() {
        let cut_off = |node: &str| Partition { shape: Shape::Sides(vec![side(node)]), name: node.into(), ..part("p") };
        let n3: NodeName = "n3".parse().unwrap();
        let without = |node: &NodeName| {
            let mut inventory = inventory();
            inventory.nodes.remove(node);
            inventory
        };
        let before = Wanted { partitions: vec![cut_off("n3"), cut_off("n1")], ..document() };
        // What named it is gone, and so is the node.
        let healed = before.healed(&["n3".into()], without(&n3)).unwrap();
        assert!(!healed.inventory.nodes.contains_key(&n3) && healed.partitions.len() == 1);
        assert!(healed.only_removes_from(&before));
        let unset = before.without_overlays(&[], without(&n3)).unwrap();
        assert_eq!(unset.inventory.nodes[&n3], before.inventory.nodes[&n3]);
        assert_eq!(unset.check(), Ok(()));
        let topology = crate::topology::Topology::parse(Source::new(
            "t",
            "name = 't'\nnodes = 'n[1-2]'\n[links]\ndefault = { rtt = '10ms' }\n",
        ));
        assert_eq!(before.with_topology(topology.unwrap(), without(&n3)).unwrap().check(), Ok(()));

        // The same host under another name.
        let mut renamed = without(&n3);
        renamed.nodes.insert("n4".parse().unwrap(), inventory().nodes[&n3].clone());
        let error = before.without_overlays(&[], renamed.clone()).unwrap_err();
        let said = "partition n3 names node n3, which is not in the inventory any more, and n4 has its address";
        assert_eq!(error.to_string(), said);
        assert!(before.healed(&[], renamed).is_ok());
    }

    fn part(name: &str) -> Partition {
        Partition { name: name.into(), timing: None, ..document().partitions[0].clone() }
    }

    #[test]
    fn a_generation_neither_goes_back_nor_skips_all_that_are_left() {
        let before = document();
        let after =
            |generation: u64| Wanted { generation, overlays: Vec::new(), ..document() }.check_after(&before.stamp());
        assert_eq!([1 + 1, 1 + LONGEST_SKIP].map(after), [Ok(()), Ok(())]);
        for generation in [0, 1, 2 + LONGEST_SKIP, u64::MAX] {
            assert_eq!(after(generation), Err(Unfit::Generation { next: generation, generation: 1 }));
        }
        assert_eq!(before.check_after(&before.stamp()), Ok(()), "the same again");
    }
}
