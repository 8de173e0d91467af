//! Parses and prints the address of an agent: [`AgentAddress`].
//!
//! Documents, inventories and command lines use the same parser.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr},
    num::NonZeroU16,
    ops::Range,
    path::PathBuf,
    str::FromStr,
};

use thiserror::Error;

/// The default HTTPS port of agents: 0x4e7e, the same number as the handle of netemctl's root qdisc.
pub const AGENT_PORT: u16 = 20_094;

/// The longest path of a Unix socket in bytes (`sun_path` of unix(7), without the final NUL).
const LONGEST_SOCKET: usize = 107;

/// The longest host name in bytes (RFC 1035).
const LONGEST_HOST: usize = 253;

/// The address of an agent: `unix:/path`, `https://HOST:PORT`, `http://127.0.0.1:PORT` or `ssh://[USER@]HOST[:PORT]`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(with = "String"))]
pub enum AgentAddress {
    /// A Unix socket of this machine.
    Unix(PathBuf),
    /// HTTPS with mutual TLS.
    Https(HostPort),
    /// HTTP without TLS, on this machine only.
    Http(HostPort),
    /// A host on which ssh starts `netemctl agent --stdio`.
    Ssh(SshAddress),
}

/// A TCP port of a host: `n1.example:7946`, `10.0.0.1:7946` or `[fd77::1]:7946`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostPort {
    /// The host name or IP address. An IPv6 address is stored without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

/// The address of a host for the user's ssh: `[USER@]HOST[:PORT]`. The host may be an alias in the user's ssh config.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SshAddress {
    /// The user. `None`: ssh chooses the user.
    pub user: Option<String>,
    /// The host. An IPv6 address is stored without brackets.
    pub host: String,
    /// The port. `None`: ssh chooses the port.
    pub port: Option<NonZeroU16>,
}

/// The transport to an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TransportKind {
    /// A Unix socket of this machine.
    Unix,
    /// HTTPS with mutual TLS.
    Https,
    /// SSH. ssh starts the agent on the host.
    Ssh,
}

/// The default values of the parts that an address on a command line may omit.
#[derive(Clone, Debug)]
pub struct AddressDefaults {
    /// The transport of an address without a scheme.
    pub transport: TransportKind,
    /// The port of an address without a port. `None`: [`AGENT_PORT`] for HTTPS; ssh chooses the port for SSH.
    pub port: Option<u16>,
    /// The user of an SSH address without a user. `None`: ssh chooses the user.
    pub user: Option<String>,
}

/// An error in the address of an agent.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("`{text}` is no agent address: {reason}")]
pub struct AddressError {
    /// The text that was parsed: an address, or only a host, a user or a path.
    text: String,
    /// The range of the wrong bytes in the text.
    pub span: Range<usize>,
    /// The reason why the bytes are wrong.
    pub reason: String,
}

/// An error in a part of an address: the range of the wrong bytes, and the reason.
type Wrong = (Range<usize>, String);

impl TransportKind {
    /// All transports.
    pub const ALL: [Self; 3] = [Self::Unix, Self::Https, Self::Ssh];

    /// The name of the transport in inventories.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unix => "unix",
            Self::Https => "https",
            Self::Ssh => "ssh",
        }
    }
}

impl AgentAddress {
    /// Parses an address. The defaults replace omitted parts.
    pub fn parse(text: &str, defaults: &AddressDefaults) -> Result<Self, AddressError> {
        parse(text, Some(defaults)).map_err(error(text))
    }

    /// The address of the Unix socket with this path. Fails if the path is not absolute, or too long.
    pub fn unix(socket: &str) -> Result<Self, AddressError> {
        parse_socket(socket).map_err(error(socket))
    }

    /// The HTTPS address of a host. Fails if the host is not valid.
    pub fn https(host: &str, port: u16) -> Result<Self, AddressError> {
        let host = parse_host(host, TransportKind::Https).map_err(error(host))?;
        Ok(Self::Https(HostPort { host, port }))
    }

    /// The SSH address of a host. Fails if the host is not valid. With port 0 or no port, ssh chooses the port.
    ///
    /// This function does not check `user`. Callers check `user` with [`check_user`](Self::check_user).
    pub fn ssh(user: Option<&str>, host: &str, port: Option<u16>) -> Result<Self, AddressError> {
        let host = parse_host(host, TransportKind::Ssh).map_err(error(host))?;
        Ok(Self::Ssh(SshAddress { user: user.map(str::to_owned), host, port: port.and_then(NonZeroU16::new) }))
    }

