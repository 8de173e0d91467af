//! A TCP port of a host: [`HostPort`].

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr},
    str::FromStr,
};

/// The port of agents that listen for HTTPS, unless it is said otherwise: 0x4e7e, the mark of all that is netemctl's.
pub const AGENT_PORT: u16 = 20_094;

/// A port of a host, which is a name or an address; written `n1.example:7946`, `10.0.0.1:7946` or `[fd77::1]:7946`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostPort {
    /// The host, an IPv6 address without its brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl HostPort {
    /// Whether it is of the very machine that connects to it.
    pub fn is_loopback(&self) -> bool {
        self.host == "localhost" || self.host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    }
}

impl FromStr for HostPort {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (host, port) = text.rsplit_once(':').ok_or(())?;
        let port = port.parse().ok().filter(|port| *port > 0).ok_or(())?;
        let host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            Some(address) => address.parse::<Ipv6Addr>().map_err(|_| ())?.to_string(),
            None if is_name(host) => host.to_owned(),
            None => return Err(()),
        };
        Ok(Self { host, port })
    }
}

/// Whether it can be a host's name or its IPv4 address; whether there is such a host is for the resolver to say.
fn is_name(host: &str) -> bool {
    (1..=253).contains(&host.len())
        && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_'))
        && host.starts_with(|first: char| first.is_ascii_alphanumeric())
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_of_a_host_round_trips() {
        for text in ["n1:7946", "n1.example.org:1", "10.0.0.1:65535", "[fd77::1]:7946", "node_1:80"] {
            assert_eq!(text.parse::<HostPort>().map(|address| address.to_string()).as_deref(), Ok(text));
        }
        assert_eq!("[::1]:7946".parse::<HostPort>().unwrap().host, "::1");
    }

    #[test]
    fn what_is_no_port_of_a_host_is_an_error() {
        for text in
            ["", "n1", "n1:", "n1:0", "n1:65536", ":7946", "fd77::1:7946", "[n1]:7946", "a/b:1", "-n:1", "n 1:1"]
        {
            assert_eq!(text.parse::<HostPort>(), Err(()), "{text}");
        }
    }
}
