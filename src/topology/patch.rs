//! What one rule says of a link: `LinkPatch`, parameter by parameter, each with its place in the file.

use std::ops::Range;

use super::{
    link::{Chance, Jitter, Link, Loss, Parameter, Rate, RatePer, Reorder, Slot},
    units::Delay,
};

/// A parameter as a rule says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Said<T> {
    pub(super) value: T,
    /// The place of its key.
    pub(super) place: Range<usize>,
}

/// What one rule says of a link: the parameters that it names, and silence about the others. `None` inside says that
/// the link has no such thing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct LinkPatch {
    pub(super) delay: Option<Said<Delay>>,
    pub(super) jitter: Option<Said<Option<Jitter>>>,
    pub(super) loss: Option<Said<Option<Loss>>>,
    pub(super) corrupt: Option<Said<Option<Chance>>>,
    pub(super) duplicate: Option<Said<Option<Chance>>>,
    pub(super) reorder: Option<Said<Option<Reorder>>>,
    pub(super) rate: Option<Said<(Option<Rate>, RatePer)>>,
    pub(super) slot: Option<Said<Option<Slot>>>,
    pub(super) limit: Option<Said<Option<u32>>>,
    pub(super) seed: Option<Said<Option<u64>>>,
}

impl LinkPatch {
    /// Lays what the rule says over what earlier rules said, parameter by parameter.
    pub(super) fn over(&self, link: Link) -> Link {
        let (rate, rate_per) = laid(self.rate.as_ref(), (link.rate, link.rate_per));
        Link {
            delay: laid(self.delay.as_ref(), link.delay),
            jitter: laid(self.jitter.as_ref(), link.jitter),
            loss: laid(self.loss.as_ref(), link.loss),
            corrupt: laid(self.corrupt.as_ref(), link.corrupt),
            duplicate: laid(self.duplicate.as_ref(), link.duplicate),
            reorder: laid(self.reorder.as_ref(), link.reorder),
            rate,
            rate_per,
            slot: laid(self.slot.as_ref(), link.slot),
            limit: laid(self.limit.as_ref(), link.limit),
            seed: laid(self.seed.as_ref(), link.seed),
        }
    }

    /// Whether it says something of any parameter.
    pub(super) fn says_something(&self) -> bool {
        Parameter::ALL.into_iter().any(|parameter| self.place_of(parameter).is_some())
    }

    /// Where it says something of this parameter, if it does.
    pub(super) fn place_of(&self, parameter: Parameter) -> Option<Range<usize>> {
        match parameter {
            Parameter::Delay => place(self.delay.as_ref()),
            Parameter::Jitter => place(self.jitter.as_ref()),
            Parameter::Loss => place(self.loss.as_ref()),
            Parameter::Corrupt => place(self.corrupt.as_ref()),
            Parameter::Duplicate => place(self.duplicate.as_ref()),
            Parameter::Reorder => place(self.reorder.as_ref()),
            Parameter::Rate => place(self.rate.as_ref()),
            Parameter::Slot => place(self.slot.as_ref()),
            Parameter::Limit => place(self.limit.as_ref()),
            Parameter::Seed => place(self.seed.as_ref()),
        }
    }
}

fn laid<T: Copy>(said: Option<&Said<T>>, before: T) -> T {
    said.map_or(before, |said| said.value)
}

fn place<T>(said: Option<&Said<T>>) -> Option<Range<usize>> {
    said.map(|said| said.place.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_patch_changes_nothing() {
        let link = Link { delay: Delay::from_nanos(5), limit: Some(7), ..Link::LAN };
        assert_eq!(LinkPatch::default().over(link), link);
        let nothing = LinkPatch { delay: Some(Said { value: Delay::ZERO, place: 0..1 }), ..LinkPatch::default() };
        assert_eq!(nothing.over(link), Link { limit: Some(7), ..Link::LAN });
        assert!(nothing.over(link).is_lan() && !link.is_lan());
        assert_eq!((nothing.place_of(Parameter::Delay), nothing.place_of(Parameter::Loss)), (Some(0..1), None));
    }
}
