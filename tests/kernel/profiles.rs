//! Writes random profiles to a real kernel and reads the same profiles back.

use std::{cell::RefCell, process::Command};

use netemctl::{
    kernel::{Interface, Kernel, KernelError, Rtnl, in_new_network},
    plan::{ClassMinor, DEFAULT_CLASS, Profile, Step, Tree},
    topology::{Chance, Distribution, Jitter, Loss, LossModel, Rate, Slot, Spacing, Undelayed},
};
use proptest::{collection::vec, prelude::*, test_runner::TestRunner};

use crate::strategies;

/// The number of random profiles, or of random sequences of profiles.
const CASES: u32 = 400;

/// The loopback interface of a new network namespace, with the root and the default class of netemctl.
struct Scratch {
    kernel: Rtnl,
    loopback: Interface,
}

impl Scratch {
    fn new() -> Self {
        let mut kernel = Rtnl::open().unwrap();
        kernel.add_tables(&strategies::tables());
        let loopback = kernel.interface(&"lo".parse().unwrap()).unwrap();
        let mut scratch = Self { kernel, loopback };
        scratch.perform(&Step::AddRoot).unwrap();
        scratch.perform(&Step::AddClass { class: DEFAULT_CLASS, profile: None }).unwrap();
        scratch
    }

    fn perform(&mut self, step: &Step) -> Result<(), KernelError> {
        self.kernel.perform(&self.loopback, step)
    }

    fn observe(&mut self) -> Tree {
        self.kernel.observe(&self.loopback).unwrap()
    }

    /// The profile of the leaf of a class. Panics if the interface has foreign objects.
    fn profile(&mut self, class: ClassMinor) -> Option<Profile> {
        let tree = self.observe();
        assert_eq!(tree.foreign, []);
        tree.classes[&class].profile
    }

    fn add(&mut self, class: ClassMinor, profile: Profile) {
        self.perform(&Step::AddClass { class, profile: Some(profile) }).unwrap();
    }

    fn remove(&mut self, class: ClassMinor) {
        self.perform(&Step::RemoveClass { class, profile: None }).unwrap();
    }

    fn change(&mut self, class: ClassMinor, from: Profile, to: Profile) {
        self.perform(&Step::ChangeLeaf { class, from, to }).unwrap();
    }

    /// Removes the seed of a profile if this kernel has no seeds. Linux 6.6 introduced them.
    fn supported(&mut self, profile: Profile) -> Profile {
        let seeded = Profile { seed: Some(1), ..Profile::plain("1ms".parse().unwrap(), 1) };
        self.add(9, seeded);
        let takes_seeds = self.profile(9) == Some(seeded);
        self.remove(9);
        Profile { seed: profile.seed.filter(|_| takes_seeds), ..profile }
    }
}

fn run(test: impl FnOnce(&RefCell<Scratch>) + Send) {
    in_new_network(|| test(&RefCell::new(Scratch::new()))).unwrap();
}

fn runner() -> TestRunner {
    TestRunner::new(ProptestConfig { cases: CASES, failure_persistence: None, ..ProptestConfig::default() })
}

#[test]
fn any_profile_is_read_back_as_it_was_written() {
    run(|scratch| {
        let tested = runner().run(&strategies::profiles(), |profile| {
            let mut scratch = scratch.borrow_mut();
            let profile = scratch.supported(profile);
            scratch.add(2, profile);
            let observed = scratch.profile(2);
            scratch.remove(2);
            prop_assert_eq!(observed, Some(profile));
            Ok(())
        });
        tested.unwrap();
    });
}

#[test]
fn any_leaf_changes_in_place_to_any_other_with_the_same_distributions() {
    let rows = vec(strategies::profiles(), 2..5);
    run(|scratch| {
        let tested = runner().run(&rows, |row| {
            let mut scratch = scratch.borrow_mut();
            let first = scratch.supported(row[0]);
            let others: Vec<Profile> =
                row.iter().map(|profile| scratch.supported(with_mark_of(*profile, first))).collect();
            scratch.add(2, first);
            let mut from = first;
            // The minimal profile with the same mark follows each profile. So changes must also remove each parameter.
            for to in others.into_iter().flat_map(|other| [other, minimal(first)]).chain([first]) {
                prop_assert_eq!(to.mark(), first.mark());
                scratch.change(2, from, to);
                prop_assert_eq!(scratch.profile(2), Some(to), "from {}", from);
                from = to;
            }
            scratch.remove(2);
            Ok(())
        });
        tested.unwrap();
    });
}

