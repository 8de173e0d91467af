//! A kernel in memory: the state of one interface. It refuses the same steps as Linux, with the same error number.
//!
//! Shared by the unit tests of the agent and the tests of the planner.

use std::{collections::BTreeSet, net::IpAddr};

use netemctl::{
    kernel::{DefaultRoute, Event, HostNetwork, Interface, Kernel, KernelError, Link},
    plan::{
        ClassMinor, Cut, DEFAULT_CLASS, Direction, IfName, Leaf, LineRate, Profile, RouteTarget, Step, Tree, Within,
    },
    topology::Tables,
};
use nix::errno::Errno;

/// The sentence of kernels that refuse a leaf that duplicates beside other leaves (`check_netem_in_tree` of `sch_netem.c`).
const NO_COMPANY: &str = "netem: cannot mix duplicating netems with other netems in tree";

/// One interface's tree.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a thing of its own that kernels do or do not")]
pub(crate) struct FakeKernel {
    /// What is on the interface.
    pub(crate) tree: Tree,
    /// The interface, the only one that can be shaped.
    pub(crate) interface: Interface,
    /// Whether it is not there at this moment.
    pub(crate) is_gone: bool,
    /// Whether it is the loopback.
    pub(crate) is_loopback: bool,
    /// Whether it says nothing of what is on it.
    pub(crate) is_mute: bool,
    /// The other links.
    pub(crate) others: Vec<Link>,
    /// The bridge or bond that the interface is a port of.
    pub(crate) master: Option<u32>,
    /// The default routes.
    pub(crate) default_routes: Vec<DefaultRoute>,
    /// The routers of all routes, each with the link that leads there.
    pub(crate) gateways: BTreeSet<(u32, IpAddr)>,
    /// What has happened and nobody has asked for yet.
    pub(crate) events: Vec<Event>,
    /// The write, counted from 0, that fails whatever it is.
    pub(crate) fails_at: Option<usize>,
    /// The write from which on every one fails.
    pub(crate) fails_from: Option<usize>,
    /// How many writes there were.
    pub(crate) writes: usize,
    /// Whether a leaf that duplicates is refused beside any other, as by 6.1.176.
    pub(crate) refuses_duplicates_in_company: bool,
    /// Whether seeds are ignored without a word, as before 6.6.
    pub(crate) ignores_seeds: bool,
    /// Whether refusals are answered; `None`: they cannot be.
    pub(crate) answers: Option<bool>,
}

