//! Finds the kind of a TOML file from its keys: [`FileKind`].
//!
//! A user may give a file to the wrong command. With the kind, the command prints one clear error.

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{MAX_FILE_BYTES, csv, diagnostic::Finding};

/// The kinds of files that netemctl reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileKind {
    Topology,
    Inventory,
    AgentConfig,
}

impl FileKind {
    /// The kind of a file. `None` if the keys fit no kind, or several kinds.
    fn of(file: &DeTable<'_>) -> Option<Self> {
        let has = |key: &str| file.contains_key(key);
        let is_table = |key: &str| file.get(key).is_some_and(|value| matches!(value.get_ref(), DeValue::Table(_)));
        let is_topology = has("links") || has("name") && !is_table("nodes");
        let is_agents = has("node") && ["interfaces", "socket", "listen", "journal"].into_iter().any(has);
        let is_inventory = is_table("nodes") || is_table("defaults");
        match (is_topology, is_agents, is_inventory) {
            (true, false, false) => Some(Self::Topology),
            (false, true, false) => Some(Self::AgentConfig),
            (false, false, true) => Some(Self::Inventory),
            _ => None,
        }
    }

    /// Parses the TOML of a file of this kind.
    pub(crate) fn parse(self, text: &str) -> Result<Spanned<DeTable<'_>>, Vec<Finding>> {
        let file = parse_toml(text)?;
        self.check(file.get_ref())?;
        Ok(file)
    }

    /// Checks that a parsed file is not certainly of another kind.
    pub(crate) fn check(self, file: &DeTable<'_>) -> Result<(), Vec<Finding>> {
        self.reject_other_kind(file).map_or(Ok(()), |other_kind| Err(vec![other_kind]))
    }

    /// The error for a file that is certainly of another kind. `None` for all other files.
    fn reject_other_kind(self, file: &DeTable<'_>) -> Option<Finding> {
        let found = Self::of(file).filter(|found| *found != self)?;
        let finding = Finding::new(0..0, format!("this is {}, not {}", found.name(), self.name()));
        Some(match (found, self) {
            (Self::Topology, Self::Inventory) => finding.help(format!(
                "this topology has no `[inventory]` table; add one, or name an inventory file; {}",
                found.commands()
            )),
            _ => finding.help(found.commands()),
        })
    }

    fn name(self) -> &'static str {
        match self {
            Self::Topology => "a topology",
            Self::Inventory => "an inventory",
            Self::AgentConfig => "an agent's configuration",
        }
    }

    /// The commands that read a file of this kind.
    fn commands(self) -> &'static str {
        match self {
            Self::Topology => "check it: netemctl check FILE; apply it: netemctl apply FILE",
            Self::Inventory => {
                "show it: netemctl inventory show FILE; compare it with the hosts: netemctl inventory check FILE"
            }
            Self::AgentConfig => {
                "check it: netemctl agent --config FILE --check; start an agent: netemctl agent --config FILE"
            }
        }
    }
}

/// Parses the TOML of a file.
pub(crate) fn parse_toml(text: &str) -> Result<Spanned<DeTable<'_>>, Vec<Finding>> {
    if text.len() > MAX_FILE_BYTES {
        let message = format!("the file is larger than {} MiB", MAX_FILE_BYTES / (1024 * 1024));
        return Err(vec![Finding::new(0..0, message).help("use hostlists such as \"n[1-9]\", and zones")]);
    }
    DeTable::parse(text).map_err(|error| {
        if csv::is_probable(text) {
            let help = "name the matrix in a topology: `matrix = \"FILE.csv\"` in `[links]`";
            return vec![Finding::new(0..0, "this is a CSV file, not a TOML file").help(help)];
        }
        let end = text.trim_end().len();
        vec![Finding::new(error.span().unwrap_or(end..end), format!("not valid TOML: {}", error.message()))]
    })
}
