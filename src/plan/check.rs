//! Checks a document before an agent accepts the document.
//!
//! Agents accept only documents that netemctl could write, even if another client sends the document. Parsing already
//! checks the form of each value. The checks here concern names, allowed ranges, and values that depend on each other.

use std::{collections::BTreeSet, ops::RangeInclusive, time::Duration};

use thiserror::Error;

use super::{Flap, InventoryError, Overlay, OverlayError, Partition, PartitionError, Stamp, TimedKind, Wanted};
use crate::topology::{LinkChange, NodeName, hostlist};

/// The allowed durations of overlays and partitions.
pub const TIMES: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_hours(365 * 24);

/// The smallest `down` or `up` of a [`Flap`], before its spread. With the largest spread, the link may be down or up
/// for only half of this time.
///
/// An agent needs about 10 ms to write the filters of a large partition.
pub const MIN_FLAP_TIME: Duration = Duration::from_millis(10);

/// The largest spread of a [`Flap`], in percent.
const LARGEST_SPREAD: u8 = 50;

/// The largest difference between the generations of a document and of its predecessor.
///
/// The limit leaves room for almost 2^32 changes, even if a faulty client always makes the largest difference.
const LONGEST_SKIP: u64 = 1 << 32;

/// The reason why agents refuse a document.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum DocumentError {
    /// An error in the inventory.
    #[error(transparent)]
    Inventory(#[from] InventoryError),
    /// An error in a partition.
    #[error("partition {0}: {1}")]
    Partition(String, PartitionError),
    /// An error in an overlay. Messages call an overlay a change.
    #[error("change {0}: {1}")]
    Overlay(String, OverlayError),
    /// A one-way overlay has a parameter for both directions, such as `rtt`.
    #[error("change {0} has one direction, but parameters for both")]
    OneWay(String),
    /// Two partitions or two overlays have the same name.
    #[error("two partitions or two changes have the name `{0}`")]
    Twice(String),
    /// A partition has no side, or a side without nodes.
    #[error("`{0}` has no side, or a side without a node")]
    EmptySide(String),
    /// A duration is too short or too long.
    #[error("`{0}` lasts {1:?}; durations are between 1 ms and 365 days")]
    Lasts(String, Duration),
    /// The `down` or the `up` of a flap is too short or too long, or the spread is too large.
    #[error("`{0}` has turns of {down:?} and {up:?}, spread {spread} %; turns take 10 ms to 365 days, the spread is at most 50 %", down = .1.down, up = .1.up, spread = .1.spread)]
    Turns(String, Flap),
    /// An overlay or a partition has a later generation than the document.
    #[error("`{name}` has generation {since}, the document has generation {generation}")]
    FromTheFuture {
        /// The name of the overlay or partition.
        name: String,
        /// The generation that added the overlay or partition.
        since: u64,
        /// The generation of the document.
        generation: u64,
    },
    /// The document leaves out the agent's own node, or all nodes.
    #[error("the document leaves out {}", hostlist::fold(.0))]
    LeftOut(Vec<NodeName>),
    /// The topology or a zone has nodes that are not in the inventory.
    #[error("the inventory does not have {}", hostlist::fold(.0))]
    UnknownNodes(Vec<NodeName>),
    /// The generation of the document cannot follow the generation of the previous document.
    #[error("generation {next} cannot follow generation {generation}")]
    Generation {
        /// The generation of the document.
        next: u64,
        /// The generation of the previous document.
        generation: u64,
    },
}

