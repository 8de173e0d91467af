//! What is said of links while a topology is in force: [`LinkChange`], a table of link parameters and nothing else.
//!
//! ```toml
//! loss = "5%"
//! jitter = "10ms"
//! ```
//!
//! Which links that is about, and for how long, is the plan's matter.

use serde::{Deserialize, Serialize};
use toml::de::DeTable;

use super::{
    MAX_FILE_BYTES,
    diagnostic::{Finding, Rejected},
    link::{Link, Parameter},
    parameters::{self, Direction},
    patch::LinkPatch,
    reader::Table,
    source::Source,
    tables::TableIds,
};

/// Parameters to lay over a link, each in the place of what the link had.
///
/// It is valid by construction and says at least one thing. On the wire it is its [`Source`], as a topology is.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(try_from = "Source", into = "Source")]
pub struct LinkChange {
    source: Source,
    patch: LinkPatch,
}

impl LinkChange {
    /// Reads a table of link parameters; `both_ways` says whether it is of both directions, so that it may have an
    /// `rtt`.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with it; of broken TOML, the first thing.
    pub fn parse(source: Source, both_ways: bool) -> Result<Self, Rejected> {
        let direction = if both_ways { Direction::Both } else { Direction::One };
        match read(&source.text, direction) {
            Ok(patch) => Ok(Self { source, patch }),
            Err(findings) => Err(Rejected::new(source, findings)),
        }
    }

    /// The link with these parameters, and with its own where this says nothing.
    #[must_use]
    pub fn over(&self, link: Link) -> Link {
        self.patch.over(link)
    }

    /// The parameters that it says something of.
    pub fn parameters(&self) -> impl Iterator<Item = Parameter> {
        Parameter::ALL.into_iter().filter(|parameter| self.patch.place_of(*parameter).is_some())
    }

    /// The text that says all this.
    pub fn source(&self) -> &Source {
        &self.source
    }
}

/// Everything in it follows from its source.
impl PartialEq for LinkChange {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

impl Eq for LinkChange {}

impl TryFrom<Source> for LinkChange {
    type Error = Rejected;

    /// The direction was checked by whoever wrote it: half of an `rtt` is a delay one way as well.
    fn try_from(source: Source) -> Result<Self, Rejected> {
        Self::parse(source, true)
    }
}

impl From<LinkChange> for Source {
    fn from(change: LinkChange) -> Self {
        change.source
    }
}

fn read(text: &str, direction: Direction) -> Result<LinkPatch, Vec<Finding>> {
    if text.len() > MAX_FILE_BYTES {
        return Err(vec![Finding::new(0..0, "that is more than anyone says of a link")]);
    }
    let end = text.trim_end().len();
    let table = DeTable::parse(text).map_err(|error| {
        vec![Finding::new(error.span().unwrap_or(end..end), format!("not valid TOML: {}", error.message()))]
    })?;
    let mut findings = Vec::new();
    let mut table = Table::open("a link", table.get_ref());
    let patch = parameters::take(&mut table, 0..end, direction, &TableIds::new(), &mut findings);
    table.close(&mut findings);
    if findings.is_empty() { Ok(patch) } else { Err(findings) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str, both_ways: bool) -> Result<LinkChange, Rejected> {
        LinkChange::parse(Source::new("<set>", text), both_ways)
    }

    #[test]
    fn a_change_replaces_what_it_names_and_nothing_else() {
        let link = Link { limit: Some(7), delay: "5ms".parse().unwrap(), ..Link::LAN };
        let change = parse("rtt = '60ms'\n", true).unwrap();
        assert_eq!(change.over(link), Link { delay: "30ms".parse().unwrap(), ..link });
        assert_eq!(change.parameters().collect::<Vec<_>>(), [Parameter::Delay]);
    }

    #[test]
    fn on_the_wire_it_is_its_text() {
        for (text, both_ways) in [("rtt = '60ms'", true), ("delay = '60ms'", false)] {
            let change = parse(text, both_ways).unwrap();
            let json = serde_json::to_string(&change).unwrap();
            let there: LinkChange = serde_json::from_str(&json).unwrap();
            assert_eq!(there, change);
            assert_eq!(there.over(Link::LAN), change.over(Link::LAN));
        }
        let odd = serde_json::to_string(&Source::new("<set>", "delay = 5")).unwrap();
        assert!(serde_json::from_str::<LinkChange>(&odd).is_err());
    }

    #[test]
    fn what_is_wrong_is_shown_where_it_is() {
        let rejected = |text: &str, both_ways| parse(text, both_ways).unwrap_err().to_string();
        assert_eq!(rejected("rtt = \"60\"", true), "<set>:1:7: a unit is missing: write \"60ms\"");
        assert!(rejected("rtt = '60ms'", false).starts_with("<set>:1:1: an rtt is of both directions"));
        assert!(rejected("delay = '60ms'\nlos = '5%'", true).starts_with("<set>:2:1: unknown key `los`"));
        assert!(rejected("delay = '60ms'\ndelay = '5ms'", true).contains("not valid TOML"));
        assert!(rejected("", true).contains("says nothing"));
    }
}