impl FakeKernel {
    /// An untouched interface.
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
            is_mute: false,
            others: Vec::new(),
            master: None,
            default_routes: Vec::new(),
            gateways: BTreeSet::new(),
            events: Vec::new(),
            fails_at: None,
            fails_from: None,
            writes: 0,
            refuses_duplicates_in_company: false,
            ignores_seeds: false,
            answers: Some(false),
        }
    }

    fn apply(&mut self, step: &Step) -> Result<(), Errno> {
        let taken = self.takes(step)?;
        let tree = &mut self.tree;
        match step {
            Step::AddRoot => occupy(&mut tree.taken)?,
            Step::RemoveRoot => {
                vacate(&mut tree.taken)?;
                tree.cuts.retain(|cut, _| cut.direction == Direction::Ingress);
                tree.foreign.retain(|object| !matches!(object.within, Within::Root { .. }));
                let Tree { hook, ingress_passes, cuts, foreign, .. } = std::mem::take(tree);
                *tree = Tree { hook, ingress_passes, cuts, foreign, ..Tree::default() };
            }
            Step::AddHook => occupy(&mut tree.hook)?,
            Step::RemoveHook => {
                vacate(&mut tree.hook)?;
                tree.ingress_passes.clear();
                tree.cuts.retain(|cut, _| cut.direction == Direction::Egress);
            }
            Step::AddClass { class, .. } => {
                exists(tree.taken)?;
                let leaf = Leaf { profile: taken, queued: 0 };
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
                leaf.profile = taken;
            }
            Step::AddPass { direction, types } => {
                exists(self.has(*direction))?;
                let passes = self.passes(*direction);
                free(types.iter().all(|kind| passes.insert(*kind)))?;
            }
            Step::RemovePass { direction, types } => {
                let passes = self.passes(*direction);
                exists(types.iter().all(|kind| passes.remove(kind)))?;
            }
            Step::BuildChain { chain, routes } => {
                exists(routes.iter().all(|route| tree.classes.contains_key(&route.class)))?;
                let slots = tree.chains.entry(*chain).or_default();
                for route in routes {
                    free(
                        slots.insert(route.address, RouteTarget { class: route.class, handle: route.handle }).is_none(),
                    )?;
                }
            }
            Step::DropChain { chain, .. } => drop(tree.chains.remove(chain)),
            Step::Flip { to, .. } => {
                exists(tree.taken && (to.is_some() || tree.active.is_some()))?;
                tree.active = *to;
            }
            Step::Cut { cut, handle } => {
                exists(self.has(cut.direction))?;
                let list = |cut: &Cut| (cut.direction, cut.answer, cut.address.is_ipv4());
                let cuts = &mut self.tree.cuts;
                free(!cuts.iter().any(|(other, taken)| list(other) == list(cut) && taken == handle))?;
                free(cuts.insert(*cut, *handle).is_none())?;
            }
            Step::Uncut { cut, .. } => exists(tree.cuts.remove(cut).is_some())?,
        }
        // Each filter counts from when it was written.
        let Tree { cuts, counters, .. } = &mut self.tree;
        counters.cuts.retain(|cut, _| cuts.contains_key(cut));
        for cut in cuts.keys() {
            counters.cuts.entry(*cut).or_default();
        }
        Ok(())
    }

    /// What the kernel makes of the profile that a step writes, if it writes one.
    fn takes(&self, step: &Step) -> Result<Option<Profile>, Errno> {
        let (class, profile) = match step {
            Step::AddClass { class, profile: Some(profile) } => (class, profile),
            Step::ChangeLeaf { class, to, .. } => (class, to),
            _ => return Ok(None),
        };
        let others = self.tree.classes.iter().filter(|(other, _)| *other != class);
        let mut others = others.filter_map(|(_, leaf)| leaf.profile);
        let duplicates = |other: Profile| profile.duplicate.is_some() || other.duplicate.is_some();
        if self.refuses_duplicates_in_company && others.any(duplicates) {
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

    fn passes(&mut self, direction: Direction) -> &mut BTreeSet<u8> {
        match direction {
            Direction::Egress => &mut self.tree.egress_passes,
            Direction::Ingress => &mut self.tree.ingress_passes,
        }
    }

    /// Whether a filter is bound to the class, which makes the kernel refuse to delete it.
    fn points_to(&self, class: ClassMinor) -> bool {
        let passes = class == DEFAULT_CLASS && !self.tree.egress_passes.is_empty();
        passes || self.tree.chains.values().flat_map(|slots| slots.values()).any(|slot| slot.class == class)
    }

    fn write(&mut self, step: &Step) -> Result<(), KernelError> {
        let number = self.writes;
        self.writes += 1;
        let fails = self.fails_at == Some(number) || self.fails_from.is_some_and(|first| first <= number);
        let result = if fails { Err(Errno::ENOMEM) } else { self.apply(step) };
        result.map_err(|errno| KernelError::Refused {
            operation: step.to_string(),
            errno,
            sentence: (errno == Errno::EINVAL).then(|| NO_COMPANY.to_owned()),
        })
    }
}

fn occupy(place: &mut bool) -> Result<(), Errno> {
    if std::mem::replace(place, true) { Err(Errno::EEXIST) } else { Ok(()) }
}

fn vacate(place: &mut bool) -> Result<(), Errno> {
    if std::mem::replace(place, false) { Ok(()) } else { Err(Errno::ENOENT) }
}

fn exists(it_does: bool) -> Result<(), Errno> {
    it_does.then_some(()).ok_or(Errno::ENOENT)
}

fn free(it_is: bool) -> Result<(), Errno> {
    it_is.then_some(()).ok_or(Errno::EEXIST)
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
        if self.is_gone || interface.index != self.interface.index {
            return Err(KernelError::NoInterface(interface.name.clone()));
        }
        if self.is_mute {
            return Err(KernelError::Malformed("it says nothing".to_owned()));
        }
        Ok(self.tree.clone())
    }

    /// A tree names tables and does not hold them.
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
        // The step that failed was not done at all here, so its inverse finds nothing: that is no error.
        match self.write(&step.inverse()) {
            Err(KernelError::Refused { errno: Errno::ENOENT | Errno::EEXIST, .. }) => Ok(()),
            other => other,
        }
    }
}
