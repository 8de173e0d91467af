//! A kernel in memory with one interface that can be shaped. It refuses the same steps as Linux, with the same errno.
//!
//! The unit tests of the agent, the tests of the plan and the https tests use this module.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use netemctl::{
    agent::{Sandbox, Trial, TrialError},
    kernel::{DefaultRoute, Event, HostNetwork, Interface, Kernel, KernelError, Link},
    plan::{
        Answer, Chain, ChainFilter, ClassMinor, Counters, Cut, CutFilter, DEFAULT_CLASS, Direction, Filters, IfName,
        Leaf, LineRate, Profile, Route, Stale, Step, Tally, Tree, Within,
    },
    topology::Tables,
};
use nix::errno::Errno;

/// The kernel's message if a netem with `duplicate` is beside another netem (`check_netem_in_tree` of `sch_netem.c`).
const MIXED_DUPLICATES: &str = "netem: cannot mix duplicating netems with other netems in tree";

/// One interface with its tree, other links, routes, and switches for kernel behaviour.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "independent switches")]
pub(crate) struct FakeKernel {
    /// The qdiscs, classes and filters of the interface.
    pub(crate) tree: Tree,
    /// The only interface that can be shaped.
    pub(crate) interface: Interface,
    /// True while the interface does not exist.
    pub(crate) is_gone: bool,
    /// True if the interface is the loopback.
    pub(crate) is_loopback: bool,
    /// True if the tree cannot be read: `observe` fails.
    pub(crate) observe_fails: bool,
    /// The other links of the host.
    pub(crate) others: Vec<Link>,
    /// The bridge or bond that the interface is a port of.
    pub(crate) master: Option<u32>,
    /// The default routes.
    pub(crate) default_routes: Vec<DefaultRoute>,
    /// The gateways of all routes: the index of the link and the gateway's address.
    pub(crate) gateways: BTreeSet<(u32, IpAddr)>,
    /// Events that `events` has not returned yet.
    pub(crate) events: Vec<Event>,
    /// The number of the write that fails, counted from 0.
    pub(crate) fails_at: Option<usize>,
    /// The number of the first write that fails; all later writes fail too.
    pub(crate) fails_from: Option<usize>,
    /// The number of the write that the kernel acknowledges but does not perform.
    pub(crate) skips_at: Option<usize>,
    /// The number of writes so far, including failed ones.
    pub(crate) writes: usize,
    /// The number of complete reads of the interface so far.
    pub(crate) dumps: usize,
    /// The number of actions that were made so far.
    pub(crate) actions: u32,
    /// True if a leaf with `duplicate` is refused beside other leaves, as by Linux 6.1.176.
    pub(crate) refuses_mixed_duplicates: bool,
    /// True if seeds are ignored silently, as before Linux 6.6.
    pub(crate) ignores_seeds: bool,
    /// True while the agent answers dropped packets (`--mode reject`). `None`: the kernel lacks what that needs.
    pub(crate) answers: Option<bool>,
}

impl FakeKernel {
    /// A kernel whose interface is untouched.
    pub(crate) fn new(interface: IfName) -> Self {
        let interface = Interface {
            index: 2,
            name: interface,
            rate: LineRate::UNKNOWN,
            addresses: Vec::new(),
            tentative: BTreeSet::new(),
            is_up: true,
            has_carrier: true,
        };
        Self {
            tree: Tree::default(),
            interface,
            is_gone: false,
            is_loopback: false,
            observe_fails: false,
            others: Vec::new(),
            master: None,
            default_routes: Vec::new(),
            gateways: BTreeSet::new(),
            events: Vec::new(),
            fails_at: None,
            fails_from: None,
            skips_at: None,
            writes: 0,
            dumps: 0,
            actions: 0,
            refuses_mixed_duplicates: false,
            ignores_seeds: false,
            answers: Some(false),
        }
    }

