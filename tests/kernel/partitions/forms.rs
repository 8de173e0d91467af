//! Every form of partition, asked of the real kernel between every ordered pair of nodes and in every way.

use std::collections::BTreeSet;

use serde_json::Value;

use super::reach::{Packets, Reach};
use crate::lab::Lab;

/// As few nodes as have every form.
const FIVE: &str = "
name = 'five'
zones = { Z1 = 'n[1-2]', Z2 = 'n[3-4]', Z3 = 'n5' }
[links]
intra-zone = { rtt = '20ms' }
inter-zone = { rtt = '100ms' }
";

/// Cuts, checks between all pairs by all means that just that is cut, heals, and checks that nothing is left.
struct Trial<'a> {
    lab: &'a Lab,
    reach: Reach<'a>,
    before: String,
}

impl<'a> Trial<'a> {
    fn of(lab: &'a Lab) -> Self {
        lab.apply(&lab.topology(FIVE));
        Self { lab, reach: Reach::of(lab, 5), before: lab.tc() }
    }

    #[track_caller]
    fn try_form(&self, form: &str, packets: Packets, parts: impl Fn(u16, u16) -> bool) {
        self.try_shape(form, packets, |_| Box::new(parts));
    }

    /// The same for a partition that only its JSON says the sides of.
    #[track_caller]
    fn try_drawn(&self, form: &str) {
        self.try_shape(form, Packets::All, |partition| Box::new(parted_as_shown(partition)));
    }

    #[track_caller]
    fn try_shape<'f>(
        &self,
        form: &str,
        packets: Packets,
        parts: impl FnOnce(&Value) -> Box<dyn Fn(u16, u16) -> bool + 'f>,
    ) {
        let mut connections = self.reach.connections();
        let cut = self.lab.netemctl(&format!("--json partition {form}")).expect(0).json();
        let partition = &cut["partitions"][0];
        self.reach.check(form, parts(partition), packets, &mut connections);
        drop(self.lab.netemctl(&format!("heal {}", partition["name"].as_str().unwrap())).expect(0));
    }

    /// That every cut is rolled back exactly.
    #[track_caller]
    fn finish(self) {
        assert_eq!(self.lab.tc(), self.before);
    }
}

/// Who is cut from whom, read from what was printed.
fn parted_as_shown(partition: &Value) -> impl Fn(u16, u16) -> bool + use<> {
    let numbers = |set: &Value| -> BTreeSet<u16> {
        set.as_array().unwrap().iter().map(|node| node.as_str().unwrap()[1..].parse().unwrap()).collect()
    };
    let mut sides: Vec<BTreeSet<u16>> = partition["sides"].as_array().unwrap().iter().map(numbers).collect();
    let round = sides.len();
    let reach = partition["reach"].as_u64().map(|reach| usize::try_from(reach).unwrap());
    sides.push(numbers(&partition["rest"]));
    move |from, to| match reach {
        None => !sides.iter().any(|side| side.contains(&from) && side.contains(&to)),
        Some(reach) => {
            let place = |node| sides.iter().position(|unit| unit.contains(&node)).unwrap();
            let apart = (round + place(from) - place(to)) % round;
            apart.min(round - apart) > reach
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
        trial.try_drawn(form);
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
    assert_eq!(name, format!("halves-{seed}"), "a seed that is not said is shown");
}
