//! Reads the agent's configuration, which limits the changes that controllers can make.

use std::{
    collections::BTreeMap,
    fmt,
    net::SocketAddr,
    ops::Range,
    path::{Path, PathBuf},
    str::FromStr,
};

use thiserror::Error;

use super::journal;
use crate::{
    pki::{TlsFiles, TlsTable},
    plan::IfName,
    topology::{FileKind, FileReport, Finding, NAME_HELP, NodeName, Source, Table, TableEntry, Word},
    wire::OnDrift,
};

/// An agent's configuration file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The node's name.
    pub node: NodeName,
    /// The interfaces that may be shaped.
    pub interfaces: Vec<IfName>,
    /// The Unix socket to listen on, mode 0600. Every user who can open the socket can change this node's network.
    pub socket: Option<PathBuf>,
    /// The group that may also open the socket. The socket's mode is then 0660.
    pub socket_group: Option<String>,
    /// The TCP port to listen on. Without [`tls`](Self::tls) the port must be on the loopback, and every local user can
    /// change this node's network.
    pub listen: Option<SocketAddr>,
    /// The certificate files of the TCP port. Relative paths start at the config's folder.
    pub tls: Option<TlsFiles>,
    /// The journal, from which a restarted agent continues; `None`: a restart loses the state.
    pub journal: Option<PathBuf>,
    /// True for a keeper: an agent that ssh has started, and that exits when it is not needed. The file has no key for
    /// this value.
    pub is_keeper: bool,
    /// Exceptions from the guard, which refuses unsuitable interfaces and addresses.
    pub allow: Vec<Exception>,
    /// The state after a reboot.
    pub after_reboot: AfterReboot,
    /// The reaction to drift.
    pub on_drift: OnDrift,
}

/// An exception from the guard, for all allowed interfaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exception {
    /// The interface, or an interface above it, has a default route, or a default route names no interface.
    DefaultRoute,
    /// The interface, or an interface above it, carries the controller's connection, or a node has the
    /// controller's address.
    Controller,
    /// The interface has ports, as a bridge does (bonds need no exception), or is itself a port of a bridge or a bond.
    Bridge,
    /// A node has the address of the router of a default route.
    Gateway,
}

impl Exception {
    /// All values with their names in the config.
    const ALL: [(&'static str, Self); 4] = [
        ("default-route", Self::DefaultRoute),
        ("controller", Self::Controller),
        ("bridge", Self::Bridge),
        ("gateway", Self::Gateway),
    ];
}

impl fmt::Display for Exception {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Self::ALL.iter().filter(|(_, one)| one == self).try_for_each(|(name, _)| f.write_str(name))
    }
}

/// The state after a reboot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AfterReboot {
    /// The state from before the reboot. Timed changes keep the wall-clock times of their start and end.
    #[default]
    Restore,
    /// No state: the node starts clear.
    Clear,
}

/// All values of `after-reboot` with their names.
const AFTER_REBOOT: [(&str, AfterReboot); 2] = [("restore", AfterReboot::Restore), ("clear", AfterReboot::Clear)];

/// All values of `on-drift` with their names.
const ON_DRIFT: [(&str, OnDrift); 2] = [("report", OnDrift::Report), ("repair", OnDrift::Repair)];

impl Config {
    /// A configuration with defaults, and without a listener.
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
        Self::parse(source).map_err(|rejected| ConfigError::Malformed(Box::new(rejected)))
    }

    /// Reads a configuration's text.
    pub(crate) fn parse(source: Source) -> Result<Self, FileReport> {
        let read = FileKind::AgentConfig.parse(&source.text).and_then(|file| {
            let mut findings = Vec::new();
            let config = read(Table::open("an agent's configuration", file.get_ref()), &source, &mut findings);
            config.filter(|_| findings.is_empty()).ok_or(findings)
        });
        read.map_err(|findings| FileReport::new(source, findings))
    }
}

/// The reason why an agent cannot use a configuration file.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {path}: {1}", path = .0.display())]
    Unreadable(PathBuf, #[source] std::io::Error),
    /// The file is not a valid configuration.
    #[error(transparent)]
    Malformed(Box<FileReport>),
}