    /// Checks that a user name is valid for ssh.
    pub fn check_user(user: &str) -> Result<(), AddressError> {
        check_user(user).map_err(error(user))
    }

    /// The transport of the address. HTTP counts as HTTPS.
    pub fn transport(&self) -> TransportKind {
        match self {
            Self::Unix(_) => TransportKind::Unix,
            Self::Https(_) | Self::Http(_) => TransportKind::Https,
            Self::Ssh(_) => TransportKind::Ssh,
        }
    }

    /// The host. `None` for a Unix socket.
    pub fn host(&self) -> Option<&str> {
        match self {
            Self::Unix(_) => None,
            Self::Https(HostPort { host, .. })
            | Self::Http(HostPort { host, .. })
            | Self::Ssh(SshAddress { host, .. }) => Some(host),
        }
    }

    /// The port. `None` for a Unix socket, and for an SSH address without a port.
    pub fn port(&self) -> Option<u16> {
        match self {
            Self::Unix(_) => None,
            Self::Https(HostPort { port, .. }) | Self::Http(HostPort { port, .. }) => Some(*port),
            Self::Ssh(SshAddress { port, .. }) => port.map(NonZeroU16::get),
        }
    }
}

impl HostPort {
    /// True if the host is `localhost` or a loopback address.
    pub fn is_loopback(&self) -> bool {
        self.host == "localhost" || self.host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    }
}

impl SshAddress {
    /// The arguments of an ssh command for this address.
    pub fn destination(&self) -> String {
        let port = self.port.map(|port| format!("-p {port} ")).unwrap_or_default();
        let user = self.user.as_ref().map(|user| format!("{user}@")).unwrap_or_default();
        format!("{port}{user}{}", self.host)
    }
}

impl FromStr for AgentAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        parse(text, None).map_err(error(text))
    }
}

const NO_PORT: &str = "the port is missing: write HOST:PORT";

const FORMS: &str = "write https://HOST:PORT, ssh://USER@HOST or unix:/path/of/the/socket";

fn error(text: &str) -> impl FnOnce(Wrong) -> AddressError {
    move |(span, reason)| AddressError { text: text.to_owned(), span, reason }
}

/// Converts an error in a part to an error in the whole text. `offset` is the position of the part in the text.
fn shifted_by(offset: usize) -> impl Fn(Wrong) -> Wrong {
    move |(span, reason)| (span.start + offset..span.end + offset, reason)
}

/// Parses an address. Without defaults, the address must have a scheme, and an HTTP or HTTPS address must have a port.
fn parse(text: &str, defaults: Option<&AddressDefaults>) -> Result<AgentAddress, Wrong> {
    if let Some(path) = text.strip_prefix("unix:") {
        return parse_socket(path).map_err(shifted_by("unix:".len()));
    }
    let (scheme, rest) = text.split_once("://").map_or((None, text), |(scheme, rest)| (Some(scheme), rest));
    let at = text.len() - rest.len();
    let transport = match (scheme, defaults) {
        (Some("https" | "http"), _) => TransportKind::Https,
        (Some("ssh"), _) => TransportKind::Ssh,
        (Some(other), _) => return Err((0..other.len(), format!("there is no transport `{other}`"))),
        (None, Some(defaults)) => defaults.transport,
        (None, None) => return Err((0..text.len(), FORMS.to_owned())),
    };
    if transport == TransportKind::Unix {
        return parse_socket(rest);
    }
    // A user name may contain an @ (`user@domain`), so the last @ separates user and host.
    let (user, authority) = rest.rsplit_once('@').map_or((None, rest), |(user, rest)| (Some(user), rest));
    match (user, transport) {
        (Some(user), TransportKind::Ssh) => check_user(user).map_err(shifted_by(at))?,
        (Some(user), _) => return Err((at..at + user.len() + 1, "HTTPS has no user".to_owned())),
        (None, _) => {}
    }
    let is_complete = scheme.is_some() || defaults.is_none();
    let before = text.len() - authority.len();
    let (host, port) = parse_authority(authority, transport, is_complete).map_err(shifted_by(before))?;
    let port = port.or_else(|| defaults?.port);
    if transport == TransportKind::Ssh {
        let user = user.map(str::to_owned).or_else(|| defaults?.user.clone());
        return Ok(AgentAddress::Ssh(SshAddress { user, host, port: port.and_then(NonZeroU16::new) }));
    }
    let port =
        port.or_else(|| defaults.map(|_| AGENT_PORT)).ok_or_else(|| (text.len()..text.len(), NO_PORT.to_owned()))?;
    let address = HostPort { host, port };
    match scheme {
        Some("http") if address.is_loopback() => Ok(AgentAddress::Http(address)),
        Some("http") => {
            Err((0.."http".len(), "an agent of another machine needs TLS: write https://HOST:PORT".to_owned()))
        }
        _ => Ok(AgentAddress::Https(address)),
    }
}

