//! Zones and nodes by the words that people have for them: [`Topology::select`](super::Topology::select).
//!
//! What a word means is decided in `members`; this is about the words that mean nothing.

use std::collections::HashSet;

use super::{
    hostlist::{self, HostlistError},
    suggest,
};

/// A word that means no node of the topology.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.describe())]
pub struct UnknownName {
    /// The name that nobody has: of a hostlist, the first such name in it.
    pub word: String,
    /// The name that was probably meant.
    pub suggestion: Option<String>,
    /// Why the word is not even a hostlist.
    #[source]
    malformed: Option<HostlistError>,
}

impl UnknownName {
    /// A name that is none of the known ones, the nearest of which becomes the suggestion.
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

    /// A word in brackets or with commas that is no hostlist.
    pub(crate) fn malformed(word: &str, error: HostlistError) -> Self {
        Self { word: word.to_owned(), suggestion: None, malformed: Some(error) }
    }

    /// What is wrong, without the suggestion.
    pub(super) fn message(&self) -> String {
        match &self.malformed {
            Some(error) => error.to_string(),
            None => format!("no zone or node is called `{}`", self.word),
        }
    }

    /// What to write instead, for a word that is no hostlist.
    pub(super) fn hostlist_help(&self) -> Option<String> {
        self.malformed.as_ref().map(HostlistError::help)
    }

    fn describe(&self) -> String {
        match &self.suggestion {
            Some(suggestion) => format!("{}; did you mean `{suggestion}`?", self.message()),
            None => self.message(),
        }
    }
}
