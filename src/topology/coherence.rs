//! Parameters of one link that do not go together: [`incoherence`].
//!
//! Each may be right by itself, and they may come from several rules, or from a change that is laid over a topology.
//! Which rules of a file make such a link together is `conflicts`' matter.

use super::{
    diagnostic::Finding,
    link::{Link, Parameter, Reorder},
    patch::LinkPatch,
    source::SourceSpan,
    units::Delay,
};

/// Why a link cannot be. Its text is fit for a command line; [`help`](Self::help) says what would be right.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Incoherence {
    /// `netem` would send packets at once whose delay is less than nothing, and the mean would not be the delay.
    #[error("a jitter of {jitter} is more than the one-way delay of {delay}")]
    JitterBeyondDelay {
        /// The link's.
        jitter: Delay,
        /// The link's.
        delay: Delay,
    },
    /// Packets overtake others by not being delayed.
    #[error("`reorder` needs a delay, without which there is nothing to overtake")]
    ReorderWithoutDelay,
    /// Packets are to overtake others by their jitter.
    #[error("`reorder = \"jitter\"` needs a jitter")]
    ReorderWithoutJitter,
}

/// What is incoherent about a link, if anything is: of several things the first.
pub fn incoherence(link: &Link) -> Option<Incoherence> {
    incoherences(link).next()
}

/// Everything that is incoherent about a link.
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

/// Reports what one rule says in contradiction to itself.
pub(super) fn check_rule(patch: &LinkPatch, findings: &mut Vec<Finding>) {
    findings.extend(incoherences(&patch.over(Link::LAN)).filter_map(|incoherence| {
        let (parameter, other) = incoherence.parameters();
        Some(incoherence.finding(patch.place_of(parameter)?.into(), Some(patch.place_of(other)?.into()), ""))
    }));
}

impl Incoherence {
    /// The parameter that makes no sense, and the one beside which it makes none.
    pub const fn parameters(self) -> (Parameter, Parameter) {
        match self {
            Self::JitterBeyondDelay { .. } => (Parameter::Jitter, Parameter::Delay),
            Self::ReorderWithoutDelay => (Parameter::Reorder, Parameter::Delay),
            Self::ReorderWithoutJitter => (Parameter::Reorder, Parameter::Jitter),
        }
    }

    /// What to write instead.
    pub fn help(self) -> String {
        match self {
            Self::JitterBeyondDelay { jitter, delay: Delay::ZERO } => {
                format!("nothing is sent before its time: write a delay of at least {jitter}, or no jitter")
            }
            Self::JitterBeyondDelay { jitter, delay } => format!(
                "nothing is sent before its time: write a delay of at least {jitter}, or a jitter of at most {delay}"
            ),
            Self::ReorderWithoutDelay => "write a delay, as in `delay = \"10ms\"`, or `reorder = \"0%\"`".to_owned(),
            Self::ReorderWithoutJitter => "write a jitter, as in `jitter = \"5ms\"`, or `reorder = \"0%\"`".to_owned(),
        }
    }

    /// The finding about the place where the parameter is said and, if it is said at all, that of the other one: the
    /// caret is at the later of the two. `link` is the label that names a link.
    pub(super) fn finding(self, place: SourceSpan, other_place: Option<SourceSpan>, link: &str) -> Finding {
        let (parameter, other) = self.parameters();
        let finding = |caret| Finding::new(caret, self.to_string()).label(link).help(self.help());
        match other_place {
            Some(later) if later > place => finding(later).related(place, format!("the {parameter} is said here")),
            Some(earlier) => finding(place).related(earlier, format!("the {other} is said here")),
            None => finding(place).label(format!("nothing is said of the {other} {link}")),
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
        Link { delay: delay.parse().unwrap(), jitter, reorder, ..Link::LAN }
    }

    #[test]
    fn jitter_is_at_most_the_delay() {
        assert_eq!(incoherence(&Link::LAN), None);
        assert_eq!(incoherence(&link("5ms", Some("5ms"), None)), None);
        let found = incoherence(&link("4ms", Some("5ms"), None)).unwrap();
        assert_eq!(found.to_string(), "a jitter of 5ms is more than the one-way delay of 4ms");
    }

    #[test]
    fn reordering_needs_what_it_is_made_of() {
        let chance = Chance { probability: Probability::ONE, correlation: Probability::ZERO };
        let undelayed = Some(Reorder::Undelayed(Undelayed { chance, gap: 1 }));
        assert_eq!(incoherence(&link("1ns", None, undelayed)), None);
        assert_eq!(incoherence(&link("0ms", None, undelayed)), Some(Incoherence::ReorderWithoutDelay));
        assert_eq!(incoherence(&link("5ms", None, Some(Reorder::Jitter))), Some(Incoherence::ReorderWithoutJitter));
        assert_eq!(incoherence(&link("5ms", Some("1ms"), Some(Reorder::Jitter))), None);
        assert_eq!(incoherences(&link("0ms", Some("1ms"), undelayed)).count(), 2);
    }
}
