//! The agent's own configuration: what it may touch, whatever a controller asks.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use thiserror::Error;

use crate::{plan::IfName, topology::NodeName};

/// An agent's configuration file.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Which node this is.
    pub node: NodeName,
    /// The interfaces that may be shaped; no other is ever touched.
    pub interfaces: Vec<IfName>,
    /// The Unix socket to listen on. Whoever may open it may change this node's network; it is made with mode 0600.
    pub socket: PathBuf,
    /// The file in which the agent keeps what is in force, so that it goes on from there when it is started again;
    /// `None`: it keeps nothing.
    #[serde(default)]
    pub journal: Option<PathBuf>,
}

impl Config {
    /// Reads a configuration file.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|error| ConfigError::Unreadable(path.into(), error))?;
        Self::parse(&text).map_err(|error| ConfigError::Malformed(path.into(), error))
    }

    fn parse(text: &str) -> Result<Self, toml::de::Error> {
        toml::from_str(text)
    }
}

/// Why an agent cannot start from a configuration file.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// It cannot be read.
    #[error("cannot read {path}: {1}", path = .0.display())]
    Unreadable(PathBuf, #[source] std::io::Error),
    /// It is not a configuration.
    #[error("{path}: {error}", path = .0.display(), error = .1.to_string().trim_end())]
    Malformed(PathBuf, #[source] toml::de::Error),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_says_what_the_agent_may_touch() {
        let config = Config::parse("node = 'n1'\ninterfaces = ['db0']\nsocket = '/run/a.sock'").unwrap();
        assert_eq!(config.interfaces, ["db0".parse().unwrap()]);
        assert_eq!(config.journal, None);
        let config =
            Config::parse("node = 'n1'\ninterfaces = []\nsocket = '/run/a.sock'\njournal = '/var/n1.json'").unwrap();
        assert_eq!(config.journal, Some("/var/n1.json".into()));
    }

    #[test]
    fn an_unknown_key_or_an_impossible_interface_is_an_error() {
        let base = "node = 'n1'\nsocket = '/run/a.sock'\n";
        assert!(Config::parse(&format!("{base}interfaces = ['db0']\ninterface = 'db1'")).is_err());
        assert!(Config::parse(&format!("{base}interfaces = ['no/such']")).is_err());
    }
}
