//! Whether the kernel does a change's leaves, tried out before anything is written, and whose fault it is if not.
//!
//! What netem takes differs from kernel to kernel, and some of it depends on what else the interface carries: some
//! refuse a leaf that duplicates beside any other netem, those before 6.6 ignore seeds without a word. So the leaves
//! that the interface has, and then those of the change, go on the bench first. If that fails, each parameter is tried
//! without the others, alone and in company, until it is known which of them the kernel does not do.

use std::{collections::BTreeMap, sync::Arc};

use super::{Bench, Obstacle, no_bench};
use crate::{
    kernel::{self, Interface, Kernel, KernelError},
    plan::{Change, ClassMinor, DEFAULT_CLASS, Profile, Shaping, Step, Tree, Wanted, diff},
    topology::{Distribution, NodeName, Parameter, Tables},
    wire::{ApiError, ErrorCode},
};

/// How many leaves with the same fate are tried: two, so that they have company.
const ALIKE: usize = 2;

/// The class of the first leaf on the bench.
const FIRST_CLASS: ClassMinor = DEFAULT_CLASS + 1;

/// What a kernel does with any limit and any delay needs no trial.
const PARAMETERS: [Parameter; 8] = [
    Parameter::Jitter,
    Parameter::Loss,
    Parameter::Corrupt,
    Parameter::Duplicate,
    Parameter::Reorder,
    Parameter::Rate,
    Parameter::Slot,
    Parameter::Seed,
];

/// A change to be tried.
pub(crate) struct Candidate<'a> {
    /// What the interface has.
    pub(crate) tree: &'a Tree,
    /// What is to be done to it.
    pub(crate) change: &'a Change,
    /// To what end.
    pub(crate) shaping: Option<&'a Shaping>,
    /// This node.
    pub(crate) node: &'a NodeName,
    /// The document that says so.
    pub(crate) wanted: &'a Wanted,
    /// The distribution tables that are known.
    pub(crate) tables: Tables,
}

impl Candidate<'_> {
    /// Checks that the kernel does it.
    ///
    /// # Errors
    ///
    /// What the kernel refuses, and where it is asked for.
    pub(crate) fn check(&self, bench: &dyn Bench) -> Result<(), ApiError> {
        let leaves = Leaves::of(self.tree, self.change, &self.tables);
        if !leaves.need_trial() {
            return Ok(());
        }
        leaves.try_on(bench).map_err(|obstacle| match obstacle {
            Obstacle::NoBench(error) => no_bench(&error),
            obstacle => self.blame(bench, &leaves, &obstacle),
        })
    }

    /// Says what the kernel does not do.
    fn blame(&self, bench: &dyn Bench, leaves: &Leaves, obstacle: &Obstacle) -> ApiError {
        let kernel = kernel::release();
        let fault = |parameter: Parameter| {
            let obstacle = leaves.map(|profile| only(profile, parameter)).try_on(bench).err()?;
            let mut alone = leaves.profiles().map(|profile| only(profile, parameter));
            let is_refused_alone = alone.any(|profile| Leaves::alone(profile, &self.tables).try_on(bench).is_err());
            let company = if is_refused_alone { "" } else { " next to other delays on one interface" };
            let place =
                self.wanted.said_at(self.node, parameter).map(|place| format!(" ({place})")).unwrap_or_default();
            let fault = match obstacle {
                Obstacle::NotReadBack => format!("the kernel ({kernel}) ignores `{parameter}`{place}"),
                obstacle => {
                    let sentence = sentence(&obstacle);
                    format!("the kernel ({kernel}) refuses `{parameter}`{company}{place}: {sentence}")
                }
            };
            Some((parameter, fault))
        };
        let (at_fault, mut faults): (Vec<Parameter>, Vec<String>) = PARAMETERS.into_iter().filter_map(fault).unzip();
        if faults.is_empty() {
            faults.push(format!("the kernel ({kernel}) does not do these links: {}", sentence(obstacle)));
        }
        let hint = self.hint(bench, leaves, &at_fault);
        ApiError::new(ErrorCode::Unsupported, format!("{}; {hint}", faults.join("; ")))
    }

    /// What to do about it.
    fn hint(&self, bench: &dyn Bench, leaves: &Leaves, at_fault: &[Parameter]) -> &'static str {
        let anew = diff(self.shaping, &Tree::default());
        let from_nothing = anew.map(|change| Leaves::of(&Tree::default(), &change, &self.tables).try_on(bench));
        if matches!(from_nothing, Ok(Ok(()))) {
            return "it would take them on an empty interface: run `netemctl clear` first";
        }
        let mut profiles = leaves.profiles();
        if profiles.all(|profile| Leaves::alone(profile, &self.tables).try_on(bench).is_ok()) {
            return "give all links of the node the same parameters, or use a kernel without that restriction \
                    (6.12.117 has none)";
        }
        if at_fault == [Parameter::Seed] {
            return "leave it out, or use a kernel from 6.6 on";
        }
        "leave out what it does not do, or use another kernel"
    }
}