    fn apply(&mut self, step: &Step) -> Result<(), Errno> {
        let stored = self.stored_profile(step)?;
        let tree = &mut self.tree;
        match step {
            Step::AddRoot => occupy(&mut tree.taken)?,
            Step::RemoveRoot => {
                vacate(&mut tree.taken)?;
                tree.foreign.retain(|object| !matches!(object.within, Some(Within::Root { .. })));
                let Tree { hook, ingress, foreign, counters, .. } = std::mem::take(tree);
                let counters = Counters { leaves: BTreeMap::new(), ..counters };
                *tree = Tree { hook, ingress, counters, foreign, ..Tree::default() };
            }
            Step::AddHook => occupy(&mut tree.hook)?,
            Step::RemoveHook => {
                vacate(&mut tree.hook)?;
                tree.ingress = Filters::default();
            }
            Step::AddClass { class, .. } => {
                exists(tree.taken)?;
                let leaf = Leaf { profile: stored, queued: 0 };
                free(tree.classes.insert(*class, leaf).is_none())?;
            }
            Step::RemoveClass { class, .. } => {
                if self.points_to(*class) {
                    return Err(Errno::EBUSY);
                }
                exists(self.tree.classes.remove(class).is_some())?;
            }
            Step::ChangeLeaf { class, .. } => {
                let leaf = tree.classes.get_mut(class).filter(|leaf| leaf.profile.is_some()).ok_or(Errno::ENOENT)?;
                leaf.profile = stored;
            }
            Step::AddPass { direction, types } => {
                exists(self.has(*direction))?;
                let passes = &mut self.tree.filters_mut(*direction).passes;
                free(types.iter().all(|kind| passes.insert(*kind)))?;
            }
            Step::RemovePass { direction, types } => {
                let passes = &mut self.tree.filters_mut(*direction).passes;
                exists(types.iter().all(|kind| passes.remove(kind)))?;
            }
            Step::BuildChain { direction, chain, filters } => {
                exists(self.has(*direction))?;
                self.add(*chain, filters)?;
            }
            Step::DropChain { direction, chain, .. } => {
                drop(tree.filters_mut(*direction).chains.remove(chain));
            }
            Step::Flip { direction, to, .. } => {
                let is_there = self.has(*direction);
                let filters = self.tree.filters_mut(*direction);
                exists(is_there && (to.is_some() || filters.active.is_some()))?;
                filters.active = *to;
            }
            Step::AddFilter { chain, filter } => self.add(*chain, &[*filter])?,
            Step::RemoveFilter { chain, filter } => {
                let chain = tree.filters_mut(filter.direction()).chains.get_mut(chain).ok_or(Errno::ENOENT)?;
                exists(chain.remove(filter).is_some())?;
            }
            Step::ChangeRoute { chain, from, to } => {
                exists(tree.classes.contains_key(&to.class))?;
                let chain = tree.egress.chains.get_mut(chain).ok_or(Errno::ENOENT)?;
                exists(chain.routes.insert(to.address, *to) == Some(*from))?;
            }
        }
        // The kernel removes a chain with its last filter, and an action with its last filter.
        for direction in [Direction::Egress, Direction::Ingress] {
            self.tree.filters_mut(direction).chains.retain(|_, chain| !chain.is_empty());
        }
        let Tree { egress, ingress, counters, .. } = &mut self.tree;
        let has =
            |cut: &Cut| egress.chains.values().chain(ingress.chains.values()).any(|chain| chain.cuts.contains_key(cut));
        counters.cuts.retain(|cut, _| has(cut));
        Ok(())
    }

    /// Adds filters to a chain. Without a counter to share, a cut gets a new one, which starts at 0.
    fn add(&mut self, chain: u32, added: &[ChainFilter]) -> Result<(), Errno> {
        let Some(direction) = added.first().map(ChainFilter::direction) else { return Ok(()) };
        exists(self.has(direction))?;
        let Self { tree, actions, .. } = self;
        let Tree { egress, ingress, classes, counters, .. } = tree;
        let filters = if direction == Direction::Egress { egress } else { ingress };
        let present = filters.chains.get(&chain).into_iter().flat_map(Chain::filters);
        let mut lists: BTreeSet<_> = present.map(|filter| list(&filter)).collect();
        for filter in added {
            let filter = match *filter {
                ChainFilter::Route(route) => {
                    exists(classes.contains_key(&route.class))?;
                    ChainFilter::Route(route)
                }
                ChainFilter::Cut(filter) => {
                    let counted = counters.cuts.entry(filter.cut).or_default();
                    if filter.counter.is_none() {
                        *actions += 1;
                        *counted = Tally::default();
                    }
                    ChainFilter::Cut(CutFilter { counter: filter.counter.or(Some(*actions)), ..filter })
                }
            };
            free(lists.insert(list(&filter)))?;
            free(filters.chains.entry(chain).or_default().insert(filter).is_none())?;
        }
        Ok(())
    }

