//! The agent's own configuration: what it may touch, whatever a controller asks.

use std::{
    collections::BTreeMap,
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use thiserror::Error;

use super::journal;
use crate::{
    pki::TlsFiles,
    plan::IfName,
    topology::{FileKind, Finding, NodeName, Rejected, Source, nearest, parse_toml},
    wire::OnDrift,
};

/// An agent's configuration file.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Config {
    /// Which node this is.
    pub node: NodeName,
    /// The interfaces that may be shaped; no other is ever touched.
    pub interfaces: Vec<IfName>,
    /// The Unix socket to listen on. Whoever may open it may change this node's network; it is made with mode 0600.
    #[serde(default)]
    pub socket: Option<PathBuf>,
    /// The group whose members may open it as well: it gets mode 0660 then.
    #[serde(default, rename = "socket-group")]
    pub socket_group: Option<String>,
    /// The TCP port to listen on; without [`tls`](Self::tls) one of the loopback, where everybody on this machine may
    /// change this node's network.
    #[serde(default)]
    pub listen: Option<SocketAddr>,
    /// What that port's TLS is spoken with; a relative path is one from the config file's folder.
    #[serde(default)]
    pub tls: Option<TlsFiles>,
    /// The file in which the agent keeps what is in force, so that it goes on from there when it is started again;
    /// `None`: it keeps nothing.
    #[serde(default)]
    pub journal: Option<PathBuf>,
    /// Whether it ends when it is not needed; no key of the file, but how it was started.
    #[serde(skip)]
    pub is_keeper: bool,
    /// What the guard refuses otherwise and is to let pass.
    #[serde(default)]
    pub allow: Vec<Exception>,
    /// What becomes of what was in force when the machine is started anew.
    #[serde(default)]
    pub after_reboot: AfterReboot,
    /// What is done when the kernel no longer has what is in force.
    #[serde(default)]
    pub on_drift: OnDrift,
}

/// Something that the guard lets pass if the config says so, each for the interfaces that the config allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Exception {
    /// A default route leaves by the interface, or by what lies on it.
    DefaultRoute,
    /// The interface, or what lies on it, carries the controller's connection, or the controller's address is a node's.
    Controller,
    /// The interface is a bridge with ports, or a port of a bridge or a bond.
    Bridge,
    /// A node's address is that of the router of a default route.
    Gateway,
}

impl fmt::Display for Exception {
    /// As the config has it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::DefaultRoute => "default-route",
            Self::Controller => "controller",
            Self::Bridge => "bridge",
            Self::Gateway => "gateway",
        })
    }
}

/// What an agent makes of its journal when the machine was started anew since it was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AfterReboot {
    /// What was in force is put in force again, with the time that is left.
    #[default]
    Restore,
    /// It is forgotten, as if nothing had ever been in force.
    Clear,
}

impl Config {
    /// The configuration of an agent of which nothing else is said. It does not say where to listen.
    pub fn of(node: NodeName, interfaces: Vec<IfName>) -> Self {
        Self {
            node,
            interfaces,
            socket: None,
            socket_group: None,
            listen: None,
            tls: None,
            journal: None,
            allow: Vec::new(),
            after_reboot: AfterReboot::default(),
            on_drift: OnDrift::default(),
            is_keeper: false,
        }
    }

    /// Reads a configuration file.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|error| ConfigError::Unreadable(path.into(), error))?;
        let source = Source::new(path.display().to_string(), text);
        let mut config = Self::parse(source).map_err(|rejected| ConfigError::Malformed(Box::new(rejected)))?;
        config.check(path)?;
        let folder = path.parent().unwrap_or_else(|| Path::new("."));
        for file in config.tls.iter_mut().flat_map(|tls| [&mut tls.ca, &mut tls.cert, &mut tls.key]) {
            *file = folder.join(&*file);
        }
        config.check_files(path)?;
        Ok(config)
    }

    /// Checks that each file that the agent makes or replaces has a path of its own.
    fn check_files(&self, path: &Path) -> Result<(), ConfigError> {
        let journal = |extension| self.journal.as_deref().map(|journal| journal::beside(journal, extension));
        let made = [
            ("`socket`", self.socket.clone()),
            ("`journal`", self.journal.clone()),
            ("the lock of `journal`", journal("lock")),
            ("the new `journal`", journal("new")),
        ];
        let tls = |file: fn(&TlsFiles) -> &PathBuf| self.tls.as_ref().map(|tls| file(tls).clone());
        let read = [
            ("this file", Some(path.to_owned())),
            ("`ca`", tls(|tls| &tls.ca)),
            ("`cert`", tls(|tls| &tls.cert)),
            ("`key`", tls(|tls| &tls.key)),
        ];
        let made = made.into_iter().map(|(name, file)| (name, file, true));
        let read = read.into_iter().map(|(name, file)| (name, file, false));
        let mut places = BTreeMap::new();
        for (name, file, is_made) in made.chain(read) {
            let Some(file) = file else { continue };
            let place = place(&file);
            if let Some(&other) = places.get(&place) {
                return Err(ConfigError::SameFile { path: path.into(), file, names: [other, name] });
            }
            if is_made {
                places.insert(place, name);
            }
        }
        Ok(())
    }

    /// Checks that nobody can reach the agent who should not.
    fn check(&self, path: &Path) -> Result<(), ConfigError> {
        match (self.listen, &self.tls) {
            (Some(listen), None) if !listen.ip().is_loopback() => Err(ConfigError::Plain(path.into(), listen)),
            (None, Some(_)) => Err(ConfigError::NoPort(path.into())),
            _ => Ok(()),
        }
    }

    /// Reads a configuration's text. Of several mistakes the first is told.
    pub(crate) fn parse(source: Source) -> Result<Self, Rejected> {
        let finding = match parse_toml(&source.text) {
            Err(findings) => return Err(Rejected::new(source, findings)),
            Ok(file) => FileKind::AgentConfig.mistaken(file.get_ref()),
        };
        let read = finding.map_or_else(
            || toml::from_str(&source.text).map_err(|error| Box::new(mistake(&error))),
            |finding| Err(Box::new(finding)),
        );
        read.map_err(|finding| Rejected::new(source, vec![*finding]))
    }
}

