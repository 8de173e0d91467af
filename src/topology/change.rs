//! Reads the link parameters of the command `set`, which changes links of the running topology: [`LinkChange`].
//!
//! ```toml
//! loss = "5%"
//! jitter = "10ms"
//! ```
//!
//! An overlay in `plan` has the links and the duration of the change.

use serde::{Deserialize, Serialize};

use super::{
    diagnostic::{FileReport, Finding},
    file_kind::parse_toml,
    link::{Link, Parameter},
    parameters,
    patch::LinkPatch,
    reader::Table,
    source::Source,
    tables::TableIds,
};

/// One or more parameters that replace the same parameters of a link.
///
/// Only the parser creates a change, so every change is valid. On the wire, a change has the form of its [`Source`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(try_from = "Source", into = "Source")]
pub struct LinkChange {
    source: Source,
    patch: LinkPatch,
}

impl LinkChange {
    /// Reads a table of link parameters.
    ///
    /// `both_ways`: the table describes both directions and may have an `rtt`.
    ///
    /// # Errors
    ///
    /// All mistakes in the table. If the TOML is invalid, only its first mistake.
    pub fn parse(source: Source, both_ways: bool) -> Result<Self, FileReport> {
        match read(&source.text, both_ways) {
            Ok(patch) => Ok(Self { source, patch }),
            Err(findings) => Err(FileReport::new(source, findings)),
        }
    }

    /// The link after the change.
    #[must_use]
    pub fn over(&self, link: Link) -> Link {
        self.patch.over(link)
    }

    /// The parameters that the change sets.
    pub fn parameters(&self) -> impl Iterator<Item = Parameter> {
        self.patch.parameters()
    }

    /// The text of the change.
    pub fn source(&self) -> &Source {
        &self.source
    }
}

impl TryFrom<Source> for LinkChange {
    type Error = FileReport;

    /// Accepts an `rtt`: the sender has already refused an `rtt` for a change in one direction.
    fn try_from(source: Source) -> Result<Self, FileReport> {
        Self::parse(source, true)
    }
}

impl From<LinkChange> for Source {
    fn from(change: LinkChange) -> Self {
        change.source
    }
}

fn read(text: &str, both_ways: bool) -> Result<LinkPatch, Vec<Finding>> {
    let table = parse_toml(text)?;
    let mut findings = Vec::new();
    let mut table = Table::open("a link", table.get_ref());
    let one_way = (!both_ways).then_some("--one-way");
    let patch = parameters::take(&mut table, 0..text.trim_end().len(), one_way, &TableIds::new(), &mut findings);
    table.close(&mut findings);
    if findings.is_empty() { Ok(patch) } else { Err(findings) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str, both_ways: bool) -> Result<LinkChange, FileReport> {
        LinkChange::parse(Source::new(Source::COMMAND_LINE, text), both_ways)
    }

    #[test]
    fn a_change_replaces_only_the_parameters_that_it_sets() {
        let link = Link { limit: Some(7), delay: "5ms".parse().unwrap(), ..Link::default() };
        let change = parse("rtt = '60ms'\n", true).unwrap();
        assert_eq!(change.over(link), Link { delay: "30ms".parse().unwrap(), ..link });
        assert_eq!(change.parameters().collect::<Vec<_>>(), [Parameter::Delay]);
    }

    #[test]
    fn a_change_is_serialized_as_its_text() {
        for (text, both_ways) in [("rtt = '60ms'", true), ("delay = '60ms'", false)] {
            let change = parse(text, both_ways).unwrap();
            let json = serde_json::to_string(&change).unwrap();
            let there: LinkChange = serde_json::from_str(&json).unwrap();
            assert_eq!(there, change);
            assert_eq!(there.over(Link::default()), change.over(Link::default()));
        }
        let odd = serde_json::to_string(&Source::new(Source::COMMAND_LINE, "delay = 5")).unwrap();
        assert!(serde_json::from_str::<LinkChange>(&odd).is_err());
    }

    #[test]
    fn mistakes_have_their_lines_and_columns() {
        let rejected = |text: &str, both_ways| parse(text, both_ways).unwrap_err().to_string();
        assert_eq!(rejected("rtt = \"60\"", true), "command line:1:7: a unit is missing: write \"60ms\"");
        assert!(rejected("rtt = '60ms'", false).starts_with("command line:1:1: `rtt` covers both directions"));
        assert!(rejected("delay = '60ms'\nlos = '5%'", true).starts_with("command line:2:1: unknown key `los`"));
        assert!(rejected("delay = '60ms'\ndelay = '5ms'", true).contains("not valid TOML"));
        assert!(rejected("", true).contains("has no parameters"));
    }
}