/// Reads a configuration from its table. Adds an error to `findings` for each invalid entry.
fn read(mut top: Table<'_>, source: &Source, findings: &mut Vec<Finding>) -> Option<Config> {
    let node = required(&mut top, "node", findings)
        .and_then(|entry| parsed(&entry.string(findings)?, "a node's name", NAME_HELP, findings));
    let interfaces = required(&mut top, "interfaces", findings).and_then(|entry| entry.words(findings));
    let interface = |word: &Word<'_>| {
        let help = "a name has 1 to 15 bytes, and none of them is `/`, `:` or white space";
        parsed(word, "an interface's name", help, findings)
    };
    let interfaces = interfaces.iter().flatten().filter_map(interface).collect();
    let places = ["socket", "socket-group", "listen", "tls", "journal"].map(|key| top.take(key));
    let [socket, group, listen, tls, journal] = places;
    let socket_file = socket.and_then(|entry| entry.file_name(findings));
    let group = group.and_then(|entry| entry.string(findings));
    let address = listen.and_then(|entry| {
        let help = "write an address and a port, as in \"10.0.0.7:20094\" or \"[fd00::7]:20094\"";
        parsed(&entry.string(findings)?, "an address with a port", help, findings)
    });
    findings.extend(listener_finding(socket, listen, address, tls));
    let tls = tls.and_then(|entry| TlsTable::read(entry, findings));
    let journal = journal.and_then(|entry| entry.file_name(findings));
    findings.extend(same_files(socket_file.as_ref(), journal.as_ref(), tls.as_ref(), source));
    let allow = top.take("allow").and_then(|entry| {
        let help = "the choices of `allow` are \"default-route\", \"controller\", \"bridge\", \"gateway\"";
        let words = entry.words(findings)?;
        Some(words.iter().filter_map(|word| entry.choice_of(word, &Exception::ALL, help, findings)).collect())
    });
    let after_reboot = top.take("after-reboot").and_then(|entry| {
        let help = "the choices of `after-reboot` are \"restore\", \"clear\"";
        entry.choice_of(&entry.string(findings)?, &AFTER_REBOOT, help, findings)
    });
    let on_drift = top.take("on-drift").and_then(|entry| {
        let help = "the choices of `on-drift` are \"report\", \"repair\"";
        entry.choice_of(&entry.string(findings)?, &ON_DRIFT, help, findings)
    });
    top.close(findings);
    let path = |word: Word<'_>| PathBuf::from(word.into_inner());
    Some(Config {
        socket: socket_file.map(path),
        socket_group: group.map(|word| (*word.get_ref()).to_owned()),
        listen: address,
        tls: tls.and_then(|tls| tls.files(source)),
        journal: journal.map(path),
        allow: allow.unwrap_or_default(),
        after_reboot: after_reboot.unwrap_or_default(),
        on_drift: on_drift.unwrap_or_default(),
        ..Config::of(node?, interfaces)
    })
}

fn required<'t>(top: &mut Table<'t>, key: &'static str, findings: &mut Vec<Finding>) -> Option<TableEntry<'t>> {
    let entry = top.take(key);
    if entry.is_none() {
        let finding = Finding::new(0..0, format!("an agent's configuration needs `{key}`"));
        finding.help("netemctl agent --help shows what the file looks like").report(findings);
    }
    entry
}

/// Parses a word, or adds an error to `findings`.
fn parsed<T: FromStr>(word: &Word<'_>, what: &str, help: &str, findings: &mut Vec<Finding>) -> Option<T> {
    let parsed = word.get_ref().parse().ok();
    if parsed.is_none() {
        Finding::new(word.span(), format!("`{}` is not {what}", word.get_ref())).help(help).report(findings);
    }
    parsed
}

