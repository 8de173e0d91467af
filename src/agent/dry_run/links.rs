//! [`DryRun`] tries the netem parameters of one change on this kernel.
//!
//! A kernel may refuse a netem parameter, refuse it next to other netem qdiscs, or accept and ignore it. The trial
//! comes before the commit, so that the change does not fail on this node after other nodes have committed.
//!
//! A leaf is the netem qdisc of a class. A profile is the set of netem parameters of a leaf.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use super::{Sandbox, TrialError, no_namespace};
use crate::{
    kernel::{self, Interface, Kernel, KernelError},
    plan::{Change, ClassMinor, DEFAULT_CLASS, Profile, Shaping, Step, Tree, Wanted, diff},
    topology::{Distribution, NodeName, Parameter, Tables},
    wire::{ApiError, ErrorCode},
};

/// Largest number of leaves to try with the same profiles before and after the change. Two, because a kernel may accept
/// the first leaf and refuse the second.
const ALIKE: usize = 2;

/// Largest number of successful trials to remember.
const REMEMBERED: usize = 16;

/// The class of the first leaf in the sandbox.
const FIRST_CLASS: ClassMinor = DEFAULT_CLASS + 1;

/// The parameters that a kernel may not support. Every kernel supports a delay and a limit.
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

/// A change to try.
pub(in crate::agent) struct DryRun<'a> {
    /// The objects on the interface before the change.
    pub(in crate::agent) tree: &'a Tree,
    pub(in crate::agent) change: &'a Change,
    /// The shaping of the interface after the change.
    pub(in crate::agent) shaping: Option<&'a Shaping>,
    pub(in crate::agent) node: &'a NodeName,
    /// The document that requests the change.
    pub(in crate::agent) wanted: &'a Wanted,
    pub(in crate::agent) tables: Tables,
}

impl DryRun<'_> {
    /// Checks that the kernel supports the change. The error names each unsupported parameter that the trials find, and
    /// the line that sets the parameter, if known.
    ///
    /// A trial in `tried` is not repeated, because the kernel is the same until the next boot.
    pub(in crate::agent) fn check(&self, sandbox: &dyn Sandbox, tried: &mut Tried) -> Result<(), ApiError> {
        let leaves = Leaves::of(self.tree, self.change, &self.tables);
        if !leaves.need_trial() || tried.has(&leaves) {
            return Ok(());
        }
        leaves.try_on(sandbox).map_err(|error| match error {
            TrialError::NoNamespace(error) => no_namespace(&error),
            error => self.diagnose(sandbox, &leaves, &error),
        })?;
        tried.add(leaves);
        Ok(())
    }

    /// Tries each parameter without the others. Returns the error with the parameters that the kernel does not support.
    fn diagnose(&self, sandbox: &dyn Sandbox, leaves: &Leaves, error: &TrialError) -> ApiError {
        let kernel = kernel::release();
        let fault = |parameter: Parameter| {
            let error = leaves.map(|profile| only(profile, parameter)).try_on(sandbox).err()?;
            let is_refused_alone = leaves.profiles().any(|profile| self.fails_alone(only(profile, parameter), sandbox));
            let beside = if is_refused_alone { "" } else { " together with other netems" };
            let line = self.wanted.origin(self.node, parameter).map(|line| format!(" ({line})")).unwrap_or_default();
            let fault = match error {
                TrialError::NotReadBack => format!("kernel {kernel} ignores `{parameter}`{line}"),
                error => {
                    // If the parameter fails only together with other netems, `beside` already says the reason.
                    let reason = if is_refused_alone { format!(": {}", reason(&error)) } else { String::new() };
                    format!("kernel {kernel} refuses `{parameter}`{beside}{line}{reason}")
                }
            };
            Some((parameter, fault))
        };
        let (at_fault, mut faults): (Vec<Parameter>, Vec<String>) = PARAMETERS.into_iter().filter_map(fault).unzip();
        if faults.is_empty() {
            faults.push(format!("kernel {kernel} does not support these links: {}", reason(error)));
        }
        let hint = self.hint(sandbox, leaves, &at_fault);
        ErrorCode::Unsupported.error(format!("{}; {hint}", faults.join("; ")))
    }

    fn hint(&self, sandbox: &dyn Sandbox, leaves: &Leaves, at_fault: &[Parameter]) -> &'static str {
        let from_empty = diff(self.shaping, &Tree::default());
        let from_empty = from_empty.map(|change| Leaves::of(&Tree::default(), &change, &self.tables).try_on(sandbox));
        if matches!(from_empty, Ok(Ok(()))) {
            return "it would accept them on an empty interface: run `netemctl clear` first";
        }
        if !leaves.profiles().any(|profile| self.fails_alone(profile, sandbox)) {
            return "give all links of the node the same parameters, or use kernel 6.12.117";
        }
        match at_fault {
            [Parameter::Seed] => "leave it out, or use a kernel from 6.6 on",
            _ => "leave these parameters out, or use another kernel",
        }
    }

    /// True if one leaf with this profile fails on an empty interface.
    fn fails_alone(&self, profile: Profile, sandbox: &dyn Sandbox) -> bool {
        let leaf = Leaves { transitions: vec![(None, Some(profile))], tables: self.tables.clone() };
        leaf.with_missing_tables().try_on(sandbox).is_err()
    }
}