fn parse_socket(path: &str) -> Result<AgentAddress, Wrong> {
    if !path.starts_with('/') {
        return Err((0..path.len(), "the path of a socket begins with `/`".to_owned()));
    }
    if path.len() > LONGEST_SOCKET {
        return Err((LONGEST_SOCKET..path.len(), format!("the path of a socket has at most {LONGEST_SOCKET} bytes")));
    }
    Ok(AgentAddress::Unix(path.into()))
}

/// Parses `HOST[:PORT]`. An IPv6 address needs brackets if a port follows, or if the whole address has a
/// scheme (`is_complete`).
fn parse_authority(text: &str, transport: TransportKind, is_complete: bool) -> Result<(String, Option<u16>), Wrong> {
    let is_bare_v6 = text.parse::<Ipv6Addr>().is_ok();
    if is_bare_v6 && is_complete {
        return Err((0..text.len(), "an IPv6 address needs brackets".to_owned()));
    }
    let end = match text.find(']') {
        _ if is_bare_v6 => text.len(),
        Some(bracket) if text.starts_with('[') => bracket + 1,
        _ => text.find(':').unwrap_or(text.len()),
    };
    let (host, rest) = text.split_at(end);
    let host = parse_host(host, transport)?;
    if rest.is_empty() {
        return Ok((host, None));
    }
    let digits = rest.strip_prefix(':').filter(|port| port.bytes().all(|byte| byte.is_ascii_digit()));
    match digits.and_then(|digits| digits.parse().ok()).filter(|port| *port > 0) {
        Some(port) => Ok((host, Some(port))),
        None => Err((end..text.len(), format!("`{}` is no port", rest.trim_start_matches(':')))),
    }
}

/// Parses the name or the address of a host. An IPv6 address may have brackets.
///
/// With ssh, an IPv6 address may also have a zone: `fe80::1%eth0`.
fn parse_host(text: &str, transport: TransportKind) -> Result<String, Wrong> {
    let host = text.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let unbracketed = host.unwrap_or(text);
    let (address, zone) = unbracketed.split_once('%').map_or((unbracketed, None), |(a, zone)| (a, Some(zone)));
    match (address.parse::<Ipv6Addr>(), zone) {
        (Ok(address), None) => return Ok(address.to_string()),
        (Ok(address), Some(zone)) if transport == TransportKind::Ssh && odd_character(zone, "._-").is_none() => {
            return Ok(format!("{address}%{zone}"));
        }
        _ if host.is_some() => return Err((1..text.len() - 1, "no IPv6 address is in the brackets".to_owned())),
        _ => {}
    }
    if text.contains(['@', ':']) {
        return Err((0..text.len(), "only the host: `transport`, `user` and `port` are keys of their own".to_owned()));
    }
    // ssh reads a leading `-` as an option.
    if !text.starts_with(|first: char| first.is_ascii_alphanumeric() || first == '_') {
        let end = text.chars().next().map_or(0, char::len_utf8);
        return Err((0..end, "a host's name begins with a letter or a digit".to_owned()));
    }
    if text.len() > LONGEST_HOST {
        return Err((LONGEST_HOST..text.len(), format!("a host's name has at most {LONGEST_HOST} bytes")));
    }
    // ssh may pass the name to a shell (`ProxyCommand` in the user's ssh config).
    match odd_character(text, if transport == TransportKind::Ssh { "-._+" } else { "-._" }) {
        Some((span, odd)) => Err((span, format!("a host's name has no {odd:?}"))),
        None => Ok(text.to_owned()),
    }
}