#[test]
fn tc_shows_what_is_wanted() {
    run(|scratch| {
        let mut scratch = scratch.borrow_mut();
        let chance = |probability: &str, correlation: &str| Chance {
            probability: probability.parse().unwrap(),
            correlation: correlation.parse().unwrap(),
        };
        let [p, r, bad, good] = ["1%", "10%", "70%", "0.1%"].map(|share| share.parse().unwrap());
        let jitter = Jitter {
            amount: "5ms".parse().unwrap(),
            correlation: "25%".parse().unwrap(),
            distribution: Distribution::ParetoNormal,
        };
        let profile = Profile {
            jitter: Some(jitter),
            loss: Some(Loss { model: LossModel::GeModel { p, r, bad, good }, ecn: true }),
            corrupt: Some(chance("0.5%", "10%")),
            duplicate: Some(chance("2%", "30%")),
            reorder: Some(Undelayed { chance: chance("1%", "50%"), gap: 5 }),
            rate: Some(Rate {
                packet_overhead: "20B".parse().unwrap(),
                cell_size: "48B".parse().unwrap(),
                cell_overhead: "5B".parse().unwrap(),
                ..Rate::plain("40gbit".parse().unwrap())
            }),
            slot: Some(Slot {
                spacing: Spacing::Range { min: "2ms".parse().unwrap(), max: "4ms".parse().unwrap() },
                packets: 32,
                bytes: "64kB".parse().unwrap(),
            }),
            ..Profile::plain("75ms".parse().unwrap(), 5_000)
        };
        scratch.add(2, profile);
        let shown = tc(&["-s", "qdisc", "show", "dev", "lo"]);
        for part in [
            "qdisc netem 2: parent 4e7e:2 limit 5000",
            "delay 75ms  5ms 25%",
            "loss gemodel p 1% r 10% 1-h 70% 1-k 0.1%",
            "corrupt 0.5% 10%",
            "duplicate 2% 30%",
            "reorder 1% 50%",
            "rate 40Gbit packetoverhead 20 cellsize 48 celloverhead 5",
            "slot 2ms 4ms packets 32 bytes 64000 ecn  gap 5",
        ] {
            assert!(shown.contains(part), "{part}:\n{shown}");
        }
        // The mark of the pareto-normal distribution adds 3 µs to `burst`, at 12,500 bytes per microsecond.
        let classes = tc(&["class", "show", "dev", "lo"]);
        assert!(classes.contains("burst 10500000b") && classes.contains("cburst 10462500b"), "{classes}");
    });
}

/// Runs `tc` in the network namespace of the calling thread and returns its output.
fn tc(arguments: &[&str]) -> String {
    #[expect(clippy::disallowed_methods, reason = "the test compares the output of tc")]
    let output = Command::new("tc").args(arguments).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// The profile with the distributions and the seed of `model`. A leaf can change in place from one to the other.
fn with_mark_of(profile: Profile, model: Profile) -> Profile {
    let mark = model.mark();
    let jitter = profile.jitter.map(|jitter| Jitter { distribution: mark.delay, ..jitter });
    let is_distributed = |slot: &Slot| matches!(slot.spacing, Spacing::Distributed { .. });
    Profile {
        jitter: jitter.or_else(|| model.jitter.filter(|_| mark.delay != Distribution::Uniform)),
        slot: match mark.slot {
            Distribution::Uniform => profile.slot.filter(|slot| !is_distributed(slot)),
            _ => model.slot,
        },
        seed: model.seed,
        ..profile
    }
}

/// The smallest profile with the delay, the limit, the distributions and the seed of `profile`.
fn minimal(profile: Profile) -> Profile {
    with_mark_of(Profile::plain(profile.delay, profile.limit), profile)
}