/// The error of a config that has no listener, has a port beyond the loopback without `tls`, or has `tls` without a
/// port.
fn listener_finding(
    socket: Option<TableEntry<'_>>,
    listen: Option<TableEntry<'_>>,
    address: Option<SocketAddr>,
    tls: Option<TableEntry<'_>>,
) -> Option<Finding> {
    match (listen, tls) {
        (Some(listen), None) => {
            let open = address.filter(|address| !address.ip().is_loopback())?;
            let message = format!("anyone who reaches {open} could change this node: [tls] is missing");
            let help = "add a [tls] section with the files of `netemctl pki issue`, or listen on 127.0.0.1";
            Some(Finding::new(listen.value().span(), message).help(help))
        }
        (None, Some(tls)) => {
            let finding = Finding::new(tls.key_span(), "`tls` is for a port, and there is none");
            Some(finding.help("add `listen = \"ADDRESS:PORT\"`"))
        }
        (None, None) if socket.is_none() => {
            let finding = Finding::new(0..0, "an agent's configuration needs `socket` or `listen`");
            Some(finding.help("write `socket = \"/PATH\"` or `listen = \"ADDRESS:PORT\"`"))
        }
        _ => None,
    }
}

/// The errors of entries that name the same file, if this file is the config itself or a file that the agent creates.
fn same_files(
    socket: Option<&Word<'_>>,
    journal: Option<&Word<'_>>,
    tls: Option<&TlsTable<'_>>,
    source: &Source,
) -> Vec<Finding> {
    let own = |word: &Word<'_>| (PathBuf::from(*word.get_ref()), word.span());
    let beside = |extension| journal.map(|word| (journal::beside(Path::new(*word.get_ref()), extension), word.span()));
    let made = [
        ("this file", Some((PathBuf::from(&source.path), 0..0))),
        ("`socket`", socket.map(own)),
        ("`journal`", journal.map(own)),
        ("the lock of `journal`", beside("lock")),
        ("the new `journal`", beside("new")),
    ];
    let read =
        tls.iter().flat_map(|tls| ["`ca`", "`cert`", "`key`"].into_iter().zip(&tls.files)).map(|(name, word)| {
            (name, word.as_ref().map(|word| (PathBuf::from(source.path_of(word.get_ref())), word.span())), false)
        });
    let mut places: BTreeMap<PathBuf, (&str, Range<usize>)> = BTreeMap::new();
    let mut findings = Vec::new();
    for (name, file, is_made) in made.into_iter().map(|(name, file)| (name, file, true)).chain(read) {
        let Some((file, span)) = file else { continue };
        let place = place(&file);
        if let Some((other, earlier)) = places.get(&place) {
            let finding =
                Finding::new(span, format!("{other} and {name} are the same file")).help("give each a path of its own");
            findings.push(if earlier.is_empty() { finding } else { finding.related(earlier.clone(), *other) });
        } else if is_made {
            places.insert(place, (name, span));
        }
    }
    findings
}