impl Wanted {
    /// Checks that netemctl could write the document.
    pub fn check(&self) -> Result<(), DocumentError> {
        self.inventory.check()?;
        let everyone = &self.inventory.nodes;
        let of_zones = self.inventory.zones.values().flatten();
        let named = self.topology.iter().flat_map(crate::topology::Topology::nodes).chain(of_zones);
        let unknown: BTreeSet<_> = named.filter(|node| !everyone.contains_key(*node)).cloned().collect();
        if !unknown.is_empty() {
            return Err(DocumentError::UnknownNodes(unknown.into_iter().collect()));
        }
        // The nodes in `missing` need not be in the inventory: a change can leave out a node without a known location.
        if !self.missing.is_empty() && everyone.keys().all(|node| self.missing.contains(node)) {
            return Err(DocumentError::LeftOut(self.missing.nodes().into_iter().collect()));
        }
        self.overlays.iter().try_for_each(|overlay| self.check_overlay(overlay))?;
        self.partitions.iter().try_for_each(|partition| self.check_partition(partition))?;
        let overlays = self.overlays.iter().map(|overlay| (TimedKind::Overlay, &overlay.name));
        let partitions = self.partitions.iter().map(|partition| (TimedKind::Partition, &partition.name));
        let mut names = BTreeSet::new();
        match overlays.chain(partitions).find(|named| !names.insert(*named)) {
            Some((_, name)) => Err(DocumentError::Twice(name.clone())),
            None => Ok(()),
        }
    }

    /// Checks that the document does not leave out this node.
    pub fn check_for(&self, node: &NodeName) -> Result<(), DocumentError> {
        if self.missing.contains(node) { Err(DocumentError::LeftOut(vec![node.clone()])) } else { Ok(()) }
    }

    /// Checks that the document can follow an earlier document with this stamp.
    ///
    /// The generation must be later, but by at most `LONGEST_SKIP`. The same document again is also allowed.
    pub fn check_after(&self, before: &Stamp) -> Result<(), DocumentError> {
        let same = || self.stamp().digest == before.digest;
        match self.generation.checked_sub(before.generation) {
            Some(1..=LONGEST_SKIP) => Ok(()),
            Some(0) if same() => Ok(()),
            _ => Err(DocumentError::Generation { next: self.generation, generation: before.generation }),
        }
    }

    fn check_overlay(&self, overlay: &Overlay) -> Result<(), DocumentError> {
        let Overlay { name, from, to, both_ways, change, since, lasts } = overlay;
        overlay.check().map_err(|why| DocumentError::Overlay(name.clone(), why))?;
        if let Some(unknown) = from.iter().chain(to).find(|node| !self.inventory.nodes.contains_key(*node)) {
            return Err(DocumentError::Overlay(name.clone(), OverlayError::Unknown(unknown.clone())));
        }
        if !both_ways && LinkChange::parse(change.source().clone(), false).is_err() {
            return Err(DocumentError::OneWay(name.clone()));
        }
        self.check_times(name, *since, *lasts)
    }

    fn check_partition(&self, partition: &Partition) -> Result<(), DocumentError> {
        let Partition { name, shape, timing, since, .. } = partition;
        partition.check_lasting(&self.inventory).map_err(|why| DocumentError::Partition(name.clone(), why))?;
        let sets = shape.sets();
        if sets.is_empty() || sets.iter().any(|set| set.is_empty()) {
            return Err(DocumentError::EmptySide(name.clone()));
        }
        let turns = MIN_FLAP_TIME..=*TIMES.end();
        let is_wrong =
            |flap: &Flap| !turns.contains(&flap.down) || !turns.contains(&flap.up) || flap.spread > LARGEST_SPREAD;
        if let Some(flap) = timing.and_then(|timing| timing.flap).filter(is_wrong) {
            return Err(DocumentError::Turns(name.clone(), flap));
        }
        self.check_times(name, *since, timing.and_then(|timing| timing.lasts))
    }

