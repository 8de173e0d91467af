//! The parameters that one rule sets: [`LinkPatch`].

use std::ops::Range;

use super::{
    link::{Chance, Jitter, Link, Loss, Parameter, Rate, RatePer, Reorder, Slot},
    units::Delay,
};

/// The value that a rule sets for a parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Setting<T> {
    pub(super) value: T,
    /// The span of the key in the file.
    pub(super) span: Range<usize>,
}

/// The parameters that one rule sets. A field is `None` if the rule does not set the parameter.
///
/// A [`Setting`] with the value `None` removes the parameter from the link.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct LinkPatch {
    pub(super) delay: Option<Setting<Delay>>,
    pub(super) jitter: Option<Setting<Option<Jitter>>>,
    pub(super) loss: Option<Setting<Option<Loss>>>,
    pub(super) corrupt: Option<Setting<Option<Chance>>>,
    pub(super) duplicate: Option<Setting<Option<Chance>>>,
    pub(super) reorder: Option<Setting<Option<Reorder>>>,
    pub(super) rate: Option<Setting<(Option<Rate>, RatePer)>>,
    pub(super) slot: Option<Setting<Option<Slot>>>,
    pub(super) limit: Option<Setting<Option<u32>>>,
    pub(super) seed: Option<Setting<Option<u64>>>,
}

impl LinkPatch {
    /// Replaces each parameter of a link that the rule sets.
    pub(super) fn over(&self, link: Link) -> Link {
        fn set<T: Copy>(setting: Option<&Setting<T>>, before: T) -> T {
            setting.map_or(before, |setting| setting.value)
        }
        let (rate, rate_per) = set(self.rate.as_ref(), (link.rate, link.rate_per));
        Link {
            delay: set(self.delay.as_ref(), link.delay),
            jitter: set(self.jitter.as_ref(), link.jitter),
            loss: set(self.loss.as_ref(), link.loss),
            corrupt: set(self.corrupt.as_ref(), link.corrupt),
            duplicate: set(self.duplicate.as_ref(), link.duplicate),
            reorder: set(self.reorder.as_ref(), link.reorder),
            rate,
            rate_per,
            slot: set(self.slot.as_ref(), link.slot),
            limit: set(self.limit.as_ref(), link.limit),
            seed: set(self.seed.as_ref(), link.seed),
        }
    }

    /// True if the rule sets any parameter.
    pub(super) fn has_settings(&self) -> bool {
        Parameter::ALL.into_iter().any(|parameter| self.span_of(parameter).is_some())
    }

    /// The span of the key that sets this parameter. `None` if the rule does not set the parameter.
    pub(super) fn span_of(&self, parameter: Parameter) -> Option<Range<usize>> {
        fn span<T>(setting: Option<&Setting<T>>) -> Option<Range<usize>> {
            setting.map(|setting| setting.span.clone())
        }
        match parameter {
            Parameter::Delay => span(self.delay.as_ref()),
            Parameter::Jitter => span(self.jitter.as_ref()),
            Parameter::Loss => span(self.loss.as_ref()),
            Parameter::Corrupt => span(self.corrupt.as_ref()),
            Parameter::Duplicate => span(self.duplicate.as_ref()),
            Parameter::Reorder => span(self.reorder.as_ref()),
            Parameter::Rate => span(self.rate.as_ref()),
            Parameter::Slot => span(self.slot.as_ref()),
            Parameter::Limit => span(self.limit.as_ref()),
            Parameter::Seed => span(self.seed.as_ref()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patch_changes_only_the_parameters_that_it_sets() {
        let link = Link { delay: Delay::from_nanos(5), limit: Some(7), ..Link::LAN };
        assert_eq!(LinkPatch::default().over(link), link);
        let no_delay = LinkPatch { delay: Some(Setting { value: Delay::ZERO, span: 0..1 }), ..LinkPatch::default() };
        assert_eq!(no_delay.over(link), Link { limit: Some(7), ..Link::LAN });
        assert!(no_delay.over(link).is_lan() && !link.is_lan());
        assert_eq!((no_delay.span_of(Parameter::Delay), no_delay.span_of(Parameter::Loss)), (Some(0..1), None));
    }
}