/// Why an agent cannot start from a configuration file.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// It cannot be read.
    #[error("cannot read {path}: {1}", path = .0.display())]
    Unreadable(PathBuf, #[source] std::io::Error),
    /// It is not a configuration.
    #[error(transparent)]
    Malformed(Box<Rejected>),
    /// It would let anybody on the network change this node.
    #[error(
        "{path}: without TLS the agent would obey everybody who reaches {1}; add a [tls] section with the files of \
         `netemctl pki issue`, or listen on 127.0.0.1", path = .0.display()
    )]
    Plain(PathBuf, SocketAddr),
    /// It has certificates and does not use them.
    #[error("{path}: [tls] is for a port, and there is none; add `listen = \"ADDRESS:PORT\"`", path = .0.display())]
    NoPort(PathBuf),
    /// The agent would replace one file by another.
    #[error("{path}: {} and {} are the same file, {file}; give each a path of its own", .names[0], .names[1], path = .path.display(), file = .file.display())]
    SameFile {
        /// The configuration.
        path: PathBuf,
        /// The file.
        file: PathBuf,
        /// What it is to be.
        names: [&'static str; 2],
    },
}

/// What the parser has found, with its place.
fn mistake(error: &toml::de::Error) -> Finding {
    let span = error.span().unwrap_or_default();
    // What is missing is missing from the whole file.
    let is_missing = error.message().starts_with("missing");
    // The parser names the unknown word first, and then all that it knows.
    let mut words = error.message().split('`').skip(1).step_by(2);
    let near = words.next().filter(|_| error.message().starts_with("unknown")).and_then(|word| nearest(word, words));
    Finding::new(if is_missing { span.start..span.start } else { span }, error.message())
        .label(near.map(|word| format!("did you mean `{word}`?")).unwrap_or_default())
        .help("netemctl agent --help shows what the file looks like")
}