/// The last trials that have succeeded on this kernel.
///
/// A kernel may accept each of two leaves and refuse both together, so a trial is known by all its leaves. The table of
/// a leaf is a part of its profile.
#[derive(Debug, Default)]
pub(in crate::agent) struct Tried(VecDeque<Vec<Transition>>);

impl Tried {
    fn has(&self, leaves: &Leaves) -> bool {
        self.0.contains(&leaves.transitions)
    }

    fn add(&mut self, leaves: Leaves) {
        if self.0.len() == REMEMBERED {
            self.0.pop_front();
        }
        self.0.push_back(leaves.transitions);
    }
}

/// The profiles of a leaf before and after a change.
type Transition = (Option<Profile>, Option<Profile>);

/// The leaves of an interface, each with its profile before and after the change.
///
/// A new leaf has no profile before the change. An unchanged leaf has only the profile before the change. A leaf that
/// the change removes counts as unchanged.
struct Leaves {
    transitions: Vec<Transition>,
    tables: Tables,
}

impl Leaves {
    /// The unchanged leaves, then the new and changed leaves in the order of the change.
    ///
    /// Keeps at most [`ALIKE`] leaves with the same transition (profiles before and after the change).
    fn of(tree: &Tree, change: &Change, tables: &Tables) -> Self {
        let mut present: BTreeMap<ClassMinor, Profile> =
            tree.classes.iter().filter_map(|(class, leaf)| Some((*class, leaf.profile?))).collect();
        let changed = change.steps.iter().filter_map(|step| match step {
            Step::ChangeLeaf { class, from, to } => Some((Some(present.remove(class).unwrap_or(*from)), Some(*to))),
            Step::AddClass { profile: Some(profile), .. } => Some((None, Some(*profile))),
            _ => None,
        });
        let changed: Vec<_> = changed.collect();
        let mut seen: BTreeMap<_, usize> = BTreeMap::new();
        let mut transitions: Vec<_> =
            present.into_values().map(|profile| (Some(profile), None)).chain(changed).collect();
        transitions.retain(|transition| {
            let seen = seen.entry(*transition).or_default();
            *seen += 1;
            *seen <= ALIKE
        });
        Self { transitions, tables: tables.clone() }.with_missing_tables()
    }

    /// Adds a dummy for each unknown distribution table of a leaf before the change.
    ///
    /// A restarted agent does not have the tables of the leaves that it finds on the interface. Any table is good
    /// enough for a trial.
    fn with_missing_tables(mut self) -> Self {
        let marks: Vec<_> = self.transitions.iter().filter_map(|(now, _)| Some((*now)?.mark())).collect();
        for distribution in marks.into_iter().flat_map(|mark| [mark.delay, mark.slot]) {
            if let Distribution::Table(id) = distribution {
                self.tables.entry(id).or_insert_with(|| Arc::new([0]));
            }
        }
        self
    }

    fn map(&self, change: impl Fn(Profile) -> Profile) -> Self {
        let transitions = self.transitions.iter().map(|(now, then)| (now.map(&change), then.map(&change)));
        Self { transitions: transitions.collect(), tables: self.tables.clone() }
    }

    fn profiles(&self) -> impl Iterator<Item = Profile> {
        self.transitions.iter().flat_map(|(now, then)| [*now, *then]).flatten()
    }

