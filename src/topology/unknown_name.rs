//! The error for a word that matches no zone or node: [`UnknownName`].

use std::collections::HashSet;

use super::{
    diagnostic::Finding,
    hostlist::{self, HostlistError},
    source::SourceSpan,
    suggest,
};

/// A word that matches no zone or node of the topology.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.describe())]
pub struct UnknownName {
    /// The unknown name. For a hostlist, the first unknown name.
    pub word: String,
    /// The known name, or the hostlist of known names, that the user probably means.
    pub suggestion: Option<String>,
    /// The mistake in a malformed hostlist.
    #[source]
    malformed: Option<HostlistError>,
}

impl UnknownName {
    /// The error for a name that is not among the known names.
    pub(crate) fn new<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Self {
        let known: Vec<_> = known.into_iter().collect();
        let is_known = |list: &String| {
            let all: HashSet<_> = known.iter().copied().collect();
            hostlist::expand(list).is_ok_and(|names| names.iter().all(|name| all.contains(&**name)))
        };
        let range = hostlist::meant_as_range(word).filter(is_known);
        let suggestion = range.or_else(|| suggest::nearest(word, known).map(str::to_owned));
        Self { word: word.to_owned(), suggestion, malformed: None }
    }

    /// The error for a malformed hostlist.
    pub(crate) fn malformed(word: &str, error: HostlistError) -> Self {
        Self { word: word.to_owned(), suggestion: None, malformed: Some(error) }
    }

    /// The message about the mistake, without the suggestion.
    pub(super) fn message(&self) -> String {
        match &self.malformed {
            Some(error) => error.to_string(),
            None => format!("no zone or node is called `{}`", self.word),
        }
    }

    /// The suggestion, as the label of a finding.
    pub(crate) fn label(&self) -> String {
        self.suggestion.as_ref().map(|name| format!("did you mean `{name}`?")).unwrap_or_default()
    }

    /// The finding about the word. `known` is the list of all zones and nodes.
    pub(super) fn finding(&self, span: impl Into<SourceSpan>, known: &str) -> Finding {
        let help = self.malformed.as_ref().map_or_else(|| known.to_owned(), HostlistError::help);
        Finding::new(span, self.message()).label(self.label()).help(help)
    }

    fn describe(&self) -> String {
        let label = self.label();
        if label.is_empty() { self.message() } else { format!("{}; {label}", self.message()) }
    }
}