/// Where a file is, whatever it is called: its folder without symbolic links, and its name.
fn place(file: &Path) -> PathBuf {
    let file = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
    match (file.parent().and_then(|folder| folder.canonicalize().ok()), file.file_name()) {
        (Some(folder), Some(name)) => folder.join(name),
        _ => file,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, Rejected> {
        Config::parse(Source::new("agent.toml", text))
    }

    #[test]
    fn a_configuration_says_what_the_agent_may_touch() {
        let config = parse("node = 'n1'\ninterfaces = ['db0']\nsocket = '/run/a.sock'").unwrap();
        assert_eq!(config.interfaces, ["db0".parse().unwrap()]);
        assert_eq!(config.journal, None);
        assert_eq!(config.listen, None);
        let config = parse("node = 'n1'\ninterfaces = []\nsocket = '/run/a.sock'\njournal = '/var/n1.json'").unwrap();
        assert_eq!(config.journal, Some("/var/n1.json".into()));
    }

    #[test]
    fn the_port_of_a_network_needs_tls() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("agent.toml");
        let read = |rest: &str| {
            std::fs::write(&file, format!("node = 'n1'\ninterfaces = []\n{rest}")).unwrap();
            Config::read(&file).map_err(|error| error.to_string().replace(&*file.to_string_lossy(), "FILE"))
        };
        let tls = "[tls]\nca = 'tls/ca.pem'\ncert = 'tls/cert.pem'\nkey = '/etc/key.pem'\n";
        for open in ["0.0.0.0:7946", "10.0.0.7:7946", "[::]:7946", "[::ffff:127.0.0.1]:7946"] {
            let error = read(&format!("listen = '{open}'\n")).unwrap_err();
            assert!(error.starts_with("FILE: without TLS the agent would obey everybody who reaches"), "{error}");
            let config = read(&format!("listen = '{open}'\n{tls}")).unwrap();
            let files = config.tls.unwrap();
            assert_eq!(files.cert, folder.path().join("tls/cert.pem"));
            assert_eq!(files.key, Path::new("/etc/key.pem"));
        }
        for local in ["127.0.0.1:7946", "[::1]:7946"] {
            assert!(read(&format!("listen = '{local}'\n")).is_ok());
        }
        let error = read(&format!("socket = '/run/a.sock'\n{tls}")).unwrap_err();
        assert_eq!(error, "FILE: [tls] is for a port, and there is none; add `listen = \"ADDRESS:PORT\"`");
        assert!(read("listen = '127.0.0.1'\n").is_err(), "a port is needed");
        assert!(read("listen = '10.0.0.7:7946'\n[tls]\nca = 'ca.pem'\n").is_err(), "all three files are needed");
    }

    #[test]
    fn a_file_that_the_agent_makes_is_nothing_else_as_well() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("agent.toml");
        std::os::unix::fs::symlink(folder.path(), folder.path().join("link")).unwrap();
        let at = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
        let read = |socket: &str, journal: &str, key: &str| {
            let tls = format!("listen = '10.0.0.7:7946'\n[tls]\nca = 'pem'\ncert = 'pem'\nkey = '{key}'\n");
            let text =
                format!("node = 'n1'\ninterfaces = []\nsocket = '{}'\njournal = '{}'\n", at(socket), at(journal));
            std::fs::write(&file, text + &tls).unwrap();
            Config::read(&file).map(drop).map_err(|error| error.to_string().replace(&at(""), ""))
        };
        read("sock", "journal", "pem").unwrap();
        for (socket, journal, key, names) in [
            ("a", "a", "pem", "`socket` and `journal`"),
            ("link/a", "./a", "pem", "`socket` and `journal`"),
            ("a.lock", "a", "pem", "`socket` and the lock of `journal`"),
            ("a", "agent.toml", "pem", "`journal` and this file"),
            ("a", "b", "b.new", "the new `journal` and `key`"),
        ] {
            let error = read(socket, journal, key).unwrap_err();
            assert!(error.starts_with(&format!("agent.toml: {names} are the same file")), "{error}");
        }
    }

    #[test]
    fn the_config_that_is_shipped_is_one_and_has_every_key() {
        let example = include_str!("../../packaging/agent.toml");
        let config = parse(example).unwrap();
        assert_eq!(config.socket.as_deref(), Some(Path::new("/run/netemctl/agent.sock")));
        assert_eq!((config.listen, config.socket_group, config.allow), (None, None, Vec::new()));
        // What is commented out is as good as what is not.
        let all: String =
            example.lines().map(|line| line.strip_prefix("#:").unwrap_or(line).to_owned() + "\n").collect();
        let config = parse(&all).unwrap();
        assert_eq!(config.socket_group.as_deref(), Some("netemctl"));
        config.check(Path::new("agent.toml")).unwrap();
        // The parser itself knows all keys.
        let known = parse("unknown = 1").unwrap_err().problems()[0].message.clone();
        let known: Vec<&str> = known.split('`').skip(1).step_by(2).filter(|key| *key != "unknown").collect();
        assert!(known.len() > 5, "{known:?}");
        for key in known {
            let is_there = |line: &str| line.starts_with(&format!("{key} =")) || line == format!("[{key}]");
            assert!(all.lines().any(is_there), "{key}");
        }
    }

    #[test]
    fn exceptions_and_what_is_done_about_a_reboot_and_drift_are_named_and_nothing_else_is() {
        let base = "node = 'n1'\nsocket = '/run/a.sock'\ninterfaces = ['db0']\n";
        let usual = parse(base).unwrap();
        assert_eq!((usual.allow, usual.after_reboot, usual.on_drift), (vec![], AfterReboot::Restore, OnDrift::Report));
        let all =
            "allow = ['default-route', 'controller', 'bridge', 'gateway']\nafter-reboot = 'clear'\non-drift = 'repair'";
        let config = parse(&format!("{base}{all}")).unwrap();
        let names = config.allow.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(names, ["default-route", "controller", "bridge", "gateway"]);
        assert_eq!((config.after_reboot, config.on_drift), (AfterReboot::Clear, OnDrift::Repair));
        for other in ["allow = ['everything']", "allow = 'bridge'", "on-drift = 'ignore'", "on_drift = 'repair'"] {
            assert!(parse(&format!("{base}{other}")).is_err(), "{other}");
        }
    }

    #[test]
    fn an_unknown_key_or_an_impossible_interface_is_an_error() {
        let base = "node = 'n1'\nsocket = '/run/a.sock'\n";
        assert!(parse(&format!("{base}interfaces = ['db0']\ninterface = 'db1'")).is_err());
        assert!(parse(&format!("{base}interfaces = ['no/such']")).is_err());
    }
}
