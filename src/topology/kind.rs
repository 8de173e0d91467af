//! What a TOML file is: a topology, an inventory or an agent's configuration, by its keys. So that a file given to the
//! wrong command is told to be what it is, rather than to have a dozen mistakes.

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
    /// What a file is, as far as its keys tell.
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

    /// That the file is of another kind than this, if it certainly is.
    pub(crate) fn mistaken(self, file: &DeTable<'_>) -> Option<Finding> {
        let found = Self::of(file).filter(|found| *found != self)?;
        let finding = Finding::new(0..0, format!("this is {}, not {}", found.name(), self.name()));
        Some(match (found, self) {
            (Self::Topology, Self::Inventory) => finding
                .help(format!("a topology with an `[inventory]` table would do; of this one: {}", found.taken_by())),
            _ => finding.help(found.taken_by()),
        })
    }

    fn name(self) -> &'static str {
        match self {
            Self::Topology => "a topology",
            Self::Inventory => "an inventory",
            Self::AgentConfig => "an agent's configuration",
        }
    }

    /// The commands that take such a file.
    fn taken_by(self) -> &'static str {
        match self {
            Self::Topology => "check it: netemctl check FILE; put it in force: netemctl apply FILE",
            Self::Inventory => {
                "see it: netemctl inventory show FILE; compare it with the hosts: netemctl inventory check FILE"
            }
            Self::AgentConfig => {
                "check it: netemctl agent --config FILE --check; an agent takes it: netemctl agent --config FILE"
            }
        }
    }
}