/// What happens to the leaves of an interface: what each is, and what it becomes. A leaf that is not yet, or that stays,
/// has only one of the two.
struct Leaves {
    fates: Vec<(Option<Profile>, Option<Profile>)>,
    tables: Tables,
}

impl Leaves {
    /// Those of the interface, and then what the change does to them, in its order. Of many with the same fate, two.
    fn of(tree: &Tree, change: &Change, tables: &Tables) -> Self {
        let mut present: BTreeMap<ClassMinor, Profile> =
            tree.classes.iter().filter_map(|(class, leaf)| Some((*class, leaf.profile?))).collect();
        let changed = change.steps.iter().filter_map(|step| match step {
            Step::ChangeLeaf { class, from, to } => Some((Some(present.remove(class).unwrap_or(*from)), Some(*to))),
            Step::AddClass { profile: Some(profile), .. } => Some((None, Some(*profile))),
            _ => None,
        });
        let changed: Vec<_> = changed.collect();
        let mut fates: Vec<(Option<Profile>, Option<Profile>)> = Vec::new();
        let mut alike: BTreeMap<_, usize> = BTreeMap::new();
        for fate in present.into_values().map(|profile| (Some(profile), None)).chain(changed) {
            let seen = alike.entry(fate).or_default();
            *seen += 1;
            if *seen <= ALIKE {
                fates.push(fate);
            }
        }
        Self { fates, tables: tables.clone() }.with_stand_ins()
    }

    /// One leaf on an empty interface.
    fn alone(profile: Profile, tables: &Tables) -> Self {
        Self { fates: vec![(None, Some(profile))], tables: tables.clone() }.with_stand_ins()
    }

    /// An agent that was started anew does not know the tables of the leaves that it finds, and for a trial any will do.
    fn with_stand_ins(mut self) -> Self {
        let marks: Vec<_> = self.fates.iter().filter_map(|(now, _)| *now).map(|profile| profile.mark()).collect();
        for mark in marks {
            for distribution in [mark.delay, mark.slot] {
                if let Distribution::Table(id) = distribution {
                    self.tables.entry(id).or_insert_with(|| Arc::new([0]));
                }
            }
        }
        self
    }

    fn map(&self, change: impl Fn(Profile) -> Profile) -> Self {
        let fates = self.fates.iter().map(|(now, then)| (now.map(&change), then.map(&change)));
        Self { fates: fates.collect(), tables: self.tables.clone() }
    }

    fn profiles(&self) -> impl Iterator<Item = Profile> {
        self.fates.iter().flat_map(|(now, then)| [*now, *then]).flatten()
    }

    /// Whether anything is to be done, and any of them has more than a delay.
    fn need_trial(&self) -> bool {
        self.fates.iter().any(|(_, then)| then.is_some()) && self.profiles().any(|profile| profile != plain(profile))
    }

    fn try_on(&self, bench: &dyn Bench) -> Result<(), Obstacle> {
        bench.try_out(&|kernel, interface| self.act_out(kernel, interface))
    }

