//! Finds the kind of a TOML file from its keys: [`FileKind`].
//!
//! A user may give a file to the wrong command. With the kind, the command prints one clear error.

use toml::de::{DeTable, DeValue};

use super::diagnostic::Finding;

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

    /// The error for a file that is certainly of another kind. `None` for all other files.
    pub(crate) fn reject_other_kind(self, file: &DeTable<'_>) -> Option<Finding> {
        let found = Self::of(file).filter(|found| *found != self)?;
        let finding = Finding::new(0..0, format!("this is {}, not {}", found.name(), self.name()));
        Some(match (found, self) {
            (Self::Topology, Self::Inventory) => finding
                .help(format!("only a topology with an `[inventory]` table is an inventory; {}", found.commands())),
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