fn check_user(user: &str) -> Result<(), Wrong> {
    match odd_character(user, "-._+@") {
        Some((span, odd)) => Err((span, format!("a user's name has no {odd:?}"))),
        None if user.is_empty() => Err((0..0, "the user's name is empty".to_owned())),
        // ssh reads a leading `-` as an option.
        None if user.starts_with('-') => Err((0..1, "a user's name does not begin with `-`".to_owned())),
        None => Ok(()),
    }
}

/// Finds the first character that is not allowed, with its range. ASCII letters and digits are always allowed.
fn odd_character(text: &str, allowed: &str) -> Option<(Range<usize>, char)> {
    let (at, odd) = text.char_indices().find(|(_, c)| !c.is_ascii_alphanumeric() && !allowed.contains(*c))?;
    Some((at..at + odd.len_utf8(), odd))
}

crate::topology::json_text!(AgentAddress);

impl fmt::Display for AgentAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Https(address) => write!(f, "https://{address}"),
            Self::Http(address) => write!(f, "http://{address}"),
            Self::Ssh(address) => address.fmt(f),
        }
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", bracketed(&self.host), self.port)
    }
}

impl fmt::Display for SshAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let user = self.user.as_ref().map(|user| format!("{user}@")).unwrap_or_default();
        let port = self.port.map(|port| format!(":{port}")).unwrap_or_default();
        write!(f, "ssh://{user}{}{port}", bracketed(&self.host))
    }
}