    fn act_out(&self, kernel: &mut dyn Kernel, interface: &Interface) -> Result<(), Obstacle> {
        kernel.add_tables(&self.tables);
        kernel.perform(interface, &Step::AddRoot)?;
        let present =
            self.numbered().filter_map(|(class, (now, _))| Some(Step::AddClass { class, profile: Some(now?) }));
        let changed = self.numbered().filter_map(|(class, (now, then))| match (now, then) {
            (_, None) => None,
            (Some(from), Some(to)) => Some(Step::ChangeLeaf { class, from, to }),
            (None, profile) => Some(Step::AddClass { class, profile }),
        });
        for step in present.chain(changed) {
            kernel.perform(interface, &step)?;
        }
        let tree = kernel.observe(interface)?;
        let is_so = |(class, (now, then)): (ClassMinor, (Option<Profile>, Option<Profile>))| {
            tree.classes.get(&class).is_some_and(|leaf| leaf.profile == then.or(now))
        };
        if self.numbered().all(is_so) { Ok(()) } else { Err(Obstacle::NotReadBack) }
    }

    fn numbered(&self) -> impl Iterator<Item = (ClassMinor, (Option<Profile>, Option<Profile>))> {
        (FIRST_CLASS..).zip(self.fates.iter().copied())
    }
}

/// Its delay and limit.
fn plain(profile: Profile) -> Profile {
    Profile::plain(profile.delay, profile.limit)
}

/// Its delay and limit, and of everything else this parameter only.
fn only(profile: Profile, parameter: Parameter) -> Profile {
    let plain = plain(profile);
    match parameter {
        Parameter::Delay | Parameter::Limit => plain,
        Parameter::Jitter => {
            // Its packets are kept in order by a rate.
            let rate = profile.rate.filter(|_| profile.is_ordered_by_rate());
            Profile { jitter: profile.jitter, rate, ..plain }
        }
        Parameter::Loss => Profile { loss: profile.loss, ..plain },
        Parameter::Corrupt => Profile { corrupt: profile.corrupt, ..plain },
        Parameter::Duplicate => Profile { duplicate: profile.duplicate, ..plain },
        Parameter::Reorder => Profile { reorder: profile.reorder, ..plain },
        Parameter::Rate => Profile { rate: profile.rate, ..plain },
        Parameter::Slot => Profile { slot: profile.slot, ..plain },
        Parameter::Seed => Profile { seed: profile.seed, ..plain },
    }
}

