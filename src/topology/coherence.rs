//! Finds parameters of one link that contradict each other: [`incoherence`].
//!
//! The parameters may come from several rules, or from a change of the running topology. `conflicts` finds the rules of
//! a file that together contradict each other.

use super::{
    diagnostic::Finding,
    link::{Link, Parameter, Reorder},
    patch::LinkPatch,
    source::SourceSpan,
    units::Delay,
};

/// A contradiction between two parameters of a link. [`help`](Self::help) is the remedy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Incoherence {
    /// The jitter is greater than the delay, so some packets have a negative delay.
    ///
    /// netem sends these packets at once. So the mean would be greater than the delay.
    #[error("the jitter of {jitter} is greater than the one-way delay of {delay}")]
    JitterBeyondDelay {
        /// The link's jitter.
        jitter: Delay,
        /// The link's delay.
        delay: Delay,
    },
    /// `reorder` sends some packets without the delay of the link, but the link has no delay.
    #[error("`reorder` needs a delay")]
    ReorderWithoutDelay,
    /// `reorder = "jitter"` changes the order of packets by their jitter, but the link has no jitter.
    #[error("`reorder = \"jitter\"` needs a jitter")]
    ReorderWithoutJitter,
}

/// The first contradiction in a link.
pub fn incoherence(link: &Link) -> Option<Incoherence> {
    incoherences(link).next()
}

/// All contradictions in a link.
pub(super) fn incoherences(link: &Link) -> impl Iterator<Item = Incoherence> + use<> {
    let Link { delay, jitter, reorder, .. } = *link;
    let beyond = jitter.filter(|jitter| jitter.amount > delay);
    let beyond = beyond.map(|jitter| Incoherence::JitterBeyondDelay { jitter: jitter.amount, delay });
    let reorder = match reorder {
        Some(Reorder::Undelayed(_)) if delay == Delay::ZERO => Some(Incoherence::ReorderWithoutDelay),
        Some(Reorder::Jitter) if jitter.is_none() => Some(Incoherence::ReorderWithoutJitter),
        _ => None,
    };
    beyond.into_iter().chain(reorder)
}

/// Reports contradictions between parameters of one rule.
pub(super) fn check_rule(patch: &LinkPatch, findings: &mut Vec<Finding>) {
    findings.extend(incoherences(&patch.over(Link::default())).filter_map(|incoherence| {
        let (parameter, other) = incoherence.parameters();
        Some(incoherence.finding(patch.span_of(parameter)?.into(), Some(patch.span_of(other)?.into()), ""))
    }));
}

impl Incoherence {
    /// The dependent parameter, and the parameter that the dependent parameter needs.
    pub const fn parameters(self) -> (Parameter, Parameter) {
        match self {
            Self::JitterBeyondDelay { .. } => (Parameter::Jitter, Parameter::Delay),
            Self::ReorderWithoutDelay => (Parameter::Reorder, Parameter::Delay),
            Self::ReorderWithoutJitter => (Parameter::Reorder, Parameter::Jitter),
        }
    }

    /// The remedy.
    pub fn help(self) -> String {
        match self {
            Self::JitterBeyondDelay { jitter, delay: Delay::ZERO } => {
                format!("write a delay of at least {jitter}, or remove the jitter")
            }
            Self::JitterBeyondDelay { jitter, delay } => {
                format!("write a delay of at least {jitter}, or a jitter of at most {delay}")
            }
            Self::ReorderWithoutDelay => "write a delay, as in `delay = \"10ms\"`, or `reorder = \"0%\"`".to_owned(),
            Self::ReorderWithoutJitter => "write a jitter, as in `jitter = \"5ms\"`, or `reorder = \"0%\"`".to_owned(),
        }
    }

    /// The finding about the contradiction, at the later key of the two parameters.
    ///
    /// `span` is the key of the dependent parameter. `other_span` is the key of the other parameter; `None` if no rule
    /// sets the other parameter. `link` is a text that names a link as an example.
    pub(super) fn finding(self, span: SourceSpan, other_span: Option<SourceSpan>, link: &str) -> Finding {
        let (parameter, other) = self.parameters();
        let finding = |caret| Finding::new(caret, self.to_string()).label(link).help(self.help());
        match other_span {
            Some(later) if later > span => finding(later).related(span, format!("the {parameter} is set here")),
            Some(earlier) => finding(span).related(earlier, format!("the {other} is set here")),
            None => finding(span).label(format!("no rule sets the {other} {link}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::{Chance, Distribution, Jitter, Probability, Undelayed};

    fn link(delay: &str, jitter: Option<&str>, reorder: Option<Reorder>) -> Link {
        let jitter = jitter.map(|amount| Jitter {
            amount: amount.parse().unwrap(),
            correlation: Probability::ZERO,
            distribution: Distribution::Uniform,
        });
        Link { delay: delay.parse().unwrap(), jitter, reorder, ..Link::default() }
    }

    #[test]
    fn jitter_is_at_most_the_delay() {
        assert_eq!(incoherence(&Link::default()), None);
        assert_eq!(incoherence(&link("5ms", Some("5ms"), None)), None);
        let found = incoherence(&link("4ms", Some("5ms"), None)).unwrap();
        assert_eq!(found.to_string(), "the jitter of 5ms is greater than the one-way delay of 4ms");
    }

    #[test]
    fn reordering_needs_a_delay_or_a_jitter() {
        let chance = Chance { probability: Probability::ONE, correlation: Probability::ZERO };
        let undelayed = Some(Reorder::Undelayed(Undelayed { chance, gap: 1 }));
        assert_eq!(incoherence(&link("1ns", None, undelayed)), None);
        assert_eq!(incoherence(&link("0ms", None, undelayed)), Some(Incoherence::ReorderWithoutDelay));
        assert_eq!(incoherence(&link("5ms", None, Some(Reorder::Jitter))), Some(Incoherence::ReorderWithoutJitter));
        assert_eq!(incoherence(&link("5ms", Some("1ms"), Some(Reorder::Jitter))), None);
        assert_eq!(incoherences(&link("0ms", Some("1ms"), undelayed)).count(), 2);
    }
}