    /// True if a leaf is new or changes, and any leaf has more than a delay and a limit.
    fn need_trial(&self) -> bool {
        self.transitions.iter().any(|(_, then)| then.is_some())
            && self.profiles().any(|profile| profile != plain(profile))
    }

    fn try_on(&self, sandbox: &dyn Sandbox) -> Result<(), TrialError> {
        sandbox.run(&|kernel, interface| self.install(kernel, interface))
    }

    fn install(&self, kernel: &mut dyn Kernel, interface: &Interface) -> Result<(), TrialError> {
        kernel.add_tables(&self.tables);
        kernel.perform(interface, &Step::AddRoot)?;
        let numbered = || (FIRST_CLASS..).zip(self.transitions.iter().copied());
        let present = numbered().filter_map(|(class, (now, _))| Some(Step::AddClass { class, profile: Some(now?) }));
        let changed = numbered().filter_map(|(class, (now, then))| match (now, then) {
            (_, None) => None,
            (Some(from), Some(to)) => Some(Step::ChangeLeaf { class, from, to }),
            (None, profile) => Some(Step::AddClass { class, profile }),
        });
        for step in present.chain(changed) {
            kernel.perform(interface, &step)?;
        }
        let tree = kernel.observe(interface)?;
        let is_read_back = |(class, (now, then)): (ClassMinor, Transition)| {
            tree.classes.get(&class).is_some_and(|leaf| leaf.profile == then.or(now))
        };
        if numbered().all(is_read_back) { Ok(()) } else { Err(TrialError::NotReadBack) }
    }
}

/// A profile with only the delay and the limit of `profile`.
fn plain(profile: Profile) -> Profile {
    Profile::plain(profile.delay, profile.limit)
}