/// The kernel's own words, where it has some.
fn sentence(obstacle: &Obstacle) -> String {
    match obstacle {
        Obstacle::Kernel(KernelError::Refused { sentence: Some(sentence), .. }) => sentence.clone(),
        Obstacle::Kernel(KernelError::Refused { errno, .. }) => errno.desc().to_owned(),
        Obstacle::Kernel(error) => error.to_string(),
        Obstacle::NotReadBack => "it accepts them and reads back something else".to_owned(),
        Obstacle::NoBench(error) => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::{
        fake_kernel::FakeKernel,
        kernel::execute,
        plan::{LeafSpec, Shaping},
        topology::{Chance, Probability},
    };

    fn plain(delay: &str) -> Profile {
        Profile::plain(delay.parse().unwrap(), 1_000)
    }

    fn duplicating(delay: &str) -> Profile {
        let chance = Chance { probability: "1%".parse().unwrap(), correlation: Probability::ZERO };
        Profile { duplicate: Some(chance), ..plain(delay) }
    }

    fn seeded(delay: &str) -> Profile {
        Profile { seed: Some(42), ..plain(delay) }
    }

    /// 6.1.176, which refuses duplicates in company and ignores seeds.
    fn old() -> FakeKernel {
        let kernel = FakeKernel::new("db0".parse().unwrap());
        FakeKernel { refuses_duplicates_in_company: true, ignores_seeds: true, ..kernel }
    }

    /// One address for each profile.
    fn shaping(profiles: &[Profile]) -> Shaping {
        let address = |number: u8| IpAddr::from([10, 0, 0, number]);
        let spec = |(number, profile): (u8, &Profile)| (address(number), LeafSpec::of(*profile, &[address(number)]));
        Shaping { leaf_specs: (1..).zip(profiles).map(spec).collect(), ..Shaping::default() }
    }

    fn check(kernel: &FakeKernel, wanted: &[Profile]) -> Result<(), String> {
        let shaping = shaping(wanted);
        let change = diff(Some(&shaping), &kernel.tree).unwrap();
        let node = "n1".parse().unwrap();
        let candidate = Candidate {
            tree: &kernel.tree,
            change: &change,
            shaping: Some(&shaping),
            node: &node,
            wanted: &Wanted::default(),
            tables: Tables::new(),
        };
        candidate.check(kernel).map_err(|error| {
            assert_eq!(error.code, ErrorCode::Unsupported);
            error.message.replace(&kernel::release(), "R")
        })
    }

    fn apply(kernel: &mut FakeKernel, wanted: &[Profile]) {
        let change = diff(Some(&shaping(wanted)), &kernel.tree).unwrap();
        let interface = kernel.interface.clone();
        execute(kernel, &interface, &change.steps).unwrap();
    }

    #[test]
    fn what_a_kernel_does_passes_and_nothing_of_it_stays() {
        let mut kernel = old();
        apply(&mut kernel, &[plain("5ms")]);
        let tree = kernel.tree.clone();
        assert_eq!(check(&kernel, &[plain("5ms"), plain("10ms")]), Ok(()));
        assert_eq!(check(&kernel, &[duplicating("5ms")]), Ok(()), "the only leaf is changed in place");
        assert_eq!(kernel.tree, tree);
        let able = FakeKernel::new("db0".parse().unwrap());
        assert_eq!(check(&able, &[duplicating("1ms"), duplicating("2ms"), seeded("3ms")]), Ok(()));
    }

    #[test]
    fn duplicates_that_a_kernel_refuses_in_company_are_named() {
        let message = "the kernel (R) refuses `duplicate` next to other delays on one interface: netem: cannot mix \
                       duplicating netems with other netems in tree; give all links of the node the same parameters, \
                       or use a kernel without that restriction (6.12.117 has none)";
        assert_eq!(check(&old(), &[duplicating("5ms"), plain("10ms")]), Err(message.to_owned()));
    }

    #[test]
    fn a_leaf_beside_which_another_cannot_be_is_named_though_the_new_one_is_plain() {
        let mut kernel = old();
        apply(&mut kernel, &[duplicating("5ms")]);
        let error = check(&kernel, &[duplicating("5ms"), plain("10ms")]).unwrap_err();
        assert!(error.contains("refuses `duplicate` next to other delays"), "{error}");
    }

    #[test]
    fn what_would_go_on_an_empty_interface_says_so() {
        let mut kernel = old();
        apply(&mut kernel, &[plain("5ms"), plain("10ms")]);
        let error = check(&kernel, &[duplicating("20ms"), duplicating("20ms")]).unwrap_err();
        assert!(error.contains("refuses `duplicate`") && error.ends_with("run `netemctl clear` first"), "{error}");
    }

    #[test]
    fn a_parameter_that_a_kernel_ignores_is_named() {
        let message = "the kernel (R) ignores `seed`; leave it out, or use a kernel from 6.6 on";
        assert_eq!(check(&old(), &[seeded("5ms"), plain("10ms")]), Err(message.to_owned()));
    }

    #[test]
    fn all_parameters_at_fault_are_named_at_once() {
        let both = Profile { seed: Some(42), ..duplicating("5ms") };
        let error = check(&old(), &[both, plain("10ms")]).unwrap_err();
        assert!(error.contains("refuses `duplicate` next to other delays"), "{error}");
        assert!(error.contains("ignores `seed`"), "{error}");
    }

    #[test]
    fn many_leaves_that_are_alike_are_tried_as_two() {
        let tree = Tree::default();
        let shaping = shaping(&vec![seeded("5ms"); 200]);
        let change = diff(Some(&shaping), &tree).unwrap();
        assert_eq!(
            change.steps.iter().filter(|step| matches!(step, Step::AddClass { profile: Some(_), .. })).count(),
            200
        );
        assert_eq!(Leaves::of(&tree, &change, &Tables::new()).fates.len(), 2);
    }
}
