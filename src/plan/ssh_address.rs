//! Where ssh goes: [`SshAddress`], which can be nothing else than a host on a command line.

use std::{fmt, num::NonZeroU16, str::FromStr};

use super::InventoryError;

/// A host that the user's own ssh reaches, by its name, its address or its alias in their ssh config; written
/// `ssh://[USER@]HOST[:PORT]`, an IPv6 address in brackets.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SshAddress {
    user: Option<String>,
    host: String,
    port: Option<NonZeroU16>,
}

impl SshAddress {
    /// The user to be there, if not the one that ssh chooses.
    pub fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// The host, without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port, if not the one that ssh chooses.
    pub fn port(&self) -> Option<NonZeroU16> {
        self.port
    }

    /// As a person would tell ssh: what comes before the options of one's own.
    pub fn destination(&self) -> String {
        let port = self.port.map(|port| format!("-p {port} ")).unwrap_or_default();
        let user = self.user.as_ref().map(|user| format!("{user}@")).unwrap_or_default();
        format!("{port}{user}{}", self.host)
    }
}

impl FromStr for SshAddress {
    type Err = InventoryError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text).ok_or_else(|| InventoryError::Ssh(text.to_owned()))
    }
}

fn parse(text: &str) -> Option<SshAddress> {
    let rest = text.strip_prefix("ssh://")?;
    // Users of some domains have an @ in their names.
    let (user, rest) = rest.rsplit_once('@').map_or((None, rest), |(user, rest)| (Some(user), rest));
    let (host, port) = if let Some(rest) = rest.strip_prefix('[') {
        let (host, rest) = rest.split_once(']')?;
        let is_sound = host.contains(':') && is_word(host, ".:%_-");
        (Some(host).filter(|_| is_sound)?, Some(rest).filter(|rest| !rest.is_empty()))
    } else {
        let at = rest.find(':').unwrap_or(rest.len());
        let (host, rest) = rest.split_at(at);
        (Some(host).filter(|host| is_word(host, "._-+"))?, Some(rest).filter(|rest| !rest.is_empty()))
    };
    if user.is_some_and(|user| !is_word(user, "._-+@")) {
        return None;
    }
    let port = match port {
        Some(port) => Some(port.strip_prefix(':').filter(|port| !port.starts_with('+'))?.parse().ok()?),
        None => None,
    };
    Some(SshAddress { user: user.map(ToOwned::to_owned), host: host.to_owned(), port })
}

/// Whether it is of letters, digits and those others, and can neither be taken for an option nor mean anything to a
/// shell, through which a user's ssh config may pass it on (`ProxyCommand`).
fn is_word(text: &str, others: &str) -> bool {
    !text.is_empty() && !text.starts_with('-') && text.chars().all(|c| c.is_ascii_alphanumeric() || others.contains(c))
}

impl fmt::Display for SshAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { user, host, port } = self;
        let user = user.as_ref().map(|user| format!("{user}@")).unwrap_or_default();
        let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
        let port = port.map(|port| format!(":{port}")).unwrap_or_default();
        write!(f, "ssh://{user}{host}{port}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_host_with_or_without_a_user_and_a_port_and_round_trips() {
        let read = |text: &str| {
            let address: SshAddress = text.parse().unwrap();
            assert_eq!(address.to_string(), text);
            (address.user().map(ToOwned::to_owned), address.host().to_owned(), address.port().map(NonZeroU16::get))
        };
        assert_eq!(read("ssh://n1"), (None, "n1".into(), None));
        assert_eq!(read("ssh://root@n-1.site:2222"), (Some("root".into()), "n-1.site".into(), Some(2222)));
        assert_eq!(read("ssh://a@b.org@n1"), (Some("a@b.org".into()), "n1".into(), None));
        assert_eq!(read("ssh://root@[fd78::1]:22"), (Some("root".into()), "fd78::1".into(), Some(22)));
        assert_eq!(read("ssh://[fe80::1%eth0]"), (None, "fe80::1%eth0".into(), None));
        assert_eq!("ssh://root@n1:22".parse::<SshAddress>().unwrap().destination(), "-p 22 root@n1");
    }

    #[test]
    fn what_ssh_or_a_shell_would_take_for_something_else_is_no_address() {
        let bad = [
            "",
            "n1",
            "ssh:n1",
            "ssh://",
            "ssh://@n1",
            "ssh://-oProxyCommand=id",
            "ssh://-l@n1",
            "ssh://n1:",
            "ssh://n1:0",
            "ssh://n1:+22",
            "ssh://n1:65536",
            "ssh://n1:22:22",
            "ssh://n1/path",
            "ssh://n 1",
            "ssh://n1;id",
            "ssh://$(id)",
            "ssh://`id`@n1",
            "ssh://n1\n",
            "ssh://fd78::1",
            "ssh://[n1]",
            "ssh://[fd78::1",
            "ssh://[fd78::1]22",
            "ssh://n[1-3]",
        ];
        for text in bad {
            assert_eq!(text.parse::<SshAddress>(), Err(InventoryError::Ssh(text.into())));
        }
    }
}
