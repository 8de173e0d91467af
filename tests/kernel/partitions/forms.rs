//! Each form of partition on a real kernel: ICMP, UDP and TCP traffic between all ordered pairs of nodes.

use std::collections::BTreeSet;

use serde_json::Value;

use super::traffic::{Packets, Traffic};
use crate::lab::Lab;

/// The smallest topology on which every form of partition is possible.
const FIVE: &str = "
name = 'five'
zones = { Z1 = 'n[1-2]', Z2 = 'n[3-4]', Z3 = 'n5' }
[links]
intra-zone = { rtt = '20ms' }
inter-zone = { rtt = '100ms' }
";

/// Tests forms of partition one after the other. Each test cuts, checks the traffic of all pairs, and heals.
struct Trial<'a> {
    lab: &'a Lab,
    traffic: Traffic<'a>,
    before: String,
}

impl<'a> Trial<'a> {
    fn of(lab: &'a Lab) -> Self {
        lab.apply(&lab.topology(FIVE));
        Self { lab, traffic: Traffic::of(lab, 5), before: lab.tc() }
    }

    #[track_caller]
    fn try_form(&self, form: &str, packets: Packets, is_cut: impl Fn(u16, u16) -> bool) {
        self.try_shape(form, packets, |_| Box::new(is_cut));
    }

    /// Tests a form with random sides. The JSON output of the partition describes the expected cuts.
    #[track_caller]
    fn try_random(&self, form: &str) {
        self.try_shape(form, Packets::All, |partition| Box::new(cuts_in_json(partition)));
    }

    #[track_caller]
    fn try_shape<'f>(
        &self,
        form: &str,
        packets: Packets,
        is_cut: impl FnOnce(&Value) -> Box<dyn Fn(u16, u16) -> bool + 'f>,
    ) {
        let mut connections = self.traffic.connections();
        let cut = self.lab.netemctl(&format!("--json partition {form}")).expect(0).json();
        let partition = &cut["partitions"][0];
        self.traffic.check(form, is_cut(partition), packets, &mut connections);
        drop(self.lab.netemctl(&format!("heal {}", partition["name"].as_str().unwrap())).expect(0));
    }

    /// Checks that tc shows the state from before the first cut.
    #[track_caller]
    fn finish(self) {
        assert_eq!(self.lab.tc(), self.before);
    }
}

/// True for the ordered pairs that the partition cuts, according to its JSON output.
fn cuts_in_json(partition: &Value) -> impl Fn(u16, u16) -> bool + use<> {
    let numbers = |set: &Value| -> BTreeSet<u16> {
        set.as_array().unwrap().iter().map(|node| node.as_str().unwrap()[1..].parse().unwrap()).collect()
    };
    let mut sides: Vec<BTreeSet<u16>> = partition["sides"].as_array().unwrap().iter().map(numbers).collect();
    let ring_size = sides.len();
    let reach = partition["reach"].as_u64().map(|reach| usize::try_from(reach).unwrap());
    sides.push(numbers(&partition["rest"]));
    move |from, to| match reach {
        None => !sides.iter().any(|side| side.contains(&from) && side.contains(&to)),
        Some(reach) => {
            let position = |node| sides.iter().position(|side| side.contains(&node)).unwrap();
            let distance = (ring_size + position(from) - position(to)) % ring_size;
            distance.min(ring_size - distance) > reach
        }
    }
}

fn five() -> Lab {
    let file = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
    std::fs::write(&file, FIVE).unwrap();
    Lab::up(file.path())
}

fn zone(node: u16) -> u16 {
    node.div_ceil(2)
}

#[test]
fn sides_one_way_and_ports_cut_just_that_by_icmp_udp_and_tcp() {
    let lab = five();
    let trial = Trial::of(&lab);
    trial.try_form("Z1,n3 / n4", Packets::All, |a, b| {
        let side = |node| match node {
            1..=3 => 1,
            4 => 2,
            _ => 3,
        };
        side(a) != side(b)
    });
    trial.try_form("--one-way Z1 Z2", Packets::All, |a, b| zone(a) == 1 && zone(b) == 2);
    trial.try_form("--one-way n5", Packets::All, |a, b| a == 5 && b != 5);
    trial.try_form("Z2 --port tcp/26257", Packets::Tcp(26257), |a, b| (zone(a) == 2) != (zone(b) == 2));
    trial.try_form("--one-way Z2 Z1 --port tcp/8080", Packets::Tcp(8080), |a, b| zone(a) == 2 && zone(b) == 1);
    trial.try_form("Z1 Z2 --port udp/7000", Packets::Udp(7000), |a, b| zone(a) != zone(b));
    trial.finish();
}

#[test]
fn drawn_sides_cut_just_that_by_icmp_udp_and_tcp_and_the_same_seed_draws_the_same() {
    let lab = five();
    let trial = Trial::of(&lab);
    for form in [
        "--halves --seed 1",
        "--minority 2 --seed 2",
        "--isolate --seed 3",
        "--isolate-each",
        "--bridge --seed 4",
        "--bridge Z2 --seed 5 --name over-Z2",
        "--ring --seed 6",
        "--random --seed 7 n[1-4]",
        "--halves --over zones --seed 8",
    ] {
        trial.try_random(form);
    }
    trial.finish();
    let draw = || {
        let cut = lab.netemctl("--json partition --random --seed 99").expect(0).json();
        drop(lab.netemctl("heal").expect(0));
        (cut["seed"].clone(), cut["partitions"].clone())
    };
    let (seed, first) = draw();
    assert_eq!((seed, &draw().1), (99.into(), &first));
    let other = lab.netemctl("--json partition --halves").expect(0).json();
    let (name, seed) = (other["partitions"][0]["name"].as_str().unwrap(), other["seed"].as_u64().unwrap());
    assert_eq!(name, format!("halves-{seed}"), "the output shows a random seed");
}