    fn check_times(&self, name: &str, since: u64, lasts: Option<Duration>) -> Result<(), DocumentError> {
        let (name, generation) = (name.to_owned(), self.generation);
        match lasts {
            Some(time) if !TIMES.contains(&time) => Err(DocumentError::Lasts(name, time)),
            _ if since > generation => Err(DocumentError::FromTheFuture { name, since, generation }),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        plan::{AgentAddress, Inventory, Missing, Mode, Moment, NodeLocation, OverlayRequest, Shape, Timing},
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

    /// A valid document with an inventory, an overlay and a partition that flaps.
    fn document() -> Wanted {
        let change = LinkChange::parse(Source::new(Source::COMMAND_LINE, "rtt = '10ms'"), true).unwrap();
        let request =
            OverlayRequest { name: None, from: "n1".into(), to: "n2".into(), both_ways: true, change, lasts: None };
        let mut wanted = Wanted::default().with_overlay(request, inventory()).unwrap();
        let flap = Flap { down: MIN_FLAP_TIME, up: MIN_FLAP_TIME, spread: 50, seed: 1 };
        let timing = Timing { begins: Moment::from_nanos(0), lasts: Some(*TIMES.end()), flap: Some(flap) };
        wanted.generation = 1;
        wanted.partitions.push(Partition {
            name: "p".into(),
            shape: Shape::Sides { sides: vec![side("n1")] },
            ports: BTreeSet::new(),
            mode: Mode::Drop,
            timing: Some(timing),
            since: 1,
        });
        wanted
    }

    /// The error of the valid document after `spoil` has made one part wrong.
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
    fn a_document_that_no_command_could_write_is_refused() {
        let of_sides =
            |sides: Vec<BTreeSet<NodeName>>| refused(|wanted| wanted.partitions[0].shape = Shape::Sides { sides });
        assert_eq!(of_sides(vec![side("n9")]), "partition p: there is no node n9");
        assert_eq!(of_sides(vec![]), "`p` has no side, or a side without a node");
        assert_eq!(of_sides(vec![side("n1"), [].into()]), "`p` has no side, or a side without a node");
        let one_way = Shape::OneWay { from: side("n1"), to: side("n1") };
        assert_eq!(refused(|wanted| wanted.partitions[0].shape = one_way), "partition p: node n1 is on two sides");
        let ring = Shape::Ring { order: vec![side("n1"), side("n2")], reach: usize::MAX };
        let ring = refused(|wanted| wanted.partitions[0].shape = ring);
        assert!(ring.contains("so nothing is cut"), "{ring}");
        let twice = refused(|wanted| wanted.partitions.push(wanted.partitions[0].clone()));
        assert_eq!(twice, "two partitions or two changes have the name `p`");
        let twice = refused(|wanted| wanted.overlays.push(wanted.overlays[0].clone()));
        assert_eq!(twice, "two partitions or two changes have the name `n1:n2:delay`");
        for name in ["", "a b"] {
            assert!(
                refused(|wanted| wanted.partitions[0].name = name.into()).contains(&format!("invalid name \"{name}\""))
            );
            assert!(
                refused(|wanted| wanted.overlays[0].name = name.into()).contains(&format!("invalid name \"{name}\""))
            );
        }
        let unknown = refused(|wanted| wanted.overlays[0].to = side("n9"));
        assert!(unknown.contains("there is no node n9"), "{unknown}");
        let alone = refused(|wanted| wanted.overlays[0].to = side("n1"));
        assert!(alone.contains("no link to itself"), "{alone}");
        assert!(refused(|wanted| wanted.overlays[0].from = [].into()).contains("no link to itself"));
        assert!(refused(|wanted| wanted.overlays[0].both_ways = false).contains("has one direction"));
        for time in [Duration::ZERO, Duration::MAX] {
            assert!(refused(|wanted| wanted.overlays[0].lasts = Some(time)).contains("between 1 ms and 365 days"));
            let lasts = refused(|wanted| wanted.partitions[0].timing.as_mut().unwrap().lasts = Some(time));
            assert!(lasts.contains("between 1 ms and 365 days"));
            assert!(spoilt_flap(|flap| flap.down = time).contains("turns take 10 ms to 365 days"));
            assert!(spoilt_flap(|flap| flap.up = time).contains("turns take 10 ms to 365 days"));
        }
        assert!(spoilt_flap(|flap| flap.spread = 51).contains("the spread is at most 50 %"));
        assert!(refused(|wanted| wanted.partitions[0].since = 2).contains("generation 2"));
        assert!(refused(|wanted| wanted.overlays[0].since = u64::MAX).contains("has generation"));
        let n3: NodeName = "n3".parse().unwrap();
        let shared =
            refused(|wanted| inventory_of(wanted).nodes.get_mut(&n3).unwrap().addresses = vec![[10, 0, 0, 1].into()]);
        assert!(shared.contains("10.0.0.1 is the address of both"), "{shared}");
        let zone = "Z".parse().unwrap();
        let zones = refused(|wanted| drop(inventory_of(wanted).zones.insert(zone, vec!["n9".parse().unwrap()])));
        assert_eq!(zones, "the inventory does not have n9");
        let everyone = refused(|wanted| wanted.missing = missing(wanted.inventory.nodes.keys().cloned()));
        assert_eq!(everyone, "the document leaves out n[1-3]");
    }

    fn inventory_of(wanted: &mut Wanted) -> &mut Inventory {
        Arc::make_mut(&mut wanted.inventory)
    }

    /// These nodes, left out with the first document.
    fn missing(nodes: impl IntoIterator<Item = NodeName>) -> Missing {
        nodes.into_iter().map(|node| (node, Wanted::default().stamp())).collect()
    }

    #[test]
    fn a_node_refuses_a_document_that_leaves_out_the_node() {
        let left_out = ["n2", "nobody-knows-where"].map(|node| node.parse().unwrap());
        let document = Wanted { missing: missing(left_out), ..document() };
        assert_eq!(document.check(), Ok(()));
        assert_eq!(document.check_for(&"n1".parse().unwrap()), Ok(()));
        let n2: NodeName = "n2".parse().unwrap();
        assert_eq!(document.check_for(&n2), Err(DocumentError::LeftOut(vec![n2])));
    }

    #[test]
    fn is_on_all_of_compares_the_nodes_of_two_documents_without_missing_nodes() {
        let leaving_out = |nodes: &[&str]| {
            let nodes = nodes.iter().map(|node| node.parse().unwrap());
            Wanted { missing: missing(nodes), ..document() }
        };
        let (all, two, one) = (leaving_out(&[]), leaving_out(&["n3"]), leaving_out(&["n2", "n3"]));
        assert_eq!([&all, &two, &one].map(|document| document.is_on_all_of(&two)), [true, true, false]);
        let mut smaller = document();
        inventory_of(&mut smaller).nodes.retain(|node, _| node.as_str() == "n1");
        assert_eq!([&two, &one].map(|document| smaller.is_on_all_of(document)), [false, true]);
    }

    #[test]
    fn a_node_that_left_the_inventory_keeps_its_location_while_a_part_names_the_node() {
        let cut_off =
            |node: &str| Partition { shape: Shape::Sides { sides: vec![side(node)] }, name: node.into(), ..part("p") };
        let n3: NodeName = "n3".parse().unwrap();
        let without = |node: &NodeName| {
            let mut inventory = inventory();
            inventory.nodes.remove(node);
            inventory
        };
        let before = Wanted { partitions: vec![cut_off("n3"), cut_off("n1")], ..document() };
        // No part names n3 after the heal, so n3 leaves the document.
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

        // The host of n3 is now called n4.
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
    fn a_generation_grows_by_1_to_2_to_the_power_of_32() {
        let before = document();
        let after =
            |generation: u64| Wanted { generation, overlays: Vec::new(), ..document() }.check_after(&before.stamp());
        assert_eq!([1 + 1, 1 + LONGEST_SKIP].map(after), [Ok(()), Ok(())]);
        for generation in [0, 1, 2 + LONGEST_SKIP, u64::MAX] {
            assert_eq!(after(generation), Err(DocumentError::Generation { next: generation, generation: 1 }));
        }
        assert_eq!(before.check_after(&before.stamp()), Ok(()), "same document");
    }
}