/// A profile with only the delay, the limit and one more parameter of `profile`.
fn only(profile: Profile, parameter: Parameter) -> Profile {
    let plain = plain(profile);
    match parameter {
        Parameter::Delay | Parameter::Limit => plain,
        Parameter::Jitter => {
            // A rate that was added only to keep packets in order despite jitter belongs to the jitter.
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

/// The reason of a failure: the kernel's own message (extended ack), if there is one, or else the text of the error.
fn reason(error: &TrialError) -> String {
    match error {
        TrialError::Kernel(KernelError::Refused { sentence: Some(sentence), .. }) => sentence.clone(),
        TrialError::Kernel(KernelError::Refused { errno, .. }) => errno.desc().to_owned(),
        error => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        net::IpAddr,
        sync::atomic::{AtomicUsize, Ordering},
    };

    use super::*;
    use crate::{
        agent::dry_run::Trial,
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

    /// A kernel like Linux 6.1.176, which refuses duplicates next to other netem qdiscs and ignores seeds.
    fn old() -> FakeKernel {
        let kernel = FakeKernel::new("db0".parse().unwrap());
        FakeKernel { refuses_mixed_duplicates: true, ignores_seeds: true, ..kernel }
    }

    /// A shaping with one address for each profile.
    fn shaping(profiles: &[Profile]) -> Shaping {
        let address = |number: u8| IpAddr::from([10, 0, 0, number]);
        let spec = |(number, profile): (u8, &Profile)| (address(number), LeafSpec::of(*profile, &[address(number)]));
        Shaping { leaf_specs: (1..).zip(profiles).map(spec).collect(), ..Shaping::default() }
    }

    fn check(kernel: &FakeKernel, wanted: &[Profile]) -> Result<(), String> {
        check_on(kernel, &mut Tried::default(), kernel, wanted)
    }

    fn check_on(
        sandbox: &dyn Sandbox,
        tried: &mut Tried,
        kernel: &FakeKernel,
        wanted: &[Profile],
    ) -> Result<(), String> {
        let shaping = shaping(wanted);
        let change = diff(Some(&shaping), &kernel.tree).unwrap();
        let node = "n1".parse().unwrap();
        let dry_run = DryRun {
            tree: &kernel.tree,
            change: &change,
            shaping: Some(&shaping),
            node: &node,
            wanted: &Wanted::default(),
            tables: Tables::new(),
        };
        dry_run.check(sandbox, tried).map_err(|error| {
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
    fn a_supported_change_passes_and_leaves_nothing_behind() {
        let mut kernel = old();
        apply(&mut kernel, &[plain("5ms")]);
        let tree = kernel.tree.clone();
        assert_eq!(check(&kernel, &[plain("5ms"), plain("10ms")]), Ok(()));
        assert_eq!(check(&kernel, &[duplicating("5ms")]), Ok(()), "the only leaf changes in place");
        assert_eq!(kernel.tree, tree);
        let able = FakeKernel::new("db0".parse().unwrap());
        assert_eq!(check(&able, &[duplicating("1ms"), duplicating("2ms"), seeded("3ms")]), Ok(()));
    }

    #[test]
    fn duplicates_refused_next_to_other_netem_are_named() {
        let message = "kernel R refuses `duplicate` together with other netems; give all links of the node the same \
                       parameters, or use kernel 6.12.117";
        assert_eq!(check(&old(), &[duplicating("5ms"), plain("10ms")]), Err(message.to_owned()));
    }

    #[test]
    fn a_plain_leaf_refused_next_to_a_duplicating_leaf_is_reported_as_duplicate() {
        let mut kernel = old();
        apply(&mut kernel, &[duplicating("5ms")]);
        let error = check(&kernel, &[duplicating("5ms"), plain("10ms")]).unwrap_err();
        assert!(error.contains("refuses `duplicate` together with other netems"), "{error}");
    }

    #[test]
    fn the_hint_is_to_clear_if_an_empty_interface_would_accept_the_links() {
        let mut kernel = old();
        apply(&mut kernel, &[plain("5ms"), plain("10ms")]);
        let error = check(&kernel, &[duplicating("20ms"), duplicating("20ms")]).unwrap_err();
        assert!(error.contains("refuses `duplicate`") && error.ends_with("run `netemctl clear` first"), "{error}");
    }

    #[test]
    fn a_parameter_ignored_by_the_kernel_is_named() {
        let message = "kernel R ignores `seed`; leave it out, or use a kernel from 6.6 on";
        assert_eq!(check(&old(), &[seeded("5ms"), plain("10ms")]), Err(message.to_owned()));
    }

    #[test]
    fn all_unsupported_parameters_are_named_at_once() {
        let both = Profile { seed: Some(42), ..duplicating("5ms") };
        let error = check(&old(), &[both, plain("10ms")]).unwrap_err();
        assert!(error.contains("refuses `duplicate` together with other netems"), "{error}");
        assert!(error.contains("ignores `seed`"), "{error}");
    }

    /// Counts the trials.
    struct Counting(FakeKernel, AtomicUsize);

    impl Sandbox for Counting {
        fn run(&self, trial: &Trial<'_>) -> Result<(), TrialError> {
            self.1.fetch_add(1, Ordering::Relaxed);
            self.0.run(trial)
        }
    }

    #[test]
    fn a_trial_that_has_succeeded_is_not_repeated_and_one_that_has_failed_is() {
        let sandbox = Counting(old(), AtomicUsize::new(0));
        let mut tried = Tried::default();
        let mut trials = |profiles: &[Profile]| {
            let before = sandbox.1.load(Ordering::Relaxed);
            let is_accepted = check_on(&sandbox, &mut tried, &sandbox.0, profiles).is_ok();
            (is_accepted, sandbox.1.load(Ordering::Relaxed) - before)
        };
        assert_eq!(trials(&[duplicating("5ms")]), (true, 1));
        assert_eq!(trials(&[duplicating("5ms")]), (true, 0));
        assert_eq!(trials(&[duplicating("6ms")]), (true, 1));
        let (is_accepted, first) = trials(&[duplicating("5ms"), duplicating("6ms")]);
        assert!(!is_accepted && first > 0, "each alone was accepted, both together are not");
        assert_eq!(trials(&[duplicating("5ms"), duplicating("6ms")]), (false, first));
    }

    #[test]
    fn only_two_of_many_equal_leaves_are_tried() {
        let tree = Tree::default();
        let shaping = shaping(&vec![seeded("5ms"); 200]);
        let change = diff(Some(&shaping), &tree).unwrap();
        assert_eq!(
            change.steps.iter().filter(|step| matches!(step, Step::AddClass { profile: Some(_), .. })).count(),
            200
        );
        assert_eq!(Leaves::of(&tree, &change, &Tables::new()).transitions.len(), 2);
    }
}