    /// The profile that the kernel stores if the step writes one. Old kernels refuse some parameters or ignore them.
    fn stored_profile(&self, step: &Step) -> Result<Option<Profile>, Errno> {
        let (class, profile) = match step {
            Step::AddClass { class, profile: Some(profile) } => (class, profile),
            Step::ChangeLeaf { class, to, .. } => (class, to),
            _ => return Ok(None),
        };
        let others = self.tree.classes.iter().filter(|(other, _)| *other != class);
        let mut others = others.filter_map(|(_, leaf)| leaf.profile);
        let duplicates = |other: Profile| profile.duplicate.is_some() || other.duplicate.is_some();
        if self.refuses_mixed_duplicates && others.any(duplicates) {
            return Err(Errno::EINVAL);
        }
        Ok(Some(Profile { seed: profile.seed.filter(|_| !self.ignores_seeds), ..*profile }))
    }

    fn has(&self, direction: Direction) -> bool {
        match direction {
            Direction::Egress => self.tree.taken,
            Direction::Ingress => self.tree.hook,
        }
    }

    /// True if a filter points to the class. The kernel then refuses to delete the class.
    fn points_to(&self, class: ClassMinor) -> bool {
        let Filters { passes, chains, .. } = &self.tree.egress;
        let is_passed_to = class == DEFAULT_CLASS && !passes.is_empty();
        is_passed_to || chains.values().flat_map(|chain| chain.routes.values()).any(|route| route.class == class)
    }

    fn look(&self, interface: &Interface) -> Result<Tree, KernelError> {
        if self.is_gone || interface.index != self.interface.index {
            return Err(KernelError::NoInterface(interface.name.clone()));
        }
        if self.observe_fails {
            return Err(KernelError::Malformed("it says nothing".to_owned()));
        }
        Ok(self.tree.clone())
    }

    fn write(&mut self, step: &Step) -> Result<(), KernelError> {
        let number = self.writes;
        self.writes += 1;
        let fails = self.fails_at == Some(number) || self.fails_from.is_some_and(|first| first <= number);
        let result = if fails {
            Err(Errno::ENOMEM)
        } else if self.skips_at == Some(number) {
            Ok(())
        } else {
            self.apply(step)
        };
        result.map_err(|errno| KernelError::Refused {
            operation: step.to_string(),
            errno,
            sentence: (errno == Errno::EINVAL).then(|| MIXED_DUPLICATES.to_owned()),
        })
    }
}

/// What no two filters of a chain have in common: the kind, the address family, the answer of a cut, and the handle.
fn list(filter: &ChainFilter) -> (bool, bool, bool, u32) {
    match filter {
        ChainFilter::Route(Route { address, handle, .. }) => (true, address.is_ipv4(), false, *handle),
        ChainFilter::Cut(CutFilter { cut, handle, .. }) => {
            (false, cut.address.is_ipv4(), cut.answer == Answer::Refusal, *handle)
        }
    }
}

fn occupy(place: &mut bool) -> Result<(), Errno> {
    if std::mem::replace(place, true) { Err(Errno::EEXIST) } else { Ok(()) }
}

fn vacate(place: &mut bool) -> Result<(), Errno> {
    if std::mem::replace(place, false) { Ok(()) } else { Err(Errno::ENOENT) }
}

fn exists(found: bool) -> Result<(), Errno> {
    found.then_some(()).ok_or(Errno::ENOENT)
}

fn free(is_free: bool) -> Result<(), Errno> {
    is_free.then_some(()).ok_or(Errno::EEXIST)
}

