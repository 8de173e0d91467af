//! How an agent is reached: the transports, which keys each has, and the address as text that they make.

use std::net::{IpAddr, Ipv6Addr};

use crate::plan::AGENT_PORT;

/// How the controller gets to an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Transport {
    /// A Unix socket of this machine.
    Unix,
    /// HTTPS with mutual TLS: the agent is a service there.
    Https,
    /// SSH, which starts an agent there.
    Ssh,
}

impl Transport {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Unix, Self::Https, Self::Ssh];

    /// Its name in the language.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unix => "unix",
            Self::Https => "https",
            Self::Ssh => "ssh",
        }
    }

    /// Which keys say where the agent is, if it is reached like this.
    pub(super) fn keys(self) -> &'static [&'static str] {
        match self {
            Self::Unix => &["socket"],
            Self::Https => &["host", "port"],
            Self::Ssh => &["host", "port", "user"],
        }
    }

    /// The transports that have a key.
    pub(super) fn with_key(key: &str) -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(move |transport| transport.keys().contains(&key))
    }
}

/// Where an agent is, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reach {
    /// How to get there.
    pub transport: Transport,
    /// The host; by a Unix socket, the path of it.
    pub host: String,
    /// The port, where it is said.
    pub port: Option<u16>,
    /// The user, where one is said.
    pub user: Option<String>,
}

impl Reach {
    /// Reads `https://HOST:PORT`, `ssh://USER@HOST:PORT`, `unix:/PATH`, or a host alone; what is not said is as in
    /// `defaults`, whose host does not count.
    ///
    /// # Errors
    ///
    /// Why there can be no such address, in a few words.
    pub fn parse(text: &str, defaults: &Self) -> Result<Self, String> {
        let parsed = if let Some(path) = text.strip_prefix("unix:") {
            Self { transport: Transport::Unix, host: path.to_owned(), port: None, user: None }
        } else {
            let (transport, rest) = match text.split_once("://") {
                Some(("https", rest)) => (Transport::Https, rest),
                Some(("ssh", rest)) => (Transport::Ssh, rest),
                Some((other, _)) => return Err(format!("there is no transport `{other}`")),
                None => (defaults.transport, text),
            };
            let (user, host) = match rest.rsplit_once('@') {
                Some((user, host)) => (Some(user.to_owned()), host),
                None => (defaults.user.clone().filter(|_| transport == Transport::Ssh), rest),
            };
            let (host, port) = split_port(host)?;
            Self { transport, host: host.to_owned(), port: port.or(defaults.port), user }
        };
        parsed.address()?;
        Ok(parsed)
    }

    /// The agent's address as text.
    ///
    /// # Errors
    ///
    /// Why there can be no such address, in a few words.
    pub fn address(&self) -> Result<String, String> {
        let Self { transport, host, port, user } = self;
        match (transport, user) {
            (Transport::Unix, _) => unix(host),
            (Transport::Https, Some(_)) => Err("HTTPS has no user".to_owned()),
            (Transport::Https, None) => https(host, port.unwrap_or(AGENT_PORT)),
            (Transport::Ssh, user) => {
                user.iter().try_for_each(|user| check_user(user))?;
                ssh(user.as_deref(), host, *port)
            }
        }
    }
}

/// A host and its port, if it has one; an address of IPv6 with a port is in brackets.
fn split_port(text: &str) -> Result<(&str, Option<u16>), String> {
    let bracketed = text.strip_prefix('[').and_then(|rest| rest.split_once(']'));
    let (host, port) = match (bracketed, text.split_once(':')) {
        (Some((host, "")), _) => (host, None),
        (Some((host, rest)), _) => (host, Some(rest.strip_prefix(':').unwrap_or(rest))),
        // More than one colon: an address of IPv6.
        (None, Some((host, port))) if !port.contains(':') => (host, Some(port)),
        _ => (text, None),
    };
    let port =
        port.map(|port| port.parse().ok().filter(|port| *port > 0).ok_or_else(|| format!("`{port}` is no port")));
    Ok((host, port.transpose()?))
}

/// The longest path of a Unix socket (`sun_path`, less its NUL).
const LONGEST_SOCKET: usize = 107;

/// A Unix socket's address as text, or why the path is none.
pub(super) fn unix(socket: &str) -> Result<String, String> {
    if !socket.starts_with('/') {
        return Err("the path of a socket begins with `/`".to_owned());
    }
    if socket.len() > LONGEST_SOCKET {
        return Err(format!("the path of a socket has at most {LONGEST_SOCKET} bytes"));
    }
    Ok(format!("unix:{socket}"))
}