/// The absolute path of a file, with symbolic links in the folder's path resolved if the folder exists.
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

    fn parse(text: &str) -> Result<Config, FileReport> {
        Config::parse(Source::new("agent.toml", text))
    }

    #[test]
    fn a_minimal_configuration_has_defaults() {
        let config = parse("node = 'n1'\ninterfaces = ['db0']\nsocket = '/run/a.sock'").unwrap();
        assert_eq!(config.interfaces, ["db0".parse().unwrap()]);
        assert_eq!(config.journal, None);
        assert_eq!(config.listen, None);
        let config = parse("node = 'n1'\ninterfaces = []\nsocket = '/run/a.sock'\njournal = '/var/n1.json'").unwrap();
        assert_eq!(config.journal, Some("/var/n1.json".into()));
    }

    #[test]
    fn a_port_beyond_the_loopback_needs_tls() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("agent.toml");
        let read = |rest: &str| {
            std::fs::write(&file, format!("node = 'n1'\ninterfaces = []\n{rest}")).unwrap();
            Config::read(&file).map_err(|error| error.to_string().replace(&*file.to_string_lossy(), "FILE"))
        };
        let tls = "[tls]\nca = 'tls/ca.pem'\ncert = 'tls/cert.pem'\nkey = '/etc/key.pem'\n";
        for open in ["0.0.0.0:7946", "10.0.0.7:7946", "[::]:7946", "[::ffff:127.0.0.1]:7946"] {
            let error = read(&format!("listen = '{open}'\n")).unwrap_err();
            assert_eq!(error, format!("FILE:3:10: anyone who reaches {open} could change this node: [tls] is missing"));
            let config = read(&format!("listen = '{open}'\n{tls}")).unwrap();
            let files = config.tls.unwrap();
            assert_eq!(files.cert, folder.path().join("tls/cert.pem"));
            assert_eq!(files.key, Path::new("/etc/key.pem"));
        }
        for local in ["127.0.0.1:7946", "[::1]:7946"] {
            assert!(read(&format!("listen = '{local}'\n")).is_ok());
        }
        let error = read(&format!("socket = '/run/a.sock'\n{tls}")).unwrap_err();
        assert_eq!(error, "FILE:4:2: `tls` is for a port, and there is none");
        assert_eq!(read("").unwrap_err(), "FILE:1:1: an agent's configuration needs `socket` or `listen`");
        assert!(read("listen = '127.0.0.1'\n").is_err(), "a port is needed");
        assert!(read("listen = '10.0.0.7:7946'\n[tls]\nca = 'ca.pem'\n").is_err(), "all three files are needed");
    }

    #[test]
    fn a_file_that_the_agent_creates_cannot_have_the_path_of_another_file() {
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
            ("a", "a", "pem", "4:11: `socket` and `journal`"),
            ("link/a", "./a", "pem", "4:11: `socket` and `journal`"),
            ("a.lock", "a", "pem", "4:11: `socket` and the lock of `journal`"),
            ("a", "agent.toml", "pem", "4:11: this file and `journal`"),
            ("a", "b", "b.new", "9:7: the new `journal` and `key`"),
        ] {
            let error = read(socket, journal, key).unwrap_err();
            assert_eq!(error, format!("agent.toml:{names} are the same file"));
        }
    }

    #[test]
    fn the_shipped_config_is_valid_and_has_every_key() {
        let example = include_str!("../../packaging/agent.toml");
        let config = parse(example).unwrap();
        assert_eq!(config.socket.as_deref(), Some(Path::new("/run/netemctl/agent.sock")));
        assert_eq!((config.listen, config.socket_group, config.allow), (None, None, Vec::new()));
        // Lines that are commented out must be valid too.
        let all: String =
            example.lines().map(|line| line.strip_prefix("#:").unwrap_or(line).to_owned() + "\n").collect();
        let config = parse(&all).unwrap();
        assert_eq!(config.socket_group.as_deref(), Some("netemctl"));
        // The parser's error for an unknown key names all keys.
        let rejected = parse("unknown = 1").unwrap_err();
        let unknown = rejected.problems().iter().find(|problem| problem.message.starts_with("unknown key")).unwrap();
        let known: Vec<&str> = unknown.help.iter().flat_map(|help| help.split('`').skip(1).step_by(2)).collect();
        assert!(known.len() > 5, "{known:?}");
        for key in known {
            let is_there = |line: &str| line.starts_with(&format!("{key} =")) || line == format!("[{key}]");
            assert!(all.lines().any(is_there), "{key}");
        }
    }

    #[test]
    fn allow_after_reboot_and_on_drift_accept_only_their_choices() {
        let base = "node = 'n1'\nsocket = '/run/a.sock'\ninterfaces = ['db0']\n";
        let usual = parse(base).unwrap();
        assert_eq!((usual.allow, usual.after_reboot, usual.on_drift), (vec![], AfterReboot::Restore, OnDrift::Report));
        let all =
            "allow = ['default-route', 'controller', 'bridge', 'gateway']\nafter-reboot = 'clear'\non-drift = 'repair'";
        let config = parse(&format!("{base}{all}")).unwrap();
        let names = config.allow.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(names, ["default-route", "controller", "bridge", "gateway"]);
        assert_eq!((config.after_reboot, config.on_drift), (AfterReboot::Clear, OnDrift::Repair));
        for other in ["allow = ['everything']", "allow = true", "on-drift = 'ignore'", "on_drift = 'repair'"] {
            assert!(parse(&format!("{base}{other}")).is_err(), "{other}");
        }
    }

    #[test]
    fn an_unknown_key_or_an_invalid_interface_name_is_an_error() {
        let base = "node = 'n1'\nsocket = '/run/a.sock'\n";
        assert!(parse(&format!("{base}interfaces = ['db0']\ninterface = 'db1'")).is_err());
        assert!(parse(&format!("{base}interfaces = ['no/such']")).is_err());
    }
}