impl Kernel for FakeKernel {
    fn interface(&mut self, name: &IfName) -> Result<Interface, KernelError> {
        let found = (*name == self.interface.name && !self.is_gone).then(|| self.interface.clone());
        found.ok_or_else(|| KernelError::NoInterface(name.clone()))
    }

    fn host(&mut self) -> Result<HostNetwork, KernelError> {
        let Interface { index, name, addresses, is_up, has_carrier, .. } = self.interface.clone();
        let link = Link {
            index,
            name: name.to_string(),
            is_loopback: self.is_loopback,
            is_up,
            has_carrier,
            master: self.master,
            mtu: 1_500,
            addresses: addresses.into_iter().map(Into::into).collect(),
            ..Link::default()
        };
        let links = (!self.is_gone).then_some(link).into_iter().chain(self.others.clone()).collect();
        Ok(HostNetwork { links, default_routes: self.default_routes.clone(), gateways: self.gateways.clone() })
    }

    fn route_to(&mut self, _: IpAddr, from: Option<IpAddr>) -> Result<Option<u32>, KernelError> {
        let host = self.host()?;
        Ok(from.and_then(|from| host.owner(from)).map(|link| link.index))
    }

    fn events(&mut self) -> Result<Vec<Event>, KernelError> {
        Ok(std::mem::take(&mut self.events))
    }

    fn observe(&mut self, interface: &Interface) -> Result<Tree, KernelError> {
        self.dumps += 1;
        self.look(interface)
    }

    fn observe_again(
        &mut self,
        interface: &Interface,
        known: Tree,
        stale: &Stale,
        counts: bool,
    ) -> Result<Tree, KernelError> {
        let real = self.look(interface)?;
        if (real.taken, real.hook) != (known.taken, known.hook) {
            return self.observe(interface);
        }
        let mut tree = known.without(stale);
        for (direction, number) in &stale.chains {
            let (from, to) = (real.filters(*direction), tree.filters_mut(*direction));
            if *number == 0 {
                (to.passes, to.active) = (from.passes.clone(), from.active);
            } else if let Some(chain) = from.chains.get(number) {
                to.chains.insert(*number, chain.clone());
            }
        }
        for (number, filter) in &stale.filters {
            let chain = real.filters(filter.direction()).chains.get(number);
            let same = |other: &ChainFilter| list(other) == list(filter);
            if let Some(found) = chain.and_then(|chain| chain.filters().find(same)) {
                tree.filters_mut(filter.direction()).chains.entry(*number).or_default().insert(found);
            }
        }
        let Tree { taken, hook, classes, foreign, mut counters, .. } = real;
        if !counts {
            counters.cuts.extend(tree.counters.cuts);
        }
        Ok(Tree { taken, hook, classes, counters, foreign, ..tree })
    }

    /// Does nothing: a tree stores only the names of tables.
    fn add_tables(&mut self, _: &Tables) {}

    fn perform(&mut self, _: &Interface, step: &Step) -> Result<(), KernelError> {
        self.write(step)
    }

    fn set_refusals(&mut self, _: &Interface, wanted: bool) -> Result<(), KernelError> {
        match &mut self.answers {
            Some(answers) => *answers = wanted,
            None if wanted => return Err(KernelError::Answering(Errno::ENOENT.into())),
            None => {}
        }
        Ok(())
    }

    fn rollback(&mut self, _: &Interface, step: &Step) -> Result<(), KernelError> {
        // The failed step had no effect here, so its inverse finds a missing or an existing object. This is no error.
        match self.write(&step.inverse()) {
            Err(KernelError::Refused { errno: Errno::ENOENT | Errno::EEXIST, .. }) => Ok(()),
            other => other,
        }
    }
}

/// The sandbox of tests: a second kernel in memory that supports the same objects.
impl Sandbox for FakeKernel {
    fn run(&self, trial: &Trial<'_>) -> Result<(), TrialError> {
        let mut kernel = Self { tree: Tree::default(), fails_at: None, ..self.clone() };
        let interface = kernel.interface.clone();
        trial(&mut kernel, &interface)
    }
}