fn bracketed(host: &str) -> String {
    if host.contains(':') { format!("[{host}]") } else { host.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<String, AddressError> {
        text.parse::<AgentAddress>().map(|address| address.to_string())
    }

    impl FromStr for SshAddress {
        type Err = AddressError;

        fn from_str(text: &str) -> Result<Self, AddressError> {
            match text.parse()? {
                AgentAddress::Ssh(address) => Ok(address),
                _ => Err(error(text)((0..text.len(), "the transport is not ssh".to_owned()))),
            }
        }
    }

    fn defaults(transport: TransportKind) -> AddressDefaults {
        AddressDefaults { transport, port: None, user: Some("root".to_owned()) }
    }

    #[test]
    fn an_address_round_trips() {
        for text in [
            "unix:/run/n1.sock",
            "https://n1:7946",
            "https://n1.example.org:1",
            "https://10.0.0.1:65535",
            "https://[fd77::1]:7946",
            "https://node_1:80",
            "http://127.0.0.1:7946",
            "http://[::1]:80",
            "ssh://n1",
            "ssh://root@n-1.site:2222",
            "ssh://a@b.org@n1",
            "ssh://root@[fd78::1]:22",
            "ssh://[fe80::1%eth0]",
        ] {
            assert_eq!(read(text).as_deref(), Ok(text));
        }
    }

    #[test]
    fn an_address_has_a_host_a_port_and_a_user() {
        let ssh = |text: &str| match text.parse() {
            Ok(AgentAddress::Ssh(address)) => address,
            other => panic!("{text}: {other:?}"),
        };
        let address = ssh("ssh://a@b.org@n1:22");
        assert_eq!(
            (address.user.as_deref(), &*address.host, address.port),
            (Some("a@b.org"), "n1", NonZeroU16::new(22))
        );
        assert_eq!(ssh("ssh://root@n1:22").destination(), "-p 22 root@n1");
        assert_eq!(ssh("ssh://[fd78::1]").host, "fd78::1");
        let https: AgentAddress = "https://[::1]:7946".parse().unwrap();
        assert_eq!((https.host(), https.port()), (Some("::1"), Some(7946)));
    }

    #[test]
    fn an_address_error_has_the_range_of_the_wrong_bytes() {
        for (text, wrong) in [
            ("https://n1", ""),
            ("https://n1:7946/", ":7946/"),
            ("https://a/b:1", "/"),
            ("https://-n:1", "-"),
            ("https://n 1:1", " "),
            ("https://n1:0", ":0"),
            ("https://n1:65536", ":65536"),
            ("https://:7946", ""),
            ("https://fd77::1:7946", "fd77::1:7946"),
            ("https://[n1]:7946", "n1"),
            ("https://root@n1:1", "root@"),
            ("http://10.0.0.1:7946", "http"),
            ("http://localhost", ""),
            ("HTTPS://n1:7946", "HTTPS"),
            ("n1:7946", "n1:7946"),
            ("unix:n1.sock", "n1.sock"),
            ("/run/n1.sock", "/run/n1.sock"),
            ("", ""),
            ("ssh:n1", "ssh:n1"),
            ("ssh://", ""),
            ("ssh://@n1", ""),
            ("ssh://-oProxyCommand=id", "-"),
            ("ssh://-l@n1", "-"),
            ("ssh://n1:", ":"),
            ("ssh://n1:0", ":0"),
            ("ssh://n1:+22", ":+22"),
            ("ssh://n1:65536", ":65536"),
            ("ssh://n1:22:22", ":22:22"),
            ("ssh://n1/path", "/"),
            ("ssh://n 1", " "),
            ("ssh://n1;id", ";"),
            ("ssh://$(id)", "$"),
            ("ssh://`id`@n1", "`"),
            ("ssh://n1\n", "\n"),
            ("ssh://fd78::1", "fd78::1"),
            ("ssh://[n1]", "n1"),
            ("ssh://[fd78::1", "["),
            ("ssh://[fd78::1]22", "22"),
            ("ssh://n[1-3]", "["),
            ("ssh://.n1", "."),
        ] {
            let error = read(text).unwrap_err();
            assert_eq!(&text[error.span.clone()], wrong, "{error}");
        }
        let longest = format!("unix:/{}", "a".repeat(LONGEST_SOCKET));
        assert_eq!(read(&longest).unwrap_err().span, longest.len() - 1..longest.len());
    }

    #[test]
    fn an_address_on_a_command_line_may_omit_the_defaults() {
        let read =
            |text: &str| AgentAddress::parse(text, &defaults(TransportKind::Ssh)).map(|address| address.to_string());
        assert_eq!(read("n1").as_deref(), Ok("ssh://root@n1"));
        assert_eq!(read("n1:2222").as_deref(), Ok("ssh://root@n1:2222"));
        assert_eq!(read("admin@fd00::1").as_deref(), Ok("ssh://admin@[fd00::1]"));
        assert_eq!(read("ssh://[fd00::1]:22").as_deref(), Ok("ssh://root@[fd00::1]:22"));
        assert_eq!(read("https://n1").as_deref(), Ok("https://n1:20094"));
        assert_eq!(read("https://n1:443").as_deref(), Ok("https://n1:443"));
        assert_eq!(read("unix:/run/a.sock").as_deref(), Ok("unix:/run/a.sock"));
        for bad in ["http://n1", "https://root@n1", "n1:0", "n1:x", "n1/x", "", "unix:a", "-x@n1", "[fd00::1]x"] {
            assert!(read(bad).is_err(), "{bad}");
        }
        assert!(AgentAddress::parse("root@n1", &defaults(TransportKind::Https)).is_err());
    }

    #[test]
    fn an_inventory_host_is_a_name_or_an_ip_address() {
        let https = |host: &str, port| AgentAddress::https(host, port).map(|address| address.to_string());
        assert_eq!(https("n1.example.org", 20_094).as_deref(), Ok("https://n1.example.org:20094"));
        assert_eq!(https("10.0.0.1", 1).as_deref(), Ok("https://10.0.0.1:1"));
        assert_eq!(https("fd00:0::1", 1).as_deref(), Ok("https://[fd00::1]:1"));
        assert_eq!(https("[fd00::1]", 1).as_deref(), Ok("https://[fd00::1]:1"));
        let ssh = |user, host: &str, port| AgentAddress::ssh(user, host, port).map(|address| address.to_string());
        assert_eq!(ssh(None, "n1", None).as_deref(), Ok("ssh://n1"));
        assert_eq!(ssh(Some("root"), "n1", Some(22)).as_deref(), Ok("ssh://root@n1:22"));
        for bad in ["https://n1", "root@n1", "n1:22", "n 1", "-oProxyCommand=x", "n1/x", ".n1"] {
            assert!(ssh(None, bad, None).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_user_name_that_ssh_reads_as_an_option_is_refused() {
        assert!(AgentAddress::check_user("lab-admin").is_ok());
        assert!(AgentAddress::check_user("-lroot").is_err());
        assert!(AgentAddress::check_user("a b").is_err());
    }
}
