//! The parameters that one rule sets: [`LinkPatch`].

use std::ops::Range;

use super::{
    link::{Link, Parameter},
    units::Delay,
};

/// The value that a rule sets for a parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Setting<T> {
    pub(super) value: T,
    /// The span of the key in the file.
    pub(super) span: Range<usize>,
}

/// The parameters that one rule sets.
///
/// A rule can remove a parameter from the link: it sets the value `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct LinkPatch {
    /// The values of the parameters that the rule sets.
    values: Link,
    /// The span of the key of each parameter that the rule sets.
    keys: Vec<(Parameter, Range<usize>)>,
}

impl LinkPatch {
    /// Adds a parameter, if the rule sets it. `write` stores the value in a link.
    pub(super) fn set<T>(
        &mut self,
        parameter: Parameter,
        setting: Option<Setting<T>>,
        write: impl FnOnce(&mut Link, T),
    ) {
        if let Some(Setting { value, span }) = setting {
            write(&mut self.values, value);
            self.keys.push((parameter, span));
        }
    }

    /// Replaces each parameter of a link that the rule sets.
    pub(super) fn over(&self, link: Link) -> Link {
        self.parameters().fold(link, |link, parameter| link.with(parameter, &self.values))
    }

    /// True if the rule sets no parameter.
    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The parameters that the rule sets.
    pub(super) fn parameters(&self) -> impl Iterator<Item = Parameter> {
        self.keys.iter().map(|(parameter, _)| *parameter)
    }

    /// The delay that the rule sets.
    pub(super) fn delay(&self) -> Option<Delay> {
        self.span_of(Parameter::Delay).map(|_| self.values.delay)
    }

    /// The span of the key that sets this parameter. `None` if the rule does not set the parameter.
    pub(super) fn span_of(&self, parameter: Parameter) -> Option<Range<usize>> {
        self.keys.iter().find(|(set, _)| *set == parameter).map(|(_, span)| span.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patch_changes_only_the_parameters_that_it_sets() {
        let link = Link { delay: Delay::from_nanos(5), limit: Some(7), ..Link::default() };
        assert_eq!(LinkPatch::default().over(link), link);
        let mut no_delay = LinkPatch::default();
        let setting = Some(Setting { value: Delay::ZERO, span: 0..1 });
        no_delay.set(Parameter::Delay, setting, |link, delay| link.delay = delay);
        assert_eq!(no_delay.over(link), Link { limit: Some(7), ..Link::default() });
        assert!(no_delay.over(link).is_lan() && !link.is_lan());
        assert_eq!((no_delay.span_of(Parameter::Delay), no_delay.span_of(Parameter::Loss)), (Some(0..1), None));
    }
}