/// The address as text of an agent that listens for HTTPS.
pub(super) fn https(host: &str, port: u16) -> Result<String, String> {
    Ok(format!("https://{}:{port}", bracketed(host)?))
}

/// The address as text of a host that is reached by SSH; without a user or a port, `ssh` and its config know.
pub(super) fn ssh(user: Option<&str>, host: &str, port: Option<u16>) -> Result<String, String> {
    let user = user.map(|user| format!("{user}@")).unwrap_or_default();
    let port = port.map(|port| format!(":{port}")).unwrap_or_default();
    Ok(format!("ssh://{user}{}{port}", bracketed(host)?))
}

/// Checks a name of a user.
pub(super) fn check_user(user: &str) -> Result<(), String> {
    match odd_character(user, "-._+") {
        // `ssh` would take it for an option.
        None if user.starts_with('-') => Err("a user's name does not begin with `-`".to_owned()),
        None => Ok(()),
        Some(odd) => Err(format!("a user's name has no {odd:?}")),
    }
}

/// A host as it stands in a URL.
fn bracketed(host: &str) -> Result<String, String> {
    if let Ok(address) = host.trim_start_matches('[').trim_end_matches(']').parse::<Ipv6Addr>() {
        return Ok(format!("[{address}]"));
    }
    if host.parse::<IpAddr>().is_ok() {
        return Ok(host.to_owned());
    }
    if host.contains("://") || host.contains('@') || host.contains(':') {
        return Err("only the host: `transport`, `user` and `port` are keys of their own".to_owned());
    }
    match odd_character(host, "-._") {
        // `ssh` would take it for an option.
        None if host.is_empty() || host.starts_with(['-', '.']) => {
            Err("a host's name begins with a letter or a digit".to_owned())
        }
        None => Ok(host.to_owned()),
        Some(odd) => Err(format!("a host's name has no {odd:?}")),
    }
}

fn odd_character(text: &str, allowed: &str) -> Option<char> {
    text.chars().find(|character| !character.is_ascii_alphanumeric() && !allowed.contains(*character))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_a_name_or_an_address() {
        assert_eq!(https("n1.example.org", 20_094).as_deref(), Ok("https://n1.example.org:20094"));
        assert_eq!(https("10.0.0.1", 1).as_deref(), Ok("https://10.0.0.1:1"));
        assert_eq!(https("fd00:0::1", 1).as_deref(), Ok("https://[fd00::1]:1"));
        assert_eq!(https("[fd00::1]", 1).as_deref(), Ok("https://[fd00::1]:1"));
        assert_eq!(ssh(None, "n1", None).as_deref(), Ok("ssh://n1"));
        assert_eq!(ssh(Some("root"), "n1", Some(22)).as_deref(), Ok("ssh://root@n1:22"));
        for bad in ["https://n1", "root@n1", "n1:22", "n 1", "-oProxyCommand=x", "n1/x", ".n1"] {
            assert!(ssh(None, bad, None).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_address_is_taken_apart_and_put_together_again() {
        let defaults =
            Reach { transport: Transport::Ssh, host: String::new(), port: None, user: Some("root".to_owned()) };
        let address = |text: &str| Reach::parse(text, &defaults).and_then(|reach| reach.address());
        assert_eq!(address("n1").as_deref(), Ok("ssh://root@n1"));
        assert_eq!(address("n1:2222").as_deref(), Ok("ssh://root@n1:2222"));
        assert_eq!(address("admin@fd00::1").as_deref(), Ok("ssh://admin@[fd00::1]"));
        assert_eq!(address("ssh://[fd00::1]:22").as_deref(), Ok("ssh://root@[fd00::1]:22"));
        assert_eq!(address("https://n1").as_deref(), Ok("https://n1:20094"));
        assert_eq!(address("https://n1:443").as_deref(), Ok("https://n1:443"));
        assert_eq!(address("unix:/run/a.sock").as_deref(), Ok("unix:/run/a.sock"));
        for bad in ["http://n1", "https://root@n1", "n1:0", "n1:x", "n1/x", "", "unix:a", "-x@n1", "[fd00::1]x"] {
            assert!(address(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_ssh_would_take_for_an_option_is_no_user() {
        assert!(check_user("lab-admin").is_ok());
        assert!(check_user("-lroot").is_err());
        assert!(check_user("a b").is_err());
    }
}
