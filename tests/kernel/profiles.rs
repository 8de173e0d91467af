//! Any profile, on a real kernel: what is wanted goes in, and what is observed is the same.

use std::cell::RefCell;

use netemctl::{
    kernel::{Interface, Kernel, KernelError, Rtnl, in_new_network},
    plan::{ClassMinor, DEFAULT_CLASS, LeafMark, Profile, Step, Tree},
    topology::Distribution,
};
use proptest::{collection::vec, prelude::*, test_runner::TestRunner};

use crate::strategies;

/// How many random profiles, or rows of them.
const CASES: u32 = 400;

/// The loopback of a namespace of its own, with our root.
struct Scratch {
    kernel: Rtnl,
    loopback: Interface,
}

impl Scratch {
    fn new() -> Self {
        let mut kernel = Rtnl::open().unwrap();
        kernel.learn(&strategies::tables());
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

    /// The profile of the class's leaf; nothing on the interface is foreign.
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

    /// Whether this kernel takes seeds (from 6.6 on); the profile without what it does not take.
    fn within_ability(&mut self, profile: Profile) -> Profile {
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
            let profile = scratch.within_ability(profile);
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
            let row: Vec<Profile> = row.into_iter().map(|profile| scratch.within_ability(profile)).collect();
            let alike: Vec<Profile> = row.iter().filter(|profile| profile.mark() == row[0].mark()).copied().collect();
            // Two of them at least: there and back again by way of the first without anything of its own.
            let bare = bare(row[0]);
            scratch.add(2, row[0]);
            let mut from = row[0];
            for to in alike.into_iter().skip(1).flat_map(|next| [bare, next]).chain([bare, row[0], bare]) {
                scratch.change(2, from, to);
                let observed = scratch.profile(2);
                prop_assert_eq!(observed, Some(to), "from {}", from);
                from = to;
            }
            scratch.remove(2);
            Ok(())
        });
        tested.unwrap();
    });
}

/// The profile with the least in it that has the same mark.
fn bare(profile: Profile) -> Profile {
    let LeafMark { delay, slot, seeded } = profile.mark();
    let jitter = profile.jitter.filter(|_| delay != Distribution::Uniform);
    let slot = profile.slot.filter(|_| slot != Distribution::Uniform);
    let seed = profile.seed.filter(|_| seeded);
    Profile { jitter, slot, seed, ..Profile::plain(profile.delay, profile.limit) }
}
